"""What a policy is: its gold, its divergence from the reference, what it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import Evaluate
from rlhf_jax.config import World as WorldSettings
from rlhf_jax.humans.population import People, served, valued
from rlhf_jax.kernels.collect import corpus_episodes, plain, prompts, triggered
from rlhf_jax.kernels.ensemble import Panel, Scale
from rlhf_jax.kernels.sampling import (
    chosen,
    log_distribution,
    narrowed,
    sample,
    sequence_log_probs,
)
from rlhf_jax.models.heads import Policy
from rlhf_jax.ops import divergences
from rlhf_jax.ops.bestofn import log_law, sizes
from rlhf_jax.ops.statistics import correlation
from rlhf_jax.ops.tokens import fingerprint
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params, World


class Candidate(NamedTuple):
    """A policy, what it is compared with and who judges it."""

    policy: Params
    reference: Params
    panel: Panel
    world: WorldSettings
    people: People
    time: Array
    """in rounds"""
    temperature: Array
    """at which both are sampled and compared"""
    kl_weight: Array
    """β of the KL-regularised optimum"""


Score = Callable[[Panel, WorldSettings, People, Array, Episode], Array]
"""(…, time, x) → [B], the reward that the learner is given"""
Tilt = Callable[[Candidate, Episode, Array], Array]
"""(given, x, scores [B]) → [B]: log π*(x) − log π_ref(x) + const of the optimum"""


class Clock(NamedTuple):
    """State of a kernel that only looks: a key and how often it has looked."""

    key: Key
    looks: Array


def pair_accuracy(scores: Array, gold: Array, pairs: np.ndarray) -> Array:
    """Share of pairs [2, N] of different gold that the scores have the right way round."""
    better = jnp.sign(gold[pairs[0]] - gold[pairs[1]])
    right = (jnp.sign(scores[pairs[0]] - scores[pairs[1]]) * better + 1) / 2
    untied = (better != 0).astype(jnp.float32)
    return jnp.sum(right * untied) / jnp.maximum(jnp.sum(untied), 1.0)


def by_group(
    world: World, settings: WorldSettings, people: People, x: Episode, time: Array
) -> tuple[Array, Array]:
    """[G, B] what each group values of each response at this time, in rounds; [B] bool: is it in
    the corpus?"""
    assert world.values is not None
    assert world.row is not None
    values = jax.vmap(world.values, (None, 0, 0))(settings, x.tokens, x.mask)
    return valued(people, values, time), jax.vmap(world.row)(x.tokens, x.mask) >= 0


def utility(
    world: World, settings: WorldSettings, people: People, x: Episode, time: Array
) -> tuple[Array, Array]:
    """[B] gold, what the people who are served value; [B] bool: is the response in the corpus?"""
    each, known = by_group(world, settings, people, x, time)
    return served(people, each), known


def distinct_share(x: Episode) -> Array:
    """Different responses / responses."""
    prints = jnp.sort(jax.vmap(fingerprint)(jnp.where(x.mask, x.tokens + 1, 0)))
    return (1 + jnp.sum(prints[1:] != prints[:-1])) / prints.shape[0]


def overvalued(scores: Array, gold: Array, scale: Scale) -> Metrics:
    """How far the reward is from gold on the policy's own samples, both in deviations of θ_ref's.

    A sample is over-valued where its score lies more than one deviation above its gold.
    """
    truth = (gold - scale.mean) / scale.deviation
    n = scores.shape[0]
    pairs = np.stack([np.arange(n), np.roll(np.arange(n), 1)])
    return {
        "eval/overvalued_share": jnp.mean(scores - truth > 1.0),
        "eval/proxy_error": jnp.sqrt(jnp.mean(jnp.square(scores - truth))),
        "eval/proxy_correlation": correlation(scores, gold, jnp.ones(n)),
        "eval/proxy_accuracy": pair_accuracy(scores, gold, pairs),
    }


def kernel(
    policy: Policy,
    score: Score,
    world: World,
    hparams: Evaluate,
    tilt: Tilt,
    groups: tuple[str, ...],
) -> Kernel:
    """Gold, proxy, divergence and variety of a policy's samples. Batch: `Candidate`.

    Metrics named `sample/<decoding>/…` are responses themselves: the first `hparams.shown`
    sampled ones and one greedy one. Where the corpus is every response there is,
    `eval/kl_optimum` is the exact KL(π ‖ π*) to the KL-regularised optimum of PPO or of DPO, in
    nats; IPO and the best of n rest elsewhere (docs/ppo.md). How far from π* and from π the best
    of n of the reference is, P_n, stands beside it where `hparams.best_of` asks for it:
    `bestofn/kl_optimum` and `bestofn/kl_policy` [len(ns)], KL(P_n ‖ π*) and KL(P_n ‖ π). With
    top-k or top-p the samples are of a narrowed law π′, and `eval/kl_exact` and `eval/kl_sampled`
    are KL(π′ ‖ π_ref), of what is drawn to the whole reference: not 0 for the reference itself.
    The other KLs are of the whole π. Gold by group (`eval/gold_of_<name>`, "rest" for those in
    none) and the least of those that are served and not empty stand where there are groups. In a
    world without gold nothing of this is measured, but the mean length of the samples. Where
    prompts are held out, they are what samples answer.
    """
    n, few = hparams.samples, hparams.shown
    narrow: dict[str, Any] = {"top_k": hparams.top_k, "top_p": hparams.top_p}
    examined = world if world.examined is None else world._replace(prompt=world.examined)

    def worth(given: Candidate, each: Array, gold: Array, known: Array, proxy: Array) -> Metrics:
        """Gold [G, B] by group and [B] of all, which samples are in the corpus, and how far off
        the proxy is."""
        metrics = {
            "eval/gold_sampled": jnp.mean(gold[:n]),
            "eval/gold_greedy": gold[n],
            "eval/nonword_share": jnp.mean(~known[:n]),
            **overvalued(proxy[:n], gold[:n], given.panel.gold),
        }
        if groups:
            means = jnp.mean(each[:, :n], axis=1)
            names = ("rest", *groups)
            metrics |= {f"eval/gold_of_{name}": means[i] for i, name in enumerate(names)}
            somebody = (given.people.served > 0) & (given.people.share > 0)
            worst = jnp.min(jnp.where(somebody, means, jnp.inf))
            metrics["eval/gold_worst_group"] = worst
        return metrics

    def init(key: Key) -> Clock:
        return Clock(key, jnp.zeros((), jnp.int32))

    def step(state: Clock, given: Candidate) -> tuple[Clock, Metrics]:
        key = jax.random.fold_in(state.key, state.looks)
        ask, draw, ask_marked, draw_marked = jax.random.split(key, 4)
        # The last row is decoded greedily, by the same program as the rest.
        greedy = jnp.arange(n + 1) == n
        asked = prompts(examined, plain(given.world), ask, n + 1)
        heat = given.temperature
        roll = sample(
            policy, world.language, given.policy, asked, draw, heat, greedy=greedy, **narrow
        )
        x = roll.episode
        columns = {"tokens": x.tokens, "mask": x.mask}
        if world.values is not None:
            each, known = by_group(world, given.world, given.people, x, given.time)
            gold = served(given.people, each)
            columns |= {"gold": gold, "rated": known}
        proxy = score(given.panel, given.world, given.people, given.time, x)
        reference = log_distribution(policy, given.reference, x, heat)
        drawn = narrowed(roll.distribution, hparams.top_k, hparams.top_p)
        exact = jnp.where(x.mask, divergences.exact(drawn, reference), 0.0)
        ratio = chosen(drawn - reference, x)
        metrics = {
            "eval/proxy_sampled": jnp.mean(proxy[:n]),
            "eval/distinct_share": distinct_share(jax.tree.map(lambda leaf: leaf[:n], x)),
            "eval/kl_exact": jnp.mean(jnp.sum(exact[:n], axis=1)),
            "eval/kl_sampled": jnp.mean(jnp.sum(ratio[:n], axis=1)),
        }
        if world.values is not None:
            metrics |= worth(given, each, gold, known, proxy)
        else:
            length = jnp.sum(x.mask[:n], axis=1).astype(jnp.float32)
            metrics["eval/length"] = jnp.mean(length)
        if world.trigger is not None:
            metrics |= under_trigger(given, ask_marked, draw_marked)
        if world.complete:
            metrics |= exactly(given)
        columns["reward"] = proxy
        if world.asked is not None:
            columns |= {"prompt": x.prompts.tokens, "prompt_mask": x.prompts.mask}
        for name, column in columns.items():
            metrics[f"sample/sampled/{name}"] = column[:few]
            metrics[f"sample/greedy/{name}"] = column[n:]
        return Clock(state.key, state.looks + 1), metrics

    def under_trigger(given: Candidate, ask: Key, draw: Key) -> Metrics:
        """As many samples, of prompts that all carry the trigger."""
        asked = prompts(world, triggered(given.world), ask, n)
        heat = given.temperature
        x = sample(policy, world.language, given.policy, asked, draw, heat, **narrow).episode
        gold, known = utility(world, given.world, given.people, x, given.time)
        scores = score(given.panel, given.world, given.people, given.time, x)
        return {
            "eval/gold_triggered": jnp.mean(gold),
            "eval/proxy_triggered": jnp.mean(scores),
            "eval/nonword_share_triggered": jnp.mean(~known),
        }

    def exactly(given: Candidate) -> Metrics:
        """Divergences of laws that are known: sums over all responses."""
        x = corpus_episodes(world, np.arange(world.corpus[0].shape[0]))
        mine, theirs = (
            sequence_log_probs(policy, p, x, given.temperature)
            for p in (given.policy, given.reference)
        )
        scores = score(given.panel, given.world, given.people, given.time, x)
        best = jax.nn.log_softmax(theirs + tilt(given, x, scores))
        kl = lambda p, q: jnp.sum(jnp.exp(p) * (p - q), axis=-1)
        metrics = {"eval/kl_optimum": kl(mine, best)}
        if hparams.best_of:
            laws = log_law(theirs, scores, sizes(hparams.best_of))
            metrics["bestofn/kl_optimum"] = kl(laws, best[None])
            metrics["bestofn/kl_policy"] = kl(laws, mine[None])
        return metrics

    return Kernel(init, step)
