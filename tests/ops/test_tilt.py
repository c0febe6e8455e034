from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.ops.tilt import ENOUGH, SHARPNESS, needed, tilted, unknown


def test_two_kinds_of_draws_are_tilted_to_the_law_that_is_known():
    # 250 of 1,000 draws are worth 1, the others 0: π(1) = ¼ eᵇ / (¼ eᵇ + ¾).
    score = jnp.asarray([1.0] * 250 + [0.0] * 750)
    b = np.asarray([0.0, 0.5, 2.0], np.float32)
    p = 0.25 * np.exp(b) / (0.25 * np.exp(b) + 0.75)
    found = tilted(score, 3 * score, jnp.asarray(b))
    np.testing.assert_allclose(found.score, p, rtol=1e-5)
    np.testing.assert_allclose(found.value, 3 * p, rtol=1e-5)
    kl = p * np.log(p / 0.25) + (1 - p) * np.log((1 - p) / 0.75)
    np.testing.assert_allclose(found.kl, kl, atol=1e-5)


def test_the_optimum_of_a_normal_reward_spends_half_the_square_of_what_it_gains():
    score = jax.random.normal(jax.random.key(0), (65536,))
    found = jax.jit(tilted)(score, -score, jnp.asarray(SHARPNESS))
    at = jnp.asarray([0.25, 0.5, 1.0, 1.5])
    np.testing.assert_allclose(jax.vmap(lambda r: needed(found, r))(at), at**2 / 2, rtol=0.08)
    np.testing.assert_allclose(found.value, -found.score, rtol=1e-5)


def test_optima_that_rest_on_few_draws_repeat_the_last_that_does_not():
    score = jax.random.normal(jax.random.key(1), (512,))
    found = tilted(score, score, jnp.asarray(SHARPNESS))
    w = jax.nn.softmax(jnp.asarray(SHARPNESS)[:, None] * score[None], axis=1)
    effective = np.asarray(1 / jnp.sum(w * w, axis=1))
    last = np.flatnonzero(effective >= ENOUGH)[-1]
    assert 5 < last < len(SHARPNESS) - 5
    assert (np.diff(found.kl[: last + 1]) > 0).all()
    np.testing.assert_array_equal(found.kl[last:], found.kl[last])
    assert float(needed(found, 100.0)) == pytest.approx(float(found.kl[last]))


def test_less_than_the_reference_needs_nothing_and_so_does_what_was_not_judged():
    score = jax.random.normal(jax.random.key(2), (512,))
    assert needed(tilted(score, score, jnp.asarray(SHARPNESS)), -5.0) == 0
    assert needed(unknown(), 2.0) == 0
