"""Losses of one token, and the weights that make a batch of them one number."""

from __future__ import annotations

import jax.numpy as jnp

from rlhf_jax.types import Array


def log_ratio(logps: Array, old: Array, clamp: Array) -> Array:
    """log ρ = log π − log π_old, held within ±clamp (∞: never); no gradient beyond it."""
    return jnp.clip(logps - old, -clamp, clamp)


def surrogate(log_ratio: Array, advantages: Array, clip: Array, dual_clip: Array) -> Array:
    """−min(ρ Â, clip(ρ, 1 ± ε) Â), at most c |Â| where Â < 0.

    Schulman et al. 2017 (arXiv 1707.06347), eq. 7; the bound c is the dual clip of Ye et al.
    2020 (arXiv 1912.09729), eq. 5, ∞ for none. Any shape.
    """
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    loss = -jnp.minimum(ratio * advantages, clipped * advantages)
    bound = dual_clip * jnp.maximum(-advantages, 1e-30)  # c = ∞ times Â = 0 is no number
    return jnp.where(advantages < 0, jnp.minimum(loss, bound), loss)


def clipped_value_loss(values: Array, old: Array, returns: Array, clip: Array) -> Array:
    """½ max((V − R)², (V_old + clip(V − V_old, ±ε) − R)²). Any shape."""
    near = old + jnp.clip(values - old, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(values - returns), jnp.square(near - returns))


def weights(mask: Array, average: str) -> Array:
    """[B, T] bool → [B, T] float32: the loss of a batch is Σ weight · loss of the token.

      tokens     1 / Σ mask            every token counts alike (PPO in TRL)
      sequences  1 / (B · length)      every response counts alike (GRPO, 2402.03300, eq. 3)
      constant   1 / (B · T)           no length in it (Dr. GRPO, Liu et al. 2025, 2503.20783)

    Weights belong to the whole minibatch: parts of it, summed, give its gradient.
    """
    b, t = mask.shape
    if average == "tokens":
        total = jnp.maximum(jnp.sum(mask), 1).astype(jnp.float32)
    elif average == "sequences":
        total = b * jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1).astype(jnp.float32)
    else:
        total = jnp.asarray(b * t, jnp.float32)
    return jnp.where(mask, 1.0 / total, 0.0)


def weighted(x: Array, weight: Array) -> Array:
    """Σ weight · x; what stands where the weight is 0 is ignored, NaN included."""
    return jnp.sum(jnp.where(weight > 0, weight * x, 0.0))
