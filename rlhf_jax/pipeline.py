"""The four steps as one plan of compiled calls on one state: no files, no clocks.

0 pretrain    θ_ref                                    once
1 collect     x ~ π_θ, y = f(H, x, ε)                  every round
2 reward      min_φ Σ ℓ(r_φ(x), y) + λ_r(φ)            every round
  measure     r_φ on its scale, against people         every round
3 ppo         max_θ E[r_φ(x) + λ_p(θ_ref, θ, x)]       every round
  evaluate    gold                                     before, and after every round
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rlhf_jax import grid, worlds
from rlhf_jax.config import Config, ConfigError
from rlhf_jax.feedback.comparison import LOSSES
from rlhf_jax.kernels import collect, evaluate, experience, learner, ppo, pretrain, reward
from rlhf_jax.mesh import population_mesh
from rlhf_jax.models import heads, shared
from rlhf_jax.transforms import minibatches, population, repeat, shard
from rlhf_jax.types import Array, Episode, Kernel, Metrics, Params, World


class State(NamedTuple):
    """Everything a run knows: what a checkpoint holds. Leaves have a leading axis [members]."""

    base: learner.Learner
    """one member if pretrain.shared"""
    reference: Params
    """θ_ref, without a leading axis if pretrain.shared"""
    table: collect.Table
    reward: learner.Learner
    judging: evaluate.Judging
    ppo: ppo.State
    looked: evaluate.Clock


class Call(NamedTuple):
    """One compiled call of the plan."""

    stage: str
    round: int
    first: int
    """Step of the stage that the call starts at."""
    steps: int
    """Rows of metrics [members, steps, …] it returns; 0: one look, metrics [members, …]."""
    run: Callable[[State], tuple[State, Metrics]]


class Pipeline(NamedTuple):
    world: World
    mesh: Mesh
    begin: Callable[[], State]
    """The state before the first call; traceable, so that its shapes are known for free."""
    plan: tuple[Call, ...]


class _Parts(NamedTuple):
    """What the calls are made of."""

    config: Config
    settings: Config
    """every `Sweep` leaf [members]"""
    world: World
    policy: heads.Policy
    scalar: heads.Scalar
    mesh: Mesh
    pretrain: Kernel
    collect: Kernel
    reward: Kernel
    measure: Kernel
    ppo: Kernel
    evaluate: Kernel
    sizes: _Sizes


class _Sizes(NamedTuple):
    """Steps a call makes, and calls a stage makes."""

    pretrain_steps: int
    pretrain_calls: int
    reward_steps: int
    reward_calls: tuple[int, ...]
    """by round: the feedback grows, and so does a pass over it"""
    ppo_steps: int
    ppo_calls: int


def _sizes(config: Config, world: World) -> _Sizes:
    rows = world.corpus[0].shape[0]
    if config.pretrain.batch > rows:
        raise ConfigError(
            f"pretrain.batch = {config.pretrain.batch} is more than the {rows} rows of "
            f"world.name = {config.world.name}"
        )
    n, most = config.ppo.iterations, config.run.chunk
    chunk = max(d for d in range(1, min(n, most) + 1) if n % d == 0)
    return _Sizes(
        pretrain_steps=rows // config.pretrain.batch,
        pretrain_calls=config.pretrain.epochs,
        reward_steps=config.collect.comparisons // config.reward.batch,
        reward_calls=tuple(config.reward.epochs * (r + 1) for r in range(config.rounds)),
        ppo_steps=chunk,
        ppo_calls=n // chunk,
    )


def _axes(batch: Any, reference: int | None) -> Any:
    """Population axes of a batch: all members have their own, but may share the reference."""
    return batch(*(reference if name == "reference" else 0 for name in batch._fields))


def _observe(world: World, given: ppo.Given, x: Episode, scores: Array) -> Metrics:
    gold, known = evaluate.utility(world, given.world, x)
    return {"objective/gold": jnp.mean(gold), "objective/nonword_share": jnp.mean(~known)}


def _parts(config: Config, devices: Sequence[jax.Device]) -> _Parts:
    world = worlds.build(config.world)
    policy = heads.policy(config.model, world.language)
    scalar = heads.scalar(config.model, world.language)
    sizes = _sizes(config, world)
    members = len(grid.members(config))
    mesh = population_mesh(members, devices)
    base_mesh = population_mesh(1, devices) if config.pretrain.shared else mesh
    base_axis = None if config.pretrain.shared else 0
    by = config.run.seeds_by
    if by == "auto":
        by = "map" if devices[0].platform == "cpu" else "vmap"

    def lay(kernel: Kernel, axes: Any, over: Mesh = mesh) -> Kernel:
        return shard(population(kernel, by=by, batch_axes=axes), over, batch_axes=axes)

    def fit(kernel: Kernel, batch: int, steps: int) -> Kernel:
        return repeat(minibatches(kernel, batch, learner.position), steps)

    total = sizes.pretrain_calls * sizes.pretrain_steps
    pretraining = fit(pretrain.kernel(policy, total), config.pretrain.batch, sizes.pretrain_steps)
    total = sum(sizes.reward_calls) * sizes.reward_steps
    fitting = reward.kernel(scalar, LOSSES[config.reward.loss], reward.penalty, total)
    asking = collect.kernel(policy, world, config.collect, config.rounds)
    task = experience.Task(
        policy,
        world.language,
        world.prompt,
        lambda given, x: reward.score(scalar, given.judge, x),
        partial(_observe, world),
    )
    joint = None
    if config.ppo.critic == "shared":
        joint = shared.joint(config.model, world.language)
    optimising = ppo.kernel(task, scalar, config.rounds * config.ppo.iterations, joint)
    measuring = evaluate.reward_kernel(policy, scalar, world, config.evaluate)
    looking = evaluate.policy_kernel(policy, scalar, world, config.evaluate)
    return _Parts(
        config,
        grid.expand(config),
        world,
        policy,
        scalar,
        mesh,
        pretrain=lay(pretraining, None, base_mesh),
        collect=lay(asking, 0),
        reward=lay(fit(fitting, config.reward.batch, sizes.reward_steps), 0),
        measure=lay(measuring, (0, base_axis)),
        ppo=lay(repeat(optimising, sizes.ppo_steps), _axes(ppo.Given, reference=base_axis)),
        evaluate=lay(looking, _axes(evaluate.Candidate, reference=base_axis)),
        sizes=sizes,
    )


def build(config: Config, devices: Sequence[jax.Device], base: Params | None = None) -> Pipeline:
    """The pipeline of a validated configuration on these devices.

    `base`: parameters of a base model that take the place of pretraining.
    """
    parts = _parts(config, devices)
    return Pipeline(parts.world, parts.mesh, partial(_begin, parts, base), _plan(parts, base))


def reference_shapes(config: Config) -> Params:
    """Shapes of a shared base model's parameters."""
    policy = heads.policy(config.model, worlds.build(config.world).language)
    return jax.eval_shape(policy.init, jax.random.key(0))


def _plan(parts: _Parts, base: Params | None) -> tuple[Call, ...]:
    sizes, plan = parts.sizes, []
    for i in range(0 if base is not None else sizes.pretrain_calls):
        n = sizes.pretrain_steps
        plan.append(Call("pretrain", 0, i * n, n, partial(_pretrain, parts)))
    plan.append(Call("base", 0, 0, 0, partial(_rebase, parts)))
    for r in range(parts.config.rounds):
        plan.append(Call("collect", r, 0, 0, partial(_collect, parts)))
        for i in range(sizes.reward_calls[r]):
            n = sizes.reward_steps
            plan.append(Call("reward", r, i * n, n, partial(_reward, parts)))
        plan.append(Call("measure", r, 0, 0, partial(_measure, parts)))
        if r == 0:
            plan.append(Call("evaluate", 0, 0, 0, partial(_evaluate, parts)))
            if parts.config.ppo.critic_start == "reward":
                plan.append(Call("critic", 0, 0, 0, _critic))
        for i in range(sizes.ppo_calls):
            n = sizes.ppo_steps
            plan.append(Call("ppo", r, i * n, n, partial(_ppo, parts)))
        plan.append(Call("evaluate", r + 1, 0, 0, partial(_evaluate, parts)))
    return tuple(plan)


def _stage_keys(parts: _Parts, stage: str) -> Array:
    """[members] keys: one stream per stage, the same for a seed wherever it runs."""
    number = ("collect", "reward", "measure", "ppo", "evaluate").index(stage)
    return jax.vmap(jax.random.fold_in, (0, None))(grid.keys(parts.config), number)


def _start_from(parts: _Parts, reference: Params) -> dict[str, Any]:
    """Reward model, policy and critic as they are before any feedback: the trunk of θ_ref."""
    settings, members = parts.settings, len(grid.members(parts.config))
    # Copies: the policy is donated, the reference must survive it.
    copy = partial(jax.tree.map, jnp.copy)
    axis = None if parts.config.pretrain.shared else 0
    every = jax.vmap(lambda _, p: copy(p), (0, axis))(jnp.arange(members), reference)
    fresh = jax.vmap(parts.scalar.init)(_stage_keys(parts, "reward"))
    rewards = jax.vmap(parts.scalar.graft)(fresh, every)
    return {
        "reward": parts.reward.init(_stage_keys(parts, "reward"), settings.reward, rewards),
        "ppo": parts.ppo.init(_stage_keys(parts, "ppo"), settings.ppo, every, rewards),
        "judging": parts.measure.init(_stage_keys(parts, "measure"), rewards),
    }


def _begin(parts: _Parts, base: Params | None) -> State:
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
        looked=parts.evaluate.init(_stage_keys(parts, "evaluate")),
        **_start_from(parts, reference),
    )


def _reference(parts: _Parts, base: learner.Learner) -> Params:
    if parts.config.pretrain.shared:
        take, spec = lambda x: jnp.copy(x[0]), P()
    else:
        take, spec = jnp.copy, P("seed")
    return jax.device_put(jax.tree.map(take, base.params), NamedSharding(parts.mesh, spec))


def _pretrain(parts: _Parts, state: State) -> tuple[State, Metrics]:
    rows = parts.world.corpus[0].shape[0]
    data = collect.corpus_episodes(parts.world, jnp.arange(rows))
    base, metrics = parts.pretrain.step(state.base, (data, jnp.asarray(rows, jnp.int32)))
    return state._replace(base=base), metrics


def _rebase(parts: _Parts, state: State) -> tuple[State, Metrics]:
    reference = _reference(parts, state.base)
    return state._replace(reference=reference, **_start_from(parts, reference)), {}


def _collect(parts: _Parts, state: State) -> tuple[State, Metrics]:
    asked = collect.Asked(state.ppo.policy.params, parts.settings.human, parts.settings.world)
    table, metrics = parts.collect.step(state.table, asked)
    # More feedback makes longer epochs: the fit counts its steps from here.
    fit = state.reward._replace(step=jnp.zeros_like(state.reward.step))
    return state._replace(table=table, reward=fit), metrics


def _reward(parts: _Parts, state: State) -> tuple[State, Metrics]:
    batch = (state.table.answers, state.table.filled)
    fitted, metrics = parts.reward.step(state.reward, batch)
    return state._replace(reward=fitted), metrics


def _measure(parts: _Parts, state: State) -> tuple[State, Metrics]:
    judging, metrics = parts.measure.step(state.judging, (state.reward.params, state.reference))
    return state._replace(judging=judging), metrics


def _critic(state: State) -> tuple[State, Metrics]:
    return state._replace(ppo=jax.vmap(ppo.adopt)(state.ppo, state.judging.judge)), {}


def _ppo(parts: _Parts, state: State) -> tuple[State, Metrics]:
    given = ppo.Given(state.reference, state.judging.judge, parts.settings.world)
    optimised, metrics = parts.ppo.step(state.ppo, given)
    return state._replace(ppo=optimised), metrics


def _evaluate(parts: _Parts, state: State) -> tuple[State, Metrics]:
    candidate = evaluate.Candidate(
        state.ppo.policy.params,
        state.reference,
        state.judging.judge,
        parts.settings.world,
        parts.settings.ppo.temperature,
    )
    looked, metrics = parts.evaluate.step(state.looked, candidate)
    return state._replace(looked=looked), metrics
