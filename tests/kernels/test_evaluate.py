"""What is measured, against enumeration by hand."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import EOS, LANGUAGE, PAD, SHAPE, A, B, C, finish, prompts, sharp

from rlhf_jax.config import Evaluate
from rlhf_jax.config import World as Settings
from rlhf_jax.kernels import collect, evaluate
from rlhf_jax.kernels.reward import Judge
from rlhf_jax.models import heads
from rlhf_jax.types import Episode, Kernel
from rlhf_jax.worlds import probe

agreement = jax.jit(evaluate.agreement)


def measure(a: Sequence, b: Sequence, score_a: Sequence, score_b: Sequence) -> dict:
    arrays = (jnp.asarray(x, jnp.float32) for x in (a, b, score_a, score_b))
    return {k: np.asarray(v) for k, v in agreement(*arrays).items()}


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
            human += np.mean([said[j, k] == said[other] for other in strict])
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
    got = measure(a, b, *score)
    for name, expected in enumerated(a, b, score[0] - score[1]).items():
        assert got[name] == pytest.approx(expected, abs=1e-5), name


def test_where_all_agree_all_ceilings_and_a_right_model_reach_one():
    got = measure([[1, 2], [0, 0]], [[0, 0], [3, 3]], [5, -1], [4, 7])
    assert got["reward/accuracy_heldout"] == 1
    assert got["reward/ceiling_human"] == 1
    assert got["reward/ceiling_mean"] == 1


def test_a_divided_pair_has_a_human_ceiling_of_p_squared_plus_q_squared():
    # Of a's four ratings three are above b's one value and one is below: p = 3/4.
    got = measure([[2, 2, 2, 0]], [[1, 1, 1, 1]], [1], [0])
    assert got["reward/accuracy_heldout"] == pytest.approx(3 / 4)
    assert got["reward/ceiling_human"] == pytest.approx(9 / 16 + 1 / 16)
    # The mean of the other three of a is above 1 whoever is left out: right in 3 of 4.
    assert got["reward/ceiling_mean"] == pytest.approx(3 / 4)


def test_a_reversed_model_is_right_where_the_model_is_wrong():
    rng = np.random.default_rng(7)
    a, b = rng.integers(-4, 5, (2, 9, 10))
    s, t = rng.normal(size=(2, 9))
    name = "reward/accuracy_heldout"
    assert measure(a, b, s, t)[name] == pytest.approx(1 - measure(a, b, -s, -t)[name], abs=1e-6)


def test_a_model_that_says_the_same_of_all_is_right_half_the_time():
    got = measure([[1, 2], [0, 1]], [[0, 0], [3, 3]], [1, 1], [1, 1])
    assert got["reward/accuracy_heldout"] == pytest.approx(0.5)
    assert got["reward/logloss"] == pytest.approx(np.log(2))
    assert got["reward/brier"] == pytest.approx(0.25)


def test_ties_are_not_counted():
    # The second pair is a tie for everyone, the third for half of the comparisons.
    one = measure([[1, 1]], [[0, 0]], [1], [0])
    two = measure([[1, 1], [2, 2]], [[0, 0], [2, 2]], [1, 9], [0, 0])
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=1e-6)


def test_pairs_that_are_all_ties_give_numbers_and_no_nan():
    assert all(np.isfinite(v).all() for v in measure([[1, 1]], [[1, 1]], [3], [0]).values())


def test_a_model_that_states_the_shares_is_calibrated():
    # p = 3/4 in both pairs and a score gap of ±ln 3: σ = 3/4 and 1/4.
    gap = np.log(3.0)
    got = measure([[2, 2, 2, 0], [1] * 4], [[1] * 4, [2, 2, 2, 0]], [gap, 0], [0, gap])
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
    got = measure([[2, 2, 2, 0]], [[1] * 4], [np.log(19.0)], [0])
    assert got["reward/ece"] == pytest.approx(0.2, abs=1e-6)


# --- the reward model on its scale


PROBE = Settings(name="probe", symbols=2, length=4, held_out=0.3)
WORLD = probe.build(PROBE)
POLICY = heads.policy(SHAPE, WORLD.language)
THETA = sharp(jax.jit(POLICY.init)(jax.random.key(0)))
ROWS = jnp.arange(16)
EVERY = collect.corpus_episodes(WORLD, ROWS)
log_probs = jax.jit(lambda theta: evaluate.sequence_log_probs(POLICY, theta, EVERY))


def oracle(params: jax.Array, x: Episode) -> jax.Array:
    """A reward model that knows gold, times `params`: the last state reads it."""
    value = jax.vmap(WORLD.gold, (None, 0, 0))(PROBE, x.tokens, x.mask)
    return jnp.pad((params * value)[:, None], ((0, 0), (x.tokens.shape[1], 0)))


@functools.cache
def judge_with(values: Callable) -> Kernel:
    model = heads.Scalar(lambda key: jnp.ones(()), values, lambda mine, other: mine)
    kernel = evaluate.reward_kernel(POLICY, model, WORLD, Evaluate(samples=512))
    return kernel._replace(step=jax.jit(kernel.step))


def judged(params: float, values: Callable = oracle) -> tuple[evaluate.Judging, dict]:
    kernel = judge_with(values)
    state = kernel.init(jax.random.key(3), jnp.asarray(0.0))
    return kernel.step(state, (jnp.asarray(params), THETA))


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
    p = np.exp(log_probs(THETA))
    gold = 2 * np.asarray(WORLD.ratings)[:, 0]
    mean = p @ gold
    deviation = np.sqrt(p @ (gold - mean) ** 2)
    assert float(state.judge.mean) == pytest.approx(mean, abs=4 * deviation / np.sqrt(512))
    assert float(state.judge.deviation) == pytest.approx(deviation, rel=0.2)
    assert metrics["reward/deviation"] == state.judge.deviation


def test_shrinking_a_reward_changes_its_calibration_and_not_its_scale():
    # Accuracy and correlation do not see a factor, the likelihood of answers does.
    (big, one), (small, two) = judged(2.0), judged(0.01)
    assert one["reward/accuracy_heldout"] == two["reward/accuracy_heldout"]
    assert one["reward/logloss"] < two["reward/logloss"] < np.log(2)
    np.testing.assert_allclose(
        (2.0 - big.judge.mean) / big.judge.deviation,
        (0.01 - small.judge.mean) / small.judge.deviation,
        rtol=1e-3,
    )


# --- the policy


SAMPLES = 4000


@pytest.fixture(scope="module")
def looked():
    """A policy beside a reference: (the state, its metrics, θ, θ_ref)."""
    model = heads.Scalar(lambda key: jnp.ones(()), oracle, lambda mine, other: mine)
    kernel = evaluate.policy_kernel(POLICY, model, WORLD, Evaluate(samples=SAMPLES, shown=3))
    reference = jax.jit(POLICY.init)(jax.random.key(5))
    judge = Judge(jnp.asarray(3.0), jnp.asarray(1.0), jnp.asarray(2.0))
    step = jax.jit(kernel.step)

    def look(theta, state=None):
        given = evaluate.Candidate(theta, reference, judge, PROBE, jnp.ones(()))
        state = kernel.init(jax.random.key(4)) if state is None else state
        state, metrics = step(state, given)
        return state, {k: np.asarray(v) for k, v in metrics.items()}

    return look, reference


def exact(theta, reference) -> dict[str, float]:
    """Expectations over all sixteen sequences."""
    log_p, log_q = (np.asarray(log_probs(t), float) for t in (theta, reference))
    p, gold = np.exp(log_p), np.asarray(WORLD.ratings, float)[:, 0]
    return {"p": p, "gold": p @ gold, "kl": p @ (log_p - log_q), "var": p @ gold**2}


def test_the_probabilities_of_all_responses_add_up_to_one(looked):
    assert exact(THETA, looked[1])["p"].sum() == pytest.approx(1, abs=1e-5)


def test_sampled_gold_and_divergence_are_their_expectations_over_all_responses(looked):
    look, reference = looked
    _, got = look(THETA)
    expected = exact(THETA, reference)
    margin = 4 * np.sqrt(expected["var"] / SAMPLES)
    assert got["eval/gold_sampled"] == pytest.approx(expected["gold"], abs=margin)
    assert got["eval/proxy_sampled"] == pytest.approx(
        (3 * got["eval/gold_sampled"] - 1) / 2, abs=1e-4
    )
    assert expected["kl"] > 0.05
    assert got["eval/kl_exact"] == pytest.approx(expected["kl"], rel=0.1)
    assert got["eval/kl_sampled"] == pytest.approx(expected["kl"], rel=0.25)


def test_the_greedy_response_takes_the_likeliest_symbol_at_every_step(looked):
    _, got = looked[0](THETA)
    prefix = np.zeros(4, int)
    logits = jax.jit(POLICY.logits)
    for t in range(4):
        x = EVERY._replace(tokens=jnp.broadcast_to(jnp.asarray(prefix), (16, 4)))
        prefix[t] = int(np.argmax(logits(THETA, x)[0, t]))
    row = int("".join(map(str, prefix)), 2)
    assert got["eval/gold_greedy"] == pytest.approx(float(WORLD.ratings[row, 0]), abs=1e-6)
    np.testing.assert_array_equal(got["sample/greedy/tokens"], prefix[None])


def test_the_reference_is_at_no_distance_from_itself(looked):
    look, reference = looked
    _, got = look(jax.tree.map(jnp.copy, reference))
    assert got["eval/kl_exact"] == pytest.approx(0, abs=1e-6)
    assert got["eval/kl_sampled"] == pytest.approx(0, abs=1e-5)


def test_all_responses_of_an_enumerable_language_are_in_the_corpus(looked):
    _, got = looked[0](THETA)
    assert got["eval/nonword_share"] == 0
    # Whatever has a probability of 1/200 occurs among 4000 samples.
    common = int((exact(THETA, looked[1])["p"] > 0.005).sum())
    assert common <= round(float(got["eval/distinct_share"]) * SAMPLES) <= 16


def test_the_shown_samples_are_rows_with_their_own_reward_and_gold(looked):
    _, got = looked[0](THETA)
    assert got["sample/sampled/tokens"].shape == (3, 4)
    row = got["sample/sampled/tokens"] @ [8, 4, 2, 1]
    gold = np.asarray(WORLD.ratings)[row, 0]
    np.testing.assert_allclose(got["sample/sampled/gold"], gold, atol=1e-6)
    np.testing.assert_allclose(got["sample/sampled/reward"], (3 * gold - 1) / 2, atol=1e-5)


def test_every_look_draws_new_samples_and_the_same_look_the_same(looked):
    look, _ = looked
    state, first = look(THETA)
    _, again = look(THETA)
    _, second = look(THETA, state)
    assert first["eval/gold_sampled"] == again["eval/gold_sampled"]
    assert first["eval/gold_sampled"] != second["eval/gold_sampled"]


# --- variety


def test_distinct_responses_are_counted_up_to_their_end():
    tokens = jnp.asarray(
        [
            [A, EOS, PAD, PAD, PAD],
            [A, EOS, B, C, B],  # the same, with junk behind the end
            [A, A, EOS, PAD, PAD],
            [B, A, C, A, A],
        ],
        jnp.int32,
    )
    mask = finish(tokens)[1]
    x = Episode(prompts(4), tokens, mask)
    assert evaluate.distinct_share(x) == 3 / 4
    same = jax.tree.map(lambda leaf: leaf[jnp.zeros(4, int)], x)
    assert evaluate.distinct_share(same) == 1 / 4
    assert len(LANGUAGE.symbols) > C
