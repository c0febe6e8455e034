"""alpaca_eval's annotations (Dubois et al. 2023, arXiv 2305.14387).

`preference` is 1 (first output), 2 (second), 1.5 or the older 0 (draw), null (the annotator
failed), or a number between 1 and 2: 1 + the probability of the second output, a soft label.
A draw is written as 1.5. `generator_1`, `generator_2` are the samples' sources, `annotator` a
model or person, `time_per_example` its seconds. An `input` that the instruction is about follows
it after a blank line, as in AlpacaFarm's records.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

from rlhf_jax.data.checks import expect, only, pop
from rlhf_jax.data.formats.base import Format, Options
from rlhf_jax.data.rows import Comparison, Row, dump, extra_of, plain, text


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    preference = pop(rest, "preference", int, float, NoneType)
    if preference is not None:
        preference = 1.5 if preference == 0 else float(preference)
        only(1 <= preference <= 2, f"field 'preference' = {preference}, expected 0 or 1…2")
    seconds = pop(rest, "time_per_example", int, float, NoneType, default=None)
    instruction = pop(rest, "instruction", str)
    given = expect(rest.get("input"), "field 'input'", str, NoneType)
    row = Comparison(
        prompt=text(f"{instruction}\n\n{given}" if given else instruction),
        a=text(pop(rest, "output_1", str)),
        b=text(pop(rest, "output_2", str)),
        a_id=pop(rest, "generator_1", str, default=""),
        b_id=pop(rest, "generator_2", str, default=""),
        label=None if preference is None else 2.0 - preference,
        group=pop(rest, "dataset", str, default=""),
        annotator=pop(rest, "annotator", str, default=""),
        seconds=None if seconds is None else float(seconds),
        source="alpaca_eval",
        extra=dump(rest),
    )
    return [row]


def write(rows: list[Row], options: Options) -> dict[str, Any]:
    row = rows[0]
    assert isinstance(row, Comparison)
    names = {
        "dataset": row.group,
        "generator_1": row.a_id,
        "generator_2": row.b_id,
        "annotator": row.annotator,
    }
    extra = extra_of(row, "alpaca_eval")
    given = f"\n\n{extra['input']}" if extra.get("input") else ""
    return {
        "instruction": plain(row.prompt, "instruction").removesuffix(given),
        "output_1": plain(row.a, "output_1"),
        "output_2": plain(row.b, "output_2"),
        **{k: v for k, v in names.items() if v},
        "preference": None if row.label is None else 2.0 - row.label,
        **({} if row.seconds is None else {"time_per_example": row.seconds}),
    } | extra


FORMAT = Format(
    "alpaca_eval",
    "two outputs and a preference between 1 and 2; draws, soft labels and failures; plain text.",
    (Comparison,),
    frozenset({"instruction", "output_1", "output_2", "preference"}),
    read,
    write,
    as_list=True,
)
