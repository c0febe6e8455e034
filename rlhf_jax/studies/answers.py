"""From finished runs to a study's answer, and the files that hold it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rlhf_jax.config import ConfigError
from rlhf_jax.report.wording import plural
from rlhf_jax.studies import index, page, tables
from rlhf_jax.studies.costs import Bill, bill
from rlhf_jax.studies.results import Analysis, Results, read
from rlhf_jax.studies.verdicts import Judged, judged
from rlhf_jax.study import Study
from rlhf_jax.verdict import Measured, Verdict


class Answer(NamedTuple):
    """All that a study's pages say."""

    results: Results
    analysis: Analysis
    measured: dict[str, Measured]
    judged: Judged
    bill: Bill


def answer(study: Study, root: Path) -> Answer:
    """The answer of the arms that are finished.

    Raises: `ConfigError` if there are none, or an expectation speaks of what is not there.
    """
    results = read(study, root)
    analysis = _analysis(results)
    measured = results.measured() | dict(analysis.measured)
    return Answer(
        results, analysis, measured, judged(study, measured), bill(study, root, results.arms)
    )


def _analysis(results: Results) -> Analysis:
    """What the study adds; where its numbers do not allow that, a note that says why, so that the
    rest is still written and claims about what was not measured are left unjudged."""
    study = results.study
    if study.analyse is None:
        return Analysis()
    if study.reference not in results.arms:
        return Analysis(notes=[f"The study's own analysis waits for arm {study.reference}."])
    failed = np.any([f.any(axis=0) for f in results.failed.values()], axis=0)
    try:
        made = study.analyse(_left(results, ~failed))
    except ConfigError as problem:
        return Analysis(notes=[f"The study's own analysis could not be made: {problem}."])
    if not failed.any():
        return made
    left = plural(int((~failed).sum()), "seed")
    note = (
        f"The study's own figures and tables are of the {left} that failed in no arm; the other "
        f"{failed.sum()} count as failed in claims about them."
    )
    widened = {k: _widened(m, ~failed) for k, m in made.measured.items()}
    return made._replace(measured=widened, notes=[*made.notes, note])


def _left(results: Results, seeds: np.ndarray) -> Results:
    """The numbers of some seeds. Raises `ConfigError` if there are fewer than two."""
    if seeds.sum() < min(2, len(seeds)):
        raise ConfigError(f"{seeds.sum()} of {len(seeds)} seeds failed in no arm")
    values = {
        metric: {arm: v[:, seeds] for arm, v in arms.items()}
        for metric, arms in results.values.items()
    }
    return results._replace(values=values)


def _widened(m: Measured, seeds: np.ndarray) -> Measured:
    """Numbers of some seeds among all, the rest NaN."""
    arms = {}
    for arm, found in m.arms.items():
        values = np.asarray(found, np.float64)
        arms[arm] = np.full((*values.shape[:-1], len(seeds)), np.nan)
        arms[arm][..., seeds] = values
    return m._replace(arms=arms)


def write(said: Answer, root: Path, command: str) -> Path:
    """Writes the study's page, Markdown and numbers, and the atlas anew; returns the page."""
    folder = root / said.results.study.name
    drawn = page.draw(said.results, said.analysis)
    _write(folder / "study.html", page.html(said, drawn, command))
    _write(folder / "study.md", page.markdown(said, command))
    _write(folder / "results.json", _json(numbers(said)))
    _write(folder / index.SUMMARY, _json(index.summary(said.results, said.judged, drawn)))
    index.write(root)
    return folder / "study.html"


def numbers(said: Answer) -> dict[str, Any]:
    """Every number by seed and every verdict; no clock, so that equal studies are equal.

    A number that is not there, or not finite, is null: strict JSON has no NaN.
    """
    study = said.results.study
    return {
        "study": study.name,
        "axis": study.axis_name,
        "metrics": {
            name: {
                "at": _plain(m.at),
                "arms": {arm: _plain(v) for arm, v in m.arms.items()},
            }
            for name, m in said.measured.items()
        },
        "failed": {arm: f.tolist() for arm, f in said.results.failed.items()},
        "verdicts": [_verdict(v) for v in said.judged.verdicts],
        "control": _verdict(said.judged.positive) if said.judged.positive else None,
        "tables": [tables.markdown(t) for t in page.result_tables(said.results, said.analysis)],
    }


def _verdict(v: Verdict) -> dict[str, Any]:
    return {
        "outcome": v.outcome,
        "sentence": v.sentence,
        "p": v.p,
        "primary": v.expectation.primary,
        "stated": v.expectation.stated,
        "seeds": v.seeds,
    }


def _plain(values: ArrayLike) -> Any:
    """As lists of floats; None where there is no finite number."""
    numbers = np.asarray(values, np.float64)
    plain = numbers.astype(object)
    plain[~np.isfinite(numbers)] = None
    return plain.tolist()


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
