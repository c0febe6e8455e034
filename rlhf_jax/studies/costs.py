"""What a study cost, as its runs noted it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rlhf_jax import rundir
from rlhf_jax.report.wording import duration, plural
from rlhf_jax.studies import plan
from rlhf_jax.study import Study

FILE = "costs.jsonl"
LONG = 0.2
"""Seconds; programs that compile faster are many and small, and are not kept in the cache."""


class Cost(NamedTuple):
    """What one run took in the process that finished it."""

    run: str
    """Directory, below the root of all studies."""
    members: int
    seconds: float
    """By the clock: tracing, compiling and computing."""
    compile_seconds: float
    """Of these, in the compiler or reading compiled programs."""
    compiled: int
    """Programs that took `LONG` or more to compile."""
    loaded: int
    """Programs found in the cache of compiled programs."""
    whole: bool
    """False where an earlier process had begun the run: part of its time is not here."""
    session: str
    """When the process began, UTC."""


class Bill(NamedTuple):
    """The cost of the runs that an answer rests on."""

    members: int
    """Points × seeds of all arms."""
    rows: tuple[Cost, ...]
    alone: Cost | None
    """One seed by itself, where it was measured."""
    beside: Cost | None
    """The study's first run that was made without a break, with which it is compared."""


def note(folder: Path, cost: Cost) -> None:
    """Appends one run's cost."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / FILE).open("a") as file:
        file.write(json.dumps(cost._asdict()) + "\n")


def noted(folder: Path) -> list[Cost]:
    """What was noted; what cannot be read (half a line) is left out."""
    path, out = folder / FILE, []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            out.append(Cost(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return out


def bill(study: Study, root: Path, arms: Sequence[str]) -> Bill:
    """The costs of these arms' runs, each as last noted."""
    latest = {cost.run: cost for cost in noted(root / study.name)}
    mine = [c for c in plan.chunks(study, root) if c.arm in arms]
    names = [str(c.directory.relative_to(root)) for c in mine]
    bases = {str(rundir.place(c.base).relative_to(root)) for c in mine if c.base is not None}
    rows = tuple(latest[name] for name in (*sorted(bases), *names) if name in latest)
    alone = latest.get(str(plan.alone(study, root).directory.relative_to(root)))
    beside = next((latest[name] for name in names if name in latest and latest[name].whole), None)
    return Bill(sum(c.members for c in mine), rows, alone, beside)


def sentences(b: Bill) -> list[str]:
    """The bill in words."""
    if not b.rows:
        return ["What it cost was not noted."]
    total, compiled = sum(c.seconds for c in b.rows), sum(c.compiled for c in b.rows)
    compiling, loaded = sum(c.compile_seconds for c in b.rows), sum(c.loaded for c in b.rows)
    out = [
        f"{duration(total)} for {b.members} members (points × seeds) in {len(b.rows)} runs, "
        f"{total / b.members:.1f} s a member; of it {duration(compiling)} in the compiler: "
        f"{plural(compiled, 'program')} took {LONG:g} s or more to compile, {loaded} were found in "
        "the cache."
    ]
    if not all(c.whole for c in b.rows):
        out.append("Some runs were begun by an earlier process, whose part is not counted.")
    if b.alone and b.beside:
        alone, each = b.alone, b.beside.seconds / b.beside.members
        work = b.alone.seconds - b.alone.compile_seconds
        work_each = (b.beside.seconds - b.beside.compile_seconds) / b.beside.members
        same = (
            "the same session"
            if alone.session == b.beside.session
            else (f"sessions of {alone.session} and {b.beside.session}")
        )
        out.append(
            f"One seed alone takes {alone.seconds:.1f} s, in a population of {b.beside.members} "
            f"{each:.1f} s: {alone.seconds / each:.1f} times less. The compiler's own time apart: "
            f"{work:.1f} s and {work_each:.1f} s, {work / work_each:.1f} times less. Measured in "
            f"{same}."
        )
    return out
