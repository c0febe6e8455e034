"""What a study's numbers say: estimates with intervals, comparisons of arms, verdicts.

Which interval: from eight seeds on, the bootstrap of `ops.intervals` for the interquartile mean
and the mean; below, Student's t of the mean, because resampling so few ends at their extremes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rlhf_jax.config import ConfigError
from rlhf_jax.expectations import Differs, Expectation, Trend, Turns
from rlhf_jax.ops import intervals
from rlhf_jax.ops.intervals import Interval
from rlhf_jax.studies.results import Results
from rlhf_jax.study import Metric, Study
from rlhf_jax.verdict import Measured, Verdict, judge, shuffled

ENOUGH = 8
"""Seeds from which on the bootstrap is used."""
DEALS = 200
"""Shuffles of the negative control."""


def centre(values: np.ndarray) -> Interval:
    """[..., seeds] → the interquartile mean with its bootstrap interval, or the mean with t.

    Where some number is not finite, or there is one seed, there is no interval: NaN.
    """
    return _interval(values, intervals.interquartile_mean)


def mean(values: np.ndarray) -> Interval:
    """[..., seeds] → the mean with its interval."""
    return _interval(values, intervals.mean)


def whole(values: np.ndarray) -> Interval:
    """[points, seeds] → `centre` of all points at once; resampled by whole seeds, which all points
    share."""
    if values.shape[-1] < ENOUGH or not np.isfinite(values).all():
        return centre(values.mean(axis=0))
    return intervals.aggregate(values, shared_seeds=True)


def _interval(values: np.ndarray, statistic: intervals.Statistic) -> Interval:
    n = values.shape[-1]
    if n < 2 or not np.isfinite(values).all():
        value = values.mean(axis=-1)
        nothing = np.full_like(value, np.nan)
        return Interval(value, nothing, nothing, 0.95, n)
    if n < ENOUGH:
        return intervals.student(values)
    return intervals.band(values, statistic)


def method(seeds: int) -> str:
    """The intervals in words."""
    if seeds < 2:
        return "One seed: there are no intervals."
    if seeds < ENOUGH:
        return (
            f"Means over n = {seeds} seeds with 95 % Student t intervals of the mean; with fewer "
            f"than {ENOUGH} seeds nothing is resampled."
        )
    return (
        f"Interquartile means over n = {seeds} seeds with 95 % bootstrap intervals (percentile, "
        "5,000 resamples of whole seeds, level expanded for few seeds; pointwise along the axis)."
    )


def briefly(seeds: int) -> str:
    """The intervals in a figure's note."""
    if seeds < 2:
        return "One seed."
    if seeds < ENOUGH:
        return f"Means over n = {seeds} seeds, 95 % Student t intervals."
    return f"Interquartile means over n = {seeds} seeds, 95 % bootstrap intervals."


class Against(NamedTuple):
    """An arm beside the baseline, over all points of the axis."""

    arm: str
    metric: Metric
    difference: Interval
    better: Interval
    """Probability that the arm beats the baseline, seed by seed."""


def against(results: Results, metric: Metric) -> list[Against]:
    """Every other arm beside the baseline, paired by seed.

    Simultaneous 95 %: each interval at level 1 − 0.05/k for k such comparisons (Bonferroni).
    """
    base = results.study.reference
    others = [a for a in results.arms if a != base]
    if base not in results.arms:
        return []
    sign = 1 if metric.better == "higher" else -1
    y, out = results.of(metric.name, base), []
    for arm in others:
        x = results.of(metric.name, arm)
        if x.shape[-1] < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
            continue
        level = 1 - 0.05 / len(others)
        gap = (x - y).mean(axis=0)
        difference = intervals.student(gap, level)
        if len(gap) >= ENOUGH:
            difference = intervals.band(gap, intervals.mean, level)
        better = intervals.improvement(sign * x, sign * y, shared_seeds=True, level=level)
        out.append(Against(arm, metric, difference, better))
    return out


class Judged(NamedTuple):
    """A study's answer."""

    verdicts: tuple[Verdict, ...]
    unjudged: tuple[Expectation, ...]
    """Their arms or points were not run."""
    control: Control | None


class Control(NamedTuple):
    """The negative control: the same rule on numbers that hold no effect."""

    claims: int
    """Claims of an effect among the verdicts."""
    deals: int
    false: int
    """Deals in which any of them was found supported."""


def judged(study: Study, measured: Mapping[str, Measured], deals: int = DEALS) -> Judged:
    """Verdicts on what could be judged, and the control on the same numbers.

    Raises: `ConfigError` where `judge` does.
    """
    able = tuple(e for e in study.expectations if _can_be(e, measured))
    rest = tuple(e for e in study.expectations if e not in able)
    verdicts = judge(able, measured) if able else ()
    return Judged(verdicts, rest, control(able, measured, np.random.default_rng(0), deals))


def check(study: Study) -> None:
    """Raises `ConfigError` if an expectation speaks of a metric, arm or point that is not there.

    Metrics that `Study.analyse` measures are known only once it has.
    """
    names = {m.name for m in study.metrics}
    mine = [e for e in study.expectations if e.metric in names or study.analyse is None]
    rng = np.random.default_rng(0)
    arms = {arm: rng.normal(size=(len(study.positions), 2)) for arm in study.arms}
    blank = Measured(study.axis_name, study.positions, arms)
    try:
        judge(mine, dict.fromkeys(names, blank)) if mine else ()
    except ConfigError as problem:
        raise ConfigError(f"{study.name}: {problem}") from None


def _can_be(e: Expectation, measured: Mapping[str, Measured]) -> bool:
    """Are its arms and points among those that were run?"""
    if e.metric not in measured:  # of an analysis without the arm that it needs
        return False
    m = measured[e.metric]
    named, least = {e.arm}, {Trend: 2, Turns: 3}.get(type(e), 1)
    at = np.asarray(m.at, np.float64)
    if isinstance(e, Differs):
        named |= {e.baseline} if isinstance(e.baseline, str) else set()
        wanted = [p for p in (e.at, e.baseline_at) if p is not None]
        if not all(np.isclose(at, p).any() for p in wanted):
            return False
    return named <= set(m.arms) and len(at) >= least


def effects(expectations: Sequence[Expectation]) -> tuple[Expectation, ...]:
    """The claims that shuffled numbers must not support.

    "flat" and "same" are true of them, and a fixed number is not shuffled along.
    """
    return tuple(
        e
        for e in expectations
        if getattr(e, "direction", "") not in ("flat", "same")
        and not (isinstance(e, Differs) and not isinstance(e.baseline, str))
    )


def control(
    expectations: Sequence[Expectation],
    measured: Mapping[str, Measured],
    rng: np.random.Generator,
    deals: int = DEALS,
) -> Control | None:
    """Deals each seed's numbers anew over arms and points (`verdict.shuffled`) and judges again.

    At most 2.5 % of the deals should support anything, whatever the number of claims. None
    where no claim is of an effect.
    """
    claims = effects(expectations)
    if not claims:
        return None
    used = {e.metric: measured[e.metric] for e in claims}
    false = 0
    for _ in range(deals):
        false += any(v.outcome == "supported" for v in judge(claims, shuffled(used, rng)))
    return Control(len(claims), deals, false)
