"""Label Studio's JSON export of a Pairwise project, and JSON_MIN, one flat record an answer.

The names of a task's data fields are the project's own: by default `prompt`, `text1` and
`text2`, else given as {prompt, a, b: name}. An annotation selects 'left' or 'right': the first
or second of the fields that its `to_name` lists, where it lists these two. The Pairwise tag has
no tie; a choice 'tie' beside it, or as {tie: name} calls it, is one. An annotation that was
cancelled, or submitted without a choice, is "can't tell"; a task without annotations has no
answers. `lead_time` is the seconds spent, `created_at` the end. Other results of an annotation,
predictions and ids stay in `extra`. Projects of ratings or rankings are refused.
https://labelstud.io/guide/task_format
"""

from __future__ import annotations

import dataclasses
from types import NoneType
from typing import Any

from rlhf_jax.data.checks import content, expect, micros, moment, only, pop, same
from rlhf_jax.data.formats.base import Format, Options, by_item
from rlhf_jax.data.formats.trl import written
from rlhf_jax.data.rows import SAID, Comparison, Row, dump, extra_of

FIELDS = {"prompt": "prompt", "a": "text1", "b": "text2", "tie": "tie"}
LABELS = {"left": 1.0, "right": 0.0}
VALUES = {1.0: "left", 0.0: "right"}
TRUTH = "an annotation marked as ground truth counts like the others"


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest, names = dict(record), options.names(FIELDS)
    data, annotations = dict(pop(rest, "data", dict)), pop(rest, "annotations", list)
    for i, v in enumerate(annotations):
        _readable(expect(v, f"annotations[{i}]", dict).get("result"), f"annotations[{i}]")
    base = _task(data, rest, names)
    kept = {"task": rest, "data": data}
    return [_answer(base, v, f"annotations[{i}]", kept, names) for i, v in enumerate(annotations)]


def _readable(results: Any, what: str) -> None:
    kinds = {r.get("type") for r in expect(results, f"{what}.result", list) if isinstance(r, dict)}
    other = sorted(str(k) for k in kinds - {"pairwise", "choices"})
    only(
        "pairwise" in kinds or not other,
        f"{what} has results of type {', '.join(other)}: only pairwise ones are read",
    )


def _task(data: dict[str, Any], rest: dict[str, Any], names: dict[str, str]) -> Comparison:
    """A comparison without an answer; its texts are taken out of `data`."""
    prompt = pop(data, names["prompt"], str, list, default=None)
    a, b = (content(pop(data, names[k], str, list), f"data.{names[k]}") for k in ("a", "b"))
    return Comparison(
        prompt=() if prompt is None else content(prompt, f"data.{names['prompt']}"),
        item=str(pop(rest, "id", int, str, default="")),
        source="label_studio",
        a=a,
        b=b,
        label=None,
    )


def _label(results: list[Any], names: dict[str, str], what: str) -> float | None:
    found = [r for r in results if isinstance(r, dict)]
    picked = [r for r in found if r.get("type") == "pairwise"]
    ties = [r for r in found if r.get("type") == "choices" and _is_tie(r, names["tie"])]
    if not found:
        return None
    only(
        len(picked) + len(ties) == 1,
        f"{what}.result has {len(picked)} entries of type 'pairwise' and {len(ties)} choices "
        f"'{names['tie']}', not one of either (--field tie=NAME names the choice)",
    )
    if ties:
        return 0.5
    value = dict(expect(picked[0].get("value"), f"{what}.result value", dict))
    side = pop(value, "selected", str)
    only(side in LABELS, f"{what}: selected = {side!r}, expected left or right")
    shown = str(picked[0].get("to_name", "")).split(",")
    turned = shown == [names["b"], names["a"]]
    return 1.0 - LABELS[side] if turned else LABELS[side]


def _is_tie(result: dict[str, Any], name: str) -> bool:
    value = result.get("value")
    chosen = value.get("choices") if isinstance(value, dict) else None
    return isinstance(chosen, list) and [str(c).lower() for c in chosen] == [name.lower()]


def _answer(
    base: Comparison, value: Any, what: str, kept: dict[str, Any], names: dict[str, str]
) -> Comparison:
    rest = dict(expect(value, what, dict))
    results = pop(rest, "result", list)
    skipped = pop(rest, "was_cancelled", bool, default=False)
    who = pop(rest, "completed_by", int, str, dict, NoneType, default=None)
    person = str(who.get("email", who.get("id", ""))) if isinstance(who, dict) else who
    when = pop(rest, "created_at", str, NoneType, default=None)
    spent = pop(rest, "lead_time", int, float, NoneType, default=None)
    more: dict[str, Any] = {} if skipped or results else {"was_cancelled": False}
    more |= {SAID: [TRUTH]} if rest.get("ground_truth") is True else {}
    return dataclasses.replace(
        base,
        label=None if skipped else _label(results, names, what),
        annotator="" if person is None else str(person),
        end=None if when is None else micros(when, f"{what}.created_at"),
        seconds=None if spent is None else float(spent),
        extra=dump(kept | {"annotation": rest, "result": results, "completed_by": who, **more}),
    )


def _number(name: str) -> int | str:
    """A name as Label Studio wrote it: it counts people and tasks."""
    return int(name) if name.isascii() and name.isdecimal() and str(int(name)) == name else name


def _annotation(row: Comparison, names: dict[str, str]) -> dict[str, Any]:
    kept = extra_of(row, "label_studio")
    only(row.label in (0.0, 0.5, 1.0, None), "a soft label has no place in a Pairwise tag")
    where = {"from_name": "pairwise", "to_name": f"{names['a']},{names['b']}", "type": "pairwise"}
    fresh: list[Any] = []
    if row.label == 0.5:
        where = {"from_name": "tie", "to_name": names["a"], "type": "choices"}
        fresh = [where | {"value": {"choices": [names["tie"]]}}]
    elif row.label is not None:
        fresh = [where | {"value": {"selected": VALUES[row.label]}}]
    who = _number(row.annotator) if row.annotator else None
    return {
        "completed_by": kept.get("completed_by", who),
        "result": kept.get("result", fresh),
        "was_cancelled": kept.get("was_cancelled", row.label is None),
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
        "annotations": [_annotation(r, names) for r in answers],
    } | kept.get("task", {})


def read_min(record: dict[str, Any], options: Options) -> list[Row]:
    rest, names = dict(record), options.names(FIELDS)
    when = pop(rest, "created_at", str, NoneType, default=None)
    spent = pop(rest, "lead_time", int, float, NoneType, default=None)
    who = pop(rest, "annotator", int, str, NoneType)
    only("annotation_id" in rest, "field 'annotation_id' is missing")
    expect(rest["annotation_id"], "field 'annotation_id'", int, NoneType)
    base = _task(rest, rest, names)
    asked = [k for k, v in rest.items() if v in (*LABELS, names["tie"])]
    only(len(asked) == 1, f"{len(asked)} fields say left, right or {names['tie']}, expected one")
    said = rest.pop(asked[0])
    return [
        dataclasses.replace(
            base,
            label=LABELS.get(said, 0.5),
            annotator="" if who is None else str(who),
            end=None if when is None else micros(when, "field 'created_at'"),
            seconds=None if spent is None else float(spent),
            source="label_studio_min",
            extra=dump({"record": rest, "question": asked[0]}),
        )
    ]


def write_min(rows: list[Row], options: Options) -> dict[str, Any]:
    row, names = rows[0], options.names(FIELDS)
    assert isinstance(row, Comparison)
    kept = extra_of(row, "label_studio_min")
    said = VALUES | {0.5: names["tie"]}
    only(row.label in said, "'can't tell' and soft labels have no place here")
    return {
        **({names["prompt"]: written(row.prompt, "prompt")} if row.prompt else {}),
        names["a"]: written(row.a, "a"),
        names["b"]: written(row.b, "b"),
        **({"id": _number(row.item)} if row.item else {}),
        kept.get("question", "pairwise"): said[row.label or 0.0],
        "annotator": _number(row.annotator) if row.annotator else None,
        **({} if row.end is None else {"created_at": moment(row.end).isoformat() + "Z"}),
        "lead_time": row.seconds,
    } | kept.get("record", {"annotation_id": None})


FORMAT = Format(
    "label_studio",
    "left, right or a tie by several people, with seconds and times; no reasons or confidence.",
    (Comparison,),
    frozenset({"data", "annotations"}),
    read,
    write,
    by_item,
    as_list=True,
)
MIN = FORMAT._replace(
    name="label_studio_min",
    about="JSON_MIN: left, right or a tie by one person a record; no skips, reasons or confidence.",
    marks=frozenset({"annotator", "annotation_id"}),
    read=read_min,
    write=write_min,
    key=None,
)
