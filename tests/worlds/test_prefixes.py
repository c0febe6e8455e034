"""What a prefix promises, against a loop over the lexicon."""

from __future__ import annotations

import string

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import felt, worths

from rlhf_jax import grid  # noqa: F401  makes the settings a pytree
from rlhf_jax.config import World as Settings
from rlhf_jax.worlds import lexicon, prefixes, words

SETTINGS = Settings(nonword_value=-1.5)
LENGTH = SETTINGS.length + 1
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def world():
    return words.build(SETTINGS)


@pytest.fixture(scope="module")
def names(world):
    symbols = world.language.symbols
    return ["".join(symbols[t] for t in row if t > words.EOS) for row in world.corpus[0].tolist()]


def spelled(names: list[str]) -> tuple[jax.Array, jax.Array]:
    tokens = jnp.asarray(words.encode(names, LENGTH))
    return tokens, tokens != words.PAD


def compiled(world):
    see = jax.jit(jax.vmap(felt(world), (None, 0, 0, None)))
    return lambda tokens, mask, which=0: np.asarray(see(SETTINGS, tokens, mask, which))


@pytest.fixture(scope="module")
def steps(world):
    return compiled(world)


def expected(world, names: list[str], prefix: str) -> float:
    """By the definition: a loop over all words."""
    mean, shown = worths(world, SETTINGS)[:, 0], np.asarray(world.shown)
    begin_so = [i for i, w in enumerate(names) if shown[i] and w.startswith(prefix)]
    return float(mean[begin_so].mean()) if begin_so else SETTINGS.nonword_value


# --- the tree


def test_the_tree_of_three_strings_by_hand():
    # ab: 1, ac: 3, b: 5. Nodes: nowhere, empty (mean 3), a (2), b (5), ab (1), ac (3).
    tokens = np.asarray([[1, 2], [1, 3], [2, 0]])
    tree = prefixes.tree(tokens, tokens > 0, np.asarray([1.0, 3.0, 5.0]), 4)
    assert tree.mean.tolist() == [0, 3, 2, 5, 1, 3]
    assert tree.edges.tolist() == [1 * 4 + 1, 1 * 4 + 2, 2 * 4 + 2, 2 * 4 + 3]


@pytest.mark.parametrize(
    ("x", "promised"),
    [([1, 3], [2, 3]), ([2, 2], [5, -9]), ([3, 1], [-9, -9]), ([0, 1], [-9, -9])],
)
def test_a_prefix_that_begins_no_string_promises_nothing_from_there_on(x, promised):
    tokens = np.asarray([[1, 2], [1, 3], [2, 0]])
    tree = prefixes.tree(tokens, tokens > 0, np.asarray([1.0, 3.0, 5.0]), 4)
    x = jnp.asarray(x)
    assert prefixes.promises(tree, x, x > 0, jnp.float32(-9.0)).tolist() == promised


# --- steps in the world of words


def test_a_prefix_is_worth_the_mean_of_the_shown_words_that_begin_so(world, names, steps):
    rng = np.random.default_rng(0)
    some = list(rng.choice(names, 40))
    some += [w[:-1] + c for w, c in zip(some[:20], "qzxjkvwygbqzxjkvwygb", strict=True)]
    some += ["".join(rng.choice(list(string.ascii_lowercase), 6)) for _ in range(20)]
    seen = steps(*spelled(some))
    for x, values in zip(some, seen, strict=True):
        for t in range(len(x)):
            assert values[t] == pytest.approx(expected(world, names, x[: t + 1]), abs=1e-5)
    assert (seen[:, :16] == SETTINGS.nonword_value).any()


def test_the_last_step_is_one_rating_of_the_whole_word(world):
    tokens, mask = spelled(["great", "abuse", "xqzv", "goo", ""])
    see, (_, ratings, _) = compiled(world), lexicon.read()
    rated = [ratings[lexicon.read()[0].index(word)] for word in ("great", "abuse")]
    for which in range(10):
        whole = see(tokens, mask, which)[np.arange(5), [5, 5, 4, 3, 0]]
        assert whole[:2].tolist() == [said[which] for said in rated]
        np.testing.assert_array_equal(whole[2:], SETTINGS.nonword_value)


def test_nothing_is_felt_after_the_end_whatever_stands_there(steps):
    tokens, mask = spelled(["great", "abuse"])
    seen = steps(tokens, mask)
    assert (seen[:, 6:] == 0).all()
    np.testing.assert_array_equal(steps(jnp.where(mask, tokens, 17), mask), seen)


def test_a_response_without_end_is_judged_as_a_whole_on_its_last_letter(world, names, steps):
    # "greatest" begins with "great", but "great" without an end is no word.
    tokens, mask = spelled(["great"])
    cut = mask & (tokens != words.EOS)
    seen = steps(tokens, cut)[0]
    assert seen[3] == pytest.approx(expected(world, names, "grea"), abs=1e-5)
    assert seen[4] == SETTINGS.nonword_value
    assert (seen[5:] == 0).all()


def test_no_prefix_tells_what_people_said_of_held_out_words(world, monkeypatch):
    names, ratings, facts = lexicon.read()
    fits = [i for i, w in enumerate(names) if len(w) <= SETTINGS.length]
    held_out = np.asarray(fits)[~np.asarray(world.shown)]
    others = ratings.copy()
    others[held_out] = 4.0
    monkeypatch.setattr(lexicon, "read", lambda: (names, others, facts))
    changed = words.build(SETTINGS)
    assert not np.array_equal(worths(changed, SETTINGS), worths(world, SETTINGS))
    tokens, mask = world.corpus
    before, after = (compiled(w)(tokens, mask) for w in (world, changed))
    ends = np.asarray(tokens) == words.EOS
    np.testing.assert_array_equal(before[~ends], after[~ends])
    assert not np.array_equal(before[ends], after[ends])


def test_steps_are_the_same_compiled_or_not(world):
    tokens, mask = (x[0] for x in spelled(["grateful"]))
    args = (SETTINGS, tokens, mask, 3)
    np.testing.assert_array_equal(jax.jit(felt(world))(*args), felt(world)(*args))
