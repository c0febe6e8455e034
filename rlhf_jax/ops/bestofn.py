"""Best-of-n: draw n samples of the reference, keep the one that the proxy likes best.

All functions are for the N scored samples, or all N responses, of one prompt; `ns` is static, the
scores are traced.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import ConfigError
from rlhf_jax.types import Array


def sizes(samples: int) -> tuple[int, ...]:
    """n = 1, 2, 4, … up to a quarter of the pool, beyond which few samples decide."""
    return tuple(2**i for i in range(max(samples // 4, 1).bit_length()))


def best_of_n(proxy: Array, value: Array, ns: Sequence[int]) -> Array:
    """Unbiased estimate of E[value of the best of n by proxy], for every n of `ns` at once.

    Nakano et al. 2021 (arXiv 2112.09332), appendix: with samples sorted by proxy, ranks b = 1…N,

      Ê_n = Σ_b w_b value_(b),   w_b = C(b−1, n−1) / C(N, n) = (n/b) F_n(b),
      log F_n(b) = log C(b, n)/C(N, n) = Σ_{m=b+1}^{N} log(1 − n/m).

    The sum runs over terms that are small where F is not, so that float32 serves up to N = 1e5
    (log-gammas would lose all digits there). Samples that tie have equal chances, which is
    the same as giving each the mean value of its tie: exact, in no way dependent on the order
    that the samples came in.

    Args:
      proxy, value: [N] float32 of independent samples; `value` may be `proxy` itself.
      ns: integers, 1 ≤ n ≤ N.
    Returns: [len(ns)] float32; all NaN where any proxy score is NaN.
    Raises: `ConfigError` if an n is outside 1…N.
    """
    n = _checked(proxy, ns)
    order, group, size = _ties(proxy, jnp.ones(proxy.shape))
    total = jax.ops.segment_sum(value[order], group, proxy.shape[0])
    shared = (total / jnp.maximum(size, 1))[group]
    # Accelerators multiply float32 matrices in fewer bits unless told not to.
    weights = jnp.exp(_log_weights(n, proxy.shape[0]))
    estimate = jnp.matmul(weights, shared, precision="highest")
    return jnp.where(jnp.any(jnp.isnan(proxy)), jnp.nan, estimate)


def kl_bound(ns: Sequence[int]) -> np.ndarray:
    """log n − (n−1)/n, nats: [len(ns)] float64, an UPPER BOUND on KL(best-of-n ‖ reference).

    Equal to it only where no two samples can tie, as for a continuous proxy. With duplicates
    or ties it overstates the KL: it grows for ever, while the KL of a finite set does not
    (Beirami et al. 2024, arXiv 2401.01879). `kl_counted` sees them.
    """
    n = np.asarray(ns, np.float64)
    return np.log(n) - (n - 1) / n


def kl_counted(proxy: Array, ns: Sequence[int]) -> Array:
    """KL(best-of-n ‖ reference) of the counted samples, nats: [len(ns)] float32 ≤ `kl_bound`.

    Exact for the counted distribution, every sample 1/N, drawn with replacement; as an estimate
    for the reference it is consistent, and low by O(n/N) where samples seldom repeat: keep
    n ≪ N. Same arguments and errors as `best_of_n`.
    """
    n = _checked(proxy, ns)
    tilt = _log_tilt(jnp.ones(proxy.shape), proxy, n)
    return jnp.sum(jnp.exp(tilt) * tilt, axis=-1) / proxy.shape[0]


def log_law(log_reference: Array, proxy: Array, ns: Sequence[int]) -> Array:
    """log P_n(x), the law of best-of-n, where every response x is known.

      P_n(x) = π_ref(x) · (F(r)^n − F(r−)^n) / π_ref(score = r),   r = proxy(x),

    with F(r) the reference's probability of a score of at most r and F(r−) that of less.
    Responses of one score tie, and ties are broken as the reference would (Beirami et al. 2024,
    arXiv 2401.01879). `kl_counted` is its KL where the reference is a list of samples.

    Args:
      log_reference: [N] log π_ref(x), finite, of all responses: it sums to 1.
      proxy: [N] float32.
      ns: integers ≥ 1; any number of samples may be drawn.
    Returns: [len(ns), N] float32; all NaN where any proxy score is NaN.
    Raises: `ConfigError` if an n is below 1.
    """
    n = _at_least_one(ns)
    return log_reference[None] + _log_tilt(jnp.exp(log_reference), proxy, n)


def _log_tilt(mass: Array, proxy: Array, n: Array) -> Array:
    """[N] of any total, [N], [K] → [K, N]: log P_n(x)/π_ref(x), without differences near 1.

    With s = P(score = r)/F, the share of a tie in all that is no better, it is
    (n − 1) log F + log((1 − (1 − s)^n)/s), and the last quotient is n where s is 0.
    """
    order, group, size = _ties(proxy, mass)
    below = jnp.cumsum(size)
    above = jnp.concatenate([jnp.cumsum(size[:0:-1])[::-1], jnp.zeros((1,))])
    total = below + above
    tiny = jnp.finfo(jnp.float32).tiny
    log_f = jnp.where(
        below < above,
        jnp.log(jnp.maximum(below / total, tiny)),
        jnp.log1p(-above / total),
    )
    share = jnp.minimum(size / jnp.maximum(below, tiny), 1.0)
    some, n = share > 0, n[:, None]
    quotient = -jnp.expm1(n * jnp.log1p(-share)[None]) / jnp.where(some, share, 1.0)[None]
    tilt = (n - 1) * log_f[None] + jnp.log(jnp.where(some[None], quotient, n))
    back = jnp.zeros_like(group).at[order].set(group)
    return jnp.where(jnp.any(jnp.isnan(proxy)), jnp.nan, tilt[:, back])


def _at_least_one(ns: Sequence[int]) -> Array:
    for n in ns:
        if n < 1:
            raise ConfigError(f"best of n = {n}: n must be 1 or more")
    return jnp.asarray(ns, jnp.float32)


def _checked(proxy: Array, ns: Sequence[int]) -> Array:
    big = proxy.shape[0]
    for n in ns:
        if not 1 <= n <= big:
            raise ConfigError(f"best of n = {n}: {big} samples allow n from 1 to {big}")
    return jnp.asarray(ns, jnp.float32)


def _log_weights(n: Array, big: int) -> Array:
    """[K] → [K, N]: log w_b, −∞ where b < n."""
    m = jnp.arange(1, big + 1, dtype=jnp.float32)[None]
    n = n[:, None]
    step = jnp.where(m > n, jnp.log1p(-n / jnp.maximum(m, n + 1)), -jnp.inf)
    above = jnp.cumsum(step[:, ::-1], axis=-1)[:, ::-1]
    log_f = jnp.concatenate([above[:, 1:], jnp.zeros_like(n)], axis=-1)
    return jnp.where(m >= n, log_f + jnp.log(n) - jnp.log(m), -jnp.inf)


def _ties(proxy: Array, mass: Array) -> tuple[Array, Array, Array]:
    """Ascending order [N], tie of each rank [N] int32, and the mass of each tie [N] float32.

    Ties are numbered from 0 upwards; unused numbers have no mass.
    """
    order = jnp.argsort(proxy)
    ascending = proxy[order]
    new = jnp.concatenate([jnp.zeros((1,), bool), ascending[1:] != ascending[:-1]])
    group = jnp.cumsum(new.astype(jnp.int32))
    return order, group, jax.ops.segment_sum(mass[order], group, proxy.shape[0])
