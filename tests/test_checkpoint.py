"""What is saved comes back as it was; what is damaged is passed over, never trusted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from rlhf_jax import checkpoint
from rlhf_jax.checkpoint import Checkpoints
from rlhf_jax.config import ConfigError


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
            checkpoints.save(state(n), {"steps": n, "seconds": n + 0.25, "metrics": 10 * n})


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
    with pytest.warns(UserWarning, match="checkpoint 3 cannot be used and is skipped"):
        found = latest(directory)
    equal(found.state, state(2))
    assert found.position["steps"] == 2


def test_a_checkpoint_that_was_being_written_is_passed_over(directory):
    save(directory, 2, 3)
    half = directory / "4.orbax-checkpoint-tmp-17"  # renamed to "4" when it is whole
    shutil.copytree(directory / "3", half)
    cut(half)
    equal(latest(directory).state, state(3))
    save(directory, 4)
    equal(latest(directory).state, state(4))


def test_where_every_checkpoint_is_damaged_it_is_said_in_one_line_and_nothing_is_touched(directory):
    save(directory, 2, 3)
    cut(directory / "2")
    cut(directory / "3")
    before = {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match=r"no checkpoint can be used \(3: .*; 2: ") as caught:
        latest(directory)
    assert "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()} == before


def test_what_reads_well_and_is_not_what_was_saved_is_passed_over(directory, monkeypatch):
    # As where a bit flips in memory on the way to the disk: every checksum of the file is right.
    save(directory, 2)
    honest = checkpoint._digest
    flipped = lambda x: honest(x + 1 if x.dtype == np.int32 else x)
    monkeypatch.setattr(checkpoint, "_digest", flipped)
    save(directory, 3)
    monkeypatch.setattr(checkpoint, "_digest", honest)
    with pytest.warns(UserWarning, match=r"checkpoint 3 .*: \.step is not what was saved"):
        equal(latest(directory).state, state(2))


@pytest.mark.parametrize("step", [9999, 1, -3])
def test_a_position_that_was_edited_is_passed_over(directory, step):
    save(directory, 2, 3)
    path = directory / "3" / "position" / "metadata"
    note = json.loads(path.read_text())
    note["position"]["steps"] = step
    path.write_text(json.dumps(note))
    with pytest.warns(UserWarning, match=r"checkpoint 3 .*: its position is not what was saved"):
        assert latest(directory).position["steps"] == 2


def test_two_checkpoints_that_were_swapped_are_not_taken_for_each_other(directory):
    save(directory, 2, 3)
    (directory / "2").rename(directory / "x")
    (directory / "3").rename(directory / "2")
    (directory / "x").rename(directory / "3")
    with pytest.raises(ConfigError, match=r"3: it is that of step 2; 2: it is that of step 3"):
        latest(directory)


@pytest.mark.parametrize("what", ["position", "state"])
def test_parts_of_two_checkpoints_are_none(directory, what):
    save(directory, 2, 3)
    shutil.rmtree(directory / "3" / what)
    shutil.copytree(directory / "2" / what, directory / "3" / what)
    with pytest.warns(UserWarning, match="checkpoint 3 cannot be used"):
        assert latest(directory).position["steps"] == 2


def test_a_position_that_does_not_fit_what_else_there_is_is_passed_over(directory):
    save(directory, 2, 3)

    def check(position):
        if position["steps"] == 3:
            raise ValueError("the log is cut")

    with (
        pytest.warns(UserWarning, match=r"checkpoint 3 .* skipped: the log is cut"),
        Checkpoints(directory, 2) as checkpoints,
    ):
        assert checkpoints.latest(state(0), check).position["steps"] == 2


def test_a_checkpoint_of_a_version_that_counted_calls_is_refused_in_one_line(directory):
    arrays = {"x": np.zeros(3)}
    with ocp.CheckpointManager(directory) as manager:
        manager.save(
            4,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(arrays), position=ocp.args.JsonSave({"call": 4})
            ),
        )
    with pytest.raises(ConfigError, match="4: an older version saved it, which counted calls"):
        latest(directory)


@pytest.mark.parametrize("keep", [1, 2])
def test_after_damage_a_resumed_run_saves_the_same_calls_again(directory, keep):
    # The damaged newest one must neither block its own number nor count among those kept.
    save(directory, 2, 5)
    cut(directory / "5")
    with Checkpoints(directory, keep) as again:
        with pytest.warns(UserWarning, match="checkpoint 5"):
            found = again.latest(state(0))
        assert found.position["steps"] == 2
        for n in (3, 4):
            again.save(state(n), {"steps": n})
    assert latest(directory).position["steps"] == 4
    save(directory, 5)
    found = latest(directory)
    assert found.position["steps"] == 5
    equal(found.state, state(5))


def test_what_was_set_aside_is_never_thrown_away(directory):
    save(directory, 2, 3)
    for times in (1, 2):
        cut(directory / "3")
        with pytest.warns(UserWarning, match="checkpoint 3 cannot be used and is skipped"):
            assert latest(directory).position["steps"] == 2
        assert len(list(directory.glob("unreadable-3-*"))) == times
        save(directory, 3)


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
    assert latest(directory).position == {"steps": 3, "seconds": 3.25, "metrics": 30}


def test_where_nothing_was_saved_nothing_is_found(directory):
    assert latest(directory) is None


def test_the_newest_is_found_and_only_the_last_are_kept(directory):
    save(directory, 1, 2, 3, 4)
    assert latest(directory).position["steps"] == 4
    assert sorted(p.name for p in directory.iterdir()) == ["3", "4"]


def test_leaving_waits_until_the_last_save_is_on_disk(directory):
    save(directory, 7)
    assert not [p for p in directory.iterdir() if "tmp" in p.name]
    equal(latest(directory).state, state(7))


def test_a_state_may_be_donated_as_soon_as_save_returns(directory):
    update = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    mine = {"w": jnp.arange(100_000.0)}
    with Checkpoints(directory, 2) as checkpoints:
        checkpoints.save(mine, {"steps": 1})
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


def test_a_part_is_read_where_there_are_fewer_devices(directory):
    mesh = jax.make_mesh((8,), ("seed",), axis_types=(AxisType.Auto,))
    over = jax.device_put(state(5).params["layer"], NamedSharding(mesh, P("seed")))
    spread = state(5)._replace(params={**state(5).params, "layer": over})
    with Checkpoints(directory, 2) as checkpoints:
        checkpoints.save(spread, {"steps": 5})
    code = """
import pathlib, sys, jax, jax.numpy as jnp
from rlhf_jax.checkpoint import Checkpoints
assert len(jax.devices()) == 1
with Checkpoints(pathlib.Path(sys.argv[1]), None) as checkpoints:
    print(float(checkpoints.part("params['layer']", {"w": jnp.zeros((8, 3))})["w"].sum()))
"""
    words = [sys.executable, "-c", code, str(directory)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.stdout.strip() == "132.0", done.stderr
