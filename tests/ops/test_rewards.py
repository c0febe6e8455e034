"""What a response earns: every choice by hand."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_jax.ops.returns import generalised_advantage
from rlhf_jax.ops.rewards import adapt, judged, shaped, with_next

KL = jnp.asarray([0.1, -0.2, 0.3, 9.0])
DONE, FULL = jnp.asarray([True, True, True, False]), jnp.ones(4, bool)


def one(score, ended, length, how):
    score, value = jnp.asarray(score, jnp.float32), jnp.asarray(2.0)
    return float(judged(score, jnp.asarray(ended), jnp.asarray(length), how, value, 8, 4))


@pytest.mark.parametrize(
    ("how", "ended", "length", "expected"),
    [
        ("keep", False, 8, 0.73),
        ("subtract", False, 8, 0.73 - 2),
        ("subtract", True, 8, 0.73),
        ("replace", False, 8, 2.0),
        ("replace", True, 8, 0.73),
        ("length", True, 4, 0.73),  # free up to 8 − 4 tokens
        ("length", True, 6, 0.73 - 1),  # half of the tail
        ("length", True, 8, 0.73 - 2),  # EOS as the last token pays as well
        ("length", False, 8, 0.73 - 2),
    ],
)
def test_a_missing_end_costs(how, ended, length, expected):
    assert one(0.73, ended, length, how) == pytest.approx(expected, rel=1e-6)


def test_the_score_is_paid_on_the_last_token_and_keeps_its_fraction():
    # −0.5·(0.1, −0.2, 0.3), the third plus 0.73; k1 stays negative where it is
    got = shaped(KL, jnp.asarray(0.73), DONE, jnp.asarray(0.5), "end")
    np.testing.assert_allclose(got, [-0.05, 0.1, -0.15 + 0.73, 0.0], rtol=1e-6)
    assert got.dtype == jnp.float32


def test_after_end_pays_on_the_padding_or_on_the_last_token_where_there_is_none():
    score, weight = jnp.asarray(0.73), jnp.asarray(0.5)
    got = shaped(KL, score, DONE, weight, "after_end")
    np.testing.assert_allclose(got, [-0.05, 0.1, -0.15, 0.73], rtol=1e-6)
    np.testing.assert_allclose(
        shaped(KL, score, FULL, weight, "after_end"), shaped(KL, score, FULL, weight, "end")
    )


def test_with_next_adds_the_state_that_has_seen_the_end():
    np.testing.assert_array_equal(with_next(DONE), [1, 1, 1, 1])
    np.testing.assert_array_equal(with_next(jnp.asarray([True, False, False])), [1, 1, 0])
    np.testing.assert_array_equal(with_next(FULL), [1, 1, 1, 1])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.floats(-3, 3, width=32), st.integers(0, 2**31 - 1))
def test_at_discount_and_lambda_1_both_placements_return_the_same(length, score, seed):
    values = jnp.asarray(np.random.default_rng(seed).normal(size=4), jnp.float32)
    mask, unit = jnp.arange(4) < length, jnp.asarray(1.0)
    returns = []
    for at, valued in (("end", mask), ("after_end", with_next(mask))):
        rewards = shaped(KL, jnp.asarray(score, jnp.float32), mask, unit, at)
        advantages = generalised_advantage(rewards, values, valued, unit, unit, 0 * unit)
        returns.append(jnp.where(mask, advantages + values, 0.0))
    np.testing.assert_allclose(*returns, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.05),  # on target
        (6.6, 0.05 * (1 + 0.1 * 64 / 1000)),
        (60.0, 0.05 * (1 + 0.2 * 64 / 1000)),  # the error is held at 0.2
        (0.0, 0.05 * (1 - 0.2 * 64 / 1000)),
    ],
)
def test_the_controller_follows_its_closed_form(kl, expected):
    got = adapt(*map(jnp.asarray, (0.05, kl, 6.0, 1000.0)), 64)
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_an_infinite_horizon_keeps_the_weight():
    assert adapt(*map(jnp.asarray, (0.05, 60.0, 6.0, jnp.inf)), 64) == jnp.float32(0.05)
