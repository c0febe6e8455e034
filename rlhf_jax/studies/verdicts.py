"""What a study's numbers say: estimates with intervals, comparisons of arms, verdicts.

Which interval: from eight seeds on, the bootstrap of `ops.intervals` for the interquartile mean
and the mean; below, Student's t of the mean, because resampling so few ends at their extremes.
Seeds without a number are left out of estimates, which say so; verdicts count them.
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


def centre(values: np.ndarray, metric: Metric) -> Interval:
    """[..., seeds] → the interquartile mean with its bootstrap interval, or the mean with t.

    Of the seeds that have a number; where there is one, there is no interval, and where there is
    none, no value: NaN. Cut at the metric's bounds.
    """
    return _interval(values, intervals.interquartile_mean, metric.bounds)


def mean(values: np.ndarray, metric: Metric) -> Interval:
    """[..., seeds] → the mean with its interval, as `centre`."""
    return _interval(values, intervals.mean, metric.bounds)


def whole(values: np.ndarray, metric: Metric) -> Interval:
    """[points, seeds] → `centre` of all points at once; resampled by whole seeds, which all points
    share. A seed counts that has a number at every point."""
    values = values[:, np.isfinite(values).all(axis=0)]
    if values.shape[-1] < ENOUGH:
        return centre(values.mean(axis=0), metric)
    return intervals.aggregate(values, shared_seeds=True)


def _interval(
    values: np.ndarray, statistic: intervals.Statistic, bounds: tuple[float, float]
) -> Interval:
    if not np.isfinite(values).all():
        if values.ndim > 1:
            rows = [_interval(v, statistic, bounds) for v in values]
            value, low, high = (np.stack([r[i] for r in rows]) for i in range(3))
            return Interval(value, low, high, 0.95, min(r.n for r in rows))
        values = values[np.isfinite(values)]
    n = values.shape[-1]
    if n < 2:
        nothing = np.full(values.shape[:-1], np.nan)
        return Interval(values.mean(axis=-1) if n else nothing, nothing, nothing, 0.95, n)
    i = intervals.student(values) if n < ENOUGH else intervals.band(values, statistic)
    return i._replace(low=np.maximum(i.low, bounds[0]), high=np.minimum(i.high, bounds[1]))


def method(seeds: int) -> str:
    """The intervals in words."""
    if seeds < 2:
        return "One seed: there are no intervals."
    if seeds < ENOUGH:
        return (
            f"Means over n = {seeds} seeds with 95 % Student t intervals of the mean; with fewer "
            f"than {ENOUGH} seeds nothing is resampled, and whether they fall into groups, which "
            "no mean describes, cannot be seen. Intervals of shares are cut at 0 and 1."
        )
    return (
        f"Interquartile means over n = {seeds} seeds with 95 % bootstrap intervals (percentile, "
        "5,000 resamples of whole seeds, level expanded for few seeds; pointwise along the axis). "
        "They leave out the highest and the lowest quarter of the seeds: how many lie far out is "
        "in the tables."
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
    everywhere, out = results.of(metric.name, base), []
    for arm in others:
        x = results.of(metric.name, arm)
        there = np.isfinite(x).all(axis=0) & np.isfinite(everywhere).all(axis=0)
        if there.sum() < 2:
            continue
        x, y = x[:, there], everywhere[:, there]
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
    positive: Verdict | None
    """The positive control; None where its arms or points were not run."""
    negative: Negative | None


class Negative(NamedTuple):
    """The negative control: the same rule on numbers that hold no effect."""

    deals: int
    primary: int
    """Primary claims of an effect among the verdicts."""
    false: int
    """Deals in which any of them was found supported."""
    exploratory: int
    """Exploratory claims of an effect."""
    false_each: int
    """How often one of them was, of deals × exploratory."""


def judged(study: Study, measured: Mapping[str, Measured], deals: int = DEALS) -> Judged:
    """Verdicts on what could be judged, and the control on the same numbers.

    Raises: `ConfigError` where `judge` does.
    """
    able = tuple(e for e in study.expectations if _can_be(e, measured))
    rest = tuple(e for e in study.expectations if e not in able)
    positive = None
    if study.control is not None and _can_be(study.control, measured):
        (positive,) = judge((study.control,), measured)
    negative = control(able, measured, np.random.default_rng(0), deals)
    return Judged(judge(able, measured), rest, positive, negative)


def check(study: Study) -> None:
    """Raises `ConfigError` if an expectation speaks of a metric, arm or point that is not there.

    Metrics that `Study.analyse` measures are known only once it has.
    """
    names = {m.name for m in study.metrics}
    every = study.expectations + ((study.control,) if study.control else ())
    mine = [e for e in every if e.metric in names or study.analyse is None]
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
) -> Negative | None:
    """Deals each seed's numbers anew over arms and points (`verdict.shuffled`) and judges again.

    At most 2.5 % of the deals should support any primary claim, and each exploratory one. None
    where no claim is of an effect.
    """
    claims = effects(expectations)
    if not claims:
        return None
    used = {e.metric: measured[e.metric] for e in claims}
    primary = sum(e.primary for e in claims)
    false = each = 0
    for _ in range(deals):
        wrong = [v for v in judge(claims, shuffled(used, rng)) if v.outcome == "supported"]
        false += any(v.expectation.primary for v in wrong)
        each += sum(not v.expectation.primary for v in wrong)
    return Negative(deals, primary, false, len(claims) - primary, each)
