"""Kernel → Kernel: a learner, many learners and many learners on many devices are one thing."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh

from rlhf_jax.mesh import population_mesh, spread
from rlhf_jax.transforms import broadcast_prefix, minibatches, population, repeat, shard
from rlhf_jax.types import Array, Kernel, Metrics


class State(NamedTuple):
    weights: Array
    key: Array
    step: Array


class Batch(NamedTuple):
    x: Array
    target: Array
    shift: Array
    """shared by all members"""


def regression() -> Kernel:
    """Gradient descent on ½ mean (x·w + shift − target)², with noise of its own."""

    def init(key: Array, scale: Array) -> State:
        return State(scale * jax.random.normal(key, (3,)), key, jnp.zeros((), jnp.int32))

    def step(state: State, batch: Batch) -> tuple[State, Metrics]:
        batch = batch._replace(**spread({"x": batch.x, "target": batch.target}))

        def loss(w: Array) -> Array:
            return 0.5 * jnp.mean(jnp.square(batch.x @ w + batch.shift - batch.target))

        value, slope = jax.value_and_grad(loss)(state.weights)
        noise = 0.01 * jax.random.normal(jax.random.fold_in(state.key, state.step), (3,))
        weights = state.weights - 0.1 * slope + noise
        return State(weights, state.key, state.step + 1), {"loss": value}

    return Kernel(init, step)


MEMBERS, ROWS = 8, 16
KEYS = jax.random.split(jax.random.key(0), MEMBERS)
SCALES = jnp.linspace(0.5, 2.0, MEMBERS)
AXES = Batch(0, 0, None)


def batch() -> Batch:
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    return Batch(normal(MEMBERS, ROWS, 3), normal(MEMBERS, ROWS), jnp.asarray(0.3))


def alone(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(weights, last loss) of each member, run by itself."""
    kernel, given, out = regression(), batch(), []
    step = jax.jit(kernel.step)
    for i in range(MEMBERS):
        state = kernel.init(KEYS[i], SCALES[i])
        for _ in range(steps):
            state, metrics = step(state, Batch(given.x[i], given.target[i], given.shift))
        out.append((np.asarray(state.weights), np.asarray(metrics["loss"])))
    return tuple(map(np.stack, zip(*out, strict=True)))


@pytest.fixture(scope="module")
def serial():
    return alone(5)


# --- repeat


def test_repeating_a_kernel_is_calling_it_again_and_again(serial):
    kernel, given = repeat(regression(), 5), batch()
    state = kernel.init(KEYS[2], SCALES[2])
    state, metrics = jax.jit(kernel.step)(state, Batch(given.x[2], given.target[2], given.shift))
    np.testing.assert_allclose(state.weights, serial[0][2], rtol=1e-5)
    assert metrics["loss"].shape == (5,)
    np.testing.assert_allclose(metrics["loss"][-1], serial[1][2], rtol=1e-5)
    assert int(state.step) == 5


# --- minibatches


class Reader(NamedTuple):
    key: Array
    step: Array


def reader() -> Kernel:
    """Says which rows it was given."""
    init = lambda seed, step=0: Reader(jax.random.key(seed), jnp.asarray(step, jnp.int32))
    step = lambda state, rows: (state._replace(step=state.step + 1), {"rows": rows})
    return Kernel(init, step)


def read(
    seed: int, *, n: int, filled: int, size: int, steps: int, first: int = 0
) -> list[list[int]]:
    """The rows of each step, of `n` rows of which `filled` count."""
    kernel = minibatches(reader(), size, lambda s: (s.key, s.step), steps)
    data = (jnp.arange(n), jnp.asarray(filled, jnp.int32))
    return jax.jit(kernel.step)(kernel.init(seed, first), data)[1]["rows"].tolist()


def flat(rows: list[list[int]]) -> list[int]:
    return [i for row in rows for i in row]


def test_an_epoch_visits_each_filled_row_once_and_no_other():
    for epoch in range(3):
        rows = read(0, n=20, filled=12, size=4, steps=3, first=3 * epoch)
        assert sorted(flat(rows)) == list(range(12))


def test_the_steps_of_a_call_are_those_of_as_many_calls_wherever_it_begins():
    settings: dict[str, int] = {"n": 20, "filled": 13, "size": 4}
    one_by_one = [read(0, steps=1, first=k, **settings)[0] for k in range(2, 12)]
    assert read(0, steps=10, first=2, **settings) == one_by_one


@pytest.mark.parametrize("by", ["vmap", "map"])
def test_members_of_a_population_have_orders_of_their_own_at_epochs_of_their_own(by):
    member = minibatches(reader(), 4, lambda s: (s.key, s.step), 7)
    many = population(member, by=by, batch_axes=(None, 0))
    state = jax.vmap(member.init)(jnp.arange(3), jnp.asarray([0, 2, 5]))
    filled = [8, 12, 20]
    found = jax.jit(many.step)(state, (jnp.arange(20), jnp.asarray(filled)))[1]["rows"]
    for i, first in enumerate([0, 2, 5]):
        alone = read(i, n=20, filled=filled[i], size=4, steps=7, first=first)
        assert found[i].tolist() == alone


def test_rows_that_do_not_fill_a_batch_wait_for_another_epoch():
    # 13 rows in batches of 4: three batches an epoch, one row left over, not always the same.
    rows = read(0, n=20, filled=13, size=4, steps=60)
    epochs = [flat(rows[i : i + 3]) for i in range(0, 60, 3)]
    assert all(len(set(e)) == 12 for e in epochs)
    assert set(flat(epochs)) == set(range(13))
    assert len({(set(range(13)) - set(e)).pop() for e in epochs}) > 3


def test_epochs_seeds_and_fillings_have_orders_of_their_own():
    epoch = lambda *args, **kw: tuple(flat(read(*args, n=40, size=4, **kw)))
    orders = [
        epoch(0, filled=32, steps=8),
        epoch(0, filled=32, steps=8, first=8),
        epoch(1, filled=32, steps=8),
        tuple(i for i in epoch(0, filled=40, steps=10) if i < 32),
    ]
    assert len(set(orders)) == 4
    assert epoch(0, filled=32, steps=8) == orders[0]


def test_an_order_is_a_shuffle_and_not_a_shift():
    order = np.asarray(flat(read(3, n=64, filled=64, size=8, steps=8)))
    assert abs(np.corrcoef(order, np.arange(64))[0, 1]) < 0.4
    assert len(set(np.diff(order).tolist())) > 20


def test_minibatches_cut_every_leaf_alike():
    kernel = minibatches(reader(), 4, lambda s: (s.key, s.step), 1)
    data = {"i": jnp.arange(8), "square": jnp.arange(8)[:, None] ** 2}
    _, metrics = jax.jit(kernel.step)(kernel.init(0), (data, jnp.asarray(8)))
    rows = metrics["rows"]
    np.testing.assert_array_equal(rows["square"][..., 0], rows["i"] ** 2)


# --- population


@pytest.mark.parametrize("by", ["vmap", "map"])
def test_a_population_is_its_members_run_alone(by, serial):
    kernel = repeat(population(regression(), by=by, batch_axes=AXES), 5)
    state, metrics = jax.jit(kernel.step)(kernel.init(KEYS, SCALES), batch())
    np.testing.assert_allclose(state.weights, serial[0], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"][-1], serial[1], rtol=1e-5)


@pytest.mark.parametrize("by", ["vmap", "map"])
def test_a_population_may_share_its_whole_batch(by):
    given = batch()
    shared = Batch(given.x[0], given.target[0], given.shift)
    kernel = population(regression(), by=by, batch_axes=None)
    state, _ = jax.jit(kernel.step)(kernel.init(KEYS, SCALES), shared)
    one, _ = regression().step(regression().init(KEYS[3], SCALES[3]), shared)
    np.testing.assert_allclose(state.weights[3], one.weights, rtol=1e-5)


def test_a_prefix_says_something_of_every_leaf():
    tree = Batch({"a": 1, "b": (2, 3)}, 4, 5)
    assert broadcast_prefix(Batch(0, None, 0), tree) == [0, 0, 0, None, 0]
    assert broadcast_prefix(None, tree) == [None] * 5
    assert broadcast_prefix(0, tree) == [0] * 5


# --- shard


def mesh(seeds: int, data: int) -> Mesh:
    auto = (AxisType.Auto, AxisType.Auto)
    devices = jax.devices()[: seeds * data]
    return jax.make_mesh((seeds, data), ("seed", "data"), axis_types=auto, devices=devices)


def sharded(over: Mesh, by: str = "vmap") -> Kernel:
    return shard(population(regression(), by=by, batch_axes=AXES), over, batch_axes=AXES)


@pytest.mark.parametrize("by", ["vmap", "map"])
@pytest.mark.parametrize("shape", [(8, 1), (4, 2), (1, 8)])
def test_a_population_over_devices_is_the_one_on_a_single_device(shape, by, serial):
    kernel, given = sharded(mesh(*shape), by), batch()
    state = kernel.init(KEYS, SCALES)
    for _ in range(5):
        state, metrics = kernel.step(state, given)
    np.testing.assert_allclose(state.weights, serial[0], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], serial[1], rtol=1e-5)
    assert len(state.weights.sharding.device_set) == shape[0] * shape[1]
    assert state.weights.addressable_shards[0].data.shape == (MEMBERS // shape[0], 3)


def test_the_state_is_donated_and_the_batch_is_not():
    kernel, given = sharded(mesh(8, 1)), batch()
    state = kernel.init(KEYS, SCALES)
    after, _ = kernel.step(state, given)
    assert state.weights.is_deleted()
    assert state.step.is_deleted()
    assert not any(x.is_deleted() for x in given)
    assert not after.weights.is_deleted()


def test_a_sharded_kernel_is_traced_once():
    traces = []

    def counted(state: Any, given: Any) -> tuple[Any, Metrics]:
        traces.append(1)
        return regression().step(state, given)

    kernel = Kernel(regression().init, counted)
    kernel = shard(population(kernel, batch_axes=AXES), mesh(4, 2), batch_axes=AXES)
    given = jax.device_put(batch())
    state = kernel.init(KEYS, SCALES)
    state, _ = kernel.step(state, given)
    traces.clear()
    for _ in range(3):
        state, _ = kernel.step(state, given)
    assert not traces


# --- meshes


@pytest.mark.parametrize(
    ("seeds", "shape"), [(8, (8, 1)), (16, (8, 1)), (4, (4, 2)), (6, (2, 4)), (1, (1, 8))]
)
def test_as_many_devices_as_divide_the_seeds_lie_along_them(seeds, shape):
    made = population_mesh(seeds, jax.devices()[:8])
    assert tuple(made.shape.items()) == (("seed", shape[0]), ("data", shape[1]))


def test_spread_lays_rows_over_the_data_axis_and_changes_no_number():
    x = {"rows": jnp.arange(16.0).reshape(16, 1), "odd": jnp.arange(3.0), "one": jnp.ones(())}
    assert spread(x) is x  # no mesh
    with jax.set_mesh(mesh(1, 8)):
        out = jax.jit(spread)(x)
    jax.tree.map(np.testing.assert_array_equal, out, x)
    assert out["rows"].addressable_shards[0].data.shape == (2, 1)
    assert out["odd"].addressable_shards[0].data.shape == (3,)
