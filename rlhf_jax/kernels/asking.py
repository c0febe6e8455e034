"""What people are asked: the ten kinds of feedback, about whole samples and their prefixes.

| kind | drawn | read or written | what the person does |
|---|---|---|---|
| comparison | 2 | 2 | says which is better |
| ranking | K | K | sorts them |
| rating | 1 | 1 | gives a number on their own scale |
| likert | 1 | 1 | gives one of 5 points |
| label | 1 | 1 | says good or bad |
| correction | K | 2 | reads one, writes the best of what they could turn it into |
| demonstration | 2K − 1 | 1 | writes the best of K that come to mind; the others are not kept |
| language | 1 + 2F | 2 | reads one, writes "more/less FEATURE" or that nothing is to change |
| process | 1 | 1 | says of every prefix whether it is good |
| span | 1 | 1 | marks the parts that weaken it |

K is `Collect.options`. Samples that only come to mind (of a correction, a demonstration, a
critique) are drawn from the policy like the others and cost nothing: nobody reads them.
`kernels.likelihoods` is the other half. Everything is a pure function of N items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import Collect, ConfigError
from rlhf_jax.feedback import (
    comparison,
    correction,
    demonstration,
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
from rlhf_jax.feedback.language import Critique, Grammar
from rlhf_jax.feedback.likert import Likert
from rlhf_jax.feedback.process import Process
from rlhf_jax.feedback.ranking import Ranking
from rlhf_jax.feedback.rating import Rating
from rlhf_jax.feedback.span import Spans
from rlhf_jax.humans import CANT_TELL, Human
from rlhf_jax.kernels import likelihoods
from rlhf_jax.kernels.likelihoods import Reading, cuts, each, gained
from rlhf_jax.types import Array, Episode, Key, Language


class Seen(NamedTuple):
    """What people are shown of N items and how they perceive it."""

    x: Episode
    """leaves [N, K, …]"""
    values: Array
    """[N, K] float32, perceived value û of each sample"""
    steps: Array | None
    """[N, K, T] float32, perceived value of each prefix tokens[:t + 1]; None where not needed"""


class Kind(NamedTuple):
    """One kind of feedback: how it is drawn and what it says of a reward model."""

    samples: int
    """K, samples drawn for each item"""
    cost: int
    """samples that a person reads or writes for one answer"""
    steps: bool
    """whether `ask` needs Seen.steps"""
    anchored: bool
    """whether the likelihood fixes the reward's offset; centring is for those where not"""
    ask: Callable[[Human, Seen, Key], Any]
    """(human, seen, key) → N answers of the kind's type, weight 1 or, where not answered, 0,
    and who = None. One person for all items or one for each (leaves [N])."""
    episodes: Callable[[Any], Episode]
    """answers → the samples that they speak of, leaves [N, K, …]; not always all drawn"""
    nll: Callable[[Reading, Any, Human], Array]
    """(what the reward model says of `episodes`, answers, human) → [N] nats"""


GRAMMAR = Grammar(("long", "late"), spans=1)
"""Critiques. Long: has many letters. Late: its letters lie late in the alphabet on average. Both
can be measured on every string, and say little about each other. The one part is never real:
an array without entries cannot be checkpointed."""


def measure(alphabet: Language, tokens: Array, mask: Array) -> tuple[Array, Array]:
    """[T] → int32 [F], [F]: each feature as numerator and denominator, so that comparing two
    strings is exact. Letters are the actions other than EOS; without any, both features are 0.
    """
    letters = np.array(alphabet.actions, bool)
    if alphabet.eos is not None:
        letters[alphabet.eos] = False
    place = jnp.asarray(np.where(letters, np.cumsum(letters) - 1, 0), jnp.int32)
    real = mask & jnp.asarray(letters)[tokens]
    count = jnp.sum(real.astype(jnp.int32))
    late = jnp.sum(jnp.where(real, place[tokens], 0))
    return jnp.stack([count, late]), jnp.stack([jnp.ones_like(count), jnp.maximum(count, 1)])


def _answers(elicit: Callable[..., Any], human: Human, key: Key, *items: Array) -> Any:
    """elicit(human, key, *one item) for each of N items. Consumes `key`."""
    return each(elicit)(human, jax.random.split(key, len(items[0])), *items)


def _take(x: Episode, at: Array) -> Episode:
    """leaves [N, K, …], int32 [N, …] → the samples at these places, leaves [N, …, …]."""
    return jax.vmap(lambda item, i: jax.tree.map(lambda leaf: leaf[i], item))(x, at)


def _only(x: Episode) -> Episode:
    return jax.tree.map(lambda leaf: leaf[:, 0], x)


def _all(seen: Seen) -> Array:
    return jnp.ones(seen.values.shape[0], jnp.float32)


def ask_comparison(human: Human, seen: Seen, key: Key) -> Comparison:
    """Sample 0 is a, shown first. Whoever can't tell has weight 0. Consumes `key`."""
    one = lambda h, k, v: comparison.elicit(h, v[0], v[1], k)
    said = _answers(one, human, key, seen.values)
    a, b = (jax.tree.map(lambda leaf, i=i: leaf[:, i], seen.x) for i in (0, 1))
    return Comparison(a, b, said, (said != CANT_TELL).astype(jnp.float32))


def ask_ranking(human: Human, seen: Seen, key: Key) -> Ranking:
    """All of them, best first. Consumes `key`."""
    order = _answers(lambda h, k, v: ranking.elicit(h, v, k), human, key, seen.values)
    return Ranking(seen.x, order, _all(seen))


def ask_rating(human: Human, seen: Seen, key: Key) -> Rating:
    """A number. Consumes `key`."""
    said = _answers(lambda h, k, v: rating.elicit(h, v[0], k), human, key, seen.values)
    return Rating(_only(seen.x), said, _all(seen))


def ask_likert(human: Human, seen: Seen, key: Key) -> Likert:
    """One point more than the person's cut-points. Consumes `key`."""
    point = _answers(lambda h, k, v: likert.elicit(h, v[0], k), human, key, seen.values)
    return Likert(_only(seen.x), point, _all(seen))


def ask_label(human: Human, seen: Seen, key: Key) -> Label:
    """Good or bad, held against the person's bar. Consumes `key`."""
    one = lambda h, k, v: label.elicit(h, label.approval(v[0], h.bar), k)
    return Label(_only(seen.x), _answers(one, human, key, seen.values), _all(seen))


def distance(x: Episode) -> Array:
    """[K] versions of one sample → [K] float32: the share of the T places at which each differs
    from version 0. Padding is one symbol like the others, so that length counts.
    """
    written = jnp.where(x.mask, x.tokens, -1)
    first = jnp.broadcast_to(written[:1], written.shape)
    return jnp.mean((written != first).astype(jnp.float32), axis=1)


def ask_correction(human: Human, seen: Seen, key: Key) -> Correction:
    """Version 0 is shown, the others are what it could become. Consumes `key`."""
    far = jax.vmap(distance)(seen.x)
    one = lambda h, k, v, d: correction.elicit(h, v, d, k)
    return Correction(seen.x, far, _answers(one, human, key, seen.values, far), _all(seen))


def ask_demonstration(human: Human, seen: Seen, key: Key) -> Demonstration:
    """The pick of the first K of 2K − 1 samples; the last K − 1 stay with it as fair draws of
    q: others [N, K − 1, …], log_q relative to q, 0. Consumes `key`.

    Those not picked are not draws of q, so they are not kept. A pick among K ~ q is distributed
    as p_K(x) = q(x) E[K e^βû(x) / (e^βû(x) + Σ_j e^βû(x_j))] over K − 1 others x_j ~ q, which
    rises with û and has the limit q e^βû/Z. What `likelihoods.of_demonstration` fits is β r =
    log p_K/q + const: in the order of û, never more than log K above its mean over q, and of
    (K − 1)/K of the slope where β û varies little.
    """
    k = (seen.values.shape[1] + 1) // 2
    pick = lambda h, key, v: demonstration.elicit(h, v, jnp.zeros(k), key)
    made = _take(seen.x, _answers(pick, human, key, seen.values[:, :k]))
    others = jax.tree.map(lambda leaf: leaf[:, k:], seen.x)
    return Demonstration(made, others, jnp.zeros((len(seen.values), k - 1)), _all(seen))


def counterfactuals(alphabet: Language, x: Episode) -> tuple[Array, Array]:
    """1 + 2F samples → at int32 [F], mask bool [F]: the one of draws 1 + 2f and 2 + 2f that has
    more of feature f, the first if they have the same, and whether it has more than sample 0.
    """
    f = np.arange(len(GRAMMAR.features))
    top, bottom = jax.vmap(lambda t, m: measure(alphabet, t, m))(x.tokens, x.mask)
    more = lambda i, j: top[i, f] * bottom[j, f] > top[j, f] * bottom[i, f]
    first = 1 + 2 * f
    at = jnp.where(more(first + 1, first), first + 1, first)
    return at, more(at, jnp.zeros_like(at))


def ask_critique(alphabet: Language, human: Human, seen: Seen, key: Key) -> Critique:
    """A statement of `GRAMMAR` on sample 0. Consumes `key`.

    More of feature f is worth û(x_f) − û(x) and less of it the opposite, x_f of
    `counterfactuals`; where no draw has more of it nothing is said of it. Keeps x and the x_f.
    """
    at, mask = jax.vmap(lambda x: counterfactuals(alphabet, x))(seen.x)
    spans = jnp.zeros((len(at), GRAMMAR.spans), bool)

    def one(h: Human, k: Key, v: Array, at: Array, parts: Array, mask: Array) -> Array:
        return language.elicit(h, v[at] - v[0], jnp.zeros(parts.shape), parts, k, mask)

    said = _answers(one, human, key, seen.values, at, spans, mask)
    kept = jnp.concatenate([jnp.zeros_like(at[:, :1]), at], axis=1)
    return Critique(_take(seen.x, kept), said, spans, _all(seen), mask)


def _steps(seen: Seen) -> Array:
    """[N, T] perceived value of the prefixes of the one sample."""
    assert seen.steps is not None
    return seen.steps[:, 0]


def ask_process(human: Human, seen: Seen, key: Key) -> Process:
    """A step is a token: is what has been said so far good? Consumes `key`."""
    said = _answers(lambda h, k, v: process.elicit(h, v, k), human, key, _steps(seen))
    return Process(_only(seen.x), said, seen.x.mask[:, 0], _all(seen))


def ask_span(human: Human, seen: Seen, key: Key) -> Spans:
    """At most `likelihoods.SPANS` spans, one category: it weakens the sample. Consumes `key`.

    A span adds the value at its end less that at its beginning, and nothing said is worth 0 to
    a person: the spans add up to û(x). A reward model's r(s_0) is what it takes for that 0.
    A part weakens a sample that it takes from, whatever a whole one must be worth to be good:
    the person's bar, which would count once for every part, is left out.
    """
    said_nothing = jnp.zeros((len(seen.values), 1))
    prefixes = jnp.concatenate([said_nothing, _steps(seen)], axis=1)
    one = lambda h, k, v, m: span.elicit(h._replace(bar=0.0), gained(v, m)[:, None], k)
    mask = seen.x.mask[:, 0]
    category = _answers(one, human, key, prefixes, mask)
    return Spans(_only(seen.x), category, jax.vmap(cuts)(mask)[1], _all(seen))


def _join(*parts: Episode) -> Episode:
    """leaves [N, K_i, …] → [N, Σ K_i, …]"""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *parts)


def _one(x: Episode) -> Episode:
    return jax.tree.map(lambda leaf: leaf[:, None], x)


def kind(collect: Collect, alphabet: Language) -> Kind:
    """The kind of feedback that `collect.feedback` names.

    Raises `ConfigError` where a choice among `collect.options` is none.
    """
    k = collect.options
    if collect.feedback in ("ranking", "correction", "demonstration") and k < 2:
        raise ConfigError(f"collect.options = {k}: {collect.feedback} needs at least two")
    many = lambda data: data.x
    one = lambda data: _one(data.x)
    pair = lambda data: _join(_one(data.a), _one(data.b))
    made = lambda data: _join(_one(data.x), data.others)
    critique = lambda human, seen, key: ask_critique(alphabet, human, seen, key)
    told = 1 + 2 * len(GRAMMAR.features)
    nll = likelihoods
    # samples, cost, steps, anchored
    kinds = {
        "comparison": Kind(2, 2, False, False, ask_comparison, pair, nll.of_comparison),
        "ranking": Kind(k, k, False, False, ask_ranking, many, nll.of_ranking),
        "rating": Kind(1, 1, False, True, ask_rating, one, nll.of_rating),
        "likert": Kind(1, 1, False, True, ask_likert, one, nll.of_likert),
        "label": Kind(1, 1, False, True, ask_label, one, nll.of_label),
        "correction": Kind(k, 2, False, False, ask_correction, many, nll.of_correction),
        "demonstration": Kind(
            2 * k - 1, 1, False, False, ask_demonstration, made, nll.of_demonstration
        ),
        "language": Kind(told, 2, False, False, critique, many, nll.of_language),
        "process": Kind(1, 1, True, True, ask_process, one, nll.of_process),
        "span": Kind(1, 1, True, False, ask_span, one, nll.of_span),
    }
    return kinds[collect.feedback]
