"""TensorBoard events: every seed of a small population by itself, and the mean of each point.

One record for each row of metrics.jsonl, so that a resumed run cuts them back as it does the
log. They are drawn from the log and hold nothing else.
"""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rlhf_jax.grid import Member
from rlhf_jax.logs import HEAD

DRAWN = 64
"""Members up to which each is drawn: beyond, nobody can tell the lines apart."""
WAITING = 100
"""Rows that are written together."""
_NAME = "events.out.tfevents.0.run"


class Steps:
    """The steps of each stage, counted through all rounds."""

    def __init__(self) -> None:
        self._at: dict[str, tuple[int, int, int]] = {}  # stage → round, its first step, the last

    def through(self, stage: str, round_: int, step: int) -> int:
        """The number of this step among all of its stage so far: give them in order."""
        known, first, last = self._at.get(stage, (round_, 0, -1))
        if round_ != known:
            first = last + 1
        self._at[stage] = (round_, first, first + step)
        return first + step


class _Line(NamedTuple):
    """One file of events and the members whose mean it holds."""

    path: Path
    members: Sequence[int]
    waiting: list[bytes]


class Events:
    """What TensorBoard shows of a run: `<point>/mean` and `<point>/seed <n>`."""

    def __init__(self, directory: Path, members: Sequence[Member], rows: int) -> None:
        """`rows` of an earlier start are kept, what stands behind them is cut off."""
        points: dict[str, list[int]] = {}
        for i, member in enumerate(members):
            name = ",".join(f"{k}={v:g}" for k, v in member.point.items())
            points.setdefault(name or "all", []).append(i)
        names = {f"{point}/mean": mine for point, mine in points.items()}
        if len(members) <= DRAWN:
            for point, mine in points.items():
                names |= {f"{point}/seed {members[i].seed}": [i] for i in mine}
        self._members, self._lines = len(members), []
        for name, mine in names.items():
            path = directory / name / _NAME
            path.parent.mkdir(parents=True, exist_ok=True)
            kept = _first(path.read_bytes() if path.exists() else b"", rows + 1)
            path.write_bytes(kept or _records([_event(file_version="brain.Event:2")])[0])
            self._lines.append(_Line(path, mine, []))

    def write(self, row: Mapping[str, Any], step: int) -> None:
        """`row` as it stands in the log: what is null is not drawn."""
        names = [n for n, values in row.items() if n not in HEAD and np.ndim(values) == 1]
        wide = [np.broadcast_to(np.asarray(row[n], np.float64), self._members) for n in names]
        table = np.reshape(wide, (len(names), self._members))
        known = np.isfinite(table)
        kept = np.where(known, table, 0.0)
        for line in self._lines:
            n = known[:, line.members].sum(axis=1)
            sums = kept[:, line.members].sum(axis=1)
            means = (sums / np.maximum(n, 1)).tolist()
            drawn = [(name, mean) for name, mean, k in zip(names, means, n, strict=True) if k]
            line.waiting.append(_event(drawn, step=step))
        if len(self._lines[0].waiting) == WAITING:
            self.flush()

    def flush(self) -> None:
        """Files are opened only here: a run may have more members than it may hold open."""
        each = iter(_records([event for line in self._lines for event in line.waiting]))
        for line in self._lines:
            with line.path.open("ab") as file:
                file.writelines(itertools.islice(each, len(line.waiting)))
            line.waiting.clear()


def _event(drawn: Sequence[tuple[str, float]] = (), **fields: Any) -> bytes:
    from tensorboardX.proto.event_pb2 import Event

    event = Event(wall_time=time.time(), **fields)
    for name, value in drawn:
        event.summary.value.add(tag=name, simple_value=value)
    return event.SerializeToString()


def _records(events: Sequence[bytes]) -> list[bytes]:
    """TFRecords: length, its checksum, data, its checksum."""
    lengths = [struct.pack("<Q", len(data)) for data in events]
    heads, bodies = _masked(crc32c(lengths)), _masked(crc32c(events))
    return [b"".join(parts) for parts in zip(lengths, heads, events, bodies, strict=True)]


def _masked(sums: np.ndarray) -> list[bytes]:
    turned = (sums >> np.uint32(15)) | (sums << np.uint32(17))
    return [x.tobytes() for x in (turned + np.uint32(0xA282EAD8)).astype("<u4")]


def crc32c(texts: Sequence[bytes]) -> np.ndarray:
    """[N] uint32: Castagnoli's checksum of each, all at once: one at a time it would cost more
    than all else that a run writes."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ (np.uint32(0x82F63B78) * (table & np.uint32(1)))
    lengths = np.asarray([len(t) for t in texts])
    wide = np.zeros((max(lengths, default=0), len(texts)), np.uint8)
    for i, text in enumerate(texts):
        wide[: len(text), i] = np.frombuffer(text, np.uint8)
    sums = np.full(len(texts), 0xFFFFFFFF, np.uint32)
    for i, column in enumerate(wide):
        new = table[(sums ^ column) & np.uint32(0xFF)] ^ (sums >> np.uint32(8))
        sums = np.where(i < lengths, new, sums)
    return ~sums


def _first(raw: bytes, records: int) -> bytes:
    """The first whole records, at most so many."""
    end = 0
    for _ in range(records):
        if len(raw) < end + 12:
            break
        after = end + 16 + int.from_bytes(raw[end : end + 8], "little")
        if len(raw) < after:
            break
        end = after
    return raw[:end]
