"""x ~ π_θ: prefill, then decode with a key-value cache."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.models.heads import Policy
from rlhf_jax.ops.tokens import inverse_cdf
from rlhf_jax.types import Array, Episode, Key, Language, Params, Prompts


class Rollout(NamedTuple):
    """An episode with what the policy thought of each state."""

    episode: Episode
    logps: Array
    """[B, T] float32: log π(a_t | s_t) at the sampling temperature, 0 after the end"""
    distribution: Array
    """[B, T, V] float32: log π(· | s_t) at the sampling temperature"""


def sample(
    policy: Policy,
    language: Language,
    params: Params,
    prompts: Prompts,
    key: Key,
    temperature: Array | float = 1.0,
    *,
    greedy: bool = False,
) -> Rollout:
    """One response to each prompt. Consumes `key`. `greedy` takes the arg-max instead."""
    b = prompts.tokens.shape[0]
    uniforms = jax.random.uniform(key, (language.length, b))
    logits, cache = policy.prefill(params, prompts, language.length)
    first = jnp.sum(prompts.mask, axis=1)

    def act(carry: tuple, inputs: tuple) -> tuple:
        logits, cache, alive = carry
        t, uniform = inputs
        log_p = jax.nn.log_softmax(logits / temperature)
        if greedy:
            token = jnp.argmax(log_p, axis=-1).astype(jnp.int32)
        else:
            token = jax.vmap(inverse_cdf)(log_p, uniform)
        token = jnp.where(alive, token, language.pad)
        logp = jnp.take_along_axis(log_p, token[:, None], axis=1)[:, 0]
        still = alive if language.eos is None else alive & (token != language.eos)
        logits, cache = policy.decode(params, token, first + t, cache)
        return (logits, cache, still), (token, alive, jnp.where(alive, logp, 0.0), log_p)

    carry = (logits, cache, jnp.ones((b,), bool))
    _, out = jax.lax.scan(act, carry, (jnp.arange(language.length), uniforms))
    tokens, mask, logps, distribution = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), out)
    return Rollout(Episode(prompts, tokens, mask), logps, distribution)


def log_distribution(
    policy: Policy, params: Params, episode: Episode, temperature: Array | float = 1.0
) -> Array:
    """[B, T, V]: log π(· | s_t) at the sampling temperature."""
    return jax.nn.log_softmax(policy.logits(params, episode) / temperature)


def chosen(distribution: Array, episode: Episode) -> Array:
    """[B, T]: log π(a_t | s_t), 0 after the end."""
    logps = jnp.take_along_axis(distribution, episode.tokens[..., None], axis=-1)[..., 0]
    return jnp.where(episode.mask, logps, 0.0)
