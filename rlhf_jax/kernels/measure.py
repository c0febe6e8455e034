"""The fitted reward, measured on what nobody was shown, before it is trusted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import Evaluate, Human
from rlhf_jax.config import World as WorldSettings
from rlhf_jax.feedback.comparison import probabilities
from rlhf_jax.humans import person
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
BLOCK = 1024
"""Of these, how many have what people would say of them computed at once."""
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


class Side(NamedTuple):
    """One side of N pairs of rows."""

    ratings: Array
    """[N, R]: what R raters said of each row"""
    second: Array
    """[N]: its second value dimension, in deviations"""
    scores: Array
    """[N]"""


def agreement(a: Side, b: Side, people: Human) -> Metrics:
    """How well scores and people predict which of two rows one person values more.

    A person values a row at u = a rating of it + `second` · its second dimension, the latter
    negative for the minority. With p = P(u_a > u_b) and q = P(u_a < u_b) over ratings i, j of
    the two rows and over people, all numbers are exact in the ratings and are shares of the
    untied comparisons Σ (p + q), nobody's noise in them:

      model   picks p or q by its scores, ½ of both where it does not know
      human   Σ_ij [P_ij(u_a > u_b) A_ij + P_ij(u_a < u_b) B_ij] / (A_ij + B_ij), with A_ij and B_ij
              the mean probability that another of the run's people (`answered`) says a or b,
              over ratings i′ ≠ i of a and j′ ≠ j of b; ½ where they would say neither
      mean    the same, the other's impression of a row being the mean of its other ratings

    Where a row has one rating it is everybody's. Ceilings are of what people would say with all
    their lapses, flips, ties, noise and biases: ½ for those who answer by a coin.
    """
    wants = people.second * jnp.asarray([1.0, -1.0])
    gap = a.ratings[:, :, None] - b.ratings[:, None, :]
    more = (a.second - b.second)[:, None, None]
    share = jnp.stack([1.0 - people.minority, jnp.asarray(people.minority)])
    average = lambda f: sum(share[g] * f(gap + wants[g] * more) for g in (0, 1))
    says_a, says_b = average(lambda d: d > 0), average(lambda d: d < 0)
    p, q = jnp.mean(says_a, (1, 2)), jnp.mean(says_b, (1, 2))
    untied = p + q
    total = jnp.maximum(jnp.sum(untied), 1e-9)
    hit = jnp.where(a.scores > b.scores, p, jnp.where(a.scores < b.scores, q, 0.5 * untied))
    d = a.scores - b.scores
    log_p, log_q, probability = jax.nn.log_sigmoid(d), jax.nn.log_sigmoid(-d), jax.nn.sigmoid(d)
    outcome = p / jnp.maximum(untied, 1e-9)
    predicted, observed, weight = calibration(probability, outcome, untied, BINS)
    brier = p * jnp.square(1 - probability) + q * jnp.square(probability)
    right = lambda chosen: jnp.sum(says_a * chosen + says_b * (1.0 - chosen)) / gap[0].size / total
    another, mean = ceilings(a, b, people)
    return {
        "reward/accuracy_heldout": jnp.sum(hit) / total,
        "reward/ceiling_human": right(another),
        "reward/ceiling_mean": right(mean),
        "reward/logloss": -jnp.sum(p * log_p + q * log_q) / total,
        "reward/brier": jnp.sum(brier) / total,
        "reward/ece": jnp.sum(weight * jnp.abs(predicted - observed)) / total,
        "reward/calibration_predicted": predicted,
        "reward/calibration_observed": observed,
        "reward/calibration_weight": weight / total,
    }


def answered(people: Human, a: Array, b: Array, second_a: Array, second_b: Array) -> Array:
    """[...] ratings, [] second dimensions → [..., 2]: P that one of the run's people says a or b.

    The mean over the four groups: of the majority's or the minority's mind, poisoned or not, as
    `kernels.collect` perceives for them; their shares are those asked for, whole people or not.
    """
    m, bad = jnp.asarray(people.minority), jnp.asarray(people.poisoned)
    both = jnp.maximum(m + bad - 1.0, 0.0)  # the first people are the minority, the last poisoned
    who = person(people)

    def some(share: Array, want: Array, sign: Array) -> Array:
        more = want * people.second + people.length_bias
        said = probabilities(who, sign * (a + more * second_a), sign * (b + more * second_b))
        return share * said[..., ::2]

    def one(group: tuple[Array, Array, Array]) -> Array:
        nobody = lambda *_: jnp.zeros((*jnp.broadcast_shapes(a.shape, b.shape), 2))
        return jax.lax.cond(group[0] > 0, some, nobody, *group)

    shares = jnp.stack([1.0 - m - bad + both, m - both, bad - both, both])
    wants, signs = jnp.asarray([1.0, -1.0, 1.0, -1.0]), jnp.asarray([1.0, 1.0, -1.0, -1.0])
    return jnp.sum(jax.lax.map(one, (shares, wants, signs)), axis=0)


def ceilings(a: Side, b: Side, people: Human) -> tuple[Array, Array]:
    """[N, R, R] each: the share of a among what others say, a or b, who are not raters i and j.

    Another person, and a person whose impressions are the means of the others'; see `agreement`.
    """

    def chosen(said: Array) -> Array:
        either = said[..., 0] + said[..., 1]
        return jnp.where(either > 1e-6, said[..., 0] / jnp.maximum(either, 1e-6), 0.5)

    def pair(sides: tuple[Side, Side]) -> tuple[Array, Array]:
        x, y = sides
        say = partial(answered, people, second_a=x.second, second_b=y.second)
        each = say(x.ratings[:, None], y.ratings[None, :])
        mean = say(_without(x.ratings, 0)[:, None], _without(y.ratings, 0)[None, :])
        return chosen(_without(_without(each, 0), 1)), chosen(mean)

    return jax.lax.map(pair, (a, b), batch_size=BLOCK)


def _without(x: Array, axis: int) -> Array:
    """At each index of the axis the mean over the others; the value itself where it is alone."""
    n = x.shape[axis]
    return x if n == 1 else (jnp.sum(x, axis=axis, keepdims=True) - x) / (n - 1)


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
        second = jax.vmap(world.second, (None, 0, 0))(given.world, rows.tokens, rows.mask)
        gold = utility(world, given.world, given.human, rows)[0]
        every = Side(world.ratings[held_out], second, raw)
        a, b = (jax.tree.map(lambda leaf, i=i: leaf[pairs[i]], every) for i in (0, 1))
        metrics = agreement(a, b, given.human)
        if panel.log_prior.shape[0] > 1:
            metrics["reward/share"] = jnp.exp(panel.log_prior)
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
