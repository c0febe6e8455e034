"""Labels of one sample: good or bad, or which of K categories."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from rlhf_jax.feedback import STANDARD
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
