"""The fitted reward's measurements, against enumeration by hand."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SHAPE, feeling, sharp, worths

from rlhf_jax.config import Evaluate, Group, Human, Reward
from rlhf_jax.config import World as Settings
from rlhf_jax.humans import population
from rlhf_jax.kernels import collect, draw, ensemble, measure
from rlhf_jax.kernels.learner import Learner
from rlhf_jax.kernels.reward import Fitted
from rlhf_jax.kernels.sampling import sequence_log_probs
from rlhf_jax.models import heads
from rlhf_jax.ops.bestofn import sizes
from rlhf_jax.types import Episode, Kernel
from rlhf_jax.worlds import probe

agreement = jax.jit(measure.agreement)


def measured(
    a: Sequence,
    b: Sequence,
    score_a: Sequence,
    score_b: Sequence,
    longer: Sequence = (0.0, 0.0),
    **people: float,
) -> dict:
    """`longer`: how long all a and all b are. `people`: how they are not perfect; a deviation of
    length is worth `second` to most and −`second` to the `minority`, and the `poisoned`, who are
    asked and not served, answer the opposite of what most perceive."""
    second, minority, poisoned = (people.pop(x, 0.0) for x in ("second", "minority", "poisoned"))
    bias, human = people.get("length_bias", 0.0), Human(**people)
    bad = Group(share=poisoned, served=False, human=human)
    groups = {"minority": Group(share=minority, human=human), "bad": bad}
    sides = []
    for ratings, more, scores in ((a, longer[0], score_a), (b, longer[1], score_b)):
        ratings, scores = (jnp.asarray(x, jnp.float32) for x in (ratings, scores))
        worth = [ratings + w * more for w in (second, second, -second)]
        seen = [sign * (u + bias * more) for u, sign in zip(worth, (1, -1, 1), strict=True)]
        seen = jnp.stack(seen, 1)
        sides.append(measure.Side(jnp.stack(worth, 1), seen, seen, scores))
    crowd = population.people(human, groups, ("value",), ())
    return {k: np.asarray(v) for k, v in agreement(*sides, crowd).items()}


def ceiling(a: Sequence, b: Sequence, longer: Sequence = (0.0, 0.0), **people: float) -> float:
    return float(measured([a], [b], [1], [0], longer, **people)["reward/ceiling_human"])


# --- agreement()


def sign(x: float) -> int:
    return int(x > 0) - int(x < 0)


def enumerated(a: np.ndarray, b: np.ndarray, score: np.ndarray) -> dict[str, float]:
    """Everything by asking every person about every pair, one at a time."""
    asked, model, human, mean, logloss, brier = (0.0,) * 6
    for i in range(len(a)):
        people = list(itertools.product(range(a.shape[1]), repeat=2))
        said = {(j, k): sign(a[i, j] - b[i, k]) for j, k in people}
        strict = [who for who in people if said[who]]
        p = 1 / (1 + np.exp(-score[i]))
        for j, k in strict:
            asked += 1
            first = said[j, k] > 0
            model += 0.5 if score[i] == 0 else (score[i] > 0) == first
            others = [o for o in strict if o[0] != j and o[1] != k]
            human += np.mean([said[j, k] == said[o] for o in others]) if others else 0.5
            rest = np.delete(a[i], j).mean() - np.delete(b[i], k).mean()
            mean += 0.5 if abs(rest) < 1e-9 else sign(rest) == said[j, k]
            logloss -= np.log(p if first else 1 - p)
            brier += (p - first) ** 2
    return {
        "reward/accuracy_heldout": model / asked,
        "reward/ceiling_human": human / asked,
        "reward/ceiling_mean": mean / asked,
        "reward/logloss": logloss / asked,
        "reward/brier": brier / asked,
    }


@pytest.mark.parametrize("seed", range(6))
def test_agreement_equals_asking_everybody_about_everything(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-2, 3, (2, 7, 4)).astype(float)
    score = rng.normal(size=(2, 7))
    score[1, 0] = score[0, 0]  # the model does not know
    got = measured(a, b, *score)
    for name, expected in enumerated(a, b, score[0] - score[1]).items():
        assert got[name] == pytest.approx(expected, abs=1e-5), name


def test_where_all_agree_all_ceilings_and_a_right_model_reach_one():
    got = measured([[1, 2], [0, 0]], [[0, 0], [3, 3]], [5, -1], [4, 7])
    assert got["reward/accuracy_heldout"] == 1
    assert got["reward/ceiling_human"] == 1
    assert got["reward/ceiling_mean"] == 1


def test_another_person_is_never_the_rater_who_is_predicted():
    # Of a's four ratings three are above b's one value and one is below: p = 3/4.
    got = measured([[2, 2, 2, 0]], [[1, 1, 1, 1]], [1], [0])
    assert got["reward/accuracy_heldout"] == pytest.approx(3 / 4)
    # Whoever said 2 finds two of three others agree, whoever said 0 none: 3/4 · 2/3.
    assert got["reward/ceiling_human"] == pytest.approx(1 / 2)
    # The mean of the other three of a is above 1 whoever is left out: right in 3 of 4.
    assert got["reward/ceiling_mean"] == pytest.approx(3 / 4)


def test_two_rows_have_raters_of_their_own():
    # Whoever held 2 against 1 says a, and the others hold 2 against 3; and the other way round.
    assert ceiling([2, 2], [1, 3]) == pytest.approx(0)


COINS = {"lapse": 1.0}, {"flip": 0.5}, {"rationality": 0.0}, {"poisoned": 0.5}


@pytest.mark.parametrize("people", COINS, ids=lambda p: next(iter(p)))
def test_people_who_answer_by_a_coin_predict_half_of_what_anyone_thinks(people: dict):
    rng = np.random.default_rng(3)
    a, b = rng.integers(-4, 5, (2, 9, 10))
    got = measured(a, b, *rng.normal(size=(2, 9)), **people)
    assert got["reward/ceiling_human"] == pytest.approx(0.5, abs=1e-6)
    assert got["reward/ceiling_mean"] == pytest.approx(0.5, abs=1e-6)


UP, DOWN = [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]
"""All are of one mind, so that nothing but the answer itself can go wrong."""


@pytest.mark.parametrize(
    ("people", "expected"),
    [
        ({}, 1),
        ({"lapse": 0.4}, 1 - 0.4 / 2),
        ({"flip": 0.1}, 1 - 0.1),
        ({"flip": 1.0}, 0),
        ({"lapse": 0.4, "flip": 0.1}, 0.4 / 2 + 0.6 * 0.9),
        ({"rationality": 2.0}, 1 / (1 + np.exp(-2.0))),
        ({"poisoned": 0.25}, 3 / 4),
        # Shown second, b looks better by 3, or is liked as much: nobody takes a side.
        ({"position_bias": -3.0}, 0),
        ({"position_bias": -1.0}, 1 / 2),
        # P(a) = σ(1 − τ), P(b) = σ(−1 − τ), of those who take a side.
        ({"rationality": 1.0, "tie": 0.5}, 0.6225 / (0.6225 + 0.1824)),
        # Whoever looks calls it a tie, or can't tell: what is said is said by those who lapse.
        ({"lapse": 0.1, "equal": 2.0}, 1 / 2),
        ({"lapse": 0.1, "skip": 1.0}, 1 / 2),
        ({"lapse": 0.1, "skip": 0.5}, 0.05 + 0.9),
    ],
)
def test_the_ceiling_is_that_of_people_as_they_answer(people: dict, expected: float):
    assert ceiling(UP, DOWN, **people) == pytest.approx(expected, abs=1e-4)
    got = measured([UP], [DOWN], [1], [0], **people)
    assert got["reward/ceiling_mean"] == pytest.approx(expected, abs=1e-4)
    assert got["reward/accuracy_heldout"] == 1  # what they think of the rows is as it was


def test_groups_who_want_opposite_things_agree_within_themselves_only():
    # a is longer by two deviations, worth 1 each: +1 + 2 to most, +1 − 2 to a quarter.
    apart = {"second": 1.0, "minority": 0.25}
    assert ceiling(UP, DOWN, (2.0, 0.0), **apart) == pytest.approx(0.75**2 + 0.25**2)
    got = measured([UP], [DOWN], [1], [0], (2.0, 0.0), **apart)
    assert got["reward/accuracy_heldout"] == pytest.approx(3 / 4)
    # What only looks better is nobody's value: a is better by 1 and looks worse by 1.
    assert ceiling(UP, DOWN, (-2.0, 0.0), length_bias=1.0) == 0
    # Poisoned people of either group answer the opposite of what they perceive.
    assert ceiling(UP, DOWN, (2.0, 0.0), **apart, poisoned=0.25) == pytest.approx(
        # shares 1/2 majority, 1/4 minority, 1/4 poisoned majority: P(a) = 1/2 = P(b)
        1 / 2
    )


def test_a_reversed_model_is_right_where_the_model_is_wrong():
    rng = np.random.default_rng(7)
    a, b = rng.integers(-4, 5, (2, 9, 10))
    s, t = rng.normal(size=(2, 9))
    name = "reward/accuracy_heldout"
    assert measured(a, b, s, t)[name] == pytest.approx(1 - measured(a, b, -s, -t)[name], abs=1e-6)


def test_a_model_that_says_the_same_of_all_is_right_half_the_time():
    got = measured([[1, 2], [0, 1]], [[0, 0], [3, 3]], [1, 1], [1, 1])
    assert got["reward/accuracy_heldout"] == pytest.approx(0.5)
    assert got["reward/logloss"] == pytest.approx(np.log(2))
    assert got["reward/brier"] == pytest.approx(0.25)


def test_ties_are_not_counted():
    # The second pair is a tie for everyone, the third for half of the comparisons.
    one = measured([[1, 1]], [[0, 0]], [1], [0])
    two = measured([[1, 1], [2, 2]], [[0, 0], [2, 2]], [1, 9], [0, 0])
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-6)


def test_pairs_that_are_all_ties_give_numbers_and_no_nan():
    assert all(np.isfinite(v).all() for v in measured([[1, 1]], [[1, 1]], [3], [0]).values())


def test_a_model_that_states_the_shares_is_calibrated():
    # p = 3/4 in both pairs and a score gap of ±ln 3: σ = 3/4 and 1/4.
    gap = np.log(3.0)
    got = measured([[2, 2, 2, 0], [1] * 4], [[1] * 4, [2, 2, 2, 0]], [gap, 0], [0, gap])
    assert got["reward/ece"] == pytest.approx(0, abs=1e-6)
    assert got["reward/brier"] == pytest.approx(3 / 16, abs=1e-6)
    assert got["reward/logloss"] == pytest.approx(-0.75 * np.log(0.75) - 0.25 * np.log(0.25))
    # Ten bins: 1/4 lies in the third, 3/4 in the eighth, each with half of the weight.
    for name in ("predicted", "observed"):
        expected = np.zeros(10)
        expected[[2, 7]] = 1 / 4, 3 / 4
        np.testing.assert_allclose(got[f"reward/calibration_{name}"], expected, atol=1e-6)
    np.testing.assert_allclose(got["reward/calibration_weight"][[2, 7]], 0.5, atol=1e-6)


def test_an_overconfident_model_has_its_excess_as_calibration_error():
    # σ(gap) = 0.95 where three quarters agree: |0.95 − 0.75| = 0.2.
    got = measured([[2, 2, 2, 0]], [[1] * 4], [np.log(19.0)], [0])
    assert got["reward/ece"] == pytest.approx(0.2, abs=1e-6)


# --- the reward model on its scale


PROBE = Settings(name="probe", symbols=2, length=4, held_out=0.3)
WORLD = probe.build(PROBE)
POLICY = heads.policy(SHAPE, WORLD.language)
THETA = sharp(jax.jit(POLICY.init)(jax.random.key(0)))
ROWS = jnp.arange(16)
EVERY = collect.corpus_episodes(WORLD, ROWS)
log_probs = jax.jit(lambda theta: sequence_log_probs(POLICY, theta, EVERY))


def oracle(params: jax.Array, x: Episode) -> jax.Array:
    """A reward model that knows gold, times `params`: the last state reads it."""
    value = jax.vmap(feeling(WORLD), (None, 0, 0))(PROBE, x.tokens, x.mask)
    return jnp.pad((params * value)[:, None], ((0, 0), (x.tokens.shape[1], 0)))


LOOK = Evaluate(samples=512, best_of=4096)


@functools.cache
def samples() -> draw.Samples:
    kernel = draw.kernel(POLICY, WORLD, LOOK)
    state = kernel.init(jax.random.key(3))
    return jax.jit(kernel.step)(state, draw.Source(THETA, PROBE, 1.0))[0].samples


def test_the_scale_and_best_of_n_are_of_the_reference_at_the_temperature_of_the_learner():
    kernel = draw.kernel(POLICY, WORLD, LOOK)
    step = jax.jit(kernel.step)
    state = kernel.init(jax.random.key(3))
    cold = step(state, draw.Source(THETA, PROBE, 1e-3))[0].samples
    assert cold.pool is not None
    for x in (cold.scale, jax.tree.map(lambda leaf: leaf[0], cold.pool)):
        assert len(set(np.asarray(jax.vmap(WORLD.row)(x.tokens, x.mask)))) == 1


@functools.cache
def judge_with(values: Callable) -> Kernel:
    model = heads.Scalar(lambda key: jnp.ones(()), values, lambda mine, other: mine)
    score = lambda panel, where, who, time, x: ensemble.score(model, panel, x)
    kernel = measure.kernel(model, score, WORLD, LOOK)
    return kernel._replace(step=jax.jit(kernel.step))


def several(*params: float, how: str = "mean") -> ensemble.Members:
    """Members of one mind up to a factor, all alike common."""
    hparams = Reward(aggregate=how, doubt=0.5)
    learner = Learner(Fitted(jnp.asarray(params), {}), None, None, None, hparams)
    return ensemble.Members(learner, jnp.full(len(params), -jnp.log(float(len(params)))))


def given(members: ensemble.Members) -> measure.Measured:
    models, joined = members.learner.params.model, ensemble.joined(members.learner.hparams)
    crowd = population.people(Human(), {}, WORLD.dimensions, WORLD.features)
    return measure.Measured(
        models, members.log_prior, joined, samples(), PROBE, crowd, jnp.zeros(())
    )


def judged(params: float, values: Callable = oracle) -> tuple[measure.Judging, dict]:
    kernel = judge_with(values)
    state = kernel.init(jax.random.key(3), several(0.0))
    return kernel.step(state, given(several(params)))


def test_a_reward_model_that_knows_gold_is_measured_as_perfect():
    state, metrics = judged(2.0)
    assert metrics["reward/accuracy_heldout"] == pytest.approx(1, abs=1e-6)
    assert metrics["reward/ceiling_human"] == pytest.approx(1, abs=1e-6)
    assert metrics["reward/correlation_heldout"] == pytest.approx(1, abs=1e-5)
    assert int(state.round) == 1


def test_a_reward_model_that_knows_the_opposite_is_measured_as_wrong():
    _, metrics = judged(-2.0)
    assert metrics["reward/accuracy_heldout"] == 0
    assert metrics["reward/correlation_heldout"] == pytest.approx(-1, abs=1e-5)


def test_only_held_out_rows_measure_a_reward_model():
    # Right on the rows that nobody was shown, wrong on all others.
    def two_faced(params: jax.Array, x: Episode) -> jax.Array:
        shown = WORLD.shown[jax.vmap(WORLD.row)(x.tokens, x.mask)]
        return oracle(params, x) * jnp.where(shown, -1.0, 1.0)[:, None]

    _, metrics = judged(2.0, two_faced)
    assert metrics["reward/accuracy_heldout"] == pytest.approx(1, abs=1e-6)
    assert metrics["reward/correlation_heldout"] == pytest.approx(1, abs=1e-5)


def test_the_scale_is_that_of_samples_of_the_reference():
    # 512 samples x ~ π_ref: mean and deviation of 2·gold are those of the policy's
    # distribution over all sixteen sequences up to sampling error.
    state, metrics = judged(2.0)
    judge = state.panel.judges
    p = np.exp(log_probs(THETA))
    gold = 2 * worths(WORLD, PROBE)[:, 0]
    mean = p @ gold
    deviation = np.sqrt(p @ (gold - mean) ** 2)
    assert float(judge.mean[0]) == pytest.approx(mean, abs=4 * deviation / np.sqrt(512))
    assert float(judge.deviation[0]) == pytest.approx(deviation, rel=0.2)
    assert metrics["reward/deviation"] == judge.deviation[0]


def test_shrinking_a_reward_changes_its_calibration_and_not_its_scale():
    # Accuracy and correlation do not see a factor, the likelihood of answers does.
    (big, first), (small, two) = judged(2.0), judged(0.01)
    assert first["reward/accuracy_heldout"] == two["reward/accuracy_heldout"]
    assert first["reward/logloss"] < two["reward/logloss"] < np.log(2)
    np.testing.assert_allclose(
        (2.0 - big.panel.judges.mean) / big.panel.judges.deviation,
        (0.01 - small.panel.judges.mean) / small.panel.judges.deviation,
        rtol=1e-3,
    )


@pytest.mark.parametrize("how", ["mean", "worst_case", "uncertainty_weighted"])
def test_what_disagreeing_members_say_together_has_mean_0_and_deviation_1(how: str):
    # Three oracles and one of the opposite: before, their mean's deviation is ½.
    kernel, members = judge_with(oracle), several(1.0, 2.0, 3.0, -1.0, how=how)
    state, metrics = kernel.step(kernel.init(jax.random.key(3), members), given(members))
    if how == "mean":
        assert float(state.panel.whole.deviation) == pytest.approx(0.5, abs=1e-4)
        assert metrics["reward/correlation_heldout"] == pytest.approx(1, abs=1e-5)
    p = np.exp(log_probs(THETA))
    model = heads.Scalar(lambda key: jnp.ones(()), oracle, lambda mine, other: mine)
    said = np.asarray(jax.jit(lambda x: ensemble.score(model, state.panel, x))(EVERY))
    mean = p @ said
    assert mean == pytest.approx(0, abs=4 / np.sqrt(512))
    assert np.sqrt(p @ (said - mean) ** 2) == pytest.approx(1, rel=0.2)


def test_an_oracle_is_at_no_epic_distance_and_ranks_all_rows_right():
    _, metrics = judged(2.0)
    assert metrics["reward/epic"] == pytest.approx(0, abs=1e-3)
    assert metrics["reward/rank_correlation"] == pytest.approx(1, abs=1e-5)
    _, metrics = judged(-2.0)
    assert metrics["reward/epic"] == pytest.approx(1, abs=1e-5)
    assert metrics["reward/rank_correlation"] == pytest.approx(-1, abs=1e-5)


def test_the_best_of_n_by_an_oracle_is_what_the_reference_s_distribution_says():
    # P(best of n scores ≤ v) = F(v)^n over the sixteen sequences.
    _, metrics = judged(2.0)
    ns = sizes(4096)
    assert ns == tuple(2**i for i in range(11))
    p, gold = np.exp(log_probs(THETA)), worths(WORLD, PROBE)[:, 0].astype(float)
    order = np.argsort(gold)
    below = np.minimum(np.cumsum(p[order]), 1.0)
    for i, n in enumerate(ns[:7]):
        expected = np.diff(np.concatenate([[0.0], below**n])) @ gold[order]
        assert float(metrics["bestofn/gold"][i]) == pytest.approx(expected, abs=0.08), n
    assert float(metrics["bestofn/kl"][0]) == pytest.approx(0, abs=1e-4)
    assert (np.diff(metrics["bestofn/kl"]) > -1e-5).all()
