"""JSON files that other people wrote: .json or .jsonl, gzip or not, one record at a time."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rlhf_jax.config import ConfigError


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


def open_file(path: Path) -> BinaryIO:
    """The bytes of a file, decompressed if they begin as gzip does."""
    try:
        with open(path, "rb") as f:
            zipped = f.read(2) == b"\x1f\x8b"
        return gzip.open(path, "rb") if zipped else open(path, "rb")  # type: ignore[return-value]
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror or e}") from None


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


def _decode(source: str, at: int) -> tuple[Any, int]:
    """(value, index after it); ValueError says in one line why there is none."""
    try:
        value, end = DECODER.raw_decode(source, at)
    except json.JSONDecodeError as e:
        raise ValueError(f"not JSON: {e.msg} (column {e.colno})") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in source[at:end]:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("holds half of a Unicode surrogate pair") from None
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
    """Lines as bytes, the byte-order mark taken off; ends with a `Malformed` if gzip is cut off."""
    line = 0
    try:
        for data in f:
            line += 1
            yield data.removeprefix(b"\xef\xbb\xbf") if line == 1 else data
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        reason = f"gzip data is damaged or cut off, the rest was not read ({e})"
        yield Malformed(name, line + 1, reason)


def _array(f: BinaryIO, name: str) -> Iterator[Record | Malformed]:
    pieces = list(_whole(f, name))
    try:
        source = b"".join(p for p in pieces if isinstance(p, bytes)).decode()
    except UnicodeDecodeError as e:
        yield Malformed(name, e.object.count(b"\n", 0, e.start) + 1, "not UTF-8")
        return
    yield from (p for p in pieces if isinstance(p, Malformed))
    yield from _elements(source, name)


def _skip(source: str, at: int) -> int:
    """Index of the first character from `at` that is not white space."""
    return SPACE.match(source, at).end()  # type: ignore[union-attr]


def _elements(source: str, name: str) -> Iterator[Record | Malformed]:
    """The elements of one JSON list; after a syntax error the rest cannot be found."""
    at = _skip(source, source.index("[") + 1)
    line, counted = 1, 0
    while source[at : at + 1] != "]" or counted:
        line, counted = line + source.count("\n", counted, at), at
        try:
            value, at = _decode(source, at)
        except ValueError as e:
            yield Malformed(name, line, f"{e}; the rest of the list was not read")
            return
        kept = isinstance(value, dict)
        yield Record(line, value) if kept else Malformed(name, line, "not a JSON object")
        at = _skip(source, at)
        if source[at : at + 1] != ",":
            break
        at = _skip(source, at + 1)
    if source[at : at + 1] != "]":
        yield Malformed(name, line, "the list is not closed, the rest was not read")
    elif source[at + 1 :].strip():
        yield Malformed(name, line, "text after the end of the list was not read")


def read_records(path: Path) -> Iterator[Record | Malformed]:
    """Every record of a file in order, or why it is not one.

    A file that begins with '[' is one JSON list, any other has one object a line. A byte-order
    mark, Windows line ends and blank lines are accepted. Raises `ConfigError` if the file
    cannot be opened; everything else that is wrong is yielded, an empty file included.
    """
    with open_file(path) as f:
        try:
            head = f.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
        except (EOFError, zlib.error, gzip.BadGzipFile):
            head = b""
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
            parsed = _parse(path.name, 1, f.read().removeprefix(b"\xef\xbb\xbf"))
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise ConfigError(f"{path}: gzip data is damaged or cut off ({e})") from None
    if isinstance(parsed, Malformed):
        raise ConfigError(str(parsed))
    return parsed.value


def write_records(path: Path, records: list[Any], *, as_list: bool = False) -> None:
    """One JSON object a line, or one list; gzip if the name ends in .gz. Bytes are reproducible."""
    lines = [json.dumps(r, ensure_ascii=False, allow_nan=False) for r in records]
    body = "[\n" + ",\n".join(lines) + "\n]\n" if as_list else "".join(x + "\n" for x in lines)
    data = body.encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror or e}") from None
