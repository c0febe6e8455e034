"""Worlds: prompts, dynamics and the gold utility."""

from __future__ import annotations

from rlhf_jax import config
from rlhf_jax.config import ConfigError
from rlhf_jax.types import World
from rlhf_jax.worlds import probe, words


def build(settings: config.World) -> World:
    """The world that `settings.name` says.

    Raises `ConfigError` for a world of texts: it is made with its answers, by `worlds.texts`.
    """
    if settings.name == "texts":
        raise ConfigError("world.name = texts needs answers: a file, collect.source, or rows")
    return {"words": words.build, "probe": probe.build}[settings.name](settings)
