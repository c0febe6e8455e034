"""Labels of one sample: good or bad, or which of K categories."""

from __future__ import annotations

from typing import NamedTuple

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
from rlhf_jax.humans.choice import choose, log_choice
from rlhf_jax.humans.human import Human, Value
from rlhf_jax.types import Array, Episode, Key


class Label(NamedTuple):
    """N answers, unpaired."""

    x: Episode
    label: Array
    """[N] int32: a category; 0 bad, 1 good where there are two"""
    weight: Array
    """[N] float32 ≥ 0"""
    who: Array | None = None
    """[N] int32"""


def approval(value: Array, bar: Value = 0.0) -> Array:
    """[...] → [..., 2]: what calling it bad (0) and good (u − bar) is worth.

    P(good) = σ(β (u − bar)): the bar is the value that a person has learned to expect.
    """
    return jnp.stack([jnp.zeros_like(value), value - bar], axis=-1)


def elicit(human: Human, scores: Array, key: Key) -> Array:
    """[..., K] what each label is worth of this sample → int32 [...], P = softmax(β s).

    Unpaired good or bad: scores = approval(û, human.bar). Consumes `key`.
    """
    return choose(human, scores, key)


def loss(scores: Array, label: Array, human: Human = STANDARD, *, smoothing: Value = 0.0) -> Array:
    """−log P(label | scores, human), nats: [..., K], int32 [...] → [...].

    `smoothing` s counts every label with s/K beside (1 − s) of the one given (Szegedy et al.
    2015, arXiv 1512.00567). For soft labels take −Σ q log P from `humans.log_choice`.
    """
    log_p = log_choice(human, scores)
    given = jnp.take_along_axis(log_p, label[..., None], axis=-1)[..., 0]
    return -(1.0 - smoothing) * given - smoothing * jnp.mean(log_p, axis=-1)


def ask(human: Human, seen: Seen, key: Key) -> Label:
    """Good or bad, held against the person's bar. Consumes `key`."""
    one = lambda h, k, v: elicit(h, approval(v[0], h.bar), k)
    return Label(first(seen.x), answers(one, human, key, seen.values), all_answer(seen))


def nll(reading: Reading, data: Label, human: Human) -> Array:
    """P(good) = σ(β (r − bar)). → [N]"""
    one = lambda h, r, said: loss(approval(r[0], h.bar), said, h)
    return each(one)(human, reading.rewards, data.label)


KIND = Kind(
    name="label",
    asked="good or bad",
    equation="min_φ E[−y log σ(r_φ(x)) − (1−y) log σ(−r_φ(x))] + λ_r(φ), y = 1 for good",
    units="logits of good",
    acts=(*NOISE, "bar"),
    samples=1,
    cost=1,
    ask=ask,
    episodes=lone,
    nll=nll,
    anchored=True,
)
