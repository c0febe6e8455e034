"""TRL's dataset types with feedback: preference, unpaired preference, stepwise supervision.

Strings ("standard") and lists of messages ("conversational"). None of them can say who
answered, when, or how sure they were, and a preference has no ties and no order of display:
ties, soft labels and "can't tell" are refused, the rest is counted as lost. A field map
{prompt, chosen, rejected: name} reads preferences whose fields are called otherwise.
https://huggingface.co/docs/trl/dataset_formats
"""

from __future__ import annotations

import re
from typing import Any

from rlhf_jax.data.checks import content, expect, messages, only, pop, texts
from rlhf_jax.data.formats import prompts
from rlhf_jax.data.formats.base import Format, Options
from rlhf_jax.data.rows import (
    SAID,
    Comparison,
    Label,
    Process,
    Row,
    Step,
    Text,
    Turn,
    dump,
    extra_of,
    is_plain,
    plain,
    text,
)


def join(prompt: Text, answer: Text) -> Text:
    """The inverse of `split` for one answer."""
    if is_plain(answer):
        before = prompt[0].content if prompt else ""
        only(not prompt or is_plain(prompt), "prompt is a conversation, the answer a string")
        return (Turn("", before + answer[0].content),)
    only(not is_plain(prompt), "prompt is a string, the answer a conversation")
    return prompt + answer


def written(x: Text, what: str) -> str | list[dict[str, str]]:
    """A string, or messages; both are TRL texts, but no text at all is not."""
    only(bool(x), f"{what} is absent")
    only(is_plain(x) or all(t.role for t in x), f"{what} mixes strings and messages")
    return x[0].content if is_plain(x) else messages(x)


TRANSCRIPT = re.compile(r"\s*(Human|Assistant):")
AS_STRINGS = "Human/Assistant transcripts were read as plain strings (--format hh_rlhf reads turns)"


def alike(*parts: Text) -> None:
    kinds = {is_plain(p) for p in parts}
    only(len(kinds) == 1, "strings and conversations are mixed in one record")


def decided(row: Row) -> tuple[Text, Text]:
    """(chosen, rejected) of a strict preference; others are refused."""
    assert isinstance(row, Comparison)
    only(row.label is not None, "'can't tell' has no place in a preference")
    only(row.label != 0.5, "a tie has no place in a preference")
    only(row.label in (0.0, 1.0), f"a soft label ({row.label}) has no place in a preference")
    return (row.a, row.b) if row.label else (row.b, row.a)


def fields_of(row: Row) -> dict[str, Any]:
    """The record's other fields, where it came from TRL."""
    return {k: v for k, v in extra_of(row, "trl").items() if k != SAID}


def read_preference(record: dict[str, Any], options: Options) -> list[Row]:
    """Two answers after a prompt, which is looked for as `prompts.py` says."""
    names = options.names({"prompt": "", "chosen": "chosen", "rejected": "rejected"})
    rest = dict(record)
    chosen, rejected = (
        content(pop(rest, names[k], str, list), f"field '{names[k]}'")
        for k in ("chosen", "rejected")
    )
    alike(chosen, rejected)
    (prompt, a, b), said = prompts.find(rest, chosen, rejected, names["prompt"])
    if "prompt" not in record and all(map(_transcript, (chosen, rejected))):
        said = [*said, AS_STRINGS]
    if "score_chosen" in rest and rest["score_chosen"] == rest.get("score_rejected"):
        said = [*said, "chosen and rejected have the same score"]
    extra = dump(rest | ({SAID: said} if said else {}))
    return [Comparison(prompt=prompt, a=a, b=b, label=1.0, source="trl", extra=extra)]


def _transcript(x: Text) -> bool:
    return is_plain(x) and bool(TRANSCRIPT.match(x[0].content))


def write_preference(rows: list[Row], options: Options) -> dict[str, Any]:
    chosen, rejected = decided(rows[0])
    prompt = rows[0].prompt
    alike(prompt, chosen, rejected)
    return {
        "prompt": written(prompt, "prompt"),
        "chosen": written(chosen, "chosen"),
        "rejected": written(rejected, "rejected"),
    } | fields_of(rows[0])


def write_implicit(rows: list[Row], options: Options) -> dict[str, Any]:
    chosen, rejected = decided(rows[0])
    alike(chosen, rejected)
    return {
        "chosen": written(join(rows[0].prompt, chosen), "chosen"),
        "rejected": written(join(rows[0].prompt, rejected), "rejected"),
    } | fields_of(rows[0])


def read_unpaired(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    prompt = content(pop(rest, "prompt", str, list), "field 'prompt'")
    x = content(pop(rest, "completion", str, list), "field 'completion'")
    alike(prompt, x)
    value = "good" if pop(rest, "label", bool) else "bad"
    return [Label(prompt=prompt, x=x, value=value, source="trl", extra=dump(rest))]


def write_unpaired(rows: list[Row], options: Options) -> dict[str, Any]:
    row = rows[0]
    assert isinstance(row, Label)
    only(row.value in ("good", "bad"), f"class '{row.value}' is neither good nor bad")
    alike(row.prompt, row.x)
    return {
        "prompt": written(row.prompt, "prompt"),
        "completion": written(row.x, "completion"),
        "label": row.value == "good",
    } | fields_of(row)


def read_stepwise(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    prompt = text(pop(rest, "prompt", str))
    steps = texts(pop(rest, "completions", list), "field 'completions'")
    labels = pop(rest, "labels", list)
    only(bool(steps), "field 'completions' is empty")
    only(len(steps) == len(labels), f"{len(steps)} completions but {len(labels)} labels")
    right = [expect(v, f"field 'labels'[{i}]", bool) for i, v in enumerate(labels)]
    made = tuple(
        Step(i, s, 1 if r else -1) for i, (s, r) in enumerate(zip(steps, right, strict=True))
    )
    return [Process(prompt=prompt, steps=made, source="trl", extra=dump(rest))]


def write_stepwise(rows: list[Row], options: Options) -> dict[str, Any]:
    """The path of a solution; alternatives to its steps are counted as lost."""
    row = rows[0]
    assert isinstance(row, Process)
    only(bool(row.steps), "a solution without steps")
    only(all(s.label is not None for s in row.path), "an unlabelled step has no place here")
    only(all(s.label for s in row.path), "a neutral step is neither true nor false")
    return {
        "prompt": plain(row.prompt, "prompt"),
        "completions": [s.text for s in row.path],
        "labels": [s.label == 1 for s in row.path],
    } | fields_of(row)


PREFERENCE = Format(
    "trl_preference",
    "chosen and rejected after a prompt, whatever that is called; no ties, people or times.",
    (Comparison,),
    frozenset({"chosen", "rejected", "prompt"}),
    read_preference,
    write_preference,
)
IMPLICIT = PREFERENCE._replace(
    name="trl_preference_implicit",
    about="chosen and rejected that repeat the prompt; no ties, people or times.",
    marks=frozenset({"chosen", "rejected"}),
    write=write_implicit,
)
UNPAIRED = Format(
    "trl_unpaired",
    "one completion, good or bad; no other classes, people or times.",
    (Label,),
    frozenset({"prompt", "completion", "label"}),
    read_unpaired,
    write_unpaired,
)
STEPWISE = Format(
    "trl_stepwise",
    "steps, each right or wrong; no neutral or unlabelled steps, alternatives, people or times.",
    (Process,),
    frozenset({"prompt", "completions", "labels"}),
    read_stepwise,
    write_stepwise,
)
