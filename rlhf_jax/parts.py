"""Configuration → the kernels of a run, each vectorised over members and laid on the devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rlhf_jax import feedback, grid, worlds
from rlhf_jax.config import Config, ConfigError
from rlhf_jax.feedback import STANDARD
from rlhf_jax.feedback.comparison import LOSSES, THRESHOLDS
from rlhf_jax.feedback.kind import Kind, refuse
from rlhf_jax.feedback.kind import settled as kind_settled
from rlhf_jax.humans.choice import precision
from rlhf_jax.humans.links import unconstrain
from rlhf_jax.humans.population import People, people
from rlhf_jax.kernels import (
    collect,
    draw,
    ensemble,
    evaluate,
    learner,
    learners,
    measure,
    pretrain,
    reward,
    stopping,
)
from rlhf_jax.kernels.ensemble import Panel
from rlhf_jax.kernels.experience import Given, Task
from rlhf_jax.mesh import population_mesh
from rlhf_jax.models import heads
from rlhf_jax.ops.tilt import needed
from rlhf_jax.own import NOTHING, Own
from rlhf_jax.own import refuse as refuse_own
from rlhf_jax.transforms import minibatches, population, shard
from rlhf_jax.types import Array, Episode, HParams, Kernel, Key, Metrics, Params, World
from rlhf_jax.worlds import texts
from rlhf_jax.worlds.texts import Answered


class Sizes(NamedTuple):
    """Steps a call makes, and calls a stage makes."""

    pretrain_steps: int
    pretrain_calls: int
    reward_steps: int
    """of one look"""
    reward_calls: int
    """looks of a round, at most"""
    policy_steps: int
    policy_calls: int


class Parts(NamedTuple):
    """What the calls of a pipeline are made of."""

    config: Config
    settings: Config
    """every `Sweep` leaf [members]"""
    world: World
    people: People
    """[members, groups, …]"""
    critic: heads.Scalar
    own: Own
    """What was passed in"""
    asked: Kind
    start_reward: Callable[[Key, Params], Params]
    """(key, θ_ref) → `reward.Fitted` parameters [k, …] of the reward models"""
    mesh: Mesh
    pretrain: Kernel
    collect: Kernel
    reward: Kernel
    draw: Kernel
    measure: Kernel
    policy: Kernel
    evaluate: Kernel
    sizes: Sizes
    data: Answered | None = None
    """what real people have answered already; None: people are modelled"""


def policy_settings(name: str, config: Config) -> HParams:
    """The section of the learner that `Config.learner` names."""
    return getattr(config, learners.named(name).section)


def answered(config: Config, data: Answered | None) -> Answered | None:
    """What real people said: `data`, else the file that the configuration names; None where
    people are modelled.

    Raises `ConfigError` where the answers have no place in the world, or the file is none.
    """
    if config.world.name != "texts":
        if data is not None:
            raise ConfigError(
                f"answers of real people need world.name = texts, not {config.world.name}"
            )
        return None
    return texts.read(config) if data is None else data


def world_of(config: Config, own: Own, data: Answered | None) -> World:
    """The world of a run: what was passed in, that of the answers, or what is named."""
    if own.world is not None:
        return own.world
    return worlds.build(config.world) if data is None else data.world


def _counted(config: Config, data: Answered | None) -> Config:
    """The configuration, what it buys being what was answered."""
    if data is None:
        return config
    many = 2 * data.answers.label.shape[0]
    collecting = dataclasses.replace(config.collect, budget=many, people=data.people)
    return dataclasses.replace(config, collect=collecting)


def _sizes(config: Config, world: World, asked: Kind, split: stopping.Split, fits: bool) -> Sizes:
    rows = world.corpus[0].shape[0]
    if config.pretrain.epochs and config.pretrain.batch > rows:
        raise ConfigError(
            f"pretrain.batch = {config.pretrain.batch} is more than the {rows} rows of "
            f"world.name = {config.world.name}"
        )
    answers = collect.rows_per_round(config.collect, asked)
    bought = f"collect.budget = {config.collect.budget} buys"
    fitted, share = split.fitted.size // config.rounds, config.reward.held_back
    given = world.values is None
    holds = f"{world.facts['source']} holds about prompts that are not held out" if given else ""
    if fits and given and share and fitted == answers:
        raise ConfigError(
            f"reward.held_back = {share:g}: all {answers} answers that {holds} are about one "
            "prompt, or one group of them; set it to 0 and make all reward.steps"
        )
    if fits and share and fitted == answers:
        raise ConfigError(
            f"reward.held_back = {share:g} of the {answers // config.collect.repeats} items of a "
            "round is none: collect more, or set it to 0 and make all reward.steps"
        )
    if fits and config.reward.batch > fitted:
        raise ConfigError(
            f"reward.batch = {config.reward.batch} is more than the {fitted} answers that "
            f"{holds or f'{bought} at {asked.cost} samples each'} and "
            f"reward.held_back = {config.reward.held_back:g} leaves to fit to"
        )
    method, own = learners.named(config.learner), policy_settings(config.learner, config)
    if method.reads == "comparisons" and own.batch > answers:
        raise ConfigError(
            f"{method.section}.batch = {own.batch} is more than the {answers} comparisons that "
            f"{holds or bought}"
        )
    n, most = own.iterations, config.run.chunk
    chunk = max(d for d in range(1, min(n, most) + 1) if n % d == 0)
    looks = config.reward.steps // config.reward.look
    return Sizes(
        pretrain_steps=rows // config.pretrain.batch,
        pretrain_calls=config.pretrain.epochs,
        reward_steps=config.reward.look,
        reward_calls=looks if fits else 0,
        policy_steps=chunk,
        policy_calls=n // chunk,
    )


HELD = 1024
"""Answers of a file that are held back from the fit at most: all are read at every look."""


def _split(config: Config, asked: Kind, data: Answered | None) -> stopping.Split:
    """Which rows of the table are fitted to. Of real answers whole prompts are held back."""
    rounds = config.rounds
    if data is not None:
        unit = np.unique(data.unit, return_inverse=True)[1]
        none = np.zeros(len(unit), bool)
        share = config.reward.held_back
        out = texts.held(unit, np.bincount(unit), share, seed=1) if share else none
        held = np.flatnonzero(out)
        few = held[:: -(-len(held) // HELD)] if len(held) else held
        return stopping.Split(np.flatnonzero(~out), few, rounds)
    answers, repeats = collect.rows_per_round(config.collect, asked), config.collect.repeats
    return stopping.split(answers, rounds, repeats, config.reward.held_back)


def _axes(batch: Any, reference: int | None) -> Any:
    """Population axes of a batch: all members have their own, but may share the reference."""
    return batch(*(reference if name == "reference" else 0 for name in batch._fields))


def settled(config: Config, world: World, asked: Kind) -> tuple[Config, People]:
    """Every `Sweep` leaf [members]; and the people, leaves [members, groups, …].

    Raises `ConfigError` for what of a person acts in other kinds of feedback only.
    """
    kinds = (*feedback.KINDS, asked)
    persons = {f"groups.{name}.human": group.human for name, group in config.groups.items()}
    for where, human in ({"human": config.human} | persons).items():
        refuse(asked, kinds, human, where)
        known = {kind.name for kind in kinds}
        for name in human.effort.keys() - known:
            raise ConfigError(f"{where}.effort.{name}: not one of {', '.join(sorted(known))}")
    settings = grid.expand(config)
    names = world.dimensions, world.features
    return settings, people(settings.human, settings.groups, *names, asked.name)


def make(config: Config, devices: Sequence[jax.Device], own: Own = NOTHING) -> Parts:
    """The kernels of a validated configuration, or of what was passed in instead."""
    refuse_own(own, config)
    data, given = answered(config, own.data), config
    world = world_of(config, own, data)
    config = _counted(config, data)
    if own.feedback is None:
        asked = feedback.named(config.collect, world.language)
    else:
        asked = kind_settled(own.feedback, config.collect, world.language)
    settings, crowd = settled(config, world, asked)
    policy = heads.policy(config.model, world.language)
    judge = reward_model(config, world)
    score = partial(judged, config, world, judge, own)
    fits = config.reward.kind != "gold" and own.score is None
    split = _split(config, asked, data)
    sizes = _sizes(config, world, asked, split, fits)
    mesh = population_mesh(len(grid.members(config)), devices)
    base_mesh = population_mesh(1, devices) if config.pretrain.shared else mesh
    base_axis = None if config.pretrain.shared else 0
    by = config.run.seeds_by
    if by == "auto":
        by = "map" if devices[0].platform == "cpu" else "vmap"

    def lay(kernel: Kernel, axes: Any, over: Mesh = mesh) -> Kernel:
        return shard(population(kernel, by=by, batch_axes=axes), over, batch_axes=axes)

    total = sizes.pretrain_calls * sizes.pretrain_steps
    pretraining = minibatches(
        pretrain.kernel(policy, total),
        config.pretrain.batch,
        learner.position,
        sizes.pretrain_steps,
    )
    optimising, given_axes = _optimiser(config, world, policy, score, sizes, base_axis, own)
    one = jax.tree.map(lambda x: x[0], crowd)
    if data is None:
        collecting = collect.kernel(policy, world, asked, config.collect, config.rounds, one)
    else:
        collecting = collect.told(data.answers)
    table = jax.eval_shape(collecting.init, jax.random.key(0))
    fitted = _fitting(config, judge, asked, own, sizes, by, table.answers, split)
    fitting = population(fitted, by=by)
    unseen = None if data is None else data.unseen
    return Parts(
        given,
        settings,
        world,
        crowd,
        heads.scalar(config.model, world.language),
        own,
        asked,
        partial(start_reward, config, judge),
        mesh,
        pretrain=lay(pretraining, None, base_mesh),
        collect=lay(collecting, 0 if data is None else None),
        reward=shard(stopping.ended(fitting, config.reward.patience), mesh),
        draw=lay(draw.kernel(policy, world, config.evaluate), _axes(draw.Source, base_axis)),
        measure=lay(
            measure.kernel(judge, score, world, config.evaluate, own.score is not None, unseen), 0
        ),
        policy=lay(optimising, given_axes),
        evaluate=lay(
            evaluate.kernel(
                policy,
                score,
                world,
                config.evaluate,
                partial(tilt, config, world),
                tuple(sorted(config.groups)),
            ),
            _axes(evaluate.Candidate, base_axis),
        ),
        sizes=sizes,
        data=data,
    )


def reward_model(config: Config, world: World) -> heads.Scalar:
    shape = config.model if config.reward.start == "base" else config.reward.model
    outputs = 2 if config.reward.kind == "distributional" else 1
    return heads.scalar(shape, world.language, outputs)


def start_reward(config: Config, model: heads.Scalar, key: Key, reference: Params) -> Params:
    """`reward.Fitted` [k, …]: heads of their own on the trunk of θ_ref, or all fresh."""
    settings = config.reward
    k = settings.groups if settings.kind == "mixture" else settings.members
    params = jax.vmap(model.init)(jax.random.split(key, k))
    if settings.start == "base":
        params = jax.vmap(model.graft, (0, None))(params, reference)
    noise = {}
    if settings.noise == "fitted":
        at_first = STANDARD._replace(lapse=0.05, flip=0.05)
        for name, raw in unconstrain(at_first, ("lapse", "flip")).items():
            noise[name] = jnp.full((k, config.collect.people), raw / reward.NOISE_UNIT)
    if settings.loss in THRESHOLDS:
        noise["threshold"] = jnp.full(k, THRESHOLDS[settings.loss][1] / reward.NOISE_UNIT)
    return reward.Fitted(params, noise)


def _likelihood(config: Config, model: heads.Scalar, asked: Kind, own: Own) -> reward.Likelihood:
    if config.reward.kind == "distributional":
        return reward.distributed(model, asked)
    if config.reward.kind == "borda":
        return reward.compared(model, asked, reward.borda)
    plain = own.feedback is None and config.collect.feedback == "comparison"
    if plain and config.reward.noise == "standard":
        name = config.reward.loss
        threshold, _ = THRESHOLDS.get(name, (None, 0.0))
        return reward.compared(model, asked, LOSSES[name], threshold)
    return reward.answers(model, asked, config.reward.noise)


def _fitting(
    config: Config,
    model: heads.Scalar,
    asked: Kind,
    own: Own,
    sizes: Sizes,
    by: str,
    answers: Any,
    split: stopping.Split,
) -> Kernel:
    """Step 2: k reward models, one call a look at the answers that are held back.

    `answers`: the shapes of the table.
    """
    settings, people = config.reward, config.collect.people
    likelihood = _likelihood(config, model, asked, own)
    total = config.rounds * sizes.reward_calls * sizes.reward_steps
    penalty = reward.decay if asked.anchored else reward.penalty
    member = minibatches(
        reward.kernel(likelihood, penalty, total),
        settings.batch,
        learner.position,
        sizes.reward_steps,
    )
    if settings.kind == "mixture":
        weigh = ensemble.by_group(likelihood, people)
        held_back = partial(ensemble.by_mixture, likelihood, people)
        fit = ensemble.kernel(member, settings.groups, weigh, by=by)
    else:
        weigh = ensemble.resampled if settings.bootstrap else ensemble.alike
        held_back = partial(ensemble.by_member, likelihood)
        fit = ensemble.kernel(member, settings.members, weigh, by=by)
    example = reward.Told(answers, answers.weight, answers.weight)
    unscaled = held_back(scales=(1.0,)) if settings.l2_adapts else None
    patience, falls = settings.patience, settings.falls
    return stopping.kernel(fit, held_back(), split, patience, falls, example, unscaled)


def judged(
    config: Config,
    world: World,
    model: heads.Scalar,
    own: Own,
    panel: Panel,
    where: Any,
    people: People,
    time: Array,
    x: Episode,
) -> Array:
    """[B]: the reward that the policy is given, in deviations of the reference's."""
    if own.score is not None:
        return (own.score(x) - panel.whole.mean) / panel.whole.deviation
    if config.reward.kind == "gold":
        gold, _ = evaluate.utility(world, where, people, x, time)
        return (gold - panel.gold.mean) / panel.gold.deviation
    return ensemble.score(model, panel, x)


def tilt(
    config: Config, world: World, given: evaluate.Candidate, x: Episode, scores: Array
) -> Array:
    """[B]: log π*/π_ref + const of the optimum that the learner is after: reward / β.

    DPO's reward is gold in units of the noise of most people (β ≤ 10⁶, so that people without
    noise have an optimum too): what they answer by where all are alike and nothing sways them.
    """
    if config.learner == "dpo":
        gold, _ = evaluate.utility(world, given.world, given.people, x, given.time)
        scores = precision(jax.tree.map(lambda leaf: leaf[0], given.people.human)) * gold
    return scores / jnp.maximum(given.kl_weight, 1e-6)


def _optimiser(
    config: Config,
    world: World,
    policy: heads.Policy,
    score: Callable[..., Array],
    sizes: Sizes,
    base_axis: int | None,
    own: Own,
) -> tuple[Kernel, Any]:
    """Step 3, and the population axes of what it is given. `init` is given policy and critic."""
    steps = config.rounds * sizes.policy_steps * sizes.policy_calls

    def observe(given: Given, x: Episode, scores: Array) -> Metrics:
        spent = needed(given.judge.optima, jnp.mean(scores))
        if world.values is None:
            return {"objective/kl_needed": spent}
        gold, known = evaluate.utility(world, given.world, given.people, x, given.time)
        return {
            "objective/gold": jnp.mean(gold),
            "objective/nonword_share": jnp.mean(~known),
            "objective/kl_needed": spent,
        }

    task = Task(
        policy,
        world.language,
        world.prompt,
        lambda given, x: score(given.judge, given.world, given.people, given.time, x),
        observe,
        own.penalty,
    )
    method = learners.named(config.learner)
    kernel = method.kernel(task, config, steps, sizes.policy_steps)
    compared = method.reads == "comparisons"
    return kernel, (base_axis, 0, 0) if compared else _axes(Given, base_axis)
