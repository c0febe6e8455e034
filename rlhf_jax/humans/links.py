"""Which of a person's parameters can be fitted, each on a scale without bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.config import ConfigError
from rlhf_jax.humans.human import Human
from rlhf_jax.types import Array

Raw = dict[str, Array]
"""Field of `Human` → its unconstrained value, what a gradient learner moves"""


class Link(NamedTuple):
    """A bijection from the reals to where a field may lie."""

    inverse: Callable[[Array], Array]
    """unconstrained → field"""
    forward: Callable[[Array], Array]
    """field → unconstrained; a limit such as β = ∞ or λ = 0 maps to ±∞ and stays a limit"""


def _logit(p: Array) -> Array:
    return jnp.log(p) - jnp.log1p(-p)


def _rising(x: Array) -> Array:
    """x₀, x₀ + e^x₁, x₀ + e^x₁ + e^x₂, …: any reals → rising numbers. Last axis."""
    return jnp.cumsum(jnp.concatenate([x[..., :1], jnp.exp(x[..., 1:])], axis=-1), axis=-1)


def _steps(c: Array) -> Array:
    return jnp.concatenate([c[..., :1], jnp.log(jnp.diff(c, axis=-1))], axis=-1)


_REAL = Link(lambda x: x, lambda y: y)
_POSITIVE = Link(jnp.exp, jnp.log)
_SHARE = Link(jax.nn.sigmoid, _logit)
_HALF = Link(lambda x: 0.5 * jax.nn.sigmoid(x), lambda p: _logit(2.0 * p))

LINKS: dict[str, Link] = {
    "rationality": _POSITIVE,
    "lapse": _SHARE,
    # Beyond one half a person is better described by a negated reward.
    "flip": _HALF,
    "tie": _POSITIVE,
    "position_bias": _REAL,
    "weights": _REAL,
    "length_bias": _REAL,
    "sycophancy": _REAL,
    "spurious": _REAL,
    "offset": _REAL,
    "scale": _POSITIVE,
    "offset_drift": _REAL,
    "cutpoints": Link(_rising, _steps),
    "bar": _REAL,
    "edit_cost": _REAL,
}


def _check(names: Sequence[str]) -> None:
    for name in names:
        if name not in LINKS:
            raise ConfigError(f"{name!r} cannot be fitted; what can: {', '.join(LINKS)}")


def unconstrain(human: Human, names: Sequence[str]) -> Raw:
    """The fields to fit, on their unconstrained scale. Raises `ConfigError` for others."""
    _check(names)
    return {n: LINKS[n].forward(jnp.asarray(getattr(human, n), jnp.float32)) for n in names}


def constrain(human: Human, raw: Raw) -> Human:
    """`human` with the fitted fields in place: β, τ and scale = exp, λ = σ, φ = ½σ, cut-points
    = a first one plus a running sum of exp; the rest as it is.

    Differentiable: give `loss(…, constrain(human, raw))` to `jax.grad` over `raw`, alone or
    beside the reward's φ. The reward's unit is free where β is: fix β of one person or the
    mean of log β, and likewise one offset.
    """
    _check(list(raw))
    fitted: dict[str, Any] = {n: LINKS[n].inverse(x) for n, x in raw.items()}
    return human._replace(**fitted)
