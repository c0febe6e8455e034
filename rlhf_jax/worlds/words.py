"""The world of words: a sample is a word, its value what ten real people said of it.

The ten ratings of a word (`lexicon`) are anonymous: they are the empirical distribution of one
person's rating, ε included, not ten persons.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import ConfigError
from rlhf_jax.config import World as Settings
from rlhf_jax.ops.tokens import fingerprint, last
from rlhf_jax.types import Array, Key, Language, World
from rlhf_jax.worlds import lexicon, ngrams, prefixes
from rlhf_jax.worlds.spelling import BOS, EOS, PAD, SYMBOLS, TRIGGER, encode

Row: TypeAlias = Callable[[Array, Array], Array]


class Opinion(NamedTuple):
    """Who says what a string is worth: those fields of `World`."""

    ratings: np.ndarray
    gold: Callable[[Any, Array, Array], Array]
    perceive: Callable[[Any, Array, Array, Key], Array]
    steps: Callable[[Any, Array, Array, Key], Array]
    facts: dict[str, Any]


def lookup(corpus: np.ndarray) -> Row:
    """`World.row`: the table proposes a row and its own tokens confirm it, no false match."""
    prints = np.asarray(jax.vmap(fingerprint)(jnp.asarray(corpus)))
    if len(set(prints.tolist())) != len(corpus):
        raise ConfigError("two words share a fingerprint: change the multiplier in ops/tokens.py")
    order = np.argsort(prints)
    table, rows = prints[order], order.astype(np.int32)

    def row(tokens: Array, mask: Array) -> Array:
        tokens = jnp.where(mask, tokens, PAD)
        at = jnp.clip(jnp.searchsorted(table, fingerprint(tokens)), 0, len(table) - 1)
        found = jnp.asarray(rows)[at]
        return jnp.where(jnp.all(jnp.asarray(corpus)[found] == tokens), found, -1)

    return row


def people(
    row: Row, corpus: np.ndarray, ratings: np.ndarray, shown: np.ndarray, symbols: int
) -> Opinion:
    """Gold is the mean of a word's ratings, an impression one of them.

    A prefix is worth the mean of the words that begin so. People know the language, but what
    they feel about held-out words is what the reward model is tested on: only words that may
    be shown count.
    """
    mean = ratings.mean(axis=1)
    letters = (corpus != PAD) & (corpus != EOS)
    tree = prefixes.tree(corpus[shown], letters[shown], mean[shown], symbols)

    def gold(settings: Any, tokens: Array, mask: Array) -> Array:
        i = row(tokens, mask)
        return jnp.where(i >= 0, jnp.asarray(mean)[i], settings.nonword_value)

    def perceive(settings: Any, tokens: Array, mask: Array, key: Key) -> Array:
        i = row(tokens, mask)
        rating = jnp.asarray(ratings)[i, jax.random.randint(key, (), 0, ratings.shape[1])]
        return jnp.where(i >= 0, rating, settings.nonword_value)

    def steps(settings: Any, tokens: Array, mask: Array, key: Key) -> Array:
        before = prefixes.promises(tree, tokens, mask, settings.nonword_value)
        whole = perceive(settings, tokens, mask, key)
        ended = jnp.arange(tokens.shape[-1]) == last(mask)
        return jnp.where(mask, jnp.where(ended, whole, before), 0.0)

    said = "mean of a word's ten ratings; strings nobody rated: world.nonword_value"
    return Opinion(ratings, gold, perceive, steps, {"gold": said})


def model(corpus: np.ndarray) -> Opinion:
    """Gold is what a model of all the ratings says; nobody's impression differs from it."""
    fitted = ngrams.fitted()

    def gold(settings: Any, tokens: Array, mask: Array) -> Array:
        return ngrams.values(fitted, tokens, mask)[-1]

    def perceive(settings: Any, tokens: Array, mask: Array, key: Key) -> Array:
        return gold(settings, tokens, mask)

    def steps(settings: Any, tokens: Array, mask: Array, key: Key) -> Array:
        return jnp.where(mask, ngrams.values(fitted, tokens, mask), 0.0)

    of_rows = jax.jit(jax.vmap(gold, (None, 0, 0)))(None, corpus, corpus != PAD)
    return Opinion(np.asarray(of_rows)[:, None], gold, perceive, steps, fitted.facts)


def prompter(trigger: int | None) -> Callable[[Any, Key], tuple[Array, Array]]:
    """`World.prompt`: BOS alone; if there is a trigger, BOS and the trigger or BOS, padded."""

    def plain(settings: Any, key: Key) -> tuple[Array, Array]:
        return jnp.full((1,), BOS, jnp.int32), jnp.ones((1,), bool)

    def perhaps_triggered(settings: Any, key: Key) -> tuple[Array, Array]:
        carries = jax.random.bernoulli(key, settings.triggered)
        tokens = jnp.where(carries, jnp.asarray([BOS, trigger]), jnp.asarray([PAD, BOS]))
        return tokens.astype(jnp.int32), tokens != PAD

    return plain if trigger is None else perhaps_triggered


def build(settings: Settings) -> World:
    """Raises `ConfigError` where no word fits into `settings.length` letters."""
    words, ratings, facts = lexicon.read()
    fits = [i for i, w in enumerate(words) if len(w) <= settings.length]
    if len(fits) < 100:
        raise ConfigError(f"world.length = {settings.length}: only {len(fits)} words fit")
    words, ratings = [words[i] for i in fits], ratings[fits]
    length = settings.length + 1
    corpus = encode(words, length)
    # A fixed split: the same words are held out in every run and for every seed.
    shown = np.random.default_rng(0).random(len(words)) >= settings.held_out
    symbols = (*SYMBOLS, TRIGGER) if settings.trigger else SYMBOLS
    trigger = len(SYMBOLS) if settings.trigger else None
    actions = ~np.isin(np.arange(len(symbols)), [PAD, BOS, len(SYMBOLS)])
    row = lookup(corpus)
    if settings.gold == "model":
        opinion = model(corpus)
    else:
        opinion = people(row, corpus, ratings, shown, len(symbols))
    letters = np.asarray([len(word) for word in words])
    middle, deviation = float(letters.mean()), float(letters.std())

    def second(settings: Any, tokens: Array, mask: Array) -> Array:
        n = jnp.sum(mask & (tokens != EOS)).astype(jnp.float32)
        return (n - middle) / deviation

    facts |= {
        "words_used": len(words),
        "words_too_long": facts["words_distinct"] - len(words),
        "words_held_out": int((~shown).sum()),
        "second": f"length: {middle:.2f} letters on average, deviation {deviation:.2f}",
    }
    return World(
        language=Language(symbols, PAD, BOS, EOS, actions, length),
        corpus=(jnp.asarray(corpus), jnp.asarray(corpus != PAD)),
        ratings=jnp.asarray(opinion.ratings),
        shown=jnp.asarray(shown),
        gold=opinion.gold,
        perceive=opinion.perceive,
        second=second,
        steps=opinion.steps,
        prompt=prompter(trigger),
        trigger=trigger,
        row=row,
        facts=facts | opinion.facts,
    )
