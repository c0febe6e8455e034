"""Feedback of several types fits one reward: the sum of what each likelihood says."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp

from rlhf_jax.humans.human import Value
from rlhf_jax.types import Array, Metrics


def joint(
    terms: Mapping[str, tuple[Array, Array]], emphasis: Mapping[str, Value] | None = None
) -> tuple[Array, Metrics]:
    """L = Σ_k e_k Σ_i w_ki ℓ_ki / Σ_k Σ_i w_ki, nats an answer.

    Answers of different types are independent given the reward, so log-likelihoods add (Jeon,
    Milli & Dragan 2020, arXiv 2002.04833): a type counts by how much its answers say,
    with its evaluators' own β inside its ℓ, and by how many there are, with no constant set by
    hand. `emphasis` e_k multiplies a type all the same; types it does not name have e_k = 1.

    Args: type → (ℓ [N_k] nats, w [N_k] ≥ 0). NaN or ∞ where w = 0 is ignored.
    Returns: (L, {"loss/<type>": its mean nats an answer}).
    """
    emphasis = emphasis or {}
    total, answers, metrics = jnp.zeros(()), jnp.zeros(()), {}
    for kind, (nll, weight) in terms.items():
        told = jnp.sum(jnp.where(weight > 0, weight * nll, 0.0))
        count = jnp.sum(weight)
        total = total + emphasis.get(kind, 1.0) * told
        answers = answers + count
        metrics[f"loss/{kind}"] = told / jnp.maximum(count, 1e-12)
    return total / jnp.maximum(answers, 1e-12), metrics
