"""The files of one run directory as arrays: what a report may know."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax import logs, rundir
from rlhf_jax.config import ConfigError
from rlhf_jax.logs import HEAD, Left, leaving


class Point(NamedTuple):
    """One setting of the grid and the columns of the population that ran it."""

    setting: dict[str, float]
    columns: tuple[int, ...]

    @property
    def label(self) -> str:
        """`ppo.kl_weight = 0.05`, or nothing in a run without a sweep."""
        return ", ".join(f"{path} = {value:g}" for path, value in self.setting.items())


class Series(NamedTuple):
    """One metric over the steps of one stage."""

    rounds: np.ndarray
    """[N] int"""
    steps: np.ndarray
    """[N] int, counted through all rounds"""
    values: np.ndarray
    """[N, members, …] float64; members = 1 where all seeds share one model"""

    def of(self, point: Point) -> np.ndarray:
        """[N, seeds, …]: the columns of one grid point."""
        shared = self.values.shape[1] == 1
        return self.values if shared else self.values[:, list(point.columns)]

    def at(self, round_: int, point: Point) -> np.ndarray:
        """[seeds, …]: the last row of a round; empty where the round has none."""
        rows = np.flatnonzero(self.rounds == round_)
        return self.of(point)[rows[-1]] if len(rows) else np.zeros(0)


class Sample(NamedTuple):
    """One response and what was thought of it."""

    when: str
    round: int
    decoding: str
    member: int
    text: str
    reward: float
    gold: float
    rated: bool
    prompt: str = ""
    """what it answers, where prompts differ"""


class Record(NamedTuple):
    """One run as its files tell it."""

    config: dict[str, Any]
    metadata: dict[str, Any]
    points: tuple[Point, ...]
    metrics: dict[tuple[str, str], Series]
    """(stage, metric) → series; NaN from where a member diverged"""
    samples: tuple[Sample, ...]
    notes: tuple[str, ...]
    """what was absent or unreadable, one line each"""
    gone: dict[int, Left]
    """column of the population → where it diverged"""

    @property
    def members(self) -> int:
        return sum(len(p.columns) for p in self.points)

    def who(self, member: int) -> str:
        """`seed 2, ppo.kl_weight = 0.05`."""
        known = self.metadata["members"]
        label = next(p.label for p in self.points if member in p.columns)
        return f"seed {known[member]['seed']}" + (f", {label}" if label else "")

    @property
    def swept(self) -> bool:
        return len(self.points) > 1

    @property
    def gold_unit(self) -> str:
        rated = self.config.get("world.name", "words") == "words"
        return "mean human rating, −4…4" if rated else "utility, deviations"


def _object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: a report needs this file and it does not exist") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: expected a JSON object")
    return value


def _rows(path: Path, notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row). A last line that a killed process left half-written is skipped."""
    if not path.exists():
        notes.append(f"{path.name} does not exist: what it would show is left out.")
        return
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} cannot be read: {problem}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            if number < len(lines):
                raise ConfigError(f"{path}: line {number} is not JSON") from None
            notes.append(f"The last line of {path.name} was half-written and is left out.")
            return
        if not isinstance(row, dict):
            raise ConfigError(f"{path}: line {number} is not a JSON object")
        yield number, row


def points(members: list[dict[str, Any]]) -> tuple[Point, ...]:
    """Members that share a setting, in the order of their first appearance."""
    groups: dict[str, tuple[dict[str, float], list[int]]] = {}
    for column, member in enumerate(members):
        setting = member.get("point", {})
        groups.setdefault(json.dumps(setting), (setting, []))[1].append(column)
    return tuple(Point(setting, tuple(columns)) for setting, columns in groups.values())


def _counted_through(rounds: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Steps that begin anew in each round, placed one round after the other."""
    out, end = steps.copy(), -1
    for round_ in np.unique(rounds):
        rows = rounds == round_
        if steps[rows].min() <= end:
            out[rows] += end + 1 - steps[rows].min()
        end = out[rows].max()
    return out


def _series(
    path: Path, members: int, notes: list[str]
) -> tuple[dict[tuple[str, str], Series], dict[int, Left]]:
    """A step that was run twice, before and after a resume, counts once: as last written.

    A member is gone from its first number that is not finite: later ones do not count, whatever
    they look like.
    """
    gone: dict[int, Left] = {}
    table: dict[tuple[str, str], dict[tuple[int, int], np.ndarray]] = {}
    for number, row in _rows(path, notes):
        where = f"{path}: line {number}"
        if not set(HEAD) <= row.keys():
            raise ConfigError(f"{where} lacks one of stage, round, step")
        key = (int(row["round"]), int(row["step"]))
        head = {"stage": row["stage"], "round": key[0], "step": key[1]}
        cells: dict[str, np.ndarray] = {}
        for name in sorted(row.keys() - head.keys()):
            try:
                value = np.asarray(row[name], np.float64)
            except (TypeError, ValueError):
                raise ConfigError(f"{where}: {name} is not an array of numbers") from None
            if value.ndim == 0 or value.shape[0] not in (1, members):
                shape = "one number" if value.ndim == 0 else f"{value.shape[0]} values"
                raise ConfigError(f"{where}: {name} has {shape} for {members} members")
            cells[name] = value
        gone |= leaving(head | cells, gone, members)
        for name, value in cells.items():
            if len(value) == members:
                value[list(gone)] = np.nan
            table.setdefault((row["stage"], name), {})[key] = value
    out = {}
    for (stage, name), by_step in table.items():
        keys = sorted(by_step)
        if len({by_step[k].shape for k in keys}) > 1:
            raise ConfigError(f"{path}: {name} of stage {stage} changes its shape")
        rounds, steps = (np.asarray(c, np.int64) for c in zip(*keys, strict=True))
        values = np.stack([by_step[k] for k in keys])
        out[stage, name] = Series(rounds, _counted_through(rounds, steps), values)
    return out, gone


def _samples(path: Path, notes: list[str]) -> Iterator[Sample]:
    number_of = lambda v: float("nan") if v is None else float(v)
    for line, row in _rows(path, notes):
        try:
            yield Sample(
                str(row["when"]),
                int(row["round"]),
                str(row["decoding"]),
                int(row["member"]),
                str(row["text"]),
                number_of(row.get("reward")),
                number_of(row.get("gold")),
                bool(row.get("rated", True)),
                str(row.get("prompt", "")),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: line {line}: {error!r}") from None


def _refuse_damaged(run_directory: Path, config: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Raises `ConfigError` where settings, or the logs of a run that is over, are not its own."""
    try:
        if "settings_sha256" in metadata and rundir.seal(config) != metadata["settings_sha256"]:
            raise ValueError("config.json is not what the run wrote")
        over = metadata.get("finished") or metadata.get("diverged")
        if over and metadata.get("logs"):
            logs.check(run_directory, metadata["logs"])
    except (OSError, ValueError, KeyError, TypeError) as problem:
        raise ConfigError(f"{run_directory}: {problem}; put back what was there") from None


def read(run_directory: Path) -> Record:
    """Reads a run directory, finished or not.

    Raises: `ConfigError` where config.json or metadata.json is missing or, as the logs of a
      finished run, not what was written, or where a row cannot be what the run writes. Absent
      metrics and samples of a run that has not ended are not an error: they become notes.
    """
    notes: list[str] = []
    config = _object(run_directory / "config.json")
    metadata = _object(run_directory / "metadata.json")
    rundir.read_metadata(run_directory)
    _refuse_damaged(run_directory, config, metadata)
    members = metadata.get("members")
    if not members:
        raise ConfigError(f"{run_directory / 'metadata.json'} names no members of the run")
    metrics, gone = _series(run_directory / "metrics.jsonl", len(members), notes)
    samples = tuple(_samples(run_directory / "samples.jsonl", notes))
    return Record(config, metadata, points(members), metrics, samples, tuple(notes), gone)
