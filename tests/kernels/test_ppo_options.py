"""PPO's options through whole iterations, where every update can be worked out on paper.

One choice between two symbols, V = 0, no KL, score 1 for `a` and 0 for `b`. The policy starts
uniform, and Adam with b1 = b2 = 0 moves each logit by rate · sign(gradient): after updates that
sum to m the probability of `a` is σ(2m), ρ_a = 2σ(2m) and ρ_b = 2σ(−2m).
"""

from __future__ import annotations

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.config import PPO, Adam
from rlhf_jax.kernels import ppo
from rlhf_jax.kernels.experience import Given, Task
from rlhf_jax.models.heads import FORBIDDEN, Policy, Scalar
from rlhf_jax.types import Language

BOS, A, B = 1, 2, 3
LANGUAGE = Language(("·", "^", "a", "b"), 0, BOS, None, np.arange(4) >= A, 1)


def logits(table, n):
    """[n, V]: the two logits, whatever was said before."""
    whole = jnp.concatenate([jnp.full(2, FORBIDDEN), table])
    return jnp.broadcast_to(whole, (n, 4))


POLICY = Policy(
    init=lambda key: jnp.zeros(2),
    logits=lambda table, x: logits(table, len(x.tokens))[:, None],
    prefill=lambda table, prompts, length: (logits(table, len(prompts.tokens)), ()),
    decode=lambda table, tokens, where, cache: (logits(table, len(tokens)), ()),
    graft=lambda params, trunk: params,
)
CRITIC = Scalar(
    init=lambda key: {"head": jnp.zeros(2)},
    values=lambda params, x: jnp.broadcast_to(params["head"], (len(x.tokens), 2)),
    graft=lambda params, trunk: params,
)
TASK = Task(
    POLICY,
    LANGUAGE,
    lambda where, key: (jnp.full(1, BOS), jnp.ones(1, bool)),
    lambda given, x: (x.tokens[:, 0] == A).astype(jnp.float32),
    lambda *_: {},
)
SIGN = Adam(learning_rate=0.3, warmup=0, final=1.0, clip=1e9, b1=0.0, b2=0.0, eps=1e-9)
HP = PPO(
    batch=64, epochs=4, minibatches=1, kl_weight=0.0, clip=1e9, value_learning_rate=0.0, adam=SIGN
)
UNIFORM = jnp.zeros(2)


@cache
def compiled(steps: int):
    kernel = ppo.kernel(TASK, CRITIC, steps)
    return kernel.init, jax.jit(kernel.step)


def play(n: int = 1, steps: int = 10, adam: dict | None = None, **settings):
    """How far the logits of `a` and `b` are apart, halved, after each of `n` iterations; metrics.

    That is m above: what the rates of all updates sum to.
    """
    init, step = compiled(steps)
    hp = dataclasses.replace(HP, adam=dataclasses.replace(SIGN, **(adam or {})), **settings)
    state = init(jax.random.key(0), hp, UNIFORM, CRITIC.init(jax.random.key(1)))
    moved, said = [], []
    for _ in range(n):
        state, metrics = step(state, Given(UNIFORM, None, None))
        a, b = np.asarray(state.policy.params)
        moved.append((a - b) / 2)
        said.append({name: float(x) for name, x in metrics.items()})
    return moved, said


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def whitened(share: float) -> tuple[float, float]:
    """Advantages of `a` and `b` where `a` is a `share` of the batch: mean 0, deviation 1."""
    deviation = np.sqrt(share * (1 - share))
    return (1 - share) / deviation, -share / deviation


def k2(m: float, share: float) -> float:
    """Mean ½ (log ρ)² of a batch with this share of `a` when the logits have moved by ±m."""
    a, b = np.log(2 * sigmoid(2 * m)), np.log(2 * sigmoid(-2 * m))
    return float(share * a**2 / 2 + (1 - share) * b**2 / 2)


# --- early stop


@pytest.mark.parametrize(("limit", "made"), [(1e-6, 1), (0.1, 2), (float("inf"), 4)])
def test_an_iteration_makes_updates_until_the_policy_is_too_far(limit, made):
    # k2 before updates 1, 2, 3: 0, about 0.05, about 0.2
    (moved,), (said,) = play(stop_kl=limit)
    share = said["objective/scores"]
    assert 0.3 < share < 0.7
    assert moved == pytest.approx(0.3 * made, abs=1e-5)
    measured = [k2(0.3 * k, share) for k in range(min(made + 1, 4))]
    assert said["policy/approxkl_avg"] == pytest.approx(np.mean(measured), rel=1e-4)


def test_the_next_iteration_starts_anew_after_a_stop():
    # Stopped after one update each, four planned: as many iterations of one epoch.
    stopped, said = play(n=3, stop_kl=1e-6)
    plain, also = play(n=3, epochs=1)
    np.testing.assert_allclose(stopped, plain, atol=1e-5)
    for one, other in zip(said, also, strict=True):
        assert one["objective/scores"] == other["objective/scores"]  # the same samples


# --- what a far-off ratio costs: a negative rate makes the bad action likelier


def loss_of_the_second_update(said: dict[str, float]) -> float:
    """The metric is the mean over two updates; the first has ρ = 1 and whitened Â: 0."""
    return 2 * said["loss/policy_avg"]


def test_without_bounds_a_ratio_costs_what_it_is():
    (moved,), (said,) = play(epochs=2, adam={"learning_rate": -1.0})
    share = said["objective/scores"]
    good, bad = whitened(share)
    assert moved == pytest.approx(-2.0, abs=1e-5)
    rho_a, rho_b = 2 * sigmoid(-2.0), 2 * sigmoid(2.0)  # 0.238, 1.762
    expected = -share * rho_a * good - (1 - share) * rho_b * bad
    assert loss_of_the_second_update(said) == pytest.approx(expected, rel=1e-4)


def test_the_dual_clip_bounds_what_a_bad_action_costs_and_no_other():
    _, (said,) = play(epochs=2, adam={"learning_rate": -1.0}, dual_clip=1.5)
    share = said["objective/scores"]
    good, bad = whitened(share)
    expected = -share * 2 * sigmoid(-2.0) * good - (1 - share) * 1.5 * bad
    assert loss_of_the_second_update(said) == pytest.approx(expected, rel=1e-4)


def test_beyond_the_clamp_a_ratio_stands_still_and_moves_nothing():
    (moved,), (said,) = play(epochs=3, adam={"learning_rate": -1.0}, log_ratio_clamp=0.5)
    share = said["objective/scores"]
    good, bad = whitened(share)
    # log ρ = −1.43 and 0.57 after the first update: both are held at ∓0.5, without gradient.
    assert moved == pytest.approx(-1.0, abs=1e-5)
    expected = -share * np.exp(-0.5) * good - (1 - share) * np.exp(0.5) * bad
    assert 3 / 2 * said["loss/policy_avg"] == pytest.approx(expected, rel=1e-4)


def test_the_clip_stops_updates_towards_the_good_action():
    # ρ_a = 1.29 and ρ_b = 0.71 after one update: outside 1 ± 0.2, no gradient is left.
    (moved,), (said,) = play(clip=0.2)
    assert moved == pytest.approx(0.3, abs=1e-5)
    assert said["policy/clipfrac_avg"] == pytest.approx(3 / 4, rel=1e-5)


# --- the weight of the KL


def test_the_weight_follows_the_kl_of_each_iteration():
    # 64 of 640 episodes: a step of at most ±0.2 · 0.1. KL is 0 at first, then far above target.
    _, said = play(n=3, kl_weight=0.5, kl_target=0.01, kl_horizon=640.0)
    assert said[0]["objective/kl"] == pytest.approx(0.0, abs=1e-6)
    assert said[1]["objective/kl"] > 0.02
    weights = [m["objective/kl_coef"] for m in said]
    np.testing.assert_allclose(weights, [0.5, 0.5 * 0.98, 0.5 * 0.98 * 1.02], rtol=1e-5)


# --- the rate


def test_the_rate_rises_over_the_updates_of_the_warmup():
    # Two updates an iteration, 1/5, 2/5, … 1, 1 of the rate.
    moved, _ = play(n=4, epochs=2, adam={"learning_rate": 0.01, "warmup": 5})
    rates = 0.01 * np.asarray([0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1])
    np.testing.assert_allclose(moved, np.cumsum(rates)[1::2], rtol=1e-4)


def test_the_rate_falls_linearly_to_its_last_value_and_stays():
    # 3 iterations of 2 updates are planned: 1 − ¾ k/6 of the rate at update k, then ¼.
    moved, _ = play(n=4, steps=3, epochs=2, adam={"learning_rate": 0.01, "final": 0.25})
    rates = 0.01 * np.asarray([1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.25])
    np.testing.assert_allclose(moved, np.cumsum(rates)[1::2], rtol=1e-4)


def test_updates_that_were_stopped_count_for_the_rate():
    # 3 iterations of 2 updates are planned, the second of each is not made: updates 0, 2, 4, 6.
    adam = {"learning_rate": 0.01, "final": 0.25}
    moved, _ = play(n=4, steps=3, epochs=2, adam=adam, stop_kl=1e-6)
    rates = 0.01 * np.asarray([1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(moved, np.cumsum(rates), rtol=1e-4)
