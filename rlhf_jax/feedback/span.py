"""Fine-grained feedback: which spans of a sample are at fault, and of what category."""

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
    first,
    lone,
    prefix_values,
)
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


# --- the spans of the pipeline


SPANS = 4
"""Most spans that a sample is cut into."""


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


def ask(human: Human, seen: Seen, key: Key) -> Spans:
    """At most `SPANS` spans, one category: it weakens the sample. Consumes `key`.

    A span adds the value at its end less that at its beginning, and nothing said is worth 0 to
    a person: the spans add up to û(x). A reward model's r(s_0) is what it takes for that 0.
    A part weakens a sample that it takes from, whatever a whole one must be worth to be good:
    the person's bar, which would count once for every part, is left out.
    """
    said_nothing = jnp.zeros((len(seen.values), 1))
    worth = jnp.concatenate([said_nothing, prefix_values(seen)], axis=1)
    one = lambda h, k, v, m: elicit(h._replace(bar=0.0), gained(v, m)[:, None], k)
    mask = seen.x.mask[:, 0]
    category = answers(one, human, key, worth, mask)
    return Spans(first(seen.x), category, jax.vmap(cuts)(mask)[1], all_answer(seen))


def nll(reading: Reading, data: Spans, human: Human) -> Array:
    """softmax(β (0, −v)) for each real span, v = `gained` of r(s_0) … r(s_T). → [N]"""

    def one(h: Human, r: Array, mask: Array, category: Array, spans: Array) -> Array:
        return loss(gained(r[0], mask)[:, None], category, spans, h._replace(bar=0.0))

    return each(one)(human, reading.states, data.x.mask, data.category, data.spans)


KIND = Kind(
    name="span",
    asked="which parts weaken it",
    equation="min_φ E[−Σ_s log P(mark_s)] + λ_r(φ), P = softmax(0, −v_s) of no mark and a mark, "
    "v_s = r_φ(s's end) − r_φ(s's beginning)",
    units="logits of a mark",
    acts=NOISE,
    samples=1,
    cost=1,
    ask=ask,
    episodes=lone,
    nll=nll,
    steps=True,
)
