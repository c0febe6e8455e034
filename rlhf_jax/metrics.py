"""What a run writes as it goes: metrics.jsonl, samples.jsonl and, from `events`, TensorBoard's.

Both .jsonl files hold results only, no clock: two equal runs write equal bytes, and a
resumed run cuts them back to where its checkpoint was taken.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlhf_jax import logs
from rlhf_jax.config import ConfigError
from rlhf_jax.events import Events, Steps
from rlhf_jax.grid import Member
from rlhf_jax.logs import HEAD, LOGS, Left, leaving
from rlhf_jax.types import Language

SAMPLE = "sample/"
"""Metrics of this prefix are responses, not numbers to plot."""


def without(row: Mapping[str, Any], gone: Iterable[int], members: int) -> dict[str, Any]:
    """The row with nothing of members that left before it, whatever their numbers look like."""
    out = dict(row)
    if gone:
        for name, values in row.items():
            if name not in HEAD and len(values) == members:
                out[name] = [_none(v) if i in gone else v for i, v in enumerate(values)]
    return out


def _none(x: Any) -> Any:
    """None in the shape of a list of numbers."""
    return [_none(v) for v in x] if isinstance(x, list) else None


def _strict(x: Any) -> Any:
    """JSON knows no NaN and no ∞: they are written as null."""
    if isinstance(x, dict):
        return {k: _strict(v) for k, v in x.items()}
    if isinstance(x, list):
        return [_strict(v) for v in x]
    return None if isinstance(x, float) and not math.isfinite(x) else x


class _Log:
    """An append-only file of JSON rows that can be cut back to a known length."""

    def __init__(self, path: Path, length: int) -> None:
        self._file = path.open("ab+")
        self._file.truncate(length)
        self._file.seek(length)
        self._said, self._read = logs.prefix(path, length), length

    def write(self, row: Mapping[str, Any]) -> None:
        text = json.dumps(_strict(row), ensure_ascii=False, allow_nan=False)
        self._file.write((text + "\n").encode())

    def lines(self) -> Iterator[bytes]:
        self._file.seek(0)
        yield from self._file

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
        start = f"{SAMPLE}{decoding}/"
        block = {k.removeprefix(start): v for k, v in metrics.items() if k.startswith(start)}
        for i, j in np.ndindex(block["tokens"].shape[:2]):
            one = {k: v[i, j] for k, v in block.items()}
            row = {
                "when": "before" if round_ == 0 else "after",
                "round": round_,
                "decoding": decoding,
                "member": i,
                "text": _text(one["tokens"][one["mask"]], language),
                "reward": _plain(one["reward"]),
            }
            if "prompt" in one:
                row["prompt"] = _text(one["prompt"][one["prompt_mask"]], language)
            if "gold" in one:
                row |= {"gold": _plain(one["gold"]), "rated": bool(one["rated"])}
            out.append(row)
    return out


def _text(tokens: np.ndarray, language: Language) -> str:
    """What was said, without the symbols that begin and end it."""
    if language.text is not None:
        return language.text(tokens.tolist())
    return "".join(language.symbols[t] for t in tokens if t != language.eos)


class Files:
    """All that a run writes while it goes."""

    def __init__(
        self, directory: Path, members: Sequence[Member], sizes: Mapping[str, Any]
    ) -> None:
        """`sizes`: what `flush` said of the logs; what stands behind it is cut off.

        Raises: as `logs.check`.
        """
        logs.check(directory, sizes)
        self._metrics = _Log(directory / "metrics.jsonl", sizes["metrics"])
        self._samples = _Log(directory / "samples.jsonl", sizes["samples"])
        self._members = len(members)
        self.gone: dict[int, Left] = {}
        """Members that have left, by their place in the population."""
        self._steps, rows = Steps(), 0
        for line in self._metrics.lines():
            rows += 1
            self._steps.through(*_head(line))
            if b"null" in line:
                self.gone |= leaving(json.loads(line), self.gone, self._members)
        self._events = Events(directory / "events", members, rows)

    def metrics(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Writes a row without the members that have left, and returns it so."""
        row = without(row, self.gone, self._members)
        self.gone |= leaving(row, self.gone, self._members)
        self._metrics.write(row)
        self._events.write(row, self._steps.through(row["stage"], row["round"], row["step"]))
        return row

    def sample(self, row: Mapping[str, Any]) -> None:
        """A member that has left has nothing to say."""
        if row["member"] not in self.gone:
            self._samples.write(row)

    def flush(self) -> dict[str, Any]:
        """Bytes and digest of each log, all of them with the system."""
        out: dict[str, Any] = {}
        for name, log in zip(LOGS, (self._metrics, self._samples), strict=True):
            out[name], out[f"{name}_sha256"] = log.flush()
        self._events.flush()
        return out

    def close(self) -> None:
        self.flush()
        self._metrics.close()
        self._samples.close()


def _head(line: bytes) -> tuple[str, int, int]:
    """Stage, round and step of a written row: they stand first, so the rest need not be read."""
    found = re.match(rb'\{"stage": "(\w+)", "round": (\d+), "step": (\d+)', line)
    if found is None:
        raise ConfigError(f"metrics.jsonl: a row does not begin with its stage: {line[:60]!r}")
    return found[1].decode(), int(found[2]), int(found[3])
