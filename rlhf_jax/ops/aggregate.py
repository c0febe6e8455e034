"""One reward out of the k of an ensemble: their mean, their worst, or their mean less a doubt.

Members are the leading axis. Any set of rewards will do: models that differ by seed, by
bootstrap or by pretraining, or the groups of a divided population.
"""

from __future__ import annotations

import jax.numpy as jnp

from rlhf_jax.types import Array


def standardise(scores: Array, reference: Array) -> Array:
    """(r_i − m_i) / s_i, m_i and s_i the mean and deviation of member i on the reference.

    A comparison leaves offset and scale of a reward free, so members are put on one scale
    before they are put together (Coste et al. 2023, arXiv 2310.02743). Deviations below
    1e-6 count as 1e-6: a member that says the same to all says 0.

    Args: scores [k, …], reference [k, M] float32. Returns: [k, …], in deviations.
    """
    wide = (-1,) + (1,) * (scores.ndim - 1)
    mean = jnp.mean(reference, axis=1).reshape(wide)
    return (scores - mean) / jnp.maximum(jnp.std(reference, axis=1), 1e-6).reshape(wide)


def mean(scores: Array, share: Array | None = None) -> Array:
    """R(x) = Σ_i π_i r_i(x), π = 1/k if None. [k, …] → […]. Coste et al. 2023, arXiv 2310.02743.

    With π the shares of groups of people it is the utility that the majority wins.
    """
    if share is None:
        return jnp.mean(scores, axis=0)
    return jnp.tensordot(share, scores, axes=1, precision="highest")


def worst_case(scores: Array) -> Array:
    """R(x) = min_i r_i(x). [k, …] → […]. Coste et al. 2023, arXiv 2310.02743.

    Over the rewards of groups of people it is their egalitarian utility, whose expectation
    MaxMin-RLHF approximates (arXiv 2402.08925).
    """
    return jnp.min(scores, axis=0)


def uncertainty_weighted(scores: Array, doubt: Array | float, share: Array | None = None) -> Array:
    """R(x) = r̄(x) − λ Σ_i π_i (r_i(x) − r̄(x))², π = 1/k if None. [k, …] → […].

    Coste et al. 2023, arXiv 2310.02743: the variance has 1/k, not 1/(k − 1), so that
    one member alone has none. `doubt` is λ ≥ 0, per unit of reward; it may be traced.
    """
    centre = mean(scores, share)
    return centre - doubt * mean(jnp.square(scores - centre[None]), share)
