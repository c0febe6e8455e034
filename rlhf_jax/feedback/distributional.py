"""Comparisons under a reward that is a distribution: hidden context, kept instead of averaged.

Siththaranjan et al. 2023, arXiv 2312.08358 (distributional preference learning). One answer
compares a draw of û(a) with an independent draw of û(b): whoever answered, in whatever
context, is one draw of what the model does not see. `elicit` and `loss` are two halves of that
statement, for a normal and for a categorical û. Means and shares are [N, …] of N responses.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

from rlhf_jax.config import ConfigError
from rlhf_jax.types import Array, Key


class Normal(NamedTuple):
    """û(x) ~ N(mean, e^(2 · log_deviation)): two outputs of a model for each response.

    Comparisons fix it up to one offset and one positive factor of all means and deviations.
    """

    mean: Array
    log_deviation: Array


def log_probability(a: Normal, b: Normal) -> Array:
    """log P(û_a > û_b) = log Φ((μ_a − μ_b) / √(σ_a² + σ_b²)), nats. […] → […].

    With equal deviations, Thurstone 1927, case V.
    """
    variance = jnp.exp(2.0 * a.log_deviation) + jnp.exp(2.0 * b.log_deviation)
    return norm.logcdf((a.mean - b.mean) / jnp.sqrt(variance))


def log_probability_categorical(a: Array, b: Array) -> Array:
    """log [Σ_{i>j} p_a(i) p_b(j) + ½ Σ_i p_a(i) p_b(i)], nats. […, K] → […].

    p = softmax over K rising levels of value: equal levels are decided by a coin.
    """
    log_a, log_b = jax.nn.log_softmax(a, axis=-1), jax.nn.log_softmax(b, axis=-1)
    both = log_a[..., :, None] + log_b[..., None, :]
    k = a.shape[-1]
    share = jnp.tril(jnp.ones((k, k)), -1) + 0.5 * jnp.eye(k)
    return jax.nn.logsumexp(both, axis=(-2, -1), b=jnp.broadcast_to(share, both.shape))


def _preferred(a: Normal | Array, b: Normal | Array) -> Array:
    if isinstance(a, Normal) and isinstance(b, Normal):
        return log_probability(a, b)
    if isinstance(a, Normal) or isinstance(b, Normal):
        raise ConfigError("distributional comparison: one reward is normal, one categorical")
    return log_probability_categorical(a, b)


def _draw(reward: Normal | Array, key: Key) -> Array:
    if isinstance(reward, Normal):
        noise = jax.random.normal(key, reward.mean.shape)
        return reward.mean + jnp.exp(reward.log_deviation) * noise
    return jax.random.categorical(key, reward).astype(jnp.float32)


def elicit(a: Normal | Array, b: Normal | Array, key: Key) -> Array:
    """One answer to each pair by someone drawn anew: 1 a, 0 b, float32. Ties by a coin."""
    first, second, coin = jax.random.split(key, 3)
    gap = _draw(a, first) - _draw(b, second)
    toss = jax.random.bernoulli(coin, shape=gap.shape).astype(jnp.float32)
    return jnp.where(gap == 0.0, toss, (gap > 0.0).astype(jnp.float32))


def loss(a: Normal | Array, b: Normal | Array, label: Array) -> Array:
    """−y log P(a) − (1 − y) log P(b), nats; the labels are those of `comparison`. [N] → [N].

    `Normal`s or the logits [N, K] of K levels. A tie is ½; "can't tell" (< 0) costs nothing.
    Raises: `ConfigError` if a and b are of different kinds.
    """
    nll = -label * _preferred(a, b) - (1.0 - label) * _preferred(b, a)
    return jnp.where(label < 0.0, 0.0, nll)


def moments(logits: Array, levels: Array) -> Normal:
    """The mean and deviation of a categorical û: logits […, K], levels [K] rising → […]."""
    p = jax.nn.softmax(logits, axis=-1)
    value = jnp.broadcast_to(levels, p.shape)
    mean = jnp.sum(p * value, axis=-1)
    variance = jnp.sum(p * jnp.square(value - mean[..., None]), axis=-1)
    return Normal(mean, 0.5 * jnp.log(jnp.maximum(variance, 1e-12)))


def quantile(reward: Normal, share: Array | float) -> Array:
    """μ + Φ⁻¹(share) σ: what at least 1 − share of answers would exceed. […] → […].

    To optimise a low one is to avoid what some context makes terrible (arXiv 2312.08358).
    """
    return reward.mean + norm.ppf(jnp.asarray(share)) * jnp.exp(reward.log_deviation)


def quantile_categorical(logits: Array, levels: Array, share: Array | float) -> Array:
    """The least of the levels [K] at or below which at least `share` lies. […, K] → […]."""
    reached = jnp.cumsum(jax.nn.softmax(logits, axis=-1), axis=-1) >= share - 1e-6
    return levels[jnp.argmax(reached, axis=-1)]


def explained(reward: Normal) -> Array:
    """r² = Var_x(μ) / (Var_x(μ) + E_x σ²) in [0, 1]: share of û that the response decides.

    What is left is hidden context (arXiv 2312.08358). Over all responses given; scalar.
    """
    between = jnp.var(reward.mean)
    within = jnp.mean(jnp.exp(2.0 * reward.log_deviation))
    return between / jnp.maximum(between + within, 1e-30)
