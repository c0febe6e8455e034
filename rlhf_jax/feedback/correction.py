"""Corrections: a person shown x gives x′ instead, or leaves it."""

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
    of,
    several,
)
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


def distance(x: Episode) -> Array:
    """[K] versions of one sample → [K] float32: the share of the T places at which each differs
    from version 0. Padding is one symbol like the others, so that length counts.
    """
    written = jnp.where(x.mask, x.tokens, -1)
    first = jnp.broadcast_to(written[:1], written.shape)
    return jnp.mean((written != first).astype(jnp.float32), axis=1)


def ask(human: Human, seen: Seen, key: Key) -> Correction:
    """Version 0 is shown and read, one is written: the best of what it could become. The others
    only come to mind. Consumes `key`.
    """
    far = jax.vmap(distance)(seen.x)
    one = lambda h, k, v, d: elicit(h, v, d, k)
    return Correction(seen.x, far, answers(one, human, key, seen.values, far), all_answer(seen))


def nll(reading: Reading, data: Correction, human: Human) -> Array:
    """softmax(β (r − edit_cost · distance)) over the versions. → [N]"""
    one = lambda h, r, far, chosen: loss(r, far, chosen, h)
    return each(one)(human, reading.rewards, data.distance, data.chosen)


KIND = Kind(
    name="correction",
    asked="what they would rather have read",
    equation="min_φ E[−log e^r_φ(x′) / Σ_k e^r_φ(x_k)] + λ_r(φ), x′ the one chosen of the "
    "versions x_k",
    units="logits of a choice",
    acts=(*NOISE, "edit_cost"),
    samples=of(lambda collect, _: collect.options),
    cost=2,
    ask=ask,
    episodes=several,
    nll=nll,
    chooses=True,
)
