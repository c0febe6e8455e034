"""In what the arms of a study differ besides what they name, measured from their runs.

A comparison is of what the arms name only where all else is equal: what people were asked to read,
the optimiser's steps, the samples that the policy was trained on, the KL it spent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rlhf_jax import config as cfg
from rlhf_jax.config import Config
from rlhf_jax.report.records import Record
from rlhf_jax.report.wording import number, setting

if TYPE_CHECKING:
    from rlhf_jax.kernels.method import Method

MARGIN = 0.1
"""Relative difference from the reference arm that is said."""
RULE = (
    "A comparison is of what its arms name only where all else is equal. Reward models are fitted "
    "until answers held back say that it is enough or their steps are over, so that how many they "
    "take follows from what there is to learn. Means over points and seeds that lie more than "
    f"{MARGIN:.0%} from the reference arm's are said here."
)


class Quantity(NamedTuple):
    """Something that arms should have alike, and how a run tells it."""

    name: str
    unit: str
    read: Callable[[Record], np.ndarray]
    """→ [members]; NaN where the run has none of it"""


def _members(record: Record) -> int:
    return len(record.metadata["members"])


def _over_rounds(stage: str, metric: str, *, last: bool) -> Callable[[Record], np.ndarray]:
    """The last row of each round, the last round's or summed over all."""

    def read(record: Record) -> np.ndarray:
        series = record.metrics.get((stage, metric))
        if series is None:
            return np.full(_members(record), np.nan)
        ends = [np.flatnonzero(series.rounds == r)[-1] for r in np.unique(series.rounds)]
        rows = np.broadcast_to(series.values[ends], (len(ends), _members(record)))
        return rows[-1] if last else rows.sum(axis=0)

    return read


def _learner(record: Record) -> Method:
    from rlhf_jax.kernels import learners  # needs JAX, of which what a page imports is free

    return learners.named(record.config["learner"])


def _updates(record: Record) -> np.ndarray:
    """Of the policy's optimiser, as configured."""
    own = _learner(record).section
    at = lambda field: int(record.config.get(f"{own}.{field}", 1))
    made = at("iterations") * at("epochs") * at("minibatches") * int(record.config["rounds"])
    return np.full(_members(record), float(made))


def _sampled(record: Record) -> np.ndarray:
    """Episodes that the policy's learner reads, as configured."""
    learner, settings = _learner(record), record.config
    made = settings[f"{learner.section}.iterations"] * learner.samples(settings)
    return np.full(_members(record), float(made * settings["rounds"]))


def _capped(record: Record) -> np.ndarray:
    """1 where the last round's fit was ended by `reward.steps`, not by the answers held back."""
    made, idle = (
        _over_rounds("reward", f"reward/{name}", last=True)(record)
        for name in ("steps_made", "idle")
    )
    over = (made >= record.config["reward.steps"]) & (idle < record.config["reward.patience"])
    return np.where(np.isnan(made), np.nan, over)


QUANTITIES = (
    Quantity("read by people", "samples", _over_rounds("collect", "collect/cost", last=False)),
    Quantity(
        "steps of the reward's fit",
        "optimiser steps",
        _over_rounds("reward", "reward/steps_made", last=False),
    ),
    Quantity("fits that the cap ended", "share of seeds", _capped),
    Quantity("steps of the policy's fit", "optimiser steps", _updates),
    Quantity("samples the policy learns from", "episodes", _sampled),
    Quantity("KL spent", "nats", _over_rounds("evaluate", "eval/kl_exact", last=True)),
)

Treated = Mapping[str, Mapping[str, np.ndarray]]
"""quantity → arm → [points, seeds]"""


def named(baseline: Config, arm: Config) -> list[str]:
    """The settings that set an arm apart, as `path = value`."""
    mine, theirs = cfg.leaves(arm), cfg.leaves(baseline)
    hidden = ("run.", "name", "seeds", "first_seed")
    apart = [k for k in mine if mine[k] != theirs.get(k) and not k.startswith(hidden)]
    return [f"{k} = {setting(mine[k])}" for k in apart]


def differs(mine: np.ndarray, theirs: np.ndarray) -> bool:
    """Whether the means over points and seeds are more than `MARGIN` apart, relatively; never
    where either was not measured."""
    a, b = (float(np.nanmean(x)) if np.isfinite(x).any() else np.nan for x in (mine, theirs))
    return bool(abs(a - b) > MARGIN * max(abs(a), abs(b)))


def _mean(values: np.ndarray) -> str:
    """Over points and seeds; counts of hundreds and more without decimals."""
    if not np.isfinite(values).any():
        return "–"
    mean = float(np.nanmean(values))
    return number(mean) if abs(mean) < 100 else f"{mean:,.0f}"


def rows(treated: Treated, arms: Mapping[str, Config], baseline: str) -> list[list[str]]:
    """One row an arm: what it names, and each quantity; ≠ where it is not the baseline's."""
    out = []
    for arm, config in arms.items():
        cells = []
        for q in QUANTITIES:
            mine = treated[q.name][arm]
            mark = " ≠" if differs(mine, treated[q.name][baseline]) else ""
            cells.append(f"{_mean(mine)}{mark}")
        out.append([arm, ", ".join(named(arms[baseline], config)) or "–", *cells])
    return out


def sentences(treated: Treated, baseline: str) -> list[str]:
    """What is not alike, a line a quantity."""
    out = []
    for q in QUANTITIES:
        by_arm = treated[q.name]
        apart = [a for a in by_arm if a != baseline and differs(by_arm[a], by_arm[baseline])]
        if apart:
            each = ", ".join(f"{a} {_mean(by_arm[a])}" for a in apart)
            out.append(f"{q.name} ({q.unit}): {baseline} {_mean(by_arm[baseline])}, but {each}.")
    return out
