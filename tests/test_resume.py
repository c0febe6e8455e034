"""A run that is stopped and started again ends as one that was left alone, to the last byte.

A sample of `stops.py`, which can be run at length. All runs here are of one program.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import stops as stopping
from stops import Stops, written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stops(tmp_path_factory: pytest.TempPathFactory) -> Stops:
    return Stops(tmp_path_factory.mktemp("stops"))


def test_a_run_that_was_stopped_at_random_moments_writes_the_bytes_of_one_left_alone(stops: Stops):
    stops.many(2 * [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])


@pytest.mark.newest
def test_stopped_between_any_two_rows_a_run_says_how_to_go_on_and_does(stops: Stops):
    where, kills = stops.new(), 0
    goals = sorted(random.Random(0).sample(range(5, 50), 4))
    sent = (signal.SIGKILL, signal.SIGKILL, signal.SIGINT, signal.SIGKILL)
    for goal, number in zip(goals, sent, strict=True):
        process = stops.start(where)
        while process.poll() is None and stopping.rows(where) < goal:
            time.sleep(0.01)
        time.sleep(random.random() * 0.2 * (number is signal.SIGKILL))
        process.send_signal(number)
        _, err = process.communicate(timeout=300)
        if number is signal.SIGKILL:
            kills += process.returncode == -number
        else:
            assert process.returncode == 130, err
            assert "the same command goes on" in err
            assert "Traceback" not in err
    assert kills >= 2
    assert "going on" in stops.finish(where)
    assert stopping.rows(where) > 50


def test_a_run_that_nobody_can_read_ends_as_any_other(stops: Stops):
    stops.finish(stops.new(), ">&- 2>&- <&-")


def test_a_disk_that_fills_costs_one_line_and_nothing_that_was_saved(stops: Stops, tmp_path: Path):
    words = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(words).returncode:
        pytest.skip("a disk of its own needs the right to mount one")
    subprocess.run(["umount", str(tmp_path)], check=True)
    stops.disk()


def test_another_configuration_is_refused_by_name_of_the_fields(stops: Stops):
    before = written(stops.straight)
    process = stops.start(stops.straight, "--ppo.kl-weight", "0.7", "--reward.steps", "12")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "ppo.kl_weight (0.05 there, 0.7 here)" in err
    assert "reward.steps (8 there, 12 here)" in err
    assert err.count("\n") == 1
    assert written(stops.straight) == before


def numbers(where: Path) -> list[dict]:
    return [json.loads(line) for line in written(where)[0].decode().splitlines()]


def test_a_member_that_diverges_leaves_and_the_others_end_as_without_it(stops: Stops):
    folder = stops.new()
    process = stops.start(folder, "--ppo.adam.learning-rate", "0.0003", "1e8")
    out, err = process.communicate(timeout=600)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    last = out.splitlines()[-1]
    assert "2 of 4 members diverged" in last
    assert "seed 0, ppo.adam.learning_rate = 1e+08 (policy, round 1, step" in last
    gone = False
    for mine, alone in zip(numbers(folder), numbers(stops.straight), strict=True):
        for name in alone.keys() - {"stage", "round", "step"}:
            if len(alone[name]) == 1:  # the base model, shared by all
                assert mine[name] == alone[name]
                continue
            assert mine[name][:2] == alone[name][:2]
            gone |= mine[name][2] is None
        if gone and mine["stage"] == "evaluate":
            assert mine["eval/gold_sampled"][2:] == [None, None]
    assert gone
    assert "diverged" in (folder / "run" / "report.html").read_text()


def test_where_all_members_diverge_the_run_ends_and_is_reported(stops: Stops):
    folder = stops.new()
    for _ in range(2):  # and so it does when it is started again
        process = stops.start(folder, "--ppo.adam.learning-rate", "1e8", "1e9")
        _, err = process.communicate(timeout=300)
        assert process.returncode == 1
        last = err.splitlines()[-1]
        assert "is not finite for seed" in last
        assert "all 4 members have diverged" in last
        assert "Traceback" not in err
    assert any(row["stage"] == "reward" for row in numbers(folder))
    assert "every member diverged" in (folder / "run" / "report.html").read_text()
    said = json.loads((folder / "run" / "metadata.json").read_text())
    assert (said["finished"], said["diverged"]) == (None, True)
