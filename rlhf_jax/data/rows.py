"""What one answer is, whatever file it came from: one frozen dataclass a feedback type.

A text is a tuple of turns. A plain string is one turn without a role; no text at all is the
empty tuple. Every row keeps who answered, when, how sure they were and where it was found;
what the shared fields cannot hold stays in `extra`, as JSON, for the format it came from.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from rlhf_jax.config import ConfigError


class RowError(ConfigError):
    """One record that cannot be read, or one answer that a format cannot express; in one line."""

    def __init__(self, reason: str):
        super().__init__("\\n".join(reason.splitlines()))


class Turn(NamedTuple):
    role: str
    """'user', 'assistant', 'system'; empty for a plain string"""
    content: str


Text: TypeAlias = tuple[Turn, ...]


def text(content: str) -> Text:
    """A plain string as a text."""
    return (Turn("", content),)


def is_plain(x: Text) -> bool:
    return len(x) == 1 and x[0].role == ""


def plain(x: Text, what: str) -> str:
    """The string that a plain text is; raises `RowError` for a conversation or no text."""
    if not is_plain(x):
        kind = f"a conversation of {len(x)} turns" if x else "absent"
        raise RowError(f"{what} is {kind}, this format holds plain text only")
    return x[0].content


@dataclass(frozen=True, kw_only=True)
class Row:
    """What every answer has in common."""

    prompt: Text = ()
    item: str = ""
    """What the source calls the thing that was asked about; answers to one thing share it."""
    group: str = ""
    """Debate, task, batch, data set: what a held-out split should not cut through."""
    source: str = ""
    """The format that `extra` belongs to."""
    annotator: str = ""
    start: int | None = None
    """When the answer was begun, microseconds since 1970 UTC"""
    end: int | None = None
    """When it was given, microseconds since 1970 UTC"""
    seconds: float | None = None
    """Time spent on the answer, where the source measures it itself"""
    confidence: float | None = None
    """How sure the person was, on the source's own scale"""
    reason: str = ""
    extra: str = "{}"
    """A JSON object, keys sorted"""

    @property
    def duration(self) -> float | None:
        """Seconds spent: as measured by the source, else end − start."""
        if self.seconds is not None or self.start is None or self.end is None:
            return self.seconds
        return (self.end - self.start) / 1e6


@dataclass(frozen=True, kw_only=True)
class Comparison(Row):
    """Which of two samples is better?"""

    a: Text
    b: Text
    a_id: str = ""
    """What the source calls the sample, or whoever wrote it."""
    b_id: str = ""
    label: float | None
    """1 a, 0 b, ½ a tie, between them a soft label; None: can't tell, or skipped"""


@dataclass(frozen=True, kw_only=True)
class Ranking(Row):
    """k samples in order."""

    options: tuple[str, ...]
    ids: tuple[str, ...] = ()
    ranks: tuple[int, ...]
    """1 is best; equal ranks are ties. One per option."""


@dataclass(frozen=True, kw_only=True)
class Rating(Row):
    """A number for one sample."""

    x: Text
    x_id: str = ""
    value: float
    axis: str = ""
    """What was rated; empty: overall quality"""


@dataclass(frozen=True, kw_only=True)
class Label(Row):
    """A class for one sample."""

    x: Text
    x_id: str = ""
    value: str
    """Unpaired feedback and correctness: 'good' or 'bad'; else the source's own class."""


@dataclass(frozen=True, kw_only=True)
class Correction(Row):
    """A better version of one sample, written by a person."""

    x: Text
    x_id: str = ""
    better: Text


@dataclass(frozen=True, kw_only=True)
class Demonstration(Row):
    """What a person would answer."""

    x: Text
    x_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Critique(Row):
    """What a person says about one sample."""

    x: Text
    x_id: str = ""
    words: str


class Step(NamedTuple):
    """One candidate for step number `at` of a solution."""

    at: int
    text: str
    label: int | None
    """+1 right, 0 neither right nor wrong, −1 wrong, None unlabelled"""
    chosen: bool = True
    """Whether the solution goes on from this candidate."""
    human: bool = False
    """Whether the person wrote it."""
    flagged: bool = False
    """Whether the person said that they could not judge it."""


@dataclass(frozen=True, kw_only=True)
class Process(Row):
    """A verdict on every step."""

    steps: tuple[Step, ...]
    """By `at`, which counts from 0 without gaps; at most one chosen candidate each."""

    @property
    def path(self) -> tuple[Step, ...]:
        """One candidate a step: the chosen one, else the first."""
        by_place: dict[int, Step] = {}
        for s in self.steps:
            if s.at not in by_place or s.chosen:
                by_place[s.at] = s
        return tuple(by_place[k] for k in sorted(by_place))

    @property
    def first_error(self) -> int | None:
        """0-based index of the first step on the path that is labelled wrong."""
        return next((s.at for s in self.path if s.label == -1), None)


class Span(NamedTuple):
    """Characters [start, end) of a plain text belong to a category of error."""

    start: int
    end: int
    category: str
    explanation: str = ""


@dataclass(frozen=True, kw_only=True)
class Spans(Row):
    """What is wrong where."""

    x: Text
    x_id: str = ""
    spans: tuple[Span, ...]
    missing: tuple[str, ...] = ()
    """Categories of what should have been said."""


TYPES: tuple[type[Row], ...] = (
    Comparison,
    Ranking,
    Rating,
    Label,
    Correction,
    Demonstration,
    Critique,
    Process,
    Spans,
)
KINDS: dict[str, type[Row]] = {t.__name__.lower(): t for t in TYPES}


def kind(row: Row | type[Row]) -> str:
    """'comparison', 'label', …"""
    return (row if isinstance(row, type) else type(row)).__name__.lower()


def swapped(row: Comparison) -> Comparison:
    """The same answer with the two samples in the other order."""
    label = None if row.label is None else 1.0 - row.label
    return dataclasses.replace(row, a=row.b, b=row.a, a_id=row.b_id, b_id=row.a_id, label=label)


def dump(extra: dict[str, Any]) -> str:
    """An `extra` field: JSON with sorted keys."""
    return json.dumps(extra, ensure_ascii=False, sort_keys=True, allow_nan=False)


SAID = "~"
"""Key in `extra`: what was done to a record in reading it, a list of sentences"""


def extra_of(row: Row, source: str) -> dict[str, Any]:
    """What `row` carries for the format `source`; nothing when it came from another one."""
    kept: dict[str, Any] = json.loads(row.extra) if row.source == source else {}
    return kept
