"""What a run writes as it goes: metrics.jsonl, samples.jsonl, TensorBoard events.

Both .jsonl files hold results only, no clock: two equal runs write equal bytes, and a
resumed run cuts them back to where its checkpoint was taken.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_jax.grid import Member
from rlhf_jax.types import Language

SAMPLE = "sample/"
"""Metrics of this prefix are responses, not numbers to plot."""
_COLUMNS = ("tokens", "mask", "reward", "gold", "rated")


LOGS = ("metrics", "samples")


def check(directory: Path, position: Mapping[str, Any]) -> None:
    """Raises `ValueError` where a log does not begin with what `Files.flush` said it held."""
    for name in LOGS:
        path, length = directory / f"{name}.jsonl", int(position[name])
        held = path.stat().st_size if path.exists() else 0
        if held < length:
            raise ValueError(f"{path.name} has {held} of the {length} bytes that were written")
        if length and _prefix(path, length).hexdigest() != position[f"{name}_sha256"]:
            raise ValueError(f"the first {length} bytes of {path.name} are not what was written")


def _prefix(path: Path, length: int) -> Any:
    """SHA-256, which can go on, of a file's first bytes."""
    said = hashlib.sha256()
    with path.open("rb") as file:
        while length and (block := file.read(min(length, 1 << 20))):
            said.update(block)
            length -= len(block)
    return said


class _Log:
    """An append-only file of JSON rows that can be cut back to a known length."""

    def __init__(self, path: Path, length: int) -> None:
        self._file = path.open("ab+")
        self._file.truncate(length)
        self._file.seek(length)
        self._said, self._read = _prefix(path, length), length

    def write(self, row: Mapping[str, Any]) -> None:
        self._file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())

    def rows(self) -> int:
        self._file.seek(0)
        return sum(1 for _ in self._file)

    def flush(self) -> tuple[int, str]:
        """Hands everything to the system and returns the file's length and SHA-256."""
        self._file.flush()
        self._file.seek(self._read)
        self._said.update(self._file.read())
        self._read = self._file.tell()
        return self._read, self._said.hexdigest()

    def close(self) -> None:
        self._file.close()


def _plain(x: np.ndarray) -> Any:
    """Floats as the shortest decimal that reads back to the same float32."""
    if x.dtype == np.float32:
        return [_plain(v) for v in x] if x.ndim else float(str(x))
    return x.tolist()


def rows(
    stage: str, round_: int, first: int, steps: int, metrics: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """One row a step: {"stage", "round", "step", metric: [one value a member]}."""
    numbers = {k: v for k, v in sorted(metrics.items()) if not k.startswith(SAMPLE)}
    head = {"stage": stage, "round": round_}
    if steps == 0:
        return [{**head, "step": first, **{k: _plain(v) for k, v in numbers.items()}}]
    return [
        {**head, "step": first + i, **{k: _plain(v[:, i]) for k, v in numbers.items()}}
        for i in range(steps)
    ]


def samples(
    round_: int, metrics: Mapping[str, np.ndarray], language: Language
) -> list[dict[str, Any]]:
    """What the policy said, a row a response, with the reward model's and gold's opinion."""
    out = []
    for decoding in ("sampled", "greedy"):
        block = {k: metrics[f"{SAMPLE}{decoding}/{k}"] for k in _COLUMNS}
        for i, j in np.ndindex(block["tokens"].shape[:2]):
            tokens = block["tokens"][i, j][block["mask"][i, j]]
            out.append(
                {
                    "when": "before" if round_ == 0 else "after",
                    "round": round_,
                    "decoding": decoding,
                    "member": i,
                    "text": "".join(language.symbols[t] for t in tokens if t != language.eos),
                    "reward": _plain(block["reward"][i, j]),
                    "gold": _plain(block["gold"][i, j]),
                    "rated": bool(block["rated"][i, j]),
                }
            )
    return out


def first_not_finite(found: Sequence[Mapping[str, Any]]) -> tuple[int, str, int] | None:
    """(step, metric, member) of the first number that is none, or nothing."""
    for row in found:
        for name, values in row.items():
            if name not in ("stage", "round", "step"):
                flat = np.asarray(values, np.float64).reshape(len(values), -1)
                bad = ~np.isfinite(flat).all(axis=1)
                if bad.any():
                    return row["step"], name, int(np.argmax(bad))
    return None


class Events:
    """TensorBoard events: the mean over the seeds of each grid point."""

    def __init__(self, directory: Path, members: Sequence[Member], purge: int) -> None:
        from tensorboardX import SummaryWriter

        self._writers: dict[str, tuple[SummaryWriter, list[int]]] = {}
        points: dict[str, list[int]] = {}
        for i, member in enumerate(members):
            name = ",".join(f"{k}={v:g}" for k, v in member.point.items())
            points.setdefault(name, []).append(i)
        for name, rows_ in points.items():
            writer = SummaryWriter(str(directory / (name or "all")), purge_step=purge)
            self._writers[name] = (writer, rows_)

    def write(self, row: Mapping[str, Any], step: int) -> None:
        for writer, mine in self._writers.values():
            for name, values in row.items():
                if name in ("stage", "round", "step") or np.ndim(values) != 1:
                    continue
                chosen = [values[i] for i in mine] if len(values) > max(mine) else values
                writer.add_scalar(name, float(np.mean(chosen)), step)

    def close(self) -> None:
        for writer, _ in self._writers.values():
            writer.close()


class Files:
    """All that a run writes while it goes."""

    def __init__(
        self, directory: Path, members: Sequence[Member], sizes: Mapping[str, Any]
    ) -> None:
        """`sizes`: what `flush` said of the logs; what stands behind it is cut off. See `check`."""
        check(directory, sizes)
        self._metrics = _Log(directory / "metrics.jsonl", sizes["metrics"])
        self._samples = _Log(directory / "samples.jsonl", sizes["samples"])
        self._row = self._metrics.rows()
        self._events = Events(directory / "events", members, self._row)

    def metrics(self, row: Mapping[str, Any]) -> None:
        self._metrics.write(row)
        self._events.write(row, self._row)
        self._row += 1

    def sample(self, row: Mapping[str, Any]) -> None:
        self._samples.write(row)

    def flush(self) -> dict[str, Any]:
        """Bytes and digest of each log, all of them with the system."""
        out: dict[str, Any] = {}
        for name, log in zip(LOGS, (self._metrics, self._samples), strict=True):
            out[name], out[f"{name}_sha256"] = log.flush()
        return out

    def close(self) -> None:
        self._metrics.close()
        self._samples.close()
        self._events.close()
