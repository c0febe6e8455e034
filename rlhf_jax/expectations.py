"""What a study expects to find: data, free of numerics, for `configs/studies`.

`rlhf_jax.verdict.judge` turns an expectation and measured numbers into a verdict.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rlhf_jax.config import ConfigError

PRIMARY = 3
"""Primary claims of a study at most."""


@dataclass(frozen=True, kw_only=True)
class _Claim:
    """What every expectation says of itself."""

    stated: Literal["before", "after"]
    """Before its data were seen, or after: when some of them were, or while they were being
    made. A claim made of the numbers that judge it is only confirmed by other seeds."""
    primary: bool = False
    """One of the few that the study is about: those are adjusted together. Any other is
    exploratory, and its p and interval are as if it had been asked alone."""
    source: str = ""
    """Where the expectation comes from."""


@dataclass(frozen=True)
class Trend(_Claim):
    """The least-squares line through a seed's points rises or falls by more than `by`.

    "flat": it changes by less than `by` either way.
    """

    metric: str
    arm: str
    direction: Literal["increases", "decreases", "flat"]
    by: float
    """The smallest change that matters, > 0: in units of the metric, from the first to the last
    point. Without one, enough seeds make a trend of anything."""
    scale: Literal["linear", "log"] = "linear"
    """Of the axis."""

    def __post_init__(self) -> None:
        _check_by(self.by, True)


@dataclass(frozen=True)
class Differs(_Claim):
    """An arm lies above or below a baseline by more than `by`; "same": within `by` of it."""

    metric: str
    arm: str
    baseline: str | float
    """Another arm, the same arm at another point, or a number."""
    direction: Literal["higher", "lower", "same"]
    by: float = 0.0
    at: float | None = None
    """Point of the axis; None takes each seed's mean over it."""
    baseline_at: float | None = None
    """Point of the axis for the baseline; None takes `at`."""

    def __post_init__(self) -> None:
        _check_by(self.by, self.direction == "same")


@dataclass(frozen=True)
class Turns(_Claim):
    """Some point inside the axis lies beyond both of its ends by more than `by`."""

    metric: str
    arm: str
    direction: Literal["peaks", "dips"]
    by: float = 0.0

    def __post_init__(self) -> None:
        _check_by(self.by, False)


Expectation: TypeAlias = Trend | Differs | Turns


def claim(e: Expectation, axis: str) -> str:
    """The expectation in words."""
    margin = f" by more than {e.by:g}" if e.by else ""
    if isinstance(e, Trend):
        if e.direction == "flat":
            return f"{e.metric} of {e.arm} changes with {axis} by less than {e.by:g}"
        return f"{e.metric} of {e.arm} {e.direction} with {axis}{margin}"
    if isinstance(e, Turns):
        return f"{e.metric} of {e.arm} {e.direction} inside {axis}{margin}"
    there = f" at {axis} = {e.at:g}" if e.at is not None else ""
    other = f"{e.baseline:g}" if isinstance(e.baseline, float | int) else f"that of {e.baseline}"
    if e.baseline_at is not None:
        other += f" at {e.baseline_at:g}"
    if e.direction == "same":
        return f"{e.metric} of {e.arm}{there} is within {e.by:g} of {other}"
    return f"{e.metric} of {e.arm}{there} is {e.direction} than {other}{margin}"


def _check_by(by: float, within: bool) -> None:
    if not (by > 0 if within else by >= 0) or not math.isfinite(by):
        raise ConfigError(f"by = {by:g}: must be a finite number {'> 0' if within else '≥ 0'}")
