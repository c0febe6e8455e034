"""Step 2: min_φ Σ ℓ(r_φ(x), y) + λ_r(φ), and the scale that the result is read on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlhf_jax.config import Reward
from rlhf_jax.feedback.comparison import Comparison
from rlhf_jax.kernels.learner import Learner, descend, optimiser, start
from rlhf_jax.models.heads import Scalar, reward
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params

Loss = Callable[[Array, Array, Array], Array]
"""(r_a, r_b, label) → nats, each [N]"""
Penalty = Callable[[Reward, Params, Array, Array, Array], Array]
"""(hparams, φ, r_a, r_b, weight) → λ_r, scalar"""


class Judge(NamedTuple):
    """A fitted reward model on a fixed scale: (r_φ(x) − mean) / deviation."""

    params: Params
    mean: Array
    deviation: Array


def penalty(
    hparams: Reward, params: Params, reward_a: Array, reward_b: Array, weight: Array
) -> Array:
    """λ_r = l2 · Σφ² + centring · Σ w (r_a + r_b)² / Σ w.

    A comparison leaves the reward's offset free; centring pins it (Eisenstein et al. 2023,
    arXiv 2312.09244, eq. 2).
    """
    l2 = hparams.l2 * optax.tree.norm(params, squared=True)
    total = jnp.maximum(jnp.sum(weight), 1e-12)
    return l2 + hparams.centring * jnp.sum(weight * jnp.square(reward_a + reward_b)) / total


def kernel(model: Scalar, loss: Loss, regulariser: Penalty, steps: int) -> Kernel:
    """Batch: Comparison [N, …]. `init` takes the parameters to start from as third argument."""

    def init(key: Key, hparams: Reward, params: Params) -> Learner:
        tx = optimiser(hparams.adam, steps, hparams.adam.learning_rate)
        return start(params, key, hparams, tx)

    def objective(params: Params, hparams: Reward, batch: Comparison) -> tuple[Array, Metrics]:
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), batch.a, batch.b)
        reward_a, reward_b = jnp.split(reward(model, params, both), 2)
        total = jnp.maximum(jnp.sum(batch.weight), 1e-12)
        nll = jnp.sum(batch.weight * loss(reward_a, reward_b, batch.label)) / total
        right = (reward_a > reward_b) == (batch.label > 0.5)
        untied = batch.weight * (batch.label != 0.5)
        accuracy = jnp.sum(right * untied) / jnp.maximum(jnp.sum(untied), 1e-12)
        value = nll + regulariser(hparams, params, reward_a, reward_b, batch.weight)
        return value, {"loss/reward": nll, "train/accuracy": accuracy}

    def step(state: Learner, batch: Comparison) -> tuple[Learner, Metrics]:
        hp = state.hparams
        gradient, metrics = jax.grad(objective, has_aux=True)(state.params, hp, batch)
        state = descend(state, gradient, optimiser(hp.adam, steps, hp.adam.learning_rate))
        return state, metrics

    return Kernel(init, step)


def normalise(model: Scalar, params: Params, reference: Episode) -> Judge:
    """The scale on which samples of the reference policy have mean 0 and deviation 1."""
    scores = reward(model, params, reference)
    return Judge(params, jnp.mean(scores), jnp.maximum(jnp.std(scores), 1e-6))


def score(model: Scalar, judge: Judge, episode: Episode) -> Array:
    """[B] float32: deviations above the reference policy's mean."""
    return (reward(model, judge.params, episode) - judge.mean) / judge.deviation
