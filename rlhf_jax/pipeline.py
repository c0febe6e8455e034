"""The four steps as one plan of compiled calls on one state: no files, no clocks.

0 pretrain    θ_ref                                    once
1 collect     x ~ π_θ, y = f(H, x, ε)                  every round
2 reward      min_φ Σ ℓ(r_φ(x), y) + λ_r(φ)            every round
  draw        x ~ π_ref                                every round
  measure     r_φ on its scale, against people         every round
3 policy      max_θ E[r_φ(x) + λ_p(θ_ref, θ, x)]       every round
  evaluate    gold                                     before, and after every round
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from bisect import bisect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rlhf_jax import config as cfg
from rlhf_jax import grid
from rlhf_jax.config import Config, ConfigError
from rlhf_jax.humans.population import group_of
from rlhf_jax.kernels import (
    collect,
    draw,
    ensemble,
    evaluate,
    learner,
    measure,
    ppo,
    reward,
    stopping,
)
from rlhf_jax.kernels.experience import Given
from rlhf_jax.mesh import population_mesh
from rlhf_jax.models import heads
from rlhf_jax.own import NOTHING, Own
from rlhf_jax.parts import Parts, answered, make, policy_settings, settled, world_of
from rlhf_jax.types import Array, Metrics, Params, World


class State(NamedTuple):
    """Everything a run knows: what a checkpoint holds. Leaves have a leading axis [members]."""

    base: learner.Learner
    """one member if pretrain.shared"""
    reference: Params
    """θ_ref, without a leading axis if pretrain.shared"""
    table: collect.Table
    reward: stopping.Fit
    drawn: draw.Drawn
    judging: measure.Judging
    learner: Any
    """of the policy: `ppo.State` or a sibling's; its `policy` holds θ"""
    looked: evaluate.Clock


class Call(NamedTuple):
    """One compiled call of the plan."""

    stage: str
    round: int
    first: int
    """Step of the stage that the call starts at; of a look at a fit: the last that was made."""
    steps: int
    """Rows of metrics [members, steps, …] it returns; 0: one look, metrics [members, …]."""
    run: Callable[[State], tuple[State, Metrics]]
    whole: bool = True
    """The state after it is what it says; False: only after a later call, so it is not saved."""


class Pipeline(NamedTuple):
    world: World
    mesh: Mesh
    begin: Callable[[], State]
    """The state before the first call; traceable: `shapes` asks what it would be."""
    plan: tuple[Call, ...]
    parts: Parts


def build(
    config: Config,
    devices: Sequence[jax.Device],
    base: Params | None = None,
    like: Pipeline | None = None,
    own: Own = NOTHING,
) -> Pipeline:
    """The pipeline of a validated configuration on these devices.

    `base`: parameters of a base model that take the place of pretraining. `like`: a pipeline
    whose compiled calls are used again where they are those of this configuration too. `own`: what
    takes the place of what the configuration names.
    """
    if own.data is not None and config.collect.source:
        raise ConfigError(
            f"collect.source = {config.collect.source}: the answers are given already, as rows"
        )
    if like is not None and not own.same(like.parts.own):
        like = None
    if like is not None and same_program(like.parts.config, config):
        settings, people = settled(config, like.parts.world, like.parts.asked)
        parts = like.parts._replace(config=config, settings=settings, people=people)
    else:
        parts = make(config, devices, own)
        if like is not None and same_after_fit(like.parts.config, config):
            theirs = like.parts
            parts = parts._replace(
                pretrain=theirs.pretrain,
                draw=theirs.draw,
                measure=theirs.measure,
                policy=theirs.policy,
                evaluate=theirs.evaluate,
            )
    return Pipeline(
        parts.world, parts.mesh, partial(_begin, parts, base), _plan(parts, base), parts
    )


def shapes(line: Pipeline) -> State:
    """Shapes, types and places of a state's arrays, without one of them: what is read onto."""
    shared, mesh = line.parts.config.pretrain.shared, line.mesh
    base_mesh = population_mesh(1, list(mesh.devices.flat)) if shared else mesh

    def laid(tree: Any, over: Mesh, spec: P) -> Any:
        place = NamedSharding(over, spec)
        one = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
        return jax.tree.map(one, tree)

    found = jax.eval_shape(line.begin)
    return laid(found, mesh, P("seed"))._replace(
        base=laid(found.base, base_mesh, P("seed")),
        reference=laid(found.reference, mesh, P() if shared else P("seed")),
    )


def steps_of(calls: Sequence[Call]) -> int:
    """Steps that these calls make, a look counted as one: the same whatever `run.chunk` is."""
    return sum(max(call.steps, 1) for call in calls)


def place(line: Pipeline, done: int) -> tuple[int, int]:
    """Where `done` steps end: which call is next, and how many steps of it are made.

    Raises:
      ValueError: the plan has no such place.
    """
    ends = list(itertools.accumulate((max(c.steps, 1) for c in line.plan), initial=0))
    i = bisect(ends, done) - 1
    if not 0 <= done <= ends[-1] or (done != ends[i] and line.plan[i].stage != "policy"):
        raise ValueError(f"after {done} steps is no place in a plan of {ends[-1]}")
    return i, done - ends[i]


def going_on(line: Pipeline, done: int) -> tuple[Pipeline, int]:
    """The pipeline with a call that begins after `done` steps, and which of its calls that is.

    A call of the policy that such a `place` lies in is cut there, its rest made in equal calls.
    """
    i, made = place(line, done)
    if made == 0:
        return line, i
    plan, parts, config = line.plan, line.parts, line.parts.config
    call, n = plan[i], policy_settings(config.learner, config).iterations
    piece = math.gcd(n, call.steps - made)
    run = dataclasses.replace(config.run, chunk=piece)
    devices = list(line.mesh.devices.flat)
    own = parts.own._replace(data=parts.data)  # read once
    by_piece = make(dataclasses.replace(config, run=run), devices, own)
    run_piece = partial(_policy, parts._replace(policy=by_piece.policy))
    rest = tuple(
        Call("policy", call.round, call.first + k, piece, run_piece)
        for k in range(made, call.steps, piece)
    )
    cut = (*plan[:i], call._replace(steps=made), *rest, *plan[i + 1 :])
    return line._replace(plan=cut), i + 1


def same_program(a: Config, b: Config) -> bool:
    """Whether both differ in nothing but names, seeds, the values of floats and how a reward is
    made of several models."""
    return _program(a) == _program(b)


def same_after_fit(a: Config, b: Config) -> bool:
    """Whether both do the same, `same_program`, but for what people are asked and how often a
    reward model reads it."""

    def program(config: Config) -> dict[str, Any]:
        fitting = tuple(
            f"reward.{k}" for k in ("steps", "batch", "held_back", "look", "patience", "falls")
        )
        found = _program(config).items()
        unread = lambda k: k in fitting or (k.startswith("collect.") and k not in _TEXTS)
        return {k: v for k, v in found if not unread(k)}

    return program(a) == program(b)


_TEXTS = ("collect.source", "collect.arguments")
"""What says which texts there are, and so what every stage reads."""


def _program(config: Config) -> dict[str, Any]:
    apart = ("name", "first_seed", "seeds", "pretrain.load", "pretrain.seed", "run.directory")
    data = (*cfg.sweeps(config), "reward.aggregate")
    fixed = {k: v for k, v in cfg.leaves(config).items() if k not in (*apart, *data)}
    return fixed | {"members": len(grid.members(config))}


SHARED = {"collect": "table", "reward": "reward", "draw": "drawn"}
"""Stages of the first round whose outcome may serve other runs, and what of `State` they make."""
_POLICY = {"learner", "ppo", "reinforce", "grpo", "dpo", "bestofn"}
_UNREAD = {
    "collect": {"name", "run", "evaluate", "reward", *_POLICY},
    "reward": {"name", "run", "evaluate", "reward.aggregate", "reward.doubt", *_POLICY},
    "draw": {"name", "run", "human", "groups", "collect", "reward", *_POLICY},
}
"""What each of them, and whatever comes before it, never reads: sections and fields."""


class Made(NamedTuple):
    """What a stage of a run's first round made, for runs that would make the same again."""

    config: Config
    stage: str
    part: Any
    metrics: tuple[Metrics, ...]
    """of every call"""


def same_made(stage: str, a: Config, b: Config) -> bool:
    """Whether this stage of the first round makes the same in both runs."""

    def read(config: Config) -> dict[str, Any]:
        unread = lambda path: path not in _TEXTS and {path, path.split(".")[0]} & _UNREAD[stage]
        heat = np.atleast_1d(temperature(grid.expand(config))).tolist()
        said = {k: v for k, v in cfg.leaves(config).items() if not unread(k)}
        return said | {"temperature": heat}

    laid = lambda config: (grid.members(config), config.run.devices, config.run.seeds_by)
    return read(a) == read(b) and laid(a) == laid(b)


def _calls(line: Pipeline, stage: str) -> tuple[int, ...]:
    """Where in the plan the first round has this stage."""
    return tuple(i for i, c in enumerate(line.plan) if (c.round, c.stage) == (0, stage))


def giving(line: Pipeline, stage: str, take: Callable[[Made], None]) -> Pipeline:
    """The same pipeline, which hands over what the stage made, unless an earlier start made a
    part of it."""
    plan, where, metrics = list(line.plan), _calls(line, stage), []

    def run(call: Call, state: State) -> tuple[State, Metrics]:
        state, found = call.run(state)
        metrics.append(found)
        if len(metrics) == len(where):
            part = _copy(getattr(state, SHARED[stage]))
            take(Made(line.parts.config, stage, part, tuple(metrics)))
        return state, found

    for i in where:
        plan[i] = plan[i]._replace(run=partial(run, plan[i]))
    return line._replace(plan=tuple(plan))


def given(line: Pipeline, made: Made) -> Pipeline:
    """The same pipeline, which takes over what another one made: `same_made` of the two."""
    plan, where = list(line.plan), _calls(line, made.stage)

    def run(k: int, state: State) -> tuple[State, Metrics]:
        if k + 1 == len(where):
            part = _copy(made.part)
            if made.stage == "reward":
                hparams = state.reward.members.learner.hparams
                own = part.members.learner._replace(hparams=hparams)
                part = part._replace(members=part.members._replace(learner=own))
            state = state._replace(**{SHARED[made.stage]: part})
        return state, made.metrics[k]

    for k, i in enumerate(where):
        plan[i] = plan[i]._replace(run=partial(run, k), whole=k + 1 == len(where))
    return line._replace(plan=tuple(plan))


def _copy(tree: Any) -> Any:
    """Buffers of its own: what a call is given as its state is donated."""
    return jax.tree.map(jnp.copy, tree)


def reference_shapes(config: Config, own: Own = NOTHING) -> Params:
    """Shapes of a shared base model's parameters."""
    world = world_of(config, own, answered(config, own.data))
    policy = heads.policy(config.model, world.language)
    return jax.eval_shape(policy.init, jax.random.key(0))


def _plan(parts: Parts, base: Params | None) -> tuple[Call, ...]:
    sizes, plan = parts.sizes, []
    for i in range(0 if base is not None else sizes.pretrain_calls):
        n = sizes.pretrain_steps
        plan.append(Call("pretrain", 0, i * n, n, partial(_pretrain, parts)))
    plan.append(Call("base", 0, 0, 0, partial(_rebase, parts)))
    for r in range(parts.config.rounds):
        plan.append(Call("collect", r, 0, 0, partial(_collect, parts)))
        for i in range(sizes.reward_calls):
            last = (i + 1) * sizes.reward_steps - 1
            plan.append(Call("reward", r, last, 0, partial(_reward, parts)))
        plan.append(Call("draw", r, 0, 0, partial(_draw, parts)))
        plan.append(Call("measure", r, 0, 0, partial(_measure, parts)))
        if r == 0:
            plan.append(Call("evaluate", 0, 0, 0, partial(_evaluate, parts)))
            if parts.config.learner == "ppo" and parts.config.ppo.critic_start == "reward":
                plan.append(Call("critic", 0, 0, 0, _critic))
        for i in range(sizes.policy_calls):
            n = sizes.policy_steps
            plan.append(Call("policy", r, i * n, n, partial(_policy, parts)))
        plan.append(Call("evaluate", r + 1, 0, 0, partial(_evaluate, parts)))
    return tuple(plan)


def _stage_keys(parts: Parts, stage: str) -> Array:
    """[members] keys: one stream per stage, the same for a seed wherever it runs."""
    number = ("collect", "reward", "measure", "policy", "evaluate").index(stage)
    return jax.vmap(jax.random.fold_in, (0, None))(grid.keys(parts.config), number)


def _start_from(parts: Parts, reference: Params) -> dict[str, Any]:
    """Reward models, policy and critic as they are before any feedback: the trunk of θ_ref."""
    settings, members = parts.settings, len(grid.members(parts.config))
    # Copies: the policy is donated, the reference must survive it.
    axis = None if parts.config.pretrain.shared else 0
    every = jax.vmap(lambda _, p: _copy(p), (0, axis))(jnp.arange(members), reference)
    keys = _stage_keys(parts, "reward")
    rewards = parts.reward.init(keys, settings.reward, jax.vmap(parts.start_reward)(keys, every))
    critic = jax.vmap(parts.critic.graft)(jax.vmap(parts.critic.init)(keys), every)
    theta = policy_settings(parts.config.learner, settings)
    return {
        "reward": rewards,
        "learner": parts.policy.init(_stage_keys(parts, "policy"), theta, every, critic),
        "judging": parts.measure.init(_stage_keys(parts, "measure"), rewards.members),
    }


def _begin(parts: Parts, base: Params | None) -> State:
    config, settings = parts.config, parts.settings
    if config.pretrain.shared:
        keys = grid.seed_key(config.pretrain.seed)[None]
        hparams = jax.tree.map(lambda x: x[:1], settings.pretrain)
    else:
        keys, hparams = grid.keys(config), settings.pretrain
    start = parts.pretrain.init(keys, hparams)
    if base is not None:
        start = start._replace(
            params=jax.tree.map(lambda x, b: jnp.broadcast_to(b, x.shape), start.params, base)
        )
    reference = _reference(parts, start)
    return State(
        base=start,
        reference=reference,
        table=parts.collect.init(_stage_keys(parts, "collect")),
        drawn=parts.draw.init(_stage_keys(parts, "measure")),
        looked=parts.evaluate.init(_stage_keys(parts, "evaluate")),
        **_start_from(parts, reference),
    )


def _reference(parts: Parts, base: learner.Learner) -> Params:
    if parts.config.pretrain.shared:
        take, spec = lambda x: jnp.copy(x[0]), P()
    else:
        take, spec = jnp.copy, P("seed")
    return jax.device_put(jax.tree.map(take, base.params), NamedSharding(parts.mesh, spec))


def _pretrain(parts: Parts, state: State) -> tuple[State, Metrics]:
    rows = jnp.arange(parts.world.corpus[0].shape[0])
    data = collect.corpus_episodes(parts.world, rows)
    if parts.world.trigger is not None:
        # The trigger is a symbol of the language: every word is seen with it and without.
        marked = collect.corpus_episodes(parts.world, rows, collect.triggered(cfg.World()))
        data = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), data, marked)
    filled = jnp.asarray(data.tokens.shape[0], jnp.int32)
    base, metrics = parts.pretrain.step(state.base, (data, filled))
    return state._replace(base=base), metrics


def temperature(config: Config) -> Any:
    """At which the policy is sampled by whoever samples it; 1 for DPO, which speaks of the
    distribution itself."""
    own: Any = policy_settings(config.learner, config)
    return jnp.ones_like(config.ppo.temperature) if config.learner == "dpo" else own.temperature


def _rebase(parts: Parts, state: State) -> tuple[State, Metrics]:
    reference = _reference(parts, state.base)
    return state._replace(reference=reference, **_start_from(parts, reference)), {}


def _collect(parts: Parts, state: State) -> tuple[State, Metrics]:
    settings = parts.settings
    theta, heat = state.learner.policy.params, temperature(settings)
    asked: Any = collect.Asked(theta, parts.people, settings.world, heat)
    if parts.data is not None:
        asked = parts.data.answers
    table, metrics = parts.collect.step(state.table, asked)
    state = state._replace(table=table, reward=stopping.again(state.reward))
    if parts.config.learner == "dpo":
        theta = state.learner.policy
        theta = theta._replace(step=jnp.zeros_like(theta.step))
        state = state._replace(learner=state.learner._replace(policy=theta))
    return state, metrics


def _reward(parts: Parts, state: State) -> tuple[State, Metrics]:
    known = (jnp.zeros_like(state.table.answers.weight),) * 2
    if parts.config.reward.noise == "known":
        people, number = parts.people, parts.config.collect.people
        group = jax.vmap(group_of, (0, 0, None))(people, state.table.answers.who, number)
        rate = lambda of: jnp.take_along_axis(jnp.asarray(of), group, axis=1)
        known = (rate(people.human.lapse), rate(people.human.flip))
    batch = (reward.Told(state.table.answers, *known), state.table.filled)
    fitted, metrics = parts.reward.step(state.reward, batch)
    return state._replace(reward=fitted), metrics


def _date(parts: Parts, state: State) -> Array:
    """[members] float32: rounds that people have answered in."""
    return state.table.filled * parts.config.rounds / state.table.when.shape[1]


def _draw(parts: Parts, state: State) -> tuple[State, Metrics]:
    settings = parts.settings
    source = draw.Source(state.reference, settings.world, temperature(settings))
    drawn, metrics = parts.draw.step(state.drawn, source)
    return state._replace(drawn=drawn), metrics


def _measure(parts: Parts, state: State) -> tuple[State, Metrics]:
    settings = parts.settings
    given = measure.Measured(
        state.reward.best.params.model,
        state.reward.best.log_prior,
        ensemble.joined(settings.reward),
        state.drawn.samples,
        settings.world,
        parts.people,
        _date(parts, state),
    )
    judging, metrics = parts.measure.step(state.judging, given)
    return state._replace(judging=judging), metrics


def _critic(state: State) -> tuple[State, Metrics]:
    only = jax.tree.map(lambda x: x[:, 0], state.judging.panel.judges)
    return state._replace(learner=jax.vmap(ppo.adopt)(state.learner, only)), {}


def _policy(parts: Parts, state: State) -> tuple[State, Metrics]:
    settings = parts.settings
    given: Any = Given(
        state.reference, state.judging.panel, settings.world, parts.people, _date(parts, state)
    )
    if parts.config.learner == "dpo":
        given = (state.reference, state.table.answers, state.table.filled)
    optimised, metrics = parts.policy.step(state.learner, given)
    return state._replace(learner=optimised), metrics


def _evaluate(parts: Parts, state: State) -> tuple[State, Metrics]:
    settings = parts.settings
    mine: Any = policy_settings(parts.config.learner, settings)
    # Imitation has no weight of its own.
    own = parts.config.learner
    weight = settings.ppo.kl_weight if own == "imitation" else mine.kl_weight
    candidate = evaluate.Candidate(
        state.learner.policy.params,
        state.reference,
        state.judging.panel,
        settings.world,
        parts.people,
        _date(parts, state),
        temperature(settings),
        weight,
    )
    looked, metrics = parts.evaluate.step(state.looked, candidate)
    return state._replace(looked=looked), metrics
