"""Comparisons of two samples: which of them does a person prefer?"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.config import Human
from rlhf_jax.humans import prefer
from rlhf_jax.types import Array, Episode, Key


class Comparison(NamedTuple):
    """N answers."""

    a: Episode
    b: Episode
    label: Array
    """[N] float32: 1 a preferred, 0 b preferred, ½ a tie"""
    weight: Array
    """[N] float32 ≥ 0: how much an answer counts; 0 was never asked"""


def elicit(human: Human, value_a: Array, value_b: Array, key: Key) -> Array:
    """[N] perceived values → [N] labels, answers independent given the values."""
    return jax.vmap(prefer, in_axes=(None, 0, 0, 0))(
        human, value_a, value_b, jax.random.split(key, value_a.shape[0])
    )


def bradley_terry(reward_a: Array, reward_b: Array, label: Array) -> Array:
    """Cross-entropy −y log σ(r_a − r_b) − (1 − y) log σ(r_b − r_a), nats; a tie is y = ½.

    Bradley & Terry 1952; Christiano et al. 2017 (arXiv 1706.03741), eq. 1. [N] → [N].
    """
    d = reward_a - reward_b
    return -label * jax.nn.log_sigmoid(d) - (1.0 - label) * jax.nn.log_sigmoid(-d)


def bayesian_personalised_ranking(reward_a: Array, reward_b: Array, label: Array) -> Array:
    """−log σ(r_winner − r_loser), nats; a tie says nothing and costs nothing.

    Rendle et al. 2009 (arXiv 1205.2618): only strict preferences enter the likelihood.
    """
    sign = jnp.sign(label - 0.5)
    return jnp.where(sign == 0, 0.0, -jax.nn.log_sigmoid(sign * (reward_a - reward_b)))


LOSSES = {
    "bradley_terry": bradley_terry,
    "bayesian_personalised_ranking": bayesian_personalised_ranking,
}
