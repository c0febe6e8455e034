"""A run that is killed and started again ends as one that was not."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CONFIG = """
from rlhf_jax.config import *
config = Config(
    name="run", seeds=2, rounds=2,
    world=World(name="probe", length=3),
    model=Model(width=16, layers=1, heads=2, kv_heads=1, mlp=32),
    pretrain=Pretrain(epochs=5, batch=16),
    collect=Collect(budget=128), reward=Reward(steps=8, look=4, batch=16),
    ppo=PPO(iterations=12, batch=16, epochs=2, minibatches=2, kl_horizon=1000.0),
    evaluate=Evaluate(samples=32, shown=2),
    run=Run(chunk=1, checkpoint_seconds=0.0),
)
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    config = folder.parent / "config.py"
    config.write_text(CONFIG)
    cache = folder.parent / "cache"
    return subprocess.Popen(
        [
            sys.executable,
            str(ROOT / "scripts/train.py"),
            str(config),
            "--run.directory",
            str(folder),
            "--run.cache",
            str(cache),
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ,
    )


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out + err


def results(folder: Path) -> tuple[bytes, bytes]:
    run = folder / "run"
    return (run / "metrics.jsonl").read_bytes(), (run / "samples.jsonl").read_bytes()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("resume") / "straight"
    finish(start(folder))
    return folder


@pytest.mark.slow
def test_kill_nine_at_random_moments_changes_no_bit(straight: Path) -> None:
    folder = straight.parent / "killed"
    log = folder / "run" / "metrics.jsonl"
    kills = 0
    for goal in sorted(random.Random(0).sample(range(5, 50), 3)):
        process = start(folder)
        while process.poll() is None:
            if log.exists() and log.read_bytes().count(b"\n") >= goal:
                time.sleep(random.random() * 0.2)
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
                break
            time.sleep(0.01)
        process.communicate()
    assert kills >= 2
    said = finish(start(folder))
    assert "going on" in said
    assert results(folder) == results(straight)
    assert len(results(folder)[0].splitlines()) > 50


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(straight: Path) -> None:
    folder = straight.parent / "interrupted"
    log = folder / "run" / "metrics.jsonl"
    process = start(folder)
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") > 30):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "the same command goes on" in err
    assert "Traceback" not in err
    finish(start(folder))
    assert results(folder) == results(straight)


@pytest.mark.slow
def test_another_configuration_is_refused_by_name_of_the_fields(straight: Path) -> None:
    before = results(straight)
    process = start(straight, "--ppo.kl-weight", "0.7", "--reward.steps", "12")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "ppo.kl_weight (0.05 there, 0.7 here)" in err
    assert "reward.steps (8 there, 12 here)" in err
    assert err.count("\n") == 1
    assert results(straight) == before


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in results(folder)[0].decode().splitlines()]


@pytest.mark.slow
def test_a_member_that_diverges_leaves_and_the_others_end_as_without_it(straight: Path) -> None:
    folder = straight.parent / "one_diverged"
    process = start(folder, "--ppo.adam.learning-rate", "0.0003", "1e8")
    out, err = process.communicate(timeout=600)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    last = out.splitlines()[-1]
    assert "2 of 4 members diverged" in last
    assert "seed 0, ppo.adam.learning_rate = 1e+08 (policy, round 1, step" in last
    gone = False
    for mine, alone in zip(rows(folder), rows(straight), strict=True):
        for name in alone.keys() - {"stage", "round", "step"}:
            if len(alone[name]) == 1:  # the base model, shared by all
                assert mine[name] == alone[name]
                continue
            assert mine[name][:2] == alone[name]
            gone |= mine[name][2] is None
        if gone and mine["stage"] == "evaluate":
            assert mine["eval/gold_sampled"][2:] == [None, None]
    assert gone
    assert "diverged" in (folder / "run" / "report.html").read_text()


@pytest.mark.slow
def test_where_all_members_diverge_the_run_ends_and_is_reported(straight: Path) -> None:
    folder = straight.parent / "diverged"
    for _ in range(2):  # and so it does when it is started again
        process = start(folder, "--ppo.adam.learning-rate", "1e8")
        _, err = process.communicate(timeout=300)
        assert process.returncode == 1
        last = err.splitlines()[-1]
        assert "is not finite for seed" in last
        assert "all 2 members have diverged" in last
        assert "Traceback" not in err
    assert any(row["stage"] == "reward" for row in rows(folder))
    assert "every member diverged" in (folder / "run" / "report.html").read_text()
    said = json.loads((folder / "run" / "metadata.json").read_text())
    assert (said["finished"], said["diverged"]) == (None, True)
