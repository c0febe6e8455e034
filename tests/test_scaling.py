import numpy as np
import pytest
from scipy import optimize

from rlhf_jax.config import ConfigError
from rlhf_jax.ops.laws import BON, LAWS, LINEAR, POWER, RL, SATURATING, predict
from rlhf_jax.scaling import curve, distance, extrapolate, first_passage, fit, regress

SEEDS = 16
D = np.linspace(0, 8, 25)
TRUTH = {
    "best-of-n": {"alpha": 1.0, "beta": 0.08},
    "RL": {"alpha": 1.0, "beta": 0.4},
    "power": {"alpha": 1.0, "beta": 0.3, "q": 0.5},
    "saturating": {"alpha": 2.0, "beta": 0.3, "s": 2.0},
    "linear": {"alpha": 0.7},
}
SHAPED = [law for law in LAWS if law is not LINEAR]
name = lambda law: law.name


def exact(law, d=D):
    return predict(law, {k: np.asarray(v) for k, v in TRUTH[law.name].items()}, d)


def curves(law, rng, d=D, noise=0.1):
    """Seeds that differ in height, with errors that stay (a random walk) and errors that do not."""
    shape = (len(d), SEEDS)
    lasting = np.cumsum(rng.normal(size=shape), axis=0)
    height = 1 + 2 * noise * rng.normal(size=SEEDS)
    error = noise * (lasting + rng.normal(size=shape)) * (d[:, None] > 0)
    return exact(law, d)[:, None] * height + error


@pytest.mark.parametrize("law", LAWS, ids=name)
def test_a_curve_without_noise_gives_its_coefficients_back(law):
    fitted = fit(D, np.tile(exact(law)[:, None], SEEDS), law)
    step = 0.02 if law is SATURATING else 1e-9  # s lies between two points of its grid
    for key, truth in TRUTH[law.name].items():
        for got in (fitted.estimates[key].value, *fitted.each[key], *fitted.draws[key][:20]):
            assert got == pytest.approx(truth, rel=step)
    assert fitted.rmse < step


@pytest.mark.parametrize("law", SHAPED, ids=name)
def test_the_peak_is_the_maximum_of_the_law(law):
    found = optimize.minimize_scalar(
        lambda d: -exact(law, np.array(d)), bounds=(0.1, 20), method="bounded"
    )
    fitted = fit(D, np.tile(exact(law)[:, None], SEEDS), law)
    assert fitted.estimates["peak"].value == pytest.approx(found.x, rel=1e-2)
    assert fitted.estimates["height"].value == pytest.approx(-found.fun, rel=1e-3)
    assert fitted.inside == 1


@pytest.mark.parametrize("q", [-0.5, 0.0, 0.5, 2.0])
@pytest.mark.parametrize("alpha", [-3.0, -0.6, 0.2, 5.0])
@pytest.mark.parametrize("beta", [-1.0, 0.0, 1.0])
def test_the_peak_of_the_power_law_is_where_a_search_finds_it(q, alpha, beta):
    d = np.concatenate([[0], np.geomspace(1e-6, 1e6, 4001)])
    height = predict(POWER, {"alpha": alpha, "beta": beta, "q": np.asarray(q)}, d)
    k = int(np.argmax(height))
    got = float(POWER.peak(*map(np.asarray, (alpha, beta, q))))
    if k == 4001:
        assert got > 1e5
    elif k == 0:
        assert got < 1e-5
    else:
        assert got == pytest.approx(d[k], rel=0.01)


def test_power_law_holds_both_of_gao():
    alpha, beta = 1.3, 0.4
    at = lambda law, a, q=0.0: predict(law, {"alpha": a, "beta": beta, "q": np.asarray(q)}, D)
    np.testing.assert_allclose(at(POWER, alpha, 0.0), at(RL, alpha))
    np.testing.assert_allclose(at(POWER, alpha - beta, 1.0), at(BON, alpha), atol=1e-12)


@pytest.mark.parametrize(("law", "sets"), [(BON, 200), (RL, 200), (POWER, 50)], ids=["b", "r", "p"])
def test_coverage_of_95_percent_intervals_over_16_noisy_curves(law, sets):
    rng, inside = np.random.default_rng(0), {}
    truth = dict(TRUTH[law.name])
    truth["peak"] = float(
        law.peak(*(np.asarray(truth.get(k, 1.0)) for k in ("alpha", "beta", "q")))
    )
    truth["height"] = float(exact(law, np.array(truth["peak"])))
    for _ in range(sets):
        for key, i in fit(D, curves(law, rng), law).estimates.items():
            inside[key] = inside.get(key, 0) + (i.low <= truth[key] <= i.high) / sets
    assert set(inside) == set(truth)
    slack = 3 * np.sqrt(0.95 * 0.05 / sets)
    assert all(abs(share - 0.95) <= slack for share in inside.values()), inside


def test_seeds_may_have_distances_of_their_own():
    rng = np.random.default_rng(1)
    d = np.sort(rng.uniform(0.1, 8, (30, SEEDS)), axis=0)
    gold = exact(RL, d) + 0.02 * rng.normal(size=d.shape)
    estimates = fit(d, gold, RL).estimates
    assert estimates["alpha"].low < 1.0 < estimates["alpha"].high
    assert estimates["beta"].low < 0.4 < estimates["beta"].high


def test_the_fitted_curve_carries_its_band():
    fitted = fit(D, curves(BON, np.random.default_rng(2)), BON)
    made = curve(fitted, [0.0, 4.0, 8.0])
    a, b = fitted.estimates["alpha"].value, fitted.estimates["beta"].value
    np.testing.assert_allclose(made.value, [0, 4 * (a - 4 * b), 8 * (a - 8 * b)], atol=1e-12)
    assert made.low[0] == made.high[0] == 0
    assert (made.low[1:] < made.value[1:]).all()
    assert (made.value[1:] < made.high[1:]).all()


def test_a_peak_that_is_not_there_is_infinite_not_a_number_out_of_the_blue():
    gold = np.tile((0.5 * D + 0.05 * D**2)[:, None], SEEDS)
    fitted = fit(D, gold, BON)
    assert fitted.estimates["beta"].value == pytest.approx(-0.05)
    assert fitted.estimates["peak"].value == fitted.estimates["height"].high == np.inf
    assert fitted.inside == 0
    falling = fit(D, -gold, BON)
    assert falling.estimates["peak"].value == falling.estimates["height"].value == 0


@pytest.mark.parametrize(("made_by", "other"), [(BON, RL), (RL, BON)], ids=name)
def test_what_is_held_out_tells_the_laws_apart(made_by, other):
    gold = curves(made_by, np.random.default_rng(3), noise=0.03)
    errors = extrapolate(D, gold, (made_by, other, LINEAR), cut=5.0)
    assert errors[other.name].excess.low > 0
    assert errors["linear"].excess.low > 0
    assert errors[made_by.name].excess.value == 0
    assert errors[made_by.name].rmse.high < errors[other.name].rmse.low


def test_held_out_points_do_not_touch_the_fit():
    gold = curves(BON, np.random.default_rng(4))
    shifted = gold + 100.0 * (D[:, None] > 5)
    before, after = (
        extrapolate(D, g, (BON,), 5.0)["best-of-n"].rmse.value for g in (gold, shifted)
    )
    assert after == pytest.approx(100, abs=2 * before)


def test_coefficients_are_explained_by_log_size_with_covering_intervals():
    # α = 0.2 + 0.1 log size, β = 0.2 − 0.015 log size: Gao et al. fig. 3, in form.
    sizes, rng, sets = np.array([1e2, 1e3, 1e4, 1e5]), np.random.default_rng(5), 150
    predictors = {"log size": np.log(sizes)}
    inside = {"alpha": 0.0, "beta": 0.0}
    for _ in range(sets):
        luck = 0.1 * rng.normal(size=SEEDS)  # shared by the sizes, as their seeds are
        fits = []
        for x in np.log(sizes):
            gold = D * (0.2 + 0.1 * x) - D**2 * (0.2 - 0.015 * x)
            noise = 0.1 * rng.normal(size=(len(D), SEEDS)) * (D[:, None] > 0)
            fits.append(fit(D, gold[:, None] + np.outer(D, luck) + noise, BON))
        for key, truth in (("alpha", 0.1), ("beta", -0.015)):
            slope = regress(fits, predictors, key).slopes["log size"]
            inside[key] += (slope.low <= truth <= slope.high) / sets
    assert all(0.95 - 0.054 <= share <= 1 for share in inside.values()), inside
    assert regress(fits, predictors, "alpha").r2 > 0.95


def test_first_passage_by_hand():
    # d goes 0, 2, 1, 4; gold 0, 1, 5, 2. d = 1 is first met half way to 2; d = 3 two thirds
    # of the way from 1 to 4: 5 − 2 = 3. Seed 2 stops at d = 2.
    d = np.array([[0.0, 0], [2, 1], [1, 2], [4, 2]])
    gold = np.array([[0.0, 0], [1, 3], [5, 4], [2, 9]])
    got = first_passage(d, gold, [0.0, 1.0, 2.0, 3.0])
    np.testing.assert_allclose(got, [[0, 0], [0.5, 3], [1, 4], [3, np.nan]])


def test_distance_is_the_root_of_kl():
    np.testing.assert_allclose(distance([0.0, 4.0, -1e-6]), [0, 2, 0])
    for kl in (-0.1, np.nan):
        with pytest.raises(ConfigError, match="must be a number ≥ 0"):
            distance([1.0, kl])


def broken(change):
    gold = np.tile(exact(BON)[:, None], 4)
    change(gold)
    return gold


@pytest.mark.parametrize(
    ("d", "gold", "law", "message"),
    [
        (D, broken(lambda g: g.__setitem__((3, 1), np.nan)), BON, "1 of 100 numbers are not fin"),
        (D, np.full((25, 4), 0.0), BON, "no seed's curve varies"),
        (D, broken(lambda g: g.__iadd__(0.5)), BON, "gold at d = 0 is up to 0.5"),
        (D - 1, broken(lambda g: None), BON, "d: every value"),
        (D[:2], exact(BON)[:2, None] * np.ones(4), BON, "has 1 distinct d > 0 to fit, it needs 2"),
        (
            D[:3],
            exact(BON)[:3, None] * np.ones(4),
            POWER,
            "has 2 distinct d > 0 to fit, it needs 3",
        ),
        (D, exact(BON)[:, None], BON, "at least 2 seeds"),
        (D, exact(BON), BON, r"gold must be \[points, seeds\]"),
        (D[:5], broken(lambda g: None), BON, r"d \(5,\) and gold \(25, 4\)"),
    ],
)
def test_what_cannot_be_fitted_is_refused_in_one_line(d, gold, law, message):
    with pytest.raises(ConfigError, match=message) as error:
        fit(d, gold, law)
    assert "\n" not in str(error.value)


def test_what_cannot_be_compared_or_explained_is_refused():
    gold = curves(BON, np.random.default_rng(6))
    with pytest.raises(ConfigError, match="cut = 9: a seed has no d beyond it"):
        extrapolate(D, gold, (BON,), 9.0)
    with pytest.raises(ConfigError, match="best-of-n law: seed 0 has 1 distinct d"):
        extrapolate(D, gold, (BON,), 0.4)
    fits = [fit(D, gold, BON), fit(D, 2 * gold, BON)]
    with pytest.raises(ConfigError, match="2 fits cannot tell intercept, x apart"):
        regress(fits, {"x": [1.0, 1.0]}, "alpha")
    with pytest.raises(ConfigError, match="x: needs one finite number for each of 2 fits"):
        regress(fits, {"x": [1.0, np.inf]}, "alpha")
