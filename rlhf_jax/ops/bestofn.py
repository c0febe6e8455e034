"""Best-of-n: draw n samples of the reference, keep the one that the proxy likes best.

All functions are for the N scored samples of one prompt; `ns` is static, the scores are traced.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import ConfigError
from rlhf_jax.types import Array


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
    order, group, _, size = _ties(proxy)
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

      Σ_j q_j log(q_j / p_j),   q_j = F_j^n − F_{j−1}^n,   p_j = F_j − F_{j−1},

    over the distinct proxy scores j with F_j the share of samples that score no more. Samples
    of one score tie, and ties are broken as the reference would, so the score alone carries
    the KL. Exact for the counted distribution (sampling with replacement); as an estimate for
    the reference it is consistent, and low by O(n/N) where samples seldom repeat: keep
    n ≪ N. Same arguments and errors as `best_of_n`.
    """
    n = _checked(proxy, ns)[:, None]
    big = proxy.shape[0]
    _, _, end, size = _ties(proxy)
    filled = size > 0
    end, size = jnp.maximum(end, 1), jnp.maximum(size, 1)
    log_f = jnp.log1p((end - big) / big)[None]
    # q/p = F_j^n (1 − (F_{j−1}/F_j)^n) / p_j without the difference of two numbers near 1.
    below = jnp.where(size < end, size / end, 1.0)[None]
    log_q = n * log_f + jnp.log(-jnp.expm1(n * jnp.log1p(-below)))
    log_p = jnp.log(size / big)[None]
    terms = jnp.where(filled[None] & jnp.isfinite(log_q), jnp.exp(log_q) * (log_q - log_p), 0.0)
    return jnp.where(jnp.any(jnp.isnan(proxy)), jnp.nan, jnp.sum(terms, axis=-1))


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


def _ties(proxy: Array) -> tuple[Array, Array, Array, Array]:
    """Ascending order [N], tie of each rank [N], and per tie its last rank and size [N], int32.

    Ties are numbered from 0 upwards; unused numbers have size 0.
    """
    order = jnp.argsort(proxy)
    ascending = proxy[order]
    new = jnp.concatenate([jnp.zeros((1,), bool), ascending[1:] != ascending[:-1]])
    group = jnp.cumsum(new.astype(jnp.int32))
    size = jax.ops.segment_sum(jnp.ones_like(group), group, proxy.shape[0])
    return order, group, jnp.cumsum(size), size
