"""Labels, corrections, demonstrations, steps and spans: values worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fitting import fit, recovery

from rlhf_jax.feedback import comparison, correction, demonstration, label, process, span
from rlhf_jax.humans import Human

KEY = jax.random.key(0)
ln = np.log
PLAIN = Human(rationality=1.0)


def test_good_is_what_exceeds_the_bar():
    scores = label.approval(jnp.asarray([1.0, 3.0]), 2.0)
    np.testing.assert_array_equal(label.elicit(Human(), scores, KEY), [0, 1])
    # σ(β (u − bar)) = σ(2 · ½ ln 3)
    scores = label.approval(jnp.asarray(2 + ln(3) / 2), 2.0)
    assert label.loss(scores, jnp.asarray(1), Human(rationality=2.0)) == pytest.approx(-ln(3 / 4))


def test_smoothing_shares_a_part_of_the_label_evenly():
    scores = jnp.log(jnp.asarray([2.0, 1.0, 1.0]))
    loss = label.loss(scores, jnp.asarray(0), smoothing=0.3)
    assert loss == pytest.approx(-(0.8 * ln(1 / 2) + 0.2 * ln(1 / 4)), rel=1e-5)


def test_an_edit_must_gain_what_it_costs():
    distance = jnp.asarray([0.0, 1.0, 2.0])
    values = jnp.asarray([0.0, 0.8, 1.8])
    assert correction.elicit(Human(edit_cost=1.0), values, distance, KEY) == 0
    assert correction.elicit(Human(edit_cost=0.7), values, distance, KEY) == 2
    even = Human(rationality=1.0, edit_cost=1.0)
    r = jnp.asarray([0.0, 1.0, 2.0])
    assert correction.loss(r, distance, jnp.asarray(1), even) == pytest.approx(ln(3))


def test_a_lone_correction_is_a_comparison_with_what_was_shown():
    r, d = jnp.asarray([0.2, 1.1]), jnp.zeros(2)
    expected = comparison.bradley_terry(r[1:], r[:1], jnp.ones(1))[0]
    assert correction.loss(r, d, jnp.asarray(1)) == pytest.approx(float(expected))
    masked = jnp.asarray([True, True, False])
    three = correction.loss(
        jnp.asarray([0.2, 1.1, 9.0]), jnp.zeros(3), jnp.asarray(1), PLAIN, masked
    )
    assert three == pytest.approx(float(expected))


def test_partition_function_by_importance_sampling_is_that_of_the_whole_space():
    """Z = Σ e^r over 6 points, estimated from 200 000 draws of an uneven q: within 1 %."""
    r = jnp.asarray([0.0, 1.0, -1.0, 2.0, 0.5, -2.0])
    q = jnp.asarray([0.3, 0.1, 0.2, 0.1, 0.2, 0.1])
    drawn = jax.random.categorical(KEY, jnp.log(q), shape=(200_000,))
    log_z = demonstration.log_partition(r[drawn], jnp.log(q)[drawn])
    assert log_z == pytest.approx(float(jax.nn.logsumexp(r)), abs=0.01)


def test_reward_is_recovered_from_demonstrations_with_a_sampled_partition_function():
    """Samples are points of a plane on [−1, 1]², r(x) = θ · f(x), q even. 4000 demonstrations,
    each picked among 256 candidates by a lapsing person. Over 12 seeds θ had no bias beyond
    0.025 and a deviation of 0.09; here it must lie within 0.2, rank correlation ≥ 0.98.
    """
    truth = jnp.asarray([1.5, -1.0, 0.8])
    features = lambda x: jnp.stack([x[..., 0], x[..., 1], x[..., 0] * x[..., 1]], axis=-1)
    human = Human(rationality=1.0, lapse=0.1)
    one, two, three = jax.random.split(KEY, 3)
    candidates = jax.random.uniform(one, (4000, 256, 2), minval=-1.0, maxval=1.0)
    log_q = jnp.full((4000, 256), -ln(4.0))
    k = demonstration.elicit(human, features(candidates) @ truth, log_q, two)
    shown = jnp.take_along_axis(candidates, k[:, None, None], axis=1)[:, 0]
    others = jax.random.uniform(three, (20_000, 2), minval=-1.0, maxval=1.0)

    def nll(theta):
        r, rest = features(shown) @ theta, features(others) @ theta
        return jnp.mean(demonstration.loss(r, rest, jnp.full(20_000, -ln(4.0)), human))

    theta = fit(nll, jnp.zeros(3))
    np.testing.assert_allclose(theta, truth, atol=0.2)
    assert recovery(features(others) @ theta, features(others) @ truth)[0] >= 0.98


def test_first_error_by_hand():
    # Steps are right with ¾, ½, ¼; the fourth does not exist.
    values = jnp.asarray([ln(3), 0.0, -ln(3), 9.0])
    steps = jnp.asarray([True, True, True, False])
    p = np.exp(process.log_first_error(PLAIN, values, steps))
    np.testing.assert_allclose(p, [1 / 4, 3 / 8, 9 / 32, 0, 3 / 32], rtol=1e-5)
    for none in (3, 4):
        loss = process.loss_first_error(values, jnp.asarray(none), steps, PLAIN)
        assert loss == pytest.approx(-ln(3 / 32), rel=1e-5)
    careless = process.log_first_error(Human(rationality=1.0, lapse=1.0), values, steps)
    np.testing.assert_allclose(np.exp(careless), [1 / 4, 1 / 4, 1 / 4, 0, 1 / 4], rtol=1e-5)


def test_first_error_says_what_the_labels_of_the_steps_up_to_it_say():
    values, steps = jnp.asarray([0.3, -0.4, 1.0]), jnp.ones(3, bool)
    upto = process.loss(values, jnp.asarray([1, 0, 0]), jnp.asarray([True, True, False]))
    assert process.loss_first_error(values, jnp.asarray(1), steps) == pytest.approx(float(upto))


def test_a_perfect_reader_finds_the_first_bad_step():
    values = jnp.asarray([[1.0, -1.0, -2.0], [1.0, 2.0, 3.0], [1.0, 1.0, -1.0]])
    steps = jnp.asarray([[True] * 3, [True] * 3, [True, True, False]])
    np.testing.assert_array_equal(
        process.elicit_first_error(Human(), values, steps, KEY), [1, 3, 2]
    )
    np.testing.assert_array_equal(process.elicit(Human(), values, KEY)[0], [1, 0, 0])


def test_the_category_that_hurts_most_is_marked():
    values = jnp.asarray([[1.0, 0.5], [-1.0, -3.0], [-2.0, 1.0]])
    np.testing.assert_array_equal(span.elicit(Human(), values, KEY), [0, 2, 1])
    # One span, faults worth ln 2 and ln 3 beside 0: 1 : 2 : 3
    r = jnp.asarray([[-ln(2), -ln(3)], [5.0, 5.0]])
    loss = span.loss(r, jnp.asarray([2, 0]), jnp.asarray([True, False]))
    assert loss == pytest.approx(ln(2), rel=1e-5)
