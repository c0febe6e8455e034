"""Studies that really run: killed and resumed, cut in two ways, refused in one line."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from making import make_study, probe

from rlhf_jax import loop, rundir
from rlhf_jax.config import ConfigError, Run
from rlhf_jax.expectations import Differs, Trend
from rlhf_jax.studies import command, costs, plan, runs, verdicts
from rlhf_jax.study import Axis, Metric, Study
from rlhf_jax.verdict import Measured

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
STUDIES = sorted((ROOT / "configs" / "studies").glob("[!_]*.py"))
FILE = """
import sys
sys.path.insert(0, {here!r})
from test_study_runs import apart, real
study = {name}()
"""


def real() -> Study:
    """Two points × two seeds: a run of both points for each seed, saved after every call."""
    return Study(
        name="real",
        title="Real",
        question="Does it run?",
        arms={"plain": probe(run=Run(chunk=1, checkpoint_seconds=0.0))},
        axis=Axis("human.lapse", (0.0, 1.0), "careless answers"),
        seeds=2,
        population=2,
        metrics=(
            Metric("gold", "gold"),
            Metric("loss", "loss", stage="reward", metric="loss/reward"),
            Metric("curve", "gold", stage="policy", metric="objective/gold", step="all"),
        ),
        expectations=(Trend("gold", "plain", "decreases", by=0.1, stated="before"),),
        control=Differs("loss", "plain", 0.0, "higher", stated="before"),
    )


def apart() -> Study:
    """The same points by two fields at once: a run of both seeds for each point."""
    axis = Axis(("human.lapse", "human.flip"), ((0.0, 0.0), (1.0, 0.0)), "careless answers")
    return dataclasses.replace(real(), name="apart", axis=axis)


def content(name: str = "real") -> str:
    return FILE.format(here=str(HERE), name=name)


def start(folder: Path, *names: str) -> subprocess.Popen:
    files = []
    for name in names or ("real",):
        files.append(folder.parent / f"{name}.py")
        files[-1].write_text(content(name))
    script, cache = ROOT / "scripts" / "study.py", folder.parent / "cache"
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, files), "--directory", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": str(cache)},
    )


def finish(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    return out + err


def told(folder: Path) -> tuple[bytes, str]:
    """The study's numbers and tables, without what it cost."""
    markdown = (folder / "real" / "study.md").read_text()
    return (folder / "real" / "results.json").read_bytes(), markdown[: markdown.index("Cost:")]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "straight"
    finish(start(folder, "real", "apart"))
    return folder


@pytest.mark.slow
def test_a_study_killed_at_a_random_moment_gives_the_same_tables(straight: Path) -> None:
    folder = straight.parent / "killed"
    goal = random.Random(time.time_ns()).randrange(1, 20)
    process = start(folder)
    logs = ("bases/*/metrics.jsonl", "real/plain/*/metrics.jsonl")
    rows = lambda: sum(p.read_bytes().count(b"\n") for log in logs for p in folder.glob(log))
    while process.poll() is None and rows() < goal:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, f"finished before row {goal}"
    assert not (folder / "real" / "results.json").exists()
    finish(start(folder))
    assert told(folder) == told(straight), f"killed at row {goal}"


@pytest.mark.slow
def test_a_finished_study_is_not_run_again(straight: Path) -> None:
    before = {p: p.read_bytes() for p in straight.rglob("*.jsonl")}
    said = finish(start(straight))
    assert "run 1" not in said
    assert {p: p.read_bytes() for p in straight.rglob("*.jsonl")} == before


@pytest.mark.slow
def test_runs_that_differ_in_floats_only_compile_once(straight: Path) -> None:
    base, first, second = costs.noted(straight / "real")
    for other in costs.noted(straight / "apart"):
        assert other.compiled == 0
    assert base.run.startswith("bases/")
    assert first.run.endswith("seeds-0-0")
    assert second.run.endswith("seeds-1-1")
    assert second.compile_seconds < 0.2 * first.compile_seconds
    assert second.compiled == 0


@pytest.mark.slow
def test_points_as_one_population_equal_points_as_runs_of_their_own(straight: Path) -> None:
    assert [c.members for c in plan.chunks(apart(), straight)] == [2, 2]
    mine, theirs = (
        json.loads((straight / name / "results.json").read_text())["metrics"]
        for name in ("apart", "real")
    )
    for name in ("gold", "loss"):
        ours, others = (np.array(m[name]["arms"]["plain"]) for m in (mine, theirs))
        np.testing.assert_allclose(ours, others, rtol=1e-4, atol=1e-5)
    assert np.ptp(np.array(mine["loss"]["arms"]["plain"]), axis=0).min() > 1e-4


@pytest.mark.slow
def test_bad_input_is_one_line_and_exit_2(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    file.write_text("study = 3\n")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/study.py"), str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == f"error: {file}: must define `study = Study(...)`\n"


def test_arguments_that_cannot_be_meant_are_one_line(tmp_path: Path) -> None:
    good = tmp_path / "good.py"
    good.write_text(content())
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0\n")
    for arguments, says in (
        ([], "name one or more studies"),
        (["nowhere.py"], "nowhere.py: no such study"),
        ([str(broken)], "ZeroDivisionError"),
        ([str(good), "--only", "none"], "--only none: real has the arms plain"),
        ([str(good), "--seeds", "0.5"], "--seeds: invalid literal for int"),
        ([str(good), "--seeds", "-1"], "seeds = -1"),
        ([str(good), "--whatever"], "Unrecognized options: --whatever"),
        ([str(good), "--all"], "or --all"),
    ):
        with pytest.raises(ConfigError, match=says):
            command.parse(arguments, tmp_path / "none")


def test_all_finds_every_study_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(content())
    asked = command.parse(["--all", "--seeds", "3"], tmp_path)
    assert [(s.name, s.seeds) for s in asked.studies] == [("real", 3)]
    assert asked.root == Path("runs/studies")


def test_the_studies_of_this_repository_can_be_run() -> None:
    folder = ROOT / "configs" / "studies"
    for form in ((), ("--quick",)):
        asked = command.parse(["--all", *form], folder)
        assert len({s.name for s in asked.studies}) == len(asked.studies) > 0


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: p.stem)
def test_no_study_of_this_repository_finds_an_effect_in_shuffled_numbers(path: Path) -> None:
    study = command.read(path)
    rng, shape = np.random.default_rng(0), (len(study.positions), 8)
    rise = np.linspace(0.0, 3.0, shape[0])[:, None]
    arms = {arm: k + rise + rng.normal(size=shape) for k, arm in enumerate(study.arms)}
    measured = {m.name: Measured(study.axis_name, study.positions, arms) for m in study.metrics}
    claims = [e for e in study.expectations if e.metric in measured]
    found = verdicts.control(claims, measured, rng, deals=100)
    # At a rate of 2.5 %, more than 8 of 100 deals have probability 0.1 %.
    assert found is None or (found.false <= 8 and found.false_each <= 8 * found.exploratory)


def test_a_run_whose_members_all_diverge_does_not_keep_the_others_from_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Gone(loop.Diverged):
        def __init__(self) -> None:
            RuntimeError.__init__(self, "all 8 members have diverged")

    made: list[str] = []

    def one(chunk: plan.Chunk, later: object) -> None:
        made.append(rundir.place(chunk.config).parent.name)
        if made[-1] == "plain":
            raise Gone

    study = make_study(axis=None, expectations=())
    runner = runs.Runner(tmp_path, "")
    monkeypatch.setattr(runner, "_one", one)
    monkeypatch.setattr(runs, "pretrain", lambda config, command: None)
    runner.run(plan.chunks(study, tmp_path), tmp_path / study.name)
    assert made == ["plain", "checked"]
    assert "warning: all 8 members have diverged" in capsys.readouterr().err
