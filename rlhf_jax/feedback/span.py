"""Fine-grained feedback: which spans of a sample are at fault, and of what category."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp

from rlhf_jax.feedback import STANDARD
from rlhf_jax.humans.choice import choose, log_choice
from rlhf_jax.humans.human import Human, Value
from rlhf_jax.types import Array, Episode, Key


class Spans(NamedTuple):
    """N answers about S spans each."""

    x: Episode
    category: Array
    """[N, S] int32: 0 nothing wrong, 1…C the category of the fault"""
    spans: Array
    """[N, S] bool, true on real spans"""
    weight: Array
    """[N] float32 ≥ 0"""
    who: Array | None = None
    """[N] int32"""


def options(values: Array, bar: Value = 0.0) -> Array:
    """[..., S, C] value of a span in each category → [..., S, C + 1] what a mark is worth.

    A mark says that the span lacks what it takes there: it is worth bar − v_c; no mark 0.
    """
    clean = jnp.zeros((*values.shape[:-1], 1), values.dtype)
    return jnp.concatenate([clean, bar - values], axis=-1)


def elicit(human: Human, values: Array, key: Key) -> Array:
    """[..., S, C] perceived value of each span in each category → int32 [..., S].

    P(c) = softmax(β (0, bar − û_1, …, bar − û_C))_c for each span on its own: the fault that
    weighs most is marked (Wu et al. 2023, arXiv 2306.01693, whose reward is the sum over
    spans and categories). Consumes `key`.
    """
    return choose(human, options(values, human.bar), key)


def loss(rewards: Array, category: Array, spans: Array, human: Human = STANDARD) -> Array:
    """−Σ_s log P(category_s | r_s, human), nats: [..., S, C], int32, bool [..., S] → [...]."""
    log_p = log_choice(human, options(rewards, human.bar))
    given = jnp.take_along_axis(log_p, category[..., None], axis=-1)[..., 0]
    return -jnp.sum(jnp.where(spans, given, 0.0), axis=-1)
