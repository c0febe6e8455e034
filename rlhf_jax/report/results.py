"""Before and after: the numbers that a run is judged by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from rlhf_jax.report.intervals import NOTHING, Estimate, estimate, paired
from rlhf_jax.report.records import Point, Record
from rlhf_jax.report.wording import rated, valued


class Quantity(NamedTuple):
    """A metric of stage `evaluate` and how people read it."""

    metric: str
    name: str
    unit: str
    share: bool
    """Shown in per cent"""


class Change(NamedTuple):
    """One quantity of the reference policy and of the final one."""

    before: Estimate
    after: Estimate
    change: Estimate
    """paired: each seed against itself"""


class Result(NamedTuple):
    """What one grid point came to."""

    point: Point
    round: int
    """Rounds of PPO behind the numbers called after; 0 where none was evaluated"""
    changes: dict[str, Change]
    """metric → change, for the metrics that the run has"""
    accuracy: Estimate
    """of the last reward model on held-out human answers"""
    ceiling_human: Estimate
    """another person, about the same pairs"""
    ceiling_mean: Estimate
    """the mean of the other people's ratings"""
    shortfall: Estimate
    """ceiling_human − accuracy, paired"""

    def of(self, metric: str) -> Change:
        return self.changes.get(metric, Change(NOTHING, NOTHING, NOTHING))


GOLD, GREEDY, PROXY = "eval/gold_sampled", "eval/gold_greedy", "eval/proxy_sampled"
KL, NONWORDS, DISTINCT = "eval/kl_exact", "eval/nonword_share", "eval/distinct_share"
LENGTH = "eval/length"


def aim(record: Record) -> tuple[str, str]:
    """What a run is judged by, a metric and its name: gold, or the proxy where there is none."""
    return (GOLD, "gold") if valued(record.config) else (PROXY, "proxy")


def quantities(record: Record) -> tuple[Quantity, ...]:
    """Those that the run has, in the order of the table."""
    every = (
        Quantity(GOLD, "Gold, sampled", record.gold_unit, False),
        Quantity(GREEDY, "Gold, greedy", record.gold_unit, False),
        Quantity(PROXY, "Proxy, sampled", "deviations of the reference policy", False),
        Quantity(KL, "KL from the reference", "nats per response", False),
        Quantity(NONWORDS, "Non-words", "share of samples", True),
        Quantity(DISTINCT, "Distinct responses", "share of samples", True),
        Quantity(LENGTH, "Length, sampled", "tokens", False),
    )
    has = lambda q: ("evaluate", q.metric) in record.metrics
    return tuple(q for q in every if has(q) and (q.metric != NONWORDS or rated(record.config)))


def _change(record: Record, metric: str, point: Point, last: int) -> Change:
    series = record.metrics["evaluate", metric]
    before = series.at(0, point)
    after = series.at(last, point) if last else np.zeros(0)
    return Change(estimate(before), estimate(after), paired(before, after))


def last_round(record: Record) -> int:
    """The last round after which the policy was evaluated; 0 where there is none."""
    rounds = [s.rounds.max() for (stage, _), s in record.metrics.items() if stage == "evaluate"]
    return int(max(rounds, default=0))


def measured(record: Record, metric: str, point: Point) -> np.ndarray:
    """[seeds, …]: the metric of stage `measure` in its last round; empty where absent."""
    series = record.metrics.get(("measure", metric))
    return np.zeros(0) if series is None else series.at(int(series.rounds.max()), point)


def results(record: Record) -> tuple[Result, ...]:
    """One for each grid point."""
    last = last_round(record)
    out = []
    for point in record.points:
        metrics = [q.metric for q in quantities(record)]
        changes = {m: _change(record, m, point, last) for m in metrics}
        accuracy = measured(record, "reward/accuracy_heldout", point)
        human = measured(record, "reward/ceiling_human", point)
        mean = measured(record, "reward/ceiling_mean", point)
        out.append(
            Result(
                point,
                last,
                changes,
                estimate(accuracy),
                estimate(human),
                estimate(mean),
                paired(accuracy, human),
            )
        )
    return tuple(out)
