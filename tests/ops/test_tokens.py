"""Masks, positions, drawing."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_jax.ops.tokens import fingerprint, inverse_cdf, last, positions, truncate, until

EOS = 2


@pytest.mark.parametrize(
    ("tokens", "mask"),
    [
        ([5, 6, EOS, 0], [1, 1, 1, 0]),  # EOS itself was chosen
        ([EOS, EOS, 5, EOS], [1, 0, 0, 0]),  # the first EOS ends it
        ([5, 6, 7, 8], [1, 1, 1, 1]),  # time ran out
        ([5, 6, 7, EOS], [1, 1, 1, 1]),
    ],
)
def test_a_response_runs_up_to_and_including_its_first_eos(tokens, mask):
    np.testing.assert_array_equal(until(jnp.asarray(tokens), EOS), np.asarray(mask, bool))


def test_without_eos_every_token_counts():
    assert until(jnp.asarray([2, 2, 2]), None).all()


def test_last_is_the_index_of_the_last_true_entry():
    assert last(jnp.asarray([True, True, False, False])) == 1
    assert last(jnp.asarray([True, True, True])) == 2
    assert last(jnp.asarray([False, False])) == 0


def test_positions_start_at_the_first_real_token():
    mask = jnp.asarray([0, 0, 1, 1, 1], bool)
    np.testing.assert_array_equal(positions(mask), [0, 0, 0, 1, 2])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=2, max_size=6))
def test_inverse_cdf_gives_each_token_its_share_of_the_unit_interval(logits):
    logits = jnp.asarray(logits, jnp.float32)
    n = 4000
    grid = (jnp.arange(n) + 0.5) / n
    drawn = jax.vmap(inverse_cdf, (None, 0))(logits, grid)
    share = np.bincount(np.asarray(drawn), minlength=len(logits)) / n
    np.testing.assert_allclose(share, jax.nn.softmax(logits), atol=2 / n)


def test_inverse_cdf_never_draws_a_forbidden_token():
    logits = jnp.asarray([-1e30, 0.0, 1.0, -1e30])
    edges = jnp.asarray([0.0, 0.5, np.nextafter(np.float32(1), np.float32(0))])
    assert set(np.asarray(jax.vmap(inverse_cdf, (None, 0))(logits, edges))) <= {1, 2}


P = jnp.log(jnp.asarray([0.1, 0.4, 0.2, 0.3]))


@pytest.mark.parametrize(
    ("top_k", "top_p", "kept"),
    [
        (0, 1.0, [0, 1, 2, 3]),
        (1, 1.0, [1]),
        (2, 1.0, [1, 3]),
        (0, 0.4, [1]),  # 0.4 alone reaches 0.4
        (0, 0.5, [1, 3]),  # 0.4 does not reach 0.5, 0.7 does
        (0, 1e-9, [1]),  # never nothing
        (2, 0.9, [1, 3]),  # p is a share of what top_k left: 0.4/0.7 < 0.9
    ],
)
def test_truncation_keeps_the_likeliest(top_k, top_p, kept):
    may = np.flatnonzero(np.asarray(truncate(P, top_k, top_p)) > -1e20)
    np.testing.assert_array_equal(may, kept)


def test_fingerprints_of_all_short_sequences_differ():
    every = jnp.stack(jnp.meshgrid(*[jnp.arange(6)] * 5, indexing="ij"), -1).reshape(-1, 5)
    assert len(set(np.asarray(jax.vmap(fingerprint)(every)).tolist())) == 6**5
