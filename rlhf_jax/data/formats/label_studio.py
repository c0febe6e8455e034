"""Label Studio's JSON export of a Pairwise project.

The names of a task's data fields are the project's own: by default `prompt`, `text1` (left) and
`text2` (right), else given as {prompt, a, b: name}. An annotation selects 'left' or 'right';
there is no tie. A cancelled annotation is "can't tell". `lead_time` is the seconds spent,
`created_at` the end. Other results of an annotation, predictions and ids stay in `extra`.
https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import dataclasses
from types import NoneType
from typing import Any

from rlhf_jax.data.checks import content, expect, micros, moment, only, pop, same
from rlhf_jax.data.formats.base import Format, Options, by_item
from rlhf_jax.data.formats.trl import written
from rlhf_jax.data.rows import Comparison, Row, dump, extra_of

FIELDS = {"prompt": "prompt", "a": "text1", "b": "text2"}
LABELS = {"left": 1.0, "right": 0.0}
VALUES = {1.0: "left", 0.0: "right"}


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest, names = dict(record), options.names(FIELDS)
    data, annotations = dict(pop(rest, "data", dict)), pop(rest, "annotations", list)
    only(bool(annotations), "the task has no annotations")
    prompt = pop(data, names["prompt"], str, list, default=None)
    a, b = (content(pop(data, names[k], str, list), f"data.{names[k]}") for k in ("a", "b"))
    base = Comparison(
        prompt=() if prompt is None else content(prompt, f"data.{names['prompt']}"),
        item=str(pop(rest, "id", int, str, default="")),
        source="label_studio",
        a=a,
        b=b,
        label=None,
    )
    kept = {"task": rest, "data": data}
    return [_answer(base, v, f"annotations[{i}]", kept) for i, v in enumerate(annotations)]


def _label(results: list[Any], what: str) -> float:
    picked = [r for r in results if isinstance(r, dict) and r.get("type") == "pairwise"]
    only(len(picked) == 1, f"{what}.result has {len(picked)} entries of type 'pairwise', not 1")
    value = dict(expect(picked[0].get("value"), f"{what}.result value", dict))
    side = pop(value, "selected", str)
    only(side in LABELS, f"{what}: selected = {side!r}, expected left or right")
    return LABELS[side]


def _answer(base: Comparison, value: Any, what: str, kept: dict[str, Any]) -> Comparison:
    rest = dict(expect(value, what, dict))
    results = pop(rest, "result", list)
    skipped = pop(rest, "was_cancelled", bool, default=False)
    who = pop(rest, "completed_by", int, str, dict, NoneType, default=None)
    person = str(who.get("email", who.get("id", ""))) if isinstance(who, dict) else who
    when = pop(rest, "created_at", str, NoneType, default=None)
    spent = pop(rest, "lead_time", int, float, NoneType, default=None)
    return dataclasses.replace(
        base,
        label=None if skipped else _label(results, what),
        annotator="" if person is None else str(person),
        end=None if when is None else micros(when, f"{what}.created_at"),
        seconds=None if spent is None else float(spent),
        extra=dump(kept | {"annotation": rest, "result": results, "completed_by": who}),
    )


def _number(name: str) -> int | str:
    """A name as Label Studio wrote it: it counts people and tasks."""
    return int(name) if name.isascii() and name.isdecimal() and str(int(name)) == name else name


def _annotation(row: Comparison) -> dict[str, Any]:
    kept = extra_of(row, "label_studio")
    only(row.label in (0.0, 1.0, None), "a tie or soft label has no place in a Pairwise tag")
    picked = {"from_name": "pairwise", "to_name": "text1,text2", "type": "pairwise"}
    fresh = [] if row.label is None else [picked | {"value": {"selected": VALUES[row.label]}}]
    who = _number(row.annotator) if row.annotator else None
    return {
        "completed_by": kept.get("completed_by", who),
        "result": kept.get("result", fresh),
        "was_cancelled": row.label is None,
        **({} if row.seconds is None else {"lead_time": row.seconds}),
        **({} if row.end is None else {"created_at": moment(row.end).isoformat() + "Z"}),
    } | kept.get("annotation", {})


def write(rows: list[Row], options: Options) -> dict[str, Any]:
    answers = [r for r in rows if isinstance(r, Comparison)]
    same(rows, "prompt", "a", "b")
    row, names = answers[0], options.names(FIELDS)
    kept = extra_of(row, "label_studio")
    prompt = {names["prompt"]: written(row.prompt, "prompt")} if row.prompt else {}
    return {
        **({"id": _number(row.item)} if row.item else {}),
        "data": {**prompt, names["a"]: written(row.a, "a"), names["b"]: written(row.b, "b")}
        | kept.get("data", {}),
        "annotations": [_annotation(r) for r in answers],
    } | kept.get("task", {})


FORMAT = Format(
    "label_studio",
    "left or right by several people, with seconds and times; no ties, reasons or confidence.",
    (Comparison,),
    frozenset({"data", "annotations"}),
    read,
    write,
    by_item,
    as_list=True,
)
