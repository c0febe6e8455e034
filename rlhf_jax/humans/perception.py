"""What of a sample reaches a person: seen parts, weighed values, biases, malice."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.humans.human import Human, Value
from rlhf_jax.types import Array, Sample


class Moment(NamedTuple):
    """When and where an answer is given."""

    time: Value = 0.0
    """In rounds"""
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
    """[T]: w · (v_t − v_{t−1}), what each part adds; 0 where there is none."""
    before = jnp.concatenate([jnp.zeros_like(sample.values[:1]), sample.values[:-1]])
    added = _dot(weights_at(human, moment), sample.values - before)
    return jnp.where(sample.mask, added, 0.0)


def made_of(parts: Array, visible: Array, mask: Array, unseen: Value, discount: Value) -> Array:
    """Σ_t γ^(n−t) û_t over the n real parts, less Σ_t u_t, where û_t = u_t for visible ones.

    What myopia and what is not seen change of a value: exactly 0 where neither does anything, so
    that samples of equal value stay equal.
    """
    left = jnp.sum(mask) - jnp.cumsum(mask)
    believed = jnp.where(visible, parts, unseen)
    kept = jnp.power(discount, left.astype(jnp.float32)) * believed
    return jnp.sum(jnp.where(mask, kept - parts, 0.0))


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

    û = w · v_n + made_of(parts) → competence → persuasion → bias → malice; see `Human` for
    sources. Of a `Sample` as `at` cuts it. vmap over samples, over people or over both.
    """
    u, visible = parts(human, sample, moment), seen(human, sample.mask)
    last = jnp.maximum(jnp.sum(sample.mask) - 1, 0)
    worth = _dot(weights_at(human, moment), sample.values[last])
    whole = jnp.where(sample.mask[last], worth, 0.0)
    changed = lambda discount: whole + made_of(u, visible, sample.mask, human.unseen, discount)
    return Perceived(
        coloured(human, changed(human.myopia), sample), coloured(human, changed(1.0), sample)
    )


def prefixes(human: Human, sample: Sample, moment: Moment = Moment()) -> Perceived:  # noqa: B008
    """What they see of the value of each beginning tokens[:t + 1], leaves [T]; 0 after the end."""
    at = lambda t: perceive(human, sample.at(t), moment)
    found = jax.vmap(at)(jnp.arange(sample.mask.shape[0]))
    return Perceived(*(jnp.where(sample.mask, x, 0.0) for x in found))


def whole(sample: Sample) -> Sample:
    """A sample as it is at its end."""
    return sample.at(jnp.maximum(jnp.sum(sample.mask) - 1, 0))
