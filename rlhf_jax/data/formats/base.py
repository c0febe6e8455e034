"""What an importer and its exporter offer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rlhf_jax.config import ConfigError
from rlhf_jax.data.rows import Row


@dataclass(frozen=True)
class Options:
    """What a file does not say about itself."""

    fields: Mapping[str, str] = field(default_factory=dict)
    """Label Studio and Argilla: {our name: the project's own name}; see those files."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """UKPConvArg1: {argument id: its text}."""

    def names(self, default: Mapping[str, str]) -> dict[str, str]:
        """{our name: the project's name}; raises `ConfigError` for one that nobody asks for."""
        for ours in self.fields:
            if ours not in default:
                raise ConfigError(f"field '{ours}': choose from {', '.join(default)}")
        return dict(default) | dict(self.fields)


class Format(NamedTuple):
    """One file format: how a record becomes rows and back."""

    name: str
    about: str
    """What it holds and what it cannot express, in a sentence or two."""
    types: tuple[type[Row], ...]
    """The rows that it can express; others are refused."""
    marks: frozenset[str]
    """Fields by which a record of this format is recognised."""
    read: Callable[[dict[str, Any], Options], list[Row]]
    """A record → its answers; `RowError` says why not."""
    write: Callable[[list[Row], Options], dict[str, Any]]
    """The answers about one thing → a record; `RowError` says why not."""
    key: Callable[[Row], Hashable] | None = None
    """Answers with the same key share a record; None: one answer a record."""
    as_list: bool = False
    """Whether the tools that use it expect one JSON list rather than JSON lines."""


def by_item(row: Row) -> Hashable:
    """Answers about one item of the source share a record."""
    return row.group, row.item


def common(rows: list[Row]) -> dict[str, Any]:
    """The shared fields of the first row, to build others of the same record from."""
    return {f.name: getattr(rows[0], f.name) for f in dataclasses.fields(Row)}
