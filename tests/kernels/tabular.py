"""The probe world with a table for a network: a policy that can be anything, and exact sums.

States are the nodes of the tree of prefixes: 0 is empty, the child of s by token a is
s·V + a + 1. A table of logits [nodes, V] is a policy, a column of it a critic.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tiny import feeling, worths

from rlhf_jax import grid, worlds
from rlhf_jax.config import World as Settings
from rlhf_jax.kernels.collect import corpus_episodes
from rlhf_jax.kernels.experience import Task
from rlhf_jax.kernels.sampling import chosen, log_distribution
from rlhf_jax.models.heads import FORBIDDEN, Policy, Scalar
from rlhf_jax.types import Array, Episode

assert grid  # makes the configuration's sections pytrees


class Case(NamedTuple):
    """A world whose responses are all known."""

    task: Task
    critic: Scalar
    every: Episode
    """[N] all responses"""
    gold: Array
    """[N] float32, what the policy is trained on"""
    reference: Array
    """a table that is not uniform"""

    def log_probs(self, table: Array) -> Array:
        """[N] log π(x)"""
        log_p = log_distribution(self.task.policy, table, self.every)
        return jnp.sum(chosen(log_p, self.every), axis=1)


def case(symbols: int, length: int) -> Case:
    world = worlds.build(Settings(name="probe", symbols=symbols, length=length, held_out=0.5))
    nodes = sum(symbols**t for t in range(length + 1))

    def walk(x: Episode) -> Array:
        """[B, T + 1] nodes passed."""
        states = [jnp.zeros(x.tokens.shape[0], jnp.int32)]
        for t in range(length):
            states.append(states[-1] * symbols + x.tokens[:, t] + 1)
        return jnp.stack(states, axis=1)

    def widen(logits: Array) -> Array:
        pads = [(0, 0)] * (logits.ndim - 1) + [(0, 2)]
        return jnp.pad(logits, pads, constant_values=FORBIDDEN)

    def prefill(table: Array, prompts, n: int) -> tuple[Array, Array]:
        start = jnp.zeros(prompts.tokens.shape[0], jnp.int32)
        return widen(table[start]), start

    def decode(table: Array, tokens: Array, where: Array, node: Array) -> tuple[Array, Array]:
        node = jnp.minimum(node * symbols + tokens + 1, nodes - 1)
        return widen(table[node]), node

    policy = Policy(
        init=lambda key: jnp.zeros((nodes, symbols)),
        logits=lambda table, x: widen(table[walk(x)[:, :-1]]),
        prefill=prefill,
        decode=decode,
        graft=lambda params, trunk: params,
    )
    critic = Scalar(
        init=lambda key: {"head": jnp.zeros(nodes)},
        values=lambda params, x: params["head"][walk(x)],
        graft=lambda params, trunk: params,
    )
    score = lambda given, x: jax.vmap(feeling(world), (None, 0, 0))(None, x.tokens, x.mask)
    task = Task(policy, world.language, world.prompt, score, lambda *_: {})
    rng = np.random.default_rng(4)
    reference = jnp.asarray(rng.normal(size=(nodes, symbols)), jnp.float32)
    rows = np.arange(symbols**length)
    return Case(
        task,
        critic,
        corpus_episodes(world, rows),
        jnp.asarray(worths(world, None)[:, 0]),
        reference,
    )


def kl(log_p: Array, log_q: Array) -> float:
    return float(jnp.sum(jnp.exp(log_p) * (log_p - log_q)))
