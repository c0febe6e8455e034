"""The rule that turns what a study expects and what it measured into verdicts.

Every expectation is reduced to one number a seed (a rise, a difference), and a verdict is about
the seed that is drawn next: seeds are the sample, and arms and grid points that share them stay
paired. With Δ the true value, `by` the smallest effect that would matter and
a = (1 − level)/2 = 2.5 %,

  supported       the data would be this favourable with probability ≤ a if Δ ≤ by,
  not supported   the data would be this unfavourable with probability ≤ a if Δ > by,
  inconclusive    neither: more seeds could tell, and the verdict says how many.

Two tests must agree: Student's t of the mean and the sign test of the typical seed
(`ops.evidence.p_values`). A claim called supported by mistake is one that holds in no more than
half of all seeds: that has probability ≤ a for any distribution, arms of different skew
included. About the mean alone no test can promise as much. Where one arm is skewed, t by itself
supports a false claim about the typical seed in 11 to 95 % of studies of 16 and 64 seeds, and one
about the mean in up to 27 % (`scripts/false_claims.py`, which also prints what agreement costs:
where t would find a normal effect in 74 % of studies of 16 seeds, both do in 42 %).

The few primary claims of a study are judged together and both their probabilities are
Holm-adjusted: the chance that a study calls any false one supported is at most a. All others are
exploratory, each as if it had been asked alone. With by = 0, no effect at all ends as
inconclusive as a rule; say how much matters and it can end as not supported.

Seeds that failed or have no number count against either verdict, so that none depends on what
they would have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from rlhf_jax.config import ConfigError
from rlhf_jax.expectations import Differs, Expectation, Trend, Turns, claim
from rlhf_jax.ops import evidence
from rlhf_jax.ops.intervals import Interval, holm, student

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
    """Of data this favourable were the claim false; of a primary claim Holm-adjusted."""
    seeds: int | None = None
    """Of an inconclusive claim: how many would settle it; None where no number would."""


class _Evidence(NamedTuple):
    result: str
    interval: Interval | None
    p_for: float
    p_against: float
    gap: float = 0.0
    """Δ − by, towards the claim."""
    deviation: float = 0.0
    """Of one seed's Δ."""
    failed: int = 0
    """Seeds without a number."""
    tries: tuple[int, int] = (1, 1)
    """Tests of which the best is taken, for and against: each is asked for so much more."""


def judge(
    expectations: Sequence[Expectation], measured: Mapping[str, Measured], level: float = 0.95
) -> tuple[Verdict, ...]:
    """Verdicts on all claims of one study, `measured` by metric.

    Fewer than two seeds with a number end as inconclusive and say so.

    Raises: `ConfigError` if a metric, arm or point does not exist.
    """
    found = [_weigh(e, _metric(measured, e), level) for e in expectations]
    p = np.array([(f.p_for, f.p_against) for f in found]).reshape(-1, 2)
    first = np.array([e.primary for e in expectations], bool)
    p[first] = np.stack([holm(side) for side in p[first].T], axis=-1)
    error, family = (1 - level) / 2, int(first.sum())
    return tuple(
        _verdict(e, f, measured[e.metric].axis, (float(mine[0]), float(mine[1])), error, family)
        for e, f, mine in zip(expectations, found, p, strict=True)
    )


def _verdict(
    e: Expectation, f: _Evidence, axis: str, p: tuple[float, float], error: float, family: int
) -> Verdict:
    outcome: Outcome = "inconclusive"
    if p[0] <= error:
        outcome = "supported"
    elif p[1] <= error:
        outcome = "not supported"
    text = f"{outcome}: {claim(e, axis)}; {f.result}"
    if f.interval is None:
        return Verdict(e, outcome, text, None, p[0])
    adjusted = f" (Holm over {family})" if e.primary and family > 1 else ""
    text += f", p = {p[0]:.2g}{adjusted}"
    if outcome != "inconclusive":
        return Verdict(e, outcome, text, f.interval, p[0])
    tries = f.tries[0] if f.gap > 0 else f.tries[1]
    asked = error / (family if e.primary else 1) / tries
    seeds = evidence.to_settle(f.gap, f.deviation, asked)
    return Verdict(
        e, outcome, f"{text}; {_open(seeds, f.interval.n, f.failed)}", f.interval, p[0], seeds
    )


def _open(seeds: int | None, n: int, failed: int) -> str:
    """What it would take, in words."""
    if failed and seeds is not None:
        return f"about {seeds:,} seeds would settle it if none of them failed"
    if seeds is None:
        return f"what is measured is too near the margin for {evidence.MOST:,} seeds to settle it"
    if seeds <= n:
        return f"{seeds} seeds would settle it in three of four studies, this is not one of them"
    return f"about {seeds:,} seeds would settle it"


def seeds_needed(claims: int, level: float = 0.95) -> int:
    """The least n with which so many claims, adjusted together, could all be settled."""
    return evidence.fewest((1 - level) / 2 / claims)


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
    rise = _exact(dx @ y / (dx @ dx) * np.ptp(x), y, e.by)
    sign = {"increases": 1, "decreases": -1, "flat": 0}[e.direction]
    return _weigh_numbers(e, rise, sign, level, "change over the axis")


def _weigh_gap(e: Differs, m: Measured, level: float) -> _Evidence:
    mine = _cell(m, e.metric, e.arm, e.at)
    if isinstance(e.baseline, str):
        there = e.at if e.baseline_at is None else e.baseline_at
        other = _cell(m, e.metric, e.baseline, there)
    else:
        other = np.full_like(mine, e.baseline)
    if mine.shape != other.shape:
        raise ConfigError(f"{e.arm} and {e.baseline} have different numbers of seeds")
    gap = _exact(mine - other, np.stack([mine, other]), e.by)
    sign = {"higher": 1, "lower": -1, "same": 0}[e.direction]
    return _weigh_numbers(e, gap, sign, level, "difference")


def _weigh_turn(e: Turns, m: Measured, level: float) -> _Evidence:
    x, y = np.asarray(m.at, np.float64), _arm(m, e.metric, e.arm)
    order, sign = np.argsort(x), 1 if e.direction == "peaks" else -1
    x, y = x[order], sign * y[order]
    inner = len(x) - 2
    if inner < 1:
        raise ConfigError(f"{m.axis}: a turn needs at least three points")
    above, failed = _present(e, _exact(y[1:-1, None] - y[[0, -1]][None], y, e.by))
    p_for, p_against = evidence.p_values(above, e.by, failed)
    # A turn at k needs both ends (the larger p); some k of many will do (Bonferroni).
    both = p_for.max(axis=1)
    k = int(np.argmin(both))
    over = student(above[k], 1 - (1 - level) / inner)
    low, value, high = (float(np.min(v)) for v in (over.low, over.value, over.high))
    interval = Interval(value, low, high, level, over.n)
    # No turn anywhere: at every k one end or the other is too near, whichever it is.
    against = 2 * p_against.min(axis=1).max()
    nearer = above[k].min(axis=0)
    held = _held(nearer > e.by, nearer, failed)
    text = f"at {m.axis} = {x[k + 1]:g} beyond the nearer end by {_describe(interval)}, {held}"
    end = above[k][np.argmin(above[k].mean(axis=-1))]
    return _Evidence(
        text,
        interval,
        min(1.0, inner * both[k]),
        min(1.0, float(against)),
        value - e.by,
        float(end.std(ddof=1)),
        failed,
        (inner, 2),
    )


def _weigh_numbers(
    e: Trend | Differs, every: np.ndarray, sign: int, level: float, what: str
) -> _Evidence:
    """Evidence for sign · Δ > by, or for |Δ| < by where sign is 0 (two one-sided tests)."""
    each, failed = _present(e, every)
    interval = student(each, level)
    if sign:
        p_for, p_against = evidence.p_values(sign * each, e.by, failed)
        holds, gap = sign * each > e.by, sign * each.mean() - e.by
    else:
        either = np.stack([each, -each])
        p_for = evidence.p_values(either, -e.by, failed)[0].max()
        p_against = 2 * evidence.p_values(either, e.by, failed)[0].min()
        holds, gap = np.abs(each) < e.by, e.by - abs(each.mean())
    text = f"{what} {_describe(interval)}, {_held(holds, each, failed)}"
    against = min(1.0, float(p_against))
    spread, tries = float(each.std(ddof=1)), (1, 1 if sign else 2)
    return _Evidence(text, interval, float(p_for), against, float(gap), spread, failed, tries)


def _describe(i: Interval) -> str:
    return f"{i.value:+.3g} [{i.low:.3g}, {i.high:.3g}] (mean, {100 * i.level:g} % t interval)"


def _held(holds: np.ndarray, each: np.ndarray, failed: int) -> str:
    """In how many seeds the claim holds, and what a mean does not tell of them."""
    said = f"it holds in {int(holds.sum())} of {len(each) + failed} seeds"
    if failed:
        said += f" ({failed} without a number count against either verdict)"
    groups = evidence.in_groups(each)
    if groups:
        said += f"; seeds fall into two groups, {groups}, which a mean does not describe"
    return said


def _present(e: Expectation, each: np.ndarray) -> tuple[np.ndarray, int]:
    """[..., seeds] → the seeds whose numbers are all there, and how many are not."""
    there = np.isfinite(each).reshape(-1, each.shape[-1]).all(axis=0)
    left = int(there.sum())
    if left < 2:
        raise _NoNumbers(f"{e.metric} of {e.arm}: {left} of {len(there)} seeds have a number")
    return each[..., there], len(there) - left


class _NoNumbers(Exception):
    """There is nothing to judge by, and the message says why."""


def _exact(each: np.ndarray, values: np.ndarray, by: float) -> np.ndarray:
    """What lies within float32's rounding of 0 or of the margin is there: it is not beyond it."""
    known = np.abs(values[np.isfinite(values)])
    near = 1e-6 * known.max(initial=0.0)
    for exact in (by, -by, 0.0):
        each = np.where(np.abs(each - exact) <= near, exact, each)
    return each


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
    return np.where(np.isfinite(y), y, np.nan)


def _cell(m: Measured, metric: str, arm: str, at: float | None) -> np.ndarray:
    y = _arm(m, metric, arm)
    if at is None:
        return y.mean(axis=0)
    points = np.asarray(m.at, np.float64)
    hit = np.flatnonzero(np.isclose(points, at))
    if len(hit) != 1:
        raise ConfigError(f"{metric}: {m.axis} has no single point {at:g} among {points.tolist()}")
    return y[hit[0]]
