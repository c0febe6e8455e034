"""JSON files that other people wrote: .json or .jsonl, compressed or not, one record at a time."""

from __future__ import annotations

import codecs
import contextlib
import gzip
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from rlhf_jax.config import ConfigError
from rlhf_jax.data.packed import DAMAGED, MARK, head_of, open_file


class Record(NamedTuple):
    line: int
    value: dict[str, Any]


class Malformed(NamedTuple):
    """What could not be read, and where."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}"


CHUNK = 1 << 20
"""Bytes of a list that are read at a time"""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) < len(pairs):
        twice = Counter(k for k, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"field '{twice}' stands twice in one object")
    return out


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number that JSON has")


def _number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{digits} is too large a number")
    return value


SPACE = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_number)
LENIENT = json.JSONDecoder(parse_constant=str, parse_float=str, parse_int=str)


class Bad(ValueError):
    """JSON that cannot be used, though where it ends is known."""

    def __init__(self, reason: str, end: int):
        super().__init__(reason)
        self.end = end


def _decode(source: str, at: int, before: int = 0) -> tuple[Any, int]:
    """(value, index after it); ValueError says in one line why there is none.

    A number that JSON does not have and a field that stands twice are no errors of syntax: they
    raise `Bad`, after which reading can go on.

    Args:
      before: characters of the first line that stand before `source`.
    """
    try:
        value, end = DECODER.raw_decode(source, at)
    except json.JSONDecodeError as e:
        column = e.colno + (before if e.lineno == 1 else 0)
        raise ValueError(f"not JSON: {e.msg} (column {column})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError as e:
        try:
            end = LENIENT.raw_decode(source, at)[1]
        except (ValueError, RecursionError):
            raise e from None
        raise Bad(str(e), end) from None
    if "\\u" in source[at:end]:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise Bad("holds half of a Unicode surrogate pair", end) from None
    return value, end


def _parse(name: str, line: int, data: bytes) -> Record | Malformed:
    try:
        source = data.decode().strip()
        value, end = _decode(source, 0)
        if source[end:].strip():
            raise ValueError(f"not JSON: more than one value (column {end + 1})")
    except UnicodeDecodeError as e:
        return Malformed(name, line, f"not UTF-8 (byte {e.start + 1})")
    except ValueError as e:
        return Malformed(name, line, str(e))
    if not isinstance(value, dict):
        return Malformed(name, line, "not a JSON object")
    return Record(line, value)


def _lines(f: BinaryIO, name: str) -> Iterator[Record | Malformed]:
    for line, data in enumerate(_whole(f, name), 1):
        if isinstance(data, Malformed):
            yield data
        elif data.strip():
            yield _parse(name, line, data)


def _whole(f: BinaryIO, name: str) -> Iterator[bytes | Malformed]:
    """Lines as bytes, the byte-order mark taken off; ends with a `Malformed` if cut off."""
    line = 0
    try:
        for data in f:
            line += 1
            yield data.removeprefix(MARK) if line == 1 else data
    except DAMAGED as e:
        yield _cut(name, line + 1, e)


def _cut(name: str, line: int, e: Exception) -> Malformed:
    return Malformed(name, line, f"data is damaged or cut off, the rest was not read ({e})")


class _Window:
    """The part of a JSON list that is being read; what lies behind is forgotten."""

    def __init__(self, f: BinaryIO, name: str):
        self.file, self.name = f, name
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.line = "", 0, 1
        self.before = 0
        """Characters of the first line that are forgotten"""
        self.size, self.ended = CHUNK, False
        self.damage: Malformed | None = None

    def more(self) -> bool:
        """Reads on, twice as much each time until a value is found; False after the end."""
        if self.ended:
            return False
        last = self.text.rfind("\n", 0, self.at)
        self.before = self.before + self.at if last < 0 else self.at - last - 1
        self.text, self.at = self.text[self.at :], 0
        try:
            data = self.file.read(self.size)
            self.ended = not data
            self.text += self.decoder.decode(data, final=not data)
        except UnicodeDecodeError as e:
            self.text += e.object[: e.start].decode().removeprefix("\ufeff")
            line = self.line + self.text.count("\n")
            self.damage = Malformed(self.name, line, "not UTF-8, the rest was not read")
            self.ended = True
        except DAMAGED as e:
            self.damage = _cut(self.name, self.line + self.text.count("\n"), e)
            self.ended = True
        self.size *= 2
        return True

    def move(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def peek(self) -> str:
        """Goes to the next character that is not white space; it is '' at the end."""
        while True:
            self.move(SPACE.match(self.text, self.at).end())  # type: ignore[union-attr]
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def value(self) -> Record | Malformed:
        """The next value; a ValueError says why it cannot be told where it ends."""
        reason, value = "not a JSON object", cast(Any, None)
        while True:
            try:
                value, end = _decode(self.text, self.at, self.before)
            except Bad as e:
                reason, end = str(e), e.end
            except ValueError:
                if self.more():
                    continue
                raise
            if end < len(self.text) or not self.more():
                break
        line, self.size = self.line, CHUNK
        self.move(end)
        if isinstance(value, dict):
            return Record(line, value)
        return Malformed(self.name, line, reason)


def _array(f: BinaryIO, name: str) -> Iterator[Record | Malformed]:
    """The elements of one JSON list; after a syntax error the rest cannot be found."""
    w = _Window(f, name)
    w.peek()
    w.move(w.at + 1)
    following = "" if w.peek() == "]" else ","
    while following == ",":
        try:
            yield w.value()
        except ValueError as e:
            reason = f"{e}; the rest of the list was not read"
            yield w.damage or Malformed(name, w.line, reason)
            return
        following = w.peek()
        if following == ",":
            w.move(w.at + 1)
            w.peek()
    if w.damage:
        yield w.damage
    elif w.peek() != "]":
        yield Malformed(name, w.line, "the list is not closed, the rest was not read")
    else:
        w.move(w.at + 1)
        if w.peek():
            yield Malformed(name, w.line, "text after the end of the list was not read")


def read_records(path: Path) -> Iterator[Record | Malformed]:
    """Every record of a file in order, or why it is not one.

    A file that begins with '[' is one JSON list, any other has one object a line. A byte-order
    mark, Windows line ends and blank lines are accepted; a list is read a piece at a time.
    Raises `ConfigError` if the file cannot be opened or is of a kind that is not read;
    everything else that is wrong is yielded, an empty file included.
    """
    head = head_of(path)
    empty = True
    with open_file(path) as f:
        for record in (_array if head[:1] == b"[" else _lines)(f, path.name):
            empty = False
            yield record
    if empty:
        yield Malformed(path.name, 1, "the file has no records")


def read_object(path: Path) -> dict[str, Any]:
    """A file that is one JSON object; raises `ConfigError` if it is not."""
    try:
        with open_file(path) as f:
            parsed = _parse(path.name, 1, f.read().removeprefix(MARK))
    except DAMAGED as e:
        raise ConfigError(f"{path}: {_cut(path.name, 1, e).reason}") from None
    if isinstance(parsed, Malformed):
        raise ConfigError(str(parsed))
    return parsed.value


def write_records(path: Path, records: Iterable[Any], *, as_list: bool = False) -> None:
    """One JSON object a line, or one list; gzip if the name ends in .gz. Bytes are reproducible.

    Records are written as they come, to a file beside it that takes the name at the end: what
    stood there stays until the last record is made, and nothing is left where one cannot be. A
    pipe or device is written to itself.
    """
    file = os.path.isfile(path) or not os.path.exists(path)
    path = Path(os.path.realpath(path)) if file else path  # a pipe's real path cannot be opened
    part = path.with_name(path.name + ".part") if file else path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as raw:
            if path.suffix == ".gz":
                with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as f:
                    _write(f, records, as_list)
            else:
                _write(raw, records, as_list)
        if file:
            os.replace(part, path)
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror or e}") from None
    finally:
        if file:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)


def _write(f: BinaryIO | gzip.GzipFile, records: Iterable[Any], as_list: bool) -> None:
    start, between, end = (b"[\n", b",\n", b"\n]\n") if as_list else (b"", b"\n", b"\n")
    for i, record in enumerate(records):
        data = json.dumps(record, ensure_ascii=False, allow_nan=False).encode()
        f.write((between if i else start) + data)
        start = between
    f.write(end if start is between else (start + end) if as_list else b"")
