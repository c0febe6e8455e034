"""What the response earns, and on which of its tokens. Written for one example."""

from __future__ import annotations

import jax.numpy as jnp

from rlhf_jax.ops.tokens import last
from rlhf_jax.types import Array


def judged(
    score: Array, ended: Array, length: Array, how: str, value: Array, limit: int, tail: int
) -> Array:
    """The score [] float32 after what a missing end costs.

      keep      s
      subtract  s − value where the response did not end
      replace   value where the response did not end
      length    s − value · clip((length − (limit − tail)) / tail, 0, 1)

    subtract is TRL's `missing_eos_penalty`; replace is what Stiennon et al. 2020 do (arXiv
    2009.01325, value −1); length is the soft punishment of DAPO (Yu et al. 2025, arXiv
    2503.14476, eq. 13), paid by responses that end just before the limit as well.

    Args:
      ended: [] bool, EOS was chosen; length: [] int, tokens chosen; limit: the most possible.
    """
    if how == "subtract":
        return jnp.where(ended, score, score - value)
    if how == "replace":
        return jnp.where(ended, score, value)
    if how == "length":
        over = (length - (limit - tail)).astype(jnp.float32) / tail
        return score - value * jnp.clip(over, 0.0, 1.0)
    return score


def with_next(mask: Array) -> Array:
    """[T] bool, true on a prefix → the same and one more: the state that has seen the end."""
    return mask | jnp.concatenate([mask[:1], mask[:-1]])


def shaped(kl: Array, score: Array, mask: Array, kl_weight: Array, at: str) -> Array:
    """r_t = −β_KL kl_t + [t = t*] score: [T] float32; Ziegler et al. 2019 (arXiv 1909.08593).

    t* is the last token chosen ("end"), or the one after it where there is room ("after_end",
    as in TRL). Zero outside the mask, but for t*.
    """
    end = last(mask)
    where = end if at == "end" else jnp.minimum(end + 1, mask.shape[0] - 1)
    paid = jnp.where(mask, -kl_weight * kl, 0.0)
    return paid + jnp.where(jnp.arange(mask.shape[0]) == where, score, 0.0)


def adapt(kl_weight: Array, kl: Array, target: Array, horizon: Array, episodes: int) -> Array:
    """β ← β (1 + clip(KL/target − 1, ±0.2) · episodes/horizon); 1909.08593, eq. 4.

    KL is the mean over episodes of the sum over tokens, nats.
    """
    error = jnp.clip(kl / target - 1.0, -0.2, 0.2)
    return kl_weight * (1.0 + error * episodes / horizon)
