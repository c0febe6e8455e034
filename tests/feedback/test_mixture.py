from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.feedback import comparison, rating
from rlhf_jax.feedback.mixture import joint
from rlhf_jax.humans import Human


def test_log_likelihoods_add_over_all_answers():
    terms = {
        "rating": (jnp.asarray([1.0, 3.0, jnp.nan]), jnp.asarray([1.0, 2.0, 0.0])),
        "label": (jnp.asarray([5.0]), jnp.asarray([1.0])),
    }
    total, metrics = joint(terms)
    assert total == pytest.approx((1 + 6 + 5) / 4)
    assert metrics["loss/rating"] == pytest.approx(7 / 3)
    assert joint(terms, {"label": 0.0})[0] == pytest.approx(7 / 4)


def test_two_types_in_their_own_likelihoods_beat_each_alone_and_equal_weights():
    """32 repetitions of 100 comparisons of a fair judge and 100 ratings of a poor one, a
    reward linear in 4 features: mean squared error of θ after 400 steps down the gradient.
    """
    judge, rater = Human(rationality=1.0), Human(rationality=0.25)
    truth = jnp.asarray([1.0, -0.5, 0.25, 0.0])

    def repetition(key):
        a, b, c, d = jax.random.split(key, 4)
        x, z = jax.random.normal(a, (2, 100, 4)), jax.random.normal(b, (100, 4))
        label = comparison.elicit(judge, x[0] @ truth, x[1] @ truth, c)
        y = rating.elicit(rater, z @ truth, d)

        def error(comparisons, ratings, beta):
            def nll(theta):
                one = comparison.loss(x[0] @ theta, x[1] @ theta, label, judge)
                two = rating.loss(z @ theta, y, Human(rationality=beta))
                ones = jnp.ones(100)
                return joint(
                    {"c": (one, ones), "r": (two, ones)}, {"c": comparisons, "r": ratings}
                )[0]

            down = lambda t, _: (t - jax.grad(nll)(t), None)
            theta = jax.lax.scan(down, jnp.zeros(4), length=400)[0]
            return jnp.mean(jnp.square(theta - truth))

        # Both, comparisons alone, ratings alone, both with the rater taken for a fair one.
        arms = ([1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 1.0, 1.0], [0.25, 0.25, 0.25, 1.0])
        return jax.vmap(error)(*(jnp.asarray(a) for a in arms))

    errors = jax.jit(jax.vmap(repetition))(jax.random.split(jax.random.key(0), 32))
    both, comparisons, ratings, misjudged = np.mean(errors, axis=0)
    assert both < 0.9 * min(comparisons, ratings, misjudged)
