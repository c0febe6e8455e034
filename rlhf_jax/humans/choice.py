"""How a person answers: a noisily rational choice, drawn and as log-probabilities.

Arrays have any leading shape [...], one answer for each entry, independent given the values;
the person is one person. For many people, vmap over the person and the key.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.humans.human import Human, Value
from rlhf_jax.humans.perception import Perceived
from rlhf_jax.types import Array, Key

CANT_TELL = -1.0
"""Label of a comparison that the person would not answer; no loss counts it."""

_LEAST, _MOST = 1e-6, 1e6
_NEVER = -1e30
"""Log-probability of what is not among the options; finite, so that gradients are too."""


def noise(human: Human, standard: Array) -> Array:
    """Standard noise / β, in units of value: exactly 0 at β = ∞, and finite at β = 0."""
    return standard / jnp.maximum(human.rationality, _LEAST)


def precision(human: Human) -> Array:
    """β within 10^±6, so that likelihoods and their gradients are finite at β = 0 and ∞."""
    return jnp.clip(jnp.asarray(human.rationality, jnp.float32), _LEAST, _MOST)


def _log(p: Value) -> Array:
    p = jnp.asarray(p, jnp.float32)
    return jnp.where(p > 0, jnp.log(jnp.where(p > 0, p, 1.0)), -jnp.inf)


def mixed(human: Human, straight: Array, flipped: Array, unseen: Array | float) -> Array:
    """log[λ p_unseen + (1 − λ) ((1 − φ) p + φ p_flipped)], all given and returned as logs."""
    answer = jnp.logaddexp(
        jnp.log1p(-jnp.asarray(human.flip)) + straight, _log(human.flip) + flipped
    )
    return jnp.logaddexp(_log(human.lapse) + unseen, jnp.log1p(-jnp.asarray(human.lapse)) + answer)


def flip_sign(human: Human, shape: tuple[int, ...], key: Key) -> Array:
    """−1 with probability φ, else 1. Consumes `key`."""
    return jnp.where(jax.random.uniform(key, shape) < human.flip, -1.0, 1.0)


def lapses(human: Human, shape: tuple[int, ...], key: Key) -> Array:
    """True with probability λ. Consumes `key`."""
    return jax.random.uniform(key, shape) < human.lapse


def compare(human: Human, a: Perceived, b: Perceived, key: Key) -> Array:
    """1 (a), 0 (b), ½ (tie) or `CANT_TELL`, float32 [...]; `a` is the one shown first.

    d = û_a − û_b + position_bias + L/β with L ~ Logistic(0, 1), the Luce–Shepard choice:
    P(d > 0) = σ(β Δ). Negated with probability φ; a where d > τ, b where d < −τ, else a tie.
    Before that, B-Pref's thresholds (Lee et al. 2021, arXiv 2111.03026): `CANT_TELL` where
    max(ū_a, ū_b) ≤ skip, else a tie where |ū_a − ū_b| < equal. Whoever lapses answers by a
    coin, 1 or 0, without looking. Consumes `key`.
    """
    shape = a.value.shape
    noise_key, flip_key, lapse_key = jax.random.split(key, 3)
    d = a.value - b.value + human.position_bias
    d = d + noise(human, jax.random.logistic(noise_key, shape))
    d = d * flip_sign(human, shape, flip_key)
    answer = jnp.where(d > human.tie, 1.0, jnp.where(d < -human.tie, 0.0, 0.5))
    answer = jnp.where(jnp.abs(a.whole - b.whole) < human.equal, 0.5, answer)
    answer = jnp.where(jnp.maximum(a.whole, b.whole) <= human.skip, CANT_TELL, answer)
    # One uniform says whether and, in its lower half, what: P(1 | lapse) = ½.
    u = jax.random.uniform(lapse_key, shape)
    return jnp.where(u < human.lapse, jnp.where(u < 0.5 * human.lapse, 1.0, 0.0), answer)


def prefer(human: Human, value_a: Array, value_b: Array, key: Key) -> Array:
    """`compare` of perceived values [...] that have no parts, so that ū = û. Consumes `key`."""
    a, b = jnp.asarray(value_a, jnp.float32), jnp.asarray(value_b, jnp.float32)
    return compare(human, Perceived(a, a), Perceived(b, b), key)


def among(mask: Array) -> Array:
    """bool → the `base` of a choice that is even among the options which exist: 0 or −∞."""
    return jnp.where(mask, 0.0, -jnp.inf)


def _felt(human: Human, values: Array, key: Key, base: Array | None) -> tuple[Array, Array]:
    """û + (G + base)/β, and G + base: what is compared, and what settles equal values."""
    noise_key, flip_key, lapse_key = jax.random.split(key, 3)
    shape = values.shape[:-1]
    even = jax.random.gumbel(noise_key, values.shape)
    if base is not None:
        # Finite, so that dividing by β = ∞ is too.
        even = jnp.maximum(even + base, _NEVER)
    felt = values * flip_sign(human, shape, flip_key)[..., None] + noise(human, even)
    felt = jnp.where(lapses(human, shape, lapse_key)[..., None], even, felt)
    return jnp.where(even > _NEVER, felt, -jnp.inf), even


def rank(human: Human, values: Array, key: Key, base: Array | None = None) -> Array:
    """K options from best to worst: values [..., K] → int32 [..., K].

    Sorted by û_k + (G_k + base_k)/β, G ~ Gumbel(0, 1), so that the first is k with probability
    ∝ exp(β û_k + base_k) (Luce 1959; Yellott 1977), the second likewise among the rest
    (Plackett 1975). What is worth the same at β = ∞ comes in the order of G + base. With
    probability φ the values are negated, with probability λ they are not looked at. `base`
    [..., K] is the log of how many options there are like k: 0 for one, −∞ for none; those
    come last. Consumes `key`.
    """
    felt, even = _felt(human, values, key, base)
    return jnp.lexsort((-even, -felt), axis=-1).astype(jnp.int32)


def choose(human: Human, values: Array, key: Key, base: Array | None = None) -> Array:
    """Which of K options: values [..., K] → int32 [...], the first of `rank` without sorting.

    P(k) = softmax(β û + base)_k; with probability φ of −û, with probability λ softmax(base).
    Consumes `key`.
    """
    felt, even = _felt(human, values, key, base)
    index = jax.lax.broadcasted_iota(jnp.int32, felt.shape, felt.ndim - 1)

    # One pass over pairs: to look for the maximum first and for its equals then would compare
    # a number with itself computed twice, which a compiler may round differently.
    def better(x: tuple, y: tuple) -> tuple:
        mine = (x[0] > y[0]) | ((x[0] == y[0]) & (x[1] >= y[1]))
        return tuple(jnp.where(mine, a, b) for a, b in zip(x, y, strict=True))

    least = (np.float32(-np.inf), np.float32(-np.inf), np.int32(0))
    return jax.lax.reduce((felt, even, index), least, better, (felt.ndim - 1,))[2]


def centred(values: Array, base: Array | None = None) -> Array:
    """Values less their greatest, which leaves a choice as it is: β times that is exact."""
    exists = values if base is None else jnp.where(base > -jnp.inf, values, -jnp.inf)
    best = jax.lax.stop_gradient(jnp.max(exists, axis=-1, keepdims=True))
    return values - jnp.broadcast_to(best, values.shape)


def log_choice(human: Human, values: Array, base: Array | None = None) -> Array:
    """log P of each option of `choose`: [..., K] → [..., K] float32, β clipped to 10^±6.

    λ p₀ + (1 − λ) ((1 − φ) softmax(β û + base) + φ softmax(−β û + base)), p₀ = softmax(base).
    """
    beta = precision(human)
    even = jnp.zeros_like(values) if base is None else jnp.maximum(base, _NEVER)
    keep = lambda x: jax.nn.log_softmax(jnp.where(even > _NEVER, x + even, _NEVER), axis=-1)
    straight, flipped = (keep(beta * centred(v, base)) for v in (values, -values))
    return mixed(human, straight, flipped, keep(jnp.zeros_like(values)))


def log_chosen(human: Human, values: Array, chosen: Array, base: Array | None = None) -> Array:
    """log P of the option taken: values [..., K], chosen int32 [...] → [...]."""
    log_p = log_choice(human, values, base)
    return jnp.take_along_axis(log_p, chosen[..., None], axis=-1)[..., 0]
