"""Worlds: prompts, dynamics and the gold utility."""

from __future__ import annotations

from rlhf_jax import config
from rlhf_jax.types import World
from rlhf_jax.worlds import probe, words


def build(settings: config.World) -> World:
    """The world that `settings.name` says."""
    return {"words": words.build, "probe": probe.build}[settings.name](settings)
