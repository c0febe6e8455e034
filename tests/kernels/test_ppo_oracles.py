"""The chain from scores to losses against references in numpy, written from the equations.

TRL's own functions need torch, which is not worth its size for a test. What TRL computes is
written out here, loops and all, with the settings under which ours must give the same.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import LANGUAGE, episodes

from rlhf_jax.config import PPO
from rlhf_jax.kernels import credit, ppo
from rlhf_jax.kernels.experience import Scored

N, T, V = 12, LANGUAGE.length, len(LANGUAGE.symbols)
RNG = np.random.default_rng(3)
BETA, GAMMA, LAM = 0.2, 0.97, 0.9


@pytest.fixture(scope="module")
def x() -> Scored:
    """Random episodes of different lengths, policies, scores."""
    drawn = episodes(1, N)
    p, q = (jax.nn.log_softmax(jnp.asarray(RNG.normal(size=(N, T, V)), jnp.float32)) for _ in "pq")
    logps = jnp.take_along_axis(p, drawn.tokens[..., None], axis=-1)[..., 0]
    scores = jnp.asarray(RNG.normal(size=N), jnp.float32)
    return Scored(drawn, jnp.where(drawn.mask, logps, 0.0), p, q, scores)


VALUES = RNG.normal(size=(N, T + 1)).astype(np.float32)


def pick(log_p, tokens) -> np.ndarray:
    return np.take_along_axis(np.asarray(log_p, np.float64), np.asarray(tokens)[..., None], -1)[
        ..., 0
    ]


def bessel_whiten(x: np.ndarray, mask: np.ndarray, shift: bool) -> np.ndarray:
    """(x − mean) / √(Σ (x − mean)²/(n − 1) + 1e-8), with the mean put back unless `shift`."""
    mean, deviation = x[mask].mean(), np.sqrt(x[mask].var(ddof=1) + 1e-8)
    return (x - mean) / deviation + (0.0 if shift else mean)


def reference(x: Scored, whiten_rewards: bool) -> tuple[np.ndarray, np.ndarray]:
    """Advantages (not whitened) and returns in TRL's order of work.

    The score lands behind the last token where there is room. Values count up to there, what
    lies further is 0; GAE runs over all columns from the right with V = 0 after the last.
    """
    tokens, mask = x.episode.tokens, np.asarray(x.episode.mask)
    rewards = np.where(mask, -BETA * (pick(x.distribution, tokens) - pick(x.reference, tokens)), 0)
    length = mask.sum(1)
    paid = np.minimum(length, T - 1)
    rewards[np.arange(N), paid] += np.asarray(x.scores, np.float64)
    counts = np.arange(T)[None] <= length[:, None]
    values = np.where(counts, VALUES[:, :-1], 0.0)
    if whiten_rewards:
        rewards = np.where(counts, bessel_whiten(rewards, counts, shift=False), 0.0)
    advantages, running = np.zeros((N, T)), np.zeros(N)
    for t in reversed(range(T)):
        following = values[:, t + 1] if t + 1 < T else 0.0
        running = rewards[:, t] + GAMMA * following - values[:, t] + GAMMA * LAM * running
        advantages[:, t] = running
    return advantages, advantages + values


def ours(x: Scored, **settings) -> tuple[np.ndarray, np.ndarray]:
    hp = PPO(score_at="after_end", discount=GAMMA, gae_lambda=LAM, **settings)
    got = credit.credit(hp, LANGUAGE, x, jnp.asarray(VALUES), jnp.asarray(BETA))
    return np.asarray(got[0]), np.asarray(got[1])


def test_advantages_and_returns_are_those_of_trl(x):
    mask = np.asarray(x.episode.mask)
    assert not mask[:, -1].all()
    advantages, returns = reference(x, whiten_rewards=False)
    mine, back = ours(x, whiten_advantages=False)
    np.testing.assert_allclose(mine, np.where(mask, advantages, 0), rtol=1e-4, atol=1e-5)
    counts = np.asarray(credit.states(PPO(score_at="after_end"), x.episode.mask))
    np.testing.assert_allclose(back, np.where(counts, returns, 0), rtol=1e-4, atol=1e-5)


def test_whitened_advantages_are_those_of_trl_but_for_bessel(x):
    mask = np.asarray(x.episode.mask)
    advantages, _ = reference(x, whiten_rewards=False)
    n = mask.sum()
    expected = bessel_whiten(advantages, mask, shift=True) * np.sqrt(n / (n - 1))
    mine, _ = ours(x)
    np.testing.assert_allclose(mine, np.where(mask, expected, 0), rtol=1e-4, atol=1e-5)


def test_whitened_rewards_are_those_of_trl_but_for_bessel(x):
    # With V = 0 and β so small that the KL is nothing, whitening scales the score's deviation.
    counts = np.asarray(credit.states(PPO(score_at="after_end"), x.episode.mask))
    n = counts.sum()
    tokens, mask = x.episode.tokens, np.asarray(x.episode.mask)
    raw = np.where(mask, -BETA * (pick(x.distribution, tokens) - pick(x.reference, tokens)), 0)
    raw[np.arange(N), np.minimum(mask.sum(1), T - 1)] += np.asarray(x.scores, np.float64)
    mean = raw[counts].mean()
    theirs = bessel_whiten(raw, counts, shift=False)
    expected = (theirs - mean) * np.sqrt(n / (n - 1)) + mean
    hp = PPO(
        score_at="after_end",
        discount=0.0,
        gae_lambda=0.0,
        whiten_rewards=True,
        whiten_advantages=False,
    )
    zero = jnp.zeros((N, T + 1))
    _, returns, _ = credit.credit(hp, LANGUAGE, x, zero, jnp.asarray(BETA))  # R_t = r_t
    np.testing.assert_allclose(returns, np.where(counts, expected, 0), rtol=1e-4, atol=1e-5)


def test_both_losses_are_those_of_the_equations(x):
    """Mean over tokens of max(−ρ Â, −clip(ρ) Â) and of ½ max of the two squared errors."""
    tokens, mask = x.episode.tokens, np.asarray(x.episode.mask)
    advantages, returns = ours(x, whiten_advantages=True)
    new = jax.nn.log_softmax(x.distribution + 0.5 * jnp.asarray(RNG.normal(size=(N, T, V))))
    values = VALUES[:, :-1] + RNG.normal(0, 0.3, (N, T)).astype(np.float32)
    rho = np.exp(pick(new, tokens) - pick(x.distribution, tokens))
    outside = (np.abs(rho - 1) > 0.2)[mask].mean()
    assert 0.2 < outside < 0.9
    acted = np.maximum(-rho * advantages, -np.clip(rho, 0.8, 1.2) * advantages)[mask].mean()
    near = np.clip(values, VALUES[:, :-1] - 0.2, VALUES[:, :-1] + 0.2)
    errors = np.maximum((values - returns) ** 2, (near - returns) ** 2)

    hp = PPO(clip=0.2, value_clip=0.2)
    old = jnp.asarray(VALUES[:, :-1])
    data = ppo.Experience(
        x.episode, x.logps, old, jnp.asarray(advantages), jnp.asarray(returns), None
    )
    part = ppo.whole(hp, data)
    got, metrics = ppo.policy_loss(hp, jnp.asarray(0.0), new, part)
    assert float(got) == pytest.approx(acted, rel=1e-4)
    assert float(metrics["policy/clipfrac_avg"]) == pytest.approx(outside, rel=1e-4)
    valued, _ = ppo.value_loss(hp, jnp.asarray(values), part)
    assert float(valued) == pytest.approx(0.5 * errors[mask].mean(), rel=1e-4)


def test_the_kl_of_an_episode_is_a_sum_over_its_tokens(x):
    tokens, mask = x.episode.tokens, np.asarray(x.episode.mask)
    k1 = np.where(mask, pick(x.distribution, tokens) - pick(x.reference, tokens), 0).sum(1)
    assert (k1 < 0).any()  # no clamp at 0
    np.testing.assert_allclose(jnp.sum(x.log_ratio, axis=1), k1, rtol=1e-4, atol=1e-5)
    p, q = (np.asarray(d, np.float64) for d in (x.distribution, x.reference))
    exact = np.where(mask, (np.exp(p) * (p - q)).sum(-1), 0).sum(1)
    np.testing.assert_allclose(jnp.sum(x.exact_kl, axis=1), exact, rtol=1e-4, atol=1e-5)
