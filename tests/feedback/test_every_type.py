"""What `elicit` and `loss` of every type owe each other: they are one statistical model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES, counts, log_probabilities, person
from fitting import agrees, fit, recovery
from hypothesis import given, settings
from hypothesis import strategies as st

few = settings(max_examples=6, deadline=None, derandomize=True)
share = lambda top: st.floats(0.0, top, width=32)
people = st.builds(
    person,
    rationality=st.floats(0.125, 8.0, width=32),
    lapse=share(0.5),
    flip=share(0.375),
    tie=share(1.0),
)
each = pytest.mark.parametrize("name", CASES)


def values_of(name: str, seed: int = 0):
    return jax.random.normal(jax.random.key(seed), (CASES[name].size,))


def rows(values):
    """The same question 8192 times."""
    return np.repeat(np.asarray(values)[None], 8192, axis=0)


@pytest.fixture(scope="module")
def compiled():
    """One compilation a type and a function, whatever the person."""
    out = {}
    for name, case in CASES.items():
        log_p = lambda h, v, case=case: log_probabilities(case, h, v)

        def score(h, truth, at, log_p=log_p):
            """Σ_y P(y | truth) ∂ log P(y | v)/∂v at `at`."""
            each = jax.jacfwd(lambda v: log_p(h, v))(at)
            return jnp.sum(jnp.exp(log_p(h, truth))[:, None] * each, axis=0)

        out[name] = (jax.jit(log_p), jax.jit(case.draw), jax.jit(score))
    return out


@each
@few
@given(human=people, seed=st.integers(0, 9))
def test_answers_come_as_often_as_their_likelihood_says(compiled, name, human, seed):
    log_p, draw, _ = compiled[name]
    values = values_of(name, seed)
    drawn = draw(human, rows(values), jax.random.key(seed + 1))
    assert agrees(counts(CASES[name], drawn), np.exp(log_p(human, values)))


@each
@few
@given(human=people, seed=st.integers(0, 9))
def test_expected_gradient_of_the_loss_is_zero_at_the_truth(compiled, name, human, seed):
    values = values_of(name, seed)
    score = compiled[name][2](human, values, values)
    np.testing.assert_allclose(score, 0.0, atol=2e-6 * max(1.0, human.rationality))


@each
def test_expected_gradient_of_the_loss_points_to_the_truth_from_elsewhere(compiled, name):
    truth, at = values_of(name, 0), values_of(name, 1)
    score = compiled[name][2](person(rationality=1.0), truth, at)
    assert score @ (truth - at) > 1e-3


@each
def test_no_rationality_says_nothing_of_the_values(compiled, name):
    log_p, draw, _ = compiled[name]
    human = person(rationality=0.0, lapse=0.1, flip=0.1)
    p, q = (np.exp(log_p(human, values_of(name, s))) for s in (0, 1))
    np.testing.assert_allclose(p, q, atol=1e-5)
    drawn = draw(human, rows(values_of(name)), jax.random.key(0))
    assert agrees(counts(CASES[name], drawn), p)


@each
def test_perfect_rationality_gives_the_one_best_answer(compiled, name):
    log_p, draw, _ = compiled[name]
    human, values = person(rationality=np.inf), values_of(name)
    p = np.exp(log_p(human, values))
    assert p.max() > 1 - 1e-6
    count = counts(CASES[name], draw(human, rows(values), jax.random.key(0)))
    assert count[p.argmax()] == count.sum()


@each
@pytest.mark.parametrize("beta", [0.0, np.inf])
@pytest.mark.parametrize("lapse", [0.0, 1.0])
def test_limits_are_finite_with_their_gradients(compiled, name, beta, lapse):
    log_p, draw, score = compiled[name]
    human = person(rationality=beta, lapse=lapse)
    values = values_of(name)
    assert np.isfinite(log_p(human, values)).all()
    assert np.isfinite(score(human, values, values)).all()
    assert np.isfinite(draw(human, rows(values), jax.random.key(0))).all()


@each
def test_64_people_at_once_are_64_people_one_by_one(compiled, name):
    ask, values = compiled[name][1], rows(values_of(name))
    keys = jax.random.split(jax.random.key(0), 64)
    everyone = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], 64, 0), person(flip=0.1))
    everyone = everyone._replace(
        rationality=np.linspace(0.2, 5.0, 64, dtype=np.float32),
        lapse=np.linspace(0.0, 0.5, 64, dtype=np.float32),
    )
    together = np.asarray(jax.jit(jax.vmap(ask, (0, None, 0)))(everyone, values, keys))
    for i in range(64):
        alone = np.asarray(ask(jax.tree.map(lambda x, i=i: x[i], everyone), values, keys[i]))
        # A rounding apart, which decides where two options are worth the same to 7 digits.
        differ = (together[i] != alone).reshape(8192, -1).any(axis=1)
        assert differ.sum() <= 1
    assert len(np.unique(together.reshape(64, -1), axis=0)) == 64


@each
def test_own_loss_recovers_the_reward_from_its_own_answers(compiled, name):
    """8192 answers of a noisy person, reward linear in four features. Over all types on the
    tested seed, rank correlation ≥ 0.97 and calibration slope 0.85 … 1.15 on fresh items.
    """
    case, truth = CASES[name], jnp.asarray([1.0, -0.6, 0.3, 0.0])
    human = person(rationality=1.5, lapse=0.05, flip=0.05)
    shown, fresh, noise = jax.random.split(jax.random.key(3), 3)
    features = jax.random.normal(shown, (8192, case.size, 4))
    answers = compiled[name][1](human, features @ truth, noise)
    nll = lambda theta: jnp.mean(case.nll(human, features @ theta, answers))
    theta = fit(nll, jnp.zeros(4))
    items = jax.random.normal(fresh, (500, 4))
    rank, slope = recovery(items @ theta, items @ truth)
    assert rank >= 0.97
    assert 0.85 <= slope <= 1.15
