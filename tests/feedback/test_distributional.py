from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fitting import agrees, fit
from scipy.stats import norm

from rlhf_jax.config import ConfigError
from rlhf_jax.feedback import distributional
from rlhf_jax.feedback.comparison import bradley_terry
from rlhf_jax.feedback.distributional import Normal
from rlhf_jax.humans import Human
from rlhf_jax.humans.choice import prefer

LEVELS = jnp.asarray([0.0, 0.5, 1.0])
logits = lambda *p: jnp.log(jnp.maximum(jnp.asarray(p), 1e-30))


def test_two_normals_by_hand():
    # (1 − 0)/√(0.36 + 0.64) = 1: Φ(1) = 0.841345.
    a = Normal(jnp.asarray(1.0), jnp.log(0.6))
    b = Normal(jnp.asarray(0.0), jnp.log(0.8))
    assert float(jnp.exp(distributional.log_probability(a, b))) == pytest.approx(0.841345, abs=1e-5)
    assert float(jnp.exp(distributional.log_probability(b, a))) == pytest.approx(0.158655, abs=1e-5)


def test_two_categoricals_by_hand():
    # P(i > j) = 0.3·0.6 + 0.5·(0.6 + 0.4) = 0.68; P(i = j) = 0.2·0.6 + 0.3·0.4 = 0.24.
    a, b = logits(0.2, 0.3, 0.5), logits(0.6, 0.4, 0.0)
    got = jnp.exp(distributional.log_probability_categorical(a, b))
    assert float(got) == pytest.approx(0.68 + 0.12, abs=1e-6)
    back = jnp.exp(distributional.log_probability_categorical(b, a))
    assert float(got + back) == pytest.approx(1, abs=1e-6)


def test_far_apart_the_loss_stays_finite_and_still_pulls():
    a, b = Normal(jnp.zeros(1), jnp.zeros(1)), Normal(jnp.full(1, 50.0), jnp.zeros(1))
    assert float(distributional.loss(a, b, jnp.ones(1))[0]) == pytest.approx(
        -norm.logcdf(-50 / 2**0.5), rel=1e-4
    )
    pull = jax.grad(lambda m: distributional.loss(a._replace(mean=m), b, jnp.ones(1))[0])(a.mean)
    assert float(pull[0]) < -10


def test_soft_labels_ties_and_cannot_tell():
    a, b = Normal(jnp.full(3, 1.0), jnp.zeros(3)), Normal(jnp.zeros(3), jnp.zeros(3))
    yes, no = norm.logcdf(2**-0.5), norm.logcdf(-(2**-0.5))
    got = distributional.loss(a, b, jnp.asarray([1.0, 0.5, -1.0]))
    np.testing.assert_allclose(got, [-yes, -(yes + no) / 2, 0], atol=1e-5)


@pytest.mark.parametrize("kind", ["normal", "categorical"])
def test_answers_come_as_often_as_the_likelihood_says(kind):
    n = 20_000
    if kind == "normal":
        one, two = (
            Normal(jnp.float32(0.3), jnp.float32(0.5)),
            Normal(jnp.float32(0), jnp.float32(-1)),
        )
        a, b = (Normal(*(jnp.broadcast_to(v, (n,)) for v in x)) for x in (one, two))
    else:
        one, two = logits(0.2, 0.3, 0.5), logits(0.1, 0.8, 0.1)
        a, b = (jnp.broadcast_to(x, (n, 3)) for x in (one, two))
    said = np.asarray(distributional.elicit(a, b, jax.random.key(0)))
    p = float(jnp.exp(-distributional.loss(a, b, jnp.ones(n))[0]))
    assert agrees([said.sum(), n - said.sum()], [p, 1 - p])


def test_a_normal_is_not_compared_with_a_categorical():
    with pytest.raises(ConfigError, match="one reward is normal, one categorical"):
        distributional.loss(Normal(jnp.zeros(1), jnp.zeros(1)), jnp.zeros((1, 3)), jnp.ones(1))


def test_quantiles_moments_and_share_explained():
    even = logits(0.5, 0.0, 0.5)
    found = distributional.moments(even, LEVELS)
    assert float(found.mean) == pytest.approx(0.5)
    assert float(jnp.exp(found.log_deviation)) == pytest.approx(0.5, abs=1e-5)
    assert float(distributional.quantile_categorical(even, LEVELS, 0.5)) == 0
    assert float(distributional.quantile_categorical(even, LEVELS, 0.51)) == 1
    two = Normal(jnp.asarray([0.0, 2.0]), jnp.log(jnp.asarray([1.0, 2.0])))
    np.testing.assert_allclose(
        distributional.quantile(two, 0.05), norm.ppf(0.05, [0, 2], [1, 2]), atol=1e-5
    )
    # Var(0, 2) = 1; mean of 1 and 4 is 2.5.
    assert float(distributional.explained(two)) == pytest.approx(1 / 3.5)


def test_normal_rewards_are_recovered_up_to_scale_from_all_pairs():
    mean = np.asarray([0.0, 0.4, 1.0, 1.2, 2.0, 0.7])
    deviation = np.asarray([1.0, 0.5, 2.0, 0.7, 1.5, 1.0])
    a, b = np.triu_indices(6, 1)
    label = jnp.asarray(
        norm.cdf((mean[a] - mean[b]) / np.hypot(deviation[a], deviation[b])), jnp.float32
    )

    def objective(x):
        both = [Normal(x.mean[i], x.log_deviation[i]) for i in (a, b)]
        pinned = jnp.mean(x.mean) ** 2 + jnp.mean(x.log_deviation) ** 2
        return 100 * jnp.mean(distributional.loss(*both, label)) + pinned

    found = fit(objective, Normal(jnp.zeros(6), jnp.zeros(6)))
    scale = np.exp(np.log(deviation).mean())
    np.testing.assert_allclose(found.mean, (mean - mean.mean()) / scale, atol=0.05)
    np.testing.assert_allclose(np.exp(found.log_deviation), deviation / scale, rtol=0.1)


def test_a_response_that_divides_people_is_wide_where_bradley_terry_sees_nothing_amiss():
    """Five responses worth −1, −½, 0, ½, 1 to all; the sixth −2 to half of people and 2 to the rest
    (`Human.context` ±2). Pooled comparisons leave no trace of it in a point reward."""
    people = Human(rationality=4.0, context=jnp.asarray([2.0]))
    worth = jnp.asarray([-1.0, -0.5, 0.0, 0.5, 1.0, 0.0])
    divides = jnp.asarray([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    a, b = (jnp.asarray(i) for i in np.triu_indices(6, 1))
    hidden, answer = jax.random.split(jax.random.key(2))
    sign = jnp.where(jax.random.bernoulli(hidden, shape=(800, 15)), 1.0, -1.0)
    value = lambda i: worth[i][None] + sign * people.context[0] * divides[i][None]
    label = jnp.mean(prefer(people, value(a), value(b), answer), axis=0)

    point = fit(lambda r: jnp.mean(bradley_terry(r[a], r[b], label)) + 1e-4 * r @ r, jnp.zeros(6))
    assert abs(float(point[5] - point[2])) < 0.2

    def objective(x):
        both = [Normal(x.mean[i], x.log_deviation[i]) for i in (a, b)]
        pinned = jnp.mean(x.mean) ** 2 + 0.1 * jnp.mean(x.log_deviation**2)
        return jnp.mean(distributional.loss(*both, label)) + 1e-2 * pinned

    found = fit(objective, Normal(jnp.zeros(6), jnp.zeros(6)))
    assert int(jnp.argmax(found.log_deviation)) == 5
    assert float(found.log_deviation[5] - jnp.sort(found.log_deviation)[4]) > np.log(1.5)
    # By its mean it ties with the middle, by its fifth percentile it is the last to choose.
    assert int(jnp.argmin(distributional.quantile(found, 0.05))) == 5

    def graded(x):
        pinned = 1e-3 * jnp.mean(x**2)
        return jnp.mean(distributional.loss(x[a], x[b], label)) + pinned

    levels = jnp.linspace(0.0, 1.0, 5)
    shares = fit(graded, jnp.zeros((6, 5)))
    assert int(jnp.argmax(distributional.moments(shares, levels).log_deviation)) == 5
