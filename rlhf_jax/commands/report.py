"""`rlhf-jax report FOLDER …`: the page of a run again, or the index of a folder of studies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from rlhf_jax import cli
from rlhf_jax.config import ConfigError

PROG = "rlhf-jax report"


@dataclass(frozen=True)
class Report:
    """Writes pages again, from the files that are there: nothing is computed but numbers of them.

    Of a run: report.html and disclosure.json. Of a folder of studies: index.html and index.md;
    the page of one study is written again by `rlhf-jax study`, which knows what was expected.
    """

    folders: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="FOLDER ...")]
    """Folders of runs (runs/quickstart) or of studies (runs/studies)."""


def work(arguments: list[str]) -> None:
    asked = cli.understood(Report, arguments, prog=PROG)
    if not asked.folders:
        raise ConfigError(f"usage: {PROG} FOLDER ...; see {PROG} --help")
    for folder in asked.folders:
        write(folder)


def write(folder: Path) -> None:
    """The pages of one folder. Raises `ConfigError` where it holds neither a run nor studies."""
    from rlhf_jax.studies import index

    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder")
    try:
        if (folder / "config.json").is_file():
            tell(folder)
        elif next(folder.glob(f"*/{index.SUMMARY}"), None) is not None:
            print(f"index: {index.write(folder)}")
        elif (folder / index.SUMMARY).is_file():
            raise ConfigError(f"{folder}: the page of a study is written by rlhf-jax study")
        else:
            raise ConfigError(f"{folder}: neither a run (config.json) nor finished studies")
    except OSError as problem:
        raise ConfigError(f"{problem.filename or folder}: {problem.strerror}") from None


def tell(run: Path) -> None:
    """Writes a run's page and says what it comes to: a table, where the page is, alarms."""
    from rich.console import Console

    from rlhf_jax import report

    page = report.write_report(run)
    Console().print(report.summary_table(run))
    print(f"report: {page}")
    for line in report.warnings(run):
        print(f"warning: {line}")
