from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fitting import fit

from rlhf_jax.feedback import comparison, ranking
from rlhf_jax.humans import Human


def test_plackett_luce_by_hand():
    v = jnp.log(jnp.asarray([3.0, 2.0, 1.0]))
    assert np.exp(ranking.plackett_luce(v, jnp.asarray([0, 1, 2]))) == pytest.approx(3 / 6 * 2 / 3)
    assert np.exp(ranking.plackett_luce(v, jnp.asarray([2, 0]))) == pytest.approx(1 / 6 * 3 / 5)


def test_a_ranking_of_two_is_a_comparison_and_its_first_place_a_choice():
    r = jnp.asarray([[0.3, -1.0], [2.0, 2.5]])
    human = Human(rationality=2.0, lapse=0.1, flip=0.2)
    order = jnp.asarray([[0, 1], [0, 1]])
    expected = comparison.loss(r[:, 0], r[:, 1], jnp.ones(2), human)
    np.testing.assert_allclose(ranking.loss(r, order, human), expected, rtol=1e-5)
    np.testing.assert_allclose(ranking.loss(r, order[:, :1], human), expected, rtol=1e-5)
    np.testing.assert_allclose(ranking.loss_best(r, order[:, 0], human), expected, rtol=1e-5)


def test_fitted_rewards_agree_with_choix():
    choix = pytest.importorskip("choix")
    values = jnp.broadcast_to(jnp.asarray([1.0, 0.5, 0.0, -0.5, -1.0]), (400, 5))
    order = ranking.elicit(Human(rationality=1.0), values, jax.random.key(0))
    r = fit(lambda r: jnp.mean(ranking.loss(jnp.broadcast_to(r, (400, 5)), order)), jnp.zeros(5))
    theirs = choix.ilsr_rankings(5, np.asarray(order).tolist())
    np.testing.assert_allclose(r - jnp.mean(r), theirs - theirs.mean(), atol=5e-3)
