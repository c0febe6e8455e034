"""Standard output and error as a courtesy: a run goes on without anyone to read them."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
import types
from typing import Any, TextIO


class Courtesy(io.TextIOBase):
    """A stream whose failures are nobody's: a closed pipe, a full disk, a stream that is none."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self.lost: OSError | None = None
        """Why nothing is written any more, if the system said"""

    def write(self, text: str) -> int:
        try:
            if self._stream is not None:
                self._stream.write(text)
        except (OSError, ValueError) as problem:  # ValueError: it was closed
            self._lose(problem)
        return len(text)

    def flush(self) -> None:
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError) as problem:
            self._lose(problem)

    def _lose(self, problem: OSError | ValueError) -> None:
        """What still waits in its buffer goes nowhere, or Python's end would complain of it."""
        self.lost = problem if isinstance(problem, OSError) else None
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


_RAISED = ("absl", "asyncio")
"""Loggers of what is raised as well."""


def hush() -> None:
    """Nothing of what libraries' threads and finalisers complain of, for the rest of this process.

    A full disk makes hundreds of such lines, and what matters of it is raised again where the
    save is waited for. Libraries' log lines are warnings of one line each, but for those of
    Orbax and of its event loops, whose errors are raised.
    """

    def in_main(
        kind: type[BaseException], e: BaseException, at: types.TracebackType | None
    ) -> None:
        # C++ threads print through it too.
        if threading.current_thread() is threading.main_thread():
            sys.__excepthook__(kind, e, at)

    sys.excepthook = in_main
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None
    lines = logging.StreamHandler(_Now())
    lines.addFilter(lambda record: record.levelno > logging.INFO and record.name not in _RAISED)
    lines.setFormatter(_OneLine("warning: %(message)s"))
    logging.getLogger().addHandler(lines)


class _Now(io.TextIOBase):
    """Standard error as it is when something is written: a live display puts its own there."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.exc_info = record.exc_text = record.stack_info = None
        return " ".join(super().format(record).split())
