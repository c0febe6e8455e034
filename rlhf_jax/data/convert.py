"""Files to rows and back, with an account of everything that did not get through."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rlhf_jax.config import ConfigError
from rlhf_jax.data.files import Malformed, Record, read_object, read_records
from rlhf_jax.data.formats import ALL, FORMATS, Format, Options
from rlhf_jax.data.regrouped import regrouped
from rlhf_jax.data.rows import SAID, Comparison, Row, RowError, kind, swapped
from rlhf_jax.data.unread import known

OnError = Literal["fail", "skip"]


@dataclass
class Account:
    """What became of a file's records, filled in as they are read."""

    records: int = 0
    """Records that were read."""
    answers: int = 0
    unanswered: int = 0
    """Records that were read and that nobody has answered."""
    malformed: list[Malformed] = field(default_factory=list)
    """Records that were not read."""
    remarks: dict[str, list[int]] = field(default_factory=dict)
    """{what is odd about an answer: how many, line of the first}"""

    def remark(self, what: str, line: int) -> None:
        self.remarks.setdefault(what, [0, line])[0] += 1


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


@dataclass
class Outcome:
    """What became of rows, filled in as they are written."""

    records: int = 0
    """Records that were made."""
    refused: int = 0
    """Rows that stand in none."""
    lost: Counter[str] = field(default_factory=Counter)
    """{field: rows in which it does not survive}, found by reading the records back."""


class Written(NamedTuple):
    records: list[dict[str, object]]
    refused: list[Refused]
    lost: Counter[str]
    """{field: rows in which it does not survive}"""


def format_named(name: str) -> Format:
    if name not in FORMATS:
        raise ConfigError(f"format '{name}': choose from {', '.join(FORMATS)}")
    return FORMATS[name]


VOTERS = 100
"""Records that vote on the format of their file"""


def recognise(path: Path, options: Options) -> Format:
    """The format in which most of the first hundred records can be read.

    Each votes for the one, among those that can read it, of which it has the most fields. Raises
    `ConfigError` where none has a vote, with the reason, or with the name of what it may be.
    """
    votes: Counter[str] = Counter()
    why, unread = "", ""
    records = read_records(path)
    for record in islice(records, VOTERS):
        if isinstance(record, Malformed):
            unread = unread or str(record)
            continue
        f, reason = _vote(record.value, options)
        if f:
            votes[f.name] += 1
        else:
            why = why or f"{path.name}:{record.line}: {reason}"
    if not votes:
        raise ConfigError(why or f"{unread}; no record from which to tell the format")
    most = max(votes.values())
    return next(f for f in ALL if votes[f.name] == most)


def _vote(record: dict[str, Any], options: Options) -> tuple[Format | None, str]:
    """(the format, '') or (None, why there is none)."""
    fits = sorted((f for f in ALL if f.marks <= record.keys()), key=lambda f: -len(f.marks))
    reason = ""
    for f in fits:
        try:
            f.read(record, options)
            return f, ""
        except RowError as e:
            if len(f.marks) == len(fits[0].marks):
                reason = f"this looks like {f.name}, but {e}"
    return None, known(record) or reason or (
        f"the format is not one that is known (fields {', '.join(record)}); give --format"
    )


def stream_rows(
    path: Path, f: Format, options: Options, on_error: OnError, account: Account
) -> Iterator[Row]:
    """Every answer in a file, one after the other; `account` grows meanwhile.

    A record that cannot be read is listed, or fatal (`ConfigError`).
    """
    for record in read_records(path):
        if isinstance(record, Record):
            try:
                rows = f.read(record.value, options)
            except RowError as e:
                record = Malformed(path.name, record.line, str(e))
            else:
                account.records += 1
                account.answers += len(rows)
                account.unanswered += not rows
                for row in rows:
                    for what in remarks(row):
                        account.remark(what, record.line)
                yield from rows
                continue
        if on_error == "fail":
            raise ConfigError(str(record))
        account.malformed.append(record)


def remarks(row: Row) -> Iterator[str]:
    """What a reader should know about an answer that was read nevertheless."""
    if isinstance(row, Comparison) and row.label not in (None, 0.5) and row.a == row.b:
        yield "a preference between two identical texts"
    if f'"{SAID}"' in row.extra:
        said = json.loads(row.extra).get(SAID)
        yield from map(str, said if isinstance(said, list) else [])


def read_rows(path: Path, f: Format, options: Options, on_error: OnError = "fail") -> Read:
    """Every answer in a file. A record that cannot be read is listed, or fatal (`ConfigError`)."""
    account = Account()
    rows = list(stream_rows(path, f, options, on_error, account))
    return Read(rows, account.records, account.malformed)


def write_rows(
    rows: Iterable[Row], f: Format, options: Options, on_error: OnError = "fail"
) -> Written:
    """All that `stream_records` gives."""
    refused: list[Refused] = []
    outcome = Outcome()
    records = list(stream_records(rows, f, options, on_error, outcome, refused.append))
    return Written(records, refused, outcome.lost)


def stream_records(
    rows: Iterable[Row],
    f: Format,
    options: Options,
    on_error: OnError,
    outcome: Outcome,
    refuse: Callable[[Refused], None],
) -> Iterator[dict[str, object]]:
    """Rows as records of `f`, one after the other; `outcome` grows meanwhile.

    What `f` cannot express is handed to `refuse`, or fatal (`ConfigError`). Where a record would
    hold several answers and some of them cannot stand in it even alone, these are refused and
    the others make the record.
    """
    for group in _groups(rows, f):
        made, kept, refused = _fit(group, f, options)
        if refused and on_error == "fail":
            raise ConfigError(f"row {refused[0].row}: {refused[0].reason}")
        for r in refused:
            refuse(r)
        outcome.refused += len(refused)
        if made:
            outcome.records += 1
            outcome.lost.update(_lost(kept, made.back))
            yield made.record


Numbered = tuple[int, Row]
"""A row and its number, counted from 1"""


class Made(NamedTuple):
    record: dict[str, object]
    back: list[Row]
    """What reading the record gives."""


def _fit(
    group: list[Numbered], f: Format, options: Options
) -> tuple[Made | None, list[Row], list[Refused]]:
    """A record of as many of these rows as possible, which they are, and why not the others."""
    rows = [row for _, row in group]
    whole = _make(rows, f, options)
    if isinstance(whole, Made):
        return whole, rows, []
    alone = [_make([row], f, options) for row in rows]
    kept = [row for row, made in zip(rows, alone, strict=True) if isinstance(made, Made)]
    part = _make(kept, f, options) if kept else whole
    if isinstance(part, Made):
        why = zip(group, alone, strict=True)
        return part, kept, [Refused(i, r) for (i, _), r in why if isinstance(r, str)]
    return None, [], [Refused(i, whole) for i, _ in group]


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


def _groups(rows: Iterable[Row], f: Format) -> Iterator[list[Numbered]]:
    """Rows that share a record, with their numbers; a row of no item has a record of its own."""
    numbered = enumerate(rows, 1)
    key = f.key
    if key is None:
        return ([one] for one in numbered)
    return regrouped(numbered, lambda one: key(one[1]) if one[1].item else one[0])


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
        for f in dataclasses.fields(row):
            value = getattr(row, f.name)
            unset = value == f.default or (f.name == "extra" and not said_apart(value))
            if not unset and not _alike(f.name, value, getattr(other, f.name, None)):
                yield f.name


def said_apart(extra: str) -> dict[str, Any]:
    """What `extra` holds besides what was said of how it was read."""
    return {k: v for k, v in json.loads(extra).items() if k != SAID}


def _alike(name: str, value: Any, other: Any) -> bool:
    same = bool(value == other)
    return same or (name == "extra" and said_apart(value) == said_apart(other))


def load_arguments(path: Path) -> dict[str, str]:
    """UKPConvArg1's second file, {argument id: text}; raises `ConfigError` if it is not that."""
    arguments = read_object(path)
    for name, words in arguments.items():
        if not isinstance(words, str):
            raise ConfigError(f"{path}: argument '{name}' is not text")
    return arguments
