"""Which argument convinces? Reward models of real people's comparisons, on debates never seen.

    .venv/bin/python scripts/convincing.py ../shared/data  # UKPConvArg1: 3 minutes on 2 CPU cores

A reward is linear in numbers that describe an argument's text, fitted by Davidson's likelihood
with its ties. Each debate is held out in turn; the ridge weight of the word features is chosen
by holding out a second debate among the rest. Two targets: *decided* pairs, of which one side
has more labels than the other and than 'equal'; and *all* pairs of which one side has more than
the other. Level rewards count ½. 95 % intervals resample whole debates, paired in differences.
A person is compared with
the majority of the others under the same rule, and so is the model in that person's place.

Reliability: every argument has a reward of its own, every worker a rationality β_w and a
readiness ν_w to call things equal,

    P(y | d, w) = Davidson(β_w d, ν ν_w),   log β_w, log ν_w ~ Normal(0, 1),  r ~ Normal(0, 2²)

fitted together (MAP). β_w is compared with MACE's competence, which comes with the data and
which the fit does not see; beside it two estimates from labels alone: the share of answers in
which a worker said what most others said, and Dawid & Skene's accuracy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from scipy import stats

from rlhf_jax import cli
from rlhf_jax.config import ConfigError
from rlhf_jax.data import text
from rlhf_jax.data.arrays import Answers, collect, peers
from rlhf_jax.data.convert import load_arguments, read_rows
from rlhf_jax.data.formats import FORMATS, Options
from rlhf_jax.data.rows import Comparison
from rlhf_jax.feedback.comparison import log_davidson
from rlhf_jax.feedback.reliability import Votes, accuracy, dawid_skene
from rlhf_jax.types import Array

RIDGES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
SURFACE_RIDGE = 1e-3
BUCKETS = 4096
STEPS = 60


def minimise(loss: Callable[[Any], Array], start: Any, steps: int) -> Any:
    """`steps` of L-BFGS from `start`."""
    solver = optax.lbfgs(linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=20))
    evaluate = optax.value_and_grad_from_state(loss)

    def body(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], None]:
        at, state = carry
        value, grad = evaluate(at, state=state)
        move, state = solver.update(grad, state, at, value=value, grad=grad, value_fn=loss)
        return (optax.apply_updates(at, move), state), None

    return jax.lax.scan(body, (start, solver.init(start)), length=steps)[0][0]


@partial(jax.jit, static_argnames="steps")
def fit_text(
    features: Array, a: Array, b: Array, counts: Array, ridge: Array, steps: int = STEPS
) -> tuple[Array, Array]:
    """min over w, log ν of −Σ n log Davidson(d) / Σ n + Σ_k ridge_k w_k², r = features · w: convex.

    Args: features [N, K]; a, b [P]; counts [P, 3], 0 leaves a pair out; ridge [K].
    Returns: rewards [N] and log ν.
    """

    def loss(p: tuple[Array, Array]) -> Array:
        r = features @ p[0]
        told = jnp.sum(counts * log_davidson(r[a] - r[b], p[1]))
        return jnp.sum(ridge * jnp.square(p[0])) - told / jnp.sum(counts)

    w, tie = minimise(loss, (jnp.zeros(features.shape[1]), jnp.zeros(())), steps)
    return features @ w, tie


class Fitted(NamedTuple):
    """The reliability model's numbers."""

    reward: Array
    """[N]"""
    tie: Array
    """log ν"""
    rationality: Array
    """[W] log β_w"""
    own_tie: Array
    """[W] log ν_w"""


@partial(jax.jit, static_argnames=("arguments", "people", "steps"))
def fit_people(
    a: Array, b: Array, said: Array, who: Array, arguments: int, people: int, steps: int = 200
) -> Fitted:
    """MAP of the reliability model at the top of this file; a, b, said, who are [R] int32."""

    def loss(p: Fitted) -> Array:
        d = jnp.exp(p.rationality[who]) * (p.reward[a] - p.reward[b])
        log_p = log_davidson(d, p.tie + p.own_tie[who])
        told = jnp.sum(jnp.take_along_axis(log_p, said[:, None], axis=1))
        prior = jnp.sum(jnp.square(p.reward / 2.0))
        prior += jnp.sum(jnp.square(p.rationality)) + jnp.sum(jnp.square(p.own_tie))
        return (0.5 * prior - told) / said.shape[0]

    each = jnp.zeros(people)
    return minimise(loss, Fitted(jnp.zeros(arguments), jnp.zeros(()), each, each), steps)


class Held(NamedTuple):
    """Predictions for pairs of debates that the model did not see."""

    difference: np.ndarray
    """[P] r_a − r_b"""
    log_p: np.ndarray
    """[P, 3]"""


def features(known: np.ndarray, kind: str, tables: dict[str, np.ndarray]) -> Any:
    """([N, K] features, [K] 1 where a column is a word); statistics from `known` [N] only."""
    surface = text.standardise(tables["surface"], known)
    if kind == "length":
        surface = surface[:, :1]
    words = text.tf_idf(tables["words"], known)
    words = words if kind == "surface + words" else words[:, :0]
    is_word = np.repeat([0.0, 1.0], [surface.shape[1], words.shape[1]])
    return np.concatenate([surface, words], 1).astype(np.float32), is_word.astype(np.float32)


def predict(data: Answers, out: tuple[int, ...], kind: str, tables: Any, ridge: float) -> Held:
    """Fits on all debates but `out`; predictions for all pairs."""
    known = ~np.isin(data.place, out)
    x, is_word = features(known, kind, tables)
    counts = data.counts * known[data.a][:, None]
    penalty = np.where(is_word > 0, ridge, SURFACE_RIDGE).astype(np.float32)
    reward, tie = fit_text(x, data.a, data.b, counts.astype(np.float32), penalty)
    d = np.asarray(reward)[data.a] - np.asarray(reward)[data.b]
    return Held(d, np.asarray(log_davidson(jnp.asarray(d), tie)))


def cross_validate(data: Answers, kind: str, tables: Any) -> tuple[Held, list[float]]:
    """Every debate's pairs as predicted without it, and the ridge weight chosen for each."""
    debates = range(len(data.groups))
    place, counts = data.place[data.a], data.counts
    ridges = RIDGES if kind == "surface + words" else RIDGES[:1]
    score = np.zeros((len(debates), len(ridges)))
    for i in debates if len(ridges) > 1 else ():
        for j in range(i):
            for k, ridge in enumerate(ridges):
                told = (predict(data, (i, j), kind, tables, ridge).log_p * counts).sum(1)
                score[i, k] += told[place == j].sum()
                score[j, k] += told[place == i].sum()
    chosen = [ridges[k] for k in score.argmax(1)]
    d, log_p = np.zeros(len(data.a)), np.zeros((len(data.a), 3))
    for i in debates:
        found = predict(data, (i,), kind, tables, chosen[i])
        d[place == i], log_p[place == i] = (v[place == i] for v in found)
    return Held(d, log_p), chosen


def interval(hits: np.ndarray, weights: np.ndarray, place: np.ndarray, seed: int = 0) -> str:
    """Σ hits / Σ weights with a 95 % interval over resampled debates."""
    count = int(place.max()) + 1
    top, bottom = (np.bincount(place, v, count) for v in (hits, weights))
    drawn = np.random.default_rng(seed).integers(0, count, (10_000, count))
    low, high = np.percentile(top[drawn].sum(1) / bottom[drawn].sum(1), [2.5, 97.5])
    return f"{top.sum() / bottom.sum():.3f} [{low:.3f}, {high:.3f}]"


def accuracies(data: Answers, found: dict[str, Held]) -> list[str]:
    """The models and people on both targets."""
    counts, place = data.counts, data.place[data.a]
    strict = counts * [1, 0, 1]
    out = []
    for name, votes in (("decided", counts), ("all", strict)):
        lead = np.maximum(votes[:, 0], votes[:, 2])
        mask = (lead > np.minimum(votes[:, 0], votes[:, 2])) & (lead > votes[:, 1])
        right = {
            k: np.where(h.difference == 0, 0.5, (h.difference > 0) == (votes[:, 0] > votes[:, 2]))
            for k, h in found.items()
        }
        out.append(f"\naccuracy on held-out debates, {name} pairs ({mask.sum()})")
        for k, hit in right.items():
            out.append(line(k, interval(hit * mask, mask, place)))
        gain = right["surface + words"] - right["length"]
        out.append(line("… minus length", interval(gain * mask, mask, place)))
        most = peers(data, votes)
        chance = np.isin(most, (0, 2)) & (data.said != 1)
        where = place[data.pair]
        out.append(f"  where a person is compared with the others ({chance.sum()} answers)")
        out.append(line("the person", interval(chance & (data.said == most), chance, where)))
        model = found["surface + words"].difference[data.pair] > 0
        agreed = chance & (model == (most == 0))
        out.append(line("surface + words", interval(agreed, chance, where)))
        ahead = agreed * 1.0 - (chance & (data.said == most))
        out.append(line("… minus the person", interval(ahead, chance, where)))
    return out


def line(name: str, value: str) -> str:
    return f"  {name:<28} {value}"


def losses(data: Answers, found: dict[str, Held]) -> list[str]:
    """Log-loss of every single answer, ties among them."""
    counts, place = data.counts, data.place[data.a]
    total = counts.sum(1)
    base = np.log(counts.sum(0) / counts.sum())
    out = ["\nlog-loss of one answer (a, equal, b), nats"]
    out.append(line("base rates", interval(-counts @ base, total, place)))
    for k, held in found.items():
        out.append(line(k, interval(-(counts * held.log_p).sum(1), total, place)))
    expected = np.exp(found["surface + words"].log_p[:, 1]) @ total / total.sum()
    return [*out, f"  ties: said {counts[:, 1].sum() / total.sum():.3f}, expected {expected:.3f}"]


def study(rows: list[Comparison]) -> list[str]:
    """The lines of the report."""
    data = collect(rows)
    texts = [x[0].content for x in data.samples]
    tables = {
        "surface": np.stack([text.surface(t) for t in texts]),
        "words": text.hashed_counts(texts, BUCKETS),
    }
    made = {k: cross_validate(data, k, tables) for k in ("length", "surface", "surface + words")}
    found = {k: held for k, (held, _) in made.items()}
    kept = {r.annotator: json.loads(r.extra)["answer"]["competence"] for r in rows}
    competence = np.array([kept[name] for name in data.people])
    return [
        f"{len(data.pair)} answers by {len(data.people)} workers, {len(data.a)} pairs, "
        f"{len(texts)} arguments, {len(data.groups)} debates",
        *accuracies(data, found),
        *losses(data, found),
        f"  ridge weights chosen: {sorted(set(made['surface + words'][1]))}",
        *reliability(data, competence),
    ]


def with_most_others(data: Answers) -> np.ndarray:
    """[W] share of a worker's answers that have the others' strict majority; NaN without one."""
    most = peers(data, data.counts)
    agreed, chances = (
        np.bincount(data.who, v, len(data.people)) for v in (most == data.said, most >= 0)
    )
    return np.where(chances > 0, agreed / np.maximum(chances, 1), np.nan)


def reliability(data: Answers, competence: np.ndarray) -> list[str]:
    """Three estimates of who is to be believed, compared with MACE's competence."""
    people, pairs = len(data.people), len(data.a)
    a, b = data.a[data.pair], data.b[data.pair]
    p = fit_people(a, b, data.said, data.who, len(data.samples), people)
    votes = Votes(*(jnp.asarray(v) for v in (data.pair, data.who, data.said)), jnp.ones(len(a)))
    labels = jax.jit(partial(dawid_skene, smoothing=1.0), static_argnums=(1, 2, 3))
    estimates = {
        "β_w of the joint fit": np.asarray(p.rationality),
        "Dawid & Skene accuracy": np.asarray(accuracy(labels(votes, pairs, people, 3))),
        "with most others": with_most_others(data),
    }
    answers = np.bincount(data.who)
    spread = np.exp(np.percentile(p.rationality, [5, 50, 95]))
    out = ["\nreliability against MACE competence: correlation r, rank correlation ρ"]
    for least in (1, 5, 10, 20, 50):
        out.append(f"  workers with ≥ {least} answers: {(answers >= least).sum()}")
        for name, estimate in estimates.items():
            keep = (answers >= least) & np.isfinite(estimate)
            x, y = estimate[keep], competence[keep]
            r, rho = stats.pearsonr(x, y)[0], stats.spearmanr(x, y)[0]
            out.append(f"    {name:<26} r {r:.2f}, ρ {rho:.2f}")
    return [*out, f"  β_w at 5, 50, 95 %: {spread[0]:.2f}, {spread[1]:.2f}, {spread[2]:.2f}"]


def work(arguments: list[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return
    if len(arguments) != 1:
        raise ConfigError("usage: scripts/convincing.py FOLDER with the files of UKPConvArg1")
    folder = Path(arguments[0])
    options = Options(arguments=load_arguments(folder / "ukpconvarg1_args.json.gz"))
    rows = read_rows(folder / "ukpconvarg1_pairs.jsonl.gz", FORMATS["ukpconvarg1"], options).rows
    print("\n".join(study([r for r in rows if isinstance(r, Comparison)])))


if __name__ == "__main__":
    sys.exit(cli.main(work, sys.argv[1:]))
