"""A study as the ordinary runs it is made of: arm × point × block of seeds.

Points of a `Sweep` axis are one population; other points are runs of their own. Nothing here
depends on the machine, so the same study always finds its own directories again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from rlhf_jax import config as cfg
from rlhf_jax import rundir
from rlhf_jax.config import Config, ConfigError
from rlhf_jax.own import NOTHING, Own
from rlhf_jax.study import Study, field_at, replaced
from rlhf_jax.validate import validate


class Chunk(NamedTuple):
    """One run of a study."""

    arm: str
    points: tuple[int, ...]
    """Indices of the axis's points it covers; (0,) without an axis."""
    config: Config
    base: Config | None
    """The run whose base model it starts from, if it is shared."""
    own: Own = NOTHING
    """What is passed in in the place of what the configuration names."""

    @property
    def directory(self) -> Path:
        return rundir.place(self.config)

    @property
    def members(self) -> int:
        return len(self.points) * self.config.seeds

    @property
    def seeds(self) -> range:
        return range(self.config.first_seed, self.config.first_seed + self.config.seeds)


def done(config: Config, own: Own = NOTHING) -> bool:
    """Did this very run end?

    Raises: `ConfigError` where metadata.json cannot be read, or the directory holds a finished run
      with other settings, or to which other things were passed in, which a study that was edited
      since would show under its new ones.
    """
    return _said(config, own, "finished")


def over(config: Config, own: Own = NOTHING) -> bool:
    """Is nothing left to be made: is this very run `done`, or have all of its members diverged?"""
    return _said(config, own, "finished", "diverged")


def _said(config: Config, own: Own, *ends: str) -> bool:
    said = rundir.read_metadata(rundir.place(config))
    if not any(said.get(end) for end in ends):
        return False
    rundir.refuse_other(config)
    rundir.refuse_passed(rundir.place(config), said, own.said(rundir.settings(config)))
    return True


def chunks(study: Study, root: Path) -> tuple[Chunk, ...]:
    """Every run of the study, in the order in which they are made.

    Raises: `ConfigError` where the axis names no field, or a run's settings cannot be run.
    """
    out = []
    for arm in study.arms:
        for points in _populations(study, arm):
            for first, count in _blocks(study.seeds, study.population, len(points)):
                out.append(_chunk(study, root, arm, points, study.first_seed + first, count))
    return tuple(out)


def alone(study: Study, root: Path) -> Chunk:
    """The first arm's first point with one seed: what a seed costs by itself."""
    chunk = _chunk(study, root, next(iter(study.arms)), (0,), study.first_seed, 1)
    run = dataclasses.replace(chunk.config.run, directory=str(root / study.name / "alone"))
    return chunk._replace(config=dataclasses.replace(chunk.config, run=run))


def is_population(study: Study, arm: str) -> bool:
    """Are all points of the axis members of one run?"""
    axis = study.axis
    if axis is None:
        return False
    fields = [field_at(study.arms[arm], path) for path in axis.paths]
    whole = cfg.is_named(fields[0]) and axis.paths[0].endswith(f".{fields[0].name}")
    return len(fields) == 1 and cfg.is_data(fields[0]) and not whole


def _populations(study: Study, arm: str) -> tuple[tuple[int, ...], ...]:
    if study.axis is None:
        return ((0,),)
    every = tuple(range(len(study.axis.points)))
    return (every,) if is_population(study, arm) else tuple((i,) for i in every)


def _blocks(seeds: int, population: int, points: int) -> list[tuple[int, int]]:
    """(first, seeds) from 0: as few blocks as hold `population` members, as equal as can be."""
    blocks = math.ceil(seeds / max(1, population // points))
    size = math.ceil(seeds / blocks)
    return [(first, min(size, seeds - first)) for first in range(0, seeds, size)]


def _chunk(
    study: Study, root: Path, arm: str, points: tuple[int, ...], first: int, count: int
) -> Chunk:
    config, folder = study.arms[arm], root / study.name / arm
    if study.axis is not None:
        for k, path in enumerate(study.axis.paths):
            value = [study.axis.values(i)[k] for i in points]
            if is_population(study, arm):
                config = replaced(config, path, tuple(float(v) for v in value))
            else:
                config = replaced(config, path, value[0])
        if not is_population(study, arm):
            folder /= _folder(study.axis.titles[points[0]])
    own = study.own.get(arm, NOTHING)
    base = _base(config, root) if own.world is None else None
    if base is not None:
        load = dataclasses.replace(config.pretrain, load=str(rundir.place(base)))
        config = dataclasses.replace(config, pretrain=load)
    config = dataclasses.replace(
        config,
        name=f"seeds-{first}-{first + count - 1}",
        first_seed=first,
        seeds=count,
        run=dataclasses.replace(config.run, directory=str(folder)),
    )
    try:
        validate(config)
    except ConfigError as problem:
        raise ConfigError(f"{study.name}, arm {arm}: {problem}") from None
    return Chunk(arm, points, config, base, own)


def _folder(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.+=-]+", "-", title) or "point"


def _base(config: Config, root: Path) -> Config | None:
    """A run that pretrains the base model which `config` would, and is shared by all that would.

    Everything that the base model does not depend on is as it is by default.
    """
    p = config.pretrain
    if not p.shared or p.load or p.epochs == 0:
        return None
    world = {
        f.name: getattr(config.world, f.name)
        for f in dataclasses.fields(config.world)
        if not cfg.is_data(f) and f.name != "gold"
    }
    made = Config(
        seeds=1,
        world=cfg.World(**world),
        model=config.model,
        pretrain=p,
        run=dataclasses.replace(config.run, directory=str(root / "bases")),
    )
    return dataclasses.replace(made, name=_print(made))


def _print(config: Config) -> str:
    """A name that is the same for equal base models, whatever else a configuration says."""
    parts = ("world.", "model.", "pretrain.")
    settings: dict[str, Any] = {k: v for k, v in cfg.leaves(config).items() if k.startswith(parts)}
    said = json.dumps(settings, sort_keys=True).encode()
    return f"{config.world.name}-{hashlib.sha256(said).hexdigest()[:10]}"
