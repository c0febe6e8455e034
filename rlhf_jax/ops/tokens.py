"""Masks and positions of token sequences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.types import Array


def until(tokens: Array, eos: int | None) -> Array:
    """[T] int → [T] bool: true up to and including the first EOS.

    mask[t] = 1 iff no tokens[:t] is EOS: the action at t is taken, the one after EOS is not.
    """
    if eos is None:
        return jnp.ones(tokens.shape, bool)
    ended = jnp.cumsum(tokens == eos)
    return (ended - (tokens == eos)) == 0


def last(mask: Array) -> Array:
    """[T] bool → index of the last true entry (0 if there is none)."""
    t = mask.shape[-1]
    return jnp.max(jnp.where(mask, jnp.arange(t), 0), axis=-1)


def positions(mask: Array) -> Array:
    """[L] bool → [L] int32: 0 on the first real token, so left padding moves nothing."""
    return jnp.maximum(jnp.cumsum(mask.astype(jnp.int32), axis=-1) - 1, 0)


def inverse_cdf(logits: Array, uniform: Array) -> Array:
    """[V] logits, uniform u ∈ [0, 1) → token int32 with probability softmax(logits).

    The first v with Σ_{w ≤ v} p_w > u. One uniform a row: cheaper than V Gumbel variables.
    """
    cdf = jnp.cumsum(jax.nn.softmax(logits))
    token = jnp.sum(cdf <= uniform * cdf[-1])
    # u·cdf[-1] may round up to cdf[-1]; then the most likely token stands in for "none".
    return jnp.where(token < logits.shape[-1], token, jnp.argmax(logits)).astype(jnp.int32)


def truncate(log_p: Array, top_k: int, top_p: float) -> Array:
    """[V] log-probabilities → the same, −1e30 where a token may not be drawn.

    Kept are the `top_k` likeliest (0: all) and of those the fewest whose probability reaches
    `top_p` (Holtzman et al. 2020, arXiv 1904.09751); of equals the first.
    """
    order = jnp.argsort(-log_p, stable=True)
    p = jnp.exp(log_p[order])
    rank = jnp.arange(p.shape[0])
    p = jnp.where(rank < (top_k or p.shape[0]), p, 0.0)
    p = p / jnp.sum(p)
    before = jnp.cumsum(p) - p
    keep = (p > 0) & ((before < top_p) | (rank == 0))
    return jnp.where(jnp.zeros(p.shape, bool).at[order].set(keep), log_p, -1e30)


def fingerprint(tokens: Array) -> Array:
    """[T] int → uint32: a polynomial of the tokens in an odd multiplier, mod 2³²."""
    powers = np.asarray([pow(2654435761, t + 1, 2**32) for t in range(tokens.shape[-1])], np.uint32)
    return jnp.sum((tokens.astype(jnp.uint32) + 1) * powers, dtype=jnp.uint32)
