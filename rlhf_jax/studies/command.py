"""The command line of `scripts/study.py`: which studies, in which form; free of JAX."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from rlhf_jax.config import ConfigError
from rlhf_jax.studies import plan, verdicts
from rlhf_jax.study import Study, fresh, quickened, shuffled


class Asked(NamedTuple):
    """What a command line asks for, checked."""

    studies: tuple[Study, ...]
    only: str
    """An arm; empty: all."""
    single: bool
    root: Path


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message)


def parse(arguments: Sequence[str], folder: Path) -> Asked:
    """`STUDY.py … [--all] [--quick] …` → studies that can be run; `folder` holds those of --all.

    Raises: `ConfigError` for anything about the arguments or the files that cannot be used.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--shuffled", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--seeds", type=int, default=0)
    parser.add_argument("--only", default="")
    parser.add_argument("--single", action="store_true")
    parser.add_argument("--directory", type=Path, default=Path("runs/studies"))
    given = parser.parse_args(list(arguments))
    files = sorted(folder.glob("[!_]*.py")) if given.all else given.files
    if not files or (given.all and given.files):
        raise ConfigError("name one or more studies (configs/studies/NAME.py), or --all")
    studies = [read(path) for path in files]
    if given.quick:
        studies = [quickened(s) for s in studies]
    if given.shuffled:
        studies = [shuffled(s) for s in studies]
    if given.seeds:
        studies = [dataclasses.replace(s, seeds=given.seeds) for s in studies]
    if given.fresh:
        studies = [fresh(s) for s in studies]
    for study in studies:
        if given.only and given.only not in study.arms:
            raise ConfigError(
                f"--only {given.only}: {study.name} has the arms {', '.join(study.arms)}"
            )
        plan.chunks(study, given.directory)
    return Asked(tuple(studies), given.only, given.single, given.directory)


def read(path: Path) -> Study:
    """The `study` that a Python file defines.

    Raises: `ConfigError`: no such file, it does not run, or it defines no study that can be run.
    """
    import runpy

    if not path.is_file():
        raise ConfigError(f"{path}: no such study")
    try:
        found = runpy.run_path(str(path)).get("study")
    except (Exception, SystemExit) as problem:  # whatever the file raises
        raise ConfigError(f"{path}: {type(problem).__name__}: {problem}") from None
    if not isinstance(found, Study):
        raise ConfigError(f"{path}: must define `study = Study(...)`")
    verdicts.check(found)
    return found
