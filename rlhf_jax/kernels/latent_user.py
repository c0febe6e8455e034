"""A reward for each person, from a few of their answers: variational preference learning.

Poddar et al. 2024, arXiv 2408.10075 (VPL). A person is a latent z ~ N(0, I) [D]; their answers
follow a reward r(x, z); an encoder reads a person's answers and says q(z | answers). Encoder
and reward are fitted together by the evidence lower bound

  log p(answers) ≥ E_q Σ_n log P(y_n | r(·, z)) − KL(q ‖ N(0, I)).

z is continuous where `mixture_reward` has M kinds of people. What is said of z by draws from q
makes questions to a new person informative: `ops.queries.information` over draws.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.config import Adam
from rlhf_jax.feedback.comparison import Comparison, bradley_terry
from rlhf_jax.humans.human import Value
from rlhf_jax.kernels.learner import Learner, descend, optimiser, start
from rlhf_jax.types import Array, Kernel, Key, Metrics, Params


class Latent(NamedTuple):
    """q(z) = N(mean, e^(2 · log_deviation)), independent dimensions: [D] each."""

    mean: Array
    log_deviation: Array


class Encoded(NamedTuple):
    """A reward model with people in it. Functions are of one person's N answers."""

    init: Callable[[Key], Params]
    encode: Callable[[Params, Comparison], Latent]
    """(φ, answers) → q(z | answers); answers of weight 0 must not enter (`pool` sees to it)"""
    rewards: Callable[[Params, Comparison, Array], tuple[Array, Array]]
    """(φ, answers, z [D]) → r(a, z), r(b, z), [N] each"""


class Settings(NamedTuple):
    """Hyper-parameters; all floats may be traced."""

    adam: Adam
    kl: Value = 1.0
    """Weight of the divergence; 1 is the bound itself, less lets z say more."""


def divergence(q: Latent) -> Array:
    """KL(q ‖ N(0, I)) = Σ_d ½ (μ² + σ² − 1) − log σ, nats; scalar."""
    variance = jnp.exp(2.0 * q.log_deviation)
    return jnp.sum(0.5 * (jnp.square(q.mean) + variance - 1.0) - q.log_deviation)


def pool(mean: Array, log_precision: Array, weight: Array) -> Latent:
    """What N answers say of z together: N(0, I) Π_n N(z; m_n, 1/λ_n)^{w_n}, made to sum to one.

      precision Λ = 1 + Σ_n w_n λ_n,   mean Σ_n w_n λ_n m_n / Λ.

    A product of experts (Hinton 2002; Wu & Goodman 2018, arXiv 1802.05335) in place of
    VPL's attention over answers: it does not depend on their order, surer with each, and
    the prior where there are none. m, log λ [N, D], w [N] → [D].
    """
    lam = jnp.where(weight[:, None] > 0, weight[:, None] * jnp.exp(log_precision), 0.0)
    precision = 1.0 + jnp.sum(lam, axis=0)
    told = jnp.sum(jnp.where(lam > 0, lam * mean, 0.0), axis=0)
    return Latent(told / precision, -0.5 * jnp.log(precision))


def draw(q: Latent, noise: Array) -> Array:
    """z = μ + σ ε: standard normal ε [S, D] → [S, D], differentiable in q."""
    return q.mean[None] + jnp.exp(q.log_deviation)[None] * noise


def negative_bound(
    rewards: Callable[[Array], tuple[Array, Array]],
    q: Latent,
    label: Array,
    weight: Array,
    noise: Array,
    kl: Value = 1.0,
    nll: Callable[[Array, Array, Array], Array] = bradley_terry,
) -> tuple[Array, Array]:
    """(1/S) Σ_s Σ_n w_n ℓ(r_a(z_s), r_b(z_s), y_n) + kl · KL(q ‖ N(0, I)), and the KL; nats.

    Minus the evidence lower bound of one person's answers at kl = 1,
    unbiased in the noise. An upper bound of −log p(answers), tight where q is the posterior.

    Args: `rewards` z [D] → r_a [N], r_b [N]; label, weight [N]; noise [S, D] standard normal.
    """

    def told(z: Array) -> Array:
        each = nll(*rewards(z), label)
        return jnp.sum(jnp.where(weight > 0, weight * each, 0.0))

    far = divergence(q)
    return jnp.mean(jax.vmap(told)(draw(q, noise))) + kl * far, far


def standing(reward: Array, others: Array) -> Array:
    """(1/M) Σ_m σ(r(x) − r(x′_m)): the chance that this person prefers x to another response.

    Comparisons leave the scale of r(·, z) free for every z; this one is in [0, 1] for all
    people alike (arXiv 2408.10075, VPL-SPO). r [N], r of M others → [N].
    """
    return jnp.mean(jax.nn.sigmoid(reward[:, None] - others[None]), axis=1)


def kernel(model: Encoded, steps: int, draws: int = 4) -> Kernel:
    """Batch: `Comparison` with leading axes [U, N]: the answers of U people, a person a row.

    min_φ Σ_u [−bound_u] / Σ w, nats an answer; each person's answers are both what the encoder
    reads and what the reward explains. Unequal numbers of answers are padded with weight 0.
    `init` takes (key, `Settings`); step k draws z from fold_in(key, k). Metrics "loss/bound" and
    "latent/kl" (nats a person): near 0 the latent has collapsed, and r is one reward for all.
    """

    def init(key: Key, hparams: Settings) -> Learner:
        begin, run = jax.random.split(key)
        tx = optimiser(hparams.adam, steps, hparams.adam.learning_rate)
        return start(model.init(begin), run, hparams, tx)

    def objective(
        params: Params, hparams: Settings, batch: Comparison, key: Key
    ) -> tuple[Array, Metrics]:
        def person(answers: Comparison, mine: Key) -> tuple[Array, Array]:
            q = model.encode(params, answers)
            noise = jax.random.normal(mine, (draws, *q.mean.shape))
            rewards = lambda z: model.rewards(params, answers, z)
            return negative_bound(rewards, q, answers.label, answers.weight, noise, hparams.kl)

        keys = jax.random.split(key, batch.label.shape[0])
        cost, far = jax.vmap(person)(batch, keys)
        value = jnp.sum(cost) / jnp.maximum(jnp.sum(batch.weight), 1e-12)
        return value, {"loss/bound": value, "latent/kl": jnp.mean(far)}

    def step(state: Learner, batch: Comparison) -> tuple[Learner, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        hp = state.hparams
        gradient, metrics = jax.grad(objective, has_aux=True)(state.params, hp, batch, key)
        return descend(state, gradient, optimiser(hp.adam, steps, hp.adam.learning_rate)), metrics

    return Kernel(init, step)
