"""A world of shapes alone, to measure speed in: random prompts, responses of full length."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.types import Array, Key, Language


def language(vocabulary: int, response: int) -> Language:
    """Symbols are numbers; the last pads, no EOS."""
    symbols = tuple(str(i) for i in range(vocabulary))
    actions = np.arange(vocabulary) < vocabulary - 1
    return Language(symbols, vocabulary - 1, 0, None, actions, response)


def prompt(settings: Any, key: Key, vocabulary: int, length: int) -> tuple[Array, Array]:
    """`length` random tokens, no padding."""
    return jax.random.randint(key, (length,), 0, vocabulary - 1), jnp.ones((length,), bool)
