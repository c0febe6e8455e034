"""What a file of feedback says about the people in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from rlhf_jax.data.agreement import (
    count_table,
    cyclic_triples,
    judgements,
    krippendorff_alpha,
    with_majority_of_others,
)
from rlhf_jax.data.rows import Comparison, Label, Process, Rating, Row, Spans, Text, kind


def characters(x: Text) -> int:
    return sum(len(t.content) for t in x)


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Least, quartiles and greatest."""
    names = ("min", "25%", "median", "75%", "max")
    return dict(zip(names, np.percentile(values, [0, 25, 50, 75, 100]).tolist(), strict=True))


def _comparisons(rows: list[Comparison]) -> dict[str, Any]:
    given = [r for r in rows if r.label is not None]
    strict = [r for r in given if r.label != 0.5]
    longer = [
        (characters(r.a) > characters(r.b)) == (r.label > 0.5)  # type: ignore[operator]
        for r in strict
        if characters(r.a) != characters(r.b)
    ]
    cycles, agreement = cyclic_triples(given), with_majority_of_others(given)
    return {
        "unanswered": len(rows) - len(given),
        "ties": share(len(given) - len(strict), len(given)),
        "first preferred": share(sum(r.label > 0.5 for r in strict), len(strict)),  # type: ignore[operator]
        "longer preferred": share(sum(longer), len(longer)),
        "majority triples": cycles.triples,
        "cyclic": share(cycles.cyclic, cycles.triples),
        "with majority of others": share(agreement.agreed, agreement.answers),
        "answers of several turns": sum(len(r.a) > 1 or len(r.b) > 1 for r in rows),
    }


def share(part: int, whole: int) -> dict[str, float | None]:
    """A count and the share it is; None of nothing."""
    return {"count": part, "of": whole, "share": part / whole if whole else None}


def _processes(rows: list[Process]) -> dict[str, Any]:
    errors = [r.first_error for r in rows]
    wrong = [e for e in errors if e is not None]
    return {
        "steps": sum(len(r.path) for r in rows),
        "candidates": sum(len(r.steps) for r in rows),
        "with an error": share(len(wrong), len(rows)),
        **({"first error at step": quartiles(wrong)} if wrong else {}),
    }


def _spans(rows: list[Spans]) -> dict[str, Any]:
    return {
        "spans": dict(Counter(s.category for r in rows for s in r.spans).most_common()),
        "missing": dict(Counter(m for r in rows for m in r.missing).most_common()),
    }


def _of_kind(rows: list[Any]) -> dict[str, Any]:
    if isinstance(rows[0], Comparison):
        return _comparisons(rows)
    if isinstance(rows[0], Label):
        return {"classes": dict(Counter(r.value for r in rows).most_common())}
    if isinstance(rows[0], Rating):
        return {"values": quartiles([r.value for r in rows])}
    if isinstance(rows[0], Process):
        return _processes(rows)
    if isinstance(rows[0], Spans):
        return _spans(rows)
    return {}


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """{type: {counts, people, time, agreement, …}} as plain nested dictionaries."""
    by_kind: dict[str, list[Row]] = {}
    for r in rows:
        by_kind.setdefault(kind(r), []).append(r)
    return {name: _common(group) | _of_kind(group) for name, group in by_kind.items()}


def _common(rows: list[Row]) -> dict[str, Any]:
    people = Counter(r.annotator for r in rows if r.annotator)
    seconds = [r.duration for r in rows if r.duration is not None]
    table = count_table(judgements(rows))
    repeated = int((table.sum(1) >= 2).sum()) if table.size else 0
    out: dict[str, Any] = {
        "answers": len(rows),
        "groups": len({r.group for r in rows if r.group}),
        "things judged": len(table),
        "judged more than once": repeated,
        "people": len(people),
        "anonymous answers": sum(not r.annotator for r in rows),
    }
    if people:
        out["answers per person"] = quartiles(list(people.values()))
    if seconds:
        out["seconds per answer"] = quartiles(seconds)
    if repeated:
        alpha = krippendorff_alpha(table)
        out["Krippendorff's α"] = None if np.isnan(alpha) else alpha
    return out
