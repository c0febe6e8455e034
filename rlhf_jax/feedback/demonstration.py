"""Demonstrations: a person does it themselves, better things more often."""

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
    alone,
    answers,
    each,
    join,
    of,
    take,
)
from rlhf_jax.feedback.ranking import loss_best
from rlhf_jax.humans.choice import choose, mixed, precision
from rlhf_jax.humans.human import Human
from rlhf_jax.types import Array, Episode, Key


class Demonstration(NamedTuple):
    """N samples that people made, beside M samples that stand for all there could be."""

    x: Episode
    """leaves [N, …]"""
    others: Episode
    """leaves [M, …], drawn from q; [N, M, …] where each answer has its own"""
    log_q: Array
    """[M] or [N, M] float32: log q of each"""
    weight: Array
    """[N] float32 ≥ 0"""
    who: Array | None = None
    """[N] int32"""


def elicit(human: Human, values: Array, log_q: Array, key: Key) -> Array:
    """M candidates x_m ~ q with perceived values and log q, [..., M] → int32 [...].

    Resampled with weights ∝ exp(β û)/q (Rubin 1987), so that as M grows the demonstration is
    a draw from p(x) = exp(β û(x))/Z (Ziebart et al. 2008); exactly so where the candidates are
    all there are and q is constant. A flip shows the worst, p ∝ exp(−β û); whoever lapses shows
    any candidate, evenly over the space: ∝ 1/q. Consumes `key`.
    """
    return choose(human, values, key, -log_q)


def log_partition(scaled: Array, log_q: Array) -> Array:
    """log Z ≈ log (1/M) Σ_m exp(v_m)/q_m over x_m ~ q: [..., M] → [...].

    Unbiased for Z; its log is low by about Var/2M. With all of a finite space and
    log_q = −log M it is exact. Finn et al. 2016 (arXiv 1603.00448).
    """
    return jax.nn.logsumexp(scaled - log_q, axis=-1) - jnp.log(jnp.float32(scaled.shape[-1]))


def loss(reward: Array, others: Array, log_q: Array, human: Human = STANDARD) -> Array:
    """−log p(x | r, human) = log Z − β r(x), nats: [N], [M], [M] → [N].

    Maximum-entropy inverse reinforcement learning with a sampled partition function; with
    lapses (1 − λ) p + λ p₀, p₀ = 1/Σ_x 1 the even density. Put some demonstrations among
    `others` and the mixture's density in log_q, or a reward that raises the demonstrations
    alone lowers the loss without bound (arXiv 1603.00448).
    """
    beta = precision(human)
    # A common shift leaves the density as it is and keeps β r exact.
    best, worst = (jax.lax.stop_gradient(f(others)) for f in (jnp.max, jnp.min))
    up, down = reward - best, worst - reward
    straight = beta * up - log_partition(beta * (others - best), log_q)
    flipped = beta * down - log_partition(beta * (worst - others), log_q)
    even = -log_partition(jnp.zeros_like(others), log_q)
    return -mixed(human, straight, flipped, even)


def ask(human: Human, seen: Seen, key: Key) -> Demonstration:
    """The pick of the first K of 2K − 1 samples; the last K − 1 stay with it as fair draws of
    q: others [N, K − 1, …], log_q relative to q, 0. Consumes `key`.

    Those not picked are not draws of q, so they are not kept. A pick among K ~ q is distributed
    as p_K(x) = q(x) E[K e^βû(x) / (e^βû(x) + Σ_j e^βû(x_j))] over K − 1 others x_j ~ q, which
    rises with û and has the limit q e^βû/Z. What `nll` fits is β r = log p_K/q + const: in the
    order of û, never more than log K above its mean over q, and of (K − 1)/K of the slope where
    β û varies little.
    """
    k = (seen.values.shape[1] + 1) // 2
    pick = lambda h, key, v: elicit(h, v, jnp.zeros(k), key)
    made = take(seen.x, answers(pick, human, key, seen.values[:, :k]))
    others = jax.tree.map(lambda leaf: leaf[:, k:], seen.x)
    return Demonstration(made, others, jnp.zeros((len(seen.values), k - 1)), all_answer(seen))


def nll(reading: Reading, data: Demonstration, human: Human) -> Array:
    """−log e^βr(x) / (e^βr(x) + Σ_j e^βr(x_j)): which of them a person made; r of x, x_1, …. → [N]

    Maximum-entropy inverse reinforcement learning, p(x) ∝ q(x) e^βr(x) (Ziebart et al. 2008),
    given the set {x, x_1, …, x_B} of a demonstration and fair draws x_j ~ q: Z drops out of
    the probability that x is the one made (ranking noise-contrastive estimation, Ma & Collins
    2018, arXiv 1809.01812; consistent for any B, with B/(B + 1) of the information where
    β r varies little). That is also what the mixture sampler of Finn et al. 2016 (arXiv
    1603.00448) comes to: demonstrations stand among the samples of the partition function, so
    the loss is ≥ 0 and its gradient vanishes as r raises demonstrations alone. Draws are each
    item's own, not the batch's: the q of a corpus row is not that of a sample of the policy,
    and one Z for both would say that both are worth the same on average. With flips or
    lapses it mixes as a choice among 1 + B does, which is exact for large B only.
    """
    made = jnp.zeros((), jnp.int32)
    return each(lambda h, r: loss_best(r, made, h))(human, reading.rewards)


KIND = Kind(
    name="demonstration",
    asked="what they would write themselves",
    equation="min_φ E[−log e^r_φ(x) / (e^r_φ(x) + Σ_j e^r_φ(x_j))] + λ_r(φ), x made by a "
    "person, x_j fair draws of what it was chosen from; maximum entropy, Z estimated",
    units="nats of how often they would write it",
    acts=NOISE,
    samples=of(lambda collect, _: 2 * collect.options - 1),
    cost=1,
    ask=ask,
    episodes=lambda data: join(alone(data.x), data.others),
    nll=nll,
    chooses=True,
)
