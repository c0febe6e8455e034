"""From the files of runs to arrays, estimates and verdicts."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from making import effect, make_study, write_runs

from rlhf_jax.config import ConfigError
from rlhf_jax.expectations import Differs, Trend, Turns
from rlhf_jax.ops import intervals
from rlhf_jax.report.records import Record
from rlhf_jax.studies import answers, plan, results, runs, verdicts
from rlhf_jax.study import Axis, Metric, Quick, Study, quickened


def gold_of(study: Study, arm: str) -> np.ndarray:
    points, seeds = range(len(study.positions)), range(study.seeds)
    return np.array([[effect(arm, p, s)["eval/gold_sampled"] for s in seeds] for p in points])


def test_every_number_lands_on_its_point_and_seed(made: tuple[Study, Path]) -> None:
    study, root = made
    found = results.read(study, root)
    for arm in study.arms:
        np.testing.assert_array_equal(found.of("gold", arm), gold_of(study, arm))
        curve = found.of("curve", arm)
        assert curve.shape == (4, 8, 3)
        np.testing.assert_allclose(curve[..., 2] - curve[..., 0], 2.0)
    assert [m.name for m in found.scalars] == ["gold"]


@pytest.mark.parametrize("population", [1, 4, 12, 1000])
def test_how_seeds_are_cut_into_runs_changes_no_number(tmp_path: Path, population: int) -> None:
    study = make_study(population=population)
    write_runs(study, tmp_path, effect)
    found = results.read(study, tmp_path)
    np.testing.assert_array_equal(found.of("gold", "plain"), gold_of(study, "plain"))


def test_a_structural_axis_is_read_point_by_point(tmp_path: Path) -> None:
    axis = Axis("collect.budget", (1024, 2048, 4096, 8192), "samples read", scale="log")
    study = make_study(axis=axis, expectations=())
    write_runs(study, tmp_path, effect)
    found = results.read(study, tmp_path)
    np.testing.assert_array_equal(found.of("gold", "checked"), gold_of(study, "checked"))


def test_an_arm_with_an_unfinished_run_waits(made: tuple[Study, Path]) -> None:
    study, root = made
    last = plan.chunks(study, root)[-1].directory / "metadata.json"
    last.write_text(json.dumps(json.loads(last.read_text()) | {"finished": None}))
    found = results.read(study, root)
    assert found.arms == ("plain",)
    judged = verdicts.judged(study, found.measured())
    assert [v.expectation for v in judged.verdicts] == [study.expectations[0]]
    assert judged.unjudged == (study.expectations[1],)


def lose(run: Path) -> None:
    """All members of this run diverge before anything was evaluated."""
    metadata = json.loads((run / "metadata.json").read_text())
    over = metadata | {"finished": None, "diverged": True}
    (run / "metadata.json").write_text(json.dumps(over))
    row = {"stage": "pretrain", "round": 0, "step": 3, "nll": [None] * len(metadata["members"])}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")


@pytest.mark.parametrize("runs_lost", [1, 4])
def test_a_run_that_all_members_left_counts_as_failed_seeds_and_is_not_made_again(
    made: tuple[Study, Path], runs_lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, root = made
    chunks = plan.chunks(study, root)
    assert sum(chunk.arm == "plain" for chunk in chunks) == 4
    for chunk in chunks[:runs_lost]:
        lose(chunk.directory)
    found = results.read(study, root)
    assert found.arms == ("plain", "checked")
    failed = np.tile(np.arange(8) < 2 * runs_lost, (4, 1))
    np.testing.assert_array_equal(found.failed["plain"], failed)
    for metric in study.metrics:
        values = found.of(metric.name, "plain")
        assert values.shape == found.of(metric.name, "checked").shape
        np.testing.assert_array_equal(np.isnan(values.reshape(4, 8, -1)).all(axis=2), failed)
    judged = verdicts.judged(study, found.measured())
    assert judged.unjudged == ()
    assert {v.outcome for v in judged.verdicts} <= {"inconclusive", "not supported"}
    runner = runs.Runner(root, "")
    monkeypatch.setattr(runner, "_one", lambda *_: pytest.fail("a run was made"))
    monkeypatch.setattr(runs, "done", lambda _: True)  # base models
    runner.run(chunks, root / study.name)


def test_nothing_finished_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="made: no arm of it is finished"):
        results.read(make_study(), tmp_path)


@pytest.mark.parametrize(
    ("metric", "says"),
    [
        (Metric("gold", "g", metric="eval/gld"), "has no eval/gld of stage evaluate"),
        (Metric("gold", "g", round=7), "no round 7"),
        (Metric("gold", "g", step=4), "no step 4"),
    ],
)
def test_a_metric_that_no_run_wrote_is_named(tmp_path: Path, metric: Metric, says: str) -> None:
    study = make_study(metrics=(metric,), expectations=())
    write_runs(study, tmp_path, effect)
    with pytest.raises(ConfigError, match=says):
        results.read(study, tmp_path)


def test_rounds_and_steps_of_a_metric_can_be_all(made: tuple[Study, Path]) -> None:
    study, root = made
    one = Metric("gold", "gold", round="all", step="all")

    def gain(record: Record) -> np.ndarray:
        return record.metrics["evaluate", "eval/gold_sampled"].values.sum(axis=0)

    both = Metric("twice", "twice", derive=gain)
    again = make_study(metrics=(one, both), expectations=())
    found = results.read(again, root)
    assert found.of("gold", "plain").shape == (4, 8, 2)
    np.testing.assert_allclose(found.of("twice", "plain"), 2 * gold_of(study, "plain"))


def test_an_effect_that_is_there_is_found_and_one_that_is_not_is_not(
    made: tuple[Study, Path],
) -> None:
    study, root = made
    said = answers.answer(study, root)
    assert [v.outcome for v in said.judged.verdicts] == ["supported", "supported"]


def test_shuffled_numbers_support_no_effect(made: tuple[Study, Path]) -> None:
    study, root = made
    measured = results.read(study, root).measured()
    found = verdicts.control(study.expectations, measured, np.random.default_rng(1), deals=400)
    assert found is not None
    assert (found.primary, found.exploratory) == (2, 0)
    # 2.5 % at most of 400 deals: more than 20 have probability 1 % if the rate is 2.5 %.
    assert found.false <= 20
    aside = tuple(dataclasses.replace(e, primary=False) for e in study.expectations)
    each = verdicts.control(aside, measured, np.random.default_rng(1), deals=200)
    assert each is not None
    assert (each.primary, each.exploratory, each.false) == (0, 2, 0)
    assert each.false_each <= 20


def test_the_control_leaves_out_what_is_true_of_shuffled_numbers() -> None:
    kept = verdicts.effects(
        (
            Trend("gold", "plain", "flat", by=1.0, stated="before"),
            Differs("gold", "plain", "checked", "same", by=1.0, stated="before"),
            Differs("gold", "plain", 0.0, "higher", stated="before"),
            Turns("gold", "plain", "peaks", stated="before"),
        )
    )
    assert kept == (Turns("gold", "plain", "peaks", stated="before"),)


def test_few_seeds_get_student_intervals_and_many_the_bootstrap() -> None:
    few, many = np.random.default_rng(0).normal(size=(2, 3, 16))
    gold = Metric("gold", "gold")
    assert np.array_equal(verdicts.centre(few[:, :5], gold).low, intervals.student(few[:, :5]).low)
    expected = intervals.band(many, intervals.interquartile_mean)
    assert np.array_equal(verdicts.centre(many, gold).low, expected.low)
    alone = verdicts.centre(few[:, :1], gold)
    assert np.array_equal(alone.value, few[:, 0])
    assert np.isnan(alone.low).all()


def test_arms_beside_the_baseline_are_paired_and_oriented(made: tuple[Study, Path]) -> None:
    study, root = made
    found = results.read(study, root)
    (beside,) = verdicts.against(found, study.metrics[0])
    gap = (gold_of(study, "checked") - gold_of(study, "plain")).mean(axis=0)
    assert beside.difference.value == pytest.approx(gap.mean())
    wins = np.mean(gold_of(study, "checked") > gold_of(study, "plain"))
    assert beside.better.value == pytest.approx(wins)
    (worse,) = verdicts.against(found, Metric("gold", "g", better="lower"))
    assert worse.better.value == pytest.approx(1 - wins)


def test_many_arms_widen_the_comparisons(tmp_path: Path) -> None:
    arms = make_study().arms
    more = dict(arms) | {"third": arms["plain"], "fourth": arms["plain"]}
    study = make_study(arms=more, expectations=())
    write_runs(study, tmp_path, effect)
    beside = verdicts.against(results.read(study, tmp_path), study.metrics[0])
    assert [b.arm for b in beside] == ["checked", "third", "fourth"]
    assert all(b.difference.level == pytest.approx(1 - 0.05 / 3) for b in beside)


def test_claims_about_points_that_the_quick_form_leaves_out_wait(tmp_path: Path) -> None:
    quick = Quick(seeds=3, points=(0, 3))
    claims = (
        Differs("gold", "plain", 5.0, "lower", at=0.2, stated="before"),
        Turns("gold", "plain", "peaks", stated="before"),
        Trend("gold", "plain", "decreases", by=0.1, stated="before"),
    )
    study = quickened(make_study(quick=quick, expectations=claims))
    write_runs(study, tmp_path, effect)
    said = answers.answer(study, tmp_path)
    assert said.judged.unjudged == claims[:2]
