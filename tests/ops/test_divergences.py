"""Estimators of the KL divergence against its exact value, in expectation over all actions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.ops import divergences


@pytest.fixture(scope="module")
def pair():
    rng = np.random.default_rng(0)
    return tuple(jax.nn.log_softmax(jnp.asarray(rng.normal(size=7), jnp.float32)) for _ in "pq")


def moments(estimator, pair):
    """Mean and variance of the estimator under a ~ p: exact sums over the actions."""
    p, q = pair
    x, weight = np.asarray(estimator(p - q), np.float64), np.exp(np.asarray(p, np.float64))
    mean = (weight * x).sum()
    return mean, (weight * (x - mean) ** 2).sum()


def test_exact_by_hand():
    # ½ log(½/¼) + ½ log(½/¾) = ½ log 2 + ½ log ⅔ = 0.1438410
    p, q = jnp.log(jnp.asarray([0.5, 0.5])), jnp.log(jnp.asarray([0.25, 0.75]))
    np.testing.assert_allclose(divergences.exact(p, q), 0.1438410, rtol=1e-5)
    np.testing.assert_allclose(divergences.entropy(q), 0.5623351, rtol=1e-5)


def test_forbidden_actions_add_nothing():
    p = jax.nn.log_softmax(jnp.asarray([0.0, 0.0, -1e30]))
    q = jax.nn.log_softmax(jnp.asarray([0.0, 1.0, -1e30]))
    np.testing.assert_allclose(divergences.exact(p, q), divergences.exact(p[:2], q[:2]), rtol=1e-6)
    gradient = jax.grad(lambda x: divergences.entropy(jax.nn.log_softmax(x)))(p)
    assert np.isfinite(gradient).all()


@pytest.mark.parametrize("estimator", [divergences.k1, divergences.k3])
def test_k1_and_k3_are_unbiased(estimator, pair):
    np.testing.assert_allclose(moments(estimator, pair)[0], divergences.exact(*pair), rtol=1e-5)


def test_k2_is_biased_by_the_third_order_of_the_difference(pair):
    p, q = pair
    bias = []
    for scale in (0.2, 0.1, 0.05):
        near = jax.nn.log_softmax(p + scale * (q - p))
        bias.append(moments(divergences.k2, (p, near))[0] - float(divergences.exact(p, near)))
    assert abs(moments(divergences.k2, pair)[0] / float(divergences.exact(*pair)) - 1) > 0.05
    assert np.abs(bias[1] / bias[0]) < 0.2  # halving the distance: 2⁻³, not 2⁻²
    assert np.abs(bias[2] / bias[1]) < 0.2


def test_k1_can_be_negative_and_k2_k3_cannot():
    rho = jnp.linspace(-4.0, 4.0, 81)
    assert divergences.k1(rho).min() < 0
    assert divergences.k2(rho).min() >= 0
    assert divergences.k3(rho).min() >= 0


def test_close_to_the_reference_k2_and_k3_have_far_less_variance_than_k1(pair):
    p, q = pair
    near = jax.nn.log_softmax(p + 0.1 * (q - p))
    k1, k2, k3 = (
        moments(e, (p, near))[1] for e in (divergences.k1, divergences.k2, divergences.k3)
    )
    assert k2 < 0.05 * k1
    assert k3 < 0.05 * k1
