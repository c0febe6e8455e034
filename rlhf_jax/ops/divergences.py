"""Kullback–Leibler divergence of a policy from its reference: exact and estimated.

log-ratio ρ = log π(a) − log π_ref(a) with a ~ π. Estimators as named by Schulman,
"Approximating KL divergence" (2020). All in nats.
"""

from __future__ import annotations

import jax.numpy as jnp

from rlhf_jax.types import Array


def k1(log_ratio: Array) -> Array:
    """ρ: unbiased, can be negative."""
    return log_ratio


def k2(log_ratio: Array) -> Array:
    """ρ²/2: biased, low variance; its gradient is the gradient of the KL."""
    return 0.5 * jnp.square(log_ratio)


def k3(log_ratio: Array) -> Array:
    """exp(−ρ) − 1 + ρ ≥ 0: unbiased where π_ref ≪ π."""
    return jnp.expm1(-log_ratio) + log_ratio


def exact(log_p: Array, log_q: Array) -> Array:
    """[..., V] log-probabilities → [...]: Σ_v p_v (log p_v − log q_v)."""
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def entropy(log_p: Array) -> Array:
    """[..., V] log-probabilities → [...]: −Σ_v p_v log p_v."""
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
