from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import pearsonr, rankdata, spearmanr

from rlhf_jax.ops.epic import canonical, epic, pearson_distance, rank_correlation, ranks

RNG = np.random.default_rng(0)
X, Y, Z = (jnp.asarray(RNG.normal(size=(6, 9)), jnp.float32) for _ in range(3))


def test_four_points_by_hand():
    # Both prompts centred: x → ∓1, ∓1, y → ∓2, ±1: ρ = (2 + 2 − 1 − 1)/√(4 · 10) = 1/√10.
    x = jnp.asarray([[0.0, 2.0], [5.0, 7.0]])
    y = jnp.asarray([[1.0, 5.0], [9.0, 7.0]])
    assert float(epic(x, y)) == pytest.approx(np.sqrt((1 - 10**-0.5) / 2), abs=1e-6)


def test_distance_is_0_to_the_same_1_to_the_opposite_and_root_half_to_a_constant():
    assert float(epic(X, 3 * X + 7)) == pytest.approx(0, abs=1e-3)
    assert float(epic(X, -0.1 * X)) == pytest.approx(1, abs=1e-6)
    for constant in (4.0, 0.1, -333.3):
        assert float(epic(X, jnp.full_like(X, constant))) == pytest.approx(0.5**0.5, abs=1e-6)


def test_what_depends_on_the_prompt_alone_is_not_seen_though_pearson_sees_it():
    shift = 5.0 * jnp.arange(6.0)[:, None] * jnp.ones((1, 9))
    assert float(epic(X + shift, Y)) == pytest.approx(float(epic(X, Y)), abs=1e-5)
    w = jnp.ones(X.size)
    assert float(pearson_distance((X + shift).ravel(), X.ravel(), w)) > 0.3


def test_it_is_symmetric_and_keeps_the_triangle_inequality():
    for a, b, c in itertools.permutations((X, Y, Z, X + 0.3 * Y), 3):
        assert float(epic(a, b)) == pytest.approx(float(epic(b, a)), abs=1e-6)
        assert float(epic(a, c)) <= float(epic(a, b)) + float(epic(b, c)) + 1e-6


def test_equals_scipy_on_centred_samples_and_masked_responses_do_not_count():
    mask = RNG.random((6, 9)) < 0.7
    rows = [(x[m] - x[m].mean(), y[m] - y[m].mean()) for x, y, m in zip(X, Y, mask, strict=True)]
    x, y = (np.concatenate(c) for c in zip(*rows, strict=True))
    expected = np.sqrt((1 - pearsonr(x, y)[0]) / 2)
    broken = jnp.where(jnp.asarray(mask), X, jnp.nan)
    assert float(epic(broken, Y, jnp.asarray(mask))) == pytest.approx(expected, abs=1e-5)


def test_the_estimate_does_not_depend_on_the_number_of_responses_to_a_prompt():
    # x, y standard normal with ρ = ½ within every prompt: D = √(¼) = ½, for N = 2 as for 50.
    for n in (2, 50):
        prompts = 20_000 // n
        e = np.random.default_rng(1).normal(size=(2, prompts, n))
        x, y = e[0], 0.5 * e[0] + 0.75**0.5 * e[1]
        assert float(epic(jnp.asarray(x), jnp.asarray(y))) == pytest.approx(0.5, abs=0.015)


def test_canonical_rewards_forget_any_potential_shaping_of_a_small_world():
    states, actions, discount = 4, 3, 0.9
    rng = np.random.default_rng(2)
    reward = rng.normal(size=(states, actions, states))
    potential = rng.normal(size=states)
    shaped = reward + discount * potential[None, None] - potential[:, None, None]

    def settle(r):
        m = jnp.asarray(r.mean(axis=(1, 2)), jnp.float32)
        s, _, after = np.indices(r.shape)
        flat = jnp.asarray(r.ravel(), jnp.float32)
        return canonical(flat, m[s.ravel()], m[after.ravel()], discount)

    one, two = settle(reward), settle(shaped)
    np.testing.assert_allclose(one - one.mean(), two - two.mean(), atol=1e-5)
    w = jnp.ones(one.size)
    assert float(pearson_distance(one, two, w)) < 1e-3
    plain = [jnp.asarray(r.ravel(), jnp.float32) for r in (reward, shaped)]
    assert float(pearson_distance(*plain, w)) > 0.2


def test_a_reward_nearer_to_gold_picks_better_responses():
    gold = np.random.default_rng(3).normal(size=(50, 16))
    noise = np.random.default_rng(4).normal(size=(50, 16))
    distance, chosen = [], []
    for level in (0.2, 0.7, 2.0, 6.0):
        proxy = gold + level * noise
        distance.append(float(epic(jnp.asarray(gold), jnp.asarray(proxy))))
        chosen.append(gold[np.arange(50), proxy.argmax(1)].mean())
    assert (np.diff(distance) > 0).all()
    assert (np.diff(chosen) < 0).all()


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_rank_correlation_equals_scipy_with_ties(levels):
    x, y = RNG.integers(0, levels, (2, 60)).astype(np.float32)
    y = y + np.round(x * 0.5)
    np.testing.assert_array_equal(ranks(jnp.asarray(x)), rankdata(x))
    got = rank_correlation(jnp.asarray(x), jnp.asarray(y))
    assert float(got) == pytest.approx(spearmanr(x, y)[0], abs=1e-5)


def test_rank_correlation_sees_order_alone_and_vmaps():
    x = jnp.stack([X.ravel(), -X.ravel()])
    rho = jax.jit(jax.vmap(rank_correlation, (0, None)))(x, jnp.exp(3 * X.ravel()))
    np.testing.assert_allclose(rho, [1, -1], atol=1e-6)
    assert float(rank_correlation(X.ravel(), jnp.zeros(X.size))) == 0
    assert np.isnan(rank_correlation(X.ravel().at[0].set(jnp.nan), X.ravel()))
