"""Batches of rows by grain: shuffled by seed, resumed exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grain

from rlhf_jax.config import ConfigError
from rlhf_jax.data.rows import Row


def batches(
    rows: Sequence[Row],
    encode: Callable[[Row], Any],
    *,
    batch: int,
    seed: int,
    epochs: int | None = None,
) -> grain.IterDataset:
    """Rows → batches of what `encode` makes of them, stacked leaf by leaf.

    Every epoch is a new permutation, a function of (seed, epoch) alone. Batches are formed
    across epochs, and a last incomplete batch is left out, so that all have one shape. An
    iterator's `get_state()` is a small JSON-able dictionary; `set_state` on a fresh iterator
    over the same rows goes on with exactly the batches that would have come.

    Args:
      rows: anything with a length and random access: a list, or a `builders.Source`.
      encode: row → array, or a tree of arrays of fixed shape.
      epochs: passes over the rows; None goes on for ever.
    """
    total = len(rows) * (1 if epochs is None else epochs)
    if not rows or (epochs is not None and total < batch):
        raise ConfigError(f"batch = {batch}: there are only {total} rows to draw it from")
    data = grain.MapDataset.source(rows).seed(seed).shuffle().repeat(epochs)
    # grain's own default reads 500 batches ahead, which for small data costs more than it hides.
    ahead = grain.ReadOptions(num_threads=4, prefetch_buffer_size=16)
    return data.map(encode).batch(batch, drop_remainder=True).to_iter_dataset(ahead)
