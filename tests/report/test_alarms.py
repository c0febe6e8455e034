"""Signs that training went wrong: each is seen, and nothing else is said for it."""

from __future__ import annotations

import numpy as np
import pytest

from rlhf_jax import report
from rlhf_jax.report.alarms import ALARMS
from rlhf_jax.report.records import read
from rlhf_jax.report.results import results


def policy(metric, values):
    """A row editor: `values(step)` [8] of a metric of every iteration."""

    def edit(row):
        if row["stage"] == "policy":
            row[metric] = np.asarray(values(row["step"]), float).tolist()
        return row

    return edit


def collected(metric, values):
    """A row editor: a round of feedback before the first fit."""
    head = {"stage": "collect", "round": 0, "step": 0}
    return lambda row: {**head, metric: values} if row["stage"] == "pretrain" else row


def two(strange, usual):
    """[8]: two seeds are strange."""
    return [strange] * 2 + [usual] * 6


@pytest.mark.parametrize(
    ("rule", "edit", "words"),
    [
        (
            "value_loss_exploded",
            policy("loss/value_avg", lambda t: two(0.2 if t < 9 else 40.0, 0.3)),
            "in 2 of 8 seeds: from 0.20 to 40.00",
        ),
        (
            "first_step_jumped",
            policy("objective/kl_exact", lambda t: [0.92 * (t > 0)] * 8),
            "the first iteration moved it 0.92 nats",
        ),
        (
            "first_step_jumped",
            policy("policy/approxkl_avg", lambda t: [0.2 if t == 0 else 0.01] * 8),
            "its approximate KL was 0.20 nats a token",
        ),
        (
            "first_ratio",
            policy("val/ratio_first", lambda t: two(1.03, 1.0)),
            "off 1 by up to 0.03",
        ),
        (
            "nothing_answered",
            collected("collect/tie_share", two(1.0, 0.4)),
            "every answer calls both equal in 2 of 8 seeds",
        ),
        (
            "nothing_answered",
            collected("collect/answered_share", [0.0] * 8),
            "no answer counts in 8 of 8 seeds",
        ),
    ],
)
def test_each_alarm_is_raised_alone_on_the_page_and_at_the_end(
    make_run, edit_rows, rule, edit, words
):
    run = make_run()
    edit_rows(run, edit)
    record = read(run)
    (result,) = results(record)
    said = {alarm.__name__: alarm(record, result) for alarm in ALARMS}
    assert [name for name, text in said.items() if text] == [rule]
    assert words in said[rule]
    assert report.warnings(run) == (said[rule],)
    assert words in report.write_report(run).read_text().replace("&#x27;", "'")


@pytest.mark.parametrize(
    "edit",
    [
        # Large from the start, or ten times as large and still small against the reward's scale.
        policy("loss/value_avg", lambda t: [40.0] * 8),
        policy("loss/value_avg", lambda t: [0.01 if t < 9 else 0.5] * 8),
        policy("objective/kl_exact", lambda t: two(0.92 * (t > 0), 0.1 * (t > 0))),
        policy("objective/kl_exact", lambda t: [5.0 * (t > 1)] * 8),
        policy("val/ratio_first", lambda t: [1.0001] * 8),
        collected("collect/tie_share", [0.99] * 8),
    ],
)
def test_what_is_harmless_raises_none(make_run, edit_rows, edit):
    run = make_run()
    edit_rows(run, edit)
    assert report.warnings(run) == ()


def test_a_sweep_says_an_alarm_once_with_the_first_setting_and_how_many_more(make_run, edit_rows):
    run = make_run(seeds=4, kl_weights=(0.0, 0.1))
    edit_rows(run, policy("val/ratio_first", lambda t: [1.5] * 8))
    (line,) = report.warnings(run)
    assert line.startswith("ppo.kl_weight = 0: The first ratio")
    assert line.endswith("(so at 1 more of 2 settings)")
