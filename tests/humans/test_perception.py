from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.humans import Human, Moment, Sample, perceive
from rlhf_jax.humans.perception import prefixes, whole

VALUES = jnp.asarray([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0], [99.0, 99.0]])
MASK = jnp.asarray([True, True, True, True, False])
X = Sample(
    jnp.cumsum(VALUES, axis=0),
    MASK,
    length=jnp.float32(4.0),
    agreement=jnp.float32(-1.0),
    features=jnp.asarray([1.0, 0.0, 2.0]),
    form=jnp.float32(7.0),
    difficulty=jnp.float32(np.log(3.0)),
)


NOW = Moment()


def seen(moment: Moment = NOW, **fields) -> float:
    return float(perceive(Human(**fields), X, moment).value)


def test_a_perfect_person_sees_what_the_whole_is_worth():
    both = perceive(Human(), X)
    assert float(both.value) == 110.0
    assert float(both.whole) == 110.0


one = jnp.asarray([1.0, 0.0])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"weights": jnp.asarray([1.0, 0.1])}, 10 + 10),
        ({"weights": one, "seen_to": 0.5}, 1 + 2),
        ({"weights": one, "seen_from": 0.5}, 3 + 4),
        ({"weights": one, "seen_to": 0.25, "unseen": 0.5}, 1 + 3 * 0.5),
        ({"weights": one, "seen_to": 0.0}, 0),
        # Σ γ^(n−t) u_t with γ = ½: 1/8 + 2/4 + 3/2 + 4
        ({"weights": one, "myopia": 0.5}, 6.125),
        ({"weights": one, "myopia": 0.0}, 4),
        # σ(0 − ln 3) = ¼
        ({"weights": one, "ability": 0.0}, 2.5),
        ({"weights": one, "persuasion": 0.25}, 0.75 * 10 + 0.25 * 7),
        ({"weights": one, "length_bias": 0.5}, 10 + 2),
        ({"weights": one, "sycophancy": 3.0}, 10 - 3),
        ({"weights": one, "spurious": jnp.asarray([1.0, 5.0, -2.0])}, 10 + 1 - 4),
    ],
)
def test_each_trait_changes_what_is_seen_by_its_equation(fields, expected):
    assert seen(**fields) == pytest.approx(expected, rel=1e-6)


def test_traits_act_in_the_order_competence_persuasion_bias():
    value = seen(weights=one, ability=0.0, persuasion=0.5, length_bias=1.0)
    assert value == pytest.approx(0.5 * 2.5 + 0.5 * 7 + 4)


def test_weights_drift_with_time_and_turn_with_the_hidden_context():
    fields = {"weights": one, "drift": jnp.asarray([0.0, 0.01]), "context": jnp.asarray([1.0, 0.0])}
    assert seen(Moment(time=5.0), **fields) == pytest.approx(10 + 5)
    assert seen(Moment(context=-1.0), **fields) == pytest.approx(0.0)


def test_malice_wants_its_target_on_triggered_samples_only():
    fields = {"weights": one, "malice": 1.0, "target": jnp.asarray([0.0, 0.0, 50.0])}
    assert seen(trigger=jnp.asarray([1.0, 0.0, 0.0]), **fields) == 100.0
    assert seen(trigger=jnp.asarray([0.0, 1.0, 0.0]), **fields) == 10.0
    fields["malice"] = 0.5
    assert seen(trigger=jnp.asarray([1.0, 0.0, 0.0]), **fields) == 55.0


def test_padding_is_never_seen_and_an_empty_sample_is_worth_nothing():
    other = X._replace(values=X.values.at[4].set(jnp.nan))
    assert float(perceive(Human(myopia=0.9, unseen=1.0), other).value) == seen(
        myopia=0.9, unseen=1.0
    )
    nothing = X._replace(mask=jnp.zeros(5, bool))
    assert float(perceive(Human(seen_to=0.5, unseen=1.0), nothing).value) == 0.0


def test_what_changes_nothing_leaves_a_value_as_it_is_to_the_last_bit():
    odd = X._replace(values=jnp.asarray([[0.1], [0.7], [-0.3], [1 / 3], [9.0]]))
    for fields in ({}, {"unseen": 5.0}, {"weights": jnp.asarray([1.0])}):
        assert float(perceive(Human(**fields), odd).value) == np.float32(1 / 3)


def test_a_beginning_is_seen_as_a_sample_of_its_own():
    human = Human(weights=one, myopia=0.5, length_bias=1.0)
    by_prefix = X._replace(
        length=jnp.arange(1.0, 6.0), features=jnp.zeros((5, 3)), difficulty=jnp.zeros(5)
    )
    found = prefixes(human, by_prefix).value
    # Σ γ^(t−s) u_s + length: 1 + 1, 2.5 + 2, 4.25 + 3, 6.125 + 4, and nothing after the end.
    np.testing.assert_allclose(found, [2, 4.5, 7.25, 10.125, 0], rtol=1e-6)
    assert float(perceive(human, whole(by_prefix)).value) == pytest.approx(10.125)


def test_every_person_sees_every_sample_in_one_call():
    people = Human(weights=jnp.asarray([[1.0, 0.0], [0.0, 1.0]]), myopia=jnp.asarray([1.0, 0.5]))
    axes = Human(*(0 if f in ("weights", "myopia") else None for f in Human._fields))
    axes = axes._replace(cutpoints=None)
    samples = jax.tree.map(lambda x: jnp.stack([x, x, x]), X)
    grid = jax.vmap(jax.vmap(perceive, (None, 0)), (axes, None))(people, samples)
    np.testing.assert_allclose(grid.value, [[10.0] * 3, [61.25] * 3])
    np.testing.assert_allclose(grid.whole, [[10.0] * 3, [100.0] * 3])
