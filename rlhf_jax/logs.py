"""What a run's logs hold: whether they are what was written, and whose numbers count; no JAX."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LOGS = ("metrics", "samples")
HEAD = ("stage", "round", "step")
"""What of a row is no metric."""


def check(directory: Path, position: Mapping[str, Any]) -> None:
    """Raises `ValueError` where a log does not begin with what `metrics.Files.flush` said."""
    for name in LOGS:
        path, length = directory / f"{name}.jsonl", int(position[name])
        held = path.stat().st_size if path.exists() else 0
        if held < length:
            raise ValueError(f"{path.name} has {held} of the {length} bytes that were written")
        if length and prefix(path, length).hexdigest() != position[f"{name}_sha256"]:
            raise ValueError(f"the first {length} bytes of {path.name} are not what was written")


def prefix(path: Path, length: int) -> Any:
    """SHA-256, which can go on, of a file's first bytes."""
    said = hashlib.sha256()
    with path.open("rb") as file:
        while length and (block := file.read(min(length, 1 << 20))):
            said.update(block)
            length -= len(block)
    return said


class Left(NamedTuple):
    """Where a member left the population: its first number that is not finite."""

    stage: str
    round: int
    step: int
    metric: str

    def __str__(self) -> str:
        where = f"{self.stage}, round {self.round + 1}, step {self.step + 1}"
        return f"{where}: {self.metric} is not finite"


def leaving(row: Mapping[str, Any], gone: Iterable[int], members: int) -> dict[int, Left]:
    """Who leaves at this row. What all members share (one value) takes all of them along."""
    found: dict[int, Left] = {}
    for name, values in row.items():
        if name in HEAD:
            continue
        flat = np.asarray(values, np.float64).reshape(len(values), -1)
        bad = np.flatnonzero(~np.isfinite(flat).all(axis=1))
        if len(bad):
            who = range(members) if len(values) < members else bad.tolist()
            for member in set(who) - set(gone) - set(found):
                found[member] = Left(row["stage"], row["round"], row["step"], name)
    return dict(sorted(found.items()))
