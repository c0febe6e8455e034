"""Numbers for a text beside another: what is new, left out, the same. NumPy only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np

TOKEN = re.compile(r"\w+|[^\w\s]")
BREAK = re.compile(r"(?<=[.!?;:,])\s+")
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


def segments(text: str, least: int = 5) -> list[tuple[int, int]]:
    """Characters [start, end) of the parts between punctuation, in order, without spaces around.

    A part of fewer than `least` words is joined to the one before it (the first to the one
    after it), as in the data of Wu et al. 2023 (arXiv 2306.01693).
    """
    ends = [m.start() for m in BREAK.finditer(text)] + [len(text.rstrip())]
    starts = [len(text) - len(text.lstrip())] + [m.end() for m in BREAK.finditer(text)]
    out: list[tuple[int, int]] = []
    for start, end in zip(starts, ends, strict=True):
        if end <= start:
            continue
        few = min(len(text[a:b].split()) for a, b in [(start, end), *out[-1:]]) < least
        if out and few:
            start = out.pop()[0]
        out.append((start, end))
    return out
