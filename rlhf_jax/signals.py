"""Ctrl-C, SIGTERM and SIGHUP ask a run to save and stop; it reads at safe points that it was asked.

A handler that raises would do so anywhere: inside an import, which may swallow it, or while
C++ is at work, which may not survive it. So a signal is only noted, by a thread that hears it
while an import or a compilation keeps the main one busy. The second Ctrl-C ends the process
there and then: what is on the disk is whole at any moment.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading

HEARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(RuntimeError):
    """The work was stopped by a signal at a safe point. The message says how to go on."""


_asked: list[int] = []


def asked() -> int:
    """The signal that asked this process to stop, or 0."""
    return _asked[0] if _asked else 0


def check(done: str) -> None:
    """Raises `Interrupted` if the process was asked to stop; `done` says what that leaves."""
    if _asked:
        raise Interrupted(f"stopped by {signal.Signals(_asked[0]).name} {done}")


def listen() -> None:
    """From here on signals are noted. For a process that does nothing else, in its main thread.

    What is ignored stays so: `nohup` and shells that start a job in the background mean it.
    """
    ear, mouth = os.pipe()
    os.set_blocking(mouth, False)
    for number in HEARD:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(mouth, warn_on_full_buffer=False)
    threading.Thread(target=_note, args=(ear,), name="signals", daemon=True).start()


def _note(ear: int) -> None:
    while heard := os.read(ear, 1):
        number = heard[0]
        if number not in HEARD:
            continue
        if number == signal.SIGINT and signal.SIGINT in _asked:
            _say("stopped at once; the last checkpoint is kept")
            os._exit(128 + number)
        _asked.append(number)
        if len(_asked) == 1 and os.isatty(2):
            _say("stopping after this step; Ctrl-C again stops at once")


def _say(text: str) -> None:
    """Past Python's streams, whose lock the main thread may hold; the cursor may be hidden."""
    with contextlib.suppress(OSError):
        os.write(2, (f"\033[?25h\n{text}\n" if os.isatty(2) else f"{text}\n").encode())


def deafen() -> None:
    """The work is done and a process is about to end: nothing is left to be stopped."""
    for number in HEARD:
        signal.signal(number, signal.SIG_IGN)
