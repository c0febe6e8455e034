"""x ~ π_ref: the samples on which a reward is put on its scale and best-of-n chooses."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.config import Evaluate
from rlhf_jax.config import World as WorldSettings
from rlhf_jax.kernels.collect import plain, prompts
from rlhf_jax.kernels.sampling import sample
from rlhf_jax.models.heads import Policy
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params, World

BLOCK = 1024
"""Samples of the best-of-n pool that are drawn, and judged, at once."""


class Samples(NamedTuple):
    """Responses of the reference to prompts without the trigger, new ones every round."""

    scale: Episode
    """[N]: those that say where a reward's 0 and 1 lie"""
    pool: Episode | None
    """[blocks, `BLOCK`], at least `evaluate.best_of`: those that best-of-n chooses among"""


class Drawn(NamedTuple):
    """State of the drawing kernel."""

    samples: Samples
    key: Key
    round: Array


class Source(NamedTuple):
    """Whose samples, of which world."""

    reference: Params
    world: WorldSettings
    temperature: Array | float
    """at which the policy will be trained against it"""


def kernel(policy: Policy, world: World, hparams: Evaluate) -> Kernel:
    """A round's samples of the reference. Batch: `Source`; no metrics."""
    blocks = -(-hparams.best_of // BLOCK)

    def some(given: Source, key: Key, n: int) -> Episode:
        ask, draw = jax.random.split(key)
        asked = prompts(world, plain(given.world), ask, n)
        heat = given.temperature
        return sample(policy, world.language, given.reference, asked, draw, heat).episode

    def samples(given: Source, key: Key) -> Samples:
        scale = some(given, key, max(hparams.samples, 512))
        if not blocks:
            return Samples(scale, None)
        keys = jax.random.split(jax.random.fold_in(key, 2), blocks)
        return Samples(scale, jax.lax.map(lambda k: some(given, k, BLOCK), keys))

    def init(key: Key) -> Drawn:
        one = Source(jax.eval_shape(policy.init, key), WorldSettings(), 1.0)
        shapes: Any = jax.eval_shape(samples, one, key)
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return Drawn(empty, key, jnp.zeros((), jnp.int32))

    def step(state: Drawn, given: Source) -> tuple[Drawn, Metrics]:
        new = samples(given, jax.random.fold_in(state.key, state.round))
        return Drawn(new, state.key, state.round + 1), {}

    return Kernel(init, step)
