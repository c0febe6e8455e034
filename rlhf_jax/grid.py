"""Configuration → population: the grid of all swept floats × seeds as one pytree.

`types` makes the configuration's sections pytrees; here their `Sweep` leaves become columns.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax import config as cfg
from rlhf_jax.config import Config
from rlhf_jax.types import Array, Key


class Member(NamedTuple):
    """One run of the population."""

    seed: int
    point: dict[str, float]
    """The swept settings and their values here."""

    def __str__(self) -> str:
        where = "".join(f", {k} = {v:g}" for k, v in self.point.items())
        return f"seed {self.seed}{where}"


def members(config: Config) -> list[Member]:
    """Grid point by grid point, all seeds of each: the order of the population axis."""
    axes = cfg.swept(config)
    points = [dict(zip(axes, v, strict=True)) for v in itertools.product(*axes.values())]
    seeds = range(config.first_seed, config.first_seed + config.seeds)
    return [Member(seed, point) for point in points for seed in seeds]


def expand(config: Config) -> Config:
    """`config` with every `Sweep` leaf an array float32 [members]."""
    everyone = members(config)

    def column(path: str, value: Any) -> Array:
        return jnp.asarray([m.point.get(path, value) for m in everyone], jnp.float32)

    expanded: Config = cfg.mapped(column, config)
    return expanded


def keys(config: Config) -> Array:
    """[members] typed keys. The same seed has the same key at every grid point (paired)."""
    return jnp.stack([seed_key(m.seed) for m in members(config)])


def seed_key(seed: int) -> Key:
    return jax.random.key(seed)
