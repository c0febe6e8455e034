"""Comparisons as index arrays, for models that are fitted to them. NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rlhf_jax.data.rows import Comparison, RowError, Text


class Answers(NamedTuple):
    """R answers about P pairs among N samples in G groups, by W people."""

    samples: list[Text]
    """N"""
    groups: list[str]
    """G"""
    people: list[str]
    """W"""
    place: np.ndarray
    """[N] int, group of a sample"""
    a: np.ndarray
    """[P] int, sample"""
    b: np.ndarray
    pair: np.ndarray
    """[R] int, pair of an answer"""
    said: np.ndarray
    """[R] int: 0 a, 1 a tie, 2 b"""
    who: np.ndarray
    """[R] int, person"""

    @property
    def counts(self) -> np.ndarray:
        """[P, 3] float64, how many said a, tie, b"""
        out = np.zeros((len(self.a), 3))
        np.add.at(out, (self.pair, self.said), 1)
        return out


def collect(rows: Sequence[Comparison]) -> Answers:
    """Rows → arrays; everything is numbered in order of appearance.

    Samples are the same if group, prompt, id and text are; a pair and its reverse are one pair,
    and answers are turned to fit. Raises `RowError` for "can't tell" and soft labels: leave
    them out first.
    """
    samples: dict[tuple[str, Text, str, Text], int] = {}
    groups: dict[str, int] = {}
    people: dict[str, int] = {}
    pairs: dict[tuple[int, int], int] = {}
    answers = []
    for i, r in enumerate(rows):
        if r.label not in (0.0, 0.5, 1.0):
            raise RowError(f"answer {i + 1}: label {r.label} is neither a, b nor a tie")
        groups.setdefault(r.group, len(groups))
        first, second = (
            samples.setdefault((r.group, r.prompt, name, x), len(samples))
            for name, x in ((r.a_id, r.a), (r.b_id, r.b))
        )
        said = round(2 - 2 * r.label)
        if (second, first) in pairs and first != second:
            first, second, said = second, first, 2 - said
        pair = pairs.setdefault((first, second), len(pairs))
        answers.append((pair, said, people.setdefault(r.annotator, len(people))))
    ends = np.array(list(pairs), int).reshape(-1, 2)
    told = np.array(answers, int).reshape(-1, 3)
    place = np.array([groups[group] for group, *_ in samples], int)
    texts = [x for *_, x in samples]
    names = list(groups), list(people)
    return Answers(texts, *names, place, ends[:, 0], ends[:, 1], told[:, 0], told[:, 1], told[:, 2])


def peers(answers: Answers, counts: np.ndarray) -> np.ndarray:
    """[R] int: what most others said of the pair, −1 where no label leads.

    Args:
      counts: [P, 3] votes that count; to leave ties out, put zeros in their column.
    """
    others = counts[answers.pair]
    mine = np.arange(len(answers.said)), answers.said
    others[mine] = np.maximum(others[mine] - 1, 0)
    top = others.max(1, initial=0)
    clear = (others == top[:, None]).sum(1) == 1
    return np.where(clear, others.argmax(1), -1)
