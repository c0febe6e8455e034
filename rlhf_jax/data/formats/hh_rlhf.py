"""anthropics/hh-rlhf: two transcripts, '\\n\\nHuman: … \\n\\nAssistant: …', chosen and rejected.

The transcripts are split before the last Assistant turn at which everything earlier is alike:
the prompt is what both begin with. Where they part in that turn, each answer is one turn (or
more, where one dialogue went on longer). Where they part earlier, in a Human turn, the answers
begin with the Assistant turn before it, alike in both, and the comparison is about the dialogues
from there on. Where not even the first Human turn is alike there is no prompt at all. Windows
line ends and transcripts that were stripped of their first line ends are read alike.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from rlhf_jax.data.checks import only, pop
from rlhf_jax.data.formats.base import Format, Options
from rlhf_jax.data.formats.trl import decided
from rlhf_jax.data.rows import Comparison, Row, RowError, Text, Turn, dump, extra_of

MARK = re.compile(r"(\A\s*|\r?\n\r?\n)(Human|Assistant):")
BREAK = "\n\n"
ROLES = {"Human": "user", "Assistant": "assistant"}
NAMES = {v: k for k, v in ROLES.items()}


class Parsed(NamedTuple):
    turns: Text
    unspaced: list[int]
    """Turns without a space after the colon"""
    breaks: list[str]
    """What stands before each turn; empty if that is two line ends everywhere"""


def parse(transcript: str, what: str) -> Parsed:
    """A transcript as turns."""
    before, *parts = MARK.split(transcript)
    only(bool(parts) and not before, f"{what} does not begin with 'Human:' or 'Assistant:'")
    breaks, names, said = parts[::3], parts[1::3], parts[2::3]
    turns = tuple(Turn(ROLES[n], s.removeprefix(" ")) for n, s in zip(names, said, strict=True))
    unspaced = [i for i, s in enumerate(said) if not s.startswith(" ")]
    return Parsed(turns, unspaced, breaks if set(breaks) != {BREAK} else [])


def render(turns: Text, unspaced: list[int], breaks: list[str]) -> str:
    """Turns as a transcript; refuses what would be read back differently."""
    out = []
    for i, (role, said) in enumerate(turns):
        if role not in NAMES:
            raise RowError(f"role '{role}' has no place in a Human/Assistant transcript")
        between = breaks[i] if len(breaks) == len(turns) else BREAK
        out.append(f"{between}{NAMES[role]}:{'' if i in unspaced else ' '}{said}")
    joined = "".join(out)
    only(bool(turns), "a transcript without turns")
    only(parse(joined, "")[0] == turns, "a turn contains '\\n\\nHuman:' or the like itself")
    return joined


def split(chosen: Text, rejected: Text) -> tuple[Text, Text, Text]:
    """(prompt, chosen answer, rejected answer); see the top of this file."""
    cut = 0
    for i, (x, y) in enumerate(zip(chosen, rejected, strict=False)):
        if x.role == y.role == "assistant":
            cut = i
        if x != y:
            break
    return chosen[:cut], chosen[cut:], rejected[cut:]


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    chosen = parse(pop(rest, "chosen", str), "field 'chosen'")
    rejected = parse(pop(rest, "rejected", str), "field 'rejected'")
    prompt, a, b = split(chosen.turns, rejected.turns)
    extra = {"fields": rest, "unspaced": [chosen.unspaced, rejected.unspaced]}
    if chosen.breaks or rejected.breaks:
        extra["breaks"] = [chosen.breaks, rejected.breaks]
    return [Comparison(prompt=prompt, a=a, b=b, label=1.0, source="hh_rlhf", extra=dump(extra))]


def write(rows: list[Row], options: Options) -> dict[str, Any]:
    chosen, rejected = decided(rows[0])
    prompt, extra = rows[0].prompt, extra_of(rows[0], "hh_rlhf")
    unspaced, breaks = (extra.get(k, ([], [])) for k in ("unspaced", "breaks"))
    return {
        "chosen": render(prompt + chosen, unspaced[0], breaks[0]),
        "rejected": render(prompt + rejected, unspaced[1], breaks[1]),
    } | extra.get("fields", {})


FORMAT = Format(
    "hh_rlhf",
    "Human/Assistant transcripts, chosen and rejected; no ties, system turns, people or times.",
    (Comparison,),
    frozenset({"chosen", "rejected"}),
    read,
    write,
)
