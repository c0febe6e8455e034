"""Every metric over the axis: one line an arm, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from rlhf_jax.report import drawing
from rlhf_jax.report.drawing import Panel
from rlhf_jax.studies.results import Results
from rlhf_jax.studies.tables import shown
from rlhf_jax.studies.verdicts import centre
from rlhf_jax.study import Axis, Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MANY = 4
"""More arms than this have error bars in place of bands, which would hide each other."""
COLOURS = ("#b07c00", "#0b66a8", "#a3324f", "#3d7a4a")
"""Arms, while there are so few: apart for every common colour blindness."""
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)))
MARKERS = ("o", "s", "^", "D")
"""Beside colour, so that arms can be told apart in grey and where they lie on each other."""


def arm_colours(arms: Sequence[str]) -> list[str]:
    return list(COLOURS[: len(arms)]) if len(arms) <= len(COLOURS) else drawing.palette(len(arms))


def panels(results: Results) -> list[Panel]:
    return [panel(results, metric) for metric in shown(results)]


def panel(results: Results, metric: Metric) -> Panel:
    """One metric of all arms."""
    unit = f"{metric.label} ({metric.unit})" if metric.unit else metric.label
    n = results.of(metric.name, results.arms[0]).shape[1]
    note = f"n = {n} seeds in every point."
    key: tuple[tuple[str, str], ...] = ()
    if results.study.axis is None:
        height = max(1.6, 0.9 + 0.3 * len(results.arms))
        draw = partial(_arms, results=results, metric=metric, label=unit)
        return drawing.panel(
            f"{results.study.name}-{metric.name}", metric.label, note, draw, key, height
        )
    key = tuple(zip(results.arms, arm_colours(results.arms), strict=True))
    draw = partial(_lines, results=results, metric=metric, label=unit, axis=results.study.axis)
    return drawing.panel(f"{results.study.name}-{metric.name}", metric.label, note, draw, key)


def _lines(figure: Figure, results: Results, metric: Metric, label: str, axis: Axis) -> None:
    plot = figure.subplots()
    x = results.at
    for k, (arm, colour) in enumerate(zip(results.arms, arm_colours(results.arms), strict=True)):
        i = centre(results.of(metric.name, arm))
        value, low, high = (np.asarray(v, np.float64) for v in (i.value, i.low, i.high))
        known = np.isfinite(low)
        if len(results.arms) > MANY or len(x) == 1:
            place = x + (k - (len(results.arms) - 1) / 2) * _nudge(x, axis)
            reach = np.where(known, [value - low, high - value], 0.0)
            plot.errorbar(place, value, yerr=reach, color=colour, fmt="o-", markersize=3.5)
            continue
        plot.plot(x, value, color=colour, linestyle=DASHES[k], marker=MARKERS[k], markersize=3.5)
        if known.any():
            plot.fill_between(x, low, high, where=known, color=colour, alpha=0.18, linewidth=0)
    ticks(plot, x, axis)
    plot.set_xlabel(results.study.axis_name)
    plot.set_ylabel(label)


def _nudge(x: np.ndarray, axis: Axis) -> float:
    """So that error bars of arms stand beside each other; none where the axis is bent."""
    return 0.0 if axis.scale == "log" or len(x) < 2 else 0.012 * float(np.ptp(x))


def ticks(plot: Axes, x: np.ndarray, axis: Axis) -> None:
    """A tick at every point, by the name that it has in the tables, where there is room."""
    if axis.scale == "log":
        plot.set_xscale("log")
        plot.minorticks_off()
    apart = math.ceil(len(x) / 9)
    order = np.argsort(x)[::apart]
    names = [axis.titles[i] for i in order]
    slanted = sum(map(len, names)) > 44
    plot.set_xticks(
        x[order], names, rotation=25 if slanted else 0, ha="right" if slanted else "center"
    )


def _arms(figure: Figure, results: Results, metric: Metric, label: str) -> None:
    plot = figure.subplots()
    for k, (arm, colour) in enumerate(zip(results.arms, arm_colours(results.arms), strict=True)):
        i = centre(results.of(metric.name, arm)[0])
        value, low, high = float(i.value), float(i.low), float(i.high)
        reach = [[value - low], [high - value]] if math.isfinite(low) else None
        plot.errorbar(value, k, xerr=reach, color=colour, fmt="o", markersize=4.5)
    plot.set_yticks(range(len(results.arms)), results.arms)
    plot.set_ylim(len(results.arms) - 0.5, -0.5)
    plot.set_xlabel(label)
