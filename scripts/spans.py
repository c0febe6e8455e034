"""What is wrong where? Span reward models of fine-grained RLHF, on questions never seen.

    python scripts/spans.py ../shared/data        # FineGrainedRLHF, 400 questions: 1 minute

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

import json
import sys
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
from rlhf_jax.data.relations import relation, run, segments, tokens
from rlhf_jax.data.rows import Comparison, Row, Span, Spans
from rlhf_jax.feedback import comparison, span
from rlhf_jax.ops import scores
from rlhf_jax.ops.intervals import Interval
from rlhf_jax.ops.minimise import minimise
from rlhf_jax.ops.scores import Draws
from rlhf_jax.types import Array

FOLDS = 10
RIDGE = 1e-3
STEPS = 60
PLACES = 6
KINDS = ("base rates", "place + length", "place + text")
LEAST = 20
"""Marked segments without which a category is not scored."""


class Answers(NamedTuple):
    """T segments of A answers to Q questions; P pairs of answers."""

    categories: list[str]
    """C, the most frequent first"""
    question: np.ndarray
    """[A] int"""
    owner: np.ndarray
    """[T] int, answer of a segment"""
    category: np.ndarray
    """[T] int32: 0 none, 1…C; −1 where nobody was asked"""
    tables: dict[str, np.ndarray]
    """kind → [T, K] features"""
    whole: np.ndarray
    """[A, K] features of whole answers, the first the log of the length"""
    a: np.ndarray
    """[P] int, answer"""
    b: np.ndarray
    label: np.ndarray
    """[P] 1 a preferred, 0 b, ½ a tie"""
    spans: int
    """Marked spans"""
    lost: int
    """Those that mark no segment: a longer one does, or the segment is mostly outside"""


def mark(parts: list[tuple[int, int]], spans: tuple[Span, ...]) -> list[int]:
    """Of each segment the index of the span that marks it, −1 for none."""
    out = []
    for start, end in parts:
        shared = [min(end, s.end) - max(start, s.start) for s in spans]
        enough = [
            o if o > 0 and 2 * o >= min(end - start, s.end - s.start) else 0
            for o, s in zip(shared, spans, strict=True)
        ]
        out.append(int(np.argmax(enough)) if any(enough) else -1)
    return out


def describe(answer: str, question: list[str], passages: list[list[str]]) -> tuple[list, list]:
    """Place [PLACES] and text [K] of each segment of an answer."""
    parts, where, said = segments(answer), [], []
    known = set().union(*passages) if passages else set()
    for i, (start, end) in enumerate(parts):
        piece, left = answer[start:end], len(parts) - 1 - i
        own, before = tokens(piece), tokens(answer[:start])
        nearest = max(passages, key=lambda p: len(set(own) & set(p)) / (9 + len(p)), default=[])
        found = [np.mean([t in known for t in own]) if own else 0.0]
        numbers = [t for t in own if t.isdigit()]
        found.append(sum(t not in known for t in numbers))
        where.append(
            [np.log1p(i), np.log1p(left), i == 0, left == 0, i / len(parts), np.log1p(len(piece))]
        )
        beside = [relation(own, other) for other in (question, nearest, before)]
        said.append(np.concatenate([text.surface(piece), *beside, run(own, nearest), found]))
    return where, said


def collect(rows: list[Row]) -> Answers:
    """Rows of one file → arrays. Raises `ConfigError` where there are no spans or no pairs."""
    marked = [r for r in rows if isinstance(r, Spans)]
    pairs = [r for r in rows if isinstance(r, Comparison)]
    if not marked or not pairs:
        raise ConfigError("there must be marked spans and compared answers")
    tally: dict[str, int] = {}
    for s in (s for r in marked for s in r.spans):
        tally[s.category] = tally.get(s.category, 0) + 1
    categories = sorted(tally, key=lambda c: -tally[c])
    asked = {r.item: r for r in marked}
    questions = {name: i for i, name in enumerate(sorted({r.prompt for r in marked}))}
    answers: dict[tuple[str, str], int] = {}
    texts: list[str] = []
    for p in pairs:
        for name, x in ((p.a_id, p.a), (p.b_id, p.b)):
            if (p.item, name) not in answers:
                answers[p.item, name] = len(texts)
                texts.append(x[0].content)
    where, said, owner, category, lost = [], [], [], [], 0
    for (item, name), index in answers.items():
        row = asked[item]
        record = json.loads(row.extra)["record"]
        passages = [tokens(s) for p in record.get("passages", []) for s in p[1:]]
        placed, described = describe(texts[index], tokens(row.prompt[0].content), passages)
        parts = segments(texts[index])
        where += placed
        said += described
        owner += [index] * len(parts)
        if name == row.x_id:
            by = mark(parts, row.spans)
            lost += len(set(range(len(row.spans))) - set(by))
            category += [0 if k < 0 else 1 + categories.index(row.spans[k].category) for k in by]
        else:
            category += [-1] * len(parts)
    placed = np.array(where, float)
    full = np.concatenate([placed, np.array(said)], 1)
    tables = {"base rates": full[:, :0], "place + length": placed, "place + text": full}
    return Answers(
        categories=categories,
        question=np.array([questions[asked[item].prompt] for item, _ in answers]),
        owner=np.array(owner),
        category=np.array(category, np.int32),
        tables={k: v.astype(np.float32) for k, v in tables.items()},
        whole=np.stack([text.surface(t) for t in texts]).astype(np.float32),
        a=np.array([answers[p.item, p.a_id] for p in pairs]),
        b=np.array([answers[p.item, p.b_id] for p in pairs]),
        label=np.array([p.label for p in pairs], np.float32),
        spans=sum(tally.values()),
        lost=lost,
    )


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


def predict(data: Answers, kind: str, fold: np.ndarray) -> Held:
    """`fold` [T] int: the part a segment is in; each is predicted by the fit to the others."""
    count, asked = len(data.categories), data.category >= 0
    known = (fold[None] != np.arange(FOLDS)[:, None]) & asked
    x, seen = data.tables[kind], known[:, asked].astype(np.float32)
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
    return f"  {name:<26}" + "".join(f"{c:<22}" for c in cells)


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
        f"{data.tables['place + text'].shape[1]} features\n",
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
