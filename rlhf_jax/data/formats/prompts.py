"""Where the prompt of two answers stands: in a field of some name, in both answers, or nowhere.

A field `prompt` is taken as it is, and so is one that others call it by: `question`,
`instruction` (with the `input` that it is about after a blank line), `query`, `problem`,
`input`. A field `system` is a system turn before it, which makes prompt and answers a
conversation. What stands in both answers again is taken off them. Only where no field could be
a prompt is it split off: what two conversations, or two strings, begin with alike. Whatever was
done is said in `extra`.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from rlhf_jax.data.checks import content, expect, only, pop
from rlhf_jax.data.rows import Text, Turn, is_plain, text

NAMES = ("prompt", "question", "instruction", "query", "problem", "input")
ABOUT = {"id", "source", "category", "subset", "dataset", "domain", "language", "model", "split"}
ABOUT |= {"license", "reason", "rationale", "annotator", "generator", "task"}
"""Fields that tell of a record and are no part of it"""
SPLIT = "the prompt was split off where the answers part"
REPEATED = "the prompt stood in both answers again and was taken off them"


class Found(NamedTuple):
    prompt: Text
    a: Text
    b: Text


def split(chosen: Text, rejected: Text) -> Found:
    """An implicit prompt: what two answers begin with alike → (prompt, chosen, rejected).

    Conversations share their leading messages, but at least one stays with each answer.
    Strings share a prefix, cut back to before the last white space, so that no word is split.
    Concatenation gives back what was split.
    """
    if is_plain(chosen) and is_plain(rejected):
        a, b = chosen[0].content, rejected[0].content
        pairs = enumerate(zip(a, b, strict=False))
        shared = a[: next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))]
        cut = max((m.start() for m in re.finditer(r"\s", shared)), default=0)
        return Found(text(shared[:cut]), text(a[cut:]), text(b[cut:]))
    n = 0
    while n < min(len(chosen), len(rejected)) - 1 and chosen[n] == rejected[n]:
        n += 1
    return Found(chosen[:n], chosen[n:], rejected[n:])


def find(rest: dict[str, Any], chosen: Text, rejected: Text, named: str) -> tuple[Found, list[str]]:
    """(prompt and answers, what was done to get them), both answers strings or conversations.

    Args:
      rest: the record's other fields; those that hold the prompt are taken out.
      named: the field that the user says holds it, or ''.
    """
    fields, prompt = _explicit(rest, named)
    system = rest.pop("system") if isinstance(rest.get("system"), str) else None
    if prompt is None and system is None:
        return _implicit(rest, chosen, rejected)
    said = [] if fields == ["prompt"] and system is None else [_of(fields, system)]
    found = Found(prompt or (), chosen, rejected)
    if prompt is not None:
        found, repeated = _once(*found)
        said += [REPEATED] if repeated else []
    return found if system is None else _after(system, found), said


def _of(fields: list[str], system: str | None) -> str:
    every = [*(["system"] if system else []), *fields]
    return "the prompt is of " + ", ".join(f"'{k}'" for k in every)


def _explicit(rest: dict[str, Any], named: str) -> tuple[list[str], Text | None]:
    """(names, prompt) of the fields that hold it, which are taken out."""
    fields = [named] if named else [k for k in NAMES if _filled(rest.get(k))]
    if "prompt" in fields or (not fields and "prompt" in rest):
        fields = ["prompt"]
    if not fields:
        return [], None
    if len(fields) == 2 and fields[1] == "input":
        parts = [expect(rest[k], f"field '{k}'", str) for k in fields]
        for k in fields:
            del rest[k]
        return fields, text("\n\n".join(parts))
    several = " and ".join(f"'{k}'" for k in fields)
    only(len(fields) == 1, f"{several} could each be the prompt: give --field prompt=NAME")
    return fields, content(pop(rest, fields[0], str, list), f"field '{fields[0]}'")


def _filled(value: Any) -> bool:
    return isinstance(value, str | list) and bool(value)


def _once(prompt: Text, a: Text, b: Text) -> tuple[Found, bool]:
    """Prompt and answers in one form, the prompt once; whether it stood in both again."""
    if is_plain(prompt) and is_plain(a):
        words = prompt[0].content
        x, y = a[0].content, b[0].content
        again = len(words.split()) >= 3 and all(
            s.startswith(words) and not re.match(r"\w", s[len(words) :]) for s in (x, y)
        )
        found = Found(prompt, text(x[len(words) :]), text(y[len(words) :]))
        return (found, True) if again else (Found(prompt, a, b), False)
    if is_plain(prompt):
        shared = split(a, b)
        if Turn("user", prompt[0].content) in shared.prompt:
            return shared, True
        only(
            a[0].role == b[0].role == "assistant",
            "the prompt is a string, and the conversations neither repeat it nor answer it",
        )
        return Found((Turn("user", prompt[0].content),), a, b), False
    only(not is_plain(a), "strings and conversations are mixed in one record")
    n = len(prompt)
    again = a[:n] == b[:n] == prompt and len(a) > n < len(b)
    return (Found(prompt, a[n:], b[n:]), True) if again else (Found(prompt, a, b), False)


def _after(system: str, found: Found) -> Found:
    """As a conversation that begins with a system turn, unless that is empty or there is one."""
    prompt, *answers = found
    if is_plain(prompt):
        prompt = (Turn("user", prompt[0].content),)
    a, b = ((Turn("assistant", x[0].content),) if is_plain(x) else x for x in answers)
    if system and not (prompt and prompt[0].role == "system"):
        prompt = (Turn("system", system), *prompt)
    return Found(prompt, a, b)


def _implicit(rest: dict[str, Any], chosen: Text, rejected: Text) -> tuple[Found, list[str]]:
    could = [k for k, v in rest.items() if not _about(k) and _speaks(v)]
    if could and is_plain(chosen):
        why = f"no prompt was split off, '{could[0]}' may be it (--field prompt=NAME says so)"
        return Found(text(""), chosen, rejected), [why]
    found = split(chosen, rejected)
    return found, [SPLIT] if any(t.content for t in found.prompt) else []


def _about(name: str) -> bool:
    return (
        name in ABOUT or name.startswith(("chosen", "rejected")) or name.endswith(("_id", "_model"))
    )


def _speaks(value: Any) -> bool:
    """Whether a value has a text of two words or more somewhere."""
    if isinstance(value, list | dict):
        return any(_speaks(v) for v in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and len(value.split()) > 1
