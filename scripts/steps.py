"""Where is the first mistake? Step reward models of BIG-Bench-Mistake, on problems never seen.

    .venv/bin/python scripts/steps.py ../shared/data  # BIG-Bench-Mistake: 1.5 minutes on 2 cores

A step's reward is linear in numbers that describe its text, its place, and what it shares with
the step before, the problem and all that came before. It is fitted by the likelihood of the
index of the first mistake,

    log P(e) = Σ_{s<e} log σ(r_s) + log σ(−r_e),   no mistake: Σ_s log σ(r_s)

a product of one reading a step up to the first mistake: right, right, …, wrong. For comparison:
labels on all steps, those after the first mistake called wrong. Two settings: a model of each task,
whose problems are dealt into five folds; and one model of three tasks, asked about the fourth.
The answer is the likeliest index or none, right if it is exact (Tyen et al. 2023, arXiv
2311.08516). 95 % intervals resample problems.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import cli
from rlhf_jax.config import ConfigError
from rlhf_jax.data import text
from rlhf_jax.data.convert import read_rows
from rlhf_jax.data.formats import FORMATS, Options
from rlhf_jax.data.relations import relation, run, tokens
from rlhf_jax.data.rows import Process
from rlhf_jax.feedback import STANDARD, process
from rlhf_jax.ops import scores
from rlhf_jax.ops.intervals import Interval
from rlhf_jax.ops.minimise import minimise
from rlhf_jax.types import Array

FOLDS = 5
RIDGE = 1e-3
STEPS = 60
PLACES = 7
KINDS = ("base rate", "place", "place + text")
LABELS = "all steps labelled"
SCORES = ("exact", "exact | mistake", "any: accuracy", "any: AUC", "any: ECE", "nats")


class Traces(NamedTuple):
    """N answers of at most S steps, T steps in all."""

    tasks: list[str]
    task: np.ndarray
    """[N] int"""
    first: np.ndarray
    """[N] int32, the first mistake; the number of steps if there is none"""
    real: np.ndarray
    """[N, S] bool"""
    place: np.ndarray
    """[N, S] int, row of a step; 0 where there is none"""
    owner: np.ndarray
    """[T] int, answer of a step"""
    wrong: np.ndarray
    """[N] bool: the solution ends in an answer that is not the right one"""
    tables: dict[str, np.ndarray]
    """kind → [T, K] features"""


def describe(row: Process) -> tuple[np.ndarray, np.ndarray]:
    """[S, PLACES] places and [S, K] texts of the steps."""
    steps = [s.text for s in row.path]
    n, where, said = len(steps), [], []
    problem = tokens("".join(t.content for t in row.prompt))
    known, last = set(problem), problem
    seen: set[str] = set()
    for i, step in enumerate(steps):
        own, left = tokens(step), n - 1 - i
        where.append([np.log1p(i), np.log1p(left), i / n, i == 0, i == 1, left == 0, left == 1])
        beside = relation(own, last), run(own, last), relation(own, problem)
        old = [np.mean([t in known for t in own]) if own else 0.0, step in seen]
        said.append(np.concatenate([text.surface(step), *beside, old]))
        seen.add(step)
        known.update(own)
        last = own
    return np.array(where, float).reshape(n, PLACES), np.array(said)


def collect(rows: list[Process]) -> Traces:
    """Rows → arrays. Raises `ConfigError` for no rows or an answer without steps."""
    if not rows or not all(r.path for r in rows):
        raise ConfigError("there must be answers, and each must have steps")
    tasks = sorted({r.group for r in rows})
    where, said = zip(*map(describe, rows), strict=True)
    count = np.array([len(s) for s in said])
    real = np.arange(count.max()) < count[:, None]
    place = np.where(real, np.cumsum(real).reshape(real.shape) - 1, 0)
    table = np.concatenate([np.concatenate(where), np.concatenate(said)], 1)
    tables = {
        "base rate": table[:, :0],
        "place": table[:, :PLACES],
        "place + text": table,
    }
    first = [
        n if r.first_error is None else r.first_error for r, n in zip(rows, count, strict=True)
    ]
    extra = [json.loads(r.extra) for r in rows]
    return Traces(
        tasks=tasks,
        task=np.array([tasks.index(r.group) for r in rows]),
        first=np.array(first, np.int32),
        real=real,
        place=place,
        owner=np.repeat(np.arange(len(rows)), count),
        wrong=np.array([e.get("answer") != e.get("target") for e in extra]),
        tables={k: v.astype(np.float32) for k, v in tables.items()},
    )


def first_mistake(rewards: Array, right: Array) -> Array:
    """[T] steps → nats [T]: each is read on its own, and the first mistake is it or none."""
    real = jnp.ones((len(rewards), 1), bool)
    return process.loss_first_error(rewards[:, None], right, real)


def every_step(rewards: Array, right: Array) -> Array:
    """[T] → nats [T], of a label for each step."""
    return process.loss(rewards[:, None], right[:, None], jnp.ones((len(rewards), 1), bool))


@partial(jax.jit, static_argnames=("nll", "groups", "steps"))
def fit(
    x: Array,
    right: Array,
    group: Array,
    weight: Array,
    nll: Callable[[Array, Array], Array] = first_mistake,
    groups: int = 1,
    ridge: float = RIDGE,
    steps: int = STEPS,
) -> Array:
    """min over w_g, b_g of Σ_g mean ℓ(r) + ridge |w_g|², r = w_g · standardised x + b_g: convex.

    Each group has weights of its own. One vmap over F folds; means and deviations of the
    features are those of the steps that count.

    Args:
      x: [T, K]; right: [T] int32, 1 right, 0 wrong; group: [T] int.
      weight: [F, T] float32, 0 for steps that are held out or not labelled.
    Returns: rewards of all steps [F, T].
    """
    mine = jax.nn.one_hot(group, groups)

    def one(weight: Array) -> Array:
        share = weight / jnp.sum(weight)
        mean = share @ x
        # Not below 0.1: what hardly varies here must not be blown up where it does.
        scale = jax.lax.rsqrt(jnp.maximum(share @ jnp.square(x - mean[None]), 1e-2))
        counts = jnp.maximum(weight @ mine, 1)
        level = weight / (mine @ counts)

        def rewards(p: tuple[Array, Array]) -> Array:
            w = p[0] * scale[None]
            return jnp.sum(mine * (x @ w.T + (p[1] - w @ mean)[None]), axis=1)

        def loss(p: tuple[Array, Array]) -> Array:
            return jnp.sum(level * nll(rewards(p), right)) + ridge * jnp.sum(jnp.square(p[0]))

        start = jnp.zeros((groups, x.shape[1])), jnp.zeros(groups)
        return rewards(minimise(loss, start, steps))

    return jax.vmap(one)(weight)


def held_out(data: Traces, kind: str, out: np.ndarray, own: bool) -> np.ndarray:
    """[N, S] rewards of answers by models that have not seen their part `out` [N] int.

    `own`: each task has weights of its own.
    """
    first, at = data.first[data.owner], np.arange(len(data.owner)) - data.place[data.owner, 0]
    known = out[data.owner][None] != np.arange(out.max() + 1)[:, None]
    labelled = known if kind == LABELS else known & (at <= first)[None]
    made = fit(
        data.tables["place + text" if kind == LABELS else kind],
        (at < first).astype(np.int32),
        data.task[data.owner] if own else np.zeros_like(data.owner),
        labelled.astype(np.float32),
        every_step if kind == LABELS else first_mistake,
        len(data.tasks) if own else 1,
    )
    mine = np.asarray(made)[out[data.owner], np.arange(len(data.owner))]
    return np.where(data.real, mine[data.place], 0.0)


class Judged(NamedTuple):
    """What is predicted of each answer [N]."""

    guess: np.ndarray
    """The likeliest first mistake, the number of steps for none"""
    mistake: np.ndarray
    """P(there is one)"""
    nats: np.ndarray
    """−log P of what the person said"""


def judge(rewards: np.ndarray, first: np.ndarray, real: np.ndarray) -> Judged:
    log_p = np.asarray(process.log_first_error(STANDARD, jnp.asarray(rewards), jnp.asarray(real)))
    count, s = real.sum(1), real.shape[1]
    best = log_p.argmax(1)
    nats = -log_p[np.arange(len(first)), np.where(first >= count, s, first)]
    return Judged(np.where(best == s, count, best), -np.expm1(log_p[:, s]), nats)


def measure(found: Judged, data: Traces, draws: scores.Draws) -> list[str]:
    """The scores of `SCORES` with intervals."""
    any_said = data.first < data.real.sum(1)
    exact, called = found.guess == data.first, (found.mistake > 0.5) == any_said
    columns = (
        (scores.average, (exact,), draws),
        (scores.average, (exact,), draws._replace(weights=draws.weights * any_said[None])),
        (scores.average, (called,), draws),
        (scores.auc, (found.mistake, any_said), draws),
        (scores.calibration_error, (found.mistake, any_said), draws),
        (scores.average, (found.nats,), draws),
    )
    return [cell(scores.interval(*column)) for column in columns]


def cell(interval: Interval) -> str:
    value, low, high = interval[:3]
    return f"{value:.3f} [{low:.3f}, {high:.3f}]" if np.isfinite(value) else "∞"


def table(title: str, columns: tuple[str, ...], rows: dict[str, list[str]]) -> list[str]:
    wide = max(map(len, rows)) + 2
    head = " " * wide + "".join(f"{c:<22}" for c in columns)
    return [
        f"\n{title}",
        head,
        *(f"{k:<{wide}}" + "".join(f"{v:<22}" for v in r) for k, r in rows.items()),
    ]


def study(rows: list[Process]) -> list[str]:
    """The lines of the report."""
    data = collect(rows)
    n, count = len(rows), data.real.sum(1)
    draw = lambda mask: scores.draw(mask * 1.0, np.arange(n))
    every, each = draw(np.ones(n)), [draw(data.task == i) for i in range(len(data.tasks))]
    none = Judged(count, np.zeros(n), np.where(data.first < count, np.inf, 0.0))
    plain = {"always none": none, "uniform": Judged(count, 1 - 1 / (count + 1), np.log(count + 1))}
    agrees = data.wrong == (data.first < count)
    out = [
        f"{n} answers, {len(data.owner)} steps, {np.mean(data.first < count):.1%} with a mistake; "
        f"{data.tables['place + text'].shape[1]} features",
        "a wrong final answer as a forecast of a mistake: accuracy "
        + cell(scores.interval(scores.average, (agrees,), every)),
    ]
    settings = (
        ("a model of each task, five folds", scores.folds(np.arange(n), FOLDS), True),
        ("three tasks, asked about the fourth", data.task, False),
    )
    for title, parts, own in settings:
        found = {
            k: judge(held_out(data, k, parts, own), data.first, data.real) for k in (*KINDS, LABELS)
        }
        lines = {k: measure(v, data, every) for k, v in (plain | found).items()}
        out += table(f"{title}, {n} answers", SCORES, lines)
        for name in KINDS[1:]:
            by_task = {
                f"{t} ({np.sum(data.task == i)})": measure(found[name], data, each[i])
                for i, t in enumerate(data.tasks)
            }
            out += table(f"{title}: {name}", SCORES, by_task)
    return out


def work(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    if len(arguments) != 1:
        raise ConfigError("usage: scripts/steps.py FOLDER with bigbench_mistake.jsonl.gz")
    path = Path(arguments[0]) / "bigbench_mistake.jsonl.gz"
    rows = read_rows(path, FORMATS["bigbench_mistake"], Options()).rows
    print("\n".join(study([r for r in rows if isinstance(r, Process)])))


if __name__ == "__main__":
    sys.exit(cli.main(work, sys.argv[1:]))
