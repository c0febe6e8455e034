from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import entropy as scipy_entropy
from scipy.stats import norm

from rlhf_jax.config import ConfigError
from rlhf_jax.feedback.comparison import log_probabilities
from rlhf_jax.humans import Human
from rlhf_jax.ops import queries

LN2 = np.log(2)
# Two members, three questions: both say toss-up; one is sure of a and one of b; both sure of a.
P = jnp.asarray([[0.5, 1.0, 1.0], [0.5, 0.0, 1.0]])
BELIEF = jnp.log(jnp.stack([P, 1 - P], axis=-1))


def test_open_and_contested_questions_are_told_apart():
    np.testing.assert_allclose(queries.entropy(BELIEF), [LN2, LN2, 0], atol=1e-6)
    np.testing.assert_allclose(queries.information(BELIEF), [0, LN2, 0], atol=1e-6)
    # Var of (1, 0) is ¼, of two answers together ½.
    np.testing.assert_allclose(queries.disagreement(BELIEF), [0, 0.5, 0], atol=1e-6)


def test_equals_scipy_for_five_members_and_three_answers():
    p = np.random.default_rng(0).dirichlet(np.ones(3), size=(5, 7))
    mean = scipy_entropy(p.mean(0), axis=-1)
    log_p = jnp.asarray(np.log(p), jnp.float32)
    np.testing.assert_allclose(queries.entropy(log_p), mean, atol=1e-5)
    gain = mean - scipy_entropy(p, axis=-1).mean(0)
    np.testing.assert_allclose(queries.information(log_p), gain, atol=1e-5)
    np.testing.assert_allclose(queries.disagreement(log_p), p.var(0).sum(-1), atol=1e-5)


def test_information_never_exceeds_entropy_nor_the_logarithm_of_the_members():
    log_p = jax.nn.log_softmax(3 * jax.random.normal(jax.random.key(0), (2, 500, 6)))
    gain = queries.information(log_p)
    assert (gain >= 0).all()
    assert (gain <= queries.entropy(log_p) + 1e-6).all()
    assert (gain <= LN2 + 1e-6).all()


def test_the_belief_about_a_comparison_is_bradley_terry_and_a_person_s_may_have_ties():
    a, b = jnp.asarray([[1.0, 0.0]]), jnp.asarray([[0.0, 30.0]])
    np.testing.assert_allclose(
        jnp.exp(queries.comparison(a, b)), [[[0.731059, 0.268941], [0, 1]]], atol=1e-6
    )
    tied = log_probabilities(Human(rationality=1.0, tie=0.5), a, b)
    assert tied.shape == (1, 2, 3)
    np.testing.assert_allclose(queries.information(tied), 0, atol=1e-6)


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.1), (0.0, 2.0), (1.5, 1.0), (-3.0, 10.0)])
def test_information_under_a_gaussian_equals_the_integral(mean, deviation):
    def h(p):
        return scipy_entropy([p, 1 - p])

    sigmoid = lambda d: 1 / (1 + np.exp(-d))
    average = lambda f: quad(
        lambda d: f(sigmoid(d)) * norm.pdf(d, mean, deviation), -70, 70, limit=500
    )[0]
    expected = h(average(lambda p: p)) - average(h)
    got = queries.gaussian_information(jnp.asarray([mean]), jnp.asarray([deviation**2]))
    assert float(got[0]) == pytest.approx(expected, abs=1e-4)


def test_the_best_are_chosen_first_and_closed_questions_never_count():
    score = jnp.asarray([0.1, 9.0, jnp.nan, 0.7, 0.3])
    rows, counts = queries.choose(score, 3)
    assert rows.tolist() == [1, 3, 4]
    assert counts.all()
    rows, counts = queries.choose(score, 3, jnp.asarray([True, False, True, True, False]))
    assert rows[:2].tolist() == [3, 0]
    assert counts.tolist() == [True, True, False]
    with pytest.raises(ConfigError, match="cannot choose 6 of 5"):
        queries.choose(score, 6)


def test_uniform_choice_takes_every_question_equally_often():
    belief = jnp.zeros((1, 5, 2))
    pick = lambda key: queries.choose(queries.uniform(belief, key), 2)[0]
    rows = jax.jit(jax.vmap(pick))(jax.random.split(jax.random.key(1), 5000))
    # Each of 5 is among 2 with probability 2/5: deviation √(5000 · 0.24) ≈ 35.
    assert (np.abs(np.bincount(rows.ravel(), minlength=5) - 2000) < 150).all()


def test_informative_questions_find_a_threshold_sooner_than_any_questions():
    """Known answer: a reward that is +1 above an unknown one of 64 thresholds and asked without
    noise is a search: each informative question halves what is possible, six settle it."""
    k = 64
    # Member i says a to question j iff i ≥ j.
    said = np.arange(k)[:, None] >= np.arange(1, k)[None]
    gain = jax.jit(lambda p: queries.information(jnp.log(jnp.stack([p, 1 - p], axis=-1))))

    def asked(score, key, truth=37):
        alive = np.ones(k, bool)
        for _ in range(6):
            key, draw = jax.random.split(key)
            row = int(queries.choose(score(alive, draw), 1)[0][0])
            alive = alive & (said[:, row] == said[truth, row])
        return int(alive.sum())

    def informed(alive, _):
        # Sixty-four members, each of those left as often: powers of two are left.
        return gain(said[np.resize(np.flatnonzero(alive), k)].astype(np.float32))

    anyhow = lambda alive, key: queries.uniform(jnp.zeros((1, k - 1, 2)), key)
    assert asked(informed, jax.random.key(0)) == 1
    assert np.mean([asked(anyhow, jax.random.key(s)) for s in range(3)]) > 4
