"""One panel at a time: matplotlib → a piece of SVG that can stand inside a page."""

from __future__ import annotations

import html
import io
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rlhf_jax.report.intervals import band

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Yellow against blue is the pair that every common colour blindness keeps apart.
GOLD, PROXY, PLAIN, GREY = "#b07c00", "#0b66a8", "#33475b", "#8a8f94"
ANY, SHARE = (-math.inf, math.inf), (0.0, 1.0)
"""Between which numbers can lie."""
WIDTH, HEIGHT = 4.4, 2.9
"""Inches; the page scales a panel to its column."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": "#222222",
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e6e6e3",
    "grid.linewidth": 0.6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": "#444444",
    "ytick.labelcolor": "#444444",
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "lines.linewidth": 1.6,
    "axes.labelpad": 6.0,
}


class Panel(NamedTuple):
    """A figure of the page."""

    name: str
    """its id in the page; unique"""
    title: str
    note: str
    svg: str
    key: tuple[tuple[str, str], ...] = ()
    """(label, colour) of each line where there is more than one; a heading has no colour"""


class Content(NamedTuple):
    """Panels, and one line for each that could not be drawn."""

    panels: list[Panel]
    missing: list[str]


def palette(n: int) -> list[str]:
    """n colours from dark to light, in order; the end that vanishes on white is left out."""
    import matplotlib
    from matplotlib.colors import to_hex

    return [to_hex(c) for c in matplotlib.colormaps["viridis"](np.linspace(0.0, 0.85, n))]


def tint(colour: str, strength: float) -> str:
    """`colour` mixed with white; strength 1 leaves it as it is."""
    from matplotlib.colors import to_hex, to_rgb

    r, g, b = (1.0 - strength * (1.0 - c) for c in to_rgb(colour))
    return to_hex((r, g, b))


def panel(
    name: str,
    title: str,
    note: str,
    draw: Callable[[Figure], None],
    key: tuple[tuple[str, str], ...] = (),
    height: float = HEIGHT,
) -> Panel:
    """Draws on a figure of its own; the same numbers give the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE | {"svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return Panel(name, title, note, _inline(buffer.getvalue(), name, title), key)


def fitted(label: str, inches: float) -> str:
    """A label broken into lines that fit along an axis of a panel so wide or high."""
    margin, letter = 0.7, 0.066  # beside the axis; the mean at this size
    return textwrap.fill(label, int((inches - margin) / letter), break_long_words=False)


def _inline(svg: str, name: str, title: str) -> str:
    """Only the element itself; its ids carry the panel's name, so that panels do not meet."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = svg.replace('href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    head, body = svg.split(">", 1)
    head = re.sub(r'\s(width|height|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{html.escape(title)}">{body}'


class Line(NamedTuple):
    """The mean over seeds with its band."""

    x: np.ndarray
    """[N]"""
    values: np.ndarray
    """[N, seeds]"""
    colour: str


def lines(
    figure: Figure,
    content: Sequence[Line],
    xlabel: str,
    ylabel: str,
    *,
    bands: bool = True,
    marks: Sequence[float] = (),
    left: float | None = None,
    within: tuple[float, float] = ANY,
) -> None:
    """Means over seeds and their 95 % bands, which are cut where nothing can lie; `marks` are
    vertical rules."""
    axes = figure.subplots()
    for x in marks:
        axes.axvline(x, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    for one in content:
        mean, half, _ = band(one.values)
        axes.plot(one.x, mean, color=one.colour)
        near = np.pad(np.isfinite(mean), 1)
        # A point without neighbours is no line.
        alone = near[1:-1] & ~near[:-2] & ~near[2:]
        axes.plot(one.x[alone], mean[alone], "o", color=one.colour, markersize=3)
        if bands and np.isfinite(mean + half).any():
            low, high = np.maximum(mean - half, within[0]), np.minimum(mean + half, within[1])
            axes.fill_between(one.x, low, high, color=one.colour, alpha=0.18, linewidth=0)
    if left is not None:
        axes.set_xlim(left=left)
    axes.set_xlabel(fitted(xlabel, WIDTH))
    axes.set_ylabel(fitted(ylabel, HEIGHT))


def dots(axes: Axes, x: np.ndarray, values: np.ndarray, colour: str, most: float) -> None:
    """Means over seeds of [N, seeds], 0 … `most`, with 95 % error bars, which are cut there."""
    mean, half, n = band(values)
    shown = n > 0
    reach, at = np.nan_to_num(half[shown]), mean[shown]
    axes.errorbar(
        x[shown],
        at,
        yerr=np.maximum(np.stack([np.minimum(reach, at), np.minimum(reach, most - at)]), 0.0),
        color=colour,
        fmt="o-",
        markersize=4,
        linewidth=1.2,
        elinewidth=1.2,
    )
