"""Makes the runs of a study, one after the other; what is finished is not made again.

A killed study goes on inside the run that was under way, as every run does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax

from rlhf_jax import loop, pipeline
from rlhf_jax.config import Config
from rlhf_jax.own import NOTHING
from rlhf_jax.pipeline import SHARED, Made, Pipeline, same_after_fit, same_made, same_program
from rlhf_jax.rundir import place
from rlhf_jax.studies import costs
from rlhf_jax.studies.answers import answer, write
from rlhf_jax.studies.plan import Chunk, chunks, done, over
from rlhf_jax.study import Study

PROGRAMS = 4
"""Runs whose compiled programs are kept for those to come; and as many results of a stage."""
_COMPILED = "/jax/core/compile/backend_compile_duration"
_LOADED = "/jax/compilation_cache/cache_hits"


class Runner:
    """Makes runs. Those that differ in nothing but floats share their compiled programs, those
    that differ in feedback alone share the programs of all that follows the fit of a reward.
    What a stage of the first round made (answers, fits, samples of the reference) is shared by
    those in which it would make the same.
    """

    def __init__(self, root: Path, command: str) -> None:
        self.root, self.command = root, command
        self.session = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._built: list[Pipeline] = []
        self._made: dict[str, list[Made]] = {stage: [] for stage in SHARED}

    def run(self, chunks: Sequence[Chunk], folder: Path) -> None:
        """Makes all runs that are not over, and notes in `folder` what each took.

        Raises: as `loop.run`.
        """
        for i, chunk in enumerate(chunks):
            if chunk.base is not None and not done(chunk.base):
                _say(f"base model {chunk.base.name}")
                with _measured(folder, self.root, place(chunk.base), 1, self.session):
                    pretrain(chunk.base, self.command)
            if not over(chunk.config, chunk.own):
                _say(f"run {i + 1} of {len(chunks)}: {_what(chunk, self.root)}")
                later = [c.config for c in chunks[i + 1 :] if c.own.same(NOTHING)]
                with _measured(folder, self.root, chunk.directory, chunk.members, self.session):
                    try:
                        self._one(chunk, later)
                    except loop.Diverged as problem:  # a seed that fails is data: others go on
                        _say(f"warning: {problem}")

    def _one(self, chunk: Chunk, later: Sequence[Config]) -> None:
        config = chunk.config
        mine = [p for p in self._built if chunk.own.same(p.parts.own)]
        same = [p for p in mine if same_program(p.parts.config, config)]
        near = [p for p in mine if same_after_fit(p.parts.config, config)]
        line = loop.build(config, next(iter((*same, *near)), None), chunk.own)
        # What is passed in is nobody else's: only what is named is known to be the same.
        shared = self._sharing(line, later) if chunk.own.same(NOTHING) else line
        loop.run(config, self.command, shared)
        self._built = [line, *(p for p in self._built if all(p is not q for q in same))][:PROGRAMS]
        for stage, made in self._made.items():
            wanted = [m for m in made if any(same_made(stage, m.config, c) for c in later)]
            self._made[stage] = wanted[:PROGRAMS]

    def _sharing(self, line: Pipeline, later: Sequence[Config]) -> Pipeline:
        """The pipeline with what earlier runs made, or handing its own to later ones."""
        config = line.parts.config
        for stage, known in self._made.items():
            made = next((m for m in known if same_made(stage, m.config, config)), None)
            if made is not None:
                _say(f"{stage}: as in {place(made.config).relative_to(self.root)}")
                line = pipeline.given(line, made)
            elif any(same_made(stage, config, c) for c in later):
                line = pipeline.giving(line, stage, partial(known.insert, 0))
        return line


def carry_out(study: Study, root: Path, command: str = "from Python") -> Path:
    """Makes a study's runs, or those that are missing, and writes its answer; returns the page.

    Raises: as `loop.run`.
    """
    Runner(root, command).run(chunks(study, root), root / study.name)
    return write(answer(study, root), root, command)


def pretrain(config: Config, command: str) -> Path:
    """Step 0 of a run and nothing else: its directory serves as `pretrain.load`."""
    line = loop.build(config)
    first = tuple(c for c in line.plan if c.stage in ("pretrain", "base"))
    return loop.run(config, command, line._replace(plan=first))


@contextmanager
def _measured(
    folder: Path, root: Path, directory: Path, members: int, session: str
) -> Iterator[None]:
    """Notes what the block took, if it ends well."""
    seen: dict[str, float] = {"compiling": 0.0, "long": 0, "loaded": 0}

    def duration(event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILED:
            seen["compiling"] += duration_secs
            seen["long"] += duration_secs >= costs.LONG

    def happened(event: str, **_: Any) -> None:
        seen["loaded"] += event == _LOADED

    whole, begun = not (directory / "metadata.json").exists(), time.monotonic()
    jax.monitoring.register_event_duration_secs_listener(duration)
    jax.monitoring.register_event_listener(happened)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(duration)
        jax.monitoring.unregister_event_listener(happened)
    costs.note(
        folder,
        costs.Cost(
            run=str(directory.relative_to(root)),
            members=members,
            seconds=round(time.monotonic() - begun, 2),
            compile_seconds=round(seen["compiling"], 2),
            compiled=int(seen["long"]),
            loaded=int(seen["loaded"]),
            whole=whole,
            session=session,
        ),
    )


def _what(chunk: Chunk, root: Path) -> str:
    points = f"{len(chunk.points)} points × " if len(chunk.points) > 1 else ""
    return f"{chunk.directory.relative_to(root)} ({points}{chunk.config.seeds} seeds)"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
