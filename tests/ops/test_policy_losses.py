"""Losses of PPO by hand, against rlax, and the weights of three averages."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.ops.policy_losses import clipped_value_loss, log_ratio, surrogate, weighted, weights

INF = jnp.inf


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.1, 2.0, -2.2),
        (1.5, 2.0, -2.4),  # clipped at 1.2
        (0.5, 2.0, -1.0),  # no clip where it would help
        (0.5, -2.0, 1.6),  # clipped at 0.8
        (1.5, -2.0, 3.0),
    ],
)
def test_the_surrogate_by_hand(ratio, advantage, expected):
    got = surrogate(jnp.log(ratio), jnp.asarray(advantage), jnp.asarray(0.2), jnp.asarray(INF))
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_the_dual_clip_bounds_the_loss_of_a_bad_action():
    # ρ = 10, Â = −2: 20 becomes c |Â| = 6; Â > 0 and small losses stay
    loss = lambda ratio, a: float(
        surrogate(jnp.log(ratio), jnp.asarray(a), jnp.asarray(0.2), jnp.asarray(3.0))
    )
    assert loss(10.0, -2.0) == pytest.approx(6.0, rel=1e-5)
    assert loss(1.5, -2.0) == pytest.approx(3.0, rel=1e-5)
    assert loss(10.0, 2.0) == pytest.approx(-2.4, rel=1e-5)


def test_without_dual_clip_an_advantage_of_0_costs_0_and_has_no_nan_gradient():
    f = lambda x: surrogate(x, jnp.asarray(0.0), jnp.asarray(0.2), jnp.asarray(INF))
    assert f(jnp.asarray(0.3)) == 0.0
    assert jax.grad(f)(jnp.asarray(0.3)) == 0.0


def test_no_gradient_beyond_the_clamp():
    f = lambda x: log_ratio(x, jnp.asarray(0.0), jnp.asarray(2.0))
    assert f(jnp.asarray(5.0)) == 2.0
    assert jax.grad(f)(jnp.asarray(5.0)) == 0.0
    assert jax.grad(f)(jnp.asarray(1.0)) == 1.0
    assert log_ratio(jnp.asarray(50.0), jnp.asarray(0.0), jnp.asarray(INF)) == 50.0


def test_the_surrogate_agrees_with_rlax():
    rng = np.random.default_rng(0)
    ratio, advantage = np.exp(rng.normal(0, 0.5, 64)), rng.normal(size=64)
    ratio, advantage = jnp.asarray(ratio, jnp.float32), jnp.asarray(advantage, jnp.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rlax = pytest.importorskip("rlax")
        theirs = rlax.clipped_surrogate_pg_loss(ratio, advantage, 0.2)
    ours = jnp.mean(surrogate(jnp.log(ratio), advantage, jnp.asarray(0.2), jnp.asarray(INF)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.1, 0.5 * 0.9**2),  # inside the clip: ½ (1.1 − 2)²
        (1.9, 0.5 * 0.8**2),  # clipped to 1.2: ½ max(0.1², 0.8²)
        (0.5, 0.5 * 1.5**2),  # clipped to 0.8, but further away itself
    ],
)
def test_the_value_is_clipped_around_the_old_one(value, expected):
    got = clipped_value_loss(*map(jnp.asarray, (value, 1.0, 2.0, 0.2)))
    assert float(got) == pytest.approx(expected, rel=1e-5)


MASK = jnp.asarray([[1, 1, 1, 0], [1, 0, 0, 0]], bool)
LOSS = jnp.asarray([[1.0, 2.0, 3.0, jnp.nan], [10.0, jnp.nan, jnp.nan, jnp.nan]])


@pytest.mark.parametrize(
    ("average", "expected"),
    [
        ("tokens", (1 + 2 + 3 + 10) / 4),
        ("sequences", ((1 + 2 + 3) / 3 + 10 / 1) / 2),
        ("constant", (1 + 2 + 3 + 10) / 8),
    ],
)
def test_three_averages_by_hand(average, expected):
    assert float(weighted(LOSS, weights(MASK, average))) == pytest.approx(expected, rel=1e-6)
