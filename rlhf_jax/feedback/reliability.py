"""Who is to be believed: annotators' confusion matrices from repeated labels, without truth."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.types import Array


class Votes(NamedTuple):
    """N labels of I items by P people, in any order; repeats are allowed."""

    item: Array
    """[N] int32, 0 … I − 1"""
    who: Array
    """[N] int32, 0 … P − 1"""
    label: Array
    """[N] int32, 0 … K − 1"""
    weight: Array
    """[N] float32 ≥ 0; 0 is no label"""


class Reliability(NamedTuple):
    """What the labels say about items and people."""

    posterior: Array
    """[I, K]: P(true label | all labels)"""
    confusion: Array
    """[P, K, K]: P(person says l | truth is k) at [·, k, l]"""
    prior: Array
    """[K]: P(truth is k)"""
    log_likelihood: Array
    """nats, at these estimates"""


def majority(votes: Votes, items: int, classes: int) -> Array:
    """[I, K]: the share of votes that each label has; even where nobody voted."""
    count = jnp.zeros((items, classes)).at[votes.item, votes.label].add(votes.weight)
    total = jnp.sum(count, axis=1, keepdims=True)
    return jnp.where(total > 0, count / jnp.where(total > 0, total, 1.0), 1.0 / classes)


def _estimate(votes: Votes, posterior: Array, people: int, smoothing: float) -> tuple[Array, Array]:
    """M step: prior [K] and confusion [P, K, K] from the items' posterior."""
    classes = posterior.shape[1]
    believed = posterior[votes.item] * votes.weight[:, None]
    count = jnp.zeros((people, classes, classes)).at[votes.who, :, votes.label].add(believed)
    count = count + smoothing
    total = jnp.sum(count, axis=2, keepdims=True)
    even = 1.0 / classes
    confusion = jnp.where(total > 0, count / jnp.where(total > 0, total, 1.0), even)
    return jnp.mean(posterior, axis=0), confusion


def _log(p: Array) -> Array:
    return jnp.log(jnp.maximum(p, 1e-30))


def _infer(votes: Votes, prior: Array, confusion: Array, items: int) -> tuple[Array, Array]:
    """E step: posterior [I, K] and the log-likelihood of all labels."""
    said = _log(confusion)[votes.who, :, votes.label] * votes.weight[:, None]
    joint = jnp.zeros((items, prior.shape[0])).at[votes.item].add(said)
    joint = joint + jnp.broadcast_to(_log(prior), joint.shape)
    evidence = jax.nn.logsumexp(joint, axis=1, keepdims=True)
    return jnp.exp(joint - evidence), jnp.sum(evidence)


def dawid_skene(
    votes: Votes, items: int, people: int, classes: int, *, steps: int = 100, smoothing: float = 0.0
) -> Reliability:
    """Dawid & Skene 1979 by expectation–maximisation from the majority vote. Jit with sizes static.

    P(labels) = Π_i Σ_k prior_k Π_votes confusion[who, k, label]. E: posterior_ik ∝ prior_k
    Π confusion; M: prior = mean posterior, confusion = expected counts + smoothing, made
    to sum to one over what is said. `smoothing` is a Dirichlet prior's pseudo-count: some of
    it keeps people with few labels off 0 and 1.
    """

    def step(posterior: Array, _: None) -> tuple[Array, None]:
        return _infer(votes, *_estimate(votes, posterior, people, smoothing), items)[0], None

    posterior = jax.lax.scan(step, majority(votes, items, classes), length=steps)[0]
    prior, confusion = _estimate(votes, posterior, people, smoothing)
    posterior, evidence = _infer(votes, prior, confusion, items)
    return Reliability(posterior, confusion, prior, evidence)


def accuracy(found: Reliability) -> Array:
    """[P]: Σ_k prior_k confusion[p, k, k], how often each person is right."""
    return jnp.einsum("k,pkk->p", found.prior, found.confusion)
