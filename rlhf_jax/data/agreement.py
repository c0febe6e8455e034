"""How far people agree: with each other, with the majority, with themselves. NumPy only."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from typing import NamedTuple

import numpy as np

from rlhf_jax.data.rows import Comparison, Label, Process, Rating, Row

Judgement = tuple[Hashable, Hashable]
"""(what was judged, the verdict)"""


def krippendorff_alpha(counts: np.ndarray) -> float:
    """Krippendorff's α for nominal labels, 1 − D_o / D_e; NaN where it is not defined.

        D_o = 1/n  Σ_u Σ_{c≠k} n_uc n_uk / (n_u − 1),   D_e = 1/(n (n − 1)) Σ_{c≠k} n_c n_k

    over units u with n_u ≥ 2 labels, n labels in all (Krippendorff 2011, "Computing
    Krippendorff's alpha-reliability"). 1 is perfect, 0 is chance. Not defined without such a
    unit, or where only one category was ever used.

    Args:
      counts: [units, categories] ≥ 0, how often each unit got each label.
    """
    counts = np.asarray(counts, np.float64)
    counts = counts[counts.sum(1) >= 2]
    per_unit, per_category, n = counts.sum(1), counts.sum(0), counts.sum()
    disagreeing = per_unit**2 - (counts**2).sum(1)
    by_chance = n**2 - (per_category**2).sum()
    if by_chance == 0:
        return float("nan")
    observed = (disagreeing / (per_unit - 1)).sum() / n
    return float(1 - observed / (by_chance / (n * (n - 1))))


def count_table(judgements: Iterable[Judgement]) -> np.ndarray:
    """[units, categories] counts of (unit, category) pairs, both in order of appearance."""
    units: dict[Hashable, int] = {}
    categories: dict[Hashable, int] = {}
    pairs = [
        (units.setdefault(u, len(units)), categories.setdefault(c, len(categories)))
        for u, c in judgements
    ]
    table = np.zeros((len(units), len(categories)), np.int64)
    if pairs:
        np.add.at(table, tuple(np.array(pairs).T), 1)
    return table


def judgements(rows: Iterable[Row]) -> list[Judgement]:
    """What of the rows can be compared between people: nominal verdicts on the same thing.

    A comparison is a verdict on an unordered pair, a step is judged together with those before
    it. Unanswered comparisons and unlabelled steps are no verdicts.
    """
    out: list[Judgement] = []
    for r in rows:
        about = (type(r).__name__, r.group, r.prompt)
        if isinstance(r, Comparison) and r.label is not None:
            a, b, label = _pair(r)
            out.append(((*about, a, b), label))
        elif isinstance(r, Label):
            out.append(((*about, r.x), r.value))
        elif isinstance(r, Rating):
            out.append(((*about, r.x, r.axis), r.value))
        elif isinstance(r, Process):
            before: tuple[str, ...] = ()
            for step in r.path:
                before = (*before, step.text)
                if step.label is not None:
                    out.append(((*about, before), step.label))
    return out


def _pair(r: Comparison) -> tuple[Hashable, Hashable, float | None]:
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


def cyclic_triples(rows: Iterable[Comparison]) -> Cycles:
    """Condorcet cycles among majority votes, per prompt; ties are no votes.

    With A the 0/1 matrix of majority wins and U = A + Aᵀ there are tr U³ / 6 triples with three
    winners, tr A³ / 3 of them cyclic.
    """
    votes: dict[tuple[Hashable, Hashable, Hashable], Counter[float]] = defaultdict(Counter)
    for r in rows:
        a, b, label = _pair(r)
        if label is not None and label != 0.5 and a != b:
            votes[((r.group, r.prompt), a, b)][float(label > 0.5)] += 1
    wins: dict[Hashable, list[tuple[Hashable, Hashable]]] = defaultdict(list)
    for (where, a, b), tally in votes.items():
        winner = strict_majority(tally)
        if winner is not None:
            wins[where].append((a, b) if winner else (b, a))
    triples = cyclic = 0
    for pairs in wins.values():
        names = {n: i for i, n in enumerate(dict.fromkeys(n for p in pairs for n in p))}
        beats = np.zeros((len(names), len(names)))
        for better, worse in pairs:
            beats[names[better], names[worse]] = 1
        either = beats + beats.T
        triples += round(float(np.trace(either @ either @ either)) / 6)
        cyclic += round(float(np.trace(beats @ beats @ beats)) / 3)
    return Cycles(triples, cyclic)


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


def with_majority_of_others(rows: Iterable[Comparison]) -> Agreement:
    """How often a strict answer is what most of the other people said.

    The others' majority counts their ties as votes; answers are left out where it is a tie or
    level, and so are answers that are themselves ties. What is left is a forced choice, for
    which ½ is chance, on the same scale as a reward model's accuracy on decided pairs.
    """
    votes: dict[Hashable, Counter[float]] = defaultdict(Counter)
    answers: list[tuple[Hashable, float]] = []
    for r in rows:
        a, b, label = _pair(r)
        if label is not None:
            answers.append(((r.group, r.prompt, a, b), label))
            votes[answers[-1][0]][label] += 1
    agreed = counted = 0
    for unit, label in answers:
        majority = strict_majority(votes[unit] - Counter({label: 1}))
        if label in (0.0, 1.0) and majority in (0.0, 1.0):
            counted += 1
            agreed += majority == label
    return Agreement(agreed, counted)
