"""Advantages: hand-derived, two reference forms, an oracle, invariants."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.ops.returns import generalised_advantage


def gae(rewards, values, mask, discount=1.0, lam=1.0, bootstrap=0.0):
    as_float = lambda x: jnp.asarray(x, jnp.float32)
    return np.asarray(
        generalised_advantage(
            as_float(rewards),
            as_float(values),
            jnp.asarray(mask, bool),
            as_float(discount),
            as_float(lam),
            as_float(bootstrap),
        )
    )


def test_three_steps_by_hand():
    # δ₂ = 2 − 1 = 1;  δ₁ = 0 + 0.9·1 − 0.25 = 0.65;  δ₀ = 1 + 0.9·0.25 − 0.5 = 0.725
    # γλ = 0.72:  Â₂ = 1;  Â₁ = 0.65 + 0.72 = 1.37;  Â₀ = 0.725 + 0.72·1.37 = 1.7114
    got = gae([1, 0, 2], [0.5, 0.25, 1], [1, 1, 1], 0.9, 0.8)
    np.testing.assert_allclose(got, [1.7114, 1.37, 1.0], rtol=1e-6)


def test_the_value_after_a_time_limit_is_bootstrapped():
    # δ₂ = 2 + 0.9·3 − 1 = 3.7;  Â₁ = 0.65 + 0.72·3.7 = 3.314;  Â₀ = 0.725 + 0.72·3.314 = 3.11108
    got = gae([1, 0, 2], [0.5, 0.25, 1], [1, 1, 1], 0.9, 0.8, bootstrap=3.0)
    np.testing.assert_allclose(got, [3.11108, 3.314, 3.7], rtol=1e-6)


def test_the_bootstrap_enters_at_the_last_masked_step_not_at_the_last_column():
    short = gae([1, 2], [0.5, 0.25], [1, 1], 0.9, 0.8, bootstrap=3.0)
    padded = gae([1, 2, 9], [0.5, 0.25, 9], [1, 1, 0], 0.9, 0.8, bootstrap=3.0)
    np.testing.assert_allclose(padded, [*short, 0.0], rtol=1e-6)


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 13, 32)
    mask = np.arange(12)[None] < lengths[:, None]
    rewards, values = rng.normal(size=(2, 32, 12)).astype(np.float32)
    return rewards, values, mask


def carried(rewards, values, mask, discount, lam):
    """The other form in the field: walk back over the padding, carrying the state unchanged."""
    out = np.zeros_like(rewards)
    for i in range(rewards.shape[0]):
        advantage, following = 0.0, 0.0
        for t in reversed(range(rewards.shape[1])):
            if not mask[i, t]:
                continue
            delta = rewards[i, t] + discount * following - values[i, t]
            advantage = delta + discount * lam * advantage
            following = values[i, t]
            out[i, t] = advantage
    return out


def test_zeroed_padding_and_carried_state_agree(batch):
    rewards, values, mask = batch
    got = np.stack([gae(r, v, m, 0.97, 0.9) for r, v, m in zip(rewards, values, mask, strict=True)])
    np.testing.assert_allclose(got, carried(*batch, 0.97, 0.9), rtol=1e-4, atol=1e-5)


def test_at_discount_and_lambda_1_advantage_plus_value_is_the_return_to_go(batch):
    rewards, values, mask = (x[3] for x in batch)
    to_go = np.cumsum((rewards * mask)[::-1])[::-1]
    np.testing.assert_allclose(
        gae(rewards, values, mask) + values * mask, to_go * mask, rtol=1e-4, atol=1e-5
    )


def test_nothing_behind_the_mask_is_seen_not_even_nan():
    got = gae([1, np.nan], [0.5, np.nan], [1, 0])
    np.testing.assert_array_equal(got, [0.5, 0.0])


def test_agrees_with_rlax(batch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rlax = pytest.importorskip("rlax")
        rewards, values, mask = (x[mask_full(batch)] for x in batch)
        theirs = jax.vmap(rlax.truncated_generalized_advantage_estimation, (0, 0, None, 0))(
            jnp.asarray(rewards),
            jnp.full(rewards.shape, 0.97),
            0.9,
            jnp.concatenate([jnp.asarray(values), jnp.full((len(values), 1), 0.4)], axis=1),
        )
    ours = [gae(r, v, m, 0.97, 0.9, 0.4) for r, v, m in zip(rewards, values, mask, strict=True)]
    assert len(ours) > 0
    np.testing.assert_allclose(np.stack(ours), theirs, rtol=1e-4, atol=1e-5)


def mask_full(batch):
    return batch[2].all(axis=1)
