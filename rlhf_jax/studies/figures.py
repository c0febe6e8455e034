"""Every metric over the axis: one line an arm, with its interval."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_jax.ops import evidence
from rlhf_jax.report import drawing
from rlhf_jax.report.drawing import Panel
from rlhf_jax.studies.results import Results
from rlhf_jax.studies.tables import shown
from rlhf_jax.studies.verdicts import briefly, centre
from rlhf_jax.study import Axis, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROWS = 8
"""More arms than this stand under each other."""
MANY = 4
"""More arms than this have error bars in place of bands, which would hide each other."""
COLOURS = ("#b07c00", "#0b66a8", "#a3324f", "#3d7a4a", "#333333")
"""Arms, while there are so few: apart for every common colour blindness."""
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
MARKERS = ("o", "s", "^", "D")
"""Beside colour, so that arms can be told apart in grey and where they lie on each other."""


def arm_colours(arms: Sequence[str]) -> list[str]:
    return list(COLOURS[: len(arms)]) if len(arms) <= len(COLOURS) else drawing.palette(len(arms))


def panels(results: Results) -> list[Panel]:
    return [panel(results, metric) for metric in shown(results)]


def panel(results: Results, metric: Metric) -> Panel:
    """One metric of all arms: over the axis, or arm under arm where there are many or no axis."""
    unit = f"{metric.label} ({metric.unit})" if metric.unit else metric.label
    n = results.of(metric.name, results.arms[0]).shape[1]
    note = briefly(n) + _grouped(results, metric)
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{results.study.name}-{metric.name}")
    axis, arms = results.study.axis, results.arms
    if axis is None or len(arms) > ROWS:
        key: tuple[tuple[str, str], ...] = ()
        if axis is not None:
            points = zip(axis.titles, arm_colours(axis.titles), strict=True)
            key = ((results.study.axis_name, ""), *points)
        height = max(1.6, 0.9 + 0.3 * len(arms))
        draw = partial(_rows, results=results, metric=metric, label=unit)
        return drawing.panel(name, metric.label, note, draw, key, height)
    key = tuple(zip(_labels(results, metric), arm_colours(arms), strict=True))
    draw = partial(_lines, results=results, metric=metric, label=unit, axis=axis)
    return drawing.panel(name, metric.label, note, draw, key)


def _labels(results: Results, metric: Metric) -> list[str]:
    """The arms, and which of their numbers are not there."""
    out = []
    for arm in results.arms:
        there = np.isfinite(results.of(metric.name, arm)).sum(axis=1)
        n = results.of(metric.name, arm).shape[1]
        said = "" if there.min() == n else f" (n = {there.min()} to {there.max()})"
        if there.min() == there.max() < n:
            said = f" (n = {there.max()})"
        out.append(arm + (said if there.any() else " (no numbers)"))
    return out


def _grouped(results: Results, metric: Metric) -> str:
    """Which arms have seeds that no mean describes."""
    found = []
    for arm in results.arms:
        rows = (row[np.isfinite(row)] for row in results.of(metric.name, arm))
        if any(evidence.two_groups(row) is not None for row in rows):
            found.append(arm)
    return f" Seeds in two groups somewhere: {', '.join(found)}." if found else ""


def _estimates(results: Results, metric: Metric, arm: str) -> tuple[np.ndarray, np.ndarray]:
    """[points] values and [2, points] how far the interval reaches down and up; 0 without one."""
    i = centre(results.of(metric.name, arm), metric)
    value, low, high = (np.asarray(v, np.float64) for v in (i.value, i.low, i.high))
    # Seeds that are all alike have a mean that rounding may put beyond both ends.
    return value, np.maximum(np.nan_to_num(np.stack([value - low, high - value])), 0.0)


def _lines(figure: Figure, results: Results, metric: Metric, label: str, axis: Axis) -> None:
    plot = figure.subplots()
    x, few = results.at, len(results.arms) <= MANY and len(results.at) > 1
    for k, (arm, colour) in enumerate(zip(results.arms, arm_colours(results.arms), strict=True)):
        value, reach = _estimates(results, metric, arm)
        style: dict[str, Any] = {"color": colour, "marker": MARKERS[k % 4], "markersize": 3.5}
        if not few:
            beside = _nudged(x, k - (len(results.arms) - 1) / 2, axis)
            plot.errorbar(beside, value, yerr=reach, elinewidth=1.0, **style)
            continue
        plot.plot(x, value, linestyle=DASHES[k], **style)
        plot.fill_between(
            x, value - reach[0], value + reach[1], color=colour, alpha=0.18, linewidth=0
        )
    ticks(plot, x, axis)
    plot.set_xlabel(drawing.fitted(results.study.axis_name, drawing.WIDTH))
    plot.set_ylabel(drawing.fitted(label, drawing.HEIGHT))


def _nudged(x: np.ndarray, by: float, axis: Axis) -> np.ndarray:
    """So that the error bars of arms stand beside each other."""
    if axis.scale == "log":
        return x * np.exp(0.012 * by * np.log(x.max() / x.min()))
    return x + 0.012 * by * np.ptp(x)


def ticks(plot: Axes, x: np.ndarray, axis: Axis) -> None:
    """A tick at every point, with the name that it has in the tables where there is room."""
    if axis.scale == "log":
        plot.set_xscale("log")
        plot.minorticks_off()
    named = _apart(np.log(x) if axis.scale == "log" else x)
    names = [axis.titles[i] for i in named]
    slanted = sum(map(len, names)) > 44
    plot.set_xticks(
        x[named], names, rotation=25 if slanted else 0, ha="right" if slanted else "center"
    )
    plot.set_xticks(x, [""] * len(x), minor=True)


def _apart(x: np.ndarray, least: float = 0.09) -> list[int]:
    """Points from the left that lie at least this share of the whole from the one before."""
    named: list[int] = []
    for i in np.argsort(x).tolist():
        if not named or x[i] - x[named[-1]] >= least * np.ptp(x):
            named.append(i)
    return named


def _rows(figure: Figure, results: Results, metric: Metric, label: str) -> None:
    """Arm under arm, the points of the axis in colours."""
    plot, arms = figure.subplots(), results.arms
    colours = arm_colours(results.study.axis.titles) if results.study.axis else arm_colours(arms)
    shift = np.linspace(-0.2, 0.2, len(results.at)) if len(results.at) > 1 else np.zeros(1)
    for k, arm in enumerate(arms):
        value, reach = _estimates(results, metric, arm)
        for i in range(len(value)):
            colour = colours[i if results.study.axis else k]
            at = k + shift[i]
            plot.errorbar(value[i], at, xerr=reach[:, i : i + 1], color=colour, fmt="o", ms=3.5)
    plot.set_yticks(range(len(arms)), _labels(results, metric))
    plot.set_ylim(len(arms) - 0.5, -0.5)
    plot.set_xlabel(drawing.fitted(label, drawing.WIDTH))
