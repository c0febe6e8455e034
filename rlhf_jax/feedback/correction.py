"""Corrections: a person shown x gives x′ instead, or leaves it."""

from __future__ import annotations

from typing import NamedTuple

from rlhf_jax.feedback import STANDARD
from rlhf_jax.humans.choice import among, choose, log_chosen
from rlhf_jax.humans.human import Human
from rlhf_jax.types import Array, Episode, Key


class Correction(NamedTuple):
    """N answers among K versions of one sample each."""

    x: Episode
    """leaves [N, K, …]: version 0 is what was shown, the rest are edits of it"""
    distance: Array
    """[N, K] float32 ≥ 0: how much editing each takes, 0 for version 0"""
    chosen: Array
    """[N] int32; 0 leaves it as it is"""
    weight: Array
    """[N] float32 ≥ 0"""
    mask: Array | None = None
    """[N, K] bool: versions that exist; None where all do"""
    who: Array | None = None
    """[N] int32"""


def elicit(
    human: Human, values: Array, distance: Array, key: Key, mask: Array | None = None
) -> Array:
    """[..., K] perceived values and edit distances → int32 [...]: the version handed back.

    P(k) = softmax_k(β (û_k − edit_cost · distance_k)) (Jeon, Milli & Dragan 2020, arXiv
    2002.04833; Bajcsy et al. 2017 for the cost of correcting). Consumes `key`.
    """
    base = None if mask is None else among(mask)
    return choose(human, values - human.edit_cost * distance, key, base)


def loss(
    rewards: Array,
    distance: Array,
    chosen: Array,
    human: Human = STANDARD,
    mask: Array | None = None,
) -> Array:
    """−log P(chosen | r, human), nats: [..., K], [..., K], int32 [...] → [...].

    Where only x and x′ are known, K = 2, and the loss says that x′ is better than x.
    """
    base = None if mask is None else among(mask)
    return -log_chosen(human, rewards - human.edit_cost * distance, chosen, base)
