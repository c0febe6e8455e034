"""Likert ratings: how good is this, on a scale of K points?"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

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
from rlhf_jax.humans.human import Human
from rlhf_jax.types import Array, Episode, Key


class Likert(NamedTuple):
    """N answers."""

    x: Episode
    point: Array
    """[N] int32, 0 (worst) … K − 1 (best)"""
    weight: Array
    """[N] float32 ≥ 0"""
    who: Array | None = None
    """[N] int32"""


def _cutpoints(human: Human) -> Array:
    return jnp.asarray(human.cutpoints, jnp.float32)


def elicit(human: Human, value: Array, key: Key) -> Array:
    """How many of the K − 1 cut-points û + L/β exceeds, L ~ Logistic(0, 1): [...] → int32 [...].

    P(y ≤ k) = σ(β (c_k − û)), the ordered logit (McCullagh 1980). A flip rates −û, a lapse is
    an even draw among the K points. Consumes `key`.
    """
    noise_key, flip_key, lapse_key, point_key = jax.random.split(key, 4)
    shape, cuts = value.shape, _cutpoints(human)
    felt = value * flip_sign(human, shape, flip_key)
    felt = felt + noise(human, jax.random.logistic(noise_key, shape))
    # side="left" counts cuts strictly below.
    point = jnp.searchsorted(cuts, felt, side="left").astype(jnp.int32)
    any_point = jax.random.randint(point_key, shape, 0, cuts.shape[0] + 1)
    return jnp.where(lapses(human, shape, lapse_key), any_point, point)


def ordered_logit(value: Array, cutpoints: Array, beta: Array) -> Array:
    """log P(y = k), k = 0…K − 1: [...], [K − 1] → [..., K].

    log[σ(β (c_k − u)) − σ(β (c_{k−1} − u))] = log σ(β (u − c_{k−1})) + log σ(β (c_k − u)) +
    log(1 − e^{−β (c_k − c_{k−1})}), with c_{−1} = −∞ and c_{K−1} = ∞: nothing cancels.
    """
    shape = (*value.shape, *cutpoints.shape)
    z = beta * (value[..., None] - jnp.broadcast_to(cutpoints, shape))
    edge = jnp.zeros((*value.shape, 1))
    above = jnp.concatenate([edge, jax.nn.log_sigmoid(z)], axis=-1)
    below = jnp.concatenate([jax.nn.log_sigmoid(-z), edge], axis=-1)
    gap = jnp.log(jnp.maximum(-jnp.expm1(-beta * jnp.diff(cutpoints)), 1e-30))
    gap = jnp.concatenate([jnp.zeros(1), gap, jnp.zeros(1)]) if cutpoints.size else jnp.zeros(1)
    return above + below + jnp.broadcast_to(gap, above.shape)


def log_probabilities(human: Human, value: Array) -> Array:
    """[...] → [..., K]: log P of each point, lapses and flips included."""
    cuts, beta = _cutpoints(human), precision(human)
    even = -jnp.log(jnp.float32(cuts.shape[0] + 1))
    return mixed(human, ordered_logit(value, cuts, beta), ordered_logit(-value, cuts, beta), even)


def loss(reward: Array, point: Array, human: Human = STANDARD) -> Array:
    """−log P(point | r, human), nats: [...], int32 [...] → [...].

    Cut-points fitted with the reward (`humans.links`) settle the scale: their offset and the
    reward's are one freedom, their spacing and its unit another, given β.
    """
    log_p = log_probabilities(human, reward)
    return -jnp.take_along_axis(log_p, point[..., None], axis=-1)[..., 0]


def ask(human: Human, seen: Seen, key: Key) -> Likert:
    """One point more than the person's cut-points. Consumes `key`."""
    point = answers(lambda h, k, v: elicit(h, v[0], k), human, key, seen.values)
    return Likert(first(seen.x), point, all_answer(seen))


def nll(reading: Reading, data: Likert, human: Human) -> Array:
    """Ordered logit. → [N]"""
    return each(lambda h, r, point: loss(r[0], point, h))(human, reading.rewards, data.point)


KIND = Kind(
    name="likert",
    asked="one of five points",
    equation="min_φ E[−log (σ(c_y+1 − r_φ(x)) − σ(c_y − r_φ(x)))] + λ_r(φ), c = −∞, −1.5, −0.5, "
    "0.5, 1.5, ∞; ordered logit",
    units="logits, the cut-points' unit too",
    acts=(*NOISE, "cutpoints"),
    samples=1,
    cost=1,
    ask=ask,
    episodes=lone,
    nll=nll,
    anchored=True,
)
