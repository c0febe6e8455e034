"""Agreement against hand-derived values, brute force and the `krippendorff` package."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_jax.data.agreement import (
    count_table,
    cyclic_triples,
    judgements,
    krippendorff_alpha,
    with_majority_of_others,
)
from rlhf_jax.data.rows import Comparison, Label, Process, Step, text
from rlhf_jax.data.stats import summary


def pair(a: str, b: str, label: float | None, who: str = "", **fields) -> Comparison:
    return Comparison(a=text(a), b=text(b), label=label, annotator=who, prompt=text("q"), **fields)


def test_alpha_of_two_coders_by_hand():
    # Units: AA, AA, BB, AB. n = 8, n_A = 5, n_B = 3.
    # D_o = (1·1·2)/1 / 8 = 1/4; D_e = 2·5·3 / (8·7) = 15/28; α = 1 − 7/15 = 8/15.
    counts = np.array([[2, 0], [2, 0], [0, 2], [1, 1]])
    assert krippendorff_alpha(counts) == pytest.approx(8 / 15)


def test_alpha_is_one_when_all_agree_and_undefined_without_variation_or_repetition():
    assert krippendorff_alpha(np.array([[2, 0], [0, 3]])) == 1
    assert math.isnan(krippendorff_alpha(np.array([[2, 0], [3, 0]])))
    assert math.isnan(krippendorff_alpha(np.array([[1, 0], [0, 1]])))
    assert math.isnan(krippendorff_alpha(count_table([])))


def test_alpha_of_random_labels_is_about_zero():
    labels = np.random.default_rng(0).integers(0, 3, (4000, 5))
    table = (labels[:, :, None] == np.arange(3)).sum(1)
    assert abs(krippendorff_alpha(table)) < 0.02  # its deviation here is about 0.005


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=2, max_size=8))
def test_alpha_agrees_with_the_krippendorff_package(counts):
    oracle = pytest.importorskip("krippendorff")
    table = np.array(counts)
    used = table[table.sum(1) >= 2]
    if len(used) == 0 or (used.sum(0) > 0).sum() < 2:
        assert math.isnan(krippendorff_alpha(table))
        return
    want = oracle.alpha(value_counts=table, level_of_measurement="nominal")
    assert krippendorff_alpha(table) == pytest.approx(want, abs=1e-12)


def test_the_order_of_display_does_not_change_what_was_judged():
    rows = [pair("x", "y", 1.0), pair("y", "x", 0.0), pair("x", "y", 0.5), pair("y", "x", None)]
    table = count_table(judgements(rows))
    assert table.tolist() == [[2, 1]]


def test_labels_and_steps_are_judged_too_and_a_step_with_all_before_it():
    rows = [
        Label(x=text("s"), value="good"),
        Label(x=text("s"), value="bad"),
        Process(steps=(Step(0, "a", 1), Step(1, "b", -1), Step(2, "c", None))),
        Process(steps=(Step(0, "z", 1), Step(1, "b", -1))),
    ]
    assert count_table(judgements(rows)).sum(1).tolist() == [2, 1, 1, 1, 1]


def brute_force(rows: list[Comparison]) -> tuple[int, int]:
    votes: dict[tuple[str, str], float] = {}
    for r in rows:
        a, b = r.a[0].content, r.b[0].content
        side = {1.0: 1, 0.0: -1, 0.5: 0}[r.label]
        votes[(a, b)] = votes.get((a, b), 0) + side
        votes[(b, a)] = votes.get((b, a), 0) - side
    names = sorted({n for p in votes for n in p})
    triples = cyclic = 0
    for a, b, c in itertools.combinations(names, 3):
        wins = [votes.get(p, 0) for p in ((a, b), (b, c), (c, a))]
        if all(wins):
            triples += 1
            cyclic += len({w > 0 for w in wins}) == 1
    return triples, cyclic


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abcde"), st.sampled_from("abcde"), st.sampled_from([0, 0.5, 1]))
        .filter(lambda t: t[0] != t[1])
        .map(lambda t: pair(t[0], t[1], float(t[2]))),
        max_size=30,
    )
)
def test_cyclic_triples_agree_with_counting_them(rows):
    assert tuple(cyclic_triples(rows)) == brute_force(rows)


def test_triples_do_not_cross_prompts():
    rows = [pair("a", "b", 1.0), pair("b", "c", 1.0), pair("c", "a", 1.0, group="other")]
    assert cyclic_triples(rows) == (0, 0)
    assert cyclic_triples([*rows, pair("c", "a", 1.0)]) == (1, 1)


def test_agreement_with_the_majority_of_the_others_by_hand():
    # u: others say (b, tie): level, not counted. v: others say (a, tie): level.
    assert with_majority_of_others(
        [pair("x", "y", 1.0, "u"), pair("x", "y", 0.0, "v"), pair("x", "y", 0.5, "w")]
    ) == (0, 0)
    # Three say x and one says y: each of the three sees 2:1 for x and agrees, the fourth does not.
    rows = [pair("x", "y", 1.0), pair("y", "x", 0.0), pair("x", "y", 1.0), pair("x", "y", 0.0)]
    assert with_majority_of_others(rows) == (3, 4)


def test_the_summary_counts_people_time_ties_and_length():
    rows = [
        pair("long", "x", 1.0, "u", start=0, end=2_000_000),
        pair("long", "x", 0.0, "v", seconds=4.0, start=0, end=99_000_000),
        pair("long", "x", 0.5, "u"),
        pair("long", "x", None),
    ]
    facts = summary(rows)["comparison"]
    assert (facts["answers"], facts["people"], facts["anonymous answers"]) == (4, 2, 1)
    assert facts["seconds per answer"]["median"] == 3.0
    assert facts["answers per person"]["max"] == 2
    assert facts["ties"] == {"count": 1, "of": 3, "share": pytest.approx(1 / 3)}
    assert facts["longer preferred"]["share"] == 0.5
    assert facts["unanswered"] == 1
    assert facts["cyclic"]["share"] is None
