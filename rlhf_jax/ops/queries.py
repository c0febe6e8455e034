"""What to ask next: scores of candidate questions by what is believed about their answers.

A belief is the log-probability [k, N, C] that each of k models (members of an ensemble, draws
from a posterior) gives to each of the C answers of each of N questions. Comparisons
have C = 2 (`comparison`), or 3 with ties (`feedback.comparison.log_probabilities`); any other
type of feedback brings its own. Scores are [N]: the higher, the better to ask.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import ConfigError
from rlhf_jax.types import Array, Key


def comparison(reward_a: Array, reward_b: Array) -> Array:
    """log (σ(d), σ(−d)), d = r_a − r_b: what a Bradley–Terry model believes. […] → […, 2]."""
    d = reward_a - reward_b
    return jnp.stack([jax.nn.log_sigmoid(d), jax.nn.log_sigmoid(-d)], axis=-1)


def _entropy(log_p: Array) -> Array:
    """−Σ p log p over the last axis, nats; p = 0 contributes 0."""
    return -jnp.sum(jnp.where(jnp.isfinite(log_p), jnp.exp(log_p) * log_p, 0.0), axis=-1)


def _mixture(log_p: Array) -> Array:
    return jax.nn.logsumexp(log_p, axis=0) - np.log(log_p.shape[0])


def uniform(log_p: Array, key: Key) -> Array:
    """Every question alike: independent scores on [0, 1), so that `choose` takes any n. [N]."""
    return jax.random.uniform(key, (log_p.shape[1],))


def disagreement(log_p: Array) -> Array:
    """Σ_c Var_i p_i(c) over the members i, with 1/k. [k, N, C] → [N].

    The variance of predictions by which Christiano et al. 2017 (arXiv 1706.03741, §2.2.4)
    choose comparisons, there of one answer, half of this for C = 2.
    """
    return jnp.sum(jnp.var(jnp.exp(log_p), axis=0), axis=-1)


def entropy(log_p: Array) -> Array:
    """H(p̄), p̄ = (1/k) Σ_i p_i, nats: how open the answer is, for whatever reason. → [N]."""
    return _entropy(_mixture(log_p))


def information(log_p: Array) -> Array:
    """I(answer; model) = H(p̄) − (1/k) Σ_i H(p_i) in [0, log min(k, C)], nats. → [N].

    The expected information gain (BALD, Houlsby et al. 2011, arXiv 1112.5745; for comparisons
    Bıyık et al. 2019, arXiv 1910.04365). A question that every member calls a toss-up has
    all the entropy and none of this.
    """
    return jnp.maximum(entropy(log_p) - jnp.mean(_entropy(log_p), axis=0), 0.0)


NODES = np.linspace(-6.0, 6.0, 65)
"""Deviations from the mean at which a normal density is summed."""


def gaussian_information(mean: Array, variance: Array) -> Array:
    """`information` of a comparison whose reward difference is d ~ N(mean, variance). [N], nats.

    H(E σ(d)) − E H(σ(d)), in place of k members: for `ops.laplace.difference`. By the
    trapezoid rule, whose error falls exponentially for functions as smooth as σ: below
    1e-4 nats for deviations up to 10.
    """
    nodes = jnp.asarray(NODES, jnp.float32)[:, None]
    d = mean[None] + jnp.sqrt(variance)[None] * nodes
    log_p = comparison(d, jnp.zeros_like(d))
    share = jax.nn.softmax(-0.5 * jnp.square(nodes[:, 0]))
    mixed = jnp.log(jnp.tensordot(share, jnp.exp(log_p), axes=1, precision="highest"))
    each = jnp.tensordot(share, _entropy(log_p), axes=1, precision="highest")
    return jnp.maximum(_entropy(mixed) - each, 0.0)


def choose(score: Array, n: int, open_: Array | None = None) -> tuple[Array, Array]:
    """The n questions of highest score: rows [n] int32, the best first, and which of them count.

    `open_` [N] bool says which may be asked; where fewer than n may, the last rows are closed
    ones and count False, so give them weight 0. Scores that are NaN come last.

    Raises: `ConfigError` if n exceeds the number of candidates.
    """
    if not 1 <= n <= score.shape[0]:
        raise ConfigError(f"queries: cannot choose {n} of {score.shape[0]} candidates")
    may = ~jnp.isnan(score) if open_ is None else open_ & ~jnp.isnan(score)
    rows = jnp.argsort(jnp.where(may, score, -jnp.inf), descending=True, stable=True)[:n]
    return rows.astype(jnp.int32), may[rows]
