"""Heads: what state each number speaks of, and which symbols it may have seen."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BOS, EOS, LANGUAGE, PAD, SHAPE, A, B, C, episodes, sharp

from rlhf_jax.models import heads
from rlhf_jax.types import Episode, Prompts

POLICY, SCALAR = heads.policy(SHAPE, LANGUAGE), heads.scalar(SHAPE, LANGUAGE)
T = LANGUAGE.length
logits, values = jax.jit(POLICY.logits), jax.jit(SCALAR.values)
reward = jax.jit(lambda params, x: heads.reward(SCALAR, params, x))


@pytest.fixture(scope="module")
def theta():
    return sharp(jax.jit(POLICY.init)(jax.random.key(0)))


@pytest.fixture(scope="module")
def phi():
    return sharp(jax.jit(SCALAR.init)(jax.random.key(1)))


def whole(seed: int, n: int = 4) -> Episode:
    """Responses that never end."""
    symbols = np.random.default_rng(seed).integers(A, C + 1, (n, T))
    x = episodes(seed, n)
    return x._replace(tokens=jnp.asarray(symbols, jnp.int32), mask=jnp.ones((n, T), bool))


def padded(x: Episode, by: int, fill: int) -> Episode:
    """The same responses to prompts with `by` more columns of padding in front."""
    n = x.tokens.shape[0]
    return x._replace(
        prompts=Prompts(
            jnp.concatenate([jnp.full((n, by), fill, jnp.int32), x.prompts.tokens], axis=1),
            jnp.concatenate([jnp.zeros((n, by), bool), x.prompts.mask], axis=1),
        )
    )


# --- the policy


def test_a_symbol_that_is_no_action_has_probability_zero_and_a_finite_gradient(theta):
    x = episodes(0, 4)
    p = jax.nn.softmax(logits(theta, x))
    assert not p[..., [PAD, BOS]].any()
    assert (p[..., [EOS, A, B, C]] > 0).all()
    loss = lambda params: jnp.sum(jax.nn.log_softmax(POLICY.logits(params, x))[..., A])
    assert all(jnp.isfinite(g).all() for g in jax.tree.leaves(jax.jit(jax.grad(loss))(theta)))


def test_the_policy_in_state_t_has_seen_the_tokens_before_t_and_no_other(theta):
    x = whole(1)
    before = logits(theta, x)
    assert before.shape == (4, T, len(LANGUAGE.symbols))
    for j in range(T):
        other = x._replace(tokens=x.tokens.at[:, j].set(A + (x.tokens[:, j] - A + 1) % 3))
        moved = np.abs(logits(theta, other) - before).max(axis=(0, 2))
        assert not moved[: j + 1].any()
        assert (moved[j + 1 :] > 1e-3).all()


def test_the_policy_in_its_first_state_has_seen_the_prompt(theta):
    x = whole(1)
    other = x._replace(prompts=x.prompts._replace(tokens=jnp.full((4, 1), A, jnp.int32)))
    assert (np.abs(logits(theta, x) - logits(theta, other)).max(axis=(0, 2)) > 1e-3).all()


@pytest.mark.parametrize("fill", [PAD, C])
def test_padding_in_front_of_a_prompt_changes_no_logit_and_no_value(theta, phi, fill):
    x = episodes(2, 4)
    real = np.asarray(x.mask)[..., None]
    for f, params in ((logits, theta), (values, phi)):
        one, two = f(params, x), f(params, padded(x, 3, fill))
        where = real if one.ndim == 3 else np.pad(real[..., 0], ((0, 0), (1, 0)))
        np.testing.assert_allclose(np.where(where, one, 0), np.where(where, two, 0), atol=2e-5)


def test_decoding_with_a_cache_gives_the_logits_of_the_full_pass(theta):
    # Prompts of one and of three symbols in one batch.
    x = padded(whole(3, 2), 2, PAD)
    x = x._replace(
        prompts=Prompts(
            x.prompts.tokens.at[1].set(jnp.asarray([BOS, A, B])), x.prompts.mask.at[1].set(True)
        )
    )
    full = logits(theta, x)
    decode = jax.jit(POLICY.decode)
    out, cache = jax.jit(POLICY.prefill, static_argnums=2)(theta, x.prompts, T)
    first = jnp.sum(x.prompts.mask, axis=1)
    for t in range(T):
        np.testing.assert_allclose(out, full[:, t], atol=2e-5)
        out, cache = decode(theta, x.tokens[:, t], first + t, cache)


def test_the_output_matrix_is_the_embedding(theta):
    assert set(theta) == {"trunk"}
    # Hidden states do not depend on the embedding of a symbol that does not occur, its own
    # logit does, and linearly: twice the row is twice the logit.
    x = whole(4)._replace(tokens=jnp.full((4, T), A, jnp.int32))
    table = theta["trunk"]["embed"]
    twice = {"trunk": {**theta["trunk"], "embed": table.at[C].multiply(2.0)}}
    one, two = logits(theta, x), logits(twice, x)
    np.testing.assert_allclose(two[..., C], 2 * one[..., C], rtol=1e-5)
    np.testing.assert_array_equal(two[..., :C], one[..., :C])


# --- the scalar


def test_a_value_has_seen_the_tokens_before_its_state_and_no_other(phi):
    x = whole(5)
    before = values(phi, x)
    assert before.shape == (4, T + 1)
    assert before.dtype == jnp.float32
    for j in range(T):
        other = x._replace(tokens=x.tokens.at[:, j].set(A + (x.tokens[:, j] - A + 1) % 3))
        moved = np.abs(values(phi, other) - before).max(axis=0)
        assert not moved[: j + 1].any()
        assert (moved[j + 1 :] > 1e-3).all()


def one(*symbols: int) -> Episode:
    """One response of these symbols, padded."""
    tokens = jnp.asarray([[*symbols, *[PAD] * (T - len(symbols))]], jnp.int32)
    return episodes(0, 1)._replace(tokens=tokens, mask=jnp.arange(T)[None] < len(symbols))


def test_the_reward_is_the_scalar_that_has_just_read_eos(phi):
    x = one(A, B, EOS)
    # s_0 has read the prompt, s_3 = (A, B, EOS).
    assert reward(phi, x)[0] == pytest.approx(float(values(phi, x)[0, 3]), rel=1e-5, abs=1e-5)
    assert abs(float(reward(phi, one(A, B, C))[0] - reward(phi, x)[0])) > 1e-3


def test_the_reward_of_a_response_without_end_has_read_its_last_token(phi):
    x = one(A, B, C, C, A)
    assert reward(phi, x)[0] == pytest.approx(float(values(phi, x)[0, T]), rel=1e-5, abs=1e-5)
    assert abs(float(reward(phi, one(A, B, C, C, B))[0] - reward(phi, x)[0])) > 1e-3


def test_what_stands_behind_the_end_changes_no_reward(phi):
    x = one(A, B, EOS)
    for junk in ([A, B], [EOS, EOS], [C, PAD]):
        np.testing.assert_array_equal(
            reward(phi, x._replace(tokens=x.tokens.at[0, 3:].set(jnp.asarray(junk)))),
            reward(phi, x),
        )


def test_the_value_head_starts_at_zero_and_can_leave_it(phi):
    zero, x = heads.zero_head(phi), episodes(6, 4)
    assert not values(zero, x).any()
    slope = jax.jit(jax.grad(lambda params: jnp.sum(SCALAR.values(params, x))))(zero)
    assert jnp.abs(slope["head"]["w"]).max() > 0.1
    np.testing.assert_array_equal(zero["trunk"]["embed"], phi["trunk"]["embed"])
    assert phi["head"]["w"].any(), "the original was changed"


# --- grafting


def test_a_grafted_scalar_reads_with_the_trunk_of_the_policy_and_keeps_its_head(theta, phi):
    other = jax.jit(SCALAR.init)(jax.random.key(7))
    x = episodes(8, 4)
    same_head = {**other, "head": phi["head"]}
    one, two, three = (values(SCALAR.graft(p, theta), x) for p in (phi, same_head, other))
    np.testing.assert_array_equal(one, two)  # its own trunk is gone
    assert np.abs(one - three).max() > 1e-3  # its own head is not
    assert np.abs(one - values(phi, x)).max() > 1e-3


def test_grafting_leaves_both_models_as_they_were(theta, phi):
    before = jax.tree.map(np.asarray, (theta, phi))
    SCALAR.graft(phi, theta)
    POLICY.graft(theta, phi)
    jax.tree.map(np.testing.assert_array_equal, before, (theta, phi))


def test_a_policy_grafted_onto_the_trunk_of_a_scalar_and_back_is_itself(theta, phi):
    there = SCALAR.graft(phi, theta)
    back = POLICY.graft(jax.jit(POLICY.init)(jax.random.key(9)), there)
    jax.tree.map(np.testing.assert_array_equal, back, theta)
