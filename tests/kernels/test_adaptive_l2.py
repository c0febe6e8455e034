from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny  # noqa: F401  makes sections of the configuration pytrees

from rlhf_jax.config import Reward
from rlhf_jax.kernels import adaptive_l2
from rlhf_jax.kernels.adaptive_l2 import adjust
from rlhf_jax.kernels.learner import Learner
from rlhf_jax.transforms import population, repeat
from rlhf_jax.types import Kernel


class Answers(NamedTuple):
    delta: jax.Array
    label: jax.Array


@pytest.mark.parametrize(
    ("validation", "expected"), [(1.0, 0.5), (1.09, 0.5), (1.3, 1.0), (1.49, 1.0), (1.6, 2.0)]
)
def test_below_between_and_above_the_bounds(validation, expected):
    got = adjust(1.0, jnp.float32(1), jnp.float32(validation), factor=2.0)
    assert float(got) == pytest.approx(expected)


def test_it_stays_in_its_range_comes_back_from_0_and_ignores_nan():
    one = jnp.float32(1)
    assert float(adjust(0.0, one, 9 * one)) == pytest.approx(1e-8)
    assert float(adjust(100.0, one, 9 * one)) == pytest.approx(100)
    assert float(adjust(0.3, one, jnp.float32(jnp.nan))) == pytest.approx(0.3)


def nll(head, data):
    d = jnp.matmul(data.delta, head)
    return -jnp.mean(jax.nn.log_sigmoid((2 * data.label - 1) * d))


def logistic() -> Kernel:
    """Gradient descent on nll + l2 |w|² from 0."""

    def init(key, hparams):
        return Learner(jnp.zeros(12), (), key, jnp.zeros((), jnp.int32), hparams)

    def step(state, batch):
        objective = lambda w: nll(w, batch) + state.hparams.l2 * w @ w
        head = state.params - 0.3 * jax.grad(objective)(state.params)
        return state._replace(params=head), {"loss/reward": nll(state.params, batch)}

    return Kernel(init, step)


def test_a_reward_that_would_overfit_ends_within_the_bounds_and_predicts_better():
    """Twelve features, twenty-four answers, and only the first feature matters."""
    rng = np.random.default_rng(0)
    delta = rng.normal(size=(2040, 12)).astype(np.float32)
    label = (rng.random(2040) < 1 / (1 + np.exp(-1.5 * delta[:, 0]))).astype(np.float32)
    train, held_out, test = (
        Answers(jnp.asarray(delta[s]), jnp.asarray(label[s]))
        for s in (slice(0, 24), slice(24, 400), slice(400, None))
    )
    start = Reward(l2=jnp.asarray(1e-4))
    free = jax.jit(repeat(logistic(), 1500).step)
    kernel = adaptive_l2.kernel(logistic(), nll)
    held = jax.jit(repeat(kernel, 1500).step)
    begun = logistic().init(jax.random.key(0), start)
    plain, _ = free(begun, train)
    assert nll(plain.params, held_out) > 1.5 * nll(plain.params, train)
    kept, metrics = held(begun, (train, held_out))
    ratio = (metrics["loss/validation"] / metrics["loss/reward"])[-100:]
    assert ((ratio > 1.05) & (ratio < 1.55)).all()
    assert float(kept.hparams.l2) > 1e-3
    assert nll(kept.params, test) < nll(plain.params, test) - 0.05


def test_members_of_a_population_adapt_each_on_its_own():
    rng = np.random.default_rng(1)
    data = lambda n: Answers(
        jnp.asarray(rng.normal(size=(n, 12)), jnp.float32),
        jnp.asarray(rng.integers(0, 2, n), jnp.float32),
    )
    train, held_out = data(20), data(50)
    kernel = adaptive_l2.kernel(logistic(), nll, factor=2.0)
    both = population(kernel, batch_axes=None)
    keys = jax.random.split(jax.random.key(0), 2)
    settings = jax.vmap(lambda l2: Reward(l2=l2))(jnp.asarray([0.1, 0.2]))
    state = both.init(keys, settings)
    state = state._replace(params=state.params.at[1].set(3.0))
    after, metrics = both.step(state, (train, held_out))
    # Head 0: both losses ln 2, ratio 1 < 1.1: down. Far from 0 on coin flips: as its ratio says.
    alone = jax.tree.map(lambda x: x[1], state)
    _, said = kernel.step(alone, (train, held_out))
    np.testing.assert_allclose(after.hparams.l2, [0.05, said["train/l2"]], rtol=1e-6)
    np.testing.assert_allclose(metrics["loss/validation"][0], np.log(2), rtol=1e-5)
