"""UKPConvArg1: which argument convinces more? (Habernal & Gurevych 2016, ACL P16-1150.)

One record is a pair of arguments of one debate and side with the labels of about five workers:
'a1', 'a2' or 'equal', a written reason, accept and submit times (UTC), and the authors' MACE
estimate of the worker's competence. The texts are in a second file, {argument id: text}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

from rlhf_jax.data.checks import expect, micros, moment, only, pop, same
from rlhf_jax.data.formats.base import Format, Options, by_item
from rlhf_jax.data.rows import Comparison, Row, dump, extra_of, plain, text

LABELS = {"a1": 1.0, "a2": 0.0, "equal": 0.5}
VALUES = {v: k for k, v in LABELS.items()}


def _argument(name: str, options: Options) -> str:
    only(bool(options.arguments), "the arguments' texts are in a second file: give --arguments")
    only(name in options.arguments, f"argument '{name}' is not in the arguments file")
    return options.arguments[name]


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    topic, a, b = pop(rest, "topic", str), pop(rest, "a1", str), pop(rest, "a2", str)
    annotations = pop(rest, "annotations", list)
    only(bool(annotations), "field 'annotations' is empty")
    base = Comparison(
        prompt=text(topic),
        item=f"{topic}/{a}/{b}",
        group=pop(rest, "debate", str),
        source="ukpconvarg1",
        a=text(_argument(a, options)),
        b=text(_argument(b, options)),
        a_id=a,
        b_id=b,
        label=None,
    )
    return [_answer(base, v, f"annotations[{i}]", rest) for i, v in enumerate(annotations)]


def _answer(base: Comparison, value: Any, what: str, record: dict[str, Any]) -> Comparison:
    rest = dict(expect(value, what, dict))
    label = pop(rest, "value", str)
    only(label in LABELS, f"{what}.value = {label!r}, expected a1, a2 or equal")
    return dataclasses.replace(
        base,
        label=LABELS[label],
        annotator=pop(rest, "worker", str),
        reason=pop(rest, "reason", str),
        start=micros(pop(rest, "accept", str), f"{what}.accept"),
        end=micros(pop(rest, "submit", str), f"{what}.submit"),
        extra=dump({"record": record, "answer": rest}),
    )


def _stamp(value: int | None, what: str) -> str:
    only(value is not None, f"the {what} time is unknown")
    when = moment(value or 0)
    fraction = f"{when.microsecond:06d}".rstrip("0") or "0"
    return f"{when:%Y-%m-%d %H:%M:%S}.{fraction} UTC"


def _annotation(row: Comparison) -> dict[str, Any]:
    only(row.label in VALUES, "'can't tell' and soft labels have no place here")
    return {
        "worker": row.annotator,
        "value": VALUES[row.label or 0.0],
        "reason": row.reason,
        "accept": _stamp(row.start, "accept"),
        "submit": _stamp(row.end, "submit"),
    } | extra_of(row, "ukpconvarg1").get("answer", {})


def write(rows: list[Row], options: Options) -> dict[str, Any]:
    answers = [r for r in rows if isinstance(r, Comparison)]
    same(rows, "prompt", "a_id", "b_id", "a", "b")
    first = answers[0]
    only(bool(first.a_id and first.b_id), "the arguments have no ids")
    kept = [extra_of(r, "ukpconvarg1").get("record", {}) for r in answers]
    only(all(k == kept[0] for k in kept), "answers about one item differ in 'extra'")
    return {
        "topic": plain(first.prompt, "topic"),
        "debate": first.group,
        "a1": first.a_id,
        "a2": first.b_id,
        "annotations": [_annotation(r) for r in answers],
    } | kept[0]


def gathered(rows: Iterable[Row], arguments: dict[str, str]) -> Iterator[Row]:
    """The rows, while `arguments` becomes the second file: the text of every argument.

    Raises `RowError` if one id names two texts.
    """
    for r in rows:
        if isinstance(r, Comparison):
            for name, x in ((r.a_id, r.a), (r.b_id, r.b)):
                words = plain(x, f"argument '{name}'")
                known = arguments.setdefault(name, words)
                only(known == words, f"there are two arguments '{name}'")
        yield r


FORMAT = Format(
    "ukpconvarg1",
    "comparisons with ties, workers, reasons and times; needs a second file with the arguments.",
    (Comparison,),
    frozenset({"a1", "a2", "annotations"}),
    read,
    write,
    by_item,
)
