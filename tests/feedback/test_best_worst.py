from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.feedback import best_worst, comparison
from rlhf_jax.humans import Human

KEY = jax.random.key(0)


def test_the_greatest_difference_is_named_and_the_equation_says_how_often_the_others_are():
    values = jnp.log(jnp.asarray([2.0, 1.0, 4.0]))
    pairs = best_worst.pairs(3).tolist()
    assert pairs[int(best_worst.elicit(Human(), values, KEY))] == [2, 1]
    # e^(u_i − u_j) of the six pairs: 2, ½, ½, ¼, 2, 4
    p = [np.exp(-best_worst.loss(values, jnp.asarray(i))) for i in range(6)]
    np.testing.assert_allclose(p, np.asarray([2, 0.5, 0.5, 0.25, 2, 4]) / 9.25, rtol=1e-5)


def test_a_flip_exchanges_the_best_and_the_worst():
    values = jnp.asarray([0.3, -1.0, 2.0, 0.1])
    pairs = best_worst.pairs(4).tolist()
    for i, (best, worst) in enumerate(pairs):
        straight = best_worst.loss(values, jnp.asarray(i), Human(rationality=1.0))
        turned = jnp.asarray(pairs.index([worst, best]))
        flipped = best_worst.loss(values, turned, Human(rationality=1.0, flip=1.0))
        assert flipped == pytest.approx(float(straight), rel=1e-5)


def test_of_two_it_is_a_comparison_by_somebody_twice_as_rational():
    r = jnp.asarray([0.7, -0.2])
    once = best_worst.loss(r, jnp.asarray(0), Human(rationality=1.5))
    twice = comparison.loss(r[:1], r[1:], jnp.ones(1), Human(rationality=3.0))[0]
    assert once == pytest.approx(float(twice), rel=1e-5)
