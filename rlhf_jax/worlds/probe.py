"""An enumerable language: every response is known, so is the KL-regularised optimum.

|V|^T ≤ 5000 sequences of fixed length over a small alphabet. Gold is a sum of terms for
single symbols and for neighbours, standardised over all sequences: learnable, not flat.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import ConfigError
from rlhf_jax.config import World as Settings
from rlhf_jax.types import Array, Key, Language, Prompts, Sample, World


def utility(rng: np.random.Generator, sequences: np.ndarray, symbols: int) -> np.ndarray:
    """[N, T] → [N] float32: random terms for symbols and neighbours, mean 0, deviation 1."""
    t = sequences.shape[1]
    single, pair = rng.normal(size=(t, symbols)), rng.normal(size=(symbols, symbols))
    table = single[np.arange(t), sequences].sum(1)
    table += pair[sequences[:, :-1], sequences[:, 1:]].sum(1)
    table = (table - table.mean()) / max(table.std(), 1e-9)
    return table.astype(np.float32)


def promises(table: np.ndarray, symbols: int, length: int) -> np.ndarray:
    """[N] values of all sequences, in order → [N, T] float32: the mean of those that begin with
    the symbols 0…t of each.
    """
    exact = table.astype(np.float64)
    # Sequences that begin alike stand next to each other.
    alike = [exact.reshape(symbols ** (t + 1), -1) for t in range(length)]
    means = [np.repeat(group.mean(1), group.shape[1]) for group in alike]
    return np.stack(means, axis=1).astype(np.float32)


def build(settings: Settings) -> World:
    """Raises `ConfigError` where nothing is held out or shown, and for what only words have."""
    if settings.gold == "model" or settings.trigger:
        raise ConfigError("world.gold = model and world.trigger need world.name = words")
    v, t = settings.symbols, settings.length
    sequences = np.asarray(list(itertools.product(range(v), repeat=t)), np.int32)
    rng = np.random.default_rng(0)
    gold_table = utility(rng, sequences, v)
    tables = [gold_table, *(utility(np.random.default_rng(i), sequences, v) for i in range(1, 5))]
    # One table for each: utility, second, agreement, form, difficulty.
    promised = np.stack([promises(table, v, t) for table in tables])
    powers = v ** np.arange(t - 1, -1, -1)

    def row(tokens: Array, mask: Array) -> Array:
        return jnp.sum(tokens * powers).astype(jnp.int32)

    def values(settings: Any, tokens: Array, mask: Array) -> Array:
        return jnp.asarray(np.stack(tables[:2]))[:, row(tokens, mask)]

    def show(
        settings: Any, prompt: Prompts, tokens: Array, mask: Array, impression: Array
    ) -> Sample:
        begun = jnp.where(mask, jnp.asarray(promised)[:, row(tokens, mask)], 0.0)
        features = jnp.stack([jnp.broadcast_to(tokens[0] == 0, mask.shape), tokens == 0], axis=-1)
        return Sample(
            begun[:2].T,
            mask,
            begun[1],
            jnp.tanh(begun[2]),
            features.astype(jnp.float32),
            begun[3],
            begun[4],
        )

    def prompt(settings: Any, key: Key) -> tuple[Array, Array]:
        return jnp.full((1,), v, jnp.int32), jnp.ones((1,), bool)

    actions = np.arange(v + 2) < v
    symbols = (*(chr(ord("a") + i % 26) + str(i // 26 or "") for i in range(v)), "^", "·")
    shown = rng.random(len(sequences)) >= settings.held_out
    if shown.all() or not shown.any():
        raise ConfigError(
            f"world.held_out = {settings.held_out}: of {len(sequences)} sequences none is "
            + ("held out" if shown.all() else "shown")
        )
    return World(
        language=Language(symbols, v + 1, v, None, actions, t),
        corpus=(jnp.asarray(sequences), jnp.ones(sequences.shape, bool)),
        shown=jnp.asarray(shown),
        dimensions=("utility", "second"),
        features=("first", "last"),
        values=values,
        impressions=1,
        show=show,
        prompt=prompt,
        trigger=None,
        row=row,
        complete=True,
        facts={
            "ratings": "synthetic: a fixed random utility over all sequences",
            "sequences": len(sequences),
            "gold": "the utility itself",
            "dimensions": "utility; second: another such utility, which also stands for length",
            "features": "first, last: the first or the last symbol is a",
            "agreement": "assumed: the hyperbolic tangent of another such utility",
            "form": "assumed: another such utility",
            "difficulty": "assumed: another such utility",
        },
    )


def optimum(log_reference: Array, reward: Array, weight: Array) -> Array:
    """log π*(x) = log π_ref(x) + r(x)/β − log Z over all x: [N] → [N].

    The maximiser of E_π[r] − β KL(π‖π_ref); Korbak et al. 2022 (arXiv 2205.11275).
    """
    return jax.nn.log_softmax(log_reference + reward / weight)
