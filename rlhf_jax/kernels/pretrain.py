"""Step 0: min_θ −E_x Σ_t log π_θ(x_t | x_<t), the model of the data."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rlhf_jax.config import Pretrain
from rlhf_jax.kernels.learner import Learner, descend, optimiser, start
from rlhf_jax.models.heads import Policy
from rlhf_jax.ops.statistics import masked_mean
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params


def kernel(policy: Policy, steps: int) -> Kernel:
    """Maximum likelihood, mean over tokens. Batch: Episode [B, …]."""

    def init(key: Key, hparams: Pretrain) -> Learner:
        params_key, key = jax.random.split(key)
        tx = optimiser(hparams.adam, steps, hparams.adam.learning_rate)
        return start(policy.init(params_key), key, hparams, tx)

    def loss(params: Params, batch: Episode) -> Array:
        log_p = jax.nn.log_softmax(policy.logits(params, batch))
        nll = -jnp.take_along_axis(log_p, batch.tokens[..., None], axis=-1)[..., 0]
        return masked_mean(nll, batch.mask)

    def step(state: Learner, batch: Episode) -> tuple[Learner, Metrics]:
        value, gradient = jax.value_and_grad(loss)(state.params, batch)
        hp = state.hparams
        state = descend(state, gradient, optimiser(hp.adam, steps, hp.adam.learning_rate))
        return state, {"loss/nll": value}

    return Kernel(init, step)
