"""A run's directory belongs to one configuration and to one process at a time."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys
import time

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


def changed(config: Config, **changes: object) -> Config:
    return dataclasses.replace(config, **changes)


# --- claim


def test_a_claimed_directory_says_what_was_resolved(config):
    directory = rundir.claim(config)
    assert directory.name == "mine"
    assert rundir.read_settings(directory) == rundir.settings(config)


def test_settings_survive_being_written(config):
    read = json.loads(json.dumps(rundir.settings(config)))
    assert read == rundir.settings(config)
    assert read["human.lapse"] == [0.0, 0.1]
    assert read["ppo.kl_horizon"] == float("inf")
    assert read["ppo.adam.learning_rate"] == config.ppo.adam.learning_rate


def test_the_same_configuration_may_come_again(config):
    assert rundir.claim(config) == rundir.claim(config)


def test_how_a_run_is_executed_may_change(config):
    rundir.claim(config)
    again = changed(config, run=dataclasses.replace(config.run, chunk=3, keep=7, devices=1))
    assert rundir.read_settings(rundir.claim(again))["run.chunk"] == 3


def test_other_settings_are_refused_by_name_and_the_first_stay(config):
    directory = rundir.claim(config)
    other = changed(config, seeds=3, human=Human(lapse=0.2), run=config.run)
    with pytest.raises(ConfigError) as caught:
        rundir.claim(other)
    assert str(caught.value) == (
        f"{directory} holds a run with other settings: human.lapse ([0.0, 0.1] there, 0.2 here), "
        "seeds (8 there, 3 here); choose another --name or remove the directory"
    )
    assert rundir.read_settings(directory) == rundir.settings(config)


def test_a_setting_of_an_older_version_that_is_none_today_is_named(config):
    directory = rundir.claim(config)
    settings = rundir.settings(config)
    del settings["ppo.clip"]
    (directory / "config.json").write_text(json.dumps(settings | {"ppo.clip_range": 0.3}))
    with pytest.raises(ConfigError, match=r"ppo.clip_range \(0.3 there, absent here\)"):
        rundir.claim(config)


def test_a_setting_that_an_older_version_did_not_have_was_what_is_now_its_default(config):
    directory = rundir.claim(config)
    settings = rundir.settings(config)
    del settings["ppo.clip"]
    (directory / "config.json").write_text(json.dumps(settings))
    other = dataclasses.replace(config, ppo=dataclasses.replace(config.ppo, clip=0.3))
    with pytest.raises(ConfigError, match=r"ppo.clip \(0.2 there, 0.3 here\)"):
        rundir.claim(other)
    rundir.claim(config)


@pytest.mark.parametrize("text", ["{not json", "", "[1, 2]", "3"])
def test_settings_that_cannot_be_read_are_one_line(config, text):
    directory = rundir.claim(config)
    (directory / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json cannot be read") as caught:
        rundir.claim(config)
    assert "\n" not in str(caught.value)


def test_a_file_in_place_of_a_directory_is_one_line(config, tmp_path):
    (tmp_path / "runs").write_text("")
    with pytest.raises(ConfigError, match=r"run\.directory: cannot write .*runs/mine: ") as caught:
        rundir.claim(config)
    assert "\n" not in str(caught.value)
    assert "None" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_permission_is_one_line(config, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs").chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(ConfigError, match="Permission denied"):
        rundir.claim(config)


def test_a_name_too_long_for_the_file_system_is_one_line(config):
    with pytest.raises(ConfigError, match=r"run\.directory: cannot write .*File name too long"):
        rundir.claim(changed(config, name="x" * 300))


def test_nothing_half_written_is_left(config):
    directory = rundir.claim(config)
    assert [p.name for p in directory.iterdir()] == ["config.json"]


# --- the lock


def test_a_directory_in_use_is_refused_and_free_afterwards(config):
    directory = rundir.claim(config)
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
    directory = rundir.claim(config)
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
    directory = rundir.claim(config)
    with pytest.raises(ZeroDivisionError), rundir.locked(directory):
        raise ZeroDivisionError
    with rundir.locked(directory):
        pass


# --- metadata


def describe(directory, config, **changes) -> dict:
    given = {
        "command": "python train.py",
        "devices": ["cpu:cpu"],
        "data": {"sha256": "0"},
        "members": [{"seed": 0, "point": {}}],
        "base": "pretrained",
        "seconds": 12.345,
        "finished": False,
    }
    rundir.describe(directory, config, **(given | changes))
    return json.loads((directory / "metadata.json").read_text())


def test_metadata_say_where_numbers_come_from(config):
    got = describe(rundir.claim(config), config)
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


def test_a_resumed_run_keeps_the_time_it_was_first_started(config, monkeypatch):
    directory = rundir.claim(config)
    first = describe(directory, config)
    later = time.gmtime(time.time() + 3600)
    monkeypatch.setattr(time, "gmtime", lambda: later)
    second = describe(directory, config, finished=True)
    assert second["started"] == first["started"]
    assert second["finished"] > second["started"]


def test_a_checkout_without_git_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert rundir._git_revision() == "unknown"
