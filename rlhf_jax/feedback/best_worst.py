"""Best–worst scaling: which of K samples is the best, and which is the worst?"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np

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
from rlhf_jax.humans.choice import choose, log_chosen
from rlhf_jax.humans.human import Human
from rlhf_jax.types import Array, Episode, Key


class BestWorst(NamedTuple):
    """N answers about K samples each."""

    x: Episode
    """leaves [N, K, …]"""
    pair: Array
    """[N] int32, a row of `pairs(K)`: which is best and which is worst"""
    weight: Array
    """[N] float32 ≥ 0"""
    who: Array | None = None
    """[N] int32"""


def pairs(k: int) -> np.ndarray:
    """int32 [K (K − 1), 2]: (best, worst), every ordered pair of two different samples."""
    return np.asarray(list(itertools.permutations(range(k), 2)), np.int32)


def gaps(values: Array) -> Array:
    """[..., K] → [..., K (K − 1)]: v_best − v_worst of each of `pairs`."""
    best, worst = pairs(values.shape[-1]).T
    return values[..., best] - values[..., worst]


def elicit(human: Human, values: Array, key: Key) -> Array:
    """[..., K] perceived values → int32 [...], a row of `pairs(K)`.

    P(i best, j worst) = e^{β (û_i − û_j)} / Σ_{k≠l} e^{β (û_k − û_l)}: the maximum difference model
    (Marley & Louviere 2005, J. Math. Psychol. 49, 464–480), one choice of a pair. A flip exchanges
    best and worst, whoever lapses takes any pair. With K = 2, a comparison at 2 β. Consumes `key`.
    """
    return choose(human, gaps(values), key)


def loss(rewards: Array, pair: Array, human: Human = STANDARD) -> Array:
    """−log P(pair | r, human), nats: [..., K], int32 [...] → [...]."""
    return -log_chosen(human, gaps(rewards), pair)


def ask(human: Human, seen: Seen, key: Key) -> BestWorst:
    """All of them are read, two are named. Consumes `key`."""
    pair = answers(lambda h, k, v: elicit(h, v, k), human, key, seen.values)
    return BestWorst(seen.x, pair, all_answer(seen))


def nll(reading: Reading, data: BestWorst, human: Human) -> Array:
    """The maximum difference model. → [N]"""
    return each(lambda h, r, pair: loss(r, pair, h))(human, reading.rewards, data.pair)


KIND = Kind(
    name="best_worst",
    asked="the best and the worst of several",
    equation="min_φ E[−log e^(r_φ(b) − r_φ(w)) / Σ_{k≠l} e^(r_φ(x_k) − r_φ(x_l))] + λ_r(φ), b the "
    "best and w the worst of the x_k; maximum difference scaling",
    units="logits of a choice",
    acts=NOISE,
    samples=of(lambda collect, _: collect.options),
    cost=of(lambda collect, _: collect.options),
    ask=ask,
    episodes=several,
    nll=nll,
    chooses=True,
)
