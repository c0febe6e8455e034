"""Feedback on steps: is each one right, or where is the first mistake?"""

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
    prefix_values,
)
from rlhf_jax.feedback.label import approval
from rlhf_jax.humans.choice import choose, flip_sign, lapses, log_choice, mixed, noise, precision
from rlhf_jax.humans.human import Human
from rlhf_jax.types import Array, Episode, Key


class Process(NamedTuple):
    """N answers about S steps each."""

    x: Episode
    label: Array
    """[N, S] int32, 1 a good step, 0 a bad one; or [N] int32, the index of the first bad
    step, S (or the number of steps) where there is none"""
    steps: Array
    """[N, S] bool, true on real steps"""
    weight: Array
    """[N] float32 ≥ 0"""
    who: Array | None = None
    """[N] int32"""


def elicit(human: Human, values: Array, key: Key) -> Array:
    """[..., S] perceived value of each step → int32 [..., S], 1 good, 0 bad, independent.

    P(good) = σ(β (û_s − bar)) (Lightman et al. 2023, arXiv 2305.20050, without their neutral
    label: `likert` has it, with two cut-points). Consumes `key`.
    """
    return choose(human, approval(values, human.bar), key)


def loss(rewards: Array, label: Array, steps: Array, human: Human = STANDARD) -> Array:
    """−Σ_s log P(label_s | r_s, human) over real steps, nats: [..., S] → [...]."""
    log_p = log_choice(human, approval(rewards, human.bar))
    given = jnp.take_along_axis(log_p, label[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(steps, given, 0.0), axis=-1)


def elicit_first_error(human: Human, values: Array, steps: Array, key: Key) -> Array:
    """[..., S] → int32 [...]: the first step judged bad, the number of steps where none is.

    Steps are judged in turn, P(good) = σ(β (û_s − bar)), and the first bad one ends the
    reading (Tyen et al. 2023, arXiv 2311.08516). A flip judges −(û − bar), a lapse is an even
    draw of 0…n. Real steps come first. Consumes `key`.
    """
    noise_key, flip_key, lapse_key, any_key = jax.random.split(key, 4)
    shape, n = values.shape[:-1], jnp.sum(steps, axis=-1)
    felt = (values - human.bar) * flip_sign(human, shape, flip_key)[..., None]
    felt = felt + noise(human, jax.random.logistic(noise_key, values.shape))
    bad = steps & (felt <= 0)
    first = jnp.where(jnp.any(bad, axis=-1), jnp.argmax(bad, axis=-1), n)
    any_step = jax.random.randint(any_key, shape, 0, n + 1)
    return jnp.where(lapses(human, shape, lapse_key), any_step, first).astype(jnp.int32)


def _log_first_error(felt: Array, steps: Array) -> Array:
    """[..., S] → [..., S + 1]: log P(first error = 0…S), the last entry that there is none."""
    good = jnp.where(steps, jax.nn.log_sigmoid(felt), 0.0)
    before = jnp.cumsum(good, axis=-1) - good
    here = before + jnp.where(steps, jax.nn.log_sigmoid(-felt), -1e30)
    return jnp.concatenate([here, jnp.sum(good, axis=-1, keepdims=True)], axis=-1)


def log_first_error(human: Human, values: Array, steps: Array) -> Array:
    """[..., S] → [..., S + 1]: log P of each answer, column S for "no error".

    log P(e) = Σ_{s<e} log σ(β (u_s − bar)) + log σ(−β (u_e − bar)), lapses and flips included.
    """
    felt = precision(human) * (values - human.bar)
    none = jnp.ones((*steps.shape[:-1], 1), bool)
    exists = jnp.concatenate([steps, none], axis=-1)
    n = jnp.sum(steps, axis=-1, keepdims=True)
    even = jnp.where(exists, -jnp.log(n + 1.0), -1e30)
    return mixed(human, _log_first_error(felt, steps), _log_first_error(-felt, steps), even)


def loss_first_error(rewards: Array, first: Array, steps: Array, human: Human = STANDARD) -> Array:
    """−log P(first | r, human), nats: [..., S], int32 [...], bool [..., S] → [...].

    `first` at or beyond the number of steps says that there is no error.
    """
    log_p = log_first_error(human, rewards, steps)
    s = rewards.shape[-1]
    column = jnp.where(first >= jnp.sum(steps, axis=-1), s, first)
    return -jnp.take_along_axis(log_p, column[..., None], axis=-1)[..., 0]


def ask(human: Human, seen: Seen, key: Key) -> Process:
    """A step is a token: is what has been said so far good? Consumes `key`."""
    said = answers(lambda h, k, v: elicit(h, v, k), human, key, prefix_values(seen))
    return Process(first(seen.x), said, seen.x.mask[:, 0], all_answer(seen))


def nll(reading: Reading, data: Process, human: Human) -> Array:
    """P(good) = σ(β (r(s_t+1) − bar)) for every real token t. → [N]"""
    one = lambda h, r, said, steps: loss(r[0, 1:], said, steps, h)
    return each(one)(human, reading.states, data.label, data.steps)


KIND = Kind(
    name="process",
    asked="good or bad for every prefix",
    equation="min_φ E[−Σ_t y_t log σ(r_φ(s_t)) + (1−y_t) log σ(−r_φ(s_t))] + λ_r(φ) over the "
    "prefixes s_t, y_t = 1 for good",
    units="logits of good",
    acts=(*NOISE, "bar"),
    samples=1,
    cost=1,
    ask=ask,
    episodes=lone,
    nll=nll,
    steps=True,
    anchored=True,
)
