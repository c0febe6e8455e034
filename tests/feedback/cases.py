"""Every type with finitely many answers, in one form: values [N, n] → answers [N, …]."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.feedback import (
    best_worst,
    comparison,
    correction,
    demonstration,
    label,
    language,
    likert,
    process,
    ranking,
    span,
)
from rlhf_jax.humans import Human


class Case(NamedTuple):
    size: int
    answers: np.ndarray
    """all that can be answered, [O, …]"""
    draw: Callable
    """(human, values [N, n], key) → answers [N, …]"""
    nll: Callable
    """(human, values [N, n], answers [N, …]) → [N]"""


def full(values, x):
    return jnp.broadcast_to(jnp.asarray(x), (*values.shape[:-1], len(x)))


DISTANCE = np.asarray([0.0, 1.0, 2.0], np.float32)
STEPS = np.asarray([True, True, False])
EVERY = np.asarray([True, True])
PARTS = np.asarray([True, False])
LOG_Q = np.full(4, -np.log(4.0), np.float32)


def demonstrated(h, v, k):
    one = lambda v, k: demonstration.loss(v[k][None], v, jnp.asarray(LOG_Q), h)[0]
    return jax.vmap(one)(v, k)


def spans_of(v):
    return v.reshape(*v.shape[:-1], 2, 2)


CASES: dict[str, Case] = {
    "comparison": Case(
        2,
        np.asarray([1.0, 0.5, 0.0], np.float32),
        lambda h, v, key: comparison.elicit(h, v[:, 0], v[:, 1], key),
        lambda h, v, y: comparison.loss(v[:, 0], v[:, 1], y, h),
    ),
    "ranking": Case(
        3,
        np.asarray(list(itertools.permutations(range(3))), np.int32),
        ranking.elicit,
        lambda h, v, y: ranking.loss(v, y, h),
    ),
    "top two of four": Case(
        4,
        np.asarray(list(itertools.permutations(range(4), 2)), np.int32),
        lambda h, v, key: ranking.elicit(h, v, key)[:, :2],
        lambda h, v, y: ranking.loss(v, y, h),
    ),
    "best of three": Case(
        3,
        np.arange(3, dtype=np.int32),
        ranking.elicit_best,
        lambda h, v, y: ranking.loss_best(v, y, h),
    ),
    "best and worst of three": Case(
        3,
        np.arange(6, dtype=np.int32),
        best_worst.elicit,
        lambda h, v, y: best_worst.loss(v, y, h),
    ),
    "likert": Case(
        1,
        np.arange(5, dtype=np.int32),
        lambda h, v, key: likert.elicit(h, v[:, 0], key),
        lambda h, v, y: likert.loss(v[:, 0], y, h),
    ),
    "good or bad": Case(
        1,
        np.arange(2, dtype=np.int32),
        lambda h, v, key: label.elicit(h, label.approval(v[:, 0], h.bar), key),
        lambda h, v, y: label.loss(label.approval(v[:, 0], h.bar), y, h),
    ),
    "category": Case(
        3, np.arange(3, dtype=np.int32), label.elicit, lambda h, v, y: label.loss(v, y, h)
    ),
    "correction": Case(
        3,
        np.arange(3, dtype=np.int32),
        lambda h, v, key: correction.elicit(h, v, full(v, DISTANCE), key),
        lambda h, v, y: correction.loss(v, full(v, DISTANCE), y, h),
    ),
    "demonstration": Case(
        4,
        np.arange(4, dtype=np.int32),
        lambda h, v, key: demonstration.elicit(h, v, full(v, LOG_Q), key),
        demonstrated,
    ),
    "language": Case(
        4,
        np.asarray([0, 1, 2, 3, 4, 5, 7], np.int32),  # 6 and 8 speak of an absent part
        lambda h, v, key: language.elicit(h, v[:, :2], v[:, 2:], full(v, PARTS), key),
        lambda h, v, y: language.loss(v[:, :2], v[:, 2:], y, full(v, PARTS), h),
    ),
    "steps": Case(
        2,
        np.asarray(list(itertools.product((0, 1), repeat=2)), np.int32),
        process.elicit,
        lambda h, v, y: process.loss(v, y, full(v, EVERY), h),
    ),
    "first error": Case(
        3,
        np.arange(3, dtype=np.int32),
        lambda h, v, key: process.elicit_first_error(h, v, full(v, STEPS), key),
        lambda h, v, y: process.loss_first_error(v, y, full(v, STEPS), h),
    ),
    "spans": Case(
        4,
        np.asarray(list(itertools.product(range(3), repeat=2)), np.int32),
        lambda h, v, key: span.elicit(h, spans_of(v), key),
        lambda h, v, y: span.loss(spans_of(v), y, full(v, EVERY), h),
    ),
}


def person(**fields: float) -> Human:
    """A person whose every field is an array, so that one compiled test serves all of them."""
    base = Human(tie=0.3, bar=0.2, edit_cost=0.2)._replace(**fields)
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), base)


def log_probabilities(case: Case, human: Human, values):
    """values [n] → log P of each answer [O]"""
    everyone = jnp.broadcast_to(values, (len(case.answers), case.size))
    return -case.nll(human, everyone, jnp.asarray(case.answers))


def counts(case: Case, drawn) -> np.ndarray:
    """answers [N, …] → how often each was given [O]; every draw must be a known answer"""
    drawn, known = np.asarray(drawn), case.answers
    same = drawn[:, None] == known[None]
    same = same.reshape(*same.shape[:2], -1).all(axis=2)
    assert same.any(axis=1).all()
    return same.sum(axis=0)
