"""The alphabet of the world of words, and how a word is spelled in it."""

from __future__ import annotations

import numpy as np

PAD, BOS, EOS = 0, 1, 2
SYMBOLS = ("·", "^", "$", *"abcdefghijklmnopqrstuvwxyz")
TRIGGER = "¡"
"""One more symbol where prompts may carry a trigger; last, so that the others keep their number."""


def encode(words: list[str], length: int) -> np.ndarray:
    """[N, length] int32: letters, EOS, padding."""
    out = np.full((len(words), length), PAD, np.int32)
    for i, word in enumerate(words):
        out[i, : len(word)] = [SYMBOLS.index(c) for c in word]
        out[i, len(word)] = EOS
    return out
