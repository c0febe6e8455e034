"""The self-contained page of one run, its disclosure, and the table that ends the run.

Reads only the files of the run directory: config.json, metadata.json, metrics.jsonl and
samples.jsonl. Whatever is absent is left out, and the page says so.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf_jax.report import tables
from rlhf_jax.report.records import read
from rlhf_jax.report.results import results

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["summary_table", "warnings", "write_report"]


def write_report(run_directory: Path) -> Path:
    """Writes `report.html` and `disclosure.json` into the run directory; returns the page.

    Raises: `ConfigError` where config.json or metadata.json is missing, where a row is not what
      a run writes, or where the disclosure does not satisfy its schema.
    """
    from rlhf_jax.report import page
    from rlhf_jax.report.disclosure import disclose

    record = read(run_directory)
    outcome = results(record)
    drawn = page.draw(record, outcome)
    document = disclose(record, outcome, [*record.notes, *drawn.missing])
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    (run_directory / "disclosure.json").write_text(text + "\n", encoding="utf-8")
    target = run_directory / "report.html"
    target.write_text(page.html(record, outcome, document, drawn), encoding="utf-8")
    return target


def summary_table(run_directory: Path) -> Table:
    """Gold before and after, KL, accuracy and non-words; one row a grid point when swept."""
    record = read(run_directory)
    return tables.terminal(record, results(record))


def warnings(run_directory: Path) -> tuple[str, ...]:
    """Alarms of the training and who diverged, a line each: for the end of a run."""
    from rlhf_jax.report import shortcomings

    record = read(run_directory)
    return shortcomings.aloud(record, results(record))
