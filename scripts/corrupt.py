"""Damages copies of a tiny run's folder at random and goes on in each: nothing may go wrong unsaid.

    .venv/bin/python scripts/corrupt.py [--trials 100] [--seed 0]

Each trial damages one thing of a finished or a half-finished run (a bit flips, a file is cut,
zeroed, deleted, swapped with another or replaced by a folder, a folder is lost, a number in a text
is edited) and uses the folder again,
as the same run, as a base model and by a reader of its numbers. It must end

  same       in the bytes that the undamaged run ends in, and nothing needed saying
  fallback   in those bytes, and it was said what was passed over
  refused    in one line that names the place, with every byte of the logs where it was

Everything else is printed, counted as a failure, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import io
import random
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from rlhf_jax import loop, pipeline
from rlhf_jax.checkpoint import Checkpoints
from rlhf_jax.config import (
    PPO,
    Collect,
    Config,
    ConfigError,
    Evaluate,
    Model,
    Pretrain,
    Reward,
    Run,
    World,
)
from rlhf_jax.pipeline import Pipeline
from rlhf_jax.report import records

TINY = Config(
    seeds=1,
    world=World(name="probe", length=3, symbols=4),
    model=Model(width=16, layers=1, heads=2, kv_heads=1, mlp=32),
    pretrain=Pretrain(epochs=1, batch=16),
    collect=Collect(budget=64),
    reward=Reward(steps=4, look=2, batch=16),
    ppo=PPO(iterations=4, batch=16, epochs=1, minibatches=1),
    evaluate=Evaluate(samples=32, shown=2),
    run=Run(chunk=1),
)
LOGS = ("metrics.jsonl", "samples.jsonl")


class Subject(NamedTuple):
    """A run as it should end, and folders of it that were left at some time."""

    config: Config
    line: Pipeline
    state: dict[str, np.ndarray]
    logs: dict[str, bytes]
    notes: tuple[Any, ...]
    """what every reader must be told of settings, members and data"""
    folders: dict[str, Path]


class Trial(NamedTuple):
    """What was damaged and how it ended."""

    outcome: str
    folder: str
    fault: str
    where: str
    said: str


class Killed(Exception):
    """The run ends here, as by a power cut."""


def subject(config: Config, line: Pipeline, root: Path) -> Subject:
    """Makes the run to its end, and half of it, under `root`."""
    straight = _in(config, root / "finished", checkpoint_seconds=0.0)
    loop.run(straight, "straight", line)

    def killed(state: Any) -> Any:
        raise Killed

    half = len(line.plan) - 2
    calls = (*line.plan[:half], line.plan[half]._replace(run=killed))
    with contextlib.suppress(Killed):
        broken = _in(config, root / "half", checkpoint_seconds=0.0)
        loop.run(broken, "half", line._replace(plan=calls))
    folders = {name: root / name / config.name for name in ("finished", "half")}
    logs = {name: (folders["finished"] / name).read_bytes() for name in LOGS}
    state, notes = _state(line, folders["finished"]), _notes(folders["finished"])
    return Subject(config, line, state, logs, notes, folders)


def _notes(folder: Path) -> tuple[Any, ...]:
    """Settings, members and data as a reader is told of them; not how the run was executed."""
    record = records.read(folder)
    settings = {k: v for k, v in record.config.items() if not k.startswith("run.")}
    return settings, *(record.metadata[k] for k in ("name", "members", "data", "base"))


def _in(config: Config, root: Path, checkpoint_seconds: float = 1e9) -> Config:
    run = dataclasses.replace(
        config.run, directory=str(root), checkpoint_seconds=checkpoint_seconds, keep=2
    )
    return dataclasses.replace(config, run=run)


def _state(line: Pipeline, folder: Path) -> dict[str, np.ndarray]:
    """The state of the newest checkpoint."""
    with Checkpoints(folder / "checkpoints", None) as checkpoints:
        found = checkpoints.latest(pipeline.shapes(line))
    return {} if found is None else _arrays(found.state)


def _arrays(tree: Any) -> dict[str, np.ndarray]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    key = lambda x: jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key)
    plain = lambda x: np.asarray(jax.random.key_data(x) if key(x) else x)
    return {jax.tree_util.keystr(path): plain(x) for path, x in flat}


# --- faults: (what to damage, another file, chance) → whether anything is another now


def flip(path: Path, _: Path, luck: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    if raw:
        raw[luck.randrange(len(raw))] ^= 1 << luck.randrange(8)
    path.write_bytes(raw)


def cut(path: Path, _: Path, luck: random.Random) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[: luck.randrange(len(raw) or 1)])


def zero(path: Path, _: Path, luck: random.Random) -> None:
    raw = path.read_bytes()
    a, b = sorted(luck.randrange(len(raw) + 1) for _ in range(2))
    path.write_bytes(raw[:a] + bytes(b - a) + raw[b:])


def delete(path: Path, _: Path, __: random.Random) -> None:
    path.unlink()


def lose(path: Path, _: Path, luck: random.Random) -> None:
    """One of the folders that a file stands in, below the run's own."""
    inner = [p for p in path.parents if {"checkpoints", "events"} & set(p.parts)]
    if inner:
        shutil.rmtree(luck.choice(inner))
    else:
        path.unlink()


def swap(path: Path, other: Path, _: random.Random) -> None:
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def edit(path: Path, _: Path, luck: random.Random) -> None:
    """One number of a text becomes another."""
    raw = path.read_bytes()
    found = list(re.finditer(rb"-?\d+", raw))
    if found:
        at = luck.choice(found)
        new = luck.choice((b"-3", b"9999", b"0", b"%d" % (int(at[0][:9]) + 1)))
        path.write_bytes(raw[: at.start()] + new + raw[at.end() :])


def replace(path: Path, _: Path, __: random.Random) -> None:
    """A folder stands where the file was."""
    path.unlink()
    path.mkdir()


FAULTS: tuple[Callable[[Path, Path, random.Random], None], ...] = (
    *(flip, cut, zero, delete, lose, swap, edit, replace),
)


def _files(folder: Path, luck: random.Random) -> list[Path]:
    """The files of one kind, so that the many of checkpoints do not hide the few others."""
    every = sorted(p for p in folder.rglob("*") if p.is_file())
    kinds = {
        "checkpoints": [p for p in every if "checkpoints" in p.parts],
        "logs": [folder / name for name in LOGS],
        "notes": [folder / "config.json", folder / "metadata.json"],
        "rest": [p for p in every if "events" in p.parts or p.name == "lock"],
    }
    return kinds[luck.choices(tuple(kinds), (6, 3, 2, 1))[0]]


def damage(folder: Path, luck: random.Random) -> tuple[str, str]:
    """Damages one thing in the folder; says what and where."""
    files = _files(folder, luck)
    path, fault = luck.choice(files), luck.choice(FAULTS)
    others = [p for p in (files if luck.random() < 0.7 else _files(folder, luck)) if p != path]
    if fault is swap and not others:
        fault = cut
    fault(path, luck.choice(others or [path]), luck)
    return fault.__name__, str(path.relative_to(folder))


# --- what it must end in


def trial(mine: Subject, root: Path, luck: random.Random) -> Trial:
    """Damages a copy, uses it again and says how that ended."""
    which = luck.choice(tuple(mine.folders))
    folder = root / mine.config.name
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(mine.folders[which], folder)
    fault, where = damage(folder, luck)
    use = luck.choices((_as_run, _as_base, _as_read), (6, 2, 2))[0]
    said = io.StringIO()
    with contextlib.redirect_stderr(said), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        outcome = use(mine, folder)
    lines = [str(w.message) for w in warned] + said.getvalue().splitlines()
    told = [line for line in lines if "skipped" in line or "unknown" in line or "anew" in line]
    if outcome == "same" and told:
        outcome = "fallback"
    if any("Traceback" in line or "never awaited" in line for line in lines):
        outcome = f"noise: {lines}"
    return Trial(outcome, f"{which}, {use.__name__}", fault, where, "; ".join(told))


def _as_base(mine: Subject, folder: Path) -> str:
    like = pipeline.reference_shapes(mine.config)
    try:
        with Checkpoints(folder / "checkpoints", None) as checkpoints:
            base = checkpoints.part("reference", like)
    except ConfigError as problem:
        return _is_one_line(problem, folder)
    except Exception as problem:
        return f"exception: {problem!r}"
    if base is None:
        return "refused"
    found = {f".reference{k}": v for k, v in _arrays(base).items()}
    right = {k: v for k, v in mine.state.items() if k in found}
    return "same" if _equal(found, right) else "SILENT: another base model"


def _as_read(mine: Subject, folder: Path) -> str:
    """As reports and studies read it, which take a run that did not end for what it is."""
    try:
        notes, finished = _notes(folder), records.read(folder).metadata["finished"]
    except ConfigError as problem:
        return _is_one_line(problem, folder)
    except Exception as problem:
        return f"exception: {problem!r}"
    if notes != mine.notes:
        return "SILENT: other settings, members or data"
    logs = {name: _bytes(folder / name) for name in LOGS}
    return "same" if not finished or logs == mine.logs else "SILENT: other numbers"


def _as_run(mine: Subject, folder: Path) -> str:
    before = {name: _bytes(folder / name) for name in LOGS}
    try:
        loop.run(_in(mine.config, folder.parent), "again", mine.line)
    except ConfigError as problem:
        if {name: _bytes(folder / name) for name in LOGS} != before:
            return f"LOST: {problem}"
        return _is_one_line(problem, folder)
    except Exception as problem:
        return f"exception: {problem!r}"
    if {name: _bytes(folder / name) for name in LOGS} != mine.logs:
        return "SILENT: other numbers"
    if not _equal(_state(mine.line, folder), mine.state):
        return "SILENT: another state"
    return "same" if _notes(folder) == mine.notes else "SILENT: other settings, members or data"


def _is_one_line(problem: ConfigError, folder: Path) -> str:
    said = str(problem)
    return "refused" if "\n" not in said and str(folder) in said else f"unclear: {said}"


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _equal(one: dict[str, np.ndarray], two: dict[str, np.ndarray]) -> bool:
    same = lambda a, b: a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return one.keys() == two.keys() and all(same(one[k], two[k]) for k in one)


SOUND = ("same", "fallback", "refused")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    count: collections.Counter[tuple[str, str]] = collections.Counter()
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        mine = subject(TINY, loop.build(TINY), root)
        for k in range(asked.trials):
            found = trial(mine, root / "copy", random.Random(f"{asked.seed}/{k}"))
            kind = found.outcome if found.outcome in SOUND else "FAILED"
            count[kind, found.fault] += 1
            if kind == "FAILED":
                print(f"trial {k}: {found}", flush=True)
            if (k + 1) % 100 == 0 or k + 1 == asked.trials:
                print(f"after {k + 1} trials\n{_table(count)}", flush=True)
    return 1 if any(kind == "FAILED" for kind, _ in count) else 0


def _table(count: collections.Counter[tuple[str, str]]) -> str:
    lines = []
    for kind in (*SOUND, "FAILED"):
        by = {fault: n for (one, fault), n in sorted(count.items()) if one == kind}
        faults = "  ".join(f"{fault} {n}" for fault, n in by.items())
        lines.append(f"{kind:9}{sum(by.values()):5}  {faults}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
