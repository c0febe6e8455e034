from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import person
from fitting import fit, recovery
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest, norm

from rlhf_jax.feedback import rating
from rlhf_jax.humans import Human
from rlhf_jax.humans.links import constrain, unconstrain

KEY = jax.random.key(0)
few = settings(max_examples=8, deadline=None, derandomize=True)
people = st.builds(
    person,
    rationality=st.floats(0.25, 8.0, width=32),
    lapse=st.floats(0.0, 0.5, width=32),
    flip=st.floats(0.0, 0.375, width=32),
    offset=st.floats(-2.0, 2.0, width=32),
    scale=st.floats(0.25, 4.0, width=32),
)
STEP = 0.002
GRID = jnp.asarray(np.arange(-75_000, 75_001) * STEP, jnp.float32)
elicit = jax.jit(lambda h, v, key: rating.elicit(h, jnp.full((4000,), v), key))
density = jax.jit(lambda h, v: jnp.exp(-rating.loss(jnp.broadcast_to(v, GRID.shape), GRID, h)))
slopes = jax.jit(jax.jacfwd(density, argnums=1))


@few
@given(human=people, value=st.floats(-2.0, 2.0, width=32))
def test_ratings_are_distributed_as_their_likelihood_says(human, value):
    mean = human.offset + human.scale * value * np.asarray([1.0, -1.0])
    sd = human.scale / human.rationality

    def cdf(y):
        honest = norm.cdf(y, mean[0], sd) * (1 - human.flip) + norm.cdf(y, mean[1], sd) * human.flip
        return human.lapse * norm.cdf(y, human.offset, human.scale) + (1 - human.lapse) * honest

    assert kstest(np.asarray(elicit(human, value, KEY)), cdf).pvalue > 1e-5
    mine = np.asarray(density(human, value), np.float64)
    below = STEP * (np.cumsum(mine) - 0.5 * mine)
    np.testing.assert_allclose(below[::500], cdf(np.asarray(GRID)[::500]), atol=1e-4)


@few
@given(human=people, value=st.floats(-2.0, 2.0, width=32))
def test_expected_gradient_is_zero_at_the_truth(human, value):
    # Σ p ∂ log p = Σ ∂p, over a grid fine and wide enough for every person drawn.
    terms = np.asarray(slopes(human, jnp.float32(value)), np.float64) * STEP
    assert np.abs(terms).sum() > 1e-2
    assert terms.sum() == pytest.approx(0.0, abs=1e-4)


def test_a_plain_person_is_least_squares():
    loss = rating.loss(jnp.asarray([1.0, 3.0]), jnp.asarray([0.0, 0.0]))
    np.testing.assert_allclose(loss, np.asarray([0.5, 4.5]) + 0.5 * np.log(2 * np.pi), rtol=1e-6)


def test_a_perfect_person_says_the_value_on_their_own_drifting_scale():
    human = Human(offset=1.0, scale=2.0, offset_drift=0.5)
    said = rating.elicit(human, jnp.asarray([0.0, 3.0]), KEY, jnp.asarray([0.0, 4.0]))
    np.testing.assert_allclose(said, [1.0, 9.0])


@pytest.mark.parametrize("beta", [0.0, np.inf])
def test_limits_are_finite(beta):
    human = Human(rationality=beta)
    value = jnp.asarray([0.3])
    said = rating.elicit(human, value, KEY)
    assert np.isfinite(said).all()
    value, slope = jax.value_and_grad(lambda r: rating.loss(r, said, human)[0])(value)
    assert np.isfinite(value)
    assert np.isfinite(slope).all()


def test_64_people_at_once_are_64_people_one_by_one():
    offsets, keys = jnp.linspace(-3.0, 3.0, 64), jax.random.split(KEY, 64)
    ask = jax.jit(
        lambda o, key: rating.elicit(Human(rationality=2.0, offset=o), jnp.arange(4.0), key)
    )
    together = jax.vmap(ask)(offsets, keys)
    alone = np.stack([ask(offsets[i], keys[i]) for i in range(64)])
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_everybodys_scale_and_the_reward_are_fitted_together():
    """Five people who rate 300 of 10 items each on scales of their own, the first one's scale
    the unit: rank correlation ≥ 0.98, calibration slope 1 ± 0.1.
    """
    truth = jnp.linspace(-1.5, 1.5, 10)
    crowd = Human(
        rationality=jnp.full(5, 2.0),
        offset=jnp.asarray([0.0, 3.0, -2.0, 1.0, 0.5]),
        scale=jnp.asarray([1.0, 2.0, 0.5, 3.0, 1.5]),
    )
    axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, crowd)
    item = jax.random.randint(KEY, (5, 300), 0, 10)
    keys = jax.random.split(jax.random.key(1), 5)
    said = jax.vmap(rating.elicit, (axes, 0, 0))(crowd, truth[item], keys)

    def nll(p):
        raw = {k: x.at[0].set(0.0) if k != "rationality" else x for k, x in p["raw"].items()}
        of = jax.vmap(rating.loss, (0, 0, axes))
        return jnp.mean(of(p["r"][item], said, constrain(Human(), raw)))

    neutral = Human(rationality=jnp.ones(5), offset=jnp.zeros(5), scale=jnp.ones(5))
    raw = unconstrain(neutral, ["rationality", "offset", "scale"])
    found = fit(nll, {"r": jnp.zeros(10), "raw": raw})
    fitted = constrain(Human(), found["raw"])
    rank, slope = recovery(found["r"], truth)
    assert rank >= 0.98
    assert abs(slope - 1) < 0.1
    np.testing.assert_allclose(fitted.scale[1:], crowd.scale[1:], rtol=0.15)
    np.testing.assert_allclose(fitted.offset[1:], crowd.offset[1:], atol=0.2)
    np.testing.assert_allclose(fitted.rationality, 2.0, rtol=0.2)
