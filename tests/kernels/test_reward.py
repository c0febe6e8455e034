"""Fitting a reward to comparisons, its regulariser, and the scale it is read on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bag import BAG, KIND, V, told
from tiny import LANGUAGE, SHAPE, C, episodes, sharp

from rlhf_jax.config import Adam, Reward
from rlhf_jax.feedback.comparison import (
    LOSSES,
    THRESHOLDS,
    Comparison,
    bayesian_personalised_ranking,
    bradley_terry,
    log_davidson,
    log_rao_kupper,
)
from rlhf_jax.kernels import reward
from rlhf_jax.models import heads
from rlhf_jax.transforms import repeat
from rlhf_jax.types import Episode

SCALAR = heads.scalar(SHAPE, LANGUAGE)
SETTINGS = Reward(batch=8, centring=0.1, l2=1e-3, adam=Adam(learning_rate=1e-2, warmup=0))
N = 8
read = jax.jit(lambda params, x: heads.reward(SCALAR, params, x))
normalise = jax.jit(lambda params, x: reward.normalise(SCALAR, params, x))
score = jax.jit(lambda judge, x: reward.score(SCALAR, judge, x))


@pytest.fixture(scope="module")
def phi():
    return sharp(jax.jit(SCALAR.init)(jax.random.key(0)), 2.0)


@pytest.fixture(scope="module")
def kernel():
    fit = reward.kernel(reward.compare(SCALAR, bradley_terry), reward.penalty, 100)
    return fit._replace(init=jax.jit(fit.init), step=jax.jit(fit.step))


@pytest.fixture(scope="module")
def begun(kernel, phi):
    return kernel.init(jax.random.key(1), SETTINGS, phi)


def answers(seed: int, weight: list[float]) -> Comparison:
    label = np.random.default_rng(seed).choice([0.0, 0.5, 1.0], N)
    return Comparison(
        episodes(seed, N),
        episodes(seed + 100, N),
        jnp.asarray(label, jnp.float32),
        jnp.asarray(weight, jnp.float32),
    )


# --- the objective


def test_the_penalty_is_l2_of_all_parameters_plus_centring_of_the_weighted_rows():
    # Σφ² = 1 + 4 + 9 = 14. (r_a + r_b)² = 9, 1, 100 under weights 1, 3, 0: (9 + 3)/4 = 3.
    params = {"a": jnp.asarray([1.0, 2.0]), "b": jnp.asarray(3.0)}
    rewards = jnp.asarray([[1.0, 2.0], [0.0, -1.0], [5.0, 5.0]])
    weight = jnp.asarray([1.0, 3.0, 0.0])
    at = lambda l2, centring: float(
        reward.penalty(Reward(l2=l2, centring=centring), params, rewards, weight)
    )
    assert at(0.5, 0.0) == pytest.approx(7.0)
    assert at(0.0, 0.1) == pytest.approx(0.3)
    assert at(0.5, 0.1) == pytest.approx(7.3)


def test_a_reward_that_is_zero_everywhere_costs_ln_2_a_comparison(kernel, begun, phi):
    blank = begun._replace(params=heads.zero_head(phi))
    _, metrics = kernel.step(blank, answers(0, [1.0] * N))
    assert metrics["loss/reward"] == pytest.approx(np.log(2), abs=1e-6)


def test_the_loss_is_the_weighted_mean_of_cross_entropies(kernel, begun, phi):
    # −y log σ(d) − (1 − y) log σ(−d) = log(1 + e^d) − y d
    batch = answers(1, [1, 0, 2, 1, 0.5, 0, 1, 3])
    d = np.asarray(read(phi, batch.a) - read(phi, batch.b), np.float64)
    y, w = np.asarray(batch.label), np.asarray(batch.weight)
    expected = w @ (np.log1p(np.exp(d)) - y * d) / w.sum()
    untied = y != 0.5
    right = (w * untied) @ ((d > 0) == (y == 1)) / (w @ untied)
    _, metrics = kernel.step(begun, batch)
    assert metrics["loss/reward"] == pytest.approx(expected, rel=1e-5)
    assert metrics["train/accuracy"] == pytest.approx(right, rel=1e-5)


def test_a_row_of_weight_zero_teaches_nothing_whatever_stands_in_it(kernel, begun):
    weight = [1, 0, 2, 1, 0.5, 0, 1, 3]
    batch, junk = answers(2, weight), answers(3, weight)
    asked = batch.weight > 0

    def mix(mine, other):
        return jnp.where(asked.reshape(-1, *[1] * (mine.ndim - 1)), mine, other)

    mixed = jax.tree.map(mix, batch, junk._replace(weight=batch.weight))
    assert not np.array_equal(mixed.a.tokens, batch.a.tokens)
    (one, said), (two, heard) = (kernel.step(begun, x) for x in (batch, mixed))
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    assert said == heard


def test_a_batch_nobody_answered_moves_nothing_but_the_regulariser(kernel, phi):
    free = Reward(batch=8, centring=0.1, l2=0.0, adam=SETTINGS.adam)
    begun = kernel.init(jax.random.key(1), free, phi)
    state, metrics = kernel.step(begun, answers(4, [0.0] * N))
    jax.tree.map(np.testing.assert_array_equal, state.params, phi)
    assert metrics["loss/reward"] == 0


def test_swapping_the_two_sides_and_the_labels_changes_nothing(kernel, begun):
    batch = answers(5, [1.0] * N)
    swapped = batch._replace(a=batch.b, b=batch.a, label=1 - batch.label)
    one, two = (kernel.step(begun, x)[1]["loss/reward"] for x in (batch, swapped))
    assert one == pytest.approx(float(two), abs=1e-6)


def test_the_personalised_ranking_loss_leaves_ties_alone(phi):
    fit = reward.kernel(reward.compare(SCALAR, bayesian_personalised_ranking), reward.penalty, 100)
    begun = jax.jit(fit.init)(jax.random.key(1), Reward(centring=0.0, adam=SETTINGS.adam), phi)
    tied = answers(6, [1.0] * N)._replace(label=jnp.full((N,), 0.5))
    state, _ = jax.jit(fit.step)(begun, tied)
    jax.tree.map(np.testing.assert_array_equal, state.params, phi)


def test_centring_pins_the_offset_that_comparisons_leave_free(kernel, phi):
    # All pairs are ties of two equal responses: only r_a + r_b = 2r is asked to be 0.
    x = episodes(9, N)
    batch = Comparison(x, x, jnp.full((N,), 0.5), jnp.ones((N,)))
    state = kernel.init(jax.random.key(1), Reward(centring=1.0, adam=SETTINGS.adam), phi)
    before = float(jnp.abs(read(state.params, x)).max())
    for _ in range(60):
        state, _ = kernel.step(state, batch)
    assert float(jnp.abs(read(state.params, x)).max()) < 0.1 * before


def test_fitting_learns_who_is_preferred(kernel, begun):
    batch = answers(7, [1.0] * N)
    batch = batch._replace(label=(jnp.arange(N) % 2).astype(jnp.float32))
    state = begun
    for _ in range(60):
        state, metrics = kernel.step(state, batch)
    assert metrics["train/accuracy"] == 1
    assert metrics["loss/reward"] < 0.2


# --- the scale


def test_on_the_reference_the_normalised_reward_has_mean_zero_and_deviation_one(phi):
    x = episodes(8, 200)
    judge = normalise(phi, x)
    scores = np.asarray(score(judge, x), np.float64)
    assert scores.mean() == pytest.approx(0, abs=1e-5)
    assert scores.std() == pytest.approx(1, abs=1e-5)


def test_the_scale_is_fixed_and_other_responses_are_read_on_it(phi):
    x, other = episodes(8, 200), episodes(11, 200)
    judge = normalise(phi, x)
    raw = np.asarray(read(phi, x), np.float64)
    np.testing.assert_allclose(
        score(judge, other),
        (np.asarray(read(phi, other)) - raw.mean()) / raw.std(),
        atol=1e-4,
    )


def test_a_reward_that_says_the_same_to_all_stays_finite(phi):
    x: Episode = episodes(8, 200)
    judge = normalise(heads.zero_head(phi), x)
    assert float(judge.deviation) > 0
    same = x._replace(tokens=jnp.full_like(x.tokens, C))
    assert not score(judge, same).any()


# --- how often people tie


@pytest.mark.parametrize(
    ("name", "log_p", "truth"), [("rao_kupper", log_rao_kupper, 1.5), ("davidson", log_davidson, 1)]
)
def test_how_far_apart_samples_must_be_for_people_to_take_a_side_is_fitted(name, log_p, truth):
    rng, n = np.random.default_rng(0), 4000
    table = jnp.asarray(rng.normal(size=V), jnp.float32)
    a, b = episodes(1, n), episodes(2, n)
    gap = heads.reward(BAG, {"table": table}, a) - heads.reward(BAG, {"table": table}, b)
    said = np.cumsum(np.exp(log_p(gap, truth)), axis=1) < rng.random((n, 1))
    label = jnp.asarray([1.0, 0.5, 0.0])[said.sum(1)]
    comparisons = told(Comparison(a, b, label, jnp.ones(n)))

    link, raw = THRESHOLDS[name]
    fit = reward.kernel(reward.compared(BAG, KIND, LOSSES[name], link), reward.penalty, 300)
    adam = Adam(learning_rate=0.01, warmup=0, final=0.0)
    noise = {"threshold": jnp.asarray(raw / reward.NOISE_UNIT)}
    start = reward.Fitted({"table": 0 * table}, noise)
    state = fit.init(jax.random.key(0), Reward(centring=0.0, adam=adam), start)
    state, _ = jax.jit(repeat(fit, 300).step)(state, comparisons)
    found = link(reward.NOISE_UNIT * state.params.noise["threshold"])
    assert float(link(jnp.asarray(raw))) < truth - 0.5
    assert float(found) == pytest.approx(truth, abs=0.1)
