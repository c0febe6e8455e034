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
from rlhf_jax.types import Array, Key, Language, Prompts, Sample, World
from rlhf_jax.worlds import lexicon, ngrams, prefixes
from rlhf_jax.worlds.spelling import BOS, EOS, PAD, SYMBOLS, TRIGGER, encode

BEGINNING = 3
"""Symbols that the form of a string is judged by."""
Row: TypeAlias = Callable[[Array, Array], Array]


class Opinion(NamedTuple):
    """Who says what a string is worth."""

    feeling: Callable[[Any, Array, Array], Array]
    """(world hparams, tokens, mask) → float32: what people feel about it on average"""
    impressions: int
    felt: Callable[[Any, Array, Array, Array], Array]
    """(world hparams, tokens, mask, which impression) → [T] float32: what one person feels about
    each prefix, the last real one being the whole"""
    difficulty: Callable[[Array, Array], Array]
    """(tokens, mask) → float32: how much people disagree, in deviations"""
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
    mean, spread = ratings.mean(axis=1), ratings.std(axis=1)
    apart = (spread - spread.mean()) / spread.std()
    letters = (corpus != PAD) & (corpus != EOS)
    tree = prefixes.tree(corpus[shown], letters[shown], mean[shown], symbols)

    def feeling(settings: Any, tokens: Array, mask: Array) -> Array:
        i = row(tokens, mask)
        return jnp.where(i >= 0, jnp.asarray(mean)[i], settings.nonword_value)

    def felt(settings: Any, tokens: Array, mask: Array, impression: Array) -> Array:
        i = row(tokens, mask)
        whole = jnp.where(i >= 0, jnp.asarray(ratings)[i, impression], settings.nonword_value)
        before = prefixes.promises(tree, tokens, mask, settings.nonword_value)
        ended = jnp.arange(tokens.shape[-1]) == last(mask)
        return jnp.where(mask, jnp.where(ended, whole, before), 0.0)

    def difficulty(tokens: Array, mask: Array) -> Array:
        i = row(tokens, mask)
        return jnp.where(i >= 0, jnp.asarray(apart)[i], 0.0)

    said = "mean of a word's ten ratings; strings nobody rated: world.nonword_value"
    return Opinion(feeling, ratings.shape[1], felt, difficulty, {"gold": said})


def model() -> Opinion:
    """Gold is what a model of all the ratings says; nobody's impression differs from it."""
    fitted = ngrams.fitted()

    def feeling(settings: Any, tokens: Array, mask: Array) -> Array:
        return ngrams.values(fitted, tokens, mask)[-1]

    def felt(settings: Any, tokens: Array, mask: Array, impression: Array) -> Array:
        return jnp.where(mask, ngrams.values(fitted, tokens, mask), 0.0)

    certain = lambda tokens, mask: jnp.zeros(())
    return Opinion(feeling, 1, felt, certain, fitted.facts)


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
        opinion = model()
    else:
        opinion = people(row, corpus, ratings, shown, len(symbols))
    letters = np.asarray([len(word) for word in words])
    middle, deviation = float(letters.mean()), float(letters.std())

    is_letter = actions & (np.arange(len(symbols)) != EOS)
    place = np.where(is_letter, np.cumsum(is_letter) - 1, 0) / max(is_letter.sum() - 1, 1)

    def long(tokens: Array, mask: Array) -> Array:
        n = jnp.cumsum(mask & (tokens != EOS)).astype(jnp.float32)
        return (n - middle) / deviation

    def values(settings: Any, tokens: Array, mask: Array) -> Array:
        n = jnp.sum(mask & (tokens != EOS)).astype(jnp.float32)
        return jnp.stack([opinion.feeling(settings, tokens, mask), (n - middle) / deviation])

    def show(
        settings: Any, prompt: Prompts, tokens: Array, mask: Array, impression: Array
    ) -> Sample:
        felt, length = opinion.felt(settings, tokens, mask, impression), long(tokens, mask)
        letters = mask & jnp.asarray(is_letter)[tokens]
        count = jnp.maximum(jnp.cumsum(letters), 1)
        late = 2.0 * jnp.cumsum(jnp.where(letters, jnp.asarray(place)[tokens], 0.0)) / count - 1.0
        marked = jnp.zeros(()) if trigger is None else jnp.any(prompt.tokens == trigger)
        features = jnp.stack([jnp.broadcast_to(marked, late.shape), late], axis=-1)
        begun = felt[jnp.minimum(jnp.arange(tokens.shape[0]), BEGINNING - 1)]
        return Sample(
            jnp.stack([felt, jnp.where(mask, length, 0.0)], axis=-1),
            mask,
            length,
            0.0,
            features.astype(jnp.float32),
            begun,
            jnp.broadcast_to(opinion.difficulty(tokens, mask), length.shape),
        )

    facts |= {
        "words_used": len(words),
        "words_too_long": facts["words_distinct"] - len(words),
        "words_held_out": int((~shown).sum()),
        "dimensions": "feeling: the ratings; length: real, worth nothing unless a weight says so, "
        f"{middle:.2f} letters on average, deviation {deviation:.2f}",
        "features": "trigger: it stands in the prompt; late: place of the letters in the alphabet, "
        "−1…1",
        "form": f"assumed: what a string's first {BEGINNING} symbols promise",
        "difficulty": "real: deviation of a word's ratings, in deviations from the mean word's",
    }
    return World(
        language=Language(symbols, PAD, BOS, EOS, actions, length),
        corpus=(jnp.asarray(corpus), jnp.asarray(corpus != PAD)),
        shown=jnp.asarray(shown),
        dimensions=("feeling", "length"),
        features=("trigger", "late"),
        values=values,
        impressions=opinion.impressions,
        show=show,
        prompt=prompter(trigger),
        trigger=trigger,
        row=row,
        facts=facts | opinion.facts,
    )
