"""A run's directory belongs to one configuration and to one process at a time."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rlhf_jax import rundir
from rlhf_jax.config import PPO, Config, ConfigError, Human, Run


@pytest.fixture
def config(tmp_path) -> Config:
    return Config(
        name="mine",
        human=Human(lapse=(0.0, 0.1)),
        ppo=PPO(kl_horizon=float("inf")),
        run=Run(directory=str(tmp_path / "runs")),
    )


def claim(config: Config) -> Path:
    """The directory as a start leaves it."""
    with rundir.opened(config) as directory:
        return directory


def changed(config: Config, **changes: object) -> Config:
    return dataclasses.replace(config, **changes)


# --- claim


def test_a_claimed_directory_says_what_was_resolved(config):
    directory = claim(config)
    assert directory.name == "mine"
    assert rundir.read_settings(directory) == rundir.settings(config)


def test_settings_survive_being_written(config):
    read = json.loads(json.dumps(rundir.settings(config)))
    assert read == rundir.settings(config)
    assert read["human.lapse"] == [0.0, 0.1]
    assert read["ppo.kl_horizon"] == float("inf")
    assert read["ppo.adam.learning_rate"] == config.ppo.adam.learning_rate


def test_the_same_configuration_may_come_again(config):
    assert claim(config) == claim(config)


def test_how_a_run_is_executed_may_change(config):
    claim(config)
    again = changed(config, run=dataclasses.replace(config.run, chunk=3, keep=7, devices=1))
    with rundir.opened(again) as directory:
        assert rundir.read_settings(directory)["run.chunk"] == config.run.chunk
        rundir.write_settings(directory, again)
    assert rundir.read_settings(directory)["run.chunk"] == 3


def test_other_settings_are_refused_by_name_and_the_first_stay(config):
    directory = claim(config)
    other = changed(config, seeds=3, human=Human(lapse=0.2), run=config.run)
    with pytest.raises(ConfigError) as caught:
        claim(other)
    assert str(caught.value) == (
        f"{directory} holds a run with other settings: human.lapse ([0.0, 0.1] there, 0.2 here), "
        "seeds (8 there, 3 here); choose another --name or remove the directory"
    )
    assert rundir.read_settings(directory) == rundir.settings(config)


def test_a_setting_of_an_older_version_that_is_none_today_is_named(config):
    directory = claim(config)
    settings = rundir.settings(config)
    del settings["ppo.clip"]
    (directory / "config.json").write_text(json.dumps(settings | {"ppo.clip_range": 0.3}))
    with pytest.raises(ConfigError, match=r"ppo.clip_range \(0.3 there, absent here\)"):
        claim(config)


def test_a_setting_that_an_older_version_did_not_have_was_what_is_now_its_default(config):
    directory = claim(config)
    settings = rundir.settings(config)
    del settings["ppo.clip"]
    (directory / "config.json").write_text(json.dumps(settings))
    other = dataclasses.replace(config, ppo=dataclasses.replace(config.ppo, clip=0.3))
    with pytest.raises(ConfigError, match=r"ppo.clip \(0.2 there, 0.3 here\)"):
        claim(other)
    claim(config)


@pytest.mark.parametrize("text", ["{not json", "", "[1, 2]", "3"])
def test_settings_that_cannot_be_read_are_one_line(config, text):
    directory = claim(config)
    (directory / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json cannot be read") as caught:
        claim(config)
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_a_directory_is_one_line(config, tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match=r"run\.directory: cannot write .*runs/mine: ") as caught:
        claim(config)
    assert "\n" not in str(caught.value)
    assert "None" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_one_line(config, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs").chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ConfigError, match="Permission denied"):
        claim(config)


def test_a_name_too_long_for_the_file_system_is_one_line(config):
    with pytest.raises(ConfigError, match=r"run\.directory: cannot write .*File name too long"):
        claim(changed(config, name="x" * 300))


def test_nothing_half_written_is_left(config):
    directory = claim(config)
    assert sorted(p.name for p in directory.iterdir()) == ["config.json", "lock"]


# --- the lock


def test_a_directory_in_use_is_refused_and_free_afterwards(config):
    directory = claim(config)
    with rundir.locked(directory):
        code = (
            "import sys, pathlib; from rlhf_jax import rundir\n"
            "with rundir.locked(pathlib.Path(sys.argv[1])): pass"
        )
        words = [sys.executable, "-c", code, str(directory)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert f"ConfigError: {directory} is in use by another process" in done.stderr
    with rundir.locked(directory):
        pass


def test_a_killed_process_leaves_no_lock(config):
    directory = claim(config)
    code = (
        "import sys, time, pathlib; from rlhf_jax import rundir\n"
        "with rundir.locked(pathlib.Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    )
    words = [sys.executable, "-c", code, str(directory)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "in\n"
        with pytest.raises(ConfigError, match="in use"), rundir.locked(directory):
            pass
        child.kill()
    with rundir.locked(directory):
        pass


def test_a_failure_inside_frees_the_lock(config):
    directory = claim(config)
    with pytest.raises(ZeroDivisionError), rundir.locked(directory):
        raise ZeroDivisionError
    with rundir.locked(directory):
        pass


def test_of_two_starts_at_once_one_runs_and_its_settings_are_those_in_the_folder(config):
    for trial in range(40):
        both = [changed(config, name=f"n{trial}", seeds=n) for n in (2, 3)]
        ready, ended = (threading.Barrier(2, timeout=30) for _ in range(2))
        won: list[int] = []
        lost: list[str] = []

        def start(mine: Config, ready=ready, ended=ended, won=won, lost=lost) -> None:
            ready.wait()
            try:
                with rundir.opened(mine) as directory:
                    won.append(mine.seeds)
                    ended.wait()
                    assert rundir.read_settings(directory)["seeds"] == mine.seeds
            except ConfigError as problem:
                lost.append(str(problem))
                ended.wait()

        threads = [threading.Thread(target=start, args=(c,)) for c in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == len(lost) == 1, (won, lost)
        assert lost[0].endswith("is in use by another process")
        assert rundir.read_settings(rundir.place(both[0]))["seeds"] == won[0]


# --- the folder as a whole


@pytest.fixture
def begun(config) -> Path:
    """A run that has measured something and saved it."""
    directory = claim(config)
    for name in rundir.FOLDERS:
        (directory / name).mkdir()
    (directory / "metrics.jsonl").write_text('{"stage": "pretrain"}\n')
    describe(directory, config, saved=3)
    return directory


def bytes_of(directory: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def refused(config: Config, directory: Path, words: str) -> None:
    """In one line that says `words`, and nothing in the folder is another."""
    before = bytes_of(directory)
    with pytest.raises(ConfigError, match=words) as caught, rundir.opened(config):
        pass
    assert "\n" not in str(caught.value)
    assert bytes_of(directory) == before


@pytest.mark.parametrize("name", [*rundir.FILES, *rundir.FOLDERS])
def test_a_file_where_a_folder_should_be_or_the_other_way_round_is_one_line(config, begun, name):
    path = begun / name
    if path.is_dir():
        path.rmdir()
        path.write_text("")
    else:
        path.unlink(missing_ok=True)
        path.mkdir()
    kind = "file" if name in rundir.FILES else "folder"
    refused(config, begun, rf"{name} is no {kind}, as a run has there; move it away")


@pytest.mark.parametrize("name", ["all", "all/mean", "all/mean/events.out.tfevents.0.run"])
def test_events_that_are_no_folders_and_folders_that_are_no_events_are_one_line(
    config, begun, name
):
    path = begun / "events" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "file" if "tfevents" in name else "folder"
    path.mkdir() if kind == "file" else path.write_text("")
    refused(config, begun, rf"{name} is no {kind}, as a run has there; move it away")


@pytest.mark.parametrize("other", [False, True])
def test_without_its_settings_a_folder_belongs_to_no_one(config, begun, other):
    (begun / "config.json").unlink()
    mine = changed(config, ppo=PPO(kl_weight=0.7)) if other else config
    refused(mine, begun, r"config\.json does not exist, though metadata\.json does: .*put it back")


@pytest.mark.parametrize("text", ['{"name": "mi', "", "[]", '{"starts": 3}', '{"starts": [1]}'])
def test_half_written_metadata_are_one_line_that_says_what_to_do(config, begun, text):
    (begun / "metadata.json").write_text(text)
    refused(config, begun, r"metadata\.json cannot be read: .*; put it back, or move it away")


def test_what_was_measured_is_not_begun_anew_without_its_checkpoints(config, begun):
    (begun / "checkpoints").rmdir()
    refused(config, begun, r"checkpoints does not exist, though metrics\.jsonl holds what was meas")


@pytest.mark.parametrize("known", ["saved", "finished", "nothing"])
def test_an_empty_folder_of_checkpoints_is_believed_only_where_none_was_saved(
    config, begun, known, capsys
):
    before = {
        "saved": {"starts": [{"saved": 4}, {"saved": 0}]},
        "finished": {"starts": [{}], "finished": "2026-01-01T00:00:00Z"},
        "nothing": {},
    }[known]
    with pytest.raises(ConfigError, match=r"checkpoints holds no checkpoint, though the run had"):
        rundir.refuse_lost(begun, before)
    rundir.refuse_lost(begun, {"starts": [{"saved": 0}]})
    assert "begins anew" in capsys.readouterr().err


# --- metadata


def describe(directory, config, before=None, command="python train.py", **changes) -> dict:
    start = rundir.begin(command, ["cpu:cpu"]) | {"steps": 5, "saved": changes.pop("saved", 0)}
    start |= {"steps": changes.pop("steps", 5)}
    given = {
        "data": {"sha256": "0"},
        "members": [{"seed": 0, "point": {}}],
        "base": "pretrained",
        "seconds": 12.345,
        "logs": {},
        "finished": False,
        "diverged": False,
    }
    rundir.describe(directory, config, before or {}, start, **(given | changes))
    return json.loads((directory / "metadata.json").read_text())


def test_metadata_say_where_numbers_come_from(config):
    got = describe(claim(config), config)
    assert set(rundir.PACKAGES) < set(got["versions"])
    assert got["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert all(got["versions"].values())
    assert (got["command"], got["devices"], got["seconds"]) == (
        "python train.py",
        ["cpu:cpu"],
        12.3,
    )
    assert got["git_revision"] == "unknown" or len(got["git_revision"].rstrip("+")) == 40
    assert got["finished"] is None


def test_a_resumed_run_keeps_the_time_it_was_first_started_and_lists_every_start(
    config, monkeypatch
):
    directory = claim(config)
    first = describe(directory, config)
    later = time.gmtime(time.time() + 3600)
    monkeypatch.setattr(time, "gmtime", lambda: later)
    before = rundir.read_metadata(directory)
    second = describe(directory, config, before, "python other.py", finished=True)
    assert second["started"] == first["started"]
    assert second["finished"] > second["started"]
    assert [s["command"] for s in second["starts"]] == ["python train.py", "python other.py"]
    assert second["starts"][0] == first["starts"][0]
    assert second["command"] == "python other.py"


def test_a_finished_run_that_is_opened_again_keeps_what_was_said_of_it(config):
    directory = claim(config)
    first = describe(directory, config, finished=True)
    before = rundir.read_metadata(directory)
    again = describe(directory, config, before, "python other.py", steps=0, finished=True)
    assert {k for k in first if again[k] != first[k]} == {"starts", "sha256"}
    assert [s["command"] for s in again["starts"]] == ["python train.py", "python other.py"]


def test_the_one_start_that_an_older_version_told_of_is_the_first_of_the_list(config):
    directory = claim(config)
    old = {"command": "old.py", "started": "a", "finished": "b", "devices": ["gpu"], "seconds": 2}
    (directory / "metadata.json").write_text(json.dumps(old))
    before = rundir.read_metadata(directory)
    again = describe(directory, config, before, steps=0, finished=True)
    assert again["command"] == "old.py"
    assert again["starts"][0]["command"] == "old.py"
    assert again["starts"][0]["ended"] == "b"
    assert again["starts"][1]["command"] == "python train.py"


def test_a_start_that_was_stopped_before_its_first_step_is_listed_and_told_of_no_step(config):
    directory = claim(config)
    first = describe(directory, config)
    before = rundir.read_metadata(directory)
    again = describe(directory, config, before, "python other.py", steps=0)
    assert again.keys() == first.keys()
    assert {k for k in first if again[k] != first[k]} == {"starts", "sha256"}
    assert again["starts"][0] == first["starts"][0]
    assert again["starts"][1]["command"] == "python other.py"


def test_a_run_whose_last_steps_are_made_anew_is_finished_no_more(config):
    directory = claim(config)
    describe(directory, config, finished=True)
    before = rundir.read_metadata(directory)
    assert describe(directory, config, before, steps=0)["finished"] is None


def test_metadata_in_which_anything_was_edited_are_not_believed(config):
    directory = claim(config)
    describe(directory, config, finished=True)
    path = directory / "metadata.json"
    path.write_text(path.read_text().replace("12.3", "12.4"))
    refused(config, directory, r"metadata\.json cannot be read: it is not what the run wrote; put")


def test_a_checkout_without_git_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert rundir._git_revision() == "unknown"
