"""`rlhf-jax COMMAND …` and `python -m rlhf_jax COMMAND …`: finds the command and hands over.

A command is imported when it is known and when signals are heard, so that `--help` and mistakes
answer at once and Ctrl-C during an import is not lost.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from functools import partial
from typing import NoReturn

from rlhf_jax import cli
from rlhf_jax.config import ConfigError

PROG = "rlhf-jax"
COMMANDS = {
    "train": "runs what a configuration describes and writes its report",
    "study": "runs a study, arms × an axis × seeds, and writes its page",
    "report": "writes the page of a run again, or the index of a folder of studies",
    "data": "reads, converts and describes files of real feedback",
    "bench": "measures how fast the kernels are on this machine",
}
LASTING = ("train", "study")
"""Commands that take long and save as they go: signals stop them where everything is saved."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command that the first of `arguments` (the process's own) names, and exits."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = next((word for word in words if word != "--debug"), "")
    if name not in COMMANDS:
        cli.answer(_else, words)
    words.remove(name)
    end = cli.process if name in LASTING else cli.answer
    end(partial(_command, name), words)


def _command(name: str, arguments: list[str]) -> None:
    importlib.import_module(f"rlhf_jax.commands.{name}").work(arguments)


def _else(arguments: list[str]) -> None:
    """No command: help, or what is wrong."""
    said = arguments[0] if arguments else ""
    if said in ("-h", "--help"):
        print(usage())
    elif not said or said.startswith("-"):
        raise ConfigError(f"usage: {PROG} COMMAND ...; {PROG} --help lists the commands")
    else:
        raise ConfigError(f"{said}: no such command{cli.near(said, list(COMMANDS))}")


def usage() -> str:
    """What `rlhf-jax --help` says."""
    return "\n".join(
        [
            f"usage: {PROG} COMMAND ...",
            "",
            "A laboratory for reinforcement learning from human feedback.",
            "",
            *(f"  {name:<8}{said}" for name, said in COMMANDS.items()),
            "",
            f"{PROG} COMMAND --help says more; --debug shows where an error comes from.",
            f"To begin with: {PROG} train quickstart",
            "",
            f"Configurations for train: {', '.join(cli.names(cli.shipped()))}.",
            f"Studies for study: {', '.join(cli.names(cli.shipped('studies')))}.",
        ]
    )


if __name__ == "__main__":
    main()
