"""The rule that turns what a study expects and what it measured into verdicts.

Every expectation is reduced to one number a seed (a rise, a difference), and the verdict is
Student's t on those n numbers: seeds are the sample, and arms and grid points that share them
stay paired. With Δ the true value, `by` the smallest effect that would matter and
a = (1 − level)/2 = 2.5 %,

  supported       the data would be this favourable with probability ≤ a if Δ ≤ by,
  not supported   the data would be this unfavourable with probability ≤ a if Δ > by,
  inconclusive    neither: the interval holds `by`, more seeds could tell.

All claims of a study are judged together and both probabilities are Holm-adjusted: the chance
that a study calls any false claim supported is at most a. With by = 0, no effect at all ends
as inconclusive as a rule; say how much matters and it can end as not supported.

Measured on shuffled labels with 16 seeds and six false claims of an effect, any is supported in
1.4 % (normal), 1.6 % (heavy tails, log-normal) and 2.0 % (counts) of 3,000 studies. Trends and
differences of arms are symmetric there; skewed numbers against a fixed number are not, and err
more: log-normal ones are found "lower" than their own mean in 14 % of studies of 16 seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from rlhf_jax.config import ConfigError
from rlhf_jax.expectations import Differs, Expectation, Trend, Turns, claim
from rlhf_jax.ops.intervals import Interval, finite, holm, student

Outcome: TypeAlias = Literal["supported", "not supported", "inconclusive"]


class Measured(NamedTuple):
    """One metric over its axis. Column s is seed s in every arm."""

    axis: str
    at: ArrayLike
    """[points]"""
    arms: Mapping[str, ArrayLike]
    """[points, seeds] each"""


@dataclass(frozen=True)
class Verdict:
    """An expectation, judged."""

    expectation: Expectation
    outcome: Outcome
    sentence: str
    interval: Interval | None
    """Of the change, difference or height; None where there are no numbers to judge by."""
    p: float
    """Of data this favourable were the claim false; Holm-adjusted."""


class _Evidence(NamedTuple):
    result: str
    interval: Interval | None
    p_for: float
    p_against: float


def judge(
    expectations: Sequence[Expectation], measured: Mapping[str, Measured], level: float = 0.95
) -> tuple[Verdict, ...]:
    """Verdicts on all claims of one study, `measured` by metric.

    Numbers that are not finite, or a single seed, end as inconclusive and say so.

    Raises: `ConfigError` if a metric, arm or point does not exist.
    """
    evidence = [_weigh(e, _metric(measured, e), level) for e in expectations]
    p_for = holm([e.p_for for e in evidence])
    p_against = holm([e.p_against for e in evidence])
    error, out = (1 - level) / 2, []
    for e, found, p, q in zip(expectations, evidence, p_for, p_against, strict=True):
        outcome: Outcome = "inconclusive"
        if p <= error:
            outcome = "supported"
        elif q <= error:
            outcome = "not supported"
        text = f"{outcome}: {claim(e, measured[e.metric].axis)}; {found.result}"
        if found.interval is not None:
            text += f", p = {p:.2g}" + f" (Holm over {len(evidence)})" * (len(evidence) > 1)
        out.append(Verdict(e, outcome, text, found.interval, float(p)))
    return tuple(out)


def seeds_needed(claims: int, level: float = 0.95) -> int:
    """The least n with which so many claims could be settled at all: claims · 2⁻ⁿ ≤ (1 − level)/2.

    No p is below 2⁻ⁿ, and Holm's least is multiplied by their number.
    """
    return math.ceil(math.log2(2 * claims / (1 - level)))


def shuffled(measured: Mapping[str, Measured], rng: np.random.Generator) -> dict[str, Measured]:
    """Negative control: each seed's numbers dealt anew over the arms and points of a metric.

    What is left is exchangeable: no trend, no turn, and no difference between arms.
    """
    out = {}
    for metric, m in measured.items():
        cells = np.stack([np.asarray(v, np.float64) for v in m.arms.values()])
        dealt = rng.permuted(cells.reshape(-1, cells.shape[-1]), axis=0).reshape(cells.shape)
        out[metric] = m._replace(arms=dict(zip(m.arms, dealt, strict=True)))
    return out


def _weigh(e: Expectation, m: Measured, level: float) -> _Evidence:
    try:
        if isinstance(e, Trend):
            return _weigh_trend(e, m, level)
        return _weigh_turn(e, m, level) if isinstance(e, Turns) else _weigh_gap(e, m, level)
    except _NoNumbers as problem:
        return _Evidence(str(problem), None, 1.0, 1.0)


def _weigh_trend(e: Trend, m: Measured, level: float) -> _Evidence:
    x, y = np.asarray(m.at, np.float64), _arm(m, e.metric, e.arm)
    if e.scale == "log":
        if (x <= 0).any():
            raise ConfigError(f"{m.axis} = {x.min():g} has no logarithm: use a linear scale")
        x = np.log(x)
    if np.ptp(x) == 0:
        raise ConfigError(f"{m.axis}: a trend needs at least two different points")
    dx = x - x.mean()
    rise = dx @ y / (dx @ dx) * np.ptp(x)
    sign = {"increases": 1, "decreases": -1, "flat": 0}[e.direction]
    return _weigh_numbers(_without_rounding(rise, y), sign, e.by, level, "change over the axis")


def _weigh_gap(e: Differs, m: Measured, level: float) -> _Evidence:
    mine = _cell(m, e.metric, e.arm, e.at)
    if isinstance(e.baseline, str):
        there = e.at if e.baseline_at is None else e.baseline_at
        other = _cell(m, e.metric, e.baseline, there)
    else:
        other = np.full_like(mine, e.baseline)
    if mine.shape != other.shape:
        raise ConfigError(f"{e.arm} and {e.baseline} have different numbers of seeds")
    gap = _without_rounding(mine - other, np.stack([mine, other]))
    sign = {"higher": 1, "lower": -1, "same": 0}[e.direction]
    return _weigh_numbers(gap, sign, e.by, level, "difference")


def _weigh_turn(e: Turns, m: Measured, level: float) -> _Evidence:
    x, y = np.asarray(m.at, np.float64), _arm(m, e.metric, e.arm)
    order, sign = np.argsort(x), 1 if e.direction == "peaks" else -1
    x, y = x[order], sign * y[order]
    inner = len(x) - 2
    if inner < 1:
        raise ConfigError(f"{m.axis}: a turn needs at least three points")
    ends = y[[0, -1]]
    above = _without_rounding(y[1:-1, None] - ends[None], y)
    p_for, p_against = _p_values(above, e.by)
    # A turn at k needs both ends (the larger p); some k of many will do (Bonferroni).
    both = p_for.max(axis=1)
    k = int(np.argmin(both))
    over = student(above[k], 1 - (1 - level) / inner)
    low, value, high = (float(np.min(v)) for v in (over.low, over.value, over.high))
    interval = Interval(value, low, high, level, over.n)
    # No turn anywhere: at every k one end or the other is too near, whichever it is.
    against = 2 * p_against.min(axis=1).max()
    text = f"at {m.axis} = {x[k + 1]:g} beyond the nearer end by {_describe(interval)}"
    return _Evidence(text, interval, min(1.0, inner * both[k]), min(1.0, float(against)))


def _weigh_numbers(each: np.ndarray, sign: int, by: float, level: float, what: str) -> _Evidence:
    """Evidence for sign · Δ > by, or for |Δ| < by where sign is 0 (two one-sided tests)."""
    interval = student(each, level)
    if sign:
        p_for, p_against = _p_values(sign * each, by)
    else:
        either = np.stack([each, -each])
        p_for = _p_values(either, -by)[0].max()
        p_against = 2 * _p_values(either, by)[0].min()
    text = f"{what} {_describe(interval)}"
    return _Evidence(text, interval, float(p_for), min(1.0, float(p_against)))


def _p_values(each: np.ndarray, by: float) -> tuple[np.ndarray, np.ndarray]:
    """[..., seeds] → p of "Δ ≤ by" and of "Δ > by".

    No p is below the sign test's 2⁻ⁿ, which stands in where seeds that all agree have no spread
    to judge by: few seeds that happen to lie close together are not evidence.
    """
    n, gap = each.shape[-1], each.mean(axis=-1) - by
    error = each.std(axis=-1, ddof=1) / np.sqrt(n)
    flat = np.ptp(each, axis=-1) == 0
    t = gap / np.where(flat, 1.0, error)
    sure = np.where(each[..., 0] > by, 2.0**-n, 1.0), np.where(each[..., 0] > by, 1.0, 2.0**-n)
    p = (np.maximum(special.stdtr(n - 1, side), 2.0**-n) for side in (-t, t))
    return tuple(np.where(flat, a, b) for a, b in zip(sure, p, strict=True))  # type: ignore


def _describe(i: Interval) -> str:
    return f"{i.value:+.3g} [{i.low:.3g}, {i.high:.3g}] ({100 * i.level:g} % t interval, n = {i.n})"


class _NoNumbers(Exception):
    """There is nothing to judge by, and the message says why."""


def _without_rounding(each: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Numbers below float32's rounding of what they were made from count as 0."""
    return np.where(np.abs(each) <= 1e-6 * np.abs(values).max(), 0.0, each)


def _metric(measured: Mapping[str, Measured], e: Expectation) -> Measured:
    if e.metric not in measured:
        raise ConfigError(f"no metric {e.metric!r}: there are {', '.join(measured)}")
    return measured[e.metric]


def _arm(m: Measured, metric: str, arm: str) -> np.ndarray:
    if arm not in m.arms:
        raise ConfigError(f"{metric}: no arm {arm!r}: there are {', '.join(m.arms)}")
    y = np.asarray(m.arms[arm], np.float64)
    if y.ndim != 2 or len(y) != np.size(m.at):
        raise ConfigError(f"{metric} of {arm}: shape {y.shape} for {np.size(m.at)} points")
    try:
        return finite(f"{metric} of {arm}", y)
    except ConfigError as problem:
        raise _NoNumbers(str(problem)) from None


def _cell(m: Measured, metric: str, arm: str, at: float | None) -> np.ndarray:
    y = _arm(m, metric, arm)
    if at is None:
        return y.mean(axis=0)
    points = np.asarray(m.at, np.float64)
    hit = np.flatnonzero(np.isclose(points, at))
    if len(hit) != 1:
        raise ConfigError(f"{metric}: {m.axis} has no single point {at:g} among {points.tolist()}")
    return y[hit[0]]
