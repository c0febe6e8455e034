"""What a file is packed in: plain, gzip, bzip2 or xz; other kinds are refused by name."""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from rlhf_jax.config import ConfigError
from rlhf_jax.data.unread import known

OPENERS: dict[bytes, Callable[[Path, str], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
NOT_READ = {
    b"\x28\xb5\x2f\xfd": "zstd data is not read; unpack it first (zstd -d)",
    b"PK\x03\x04": "a zip archive is not read; unpack it first",
    b"PAR1": "Parquet is not read; write it as JSON lines first",
    b"ARROW1": "Arrow is not read; write it as JSON lines first",
    b"\xff\xfe": "UTF-16 is not read; write it as UTF-8 first",
    b"\xfe\xff": "UTF-16 is not read; write it as UTF-8 first",
}
DAMAGED = (EOFError, OSError, zlib.error, lzma.LZMAError)
MARK = b"\xef\xbb\xbf"
"""Of byte order, which some programs write before UTF-8"""


def _magic(path: Path) -> bytes:
    try:
        with open(path, "rb") as f:
            return f.read(8)
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror or e}") from None


def open_file(path: Path) -> BinaryIO:
    """The bytes of a file, decompressed if they begin as gzip, bzip2 or xz do."""
    start = _magic(path)
    opener: Any = next((o for mark, o in OPENERS.items() if start.startswith(mark)), open)
    try:
        f: BinaryIO = opener(path, "rb")
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror or e}") from None
    return f


def head_of(path: Path) -> bytes:
    """The first bytes of a file; raises `ConfigError` where it is no JSON of any kind."""
    start = _magic(path)
    reason = next((r for mark, r in NOT_READ.items() if start.startswith(mark)), "")
    with open_file(path) as f:
        try:
            head = f.read(4096).removeprefix(MARK).lstrip()
        except DAMAGED:
            head = b""
    if re.search(r"\.[ct]sv\b", path.name.lower()) and head[:1] not in (b"{", b"["):
        columns = head.partition(b"\n")[0].decode(errors="replace").strip()
        reason = f"CSV is not read (columns {columns}); write it as JSON lines first"
        seems = known(dict.fromkeys(re.split(r"[,\t;]", columns.replace('"', ""))))
        reason = f"{seems}; {reason}" if seems else reason
    if re.match(rb"\{\s*\n\s*\"", head):
        reason = "an object over several lines is not read; write one object a line, or a list"
    if reason:
        raise ConfigError(f"{path}: {reason}")
    return head
