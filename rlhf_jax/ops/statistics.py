"""Means, spreads and intervals."""

from __future__ import annotations

import jax.numpy as jnp

from rlhf_jax.types import Array


def masked_mean(x: Array, mask: Array) -> Array:
    """Σ x·m / Σ m over all axes, 0 where nothing is masked in; NaN outside the mask is ignored."""
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(jnp.sum(mask), 1)


def deviation(x: Array, mask: Array) -> Array:
    """√(var + 1e-8) of the masked entries: what `whiten` divides by.

    The moments are those of all entries of all axes, wherever they lie: one batch over several
    devices has one mean. The variance is the population's, Σ (x − mean)²/n, without the
    n/(n − 1) of `trl`'s masked_whiten.
    """
    return jnp.sqrt(masked_mean(jnp.square(x - masked_mean(x, mask)), mask) + 1e-8)


def whiten(x: Array, mask: Array, *, shift: bool = True) -> Array:
    """(x − mean) / `deviation`; `shift=False` puts the mean back. Zero outside the mask."""
    mean = masked_mean(x, mask)
    white = (x - mean) / deviation(x, mask)
    return jnp.where(mask, white if shift else white + mean, 0.0)


def correlation(x: Array, y: Array, weight: Array) -> Array:
    """Pearson's r of x and y under non-negative weights [N]; 0 where either is constant."""
    w = weight / jnp.maximum(jnp.sum(weight), 1e-12)
    dx, dy = x - jnp.sum(w * x), y - jnp.sum(w * y)
    scale = jnp.sqrt(jnp.sum(w * dx * dx) * jnp.sum(w * dy * dy))
    return jnp.where(scale > 0, jnp.sum(w * dx * dy) / jnp.maximum(scale, 1e-12), 0.0)


def calibration(probability: Array, outcome: Array, weight: Array, bins: int) -> tuple[Array, ...]:
    """Reliability diagram: per bin of predicted probability, its mean, the outcome's, the weight.

    Args:
      probability, outcome: [N] in [0, 1]; weight: [N] ≥ 0.
    Returns: three arrays [bins]; the means are 0 in empty bins.
    """
    index = jnp.clip((probability * bins).astype(jnp.int32), 0, bins - 1)
    add = lambda v: jnp.zeros((bins,)).at[index].add(v * weight)
    total = add(jnp.ones_like(probability))
    safe = jnp.maximum(total, 1e-12)
    return add(probability) / safe, add(outcome) / safe, total
