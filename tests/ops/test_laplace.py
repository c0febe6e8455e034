from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.stats import norm

from rlhf_jax.ops import laplace, queries
from rlhf_jax.ops.laplace import Laplace

D, N = 3, 400
TRUTH = np.asarray([1.5, -1.0, 0.5])
fit = jax.jit(laplace.fit)


def asked(seed: int, n: int = N):
    rng = np.random.default_rng(seed)
    delta = rng.normal(size=(n, D))
    label = rng.random(n) < 1 / (1 + np.exp(-delta @ TRUTH))
    return delta.astype(np.float32), label.astype(np.float32)


def test_one_dimension_by_hand():
    # Head 0: σ σ' = ¼; H = 2 + ¼ (1·4 + 2·1) = 3.5, the row of weight 0 left out.
    delta = jnp.asarray([[2.0], [1.0], [50.0]])
    found = laplace.around(jnp.zeros(1), delta, jnp.asarray([1.0, 2.0, 0.0]), 2.0)
    assert float(found.factor[0, 0]) == pytest.approx(3.5**0.5)
    mean, variance = laplace.difference(found, jnp.asarray([[3.0]]))
    assert float(mean[0]) == 0
    assert float(variance[0]) == pytest.approx(9 / 3.5)


def test_head_and_posterior_equal_scipy_s_maximum_and_numpy_s_inverse_hessian():
    delta, label = asked(0)
    weight = np.random.default_rng(1).integers(0, 3, N).astype(np.float32)
    x, sign = delta.astype(float), 2.0 * label - 1
    cost = lambda w: weight @ np.logaddexp(0, -sign * (x @ w)) + 0.25 * w @ w
    best = minimize(cost, np.zeros(D), tol=1e-10).x
    found = fit(delta, label, weight, 0.5)
    np.testing.assert_allclose(found.mean, best, atol=1e-4)
    p = 1 / (1 + np.exp(-x @ best))
    hessian = 0.5 * np.eye(D) + (x * (weight * p * (1 - p))[:, None]).T @ x
    new = asked(2, 5)[0]
    mean, variance = laplace.difference(found, new)
    np.testing.assert_allclose(mean, new @ best, atol=1e-3)
    expected = np.einsum("nd,de,ne->n", new, np.linalg.inv(hessian), new)
    np.testing.assert_allclose(variance, expected, rtol=1e-3)


def test_without_answers_the_posterior_is_the_prior():
    delta, label = asked(0)
    found = fit(delta, label, np.zeros(N, np.float32), 4.0)
    np.testing.assert_array_equal(found.mean, 0)
    _, variance = laplace.difference(found, delta[:3])
    np.testing.assert_allclose(variance, (delta[:3] ** 2).sum(1) / 4, rtol=1e-5)


def test_separable_answers_and_a_weak_prior_stay_finite_and_at_the_maximum():
    delta = np.asarray([[1.0], [2.0], [-3.0]], np.float32)
    found = fit(delta, np.asarray([1.0, 1.0, 0.0], np.float32), np.ones(3, np.float32), 1e-3)
    w = float(found.mean[0])
    # Where the gradient is zero: Σ |Δ| σ(−w |Δ|) = τ w.
    assert sum(s / (1 + np.exp(w * s)) for s in (1, 2, 3)) == pytest.approx(1e-3 * w, rel=1e-2)


def test_intervals_cover_the_truth_as_often_as_they_say():
    # 200 posteriors × 3 heads at 90 %: deviation of the mean √(0.09/600) ≈ 0.012.
    sets = [asked(s, 150) for s in range(200)]
    delta, label = (jnp.asarray(np.stack(x)) for x in zip(*sets, strict=True))
    found = jax.vmap(lambda d, y: laplace.fit(d, y, jnp.ones(150), 0.3, 12))(delta, label)
    mean, variance = jax.vmap(lambda f: laplace.difference(f, jnp.eye(D)))(found)
    z = np.abs(np.asarray(mean) - TRUTH) / np.sqrt(variance)
    assert np.mean(z < norm.ppf(0.95)) == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 3.0), (1.0, 1.0), (-2.0, 4.0)])
def test_the_predictive_probability_is_near_the_integral(mean, deviation):
    exact = quad(lambda d: norm.pdf(d, mean, deviation) / (1 + np.exp(-d)), -40, 40)[0]
    got = float(laplace.probability(jnp.float32(mean), jnp.float32(deviation**2)))
    assert got == pytest.approx(exact, abs=0.02)


def test_draws_have_the_posterior_s_mean_and_covariance():
    precision = np.asarray([[4.0, 1.0], [1.0, 1.0]])
    found = Laplace(jnp.asarray([1.0, -2.0]), jnp.linalg.cholesky(jnp.asarray(precision)))
    heads = np.asarray(laplace.draw(found, jax.random.normal(jax.random.key(0), (40_000, 2))))
    np.testing.assert_allclose(heads.mean(0), [1, -2], atol=0.03)
    np.testing.assert_allclose(np.cov(heads.T), np.linalg.inv(precision), atol=0.04)


def test_the_evidence_is_the_integral_over_heads_in_one_dimension():
    delta, label = asked(3, 60)
    delta = delta[:, :1]
    sign = 2 * label - 1

    def joint(w, tau):
        return np.exp(-np.logaddexp(0, -sign * w * delta[:, 0]).sum()) * norm.pdf(w, 0, tau**-0.5)

    for tau in (0.1, 1.0, 10.0):
        exact = np.log(quad(joint, -15, 15, args=(tau,), points=[0, 1, 2])[0])
        found = fit(delta, label, np.ones(60, np.float32), tau)
        got = laplace.log_evidence(found, delta, label, np.ones(60, np.float32), tau)
        assert float(got) == pytest.approx(exact, abs=0.05)


def test_a_comparison_along_a_direction_never_asked_about_is_asked_next():
    # There the head is as uncertain as its prior.
    delta, label = asked(4, 100)
    delta[:, 2] = 0
    found = fit(delta, label, np.ones(100, np.float32), 0.5)
    candidates = jnp.concatenate([jnp.asarray(delta[:20]), jnp.asarray([[0.0, 0.0, 2.0]])])
    gain = queries.gaussian_information(*laplace.difference(found, candidates))
    rows, _ = queries.choose(gain, 1)
    assert rows.tolist() == [20]
