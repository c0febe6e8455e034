"""jit = eager, population = serial, sharded = single, one compile per kernel, no shared luck."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import grid, pipeline
from rlhf_jax.config import PPO, Collect, Config, Evaluate, Model, Pretrain, Reward, Run, World

SMALL = Config(
    seeds=2,
    rounds=1,
    world=World(name="probe", length=3, symbols=4),
    model=Model(width=16, layers=1, heads=2, kv_heads=1, mlp=32),
    pretrain=Pretrain(epochs=1, batch=16),
    collect=Collect(budget=128),
    reward=Reward(steps=4, look=2, batch=16),
    ppo=PPO(iterations=4, batch=16, epochs=2, minibatches=2, kl_weight=0.5),
    evaluate=Evaluate(samples=32, shown=2),
    run=Run(chunk=2),
)


COMPILED = "/jax/core/compile/backend_compile_duration"


def play(config: Config, devices: int = 1) -> tuple[list[dict], pipeline.State]:
    """All metrics of all calls, as numpy, and the last state."""
    line = pipeline.build(config, jax.devices()[:devices])
    state, said = line.begin(), []
    for call in line.plan:
        state, metrics = call.run(state)
        said.append(jax.device_get(metrics))
    return said, state


def same(a: list[dict], b: list[dict], rows_b: slice = slice(None), **tolerance: float) -> None:
    for one, two in zip(a, b, strict=True):
        assert one.keys() == two.keys()
        for name in one:
            other = two[name] if len(two[name]) == 1 else two[name][rows_b]
            np.testing.assert_allclose(one[name], other, err_msg=name, **tolerance)


@pytest.fixture(scope="module")
def of_two() -> list[dict]:
    return play(SMALL)[0]


@pytest.mark.slow
def test_a_second_run_is_bitwise_the_first(of_two: list[dict]) -> None:
    same(of_two, play(SMALL)[0], rtol=0, atol=0)


@pytest.mark.slow
def test_seed_one_alone_is_seed_one_of_a_population(of_two: list[dict]) -> None:
    alone, _ = play(dataclasses.replace(SMALL, seeds=1, first_seed=1))
    same(alone, of_two, slice(1, 2), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_seeds_at_once_are_seeds_in_turn(of_two: list[dict]) -> None:
    at_once, _ = play(dataclasses.replace(SMALL, run=Run(chunk=2, seeds_by="vmap")))
    same(of_two, at_once, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("by", ["map", "vmap"])
def test_eight_devices_on_a_seed_by_data_mesh_are_one_device(of_two: list[dict], by: str) -> None:
    config = dataclasses.replace(SMALL, run=Run(chunk=2, seeds_by=by))
    line = pipeline.build(config, jax.devices())
    assert dict(line.mesh.shape) == {"seed": 2, "data": 4}
    same(of_two, play(config, devices=8)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_chunks_only_group_steps(of_two: list[dict]) -> None:
    by_four, _ = play(dataclasses.replace(SMALL, run=Run(chunk=4)))
    joined = {k: np.concatenate([of_two[-3][k], of_two[-2][k]], axis=1) for k in of_two[-3]}
    same([joined], [by_four[-2]], rtol=1e-5, atol=1e-6)
    same(of_two[-1:], by_four[-1:], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_swept_float_is_the_same_float_alone(of_two: list[dict]) -> None:
    swept = dataclasses.replace(SMALL, ppo=dataclasses.replace(SMALL.ppo, kl_weight=(0.1, 0.5)))
    said, _ = play(swept)
    same(of_two, said, slice(2, 4), rtol=1e-4, atol=1e-5)
    last = said[-2]["objective/kl"]
    assert not np.allclose(last[:2], last[2:])


@pytest.mark.slow
def test_two_seeds_and_two_updates_differ(of_two: list[dict]) -> None:
    scores = of_two[-2]["objective/scores"]
    assert scores[0, 0] != scores[1, 0]
    assert scores[0, 0] != scores[0, 1]


@pytest.mark.slow
def test_the_reference_survives_the_policy(of_two: list[dict]) -> None:
    _, state = play(SMALL)
    base = jax.tree.map(lambda x: x[0], state.base.params)
    jax.tree.map(np.testing.assert_array_equal, base, state.reference)
    moved = jax.tree.map(
        lambda a, b: float(np.abs(a[0] - b).max()), state.learner.policy.params, state.reference
    )
    assert max(jax.tree.leaves(moved)) > 0


@pytest.mark.slow
def test_every_stage_compiles_in_its_first_call_only() -> None:
    config = dataclasses.replace(SMALL, rounds=3)
    line = pipeline.build(config, jax.devices()[:1])
    state = line.begin()
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event)
    )
    seen: dict[str, int] = {}
    for call in line.plan:
        before, shapes = compiled.count(COMPILED), jax.tree.map(jnp.shape, state)
        state, _ = call.run(state)
        assert jax.tree.map(jnp.shape, state) == shapes, call.stage
        programs = compiled.count(COMPILED) - before
        assert programs == 0 or call.stage not in seen, f"{call.stage} compiled again"
        seen.setdefault(call.stage, programs)
    stages = ("pretrain", "collect", "reward", "draw", "measure", "policy")
    assert all(seen[stage] > 0 for stage in stages)


def test_keys_of_a_seed_are_the_same_at_every_grid_point() -> None:
    config = dataclasses.replace(SMALL, human=dataclasses.replace(SMALL.human, lapse=(0.0, 0.3)))
    data = jax.random.key_data(grid.keys(config))
    np.testing.assert_array_equal(data[:2], data[2:])
