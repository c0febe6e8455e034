"""KL to the posterior against compute: what each learner reaches, beside best-of-n itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from rlhf_jax import scaling
from rlhf_jax.config import Config
from rlhf_jax.report import drawing
from rlhf_jax.report.drawing import Panel
from rlhf_jax.report.intervals import band
from rlhf_jax.studies.figures import DASHES, MARKERS, arm_colours
from rlhf_jax.studies.results import Analysis, Results, Table
from rlhf_jax.study import Metric
from rlhf_jax.verdict import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEAR = 0.05
"""Nats from the posterior that count as having come to it."""
FLOOR = 1e-6
"""Nats below which a sum of float32 probabilities says nothing."""
METRICS = (
    Metric(
        "KL to posterior", "KL(π ‖ posterior)", "nats", metric="eval/kl_optimum", better="lower"
    ),
    Metric("gold", "gold of samples", "deviations"),
    Metric("KL", "KL from the reference", "nats", metric="eval/kl_exact"),
    Metric("bestofn_posterior", "KL(P_n ‖ posterior)", metric="bestofn/kl_optimum"),
    Metric("bestofn_policy", "KL(P_n ‖ π)", metric="bestofn/kl_policy"),
    Metric("bestofn_kl", "KL(P_n ‖ π_ref)", stage="measure", metric="bestofn/kl", round=0),
    Metric("bestofn_gold", "gold of P_n", stage="measure", metric="bestofn/gold", round=0),
)
"""Those of best-of-n are [points, seeds, ns]: P_n is its law, n = 1, 2, 4, …"""


def passes(config: Config) -> int:
    """What a step of the learner costs, in forward passes of one network over one response.

    A response drawn token by token with a cache is one pass, a backward pass is two. Gold is
    looked up and costs nothing, nor does the optimiser: XLA counts as many operations to a pass
    for every learner to within 16 % of REINFORCE's. Of B responses (dpo: comparisons):

      ppo        B (1 drawn + 1 reference + 1 old values + 3 epochs × 2 networks)
      reinforce  B (1 drawn + 1 reference + 3)
      grpo       B (1 drawn + 1 reference + 3 epochs)
      dpo        2 B (1 drawn + 1 reference + 3), each comparison being drawn for one step alone
      imitation  B (n drawn + 3)
    """
    name = "bestofn" if config.learner == "imitation" else config.learner
    batch = getattr(config, name).batch
    networks = 2 if config.ppo.critic == "separate" else 1
    return (
        batch
        * {
            "ppo": 3 + 3 * config.ppo.epochs * networks,
            "reinforce": 5,
            "grpo": 2 + 3 * config.grpo.epochs,
            "dpo": 2 * 5,
            "imitation": config.bestofn.n + 3,
        }[config.learner]
    )


def analyse(results: Results) -> Analysis:
    """Both figures, both tables and the numbers that expectations speak of."""
    study, at = results.study, results.at
    kl = {a: results.of("KL to posterior", a) for a in results.arms}
    best = results.of("bestofn_posterior", study.reference)[0].T
    ns = [2**i for i in range(len(best))]
    chosen = int(np.argmin(best.mean(axis=1)))
    imitated = study.arms[study.reference].bestofn.n
    near = ns.index(imitated)
    end = {a: v[-1:] for a, v in kl.items()}
    end |= {"reference": best[:1], "best-of-n": best[[chosen]], f"best-of-{imitated}": best[[near]]}
    if "dpo" in results.arms:  # whose posterior is in units of the people's noise
        theirs = results.of("bestofn_posterior", "dpo")[-1].T
        end["best-of-n (dpo's)"] = theirs[[int(np.argmin(theirs.mean(axis=1)))]]
    measured = {
        "best-of-n to posterior": Measured("n", ns, {"best-of-n": best}),
        "KL at the end": Measured("the study", [0.0], end),
        "KL from best-of-n": Measured(
            study.axis_name, at, {a: results.of("bestofn_policy", a)[:, :, near] for a in kl}
        ),
        "compute to the posterior": Measured(
            "the study", [0.0], {a: _reached(at, v) for a, v in kl.items()}
        ),
    }
    panels = [
        _against_compute(at, kl, best, ns, chosen),
        _against_n(results, best, ns, imitated),
    ]
    return Analysis(panels, [_learners(results, kl), _sizes(results, best, ns)], measured)


def _reached(at: np.ndarray, kl: np.ndarray) -> np.ndarray:
    """[1, seeds] compute at which a seed is within `NEAR`, log-log between points; else NaN.

    Whoever is there at the first point took at most that.
    """
    spent = np.broadcast_to(np.log(at)[:, None], kl.shape)
    found = np.exp(scaling.first_passage(-_log(kl), spent, [-np.log(NEAR)]))
    return np.where(kl[0] <= NEAR, at[0], found)


def _log(kl: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(kl, FLOOR))


def _line(plot: Axes, x: ArrayLike, kl: np.ndarray, colour: str, k: int = 0) -> None:
    mean, half, _ = band(_log(kl))
    style: dict[str, Any] = {"linestyle": DASHES[k % 4], "marker": MARKERS[k % 4]}
    x = np.asarray(x, np.float64)
    plot.plot(x, np.exp(mean), color=colour, markersize=3.5, **style)
    plot.fill_between(
        x, np.exp(mean - half), np.exp(mean + half), color=colour, alpha=0.18, linewidth=0
    )


MEANS = (
    "Geometric means over n = {} seeds, bands are 95 % Student t intervals of the logarithm; one "
    "world and one base model, so that the reference's and best-of-n's own vary only with the "
    "samples by which gold is scaled"
)


def _against_compute(
    at: np.ndarray, kl: Mapping[str, np.ndarray], best: np.ndarray, ns: Sequence[int], chosen: int
) -> Panel:
    key, law = tuple(zip(kl, arm_colours(list(kl)), strict=True)), f"best-of-{ns[chosen]}"

    def draw(figure: Figure) -> None:
        plot = figure.subplots()
        for k, (arm, colour) in enumerate(key):
            _line(plot, at, kl[arm], colour, k)
        across = plot.get_yaxis_transform()
        for row, words, x, side in ((0, "π_ref", 0.99, "right"), (chosen, law, 0.01, "left")):
            level = float(np.exp(_log(best[row]).mean()))
            plot.axhline(level, color=drawing.GREY, linewidth=0.9, linestyle=(0, (2, 2)))
            plot.text(x, level, words, transform=across, ha=side, va="bottom", fontsize=8)
        plot.set_xscale("log")
        plot.set_yscale("log")
        plot.set_xlabel("compute (forward passes over one response)")
        plot.set_ylabel("KL(π ‖ posterior) (nats)")

    note = (
        f"{MEANS.format(best.shape[1])}. A point is a whole run of that much compute, its rate of "
        f"learning falling to the end. Dotted: no learning at all, and {law}, "
        f"which trains nothing and pays {ns[chosen]} samples for every answer that it gives."
    )
    return drawing.panel("kl-compute", "KL to the posterior against compute", note, draw, key, 3.2)


def _against_n(results: Results, best: np.ndarray, ns: Sequence[int], imitated: int) -> Panel:
    lines = {"to the posterior": best}
    if "imitation" in results.arms:
        learnt = results.of("bestofn_policy", "imitation")[-1].T
        lines[f"to what imitated best-of-{imitated}"] = learnt
    key = tuple(zip(lines, arm_colours(list(lines)), strict=True))

    def draw(figure: Figure) -> None:
        plot = figure.subplots()
        for k, (label, colour) in enumerate(key):
            _line(plot, ns, lines[label], colour, k)
        plot.set_xscale("log")
        plot.set_yscale("log")
        plot.minorticks_off()
        plot.set_xticks(ns, [str(n) for n in ns])
        plot.set_xlabel("n: samples drawn for every answer")
        plot.set_ylabel("KL from the law of best-of-n (nats)")

    note = (
        f"{MEANS.format(best.shape[1])}. KL(P_n ‖ ·) of the exact law P_n of best-of-n. The cost "
        "is n samples for EVERY answer, not once."
    )
    return drawing.panel("bestofn-n", "Best-of-n itself", note, draw, key, 3.2)


def _cell(values: np.ndarray, number: str = ".2g") -> str:
    """Geometric mean of [seeds] with its interval."""
    mean, half, n = band(np.log(values)[None])
    low, value, high = (f"{float(np.exp(mean + s * half)[0]):{number}}" for s in (-1, 0, 1))
    return f"{value} [{low}, {high}]" if n[0] > 1 else value


def _learners(results: Results, kl: Mapping[str, np.ndarray]) -> Table:
    rows = []
    for arm, values in kl.items():
        spent = _reached(results.at, values)[0]
        there = np.isfinite(spent)
        reached = f"{there.sum()} of {len(spent)} seeds"
        if there.all():
            reached = _cell(spent, ",.0f")
        gold, far = (f"{results.of(m, arm)[-1].mean():.2f}" for m in ("gold", "KL"))
        each = [_cell(np.maximum(v, FLOOR)) for v in values]
        rows.append([arm, f"{passes(results.study.arms[arm]):,}", *each, reached, gold, far])
    head = [
        "",
        "passes a step",
        *(f"KL at {x:,.0f}" for x in results.at),
        f"passes to {NEAR:g} nats",
        "gold at the end",
        "KL from π_ref",
    ]
    note = (
        "KL(π ‖ posterior) in nats, geometric means and their 95 % intervals. A pass is one "
        "network forward over one response, a backward pass is two; gold is looked up. DPO's "
        "posterior is that of the people's own rationality, and its labels are people's: only "
        "samples are counted here. A floor of 1e-6 nats is the arithmetic's."
    )
    return Table("Learners", head, rows, note)


def _sizes(results: Results, best: np.ndarray, ns: Sequence[int]) -> Table:
    one = results.study.reference
    far, gold = (results.of(m, one)[0].mean(axis=0) for m in ("bestofn_kl", "bestofn_gold"))
    rows = [
        [str(n), _cell(np.maximum(best[i], FLOOR)), f"{far[i]:.2f}", f"{gold[i]:.2f}"]
        for i, n in enumerate(ns)
    ]
    note = (
        "KL(P_n ‖ posterior) is exact; KL from the reference and gold are estimated from a pool "
        "of its samples. n = 1 is the reference. Every answer costs n samples."
    )
    head = ["n", "KL to the posterior", "KL from π_ref", "gold"]
    return Table("Best-of-n, which trains nothing", head, rows, note)
