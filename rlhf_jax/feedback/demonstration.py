"""Demonstrations: a person does it themselves, better things more often."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.feedback import STANDARD
from rlhf_jax.humans.choice import choose, mixed, precision
from rlhf_jax.humans.human import Human
from rlhf_jax.types import Array, Episode, Key


class Demonstration(NamedTuple):
    """N samples that people made, beside M samples that stand for all there could be."""

    x: Episode
    """leaves [N, …]"""
    others: Episode
    """leaves [M, …], drawn from q; [N, M, …] where each answer has its own"""
    log_q: Array
    """[M] or [N, M] float32: log q of each"""
    weight: Array
    """[N] float32 ≥ 0"""
    who: Array | None = None
    """[N] int32"""


def elicit(human: Human, values: Array, log_q: Array, key: Key) -> Array:
    """M candidates x_m ~ q with perceived values and log q, [..., M] → int32 [...].

    Resampled with weights ∝ exp(β û)/q (Rubin 1987), so that as M grows the demonstration is
    a draw from p(x) = exp(β û(x))/Z (Ziebart et al. 2008); exactly so where the candidates are
    all there are and q is constant. A flip shows the worst, p ∝ exp(−β û); whoever lapses shows
    any candidate, evenly over the space: ∝ 1/q. Consumes `key`.
    """
    return choose(human, values, key, -log_q)


def log_partition(scaled: Array, log_q: Array) -> Array:
    """log Z ≈ log (1/M) Σ_m exp(v_m)/q_m over x_m ~ q: [..., M] → [...].

    Unbiased for Z; its log is low by about Var/2M. With all of a finite space and
    log_q = −log M it is exact. Finn et al. 2016 (arXiv 1603.00448).
    """
    return jax.nn.logsumexp(scaled - log_q, axis=-1) - jnp.log(jnp.float32(scaled.shape[-1]))


def loss(reward: Array, others: Array, log_q: Array, human: Human = STANDARD) -> Array:
    """−log p(x | r, human) = log Z − β r(x), nats: [N], [M], [M] → [N].

    Maximum-entropy inverse reinforcement learning with a sampled partition function; with
    lapses (1 − λ) p + λ p₀, p₀ = 1/Σ_x 1 the even density. Put some demonstrations among
    `others` and the mixture's density in log_q, or a reward that raises the demonstrations
    alone lowers the loss without bound (arXiv 1603.00448).
    """
    beta = precision(human)
    # A common shift leaves the density as it is and keeps β r exact.
    best, worst = (jax.lax.stop_gradient(f(others)) for f in (jnp.max, jnp.min))
    up, down = reward - best, worst - reward
    straight = beta * up - log_partition(beta * (others - best), log_q)
    flipped = beta * down - log_partition(beta * (worst - others), log_q)
    even = -log_partition(jnp.zeros_like(others), log_q)
    return -mixed(human, straight, flipped, even)
