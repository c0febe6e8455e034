"""What is saved comes back as it was; what is damaged is passed over, never trusted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from rlhf_jax.checkpoint import Checkpoints

# Of several reads at once the first that fails ends the restore; those still under way are never
# awaited or report to a closed event loop, perhaps in the next test: damage comes first here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
]


class State(NamedTuple):
    params: dict[str, Any]
    key: jax.Array
    step: jax.Array
    flags: jax.Array
    nothing: None


def state(n: int) -> State:
    return State(
        {"layer": {"w": jnp.linspace(0, 1, 24).reshape(8, 3) + n}, "b": (jnp.float32(n) / 3,)},
        jax.random.split(jax.random.key(n), 8),
        jnp.asarray(n, jnp.int32),
        jnp.arange(8) % 2 == 0,
        None,
    )


def equal(one: Any, two: Any) -> None:
    def same(x: jax.Array, y: jax.Array) -> None:
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)

    jax.tree.map(same, one, two)


def save(directory: Path, *steps: int, keep: int = 2) -> None:
    with Checkpoints(directory, keep) as checkpoints:
        for n in steps:
            checkpoints.save(state(n), {"call": n, "seconds": n + 0.25, "metrics": 10 * n})


def latest(directory: Path):
    with Checkpoints(directory, 2) as checkpoints:
        return checkpoints.latest(state(0))


@pytest.fixture
def directory(tmp_path) -> Path:
    return tmp_path / "checkpoints"


# --- damage


def cut(step: Path) -> None:
    """Every file of the checkpoint loses its second half."""
    for path in step.rglob("*"):
        if path.is_file():
            raw = path.read_bytes()
            path.write_bytes(raw[: len(raw) // 2])


def lose(name: str):
    def damage(step: Path) -> None:
        for path in list(step.rglob(name)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


def scramble(step: Path) -> None:
    """The data is as long as before, and noise."""
    for path in (step / "state").rglob("*"):
        if path.is_file() and path.parent.name == "d":
            n = path.stat().st_size
            path.write_bytes(np.random.default_rng(0).bytes(n))


DAMAGE = {
    "cut in half": cut,
    "data lost": lose("d"),
    "manifest lost": lose("manifest.ocdbt"),
    "state lost": lose("state"),
    "position lost": lose("position"),
    "data scrambled": scramble,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_skipped_with_a_warning_and_the_one_before_it_used(
    directory, damage
):
    save(directory, 2, 3)
    damage(directory / "3")
    with pytest.warns(UserWarning, match="checkpoint 3 cannot be read and is skipped"):
        found = latest(directory)
    equal(found.state, state(2))
    assert found.position["call"] == 2


def test_a_checkpoint_that_was_being_written_is_passed_over(directory):
    save(directory, 2, 3)
    half = directory / "4.orbax-checkpoint-tmp-17"  # renamed to "4" when it is whole
    shutil.copytree(directory / "3", half)
    cut(half)
    equal(latest(directory).state, state(3))
    save(directory, 4)
    equal(latest(directory).state, state(4))


def test_where_every_checkpoint_is_damaged_the_run_begins_anew(directory):
    save(directory, 2, 3)
    cut(directory / "2")
    cut(directory / "3")
    with pytest.warns(UserWarning, match="checkpoint . cannot be read"):
        assert latest(directory) is None


@pytest.mark.parametrize("keep", [1, 2])
def test_after_damage_a_resumed_run_saves_the_same_calls_again(directory, keep):
    # The damaged newest one must neither block its own number nor count among those kept.
    save(directory, 2, 5)
    cut(directory / "5")
    with Checkpoints(directory, keep) as again:
        with pytest.warns(UserWarning, match="checkpoint 5"):
            found = again.latest(state(0))
        assert found.position["call"] == 2
        for n in (3, 4):
            again.save(state(n), {"call": n})
    assert latest(directory).position["call"] == 4
    save(directory, 5)
    found = latest(directory)
    assert found.position["call"] == 5
    equal(found.state, state(5))


def test_reading_a_part_of_another_run_leaves_its_checkpoints_alone(directory):
    save(directory, 2, 3)
    cut(directory / "3")
    with (
        pytest.warns(UserWarning, match="checkpoint 3"),
        Checkpoints(directory, None) as checkpoints,
    ):
        params = checkpoints.part("params", jax.eval_shape(lambda: state(0).params))
    equal(params, state(2).params)
    assert sorted(p.name for p in directory.iterdir()) == ["2", "3"]


# --- the round trip


def test_a_state_comes_back_bit_for_bit_with_its_typed_keys(directory):
    save(directory, 3)
    found = latest(directory)
    equal(found.state, state(3))
    assert jax.tree.structure(found.state) == jax.tree.structure(state(3))
    # The key works: it draws what the original would have drawn.
    draw = jax.vmap(lambda key: jax.random.normal(key, (2,)))
    np.testing.assert_array_equal(draw(found.state.key), draw(state(3).key))


def test_the_position_comes_back_with_it(directory):
    save(directory, 3)
    assert latest(directory).position == {"call": 3, "seconds": 3.25, "metrics": 30}


def test_where_nothing_was_saved_nothing_is_found(directory):
    assert latest(directory) is None


def test_the_newest_is_found_and_only_the_last_are_kept(directory):
    save(directory, 1, 2, 3, 4)
    assert latest(directory).position["call"] == 4
    assert sorted(p.name for p in directory.iterdir()) == ["3", "4"]


def test_leaving_waits_until_the_last_save_is_on_disk(directory):
    save(directory, 7)
    assert not [p for p in directory.iterdir() if "tmp" in p.name]
    equal(latest(directory).state, state(7))


def test_a_state_may_be_donated_as_soon_as_save_returns(directory):
    update = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    mine = {"w": jnp.arange(100_000.0)}
    with Checkpoints(directory, 2) as checkpoints:
        checkpoints.save(mine, {"call": 1})
        for _ in range(3):
            mine = {"w": update(mine["w"])}
    with Checkpoints(directory, 2) as checkpoints:
        found = checkpoints.latest({"w": jnp.zeros(100_000)})
    np.testing.assert_array_equal(found.state["w"], np.arange(100_000.0))


def test_a_state_comes_back_on_the_devices_it_is_asked_for(directory):
    save(directory, 5)
    mesh = jax.make_mesh((8,), ("seed",), axis_types=(AxisType.Auto,))
    over = NamedSharding(mesh, P("seed"))
    like = state(0)
    spread = like._replace(
        params={**like.params, "layer": jax.device_put(like.params["layer"], over)},
        key=jax.device_put(like.key, over),
    )
    with Checkpoints(directory, 2) as checkpoints:
        found = checkpoints.latest(spread)
    equal(found.state, state(5))
    assert found.state.params["layer"]["w"].sharding == over
    assert len(found.state.key.sharding.device_set) == 8


def test_one_part_can_be_read_alone(directory):
    save(directory, 4, 5)
    with Checkpoints(directory, None) as checkpoints:
        params = checkpoints.part("params", jax.eval_shape(lambda: state(0).params))
    equal(params, state(5).params)
