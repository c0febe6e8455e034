"""An ensemble is one more vmapped axis: members that differ by seed, bootstrap or pretraining.

`init` takes keys [k], hyper-parameters [k] and parameters to start from [k]: of k heads on one
trunk, or of k pretrained models, whose errors have less in common (Eisenstein et al. 2023,
arXiv 2312.09244). Members learn from the same answers, each under weights of its own. What
they say is put together by `ops.aggregate`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from rlhf_jax.feedback.comparison import Comparison
from rlhf_jax.kernels import reward
from rlhf_jax.kernels.reward import Judge
from rlhf_jax.models.heads import Scalar
from rlhf_jax.transforms import population
from rlhf_jax.types import Array, Episode, Kernel, Key, Params

BY_WEIGHT: Any = Comparison._make([None, None, None, 0, None])
"""Axes of a batch of comparisons that only the weights [k, N] differ in."""


def bootstrap(weight: Array, key: Key) -> Array:
    """w_n c_n, c_n how often answer n comes in as many draws with replacement as there are answers.

    Efron 1979; Christiano et al. 2017, arXiv 1706.03741, §2.2.3. Answers of weight 0 were never
    given and are never drawn. [N] → [N]; vmap over keys for k members. Consumes `key`.
    """
    n = weight.shape[0]
    given = weight > 0
    count = jnp.sum(given)
    rows = jnp.argsort(~given, stable=True)
    drawn = rows[jax.random.randint(key, (n,), 0, jnp.maximum(count, 1))]
    often = jnp.zeros(n).at[drawn].add((jnp.arange(n) < count).astype(jnp.float32))
    return weight * often


def out_of_bag(weight: Array, drawn: Array) -> Array:
    """The weights of what `bootstrap` left out: (1 − 1/N)^N ≈ 1/e of the answers. [N] → [N].

    Each member's own validation data, at no cost.
    """
    return jnp.where(drawn > 0, 0.0, weight)


def kernel(member: Kernel, *, by: str = "vmap") -> Kernel:
    """k members. Batch: `Comparison` whose weight is [k, N] and whose other leaves are shared."""
    return population(member, by=by, batch_axes=BY_WEIGHT)


def judges(model: Scalar, params: Params, reference: Episode) -> Judge:
    """Each member on its own scale: mean 0 and deviation 1 over samples of the reference."""
    return jax.vmap(lambda p: reward.normalise(model, p, reference))(params)


def scores(model: Scalar, members: Judge, episode: Episode) -> Array:
    """[k, B]: what each member says, on its own scale; for `ops.aggregate` and `ops.queries`."""
    return jax.vmap(lambda judge: reward.score(model, judge, episode))(members)
