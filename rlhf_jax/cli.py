"""The command line: a configuration, typed overrides, help, and errors in one line.

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
import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from rlhf_jax import signals, streams
from rlhf_jax.config import Config, ConfigError, leaves
from rlhf_jax.validate import validate

BAD_INPUT, FAILED = 2, 1


STARTS = {
    "name": "names the run and its folder",
    "seeds": "runs at once; intervals are over them",
    "rounds": "how often people are asked and all is fitted",
    "collect.feedback": "what people are asked for",
    "collect.budget": "samples that people read in each round",
    "human.rationality": "inf: people choose what they like; 0: a coin",
    "reward.steps": "at most, to fit the reward in each round",
    "learner": "what optimises the policy",
    "LEARNER.iterations": "its steps in each round",
    "LEARNER.kl_weight": "price of a nat away from the base model",
    "run.directory": "where the folders of runs are",
}
"""The settings that people start with, and what `--help` says of them."""


def parse(arguments: Sequence[str], prog: str) -> Config:
    """`CONFIG [--field.path value …]` → a validated configuration.

    CONFIG is a file, or the name of one that is shipped. `--help` tells of a few settings and
    `--help-all` of every one; both end the process.

    Raises:
      ConfigError: anything about the arguments or the file that cannot be used.
    """
    given = [a for a in arguments if a not in ("-h", "--help", "--help-all")]
    name = given[0] if given and not given[0].startswith("-") else ""
    if "--help-all" in arguments:
        config = read_config(configuration(name)) if name else Config()
        override(config, ["--help"], f"{prog} {name or 'CONFIG'}")
    if {"-h", "--help"} & set(arguments):
        config = parse(given, prog) if name else Config()
        print(starts(config, prog, name))
        raise SystemExit(0)
    if not name:
        raise ConfigError(f"usage: {prog} CONFIG [--field.path value ...]; see {prog} --help")
    return validate(override(read_config(configuration(name)), given[1:], prog))


def configuration(said: str) -> Path:
    """The file of a configuration that is named by its path, or shipped under that name."""
    return located(said, shipped(), "configuration")


def shipped(kind: str = "") -> Path:
    """The folder of the configurations, or of their `kind`, that come with the package.

    It is `configs` inside the package where that was installed, beside it in a checkout.
    """
    package = Path(__file__).parent
    inside = package / "configs"
    return (inside if inside.is_dir() else package.parent / "configs") / kind


def names(folder: Path) -> list[str]:
    """What may be said for the files of a folder."""
    return sorted(p.stem for p in folder.glob("[!_]*.py"))


def located(said: str, folder: Path, what: str) -> Path:
    """The file at the path `said`, or the one of `folder` with that name.

    Raises:
      ConfigError: it is neither; the names that are near it are said.
    """
    path = Path(said)
    if path.is_file():
        return path
    if not re.fullmatch(r"[\w-]+", said):
        raise ConfigError(f"{path}: no such {what} file")
    known = names(folder)
    if said.replace("-", "_") in known:
        return folder / f"{said.replace('-', '_')}.py"
    raise ConfigError(f"{said}: neither a file nor a shipped {what}{near(said, known)}")


def near(said: str, known: Sequence[str]) -> str:
    """A hint at what was meant, to end a sentence with: names that are near, or all of them."""
    import difflib

    close = difflib.get_close_matches(said, known)
    if close:
        return f" (did you mean {' or '.join(close)}?)"
    return f" (there are {', '.join(known)})" if known else ""


def starts(config: Config, prog: str, name: str = "") -> str:
    """Help in short: the settings that people start with, as they are in `config`."""
    rows = starting(config)
    flags = [f"--{path.replace('_', '-')}" for path in rows]
    values = [_shown(leaves(config)[path]) for path in rows]
    wide, wider = max(map(len, flags)), max(map(len, values))
    table = [
        f"  {flag:<{wide}}  {value:<{wider}}  {said}"
        for flag, value, said in zip(flags, values, rows.values(), strict=True)
    ]
    one_of = [
        textwrap.fill(f"{path} is one of {', '.join(options)}.", 79)
        for path in rows
        if (options := _options(path))
    ]
    said = name or "CONFIG"
    which = (
        f"CONFIG is {', '.join(names(shipped()))}, or the path of a Python file that defines "
        "`config = Config(...)`.\n\n"
    )
    return "\n".join(
        [
            f"usage: {prog} {said} [--SETTING VALUE ...]",
            "",
            f"{'' if name else which}What people start with, and what it is "
            f"{f'in {name}' if name else 'unless CONFIG says otherwise'}:",
            "",
            *table,
            "",
            *one_of,
            "Several values are a sweep, where a setting allows it: --human.rationality 0.5 1 2",
            "",
            f"All settings: {prog} {said} --help-all",
        ]
    )


def starting(config: Config) -> dict[str, str]:
    """{path: what it is} of the settings that people start with and this configuration reads."""
    section = {"imitation": "bestofn"}.get(config.learner, config.learner)
    said = {path.replace("LEARNER", section): line for path, line in STARTS.items()}
    return {path: line for path, line in said.items() if path in leaves(config)}


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _options(path: str) -> tuple[str, ...]:
    """What a setting may be, where it is one of a few words."""
    kind: Any = Config
    for part in path.split("."):
        kind = get_type_hints(kind)[part]
    return get_args(kind) if get_origin(kind) is Literal else ()


def read_config(path: Path) -> Config:
    """The `config` that a Python file defines.

    Raises:
      ConfigError: no such file, it does not run, or it defines no `Config` that can be run.
    """
    import runpy

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
    if body[0].endswith(":") and len(body) > 1:  # one below the other, each with its place
        body[0] += f" {body[1].split()[0]}"
    known = next((line for line in body if line.startswith("Available subcommands: ")), "")
    stray = re.search(r"options: ([^\s,]+)", body[0])
    if known and stray and not stray[1].startswith("-"):
        _, *words = re.split(r": |, ", known)
        return f"{stray[1]}: no such command{near(stray[1], words)}"
    hint = next((i for i, line in enumerate(body) if line.startswith("Perhaps you meant")), None)
    if hint is not None and hint + 1 < len(body):
        return f"{body[0]} (did you mean {body[hint + 1].split()[0]}?)"
    return body[0]


def process(work: Callable[[list[str]], None], arguments: Sequence[str] | None = None) -> NoReturn:
    """`main` for a process that does nothing else; called before anything heavy is imported.

    Ctrl-C, SIGTERM and SIGHUP are noted from here to the end, for `work` to stop where
    everything is saved; nobody need read what it says.
    """
    given = sys.argv[1:] if arguments is None else arguments
    streams.guard()
    if "--debug" not in given:
        streams.hush()
    signals.listen()
    # XLA says "Very slow compile?" to terminals; what fails raises, and is said in one line.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    code = main(work, given)
    signals.deafen()
    if code == 0 and signals.asked():
        code = 128 + signals.asked()
        print("asked to stop when all was done: nothing is missing", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def answer(work: Callable[[list[str]], None], arguments: Sequence[str] | None = None) -> NoReturn:
    """`main` for a short process of which standard output is the result.

    Nobody need read it to the end, but where it cannot be written that is an error. Ctrl-C
    stops it at once, for there is nothing to save.
    """
    streams.guard()
    code = main(work, sys.argv[1:] if arguments is None else arguments)
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
    """The command line as it can be typed again: `prog` is `rlhf-jax` and a command.

    A path that led to `rlhf-jax` is kept if it was relative, `.venv/bin/rlhf-jax`; what was
    found on PATH has none.
    """
    started, (name, *rest) = Path(sys.argv[0]), prog.split()
    if started.stem == name and not started.is_absolute():
        return shlex.join([str(started), *rest, *arguments])
    return shlex.join([name, *rest, *arguments])
