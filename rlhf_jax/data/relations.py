"""Numbers for a text beside another: what is new, left out, the same. NumPy only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np

TOKEN = re.compile(r"\w+|[^\w\s]")
RELATION = (
    "share of own tokens in the other",
    "share of the other's tokens in own",
    "log tokens only here",
    "log tokens only there",
    "nothing new",
    "nothing left out",
    "one longer",
    "one shorter",
    "equally long",
    "log ratio of lengths",
)
RUN = ("longest common run, share of the shorter", "it is the shorter but for one token at most")


def tokens(text: str) -> list[str]:
    """Lower-case words, and every other visible character on its own."""
    return TOKEN.findall(text.lower())


def relation(own: Sequence[str], other: Sequence[str]) -> np.ndarray:
    """[len(RELATION)] float64 for two lists of tokens, counted as bags; 0 if either is empty."""
    n, m = len(own), len(other)
    if not n or not m:
        return np.zeros(len(RELATION))
    same = sum((Counter(own) & Counter(other)).values())
    only = np.log1p([n - same, m - same])
    equal = [n == same, m == same, n == m + 1, n == m - 1, n == m]
    return np.array([same / n, same / m, *only, *equal, np.log(n / m)], float)


def run(own: Sequence[str], other: Sequence[str]) -> np.ndarray:
    """[len(RUN)] float64: the longest run of tokens that stands in both; 0 if either is empty."""
    shorter = min(len(own), len(other))
    if not shorter:
        return np.zeros(len(RUN))
    size = SequenceMatcher(None, own, other, autojunk=False).find_longest_match().size
    return np.array([size / shorter, size >= shorter - 1], float)
