"""A Llama-style transformer: RMSNorm, RoPE, SwiGLU, grouped-query attention, no biases.

One implementation expresses SmolLM2-135M and a three-layer toy. Touvron et al. 2023
(arXiv 2302.13971); RoPE: Su et al. 2021 (2104.09864); GQA: Ainslie et al. 2023 (2305.13245).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlhf_jax.config import Model as Shape
from rlhf_jax.types import Array

Wanted: TypeAlias = Callable[[Array], Array]
"""[B, L, …] → [B, N, …]: the positions whose hidden states are asked for."""


def everything(x: Array) -> Array:
    """All positions."""
    return x


def since(start: int) -> Wanted:
    """The positions from `start` on."""
    return lambda x: x[:, start:]


def at(places: Array) -> Wanted:
    """One position [B] of each row."""
    return lambda x: jax.vmap(lambda row, i: row[i][None])(x, places)


class Cache(NamedTuple):
    """Keys and values of past tokens, one entry a layer, and how many are filled."""

    keys: tuple[Array, ...]
    """layers × [B, L, kv_heads, D]"""
    values: tuple[Array, ...]
    mask: Array
    """[B, L] bool: which slots may be attended to."""
    filled: Array
    """int32: slots written, the same for all rows."""


def empty_cache(shape: Shape, batch: int, length: int) -> Cache:
    slots = jnp.zeros((batch, length, shape.kv_heads, shape.width // shape.heads))
    many = (slots,) * shape.layers
    return Cache(many, many, jnp.zeros((batch, length), bool), jnp.zeros((), jnp.int32))


class Dense(nn.Module):
    """y = xW on the last axis, as one 2-D matmul.

    XLA's CPU backend is slow on batched dots and on their transposed gradients.
    """

    features: int
    axes: tuple[str, str]
    std: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.with_logical_partitioning(nn.initializers.normal(self.std), self.axes)
        w: Any = self.param("w", init, (x.shape[-1], self.features))
        return (x.reshape(-1, x.shape[-1]) @ w).reshape(*x.shape[:-1], self.features)


class RMSNorm(nn.Module):
    """x · scale / √(mean x² + ε)"""

    eps: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.with_logical_partitioning(nn.initializers.ones, ("width",))
        scale: Any = self.param("scale", init, (x.shape[-1],))
        normal = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)
        return normal * jnp.broadcast_to(scale, x.shape)


def rope(x: Array, positions: Array, theta: float) -> Array:
    """Turns the pair (x_i, x_{i+D/2}) by the angle position · θ^(−2i/D).

    Args: x [B, L, H, D]; positions [B, L] int.
    """
    half = x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions[..., None, None].astype(jnp.float32) * frequency[None, None, None]
    cos, sin = jnp.cos(angle).astype(x.dtype), jnp.sin(angle).astype(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def attend(q: Array, k: Array, v: Array, allowed: Array) -> Array:
    """softmax(qkᵀ/√D) v with each group of query heads on its own key/value head.

    Args: q [B, Q, H, D]; k, v [B, L, G, D]; allowed [B, Q, L] bool.
    Returns: [B, Q, H, D].
    """
    b, n, h, d = q.shape
    q = q.reshape(b, n, k.shape[2], h // k.shape[2], d)
    scores = jnp.einsum("bqghd,blgd->bghql", q, k) / jnp.sqrt(d).astype(q.dtype)
    scores = jnp.where(allowed[:, None, None], scores, jnp.finfo(scores.dtype).min)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("bghql,blgd->bqghd", weights, v).reshape(b, n, h, d)


class Attention(nn.Module):
    shape: Shape

    @nn.compact
    def __call__(
        self, x: Array, positions: Array, allowed: Array, past: Any, wanted: Wanted = everything
    ) -> tuple[Array, Any]:
        """Keys and values of all positions, the result of those `wanted`."""
        s, asking = self.shape, wanted(x)
        d = s.width // s.heads
        std = s.width**-0.5
        project = lambda x, n, name: Dense(n * d, ("width", "heads"), std, name=name)(x).reshape(
            *x.shape[:2], n, d
        )
        q = rope(project(asking, s.heads, "q"), wanted(positions), s.rope_theta)
        k = rope(project(x, s.kv_heads, "k"), positions, s.rope_theta)
        v = project(x, s.kv_heads, "v")
        if past is not None:
            start, old_k, old_v = past
            k = jax.lax.dynamic_update_slice(old_k, k, (0, start, 0, 0))
            v = jax.lax.dynamic_update_slice(old_v, v, (0, start, 0, 0))
        y = attend(q, k, v, wanted(allowed)).reshape(*asking.shape[:2], s.width)
        out = Dense(s.width, ("heads", "width"), std * (2 * s.layers) ** -0.5, name="o")(y)
        return out, (k, v)


class SwiGLU(nn.Module):
    shape: Shape

    @nn.compact
    def __call__(self, x: Array) -> Array:
        s = self.shape
        std = s.width**-0.5
        gate = Dense(s.mlp, ("width", "mlp"), std, name="gate")(x)
        up = Dense(s.mlp, ("width", "mlp"), std, name="up")(x)
        down_std = s.mlp**-0.5 * (2 * s.layers) ** -0.5
        return Dense(s.width, ("mlp", "width"), down_std, name="down")(jax.nn.silu(gate) * up)


class Transformer(nn.Module):
    """Tokens → hidden states [B, L, width]; `embed.T` turns them into logits (tied)."""

    shape: Shape
    vocabulary: int

    @nn.compact
    def __call__(
        self,
        tokens: Array,
        positions: Array,
        mask: Array,
        cache: Cache | None = None,
        wanted: Wanted = everything,
    ) -> tuple[Array, Array, Cache | None]:
        """mask [B, L] bool: real tokens. Returns hidden, the embedding table, the new cache.

        The last layer is read at the `wanted` positions alone: of the others only keys and
        values are needed there.
        """
        s = self.shape
        init = nn.with_logical_partitioning(
            nn.initializers.normal(s.width**-0.5), ("vocabulary", "width")
        )
        table: Any = self.param("embed", init, (self.vocabulary, s.width))
        x = table[tokens]
        start, seen = jnp.zeros((), jnp.int32), mask
        if cache is not None:
            start = cache.filled
            seen = jax.lax.dynamic_update_slice(cache.mask, mask, (0, start))
        query, slot = start + jnp.arange(tokens.shape[1]), jnp.arange(seen.shape[1])
        allowed = seen[:, None, :] & (slot[None, :] <= query[:, None])[None]
        keys, values = [], []
        for i in range(s.layers):
            past = None if cache is None else (start, cache.keys[i], cache.values[i])
            here = wanted if i + 1 == s.layers else everything
            h, (k, v) = Attention(s, name=f"attention_{i}")(
                RMSNorm(s.norm_eps, name=f"norm_a_{i}")(x), positions, allowed, past, here
            )
            x = here(x) + h
            x = x + SwiGLU(s, name=f"mlp_{i}")(RMSNorm(s.norm_eps, name=f"norm_m_{i}")(x))
            keys.append(k)
            values.append(v)
        x = RMSNorm(s.norm_eps, name="norm")(x)
        if cache is not None:
            cache = Cache(tuple(keys), tuple(values), seen, start + tokens.shape[1])
        return x, table, cache
