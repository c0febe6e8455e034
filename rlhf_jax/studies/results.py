"""The files of a study's runs as arrays [points, seeds, …]: what everything after may know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.config import ConfigError
from rlhf_jax.report import records
from rlhf_jax.report.drawing import Panel
from rlhf_jax.report.records import Record
from rlhf_jax.studies import plan
from rlhf_jax.studies.plan import Chunk
from rlhf_jax.studies.treatment import QUANTITIES
from rlhf_jax.study import Metric, Study
from rlhf_jax.verdict import Measured


class Table(NamedTuple):
    """Text in rows; the first cell of each is its heading."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


class Analysis(NamedTuple):
    """What a study adds to its page beyond its metrics."""

    panels: Sequence[Panel] = ()
    tables: Sequence[Table] = ()
    measured: Mapping[str, Measured] = {}
    """Further numbers by seed, of which expectations may speak."""
    notes: Sequence[str] = ()


class Results(NamedTuple):
    """A study's numbers. Column s is seed s in every arm."""

    study: Study
    arms: tuple[str, ...]
    """Those of whose runs nothing is left to be made."""
    values: Mapping[str, Mapping[str, np.ndarray]]
    """metric → arm → [points, seeds, …] float64; NaN where a seed has no number"""
    failed: Mapping[str, np.ndarray]
    """arm → [points, seeds]: did the seed diverge, so that it has no numbers from there on?"""
    treated: Mapping[str, Mapping[str, np.ndarray]]
    """`treatment.QUANTITIES` by name → arm → [points, seeds]"""
    versions: Mapping[str, str]
    revision: str
    devices: str
    """Of all runs: where they differ, each that there was."""

    @property
    def at(self) -> np.ndarray:
        """[points]"""
        return np.asarray(self.study.positions, np.float64)

    def of(self, metric: str, arm: str) -> np.ndarray:
        """[points, seeds, …]. Raises `ConfigError` if there is no such metric or arm."""
        if metric not in self.values:
            raise ConfigError(f"no metric {metric!r}: there are {', '.join(self.values)}")
        if arm not in self.values[metric]:
            raise ConfigError(f"no finished arm {arm!r}: there are {', '.join(self.arms)}")
        return self.values[metric][arm]

    @property
    def scalars(self) -> tuple[Metric, ...]:
        """The metrics that are one number a member."""
        one = self.arms[0]
        return tuple(m for m in self.study.metrics if self.values[m.name][one].ndim == 2)

    def measured(self) -> dict[str, Measured]:
        """All metrics of one number a member, for verdicts."""
        return {
            m.name: Measured(self.study.axis_name, self.at, self.values[m.name])
            for m in self.scalars
        }


def read(study: Study, root: Path) -> Results:
    """The finished arms of a study, from the files of their runs.

    Raises: `ConfigError` if no arm is finished, a metric is absent, or its shape differs
      between points.
    """
    by_arm: dict[str, list[Chunk]] = {}
    for chunk in plan.chunks(study, root):
        by_arm.setdefault(chunk.arm, []).append(chunk)
    done = {a: c for a, c in by_arm.items() if all(plan.over(x.config, x.own) for x in c)}
    if not done:
        raise ConfigError(f"{study.name}: no arm of it is finished under {root / study.name}")
    values: dict[str, dict[str, np.ndarray]] = {m.name: {} for m in study.metrics}
    failed: dict[str, np.ndarray] = {}
    treated: dict[str, dict[str, np.ndarray]] = {q.name: {} for q in QUANTITIES}
    metadata: list[Mapping[str, Any]] = []
    for arm, mine in done.items():
        read_ = [(chunk, records.read(chunk.directory)) for chunk in mine]
        metadata += [record.metadata for _, record in read_]
        for metric in study.metrics:
            values[metric.name][arm] = _assemble(
                study, arm, metric.name, read_, _unless_lost(partial(members, metric))
            )
        failed[arm] = _assemble(study, arm, "failed", read_, diverged)
        for q in QUANTITIES:
            treated[q.name][arm] = _assemble(study, arm, q.name, read_, _unless_lost(q.read))
    values = {name: _alike(arms) for name, arms in values.items()}
    used = [m.get("versions", {}) for m in metadata]
    versions = {k: _each(v.get(k, "unknown") for v in used) for v in used for k in v}
    devices = _each(", ".join(map(str, m.get("devices", []))) for m in metadata)
    revision = _each(m.get("git_revision", "unknown") for m in metadata)
    return Results(study, tuple(done), values, failed, treated, versions, revision, devices)


def _each(found: Iterable[Any]) -> str:
    """What was found, once each: one as a rule."""
    return " and ".join(dict.fromkeys(map(str, found)))


def _assemble(
    study: Study,
    arm: str,
    metric: str,
    runs: Sequence[tuple[Chunk, Record]],
    members: Callable[[Record], np.ndarray],
) -> np.ndarray:
    """[points, seeds, …] of one arm from its runs."""
    cells: dict[int, dict[int, np.ndarray]] = {}
    for chunk, record in runs:
        try:
            found = members(record)
        except ConfigError as problem:
            raise ConfigError(f"{study.name}, {chunk.directory}: {problem}") from None
        # The order of `grid.members`: point by point, all seeds of each.
        found = np.broadcast_to(found, (chunk.members, *found.shape[1:]))
        for i, point in enumerate(chunk.points):
            for j, seed in enumerate(chunk.seeds):
                cells.setdefault(point, {})[seed] = found[i * len(chunk.seeds) + j]
    every = [v for row in cells.values() for v in row.values()]
    shapes = {v.shape for v in every if v.ndim or np.isfinite(v)}
    if len(shapes) > 1:
        raise ConfigError(
            f"{study.name}: metric {metric} of arm {arm} changes its shape over the axis: "
            f"{sorted(shapes)}; let its `derive` make one shape of them"
        )
    shape = next(iter(shapes), ())
    of = lambda row: np.stack([np.broadcast_to(row[s], shape) for s in sorted(row)])
    return np.stack([of(row) for _, row in sorted(cells.items())])


def _unless_lost(read: Callable[[Record], np.ndarray]) -> Callable[[Record], np.ndarray]:
    """NaN [members] for a run that all members left: its files end there, not where a run does."""
    lost = lambda record: len(record.gone) == record.members
    return lambda record: np.full(record.members, np.nan) if lost(record) else read(record)


def _alike(arms: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """One number a member, as of an arm that was lost, in the shape of the other arms."""
    rest = max((v.shape[2:] for v in arms.values()), key=len)
    fill = lambda v: np.broadcast_to(v.reshape(*v.shape, *(1 for _ in rest)), (*v.shape, *rest))
    return {arm: fill(v) if v.ndim == 2 else v for arm, v in arms.items()}


def diverged(record: Record) -> np.ndarray:
    """[members] of one run: has some number of theirs not been finite?"""
    return np.isin(np.arange(record.members), list(record.gone))


def members(metric: Metric, record: Record) -> np.ndarray:
    """[members, …] float64 of one run; one member where all seeds share a model."""
    if metric.derive is not None:
        return np.asarray(metric.derive(record), np.float64)
    series = record.metrics.get((metric.stage, metric.metric))
    if series is None:
        raise ConfigError(
            f"metric {metric.name}: the run has no {metric.metric} of stage {metric.stage}"
        )
    rounds = np.unique(series.rounds)
    wanted = int(rounds[-1]) if metric.round == "last" else metric.round
    rows = np.arange(len(series.rounds))
    if wanted != "all":
        rows = np.flatnonzero(series.rounds == wanted)
    if not len(rows):
        raise ConfigError(f"metric {metric.name}: no round {wanted} of {metric.metric}")
    if metric.step == "all":
        return np.moveaxis(series.values[rows], 0, 1)
    at = len(rows) - 1 if metric.step == "last" else metric.step
    if not 0 <= at < len(rows):
        raise ConfigError(f"metric {metric.name}: no step {metric.step} of {len(rows)}")
    return series.values[rows[at]]
