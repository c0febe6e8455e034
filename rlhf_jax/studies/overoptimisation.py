"""Gold and proxy against d = √KL(π ‖ π_ref), with the laws of Gao et al. 2022 (arXiv 2210.10760).

For a study's `analyse`: put `BEST_OF_N` or `POLICY` among its metrics, take the `Curves` of an
arm, fit a law with `scaling.fit`, and show both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rlhf_jax import scaling
from rlhf_jax.config import ConfigError
from rlhf_jax.ops import evidence
from rlhf_jax.ops.intervals import student
from rlhf_jax.ops.laws import Law
from rlhf_jax.report import drawing
from rlhf_jax.report.drawing import Panel
from rlhf_jax.report.intervals import band, binned
from rlhf_jax.scaling import Fit
from rlhf_jax.studies.results import Results, Table
from rlhf_jax.study import Metric
from rlhf_jax.verdict import Measured

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEST_OF_N = tuple(
    Metric(f"bestofn_{name}", label, stage="measure", metric=f"bestofn/{name}", round=0)
    for name, label in (("kl", "KL, counted"), ("gold", "gold"), ("scores", "proxy"))
)
"""[points, seeds, ns]: best-of-n from a pool of the reference's samples, for every n."""
POLICY = (
    Metric("policy_kl", "KL", stage="policy", metric="objective/kl_exact", step="all"),
    Metric("policy_gold", "gold", stage="policy", metric="objective/gold", step="all"),
    Metric("policy_scores", "proxy", stage="policy", metric="objective/scores", step="all"),
    Metric("policy_start", "gold of the reference", round=0, shown=False),
    Metric(
        "policy_zero", "proxy of the reference", metric="eval/proxy_sampled", round=0, shown=False
    ),
)
"""[points, seeds, steps]: the last round of PPO; and what it started from."""


BINS = 20
MANY = 4
"""More curves than this are drawn without bands, which would hide each other."""


class Curves(NamedTuple):
    """What optimising one proxy brought, measured from the reference: R(0) = 0."""

    d: np.ndarray
    """[points, seeds] √nat"""
    gold: np.ndarray
    """[points, seeds]"""
    proxy: np.ndarray
    """[points, seeds] deviations of the reference's samples"""
    matched: bool
    """Rows are one n (best-of-n); otherwise steps, which are compared where their d is equal."""


def best_of_n(results: Results, arm: str, point: int = 0) -> Curves:
    """Of an arm at a point of the axis. Raises `ConfigError` where the first n is not 1."""
    kl, gold, proxy = (results.of(m.name, arm)[point].T for m in BEST_OF_N)
    d = scaling.distance(kl)
    if d[0].max() > 1e-2:
        raise ConfigError(f"best-of-n of {arm}: the first n must be 1, its KL is {kl[0].max():g}")
    return Curves(d, gold - gold[:1], proxy - proxy[:1], True)


def policy(results: Results, arm: str, point: int = 0) -> Curves:
    """Of an arm's PPO at a point of the axis, without the steps before it moved.

    Zero is what samples of the reference were worth before, seed by seed.
    """
    kl, gold, proxy, start, zero = (results.of(m.name, arm)[point] for m in POLICY)
    moved = (kl > 1e-6).all(axis=0)
    if not moved.any():
        raise ConfigError(f"PPO of {arm}: the policy of some seed never leaves the reference")
    d = scaling.distance(kl[:, moved].T)
    rise = lambda x, first: (x[:, moved] - first[:, None]).T
    return Curves(d, rise(gold, start), rise(proxy, zero), False)


def from_zero(c: Curves) -> Curves:
    """The curve with the reference as its first point, for `scaling.first_passage`."""
    begin = lambda x: np.concatenate([np.zeros_like(x[:1]), x])
    return Curves(begin(c.d), begin(c.gold), begin(c.proxy), c.matched)


def panel(
    name: str,
    title: str,
    curves: Mapping[str, Curves],
    fits: Mapping[str, Fit] | None = None,
    *,
    unit: str = "mean human rating, −4…4",
    proxy: bool = False,
) -> Panel:
    """Gold (and the proxy) of each curve against √KL with 95 % t bands; dashed: fitted laws."""
    fits = fits or {}
    colours = drawing.palette(len(curves)) if len(curves) > 1 else [drawing.GOLD]
    key = [(label, c) for label, c in zip(curves, colours, strict=True)]
    if proxy and len(curves) == 1:
        key = [("gold", drawing.GOLD), ("proxy (deviations of π_ref)", drawing.PROXY)]
    n = next(iter(curves.values())).gold.shape[1]
    says = [f"Means over n = {n} seeds"]
    if len(curves) <= MANY:
        says[0] += ", bands are 95 % Student t intervals"
    if any(not c.matched for c in curves.values()):
        says.append(f"steps in {BINS} bins of √KL, drawn where half of the seeds were")
    if proxy and len(curves) > 1:
        says.append("dotted: the proxy, in deviations of π_ref")
    if fits:
        formulas = dict.fromkeys(f"{f.law.name}, {f.law.formula}" for f in fits.values())
        says.append(f"dashed: law fitted to gold ({'; '.join(formulas)})")
    apart = [k for k, c in curves.items() if evidence.two_groups(c.gold[-1]) is not None]
    if apart:
        says.append(
            f"at the end seeds fall into two groups, which no mean describes: {', '.join(apart)}"
        )
    draw = partial(_draw, curves=curves, fits=fits, colours=colours, unit=unit, proxy=proxy)
    return drawing.panel(name, title, "; ".join(says) + ".", draw, tuple(key), 3.2)


def _draw(
    figure: Figure,
    curves: Mapping[str, Curves],
    fits: Mapping[str, Fit],
    colours: Sequence[str],
    unit: str,
    proxy: bool,
) -> None:
    plot = figure.subplots()
    plot.axhline(0.0, color=drawing.GREY, linewidth=0.7)
    alone = len(curves) == 1
    for (label, c), colour in zip(curves.items(), colours, strict=True):
        kinds = [(c.gold, colour, "-")]
        if proxy:
            kinds.append((c.proxy, drawing.PROXY if alone else colour, "-" if alone else ":"))
        for values, hue, dash in kinds:
            x, mean, half = _line(c, values)
            plot.plot(x, mean, dash, color=hue)
            if len(curves) <= MANY:
                plot.fill_between(x, mean - half, mean + half, color=hue, alpha=0.18, linewidth=0)
        if label in fits:
            x = _line(c, c.gold)[0]  # where something was measured
            at = np.linspace(float(x.min()), float(x.max()), 60)
            law = scaling.curve(fits[label], at)
            plot.plot(at, law.value, color=colour, linestyle=(0, (4, 3)), linewidth=1.1)
    plot.set_xlim(left=0.0)
    plot.set_xlabel("distance from the reference, √KL (√nat)")
    both = " and proxy" if proxy else ""
    plot.set_ylabel(drawing.fitted(f"gold{both}, change from π_ref ({unit})", 3.2))


def _line(c: Curves, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, mean and half-width of the band, [points] each."""
    if c.matched:
        mean, half, _ = band(values)
        return c.d.mean(axis=1), mean, half
    edges = np.linspace(0.0, float(c.d.max()), BINS + 1)
    rows = binned(c.d, values, edges)
    visited = 2 * np.isfinite(rows).sum(axis=1) >= rows.shape[1]
    mean, half, _ = band(rows[visited])
    return ((edges[:-1] + edges[1:]) / 2)[visited], mean, half


NAMES = {"alpha": "α", "beta": "β", "peak": "peak at √KL", "height": "gold at the peak"}


def coefficients(title: str, fits: Mapping[str, Fit]) -> Table:
    """α, β (and the law's shape), peak and height of each fit with bootstrap intervals."""
    keys = list(dict.fromkeys(k for f in fits.values() for k in f.estimates))
    rows = [
        [
            label,
            *(str(f.estimates[k]) if k in f.estimates else "–" for k in keys),
            f"{f.rmse:.2g}",
            f"{100 * f.inside:.0f} %",
        ]
        for label, f in fits.items()
    ]
    laws = "; ".join(dict.fromkeys(f"{f.law.name}: R = {f.law.formula}" for f in fits.values()))
    n = next(iter(fits.values())).estimates["alpha"].n
    note = (
        f"{laws}, d = √KL in √nat, least squares over all points of n = {n} seeds; 95 % intervals "
        f"by bootstrap ({scaling.RESAMPLES:,} resamples of whole seeds, level expanded for few "
        "seeds). Peak ∞: the law rises for ever. Inside: resamples whose peak lies within the d "
        "that was measured."
    )
    head = ["", *(NAMES.get(k, k) for k in keys), "error of a point", "inside"]
    return Table(title, head, rows, note)


def moves(title: str, fits: Sequence[Fit], predictors: Mapping[str, Sequence[float]]) -> Table:
    """How α and β move with what differs between the fits: `scaling.regress`."""
    rows = []
    for k in ("alpha", "beta"):
        if all(k in f.estimates for f in fits):
            found = scaling.regress(fits, predictors, k)
            slopes = [str(found.slopes[p]) for p in predictors]
            rows.append([NAMES[k], *slopes, f"{found.r2:.2f}"])
    note = (
        f"Least squares over {len(fits)} fits, change of the coefficient for each unit of the "
        "column; 95 % bootstrap intervals over seeds, which do not widen where it is no line."
    )
    return Table(title, ["", *predictors, "R²"], rows, note)


def foretold(title: str, curves: Mapping[str, Curves], laws: Sequence[Law], cut: float) -> Table:
    """Error beyond `cut` of laws fitted up to it, and its excess over the first law's."""
    rows = []
    for label, c in curves.items():
        errors = scaling.extrapolate(c.d, c.gold, laws, cut)
        for name, e in errors.items():
            rows.append([f"{label}, {name}", str(e.rmse), str(e.excess)])
    note = f"Fitted on √KL ≤ {cut:g}, measured beyond; excess below 0: better than {laws[0].name}."
    return Table(title, ["", "error of a point", "excess"], rows, note)


def charged(title: str, results: Results, arm: str) -> Table:
    """What best-of-n is usually charged, log n − (n−1)/n, beside the KL counted where samples
    tie."""
    from rlhf_jax.ops import bestofn  # needs JAX, of which what a study's file imports is free

    config = results.study.arms[arm]
    ns = bestofn.sizes(config.evaluate.best_of)
    counted = results.of(BEST_OF_N[0].name, arm)[0].T
    rows = []
    for n, bound, kl in zip(ns, bestofn.kl_bound(ns), counted, strict=True):
        # Rounded first: float32 counts −3e-8 nats where there are none.
        mean, low, high = (round(float(x), 3) + 0.0 for x in student(kl)[:3])
        rows.append([f"{n:,}", f"{bound:.3f}", f"{mean:.3f} [{low:.3f}, {high:.3f}]"])
    note = (
        f"Nats, means of n = {counted.shape[1]} seeds with 95 % t intervals. The formula is an "
        "upper bound: it is the KL only where no two samples can tie, and what repeats among "
        f"{config.evaluate.best_of:,} samples ties. Figures and laws use what was counted."
    )
    return Table(title, ["n", "log n − (n−1)/n, upper bound", "KL, counted"], rows, note)


def by_seed(
    axis: str, at: Sequence[float], fits: Mapping[str, Sequence[Fit]]
) -> dict[str, Measured]:
    """Coefficients of each seed's own curve, for verdicts: {"alpha": Measured, …}.

    fits: arm → one fit for each point `at`. A peak that is not there is ∞, and a verdict about
    such numbers is inconclusive and says so.
    """
    keys = next(iter(fits.values()))[0].each
    return {
        k: Measured(axis, at, {arm: np.stack([f.each[k] for f in fs]) for arm, fs in fits.items()})
        for k in keys
    }
