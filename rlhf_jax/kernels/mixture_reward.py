"""Several rewards for people who want different things, and who belongs to which, by EM.

Chakraborty et al. 2024, arXiv 2402.08925 (MaxMin-RLHF). There each person is put in the one
cluster that fits best; here in each by its posterior probability, of which that is the limit.
The likelihood that rises (up to the noise of the members' optimiser) is

  log p(answers) = Σ_p log Σ_m π_m Π_{n of p} P(y_n | r_m)^{w_n}.

`ensemble.by_group` is the E step, the fit of its members the M step. What to do with the rewards
is a choice: `ops.aggregate.worst_case` is MaxMin, the `mean` by their shares the utility that the
majority wins.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rlhf_jax.types import Array


def log_likelihood(nll: Array, who: Array, weight: Array, people: int) -> Array:
    """Σ_{n of p} w_n log P(y_n | r_m): nll [M, N] nats, who [N] int32, weight [N] → [P, M]."""
    told = jnp.where(weight[None] > 0, -weight[None] * nll, 0.0).T
    return jax.ops.segment_sum(told, who, people)


def responsibilities(told: Array, log_prior: Array) -> tuple[Array, Array]:
    """E step: γ_pm ∝ π_m exp(told_pm), Σ_m γ = 1, and log p(answers of p). → [P, M], [P].

    Whoever said nothing has γ = π.
    """
    joint = told + log_prior[None]
    evidence = jax.nn.logsumexp(joint, axis=1)
    return jnp.exp(joint - evidence[:, None]), evidence


def shares(belongs: Array, who: Array, weight: Array) -> Array:
    """M step of π: the mean γ of the people who answered anything. [P, M] → [M]."""
    count = jnp.zeros(belongs.shape[0]).at[who].add((weight > 0).astype(jnp.float32))
    spoke = (count > 0).astype(jnp.float32)
    total = jnp.sum(belongs * spoke[:, None], axis=0)
    even = jnp.full(belongs.shape[1], 1.0 / belongs.shape[1])
    return jnp.where(jnp.sum(spoke) > 0, total / jnp.maximum(jnp.sum(spoke), 1.0), even)
