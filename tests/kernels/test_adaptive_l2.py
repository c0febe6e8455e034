from __future__ import annotations

import jax.numpy as jnp
import pytest

from rlhf_jax.kernels.adaptive_l2 import adjust


@pytest.mark.parametrize(
    ("validation", "expected"), [(1.0, 0.5), (1.09, 0.5), (1.3, 1.0), (1.49, 1.0), (1.6, 2.0)]
)
def test_below_between_and_above_the_bounds(validation, expected):
    got = adjust(1.0, jnp.float32(1), jnp.float32(validation), factor=2.0)
    assert float(got) == pytest.approx(expected)


def test_it_stays_in_its_range_comes_back_from_0_and_ignores_nan():
    one = jnp.float32(1)
    assert float(adjust(0.0, one, 9 * one)) == pytest.approx(1e-8)
    assert float(adjust(100.0, one, 9 * one)) == pytest.approx(100)
    assert float(adjust(0.3, one, jnp.float32(jnp.nan))) == pytest.approx(0.3)
