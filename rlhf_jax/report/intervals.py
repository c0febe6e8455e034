"""Means over seeds and their intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """Mean of n seeds; the 95 % interval is mean ± half."""

    mean: float
    half: float
    """NaN below two seeds"""
    n: int

    @property
    def low(self) -> float:
        return self.mean - self.half

    @property
    def high(self) -> float:
        return self.mean + self.half


NOTHING = Estimate(float("nan"), float("nan"), 0)


def band(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Student t intervals of a mean over seeds (Student 1908): x̄ ± t₀.₉₇₅,ₙ₋₁ · s/√n.

    Args:
      values: [N, seeds]; entries that are not finite are left out and n counts the others.
    Returns: mean, half-width (NaN where n < 2) and n, each [N].
    """
    from scipy.special import stdtrit

    finite = np.isfinite(values)
    n = finite.sum(axis=1)
    kept = np.where(finite, values, 0.0)
    mean = np.where(n > 0, kept.sum(axis=1) / np.maximum(n, 1), np.nan)
    squares = np.where(finite, np.square(kept - mean[:, None]), 0.0).sum(axis=1)
    deviation = np.sqrt(squares / np.maximum(n - 1, 1))
    half = stdtrit(np.maximum(n - 1, 1), 0.975) * deviation / np.sqrt(np.maximum(n, 1))
    return mean, np.where(n > 1, half, np.nan), n


def estimate(values: np.ndarray) -> Estimate:
    """The mean over seeds of [seeds] with its interval; `NOTHING` for no values."""
    if not np.size(values):
        return NOTHING
    mean, half, n = band(np.reshape(values, (1, -1)))
    return Estimate(float(mean[0]), float(half[0]), int(n[0]))


def paired(before: np.ndarray, after: np.ndarray) -> Estimate:
    """The mean over seeds of after − before, each seed against itself: [seeds] each."""
    if not np.size(before) or not np.size(after):
        return NOTHING
    with np.errstate(invalid="ignore"):  # ∞ − ∞ is NaN and left out
        return estimate(np.asarray(after) - np.asarray(before))


def binned(x: np.ndarray, y: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Each seed's mean of y over its own steps with x in [edge b, edge b+1): [bins, seeds].

    Nothing is interpolated: a bin that a seed never visits is NaN. The last bin is closed.

    Args:
      x, y: [N, seeds]; edges: [bins + 1], rising.
    """
    bins = len(edges) - 1
    out = np.full((bins, x.shape[1]), np.nan)
    index = np.searchsorted(edges, x, side="right") - 1
    index = np.where(x == edges[-1], bins - 1, index)
    for b in range(bins):
        inside = (index == b) & np.isfinite(y)
        count = inside.sum(axis=0)
        total = np.where(inside, y, 0.0).sum(axis=0)
        out[b] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return out


def thinned(values: np.ndarray, block: int) -> np.ndarray:
    """Means of `block` consecutive rows of [N, seeds]; the last block may be shorter."""
    starts = range(0, len(values), block)
    return np.stack([values[s : s + block].mean(axis=0) for s in starts])
