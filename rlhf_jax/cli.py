"""The command line: a configuration file, typed overrides, and errors in one line.

Nothing heavy is imported before the configuration is known to be good, so that `--help`
and mistakes answer at once.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rlhf_jax.config import Config, ConfigError
from rlhf_jax.validate import validate

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130


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

    wide = os.environ.get("COLUMNS")
    said = io.StringIO()
    try:
        if not {"-h", "--help"} & set(arguments):
            os.environ["COLUMNS"] = "1000"  # one line a sentence, whatever the terminal
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                Config,
                default=config,
                args=list(arguments),
                prog=prog,
                config=(tyro.conf.FlagConversionOff,),
            )
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
    hint = next((i for i, line in enumerate(body) if line.startswith("Perhaps you meant")), None)
    if hint is not None and hint + 1 < len(body):
        return f"{body[0]} (did you mean {body[hint + 1].split()[0]}?)"
    return body[0]


def main(work: Callable[[list[str]], None], arguments: Sequence[str]) -> int:
    """Runs `work` and turns what goes wrong into one line and an exit code.

    2: bad input; 1: the run failed; 130: interrupted. `--debug` shows the traceback instead.
    """
    rest = [a for a in arguments if a != "--debug"]
    if len(rest) != len(arguments):
        work(rest)
        return 0
    warnings.showwarning = _say
    with contextlib.suppress(AttributeError):  # a stream that a test put there
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        work(rest)
    except ConfigError as problem:
        print("error:", " ".join(str(problem).split()), file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("stopped; the last checkpoint is kept", file=sys.stderr)
        return INTERRUPTED
    except Exception as problem:
        print(f"error: {_reason(problem)}; --debug shows where", file=sys.stderr)
        return INTERRUPTED if type(problem).__name__ == "Interrupted" else FAILED
    return 0


def _say(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in the code that gave it."""
    print("warning:", " ".join(str(message).split()), file=sys.stderr)


def _reason(problem: Exception) -> str:
    first = (str(problem).strip().splitlines() or [""])[0]
    known = type(problem).__name__ in ("Diverged", "Interrupted")
    return first if known else f"{type(problem).__name__}: {first}"


def command(arguments: Sequence[str], prog: str) -> str:
    """The command line as it can be typed again."""
    return shlex.join(["python", prog, *arguments])
