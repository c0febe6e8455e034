"""Maximum likelihood for tests, and how well a reward was recovered."""

from __future__ import annotations

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize
from scipy.stats import chi2, spearmanr


def fit(loss, start):
    """argmin of `loss` over a pytree, by L-BFGS."""
    flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(jnp.float32, start))
    slope = jax.jit(jax.value_and_grad(lambda x: loss(unravel(x))))

    def both(x):
        value, gradient = slope(x.astype(np.float32))
        return float(value), np.asarray(gradient, np.float64)

    found = minimize(both, np.asarray(flat, np.float64), jac=True, method="L-BFGS-B")
    return unravel(jnp.asarray(found.x, jnp.float32))


def recovery(fitted, truth) -> tuple[float, float]:
    """Spearman's rank correlation, and the slope of truth regressed on what was fitted."""
    fitted, truth = np.ravel(fitted), np.ravel(truth)
    return float(spearmanr(fitted, truth)[0]), float(np.polyfit(fitted, truth, 1)[0])


def agrees(count, probability, tail: float = 1e-5) -> bool:
    """Pearson's χ² at level `tail`; what has probability 0 must not occur."""
    count, p = np.asarray(count, np.float64), np.asarray(probability, np.float64)
    assert abs(p.sum() - 1.0) < 1e-4
    n, possible = count.sum(), p > 1e-9
    if count[~possible].sum() > 0:
        return False
    p, count = p[possible] / p[possible].sum(), count[possible]
    if len(p) == 1:
        return True
    return float(np.sum((count - n * p) ** 2 / (n * p))) < chi2.ppf(1 - tail, len(p) - 1)
