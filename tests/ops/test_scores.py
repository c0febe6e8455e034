"""Scores of perfect, of useless and of hand-made predictions; intervals over groups; folds."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.ops import scores

YES = jnp.asarray([1.0, 0.0, 1.0, 0.0, 0.0])
ONES = jnp.ones(5)


def test_a_perfect_predictor_has_every_score_at_its_best():
    assert scores.auc(YES, YES, ONES) == 1.0
    assert scores.average_precision(YES, YES, ONES) == 1.0
    assert [f(YES, YES, ONES) for f in (scores.precision, scores.recall, scores.f1)] == [1.0] * 3
    assert scores.calibration_error(YES, YES, ONES) == 0.0
    assert scores.auc(-YES, YES, ONES) == 0.0


def test_a_predictor_that_says_nothing_is_at_chance():
    same = jnp.full(5, 0.4)
    assert scores.auc(same, YES, ONES) == 0.5
    assert scores.average_precision(same, YES, ONES) == pytest.approx(0.4)
    assert scores.calibration_error(same, YES, ONES) == pytest.approx(0.0, abs=1e-6)
    assert scores.calibration_error(same + 0.2, YES, ONES) == pytest.approx(0.2)
    # All marked: precision is the share of positives, recall 1, F1 = 2 · 0.4 / 1.4.
    assert scores.precision(ONES, YES, ONES) == pytest.approx(0.4)
    assert scores.f1(ONES, YES, ONES) == pytest.approx(0.8 / 1.4)


def test_ranking_scores_by_hand_and_weights_that_count_twice():
    score, yes = jnp.asarray([0.1, 0.4, 0.35, 0.8]), jnp.asarray([0.0, 0.0, 1.0, 1.0])
    # Of four pairs 0.35 > 0.4 alone fails. Thresholds 0.8, 0.35 gain ½ at precision 1, 2/3.
    assert scores.auc(score, yes, jnp.ones(4)) == pytest.approx(0.75)
    assert scores.average_precision(score, yes, jnp.ones(4)) == pytest.approx(0.5 + 0.5 * 2 / 3)
    twice = jnp.asarray([0, 1, 1, 2, 3, 3])
    weight = jnp.asarray([1.0, 2.0, 1.0, 2.0])
    for f in (scores.auc, scores.average_precision):
        assert f(score, yes, weight) == pytest.approx(f(score[twice], yes[twice], jnp.ones(6)))


def test_an_interval_is_that_of_group_means_and_closes_where_groups_agree():
    rng = np.random.default_rng(0)
    means = rng.normal(size=40)
    group = np.repeat(np.arange(40), 3)
    found = scores.interval(scores.average, (means[group],), scores.draw(np.ones(120), group))
    half = 2.02 * means.std(ddof=1) / np.sqrt(40)  # t with 39 degrees of freedom
    assert found.value == pytest.approx(means.mean(), abs=1e-6)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)
    mask = (group < 7) * 1.0
    flat = scores.interval(scores.average, (np.ones(120),), scores.draw(mask, group))
    assert (flat.value, flat.low, flat.high, flat.n) == (1.0, 1.0, 1.0, 7)


def test_folds_keep_groups_whole_and_are_level():
    group = np.random.default_rng(1).integers(0, 23, 200)
    part = scores.folds(group, 5)
    assert all(len(set(part[group == g])) == 1 for g in set(group))
    sizes = [len(set(group[part == k])) for k in range(5)]
    assert max(sizes) - min(sizes) <= 1
