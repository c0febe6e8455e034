"""The world of words: a sample is a word, its value what ten real people said of it.

The ratings are those of the VADER lexicon (Hutto & Gilbert 2014), −4 (most negative) to 4,
read from the installed `vaderSentiment` package. The ten ratings of a word are anonymous:
they are the empirical distribution of one person's rating, ε included, not ten persons.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import ConfigError
from rlhf_jax.config import World as Settings
from rlhf_jax.ops.tokens import fingerprint
from rlhf_jax.types import Array, Key, Language, World

PAD, BOS, EOS = 0, 1, 2
SYMBOLS = ("·", "^", "$", *"abcdefghijklmnopqrstuvwxyz")


def read_lexicon() -> tuple[list[str], np.ndarray, dict[str, Any]]:
    """Plain lower-case words in alphabetical order, their ratings [N, 10] float32, and facts.

    A word that the file lists twice keeps its first row.
    """
    spec = importlib.util.find_spec("vaderSentiment")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("world.name = words: the package vaderSentiment is not installed")
    path = Path(spec.submodule_search_locations[0]) / "vader_lexicon.txt"
    raw = path.read_bytes()
    rows: dict[str, list[int]] = {}
    listed = 0
    for line in raw.decode("utf-8").splitlines():
        word, _, _, ratings = line.split("\t")[:4]
        if re.fullmatch("[a-z]+", word):
            listed += 1
            rows.setdefault(word, ast.literal_eval(ratings))
    words = sorted(rows)
    facts = {
        "ratings": "vaderSentiment/vader_lexicon.txt (MIT), Hutto & Gilbert 2014",
        "sha256": hashlib.sha256(raw).hexdigest(),
        "words_listed": listed,
        "words_distinct": len(words),
        "ratings_per_word": 10,
    }
    return words, np.asarray([rows[w] for w in words], np.float32), facts


def encode(words: list[str], length: int) -> np.ndarray:
    """[N, length] int32: letters, EOS, padding."""
    out = np.full((len(words), length), PAD, np.int32)
    for i, word in enumerate(words):
        out[i, : len(word)] = [SYMBOLS.index(c) for c in word]
        out[i, len(word)] = EOS
    return out


def build(settings: Settings) -> World:
    """Raises `ConfigError` where no word fits into `settings.length` letters."""
    words, ratings, facts = read_lexicon()
    fits = [i for i, w in enumerate(words) if len(w) <= settings.length]
    if len(fits) < 100:
        raise ConfigError(f"world.length = {settings.length}: only {len(fits)} words fit")
    words, ratings = [words[i] for i in fits], ratings[fits]
    length = settings.length + 1
    corpus = encode(words, length)
    # A fixed split: the same words are held out in every run and for every seed.
    shown = np.random.default_rng(0).random(len(words)) >= settings.held_out
    prints = np.asarray(jax.vmap(fingerprint)(jnp.asarray(corpus)))
    if len(set(prints.tolist())) != len(words):
        raise ConfigError("two words share a fingerprint: change the multiplier in words.py")
    order = np.argsort(prints)
    table, rows = prints[order], order.astype(np.int32)
    mean = ratings.mean(axis=1)

    def row(tokens: Array, mask: Array) -> Array:
        """The table proposes a row and the row's own tokens confirm it: no false match."""
        tokens = jnp.where(mask, tokens, PAD)
        at = jnp.clip(jnp.searchsorted(table, fingerprint(tokens)), 0, len(table) - 1)
        found = jnp.asarray(rows)[at]
        return jnp.where(jnp.all(jnp.asarray(corpus)[found] == tokens), found, -1)

    def gold(settings: Settings, tokens: Array, mask: Array) -> Array:
        i = row(tokens, mask)
        return jnp.where(i >= 0, jnp.asarray(mean)[i], settings.nonword_value)

    def perceive(settings: Settings, tokens: Array, mask: Array, key: Key) -> Array:
        i = row(tokens, mask)
        rating = jnp.asarray(ratings)[i, jax.random.randint(key, (), 0, ratings.shape[1])]
        return jnp.where(i >= 0, rating, settings.nonword_value)

    def prompt(key: Key) -> tuple[Array, Array]:
        return jnp.full((1,), BOS, jnp.int32), jnp.ones((1,), bool)

    actions = np.ones(len(SYMBOLS), bool)
    actions[[PAD, BOS]] = False
    facts |= {
        "words_used": len(words),
        "words_too_long": facts["words_distinct"] - len(words),
        "words_held_out": int((~shown).sum()),
        "gold": "mean of a word's ten ratings; strings nobody rated: world.nonword_value",
    }
    return World(
        language=Language(SYMBOLS, PAD, BOS, EOS, actions, length),
        corpus=(jnp.asarray(corpus), jnp.asarray(corpus != PAD)),
        ratings=jnp.asarray(ratings),
        shown=jnp.asarray(shown),
        prompt=prompt,
        gold=gold,
        perceive=perceive,
        row=row,
        facts=facts,
    )
