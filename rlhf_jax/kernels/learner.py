"""What every gradient learner shares: its state and its optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlhf_jax.config import Adam
from rlhf_jax.types import Array, HParams, Key, Params


class Learner(NamedTuple):
    """The state of a kernel that fits one set of parameters to minibatches."""

    params: Params
    moments: Any
    """optax state"""
    key: Key
    """Root key; step k uses fold_in(key, k), it is never advanced."""
    step: Array
    """int32"""
    hparams: HParams


def tensorflow_adam(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam with ε beside √v before bias correction: m̂ / (√v̂ + ε / √(1 − b2ᵗ)).

    TensorFlow's form ("epsilon hat" of Kingma & Ba 2015, arXiv 1412.6980, §2), which the
    first RLHF code trained with: early steps are smaller than `optax.scale_by_adam`'s.
    """

    def update(gradient: Params, state: Any, params: Params = None) -> tuple[Params, Any]:
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(gradient, state.mu, b1, 1)
        nu = optax.tree.update_moment(gradient, state.nu, b2, 2)
        t = count.astype(jnp.float32)
        rate = jnp.sqrt(1.0 - b2**t) / (1.0 - b1**t)
        step = jax.tree.map(lambda m, v: rate * m / (jnp.sqrt(v) + eps), mu, nu)
        return step, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam(b1, b2, eps).init, update)


def optimiser(
    settings: Adam,
    steps: int,
    learning_rate: Array,
    adam: Callable[..., optax.GradientTransformation] = optax.scale_by_adam,
) -> optax.GradientTransformation:
    """AdamW with a global-norm clip. `adam`: `optax.scale_by_adam` adds ε after bias correction.

    The rate rises linearly over `settings.warmup` steps and falls linearly to
    `final` × `learning_rate` at `steps`. Built inside the kernel: its floats may be traced.
    """

    def schedule(count: Array) -> Array:
        rise = jnp.minimum((count + 1) / max(settings.warmup, 1), 1.0)
        progress = jnp.clip(count / max(steps, 1), 0.0, 1.0)
        return -learning_rate * rise * (1.0 + progress * (settings.final - 1.0))

    return optax.chain(
        optax.clip_by_global_norm(settings.clip),
        adam(settings.b1, settings.b2, settings.eps),
        optax.add_decayed_weights(settings.weight_decay),
        optax.scale_by_schedule(schedule),
    )


def start(params: Params, key: Key, hparams: HParams, tx: optax.GradientTransformation) -> Learner:
    return Learner(params, tx.init(params), key, jnp.zeros((), jnp.int32), hparams)


def descend(state: Learner, gradient: Params, tx: optax.GradientTransformation) -> Learner:
    updates, moments = tx.update(gradient, state.moments, state.params)
    params = optax.apply_updates(state.params, updates)
    return state._replace(params=params, moments=moments, step=state.step + 1)


def position(state: Learner) -> tuple[Key, Array]:
    """What `transforms.minibatches` reads from a learner."""
    return jax.random.fold_in(state.key, 0), state.step
