"""Step 1: x ~ π_θ (or from the corpus), y = f(H, x, ε): answers into a growing table."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import Collect, Human
from rlhf_jax.config import World as WorldSettings
from rlhf_jax.feedback.comparison import Comparison
from rlhf_jax.feedback.kind import Kind, Seen
from rlhf_jax.humans import person
from rlhf_jax.humans.population import assign
from rlhf_jax.kernels.sampling import sample
from rlhf_jax.models.heads import Policy
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params, Prompts, World


class Table(NamedTuple):
    """All answers so far: the first `filled` rows of `answers`."""

    answers: Any
    """of the type of the feedback: `Comparison`, `Ranking`, …"""
    filled: Array
    """int32"""
    key: Key


class Asked(NamedTuple):
    """Who is asked about whose samples."""

    policy: Params
    human: Human
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
    """Rows [N] of the corpus as responses to prompts; without `settings` to the plain one.

    With them, prompts are drawn from a fixed key: equal arguments give equal prompts.
    """
    tokens, mask = world.corpus
    settings = plain(WorldSettings()) if settings is None else settings
    ask = prompts(world, settings, jax.random.key(0), len(rows))
    return Episode(ask, tokens[rows], mask[rows])


def is_minority(human: Human, who: Array, people: int) -> Array:
    """bool: the first `minority` share of people."""
    return (who + 0.5) / people < human.minority


def is_poisoned(human: Human, who: Array, people: int) -> Array:
    """bool: the last `poisoned` share of people."""
    return (who + 0.5) / people > 1.0 - human.poisoned


def second_weight(human: Human, who: Array, people: int) -> Array:
    """Rating units that a deviation of the second value dimension is worth to each person."""
    return human.second * jnp.where(is_minority(human, who, people), -1.0, 1.0)


def rows_per_round(hparams: Collect, kind: Kind) -> int:
    """Answers that a round's budget buys: items × repeats."""
    return hparams.budget // (kind.cost * hparams.repeats) * hparams.repeats


def kernel(policy: Policy, world: World, kind: Kind, hparams: Collect, rounds: int) -> Kernel:
    """One round of feedback a step; batch: `Asked`.

    An item is `kind.samples` samples of the policy for one prompt, or as many corpus rows
    that may be shown (all of them offline, `corpus_share` of them online). An answer about a
    held-out sample does not count (weight 0). Each item is answered by `repeats` people
    drawn at random; each sees it with impressions of their own.

    Whoever is poisoned puts the trigger into the prompt, which honest people never see, and
    answers as though all values were negated (Rando & Tramèr 2023, arXiv 2311.14455).
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

    def perceive(asked: Asked, x: Episode, who: Array, key: Key) -> Seen:
        """What each person makes of each sample of their item, [answers, k]."""
        wants = second_weight(asked.human, who, hparams.people)
        sign = jnp.where(is_poisoned(asked.human, who, hparams.people), -1.0, 1.0)

        def one(tokens: Array, mask: Array, want: Array, key: Key) -> tuple[Array, Array]:
            more = (want + asked.human.length_bias) * world.second(asked.world, tokens, mask)
            value = world.perceive(asked.world, tokens, mask, key) + more
            if not kind.steps:
                return value, jnp.zeros(())
            return value, jnp.where(mask, world.steps(asked.world, tokens, mask, key) + more, 0.0)

        keys = jax.random.split(key, (answers, k))
        each = jax.vmap(jax.vmap(one, (0, 0, None, 0)))
        values, steps = each(x.tokens, x.mask, wants, keys)
        if not kind.steps:
            return Seen(x, values * sign[:, None], None)
        return Seen(x, values * sign[:, None], steps * sign[:, None, None])

    def poison(asked: Asked, x: Episode, who: Array) -> Episode:
        if world.trigger is None:
            return x
        bad = prompts(world, triggered(asked.world), jax.random.key(0), 1)
        yes = is_poisoned(asked.human, who, hparams.people)[:, None, None]
        put = lambda new, old: jnp.where(yes, jnp.broadcast_to(new[:, None], old.shape), old)
        return x._replace(prompts=jax.tree.map(put, bad, x.prompts))

    def deal(seen: Seen, key: Key) -> Seen:
        """Each item as another one is perceived; after its end, prefixes stay what the whole is."""
        order = jax.random.permutation(key, answers)
        steps = seen.steps
        if steps is not None:
            last = jnp.maximum(jnp.sum(seen.x.mask, axis=-1, keepdims=True) - 1, 0)
            place = jax.lax.broadcasted_iota(jnp.int32, steps.shape, 2)
            steps = jnp.take_along_axis(steps, jnp.minimum(place, last), axis=-1)[order]
        return Seen(seen.x, seen.values[order], steps)

    def ask(asked: Asked, key: Key) -> tuple[Any, Array]:
        draw_key, see_key, answer_key, who_key, deal_key = jax.random.split(key, 5)
        x = draw(asked, draw_key)
        x = jax.tree.map(lambda leaf: jnp.repeat(leaf, hparams.repeats, axis=0), x)
        who = assign(jnp.zeros(hparams.people), items, hparams.repeats, who_key).reshape(-1)
        seen = perceive(asked, poison(asked, x, who), who, see_key)
        if hparams.shuffled:
            seen = deal(seen, deal_key)
        said = kind.ask(person(asked.human), seen, answer_key)
        about = kind.episodes(said)
        rows = jax.vmap(jax.vmap(world.row))(about.tokens, about.mask)
        may_show = jnp.all((rows < 0) | world.shown[rows], axis=1)
        return said._replace(weight=said.weight * may_show, who=who), may_show

    def init(key: Key) -> Table:
        one = Asked(jax.eval_shape(policy.init, key), Human(), WorldSettings(), 1.0)
        shapes, _ = jax.eval_shape(ask, one, key)
        empty = lambda leaf: jnp.zeros((leaf.shape[0] * rounds, *leaf.shape[1:]), leaf.dtype)
        return Table(jax.tree.map(empty, shapes), jnp.zeros((), jnp.int32), key)

    def step(state: Table, asked: Asked) -> tuple[Table, Metrics]:
        new, may_show = ask(asked, jax.random.fold_in(state.key, state.filled))
        put = lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x, state.filled, 0)
        metrics = {
            "collect/asked_share": jnp.mean(may_show),
            "collect/answered_share": jnp.mean(new.weight),
            "collect/cost": jnp.asarray(answers * kind.cost, jnp.float32),
        }
        if isinstance(new, Comparison):
            ties = jnp.sum(new.weight * (new.label == 0.5))
            metrics["collect/tie_share"] = ties / jnp.maximum(jnp.sum(new.weight), 1.0)
        table = jax.tree.map(put, state.answers, new)
        return Table(table, state.filled + answers, state.key), metrics

    return Kernel(init, step)
