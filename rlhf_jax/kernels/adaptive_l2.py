"""An L2 weight that adapts: it keeps the validation loss a little above the training loss."""

from __future__ import annotations

import jax.numpy as jnp

from rlhf_jax.types import Array

LOW, HIGH = 1.1, 1.5
"""Bounds of validation loss / training loss (Christiano et al. 2017)."""


def adjust(
    l2: Array | float,
    training: Array,
    validation: Array,
    *,
    factor: Array | float = 2.0**0.5,
    least: Array | float = 1e-8,
    most: Array | float = 1e2,
) -> Array:
    """λ′ = λ · factor where validation > 1.5 training, λ / factor where < 1.1 training, else λ.

    Christiano et al. 2017, arXiv 1706.03741, §2.2.3, give the bounds and leave the step open:
    here it is geometric, within [least, most] so that λ can come back from 0. Losses are mean
    nats an answer, without the penalty; NaN leaves λ alone. Scalars, or of equal shapes.
    """
    l2 = jnp.asarray(l2, jnp.float32)
    up, down = validation > HIGH * training, validation < LOW * training
    return jnp.clip(jnp.where(up, l2 * factor, jnp.where(down, l2 / factor, l2)), least, most)
