"""Numbers for texts: surface counts and hashed tf–idf. NumPy only."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
SENTENCE = re.compile(r"[.!?]+(?:\s|$)")
SURFACE = (
    "log characters",
    "log words",
    "log sentences",
    "words per sentence",
    "characters per word",
    "share of different words",
    "share of long words",
    "share of capitals",
    "commas per word",
    "questions per sentence",
    "exclamations per sentence",
    "digits per word",
    "quotation marks per word",
    "log paragraphs",
)


def words(text: str) -> list[str]:
    """Lower-case words in order: letters and digits of any script, inner apostrophes kept."""
    return WORD.findall(text.lower())


def surface(text: str) -> np.ndarray:
    """[len(SURFACE)] float64: what can be counted without knowing a word. Finite for any text."""
    found = words(text)
    n, sentences = max(len(found), 1), max(len(SENTENCE.findall(text)), 1)
    letters = sum(map(len, found))
    return np.array(
        [
            np.log1p(len(text)),
            np.log1p(len(found)),
            np.log(sentences),
            len(found) / sentences,
            letters / n,
            len(set(found)) / n,
            sum(len(w) > 6 for w in found) / n,
            sum(c.isupper() for c in text) / max(letters, 1),
            text.count(",") / n,
            text.count("?") / sentences,
            text.count("!") / sentences,
            sum(c.isdigit() for c in text) / n,
            sum(c in '"“”«»' for c in text) / n,
            np.log1p(text.count("\n")),
        ]
    )


def hashed_counts(texts: Sequence[str], buckets: int) -> np.ndarray:
    """[N, buckets] float64 counts of words, word w in bucket crc32(w) mod `buckets`.

    The hashing trick (Weinberger et al. 2009, arXiv 0902.2206) without signs: the same on every
    machine and in every run, and no vocabulary has to be kept.
    """
    out = np.zeros((len(texts), buckets))
    for i, text in enumerate(texts):
        for word in words(text):
            out[i, zlib.crc32(word.encode()) % buckets] += 1
    return out


def tf_idf(counts: np.ndarray, known: np.ndarray) -> np.ndarray:
    """[N, B] counts → log(1 + tf) · log((1 + K) / (1 + df)), rows of length 1 (0 if empty).

    df, the number of texts with a word, is taken over the K rows in the mask `known` [N] alone,
    so that a held-out text leaves no trace in the features of another.
    """
    df = (counts[known] > 0).sum(0)
    weighted = np.log1p(counts) * np.log((1 + known.sum()) / (1 + df))
    length = np.linalg.norm(weighted, axis=1, keepdims=True)
    return weighted / np.where(length > 0, length, 1.0)


def standardise(features: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(x − mean) / deviation per column, both over the rows in `known`; constant columns are 0."""
    mean, deviation = features[known].mean(0), features[known].std(0)
    return np.where(deviation > 0, (features - mean) / np.where(deviation > 0, deviation, 1.0), 0.0)
