"""An L2 weight that adapts: it keeps the validation loss a little above the training loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from rlhf_jax.kernels.learner import Learner
from rlhf_jax.types import Array, Kernel, Metrics, Params

LOW, HIGH = 1.1, 1.5
"""Bounds of validation loss / training loss (Christiano et al. 2017)."""


def adjust(
    l2: Array | float,
    training: Array,
    validation: Array,
    *,
    factor: Array | float = 1.05,
    least: Array | float = 1e-8,
    most: Array | float = 1e2,
) -> Array:
    """λ′ = λ · factor where validation > 1.5 training, λ / factor where < 1.1 training, else λ.

    Christiano et al. 2017, arXiv 1706.03741, §2.2.3, give the bounds and leave the step open:
    here it is geometric, within [least, most] so that λ can come back from 0. Losses are mean
    nats an answer, without the penalty; NaN leaves λ alone. Scalars, or of equal shapes.
    """
    l2 = jnp.asarray(l2, jnp.float32)
    up, down = validation > HIGH * training, validation < LOW * training
    return jnp.clip(jnp.where(up, l2 * factor, jnp.where(down, l2 / factor, l2)), least, most)


def kernel(
    inner: Kernel,
    validation: Callable[[Params, Any], Array],
    *,
    training: str = "loss/reward",
    factor: float = 1.05,
) -> Kernel:
    """`inner` with `adjust` after each call of it. Batch: (inner's batch, validation data).

    The state is a `Learner` whose hyper-parameters have an `l2`; the new one is in the state
    that is returned, so it is checkpointed and may differ between members of a population.
    `validation` is (φ, data) → mean nats an answer, e.g. over `ensemble.out_of_bag`, the
    1/e of the answers that a bootstrap leaves out, which is Christiano's share. `training`
    names inner's metric of the same loss, the mean over the steps of a call.

    Metrics gain "loss/validation" and "train/l2". Losses of one minibatch are noisy: what they
    average to is kept in bounds when `factor` is near 1.
    """

    def step(state: Learner, batch: tuple[Any, Any]) -> tuple[Learner, Metrics]:
        given, held_out = batch
        # Both losses are of the parameters before the step.
        missed = validation(state.params, held_out)
        state, metrics = inner.step(state, given)
        l2 = adjust(state.hparams.l2, jnp.mean(metrics[training]), missed, factor=factor)
        state = state._replace(hparams=dataclasses.replace(state.hparams, l2=l2))
        return state, {**metrics, "loss/validation": missed, "train/l2": l2}

    return Kernel(inner.init, step)
