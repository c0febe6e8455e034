"""The fitted reward, measured on what nobody was shown, before it is trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import Evaluate
from rlhf_jax.config import World as WorldSettings
from rlhf_jax.feedback.comparison import probabilities
from rlhf_jax.humans import Human, Moment, Perceived, perception
from rlhf_jax.humans.population import People, shares
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
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params, Prompts, World
from rlhf_jax.worlds.texts import Unseen

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
    people: People
    time: Array
    """in rounds"""


class Side(NamedTuple):
    """One side of N pairs of rows."""

    valued: Array
    """[N, G, R]: what each row is worth to one of each group, as it strikes R people"""
    seen: Array
    """[N, G, R]: how they perceive it, biases and all"""
    whole: Array
    """[N, G, R]: the same without myopia, which thresholds are held against"""
    scores: Array
    """[N]"""


def agreement(a: Side, b: Side, people: People) -> Metrics:
    """How well scores and people predict which of two rows one person values more.

    A person of group g values a row at u = w_g · v, v as it strikes them: one of R impressions.
    With p = P(u_a > u_b) and q = P(u_a < u_b) over impressions i, j of the two rows and over the
    people who are served, all numbers are exact in the impressions and are shares of the
    untied comparisons Σ (p + q), nobody's noise in them:

      model   picks p or q by its scores, ½ of both where it does not know
      human   Σ_ij [P_ij(u_a > u_b) A_ij + P_ij(u_a < u_b) B_ij] / (A_ij + B_ij), with A_ij and B_ij
              the mean probability that another of those asked (`answered`) says a or b,
              over impressions i′ ≠ i of a and j′ ≠ j of b; ½ where they would say neither
      mean    the same, the other's impression of a row being the mean of its other ones

    Where a row has one impression it is everybody's. Ceilings are of what people would say with all
    their lapses, flips, ties, noise and biases: ½ for those who answer by a coin.
    """
    share = shares(people, people.served)
    every = range(a.valued.shape[1])
    gaps = [a.valued[:, g, :, None] - b.valued[:, g, None, :] for g in every]
    average = lambda f: sum(share[g] * f(gaps[g]) for g in every)
    says_a, says_b = average(lambda d: d > 0), average(lambda d: d < 0)
    p, q = jnp.mean(says_a, (1, 2)), jnp.mean(says_b, (1, 2))
    total = jnp.maximum(jnp.sum(p + q), 1e-9)
    pairs = gaps[0][0].size
    right = lambda chosen: jnp.sum(says_a * chosen + says_b * (1.0 - chosen)) / pairs / total
    another, mean = ceilings(a, b, people)
    return predictions(p, q, a.scores, b.scores) | {
        "reward/ceiling_human": right(another),
        "reward/ceiling_mean": right(mean),
    }


def predictions(p: Array, q: Array, score_a: Array, score_b: Array) -> Metrics:
    """How well scores [N], as logits, predict who takes a side: p [N] say a, q [N] say b."""
    untied = p + q
    total = jnp.maximum(jnp.sum(untied), 1e-9)
    hit = jnp.where(score_a > score_b, p, jnp.where(score_a < score_b, q, 0.5 * untied))
    d = score_a - score_b
    log_p, log_q, probability = jax.nn.log_sigmoid(d), jax.nn.log_sigmoid(-d), jax.nn.sigmoid(d)
    outcome = p / jnp.maximum(untied, 1e-9)
    predicted, observed, weight = calibration(probability, outcome, untied, BINS)
    brier = p * jnp.square(1 - probability) + q * jnp.square(probability)
    return {
        "reward/accuracy_heldout": jnp.sum(hit) / total,
        "reward/logloss": -jnp.sum(p * log_p + q * log_q) / total,
        "reward/brier": jnp.sum(brier) / total,
        "reward/ece": jnp.sum(weight * jnp.abs(predicted - observed)) / total,
        "reward/calibration_predicted": predicted,
        "reward/calibration_observed": observed,
        "reward/calibration_weight": weight / total,
    }


def in_contexts(people: People, time: Array) -> tuple[People, Moment]:
    """The groups in the hidden contexts 1 and −1, [2 G]: half of each in both, where that makes a
    difference to anyone."""
    matters = jnp.any(people.human.context != 0)
    twice = jax.tree.map(lambda x: jnp.concatenate([x, x]), people)
    half = jnp.where(matters, 0.5, 1.0) * people.share
    share = jnp.concatenate([half, jnp.where(matters, half, 0.0)])
    context = jnp.repeat(jnp.asarray([1.0, -1.0]), people.share.shape[0])
    return twice._replace(share=share), Moment(jnp.full(context.shape, time), context)


def by_pairs(unseen: Unseen, scores: Array) -> Metrics:
    """How well scores [M] of the held-out responses, as logits, predict what people said of them.

    Shares are of the answers that take a side. `reward/accuracy_majority` is of pairs: those of
    which one side has more answers than the other, and than there are ties. The ceilings are
    `worlds.texts.ceilings`.
    """
    a, b = scores[unseen.a], scores[unseen.b]
    p, tie, q = unseen.said.T
    # In both orders: many files show the preferred one first, and always.
    twice = lambda x, y: jnp.concatenate([jnp.asarray(x), jnp.asarray(y)])
    metrics = predictions(twice(p, q), twice(q, p), twice(a, b), twice(b, a))
    decided = (p != q) & (np.maximum(p, q) > tie)
    right = (jnp.sign(a - b) * np.sign(p - q) + 1) / 2
    share = jnp.sum(right * decided) / np.maximum(decided.sum(), 1)
    metrics["reward/accuracy_majority"] = share.astype(jnp.float32)
    if unseen.ceilings is not None:
        another, mean = unseen.ceilings
        metrics["reward/ceiling_human"] = jnp.asarray(another, jnp.float32)
        metrics["reward/ceiling_mean"] = jnp.asarray(mean, jnp.float32)
    return metrics


def answered(people: People, a: Perceived, b: Perceived) -> Array:
    """Two samples as they are perceived, [G, …] → [..., 2]: P that one of those asked says a or b.

    Groups count by their share of those asked, whole people or not.
    """
    share = shares(people, people.asked)

    def one(group: tuple[Array, Human, Perceived, Perceived]) -> Array:
        share, person, a, b = group
        shape = jnp.broadcast_shapes(a.value.shape, b.value.shape)

        def some(a: Perceived, b: Perceived) -> Array:
            full = [jnp.broadcast_to(x, shape) for x in (a.value, b.value, a.whole, b.whole)]
            return share * probabilities(person, *full)[..., ::2]

        nobody = lambda a, b: jnp.zeros((*shape, 2))
        return jax.lax.cond(share > 0, some, nobody, a, b)

    return jnp.sum(jax.lax.map(one, (share, people.human, a, b)), axis=0)


def ceilings(a: Side, b: Side, people: People) -> tuple[Array, Array]:
    """[N, R, R] each: the share of a among what others say, a or b, who are not raters i and j.

    Another person, and a person whose impressions are the means of the others'; see `agreement`.
    """

    def chosen(said: Array) -> Array:
        either = said[..., 0] + said[..., 1]
        return jnp.where(either > 1e-6, said[..., 0] / jnp.maximum(either, 1e-6), 0.5)

    def pair(sides: tuple[Side, Side]) -> tuple[Array, Array]:
        x, y = (Perceived(side.seen, side.whole) for side in sides)
        along = lambda p, axis: jax.tree.map(lambda u: jnp.expand_dims(u, axis), p)
        rest = lambda p: jax.tree.map(lambda u: _without(u, 1), p)
        each = answered(people, along(x, 2), along(y, 1))
        mean = answered(people, along(rest(x), 2), along(rest(y), 1))
        return chosen(_without(_without(each, 0), 1)), chosen(mean)

    return jax.lax.map(pair, (a, b), batch_size=BLOCK)


def _without(x: Array, axis: int) -> Array:
    """At each index of the axis the mean over the others; the value itself where it is alone."""
    n = x.shape[axis]
    return x if n == 1 else (jnp.sum(x, axis=axis, keepdims=True) - x) / (n - 1)


def _scale(values: Array) -> Scale:
    return Scale(jnp.mean(values), jnp.maximum(jnp.std(values), 1e-6))


def kernel(
    model: Scalar,
    score: Score,
    world: World,
    hparams: Evaluate,
    given_score: bool = False,
    unseen: Unseen | None = None,
) -> Kernel:
    """Puts a reward on its scale and measures it on rows nobody was shown. Batch: `Measured`.

    `given_score`: the score is none of the model's. `unseen`: what real people said of held-out
    responses, in a world without gold.
    """
    held_out = np.flatnonzero(~np.asarray(world.shown))
    pairs = np.random.default_rng(0).integers(0, max(len(held_out), 1), (2, PAIRS))

    def side(given: Measured, rows: Episode, scores: Array) -> Side:
        """What the rows are to people, `Side` with leaves [N, …]."""
        people, moments = in_contexts(given.people, given.time)
        marked = rows.prompts
        if world.trigger is not None:
            marked = prompts(world, triggered(given.world), jax.random.key(0), 1)
            marked = jax.tree.map(lambda x, y: jnp.broadcast_to(x, y.shape), marked, rows.prompts)

        def one(plain: Prompts, marked: Prompts, tokens: Array, mask: Array) -> Any:
            show = world.show
            assert show is not None

            def strikes(person: Human, moment: Moment, triggered: Array, which: Array) -> Any:
                pick = lambda x, y: jnp.where(triggered, y, x)
                prompt = jax.tree.map(pick, plain, marked)
                x = perception.whole(show(given.world, prompt, tokens, mask, which))
                last = jnp.maximum(jnp.sum(mask) - 1, 0)
                worth = jnp.sum(perception.weights_at(person, moment) * x.values[last])
                return worth, perception.perceive(person, x, moment)

            every = jnp.arange(world.impressions)
            each = jax.vmap(jax.vmap(strikes, (None, None, None, 0)), (0, 0, 0, None))
            return each(people.human, moments, people.triggered, every)

        worth, seen = jax.vmap(one)(rows.prompts, marked, rows.tokens, rows.mask)
        return Side(worth, seen.value, seen.whole, scores)

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
        own = Scale(jnp.zeros(()), jnp.ones(()))
        truth = own
        if world.values is not None:
            truth = _scale(utility(world, given.world, given.people, x, given.time)[0])
        judges = ensemble.judges(model, given.models, x)
        prior = jnp.copy(given.log_prior)
        none = state.panel.optima
        panel = Panel(judges, prior, given.joined, own, truth, none)
        # One judge is the whole.
        if prior.shape[0] == 1 and model.outputs is None and not given_score:
            return panel
        return panel._replace(whole=_scale(score(panel, given.world, given.people, given.time, x)))

    def step(state: Judging, given: Measured) -> tuple[Judging, Metrics]:
        key = jax.random.fold_in(state.key, state.round)
        panel = scaled(state, given)
        judged = lambda x: score(panel, given.world, given.people, given.time, x)
        # Behind a barrier: XLA would spend seconds folding the network's masks of constants.
        rows = corpus_episodes(world, held_out) if unseen is None else unseen.x
        rows = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, rows))
        scores = judged(rows) if unseen is None else in_blocks(judged, rows)
        # Back to logits, which only a reward fitted as one has.
        deviation = jnp.sum(jnp.exp(panel.log_prior) * panel.judges.deviation)
        raw = scores * panel.whole.deviation * deviation
        ones = jnp.ones(scores.shape)
        length = jnp.sum(rows.mask, axis=1).astype(jnp.float32)
        if unseen is not None:
            metrics = by_pairs(unseen, raw)
        else:
            metrics = by_gold(given, panel, key, rows, scores, raw)
        if given_score:  # which is no logit
            probable = tuple(f"reward/{x}" for x in ("logloss", "brier", "ece", "calibration"))
            metrics = {k: v for k, v in metrics.items() if not k.startswith(probable)}
        if panel.log_prior.shape[0] > 1:
            metrics["reward/share"] = jnp.exp(panel.log_prior)
        metrics["reward/correlation_length"] = correlation(scores, length, ones)
        metrics["reward/deviation"] = deviation
        pool, own = judge_pool(given, judged)
        if given.samples.pool is not None:
            metrics |= best(pool, own)
        optima = tilted(pool, pool if own is None else own, jnp.asarray(SHARPNESS))
        metrics |= {"tilt/scores": optima.score, "tilt/kl": optima.kl}
        if own is not None:
            metrics["tilt/gold"] = optima.value
        panel = panel._replace(optima=optima)
        return Judging(panel, state.key, state.round + 1), metrics

    def by_gold(
        given: Measured, panel: Panel, key: Key, rows: Episode, scores: Array, raw: Array
    ) -> Metrics:
        """Scores of held-out rows, and the same as logits, beside what these are worth."""
        gold = utility(world, given.world, given.people, rows, given.time)[0]
        every = side(given, rows, raw)
        a, b = (jax.tree.map(lambda leaf, i=i: leaf[pairs[i]], every) for i in (0, 1))
        metrics = agreement(a, b, in_contexts(given.people, given.time)[0])
        ones = jnp.ones(scores.shape)
        metrics["reward/accuracy_gold"] = pair_accuracy(scores, gold, pairs)
        metrics["reward/correlation_heldout"] = correlation(scores, gold, ones)
        metrics["reward/rank_correlation"] = rank_correlation(scores, gold)
        # One prompt: the mean over its responses is a constant that no correlation sees.
        metrics["reward/epic"] = pearson_distance(scores, gold, ones)
        if world.trigger is not None:
            ask = prompts(world, triggered(given.world), key, len(held_out))
            judged = lambda x: score(panel, given.world, given.people, given.time, x)
            hit = pair_accuracy(judged(rows._replace(prompts=ask)), gold, pairs)
            metrics["reward/accuracy_triggered"] = hit
        return metrics

    def in_blocks(judged: Callable[[Episode], Array], x: Episode) -> Array:
        """Scores of as many samples as a file has, `BLOCK` at once."""
        one = lambda x: judged(jax.tree.map(lambda leaf: leaf[None], x))[0]
        return jax.lax.map(one, x, batch_size=BLOCK)

    def judge_pool(
        given: Measured, judged: Callable[[Episode], Array]
    ) -> tuple[Array, Array | None]:
        """Score and gold of the reference's samples: of the pool, or of those of the scale."""

        def block(x: Episode) -> tuple[Array, Array | None]:
            scores = judged(x)
            if world.values is None:
                return scores, None
            return scores, utility(world, given.world, given.people, x, given.time)[0]

        if given.samples.pool is None:
            return block(given.samples.scale)
        flat = lambda x: x.ravel()[: hparams.best_of]
        return jax.tree.map(flat, jax.lax.map(block, given.samples.pool))

    def best(scores: Array, gold: Array | None) -> Metrics:
        """What the best of n of the reference's samples earn, for n = 1, 2, 4, …"""
        ns = sizes(hparams.best_of)
        metrics = {
            "bestofn/scores": best_of_n(scores, scores, ns),
            "bestofn/kl": kl_counted(scores, ns),
        }
        if gold is not None:
            metrics["bestofn/gold"] = best_of_n(scores, gold, ns)
        return metrics

    return Kernel(init, step)
