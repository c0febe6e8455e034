"""Signs that training itself went wrong, a rule each; shown on the page and by the terminal.

The rules are silent about what a run does not measure.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rlhf_jax.report.records import Point, Record
from rlhf_jax.report.results import Result
from rlhf_jax.report.wording import number, plural

VALUE_LOSS = 10.0
"""Times its own least that a value loss may end at."""
FIRST_KL = 0.3
"""Nats for a whole response that a first iteration may move the policy."""
FIRST_APPROXIMATE_KL = 0.1
"""Nats a token; PPO is commonly stopped at 0.01 to 0.05."""
RATIO = 0.01
"""What rounding may make of a ratio of 1."""


def _series(record: Record, stage: str, metric: str, point: Point) -> np.ndarray:
    """[N, seeds] of the first round; [0, 0] where the run has none."""
    series = record.metrics.get((stage, metric))
    if series is None or series.values.ndim != 2:
        return np.zeros((0, 0))
    return series.of(point)[series.rounds == series.rounds.min()]


def _seeds(which: np.ndarray) -> str:
    return f"in {int(which.sum())} of {plural(which.size, 'seed')}"


def value_loss_exploded(record: Record, result: Result) -> str | None:
    """The last tenth of a round lies over 10 times the least tenth, and over a deviation²."""
    loss = _series(record, "policy", "loss/value_avg", result.point)
    if len(loss) < 10:
        return None
    tenths = np.stack([part.mean(axis=0) for part in np.array_split(loss, 10)])
    last, least = tenths[-1], tenths.min(axis=0)
    blown = (last > VALUE_LOSS * least) & (last > 1.0)
    if not blown.any():
        return None
    return (
        f"The value loss exploded {_seeds(blown)}: from {number(least[blown].mean())} to "
        f"{number(last[blown].mean())} deviations² at the end of the first round."
    )


def first_step_jumped(record: Record, result: Result) -> str | None:
    """KL from the reference after one iteration over 0.3 nats in half of the seeds, or
    approximate KL within the first iteration over 0.1 nats a token."""
    kl = _series(record, "policy", "objective/kl_exact", result.point)
    said = []
    if len(kl) > 1 and np.mean(kl[1] > FIRST_KL) >= 0.5:
        said.append(f"the first iteration moved it {number(np.nanmean(kl[1]))} nats")
    near = _series(record, "policy", "policy/approxkl_avg", result.point)
    if len(near) and np.mean(near[0] > FIRST_APPROXIMATE_KL) >= 0.5:
        said.append(f"its approximate KL was {number(np.nanmean(near[0]))} nats a token")
    if not said:
        return None
    return f"The policy jumped: {' and '.join(said)}. A smaller learning rate or a warm-up helps."


def first_ratio(record: Record, result: Result) -> str | None:
    """The ratio of the first minibatch, before any update, is not 1."""
    ratio = _series(record, "policy", "val/ratio_first", result.point)
    off = np.abs(ratio - 1.0)
    if not (off > RATIO).any():
        return None
    return (
        f"The first ratio of an iteration is off 1 by up to {number(float(np.nanmax(off)))}: the "
        "policy that learns is not the one that acted."
    )


def nothing_answered(record: Record, result: Result) -> str | None:
    """Every answer of the first round says equal, or nobody answered."""
    said = []
    for metric, nothing, words in (
        ("collect/tie_share", 1.0, "every answer calls both equal"),
        ("collect/answered_share", 0.0, "no answer counts"),
    ):
        share = _series(record, "collect", metric, result.point)
        if len(share) and (share[0] == nothing).any():
            said.append(f"{words} {_seeds(share[0] == nothing)}")
    if not said:
        return None
    return f"The feedback says nothing: {'; '.join(said)}. No reward can be learned from it."


ALARMS: tuple[Callable[[Record, Result], str | None], ...] = (
    value_loss_exploded,
    first_step_jumped,
    first_ratio,
    nothing_answered,
)
