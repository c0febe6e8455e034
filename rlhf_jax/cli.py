"""The command line: a configuration file, typed overrides, and errors in one line.

Nothing heavy is imported before the configuration is known to be good, so that `--help`
and mistakes answer at once.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rlhf_jax import signals, streams
from rlhf_jax.config import Config, ConfigError
from rlhf_jax.validate import validate

BAD_INPUT, FAILED = 2, 1


def parse(arguments: Sequence[str], prog: str) -> Config:
    """`CONFIG [--field.path value …]` → a validated configuration.

    Raises:
      ConfigError: anything about the arguments or the file that cannot be used.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        override(Config(), arguments[:1], f"{prog} CONFIG")
    if not arguments or arguments[0].startswith("-"):
        raise ConfigError(f"usage: {prog} CONFIG [--field.path value ...]; see CONFIG --help")
    return validate(override(read_config(Path(arguments[0])), arguments[1:], prog))


def read_config(path: Path) -> Config:
    """The `config` that a Python file defines.

    Raises:
      ConfigError: no such file, it does not run, or it defines no `Config` that can be run.
    """
    import runpy

    if not path.is_file():
        raise ConfigError(f"{path}: no such configuration file")
    try:
        found = runpy.run_path(str(path)).get("config")
    except (Exception, SystemExit) as problem:  # whatever the user's file raises
        raise ConfigError(f"{path}: {type(problem).__name__}: {problem}") from None
    if not isinstance(found, Config):
        raise ConfigError(f"{path}: must define `config = Config(...)`")
    return validate(found)


def override(config: Config, arguments: Sequence[str], prog: str) -> Config:
    """`config` with the fields that the arguments name. Raises `ConfigError` in one line."""
    import tyro

    switches = (tyro.conf.FlagConversionOff,)
    return understood(Config, arguments, prog=prog, default=config, config=switches)


def understood(kind: Any, arguments: Sequence[str], **described: Any) -> Any:
    """`tyro.cli`, but what is wrong with the arguments is a `ConfigError` in one line."""
    import tyro

    wide = os.environ.get("COLUMNS")
    said = io.StringIO()
    try:
        if not {"-h", "--help"} & set(arguments):
            os.environ["COLUMNS"] = "1000"  # one line a sentence, whatever the terminal
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=list(arguments), **described)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(_sentence(said.getvalue())) from None
    finally:
        if wide is None:
            os.environ.pop("COLUMNS", None)
        else:
            os.environ["COLUMNS"] = wide


def _sentence(panel: str) -> str:
    """What a boxed complaint says, in one line."""
    lines = [line.strip("│╭╮╰╯ ").strip() for line in panel.splitlines()]
    lines = [line for line in lines if line]
    is_rule = lambda line: set(line) <= set("─-")
    if len(lines) > 1 and is_rule(lines[1]):
        del lines[0]  # where output is not UTF-8 the title stands over a line of dashes
    body = [line for line in lines if not is_rule(line) and "─" not in line]
    body = [line for line in body if not line.startswith("For full helptext")]
    if not body:
        return "the arguments cannot be read"
    if body[0].startswith("Missing from"):
        missing = [line for line in body[1:] if re.match(r"--|[A-Z|_-]+$", line)]
        return f"{body[0]} {', '.join(missing)}"
    hint = next((i for i, line in enumerate(body) if line.startswith("Perhaps you meant")), None)
    if hint is not None and hint + 1 < len(body):
        return f"{body[0]} (did you mean {body[hint + 1].split()[0]}?)"
    return body[0]


def process(work: Callable[[list[str]], None]) -> NoReturn:
    """`main` for a process that does nothing else; called before anything heavy is imported.

    Ctrl-C, SIGTERM and SIGHUP are noted from here to the end, for `work` to stop where
    everything is saved; nobody need read what it says.
    """
    streams.guard()
    if "--debug" not in sys.argv:
        streams.hush()
    signals.listen()
    # XLA says "Very slow compile?" to terminals; what fails raises, and is said in one line.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    code = main(work, sys.argv[1:])
    signals.deafen()
    if code == 0 and signals.asked():
        code = 128 + signals.asked()
        print("asked to stop when all was done: nothing is missing", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def answer(work: Callable[[list[str]], None]) -> NoReturn:
    """`main` for a short process of which standard output is the result.

    Nobody need read it to the end, but where it cannot be written that is an error. Ctrl-C
    stops it at once, for there is nothing to save.
    """
    streams.guard()
    code = main(work, sys.argv[1:])
    sys.stdout.flush()
    lost = getattr(sys.stdout, "lost", None)
    if code == 0 and lost is not None and lost.errno != errno.EPIPE:
        print(f"error: standard output: {lost.strerror}", file=sys.stderr)
        code = FAILED
    sys.stderr.flush()
    sys.exit(code)


def main(work: Callable[[list[str]], None], arguments: Sequence[str]) -> int:
    """Runs `work` and turns what goes wrong into one line and an exit code.

    2: bad input; 1: the run failed; 130, 143: stopped by Ctrl-C, by SIGTERM. `--debug` shows
    the traceback of what failed instead.
    """
    rest = [a for a in arguments if a != "--debug"]
    debug = len(rest) != len(arguments)
    if not debug:
        warnings.showwarning = _say
    with contextlib.suppress(AttributeError):  # a stream that a test put there
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        work(rest)
    except signals.Interrupted as stop:
        print(" ".join(str(stop).split()), file=sys.stderr)
        return 128 + (signals.asked() or signal.SIGINT)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception as problem:
        if debug:
            raise
        if isinstance(problem, ConfigError):
            print("error:", " ".join(str(problem).split()), file=sys.stderr)
            return BAD_INPUT
        print(f"error: {_reason(problem)}", file=sys.stderr)
        return FAILED
    return 0


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in the code that gave it."""
    print("warning:", " ".join(str(message).split()), file=sys.stderr)


def _reason(problem: Exception) -> str:
    first = (str(problem).strip().splitlines() or [""])[0]
    if _is_full(problem):
        return (
            "no space is left on the disk; what was saved is kept, and once there is space the "
            "same command goes on"
        )
    if type(problem).__name__ == "Diverged":
        return first
    return f"{type(problem).__name__}: {first}; --debug shows where"


def _is_full(problem: BaseException | None) -> bool:
    """Orbax says it in words alone, below errors of its own."""
    if problem is None:
        return False
    said = isinstance(problem, OSError) and problem.errno in (errno.ENOSPC, errno.EDQUOT)
    said = said or os.strerror(errno.ENOSPC) in str(problem)
    return said or _is_full(problem.__cause__ or problem.__context__)


def command(arguments: Sequence[str], prog: str) -> str:
    """The command line as it can be typed again."""
    return shlex.join(["python", prog, *arguments])
