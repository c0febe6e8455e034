"""Features of texts: by hand, and nothing leaks from what is held out."""

from __future__ import annotations

import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_jax.data.text import SURFACE, hashed_counts, standardise, surface, tf_idf, words


def test_words_are_lower_case_and_keep_inner_apostrophes():
    assert words("Don't STOP, café_2 — 'so'!") == ["don't", "stop", "café", "2", "so"]


def test_surface_counts_by_hand():
    values = dict(zip(SURFACE, surface('Why? He said "No", twice!\nWow'), strict=True))
    # Why he said no twice wow: 6 words of 3 + 2 + 4 + 2 + 5 + 3 = 19 letters, 2 sentence ends.
    assert values["words per sentence"] == 3
    assert np.isclose(values["characters per word"], 19 / 6)
    assert values["questions per sentence"] == values["exclamations per sentence"] == 0.5
    assert np.isclose(values["share of capitals"], 4 / 19)
    assert np.isclose(values["quotation marks per word"], 2 / 6)
    assert np.isclose(values["log characters"], np.log(1 + 29))
    assert np.isclose(values["log paragraphs"], np.log(2))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_surface_is_finite_for_any_text(text):
    assert np.isfinite(surface(text)).all()


def test_hashed_counts_put_a_word_where_its_checksum_says():
    counts = hashed_counts(["a b a", ""], 64)
    assert counts.sum(1).tolist() == [3, 0]
    assert counts[0, zlib.crc32(b"a") % 64] >= 2


def test_tf_idf_by_hand():
    # Word 0 is in both known texts: idf = log(3/3) = 0. Word 1 is in one: log(3/2).
    found = tf_idf(np.array([[2.0, 1.0], [1.0, 0.0]]), np.array([True, True]))
    assert np.allclose(found, [[0, 1], [0, 0]])
    counts = np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 1.0]])
    row = np.log([2.0, 4.0]) * np.log(3 / 2)
    found = tf_idf(counts, np.array([True, True]))
    assert np.allclose(found[0, :2], row / np.linalg.norm(row))


def test_held_out_texts_leave_no_trace_in_the_features_of_others():
    rng = np.random.default_rng(0)
    counts, known = rng.poisson(1.0, (6, 9)).astype(float), np.arange(6) < 4
    other = np.where(known[:, None], counts, 7.0)
    for make in (tf_idf, standardise):
        assert np.array_equal(make(counts, known)[:4], make(other, known)[:4])


def test_standardised_columns_have_mean_zero_and_deviation_one_where_known():
    x = np.random.default_rng(0).normal(3, 2, (50, 3)) * [1, 1, 0]
    known = np.arange(50) < 30
    z = standardise(x, known)
    assert np.allclose(z[known].mean(0), 0)
    assert np.allclose(z[known].std(0), [1, 1, 0])
