"""Standard output and error as a courtesy: a run goes on without anyone to read them."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any, TextIO


class Courtesy(io.TextIOBase):
    """A stream whose failures are nobody's: a closed pipe, a full disk, a stream that is none."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            if self._stream is not None:
                self._stream.write(text)
        except (OSError, ValueError):  # ValueError: it was closed
            self._lose()
        return len(text)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError):
            self._lose()

    def _lose(self) -> None:
        """What still waits in its buffer goes nowhere, or Python's end would complain of it."""
        lost, self._stream = self._stream, None
        with contextlib.suppress(OSError, ValueError):
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, lost.fileno())  # type: ignore[union-attr]
            os.close(nothing)

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("this stream has been closed")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return getattr(self._stream, "encoding", None) or "utf-8"

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return getattr(self._stream, "errors", None)

    def reconfigure(self, **options: Any) -> None:
        if isinstance(self._stream, io.TextIOWrapper):
            self._stream.reconfigure(**options)


def guard() -> None:
    """Makes standard output and error such streams, for the rest of this process.

    A standard stream that was closed (`2>&-`) is opened on nothing: else the next file that is
    opened, a log of the run perhaps, takes its number, and whatever C++ says is written there.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdout, sys.stderr = Courtesy(sys.stdout), Courtesy(sys.stderr)
