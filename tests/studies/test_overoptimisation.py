"""Curves against √KL: what they are measured from, the laws fitted to them, how they are shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making import make_study
from matplotlib.figure import Figure

from rlhf_jax import scaling
from rlhf_jax.config import ConfigError
from rlhf_jax.expectations import Trend
from rlhf_jax.ops.bestofn import kl_bound
from rlhf_jax.ops.laws import BON, LINEAR, RL
from rlhf_jax.studies import overoptimisation as over
from rlhf_jax.studies.results import Results
from rlhf_jax.verdict import judge

SEEDS, NS = 8, np.array([1, 2, 4, 8, 16, 32, 64, 128])
ALPHA, BETA = np.array([1.0, 1.2, 1.5]), np.array([0.3, 0.25, 0.2])
"""At three points of the axis."""


def made(ns: np.ndarray = NS, start: float = -0.6) -> Results:
    """Best-of-n follows d (α − β d) and PPO d (α − β log d), from gold −0.6; seeds differ in α."""
    rng = np.random.default_rng(0)
    alpha = ALPHA[:, None, None] + 0.02 * rng.normal(size=(1, SEEDS, 1))
    beta = BETA[:, None, None]
    d = np.broadcast_to(np.sqrt(kl_bound(ns)), (3, SEEDS, len(ns)))
    steps = np.arange(40) / 10 * (1 + 0.1 * rng.random((3, SEEDS, 1)))
    law = steps * (alpha - beta * np.log(np.maximum(steps, 1e-9)))
    values: dict[str, Any] = {
        "bestofn_kl": d**2,
        "bestofn_gold": start + d * (alpha - beta * d),
        "bestofn_scores": 0.1 + 1.5 * d,
        "policy_kl": steps**2,
        "policy_gold": start + law,
        "policy_scores": 0.1 + 1.4 * steps,
        "policy_start": np.full((3, SEEDS), start),
        "policy_zero": np.full((3, SEEDS), 0.1),
    }
    study = make_study(expectations=())
    return Results(
        study, ("plain",), {k: {"plain": v} for k, v in values.items()}, {}, {}, {}, "", ""
    )


def test_curves_are_measured_from_the_reference() -> None:
    c = over.best_of_n(made(), "plain", 1)
    assert c.gold.shape == c.proxy.shape == c.d.shape == (len(NS), SEEDS)
    np.testing.assert_allclose(c.gold[0], 0.0)
    np.testing.assert_allclose(c.proxy, 1.5 * c.d, atol=1e-12)


def test_ppo_begins_where_the_policy_has_moved() -> None:
    c = over.policy(made(), "plain")
    assert len(c.d) == 39  # the first of 40 steps is the reference itself
    assert c.d.min() > 0
    np.testing.assert_allclose(c.proxy, 1.4 * c.d)


@pytest.mark.parametrize(("take", "law"), [(over.best_of_n, BON), (over.policy, RL)])
def test_the_law_that_made_a_curve_is_found_again(take: Any, law: Any) -> None:
    for point in range(3):
        c = take(made(), "plain", point)
        found = scaling.fit(c.d, c.gold, law).estimates
        assert found["alpha"].value == pytest.approx(ALPHA[point], abs=0.02)
        assert found["beta"].value == pytest.approx(BETA[point], abs=0.02)


def test_best_of_n_must_begin_with_one() -> None:
    with pytest.raises(ConfigError, match="the first n must be 1"):
        over.best_of_n(made(NS[1:]), "plain")


def test_coefficients_by_seed_can_be_judged() -> None:
    curves = [over.best_of_n(made(), "plain", i) for i in range(3)]
    fits = [scaling.fit(c.d, c.gold, BON) for c in curves]
    measured = over.by_seed("RM size", (1.0, 2.0, 4.0), {"plain": fits})
    claims = (
        Trend("alpha", "plain", "increases", by=0.1, scale="log", stated="before"),
        Trend("beta", "plain", "decreases", by=0.05, scale="log", stated="before"),
    )
    assert [v.outcome for v in judge(claims, measured)] == ["supported", "supported"]


def test_tables_hold_the_estimates() -> None:
    curves = {f"size {i}": over.best_of_n(made(), "plain", i) for i in range(3)}
    fits = {k: scaling.fit(c.d, c.gold, BON) for k, c in curves.items()}
    table = over.coefficients("Best-of-n", fits)
    assert table.rows[2][0] == "size 2"
    assert table.rows[2][1] == str(fits["size 2"].estimates["alpha"])
    assert all(len(row) == len(table.head) for row in table.rows)
    moved = over.moves("Moves", list(fits.values()), {"log size": np.log([1.0, 2.0, 4.0])})
    assert [row[0] for row in moved.rows] == ["α", "β"]
    assert all(len(row) == len(moved.head) for row in moved.rows)
    told = over.foretold("Beyond", curves, (BON, LINEAR), cut=1.5)
    assert len(told.rows) == 6


@pytest.mark.parametrize("which", [1, 3, 6])
@pytest.mark.parametrize("take", [over.best_of_n, over.policy])
def test_figures_show_curves_and_laws(which: int, take: Any, tmp_path: Path) -> None:
    curves = {f"curve {i}": take(made(), "plain", i % 3) for i in range(which)}
    fits = {k: scaling.fit(c.d, c.gold, RL) for k, c in curves.items()}
    panel = over.panel("over", "Gold against √KL", curves, fits, proxy=True)
    assert panel.svg.startswith("<svg")
    assert "n = 8" in panel.note
    assert RL.formula in panel.note
    assert ("bands" in panel.note) == (which <= over.MANY)


def test_a_law_is_drawn_where_something_was_measured() -> None:
    c = over.policy(made(), "plain")
    late = over.Curves(c.d[10:], c.gold[10:], c.proxy[10:], False)
    fits = {"curve": scaling.fit(late.d, late.gold, RL)}
    figure = Figure()
    over._draw(figure, {"curve": late}, fits, ["#000000"], "rating", False)
    _, seen, law = (line.get_xdata() for line in figure.axes[0].lines)
    assert np.min(seen) > 0.5
    assert (np.min(law), np.max(law)) == (np.min(seen), np.max(seen))
