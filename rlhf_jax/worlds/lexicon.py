"""The lexicon: words and what ten people said of each, from an installed package.

The ratings are those of the VADER lexicon (Hutto & Gilbert 2014), −4 (most negative) to 4,
read from `vaderSentiment`.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_jax.config import ConfigError


def read() -> tuple[list[str], np.ndarray, dict[str, Any]]:
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
