from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy import stats

from rlhf_jax.config import ConfigError
from rlhf_jax.report import wording
from rlhf_jax.report.intervals import Estimate, band, binned, estimate, paired, thinned
from rlhf_jax.report.records import read
from rlhf_jax.report.results import GOLD, NONWORDS, results


def test_interval_of_one_two_three_is_the_textbook_one():
    # x̄ = 2, s = 1, t₀.₉₇₅,₂ = 4.302653, half = 4.302653/√3 = 2.484138.
    e = estimate(np.array([1.0, 2.0, 3.0]))
    assert e.mean == 2.0
    assert e.half == pytest.approx(2.484138, abs=1e-6)
    assert e.n == 3


def test_band_is_scipys_t_interval_at_every_step():
    values = np.random.default_rng(0).normal(size=(6, 9))
    mean, half, n = band(values)
    low, high = stats.t.interval(0.95, 8, values.mean(1), stats.sem(values, axis=1))
    np.testing.assert_allclose(mean - half, low)
    np.testing.assert_allclose(mean + half, high)
    assert (n == 9).all()


def test_interval_covers_the_true_mean_in_95_percent_of_samples():
    # 4000 samples of 5 normal seeds: the share that covers has a deviation of 0.0034.
    mean, half, _ = band(np.random.default_rng(1).normal(3.0, 2.0, size=(4000, 5)))
    assert np.mean(np.abs(mean - 3.0) <= half) == pytest.approx(0.95, abs=0.012)


def test_what_is_not_finite_is_left_out_and_n_says_so():
    mean, half, n = band(np.array([[1.0, np.nan, 3.0, np.inf], [np.nan] * 4, [2.0, *[np.nan] * 3]]))
    np.testing.assert_array_equal(n, [2, 0, 1])
    np.testing.assert_array_equal(mean, [2.0, np.nan, 2.0])
    assert half[0] == pytest.approx(stats.t.ppf(0.975, 1) * math.sqrt(2) / math.sqrt(2))
    assert np.isnan(half[1:]).all()


def test_paired_change_does_not_see_what_differs_between_seeds():
    before = np.array([-5.0, 0.0, 40.0])
    e = paired(before, before + 1.5)
    assert e.mean == pytest.approx(1.5)
    assert e.half == pytest.approx(0.0, abs=1e-12)


def test_bins_hold_each_seeds_own_mean_and_nothing_where_it_never_was():
    x = np.array([[0.0, 0.1], [0.4, 1.5], [1.0, 2.0]])
    y = np.array([[1.0, 10.0], [3.0, 20.0], [7.0, 30.0]])
    # Seed 0: 0.0 and 0.4 in [0, 1), 1.0 in [1, 2]. Seed 1: 0.1; 1.5 and the closing edge 2.0.
    expected = np.array([[2.0, 10.0], [7.0, 25.0]])
    np.testing.assert_allclose(binned(x, y, np.array([0.0, 1.0, 2.0])), expected)
    third = binned(x, y, np.array([0.0, 1.0, 1.2, 2.0]))
    np.testing.assert_allclose(third[1], [7.0, np.nan])


def test_thinned_blocks_are_means_and_the_last_may_be_short():
    values = np.arange(5.0)[:, None] * np.array([[1.0, 10.0]])
    np.testing.assert_allclose(thinned(values, 2), [[0.5, 5.0], [2.5, 25.0], [4.0, 40.0]])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (wording.number(-0.624), "−0.62"),
        (wording.number(-0.001), "0.00"),
        (wording.number(1.2, sign=True), "+1.20"),
        (wording.number(0.1234, share=True), "12.3 %"),
        (wording.number(float("nan")), "–"),
        (wording.interval(Estimate(1.84, 0.12, 8)), "1.84 ± 0.12"),
        (wording.interval(Estimate(0.5, 0.01, 8), share=True), "50.0 ± 1.0 %"),
        (wording.interval(Estimate(1.84, float("nan"), 1)), "1.84"),
        (wording.span(Estimate(0.0, 0.1, 8)), "−0.10 to 0.10"),
        (wording.setting(float("inf")), "∞"),
        (wording.setting([0.0, 1e-3]), "0, 0.001"),
        (wording.duration(221.4), "3 min 41 s"),
        (wording.duration(59.7), "1 min 0 s"),
    ],
)
def test_numbers_read_as_people_write_them(said, expected):
    assert said.replace("\N{NO-BREAK SPACE}", " ") == expected


def test_results_are_the_paired_before_and_after_of_the_last_round(make_run):
    (result,) = results(read(make_run(change=2.0, rounds=3)))
    gold = result.of(GOLD)
    assert result.round == 3
    assert gold.before.mean == pytest.approx(0.0)
    assert gold.after.mean == pytest.approx(2.0)
    assert gold.change.mean == pytest.approx(2.0)
    # The seeds' changes are spread evenly over ±0.05; their starting points cancel.
    spread = np.linspace(-0.05, 0.05, 8).std(ddof=1)
    assert gold.change.half == pytest.approx(stats.t.ppf(0.975, 7) * spread / math.sqrt(8))
    assert result.of(NONWORDS).after.mean == pytest.approx(0.02)
    assert result.ceiling_mean.mean == pytest.approx(0.89)


def test_each_grid_point_reads_its_own_columns(make_run):
    run = make_run(seeds=4, kl_weights=(0.0, 0.1, 1.0), change=2.0)
    record = read(run)
    assert [p.columns for p in record.points] == [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert [p.label for p in record.points] == [f"ppo.kl_weight = {v}" for v in ("0", "0.1", "1")]
    changes = [r.of(GOLD).change.mean for r in results(record)]
    assert changes == pytest.approx([2.0, 1.0, 0.0])


def test_steps_that_begin_anew_each_round_are_counted_through(make_run):
    series = read(make_run(rounds=3)).metrics["policy", "objective/gold"]
    np.testing.assert_array_equal(series.steps, np.arange(30))
    np.testing.assert_array_equal(series.rounds, np.repeat([0, 1, 2], 10))


def test_steps_that_already_run_through_all_rounds_are_kept(make_run, edit_rows):
    run = make_run(rounds=2)
    edit_rows(run, lambda row: {**row, "step": row["step"] + 100 * row["round"]})
    steps = read(run).metrics["policy", "objective/gold"].steps
    np.testing.assert_array_equal(steps, [*range(10), *range(100, 110)])


def test_a_step_written_twice_counts_once_as_last_written(make_run):
    run = make_run(rounds=1)
    again = {"stage": "policy", "round": 0, "step": 9, "objective/gold": [7.0] * 8}
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    series = read(run).metrics["policy", "objective/gold"]
    assert len(series.steps) == 10
    assert (series.values[-1] == 7.0).all()


def test_a_half_written_last_line_is_skipped_and_noted(make_run):
    run = make_run()
    rows = len(read(run).metrics["policy", "objective/gold"].steps)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "policy", "round": 1, "st')
    record = read(run)
    assert len(record.metrics["policy", "objective/gold"].steps) == rows
    assert any("half-written" in note for note in record.notes)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json}", "line 1 is not JSON"),
        ('{"stage": "policy", "round": 0}', "line 1 lacks one of stage, round, step"),
        ('{"stage": "policy", "round": 0, "step": 0, "a": [1, 2]}', "a has 2 values for 8 members"),
        ('{"stage": "policy", "round": 0, "step": 0, "a": 1}', "a has one number for 8 members"),
        ('{"stage": "policy", "round": 0, "step": 0, "a": "b"}', "a is not an array of numbers"),
    ],
)
def test_a_row_that_no_run_writes_is_refused_in_one_line(make_run, line, message):
    run = make_run()
    path = run / "metrics.jsonl"
    path.write_text(line + "\n" + path.read_text())
    with pytest.raises(ConfigError, match=message):
        read(run)


@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
def test_a_directory_that_is_no_run_is_refused(make_run, name):
    run = make_run()
    (run / name).unlink()
    with pytest.raises(ConfigError, match=f"{name}: a report needs this file"):
        read(run)
