"""Files to rows and back, with an account of everything that did not get through."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from rlhf_jax.config import ConfigError
from rlhf_jax.data.files import Malformed, Record, read_object, read_records
from rlhf_jax.data.formats import ALL, FORMATS, Format, Options
from rlhf_jax.data.rows import Comparison, Row, RowError, kind, swapped

OnError = Literal["fail", "skip"]


class Read(NamedTuple):
    rows: list[Row]
    records: int
    """Records that were read."""
    malformed: list[Malformed]
    """Records that were not."""


class Refused(NamedTuple):
    """An answer that a format cannot express."""

    row: int
    """Counted from 1"""
    reason: str


class Written(NamedTuple):
    records: list[dict[str, object]]
    refused: list[Refused]
    lost: Counter[str]
    """{field: rows in which it does not survive}, found by reading the records back."""


def format_named(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(f"format '{name}': choose from {', '.join(FORMATS)}")
    return FORMATS[name]


def recognise(path: Path, options: Options) -> Format:
    """The format whose fields the first records have; raises `ConfigError` if there is none."""
    records = (r for r in read_records(path) if isinstance(r, Record))
    first = next(records, None)
    if first is None:
        raise ConfigError(f"{path}: no record from which to tell the format; give --format")
    fits = [f for f in ALL if f.marks <= first.value.keys()]
    most = max((len(f.marks) for f in fits), default=0)
    for f in fits:
        if len(f.marks) == most and (len(fits) == 1 or _reads(f, first, options)):
            return f
    raise ConfigError(f"{path}:{first.line}: the format is not one that is known; give --format")


def _reads(f: Format, record: Record, options: Options) -> bool:
    try:
        f.read(record.value, options)
    except RowError:
        return False
    return True


def read_rows(path: Path, f: Format, options: Options, on_error: OnError = "fail") -> Read:
    """Every answer in a file. A record that cannot be read is listed, or fatal (`ConfigError`)."""
    rows: list[Row] = []
    malformed: list[Malformed] = []
    count = 0
    for record in read_records(path):
        if isinstance(record, Record):
            try:
                rows += f.read(record.value, options)
                count += 1
                continue
            except RowError as e:
                record = Malformed(path.name, record.line, str(e))
        if on_error == "fail":
            raise ConfigError(str(record))
        malformed.append(record)
    return Read(rows, count, malformed)


def write_rows(
    rows: Sequence[Row], f: Format, options: Options, on_error: OnError = "fail"
) -> Written:
    """Rows as records of `f`. What it cannot express is listed, or fatal (`ConfigError`).

    Where a record would hold several answers and some of them cannot stand in it even alone,
    these are refused and the others make the record.
    """
    out = Written([], [], Counter())
    for indices in _groups(rows, f):
        made, kept, refused = _fit(rows, indices, f, options)
        if refused and on_error == "fail":
            raise ConfigError(f"row {refused[0].row}: {refused[0].reason}")
        out.refused.extend(refused)
        if made:
            out.records.append(made.record)
            out.lost.update(_lost([rows[i] for i in kept], made.back))
    return out


class Made(NamedTuple):
    record: dict[str, object]
    back: list[Row]
    """What reading the record gives."""


def _fit(
    rows: Sequence[Row], indices: list[int], f: Format, options: Options
) -> tuple[Made | None, list[int], list[Refused]]:
    """A record of as many of these rows as possible, which they are, and why not the others."""
    whole = _make([rows[i] for i in indices], f, options)
    if isinstance(whole, Made):
        return whole, indices, []
    alone = {i: _make([rows[i]], f, options) for i in indices}
    kept = [i for i in indices if isinstance(alone[i], Made)]
    part = _make([rows[i] for i in kept], f, options) if kept else whole
    if isinstance(part, Made):
        return part, kept, [Refused(i + 1, r) for i, r in alone.items() if isinstance(r, str)]
    return None, [], [Refused(i + 1, whole) for i in indices]


def _make(group: list[Row], f: Format, options: Options) -> Made | str:
    """The record of these rows, or why there can be none."""
    try:
        for row in group:
            if not isinstance(row, f.types):
                raise RowError(f"a {kind(row)} has no place in {f.name}")
        record = f.write(group, options)
        return Made(record, f.read(record, options))
    except RowError as e:
        return str(e)


def _groups(rows: Sequence[Row], f: Format) -> Iterable[list[int]]:
    """Indices of the rows that share a record; a row of no item has a record of its own."""
    if f.key is None:
        return [[i] for i in range(len(rows))]
    groups: dict[object, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(f.key(row) if row.item else i, []).append(i)
    return groups.values()


def _lost(rows: list[Row], back: list[Row]) -> Iterable[str]:
    """Fields that differ after a round trip, once per row; 'order' where a and b were swapped."""
    if len(rows) != len(back):
        yield "rows"
    pairs = zip(sorted(rows, key=kind), sorted(back, key=kind), strict=False)
    for row, other in pairs:
        if isinstance(row, Comparison) and isinstance(other, Comparison):
            turned = swapped(other)
            if (
                (row.a, row.b, row.label)
                == (turned.a, turned.b, turned.label)
                != (
                    other.a,
                    other.b,
                    other.label,
                )
            ):
                other = turned
                yield "order"
        for field in dataclasses.fields(row):
            unset = getattr(row, field.name) == field.default
            if not unset and getattr(row, field.name) != getattr(other, field.name, None):
                yield field.name


def load_arguments(path: Path) -> dict[str, str]:
    """UKPConvArg1's second file, {argument id: text}; raises `ConfigError` if it is not that."""
    arguments = read_object(path)
    for name, words in arguments.items():
        if not isinstance(words, str):
            raise ConfigError(f"{path}: argument '{name}' is not text")
    return arguments
