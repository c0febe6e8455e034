"""A posterior over the last layer: how sure a linear head w · φ(x) is of a reward difference.

Features φ are what the layers below say, held fixed. Only differences Δ = φ(a) − φ(b) enter
(an offset cancels), so a posterior is that of Bayesian logistic regression on Δ [N, D].
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import cho_solve, solve_triangular

from rlhf_jax.types import Array


class Laplace(NamedTuple):
    """w ~ N(mean, (C Cᵀ)⁻¹), float32."""

    mean: Array
    """[D], the most probable head"""
    factor: Array
    """[D, D], Cholesky factor C of the precision: lower triangular"""


def _log_joint(head: Array, delta: Array, label: Array, weight: Array, precision: Array) -> Array:
    d = jnp.matmul(delta, head, precision="highest")
    fit = label * jax.nn.log_sigmoid(d) + (1.0 - label) * jax.nn.log_sigmoid(-d)
    return jnp.sum(jnp.where(weight > 0, weight * fit, 0.0)) - 0.5 * precision * jnp.sum(head**2)


def _precision(head: Array, delta: Array, weight: Array, precision: Array) -> Array:
    """τ I + Σ_n w_n σ(d_n) σ(−d_n) Δ_n Δ_nᵀ: minus the Hessian of the log joint. [D, D]."""
    d = jnp.matmul(delta, head, precision="highest")
    curved = delta * (weight * jax.nn.sigmoid(d) * jax.nn.sigmoid(-d))[:, None]
    return precision * jnp.eye(head.shape[0]) + jnp.matmul(delta.T, curved, precision="highest")


def around(head: Array, delta: Array, weight: Array, precision: Array | float) -> Laplace:
    """The posterior around a head that was fitted elsewhere: p(w | y) ≈ N(w*, H⁻¹).

      H = τ I + Σ_n w_n σ(d_n) (1 − σ(d_n)) Δ_n Δ_nᵀ,   d_n = w* · Δ_n,

    MacKay 1992; for the last layer of a network Daxberger et al. 2021 (arXiv 2106.14806). H
    does not depend on the answers, only on what was asked.

    Args: head [D], delta [N, D], weight [N] ≥ 0 (0 was never asked), precision τ > 0 of the
      prior N(0, 1/τ); it may be traced.
    """
    hessian = _precision(head, delta, weight, jnp.asarray(precision))
    return Laplace(head, jnp.linalg.cholesky(hessian))


def fit(
    delta: Array, label: Array, weight: Array, precision: Array | float, steps: int = 20
) -> Laplace:
    """The most probable head by Newton's method from 0, and the posterior around it.

    max_w Σ_n w_n [y log σ(d) + (1 − y) log σ(−d)] − τ/2 |w|² is concave. Of each step and its
    halves the best is taken, or none, so that separable answers and a small τ are no danger.
    Labels [N] are soft labels in [0, 1]; the rest is as in `around`.
    """
    tau = jnp.asarray(precision, jnp.float32)
    objective = lambda w: _log_joint(w, delta, label, weight, tau)
    sizes = 2.0 ** -jnp.arange(10.0)

    def step(head: Array, _: None) -> tuple[Array, None]:
        factor = jnp.linalg.cholesky(_precision(head, delta, weight, tau))
        move = cho_solve((factor, True), jax.grad(objective)(head))
        tried = head[None] + sizes[:, None] * move[None]
        values = jax.vmap(objective)(tried)
        return jnp.where(jnp.max(values) >= objective(head), tried[jnp.argmax(values)], head), None

    head = jax.lax.scan(step, jnp.zeros(delta.shape[1]), length=steps)[0]
    return around(head, delta, weight, tau)


def difference(posterior: Laplace, delta: Array) -> tuple[Array, Array]:
    """Mean w* · Δ and variance Δᵀ H⁻¹ Δ of the reward difference of N pairs. [N, D] → [N], [N].

    With φ(x) − φ(x₀) in place of Δ, of one response against a reference x₀.
    """
    mean = jnp.matmul(delta, posterior.mean, precision="highest")
    half = solve_triangular(posterior.factor, delta.T, lower=True)
    return mean, jnp.sum(half * half, axis=0)


def probability(mean: Array, variance: Array) -> Array:
    """P(a preferred) = E σ(d) ≈ σ(mean / √(1 + π variance / 8)), d ~ N(mean, variance). […].

    MacKay 1992's probit approximation, within 0.02: what is unsure is moved towards ½.
    """
    return jax.nn.sigmoid(mean / jnp.sqrt(1.0 + np.pi / 8.0 * variance))


def draw(posterior: Laplace, noise: Array) -> Array:
    """Heads w = w* + C⁻ᵀ ε: an ensemble. Standard normal ε [k, D] → [k, D]."""
    shift = solve_triangular(posterior.factor, noise.T, lower=True, trans="T").T
    return posterior.mean[None] + shift


def log_evidence(
    posterior: Laplace, delta: Array, label: Array, weight: Array, precision: Array | float
) -> Array:
    """log p(y | τ) ≈ log p(y, w*) + D/2 log τ − ½ log |H|, nats: largest for the best prior τ.

    The 2π of the prior and of the integral cancel. Its values at several τ choose one without
    a validation set (MacKay 1992); vmap `fit` over τ.
    """
    tau = jnp.asarray(precision, jnp.float32)
    size = posterior.mean.shape[0]
    joint = _log_joint(posterior.mean, delta, label, weight, tau)
    half_log_det = jnp.sum(jnp.log(jnp.diagonal(posterior.factor)))
    return joint + 0.5 * size * jnp.log(tau) - half_log_det
