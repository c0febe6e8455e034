"""Each learner alone solves a world whose answer is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import feeling, worths

from rlhf_jax import grid, worlds
from rlhf_jax.config import PPO, Adam, Model, Pretrain, Reward, World
from rlhf_jax.feedback.comparison import Comparison, bradley_terry
from rlhf_jax.kernels import evaluate, learner, ppo, pretrain, reward
from rlhf_jax.kernels.collect import corpus_episodes
from rlhf_jax.kernels.experience import Given, Task
from rlhf_jax.models import heads
from rlhf_jax.transforms import minibatches, repeat
from rlhf_jax.types import Kernel
from rlhf_jax.worlds.probe import optimum

assert grid  # makes the configuration's sections pytrees

SHAPE = Model(width=32, layers=1, heads=2, kv_heads=2, mlp=64)
PROBE = worlds.build(World(name="probe", length=3, symbols=4))
EVERY = corpus_episodes(PROBE, np.arange(64))
GOLD = jnp.asarray(worths(PROBE, None)[:, 0])
POLICY = heads.policy(SHAPE, PROBE.language)
SCALAR = heads.scalar(SHAPE, PROBE.language)


def log_probs(params: object) -> jax.Array:
    return jax.jit(lambda p: evaluate.sequence_log_probs(POLICY, p, EVERY))(params)


def kl(log_p: jax.Array, log_q: jax.Array) -> float:
    return float(jnp.sum(jnp.exp(log_p) * (log_p - log_q)))


@pytest.fixture(scope="module")
def reference() -> object:
    """A base model that prefers some sequences: pretrained on a skewed sample of them."""
    weights = jax.nn.softmax(jnp.arange(64.0) / 20)
    rows = jax.random.choice(jax.random.key(1), 64, (2048,), p=weights)
    data = jax.tree.map(lambda x: x[rows], EVERY)
    kernel = pretrain.kernel(POLICY, 200)
    kernel = minibatches(kernel, 128, learner.position, 200)
    state = kernel.init(jax.random.key(0), Pretrain(adam=Adam(learning_rate=5e-3)))
    state, _ = jax.jit(kernel.step)(state, (data, jnp.int32(2048)))
    counts = jnp.bincount(rows, length=64) / 2048
    assert kl(jnp.log(jnp.maximum(counts, 1e-9)), log_probs(state.params)) < 0.05
    return state.params


def test_the_reward_model_recovers_gold_from_exact_preferences() -> None:
    key_a, key_b = jax.random.split(jax.random.key(2))
    a, b = (jax.random.randint(k, (2048,), 0, 64) for k in (key_a, key_b))
    take = lambda rows: jax.tree.map(lambda x: x[rows], EVERY)
    label = jax.nn.sigmoid(GOLD[a] - GOLD[b])  # the Bradley–Terry probability itself
    data = Comparison(take(a), take(b), label, jnp.ones(2048))
    kernel = reward.kernel(reward.compare(SCALAR, bradley_terry), reward.penalty, 600)
    kernel = minibatches(kernel, 128, learner.position, 600)
    hparams = Reward(centring=0.0, adam=Adam(learning_rate=5e-3))
    state = kernel.init(jax.random.key(0), hparams, SCALAR.init(jax.random.key(3)))
    state, _ = jax.jit(kernel.step)(state, (data, jnp.int32(2048)))
    fitted = jax.jit(lambda p: heads.reward(SCALAR, p, EVERY))(state.params)
    # Comparisons leave the offset free, nothing else: slope 1 and a high correlation.
    assert float(jnp.corrcoef(fitted, GOLD)[0, 1]) > 0.99
    assert float(jnp.polyfit(GOLD, fitted, 1)[0]) == pytest.approx(1.0, abs=0.05)


def optimise(reference: object, steps: int, **settings: float) -> object:
    """PPO on the true utility; returns the policy's parameters."""
    hparams = PPO(
        batch=256,
        epochs=2,
        minibatches=2,
        gae_lambda=1.0,
        value_clip=1e9,
        value_learning_rate=3e-3,
        adam=Adam(learning_rate=3e-3, warmup=0, final=0.02, eps=1e-5),
        **settings,
    )
    score = lambda given, x: jax.vmap(feeling(PROBE), (None, 0, 0))(None, x.tokens, x.mask)
    task = Task(POLICY, PROBE.language, PROBE.prompt, score, lambda *_: {})
    kernel = ppo.kernel(task, SCALAR, steps)
    kernel = Kernel(kernel.init, jax.jit(repeat(kernel, steps).step))
    critic = SCALAR.init(jax.random.key(5))
    copy = jax.tree.map(jnp.copy, reference)
    state = kernel.init(jax.random.key(4), hparams, copy, critic)
    state, _ = kernel.step(state, Given(reference, None, None))
    return state.policy.params


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.5, 1.0, 2.0])
def test_ppo_finds_the_exact_kl_regularised_optimum(reference: object, weight: float) -> None:
    before = log_probs(reference)
    best = optimum(before, GOLD, jnp.float32(weight))
    after = log_probs(optimise(reference, 300, kl_weight=weight))
    distance = kl(after, best)
    assert distance < 0.02
    assert distance < 0.05 * kl(before, best)


@pytest.mark.slow
def test_a_huge_kl_weight_leaves_the_reference_unchanged(reference: object) -> None:
    after = log_probs(optimise(reference, 60, kl_weight=1000.0))
    assert kl(after, log_probs(reference)) < 0.02


@pytest.mark.slow
def test_without_a_kl_weight_the_policy_finds_the_best_sequence(reference: object) -> None:
    after = log_probs(optimise(reference, 300, kl_weight=0.0))
    expected = float(jnp.sum(jnp.exp(after) * GOLD))
    assert expected > 0.97 * float(GOLD.max())
