"""Fine-grained RLHF's development set (Wu et al. 2023, arXiv 2306.01693).

One record is: Spans and a Correction about `prediction 1`, and six Comparisons of the four
predictions in the order 12, 13, 14, 23, 24, 34 (0 tie, 1 first, 2 second).
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from rlhf_jax.data.checks import digest, expect, only, pop, same
from rlhf_jax.data.formats.base import Format, Options, by_item
from rlhf_jax.data.rows import (
    Comparison,
    Correction,
    Row,
    Span,
    Spans,
    dump,
    extra_of,
    plain,
    text,
)

NAMES = tuple(f"prediction {i}" for i in (1, 2, 3, 4))
PAIRS = tuple(combinations(range(4), 2))
LABELS = {0: 0.5, 1: 1.0, 2: 0.0}


def _span(error: Any, i: int, length: int) -> Span:
    rest = dict(expect(error, f"errors[{i}]", dict))
    start, end = pop(rest, "start", int), pop(rest, "end", int)
    only(0 <= start <= end <= length, f"errors[{i}]: [{start}, {end}) is not in 0…{length}")
    span = Span(start, end, pop(rest, "error type", str), pop(rest, "explanation", str, default=""))
    only(not rest, f"errors[{i}] has '{next(iter(rest), '')}': it cannot be kept")
    return span


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    shared: dict[str, Any] = {
        "prompt": text(pop(rest, "question", str)),
        "item": digest(record),
        "source": "finegrained_rlhf",
    }
    predictions = [pop(rest, n, str) for n in NAMES]
    feedback = dict(pop(rest, "feedback", dict))
    choices = pop(rest, "preference", list)
    only(len(choices) == 6, f"field 'preference' has {len(choices)} entries, expected 6")
    only(all(type(c) is int and c in LABELS for c in choices), "'preference' holds 0, 1 or 2 only")
    about: dict[str, Any] = {"x": text(predictions[0]), "x_id": NAMES[0]}
    errors = pop(feedback, "errors", list)
    missing = [dict(expect(m, "missing-info", dict)) for m in pop(feedback, "missing-info", list)]
    spans = Spans(
        **shared,
        **about,
        spans=tuple(_span(e, i, len(predictions[0])) for i, e in enumerate(errors)),
        missing=tuple(pop(m, "error type", str) for m in missing),
        extra=dump({"record": rest, "missing-info": missing}),
    )
    better = text(pop(feedback, "corrected-prediction", str))
    only(not feedback, f"feedback has '{next(iter(feedback), '')}': it cannot be kept")
    compared = [
        Comparison(
            **shared,
            a=text(predictions[i]),
            b=text(predictions[j]),
            a_id=NAMES[i],
            b_id=NAMES[j],
            label=LABELS[c],
        )
        for (i, j), c in zip(PAIRS, choices, strict=True)
    ]
    return [spans, Correction(**shared, **about, better=better), *compared]


def _choices(rows: list[Comparison]) -> tuple[list[str], list[int]]:
    """The four predictions and the six answers about them."""
    found = {(r.a_id, r.b_id): r for r in rows}
    wanted = [(NAMES[i], NAMES[j]) for i, j in PAIRS]
    only(
        sorted(found) == wanted and len(rows) == 6,
        "a record compares each two of 'prediction 1' … 'prediction 4' once",
    )
    back = {v: k for k, v in LABELS.items()}
    only(all(r.label in back for r in rows), "a soft label or 'can't tell' has no place here")
    predictions: dict[str, str] = {}
    for r in rows:
        for name, x in ((r.a_id, r.a), (r.b_id, r.b)):
            words = plain(x, name)
            only(predictions.setdefault(name, words) == words, f"there are two of '{name}'")
    return [predictions[n] for n in NAMES], [back[found[k].label or 0.0] for k in wanted]


def write(rows: list[Row], options: Options) -> dict[str, Any]:
    spans = [r for r in rows if isinstance(r, Spans)]
    repairs = [r for r in rows if isinstance(r, Correction)]
    only(len(spans) == len(repairs) == 1, "a record has one set of spans and one correction")
    same(rows, "prompt")
    predictions, choices = _choices([r for r in rows if isinstance(r, Comparison)])
    row = spans[0]
    only(plain(row.x, NAMES[0]) == predictions[0], "the spans are not about 'prediction 1'")
    only(repairs[0].x == row.x, "the correction is not of 'prediction 1'")
    kept = extra_of(row, "finegrained_rlhf")
    where = kept.get("missing-info", [{} for _ in row.missing])
    only(len(where) == len(row.missing), "'missing' does not fit what 'extra' says of it")
    return {
        "question": plain(row.prompt, "question"),
        **dict(zip(NAMES, predictions, strict=True)),
        "feedback": {
            "errors": [
                {
                    "error type": s.category,
                    "explanation": s.explanation,
                    "start": s.start,
                    "end": s.end,
                }
                for s in row.spans
            ],
            "missing-info": [
                {"error type": m} | w for m, w in zip(row.missing, where, strict=True)
            ],
            "corrected-prediction": plain(repairs[0].better, "corrected-prediction"),
        },
        "preference": choices,
    } | kept.get("record", {})


FORMAT = Format(
    "finegrained_rlhf",
    "error spans, a correction and six comparisons of four predictions; no people or times.",
    (Spans, Correction, Comparison),
    frozenset({"question", "feedback", "preference"}),
    read,
    write,
    by_item,
)
