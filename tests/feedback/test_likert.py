from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fitting import fit, recovery

from rlhf_jax.feedback import label, likert
from rlhf_jax.humans import Human
from rlhf_jax.humans.links import constrain, unconstrain


def test_three_points_by_hand():
    # σ(ln 3) = ¾ on either side
    human = Human(rationality=1.0, cutpoints=(-np.log(3.0), np.log(3.0)))
    p = np.exp(likert.log_probabilities(human, jnp.asarray([0.0, np.log(3.0)])))
    np.testing.assert_allclose(p[0], [0.25, 0.5, 0.25], rtol=1e-5)
    np.testing.assert_allclose(p[1], [0.1, 0.4, 0.5], rtol=1e-5)


def test_a_perfect_person_counts_the_cutpoints_below():
    points = likert.elicit(Human(), jnp.asarray([-9.0, -1.0, 0.0, 1.0, 9.0]), jax.random.key(0))
    np.testing.assert_array_equal(points, [0, 1, 2, 3, 4])


def test_two_points_are_good_and_bad():
    r = jnp.asarray([-1.0, 0.2, 2.0])
    human = Human(rationality=3.0, cutpoints=(0.4,), bar=0.4, lapse=0.1)
    for said in (0, 1):
        y = jnp.full(3, said)
        expected = label.loss(label.approval(r, 0.4), y, human)
        np.testing.assert_allclose(likert.loss(r, y, human), expected, rtol=1e-5)


def test_far_tails_keep_their_slope():
    slope = jax.grad(lambda r: likert.loss(r, jnp.asarray(2))[()])(jnp.float32(60.0))
    assert slope == pytest.approx(1.0, rel=1e-4)


def test_cutpoints_and_reward_are_fitted_together():
    """6000 ratings of 8 items whose values sum to 0, which pins the offset: slope 1 ± 0.1."""
    truth = jnp.linspace(-2.0, 2.0, 8)
    human = Human(rationality=1.0, cutpoints=(-2.0, -0.3, 0.1, 1.7))
    key, items = jax.random.split(jax.random.key(0))
    item = jax.random.randint(items, (6000,), 0, 8)
    said = likert.elicit(human, truth[item], key)

    def nll(p):
        r = p["r"] - jnp.mean(p["r"])
        return jnp.mean(likert.loss(r[item], said, constrain(human, p["raw"])))

    start = unconstrain(Human(cutpoints=(-1.0, 0.0, 1.0, 2.0)), ["cutpoints"])
    found = fit(nll, {"r": jnp.zeros(8), "raw": start})
    rank, slope = recovery(found["r"], truth)
    assert rank == pytest.approx(1.0)
    assert abs(slope - 1) < 0.1
    fitted = constrain(human, found["raw"]).cutpoints
    np.testing.assert_allclose(fitted, human.cutpoints, atol=0.15)
