"""REINFORCE with the baseline of the other samples (RLOO): no critic, no clip, no reuse.

max_θ E_{x~π_θ}[R(x)], R(x) = r_φ(x) − β_KL log π_θ(x)/π_ref(x), by
∇ = E[(R(x_i) − mean_{j≠i} R(x_j)) ∇ log π_θ(x_i)]. Williams 1992; Kool et al. 2019; Ahmadian
et al. 2024 (arXiv 2402.14740). The baseline is independent of x_i, so the gradient is
unbiased and its only rest is the optimum of PPO's objective, π_ref exp(r/β)/Z.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.config import ConfigError, Reinforce
from rlhf_jax.kernels.experience import Given, Task, gather, objective
from rlhf_jax.kernels.learner import Learner, descend, optimiser, start
from rlhf_jax.kernels.method import Method, repeated
from rlhf_jax.kernels.sampling import check, chosen, log_distribution
from rlhf_jax.mesh import spread
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params


class State(NamedTuple):
    policy: Learner


def leave_one_out(returns: Array, group: int) -> Array:
    """[B] → [B]: R_i − mean of the other `group` − 1 of its group (neighbours in the batch)."""
    rows = returns.reshape(-1, group)
    others = (jnp.sum(rows, axis=1, keepdims=True) - rows) / (group - 1)
    return (rows - others).reshape(-1)


def kernel(task: Task, steps: int) -> Kernel:
    """`init` is given the policy's starting parameters; batch: `Given`.

    Raises: `ConfigError` at `init` where a batch has no other sample to compare with.
    """

    def init(key: Key, hparams: Reinforce, policy_params: Params) -> State:
        check(task.language)
        if hparams.batch % hparams.group or hparams.batch < 2:
            raise ConfigError(
                f"reinforce.group = {hparams.group}, reinforce.batch = {hparams.batch}: a batch "
                "is whole groups, and at least two episodes"
            )
        tx = optimiser(hparams.adam, steps, hparams.adam.learning_rate)
        return State(start(policy_params, key, hparams, tx))

    def loss(params: Params, x: Episode, advantages: Array, temperature: Array) -> Array:
        log_p = log_distribution(task.policy, params, x, temperature)
        return -jnp.mean(advantages * jnp.sum(chosen(log_p, x), axis=1))

    def step(state: State, given: Given) -> tuple[State, Metrics]:
        policy, hp = state.policy, state.policy.hparams
        key = jax.random.fold_in(policy.key, policy.step)
        x = gather(task, given, policy.params, key, hp.batch, hp.temperature, hp.group)
        returns = x.scores - hp.kl_weight * jnp.sum(x.log_ratio, axis=1)
        group = hp.batch if hp.group == 1 else hp.group
        advantages = leave_one_out(returns, group)
        value, gradient = jax.value_and_grad(loss)(
            policy.params, spread(x.episode), advantages, hp.temperature
        )
        tx = optimiser(hp.adam, steps, hp.adam.learning_rate)
        metrics = objective(task, given, x, hp.kl_weight)
        metrics["loss/policy_avg"] = value
        return State(descend(policy, gradient, tx)), metrics

    return Kernel(init, step)


LEARNER = Method(
    name="reinforce",
    section="reinforce",
    equation=lambda settings: (
        "max_θ E_{x~π_θ}[r_φ(x) − β_KL log π_θ/π_ref(x)]; REINFORCE, the other samples as baseline"
    ),
    samples=lambda settings: settings["reinforce.batch"],
    kernel=lambda task, config, steps, call: repeated(kernel(task, steps), call),
)
