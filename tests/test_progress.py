"""What a person watches."""

from __future__ import annotations

import io
import sys

import pytest

from rlhf_jax import progress
from rlhf_jax.progress import Progress, numbers

WORK = [("pretrain", 0, 10)] * 2 + [("collect", 0, 0)] + [("policy", 0, 5)] * 3
POLICY_ROW = {
    "stage": "policy",
    "round": 0,
    "step": 4,
    "objective/gold": [1.0, 2.0],
    "objective/scores": [0.125, 0.375],
    "objective/kl_exact": [3.0, 4.0],
}


def test_the_numbers_that_matter_are_means_over_the_population():
    assert numbers("policy", POLICY_ROW) == "gold 1.5  proxy 0.25  KL 3.5"


def test_a_member_that_has_diverged_is_not_in_the_mean():
    row = {"objective/gold": [1.0, None, float("inf")], "objective/scores": [None] * 3}
    assert numbers("policy", row) == "gold 1"


def test_a_stage_without_numbers_and_a_row_without_them_say_nothing():
    assert numbers("base", POLICY_ROW) == ""
    assert numbers("policy", {"step": 3}) == ""


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def plain(clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)

    def lines() -> list[str]:
        return capsys.readouterr().err.splitlines()

    return lines


def test_off_a_terminal_every_stage_ends_in_a_plain_line(clock, plain):
    with Progress(WORK, 0) as shown:
        for i, (stage, _, steps) in enumerate(WORK):
            shown.starts(i)
            clock[0] += 2.0
            shown.ends(i, 2.0, {"stage": stage, "step": i * steps, "loss/nll": [2.5, 3.5]})
    said = plain()
    # The first call is said too: nobody should wait for a whole stage in the dark.
    assert len(said) == 4
    assert said[0] == "   2.0s  pretrain, round 1 step 1: 5.0 steps/s  nll 3"
    assert said[1] == "   4.0s  pretrain, round 1 step 11: 5.0 steps/s  nll 3"
    assert said[2] == "   6.0s  collect, round 1:"
    assert said[3].startswith("  12.0s  policy, round 1 step 26: 2.5 steps/s")
    assert not any("\x1b" in line for line in said)


def test_a_long_stage_is_said_now_and_then(clock, plain):
    work = [("policy", 0, 1)] * 100
    with Progress(work, 0) as shown:
        for i in range(100):
            clock[0] += 1.0
            shown.ends(i, 1.0, POLICY_ROW)
    assert 15 <= len(plain()) <= 25


def test_the_time_left_is_the_median_call_of_each_stage_still_to_come(clock, plain):
    work = [
        ("pretrain", 0, 1),
        ("policy", 0, 1),
        ("policy", 0, 1),
        ("policy", 0, 1),
        ("policy", 1, 1),
    ]
    row = {"stage": "policy", "step": 0}
    with Progress(work, 0) as shown:
        said = []
        for i, seconds in enumerate((5.0, 30.0, 10.0, 10.0)):
            clock[0] += 100
            shown.ends(i, seconds, row)
            said += plain()
    # While a stage has never run its duration is unknown; then 3 · 30, 2 · 20, 1 · 10.
    lefts = [line.rsplit("steps/s", 1)[1].strip() for line in said]
    assert lefts == ["", "90 s left", "40 s left", "10 s left"]


def test_rounds_are_counted_from_one(clock, plain):
    with Progress([("policy", 2, 5)], 0) as shown:
        shown.ends(0, 1.0, POLICY_ROW)
    assert "policy, round 3 step 5:" in plain()[0]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_one_line_is_redrawn_with_stage_share_and_numbers(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    with Progress(WORK, 3) as shown:
        shown.starts(3)
        shown.ends(3, 2.0, POLICY_ROW)
        shown._live.refresh()
    text = screen.getvalue()
    assert "policy, round 1" in text
    assert "67%" in text  # four of six calls, three of them made by an earlier start
    assert "gold 1.5" in text
    assert "4 s left" in text
    assert "2.5 steps/s" in text


def test_a_failure_leaves_the_terminal_usable(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    shown = Progress(WORK, 0)
    with pytest.raises(ZeroDivisionError), shown:
        raise ZeroDivisionError
    assert screen.getvalue().count("\x1b[?25h") == 1  # the cursor is back
