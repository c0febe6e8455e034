from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.ops.aggregate import mean, standardise, uncertainty_weighted, worst_case

# Three members, two samples. Column 0: mean 2, variance ((1)² + 0 + (1)²)/3 = 2/3;
# column 1: mean 0, variance (16 + 4 + 4)/3 = 8.
SCORES = jnp.asarray([[1.0, 4.0], [2.0, -2.0], [3.0, -2.0]])


def test_the_three_rules_on_three_members():
    np.testing.assert_allclose(mean(SCORES), [2, 0], atol=1e-6)
    np.testing.assert_allclose(worst_case(SCORES), [1, -2])
    np.testing.assert_allclose(uncertainty_weighted(SCORES, 0.5), [2 - 1 / 3, -4], atol=1e-6)


def test_members_that_stand_for_more_people_weigh_more():
    # Shares ½, ¼, ¼: means 0.5 + 0.5 + 0.75 and 2 − 0.5 − 0.5; variances of the first column
    # ½ · 0.75² + ¼ · 0.25² + ¼ · 1.25² = 0.6875, of the second ½ · 9 + ½ · 9 = 9.
    share = jnp.asarray([0.5, 0.25, 0.25])
    np.testing.assert_allclose(mean(SCORES, share), [1.75, 1.0], rtol=1e-6)
    got = uncertainty_weighted(SCORES, 2.0, share)
    np.testing.assert_allclose(got, [1.75 - 2 * 0.6875, 1.0 - 2 * 9.0], rtol=1e-6)


def test_one_member_is_itself_under_every_rule():
    for rule in (mean, worst_case, lambda s: uncertainty_weighted(s, 3.0)):
        np.testing.assert_array_equal(rule(SCORES[:1]), SCORES[0])


def test_without_doubt_the_weighting_is_the_mean_and_doubt_may_be_mapped():
    doubt = jnp.asarray([0.0, 0.5])
    both = jax.vmap(uncertainty_weighted, (None, 0))(SCORES, doubt)
    np.testing.assert_allclose(both, [[2, 0], [2 - 1 / 3, -4]], atol=1e-6)


def test_members_on_other_scales_agree_once_standardised():
    rng = np.random.default_rng(0)
    reference, new = rng.normal(size=(1, 50)), rng.normal(size=(1, 4, 5))
    slope, offset = np.asarray([1.0, 0.01, 300.0]), np.asarray([0.0, 5.0, -40.0])
    on = lambda x: jnp.asarray(
        x * slope.reshape(-1, *[1] * (x.ndim - 1)) + offset.reshape(-1, *[1] * (x.ndim - 1)),
        jnp.float32,
    )
    got = standardise(on(new), on(reference))
    expected = (new - reference.mean()) / reference.std()
    np.testing.assert_allclose(got, np.broadcast_to(expected, (3, 4, 5)), atol=1e-3)
    np.testing.assert_allclose(uncertainty_weighted(got, 1.0), expected[0], atol=1e-3)


def test_a_member_that_says_the_same_to_all_stays_finite():
    flat = jnp.full((1, 8), 3.0)
    np.testing.assert_array_equal(standardise(flat, flat), jnp.zeros((1, 8)))


@pytest.mark.parametrize("doubt", [0.0, 0.3, 2.0])
def test_a_sample_that_one_member_overvalues_is_chosen_only_while_doubt_is_small(doubt):
    # An error e of one of k members at one sample: mean e/k, variance (e²/k)(1 − 1/k).
    k, e = 4, 6.0
    value = uncertainty_weighted(jnp.zeros((k, 10)).at[1, 3].set(e), doubt)
    expected = e / k - doubt * (e * e / k) * (1 - 1 / k)
    assert float(value[3]) == pytest.approx(expected, rel=1e-5)
    assert (int(jnp.argmax(value)) == 3) == (expected > 0)
