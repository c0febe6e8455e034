"""ILF: critiques of programs, with the person's own repair (Chen et al. 2023, arXiv 2303.16749).

One record is a Critique and a Correction of the model's program, which begins with the prompt;
`completion` is the repair as it was run against the unit test.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

from rlhf_jax.data.checks import digest, only, pop, same
from rlhf_jax.data.formats.base import Format, Options, by_item, common
from rlhf_jax.data.rows import Correction, Critique, Row, dump, extra_of, plain, text


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    prompt = pop(rest, "prompt", str)
    program = pop(rest, "original_model_completion", str)
    only(program.startswith(prompt), "'original_model_completion' does not begin with 'prompt'")
    words, repair = pop(rest, "Feedback", str), pop(rest, "completion", str)
    shared: dict[str, Any] = {
        "prompt": text(prompt),
        "item": digest(record),
        "group": str(pop(rest, "task_id", int)),
        "annotator": pop(rest, "worker_id", str, NoneType, default=None) or "",
        "source": "ilf_code",
        "extra": dump(rest),
        "x": text(program.removeprefix(prompt)),
    }
    return [Critique(**shared, words=words), Correction(**shared, better=text(repair))]


def write(rows: list[Row], options: Options) -> dict[str, Any]:
    critiques = [r for r in rows if isinstance(r, Critique)]
    repairs = [r for r in rows if isinstance(r, Correction)]
    only(
        len(critiques) == len(repairs) == 1,
        f"a record is one critique and one correction, not {len(critiques)} and {len(repairs)}",
    )
    same(rows, *common(rows), "x")
    row, task = critiques[0], rows[0].group
    only(task.isdecimal(), f"group '{task}' is not a task number")
    prompt = plain(row.prompt, "prompt")
    return {
        "task_id": int(task),
        "prompt": prompt,
        "original_model_completion": prompt + plain(row.x, "program"),
        "Feedback": row.words,
        "completion": plain(repairs[0].better, "completion"),
        "worker_id": row.annotator or None,
    } | extra_of(row, "ilf_code")


FORMAT = Format(
    "ilf_code",
    "a critique and a correction of one program by one worker; plain text, no times.",
    (Critique, Correction),
    frozenset({"original_model_completion", "Feedback", "completion"}),
    read,
    write,
    by_item,
)
