"""What an iteration may cost: operations, compiles, copies. Nothing here looks at a clock."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from tabular import case

from rlhf_jax import grid
from rlhf_jax.config import PPO, Model
from rlhf_jax.kernels import ppo, reward
from rlhf_jax.kernels.experience import Given, Task
from rlhf_jax.kernels.sampling import sample
from rlhf_jax.mesh import population_mesh
from rlhf_jax.models import heads
from rlhf_jax.transforms import population, shard
from rlhf_jax.types import Prompts
from rlhf_jax.work import SIZES as SIZES_OF_BENCH
from rlhf_jax.work import Sizes, iteration, pair, work
from rlhf_jax.worlds import blank

assert grid  # makes PPO a pytree

# The mix of size S (dense layers, attention, logits) at an eighth of its work.
SIZES = Sizes(Model(width=128, layers=2, heads=4, kv_heads=4, mlp=342), 512, 16, 32, 16, 1)
LANGUAGE = blank.language(SIZES.vocabulary, SIZES.response)
POLICY, SCALAR = heads.policy(SIZES.model, LANGUAGE), heads.scalar(SIZES.model, LANGUAGE)
HP = PPO(batch=SIZES.batch, epochs=1, minibatches=1)
compiling = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def prompt(where, key):
    return blank.prompt(where, key, SIZES.vocabulary, SIZES.prompt)


TASK = Task(POLICY, LANGUAGE, prompt, lambda g, x: reward.score(SCALAR, g.judge, x), lambda *_: {})
KERNEL = ppo.kernel(TASK, SCALAR, 10)


def begin(key) -> tuple[ppo.State, Given]:
    keys = jax.random.split(key, 4)
    policy, reference = POLICY.init(keys[0]), POLICY.init(keys[0])
    judge = reward.Judge(SCALAR.init(keys[1]), jnp.zeros(()), jnp.ones(()))
    return KERNEL.init(keys[2], HP, policy, SCALAR.init(keys[3])), Given(reference, judge, None)


SHAPES = jax.eval_shape(begin, jax.random.key(0))


@cache
def step() -> Any:
    """One iteration, compiled from shapes alone."""
    return compiling(KERNEL.step, donate_argnums=0).lower(*SHAPES).compile()


def test_the_least_work_is_the_number_derived_by_hand():
    # S, per token and layer: 4·128·128 = 65,536 for key and value, 2·128·(2·128 + 3·342) =
    # 328,192 for the rest; attention 4·128 a token seen; logits 2·128·512 = 131,072.
    # Three layers of a sequence of 48: 3·(393,728·48 + 512·1176) = 58,503,168; of 47: 57,248,256.
    # The last layer of the policy, 32 of 47 ask: 65,536·47 + 328,192·32 + 512·(32·15 + 528);
    # of the critic, 33 of 48; of the judge, the last token: 65,536·48 + 328,192 + 512·48.
    s = SIZES_OF_BENCH["S"]
    policy, critic, judge = 71_346_688, 73_019_904, 62_001_664
    assert work(s).update == 3 * 64 * (policy + critic + 32 * 131_072)
    assert work(s).scoring == 64 * (policy + critic + judge + 32 * 131_072)
    assert pair(s) == 6 * judge
    assert iteration(s) == pytest.approx(132.4e9, rel=0.001)
    assert iteration(SIZES_OF_BENCH["M"]) == pytest.approx(4_459e9, rel=0.001)


def test_one_iteration_compiles_to_the_least_work_within_ten_percent():
    # The cost analysis counts the body of a loop once: one decoded token, one update.
    w = work(SIZES)
    least = w.prefill + w.decode + w.scoring + w.update
    assert step().cost_analysis()["flops"] == pytest.approx(least, rel=0.10)


def test_one_decoded_token_is_one_token_of_work_within_ten_percent():
    w = work(SIZES)
    asked = Prompts(
        jax.ShapeDtypeStruct((SIZES.batch, SIZES.prompt), jnp.int32),
        jax.ShapeDtypeStruct((SIZES.batch, SIZES.prompt), bool),
    )
    params = SHAPES[0].policy.params
    draw = compiling(partial(sample, POLICY, LANGUAGE)).lower(params, asked, jax.random.key(0))
    assert draw.compile().cost_analysis()["flops"] == pytest.approx(w.prefill + w.decode, rel=0.10)


def test_the_old_state_is_given_up_for_the_new_one():
    size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    learned = [SHAPES[0].policy, SHAPES[0].critic]
    owned = size([(x.params, x.moments) for x in learned])
    assert owned > 5_000_000  # twice: parameters and both moments
    assert step().memory_analysis().alias_size_in_bytes >= owned


def test_a_sharded_population_gives_up_its_state_and_compiles_once():
    world = case(3, 2)
    kernel = ppo.kernel(world.task, world.critic, 10)
    mesh = population_mesh(2, jax.devices()[:2])
    many = shard(population(kernel, by="map", batch_axes=None), mesh, batch_axes=None)
    keys = jax.random.split(jax.random.key(0), 2)
    twice = lambda tree: jax.tree.map(lambda x: jnp.stack([jnp.asarray(x)] * 2), tree)
    state = many.init(keys, twice(HP), twice(world.reference), twice(world.critic.init(keys[0])))
    given = Given(world.reference, None, None)
    compiled: list[str] = []
    listen = lambda event, _, **__: compiled.append(event) if "backend_compile" in event else None
    jax.monitoring.register_event_duration_secs_listener(listen)
    for i in range(3):
        old = state
        state, _ = many.step(old, given)
        assert all(x.is_deleted() for x in jax.tree.leaves((old.policy.params, old.critic.params)))
        assert not given.reference.is_deleted()
        if i == 0:
            first = len(compiled)
    assert first >= 1
    assert len(compiled) == first
