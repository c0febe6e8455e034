"""Step 1: x ~ π_θ (or from the corpus), y = f(H, x, ε): answers into a growing table."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import Collect
from rlhf_jax.config import World as WorldSettings
from rlhf_jax.feedback.comparison import Comparison
from rlhf_jax.feedback.kind import Kind, Seen
from rlhf_jax.humans import Human, Moment, perception, population
from rlhf_jax.humans.population import People, assign
from rlhf_jax.kernels.sampling import sample
from rlhf_jax.models.heads import Policy
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params, Prompts, World


class Table(NamedTuple):
    """All answers so far: the first `filled` rows of `answers`."""

    answers: Any
    """of the type of the feedback: `Comparison`, `Ranking`, …"""
    when: Array
    """[N] float32: the date of each, in rounds"""
    filled: Array
    """int32"""
    key: Key


class Asked(NamedTuple):
    """Who is asked about whose samples."""

    policy: Params
    people: People
    world: WorldSettings
    temperature: Array | float
    """of the policy, as it is trained and measured"""


def prompts(world: World, settings: WorldSettings, key: Key, n: int) -> Prompts:
    """`n` prompts of the world. Consumes `key`."""
    return Prompts(*jax.vmap(world.prompt, (None, 0))(settings, jax.random.split(key, n)))


def plain(settings: WorldSettings) -> WorldSettings:
    """The world without the trigger in its prompts."""
    return dataclasses.replace(settings, triggered=0.0)


def triggered(settings: WorldSettings) -> WorldSettings:
    """The world with the trigger in every prompt."""
    return dataclasses.replace(settings, triggered=1.0)


def corpus_episodes(
    world: World, rows: Array | np.ndarray, settings: WorldSettings | None = None
) -> Episode:
    """Rows [N] of the corpus as responses to prompts: their own, where the world has them; without
    `settings` to the plain one.

    With them, prompts are drawn from a fixed key: equal arguments give equal prompts.
    """
    tokens, mask = world.corpus
    if world.asked is not None:
        own = jax.tree.map(lambda leaf: leaf[rows], world.asked)
        return Episode(own, tokens[rows], mask[rows])
    settings = plain(WorldSettings()) if settings is None else settings
    ask = prompts(world, settings, jax.random.key(0), len(rows))
    return Episode(ask, tokens[rows], mask[rows])


def tie_share(answers: Comparison) -> Array:
    """Share of the comparisons that count which are ties."""
    ties = jnp.sum(answers.weight * (answers.label == 0.5))
    return ties / jnp.maximum(jnp.sum(answers.weight), 1.0)


def told(answers: Comparison) -> Kernel:
    """Answers that real people have given already, all of them in one round. Batch: them.

    `answers`: their shapes. When each was given is not known here: evenly over the round.
    """
    n = answers.label.shape[0]

    def init(key: Key) -> Table:
        empty = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), answers)
        return Table(empty, jnp.zeros(n), jnp.zeros((), jnp.int32), key)

    def step(state: Table, given: Comparison) -> tuple[Table, Metrics]:
        when = (jnp.arange(n) + 0.5) / n
        metrics = {
            "collect/answered_share": jnp.mean(given.weight),
            "collect/cost": jnp.asarray(2.0 * n, jnp.float32),
            "collect/tie_share": tie_share(given),
        }
        return Table(given, when, jnp.full_like(state.filled, n), state.key), metrics

    return Kernel(init, step)


def rows_per_round(hparams: Collect, kind: Kind) -> int:
    """Answers that a round's budget buys: items × repeats."""
    return hparams.budget // (kind.cost * hparams.repeats) * hparams.repeats


def kernel(
    policy: Policy, world: World, kind: Kind, hparams: Collect, rounds: int, people: People
) -> Kernel:
    """One round of feedback a step; batch: `Asked`, its people of the shapes of `people`.

    An item is `kind.samples` samples of the policy for one prompt, or as many corpus rows
    that may be shown (all of them offline, `corpus_share` of them online). An answer about a
    held-out sample does not count (weight 0). Each item is answered by `repeats` people drawn at
    random; each sees it with impressions of their own (`humans.perception.perceive`). A round's
    answers are given evenly over its time, each in a hidden context of ±1. Groups that put the
    trigger into their prompts do so with all that they are asked about (Rando & Tramèr 2023,
    arXiv 2311.14455); others never see it.
    """
    k = kind.samples
    answers = rows_per_round(hparams, kind)
    items = answers // hparams.repeats
    share = 1.0 if hparams.mode == "offline" else hparams.corpus_share
    from_corpus = round(items * share)
    from_policy = items - from_corpus
    candidates = np.flatnonzero(np.asarray(world.shown))

    def draw(asked: Asked, key: Key) -> Episode:
        """[items, k, …]"""
        row_key, sample_key, prompt_key = jax.random.split(key, 3)
        at = jax.random.randint(row_key, (from_corpus * k,), 0, len(candidates))
        settings = plain(asked.world)
        x = corpus_episodes(world, jnp.asarray(candidates)[at], settings)
        if from_policy:
            ask = prompts(world, settings, prompt_key, from_policy)
            ask = jax.tree.map(lambda leaf: jnp.repeat(leaf, k, axis=0), ask)
            heat = asked.temperature
            new = sample(policy, world.language, asked.policy, ask, sample_key, heat).episode
            x = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), new, x)
        return jax.tree.map(lambda leaf: leaf.reshape(items, k, *leaf.shape[1:]), x)

    def perceive(asked: Asked, persons: Human, x: Episode, moments: Moment, key: Key) -> Seen:
        """What each person makes of each sample of their item, [answers, k]."""

        def one(person: Human, moment: Moment, sample: Episode, key: Key) -> tuple[Any, Any]:
            assert world.show is not None
            which = jax.random.randint(key, (), 0, world.impressions)
            shown = world.show(asked.world, sample.prompts, sample.tokens, sample.mask, which)
            said = perception.perceive(person, perception.whole(shown), moment)
            steps = perception.prefixes(person, shown, moment).value if kind.steps else None
            return said, steps

        each = jax.vmap(jax.vmap(one, (None, None, 0, 0)))
        keys = jax.random.split(key, (answers, k))
        said, steps = each(persons, moments, x, keys)
        return Seen(x, said.value, steps, jnp.asarray(moments.time), said.whole)

    def poison(asked: Asked, x: Episode, yes: Array) -> Episode:
        if world.trigger is None:
            return x
        bad = prompts(world, triggered(asked.world), jax.random.key(0), 1)
        put = lambda new, old: jnp.where(
            yes[:, None, None], jnp.broadcast_to(new[:, None], old.shape), old
        )
        return x._replace(prompts=jax.tree.map(put, bad, x.prompts))

    def paid(persons: Human, x: Episode) -> Metrics:
        """What a round's answers cost, by the time that they take."""
        tokens = jnp.sum(x.mask[:, : kind.cost], axis=(1, 2))
        return {
            "collect/seconds": jnp.sum(population.time(persons, tokens)),
            "collect/paid": jnp.sum(population.cost(persons, tokens)),
        }

    def deal(seen: Seen, key: Key) -> Seen:
        """Each item as another one is perceived; after its end, prefixes stay what the whole is."""
        order = jax.random.permutation(key, answers)
        steps = seen.steps
        if steps is not None:
            last = jnp.maximum(jnp.sum(seen.x.mask, axis=-1, keepdims=True) - 1, 0)
            place = jax.lax.broadcasted_iota(jnp.int32, steps.shape, 2)
            steps = jnp.take_along_axis(steps, jnp.minimum(place, last), axis=-1)[order]
        whole = None if seen.whole is None else seen.whole[order]
        return Seen(seen.x, seen.values[order], steps, seen.time, whole)

    def ask(asked: Asked, key: Key, filled: Array) -> tuple[Any, Array, Array, Metrics]:
        keys = jax.random.split(key, 7)
        draw_key, see_key, answer_key, who_key, deal_key, when_key, context_key = keys
        x = draw(asked, draw_key)
        x = jax.tree.map(lambda leaf: jnp.repeat(leaf, hparams.repeats, axis=0), x)
        who = assign(jnp.zeros(hparams.people), items, hparams.repeats, who_key).reshape(-1)
        group = population.group_of(asked.people, who, hparams.people)
        persons = population.take(asked.people.human, group)
        # In no order: items of the policy and of the corpus have dates of the same time.
        order = jax.random.permutation(when_key, answers)
        when = (filled + order + 0.5) / answers
        context = jax.random.rademacher(context_key, (answers,), jnp.float32)
        x = poison(asked, x, asked.people.triggered[group])
        seen = perceive(asked, persons, x, Moment(when, context), see_key)
        if hparams.shuffled:
            seen = deal(seen, deal_key)
        said = kind.ask(persons, seen, answer_key)
        about = kind.episodes(said)
        assert world.row is not None
        rows = jax.vmap(jax.vmap(world.row))(about.tokens, about.mask)
        may_show = jnp.all((rows < 0) | world.shown[rows], axis=1)
        said = said._replace(weight=said.weight * may_show, who=who)
        return said, when, may_show, paid(persons, x)

    def init(key: Key) -> Table:
        one = Asked(jax.eval_shape(policy.init, key), people, WorldSettings(), 1.0)
        said, when, *_ = jax.eval_shape(ask, one, key, jnp.zeros((), jnp.int32))
        empty = lambda leaf: jnp.zeros((leaf.shape[0] * rounds, *leaf.shape[1:]), leaf.dtype)
        return Table(jax.tree.map(empty, said), empty(when), jnp.zeros((), jnp.int32), key)

    def step(state: Table, asked: Asked) -> tuple[Table, Metrics]:
        key = jax.random.fold_in(state.key, state.filled)
        new, when, may_show, spent = ask(asked, key, state.filled)
        put = lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x, state.filled, 0)
        metrics = {
            "collect/asked_share": jnp.mean(may_show),
            "collect/answered_share": jnp.mean(new.weight),
            "collect/cost": jnp.asarray(answers * kind.cost, jnp.float32),
            **spent,
        }
        if isinstance(new, Comparison):
            metrics["collect/tie_share"] = tie_share(new)
        table = jax.tree.map(put, state.answers, new)
        return Table(table, put(state.when, when), state.filled + answers, state.key), metrics

    return Kernel(init, step)
