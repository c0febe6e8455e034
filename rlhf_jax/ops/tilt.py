"""π ∝ π_ref exp(r/β) on draws of π_ref: what a reward brings where it is optimised exactly.

The optimum of step 3 at every β at once (Korbak et al. 2022, arXiv 2205.11275), with no learner
between: what a learner spends beyond it, it wastes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.types import Array

SHARPNESS = np.concatenate([[0.0], np.geomspace(0.05, 50.0, 39)]).astype(np.float32)
"""1/β, for rewards of deviation 1: from the reference to all but the best draws of thousands."""
ENOUGH = 16.0
"""Draws that an optimum must rest on, as effective sample size (Σw)²/Σw²: few ones say nothing."""


class Tilted(NamedTuple):
    """Optima of falling β, [len(1/β)] each. Those that rest on too few draws repeat the last that
    does not, so that `score` and `kl` never fall."""

    score: Array
    """E r"""
    value: Array
    """E of another quantity"""
    kl: Array
    """KL(π ‖ π_ref), nats"""


def unknown() -> Tilted:
    """Before anything was judged: no score needs a nat."""
    return Tilted(*(jnp.zeros(SHARPNESS.shape) for _ in Tilted._fields))


def tilted(score: Array, value: Array, sharpness: Array) -> Tilted:
    """The optima on N draws, w_i ∝ exp(r_i/β), Σw = 1: E r = Σ w r and KL = Σ w log(N w).

    Consistent as N grows; low in KL where few draws are left, see `ENOUGH`.

    Args: score, value: [N] float32 of independent draws of the reference; sharpness: [K], rising.
    """
    log_w = jax.nn.log_softmax(sharpness[:, None] * score[None], axis=1)
    w = jnp.exp(log_w)
    good = 1.0 / jnp.sum(w * w, axis=1) >= ENOUGH
    last = jnp.maximum(jnp.sum(jnp.cumprod(good)) - 1, 0)
    at = jnp.minimum(jnp.arange(sharpness.shape[0]), last)
    kl = jnp.sum(w * (log_w + jnp.log(float(score.shape[0]))), axis=1)
    precise = lambda x: jnp.sum(w * x[None], axis=1)
    return Tilted(precise(score)[at], precise(value)[at], jnp.maximum(kl, 0.0)[at])


def needed(optima: Tilted, score: Array) -> Array:
    """Nats that the exact optimum of this expected reward spends, between optima linearly; below
    the reference none, and beyond the last optimum what that one spends, which is too few."""
    return jnp.interp(score, optima.score, optima.kl)
