"""A study's numbers as tables: text first, then HTML, Markdown or the terminal."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rlhf_jax import config as cfg
from rlhf_jax.ops import evidence
from rlhf_jax.ops.intervals import Interval
from rlhf_jax.report import tables as report_tables
from rlhf_jax.report.wording import number, setting
from rlhf_jax.studies import treatment as equal
from rlhf_jax.studies.results import Results, Table
from rlhf_jax.studies.verdicts import ENOUGH, Judged, against, centre, mean, whole
from rlhf_jax.study import Metric, Study
from rlhf_jax.verdict import Verdict

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def interval(i: Interval, sign: bool = False) -> str:
    """`1.84 [1.60, 2.01]`; the value alone where there is no interval."""
    value = number(float(i.value), sign=sign)
    if np.isnan(i.low) and np.isnan(i.high):
        return value
    return f"{value} [{number(float(i.low))}, {number(float(i.high))}]"


def _unit(metric: Metric) -> str:
    return f"{metric.label} ({metric.unit})" if metric.unit else metric.label


def shown(results: Results) -> tuple[Metric, ...]:
    return tuple(m for m in results.scalars if m.shown)


def measured(results: Results) -> list[Table]:
    """One table a metric: arms × points."""
    axis, out = results.study.axis, []
    few = _few(results)
    kinds = ["mean", "n"] if few else ["interquartile mean", "mean", "n", "far out"]
    for metric in shown(results):
        rows = []
        for arm in results.arms:
            values = results.of(metric.name, arm)
            if np.isnan(values).all():  # of what this arm has not
                continue
            for i in range(len(values)):
                estimates = [centre(values[i], metric)]
                estimates += [] if few else [mean(values[i], metric)]
                where = [axis.titles[i]] if axis else []
                rows.append([arm, *where, *map(interval, estimates), *_seeds(values[i], few)])
        head = ["arm", *([results.study.axis_name] if axis else []), *kinds]
        out.append(Table(_unit(metric), head, rows))
    return out


def _seeds(values: np.ndarray, few: bool) -> list[str]:
    """`14 of 16`, where two have no number; and how many lie far out, or in which groups."""
    there = values[np.isfinite(values)]
    n, every = len(there), len(values)
    said = [str(n) if n == every else f"{n} of {every}"]
    if few:
        return said
    low = evidence.two_groups(there)
    if low is not None:
        return [*said, f"two groups: {low} + {n - low}"]
    return [*said, str(evidence.far_out(there)) if n else "–"]


FAR_OUT = (
    "Far out: seeds more than 1½ interquartile ranges beyond the quartiles, which the "
    "interquartile mean leaves out. Two groups: a gap of more than three deviations within the "
    "groups parts the seeds, so that neither mean nor interval describes them."
)


def failures(results: Results) -> Table | None:
    """The share of seeds that diverged, arm by arm; nothing where none did."""
    if not any(f.any() for f in results.failed.values()):
        return None
    axis, rows = results.study.axis, []
    for arm in results.arms:
        for i, failed in enumerate(results.failed[arm]):
            where = [axis.titles[i]] if axis else []
            share = f"{int(failed.sum())} of {len(failed)} ({100 * failed.mean():.0f} %)"
            rows.append([arm, *where, share])
    note = (
        "Their numbers stopped being finite. Estimates are of the seeds that are left; in verdicts "
        "those that failed count against whatever would be said."
    )
    head = ["arm", *([results.study.axis_name] if axis else []), "failed"]
    return Table("Seeds that failed", head, rows, note)


def compared(results: Results) -> Table | None:
    """Every arm over the whole axis and beside the baseline; nothing where there is one arm."""
    base, axis = results.study.reference, results.study.axis
    rows = []

    def add(arm: str, metric: Metric, *cells: str) -> None:
        pooled = [interval(whole(results.of(metric.name, arm), metric))] if axis else []
        rows.append([f"{arm}: {metric.label}", *pooled, *cells])

    for metric in shown(results):
        found = against(results, metric)
        if found and axis:
            add(base, metric, "", "")
        for a in found:
            add(a.arm, metric, interval(a.difference, sign=True), interval(a.better))
    if not rows:
        return None
    others = len(results.arms) - 1
    note = (
        f"Mean difference{' over the axis' if axis else ''}, each seed against itself, and the "
        f"probability that the arm is the better one on a seed, P(better) + ½ P(equal). These two "
        f"hold together for {others} comparison{'s' if others > 1 else ''} a metric: level 1 − "
        f"0.05/{others} (Bonferroni)."
    )
    if axis:
        pooled = "mean" if _few(results) else "interquartile mean"
        note = f"Whole axis: {pooled} of all points, whole seeds resampled. {note}"
    head = ["", *(["whole axis"] if axis else []), "difference", "P(better)"]
    return Table(f"Beside {base}", head, rows, note)


def treatment(results: Results) -> Table:
    """What each arm names, and what it had besides."""
    study = results.study
    arms = {arm: study.arms[arm] for arm in results.arms}
    rows = equal.rows(results.treated, arms, study.reference)
    head = ["arm", "names", *(f"{q.name} ({q.unit})" for q in equal.QUANTITIES)]
    title = f"What each arm names, and what it had; ≠ marks what {study.reference} had not"
    return Table(title, head, rows)


def _few(results: Results) -> bool:
    """Are there too few seeds to resample?"""
    return len(results.of(results.study.metrics[0].name, results.arms[0])[0]) < ENOUGH


def setting_table(study: Study) -> Table:
    """What was varied: the axis, and what sets each arm apart from the first."""
    rows, axis = [], study.axis
    varied = axis.paths if axis else ()
    if axis is not None:
        for path, *values in zip(varied, *map(axis.values, range(study.points)), strict=True):
            rows.append(["axis", f"{path} = {'; '.join(map(_brief, values))}"])
    leaves = {
        arm: {k: v for k, v in cfg.leaves(config).items() if not _hidden(k, varied)}
        for arm, config in study.arms.items()
    }
    for arm, own in study.own.items():
        passed = [name for name, x in own._asdict().items() if x is not None]
        leaves[arm] |= {"passed in": ", ".join(passed)}
    first = next(iter(leaves.values()))
    every = list(dict.fromkeys(k for found in leaves.values() for k in found))
    apart = [k for k in every if len({str(found.get(k)) for found in leaves.values()}) > 1]
    for arm, found in leaves.items():
        own = lambda k, found=found: found is first or str(found.get(k)) != str(first.get(k))
        kept = [k for k in apart if k in found and own(k)]
        rows.append([arm, ", ".join(f"{k} = {setting(found[k])}" for k in kept) or "–"])
    head = ["", f"setting (arms below the first: what differs from {next(iter(leaves))})"]
    return Table("What was varied", head, rows)


def _hidden(path: str, varied: Sequence[str]) -> bool:
    """Settings of execution, and what the axis sets anyway."""
    if path.startswith(("run.", "name", "seeds", "first_seed")):
        return True
    return any(path == v or path.startswith(f"{v}.") for v in varied)


def _brief(value: object) -> str:
    """A point of the axis; of a section, what differs from its default."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return setting(value)
    mine, usual = cfg.leaves(value), cfg.leaves(type(value)())
    return (
        ", ".join(f"{k} = {setting(v)}" for k, v in mine.items() if v != usual.get(k)) or "default"
    )


def common(study: Study) -> dict[str, object]:
    """Settings that all arms share and that are not the default's."""
    default, group = cfg.leaves(cfg.Config()), cfg.leaves(cfg.Group())
    for name in {name for config in study.arms.values() for name in config.groups}:
        default |= {f"groups.{name}.{k}": v for k, v in group.items()}
    arms = [cfg.leaves(config) for config in study.arms.values()]
    varied = study.axis.paths if study.axis else ()
    return {
        k: v
        for k, v in arms[0].items()
        if all(str(a.get(k)) == str(v) for a in arms)
        and v != default.get(k)
        and not _hidden(k, varied)
    }


def html(table: Table, kind: str = "numbers dense") -> str:
    rows = ([_breakable(minus(c)) for c in row] for row in table.rows)
    title = f"<h3>{escape(table.title)}</h3>" if table.title else ""
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return title + report_tables.table([escape(h) for h in table.head], rows, kind) + note


def _breakable(text: str) -> str:
    """An interval that a narrow screen may break before its bracket."""
    value, bracket, rest = escape(text).partition(" [")
    return f"{value} <span>[{rest}</span>" if bracket else value


def markdown(table: Table) -> str:
    cells = lambda row: "| " + " | ".join(c.replace("|", "\\|") for c in row) + " |"
    lines = [f"**{table.title}**", ""] if table.title else []
    lines += [cells(table.head), "|" + "---|" * len(table.head)]
    lines += [minus(cells(row)) for row in table.rows]
    return "\n".join([*lines, *(["", table.note] if table.note else []), ""])


MARKS = {"supported": "✔", "not supported": "✘", "inconclusive": "?"}


class Line(NamedTuple):
    """A verdict in words."""

    outcome: str
    kind: str
    """`primary, stated before its data`"""
    text: str
    source: str

    @property
    def said(self) -> str:
        return f"{self.text} ({self.kind})"


def verdict_lines(judged: Judged) -> list[Line]:
    """Each claim, the primary ones first."""
    return [line(v) for v in sorted(judged.verdicts, key=lambda v: not v.expectation.primary)]


def line(v: Verdict) -> Line:
    e = v.expectation
    kind = f"{'primary' if e.primary else 'exploratory'}, stated {e.stated} its data"
    return Line(v.outcome, kind, minus(v.sentence.removeprefix(f"{v.outcome}: ")), e.source)


def minus(text: str) -> str:
    """Numbers with the sign that is as wide as +."""
    return re.sub(r"(?<![\w])-(?=[\d.])", "−", text)


def terminal(results: Results) -> RichTable:
    """The main metric: arms × points, in 80 columns for up to five points."""
    from rich import box
    from rich.table import Table as RichTable

    metric, study = results.study.metrics[0], results.study
    axis = f" by {study.axis_name}" if study.axis else ""
    out = RichTable(
        title=f"{study.name}: {_unit(metric)}{axis}, {study.seeds} seeds",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    titles = study.axis.titles if study.axis else ("",)
    out.add_column("")
    for title in titles:
        out.add_column(title, justify="right")
    if metric in results.scalars:
        # Side by side only three fit; wrapped by itself an interval breaks inside its bracket.
        shown = lambda x: interval(x).replace(" [", "\n[" if len(titles) > 3 else " [")
        for arm in results.arms:
            values = results.of(metric.name, arm)
            out.add_row(arm, *(shown(centre(row, metric)) for row in values))
    return out
