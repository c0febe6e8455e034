"""How good predictions are, under weights; and how sure that is when whole groups are redrawn.

Each score takes arrays [N] and, last, a weight [N] ≥ 0, which may count an answer twice or not
at all. That makes a bootstrap a vmap over weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.ops.intervals import Interval, percentile
from rlhf_jax.ops.statistics import calibration
from rlhf_jax.types import Array


def average(x: Array, weight: Array) -> Array:
    """Σ w x / Σ w; NaN if no weight is left."""
    return jnp.sum(weight * x) / jnp.sum(weight)


def _up_to(score: Array, weight: Array) -> tuple[Array, Array]:
    """[N]: the weight of those with a lower score, and of those with a lower or equal one."""
    order = jnp.argsort(score)
    held = jnp.concatenate([jnp.zeros(1), jnp.cumsum(weight[order])])
    ranked = score[order]
    below, through = (jnp.searchsorted(ranked, score, side=s) for s in ("left", "right"))
    return held[below], held[through]


def auc(score: Array, positive: Array, weight: Array) -> Array:
    """P(score₊ > score₋) + ½ P(score₊ = score₋), Mann–Whitney; NaN unless there are both.

    Args: score [N]; positive [N], 1 or 0; weight [N].
    """
    yes, no = weight * positive, weight * (1 - positive)
    below, through = _up_to(score, no)
    return jnp.sum(yes * 0.5 * (below + through)) / (jnp.sum(yes) * jnp.sum(no))


def average_precision(score: Array, positive: Array, weight: Array) -> Array:
    """Σ over thresholds of precision × the recall gained; equal scores share a threshold.

    A score that says nothing has the share of positives. NaN if there are none.
    """
    yes = weight * positive
    above, above_yes = (jnp.sum(w) - _up_to(score, w)[0] for w in (weight, yes))
    precision = above_yes / jnp.where(above > 0, above, 1.0)
    return jnp.sum(yes * precision) / jnp.sum(yes)


def precision(marked: Array, positive: Array, weight: Array) -> Array:
    """Share of the marked that are positive; NaN if nothing is marked."""
    return jnp.sum(weight * marked * positive) / jnp.sum(weight * marked)


def recall(marked: Array, positive: Array, weight: Array) -> Array:
    """Share of the positive that are marked; NaN if there are none."""
    return jnp.sum(weight * marked * positive) / jnp.sum(weight * positive)


def f1(marked: Array, positive: Array, weight: Array) -> Array:
    """Harmonic mean of precision and recall, 2 TP / (marked + positive)."""
    return 2 * jnp.sum(weight * marked * positive) / jnp.sum(weight * (marked + positive))


def calibration_error(probability: Array, outcome: Array, weight: Array) -> Array:
    """Σ_b W_b |p̄_b − ȳ_b| / Σ W over ten bins of predicted probability.

    Naeini et al. 2015; Guo et al. 2017 (arXiv 1706.04599). Biased upwards: the sampling error
    of every bin counts, so that a calibrated forecast of few answers is not at 0.
    """
    p, y, held = calibration(probability, outcome, weight, 10)
    return jnp.sum(held * jnp.abs(p - y)) / jnp.sum(held)


@partial(jax.jit, static_argnums=0)
def _each(score: Callable[..., Array], arrays: tuple[Array, ...], weights: Array) -> Array:
    return jax.vmap(lambda w: score(*arrays, w))(weights)


class Draws(NamedTuple):
    """Weights of N answers, as they are and in resamples of their groups."""

    weights: Array
    """[1 + draws, N] float32; the first row is the sample itself"""
    n: int
    """Groups"""


def draw(weight: np.ndarray, group: np.ndarray, draws: int = 1000) -> Draws:
    """Resamples of groups with replacement, all of a group at once; from a fixed seed.

    Args: weight [N] ≥ 0; group [N] int; groups without weight are not drawn.
    """
    has = weight > 0
    names, index = np.unique(group[has], return_inverse=True)
    n = len(names)
    times = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), draws)
    weights = np.zeros((draws + 1, len(weight)), np.float32)
    weights[:, has] = np.concatenate([np.ones((1, n)), times])[:, index] * weight[has]
    return Draws(jnp.asarray(weights), n)


def interval(score: Callable[..., Array], arrays: tuple[np.ndarray, ...], draws: Draws) -> Interval:
    """`score(*arrays, weight)` with a 95 % interval over resampled groups.

    The percentile interval at the expanded level of `ops.intervals`. Draws in which the score is
    undefined (no positive among them) are left out; NaN where nothing is left.
    """
    inputs = tuple(jnp.asarray(a, jnp.float32) for a in arrays)
    found = np.asarray(_each(score, inputs, draws.weights), np.float64)
    drawn = found[1:][np.isfinite(found[1:])]
    if draws.n < 2 or not len(drawn):
        return Interval(float(found[0]), np.nan, np.nan, 0.95, draws.n)
    return percentile(found[0], drawn, draws.n)


def folds(group: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """[N] int in 0…count − 1: groups are dealt out at random, sizes differ by one group at most."""
    names, index = np.unique(group, return_inverse=True)
    return (np.random.default_rng(seed).permutation(len(names)) % count)[index]
