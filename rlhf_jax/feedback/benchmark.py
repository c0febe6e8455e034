"""One vmapped, jitted call in which a population answers comparisons, for `rlhf-jax bench`."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from rlhf_jax.feedback.comparison import elicit
from rlhf_jax.humans.human import Human
from rlhf_jax.humans.population import varied
from rlhf_jax.types import Array


def crowd(people: int = 64, answers: int = 1_000_000) -> Callable[[], Array]:
    """→ a compiled call with labels [people, answers // people] as result; time
    `jax.block_until_ready(call())`. Everybody has their own β, λ, φ, τ and position bias.
    """
    each = answers // people
    keys = jax.random.split(jax.random.key(0), 4)
    human = Human(rationality=2.0, lapse=0.05, flip=0.02, tie=0.1)
    spread = {"rationality": 0.5, "lapse": 0.5, "flip": 0.5, "tie": 0.5, "position_bias": 0.1}
    crowd = varied(human, spread, people, keys[0])
    value_a, value_b = jax.random.normal(keys[1], (2, people, each), jnp.float32)
    own = jax.random.split(keys[2], people)
    ask = jax.jit(jax.vmap(elicit)).lower(crowd, value_a, value_b, own).compile()
    return lambda: ask(crowd, value_a, value_b, own)
