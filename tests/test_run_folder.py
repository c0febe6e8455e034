"""What is in a run's folder is gone on with, whatever `config.run` says, or refused in one line."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from test_invariants import SMALL

from rlhf_jax import logs as written
from rlhf_jax import loop, pipeline
from rlhf_jax.checkpoint import Checkpoints
from rlhf_jax.config import Config, ConfigError, Run
from rlhf_jax.pipeline import Pipeline

pytestmark = pytest.mark.slow
LOGS = ("metrics.jsonl", "samples.jsonl")


def configured(folder: Path, **changes: Any) -> Config:
    run = {"directory": str(folder), "checkpoint_seconds": 0.0} | changes
    return dataclasses.replace(SMALL, run=dataclasses.replace(SMALL.run, **run))


def built(**changes: Any) -> Pipeline:
    devices = changes.pop("devices", 1)
    return pipeline.build(configured(Path("runs"), **changes), jax.devices()[:devices])


def before_policy(line: Pipeline) -> int:
    """Calls of the plan before the first of the policy."""
    return [call.stage for call in line.plan].index("policy")


def go(line: Pipeline, folder: Path, calls: int | None = None, **changes: Any) -> Path:
    """The run in this folder, to its end or after as many calls of its plan."""
    config = configured(folder, **changes)
    return loop.run(config, "again", line._replace(plan=line.plan[:calls]))


def logs(run: Path) -> dict[str, bytes]:
    return {name: (run / name).read_bytes() for name in LOGS}


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in (run / "metrics.jsonl").read_text().splitlines()]


def same_numbers(run: Path, other: Path) -> None:
    """The same steps in the same order, and the same numbers but for the order of sums."""
    head = lambda row: (row["stage"], row["round"], row["step"])
    assert [head(row) for row in rows(run)] == [head(row) for row in rows(other)]
    for one, two in zip(rows(run), rows(other), strict=True):
        assert one.keys() == two.keys()
        for name in one.keys() - {"stage", "round", "step"}:
            np.testing.assert_allclose(
                one[name], two[name], rtol=1e-4, atol=1e-5, err_msg=f"{name} of {head(one)}"
            )


@pytest.fixture(scope="module")
def line() -> Pipeline:
    return built()


@pytest.fixture(scope="module")
def straight(line: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return go(line, tmp_path_factory.mktemp("straight"))


@pytest.fixture(scope="module")
def half_made(line: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return go(line, tmp_path_factory.mktemp("half"), before_policy(line) + 1)


def copied(run: Path, root: Path) -> Path:
    shutil.copytree(run, root / run.name)
    return root


# --- nothing in `config.run` changes a number


@pytest.mark.parametrize(
    ("field", "first", "then"), [("keep", 3, 1), ("keep", 1, 3), ("checkpoint_seconds", 0.0, 1e9)]
)
def test_how_often_and_how_many_checkpoints_change_no_bit(
    line, straight, tmp_path, field, first, then
):
    go(line, tmp_path / "a", before_policy(line) + 1, **{field: first})
    assert logs(go(line, tmp_path / "a", **{field: then})) == logs(straight)
    assert logs(go(line, tmp_path / "b", **{field: then})) == logs(straight)


def test_a_run_that_was_moved_to_another_directory_goes_on_there(
    line, straight, half_made, tmp_path
):
    assert logs(go(line, copied(half_made, tmp_path / "moved"))) == logs(straight)


@pytest.mark.parametrize(("first", "steps", "then"), [(2, 2, 1), (1, 1, 4)])
def test_another_chunk_goes_on_at_the_step_where_the_run_was(
    straight, tmp_path, first, steps, then
):
    begun = built(chunk=first)
    go(begun, tmp_path, before_policy(begun) + steps // first, chunk=first)
    same_numbers(go(built(chunk=then), tmp_path, chunk=then), straight)


@pytest.mark.parametrize("other", [{"devices": 8}, {"seeds_by": "vmap"}])
def test_other_devices_and_seeds_at_once_go_on_with_the_same_numbers(
    straight, half_made, tmp_path, other
):
    # That a whole run has them too is shown in test_invariants.
    same_numbers(go(built(**other), copied(half_made, tmp_path)), straight)


@pytest.fixture
def cache_as_it_was() -> Iterator[None]:
    before = jax.config.jax_compilation_cache_dir
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


@pytest.mark.usefixtures("cache_as_it_was")
def test_programs_that_were_compiled_or_read_from_another_cache_change_no_bit(
    straight, half_made, tmp_path
):
    cache = tmp_path / "cache"
    for name in ("compiled", "read"):
        config = configured(tmp_path / name, cache=str(cache), devices=1)
        again = loop.build(config)
        assert logs(go(again, copied(half_made, tmp_path / name))) == logs(straight)
        assert list(cache.iterdir())


PROVED = {
    "keep": test_how_often_and_how_many_checkpoints_change_no_bit,
    "checkpoint_seconds": test_how_often_and_how_many_checkpoints_change_no_bit,
    "directory": test_a_run_that_was_moved_to_another_directory_goes_on_there,
    "chunk": test_another_chunk_goes_on_at_the_step_where_the_run_was,
    "devices": test_other_devices_and_seeds_at_once_go_on_with_the_same_numbers,
    "seeds_by": test_other_devices_and_seeds_at_once_go_on_with_the_same_numbers,
    "cache": test_programs_that_were_compiled_or_read_from_another_cache_change_no_bit,
}


def test_every_setting_of_how_a_run_is_executed_has_its_proof():
    assert PROVED.keys() == {f.name for f in dataclasses.fields(Run)}


# --- where a plan is gone on with


def test_a_place_in_the_plan_is_counted_in_steps(line):
    total = pipeline.steps_of(line.plan)
    assert total == pipeline.steps_of(built(chunk=4).plan)
    assert pipeline.place(line, 0) == (0, 0)
    assert pipeline.place(line, total) == (len(line.plan), 0)
    calls = before_policy(line)
    first = pipeline.steps_of(line.plan[:calls])
    assert pipeline.place(line, first + 2) == (calls + 1, 0)
    assert pipeline.place(line, first + 3) == (calls + 1, 1)
    for nowhere in (-3, total + 1, 9999, 1):  # the last lies within a pass of pretraining
        with pytest.raises(ValueError, match=f"after {nowhere} steps is no place in a plan of"):
            pipeline.place(line, nowhere)


@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_the_rest_of_a_plan_makes_every_step_once_from_wherever_it_begins(chunk):
    line = built(chunk=chunk)
    first, calls = pipeline.steps_of(line.plan[: before_policy(line)]), (1, 2, 4)
    for made in range(5):
        rest, i = pipeline.going_on(line, first + made)
        policy = [c for c in rest.plan[i:] if c.stage == "policy"]
        assert [c.first + k for c in policy for k in range(c.steps)] == list(range(made, 4))
        assert all(c.steps in calls and c.steps <= chunk for c in policy)
        assert pipeline.steps_of(rest.plan) == pipeline.steps_of(line.plan)
        assert rest.plan[-1] == line.plan[-1]


@pytest.mark.parametrize("devices", [1, 8])
def test_the_shapes_and_places_of_a_state_are_known_without_one(devices):
    line = built(devices=devices)
    known, state = pipeline.shapes(line), line.begin()
    assert jax.tree.structure(known) == jax.tree.structure(state)
    for said, is_ in zip(jax.tree.leaves(known), jax.tree.leaves(state), strict=True):
        assert (said.shape, said.dtype) == (is_.shape, is_.dtype)
        assert said.sharding.is_equivalent_to(is_.sharding, is_.ndim)


def test_no_array_of_a_state_is_weakly_typed_as_none_is_that_a_call_returns_or_a_checkpoint_holds():
    begun = jax.tree.leaves_with_path(jax.eval_shape(built().begin))
    assert [jax.tree_util.keystr(path) for path, x in begun if x.weak_type] == []


def test_a_resumed_run_builds_no_state_beside_the_one_that_it_reads(line, half_made, tmp_path):
    def begin() -> pipeline.State:
        state = line.begin()
        assert isinstance(state.learner.policy.step, jax.core.Tracer)
        return state

    go(line._replace(begin=begin), copied(half_made, tmp_path))


# --- what is there is kept


def refused(line: Pipeline, root: Path, words: str) -> None:
    before = {p: p.read_bytes() for p in root.rglob("*") if p.is_file()}
    with pytest.raises(ConfigError, match=words) as caught:
        go(line, root)
    assert "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in root.rglob("*") if p.is_file()} == before


def not_made(state: Any) -> Any:
    raise AssertionError("a call was made")


def test_a_finished_run_that_is_opened_again_is_listed_and_nothing_else_is_said_anew(
    line, straight, tmp_path
):
    idle = line._replace(plan=tuple(c._replace(run=not_made) for c in line.plan))
    run = go(idle, copied(straight, tmp_path))
    before, after = (json.loads((r / "metadata.json").read_text()) for r in (straight, run))
    assert before.pop("sha256") != after.pop("sha256")
    assert len(after.pop("starts")) == 2
    assert len(before.pop("starts")) == 1
    assert before == after
    assert logs(run) == logs(straight)


def test_every_start_is_listed_with_what_it_made(line, half_made, tmp_path):
    run = go(line, copied(half_made, tmp_path))
    first, second = json.loads((run / "metadata.json").read_text())["starts"]
    total = pipeline.steps_of(line.plan)
    assert first["steps"] + second["steps"] == second["saved"] == total
    assert first["ended"] <= second["ended"]
    assert {"command", "versions", "git_revision", "devices", "seconds"} <= first.keys()


@pytest.mark.parametrize("lost", ["", "*"])
@pytest.mark.parametrize("which", ["straight", "half_made"])
def test_without_its_checkpoints_a_run_is_not_begun_anew(line, request, tmp_path, which, lost):
    root = copied(request.getfixturevalue(which), tmp_path)
    folder = root / SMALL.name / "checkpoints"
    for path in folder.glob(lost) if lost else [folder]:
        shutil.rmtree(path)
    refused(line, root, r"checkpoints (holds no checkpoint|does not exist), though .* put")


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew_and_says_so(
    line, straight, tmp_path, capsys
):
    plan = (*line.plan[:2], line.plan[2]._replace(run=not_made))
    config = configured(tmp_path, checkpoint_seconds=1e9)
    with pytest.raises(AssertionError):
        loop.run(config, "first", line._replace(plan=plan))
    assert rows(tmp_path / SMALL.name)
    assert logs(go(line, tmp_path)) == logs(straight)
    assert "begins anew" in capsys.readouterr().err


def test_a_byte_of_a_log_that_flipped_since_the_last_checkpoint_but_one_is_measured_again(
    line, straight, tmp_path
):
    root = copied(straight, tmp_path)
    path = root / SMALL.name / "metrics.jsonl"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    with pytest.warns(UserWarning, match=r"skipped: the first \d+ bytes of metrics\.jsonl are not"):
        assert logs(go(line, root)) == logs(straight)


@pytest.mark.parametrize("name", LOGS)
def test_a_log_that_no_checkpoint_fits_is_refused_and_kept(line, straight, tmp_path, name):
    root = copied(straight, tmp_path)
    path = root / SMALL.name / name
    path.write_bytes(b"[" + path.read_bytes()[1:])
    refused(line, root, rf"no checkpoint can be used .* of {name} are not what was written")


def test_a_checkpoint_from_beyond_the_plan_is_not_taken_for_its_end(line, straight, tmp_path):
    root = copied(straight, tmp_path)
    saved = {"metrics": 0, "samples": 0, "seconds": 1.0}
    with Checkpoints(root / SMALL.name / "checkpoints", 3) as checkpoints:
        checkpoints.save({"x": jnp.zeros(2)}, {"steps": 9999, **saved})
    with pytest.warns(UserWarning, match="9999 .* after 9999 steps is no place in a plan of"):
        assert logs(go(line, root)) == logs(straight)


# --- damage at random: scripts/corrupt.py does as many trials as are asked for


@pytest.fixture(scope="module")
def corrupt() -> ModuleType:
    path = Path(__file__).parents[1] / "scripts" / "corrupt.py"
    spec = importlib.util.spec_from_file_location("corrupt", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def subject(corrupt: ModuleType, line: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return corrupt.subject(SMALL, line, tmp_path_factory.mktemp("subject"))


def test_nothing_that_is_damaged_at_random_goes_wrong_unsaid(corrupt, subject, tmp_path):
    found = [corrupt.trial(subject, tmp_path / "copy", random.Random(k)) for k in range(24)]
    assert [t for t in found if t.outcome not in corrupt.SOUND] == []
    assert {t.outcome for t in found} <= set(corrupt.SOUND)


def test_of_two_checkpoints_the_older_is_used_where_the_newest_was_cut(corrupt, subject, tmp_path):
    folder = copied(subject.folders["finished"], tmp_path) / SMALL.name
    newest = max((folder / "checkpoints").glob("[0-9]*"), key=lambda p: int(p.name))
    for path in (newest / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=f"checkpoint {newest.name} cannot be used and is skipped"):
        assert corrupt._as_run(subject, folder) == "same"


def edit(what: str, settings: dict[str, Any], metadata: dict[str, Any]) -> None:
    """Members, data or settings as nobody ran them."""
    if what == "members":
        metadata["members"][0]["seed"] = 7
    elif what == "data":
        metadata["data"]["more"] = "than there was"
    else:
        settings["ppo.kl_weight"] = 0.25


@pytest.mark.parametrize("which", ["finished", "half"])
@pytest.mark.parametrize("what", ["members", "data", "settings"])
def test_settings_members_and_data_that_were_edited_are_refused_by_readers_and_starts(
    corrupt, subject, tmp_path, which, what
):
    folder = copied(subject.folders[which], tmp_path) / SMALL.name
    paths = folder / "config.json", folder / "metadata.json"
    both = [json.loads(path.read_text()) for path in paths]
    edit(what, *both)
    for path, content in zip(paths, both, strict=True):
        path.write_text(json.dumps(content))
    assert corrupt._as_read(subject, folder) == "refused"
    assert corrupt._as_run(subject, folder) == "refused"


def test_a_finished_run_that_is_opened_again_says_its_members_and_not_those_of_an_old_file(
    corrupt, subject, tmp_path
):
    folder = copied(subject.folders["finished"], tmp_path) / SMALL.name
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    for digest in ("sha256", "settings_sha256"):  # as older versions wrote it
        del metadata[digest]
    edit("members", {}, metadata)
    path.write_text(json.dumps(metadata))
    assert corrupt._as_run(subject, folder) == "same"


def test_a_number_that_is_wrong_unsaid_would_be_seen(corrupt, subject, tmp_path, monkeypatch):
    monkeypatch.setattr(written, "check", lambda *_: None)
    root = copied(subject.folders["finished"], tmp_path)
    path = root / SMALL.name / "metrics.jsonl"
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    assert corrupt._as_run(subject, root / SMALL.name) == "SILENT: other numbers"
    assert corrupt._as_read(subject, root / SMALL.name) == "SILENT: other numbers"
