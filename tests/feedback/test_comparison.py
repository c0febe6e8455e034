from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fitting import fit, recovery
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_jax.feedback import comparison
from rlhf_jax.feedback.comparison import LOSSES, THRESHOLDS
from rlhf_jax.humans import CANT_TELL, Human, choose
from rlhf_jax.humans.links import constrain, unconstrain

ln = np.log


def scalar(f, *x, **options) -> float:
    return float(f(*(jnp.asarray([v], jnp.float32) for v in x), **options)[0])


def test_bradley_terry_by_hand():
    bt = comparison.bradley_terry
    assert scalar(bt, 0.0, 0.0, 1.0) == pytest.approx(ln(2))
    assert scalar(bt, ln(3), 0.0, 1.0) == pytest.approx(-ln(3 / 4))
    assert scalar(bt, ln(3), 0.0, 0.0) == pytest.approx(-ln(1 / 4))
    assert scalar(bt, ln(3), 0.0, 0.7) == pytest.approx(-0.7 * ln(3 / 4) - 0.3 * ln(1 / 4))
    assert scalar(bt, ln(3), 0.0, 1.0, smoothing=0.2) == pytest.approx(
        -0.9 * ln(3 / 4) - 0.1 * ln(1 / 4)
    )
    # The winner must lead by ln 3 to be at even odds.
    assert scalar(bt, ln(3), 0.0, 1.0, margin=ln(3)) == pytest.approx(ln(2))
    assert scalar(bt, 0.0, ln(3), 0.0, margin=ln(3)) == pytest.approx(ln(2))


def test_ranking_loss_counts_the_winner_only_and_ties_not_at_all():
    bpr = comparison.bayesian_personalised_ranking
    assert scalar(bpr, 0.0, ln(3), 0.0) == pytest.approx(-ln(3 / 4))
    assert scalar(bpr, 0.0, ln(3), 0.5) == 0.0
    assert scalar(bpr, ln(9), 0.0, 1.0, margin=ln(3)) == pytest.approx(-ln(3 / 4))


def test_rao_kupper_and_davidson_by_hand():
    # π = 3 : 1, θ = 2: P(a) = 3/(3 + 2), P(b) = 1/(1 + 6)
    p = np.exp(comparison.log_rao_kupper(jnp.asarray(ln(3.0)), ln(2.0)))
    np.testing.assert_allclose(p, [3 / 5, 1 - 3 / 5 - 1 / 7, 1 / 7], rtol=1e-5)
    # π = 4 : 1, ν = ½: 4, ½ √4, 1 out of 6
    p = np.exp(comparison.log_davidson(jnp.asarray(ln(4.0)), ln(0.5)))
    np.testing.assert_allclose(p, [4 / 6, 1 / 6, 1 / 6], rtol=1e-5)
    assert scalar(comparison.davidson, ln(4), 0.0, 0.5, tie=ln(0.5)) == pytest.approx(ln(6))
    assert scalar(comparison.rao_kupper, ln(3), 0.0, 0.0, threshold=ln(2)) == pytest.approx(ln(7))


@pytest.mark.parametrize(
    "human",
    [
        Human(),
        Human(tie=1.0, position_bias=0.5),
        Human(rationality=0.0, tie=1.0),
        Human(rationality=1.5, lapse=0.2, flip=0.1, tie=0.3, position_bias=0.4),
        Human(rationality=1.5, lapse=0.2, flip=0.1, equal=0.5, skip=-1.5),
        Human(lapse=0.2, flip=0.1, equal=0.5, skip=-1.5),
    ],
)
def test_the_probabilities_of_an_answer_are_how_often_it_is_given(human):
    a, b = (x.ravel() for x in np.meshgrid([-2.0, 0.0, 0.25, 1.0], [-2.0, 0.0, 1.0]))
    n = 20_000
    ask = jax.jit(jax.vmap(lambda key: comparison.elicit(human, a, b, key)))
    said = np.asarray(ask(jax.random.split(jax.random.key(0), n)))
    expected = comparison.probabilities(human, jnp.asarray(a), jnp.asarray(b))
    often = np.stack([(said == label).mean(0) for label in (1.0, 0.5, 0.0)], axis=-1)
    assert np.abs(often - expected).max() < 4 * 0.5 / np.sqrt(n)
    certain = (np.asarray(expected) == 0) | (np.asarray(expected) == 1)
    np.testing.assert_array_equal(often[certain], np.asarray(expected)[certain])


@pytest.mark.parametrize("name", [*LOSSES, "loss"])
def test_an_answer_that_was_not_given_costs_nothing_and_moves_nothing(name):
    f = LOSSES.get(name, comparison.loss)
    given = [jnp.asarray(0.5)] if name in THRESHOLDS else []
    label = jnp.asarray([CANT_TELL])
    value, slope = jax.value_and_grad(lambda r: f(r, 0.0 * r, label, *given)[0])(jnp.ones(1))
    assert value == 0.0
    assert slope == 0.0


def test_a_plain_person_is_bradley_terry_and_a_lapse_floors_the_loss():
    a, b = jnp.asarray([1.0, -200.0]), jnp.asarray([0.5, 0.0])
    label = jnp.asarray([1.0, 1.0])
    np.testing.assert_allclose(
        comparison.loss(a, b, label), comparison.bradley_terry(a, b, label), rtol=1e-6
    )
    careless = comparison.loss(a, b, label, Human(rationality=1.0, lapse=0.1))
    assert careless[1] == pytest.approx(-ln(0.05), rel=1e-5)


@pytest.mark.parametrize("loss", [comparison.rao_kupper, comparison.davidson])
def test_rewards_and_tie_parameter_are_recovered_together(loss):
    """20 000 answers about 6 items. Rank correlation 1, calibration slope 1 ± 0.1."""
    truth, tie = jnp.linspace(-1.0, 1.0, 6), 0.4
    key, pairs = jax.random.split(jax.random.key(0))
    i, j = jax.random.randint(pairs, (2, 20_000), 0, 6)
    a, b = truth[i], truth[j]
    if loss is comparison.davidson:
        options = jnp.stack([a, 0.5 * (a + b) + tie, b], axis=-1)
        label = 1.0 - 0.5 * choose(Human(rationality=1.0), options, key)
    else:
        label = comparison.elicit(Human(rationality=1.0, tie=tie), a, b, key)
    found = fit(
        lambda p: jnp.mean(loss(p["r"][i], p["r"][j], label, p["tie"])),
        {"r": jnp.zeros(6), "tie": 0.1},
    )
    rank, slope = recovery(found["r"], truth)
    assert rank == pytest.approx(1.0)
    assert abs(slope - 1) < 0.1
    assert found["tie"] == pytest.approx(tie, abs=0.05)


def test_evaluators_and_reward_are_fitted_together():
    """Three people, 8000 answers each, the first one's β the unit: everybody's β and lapse and
    position bias are recovered with the reward (slope 1 ± 0.15).
    """
    truth = jnp.linspace(-2.0, 2.0, 8)
    people = Human(
        rationality=jnp.asarray([1.0, 0.3, 3.0]),
        lapse=jnp.asarray([0.0, 0.1, 0.3]),
        position_bias=jnp.asarray([0.0, 1.0, -0.5]),
    )
    axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, people)
    key, pairs = jax.random.split(jax.random.key(1))
    i, j = jax.random.randint(pairs, (2, 3, 8000), 0, 8)
    ask = jax.vmap(comparison.elicit, (axes, 0, 0, 0))
    label = ask(people, truth[i], truth[j], jax.random.split(key, 3))
    label = jnp.where(label == 0.5, 1.0, label)
    names = ["rationality", "lapse", "position_bias"]

    def nll(p):
        # Relative to the first person's β, which is 1.
        raw = dict(p["raw"])
        raw["rationality"] = raw["rationality"].at[0].set(0.0)
        crowd = constrain(Human(), raw)
        of = jax.vmap(comparison.loss, (0, 0, 0, axes))
        return jnp.mean(of(p["r"][i], p["r"][j], label, crowd))

    start = Human(rationality=jnp.ones(3), lapse=jnp.full(3, 0.05), position_bias=jnp.zeros(3))
    found = fit(nll, {"r": jnp.zeros(8), "raw": unconstrain(start, names)})
    fitted = constrain(Human(), found["raw"])
    rank, slope = recovery(found["r"], truth)
    assert rank == pytest.approx(1.0)
    assert abs(slope - 1) < 0.15
    np.testing.assert_allclose(fitted.rationality[1:], [0.3, 3.0], rtol=0.2)
    np.testing.assert_allclose(fitted.lapse, people.lapse, atol=0.06)
    np.testing.assert_allclose(fitted.position_bias, people.position_bias, atol=0.2)


def test_strengths_agree_with_choix():
    choix = pytest.importorskip("choix")
    rng = np.random.default_rng(0)
    truth = rng.normal(size=6)
    pairs = [tuple(rng.choice(6, 2, replace=False)) for _ in range(600)]
    won = [
        (i, j) if rng.random() < 1 / (1 + np.exp(truth[j] - truth[i])) else (j, i) for i, j in pairs
    ]
    wins = np.zeros((6, 6), np.float32)
    for i, j in won:
        wins[i, j] += 1
    mine, theirs = comparison.strengths(jnp.asarray(wins)), choix.ilsr_pairwise(6, won)
    np.testing.assert_allclose(mine, theirs - theirs.mean(), atol=1e-3)
    label, i, j = jnp.ones(600), *jnp.asarray(won).T
    fitted = fit(lambda r: jnp.mean(comparison.bradley_terry(r[i], r[j], label)), jnp.zeros(6))
    np.testing.assert_allclose(fitted - jnp.mean(fitted), theirs - theirs.mean(), atol=5e-3)


def pooled(utilities, shares):
    """[G, K], [G] → [K, K]: how often i is preferred to j by a member drawn at random."""
    d = utilities[:, :, None] - utilities[:, None, :]
    p = np.where(d > 0, 1.0, np.where(d < 0, 0.0, 0.5))
    p = np.tensordot(shares, p, axes=1)
    np.fill_diagonal(p, 0.0)
    return p


def test_pooled_comparisons_of_a_divided_people_rank_by_borda_not_by_utility():
    """Siththaranjan et al. 2023 (arXiv 2312.08358): their theorem on three items, two groups.

    60 % value (1, 0.9, 0), 40 % value (0, 0.1, 10): the mean utility is (0.6, 0.58, 4).
    P(a ≻ b) = P(a ≻ c) = P(b ≻ c) = 0.6, so that Borda counts a 1.2, b 1.0, c 0.8.
    """
    utilities, shares = np.asarray([[1, 0.9, 0], [0, 0.1, 10]]), np.asarray([0.6, 0.4])
    p = pooled(utilities, shares)
    np.testing.assert_allclose(p.sum(axis=1), [1.2, 1.0, 0.8])
    i, j = jnp.asarray(list(itertools.permutations(range(3), 2))).T
    label = jnp.asarray(p, jnp.float32)[i, j]
    r = fit(lambda r: jnp.mean(comparison.bradley_terry(r[i], r[j], label)), jnp.zeros(3))
    assert np.argsort(-r).tolist() == [0, 1, 2]
    assert np.argmax(shares @ utilities) == 2
    # At the optimum the model's own Borda count is the people's.
    model = jax.nn.sigmoid(r[:, None] - r[None, :])
    np.testing.assert_allclose(model.sum(axis=1) - 0.5, p.sum(axis=1), atol=1e-3)
    np.testing.assert_allclose(r - jnp.mean(r), comparison.strengths(jnp.asarray(p)), atol=5e-3)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    utilities=st.lists(st.permutations(range(5)), min_size=2, max_size=4),
    weights=st.lists(st.integers(1, 9), min_size=4, max_size=4),
)
def test_bradley_terry_orders_any_people_by_borda(utilities, weights):
    shares = np.asarray(weights[: len(utilities)], float)
    # Everybody errs now and then, or somebody could lose every comparison and have r = −∞.
    p = 0.9 * pooled(np.asarray(utilities, float), shares / shares.sum()) + 0.05
    np.fill_diagonal(p, 0.0)
    borda, r = p.sum(axis=1), strengths(jnp.asarray(p, jnp.float32))
    for i, j in itertools.combinations(range(5), 2):
        if abs(borda[i] - borda[j]) > 1e-3:
            assert (borda[i] > borda[j]) == bool(r[i] > r[j])
        else:
            assert r[i] == pytest.approx(float(r[j]), abs=1e-2)


strengths = jax.jit(comparison.strengths)
