from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.config import ConfigError
from rlhf_jax.humans import Human
from rlhf_jax.humans.links import LINKS, constrain, unconstrain

HUMAN = Human(rationality=0.7, lapse=0.1, flip=0.2, tie=0.4, scale=3.0, edit_cost=-1.0)


@pytest.mark.parametrize("name", LINKS)
def test_links_are_inverse_to_each_other(name):
    back = getattr(constrain(HUMAN, unconstrain(HUMAN, [name])), name)
    np.testing.assert_allclose(back, jnp.asarray(getattr(HUMAN, name)), rtol=1e-5, atol=1e-6)


def fitted(human):
    return {n: getattr(human, n) for n in LINKS}


@pytest.mark.parametrize("x", [-20.0, 0.0, 20.0])
def test_any_reals_make_a_possible_person(x):
    raw = {n: jnp.full((4,) if n == "cutpoints" else (), x) for n in LINKS}
    human = constrain(Human(), raw)
    assert human.rationality > 0
    assert human.scale > 0
    assert human.tie > 0
    assert 0 <= human.lapse <= 1
    assert 0 <= human.flip <= 0.5
    assert (jnp.diff(human.cutpoints) >= 0).all()
    total = lambda r: sum(jnp.sum(x) for x in jax.tree.leaves(fitted(constrain(Human(), r))))
    slopes = jax.grad(total)(raw)
    assert all(np.isfinite(s).all() for s in jax.tree.leaves(slopes))


def test_what_has_no_link_is_refused():
    with pytest.raises(ConfigError, match="skip"):
        unconstrain(Human(), ["skip"])
    with pytest.raises(ConfigError, match="equal"):
        constrain(Human(), {"equal": jnp.zeros(())})
