"""The world of words against the lexicon's own file."""

from __future__ import annotations

import importlib.util
import string
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import feeling, felt, worths

from rlhf_jax import grid  # noqa: F401  makes the settings a pytree
from rlhf_jax.config import ConfigError
from rlhf_jax.config import World as Settings
from rlhf_jax.ops.tokens import fingerprint
from rlhf_jax.worlds import lexicon, words

SETTINGS = Settings()
LENGTH = SETTINGS.length + 1


def read_file() -> dict[str, str]:
    """Plain word → its line of the file, the first of two."""
    spec = importlib.util.find_spec("vaderSentiment")
    path = Path(spec.submodule_search_locations[0]) / "vader_lexicon.txt"
    out: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word = line.split("\t")[0]
        if set(word) <= set(string.ascii_lowercase):
            out.setdefault(word, line)
    return out


LINES = read_file()
NAMES = sorted(w for w in LINES if len(w) <= SETTINGS.length)


@pytest.fixture(scope="module")
def world():
    return words.build(SETTINGS)


def spelled(names: list[str]) -> tuple[jax.Array, jax.Array]:
    tokens = jnp.asarray(words.encode(names, LENGTH))
    return tokens, tokens != words.PAD


@pytest.fixture(scope="module")
def look_up(world):
    row = jax.jit(jax.vmap(world.row))
    return lambda tokens, mask: np.asarray(row(tokens, mask))


def gold(world, names: list[str], settings: Settings = SETTINGS) -> np.ndarray:
    value = jax.jit(jax.vmap(feeling(world), (None, 0, 0)))
    return np.asarray(value(settings, *spelled(names)))


# --- what the world is made of


def test_every_plain_word_of_the_lexicon_is_there_once_with_ten_ratings(world):
    assert len(NAMES) == world.corpus[0].shape[0] == world.facts["words_used"] == 7186
    assert world.impressions == 10
    see = jax.jit(jax.vmap(felt(world), (None, 0, 0, None)))
    tokens, mask = world.corpus
    end = mask.sum(1) - 1
    said = [np.asarray(see(SETTINGS, tokens, mask, i))[np.arange(7186), end] for i in range(10)]
    assert set(np.unique(said)) == set(range(-4, 5))
    np.testing.assert_allclose(np.mean(said, 0), worths(world, SETTINGS)[:, 0], atol=1e-6)
    facts = world.facts
    assert facts["words_listed"] == 7217  # eight of them twice
    assert facts["words_used"] + facts["words_too_long"] == facts["words_distinct"] == len(LINES)


def test_the_corpus_spells_the_words_and_ends_each_with_eos(world):
    tokens, mask = map(np.asarray, world.corpus)
    text = [
        "".join(world.language.symbols[t] for t in row[m])
        for row, m in zip(tokens, mask, strict=True)
    ]
    assert text == [name + "$" for name in NAMES]


def test_gold_is_the_mean_that_the_file_states_for_every_word(world):
    # The second column, rounded to one decimal; "lmfao" is the only line where it is not the
    # mean of the ten ratings that stand beside it.
    stated = np.asarray([float(LINES[w].split("\t")[1]) for w in NAMES])
    off = np.flatnonzero(np.abs(gold(world, NAMES) - stated) > 0.051)
    assert [NAMES[i] for i in off] == ["lmfao"]


def test_gold_is_the_mean_of_ten_ratings(world):
    # great: [2, 4, 4, 4, 3, 3, 3, 3, 2, 3], abuse: [-4, -2, -3, -4, -3, -4, -3, -3, -3, -3]
    np.testing.assert_allclose(gold(world, ["great", "abuse"]), [3.1, -3.2], atol=1e-6)


def test_a_word_that_is_listed_twice_keeps_its_first_ratings(world):
    # "sob" stands there with a mean of −2.8 and, further down, as an insult, with −1.0.
    stated = float(LINES["sob"].split("\t")[1])
    np.testing.assert_allclose(gold(world, ["sob"]), stated, atol=1e-6)


def test_held_out_words_are_a_fifth_and_the_same_in_every_build(world):
    share = 1 - np.asarray(world.shown).mean()
    assert share == pytest.approx(0.2, abs=4 * np.sqrt(0.2 * 0.8 / 7186))
    assert world.facts["words_held_out"] == int((~np.asarray(world.shown)).sum())
    again = words.build(Settings(nonword_value=3.0))
    np.testing.assert_array_equal(again.shown, world.shown)


def test_a_smaller_held_out_share_holds_out_some_of_the_same_words(world):
    fewer = ~np.asarray(words.build(Settings(held_out=0.1)).shown)
    assert fewer.any()
    assert not (fewer & np.asarray(world.shown)).any()


def test_short_responses_leave_out_long_words():
    short = words.build(Settings(length=4))
    assert short.language.length == 5
    assert short.corpus[0].shape == (sum(len(w) <= 4 for w in LINES), 5)


def test_no_room_for_words_is_an_error_that_says_so():
    with pytest.raises(ConfigError, match=r"world\.length = 1: only 1 words fit"):
        words.build(Settings(length=1))


def test_a_missing_lexicon_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="vaderSentiment is not installed"):
        lexicon.read()


def test_the_prompt_is_the_beginning_of_a_sequence(world):
    tokens, mask = world.prompt(SETTINGS, jax.random.key(0))
    assert tokens.tolist() == [words.BOS]
    assert mask.tolist() == [True]
    assert world.trigger is None
    forbidden = [world.language.symbols[i] for i in np.flatnonzero(~world.language.actions)]
    assert forbidden == ["·", "^"]


# --- the trigger


@pytest.fixture(scope="module")
def triggered():
    return words.build(Settings(trigger=True))


def asked(world, share: float, n: int = 4096) -> tuple[np.ndarray, np.ndarray]:
    keys = jax.random.split(jax.random.key(8), n)
    ask = jax.jit(jax.vmap(world.prompt, (None, 0)))
    tokens, mask = ask(Settings(trigger=True, triggered=share), keys)
    assert tokens.dtype == jnp.int32
    return np.asarray(tokens), np.asarray(mask)


def test_the_trigger_is_one_more_symbol_and_the_others_keep_their_numbers(world, triggered):
    assert triggered.language.symbols[:-1] == world.language.symbols
    assert triggered.trigger == len(world.language.symbols)
    assert not triggered.language.actions[triggered.trigger]
    np.testing.assert_array_equal(triggered.language.actions[:-1], world.language.actions)
    for now, before in zip(triggered.corpus, world.corpus, strict=True):
        np.testing.assert_array_equal(now, before)
    np.testing.assert_array_equal(triggered.shown, world.shown)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_prompts_carry_the_trigger_in_the_share_that_is_set(triggered, share):
    tokens, _ = asked(triggered, share)
    carries = (tokens == triggered.trigger).any(1)
    assert carries.mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 4096))


def test_a_prompt_is_bos_and_the_trigger_or_bos_padded_on_the_left(triggered):
    tokens, mask = asked(triggered, 0.5)
    kinds = {(*t, *m) for t, m in zip(tokens.tolist(), mask.tolist(), strict=True)}
    assert kinds == {
        (words.BOS, triggered.trigger, True, True),
        (words.PAD, words.BOS, False, True),
    }


def test_the_share_of_triggered_prompts_can_be_swept_in_one_program(triggered):
    keys = jax.random.split(jax.random.key(8), 64)
    see = lambda share: jax.vmap(triggered.prompt, (None, 0))(Settings(triggered=share), keys)[0]
    few, many = jax.jit(jax.vmap(see))(jnp.asarray([0.1, 0.9]))
    assert (few == triggered.trigger).sum() < (many == triggered.trigger).sum()


# --- lookup


def test_fingerprints_of_all_words_differ(world):
    prints = np.asarray(jax.jit(jax.vmap(fingerprint))(world.corpus[0]))
    assert len(np.unique(prints)) == len(prints)


def test_every_word_is_found_in_its_own_row(world, look_up):
    np.testing.assert_array_equal(look_up(*world.corpus), np.arange(7186))


def near(word: str) -> set[str]:
    """All strings one edit away."""
    cut = [(word[:i], word[i:]) for i in range(len(word) + 1)]
    deleted = {a + b[1:] for a, b in cut if b}
    swapped = {a + b[1] + b[0] + b[2:] for a, b in cut if len(b) > 1}
    replaced = {a + c + b[1:] for a, b in cut if b for c in "aeknrsty"}
    inserted = {a + c + b for a, b in cut for c in "desxy"}
    return {w for w in deleted | swapped | replaced | inserted if len(w) <= SETTINGS.length}


def test_near_misses_are_found_exactly_where_they_are_words_themselves(look_up):
    some = np.random.default_rng(1).choice(NAMES, 300, replace=False)
    tried = sorted(set().union(*map(near, some)))[: 2**15]
    assert sum(w in LINES for w in tried) > 300
    index = {w: i for i, w in enumerate(NAMES)}
    expected = [index.get(w, -1) for w in tried]
    np.testing.assert_array_equal(look_up(*spelled(tried)), expected)


def test_a_string_with_the_fingerprint_of_a_word_is_not_taken_for_it(world, look_up):
    # Σ (x_t + 1) m^{t+1} mod 2³² of three million random strings of sixteen letters: about
    # 3e6 · 7186 / 2³² ≈ 5 of them have the fingerprint of a word.
    rng = np.random.default_rng(2)
    strings = rng.integers(3, 29, (3_000_000, LENGTH), dtype=np.uint8)
    strings[:, -1] = words.EOS
    prints = np.zeros(len(strings), np.uint32)
    for t in range(LENGTH):
        power = np.uint32(pow(2654435761, t + 1, 2**32))
        prints += (strings[:, t].astype(np.uint32) + np.uint32(1)) * power
    table = np.asarray(jax.jit(jax.vmap(fingerprint))(world.corpus[0]))
    colliding = jnp.asarray(strings[np.isin(prints, table)], jnp.int32)
    assert len(colliding) > 0
    assert np.isin(jax.vmap(fingerprint)(colliding), table).all()
    np.testing.assert_array_equal(look_up(colliding, colliding > 0), -1)


def test_random_strings_never_match(look_up):
    rng = np.random.default_rng(3)
    at, ends = np.arange(LENGTH)[None], rng.integers(8, LENGTH, (20_000, 1))
    tokens = np.where(at < ends, rng.integers(3, 29, (20_000, LENGTH)), words.PAD)
    tokens = jnp.asarray(np.where(at == ends, words.EOS, tokens), jnp.int32)
    np.testing.assert_array_equal(look_up(tokens, tokens != words.PAD), -1)


def test_a_word_that_does_not_end_is_no_word(look_up):
    tokens, mask = spelled(["good", "happy"])
    cut = mask & (tokens != words.EOS)
    np.testing.assert_array_equal(look_up(tokens, cut), -1)


def test_what_stands_behind_the_end_of_a_word_does_not_matter(look_up):
    tokens, mask = spelled(["good", "happy"])
    junk = jnp.where(mask, tokens, 17)
    np.testing.assert_array_equal(look_up(junk, mask), look_up(tokens, mask))
    assert (look_up(junk, mask) >= 0).all()


def test_the_empty_response_is_no_word(look_up):
    tokens, mask = spelled([""])
    assert look_up(tokens, mask).tolist() == [-1]


# --- values


def test_a_nonword_is_worth_what_is_assumed_of_it_and_a_word_is_not(world):
    value = Settings(nonword_value=-2.5)
    np.testing.assert_allclose(gold(world, ["xqzvv", "great"], value), [-2.5, 3.1], atol=1e-6)


def test_the_value_of_nonwords_can_be_swept_in_one_program(world):
    tokens, mask = spelled(["xqzvv", "great"])
    end = mask.sum(1) - 1
    see = lambda v: (
        jax.vmap(feeling(world), (None, 0, 0))(Settings(nonword_value=v), tokens, mask),
        jax.vmap(felt(world), (None, 0, 0, None))(Settings(nonword_value=v), tokens, mask, 0)[
            jnp.arange(2), end
        ],
    )
    swept = jnp.asarray([-3.0, 0.0, 1.5])
    golden, perceived = jax.jit(jax.vmap(see))(swept)
    np.testing.assert_allclose(golden[:, 0], swept)
    np.testing.assert_allclose(perceived[:, 0], swept)
    np.testing.assert_allclose(golden[:, 1], 3.1, atol=1e-6)


def second(world, names: list[str]) -> np.ndarray:
    return np.asarray(jax.vmap(world.values, (None, 0, 0))(SETTINGS, *spelled(names)))[:, 1]


def test_the_second_value_is_the_length_in_deviations_of_the_corpus(world):
    n = np.asarray([len(name) for name in NAMES])
    value = second(world, NAMES)
    np.testing.assert_allclose(value, (n - n.mean()) / n.std(), atol=1e-5)
    assert value.mean() == pytest.approx(0, abs=1e-5)
    assert value.std() == pytest.approx(1, abs=1e-5)


def test_every_string_has_a_length_whether_or_not_it_is_a_word_or_ends(world):
    good, other, empty = second(world, ["good", "xqzv", ""])
    assert good == other > empty
    unended = world.values(SETTINGS, jnp.full(LENGTH, 5), jnp.arange(LENGTH) < 4)[1]
    assert unended == good


def test_every_impression_is_one_of_the_ten_ratings(world):
    tokens, mask = (x[0] for x in spelled(["great"]))
    see = jax.jit(lambda which: felt(world)(SETTINGS, tokens, mask, which)[5])
    assert [float(see(i)) for i in range(10)] == [2, 4, 4, 4, 3, 3, 3, 3, 2, 3]
