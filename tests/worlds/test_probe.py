"""The enumerable language and the optimum that is known in it."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import feeling, felt, worths

from rlhf_jax.config import ConfigError
from rlhf_jax.config import World as Settings
from rlhf_jax.worlds import probe

SETTINGS = Settings(name="probe", symbols=3, length=4)


@pytest.fixture(scope="module")
def world():
    return probe.build(SETTINGS)


def test_the_corpus_is_every_sequence_once(world):
    tokens, mask = map(np.asarray, world.corpus)
    assert tokens.shape == (3**4, 4)
    assert len(np.unique(tokens, axis=0)) == 81
    assert set(np.unique(tokens)) == {0, 1, 2}
    assert mask.all()


def test_a_sequence_is_found_in_its_own_row(world):
    np.testing.assert_array_equal(jax.vmap(world.row)(*world.corpus), np.arange(81))


def test_gold_has_mean_zero_and_deviation_one_over_all_sequences(world):
    gold = worths(world, SETTINGS)[:, 0]
    assert gold.mean() == pytest.approx(0, abs=1e-6)
    assert gold.std() == pytest.approx(1, abs=1e-5)


def test_gold_is_a_sum_over_symbols_and_neighbours_and_needs_both(world):
    # Fitted by least squares on indicators of symbols it leaves something, with those of
    # neighbours too it leaves nothing.
    x = np.asarray(world.corpus[0])
    single = np.eye(3)[x].reshape(81, -1)
    pairs = sum(np.eye(9)[3 * x[:, t] + x[:, t + 1]] for t in range(3))
    gold = worths(world, SETTINGS)[:, 0].astype(np.float64)
    left = [
        np.abs(f @ np.linalg.lstsq(f, gold, rcond=None)[0] - gold).max()
        for f in (single, np.concatenate([single, pairs], axis=1))
    ]
    assert left[0] > 0.1
    assert left[1] < 1e-5


def test_people_perceive_gold_itself(world):
    x = tuple(leaf[7] for leaf in world.corpus)
    assert world.impressions == 1
    assert felt(world)(SETTINGS, *x, 0)[-1] == feeling(world)(SETTINGS, *x)


def test_the_second_value_is_standardised_and_another_than_gold(world):
    gold, value = worths(world, SETTINGS).T
    assert value.mean() == pytest.approx(0, abs=1e-6)
    assert value.std() == pytest.approx(1, abs=1e-5)
    assert abs(np.corrcoef(value, gold)[0, 1]) < 0.5


def test_a_prefix_is_worth_the_mean_of_all_sequences_that_begin_so(world):
    see = jax.jit(jax.vmap(felt(world), (None, 0, 0, None)))
    steps = np.asarray(see(SETTINGS, *world.corpus, 0))
    tokens, gold = np.asarray(world.corpus[0]), worths(world, SETTINGS)[:, 0].astype(np.float64)
    for i, x in enumerate(tokens):
        for t in range(4):
            begins_so = (tokens[:, : t + 1] == x[: t + 1]).all(1)
            assert steps[i, t] == pytest.approx(gold[begins_so].mean(), abs=1e-6)
    np.testing.assert_array_equal(steps[:, -1], worths(world, SETTINGS)[:, 0])


def test_what_a_token_adds_is_zero_on_average_over_the_tokens_that_could_stand_there(world):
    # The value of a prefix is a martingale under even sampling.
    see = jax.vmap(felt(world), (None, 0, 0, None))
    steps = np.asarray(see(SETTINGS, *world.corpus, 0), np.float64)
    for t in range(1, 4):
        gain = (steps[:, t] - steps[:, t - 1]).reshape(3**t, -1)
        np.testing.assert_allclose(gain.mean(1), 0, atol=1e-6)


def test_every_prompt_is_the_beginning_of_a_sequence(world):
    tokens, mask = world.prompt(SETTINGS, jax.random.key(0))
    assert tokens.tolist() == [world.language.bos]
    assert mask.tolist() == [True]
    assert world.trigger is None


@pytest.mark.parametrize("only_words", [{"gold": "model"}, {"trigger": True}])
def test_what_only_words_have_is_an_error_that_says_so(only_words):
    with pytest.raises(ConfigError, match=r"need world\.name = words"):
        probe.build(dataclasses.replace(SETTINGS, **only_words))


def test_only_the_alphabet_can_be_said_and_every_symbol_has_its_own_sign(world):
    language = world.language
    assert language.actions.tolist() == [True] * 3 + [False] * 2
    assert (language.bos, language.pad, language.eos) == (3, 4, None)
    many = probe.build(Settings(name="probe", symbols=64, length=2)).language.symbols
    assert len(set(many)) == 66


def test_some_sequences_are_held_out_and_some_are_shown(world):
    assert 0 < int(np.asarray(world.shown).sum()) < 81


def test_a_world_with_nothing_held_out_is_an_error_that_says_so():
    with pytest.raises(ConfigError, match=r"world\.held_out = 0\.01: of 9 sequences none is held"):
        probe.build(Settings(name="probe", symbols=3, length=2, held_out=0.01))


# --- the optimum


def test_the_optimum_of_two_responses_has_odds_of_exp_of_the_difference_over_the_weight():
    # π_ref = (1/4, 3/4), r = (1, 0), β = 1/2: odds (1/3) e².
    log_p = probe.optimum(jnp.log(jnp.asarray([0.25, 0.75])), jnp.asarray([1.0, 0.0]), 0.5)
    assert float(log_p[0] - log_p[1]) == pytest.approx(np.log(np.exp(2) / 3), abs=1e-6)
    assert float(jnp.exp(log_p).sum()) == pytest.approx(1, abs=1e-6)


def test_nothing_has_a_larger_regularised_reward_than_the_optimum():
    # Gibbs: E_π[r] − β KL(π ‖ π_ref) = β log Z − β KL(π ‖ π*), so the maximum is β log Z.
    rng, weight = np.random.default_rng(0), 0.3
    reference = np.asarray(jax.nn.log_softmax(jnp.asarray(rng.normal(size=20))), np.float64)
    reward = rng.normal(size=20)

    def objective(log_p: np.ndarray) -> float:
        p = np.exp(log_p)
        return float(p @ reward - weight * p @ (log_p - reference))

    best = np.asarray(probe.optimum(jnp.asarray(reference), jnp.asarray(reward), weight), float)
    most = weight * np.log(np.exp(reference) @ np.exp(reward / weight))
    assert objective(best) == pytest.approx(most, abs=1e-5)
    for _ in range(50):
        other = best + 0.3 * rng.normal(size=20)
        assert objective(other - np.log(np.exp(other).sum())) < most - 1e-4


def test_the_weight_leads_the_optimum_from_the_best_response_to_the_reference():
    reference = jax.nn.log_softmax(jnp.asarray([1.0, 0.0, -1.0]))
    reward = jnp.asarray([0.0, 1.0, 2.0])
    at = lambda weight: np.exp(probe.optimum(reference, reward, weight))
    np.testing.assert_allclose(at(1e6), np.exp(reference), atol=1e-5)
    np.testing.assert_allclose(at(1e-3), [0, 0, 1], atol=1e-6)
