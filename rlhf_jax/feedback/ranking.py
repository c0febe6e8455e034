"""Rankings of K samples, whole or from the top, and the choice of the best of K."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

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
from rlhf_jax.humans.choice import centred, choose, log_chosen, mixed, precision, rank
from rlhf_jax.humans.human import Human
from rlhf_jax.types import Array, Episode, Key


class Ranking(NamedTuple):
    """N answers about K samples each."""

    x: Episode
    """leaves [N, K, …]"""
    order: Array
    """[N, M] int32, M ≤ K: the samples from best to M-th best; M = 1 is best of K"""
    weight: Array
    """[N] float32 ≥ 0"""
    who: Array | None = None
    """[N] int32"""


def elicit(human: Human, values: Array, key: Key) -> Array:
    """[..., K] perceived values → [..., K] int32, best first: `humans.choice.rank`, the
    Plackett–Luce model. Keep the first M columns of those who rank no further.
    """
    return rank(human, values, key)


def plackett_luce(values: Array, order: Array) -> Array:
    """log P(order) = Σ_{i<M} [v_{o_i} − log Σ_{k not in o_1…o_{i−1}} e^{v_k}]; [..., K],
    [..., M] → [...]. Options that were not ranked count as beaten by all that were.
    """

    def one(v: Array, o: Array) -> Array:
        m = o.shape[0]
        place = jnp.full(v.shape, m).at[o].set(jnp.arange(m))
        left = place[None, :] >= jnp.arange(m)[:, None]
        rest = jnp.where(left, jnp.broadcast_to(v[None, :], left.shape), -jnp.inf)
        return jnp.sum(v[o] - jax.nn.logsumexp(rest, axis=1))

    for _ in values.shape[:-1]:
        one = jax.vmap(one)
    return one(values, order)


def loss(rewards: Array, order: Array, human: Human = STANDARD) -> Array:
    """−log P(order | r, human), nats: [..., K], [..., M] → [...].

    λ (K − M)!/K! + (1 − λ) ((1 − φ) PL(β r) + φ PL(−β r)). With K = 2 it is Bradley–Terry.
    """
    k, m = rewards.shape[-1], order.shape[-1]
    up, down = (precision(human) * centred(r) for r in (rewards, -rewards))
    even = gammaln(jnp.float32(k - m + 1)) - gammaln(jnp.float32(k + 1))
    return -mixed(human, plackett_luce(up, order), plackett_luce(down, order), even)


def elicit_best(human: Human, values: Array, key: Key) -> Array:
    """[..., K] → [...] int32, P = softmax(β û): the best of K. Consumes `key`."""
    return choose(human, values, key)


def loss_best(rewards: Array, best: Array, human: Human = STANDARD) -> Array:
    """−log softmax(β r)_best with lapses and flips, nats: [..., K], [...] → [...]."""
    return -log_chosen(human, rewards, best)


def ask(human: Human, seen: Seen, key: Key) -> Ranking:
    """All of them, best first. Consumes `key`."""
    order = answers(lambda h, k, v: elicit(h, v, k), human, key, seen.values)
    return Ranking(seen.x, order, all_answer(seen))


def nll(reading: Reading, data: Ranking, human: Human) -> Array:
    """Plackett–Luce. → [N]"""
    return each(lambda h, r, order: loss(r, order, h))(human, reading.rewards, data.order)


KIND = Kind(
    name="ranking",
    asked="an order of several",
    equation="min_φ E[−Σ_i log e^r_φ(x_i) / Σ_{j≥i} e^r_φ(x_j)] + λ_r(φ), best first; "
    "Plackett–Luce",
    units="logits of a choice",
    acts=NOISE,
    samples=of(lambda collect, _: collect.options),
    cost=of(lambda collect, _: collect.options),
    ask=ask,
    episodes=several,
    nll=nll,
    chooses=True,
)
