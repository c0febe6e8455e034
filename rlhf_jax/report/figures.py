"""What optimisation did to gold, and how good its judge was."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rlhf_jax.report import drawing
from rlhf_jax.report.drawing import Content, Panel
from rlhf_jax.report.intervals import band, binned, estimate
from rlhf_jax.report.records import Record, Series
from rlhf_jax.report.results import Result, aim, measured
from rlhf_jax.report.tables import axes
from rlhf_jax.report.wording import setting, valued

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 24
"""Bins of √KL over the range that the run visited."""
MANY = 6
"""More lines than this are drawn without bands: they would hide each other."""
CEILINGS = (
    ("reward/ceiling_mean", "-", "the mean of the others", "bottom"),
    ("reward/ceiling_human", (0, (4, 3)), "another person", "top"),
)
Key = tuple[tuple[str, str], ...]


def colours(record: Record, alone: str) -> list[str]:
    """One for each grid point."""
    return drawing.palette(len(record.points)) if record.swept else [alone]


def legend(record: Record) -> Key:
    """The swept settings, then grid points and their colours; empty without a sweep."""
    if not record.swept:
        return ()
    values = (", ".join(setting(v) for v in p.setting.values()) for p in record.points)
    return ((axes(record), ""), *zip(values, colours(record, ""), strict=True))


def banded(record: Record) -> bool:
    return len(record.points) <= MANY


def _shades(colour: str, n: int) -> list[str]:
    """Light to full: the first round to the last."""
    return [drawing.tint(colour, s) for s in np.linspace(0.35, 1.0, n)] if n > 1 else [colour]


def _line(x: np.ndarray, y: np.ndarray, edges: np.ndarray, colour: str) -> drawing.Line:
    """The bins that at least half of the seeds visited."""
    values = binned(x, y, edges)
    visited = 2 * np.isfinite(values).sum(axis=1) >= values.shape[1]
    middle = (edges[:-1] + edges[1:]) / 2
    return drawing.Line(middle[visited], values[visited], colour)


def _by_distance(
    record: Record, distance: Series, series: Series, hue: str, rounds: list[int] | None
) -> list[drawing.Line]:
    """Binned over √KL; one line for each grid point and, where rounds are told apart, round."""
    reached = distance.values[np.isfinite(distance.values)]
    edges = np.linspace(0.0, max(float(reached.max(initial=0.0)), 1e-6), BINS + 1)
    out = []
    for point, colour in zip(record.points, colours(record, hue), strict=True):
        x, y = distance.of(point), series.of(point)
        if rounds is None:
            out.append(_line(x, y, edges, colour))
            continue
        for round_, shade in zip(rounds, _shades(colour, len(rounds)), strict=True):
            rows = series.rounds == round_
            out.append(_line(x[rows], y[rows], edges, shade))
    return out


def optimisation(record: Record) -> Content:
    """Gold and proxy against d = √KL(π_θ ‖ π_ref), as in Gao et al. 2022 (arXiv 2210.10760).

    The proxy alone where there is no gold.
    """
    kl = record.metrics.get(("policy", "objective/kl_exact"))
    if kl is None:
        return Content([], ["Gold and proxy against √KL: the run has no objective/kl_exact."])
    distance = kl._replace(values=np.sqrt(np.maximum(kl.values, 0.0)))
    every = [int(r) for r in np.unique(kl.rounds)]
    panels: list[Panel] = []
    missing: list[str] = []
    curves = [("proxy", "objective/scores", "deviations of π_ref", drawing.PROXY)]
    if valued(record.config):
        curves = [("gold", "objective/gold", record.gold_unit, drawing.GOLD), *curves]
    for name, metric, unit, hue in curves:
        series = record.metrics.get(("policy", metric))
        if series is None or series.values.shape != kl.values.shape:
            missing.append(f"{name.capitalize()} against √KL: the run has no {metric}.")
            continue
        rounds, key, note = None, legend(record), ""
        if name == "proxy" and len(every) > 1:
            note = "Each round fits its own reward model: two rounds are two scales."
            rounds = every[-1:] if record.swept else every
            shades = _shades(hue, len(every))
            if record.swept:
                note += " Shown: the last round."
            else:
                key = tuple((f"round {i}", c) for i, c in enumerate(shades, start=1))
        draw = partial(
            drawing.lines,
            content=_by_distance(record, distance, series, hue, rounds),
            xlabel="distance from the reference, √KL (√nat)",
            ylabel=f"{name} ({unit})",
            bands=banded(record),
            left=0.0,
        )
        title = f"{name.capitalize()} against √KL"
        panels.append(drawing.panel(f"{name}-by-distance", title, note, draw, key))
    return Content(panels, missing)


def _reliability(figure: Figure, record: Record) -> None:
    """Observed against predicted probability, over the share of pairs in each bin."""
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    above.plot([0, 1], [0, 1], color=drawing.GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    for point, colour in zip(record.points, colours(record, drawing.PROXY), strict=True):
        predicted, observed, weight = (
            measured(record, f"reward/calibration_{part}", point)
            for part in ("predicted", "observed", "weight")
        )
        filled = weight > 0
        seen = filled.any(axis=0)
        x = band(np.where(filled, predicted, np.nan).T)[0]
        drawing.dots(above, x[seen], np.where(filled, observed, np.nan).T[seen], colour, 1.0)
        share = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-12)
        below.stairs(
            100 * share.mean(axis=0),
            np.linspace(0.0, 1.0, weight.shape[1] + 1),
            color=colour,
            fill=not record.swept,
            alpha=1.0 if record.swept else 0.45,
        )
    above.set_xlim(0.0, 1.0)
    above.set_ylim(0.0, 1.0)
    above.set_ylabel("observed share")
    below.set_ylabel("pairs (%)")
    below.set_xlabel("predicted probability that a person picks the first")


def _accuracy(figure: Figure, record: Record) -> None:
    """Held-out accuracy after each fit between the two ceilings."""
    plot = figure.subplots()
    series = record.metrics["measure", "reward/accuracy_heldout"]
    rounds = np.unique(series.rounds)
    at = np.arange(1, len(rounds) + 1)
    shift = np.linspace(-0.15, 0.15, len(record.points)) if record.swept else np.zeros(1)
    for point, colour, dx in zip(record.points, colours(record, drawing.PROXY), shift, strict=True):
        values = np.stack([series.at(int(r), point) for r in rounds])
        drawing.dots(plot, at + dx, 100 * values, colour, 100.0)
    for metric, dash, name, side in CEILINGS:
        ceiling = record.metrics.get(("measure", metric))
        if ceiling is not None:
            level = 100 * estimate(ceiling.values[-1]).mean
            name = name if valued(record.config) else name.replace("the mean of", "most of")
            plot.axhline(level, color="#444444", linewidth=1.0, linestyle=dash)
            plot.annotate(
                name,
                (0.01, level),
                xycoords=("axes fraction", "data"),
                xytext=(0, 2 if side == "bottom" else -2),
                textcoords="offset points",
                verticalalignment=side,
                fontsize=8,
                color="#444444",
            )
    low, high = plot.get_ylim()
    plot.set_ylim(low, high + 0.08 * (high - low))
    plot.set_xticks(at)
    plot.set_xlim(0.5, len(at) + 0.5)
    plot.set_xlabel("round")
    plot.set_ylabel("held-out accuracy (%)")


def judge(record: Record) -> Content:
    """Is the reward model right, and does it know how sure to be?"""
    panels: list[Panel] = []
    missing: list[str] = []
    parts = [("measure", f"reward/calibration_{p}") for p in ("predicted", "observed", "weight")]
    if all(part in record.metrics for part in parts):
        note = "Below: the share of pairs in each bin. Dashed: perfect calibration."
        draw = partial(_reliability, record=record)
        title = "Reliability of the last reward model"
        panels.append(drawing.panel("reliability", title, note, draw, legend(record), 3.4))
    else:
        missing.append("Reliability diagram: the run has no reward/calibration_….")
    if ("measure", "reward/accuracy_heldout") in record.metrics:
        note = "How often one person's answer about two held-out texts is predicted."
        draw = partial(_accuracy, record=record)
        title = "Accuracy of the reward model"
        panels.append(drawing.panel("accuracy", title, note, draw, legend(record), 3.4))
    else:
        missing.append("Accuracy of the reward model: the run has no reward/accuracy_heldout.")
    return Content(panels, missing)


def _settings(figure: Figure, record: Record, outcome: tuple[Result, ...]) -> None:
    plot = figure.subplots()
    labels = []
    for i, (result, colour) in enumerate(zip(outcome, colours(record, ""), strict=True)):
        change = result.of(aim(record)[0]).change
        half = 0.0 if math.isnan(change.half) else change.half
        plot.errorbar(change.mean, i, xerr=half, color=colour, fmt="o", markersize=4)
        values = result.point.setting
        labels.append(", ".join(setting(v) for v in values.values()))
    plot.axvline(0.0, color=drawing.GREY, linewidth=0.8)
    plot.set_yticks(range(len(labels)), labels)
    plot.invert_yaxis()
    plot.set_ylabel(drawing.fitted(axes(record), drawing.HEIGHT))
    unit = record.gold_unit if valued(record.config) else "deviations of π_ref"
    plot.set_xlabel(f"change in {aim(record)[1]} ({unit})")


def sweep(record: Record, outcome: tuple[Result, ...]) -> Content:
    """The answer of a grid: what each setting did to gold, or to the proxy."""
    metric, name = aim(record)
    if not record.swept or not any(r.of(metric).change.n for r in outcome):
        return Content([], [])
    draw = partial(_settings, record=record, outcome=outcome)
    height = max(drawing.HEIGHT, 0.9 + 0.22 * len(outcome))
    note = "Change from before to after, each seed against itself."
    return Content(
        [drawing.panel("sweep", f"Change in {name} by setting", note, draw, height=height)], []
    )
