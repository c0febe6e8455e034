"""What a transformer is used for: a policy over tokens, or a number for each state.

Both read (prompt, response) and answer by the index convention of `rlhf_jax.types`: the
input at position P + t − 1 is the last thing state s_t has seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from rlhf_jax.config import Model as Shape
from rlhf_jax.models.transformer import (
    Cache,
    Dense,
    Transformer,
    Wanted,
    at,
    empty_cache,
    everything,
    since,
)
from rlhf_jax.ops.tokens import positions
from rlhf_jax.types import Array, Episode, Key, Language, Params, Prompts

FORBIDDEN = -1e30
"""Logit of a symbol that is no action; finite, so that 0 · (a − b) stays 0."""


class Policy(NamedTuple):
    """π_θ. Logits are float32 and forbid what is no action; divide by the temperature yourself."""

    init: Callable[[Key], Params]
    logits: Callable[[Params, Episode], Array]
    """(params, episode) → [B, T, V], of s_0 … s_{T−1}"""
    prefill: Callable[[Params, Prompts, int], tuple[Array, Cache]]
    """(params, prompts, response length) → logits [B, V] of s_0, cache"""
    decode: Callable[[Params, Array, Array, Cache], tuple[Array, Cache]]
    """(params, tokens [B] just chosen, positions [B], cache) → logits [B, V], cache"""
    graft: Callable[[Params, Params], Params]
    """(params, trunk of another model) → params with that trunk"""


class Scalar(NamedTuple):
    """A number for each prefix: the value function V(s_t) and the reward model r_φ(x)."""

    init: Callable[[Key], Params]
    values: Callable[[Params, Episode], Array]
    """(params, episode) → [B, T + 1] float32, of s_0 … s_T; s_t has seen tokens[:t]"""
    graft: Callable[[Params, Params], Params]
    """(params, trunk) → params with that trunk; the head is kept"""
    outputs: Callable[[Params, Episode], Array] | None = None
    """(params, episode) → [B, T + 1, outputs] float32 where there are several, values first"""
    last: Callable[[Params, Episode], Array] | None = None
    """(params, episode) → [B], the value of the state that has read all of x, for less work than
    `values`; None where there is nothing to save"""


class _Logits(nn.Module):
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
    ) -> tuple[Array, Cache | None]:
        trunk = Transformer(self.shape, self.vocabulary, name="trunk")
        x, table, cache = trunk(tokens, positions, mask, cache, wanted)
        logits = x.reshape(-1, x.shape[-1]) @ table.T
        return logits.reshape(*x.shape[:-1], -1).astype(jnp.float32), cache


class _Scalars(nn.Module):
    shape: Shape
    vocabulary: int
    outputs: int

    @nn.compact
    def __call__(
        self, tokens: Array, positions: Array, mask: Array, wanted: Wanted = everything
    ) -> Array:
        trunk = Transformer(self.shape, self.vocabulary, name="trunk")
        x, _, _ = trunk(tokens, positions, mask, wanted=wanted)
        std = (self.shape.width + 1) ** -0.5  # Stiennon et al. 2020 (arXiv 2009.01325)
        return Dense(self.outputs, ("width", "score"), std, name="head")(x).astype(jnp.float32)


def _initialiser(module: nn.Module) -> Callable[[Key], Params]:
    def init(key: Key) -> Params:
        one = jnp.zeros((1, 1), jnp.int32)
        return nn.meta.unbox(module.init(key, one, one, one == 0)["params"])

    return jax.jit(init)  # one program where it is called by itself, not one for each operation


def graft(params: Params, trunk: Params) -> Params:
    return {**params, "trunk": trunk["trunk"]}


def policy(shape: Shape, language: Language) -> Policy:
    module = _Logits(shape, len(language.symbols))
    run: Callable[..., Any] = module.apply
    allowed = jnp.asarray(language.actions)

    def restrict(logits: Array) -> Array:
        return jnp.where(jnp.broadcast_to(allowed, logits.shape), logits, FORBIDDEN)

    def logits(params: Params, episode: Episode) -> Array:
        prompts = episode.prompts
        tokens = jnp.concatenate([prompts.tokens, episode.tokens[:, :-1]], axis=1)
        mask = jnp.concatenate([prompts.mask, episode.mask[:, :-1]], axis=1)
        wanted = since(prompts.tokens.shape[1] - 1)
        out, _ = run({"params": params}, tokens, positions(mask), mask, wanted=wanted)
        return restrict(out)

    def prefill(params: Params, prompts: Prompts, length: int) -> tuple[Array, Cache]:
        b, p = prompts.tokens.shape
        cache = empty_cache(shape, b, p + length)
        where = positions(prompts.mask)
        out, cache = run(
            {"params": params}, prompts.tokens, where, prompts.mask, cache, since(p - 1)
        )
        return restrict(out[:, 0]), cache

    def decode(params: Params, tokens: Array, where: Array, cache: Cache) -> tuple[Array, Cache]:
        column = tokens[:, None]
        out, cache = run(
            {"params": params}, column, where[:, None], jnp.ones(column.shape, bool), cache
        )
        return restrict(out[:, 0]), cache

    return Policy(_initialiser(module), logits, prefill, decode, graft)


def scalar(shape: Shape, language: Language, outputs: int = 1) -> Scalar:
    """`outputs` > 1 gives a state more numbers than its value, such as how sure that is."""
    module = _Scalars(shape, len(language.symbols), outputs)
    run: Callable[..., Any] = module.apply

    def read(params: Params, episode: Episode, wanted: Wanted) -> Array:
        prompts = episode.prompts
        tokens = jnp.concatenate([prompts.tokens, episode.tokens], axis=1)
        mask = jnp.concatenate([prompts.mask, episode.mask], axis=1)
        return run({"params": params}, tokens, positions(mask), mask, wanted)

    def states(params: Params, episode: Episode) -> Array:
        return read(params, episode, since(episode.prompts.tokens.shape[1] - 1))

    def values(params: Params, episode: Episode) -> Array:
        return states(params, episode)[..., 0]

    def last(params: Params, episode: Episode) -> Array:
        end = episode.prompts.tokens.shape[1] - 1 + ended(episode)
        return read(params, episode, at(end))[:, 0, 0]

    return Scalar(_initialiser(module), values, graft, None if outputs == 1 else states, last)


def ended(episode: Episode) -> Array:
    """[…, T] → […] int32: tokens of the response, which is the index of its last state."""
    return jnp.sum(episode.mask, axis=-1)


def reward(model: Scalar, params: Params, episode: Episode) -> Array:
    """r_φ(x) [B] float32: the scalar that has read the last token of x (EOS where there is one)."""
    if model.last is not None:
        return model.last(params, episode)
    per_state = model.values(params, episode)
    return jnp.take_along_axis(per_state, ended(episode)[:, None], axis=1)[:, 0]


def zero_head(params: Params) -> Params:
    """The same trunk with a head that says 0 everywhere: the start of a value function."""
    return {**params, "head": jax.tree.map(jnp.zeros_like, params["head"])}
