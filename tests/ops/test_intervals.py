import itertools

import numpy as np
import pytest
from scipy import stats

from rlhf_jax.config import ConfigError
from rlhf_jax.ops.intervals import (
    aggregate,
    band,
    expanded,
    holm,
    improvement,
    interquartile_mean,
    mean,
    percentile,
    student,
)

rng = np.random.default_rng
SEEDS = 16


def within(share, expected, sets):
    """|share − expected| within three Monte-Carlo deviations."""
    return abs(share - expected) < 3 * np.sqrt(expected * (1 - expected) / sets)


def test_interquartile_mean_drops_a_quarter_at_each_end():
    # Of 0…7 the two smallest and two largest go: mean of 2, 3, 4, 5.
    assert interquartile_mean(np.array([7.0, 0, 1, 6, 2, 5, 3, 4])) == 3.5
    assert interquartile_mean(np.array([1.0, 1e9, -1e9, 2.0])) == 1.5


def test_student_interval_by_hand():
    # x̄ = 3, s² = (4 + 0 + 4)/2 = 4, s/√n = 2/√3; t_{0.975, 2} = 4.302653.
    got = student([1.0, 3.0, 5.0])
    half = 4.302653 * 2 / np.sqrt(3)
    np.testing.assert_allclose([got.value, got.low, got.high], [3, 3 - half, 3 + half], rtol=1e-6)
    assert (got.level, got.n) == (0.95, 3)
    assert str(got) == "3 [-1.97, 7.97]"


def test_the_expanded_level_makes_a_bootstrapped_mean_as_wide_as_student():
    # A bootstrapped mean deviates by s √((n−1)/n) / √n; times the expanded quantile: t s/√n.
    z = stats.norm.ppf((1 + expanded(0.95, SEEDS)) / 2)
    np.testing.assert_allclose(
        z * np.sqrt((SEEDS - 1) / SEEDS), stats.t.ppf(0.975, SEEDS - 1), rtol=1e-9
    )
    assert expanded(0.95, 10**6) == pytest.approx(0.95, abs=1e-5)


@pytest.mark.parametrize(
    ("statistic", "draw", "truth", "expected"),
    [
        (mean, rng(2).normal, 0.0, 0.95),
        (interquartile_mean, rng(3).normal, 0.0, 0.97),
        (mean, lambda size: rng(4).standard_t(3, size), 0.0, 0.94),
        (mean, lambda size: rng(5).lognormal(size=size), np.exp(0.5), 0.89),
    ],
    ids=["normal mean", "normal IQM", "heavy tails mean", "log-normal mean"],
)
def test_coverage_of_95_percent_intervals_over_16_seeds_is_as_stated(
    statistic, draw, truth, expected
):
    index = rng(1).integers(SEEDS, size=(1500, SEEDS))
    made = [percentile(0, statistic(x[index]), SEEDS) for x in draw(size=(1000, SEEDS))]
    assert within(np.mean([i.low <= truth <= i.high for i in made]), expected, 1000)


def test_shared_seeds_need_whole_columns():
    # A seed's luck shared by all 10 points: 10 × 16 scores are worth 16, not 160.
    sets, inside = 60, {True: 0, False: 0}
    for luck, noise in zip(
        rng(6).normal(size=(sets, SEEDS)), rng(7).normal(size=(sets, 10, SEEDS)), strict=True
    ):
        for shared in inside:
            i = aggregate(luck + 0.1 * noise, mean, shared_seeds=shared)
            inside[shared] += i.low <= 0 <= i.high
    assert inside[True] >= 0.87 * sets
    assert inside[False] < 0.6 * sets


def test_bands_are_the_intervals_of_the_single_points():
    x = rng(8).normal(size=(3, SEEDS))
    together = band(x)
    assert together.low.shape == (3,)
    for k in range(3):
        alone = band(x[k])
        assert isinstance(alone.low, float)
        np.testing.assert_allclose(
            [alone.value, alone.low, alone.high],
            [together.value[k], together.low[k], together.high[k]],
        )


def test_improvement_by_hand():
    # a > b in 2 of 4 seeds, equal in 1: 2.5/4. All pairs: (4 + 1½ + 0 + 4)/16.
    a, b = [3.0, 1.0, 0.0, 5.0], [1.0, 1.0, 1.0, 2.0]
    assert improvement(a, b, shared_seeds=True).value == 2.5 / 4
    assert improvement(a, b, shared_seeds=False).value == 9.5 / 16


def test_improvement_is_not_certain_when_one_arm_wins_always():
    a, b = np.arange(SEEDS) + 100.0, np.arange(SEEDS) * 1.0
    # Clopper–Pearson at 16 of 16: low^16 = 0.025.
    paired = improvement(a, b, shared_seeds=True)
    np.testing.assert_allclose([paired.value, paired.low, paired.high], [1, 0.025 ** (1 / 16), 1])
    unpaired = improvement(a, b, shared_seeds=False)
    assert unpaired.value == unpaired.high == 1
    # At θ̂ = 1 the root solves (1 − θ) = z²θ/n² · (1 + (n−1)(…)): checked by substitution.
    p, n, z = unpaired.low, SEEDS, stats.norm.ppf(0.975)
    variance = p * (1 - p) / n**2 * (1 + (n - 1) * ((1 - p) / (2 - p) + p / (1 + p)))
    np.testing.assert_allclose((1 - p) ** 2, z**2 * variance, rtol=1e-9)
    assert 0.7 < p < 0.9


@pytest.mark.parametrize(
    ("shared", "shift"), list(itertools.product([True, False], [0.0, 1.0, 2.0]))
)
def test_coverage_of_improvement_over_16_seeds_is_at_least_94_percent(shared, shift):
    # P(N(shift, 1) > N(0, 1)) = Φ(shift/√2).
    sets, truth = 1000, stats.norm.cdf(shift / np.sqrt(2))
    a, b = rng(13).normal(shift, 1, (sets, SEEDS)), rng(14).normal(0, 1, (sets, SEEDS))
    made = [improvement(x, y, shared_seeds=shared) for x, y in zip(a, b, strict=True)]
    assert np.mean([i.low <= truth <= i.high for i in made]) > 0.94 - 0.021


def test_holm_by_hand():
    # Sorted .01, .02, .03, .04 × 4, 3, 2, 1 = .04, .06, .06, .04; never falling: .04, .06, .06, .06
    np.testing.assert_allclose(holm([0.03, 0.01, 0.04, 0.02]), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm([0.9, 0.5]), [1.0, 1.0])


def test_holm_keeps_the_rate_of_any_false_rejection():
    # Three true nulls beside two that are false.
    sets = 4000
    p = np.concatenate([rng(15).random((sets, 3)), np.full((sets, 2), 1e-4)], axis=1)
    false = np.mean([holm(row)[:3].min() <= 0.05 for row in p])
    assert within(false, 1 - (1 - 0.05 / 3) ** 3, sets)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: student([1.0]), "at least 2 seeds"),
        (lambda: band([1.0, np.nan, 2.0, np.inf]), "2 of 4 numbers are not finite"),
        (lambda: improvement([1.0, 2.0], [1.0, 2.0, 3.0], shared_seeds=True), "cannot be compared"),
        (lambda: improvement([[1.0, 2.0]], [[1.0, 2.0]] * 2, shared_seeds=False), "compared"),
    ],
)
def test_what_has_no_interval_is_refused_in_one_line(call, message):
    with pytest.raises(ConfigError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_equal_scores_have_an_interval_of_no_width():
    i = band(np.full(SEEDS, 0.25))
    assert (i.value, i.low, i.high) == (0.25, 0.25, 0.25)


def rliable():
    pytest.importorskip("rliable", reason="test-only oracle")
    from rliable import library, metrics

    return library, metrics


def test_aggregates_and_their_stratified_intervals_agree_with_rliable():
    library, metrics = rliable()
    x = rng(16).lognormal(size=(3, SEEDS))
    for ours, theirs in (
        (interquartile_mean, metrics.aggregate_iqm),
        (mean, metrics.aggregate_mean),
    ):
        got = aggregate(x, ours, shared_seeds=False)
        np.random.seed(0)
        value, interval = library.get_interval_estimates(
            {"a": x.T},
            lambda s, f=theirs: np.array([f(s)]),
            reps=5000,
            confidence_interval_size=expanded(0.95, SEEDS),
        )
        np.testing.assert_allclose(got.value, value["a"][0])
        low, high = interval["a"][:, 0]
        np.testing.assert_allclose([got.low, got.high], [low, high], atol=0.1 * (high - low))


def test_probability_of_improvement_agrees_with_rliable():
    _, metrics = rliable()
    a = rng(17).integers(0, 6, (3, SEEDS)).astype(float)
    b = rng(18).integers(0, 5, (3, 12)).astype(float)
    got = improvement(a, b, shared_seeds=False).value
    np.testing.assert_allclose(got, metrics.probability_of_improvement(a.T, b.T))
