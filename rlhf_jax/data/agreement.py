"""How far people agree: with each other, with the majority, with themselves; without JAX."""

from __future__ import annotations

import itertools
from array import array
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from scipy import sparse

from rlhf_jax.data.rows import Comparison, Label, Process, Rating, Row

Judgement = tuple[Hashable, float | str]
"""(what was judged, the verdict)"""
Level = Literal["nominal", "ordinal", "interval"]
NOBODY = -1


class Judged(NamedTuple):
    """J verdicts."""

    unit: np.ndarray
    """[J] int64, the thing that was judged"""
    value: np.ndarray
    """[J] float64, the verdict"""
    who: np.ndarray
    """[J] int64, the person; NOBODY where no name is given: then each is someone else"""

    def only(self, kept: np.ndarray) -> Judged:
        """Those of the verdicts."""
        return Judged(self.unit[kept], self.value[kept], self.who[kept])

    @property
    def first(self) -> np.ndarray:
        """[J] bool: not by a person who had judged the same thing before."""
        out = self.who == NOBODY
        named = np.flatnonzero(~out)
        out[named[grouped(self.unit[named], self.who[named])[0]]] = True
        return out


def grouped(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Equal rows of [J] columns → (first place of each different row, in order, number [J])."""
    order = np.lexsort(columns[::-1])
    new = np.ones(len(order), bool)
    new[1:] = np.any([c[order][1:] != c[order][:-1] for c in columns], axis=0)
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(new) - 1
    return order[new], number


def krippendorff_alpha(unit: np.ndarray, value: np.ndarray, level: Level = "nominal") -> float:
    """Krippendorff's α = 1 − D_o / D_e; NaN where it is not defined.

        D_o = 1/n Σ_u 1/(n_u − 1) Σ_{i≠j∈u} δ²(v_i, v_j),   D_e = 1/(n (n − 1)) Σ_{i≠j} δ²(v_i, v_j)

    over units u with n_u ≥ 2 values, n values in all (Krippendorff 2011, "Computing
    Krippendorff's alpha-reliability"). δ² is 1 between different values (nominal), (v − w)²
    (interval), or the squared difference of their mid-ranks among the n (ordinal). 1 is perfect,
    0 is chance. Not defined without such a unit, or where only one value was ever given.

    Args:
      unit: [J] int, what was judged.
      value: [J] the verdict.
    """
    several = np.unique(unit, return_inverse=True)[1]
    pairable = np.bincount(several, minlength=1)[several] >= 2
    unit, value = np.unique(unit[pairable], return_inverse=True)[1], value[pairable]
    values, place, often = np.unique(value, return_inverse=True, return_counts=True)
    if len(values) < 2:
        return float("nan")
    n, sizes = float(len(unit)), np.bincount(unit).astype(float)
    if level == "nominal":
        cells, counts = np.unique(unit * len(values) + place, return_counts=True)
        inside = sizes**2 - np.bincount(cells // len(values), counts.astype(float) ** 2)
        total = n**2 - (often.astype(float) ** 2).sum()
    else:
        ranks = np.cumsum(often) - often / 2 if level == "ordinal" else values
        x = (ranks - np.dot(ranks, often) / n)[place]
        inside = 2 * (sizes * np.bincount(unit, x**2) - np.bincount(unit, x) ** 2)
        total = 2 * (n * (x**2).sum() - x.sum() ** 2)
    observed = (inside / (sizes - 1)).sum() / n
    return float(1 - observed / (total / (n * (n - 1))))


def judgements(r: Row) -> Iterator[Judgement]:
    """What of an answer can be compared between people: verdicts on the same thing.

    A comparison is a verdict on an unordered pair, a step is judged together with those before
    it. Unanswered comparisons and unlabelled steps are no verdicts.
    """
    about = (type(r).__name__, r.group, r.prompt)
    if isinstance(r, Comparison):
        a, b, label = pair(r)
        if label is not None:
            yield (*about, a, b), label
    elif isinstance(r, Label):
        yield (*about, r.x), r.value
    elif isinstance(r, Rating):
        yield (*about, r.x, r.axis), r.value
    elif isinstance(r, Process):
        before: tuple[str, ...] = ()
        for step in r.path:
            before = (*before, step.text)
            if step.label is not None:
                yield (*about, before), step.label


def pair(r: Comparison) -> tuple[Hashable, Hashable, float | None]:
    """The two samples in an order that does not depend on the display, and P(the first)."""
    a, b = (r.a_id, r.a), (r.b_id, r.b)
    if a <= b:
        return a, b, r.label
    return b, a, None if r.label is None else 1.0 - r.label


class Cycles(NamedTuple):
    triples: int
    """Triples of samples of which every pair has a strict winner."""
    cyclic: int
    """Those in which a beats b, b beats c and c beats a."""


WEDGES = 1 << 22
"""Pairs of pairs with a sample in common that are looked at in one piece"""


def cyclic_triples(
    where: np.ndarray, first: np.ndarray, second: np.ndarray, label: np.ndarray
) -> Cycles:
    """Condorcet cycles among majority votes, per prompt; ties are no votes.

    Let every pair point from the sample that is in fewer pairs to the other, T and H be the 0/1
    matrices of pairs whose tail wins and whose head wins, D = T + H. There are Σ D ∘ D² triples
    with three winners, Σ (H ∘ T² + T ∘ H²) of them cyclic. No sample points to more than √(2 |D|)
    others (Chiba & Nishizeki 1985), so |D| pairs cost no more than |D|^1.5, and a sample with
    which all others were compared costs nothing.

    Args:
      where, first, second: [J] int64, prompt and the two samples, a pair always in one order.
      label: [J] P(the first is better)
    """
    _, number, often = np.unique(where, return_inverse=True, return_counts=True)
    votes = (label != 0.5) & (first != second) & (often[number] >= 3)
    columns = [c[votes] for c in (where, first, second)]
    one, number = grouped(*columns)
    lead = np.bincount(number, np.where(label[votes] > 0.5, 1.0, -1.0), minlength=len(one))
    where, first, second = (c[one[lead != 0]] for c in columns)
    sample = grouped(np.tile(where, 2), np.concatenate([first, second]))[1]
    rank = np.argsort(np.argsort(np.bincount(sample), kind="stable"))
    a, b = rank[sample].reshape(2, -1)
    tail_wins = (lead[lead != 0] > 0) == (a < b)
    ends = np.stack([np.minimum(a, b), np.maximum(a, b)])
    t, h = (_zero_one(ends[:, kept], len(rank)) for kept in (tail_wins, ~tail_wins))
    d = t + h
    triples = cyclic = 0
    for rows in _pieces(d):
        triples += int((d[rows] @ d).multiply(d[rows]).sum())
        cyclic += int((t[rows] @ t).multiply(h[rows]).sum() + (h[rows] @ h).multiply(t[rows]).sum())
    return Cycles(triples, cyclic)


def _zero_one(ends: np.ndarray, size: int) -> sparse.csr_array:
    """[size, size] int64 with ones at the [2, n] places."""
    return sparse.csr_array((np.ones(ends.shape[1], np.int64), ends), shape=(size, size))


def _pieces(d: sparse.csr_array) -> Iterator[slice]:
    """Rows of which D² is made a piece at a time, in bounded memory."""
    done = np.cumsum(d @ np.diff(d.indptr))
    cuts = np.searchsorted(done, np.arange(WEDGES, done[-1:].sum(), WEDGES))
    edges = np.unique([0, *cuts, len(done)]).tolist()
    yield from (slice(*e) for e in itertools.pairwise(edges))


def strict_majority(tally: Counter[float]) -> float | None:
    """The label with more votes than any other; None where the first two are level."""
    top = tally.most_common(2)
    if not top or (len(top) == 2 and top[0][1] == top[1][1]):
        return None
    return top[0][0]


class Agreement(NamedTuple):
    agreed: int
    answers: int

    @property
    def share(self) -> float:
        return self.agreed / self.answers if self.answers else float("nan")


def with_majority_of_others(judged: Judged) -> Agreement:
    """How often a strict answer is what most of the other people said.

    Everybody's first answer about a thing counts. The others' majority counts their ties as
    votes; answers are left out where it is a tie or level, and so are answers that are
    themselves ties. What is left is a forced choice, for which ½ is chance, on the same scale
    as a reward model's accuracy on decided pairs.
    """
    once = judged.only(judged.first)
    unit = np.unique(once.unit, return_inverse=True)[1]
    several = np.bincount(unit, minlength=1)[unit] >= 2
    tallies: dict[int, Counter[float]] = defaultdict(Counter)
    for thing, label in zip(unit[several].tolist(), once.value[several].tolist(), strict=True):
        tallies[thing][label] += 1
    agreed = counted = 0
    for tally in tallies.values():
        for label in (0.0, 1.0):
            majority = strict_majority(tally - Counter({label: 1}))
            if tally[label] and majority in (0.0, 1.0):
                counted += tally[label]
                agreed += tally[label] * (majority == label)
    return Agreement(agreed, counted)


class Verdicts:
    """Gathers verdicts from a stream of answers: 32 bytes each, whatever was judged.

    Things are known by a 64-bit hash: among a million, two are taken for one with a chance of
    3 · 10⁻⁸.
    """

    def __init__(self) -> None:
        self._columns = array("q"), array("d"), array("q"), array("q")
        self._classes: dict[str, int] = {}

    def add(self, judgement: Judgement, who: int, row: int) -> None:
        thing, said = judgement
        if isinstance(said, str):
            said = self._classes.setdefault(said, len(self._classes))
        things, values, people, rows = self._columns
        things.append(hash(thing))
        values.append(said)
        people.append(who)
        rows.append(row)

    @property
    def judged(self) -> Judged:
        return Judged(*(np.array(c) for c in self._columns[:3]))

    @property
    def row(self) -> np.ndarray:
        """[J] int64, the answer that a verdict was part of"""
        return np.array(self._columns[3])
