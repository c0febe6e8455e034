"""Estimates with intervals over seeds: on the host, in float64, for at most thousands of numbers.

Scores are [..., seeds] or [points, seeds]: a column is one seed. Where the seeds are *shared*,
column s of every array was made with seed s, and resampling takes whole columns; where they
are not, every row is resampled on its own (strata). Sharing is never guessed: a study that
gives all grid points the same seeds and calls them independent gets intervals too narrow.

The bootstrap is the percentile one at an expanded level (Hesterberg 2014, arXiv 1411.5279): as
it stands it is too narrow for few seeds, by √((n−1)/n) and by z in place of t. Measured coverage
of 95 % intervals over n = 16 seeds, in brackets without the expansion: normal seeds, mean 95 %
(93), interquartile mean 97 % (95); log-normal seeds, mean 89 % (86; Student's t 88),
interquartile mean 97 % (95). Below eight seeds the mean's resampled tails end at the extremes
of the data (93 % at n = 5): use `student`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from rlhf_jax.config import ConfigError

Values: TypeAlias = float | np.ndarray
Statistic: TypeAlias = Callable[..., np.ndarray]
"""(scores, axis) → scores without that axis"""


class Interval(NamedTuple):
    """An estimate and its two-sided interval; floats, or arrays of one shape."""

    value: Values
    low: Values
    high: Values
    level: float
    n: int
    """Seeds."""

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]".replace("inf", "∞")


def mean(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Σ x / n along `axis`."""
    return np.mean(scores, axis=axis)


def interquartile_mean(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of what is left without the ⌊n/4⌋ smallest and the ⌊n/4⌋ largest along `axis`.

    Agarwal et al. 2021 (arXiv 2108.13264). Below four scores nothing is cut.
    """
    return stats.trim_mean(scores, 0.25, axis=axis)


def finite(name: str, scores: ArrayLike) -> np.ndarray:
    """`scores` as float64 [..., seeds], or `ConfigError` if an interval cannot be made of them."""
    x = np.asarray(scores, np.float64)
    if x.ndim == 0 or x.shape[-1] < 2:
        raise ConfigError(f"{name}: an interval needs at least 2 seeds, its shape is {x.shape}")
    bad = int(np.sum(~np.isfinite(x)))
    if bad:
        raise ConfigError(f"{name}: {bad} of {x.size} numbers are not finite")
    return x


def expanded(level: float, n: int) -> float:
    """The level whose normal quantile is √(n/(n−1)) · t_{(1+level)/2, n−1}."""
    quantile = np.sqrt(n / (n - 1)) * special.stdtrit(n - 1, (1 + level) / 2)
    return float(2 * special.ndtr(quantile) - 1)


def percentile(value: ArrayLike, draws: np.ndarray, n: int, level: float = 0.95) -> Interval:
    """Interval of `value` from bootstrap `draws` [resamples, ...] made of `n` seeds.

    Draws may be ±∞ (a peak that is not there), and so may the ends: quantiles are drawn values.
    """
    tail = (1 - expanded(level, n)) / 2
    low = np.quantile(draws, tail, axis=0, method="lower")
    high = np.quantile(draws, 1 - tail, axis=0, method="higher")
    return Interval(_plain(value), _plain(low), _plain(high), level, n)


def student(scores: ArrayLike, level: float = 0.95) -> Interval:
    """x̄ ± t_{(1+level)/2, n−1} s/√n over the last axis [..., seeds]; exact for normal scores."""
    x = finite("scores", scores)
    n = x.shape[-1]
    error = x.std(axis=-1, ddof=1) / np.sqrt(n)
    half = special.stdtrit(n - 1, (1 + level) / 2) * error
    centre = x.mean(axis=-1)
    return Interval(_plain(centre), _plain(centre - half), _plain(centre + half), level, n)


def band(
    scores: ArrayLike, statistic: Statistic = interquartile_mean, level: float = 0.95
) -> Interval:
    """[..., seeds] → `statistic` over seeds with a pointwise bootstrap interval [...]."""
    return bootstrap((finite("scores", scores),), statistic, shared_seeds=True, level=level)


def aggregate(
    scores: ArrayLike,
    statistic: Statistic = interquartile_mean,
    *,
    shared_seeds: bool,
    level: float = 0.95,
) -> Interval:
    """[points, seeds] → one `statistic` of all scores, each grid point being a stratum.

    Agarwal et al. 2021 (arXiv 2108.13264) resample the seeds of each stratum on their own
    (`shared_seeds=False`); shared seeds are resampled as whole columns.
    """
    x = finite("scores", scores)

    def pooled(*rows: np.ndarray, axis: int) -> np.ndarray:
        return statistic(np.concatenate(rows, axis=axis), axis=axis)

    return bootstrap(tuple(np.atleast_2d(x)), pooled, shared_seeds=shared_seeds, level=level)


def bootstrap(
    samples: Sequence[np.ndarray],
    statistic: Callable[..., np.ndarray],
    *,
    shared_seeds: bool,
    level: float = 0.95,
    resamples: int = 5000,
) -> Interval:
    """Expanded percentile interval of statistic(*samples, axis=−1); samples are [..., seeds].

    Reproducible: the resampling starts from a fixed seed. The smallest sample counts as n.
    """
    result = stats.bootstrap(
        samples,
        statistic,
        paired=shared_seeds,
        vectorized=True,
        axis=-1,
        n_resamples=resamples,
        batch=max(1, 10**7 // sum(s.size for s in samples)),
        method="percentile",
        rng=np.random.default_rng(0),
    )
    draws = np.moveaxis(result.bootstrap_distribution, -1, 0)
    n = min(s.shape[-1] for s in samples)
    return percentile(statistic(*samples, axis=-1), draws, n, level)


def improvement(a: ArrayLike, b: ArrayLike, *, shared_seeds: bool, level: float = 0.95) -> Interval:
    """Probability that arm a beats arm b, P(a > b) + ½ P(a = b), meaned over grid points.

    [seeds] or [points, seeds] each. Unlike the bootstrap's, neither interval shrinks to
    nothing when one arm wins always.

    Shared seeds: the share of seeds that a wins, with the interval of Clopper & Pearson.
    Otherwise: all pairs (Mann–Whitney U / nm; Agarwal et al. 2021, arXiv 2108.13264) with the
    score interval of Newcombe 2006 (Statistics in Medicine 25, method 5), the roots of
    (θ̂ − θ)² = z² V(θ). Both take seeds, not points, as the sample, so that over many points
    they are wide rather than narrow.
    """
    x, y = np.atleast_2d(finite("a", a)), np.atleast_2d(finite("b", b))
    _same_seeds(x, y, shared_seeds)
    n, m = x.shape[-1], y.shape[-1]
    tail = (1 - level) / 2
    if shared_seeds:
        wins = float(np.mean((np.sign(x - y) + 1) / 2, axis=0).sum())
        low = stats.beta.ppf(tail, wins, n - wins + 1) if wins > 0 else 0.0
        high = stats.beta.ppf(1 - tail, wins + 1, n - wins) if wins < n else 1.0
        return Interval(wins / n, float(low), float(high), level, n)
    share = float(np.mean((np.sign(x[:, :, None] - y[:, None, :]) + 1) / 2))
    z = stats.norm.ppf(1 - tail)

    def excess(p: float) -> float:
        spread = (1 - p) / (2 - p) + p / (1 + p)
        variance = p * (1 - p) / (n * m) * (1 + ((n + m) / 2 - 1) * spread)
        return float((share - p) ** 2 - z**2 * variance)

    # A hair off θ̂: where θ̂ is 0 or 1, θ̂ itself is a root that bounds nothing.
    low = optimize.brentq(excess, 0.0, share - 1e-9) if share > 0 else 0.0
    high = optimize.brentq(excess, share + 1e-9, 1.0) if share < 1 else 1.0
    return Interval(share, low, high, level, min(n, m))


def holm(p_values: ArrayLike) -> np.ndarray:
    """[m] p-values → [m] adjusted ones: reject where ≤ α, and P(any false rejection) ≤ α.

    Holm 1979: max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎), whatever the dependence.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p)
    adjusted = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    out = np.empty_like(p)
    out[order] = adjusted
    return out


def _same_seeds(a: np.ndarray, b: np.ndarray, shared: bool) -> None:
    if a.shape[:-1] != b.shape[:-1] or (shared and a.shape != b.shape):
        raise ConfigError(f"arms of shapes {a.shape} and {b.shape} cannot be compared")


def _plain(x: ArrayLike) -> Values:
    y = np.asarray(x, np.float64)
    return float(y) if y.ndim == 0 else y
