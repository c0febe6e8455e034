"""What the study of reward hacking makes of its curves: laws, and how they move with the proxy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from rlhf_jax import scaling
from rlhf_jax.config import ConfigError
from rlhf_jax.ops.laws import BON, LAWS, RL, Law
from rlhf_jax.scaling import Fit
from rlhf_jax.studies import overoptimisation as over
from rlhf_jax.studies.overoptimisation import Curves
from rlhf_jax.studies.results import Analysis, Results
from rlhf_jax.verdict import Measured

WIDTHS = (8, 16, 32, 64)
DATA = (128, 512, 2048, 8192)
LEVEL = 1.0
"""Deviations of the proxy that both optimisers are asked for."""
REACH = 2.0
"""√KL at which frontiers are compared."""
SEEN = 1.5
"""√KL up to which laws of best-of-n are fitted that shall foretell the rest: n ≤ 16 of 1,024."""
UNIT = "gold model's rating"


def proxy_name(width: int, answers: int) -> str:
    """`width-32-of-2048`"""
    return f"width-{width}-of-{answers}"


SINGLE = proxy_name(32, 2048)


def analyse(results: Results) -> Analysis:
    """Figures, fitted laws and measured numbers of the arms that are there, all without flips."""
    bon = {a: over.best_of_n(results, a) for a in results.arms}
    rl = {a: over.policy(results, a) for a in results.arms}
    notes: list[str] = []
    laws = _fitted("best-of-n", bon, BON, notes)
    noisy = _noisy(results, notes)
    rl_laws = _fitted("PPO", rl, RL, notes)
    wide = {proxy_name(w, 2048): f"width {w}" for w in WIDTHS}
    told = {proxy_name(32, n): f"{n} answers" for n in DATA}
    others = {a: a for a in results.arms if not a.startswith("width-")}
    kl = {SINGLE: "no penalty"} | {a: a for a in others if a.startswith("kl-")}
    panel = {SINGLE: "one model"} | {a: a for a in others if a.endswith("-of-4")}
    panels = []
    for name, title, curves, fitted, names in (
        ("bon-width", "Best-of-n: proxies of four widths, 2,048 answers", bon, laws, wide),
        ("bon-data", "Best-of-n: width 32, more and more answers", bon, laws, told),
        ("rl-width", "PPO: proxies of four widths, 2,048 answers", rl, rl_laws, wide),
        ("rl-kl", "PPO: KL weights", rl, {}, kl),
        ("bon-panel", "Best-of-n: ensembles of four", bon, {}, panel),
        ("rl-panel", "PPO: ensembles of four", rl, {}, panel),
    ):
        mine = {label: curves[a] for a, label in names.items() if a in curves}
        if len(mine) > 1:
            law = {label: fitted[a] for a, label in names.items() if a in fitted and a in curves}
            panels.append(over.panel(name, title, mine, law, unit=UNIT, proxy=True))
    grid = [(w, n) for w in WIDTHS for n in DATA if proxy_name(w, n) in laws]
    # A KL weight makes no other proxy for best-of-n.
    proxies = {a: law for a, law in laws.items() if not a.startswith("kl-")}
    shown = {"Best-of-n": proxies, "PPO": rl_laws}
    tables = [
        over.coefficients(f"{title}: the law of each proxy", fits)
        for title, fits in shown.items()
        if fits
    ]
    tables.append(over.charged(f"What best-of-n of {SINGLE} spends", results, SINGLE))
    for optimiser, curves, own, cut in (("best-of-n", bon, BON, SEEN), ("PPO", rl, RL, REACH)):
        title = f"Which law foretells {optimiser}"
        ordered = (own, *(law for law in LAWS if law is not own))
        try:
            tables.append(over.foretold(title, {optimiser: curves[SINGLE]}, ordered, cut))
        except ConfigError as problem:
            notes.append(f"{title} is not shown: {problem}.")
    if len(grid) > 3:
        size = {
            "log width": [np.log(w) for w, _ in grid],
            "log answers": [np.log(n) for _, n in grid],
        }
        for title, fitted in (("best-of-n", laws), ("PPO", rl_laws)):
            if all(proxy_name(w, n) in fitted for w, n in grid):
                fits = [fitted[proxy_name(w, n)] for w, n in grid]
                tables.append(over.moves(f"How the coefficients of {title} move", fits, size))
        if all(proxy_name(w, n) in noisy for w, n in grid):
            both = [fitted[proxy_name(w, n)] for fitted in (laws, noisy) for w, n in grid]
            flips = {"a quarter turned round": [0.0] * len(grid) + [1.0] * len(grid)}
            more = {name: 2 * values for name, values in size.items()} | flips
            tables.append(over.moves("How those of best-of-n move, noise among them", both, more))
    return Analysis(panels, tables, _measured(bon, rl, laws, rl_laws), notes)


def _fitted(
    optimiser: str, curves: Mapping[str, Curves], law: Law, notes: list[str]
) -> dict[str, Fit]:
    """The law of every arm that went far enough to have one; `notes` says which did not."""
    out = {}
    for arm, c in curves.items():
        try:
            out[arm] = scaling.fit(c.d, c.gold, law)
        except ConfigError as problem:
            notes.append(f"No law was fitted to {optimiser} of {arm}: {problem}.")
    return out


def _noisy(results: Results, notes: list[str]) -> dict[str, Fit]:
    """Best-of-n's law of every arm where answers are turned round, if that was run."""
    if len(results.at) < 2:
        return {}
    curves = {a: over.best_of_n(results, a, 1) for a in results.arms}
    return _fitted("noisy best-of-n", curves, BON, notes)


def _measured(
    bon: dict[str, Curves], rl: dict[str, Curves], laws: dict[str, Fit], rl_laws: dict[str, Fit]
) -> dict[str, Measured]:
    """Numbers by seed that the study's expectations speak of."""
    out = {}
    for optimiser, fits in (("best-of-n", laws), ("PPO", rl_laws)):
        widths = [w for w in WIDTHS if proxy_name(w, 2048) in fits]
        if not widths:
            continue
        mine = {"clean answers": [fits[proxy_name(w, 2048)] for w in widths]}
        by_width = over.by_seed("width of the proxy", widths, mine)
        out[f"{optimiser} α"], out[f"{optimiser} β"] = by_width["alpha"], by_width["beta"]
    data = [n for n in DATA if proxy_name(32, n) in bon]
    end = {a: c.gold[-1:] for a, c in bon.items()}
    more = {"more data": np.concatenate([end[proxy_name(32, n)] for n in data])}
    flat = lambda row: np.repeat(row, len(data), axis=0)
    out["best-of-n gold at the end"] = Measured(
        "comparisons", data, more | {a: flat(v) for a, v in end.items()}
    )
    fall = {a: _decline(c.gold) for a, c in bon.items()}
    zeroed = {a: over.from_zero(c) for a, c in rl.items()}
    both = {"best-of-n": bon[SINGLE], "PPO": zeroed[SINGLE]}
    spent = {a: scaling.first_passage(c.proxy, c.d**2, [LEVEL]) for a, c in both.items()}
    reached = {a: scaling.first_passage(c.d, c.gold, [REACH]) for a, c in zeroed.items()}
    for name, found in (
        ("decline of best-of-n", fall),
        ("KL to a proxy of 1", spent),
        ("bend of the proxy", {a: _bend(c) for a, c in both.items()}),
        ("gold at √KL = 2", reached),
    ):
        out[name] = Measured("the study", [0.0], found)
    return out


def _decline(gold: np.ndarray) -> np.ndarray:
    """[ns, seeds] → [1, seeds]: from where the mean of the *other* seeds is highest to the end.

    A seed that helped to choose its own peak would decline where there is nothing but noise.
    """
    others = gold.sum(axis=1, keepdims=True) - gold
    return np.take_along_axis(gold, others.argmax(axis=0)[None], axis=0) - gold[-1:]


def _bend(c: Curves) -> np.ndarray:
    """[1, seeds]: what the proxy rises more from half of `REACH` to it than before, as a share of
    the mean rise of all seeds; 0: a line."""
    half, whole = scaling.first_passage(c.d, c.proxy, [REACH / 2, REACH])
    return ((whole - 2 * half) / whole.mean())[None]
