"""What of a sample reaches a person: seen parts, weighed values, biases, malice."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.humans.human import Human, Value
from rlhf_jax.types import Array


class Sample(NamedTuple):
    """What there is to see of one sample; what a world does not have stays 0."""

    values: Array
    """[T, U] float32: what each part adds to each value dimension"""
    mask: Array
    """[T] bool, true on real parts"""
    length: Value = 0.0
    """In whatever unit `length_bias` is per; centre it, or long samples gain an offset."""
    agreement: Value = 0.0
    """How far it says what the prompt wants to hear, −1…1"""
    features: Value = 0.0
    """[F] float32: spurious features, triggers and targets, in an order the world names"""
    form: Value = 0.0
    """Value that the form alone suggests"""
    difficulty: Value = 0.0
    """In logits of being judged rightly, as in `Human.ability`"""


class Moment(NamedTuple):
    """When and where an answer is given."""

    time: Value = 0.0
    context: Value = 0.0
    """The hidden context c, such as ±1 or a standard normal"""


class Perceived(NamedTuple):
    """A sample as one person sees it. Float32 of one shape."""

    value: Array
    """û, what is judged"""
    whole: Array
    """ū, the same with γ = 1: what the thresholds `equal` and `skip` are held against"""


def _dot(weights: Value, x: Array | float) -> Array:
    """Σ w x over the last axis; a scalar on either side stands for equal entries."""
    weights, x = jnp.atleast_1d(jnp.asarray(weights)), jnp.atleast_1d(jnp.asarray(x))
    shape = jnp.broadcast_shapes(weights.shape, x.shape)
    return jnp.sum(jnp.broadcast_to(weights, shape) * jnp.broadcast_to(x, shape), axis=-1)


def position(mask: Array) -> Array:
    """[T] bool → [T]: the middle of the i-th of n real parts, (i + ½)/n."""
    count = jnp.maximum(jnp.sum(mask), 1)
    return (jnp.cumsum(mask) - 0.5) / count


def seen(human: Human, mask: Array) -> Array:
    """[T] bool: real parts whose position lies in [seen_from, seen_to]."""
    at = position(mask)
    return mask & (at >= human.seen_from) & (at <= human.seen_to)


def weights_at(human: Human, moment: Moment) -> Array:
    """w + drift · t + context · c: what each value dimension is worth now. [U] or scalar."""
    return (
        jnp.asarray(human.weights)
        + jnp.asarray(human.drift) * moment.time
        + jnp.asarray(human.context) * moment.context
    )


def parts(human: Human, sample: Sample, moment: Moment) -> Array:
    """[T]: w · v_t where seen, the belief `unseen` where not, 0 where there is no part."""
    value = jnp.where(
        seen(human, sample.mask),
        _dot(weights_at(human, moment), sample.values),
        human.unseen,
    )
    return jnp.where(sample.mask, value, 0.0)


def discounted(parts: Array, mask: Array, discount: Value) -> Array:
    """Σ_t γ^(n−t) u_t over the n real parts: the last one counts fully."""
    left = jnp.sum(mask) - jnp.cumsum(mask)
    return jnp.sum(jnp.where(mask, parts * jnp.power(discount, left.astype(jnp.float32)), 0.0))


def bias(human: Human, sample: Sample) -> Array:
    """length_bias · length + sycophancy · agreement + spurious · f."""
    return (
        jnp.asarray(human.length_bias) * sample.length
        + jnp.asarray(human.sycophancy) * sample.agreement
        + _dot(human.spurious, sample.features)
    )


def coloured(human: Human, value: Array, sample: Sample) -> Array:
    """The value after competence, persuasion, bias and malice, in this order.

    û ← σ(θ − difficulty) û: the rest of it is not understood and counts 0;
    û ← (1 − p) û + p · form;  û ← û + bias;  û ← (1 − m s) û + m s target · f,
    with s = 1 where trigger · f > ½.
    """
    value = jax.nn.sigmoid(human.ability - jnp.asarray(sample.difficulty)) * value
    value = (1.0 - human.persuasion) * value + human.persuasion * sample.form
    value = value + bias(human, sample)
    m = human.malice * (_dot(human.trigger, sample.features) > 0.5)
    return (1.0 - m) * value + m * _dot(human.target, sample.features)


def perceive(human: Human, sample: Sample, moment: Moment = Moment()) -> Perceived:  # noqa: B008
    """(person, one sample, when) → what they see of its value. No noise: that is the choice's.

    parts → Σ_t γ^(n−t) → competence → persuasion → bias → malice; see `Human` for sources.
    vmap over samples, over people or over both.
    """
    u = parts(human, sample, moment)
    return Perceived(
        coloured(human, discounted(u, sample.mask, human.myopia), sample),
        coloured(human, jnp.sum(u), sample),
    )
