"""Masked moments: by hand, without Bessel, over all devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from rlhf_jax.ops.statistics import calibration, correlation, masked_mean, whiten


def test_masked_mean_ignores_what_is_behind_the_mask():
    x, mask = jnp.asarray([1.0, 3.0, jnp.nan]), jnp.asarray([True, True, False])
    assert masked_mean(x, mask) == 2.0
    assert masked_mean(x, jnp.zeros(3, bool)) == 0.0


def test_whitening_divides_by_n_not_by_n_minus_1():
    # mean 2, variance (1 + 0 + 1)/3 = 2/3: (x − 2)/√(2/3) = ∓1.2247449; Bessel would give ∓1
    x, mask = jnp.asarray([1.0, 2.0, 3.0, 99.0]), jnp.asarray([True, True, True, False])
    np.testing.assert_allclose(whiten(x, mask), [-1.2247449, 0.0, 1.2247449, 0.0], rtol=1e-5)


def test_whitening_without_shift_keeps_the_mean():
    x, mask = jnp.asarray([1.0, 2.0, 3.0, 99.0]), jnp.asarray([True, True, True, False])
    expected = [2 - 1.2247449, 2.0, 2 + 1.2247449, 0.0]
    np.testing.assert_allclose(whiten(x, mask, shift=False), expected, rtol=1e-5)


def test_whitening_agrees_with_the_reference_of_trl_but_for_bessel():
    # TRL: mean = Σ xm/Σm; var = Σ (x − mean)² m/Σm · Σm/(Σm − 1); (x − mean)/√(var + 1e-8)
    rng = np.random.default_rng(1)
    x, mask = rng.normal(3.0, 2.0, (8, 6)).astype(np.float32), rng.random((8, 6)) < 0.7
    n, mean = mask.sum(), x[mask].mean()
    var = np.square(x[mask] - mean).sum() / (n - 1)
    trl = np.where(mask, (x - mean) / np.sqrt(var + 1e-8), 0.0)
    ours = whiten(jnp.asarray(x), jnp.asarray(mask))
    np.testing.assert_allclose(ours, trl * np.sqrt(n / (n - 1)), rtol=1e-4, atol=1e-5)


def test_moments_are_those_of_the_batch_over_all_devices():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:4])
    rng = np.random.default_rng(2)
    # Rows differ in level: moments of one device's rows alone would be far off.
    x = (rng.normal(size=(8, 5)) + np.arange(8)[:, None]).astype(np.float32)
    mask = rng.random((8, 5)) < 0.6
    here = whiten(jnp.asarray(x), jnp.asarray(mask))
    lay = lambda a: jax.device_put(a, NamedSharding(mesh, P("data")))
    np.testing.assert_allclose(jax.jit(whiten)(lay(x), lay(mask)), here, rtol=1e-4, atol=1e-5)


def test_moments_never_cross_seeds():
    rng = np.random.default_rng(3)
    x = jnp.asarray(rng.normal(size=(3, 4, 5)) * np.asarray([1, 10, 100])[:, None, None])
    mask = jnp.ones(x.shape, bool)
    together = jax.vmap(whiten)(x, mask)
    for i in range(3):
        np.testing.assert_allclose(together[i], whiten(x[i], mask[i]), rtol=1e-5, atol=1e-6)


def test_correlation_by_hand():
    # (0, 0), (1, 1), (2, 0) have r = 0; (0, 0), (1, 1), (9, 9) lie on a line
    x, y = jnp.asarray([0.0, 1.0, 2.0, 9.0]), jnp.asarray([0.0, 1.0, 0.0, 9.0])
    assert abs(float(correlation(x, y, jnp.asarray([1.0, 1.0, 1.0, 0.0])))) < 1e-6
    np.testing.assert_allclose(correlation(x, y, jnp.asarray([1.0, 1.0, 0.0, 1.0])), 1.0, rtol=1e-5)
    assert correlation(x, jnp.ones(4), jnp.ones(4)) == 0.0


def test_calibration_bins_by_hand():
    p, y = jnp.asarray([0.1, 0.3, 0.9, 1.0]), jnp.asarray([0.0, 1.0, 1.0, 1.0])
    mean, observed, weight = calibration(p, y, jnp.asarray([1.0, 3.0, 1.0, 1.0]), 2)
    np.testing.assert_allclose(mean, [(0.1 + 0.9) / 4, 0.95], rtol=1e-6)
    np.testing.assert_allclose(observed, [0.75, 1.0], rtol=1e-6)
    np.testing.assert_allclose(weight, [4.0, 2.0], rtol=1e-6)
