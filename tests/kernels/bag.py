"""A reward model of one line, its kernel, and comparisons by people who want different things."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from tiny import LANGUAGE, episodes

from rlhf_jax.config import Adam, Collect, Reward
from rlhf_jax.feedback import named
from rlhf_jax.feedback.comparison import Comparison, bradley_terry
from rlhf_jax.kernels import reward
from rlhf_jax.kernels.learner import position
from rlhf_jax.models.heads import Scalar
from rlhf_jax.transforms import minibatches

V = len(LANGUAGE.symbols)


def values(params, x):
    """The sum of a table over the tokens so far: a reward model of one line."""
    worth = jnp.where(x.mask, params["table"][x.tokens], 0.0)
    return jnp.concatenate([jnp.zeros((len(worth), 1)), jnp.cumsum(worth, axis=1)], axis=1)


BAG = Scalar(lambda key: {"table": 0.1 * jax.random.normal(key, (V,))}, values, lambda p, _: p)
SETTINGS = Reward(l2=1e-3, centring=0.0, adam=Adam(learning_rate=0.1, warmup=0, final=1.0, clip=10))
FIT = reward.kernel(reward.compare(BAG, bradley_terry), reward.penalty, 1000)
KIND = named(Collect(), LANGUAGE)
LIKELIHOOD = reward.answers(BAG, KIND, "standard")


def member(n: int, batch: int):
    """Fits one of several rewards to `n` answers, `batch` at a time."""
    fit = reward.kernel(LIKELIHOOD, reward.penalty, 1000)
    return minibatches(fit, batch, position, n // batch)


def start(kernel, k: int, seed: int = 0):
    """The state of `kernel`, k rewards that begin apart."""
    key = jax.random.key(seed)
    params = jax.vmap(BAG.init)(jax.random.split(key, k))
    settings = jax.tree.map(jnp.float32, SETTINGS)
    return kernel.init(key, settings, reward.Fitted(params, {}))


def told(answers: Comparison) -> reward.Told:
    """Answers of people of whom nothing is known."""
    return reward.Told(answers, jnp.zeros(answers.label.shape), jnp.zeros(answers.label.shape))


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
