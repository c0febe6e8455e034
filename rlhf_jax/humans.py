"""H: people as a pytree of floats, so that they can be vmapped, swept and mixed.

A person is the `human` section of the configuration; a population is the same with a
leading axis.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rlhf_jax.config import Human
from rlhf_jax.types import Array, Key


def prefer(human: Human, value_a: Array, value_b: Array, key: Key) -> Array:
    """Which of two perceived values a person picks: 1 (a), 0 (b) or ½ (tie). Float32 scalars.

    d = u_a − u_b + L/β with L ~ Logistic(0, 1), so that P(a) = σ(β (u_a − u_b)), the
    Luce–Shepard choice; a if d > tie, b if d < −tie, else a tie. β = ∞ compares exactly and
    β = 0 is a coin. With probability `lapse` the answer is a coin (Lee et al. 2021,
    arXiv 2111.03026). Consumes `key`.
    """
    noise_key, lapse_key, coin_key = jax.random.split(key, 3)
    noise = jax.random.logistic(noise_key)
    d = value_a - value_b + noise / human.rationality
    answer = jnp.where(d > human.tie, 1.0, jnp.where(d < -human.tie, 0.0, 0.5))
    coin = jax.random.bernoulli(coin_key).astype(jnp.float32)
    return jnp.where(jax.random.uniform(lapse_key) < human.lapse, coin, answer)
