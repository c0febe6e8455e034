"""PRM800K: a rating for every candidate of every step (Lightman et al. 2023, arXiv 2305.20050).

Ratings are −1, 0, +1 or null. Each step has candidates, of which the labeller went on from
`chosen_completion`, or wrote their own (`human_completion`, a right step by definition). A last
step with neither is where a solution ended in an error. `flagged: null` reads as false, a
human completion given as a bare string is written as an object, and times have no zone: UTC.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

from rlhf_jax.data.checks import expect, micros, moment, only, pop
from rlhf_jax.data.formats.base import Format, Options
from rlhf_jax.data.rows import Process, Row, Step, dump, extra_of, plain, text


def _candidate(value: Any, at: int, chosen: bool, what: str) -> Step:
    rest = dict(expect(value, what, dict))
    rating = pop(rest, "rating", int, NoneType)
    only(rating in (-1, 0, 1, None), f"{what}.rating = {rating}, expected −1, 0, 1 or null")
    flagged = bool(pop(rest, "flagged", bool, NoneType, default=None))
    step = Step(at, pop(rest, "text", str), rating, chosen, False, flagged)
    only(not rest, f"{what} has '{next(iter(rest), '')}': only text, rating, flagged can be kept")
    return step


def _steps(value: Any, at: int) -> list[Step]:
    what = f"label.steps[{at}]"
    rest = dict(expect(value, what, dict))
    pool = pop(rest, "completions", list, NoneType, default=None) or []
    chosen = pop(rest, "chosen_completion", int, NoneType)
    only(chosen is None or 0 <= chosen < len(pool), f"{what}.chosen_completion = {chosen}: no such")
    own = pop(rest, "human_completion", str, dict, NoneType, default=None)
    only(chosen is None or own is None, f"{what} has both a chosen and a human completion")
    only(not rest, f"{what} has '{next(iter(rest), '')}': it cannot be kept")
    out = [_candidate(c, at, i == chosen, f"{what}.completions[{i}]") for i, c in enumerate(pool)]
    if own is not None:
        human = {"text": own} if isinstance(own, str) else dict(own)
        rating = human.get("rating")
        only(rating in (1, None), f"{what}.human_completion.rating = {rating}, expected 1 or null")
        out.append(Step(at, pop(human, "text", str), 1, True, True))
    only(bool(out), f"{what} has no completion")
    return out


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    question, label = dict(pop(rest, "question", dict)), dict(pop(rest, "label", dict))
    when = pop(rest, "timestamp", str, NoneType, default=None)
    spent = pop(label, "total_time", int, float, NoneType, default=None)
    steps = [s for i, v in enumerate(pop(label, "steps", list)) for s in _steps(v, i)]
    row = Process(
        prompt=text(pop(question, "problem", str)),
        annotator=pop(rest, "labeler", str, default=""),
        end=None if when is None else micros(when, "field 'timestamp'"),
        seconds=None if spent is None else spent / 1000,
        steps=tuple(steps),
        source="prm800k",
        extra=dump({"record": rest, "question": question, "label": label}),
    )
    return [row]


def _record(steps: list[Step]) -> dict[str, Any]:
    pool, own = [s for s in steps if not s.human], [s for s in steps if s.human]
    chosen = [i for i, s in enumerate(pool) if s.chosen]
    only(len(chosen) + len(own) <= 1, "a step has more than one chosen candidate")
    only(all(s.label == 1 and s.chosen for s in own), "a step written by a person counts as right")
    return {
        "completions": [{"text": s.text, "rating": s.label, "flagged": s.flagged} for s in pool],
        "human_completion": {"text": own[0].text, "rating": None, "source": "human"}
        if own
        else None,
        "chosen_completion": chosen[0] if chosen else None,
    }


def write(rows: list[Row], options: Options) -> dict[str, Any]:
    row = rows[0]
    assert isinstance(row, Process)
    kept = extra_of(row, "prm800k")
    places = sorted({s.at for s in row.steps})
    only(places == list(range(len(places))), "the numbers of the steps have gaps")
    steps = [_record([s for s in row.steps if s.at == i]) for i in places]
    return {
        **({"labeler": row.annotator} if row.annotator else {}),
        **({} if row.end is None else {"timestamp": moment(row.end).isoformat()}),
        **kept.get("record", {}),
        "question": {"problem": plain(row.prompt, "problem")} | kept.get("question", {}),
        "label": {"steps": steps}
        | ({} if row.seconds is None else {"total_time": round(row.seconds * 1000)})
        | kept.get("label", {}),
    }


FORMAT = Format(
    "prm800k",
    "steps with candidates rated −1, 0, +1 by a named labeller, with times; plain text.",
    (Process,),
    frozenset({"question", "label"}),
    read,
    write,
)
