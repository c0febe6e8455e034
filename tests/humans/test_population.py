from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax import config
from rlhf_jax.config import ConfigError
from rlhf_jax.humans import Human, person, prefer
from rlhf_jax.humans.population import (
    assign,
    cost,
    group_of,
    mixture,
    people,
    served,
    size,
    stack,
    take,
    time,
    valued,
    varied,
)

KEY = jax.random.key(0)


NAMES = ("feeling", "length"), ("trigger", "late")


def test_the_section_of_the_configuration_is_a_person():
    assert {f.name for f in dataclasses.fields(config.Human)} == set(Human._fields)
    section = config.Human(
        rationality=2.0, weights={"length": 0.5}, target={"late": 3.0}, effort={"rating": 9.0}
    )
    human = person(section, *NAMES, "rating")
    for f in dataclasses.fields(section):
        if not isinstance(getattr(section, f.name), dict):
            assert getattr(human, f.name) == getattr(section, f.name)
    np.testing.assert_array_equal(human.weights, [1.0, 0.5])
    np.testing.assert_array_equal(human.target, [0.0, 3.0])
    assert (human.effort, person(section, *NAMES, "label").effort) == (9.0, 1.0)
    plain = person(config.Human(), *NAMES)
    np.testing.assert_array_equal(plain.weights, [1.0, 0.0])
    np.testing.assert_allclose(plain.cutpoints, Human().cutpoints)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"weights": {"lenght": 1.0}}, "human.weights.lenght: .* has feeling, length"),
        ({"spurious": {"late": 1.0, "early": 1.0}}, "human.spurious.early: .* has trigger, late"),
    ],
)
def test_names_that_the_world_does_not_have_are_refused(section, said):
    with pytest.raises(ConfigError, match=said):
        person(config.Human(**section), *NAMES)


def test_groups_are_as_many_of_those_asked_as_their_shares_say():
    groups = {
        "few": config.Group(share=0.1),
        "public": config.Group(share=0.5, asked=False),
        "bad": config.Group(share=0.1, served=False, human=config.Human(weights={"feeling": -1})),
    }
    crowd = people(config.Human(), groups, *NAMES)
    # By name, whatever the order in which they are written.
    np.testing.assert_allclose(crowd.share, [0.3, 0.1, 0.1, 0.5], atol=1e-6)
    np.testing.assert_array_equal(crowd.asked, [1, 1, 1, 0])
    again = people(config.Human(), dict(reversed(groups.items())), *NAMES)
    np.testing.assert_array_equal(again.served, crowd.served)
    # Half of all are asked: a fifth of those are bad, a fifth few.
    where = np.asarray(group_of(crowd, jnp.arange(10), 10))
    assert where.tolist() == [1, 1, 2, 2, 0, 0, 0, 0, 0, 0]
    # Gold counts those served: 0.3, 0.1 and 0.5 of 0.9.
    valued = jnp.asarray([[1.0], [100.0], [4.0], [-2.0]])
    assert float(served(crowd, valued)[0]) == pytest.approx((0.3 + 0.4 - 1.0) / 0.9, rel=1e-5)


def test_the_people_of_a_population_have_an_axis_for_its_members():
    swept = config.Human(lapse=jnp.asarray([0.0, 0.1, 0.2]))
    swept = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), 3), swept)
    group = jax.tree.map(lambda x: jnp.full(3, x, jnp.float32), config.Group(share=0.25))
    crowd = people(swept, {"few": group}, *NAMES)
    assert crowd.human.lapse.shape == (3, 2)
    assert crowd.human.weights.shape == (3, 2, 2)
    assert crowd.human.effort.shape == crowd.share.shape == crowd.triggered.shape == (3, 2)
    np.testing.assert_allclose(crowd.human.lapse, [[0, 0], [0.1, 0], [0.2, 0]], atol=1e-7)


def test_values_are_those_of_the_time():
    human = config.Human(weights={"feeling": 1.0}, drift={"length": 0.5})
    crowd = people(human, {}, *NAMES)
    x = jnp.asarray([[2.0, 3.0]])
    assert float(valued(crowd, x, 0.0)[0, 0]) == 2.0
    assert float(valued(crowd, x, 2.0)[0, 0]) == 2.0 + 2 * 0.5 * 3.0


def test_stacked_people_are_who_they_were():
    people = stack([Human(), Human(rationality=2.0, weights=3.0)])
    assert size(people) == 2
    np.testing.assert_array_equal(people.rationality, [np.inf, 2.0])
    second = take(people, jnp.int32(1))
    assert float(second.weights) == 3.0
    assert [float(c) for c in second.cutpoints] == [-1.5, -0.5, 0.5, 1.5]


def test_people_of_different_form_are_refused_by_name():
    with pytest.raises(ConfigError, match="weights"):
        stack([Human(), Human(weights=jnp.ones(2))])
    with pytest.raises(ConfigError, match="cut-points"):
        stack([Human(), Human(cutpoints=(0.0,))])
    with pytest.raises(ConfigError, match="at least one"):
        stack([])


def test_a_mixture_keeps_its_shares_and_identities():
    groups = stack([Human(bar=float(g)) for g in range(3)])
    people, group = mixture(groups, jnp.asarray([2.0, 0.0, 6.0]), 8000, KEY)
    np.testing.assert_array_equal(people.bar, group)
    count = np.bincount(group, minlength=3)
    assert count[1] == 0
    assert abs(count[0] - 2000) < 4.5 * np.sqrt(8000 * 0.25 * 0.75)


def test_each_item_is_answered_by_its_own_person():
    people = stack([Human(), Human(flip=1.0)])
    who = jnp.asarray([0, 1, 1, 0])
    ones, keys = jnp.ones(4), jax.random.split(KEY, 4)
    answers = jax.vmap(prefer)(take(people, who), ones, 0.0 * ones, keys)
    np.testing.assert_array_equal(answers, [1.0, 0.0, 0.0, 1.0])


def test_repeated_labels_come_from_different_people_drawn_with_the_stated_bias():
    appeal = jnp.log(jnp.asarray([1.0, 2.0, 5.0]))
    who = np.asarray(assign(appeal, 20_000, 2, KEY))
    assert (who[:, 0] != who[:, 1]).all()
    p = np.asarray([1.0, 2.0, 5.0]) / 8.0
    for i, j in itertools.permutations(range(3), 2):
        expected = p[i] * p[j] / (1 - p[i])
        share = np.mean((who[:, 0] == i) & (who[:, 1] == j))
        assert abs(share - expected) < 4.5 * np.sqrt(expected * (1 - expected) / 20_000)
    with pytest.raises(ConfigError, match="4 answers"):
        assign(appeal, 1, 4, KEY)


def test_varied_people_spread_on_the_scale_of_each_trait_and_keep_limits():
    human = Human(rationality=2.0, offset=1.0, lapse=0.0)
    spread = {"rationality": 0.5, "offset": 2.0, "lapse": 1.0, "cutpoints": 0.1}
    people = varied(human, spread, 4000, KEY)
    logs = np.log(people.rationality)
    assert abs(logs.mean() - np.log(2.0)) < 4.5 * 0.5 / np.sqrt(4000)
    assert abs(logs.std() - 0.5) < 0.03
    assert abs(np.std(people.offset) - 2.0) < 0.12
    assert (np.asarray(people.lapse) == 0.0).all()
    assert (np.diff(people.cutpoints, axis=1) > 0).all()
    assert (np.asarray(varied(Human(), {"rationality": 1.0}, 3, KEY).rationality) == np.inf).all()


def test_an_answer_costs_its_time_and_its_reading():
    human = Human(effort=2.0, reading=0.1, wage=3.0)
    assert time(human, jnp.asarray(10.0)) == pytest.approx(3.0)
    assert cost(human, jnp.asarray(20.0)) == pytest.approx(12.0)
