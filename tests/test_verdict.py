from functools import partial

import numpy as np
import pytest
from scipy import special, stats

from rlhf_jax import expectations
from rlhf_jax.config import ConfigError
from rlhf_jax.ops import evidence
from rlhf_jax.verdict import Measured, judge, shuffled

Trend, Differs, Turns = (
    partial(kind, stated="before")
    for kind in (expectations.Trend, expectations.Differs, expectations.Turns)
)
SEEDS = 16
AT = (0.0, 0.1, 0.2, 0.4)
rng = np.random.default_rng

CLAIMS = {
    "increases": Trend("gold", "a", "increases", by=1e-9),
    "decreases": Trend("gold", "a", "decreases", by=1e-9),
    "higher": Differs("gold", "a", "b", "higher"),
    "lower at a point": Differs("gold", "a", "b", "lower", at=0.2),
    "peaks": Turns("gold", "a", "peaks"),
    "dips": Turns("gold", "a", "dips"),
}


def gold(a, b=None, at=AT):
    b = np.zeros_like(a) if b is None else b
    return {"gold": Measured("lapse", at, {"a": a, "b": b})}


def curve(means, noise=0.1, seed=0):
    luck = rng(seed + 100).normal(size=SEEDS)
    means = np.asarray(means, float)[:, None]
    return means + luck + noise * rng(seed).normal(size=(len(means), SEEDS))


def one(expectation, measured):
    (verdict,) = judge([expectation], measured)
    return verdict


def at_most(rate, nominal, sets):
    return rate <= nominal + 3 * np.sqrt(nominal * (1 - nominal) / sets)


def test_a_verdict_by_hand():
    # Differences 1, 3, 5: mean 3, standard error 2/√3, t = 2.598 on 2 degrees of freedom.
    a = np.array([[1.0, 3.0, 5.0]])
    v = one(Differs("gold", "a", "b", "higher"), gold(a, at=(0.0,)))
    assert v.outcome == "inconclusive"
    # P(t > 2.598) = 0.061, but three seeds of one sign come up once in eight by chance.
    assert v.p == pytest.approx(1 / 8)
    assert v.sentence == (
        "inconclusive: gold of a is higher than that of b; difference +3 [-1.97, 7.97] (mean, "
        "95 % t interval), it holds in 3 of 3 seeds, p = 0.12; about 6 seeds would settle it"
    )
    # Differences 1, 3, 5, 1, 3, 5: standard error √(3.2/6), t = 4.108 on 5.
    twice = one(Differs("gold", "a", "b", "higher"), gold(np.tile(a, 2), at=(0.0,)))
    assert twice.p == pytest.approx(1 / 64)
    below = one(Differs("gold", "a", "b", "higher", by=2.0), gold(np.tile(a, 2), at=(0.0,)))
    # t = 1.37 has p = 0.11; four of six seeds or more lie above 2 in 22 of 64 throws of a coin.
    assert stats.t.sf(1 / np.sqrt(3.2 / 6), 5) < 22 / 64
    assert below.p == pytest.approx(22 / 64)
    # Nineteen of twenty are above 0 (p = 2·10⁻⁵), but the one that is not weighs as much as all.
    one_off = np.array([[1.0] * 19 + [-18.0]])
    assert one(Differs("gold", "a", "b", "higher"), gold(one_off, at=(0.0,))).p == pytest.approx(
        stats.t.sf(1 / 20 / (one_off.std(ddof=1) / np.sqrt(20)), 19)
    )


def test_a_rise_is_measured_over_the_whole_axis_in_units_of_the_metric():
    # Least squares on a line is the line: 2 per unit over 0.4; on a log axis 3 per e-fold.
    line = np.outer(AT, np.full(SEEDS, 2.0)) + rng(0).normal(size=SEEDS)
    v = one(Trend("gold", "a", "increases", by=0.1), gold(line))
    assert v.interval.value == pytest.approx(0.8)
    sizes = np.array([10.0, 100.0, 1000.0])
    fall = -3 * np.log(sizes)[:, None] + rng(0).normal(size=SEEDS)
    v = one(Trend("gold", "a", "decreases", by=1.0, scale="log"), gold(fall, at=sizes))
    assert v.interval.value == pytest.approx(-3 * np.log(100))
    assert v.outcome == "supported"


@pytest.mark.parametrize(
    ("expectation", "means", "outcome"),
    [
        (Trend("gold", "a", "decreases", by=0.1), [1, 0.8, 0.6, 0.2], "supported"),
        (Trend("gold", "a", "increases", by=0.1), [1, 0.8, 0.6, 0.2], "not supported"),
        (Trend("gold", "a", "decreases", by=2.0), [1, 0.8, 0.6, 0.2], "not supported"),
        (Trend("gold", "a", "flat", by=0.3), [1, 1, 1, 1], "supported"),
        (Trend("gold", "a", "flat", by=0.3), [1, 0.8, 0.6, 0.2], "not supported"),
        (Trend("gold", "a", "increases", by=0.3), [1, 1, 1, 1], "not supported"),
        (Turns("gold", "a", "peaks", by=0.2), [0, 0.5, 0.4, 0.1], "supported"),
        (Turns("gold", "a", "peaks"), [0, 0.2, 0.4, 0.8], "not supported"),
        (Turns("gold", "a", "dips"), [0, -0.2, -0.5, 0.3], "supported"),
        (Turns("gold", "a", "dips"), [0, 0.5, 0.4, 0.1], "not supported"),
        (Differs("gold", "a", "a", "higher", at=0.1, baseline_at=0.0), [0, 0.3, 0, 0], "supported"),
        (
            Differs("gold", "a", "a", "same", 0.3, at=0.2, baseline_at=0.0),
            [0, 1, 0, 9],
            "supported",
        ),
    ],
)
def test_clear_numbers_give_clear_verdicts(expectation, means, outcome):
    v = one(expectation, gold(curve(means)))
    assert v.outcome == outcome
    assert v.sentence.startswith(outcome + ": ")
    assert f"of {SEEDS} seeds" in v.sentence


def test_a_baseline_may_be_a_number():
    accuracy = {"accuracy": Measured("n", (8.0,), {"rm": 0.5 + 0.01 * rng(1).normal(size=(1, 16))})}
    assert one(Differs("accuracy", "rm", 0.5, "same", by=0.02), accuracy).outcome == "supported"
    assert one(Differs("accuracy", "rm", 0.6, "lower"), accuracy).outcome == "supported"


def test_the_turn_is_told_where_it_is():
    v = one(Turns("gold", "a", "peaks"), gold(curve([0, 0.1, 0.9, 0.3])))
    assert "at lapse = 0.2 beyond the nearer end by +0.6" in v.sentence


def test_pairing_finds_what_seeds_would_hide():
    luck = 10 * rng(2).normal(size=(4, SEEDS))
    a = luck + 0.1 + 0.05 * rng(3).normal(size=(4, SEEDS))
    assert one(Differs("gold", "a", "b", "higher"), gold(a, luck)).outcome == "supported"


NOISE = {
    "normal": lambda r, size: r.normal(size=size),
    "heavy tails": lambda r, size: r.standard_t(3, size=size),
    "skewed": lambda r, size: r.lognormal(size=size),
    "counts": lambda r, size: r.binomial(5, 0.2, size=size) / 5,
}


@pytest.mark.parametrize("noise", NOISE)
def test_claims_of_an_effect_are_supported_by_shuffled_labels_at_most_at_the_nominal_rate(noise):
    # Family-wise: a study of six claims, none of them true, reports any with p ≤ 2.5 %.
    sets, r, false = 500, rng(4), 0
    each = dict.fromkeys(CLAIMS, 0)
    for _ in range(sets):
        effect = np.array([0.0, 2.0, 3.0, 1.0])[:, None]
        real = gold(NOISE[noise](r, (4, SEEDS)) + effect, NOISE[noise](r, (4, SEEDS)) - 1)
        null = shuffled(real, r)
        false += any(v.outcome == "supported" for v in judge(tuple(CLAIMS.values()), null))
        for name, claim in CLAIMS.items():
            each[name] += one(claim, null).outcome == "supported"
    assert at_most(false / sets, 0.025, sets)
    assert all(at_most(count / sets, 0.025, sets) for count in each.values()), each


@pytest.mark.parametrize(
    ("claim", "means", "wrong"),
    [
        # On the boundary of each claim, where errors are most likely.
        (Differs("gold", "a", "b", "higher", by=0.5), [0.5] * 4, "supported"),
        (Differs("gold", "a", "b", "higher", by=0.5), [0.5] * 4, "not supported"),
        (Differs("gold", "a", "b", "same", by=0.5), [0.5] * 4, "supported"),
        (Differs("gold", "a", "b", "same", by=0.5), [0.5] * 4, "not supported"),
        (Trend("gold", "a", "increases", by=0.4), AT, "supported"),
        (Trend("gold", "a", "increases", by=0.4), AT, "not supported"),
        (Turns("gold", "a", "peaks", by=0.5), [0, 0.5, 0.5, 0], "supported"),
        (Turns("gold", "a", "peaks", by=0.5), [0, 0.5, -9, 0], "not supported"),
        (Turns("gold", "a", "dips"), [0, 0, -9, -9], "supported"),
    ],
)
def test_errors_at_the_boundary_of_a_claim_keep_to_the_nominal_rate(claim, means, wrong):
    sets, r = 2000, rng(5)
    noise = r.normal(size=(sets, 4, SEEDS))
    rate = np.mean([one(claim, gold(np.array(means)[:, None] + x)).outcome == wrong for x in noise])
    assert at_most(rate, 0.025, sets)


def test_what_is_settled_agrees_with_the_interval_that_is_shown_and_with_most_seeds():
    r, settled = rng(6), 0
    for shift in r.uniform(-1, 1, 200):
        v = one(Differs("gold", "a", "b", "higher", by=0.2), gold(r.normal(shift, 1, (4, SEEDS))))
        held = int(v.sentence.split("it holds in ")[1].split()[0])
        # P(B ≥ 13) = 0.011 and P(B ≥ 12) = 0.038 of 16 throws.
        assert (v.outcome == "supported") == (v.interval.low > 0.2 and held >= 13)
        assert (v.outcome == "not supported") == (v.interval.high < 0.2 and held <= 3)
        settled += v.outcome != "inconclusive"
    assert settled > 50


def test_primary_claims_ask_for_more_evidence_each_and_exploratory_ones_do_not():
    a = 0.42 + rng(7).normal(size=(4, SEEDS))
    claim = Differs("gold", "a", "b", "higher", primary=True)
    others = [Differs("gold", "a", "b", "lower", primary=True)] * 2
    aside = [Differs("gold", "a", "b", "higher")] * 9
    alone = one(claim, gold(a))
    among = judge([*aside, claim, *others], gold(a))
    assert among[9].p == pytest.approx(3 * alone.p)
    assert "(Holm over 3)" in among[9].sentence
    assert [v.p for v in among[:9]] == [alone.p] * 9
    assert all("Holm" not in v.sentence for v in among[:9])
    assert "Holm" not in alone.sentence


def test_seeds_that_all_agree_count_as_a_sign_test():
    # 2⁻⁵ = 0.031 is too little evidence, 2⁻⁶ = 0.016 is enough.
    for seeds, outcome in ((5, "inconclusive"), (6, "supported")):
        v = one(Differs("gold", "a", "b", "higher"), gold(np.ones((4, seeds))))
        assert (v.outcome, v.p) == (outcome, 2.0**-seeds)


def test_differences_of_rounding_are_none():
    b = 1 + rng(8).random((4, SEEDS))
    v = one(Differs("gold", "a", "b", "higher"), gold(b + 1e-7, b))
    assert v.interval.value == 0
    assert v.outcome == "not supported"


@pytest.mark.parametrize("gone", [np.nan, np.inf])
def test_seeds_without_a_number_count_against_either_verdict(gone):
    a = curve([0, 1, 2, 3])
    for failed, outcome in ((3, "supported"), (4, "inconclusive")):
        a[2, :failed] = gone
        for claim in (
            Trend("gold", "a", "increases", by=1.0),
            Differs("gold", "a", "a", "higher", at=0.2, baseline_at=0.0),
        ):
            # 13 of 16 seeds are enough, 12 are not, though all that are left agree.
            v = one(claim, gold(a))
            assert v.outcome == outcome
            assert f"it holds in {16 - failed} of 16 seeds" in v.sentence
            assert f"{failed} without a number count against either verdict" in v.sentence
        refuted = one(Trend("gold", "a", "decreases", by=1.0), gold(a))
        assert (refuted.outcome == "not supported") == (outcome == "supported")
    a[2, :15] = gone
    v = one(Trend("gold", "a", "increases", by=1.0), gold(a))
    assert (v.outcome, v.interval, v.seeds) == ("inconclusive", None, None)
    assert v.sentence.endswith("; gold of a: 1 of 16 seeds have a number")


def test_a_turn_needs_all_numbers_of_a_seed_too():
    a = curve([0, 0.9, 0.4, 0.1])
    a[0, :2] = np.nan
    assert one(Turns("gold", "a", "peaks", by=0.2), gold(a)).outcome == "supported"
    a[3, 2:6] = np.nan
    v = one(Turns("gold", "a", "peaks", by=0.2), gold(a))
    assert v.outcome == "inconclusive"
    assert "(6 without a number count against either verdict)" in v.sentence


def test_an_open_claim_says_how_many_seeds_would_settle_it():
    r = rng(9)
    noise = r.normal(size=SEEDS)
    a = 0.5 + (noise - noise.mean()) / noise.std(ddof=1)  # mean 0.5, deviation 1
    z = special.ndtri(0.8)
    for by, primaries, tail in ((0.2, 0, 0.025), (0.2, 3, 0.025 / 3), (0.7, 0, 0.025)):
        claim = Differs("gold", "a", 0.0, "higher", by=by, primary=primaries > 0)
        others = [Differs("gold", "a", 0.0, "lower", by=9.0, primary=True)] * max(primaries - 1, 0)
        v = judge([claim, *others], gold(np.tile(a, (4, 1))))[0]
        wanted = np.pi / 2 * ((special.ndtri(1 - tail) + z) / (0.5 - by)) ** 2
        assert v.outcome == "inconclusive"
        assert v.seeds == int(np.ceil(wanted))
        assert v.sentence.endswith(f"; about {v.seeds} seeds would settle it")
    v = one(Differs("gold", "a", 0.0, "higher", by=0.5 - 1e-3), gold(np.tile(a, (4, 1))))
    assert v.seeds is None
    assert "too near the margin for 10,000 seeds to settle it" in v.sentence
    clear = one(Differs("gold", "a", 0.0, "higher", by=-0.0), gold(np.ones((4, SEEDS))))
    assert clear.seeds is None
    assert "settle" not in clear.sentence


@pytest.mark.parametrize("effect", [0.4, 0.7])
def test_as_many_seeds_as_an_open_claim_asks_for_settle_it_in_three_of_four_studies(effect):
    n = evidence.to_settle(effect, 1.0, 0.025)
    drawn = rng(10).normal(effect, 1.0, size=(4000, n))
    assert np.mean(evidence.p_values(drawn, 0.0)[0] <= 0.025) == pytest.approx(0.75, abs=0.06)


def test_a_claim_about_the_typical_seed_is_exact_for_any_shape():
    # P(B ≥ k) by hand; a number at the margin is not beyond it.
    each = np.array([1.0] * 13 + [0.5] * 2 + [0.4])
    assert evidence.p_values(each, 0.5)[0] == pytest.approx(stats.binom.sf(12, 16, 0.5))
    assert evidence.p_values(-each, -0.5)[1] == pytest.approx(stats.binom.sf(14, 16, 0.5))
    assert evidence.p_values(each, 0.5, failed=2)[0] == pytest.approx(stats.binom.sf(12, 18, 0.5))


def test_seeds_in_two_groups_are_told_apart_and_far_ones_counted():
    r = rng(11)
    two = np.concatenate([r.normal(size=13), 9 + r.normal(size=3)])
    v = one(Differs("gold", "a", 0.0, "higher", by=0.5), gold(np.tile(two, (4, 1))))
    assert "; seeds fall into two groups, 13 near " in v.sentence
    assert evidence.far_out(np.array([*np.arange(13.0), 40.0, 50.0, -30.0])) == 3
    for law, share in ((r.normal, 0.01), (r.lognormal, 0.2)):
        assert np.mean([evidence.two_groups(law(size=16)) is not None for _ in range(500)]) < share
    assert evidence.two_groups(np.array([0.0, 0.0, 0.0, 9.0, 9.0, 9.0])) is None  # too few
    assert evidence.two_groups(np.ones(16)) is None
    assert evidence.two_groups(np.array([0.0] * 15 + [9.0])) is None  # one seed is no group


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: one(Trend("gild", "a", "flat", 1), m), "no metric 'gild': there are gold"),
        (lambda m: one(Trend("gold", "c", "flat", 1), m), "no arm 'c': there are a, b"),
        (lambda m: one(Differs("gold", "a", "b", "higher", at=0.3), m), "no single point 0.3"),
        (
            lambda m: one(Trend("gold", "a", "increases", by=0.1, scale="log"), m),
            "lapse = 0 has no log",
        ),
        (lambda m: one(Turns("gold", "a", "peaks"), gold(curve([0, 1]), at=(0, 1))), "three poin"),
        (lambda m: Trend("gold", "a", "decreases", by=0.0), "by = 0: must be a finite number > 0"),
        (lambda m: Differs("gold", "a", "b", "higher", by=-1.0), "by = -1: must be .* ≥ 0"),
        (lambda m: one(CLAIMS["higher"], gold(curve([0, 1, 2]))), r"shape \(3, 16\) for 4 points"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused_in_one_line(call, message):
    with pytest.raises(ConfigError, match=message) as error:
        call(gold(curve([0, 1, 2, 3])))
    assert "\n" not in str(error.value)
