"""What answers say about a reward model: −log P(answer | r_φ, human) of every kind of feedback.

The other half of `kernels.asking`, which draws the answers. Each function takes the rewards of
N items, their answers and who gave them, and returns [N] nats, row by row: no row's likelihood
depends on another row, so answers of weight 0 are left out by not counting them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.feedback import (
    comparison,
    correction,
    label,
    language,
    likert,
    process,
    ranking,
    rating,
    span,
)
from rlhf_jax.feedback.comparison import Comparison
from rlhf_jax.feedback.correction import Correction
from rlhf_jax.feedback.demonstration import Demonstration
from rlhf_jax.feedback.label import Label
from rlhf_jax.feedback.language import Critique
from rlhf_jax.feedback.likert import Likert
from rlhf_jax.feedback.process import Process
from rlhf_jax.feedback.ranking import Ranking
from rlhf_jax.feedback.rating import Rating
from rlhf_jax.feedback.span import Spans
from rlhf_jax.humans import Human
from rlhf_jax.types import Array

SPANS = 4
"""Most spans that a sample is cut into."""


class Reading(NamedTuple):
    """What a reward model says of the K samples of N items."""

    rewards: Array
    """[N, K] float32, r_φ(x)"""
    states: Array
    """[N, K, T + 1] float32, of all prefixes s_0 … s_T; s_t has seen tokens[:t]"""


def each(f: Callable[..., Any]) -> Callable[..., Any]:
    """f(human, *one item) for N items: one person for all (scalar leaves), or one for each
    (leaves [N]), or some leaves so and some so. A vector such as cut-points is a tuple.
    """

    def every(human: Human, *items: Any) -> Any:
        axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, human)
        return jax.vmap(f, (axes, *(0 for _ in items)))(human, *items)

    return every


def cuts(mask: Array) -> tuple[Array, Array]:
    """[T] bool, n real tokens first → ends int32 [S + 1], real bool [S] of at most S = `SPANS`
    consecutive spans, as even as can be: span s is tokens[ends[s] : ends[s + 1]].

    m = min(n, S) spans are real, ends[s] = ⌊s n/m⌋; the rest is empty at the end.
    """
    n = jnp.sum(mask.astype(jnp.int32))
    m = jnp.minimum(n, SPANS)
    ends = jnp.minimum(jnp.arange(SPANS + 1) * n // jnp.maximum(m, 1), n)
    return ends, jnp.arange(SPANS) < m


def gained(prefixes: Array, mask: Array) -> Array:
    """Worth of prefixes s_0 … s_T [T + 1] → [S]: what each span of `cuts` adds to it.

    v(end) − v(beginning): the spans of a sample add up to v(x) − v(s_0).
    """
    ends, _ = cuts(mask)
    return prefixes[ends[1:]] - prefixes[ends[:-1]]


def _compared(human: Human, rewards: Array, said: Array) -> Array:
    log_p = comparison.log_probabilities(human, rewards[0], rewards[1])
    coin = -said * log_p[0] - (1.0 - said) * log_p[2]
    known = comparison.loss(rewards[0], rewards[1], said, human)
    return jnp.where(said < 0.0, 0.0, jnp.where(jnp.asarray(human.tie) > 0.0, known, coin))


def of_comparison(reading: Reading, data: Comparison, human: Human) -> Array:
    """`comparison.loss`, but for the ties of a person whose threshold τ is 0.

    Such a person ties only where both samples are worth exactly the same to them (or `equal`
    says so), which has probability 0 under the likelihood. Made to choose, they would toss a
    coin, and the likelihood of that choice costs ½ (−log P(a) − log P(b)) on average over the
    coin: this, Bradley–Terry's label ½, is what such a tie costs. At β = 1 and else neutral it
    is `comparison.bradley_terry` for every label.
    """
    return each(_compared)(human, reading.rewards, data.label)


def of_ranking(reading: Reading, data: Ranking, human: Human) -> Array:
    """Plackett–Luce."""
    one = lambda h, r, order: ranking.loss(r, order, h)
    return each(one)(human, reading.rewards, data.order)


def of_rating(reading: Reading, data: Rating, human: Human) -> Array:
    """Gaussian on the person's own scale."""
    one = lambda h, r, said: rating.loss(r[0], said, h)
    return each(one)(human, reading.rewards, data.rating)


def of_likert(reading: Reading, data: Likert, human: Human) -> Array:
    """Ordered logit."""
    one = lambda h, r, point: likert.loss(r[0], point, h)
    return each(one)(human, reading.rewards, data.point)


def of_label(reading: Reading, data: Label, human: Human) -> Array:
    """P(good) = σ(β (r − bar))."""
    one = lambda h, r, said: label.loss(label.approval(r[0], h.bar), said, h)
    return each(one)(human, reading.rewards, data.label)


def of_correction(reading: Reading, data: Correction, human: Human) -> Array:
    """softmax(β (r − edit_cost · distance)) over the versions."""
    one = lambda h, r, distance, chosen: correction.loss(r, distance, chosen, h)
    return each(one)(human, reading.rewards, data.distance, data.chosen)


def of_demonstration(reading: Reading, data: Demonstration, human: Human) -> Array:
    """−log e^βr(x) / (e^βr(x) + Σ_j e^βr(x_j)): which of them a person made; r of x, x_1, ….

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
    first = jnp.zeros((), jnp.int32)
    return each(lambda h, r: ranking.loss_best(r, first, h))(human, reading.rewards)


def of_language(reading: Reading, data: Critique, human: Human) -> Array:
    """softmax(β (0, gains, −gains)) over what can be said, gain_f = r(x_f) − r(x)."""

    def one(h: Human, r: Array, statement: Array, spans: Array, mask: Array) -> Array:
        parts = jnp.zeros(spans.shape)
        return language.loss(r[1:] - r[0], parts, statement, spans, h, mask)

    return each(one)(human, reading.rewards, data.statement, data.spans, data.mask)


def of_process(reading: Reading, data: Process, human: Human) -> Array:
    """P(good) = σ(β (r(s_t+1) − bar)) for every real token t."""
    one = lambda h, r, said, steps: process.loss(r[0, 1:], said, steps, h)
    return each(one)(human, reading.states, data.label, data.steps)


def of_span(reading: Reading, data: Spans, human: Human) -> Array:
    """softmax(β (0, −v)) for each real span, v = `gained` of r(s_0) … r(s_T)."""

    def one(h: Human, r: Array, mask: Array, category: Array, spans: Array) -> Array:
        return span.loss(gained(r[0], mask)[:, None], category, spans, h._replace(bar=0.0))

    return each(one)(human, reading.states, data.x.mask, data.category, data.spans)
