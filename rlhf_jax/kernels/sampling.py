"""x ~ π_θ: prefill, then decode with a key-value cache."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.config import ConfigError
from rlhf_jax.models.heads import Policy
from rlhf_jax.ops.tokens import inverse_cdf, truncate
from rlhf_jax.types import Array, Episode, Key, Language, Params, Prompts


class Rollout(NamedTuple):
    """An episode with what the policy thought of each state."""

    episode: Episode
    logps: Array
    """[B, T] float32: log π(a_t | s_t) at the sampling temperature, 0 after the end"""
    distribution: Array
    """[B, T, V] float32: log π(· | s_t) at the sampling temperature"""


def check(language: Language) -> None:
    """Raises `ConfigError` where padding and the end are one symbol."""
    if language.eos is not None and language.pad == language.eos:
        raise ConfigError(
            f"pad = eos = {language.eos} ({language.symbols[language.eos]!r}): masked with the "
            "padding, the end would never be learned; give padding a symbol of its own"
        )


def sample(
    policy: Policy,
    language: Language,
    params: Params,
    prompts: Prompts,
    key: Key,
    temperature: Array | float = 1.0,
    *,
    greedy: Array | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Rollout:
    """One response to each prompt. Consumes `key`. Rows where `greedy` [B] take the arg-max.

    `top_k` and `top_p` narrow what is drawn (`narrowed`) and nothing else: the log-probabilities
    stay those of the whole distribution, so learners do without them.

    Raises: `ConfigError`, see `check`.
    """
    check(language)
    b = prompts.tokens.shape[0]
    uniforms = jax.random.uniform(key, (language.length, b))
    logits, cache = policy.prefill(params, prompts, language.length)
    first = jnp.sum(prompts.mask, axis=1)

    def act(carry: tuple, inputs: tuple) -> tuple:
        logits, cache, alive = carry
        t, uniform = inputs
        log_p = jax.nn.log_softmax(logits / temperature)
        token = jax.vmap(inverse_cdf)(narrowed(log_p, top_k, top_p), uniform)
        if greedy is not None:
            token = jnp.where(greedy, jnp.argmax(log_p, axis=-1).astype(jnp.int32), token)
        token = jnp.where(alive, token, language.pad)
        logp = jnp.take_along_axis(log_p, token[:, None], axis=1)[:, 0]
        still = alive if language.eos is None else alive & (token != language.eos)
        logits, cache = policy.decode(params, token, first + t, cache)
        return (logits, cache, still), (token, alive, jnp.where(alive, logp, 0.0), log_p)

    carry = (logits, cache, jnp.ones((b,), bool))
    out: Any
    _, out = jax.lax.scan(act, carry, (jnp.arange(language.length), uniforms))
    tokens, mask, logps, distribution = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), out)
    return Rollout(Episode(prompts, tokens, mask), logps, distribution)


def narrowed(log_p: Array, top_k: int, top_p: float) -> Array:
    """[..., V] log-probabilities → those of what top-k and top-p (`ops.tokens.truncate`) leave."""
    if not top_k and top_p >= 1.0:
        return log_p
    kept = lambda row: truncate(row, top_k, top_p)
    for _ in log_p.shape[:-1]:
        kept = jax.vmap(kept)
    return jax.nn.log_softmax(kept(log_p), axis=-1)


def log_distribution(
    policy: Policy, params: Params, episode: Episode, temperature: Array | float = 1.0
) -> Array:
    """[B, T, V]: log π(· | s_t) at the sampling temperature."""
    return jax.nn.log_softmax(policy.logits(params, episode) / temperature)


def chosen(distribution: Array, episode: Episode) -> Array:
    """[B, T]: log π(a_t | s_t), 0 after the end."""
    logps = jnp.take_along_axis(distribution, episode.tokens[..., None], axis=-1)[..., 0]
    return jnp.where(episode.mask, logps, 0.0)


def sequence_log_probs(
    policy: Policy, params: Params, episode: Episode, temperature: Array | float = 1.0
) -> Array:
    """[B]: log π(x | prompt), nats, at this temperature."""
    return jnp.sum(chosen(log_distribution(policy, params, episode, temperature), episode), axis=1)
