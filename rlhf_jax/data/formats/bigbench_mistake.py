"""BIG-Bench-Mistake: the first wrong step of a solution (Tyen et al. 2023, arXiv 2311.08516).

`mistake_index` is 0-based; null means that no step is wrong. Steps before it are right, those
after it are unlabelled. What an exporter needs is therefore: right steps, then at most one wrong
step, then unlabelled ones; anything else is refused.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

from rlhf_jax.data.checks import only, pop, texts
from rlhf_jax.data.formats.base import Format, Options
from rlhf_jax.data.rows import Process, Row, Step, dump, extra_of, plain, text


def labels(count: int, mistake: int | None) -> list[int | None]:
    """[+1, …, +1, −1, None, …]"""
    if mistake is None:
        return [1] * count
    return [1] * mistake + [-1] + [None] * (count - mistake - 1)


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    steps = texts(pop(rest, "steps", list), "field 'steps'")
    mistake = pop(rest, "mistake_index", int, NoneType)
    only(
        mistake is None or 0 <= mistake < len(steps),
        f"field 'mistake_index' = {mistake}, but there are {len(steps)} steps",
    )
    verdicts = labels(len(steps), mistake)
    row = Process(
        prompt=text(pop(rest, "input", str)),
        group=pop(rest, "task", str, default=""),
        steps=tuple(Step(i, s, v) for i, (s, v) in enumerate(zip(steps, verdicts, strict=True))),
        source="bigbench_mistake",
        extra=dump(rest),
    )
    return [row]


def write(rows: list[Row], options: Options) -> dict[str, Any]:
    row = rows[0]
    assert isinstance(row, Process)
    verdicts = [s.label for s in row.path]
    only(
        verdicts == labels(len(verdicts), row.first_error),
        "labels must be right up to the first wrong step and absent after it",
    )
    return {
        **({"task": row.group} if row.group else {}),
        "input": plain(row.prompt, "input"),
        "steps": [s.text for s in row.path],
        "mistake_index": row.first_error,
    } | extra_of(row, "bigbench_mistake")


FORMAT = Format(
    "bigbench_mistake",
    "the first wrong step, if any; no neutral steps, alternatives, people or times.",
    (Process,),
    frozenset({"input", "steps", "mistake_index"}),
    read,
    write,
)
