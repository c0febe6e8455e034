"""What is wrong where? Span reward models of fine-grained RLHF, on questions never seen.

    .venv/bin/python scripts/spans.py ../shared/data  # FineGrainedRLHF: 1 minute on 2 CPU cores

Answers are cut at punctuation into segments of at least five words. A segment is of the category
of the marked span that overlaps it most, if the overlap is half of either of the two, else of
none. Its rewards, one for each category, are linear in numbers that describe the text, its place,
and what it shares with the question, the passages and the answer before it; they are fitted by

    P(c) = softmax(0, −r_1, …, −r_C)_c,   0 no mark

on `prediction 1`, the only one that was marked. Questions are dealt into ten folds.

Then whole answers: do the fitted spans say which of two predictions people preferred? Every
pair but ties, of questions in the held-out fold; level scores count ½. 95 % intervals resample
questions.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax import cli
from rlhf_jax.config import ConfigError
from rlhf_jax.data.convert import read_rows
from rlhf_jax.data.formats import FORMATS, Options
from rlhf_jax.data.rows import Row
from rlhf_jax.data.segments import Answers, collect
from rlhf_jax.feedback import comparison, span
from rlhf_jax.ops import scores
from rlhf_jax.ops.intervals import Interval
from rlhf_jax.ops.minimise import minimise
from rlhf_jax.ops.scores import Draws
from rlhf_jax.types import Array

FOLDS = 10
RIDGE = 1e-3
STEPS = 60
KINDS = ("base rates", "place + length", "place + text")
LEAST = 20
"""Marked segments without which a category is not scored."""


def scale(x: Array, weight: Array) -> tuple[Array, Array]:
    """Mean and deviation, at least 0.1, of the columns of x [T, K] under `weight` [T]."""
    share = weight / jnp.maximum(jnp.sum(weight), 1)
    mean = share @ x
    return mean, jnp.sqrt(jnp.maximum(share @ jnp.square(x - mean[None]), 1e-2))


@partial(jax.jit, static_argnames=("count", "steps"))
def fit(
    x: Array,
    category: Array,
    known: Array,
    every: Array,
    count: int,
    ridge: float = RIDGE,
    steps: int = STEPS,
) -> Array:
    """min over w, b of mean ℓ(r) + ridge |w|², r = w · scaled x + b: convex. Vmapped over F folds.

    Args: x [T, K]; category [T] int32 in 0…C; known [F, T] 0 or 1; every [M, K]; count C.
    Returns: rewards [F, M, C] of `every`.
    """

    def one(known: Array) -> Array:
        mean, deviation = scale(x, known)
        share = known / jnp.maximum(jnp.sum(known), 1)

        def rewards(p: tuple[Array, Array], x: Array) -> Array:
            w = p[0] / deviation[:, None]
            return x @ w + (p[1] - mean @ w)[None]

        def loss(p: tuple[Array, Array]) -> Array:
            real = jnp.ones((x.shape[0], 1), bool)
            nll = span.loss(rewards(p, x)[:, None], category[:, None], real)
            return jnp.sum(share * nll) + ridge * jnp.sum(jnp.square(p[0]))

        start = jnp.zeros((x.shape[1], count)), jnp.zeros(count)
        return rewards(minimise(loss, start, steps), every)

    return jax.vmap(one)(known)


@partial(jax.jit, static_argnames="steps")
def fit_pairs(
    x: Array,
    a: Array,
    b: Array,
    label: Array,
    known: Array,
    ridge: float = RIDGE,
    steps: int = STEPS,
) -> Array:
    """Bradley–Terry, r = w · scaled x [A, K]; known [F, P] 0 or 1. Returns rewards [F, A]."""

    def one(known: Array) -> Array:
        mean, deviation = scale(x, jnp.zeros(x.shape[0]).at[a].add(known).at[b].add(known))
        z = (x - mean[None]) / deviation[None]
        share = known / jnp.maximum(jnp.sum(known), 1)

        def loss(w: Array) -> Array:
            r = z @ w
            nll = comparison.bradley_terry(r[a], r[b], label)
            return jnp.sum(share * nll) + ridge * jnp.sum(jnp.square(w))

        return z @ minimise(loss, jnp.zeros(x.shape[1]), steps)

    return jax.vmap(one)(known)


def log_probabilities(rewards: np.ndarray) -> np.ndarray:
    """[..., C] → [..., C + 1]"""
    return np.asarray(jax.nn.log_softmax(span.options(jnp.asarray(rewards)), axis=-1))


def threshold(p: np.ndarray, positive: np.ndarray) -> float:
    """The probability from which on to mark for the greatest F1 on these."""
    order = np.argsort(-p, kind="stable")
    hits = np.cumsum(positive[order])
    f1 = 2 * hits / (np.arange(1, len(p) + 1) + positive.sum())
    return float(p[order][f1.argmax()])


class Held(NamedTuple):
    """Predictions for questions that the model has not seen."""

    rewards: np.ndarray
    """[T, C]"""
    p: np.ndarray
    """[T, C + 1]"""
    marks: np.ndarray
    """[T, C + 1] 1 where marked at the threshold of the known; column 0: any category"""


def features(data: Answers, kind: str) -> np.ndarray:
    """[T, K] of one of `KINDS`"""
    full = np.concatenate([data.place, data.said], 1)
    return full[:, : (0, data.place.shape[1], full.shape[1])[KINDS.index(kind)]]


def predict(data: Answers, kind: str, fold: np.ndarray) -> Held:
    """`fold` [T] int: the part a segment is in; each is predicted by the fit to the others."""
    count, asked = len(data.categories), data.category >= 0
    known = (fold[None] != np.arange(FOLDS)[:, None]) & asked
    x, seen = features(data, kind), known[:, asked].astype(np.float32)
    made = np.asarray(fit(x[asked], data.category[asked], seen, x, count))
    p = np.exp(log_probabilities(made))
    marks = np.zeros(p.shape[1:])
    for i, seen in enumerate(known):
        here = fold == i
        for c in range(count + 1):
            of = lambda rows, c=c, i=i: p[i, rows, c] if c else 1 - p[i, rows, 0]
            positive = data.category[seen] == c if c else data.category[seen] > 0
            marks[here, c] = of(here) >= threshold(of(seen), positive)
    mine = fold, np.arange(len(fold))
    return Held(made[mine], p[mine], marks)


def cell(interval: Interval) -> str:
    return "{:.3f} [{:.3f}, {:.3f}]".format(*interval[:3])


def line(name: str, cells: list[str]) -> str:
    return f"  {name:<26}" + "".join(f"{c:<25}" for c in cells)


def by_category(category: np.ndarray, names: list[str], held: Held, draws: Draws) -> list[str]:
    """AUC, average precision, precision, recall and F1 of each category and of any."""
    out = [line("category", ["share", "AUC", "average precision", "precision", "recall", "F1"])]
    for c, name in enumerate(["any", *names]):
        positive = category == c if c else category > 0
        n = int(positive.sum())
        if n < LEAST:
            out.append(line(f"{name} ({n})", ["too few to score"]))
            continue
        p = held.p[:, c] if c else 1 - held.p[:, 0]
        marks = held.marks[:, c], positive
        cells = [f"{positive.mean():.3f}"]
        for f, arrays in (
            (scores.auc, (p, positive)),
            (scores.average_precision, (p, positive)),
            (scores.precision, marks),
            (scores.recall, marks),
            (scores.f1, marks),
        ):
            cells.append(cell(scores.interval(f, arrays, draws)))
        out.append(line(f"{name} ({n})", cells))
    return out


def losses(category: np.ndarray, found: dict[str, Held], draws: Draws) -> list[str]:
    """Nats a segment, and calibration of the probability of any mark."""
    nats = {k: -np.log(h.p[np.arange(len(category)), category]) for k, h in found.items()}
    out = [line("", ["nats a segment", "… minus base rates", "ECE of any mark"])]
    for k, h in found.items():
        cells = [
            scores.interval(scores.average, (nats[k],), draws),
            scores.interval(scores.average, (nats[k] - nats[KINDS[0]],), draws),
            scores.interval(scores.calibration_error, (1 - h.p[:, 0], category > 0), draws),
        ]
        out.append(line(k, [cell(c) for c in cells]))
    return out


def total(data: Answers, each: np.ndarray) -> np.ndarray:
    """[T] → [A], summed over the segments of an answer."""
    return np.bincount(data.owner, each, len(data.question))


def preferences(data: Answers, held: Held, fold: np.ndarray) -> list[str]:
    """Accuracy of answer-level scores on the preferred of two answers. `fold` [A] int."""
    number = np.maximum(total(data, np.ones(len(data.owner))), 1)
    expected = np.stack([total(data, p) for p in held.p[:, 1:].T], 1)
    clean = total(data, held.p[:, 0])
    spans = np.concatenate([expected, expected / number[:, None], clean[:, None]], 1)
    strict = data.label != 0.5
    known = (fold[data.a][None] != np.arange(FOLDS)[:, None]) & strict
    pairs = data.a, data.b, data.label, known * 1.0

    def fitted(x: np.ndarray) -> np.ndarray:
        made = np.asarray(fit_pairs(x.astype(np.float32), *pairs))
        return made[fold, np.arange(len(fold))]

    length = data.whole[:, :1]
    candidates = {
        "length": length[:, 0],
        "Σ span rewards": total(data, held.rewards.sum(1)),
        "mean span reward": total(data, held.rewards.sum(1)) / number,
        "− expected faulty spans": -expected.sum(1),
        "clean − faulty spans": clean - expected.sum(1),
        "share of clean spans": clean / number,
        "fitted: length": fitted(length),
        "fitted: spans": fitted(spans),
        "fitted: length and spans": fitted(np.concatenate([length, spans], 1)),
        "fitted: 14 surface counts": fitted(data.whole),
    }
    group, hits = data.question[data.a], {}
    for k, r in candidates.items():
        d = r[data.a] - r[data.b]
        hits[k] = np.where(d == 0, 0.5, (d > 0) == (data.label == 1))
    draws = scores.draw(strict * 1.0, group)
    measure = lambda x: cell(scores.interval(scores.average, (x,), draws))
    out = [
        f"\npreferred of two answers, held-out questions ({strict.sum()} pairs, "
        f"{np.mean(~strict):.1%} more are ties)",
        line("", ["accuracy", "… minus length"]),
    ]
    return out + [line(k, [measure(h), measure(h - hits["length"])]) for k, h in hits.items()]


def study(rows: list[Row]) -> list[str]:
    """The lines of the report."""
    data = collect(rows)
    fold = scores.folds(data.question, FOLDS)
    found = {k: predict(data, k, fold[data.owner]) for k in KINDS}
    asked = data.category >= 0
    category, group = data.category[asked], data.question[data.owner[asked]]
    draws = scores.draw(np.ones(len(category)), group)
    told = {k: Held(*(v[asked] for v in h)) for k, h in found.items()}
    out = [
        f"{len(category)} segments of {len(np.unique(data.owner[asked]))} marked answers to "
        f"{len(np.unique(data.question))} questions, {np.mean(category > 0):.1%} marked; "
        f"{data.lost} of {data.spans} spans mark no segment; "
        f"{features(data, KINDS[-1]).shape[1]} features\n",
        *losses(category, told, draws),
    ]
    for kind in KINDS[1:]:
        out += [f"\n{kind}, held-out questions"]
        out += by_category(category, data.categories, told[kind], draws)
    return out + preferences(data, found["place + text"], fold)


def work(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    if len(arguments) != 1:
        raise ConfigError("usage: scripts/spans.py FOLDER with finegrained_rlhf_dev.jsonl.gz")
    path = Path(arguments[0]) / "finegrained_rlhf_dev.jsonl.gz"
    print("\n".join(study(read_rows(path, FORMATS["finegrained_rlhf"], Options()).rows)))


if __name__ == "__main__":
    sys.exit(cli.main(work, sys.argv[1:]))
