import numpy as np
import pytest
from scipy import stats

from rlhf_jax.config import ConfigError
from rlhf_jax.expectations import Differs, Trend, Turns
from rlhf_jax.verdict import Measured, judge, shuffled

SEEDS = 16
AT = (0.0, 0.1, 0.2, 0.4)
rng = np.random.default_rng

CLAIMS = {
    "increases": Trend("gold", "a", "increases"),
    "decreases": Trend("gold", "a", "decreases"),
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
        "inconclusive: gold of a is higher than that of b; "
        "difference +3 [-1.97, 7.97] (95 % t interval, n = 3), p = 0.12"
    )
    # Differences 1, 3, 5, 1, 3, 5: standard error √(3.2/6), t = 4.108 on 5.
    twice = one(Differs("gold", "a", "b", "higher"), gold(np.tile(a, 2), at=(0.0,)))
    assert twice.p == pytest.approx(1 / 64)
    below = one(Differs("gold", "a", "b", "higher", by=2.0), gold(np.tile(a, 2), at=(0.0,)))
    assert below.p == pytest.approx(stats.t.sf(1 / np.sqrt(3.2 / 6), 5))


def test_a_rise_is_measured_over_the_whole_axis_in_units_of_the_metric():
    # Least squares on a line is the line: 2 per unit over 0.4; on a log axis 3 per e-fold.
    line = np.outer(AT, np.full(SEEDS, 2.0)) + rng(0).normal(size=SEEDS)
    v = one(Trend("gold", "a", "increases"), gold(line))
    assert v.interval.value == pytest.approx(0.8)
    sizes = np.array([10.0, 100.0, 1000.0])
    fall = -3 * np.log(sizes)[:, None] + rng(0).normal(size=SEEDS)
    v = one(Trend("gold", "a", "decreases", scale="log"), gold(fall, at=sizes))
    assert v.interval.value == pytest.approx(-3 * np.log(100))
    assert v.outcome == "supported"


@pytest.mark.parametrize(
    ("expectation", "means", "outcome"),
    [
        (Trend("gold", "a", "decreases"), [1, 0.8, 0.6, 0.2], "supported"),
        (Trend("gold", "a", "increases"), [1, 0.8, 0.6, 0.2], "not supported"),
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
            Differs("gold", "a", "a", "same", 0.2, at=0.2, baseline_at=0.0),
            [0, 1, 0, 9],
            "supported",
        ),
    ],
)
def test_clear_numbers_give_clear_verdicts(expectation, means, outcome):
    v = one(expectation, gold(curve(means)))
    assert v.outcome == outcome
    assert v.sentence.startswith(outcome + ": ")
    assert f"n = {SEEDS}" in v.sentence


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


def test_supported_agrees_with_the_interval_that_is_shown():
    r = rng(6)
    for shift in r.uniform(-1, 1, 200):
        v = one(Differs("gold", "a", "b", "higher", by=0.2), gold(r.normal(shift, 1, (4, SEEDS))))
        assert (v.outcome == "supported") == (v.interval.low > 0.2)
        assert (v.outcome == "not supported") == (v.interval.high < 0.2)


def test_many_claims_ask_for_more_evidence_each():
    r = rng(7)
    a = 0.42 + r.normal(size=(4, SEEDS))
    claim = Differs("gold", "a", "b", "higher")
    alone = one(claim, gold(a))
    among = judge([claim] + [Differs("gold", "a", "b", "lower")] * 9, gold(a))[0]
    assert among.p == pytest.approx(10 * alone.p)
    assert "(Holm over 10)" in among.sentence


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


def test_numbers_that_are_missing_are_said_not_skipped():
    a = curve([0, 1, 2, 3])
    a[2, 5] = np.nan
    v = one(Trend("gold", "a", "increases"), gold(a))
    assert v.outcome == "inconclusive"
    assert v.sentence.endswith("; gold of a: 1 of 64 numbers are not finite")
    v = one(Trend("gold", "a", "increases"), gold(a[:, :1]))
    assert "needs at least 2 seeds" in v.sentence


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: one(Trend("gild", "a", "flat", 1), m), "no metric 'gild': there are gold"),
        (lambda m: one(Trend("gold", "c", "flat", 1), m), "no arm 'c': there are a, b"),
        (lambda m: one(Differs("gold", "a", "b", "higher", at=0.3), m), "no single point 0.3"),
        (lambda m: one(Trend("gold", "a", "increases", scale="log"), m), "lapse = 0 has no log"),
        (lambda m: one(Turns("gold", "a", "peaks"), gold(curve([0, 1]), at=(0, 1))), "three poin"),
        (lambda m: Trend("gold", "a", "flat"), "by = 0: must be a finite number > 0"),
        (lambda m: Differs("gold", "a", "b", "higher", by=-1.0), "by = -1: must be .* ≥ 0"),
        (lambda m: one(CLAIMS["higher"], gold(curve([0, 1, 2]))), r"shape \(3, 16\) for 4 points"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused_in_one_line(call, message):
    with pytest.raises(ConfigError, match=message) as error:
        call(gold(curve([0, 1, 2, 3])))
    assert "\n" not in str(error.value)
