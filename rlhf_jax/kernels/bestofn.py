"""Best-of-n: what optimisation by choosing gains, and imitation of what was chosen.

`sampler` learns nothing: it draws from the reference and says what its best of n earn, by the
unbiased estimator for every n at once. `imitator` fits the policy to the best of n samples of
the reference (expert iteration's first step; RAFT, Dong et al. 2023, arXiv 2304.06767). With
data and time it becomes the best-of-n policy, which lies close to PPO's optimum of equal KL
(Yang et al. 2024, arXiv 2404.01730) but is not it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.config import BestOfN
from rlhf_jax.kernels.experience import Given, Task, gather
from rlhf_jax.kernels.learner import Learner, descend, optimiser, start
from rlhf_jax.kernels.method import Method, repeated
from rlhf_jax.kernels.sampling import check, chosen, log_distribution
from rlhf_jax.mesh import spread
from rlhf_jax.ops.bestofn import best_of_n, kl_counted
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params


class State(NamedTuple):
    policy: Learner


class Clock(NamedTuple):
    key: Key
    looks: Array


def sampler(task: Task, hparams: BestOfN, ns: Sequence[int]) -> Kernel:
    """Each step draws batch × n samples of the reference to one prompt and ranks them all.

    Batch: `Given`. Metrics [len(ns)]: `bestofn/scores`, `bestofn/kl`, and `bestofn/<name>` for
    every per-episode [B] metric that `task.observe` returns. Raises: `ConfigError` where an n
    is more than the samples.
    """
    size = hparams.batch * hparams.n

    def init(key: Key) -> Clock:
        check(task.language)
        return Clock(key, jnp.zeros((), jnp.int32))

    def step(state: Clock, given: Given) -> tuple[Clock, Metrics]:
        key = jax.random.fold_in(state.key, state.looks)
        x = gather(task, given, given.reference, key, size, hparams.temperature, size)
        metrics = {
            "bestofn/scores": best_of_n(x.scores, x.scores, ns),
            "bestofn/kl": kl_counted(x.scores, ns),
        }
        for name, value in task.observe(given, x.episode, x.scores).items():
            if value.shape == x.scores.shape:
                metrics[f"bestofn/{name.rsplit('/')[-1]}"] = best_of_n(x.scores, value, ns)
        return Clock(state.key, state.looks + 1), metrics

    return Kernel(init, step)


def imitator(task: Task, steps: int) -> Kernel:
    """Maximum likelihood on the best of n. `init` is given the policy's parameters.

    Batch: `Given`. The reference samples, never the policy: the target stays where it is.
    """

    def init(key: Key, hparams: BestOfN, policy_params: Params) -> State:
        check(task.language)
        tx = optimiser(hparams.adam, steps, hparams.adam.learning_rate)
        return State(start(policy_params, key, hparams, tx))

    def loss(params: Params, x: Episode, temperature: Array) -> Array:
        log_p = log_distribution(task.policy, params, x, temperature)
        return -jnp.mean(jnp.sum(chosen(log_p, x), axis=1))

    def step(state: State, given: Given) -> tuple[State, Metrics]:
        policy, hp = state.policy, state.policy.hparams
        key = jax.random.fold_in(policy.key, policy.step)
        size = hp.batch * hp.n
        x = gather(task, given, given.reference, key, size, hp.temperature, hp.n)
        best = jnp.argmax(x.scores.reshape(hp.batch, hp.n), axis=1)
        rows = jnp.arange(hp.batch) * hp.n + best
        kept = jax.tree.map(lambda leaf: leaf[rows], x)
        value, gradient = jax.value_and_grad(loss)(
            policy.params, spread(kept.episode), hp.temperature
        )
        tx = optimiser(hp.adam, steps, hp.adam.learning_rate)
        metrics = {
            "loss/policy_avg": value,
            "objective/scores": jnp.mean(x.scores),
            "objective/best_scores": jnp.mean(kept.scores),
        }
        return State(descend(policy, gradient, tx)), metrics

    return Kernel(init, step)


LEARNER = Method(
    name="imitation",
    section="bestofn",
    equation=lambda settings: (
        "max_θ E[log π_θ(x)] over the best x of n samples of π_ref by r_φ; n = "
        f"{settings.get('bestofn.n', 'not stated')}"
    ),
    samples=lambda settings: settings["bestofn.batch"] * settings["bestofn.n"],
    kernel=lambda task, config, steps, call: repeated(imitator(task, steps), call),
)
