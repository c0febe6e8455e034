"""How far two rewards are apart, whatever their scale: EPIC distance and rank correlation."""

from __future__ import annotations

import jax.numpy as jnp

from rlhf_jax.ops.statistics import correlation
from rlhf_jax.types import Array


def pearson_distance(x: Array, y: Array, weight: Array) -> Array:
    """D = √((1 − ρ(x, y)) / 2) in [0, 1] under weights ≥ 0: all [N]; scalar.

    0 where y = a x + b with a > 0, 1 where a < 0, √½ where unrelated or where either is
    constant. Gleave et al. 2020, arXiv 2006.13900.
    """
    rho = correlation(x, y, weight)
    return jnp.sqrt(jnp.maximum(1.0 - rho, 0.0) / 2.0)


def canonical(reward: Array, here: Array, there: Array, discount: Array | float) -> Array:
    """C(R)(s, a, s′) = R(s, a, s′) + γ m(s′) − m(s) − γ E_S m(S). [N] → [N].

    m(s) = E_{A, S′} R(s, A, S′) under the coverage distribution of actions and next states, drawn
    apart from each other. The last term is a constant that no correlation sees; it is left out
    here. What potential shaping adds to R, γ Φ(s′) − Φ(s), goes up to a constant
    (Gleave et al. 2020, arXiv 2006.13900).

    Args: R, m(s) and m(s′) of N transitions; m is 0 at the end of an episode, where no
    action is taken, if Φ is.
    """
    return reward + discount * there - here


def epic(x: Array, y: Array, mask: Array | None = None) -> Array:
    """EPIC distance of two rewards of whole responses: [P, N] each → scalar in [0, 1].

    A response is one action in the state that is its prompt and ends the episode, so `canonical`
    takes away the mean over the N responses to a prompt, and with it whatever depends on
    the prompt alone, which no choice of response can change:

      D = pearson_distance(x − x̄_prompt, y − ȳ_prompt).

    The mean over the N samples themselves shrinks all three moments by 1 − 1/N, which the
    correlation does not see. Responses are drawn from the coverage distribution, of the
    policies that both rewards should be right about; a prompt with one response says nothing.
    A pseudometric that is 0 for rewards equal up to scale and shaping (arXiv 2006.13900).

    Args: `mask` [P, N] bool, the responses that count; None is all. NaN outside is ignored.
    """
    mask = jnp.ones(x.shape, bool) if mask is None else mask

    def centred(r: Array) -> Array:
        # Less the row's least first: a constant is then 0 exactly, not a rounding error.
        low = jnp.min(jnp.where(mask, r, jnp.inf), axis=1, keepdims=True)
        r = jnp.where(mask, r - low, 0.0)
        count = jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
        return jnp.where(mask, r - jnp.sum(r, axis=1, keepdims=True) / count, 0.0)

    weight = mask.astype(jnp.float32)
    return pearson_distance(centred(x).ravel(), centred(y).ravel(), weight.ravel())


def ranks(x: Array) -> Array:
    """[N] → [N] float32, 1 the smallest; equal numbers share the mean of their ranks."""
    ordered = jnp.sort(x)
    below = jnp.searchsorted(ordered, x, side="left")
    up_to = jnp.searchsorted(ordered, x, side="right")
    return 0.5 * (below + up_to + 1).astype(jnp.float32)


def rank_correlation(x: Array, y: Array) -> Array:
    """Spearman's ρ: Pearson's r of `ranks`, ties shared. [N], [N] → scalar in [−1, 1].

    0 where either is constant; NaN where either holds a NaN.
    """
    rho = correlation(ranks(x), ranks(y), jnp.ones(x.shape))
    return jnp.where(jnp.any(jnp.isnan(x) | jnp.isnan(y)), jnp.nan, rho)
