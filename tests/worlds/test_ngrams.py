"""The model that plays the person, against strings, sets and dictionaries."""

from __future__ import annotations

import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import sparse
from tiny import feeling, felt, worths

from rlhf_jax import grid  # noqa: F401  makes the settings a pytree
from rlhf_jax.config import World as Settings
from rlhf_jax.worlds import lexicon, ngrams, words
from rlhf_jax.worlds.spelling import EOS, PAD, SYMBOLS, encode

SETTINGS = Settings(gold="model")
LENGTH = SETTINGS.length + 1


def pieces(x: str) -> set[str]:
    """By the definition: all n-grams of "^…", marks alone left out."""
    s = "^" + x
    every = {s[i : i + n] for n in range(1, ngrams.LONGEST + 1) for i in range(len(s) - n + 1)}
    return every - {"^", "$"}


def decoded(code: int) -> str:
    out = ""
    while code:
        code, symbol = divmod(code, 32)
        out = SYMBOLS[symbol] + out
    return out


def spelled(names: list[str]) -> tuple[jax.Array, jax.Array]:
    tokens = jnp.asarray(encode(names, LENGTH))
    return tokens, tokens != PAD


def gibberish(n: int) -> list[str]:
    """Strings of two letters and of eight, so that n-grams come back."""
    rng = np.random.default_rng(0)
    make = lambda letters: "".join(rng.choice(list(letters), rng.integers(1, 17)))
    return [make(string.ascii_lowercase[: 2 + 6 * (i % 2)]) for i in range(n)]


@pytest.fixture(scope="module")
def model():
    return ngrams.fitted()


@pytest.fixture(scope="module")
def worth(model):
    return {
        decoded(c): w for c, w in zip(model.codes.tolist(), model.weights.tolist(), strict=True)
    }


@pytest.fixture(scope="module")
def values(model):
    value = jax.jit(jax.vmap(lambda tokens, mask: ngrams.values(model, tokens, mask)))
    return lambda tokens, mask: np.asarray(value(tokens, mask))


@pytest.fixture(scope="module")
def world():
    return words.build(SETTINGS)


# --- n-grams


def test_the_n_grams_of_every_prefix_are_those_of_the_string_each_once():
    names = ["banana", "aaaaaaaaaaaaaaaa", "", "z", *gibberish(60)]
    codes = np.asarray(jax.jit(jax.vmap(ngrams.grams))(*spelled(names)))
    for x, rows in zip(names, codes, strict=True):
        for t in range(len(x) + 1):
            found = [decoded(c) for c in rows[: t + 1].ravel().tolist() if c]
            assert len(found) == len(set(found))
            assert set(found) == pieces((x + "$")[: t + 1])
        assert (rows[len(x) + 1 :] == 0).all()


def test_no_two_n_grams_of_the_rated_words_share_a_number(model, worth):
    names, _, _ = lexicon.read()
    assert len(model.codes) == len(worth)
    assert set(worth) == set().union(*(pieces(x + "$") for x in names))


# --- the fit


def test_ridge_is_the_closed_form():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(30, 50)), rng.normal(size=30)
    exact = np.linalg.solve(x.T @ x + 0.7 * np.eye(50), x.T @ y)
    w = ngrams.ridge(sparse.csr_matrix(x), y, 0.7, 1e-10)
    np.testing.assert_allclose(w, exact, atol=1e-8)


def test_the_weights_solve_the_normal_equations_of_the_explicit_features(model, worth):
    names, ratings, _ = lexicon.read()
    index = {g: i for i, g in enumerate(worth)}
    sets = [sorted(pieces(x + "$")) for x in names]
    entries = [(i, index[g], len(s) ** -0.5) for i, s in enumerate(sets) for g in s]
    row, column, value = map(np.asarray, zip(*entries, strict=True))
    x, w = sparse.csr_matrix((value, (row, column))), np.asarray(list(worth.values()))
    y = ratings.astype(np.float64).mean(1)
    left = y - y.mean() - x @ w
    pull = model.facts["gold_penalty"] * w
    assert np.linalg.norm(x.T @ left - pull) < 1e-4 * np.linalg.norm(pull)
    assert model.facts["gold_r2_in_sample"] == pytest.approx(
        1 - left @ left / y.var() / len(y), abs=1e-4
    )
    assert model.intercept == pytest.approx(y.mean())


def test_a_guess_about_a_word_does_not_know_its_ratings():
    rng = np.random.default_rng(2)
    x = sparse.csr_matrix(rng.normal(size=(40, 60)))
    y = rng.normal(size=40)
    before = ngrams.unseen(x, y, 0.5)
    other = y.copy()
    other[7] += 10.0
    after = ngrams.unseen(x, other, 0.5)
    assert after[7] == before[7]
    assert (after != before).sum() == 32  # all that are in another of the five folds


def test_the_model_explains_most_of_what_people_feel_about_words_it_has_not_seen(model):
    facts = model.facts
    assert 0.7 < facts["gold_r2_unseen_words"] < facts["gold_r2_in_sample"] < 1
    assert facts["gold_correlation_unseen_words"] > 0.85
    assert min(ngrams.PENALTIES) < facts["gold_penalty"] < max(ngrams.PENALTIES)


# --- values


def test_every_prefix_of_every_string_has_the_value_of_its_n_grams(model, worth, values):
    rng = np.random.default_rng(3)
    names = [*rng.choice(lexicon.read()[0], 40), *gibberish(40), "great", "xqzv"]
    names = [x for x in names if len(x) <= SETTINGS.length]
    seen = values(*spelled(names))
    for x, row in zip(names, seen, strict=True):
        for t in range(len(x) + 1):
            s = pieces((x + "$")[: t + 1])
            u = model.intercept + sum(worth.get(g, 0.0) for g in s) / np.sqrt(len(s))
            assert row[t] == pytest.approx(u, abs=2e-4)
        assert (row[len(x) :] == row[len(x)]).all()


def test_the_empty_string_is_worth_the_mean_rating(model, values):
    np.testing.assert_array_equal(values(*spelled([""])), np.full((1, LENGTH), model.intercept))


def test_repeating_what_was_said_adds_nothing(values):
    # Once all four rotations of five letters have been seen, nothing new comes.
    tokens, mask = spelled(["lovelovelovelove"])
    row = values(tokens, mask & (tokens != EOS))[0]
    assert (row[8:] == row[8]).all()
    assert row[7] != row[3]


def test_no_string_is_worth_more_than_the_norm_of_the_weights(model, values):
    seen = values(*spelled(gibberish(500)))
    assert np.abs(seen - model.intercept).max() <= np.linalg.norm(model.weights)


def test_some_string_that_is_no_word_is_worth_more_than_every_word(world, values):
    best = values(*spelled(["wonderfulfunnest"])).max()
    assert best > worths(world, SETTINGS)[:, 0].max() + 0.5


def test_a_second_fit_is_the_first(model):
    again = ngrams.fitted.__wrapped__()
    np.testing.assert_array_equal(again.codes, model.codes)
    np.testing.assert_allclose(again.weights, model.weights, atol=1e-5)
    assert ngrams.fitted() is model


# --- the world it makes


def test_every_row_is_rated_by_the_model_alone(world):
    assert world.impressions == 1
    assert world.facts["gold_ngrams"] == len(ngrams.fitted().codes)
    assert "ridge regression" in world.facts["gold"]


def test_the_model_s_opinion_is_that_of_the_people_it_was_fitted_to(world):
    said = worths(words.build(Settings()), SETTINGS)[:, 0]
    assert np.corrcoef(said, worths(world, SETTINGS)[:, 0])[0, 1] > 0.98


def test_an_impression_is_gold_itself_and_the_last_step_too(world, values):
    tokens, mask = spelled(["great", "xqzv", "", "wonderfulfunnest"])
    see = lambda *x: (feeling(world)(*x), felt(world)(*x, 0))
    gold, steps = map(np.asarray, jax.jit(jax.vmap(see, (None, 0, 0)))(SETTINGS, tokens, mask))
    np.testing.assert_allclose(steps[np.arange(4), [5, 4, 0, 16]], gold, atol=1e-5)
    np.testing.assert_allclose(steps, np.where(mask, values(tokens, mask), 0), atol=1e-5)


def test_what_nobody_rated_has_its_own_value_whatever_is_assumed_of_it(world):
    tokens, mask = spelled(["xqzv", "qqq"])
    value = jax.jit(jax.vmap(feeling(world), (None, 0, 0)))
    first, same = (
        value(Settings(gold="model", nonword_value=v), tokens, mask) for v in (-1.0, 3.0)
    )
    np.testing.assert_array_equal(first, same)
    assert first[0] != first[1]


def test_gold_is_the_same_compiled_or_not_and_whatever_stands_behind_the_end(world):
    tokens, mask = (x[0] for x in spelled(["grateful"]))
    args = (SETTINGS, tokens, mask)
    assert float(jax.jit(feeling(world))(*args)) == pytest.approx(
        float(feeling(world)(*args)), abs=1e-5
    )
    junk = jnp.where(mask, tokens, 17)
    assert float(feeling(world)(SETTINGS, junk, mask)) == float(feeling(world)(*args))


def test_only_what_plays_the_person_differs_from_the_rated_world(world):
    rated = words.build(Settings())
    for a, b in zip(world.corpus, rated.corpus, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(world.shown, rated.shown)
    assert world.language.symbols == rated.language.symbols
    np.testing.assert_array_equal(world.language.actions, rated.language.actions)
