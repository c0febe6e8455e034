"""A reward model of one line, its kernel, and comparisons by people who want different things."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from tiny import LANGUAGE, episodes

from rlhf_jax.config import Adam, Reward
from rlhf_jax.feedback.comparison import Comparison, bradley_terry
from rlhf_jax.kernels import reward
from rlhf_jax.models.heads import Scalar

V = len(LANGUAGE.symbols)


def values(params, x):
    """The sum of a table over the tokens so far: a reward model of one line."""
    worth = jnp.where(x.mask, params["table"][x.tokens], 0.0)
    return jnp.concatenate([jnp.zeros((len(worth), 1)), jnp.cumsum(worth, axis=1)], axis=1)


BAG = Scalar(lambda key: {"table": 0.1 * jax.random.normal(key, (V,))}, values, lambda p, _: p)
SETTINGS = Reward(l2=1e-3, centring=0.0, adam=Adam(learning_rate=0.1, warmup=0, final=1.0, clip=10))
FIT = reward.kernel(BAG, bradley_terry, reward.penalty, 1000)


def start(kernel, k: int, seed: int = 0):
    keys = jax.random.split(jax.random.key(seed), k)
    settings = jax.tree.map(lambda x: jnp.full(k, x, jnp.float32), SETTINGS)
    return kernel.init(keys, settings, jax.vmap(BAG.init)(keys))


def answers(seed: int, people: np.ndarray, want: np.ndarray) -> Comparison:
    """One comparison by each of `people` [N]; person p values symbol v by want[p, v]."""
    n = len(people)
    a, b = episodes(seed, n), episodes(seed + 1, n)
    value = lambda x: np.where(x.mask, want[people[:, None], np.asarray(x.tokens)], 0).sum(1)
    p = 1 / (1 + np.exp(value(b) - value(a)))
    label = np.random.default_rng(seed).random(n) < p
    return Comparison(
        a, b, jnp.asarray(label, jnp.float32), jnp.ones(n), jnp.asarray(people, jnp.int32)
    )
