"""The only place with steps, clocks, files and prints: makes the calls of a plan, one by one."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rlhf_jax import grid, logs, metrics, pipeline, rundir, signals
from rlhf_jax.checkpoint import Checkpoints
from rlhf_jax.config import Config, ConfigError
from rlhf_jax.logs import Left
from rlhf_jax.own import NOTHING, Own
from rlhf_jax.progress import Progress
from rlhf_jax.signals import Interrupted
from rlhf_jax.types import Params
from rlhf_jax.validate import validate


class Diverged(RuntimeError):
    """No member has finite numbers left. The message says where, `directory` holds the rest."""

    def __init__(self, message: str, directory: Path) -> None:
        super().__init__(message)
        self.directory = directory


def prepare(config: Config) -> Sequence[jax.Device]:
    """Sets JAX up as `config.run` says; after the first computation its devices stay as they are.

    Raises:
      ConfigError: more devices are asked for than there are.
    """
    with suppress(RuntimeError):  # raised where JAX has been used before, as in a notebook
        jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    cache = config.run.cache or os.environ.get("JAX_COMPILATION_CACHE_DIR") or _user_cache()
    if cache != "none":
        jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    devices = jax.devices()
    if config.run.devices > len(devices):
        raise ConfigError(
            f"run.devices = {config.run.devices}: this machine has {len(devices)} "
            f"({devices[0].platform})"
        )
    return devices[: config.run.devices or len(devices)]


def _user_cache() -> str:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(root) / "rlhf_jax" / "xla")


_SPOKEN = (
    *("world.name", "world.length", "world.trigger", "world.symbols"),
    *("world.vocabulary", "world.tokenizer", "world.prompt_length", "world.held_out"),
    *("collect.source", "collect.arguments"),
)
"""Settings that decide what a base model's language is."""


def _load_base(config: Config, own: Own) -> Params | None:
    """θ_ref of another run, if `pretrain.load` names one."""
    if not config.pretrain.load:
        return None
    where = Path(config.pretrain.load)
    if not (where / "config.json").is_file():
        raise ConfigError(f"pretrain.load = {where}: no run directory (it has no config.json)")
    theirs, mine = rundir.read_settings(where), rundir.settings(config)
    needed = [k for k in mine if k.startswith("model.") or k in _SPOKEN]
    for k in (*needed, "pretrain.shared"):
        if theirs.get(k) != mine[k]:
            raise ConfigError(
                f"pretrain.load = {where}: {k} is {theirs.get(k)} there, {mine[k]} here"
            )
    base = None
    if (where / "checkpoints").is_dir():
        with Checkpoints(where / "checkpoints", keep=None) as checkpoints:
            base = checkpoints.part("reference", pipeline.reference_shapes(config, own))
    if base is None:
        raise ConfigError(f"pretrain.load = {where}: no checkpoint there")
    return base


def _base_sentence(config: Config) -> str:
    shared = "shared by all seeds" if config.pretrain.shared else "one for each seed"
    if config.pretrain.load:
        return f"the base model of {config.pretrain.load}, {shared}"
    if config.pretrain.epochs == 0:
        return f"random weights, not pretrained, {shared}"
    return (
        f"pretrained for {config.pretrain.epochs} epochs on the corpus of world "
        f"{config.world.name}, {shared}"
    )


class _Run:
    """One run under way: the plan, the state, and the files that follow it."""

    def __init__(
        self,
        config: Config,
        directory: Path,
        line: pipeline.Pipeline,
        command: str,
    ) -> None:
        self.config, self.directory, self.line, self.command = config, directory, line, command
        devices = [f"{d.platform}:{d.device_kind}" for d in line.mesh.devices.flat]
        self.members = grid.members(config)
        self.seconds, self.finished, self.diverged = 0.0, False, False
        self.logs: dict[str, Any] = {}
        self.under_way = 0
        """steps of the last checkpoint, which may still be on its way to the disk"""
        self.before = rundir.read_metadata(directory)
        rundir.refuse_other_data(directory, self.before, line.world.facts)
        self.start = rundir.begin(command, devices)
        self.own = line.parts.own.said(rundir.settings(config))
        rundir.refuse_passed(directory, self.before, self.own)

    def describe(self) -> None:
        rundir.describe(
            self.directory,
            self.config,
            self.before,
            self.start,
            data=self.line.world.facts,
            own=self.own,
            members=[m._asdict() for m in self.members],
            base=_base_sentence(self.config),
            seconds=self.seconds,
            logs=self.logs,
            finished=self.finished,
            diverged=self.diverged,
        )

    def go(self) -> None:
        with Checkpoints(self.directory / "checkpoints", self.config.run.keep) as checkpoints:
            state, done, sizes = self.found(checkpoints)
            with self.listed(checkpoints):
                files = metrics.Files(self.directory, self.members, sizes)
                try:
                    self.calls(state, done, checkpoints, files)
                    self.logs = files.flush()
                finally:
                    files.close()

    @contextmanager
    def listed(self, checkpoints: Checkpoints) -> Iterator[None]:
        """This start stands in metadata.json, from its beginning to its end, whatever ends it."""
        rundir.write_settings(self.directory, self.config)
        self.describe()
        try:
            yield
            self.finished = True
        finally:
            checkpoints.wait()
            self.start |= {"ended": rundir.now(), "saved": self.under_way}
            self.describe()

    def found(self, checkpoints: Checkpoints) -> tuple[pipeline.State, int, dict[str, Any]]:
        """The state to go on from, calls done, and how far the logs count."""

        def fits(position: dict[str, Any]) -> None:
            pipeline.place(self.line, position["steps"])
            logs.check(self.directory, position)

        found = checkpoints.latest(pipeline.shapes(self.line), fits)
        if found is None:
            rundir.refuse_lost(self.directory, self.before)
            return self.line.begin(), 0, {"metrics": 0, "samples": 0}
        state, position = found
        self.line, done = pipeline.going_on(self.line, position["steps"])
        self.seconds, self.under_way = float(position["seconds"]), position["steps"]
        self.start["saved"], self.finished = self.under_way, done == len(self.line.plan)
        say = "finished already" if self.finished else "going on"
        print(f"{self.directory}: {say}, {position['steps']} steps done", file=sys.stderr)
        if not self.before:
            print(
                f"{self.directory}: no metadata.json; earlier starts are unknown", file=sys.stderr
            )
        return state, done, position

    def calls(
        self, state: pipeline.State, done: int, checkpoints: Checkpoints, files: metrics.Files
    ) -> None:
        plan = self.line.plan
        saved = time.monotonic()
        _stop_if_asked(f"{done} of {len(plan)} calls done")
        with Progress([(c.stage, c.round, c.steps) for c in plan], done) as progress:
            for i in range(done, len(plan)):
                begun = time.monotonic()
                progress.starts(i)
                state, found = plan[i].run(state)
                rows = self.record(plan[i], jax.device_get(found), files)
                took = time.monotonic() - begun
                self.seconds += took
                self.start["seconds"] = round(self.start["seconds"] + took, 1)
                self.start["steps"] += pipeline.steps_of(plan[i : i + 1])
                progress.ends(i, took, rows[-1])
                if not plan[i].whole:
                    continue
                last, stop = i + 1 == len(plan), bool(signals.asked())
                late = time.monotonic() - saved >= self.config.run.checkpoint_seconds
                if last or stop or late:
                    steps = pipeline.steps_of(plan[: i + 1])
                    position = {"steps": steps, "seconds": self.seconds, **files.flush()}
                    checkpoints.save(state, position)
                    self.start["saved"], self.under_way = self.under_way, steps
                    self.describe()
                    saved = time.monotonic()
                if stop and not last:
                    raise Interrupted(
                        f"stopped after {i + 1} of {len(plan)} calls; everything is saved in "
                        f"{self.directory}; the same command goes on: {self.command}"
                    )

    def record(
        self, call: pipeline.Call, found: dict[str, np.ndarray], files: metrics.Files
    ) -> list[dict[str, Any]]:
        """Writes what a call measured. Raises `Diverged` where nobody has numbers left."""
        before = dict(files.gone)
        measured = metrics.rows(call.stage, call.round, call.first, call.steps, found)
        rows = [files.metrics(row) for row in measured]
        if any(name.startswith(metrics.SAMPLE) for name in found):
            for row in metrics.samples(call.round, found, self.line.world.language):
                files.sample(row)
        new = {i: left for i, left in files.gone.items() if i not in before}
        if new:
            self.leave(new, files)
        return rows

    def leave(self, new: dict[int, Left], files: metrics.Files) -> None:
        """Says who has left the population. Raises `Diverged` where nobody stays."""
        n, k = len(self.members), len(files.gone)
        first = next(iter(new))
        shared = len(new) == n and new[first].stage == "pretrain" and self.config.pretrain.shared
        who = "the shared base model" if shared else str(self.members[first])
        others = f" and for {len(new) - 1} more" if len(new) > 1 and not shared else ""
        said = f"{new[first]} for {who}{others}"
        if k == n:
            self.logs, self.diverged = files.flush(), True
            raise Diverged(
                f"{said}: all {n} members have diverged; what was computed before is kept in "
                f"{self.directory}",
                self.directory,
            )
        print(f"warning: {said}; {k} of {n} members have diverged", file=sys.stderr)


def _stop_if_asked(done: str) -> None:
    signals.check(f"with {done}; what was saved is kept, and the same command goes on")


def build(
    config: Config, like: pipeline.Pipeline | None = None, own: Own = NOTHING
) -> pipeline.Pipeline:
    """The pipeline of `config`, compiled programs of `like` used again where they fit.

    `own`: what takes the place of what the configuration names.

    Raises `ConfigError`, see `run`.
    """
    validate(config)
    _stop_if_asked("nothing begun")
    devices = prepare(config)
    return pipeline.build(config, devices, _load_base(config, own), like, own)


def run(config: Config, command: str, line: pipeline.Pipeline | None = None) -> Path:
    """Runs, or goes on with, the run that `config` describes; returns its directory.

    `line`: what `build` made of the same configuration, if it is there already.

    Raises:
      ConfigError: the configuration or the run directory cannot be used.
      Diverged: every member has diverged; checkpoints from before are kept. Where some have,
        the others end, and the log and the report say who left and when.
      Interrupted: a signal asked this process to stop, where `signals.listen` hears them;
        everything is saved.
    """
    line = build(config) if line is None else line
    with rundir.opened(config) as directory:
        _Run(config, directory, line, command).go()
    return directory
