"""Comparisons of two samples: which of them does a person prefer?"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.feedback.kind import (
    NOISE,
    STANDARD,
    Kind,
    Reading,
    Seen,
    Settings,
    alone,
    answers,
    each,
    join,
)
from rlhf_jax.humans.choice import CANT_TELL, compare, mixed, precision, prefer
from rlhf_jax.humans.human import Human, Value
from rlhf_jax.humans.perception import Perceived
from rlhf_jax.types import Array, Episode, Key


class Comparison(NamedTuple):
    """N answers."""

    a: Episode
    """shown first"""
    b: Episode
    label: Array
    """[N] float32: 1 a preferred, 0 b preferred, ½ a tie, between them a soft label,
    `humans.CANT_TELL` (−1) no answer"""
    weight: Array
    """[N] float32 ≥ 0: how much an answer counts (confidence); 0 was never asked"""
    who: Array | None = None
    """[N] int32: who answered; None where nobody kept it"""


def elicit(human: Human, value_a: Array, value_b: Array, key: Key) -> Array:
    """Perceived values [...] → labels [...], answers independent given the values.

    `humans.choice.prefer`: P(a) = σ(β (û_a − û_b − τ)), ties, "can't tell", flips and lapses.
    """
    return prefer(human, value_a, value_b, key)


def _counted(label: Array, nll: Array) -> Array:
    return jnp.where(label < 0.0, 0.0, nll)


def bradley_terry(
    reward_a: Array,
    reward_b: Array,
    label: Array,
    *,
    margin: Value = 0.0,
    smoothing: Value = 0.0,
) -> Array:
    """Cross-entropy −y log σ(d − m) − (1 − y) log σ(−d − m), d = r_a − r_b, nats; a tie is ½.

    Bradley & Terry 1952; Christiano et al. 2017 (arXiv 1706.03741), eq. 1; the margin m ≥ 0
    is Touvron et al. 2023 (arXiv 2307.09288), eq. 2. `smoothing` s replaces the label by
    (1 − s) y + s/2, what a lapse rate of s makes of it. Soft labels are allowed. [N] → [N].
    """
    d = reward_a - reward_b
    y = (1.0 - smoothing) * label + 0.5 * smoothing
    nll = -y * jax.nn.log_sigmoid(d - margin) - (1.0 - y) * jax.nn.log_sigmoid(-d - margin)
    return _counted(label, nll)


def bayesian_personalised_ranking(
    reward_a: Array, reward_b: Array, label: Array, *, margin: Value = 0.0
) -> Array:
    """−log σ(r_winner − r_loser − m), nats; a tie says nothing and costs nothing.

    Rendle et al. 2009 (arXiv 1205.2618): only strict preferences enter the likelihood.
    """
    sign = jnp.sign(label - 0.5)
    nll = -jax.nn.log_sigmoid(sign * (reward_a - reward_b) - margin)
    return _counted(label, jnp.where(sign == 0, 0.0, nll))


def _expected(label: Array, log_p: Array) -> Array:
    """−E log p over (a, tie, b); a label between two of 0, ½, 1 is shared linearly by them."""
    a, b = jnp.maximum(2.0 * label - 1.0, 0.0), jnp.maximum(1.0 - 2.0 * label, 0.0)
    share = jnp.stack([a, 1.0 - a - b, b], axis=-1)
    return _counted(label, -jnp.sum(share * log_p, axis=-1))


def log_rao_kupper(difference: Array, threshold: Value) -> Array:
    """[...] → [..., 3]: log P of a, tie, b. Rao & Kupper 1967, log θ = threshold ≥ 0.

    P(a) = σ(d − t), P(b) = σ(−d − t), P(tie) = (e^2t − 1) P(a) P(b); at t = 0 the log
    probability of a tie is floored at −69 nats.
    """
    a, b = jax.nn.log_sigmoid(difference - threshold), jax.nn.log_sigmoid(-difference - threshold)
    # σ(d + t) − σ(d − t) = σ(d + t) σ(t − d) (1 − e^−2t): no cancellation.
    gap = jnp.log(jnp.maximum(-jnp.expm1(-2.0 * jnp.asarray(threshold)), 1e-30))
    tie = jax.nn.log_sigmoid(difference + threshold) + jax.nn.log_sigmoid(threshold - difference)
    return jnp.stack([a, tie + gap, b], axis=-1)


def log_davidson(difference: Array, tie: Value) -> Array:
    """[...] → [..., 3]: log P of a, tie, b. Davidson 1970, log ν = tie.

    P ∝ (e^{d/2}, ν, e^{−d/2}): "a tie" is a third option worth the mean of the two + log ν.
    """
    d = 0.5 * difference
    return jax.nn.log_softmax(jnp.stack([d, jnp.broadcast_to(tie, d.shape), -d], axis=-1), axis=-1)


def rao_kupper(reward_a: Array, reward_b: Array, label: Array, threshold: Value) -> Array:
    """−log P of `log_rao_kupper`, nats. [N] → [N]."""
    return _expected(label, log_rao_kupper(reward_a - reward_b, threshold))


def davidson(reward_a: Array, reward_b: Array, label: Array, tie: Value) -> Array:
    """−log P of `log_davidson`, nats. [N] → [N]."""
    return _expected(label, log_davidson(reward_a - reward_b, tie))


LOSSES: dict[str, Callable[..., Array]] = {
    "bradley_terry": bradley_terry,
    "bayesian_personalised_ranking": bayesian_personalised_ranking,
    "rao_kupper": rao_kupper,
    "davidson": davidson,
}
THRESHOLDS: dict[str, tuple[Callable[[Array], Array], float]] = {
    "rao_kupper": (jnp.exp, math.log(0.5)),
    "davidson": (lambda raw: raw, 0.0),
}
"""Losses that know how often people tie: a real number → the threshold that the loss takes fourth,
and the number to start from. How common ties are is for the answers to say: it is fitted."""
EQUATIONS = {
    "bradley_terry": "min_φ E[−y log σ(Δ) − (1−y) log σ(−Δ)] + λ_r(φ), Δ = r_φ(a) − r_φ(b); "
    "Bradley–Terry, a tie is y = ½",
    "bayesian_personalised_ranking": "min_φ E[−log σ(r_φ(winner) − r_φ(loser))] + λ_r(φ); "
    "Bayesian personalised ranking, a tie costs nothing",
    "rao_kupper": "min_{φ,t} E[−log P(a, tie or b)] + λ_r(φ), P(a) = σ(Δ − t), P(b) = σ(−Δ − t), "
    "P(tie) = (e^2t − 1) P(a) P(b), Δ = r_φ(a) − r_φ(b); Rao–Kupper, t ≥ 0 fitted with φ",
    "davidson": "min_{φ,ν} E[−log P(a, tie or b)] + λ_r(φ), P ∝ (e^Δ/2, ν, e^−Δ/2), "
    "Δ = r_φ(a) − r_φ(b); Davidson, ν > 0 fitted with φ",
}
"""Of answers by people who make no mistakes, by `reward.loss`."""
MISTAKEN = (
    "min_φ E[−y log P(a) − (1−y) log P(b)] + λ_r(φ), P(a) = λ/2 + (1−λ) ((1−f) σ(Δ) + f σ(−Δ)) "
    "and P(b) alike, Δ = r_φ(a) − r_φ(b); Bradley–Terry, a tie is y = ½"
)
"""Of answers by people who lapse with probability λ and flip with probability f."""


def log_probabilities(human: Human, value_a: Array, value_b: Array) -> Array:
    """[...] → [..., 3]: log P that `elicit` says a, tie, b, given that neither of the
    thresholds `equal` and `skip` decides.

    Rao–Kupper with d = β (û_a − û_b + position_bias) and threshold β τ; flips exchange a and
    b; a lapse is a or b, never a tie.
    """
    beta = precision(human)
    d = beta * (value_a - value_b + human.position_bias)
    log_p = log_rao_kupper(d, beta * human.tie)
    coin = jnp.log(jnp.asarray([0.5, 1e-30, 0.5], jnp.float32))
    return mixed(human, log_p, log_p[..., ::-1], jnp.broadcast_to(coin, log_p.shape))


def probabilities(
    human: Human,
    value_a: Array,
    value_b: Array,
    whole_a: Array | None = None,
    whole_b: Array | None = None,
) -> Array:
    """[...] → [..., 3] float32: P that one person says a, tie, b in `elicit`. What is left to 1
    is "can't tell". `whole`: ū, which the thresholds are held against, if it is not û.

    `log_probabilities` where neither threshold decides. Nothing is rounded: with β = ∞ equal
    values are a tie with certainty, not a coin, and with β = 0 nothing is left of them.
    """
    value_a, value_b = jnp.broadcast_arrays(value_a, value_b)
    every = lambda *p: jnp.broadcast_to(jnp.asarray(p, jnp.float32), (*value_a.shape, 3))
    coin = every(0.5, 0.0, 0.5)

    def sure(a: Array, b: Array) -> Array:
        d = a - b + human.position_bias
        said = jnp.stack([d > human.tie, jnp.abs(d) <= human.tie, d < -human.tie], axis=-1)
        return (1.0 - human.flip) * said + human.flip * said[..., ::-1]

    def unsure(a: Array, b: Array) -> Array:
        said = jnp.exp(log_probabilities(human._replace(lapse=0.0), a, b))
        return jnp.where(jnp.asarray(human.rationality) == 0.0, coin, said)

    said = jax.lax.cond(jnp.isinf(human.rationality), sure, unsure, value_a, value_b)
    whole_a = value_a if whole_a is None else whole_a
    whole_b = value_b if whole_b is None else whole_b
    equal = jnp.abs(whole_a - whole_b) < human.equal
    said = jnp.where(equal[..., None], every(0.0, 1.0, 0.0), said)
    skipped = jnp.maximum(whole_a, whole_b) <= human.skip
    said = jnp.where(skipped[..., None], 0.0, said)
    return human.lapse * coin + (1.0 - human.lapse) * said


def loss(reward_a: Array, reward_b: Array, label: Array, human: Human = STANDARD) -> Array:
    """−log P(label | r, human), nats: the likelihood that matches `elicit`. [N] → [N].

    At β = 1 and else neutral, `bradley_terry`, but for a tie: with τ = 0 it cannot happen
    and costs 69 nats, so give a person who ties a τ > 0. `CANT_TELL` costs nothing.
    """
    return _expected(label, log_probabilities(human, reward_a, reward_b))


def strengths(wins: Array, steps: int = 1000) -> Array:
    """[K, K] float32, wins[i, j] how often i beat j (ties half each) → r [K], Σ r = 0.

    The Bradley–Terry maximum likelihood by minorisation–maximisation (Hunter 2004):
    e^r_i ← w_i / Σ_j n_ij / (e^r_i + e^r_j). It exists where every item is linked to every
    other by wins; elsewhere r drifts off with `steps`.
    """
    played = wins + wins.T
    won = jnp.sum(wins, axis=1)

    def step(r: Array, _: None) -> tuple[Array, None]:
        pairs = jnp.logaddexp(r[:, None], r[None, :])
        r = jnp.log(won) - jax.nn.logsumexp(-pairs, b=played, axis=1)
        return r - jnp.mean(r), None

    return jax.lax.scan(step, jnp.zeros(wins.shape[0]), length=steps)[0]


def ask(human: Human, seen: Seen, key: Key) -> Comparison:
    """Sample 0 is a, shown first. Whoever can't tell has weight 0. Consumes `key`."""
    one = lambda h, k, v, w: compare(h, Perceived(v[0], w[0]), Perceived(v[1], w[1]), k)
    whole = seen.values if seen.whole is None else seen.whole
    said = answers(one, human, key, seen.values, whole)
    a, b = (jax.tree.map(lambda leaf, i=i: leaf[:, i], seen.x) for i in (0, 1))
    return Comparison(a, b, said, (said != CANT_TELL).astype(jnp.float32))


def _compared(human: Human, rewards: Array, said: Array) -> Array:
    log_p = log_probabilities(human, rewards[0], rewards[1])
    coin = -said * log_p[0] - (1.0 - said) * log_p[2]
    known = loss(rewards[0], rewards[1], said, human)
    return jnp.where(said < 0.0, 0.0, jnp.where(jnp.asarray(human.tie) > 0.0, known, coin))


def nll(reading: Reading, data: Comparison, human: Human) -> Array:
    """`loss`, but for the ties of a person whose threshold τ is 0. → [N]

    Such a person ties only where both samples are worth exactly the same to them (or `equal`
    says so), which has probability 0 under the likelihood. Made to choose, they would toss a
    coin, and the likelihood of that choice costs ½ (−log P(a) − log P(b)) on average over the
    coin: this, Bradley–Terry's label ½, is what such a tie costs. At β = 1 and else neutral it
    is `bradley_terry` for every label.
    """
    return each(_compared)(human, reading.rewards, data.label)


def equation(settings: Settings) -> str:
    """What `reward.loss` and `reward.noise` make of it."""
    if settings.get("reward.noise", "standard") != "standard":
        return MISTAKEN
    name = settings.get("reward.loss", "not stated")
    return EQUATIONS.get(name, str(name))


KIND = Kind(
    name="comparison",
    asked="which of two is better",
    equation=equation,
    units="logits of a preference",
    acts=(*NOISE, "tie", "equal", "skip", "position_bias"),
    samples=2,
    cost=2,
    ask=ask,
    episodes=lambda data: join(alone(data.a), alone(data.b)),
    nll=nll,
)
