"""What is measured: the fitted reward before it is trusted, the policy by gold."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import Evaluate
from rlhf_jax.config import World as WorldSettings
from rlhf_jax.kernels import reward
from rlhf_jax.kernels.collect import corpus_episodes, prompts
from rlhf_jax.kernels.reward import Judge
from rlhf_jax.kernels.sampling import chosen, log_distribution, sample
from rlhf_jax.models.heads import Policy, Scalar
from rlhf_jax.ops import divergences
from rlhf_jax.ops.statistics import calibration, correlation
from rlhf_jax.ops.tokens import fingerprint
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params, World

PAIRS = 8192
"""Pairs of held-out rows on which a reward model is measured."""
BINS = 10
"""Bins of the reliability diagram."""


class Judging(NamedTuple):
    """State of the measuring kernel: the reward model in use, on its scale."""

    judge: Judge
    key: Key
    round: Array


class Candidate(NamedTuple):
    """A policy, what it is compared with and who judges it."""

    policy: Params
    reference: Params
    judge: Judge
    world: WorldSettings
    temperature: Array
    """at which both are sampled and compared"""


class Clock(NamedTuple):
    """State of a kernel that only looks: a key and how often it has looked."""

    key: Key
    looks: Array


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


def reward_kernel(policy: Policy, model: Scalar, world: World, hparams: Evaluate) -> Kernel:
    """Puts a reward model on its scale and measures it on rows nobody was shown.

    Batch: (φ, the reference policy). State: `Judging`.
    """
    held_out = np.flatnonzero(~np.asarray(world.shown))
    pairs = np.random.default_rng(0).integers(0, len(held_out), (2, PAIRS))

    def init(key: Key, params: Params) -> Judging:
        own = jax.tree.map(jnp.copy, params)
        return Judging(Judge(own, jnp.zeros(()), jnp.ones(())), key, jnp.zeros((), jnp.int32))

    def step(state: Judging, batch: tuple[Params, Params]) -> tuple[Judging, Metrics]:
        params, reference = batch
        ask, draw = jax.random.split(jax.random.fold_in(state.key, state.round))
        asked = prompts(world, ask, max(hparams.samples, 512))
        judge = reward.normalise(
            model, params, sample(policy, world.language, reference, asked, draw).episode
        )
        # Behind a barrier: XLA would spend seconds folding the network's masks of constants.
        rows = jax.lax.optimization_barrier(corpus_episodes(world, held_out))
        scores = reward.score(model, judge, rows)
        raw = scores * judge.deviation
        ratings = world.ratings[held_out]
        metrics = agreement(ratings[pairs[0]], ratings[pairs[1]], raw[pairs[0]], raw[pairs[1]])
        ones = jnp.ones(scores.shape)
        length = jnp.sum(rows.mask, axis=1).astype(jnp.float32)
        metrics["reward/correlation_heldout"] = correlation(scores, jnp.mean(ratings, 1), ones)
        metrics["reward/correlation_length"] = correlation(scores, length, ones)
        metrics["reward/deviation"] = judge.deviation
        return Judging(judge, state.key, state.round + 1), metrics

    return Kernel(init, step)


def utility(world: World, settings: WorldSettings, x: Episode) -> tuple[Array, Array]:
    """[B] gold and [B] bool: does the response stand in the corpus?"""
    gold = jax.vmap(world.gold, (None, 0, 0))(settings, x.tokens, x.mask)
    return gold, jax.vmap(world.row)(x.tokens, x.mask) >= 0


def distinct_share(x: Episode) -> Array:
    """Different responses / responses."""
    prints = jnp.sort(jax.vmap(fingerprint)(jnp.where(x.mask, x.tokens + 1, 0)))
    return (1 + jnp.sum(prints[1:] != prints[:-1])) / prints.shape[0]


def policy_kernel(policy: Policy, model: Scalar, world: World, hparams: Evaluate) -> Kernel:
    """Gold, proxy, divergence and variety of a policy's samples. Batch: `Candidate`.

    Metrics named `sample/<decoding>/…` are responses themselves: the first `hparams.shown`
    sampled ones and one greedy one.
    """

    def init(key: Key) -> Clock:
        return Clock(key, jnp.zeros((), jnp.int32))

    n, few = hparams.samples, hparams.shown

    def step(state: Clock, given: Candidate) -> tuple[Clock, Metrics]:
        ask, draw = jax.random.split(jax.random.fold_in(state.key, state.looks))
        # The last row is decoded greedily, by the same program as the rest.
        greedy = jnp.arange(n + 1) == n
        asked = prompts(world, ask, n + 1)
        heat = given.temperature
        roll = sample(policy, world.language, given.policy, asked, draw, heat, greedy=greedy)
        x = roll.episode
        gold, known = utility(world, given.world, x)
        proxy = reward.score(model, given.judge, x)
        reference = log_distribution(policy, given.reference, x, heat)
        exact = jnp.where(x.mask, divergences.exact(roll.distribution, reference), 0.0)
        metrics = {
            "eval/gold_sampled": jnp.mean(gold[:n]),
            "eval/gold_greedy": gold[n],
            "eval/proxy_sampled": jnp.mean(proxy[:n]),
            "eval/nonword_share": jnp.mean(~known[:n]),
            "eval/distinct_share": distinct_share(jax.tree.map(lambda leaf: leaf[:n], x)),
            "eval/kl_exact": jnp.mean(jnp.sum(exact[:n], axis=1)),
            "eval/kl_sampled": jnp.mean(jnp.sum((roll.logps - chosen(reference, x))[:n], axis=1)),
        }
        columns = {
            "tokens": x.tokens,
            "mask": x.mask,
            "reward": proxy,
            "gold": gold,
            "rated": known,
        }
        for name, column in columns.items():
            metrics[f"sample/sampled/{name}"] = column[:few]
            metrics[f"sample/greedy/{name}"] = column[n:]
        return Clock(state.key, state.looks + 1), metrics

    return Kernel(init, step)


def sequence_log_probs(policy: Policy, params: Params, x: Episode) -> Array:
    """[B]: log π(x | prompt), nats, at temperature 1."""
    return jnp.sum(chosen(log_distribution(policy, params, x), x), axis=1)
