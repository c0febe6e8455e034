"""The analysis of reward hacking on curves whose laws are known."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf_jax.ops.bestofn import kl_bound
from rlhf_jax.ops.laws import BON, LAWS, RL
from rlhf_jax.studies import command
from rlhf_jax.studies.frontier import DATA, SINGLE, WIDTHS, _decline, analyse, proxy_name
from rlhf_jax.studies.results import Results
from rlhf_jax.verdict import judge

STUDY = Path(__file__).parents[2] / "configs" / "studies" / "reward_hacking.py"
SEEDS, NS = 16, 2 ** np.arange(11)


def made(moves: float) -> Results:
    """α rises by `moves` and β falls by half of it for each e-fold of width; both rules of Gao
    et al. hold exactly but for a spread of seeds in α; the worst of four never declines."""
    study = command.read(STUDY)
    rng = np.random.default_rng(0)
    values: dict[str, dict[str, Any]] = {m.name: {} for m in study.metrics}
    shape = (2, SEEDS)
    for arm in study.arms:
        sizes = {proxy_name(w, n): (np.log(w / 8), np.log(n / 128)) for w in WIDTHS for n in DATA}
        wide, told = sizes.get(arm, sizes[SINGLE])
        alpha = 1.5 + moves * wide + 0.1 * moves * told + 0.02 * rng.normal(size=(*shape, 1))
        beta = np.full((*shape, 1), 0.0 if arm == "worst-of-4" else 0.7 - moves / 2 * wide)
        d = np.broadcast_to(np.sqrt(kl_bound(NS)), (*shape, len(NS)))
        steps = np.linspace(0.0, 3.5, 30) * np.ones((*shape, 1))
        bend = steps * (alpha - beta * np.log(np.maximum(steps, 1e-9)))
        found = {
            "gold at proxy 1.5": bend[..., 15],
            "KL wasted": steps[..., 15],
            "gold": bend[..., -1],
            "accuracy": np.where(np.arange(2)[:, None] == 0, 0.7, 0.6)
            - (0.2 if arm == proxy_name(32, 128) else 0.0)
            + 0.01 * rng.normal(size=shape),
            "KL": steps[..., -1] ** 2,
            "bestofn_kl": d**2,
            "bestofn_gold": d * (alpha - beta * d),
            "bestofn_scores": 1.5 * d,
            "policy_kl": steps**2,
            "policy_gold": bend,
            "policy_scores": (1.0 + 0.01 * rng.normal(size=(*shape, 1))) * steps,
            "policy_start": np.zeros(shape),
            "policy_zero": np.zeros(shape),
        }
        for name, value in found.items():
            values[name][arm] = value
    return Results(study, tuple(study.arms), values, {}, {}, {}, "", "")


@functools.cache
def outcomes(moves: float) -> dict[tuple[str, str], str]:
    """(metric, arm) → outcome of every expectation of the study."""
    results = made(moves)
    measured = results.measured() | dict(analyse(results).measured)
    verdicts = judge(results.study.expectations, measured)
    return {(v.expectation.metric, v.expectation.arm): v.outcome for v in verdicts}


COEFFICIENTS = [(name, "clean answers") for name in ("best-of-n α", "best-of-n β", "PPO β")]


def test_coefficients_that_move_with_the_width_are_found_to() -> None:
    found = outcomes(0.2)
    assert {found[c] for c in COEFFICIENTS} == {"supported"}


def test_coefficients_that_stay_are_not_said_to_move() -> None:
    found = outcomes(0.0)
    assert "supported" not in {found[c] for c in COEFFICIENTS}


@pytest.mark.parametrize(
    "claim",
    [
        ("bend of the proxy", "best-of-n"),
        ("bend of the proxy", "PPO"),
        ("KL to a proxy of 1", "PPO"),
        ("gold at √KL = 2", "kl-0.1"),
        ("decline of best-of-n", "worst-of-4"),
        ("best-of-n gold at the end", "worst-of-4"),
        ("accuracy", SINGLE),
        ("accuracy", proxy_name(32, 128)),
    ],
)
def test_what_the_curves_were_made_with_is_found(claim: tuple[str, str]) -> None:
    assert outcomes(0.2)[claim] == "supported"


def test_the_grid_of_proxies_and_their_noise_are_regressed() -> None:
    titles = [t.title for t in analyse(made(0.2)).tables]
    assert "How the coefficients of best-of-n move" in titles
    assert "How those of best-of-n move, noise among them" in titles


def test_best_of_n_is_charged_what_was_counted_beside_its_upper_bound() -> None:
    results = made(0.0)
    tied = {arm: np.minimum(kl, 4.5) - 3e-8 for arm, kl in results.values["bestofn_kl"].items()}
    tables = analyse(results._replace(values={**results.values, "bestofn_kl": tied})).tables
    (table,) = (t for t in tables if "upper bound" in t.head[1])
    # log 512 − 511/512 = 5.2403 and log 4 − 3/4 = 0.6363.
    assert table.rows[9] == ["512", "5.240", "4.500 [4.500, 4.500]"]
    assert table.rows[2] == ["4", "0.636", "0.636 [0.636, 0.636]"]


def test_the_law_that_made_the_curves_foretells_the_rest_best() -> None:
    tables = {t.title: t for t in analyse(made(0.0)).tables}
    for optimiser, law in (("best-of-n", BON), ("PPO", RL)):
        rows = tables[f"Which law foretells {optimiser}"].rows
        assert len(rows) == len(LAWS)
        error = {name: float(value.split(" ")[0]) for name, value, _ in rows}
        assert rows[0][0] == f"{optimiser}, {law.name}"
        # The power law holds both and may come as near.
        assert error[rows[0][0]] <= 1.05 * min(error.values())
        assert error[rows[0][0]] < 0.5 * error[f"{optimiser}, linear"]


def test_what_cannot_be_fitted_is_noted_and_the_rest_is_shown() -> None:
    results = made(0.2)
    near = {arm: 0.1 * kl for arm, kl in results.values["policy_kl"].items()}
    short = results._replace(values={**results.values, "policy_kl": near})
    found = analyse(short)
    assert [n for n in found.notes if n.startswith("Which law foretells PPO is not shown")]
    assert "Best-of-n: the law of each proxy" in [t.title for t in found.tables]
    assert np.isnan(found.measured["gold at √KL = 2"].arms[SINGLE]).all()


def test_noise_does_not_decline() -> None:
    noise = np.random.default_rng(0).normal(size=(400, 11, 8))
    rising = noise[0] + np.arange(11.0)[:, None]
    falls = np.array([_decline(x)[0] for x in noise])
    own = np.array([x[[x.mean(axis=1).argmax()]][0] - x[-1] for x in noise])
    assert abs(falls.mean()) < 0.08  # deviation of the mean of 400 × 8: 0.025
    assert own.mean() > 0.4
    assert (_decline(np.arange(11.0)[:, None] * np.ones(8)) == 0).all()
    assert _decline(-rising).mean() > 7
