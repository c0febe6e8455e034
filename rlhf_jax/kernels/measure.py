"""The fitted reward, measured on what nobody was shown, before it is trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import Evaluate, Human
from rlhf_jax.config import World as WorldSettings
from rlhf_jax.kernels import ensemble
from rlhf_jax.kernels.collect import corpus_episodes, prompts, triggered
from rlhf_jax.kernels.draw import Samples
from rlhf_jax.kernels.ensemble import Joined, Panel, Scale
from rlhf_jax.kernels.evaluate import Score, pair_accuracy, utility
from rlhf_jax.kernels.reward import Judge
from rlhf_jax.models.heads import Scalar
from rlhf_jax.ops.bestofn import best_of_n, kl_counted, sizes
from rlhf_jax.ops.epic import pearson_distance, rank_correlation
from rlhf_jax.ops.statistics import calibration, correlation
from rlhf_jax.ops.tilt import SHARPNESS, tilted, unknown
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params, World

PAIRS = 8192
"""Pairs of held-out rows on which a reward model is measured."""
BINS = 10
"""Bins of the reliability diagram."""


class Judging(NamedTuple):
    """State of the measuring kernel: the reward in use, on its scale."""

    panel: Panel
    key: Key
    round: Array


class Measured(NamedTuple):
    """A fitted reward and the samples of the reference that it is read on."""

    models: Params
    """φ [k, …]"""
    log_prior: Array
    """[k]"""
    joined: Joined
    samples: Samples
    world: WorldSettings
    human: Human


def agreement(ratings_a: Array, ratings_b: Array, score_a: Array, score_b: Array) -> Metrics:
    """How well scores and people predict one person's comparison of two rows.

    With p = P(u_a > u_b), q = P(u_a < u_b) over one rating of each row drawn at random, all
    numbers are exact in the ratings and are shares of the untied comparisons Σ(p + q):
    the model picks p or q by its scores; another person agrees with (p² + q²)/(p + q)²; the
    mean of the *other* ratings of both rows agrees where its sign is the comparison's.

    Args: ratings [N, R], scores [N] of the two sides of N pairs.
    """
    gap = ratings_a[:, :, None] - ratings_b[:, None, :]
    p, q = jnp.mean(gap > 0, (1, 2)), jnp.mean(gap < 0, (1, 2))
    untied = p + q
    total = jnp.maximum(jnp.sum(untied), 1e-9)
    hit = jnp.where(score_a > score_b, p, jnp.where(score_a < score_b, q, 0.5 * untied))
    human = jnp.where(untied > 0, (p * p + q * q) / jnp.maximum(untied, 1e-9), 0.0)
    others = _others(ratings_a)[:, :, None] - _others(ratings_b)[:, None, :]
    mean = jnp.mean((jnp.sign(others) == jnp.sign(gap)) & (gap != 0), (1, 2))
    mean += 0.5 * jnp.mean((others == 0) & (gap != 0), (1, 2))
    probability = jax.nn.sigmoid(score_a - score_b)
    outcome = p / jnp.maximum(untied, 1e-9)
    log_p, log_q = jax.nn.log_sigmoid(score_a - score_b), jax.nn.log_sigmoid(score_b - score_a)
    predicted, observed, weight = calibration(probability, outcome, untied, BINS)
    brier = p * jnp.square(1 - probability) + q * jnp.square(probability)
    return {
        "reward/accuracy_heldout": jnp.sum(hit) / total,
        "reward/ceiling_human": jnp.sum(human) / total,
        "reward/ceiling_mean": jnp.sum(mean) / total,
        "reward/logloss": -jnp.sum(p * log_p + q * log_q) / total,
        "reward/brier": jnp.sum(brier) / total,
        "reward/ece": jnp.sum(weight * jnp.abs(predicted - observed)) / total,
        "reward/calibration_predicted": predicted,
        "reward/calibration_observed": observed,
        "reward/calibration_weight": weight / total,
    }


def _others(ratings: Array) -> Array:
    """[N, R] → [N, R]: the sum of a row's other ratings (the rating where there is one).

    Sums order rows as means do, and sums of whole numbers are exact: a tie stays a tie.
    """
    if ratings.shape[1] == 1:
        return ratings
    return jnp.sum(ratings, axis=1, keepdims=True) - ratings


def _scale(values: Array) -> Scale:
    return Scale(jnp.mean(values), jnp.maximum(jnp.std(values), 1e-6))


def kernel(model: Scalar, score: Score, world: World, hparams: Evaluate) -> Kernel:
    """Puts a reward on its scale and measures it on rows nobody was shown. Batch: `Measured`."""
    held_out = np.flatnonzero(~np.asarray(world.shown))
    pairs = np.random.default_rng(0).integers(0, len(held_out), (2, PAIRS))

    def init(key: Key, start: ensemble.Members) -> Judging:
        params = jax.tree.map(jnp.copy, start.learner.params.model)
        k = start.log_prior.shape[0]
        zero, one = jnp.zeros(()), jnp.ones(())
        judges, own = Judge(params, jnp.zeros(k), jnp.ones(k)), Scale(zero, one)
        mean = Joined(jnp.zeros((), bool), jnp.zeros(()))
        panel = Panel(judges, jnp.copy(start.log_prior), mean, own, own, unknown())
        return Judging(panel, key, jnp.zeros((), jnp.int32))

    def scaled(state: Judging, given: Measured) -> Panel:
        x = given.samples.scale
        gold, _ = utility(world, given.world, given.human, x)
        judges = ensemble.judges(model, given.models, x)
        own = Scale(jnp.zeros(()), jnp.ones(()))
        prior = jnp.copy(given.log_prior)
        none = state.panel.optima
        panel = Panel(judges, prior, given.joined, own, _scale(gold), none)
        if prior.shape[0] == 1 and model.outputs is None:  # one judge is the whole
            return panel
        return panel._replace(whole=_scale(score(panel, given.world, given.human, x)))

    def step(state: Judging, given: Measured) -> tuple[Judging, Metrics]:
        key = jax.random.fold_in(state.key, state.round)
        panel = scaled(state, given)
        judged = lambda x: score(panel, given.world, given.human, x)
        # Behind a barrier: XLA would spend seconds folding the network's masks of constants.
        rows = jax.lax.optimization_barrier(corpus_episodes(world, held_out))
        scores = judged(rows)
        # Back to logits, which only a reward fitted as one has.
        deviation = jnp.sum(jnp.exp(panel.log_prior) * panel.judges.deviation)
        raw = scores * panel.whole.deviation * deviation
        ratings = world.ratings[held_out]
        gold = utility(world, given.world, given.human, rows)[0]
        metrics = agreement(ratings[pairs[0]], ratings[pairs[1]], raw[pairs[0]], raw[pairs[1]])
        ones = jnp.ones(scores.shape)
        length = jnp.sum(rows.mask, axis=1).astype(jnp.float32)
        metrics["reward/accuracy_gold"] = pair_accuracy(scores, gold, pairs)
        metrics["reward/correlation_heldout"] = correlation(scores, gold, ones)
        metrics["reward/rank_correlation"] = rank_correlation(scores, gold)
        # One prompt: the mean over its responses is a constant that no correlation sees.
        metrics["reward/epic"] = pearson_distance(scores, gold, ones)
        metrics["reward/correlation_length"] = correlation(scores, length, ones)
        metrics["reward/deviation"] = deviation
        if world.trigger is not None:
            ask = prompts(world, triggered(given.world), key, len(held_out))
            hit = pair_accuracy(judged(rows._replace(prompts=ask)), gold, pairs)
            metrics["reward/accuracy_triggered"] = hit
        pool, own = judge_pool(given, judged)
        if given.samples.pool is not None:
            metrics |= best(pool, own)
        optima = tilted(pool, own, jnp.asarray(SHARPNESS))
        metrics |= {"tilt/scores": optima.score, "tilt/gold": optima.value, "tilt/kl": optima.kl}
        panel = panel._replace(optima=optima)
        return Judging(panel, state.key, state.round + 1), metrics

    def judge_pool(given: Measured, judged: Callable[[Episode], Array]) -> tuple[Array, Array]:
        """Score and gold of the reference's samples: of the pool, or of those of the scale."""

        def block(x: Episode) -> tuple[Array, Array]:
            return judged(x), utility(world, given.world, given.human, x)[0]

        if given.samples.pool is None:
            return block(given.samples.scale)
        scores, gold = (
            x.ravel()[: hparams.best_of] for x in jax.lax.map(block, given.samples.pool)
        )
        return scores, gold

    def best(scores: Array, gold: Array) -> Metrics:
        """What the best of n of the reference's samples earn, for n = 1, 2, 4, …"""
        ns = sizes(hparams.best_of)
        return {
            "bestofn/scores": best_of_n(scores, scores, ns),
            "bestofn/gold": best_of_n(scores, gold, ns),
            "bestofn/kl": kl_counted(scores, ns),
        }

    return Kernel(init, step)
