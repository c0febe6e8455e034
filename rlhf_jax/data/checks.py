"""Typed access to records that other people wrote."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from types import NoneType
from typing import Any

from rlhf_jax.data.rows import Row, RowError, Text, Turn, text

LARGEST = 2**63 - 1
REQUIRED: Any = object()
NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}


def expect(value: Any, what: str, *kinds: type) -> Any:
    """`value` if it is one of the JSON kinds; `float` takes whole numbers, `int` no booleans."""
    if type(value) in kinds or (float in kinds and type(value) is int):
        if type(value) is int and not -LARGEST <= value <= LARGEST:
            raise RowError(f"{what} is too large a number")
        return value
    wanted = " or ".join(NAMES[k] for k in kinds)
    raise RowError(f"{what} is {NAMES.get(type(value), 'unknown')}, expected {wanted}")


def pop(rest: dict[str, Any], key: str, *kinds: type, default: Any = REQUIRED) -> Any:
    """Takes `key` out of `rest`, checked; what is left in `rest` at the end is `extra`."""
    if key not in rest:
        if default is REQUIRED:
            raise RowError(f"field '{key}' is missing")
        return default
    return expect(rest.pop(key), f"field '{key}'", *kinds)


def texts(value: list[Any], what: str) -> list[str]:
    """A list of strings."""
    return [expect(v, f"{what}[{i}]", str) for i, v in enumerate(value)]


def content(value: Any, what: str) -> Text:
    """A string, or a list of {role, content} messages, as a text."""
    if type(expect(value, what, str, list)) is str:
        return text(value)
    if not value:
        raise RowError(f"{what} is an empty list of messages")
    return tuple(_turn(m, f"{what}[{i}]") for i, m in enumerate(value))


def _turn(message: Any, what: str) -> Turn:
    rest = dict(expect(message, what, dict))
    turn = Turn(pop(rest, "role", str), pop(rest, "content", str))
    if rest:
        raise RowError(f"{what} has '{sorted(rest)[0]}': only role and content can be kept")
    if not turn.role:
        raise RowError(f"{what} has an empty role")
    return turn


def messages(x: Text) -> list[dict[str, str]]:
    """A text as {role, content} messages."""
    return [t._asdict() for t in x]


def digest(record: dict[str, Any]) -> str:
    """A short name for a record that has none."""
    data = json.dumps(record, sort_keys=True, ensure_ascii=False).encode()
    return hashlib.sha256(data).hexdigest()[:16]


def micros(value: str, what: str) -> int:
    """An ISO 8601 time as microseconds since 1970; a time without a zone is UTC."""
    try:
        when = dt.datetime.fromisoformat(value.removesuffix(" UTC"))
    except ValueError:
        raise RowError(f"{what} = {value!r} is not an ISO 8601 time") from None
    when = when if when.tzinfo else when.replace(tzinfo=dt.UTC)
    return (when - EPOCH) // dt.timedelta(microseconds=1)


def moment(value: int) -> dt.datetime:
    """Microseconds since 1970 as a UTC time without a zone."""
    try:
        return (EPOCH + dt.timedelta(microseconds=value)).replace(tzinfo=None)
    except OverflowError:
        raise RowError(f"{value} µs is not a time that can be written") from None


EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def same(rows: list[Row], *names: str) -> None:
    """Raises unless all answers of one record agree on these fields."""
    for name in names:
        if len({getattr(r, name) for r in rows}) > 1:
            raise RowError(f"answers about one item differ in '{name}', one record holds one")


def only(condition: bool, reason: str) -> None:
    """Raises `RowError(reason)` unless the condition holds."""
    if not condition:
        raise RowError(reason)
