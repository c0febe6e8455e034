"""Critiques in words: a choice among statements about features and parts of a sample."""

from __future__ import annotations

import re
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import ConfigError
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
    take,
)
from rlhf_jax.humans.choice import among, choose, log_chosen
from rlhf_jax.humans.human import Human
from rlhf_jax.types import Array, Episode, Key, Language


class Critique(NamedTuple):
    """N answers, each one statement of a grammar."""

    x: Episode
    """leaves [N, …]; [N, 1 + F, …] where what more of each feature makes of it is kept"""
    statement: Array
    """[N] int32, a row of `statements`"""
    spans: Array
    """[N, S] bool: parts that this sample has"""
    weight: Array
    """[N] float32 ≥ 0"""
    mask: Array | None = None
    """[N, F] bool: features that there can be more and less of; None where of all"""
    who: Array | None = None
    """[N] int32"""


class Grammar(NamedTuple):
    """What can be said: static, one for all critiques of a world."""

    features: tuple[str, ...]
    """F adjectives, such as "formal" """
    spans: int
    """S, the most parts a sample has"""


NOTHING = "nothing to change"


def statements(grammar: Grammar) -> tuple[str, ...]:
    """All 1 + 2F + 2S statements, in the order that `worth` scores them.

    nothing to change | make it more/less FEATURE | part I is good/bad (I from 1).
    Raises `ConfigError` for features that are not plain, different words.
    """
    names = [" ".join(f.lower().split()) for f in grammar.features]
    for name, given in zip(names, grammar.features, strict=True):
        if not re.fullmatch(r"[a-z][a-z -]*", name) or names.count(name) > 1:
            raise ConfigError(f"feature {given!r}: needs a name of its own made of letters")
    parts = range(1, grammar.spans + 1)
    return (
        NOTHING,
        *(f"make it more {f}" for f in names),
        *(f"make it less {f}" for f in names),
        *(f"part {i} is good" for i in parts),
        *(f"part {i} is bad" for i in parts),
    )


def render(grammar: Grammar, statement: int) -> str:
    """The sentence of one statement. Raises `ConfigError` where there is no such row."""
    said = statements(grammar)
    if not 0 <= statement < len(said):
        raise ConfigError(f"statement {statement}: the grammar has {len(said)}, from 0")
    return said[statement][0].upper() + said[statement][1:] + "."


def parse(grammar: Grammar, text: str) -> int:
    """The statement that `text` makes: parse(render(i)) = i; case, spaces and a final full
    stop do not matter. Raises `ConfigError` for a sentence outside the grammar.
    """
    plain = " ".join(text.lower().split()).rstrip(".! ")
    said = statements(grammar)
    if plain not in said:
        raise ConfigError(f"{text!r} is not a statement; one is {render(grammar, 0)!r}")
    return said.index(plain)


def worth(gains: Array, spans: Array) -> Array:
    """What each statement is worth to a person who could have their way.

    Args:
      gains: [..., F], what having more of each feature would add to the value.
      spans: [..., S], what each part adds to it.
    Returns: [..., 1 + 2F + 2S]: 0 for nothing, ±gain for more and less, ±value for good and
      bad. In a reward linear in features, gains are its weights times one unit of change.
    """
    none = jnp.zeros((*gains.shape[:-1], 1), gains.dtype)
    return jnp.concatenate([none, gains, -gains, spans, -spans], axis=-1)


def sayable(gains: Array, spans: Array, mask: Array | None = None) -> Array:
    """bool [..., 1 + 2F + 2S] from [..., F], bool [..., S] and bool [..., F]: no statement on
    parts that are absent or features that cannot change.
    """
    nothing = jnp.ones((*gains.shape[:-1], 1), bool)
    features = jnp.ones(gains.shape, bool) if mask is None else mask
    return jnp.concatenate([nothing, features, features, spans, spans], axis=-1)


def elicit(
    human: Human, gains: Array, values: Array, spans: Array, key: Key, mask: Array | None = None
) -> Array:
    """Perceived gains [..., F], values [..., S] of real parts bool [..., S] → int32 [...].

    P(s) = softmax_s(β worth_s): people say what matters most to them. A statement is an
    implicit choice of reward (Jeon, Milli & Dragan 2020, arXiv 2002.04833; Sumers et
    al. 2021, arXiv 2009.14715, for speech about features). Consumes `key`.
    """
    return choose(human, worth(gains, values), key, among(sayable(gains, spans, mask)))


def loss(
    gains: Array,
    values: Array,
    statement: Array,
    spans: Array,
    human: Human = STANDARD,
    mask: Array | None = None,
) -> Array:
    """−log P(statement | gains and values under r, human), nats: → [...].

    The gains are the reward model's own: r of the sample with more of a feature less r of
    the sample, or ∂r/∂feature.
    """
    return -log_chosen(human, worth(gains, values), statement, among(sayable(gains, spans, mask)))


# --- the critiques of the pipeline


GRAMMAR = Grammar(("long", "late"), spans=1)
"""Long: has many letters. Late: its letters lie late in the alphabet on average. Both can be
measured on every string, and say little about each other. The one part is never real: an array
without entries cannot be checkpointed."""


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


def ask(alphabet: Language, human: Human, seen: Seen, key: Key) -> Critique:
    """A statement of `GRAMMAR` on sample 0. Consumes `key`.

    More of feature f is worth û(x_f) − û(x) and less of it the opposite, x_f of
    `counterfactuals`; where no draw has more of it nothing is said of it. Keeps x and the x_f,
    which only come to mind: nobody reads them.
    """
    at, mask = jax.vmap(lambda x: counterfactuals(alphabet, x))(seen.x)
    spans = jnp.zeros((len(at), GRAMMAR.spans), bool)

    def one(h: Human, k: Key, v: Array, at: Array, parts: Array, mask: Array) -> Array:
        return elicit(h, v[at] - v[0], jnp.zeros(parts.shape), parts, k, mask)

    said = answers(one, human, key, seen.values, at, spans, mask)
    kept = jnp.concatenate([jnp.zeros_like(at[:, :1]), at], axis=1)
    return Critique(take(seen.x, kept), said, spans, all_answer(seen), mask)


def nll(reading: Reading, data: Critique, human: Human) -> Array:
    """softmax(β (0, gains, −gains)) over what can be said, gain_f = r(x_f) − r(x). → [N]"""

    def one(h: Human, r: Array, statement: Array, spans: Array, mask: Array) -> Array:
        parts = jnp.zeros(spans.shape)
        return loss(r[1:] - r[0], parts, statement, spans, h, mask)

    return each(one)(human, reading.rewards, data.statement, data.spans, data.mask)


KIND = Kind(
    name="language",
    asked="a critique",
    equation="min_φ E[−log P(statement)] + λ_r(φ), P = softmax over 0 (nothing to change), "
    "g_f (more of f), −g_f (less of f), g_f = r_φ(x with more of f) − r_φ(x)",
    units="logits of a choice",
    acts=NOISE,
    samples=1 + 2 * len(GRAMMAR.features),
    cost=2,
    ask=of(lambda _, alphabet: partial(ask, alphabet)),
    episodes=several,
    nll=nll,
)
