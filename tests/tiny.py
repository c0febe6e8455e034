"""The smallest things that still have every part: a transformer, a language, episodes."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import grid  # noqa: F401  makes sections of the configuration pytrees
from rlhf_jax.config import Model
from rlhf_jax.config import World as Settings
from rlhf_jax.ops.tokens import until
from rlhf_jax.types import Array, Episode, Language, Prompts, World

SHAPE = Model(width=16, layers=1, heads=2, kv_heads=1, mlp=32)
PAD, BOS, EOS, A, B, C = range(6)
LANGUAGE = Language(
    symbols=("·", "^", "$", "a", "b", "c"),
    pad=PAD,
    bos=BOS,
    eos=EOS,
    actions=np.asarray([False, False, True, True, True, True]),
    length=5,
)


def prompts(n: int, length: int = 1) -> Prompts:
    """`n` prompts of BOS, padded on the left to `length`."""
    tokens = jnp.full((n, length), PAD, jnp.int32).at[:, -1].set(BOS)
    return Prompts(tokens, tokens != PAD)


def finish(tokens: Array) -> tuple[Array, Array]:
    """[..., T] symbols → the same with padding after the first EOS, and the mask."""
    mask = jnp.apply_along_axis(lambda row: until(row, EOS), -1, tokens)
    return jnp.where(mask, tokens, PAD), mask


def episodes(seed: int, n: int, language: Language = LANGUAGE) -> Episode:
    """`n` responses of random symbols; about a quarter of the symbols is EOS."""
    symbols = np.random.default_rng(seed).integers(EOS, len(language.symbols), (n, language.length))
    return Episode(prompts(n), *finish(jnp.asarray(symbols, jnp.int32)))


def feeling(world: World) -> Callable[..., Array]:
    """(settings, tokens, mask) → float32: the first value dimension."""
    return lambda settings, tokens, mask: world.values(settings, tokens, mask)[0]


def felt(world: World) -> Callable[..., Array]:
    """(settings, tokens, mask, which impression) → [T] float32: the first dimension by prefix."""
    prompt = Prompts(jnp.full((1,), world.language.bos, jnp.int32), jnp.ones((1,), bool))
    return lambda settings, *x: world.show(settings, prompt, *x).values[:, 0]


def worths(world: World, settings: Settings) -> np.ndarray:
    """[N, U]: what every row of the corpus is worth."""
    each = jax.jit(jax.vmap(world.values, (None, 0, 0)))
    return np.asarray(each(settings, *world.corpus))


def sharp(params: jax.Array, scale: float = 4.0) -> jax.Array:
    """Parameters far from 0, so that what a token changes is larger than rounding."""
    return jax.tree.map(lambda x: x * scale if x.ndim > 1 else x, params)
