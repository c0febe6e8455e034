"""Agreement against hand-derived values, brute force and the `krippendorff` package."""

from __future__ import annotations

import dataclasses
import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_jax.data import agreement
from rlhf_jax.data.agreement import (
    NOBODY,
    Judged,
    cyclic_triples,
    grouped,
    judgements,
    krippendorff_alpha,
)
from rlhf_jax.data.rows import Comparison, Label, Process, Rating, Step, text
from rlhf_jax.data.stats import summary


def pair(a: str, b: str, label: float | None, who: str = "", **fields) -> Comparison:
    return Comparison(a=text(a), b=text(b), label=label, annotator=who, prompt=text("q"), **fields)


def flat(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[units, categories] counts as (unit, value) of each verdict, in a mixed order."""
    unit, value = np.indices(counts.shape).reshape(2, -1)
    unit, value = (np.repeat(x, counts.reshape(-1)) for x in (unit, value))
    order = np.random.default_rng(0).permutation(len(unit))
    return unit[order], value[order].astype(float)


def test_alpha_of_two_coders_by_hand():
    # Units: AA, AA, BB, AB. n = 8, n_A = 5, n_B = 3.
    # D_o = (1·1·2)/1 / 8 = 1/4; D_e = 2·5·3 / (8·7) = 15/28; α = 1 − 7/15 = 8/15.
    counts = np.array([[2, 0], [2, 0], [0, 2], [1, 1]])
    assert krippendorff_alpha(*flat(counts)) == pytest.approx(8 / 15)
    # Of two values all levels are the same.
    assert krippendorff_alpha(*flat(counts), "ordinal") == pytest.approx(8 / 15)
    assert krippendorff_alpha(*flat(counts), "interval") == pytest.approx(8 / 15)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_alpha_is_one_when_all_agree_and_undefined_without_variation_or_repetition(level):
    assert krippendorff_alpha(*flat(np.array([[2, 0], [0, 3]])), level) == 1
    for counts in ([[2, 0], [3, 0]], [[1, 0], [0, 1]], np.zeros((0, 2), int)):
        assert math.isnan(krippendorff_alpha(*flat(np.array(counts)), level))
    constant = np.full(6, 0.1)
    assert math.isnan(krippendorff_alpha(np.repeat([0, 1], 3), constant, level))


def test_alpha_of_random_labels_is_about_zero():
    labels = np.random.default_rng(0).integers(0, 3, (4000, 5))
    unit = np.repeat(np.arange(4000), 5)
    for level in ("nominal", "ordinal", "interval"):
        assert abs(krippendorff_alpha(unit, labels.reshape(-1), level)) < 0.02  # deviation 0.005


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), min_size=2, max_size=8))
def test_alpha_agrees_with_the_krippendorff_package(counts):
    oracle = pytest.importorskip("krippendorff")
    table = np.array(counts)
    used = table[table.sum(1) >= 2]
    for level in ("nominal", "ordinal", "interval"):
        got = krippendorff_alpha(*flat(table), level)
        if len(used) == 0 or (used.sum(0) > 0).sum() < 2:
            assert math.isnan(got)
            continue
        want = oracle.alpha(value_counts=used, value_domain=[0, 1, 2], level_of_measurement=level)
        assert got == pytest.approx(want, abs=1e-12)


def test_equal_rows_are_grouped_by_their_first_and_people_count_once_a_thing():
    first, number = grouped(np.array([3, 1, 3, 1, 3]), np.array([0, 0, 0, 5, 0]))
    assert (first.tolist(), number.tolist()) == ([1, 3, 0], [2, 0, 2, 1, 2])
    judged = Judged(np.array([7, 7, 7, 8, 7]), np.zeros(5), np.array([0, 1, 0, 0, NOBODY]))
    assert judged.first.tolist() == [True, True, False, True, True]


def test_the_order_of_display_does_not_change_what_was_judged():
    rows = [pair("x", "y", 1.0), pair("y", "x", 0.0), pair("x", "y", 0.5), pair("y", "x", None)]
    found = [j for r in rows for j in judgements(r)]
    assert len({thing for thing, _ in found}) == 1
    assert [said for _, said in found] == [1.0, 1.0, 0.5]


def test_labels_and_steps_are_judged_too_and_a_step_with_all_before_it():
    rows = [
        Label(x=text("s"), value="good"),
        Label(x=text("s"), value="bad"),
        Process(steps=(Step(0, "a", 1), Step(1, "b", -1), Step(2, "c", None))),
        Process(steps=(Step(0, "z", 1), Step(1, "b", -1))),
    ]
    things = [thing for r in rows for thing, _ in judgements(r)]
    assert [things.count(t) for t in dict.fromkeys(things)] == [2, 1, 1, 1, 1]


def facts(rows, name="comparison"):
    return summary(rows)[name]


def triples(rows) -> tuple[int, int]:
    found = facts(rows) if rows else {"majority triples": 0, "cyclic": {"count": 0}}
    return found["majority triples"], found["cyclic"]["count"]


def with_others(rows) -> tuple[int, int]:
    found = facts(rows)["with majority of others"]
    return found["count"], found["of"]


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
    named = [dataclasses.replace(r, annotator=str(i)) for i, r in enumerate(rows)]
    assert triples(named) == brute_force(rows)


def test_triples_do_not_cross_prompts():
    rows = [pair("a", "b", 1.0), pair("b", "c", 1.0), pair("c", "a", 1.0, group="other")]
    assert triples(rows) == (0, 0)
    assert triples([*rows, pair("c", "a", 1.0)]) == (1, 1)


def test_cycles_are_counted_in_bounded_memory_however_many_samples_a_prompt_has():
    n = 20_000
    where, beside = np.zeros(n, np.int64), np.arange(n)
    tracemalloc.start()
    assert cyclic_triples(where, 2 * beside, 2 * beside + 1, np.ones(n)) == (0, 0)
    # Everybody against one reference; and a wheel, of which each rim pair closes a triple.
    hub = np.full(n, n)
    assert cyclic_triples(where, beside, hub, np.ones(n)) == (0, 0)
    rim = np.sort(np.stack([beside, (beside + 1) % n]), axis=0)
    ends = np.concatenate([rim[0], beside]), np.concatenate([rim[1], hub])
    ahead = np.concatenate([rim[0] == beside, beside % 2 == 0])  # i beats i + 1; hub beats odd i
    assert cyclic_triples(np.tile(where, 2), *ends, ahead.astype(float)) == (n, n // 2)
    assert tracemalloc.get_traced_memory()[1] < 2e8  # bytes; one full matrix has 3.2e9
    tracemalloc.stop()


def test_cycles_do_not_depend_on_the_pieces_they_are_counted_in(monkeypatch):
    # In a tournament of n samples Σ C(wins, 2) of the C(n, 3) triples have one that beats both.
    first, second = np.triu_indices(40, 1)
    label = np.random.default_rng(0).integers(0, 2, len(first)).astype(float)
    wins = np.bincount(np.where(label == 1, first, second), minlength=40)
    want = math.comb(40, 3), math.comb(40, 3) - sum(math.comb(w, 2) for w in wins)
    for size in (1 << 22, 100, 1):
        monkeypatch.setattr(agreement, "WEDGES", size)
        assert cyclic_triples(np.zeros_like(first), first, second, label) == want


def test_agreement_with_the_majority_of_the_others_by_hand():
    # u: others say (b, tie): level, not counted. v: others say (a, tie): level.
    assert with_others(
        [pair("x", "y", 1.0, "u"), pair("x", "y", 0.0, "v"), pair("x", "y", 0.5, "w")]
    ) == (0, 0)
    # Three say x and one says y: each of the three sees 2:1 for x and agrees, the fourth does not.
    rows = [
        pair("x", "y", 1.0, "t"),
        pair("y", "x", 0.0, "u"),
        pair("x", "y", 1.0, "v"),
        pair("x", "y", 0.0, "w"),
    ]
    assert with_others(rows) == (3, 4)
    # A person who answers again is not somebody else.
    assert with_others([*rows, pair("x", "y", 1.0, "t")] * 2) == (3, 4)
    assert with_others([pair("x", "y", 1.0, "t")] * 3) == (0, 0)


def test_copies_without_a_name_are_no_other_people():
    rows = [pair("a", "b", 1.0)] * 3 + [pair("a", "b", 1.0, item="2")]
    found = facts(rows)
    assert (found["answers"], found["judged more than once"]) == (4, 1)
    assert found["copies without a name"] == 2
    assert found["Krippendorff's α (nominal)"] is None
    assert found["with majority of others"] == {"count": 0, "of": 0, "share": None}
    named = [pair("a", "b", 1.0, "u"), pair("a", "b", 0.0, "v"), pair("c", "d", 1.0, "u")]
    with_copies = facts(rows + named)
    assert with_copies["Krippendorff's α (nominal)"] == facts(named)["Krippendorff's α (nominal)"]
    # −1 and −2 have one hash in Python, and are two answers.
    ratings = [Rating(x=text("x"), value=v) for v in (-1.0, -2.0)]
    assert "copies without a name" not in facts(ratings, "rating")


def test_alpha_of_ratings_is_ordinal_by_axis_and_named():
    said = [(i, 1.0 + i % 4, "p1") for i in range(8)] + [(i, 2.0 + i % 4, "p2") for i in range(8)]
    rows = [Rating(x=text(f"text {i}"), value=v, annotator=who) for i, v, who in said]
    oracle = pytest.importorskip("krippendorff")
    table = [[1, 2, 3, 4] * 2, [2, 3, 4, 5] * 2]
    want = oracle.alpha(reliability_data=table, level_of_measurement="ordinal")
    assert want == pytest.approx(0.71, abs=0.005)
    assert facts(rows, "rating")["Krippendorff's α (ordinal)"] == pytest.approx(want)
    axes = [dataclasses.replace(r, axis=a) for r in rows for a in ("kind", "true")]
    found = facts(axes, "rating")
    assert found["Krippendorff's α (ordinal), kind"] == pytest.approx(want)
    assert found["Krippendorff's α (ordinal), true"] == pytest.approx(want)
    assert (found["things judged"], found["judged more than once"]) == (16, 16)


def test_soft_labels_are_on_an_interval():
    rows = [pair("x", "y", v, who) for v, who in ((0.6, "u"), (0.7, "v"))]
    rows += [pair("x", "z", v, who) for v, who in ((0.1, "u"), (0.2, "v"))]
    assert facts(rows)["Krippendorff's α (interval)"] > 0.8


def test_identical_answers_are_counted():
    rows = [pair("same", "same", 1.0), pair("good", "bad", 1.0)]
    assert facts(rows)["identical answers"] == {"count": 1, "of": 2, "share": 0.5}


def test_solutions_that_are_not_wholly_labelled_are_told_from_right_ones():
    def solution(*labels):
        return Process(steps=tuple(Step(i, str(i), v) for i, v in enumerate(labels)))

    found = facts([solution(None, None, 1), solution(1, 1), solution(1, -1, None)], "process")
    assert found["with an error"] == {"count": 1, "of": 2, "share": 0.5}
    assert found["partly or not labelled"] == {"count": 1, "of": 3, "share": pytest.approx(1 / 3)}
    assert found["first error at step"]["max"] == 1
    unknown = facts([solution(None, -1)], "process")
    assert unknown["with an error"]["share"] == 1
    assert "first error at step" not in unknown
    assert facts([solution(None)], "process")["with an error"]["share"] is None


def test_the_summary_counts_people_time_ties_and_length():
    rows = [
        pair("long", "x", 1.0, "u", start=0, end=2_000_000),
        pair("long", "x", 0.0, "v", seconds=4.0, start=0, end=99_000_000),
        pair("long", "x", 0.5, "u"),
        pair("long", "x", None),
    ]
    found = facts(rows)
    assert (found["answers"], found["people"], found["anonymous answers"]) == (4, 2, 1)
    assert found["seconds per answer"]["median"] == 3.0
    assert found["answers per person"]["max"] == 2
    assert found["ties"] == {"count": 1, "of": 3, "share": pytest.approx(1 / 3)}
    assert found["longer preferred"]["share"] == 0.5
    assert found["unanswered"] == 1
    assert found["cyclic"]["share"] is None
