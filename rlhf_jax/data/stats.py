"""What a file of feedback says about the people in it."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from rlhf_jax.data.agreement import (
    NOBODY,
    Level,
    Verdicts,
    cyclic_triples,
    grouped,
    judgements,
    krippendorff_alpha,
    pair,
    with_majority_of_others,
)
from rlhf_jax.data.rows import Comparison, Label, Process, Rating, Row, Spans, Text, kind


def characters(x: Text) -> int:
    return sum(len(t.content) for t in x)


def quartiles(values: Any) -> dict[str, float]:
    """Least, quartiles and greatest."""
    names = ("min", "25%", "median", "75%", "max")
    return dict(zip(names, np.percentile(values, [0, 25, 50, 75, 100]).tolist(), strict=True))


def share(part: int, whole: int) -> dict[str, float | None]:
    """A count and the share it is; None of nothing."""
    return {"count": part, "of": whole, "share": part / whole if whole else None}


class _Answers:
    """What answers of one type have in common, from a stream of them; some 100 bytes each."""

    def __init__(self) -> None:
        self.count = 0
        self.groups: set[str] = set()
        self.people: dict[str, int] = {}
        self.who, self.seconds, self.unnamed = array("q"), array("d"), array("q")
        self.verdicts: dict[str, Verdicts] = {}
        """By axis, where ratings have one"""

    def add(self, r: Row) -> None:
        if r.group:
            self.groups.add(r.group)
        who = self.people.setdefault(r.annotator, len(self.people)) if r.annotator else NOBODY
        self.who.append(who)
        if who == NOBODY:
            self.unnamed.append(_hash(r))
        seconds = r.duration
        if seconds is not None:
            self.seconds.append(seconds)
        verdicts = self.verdicts.setdefault(getattr(r, "axis", ""), Verdicts())
        for judgement in judgements(r):
            verdicts.add(judgement, who, self.count)
        self.count += 1

    def original(self) -> np.ndarray:
        """[answers] bool: not a copy, in every field, of an answer before it without a name."""
        who = np.array(self.who)
        unnamed = np.flatnonzero(who == NOBODY)
        out = who != NOBODY
        out[unnamed[grouped(np.array(self.unnamed))[0]]] = True
        return out

    def countable(self, original: np.ndarray) -> np.ndarray:
        """[answers] bool: those that are different people's for all that is known.

        Of answers without a name that are alike nobody knows whether two people gave them or one
        stands twice; to leave out only the copies would leave out those who agree. Where there
        are any, no answer without a name says anything about agreement.
        """
        return original if original.all() else np.array(self.who) != NOBODY

    def summary(self) -> dict[str, Any]:
        original = self.original()
        sizes = {axis: _sizes(v.judged.unit) for axis, v in self.verdicts.items()}
        repeated = sum(int((s >= 2).sum()) for s in sizes.values())
        out: dict[str, Any] = {
            "answers": self.count,
            "groups": len(self.groups),
            "things judged": sum(len(s) for s in sizes.values()),
            "judged more than once": repeated,
            "people": len(self.people),
            "anonymous answers": len(self.unnamed),
        }
        if not original.all():
            out["copies without a name"] = int((~original).sum())
        if self.people:
            named = np.array(self.who)
            out["answers per person"] = quartiles(np.bincount(named[named != NOBODY]))
        if self.seconds:
            out["seconds per answer"] = quartiles(self.seconds)
        if repeated:
            out |= dict(self._alphas(self.countable(original)))
        return out

    def _alphas(self, countable: np.ndarray) -> Iterator[tuple[str, float | None]]:
        for axis, v in self.verdicts.items():
            judged = v.judged.only(countable[v.row])
            judged = judged.only(judged.first)
            level = self.level(judged.value)
            alpha = krippendorff_alpha(judged.unit, judged.value, level)
            name = f"Krippendorff's α ({level})" + (f", {axis}" if axis else "")
            yield name, None if np.isnan(alpha) else alpha

    def level(self, values: np.ndarray) -> Level:
        return "nominal"


def _sizes(unit: np.ndarray) -> np.ndarray:
    return np.unique(unit, return_counts=True)[1]


def _hash(r: Row) -> int:
    """Of every field. Numbers as text: Python hashes −1 and −2 alike."""
    values = (str(v) if isinstance(v, int | float) else v for v in vars(r).values())
    return hash((type(r), *values))


class _Comparisons(_Answers):
    def __init__(self) -> None:
        super().__init__()
        self.labels, self.longer = array("d"), array("b")
        self.several = self.identical = 0
        self.samples = array("q"), array("q"), array("q")

    def add(self, r: Comparison) -> None:  # type: ignore[override]
        super().add(r)
        self.several += len(r.a) > 1 or len(r.b) > 1
        self.identical += r.a == r.b
        a, b, label = pair(r)
        if label is None:
            self.labels.append(np.nan)
            return
        self.labels.append(r.label)  # type: ignore[arg-type]
        self.longer.append(np.sign(characters(r.a) - characters(r.b)))
        for column, what in zip(self.samples, ((r.group, r.prompt), a, b), strict=True):
            column.append(hash(what))

    def level(self, values: np.ndarray) -> Level:
        return "nominal" if np.isin(values, (0, 0.5, 1)).all() else "interval"

    def summary(self) -> dict[str, Any]:
        out = super().summary()
        labels = np.array(self.labels)
        given, longer = labels[~np.isnan(labels)], np.array(self.longer)
        strict = given[given != 0.5]
        unequal = (given != 0.5) & (longer != 0)
        verdicts, original = self.verdicts[""], self.original()
        kept = original[verdicts.row]
        where, a, b = (np.array(c)[kept] for c in self.samples)
        cycles = cyclic_triples(where, a, b, verdicts.judged.value[kept])
        agreement = with_majority_of_others(
            verdicts.judged.only(self.countable(original)[verdicts.row])
        )
        more = {"identical answers": share(self.identical, self.count)} if self.identical else {}
        return out | {
            "unanswered": self.count - len(given),
            "ties": share(len(given) - len(strict), len(given)),
            "first preferred": share(int((strict > 0.5).sum()), len(strict)),
            "longer preferred": share(
                int(((longer > 0) == (given > 0.5))[unequal].sum()), int(unequal.sum())
            ),
            "majority triples": cycles.triples,
            "cyclic": share(cycles.cyclic, cycles.triples),
            "with majority of others": share(agreement.agreed, agreement.answers),
            "answers of several turns": self.several,
            **more,
        }


class _Classes(_Answers):
    def __init__(self) -> None:
        super().__init__()
        self.classes: Counter[str] = Counter()

    def add(self, r: Label) -> None:  # type: ignore[override]
        super().add(r)
        self.classes[r.value] += 1

    def summary(self) -> dict[str, Any]:
        return super().summary() | {"classes": dict(self.classes.most_common())}


class _Ratings(_Answers):
    def __init__(self) -> None:
        super().__init__()
        self.values = array("d")

    def add(self, r: Rating) -> None:  # type: ignore[override]
        super().add(r)
        self.values.append(r.value)

    def level(self, values: np.ndarray) -> Level:
        return "ordinal"

    def summary(self) -> dict[str, Any]:
        return super().summary() | {"values": quartiles(self.values)}


class _Processes(_Answers):
    def __init__(self) -> None:
        super().__init__()
        self.steps = self.candidates = self.wrong = self.open = 0
        self.errors = array("q")

    def add(self, r: Process) -> None:  # type: ignore[override]
        super().add(r)
        labels = [s.label for s in r.path]
        self.steps += len(labels)
        self.candidates += len(r.steps)
        self.wrong += -1 in labels
        self.open += None in labels and -1 not in labels
        if -1 in labels and None not in labels[: labels.index(-1)]:
            self.errors.append(labels.index(-1))

    def summary(self) -> dict[str, Any]:
        return super().summary() | {
            "steps": self.steps,
            "candidates": self.candidates,
            "with an error": share(self.wrong, self.count - self.open),
            **({"partly or not labelled": share(self.open, self.count)} if self.open else {}),
            **({"first error at step": quartiles(self.errors)} if self.errors else {}),
        }


class _Marks(_Answers):
    def __init__(self) -> None:
        super().__init__()
        self.spans: Counter[str] = Counter()
        self.missing: Counter[str] = Counter()

    def add(self, r: Spans) -> None:  # type: ignore[override]
        super().add(r)
        self.spans.update(s.category for s in r.spans)
        self.missing.update(r.missing)

    def summary(self) -> dict[str, Any]:
        return super().summary() | {
            "spans": dict(self.spans.most_common()),
            "missing": dict(self.missing.most_common()),
        }


OF_TYPE: dict[type[Row], type[_Answers]] = {
    Comparison: _Comparisons,
    Label: _Classes,
    Rating: _Ratings,
    Process: _Processes,
    Spans: _Marks,
}


def summary(rows: Iterable[Row]) -> dict[str, Any]:
    """{type: {counts, people, time, agreement, …}} as plain nested dictionaries.

    The rows are seen once and not kept.
    """
    found: dict[str, _Answers] = {}
    for r in rows:
        name = kind(r)
        if name not in found:
            found[name] = OF_TYPE.get(type(r), _Answers)()
        found[name].add(r)
    return {name: answers.summary() for name, answers in found.items()}
