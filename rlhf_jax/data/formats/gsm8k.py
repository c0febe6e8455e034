"""grade-school-math (Cobbe et al. 2021, arXiv 2110.14168): problems, and models' solutions.

A solutions record is a Demonstration (`ground_truth`) and one Label, good or bad, per model; a
problem is one Demonstration that ends in '#### answer'.
"""

from __future__ import annotations

from typing import Any

from rlhf_jax.data.checks import digest, expect, only, pop, same
from rlhf_jax.data.formats.base import Format, Options, by_item
from rlhf_jax.data.rows import Demonstration, Label, Row, dump, extra_of, plain, text

TRUTH = "ground_truth"


def read_solutions(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    prompt, item = text(pop(rest, "question", str)), digest(record)
    shared: dict[str, Any] = {"prompt": prompt, "item": item, "source": "gsm8k_solutions"}
    out: list[Row] = [Demonstration(**shared, x=text(pop(rest, TRUTH, str)), x_id=TRUTH)]
    for model, entry in rest.items():
        solution = dict(expect(entry, f"field '{model}'", dict))
        right = pop(solution, "is_correct", bool)
        x = text(pop(solution, "solution", str))
        value = "good" if right else "bad"
        out.append(Label(**shared, x=x, x_id=model, value=value, extra=dump(solution)))
    only(len(out) > 1, "a record without a model's solution")
    return out


def write_solutions(rows: list[Row], options: Options) -> dict[str, Any]:
    same(rows, "prompt")
    truths = [r for r in rows if isinstance(r, Demonstration)]
    only(len(truths) == 1, f"a record has one ground truth, not {len(truths)}")
    record: dict[str, Any] = {
        "question": plain(rows[0].prompt, "question"),
        TRUTH: plain(truths[0].x, TRUTH),
    }
    for r in rows:
        if isinstance(r, Label):
            only(r.value in ("good", "bad"), f"class '{r.value}' is neither good nor bad")
            only(r.x_id not in ("", *record), f"'{r.x_id}' cannot name one more solution")
            solution = {"is_correct": r.value == "good", "solution": plain(r.x, "solution")}
            record[r.x_id] = solution | extra_of(r, "gsm8k_solutions")
    only(len(record) > 2, "a record without a model's solution")
    return record


def read_problem(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    prompt, answer = pop(rest, "question", str), pop(rest, "answer", str)
    row = Demonstration(prompt=text(prompt), x=text(answer), source="gsm8k", extra=dump(rest))
    return [row]


def write_problem(rows: list[Row], options: Options) -> dict[str, Any]:
    row = rows[0]
    assert isinstance(row, Demonstration)
    question, answer = plain(row.prompt, "question"), plain(row.x, "answer")
    return {"question": question, "answer": answer} | extra_of(row, "gsm8k")


SOLUTIONS = Format(
    "gsm8k_solutions",
    "a true solution and models' solutions, right or wrong; plain text, no people or times.",
    (Demonstration, Label),
    frozenset({"question", TRUTH}),
    read_solutions,
    write_solutions,
    by_item,
)
PROBLEMS = Format(
    "gsm8k",
    "a question and a person's answer; plain text, no people or times.",
    (Demonstration,),
    frozenset({"question", "answer"}),
    read_problem,
    write_problem,
)
