"""A member that diverges is marked from where it left, and is data: NaN, not a failure."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from rlhf_jax import report
from rlhf_jax.report.records import Left, read
from rlhf_jax.report.results import GOLD, results
from rlhf_jax.studies.results import members
from rlhf_jax.study import Metric

GONE = Left("policy", 0, 4, "objective/entropy")


def loses(member, *, null=None):
    """A row editor: one number of the member is none, once; all its others look finite."""

    def edit(row):
        if (row["stage"], row["round"], row["step"]) == GONE[:3]:
            row[GONE.metric][member] = null
        return row

    return edit


@pytest.mark.parametrize("null", [None, float("nan"), float("inf")])
def test_from_its_first_number_that_is_none_a_member_has_no_numbers(make_run, edit_rows, null):
    run = make_run()
    edit_rows(run, loses(3, null=null))
    record = read(run)
    assert record.gone == {3: GONE}
    for (stage, _), series in record.metrics.items():
        if series.values.shape[1] == 1:
            continue
        flat = series.values.reshape(*series.values.shape[:2], -1)
        assert np.isfinite(np.delete(flat, 3, axis=1)).all()
        if stage == "policy":
            np.testing.assert_array_equal(np.isnan(flat[:, 3]).all(axis=1), series.steps >= 4)
        else:  # it was measured, fitted and looked at once before, and never after
            assert np.isfinite(flat[0, 3]).all()
            assert np.isnan(flat[series.rounds > 0][-1, 3]).all()


def test_a_studys_metric_of_it_is_none_and_the_others_are_as_they_were(make_run, edit_rows):
    run = make_run()
    gold = Metric("gold", "gold", "rating")
    before = members(gold, read(run))
    edit_rows(run, loses(3))
    after = members(gold, read(run))
    assert np.isnan(after[3])
    np.testing.assert_array_equal(np.delete(after, 3), np.delete(before, 3))


def test_page_table_and_last_line_say_who_left_and_where(make_run, edit_rows):
    run = make_run(seeds=4, kl_weights=(0.0, 0.1))
    edit_rows(run, loses(6))
    line = report.warnings(run)[-1]
    assert line == (
        "1 of 8 members diverged, left out of means from then on: seed 2, ppo.kl_weight = 0.1 "
        "(policy, round 1, step 5: objective/entropy is not finite)."
    )
    assert line in report.write_report(run).read_text()
    screen = io.StringIO()
    Console(file=screen, width=120).print(report.summary_table(run))
    assert "1 of 8 members diverged" in screen.getvalue()
    record = read(run)
    assert [r.of(GOLD).change.n for r in results(record)] == [4, 3]


def test_a_run_whose_members_have_all_left_is_reported(make_run, edit_rows):
    run = make_run(seeds=2)
    cut = run / "metrics.jsonl"
    for member in (0, 1):
        edit_rows(run, loses(member))
    rows = cut.read_text().splitlines()
    last = next(i for i, row in enumerate(rows) if None in (json.loads(row).get(GONE.metric) or []))
    cut.write_text("\n".join(rows[: last + 1]) + "\n")
    page = report.write_report(run).read_text()
    assert "every member diverged" in page
    assert "2 of 2 members diverged" in page


def test_one_model_that_all_share_takes_all_along(make_run, edit_rows):
    run = make_run(seeds=2)
    edit_rows(
        run,
        lambda row: (
            row | {"loss/nll": [None]} if (row["stage"], row["step"]) == ("pretrain", 7) else row
        ),
    )
    assert read(run).gone == {m: Left("pretrain", 0, 7, "loss/nll") for m in (0, 1)}
