"""Scalar ratings: how good is this, as a number on one's own scale?"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

from rlhf_jax.feedback.kind import (
    NOISE,
    STANDARD,
    Kind,
    Reading,
    Seen,
    all_answer,
    answers,
    each,
    first,
    lone,
)
from rlhf_jax.humans.choice import flip_sign, lapses, mixed, noise, precision
from rlhf_jax.humans.human import Human, Value
from rlhf_jax.types import Array, Episode, Key


class Rating(NamedTuple):
    """N answers."""

    x: Episode
    rating: Array
    """[N] float32, in the person's rating units"""
    weight: Array
    """[N] float32 ≥ 0"""
    who: Array | None = None
    """[N] int32"""
    time: Array | None = None
    """[N] float32, for people whose scale drifts"""


def elicit(human: Human, value: Array, key: Key, time: Value = 0.0) -> Array:
    """y = o + drift · t + scale · (û + z/β), z ~ N(0, 1): [...] → [...] float32.

    The Gaussian choice among all numbers, P(y) ∝ exp(−½ β² (û(y) − û)²) with û(y) the value
    that a rating y stands for (arXiv 2002.04833; Thurstone 1927 with one sample). A flip
    rates −û; whoever lapses gives a number as though û ~ N(0, 1). Consumes `key`.
    """
    noise_key, flip_key, lapse_key = jax.random.split(key, 3)
    z = jax.random.normal(noise_key, value.shape)
    felt = value * flip_sign(human, value.shape, flip_key) + noise(human, z)
    felt = jnp.where(lapses(human, value.shape, lapse_key), z, felt)
    return human.offset + human.offset_drift * time + human.scale * felt


def loss(reward: Array, rating: Array, human: Human = STANDARD, time: Value = 0.0) -> Array:
    """−log P(rating | r, human), nats, as a density per rating unit: [...] → [...].

    With y′ = (y − o − drift · t)/scale, the density is that of (1 − λ) ((1 − φ) N(y′; r, 1/β²)
    + φ N(y′; −r, 1/β²)) + λ N(y′; 0, 1), divided by the scale. At β = 1 and else neutral it
    is ½ (y − r)² + const: least squares.
    """
    felt = (rating - human.offset - human.offset_drift * time) / human.scale
    deviation = 1.0 / precision(human)
    log_p = mixed(
        human,
        norm.logpdf(felt, reward, deviation),
        norm.logpdf(felt, -reward, deviation),
        norm.logpdf(felt),
    )
    return jnp.log(jnp.asarray(human.scale)) - log_p


def ask(human: Human, seen: Seen, key: Key) -> Rating:
    """A number, on the scale that the person has at that time. Consumes `key`."""
    if seen.time is None:
        said = answers(lambda h, k, v: elicit(h, v[0], k), human, key, seen.values)
    else:
        one = lambda h, k, v, t: elicit(h, v[0], k, t)
        said = answers(one, human, key, seen.values, seen.time)
    return Rating(first(seen.x), said, all_answer(seen), time=seen.time)


def nll(reading: Reading, data: Rating, human: Human) -> Array:
    """Gaussian on the person's own scale. → [N]"""
    if data.time is None:
        return each(lambda h, r, said: loss(r[0], said, h))(human, reading.rewards, data.rating)
    one = lambda h, r, said, t: loss(r[0], said, h, t)
    return each(one)(human, reading.rewards, data.rating, data.time)


KIND = Kind(
    name="rating",
    asked="a number",
    equation="min_φ E[½ (y − r_φ(x))²] + λ_r(φ); normal, deviation 1",
    units="rating units",
    acts=(*NOISE, "offset", "scale", "offset_drift"),
    samples=1,
    cost=1,
    ask=ask,
    episodes=lone,
    nll=nll,
    anchored=True,
)
