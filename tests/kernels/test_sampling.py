"""x ~ π_θ: what the rollout says of its tokens is what one pass over them says."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import BOS, EOS, LANGUAGE, PAD, SHAPE, prompts, sharp

from rlhf_jax.config import ConfigError
from rlhf_jax.kernels.sampling import chosen, log_distribution, sample
from rlhf_jax.models import heads
from rlhf_jax.types import Prompts

POLICY, SCALAR = heads.policy(SHAPE, LANGUAGE), heads.scalar(SHAPE, LANGUAGE)
T = LANGUAGE.length
N = 256


@pytest.fixture(scope="module")
def theta():
    return sharp(jax.jit(POLICY.init)(jax.random.key(0)))


draw = jax.jit(partial(sample, POLICY, LANGUAGE), static_argnames=("top_k", "top_p"))
distribution = jax.jit(partial(log_distribution, POLICY))
values = jax.jit(SCALAR.values)


def roll(theta, asked, temperature=1.0, seed=1, **settings):
    return draw(theta, asked, jax.random.key(seed), temperature, **settings)


def ragged(n: int) -> Prompts:
    """Prompts of 1 to 4 real tokens, padded on the left to 4."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(EOS + 1, len(LANGUAGE.symbols), (n, 4))
    start = rng.integers(0, 4, n)
    tokens = np.where(np.arange(4)[None] < start[:, None], PAD, tokens)
    tokens[np.arange(n), start] = BOS
    return Prompts(jnp.asarray(tokens, jnp.int32), jnp.asarray(tokens != PAD))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_rollout_and_one_pass_agree_on_every_log_probability(theta, temperature):
    got = roll(theta, ragged(N), temperature)
    again = distribution(theta, got.episode, temperature)
    mask = np.asarray(got.episode.mask)
    assert 0 < mask[:, -1].sum() < N  # some end early, some do not
    np.testing.assert_allclose(got.logps, chosen(again, got.episode), rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(
        np.asarray(got.distribution)[mask], np.asarray(again)[mask], rtol=1e-5, atol=2e-5
    )


def test_more_padding_in_front_changes_nothing(theta):
    asked = ragged(N)
    wide = Prompts(
        jnp.pad(asked.tokens, ((0, 0), (3, 0)), constant_values=PAD),
        jnp.pad(asked.mask, ((0, 0), (3, 0))),
    )
    one, two = roll(theta, asked), roll(theta, wide)
    np.testing.assert_array_equal(one.episode.tokens, two.episode.tokens)
    np.testing.assert_allclose(one.logps, two.logps, rtol=1e-5, atol=2e-5)


def test_no_log_probability_and_no_value_has_seen_its_own_token_or_a_later_one(theta):
    phi = sharp(jax.jit(SCALAR.init)(jax.random.key(3)))
    read = lambda x: (distribution(theta, x, 1.0), values(phi, x))
    x = roll(theta, ragged(N)).episode
    x = x._replace(tokens=jnp.maximum(x.tokens, EOS + 1), mask=jnp.ones((N, T), bool))
    logps, valued = read(x)
    for t in range(T):
        other = x.tokens.at[:, t].set((x.tokens[:, t] - EOS) % 3 + EOS + 1)
        moved_logps, moved_values = read(x._replace(tokens=other))
        np.testing.assert_allclose(moved_logps[:, : t + 1], logps[:, : t + 1], rtol=1e-5, atol=2e-5)
        np.testing.assert_allclose(
            moved_values[:, : t + 1], valued[:, : t + 1], rtol=1e-5, atol=2e-5
        )
        assert np.abs(moved_values[:, t + 1] - valued[:, t + 1]).max() > 1e-3
        if t + 1 < T:
            assert np.abs(moved_logps[:, t + 1] - logps[:, t + 1]).max() > 1e-3


def test_a_prefix_is_read_as_it_is_in_the_whole(theta):
    x = roll(theta, ragged(N)).episode
    whole = distribution(theta, x, 1.0)
    for t in range(1, T):
        head = x._replace(tokens=x.tokens[:, :t], mask=x.mask[:, :t])
        mask = np.asarray(head.mask)
        np.testing.assert_allclose(
            np.asarray(distribution(theta, head, 1.0))[mask],
            np.asarray(whole[:, :t])[mask],
            rtol=1e-5,
            atol=2e-5,
        )


def test_after_eos_comes_padding_that_counts_for_nothing(theta):
    got = roll(theta, prompts(N))
    tokens, mask = np.asarray(got.episode.tokens), np.asarray(got.episode.mask)
    ends = (tokens == EOS).argmax(1)[mask.sum(1) < T]
    assert len(ends) > 20
    np.testing.assert_array_equal(mask[mask.sum(1) < T].sum(1), ends + 1)
    assert (tokens[~mask] == PAD).all()
    assert (np.asarray(got.logps)[~mask] == 0).all()


def test_first_tokens_are_drawn_with_the_probabilities_stated(theta):
    got = roll(theta, prompts(20_000), 1.3)
    share = np.bincount(np.asarray(got.episode.tokens)[:, 0], minlength=6) / 20_000
    p = np.exp(np.asarray(got.distribution)[0, 0])
    # five standard errors of a share
    assert (np.abs(share - p) < 5 * np.sqrt(p * (1 - p) / 20_000) + 1e-6).all()


def test_greedy_rows_take_the_likeliest_token_and_leave_the_others_alone(theta):
    greedy = jnp.arange(N) % 2 == 0
    got, plain = roll(theta, prompts(N), greedy=greedy), roll(theta, prompts(N))
    tokens, mask = np.asarray(got.episode.tokens), np.asarray(got.episode.mask)
    best = np.asarray(got.distribution).argmax(-1)
    assert (tokens[::2][mask[::2]] == best[::2][mask[::2]]).all()
    np.testing.assert_array_equal(tokens[1::2], np.asarray(plain.episode.tokens)[1::2])


@pytest.mark.parametrize("settings", [{"top_k": 2}, {"top_p": 0.6}])
def test_truncation_narrows_the_draw_and_not_the_probabilities(theta, settings):
    got = roll(theta, prompts(N), **settings)
    tokens, mask = np.asarray(got.episode.tokens), np.asarray(got.episode.mask)
    p = np.exp(np.asarray(got.distribution))
    np.testing.assert_allclose(p.sum(-1), 1.0, rtol=1e-5)
    order = np.argsort(-p, axis=-1)
    rank = (order == tokens[..., None]).argmax(-1)
    sure = np.cumsum(np.sort(p, axis=-1)[..., ::-1], axis=-1)
    allowed = 2 if "top_k" in settings else 1 + (sure < 0.6).sum(-1)[mask]
    assert (rank[mask] < allowed).all()
    free = roll(theta, prompts(N)).episode
    assert (np.asarray(free.tokens) != tokens).any()


def test_padding_that_is_the_end_is_refused_with_the_reason(theta):
    language = LANGUAGE._replace(pad=EOS)
    with pytest.raises(ConfigError, match=r"pad = eos = 2 .*never be learned"):
        sample(POLICY, language, theta, prompts(2), jax.random.key(0))


def test_one_key_replays_and_another_does_not(theta):
    a, b, c = (roll(theta, prompts(N), seed=s).episode.tokens for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (np.asarray(a) != np.asarray(c)).mean() > 0.1


def test_a_language_without_eos_fills_the_whole_length(theta):
    actions = LANGUAGE.actions & (np.arange(6) != EOS)
    language = LANGUAGE._replace(eos=None, actions=actions)
    policy = heads.policy(SHAPE, language)
    got = jax.jit(partial(sample, policy, language))(theta, prompts(16), jax.random.key(0))
    assert np.asarray(got.episode.mask).all()
