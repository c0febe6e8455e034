"""The command line of `rlhf-jax study`: which studies, in which form; free of JAX."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

from tyro import conf

from rlhf_jax import cli
from rlhf_jax.config import ConfigError
from rlhf_jax.studies import plan, verdicts
from rlhf_jax.study import Study, fresh, quickened, shuffled

Switch = Annotated[bool, conf.FlagCreatePairsOff]


@dataclass(frozen=True)
class Options:
    """Runs studies and writes their pages and an index of all.

    What is finished is kept, so the same command goes on where a study was stopped, and costs
    nothing once all is done. Ends in DIRECTORY/NAME/study.html and DIRECTORY/index.html.
    """

    studies: Annotated[conf.Positional[tuple[str, ...]], conf.arg(metavar="STUDY ...")] = ()
    """Names of shipped studies, or paths of files that define `study = Study(...)`."""
    all: Switch = False
    """Every shipped study."""
    quick: Switch = False
    """The short form that each study defines; kept apart under NAME-quick."""
    shuffled: Switch = False
    """The negative control: answers are dealt anew over the items that were asked about, so that
    they say nothing; kept apart under NAME-shuffled."""
    fresh: Switch = False
    """The confirmation: the same on seeds from 1,000 on, which nobody has seen, for claims that
    were stated after their data; kept apart under NAME-fresh."""
    seeds: int = 0
    """This many seeds instead of the study's own; 0: its own."""
    only: str = ""
    """Makes the runs of this arm alone; verdicts that need others wait."""
    single: Switch = False
    """Also runs one seed by itself, to state what the population saves."""
    directory: Path = Path("runs/studies")
    """Where runs and pages go."""


class Asked(NamedTuple):
    """What a command line asks for, checked."""

    studies: tuple[Study, ...]
    only: str
    """An arm; empty: all."""
    single: bool
    root: Path


def parse(arguments: Sequence[str], folder: Path, prog: str = "rlhf-jax study") -> Asked:
    """`STUDY … [--all] [--quick] …` → studies that can be run; `folder` holds the shipped ones.

    Raises: `ConfigError` for anything about the arguments or the files that cannot be used.
    """
    known = ", ".join(cli.names(folder))
    about = f"{inspect.cleandoc(Options.__doc__ or '')}\n\nShipped: {known}."
    given = cli.understood(Options, arguments, prog=prog, description=about)
    said = cli.names(folder) if given.all else given.studies
    if not said or (given.all and given.studies):
        raise ConfigError(f"name one or more studies ({known}, or a file), or --all")
    studies = [read(cli.located(name, folder, "study")) for name in said]
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

    try:
        found = runpy.run_path(str(path)).get("study")
    except (Exception, SystemExit) as problem:  # whatever the file raises
        raise ConfigError(f"{path}: {type(problem).__name__}: {problem}") from None
    if not isinstance(found, Study):
        raise ConfigError(f"{path}: must define `study = Study(...)`")
    verdicts.check(found)
    return found
