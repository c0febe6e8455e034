"""Several rewards for people who want different things, and who belongs to which, by EM.

Chakraborty et al. 2024, arXiv 2402.08925 (MaxMin-RLHF). There each person is put in the one
cluster that fits best; here in each by its posterior probability, of which that is the limit.
The likelihood that rises (up to the noise of the members' optimiser) is

  log p(answers) = Σ_p log Σ_m π_m Π_{n of p} P(y_n | r_m)^{w_n}.

What to do with the rewards is a choice: `ops.aggregate.worst_case` is MaxMin, `expected` the
utility that the majority wins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.feedback.comparison import Comparison
from rlhf_jax.kernels import ensemble
from rlhf_jax.types import Array, Kernel, Key, Metrics, State


class Mixture(NamedTuple):
    """M rewards and how common they are."""

    members: State
    """leaves [M, …]"""
    log_prior: Array
    """[M]: log π"""


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


def expected(scores: Array, log_prior: Array) -> Array:
    """Σ_m π_m r_m(x): scores [M, …] → […]."""
    return jnp.tensordot(jnp.exp(log_prior), scores, axes=1, precision="highest")


def kernel(
    member: Kernel, nll: Callable[[State, Comparison], Array], people: int, members: int
) -> Kernel:
    """Generalised EM: an E step over the batch, then one step of each member under its weights.

    `member` fits one reward to a `Comparison` (`reward.kernel`, or `repeat` of it for a longer M
    step); `nll` is (one member's state, batch) → −log P(y_n | r) [N]. `init` takes what the
    member's does, each with a leading axis [M]: members must start apart, for equal ones stay
    equal. Batch: `Comparison` with `who` in 0 … people − 1 (None: one person), all answers of a
    person together, since they decide where that person belongs. Metrics are the members' with
    an axis [M], and "loss/mixture" (−log p(answers), nats an answer), "mixture/share" [M] and
    "mixture/certainty" (mean of max_m γ).
    """
    fit = ensemble.kernel(member)

    def init(key: Key, *given: State) -> Mixture:
        even = -jnp.log(jnp.full(members, float(members)))
        return Mixture(fit.init(key, *given), even)

    def step(state: Mixture, batch: Comparison) -> tuple[Mixture, Metrics]:
        who = jnp.zeros(batch.label.shape, jnp.int32) if batch.who is None else batch.who
        each = jax.vmap(nll, (0, None))(state.members, batch)
        told = log_likelihood(each, who, batch.weight, people)
        belongs, evidence = responsibilities(told, state.log_prior)
        share = shares(belongs, who, batch.weight)
        weight = batch.weight[None] * belongs[who].T
        fitted, metrics = fit.step(state.members, batch._replace(weight=weight))
        total = jnp.maximum(jnp.sum(batch.weight), 1e-12)
        mine = {
            "loss/mixture": -jnp.sum(evidence) / total,
            "mixture/share": share,
            "mixture/certainty": jnp.mean(jnp.max(belongs, axis=1)),
        }
        return Mixture(fitted, jnp.log(jnp.maximum(share, 1e-30))), {**metrics, **mine}

    return Kernel(init, step)
