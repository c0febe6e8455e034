"""A sample of `stops.py`, which can be run at length: whatever stops a run, nothing is lost."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from stops import Stops

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stops(tmp_path_factory: pytest.TempPathFactory) -> Stops:
    return Stops(tmp_path_factory.mktemp("stops"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_stopped_at_random_moments_writes_the_bytes_of_one_left_alone(stops, number):
    stops.many(number, 2)


def test_a_run_that_nobody_can_read_ends_as_any_other(stops: Stops):
    stops.finish(stops.new(), ">&- 2>&- <&-")


def test_a_disk_that_fills_costs_one_line_and_nothing_that_was_saved(stops: Stops, tmp_path: Path):
    words = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(tmp_path)]
    if shutil.which("mount") is None or subprocess.run(words).returncode:
        pytest.skip("a disk of its own needs the right to mount one")
    subprocess.run(["umount", str(tmp_path)], check=True)
    stops.disk()
