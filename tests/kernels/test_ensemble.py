from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bag import BAG, V, answers, member, start, told
from tiny import LANGUAGE, episodes, prompts

from rlhf_jax.config import Reward
from rlhf_jax.kernels import ensemble, reward
from rlhf_jax.models.heads import reward as read
from rlhf_jax.ops.aggregate import standardise, worst_case
from rlhf_jax.ops.tilt import unknown
from rlhf_jax.types import Episode


def test_a_bootstrap_draws_as_many_as_there_are_and_never_what_was_not_given():
    weight = jnp.asarray([2.0, 0.0, 1.0, 1.0, 0.0, 0.5] * 50)
    keys = jax.random.split(jax.random.key(0), 200)
    drawn = jax.jit(jax.vmap(ensemble.bootstrap, (None, 0)))(weight, keys)
    given = np.asarray(weight) > 0
    often = np.asarray(drawn)[:, given] / np.asarray(weight)[given]
    np.testing.assert_allclose(often.sum(1), given.sum(), rtol=1e-5)
    assert not np.asarray(drawn)[:, ~given].any()
    # Multinomial: mean 1 each; variance 1 − 1/N.
    np.testing.assert_allclose(often.mean(0), 1, atol=5 / 200**0.5)
    assert often.var() == pytest.approx(1 - 1 / given.sum(), abs=0.03)


def test_what_is_left_out_is_one_answer_in_e():
    weight = jnp.full(1000, 0.7)
    drawn = ensemble.bootstrap(weight, jax.random.key(1))
    assert float(jnp.mean(drawn == 0)) == pytest.approx(np.exp(-1), abs=0.05)


def test_nothing_given_draws_nothing():
    assert not ensemble.bootstrap(jnp.zeros(4), jax.random.key(0)).any()


@pytest.mark.parametrize("by", ["vmap", "map"])
def test_a_member_learns_what_it_would_learn_alone_under_its_weights(by):
    n = 16
    data = told(answers(0, np.zeros(n, int), np.ones((1, V))))
    weight = jax.random.uniform(jax.random.key(2), (3, n))
    given = lambda state, data, filled: (weight, state.log_prior, {})
    many = ensemble.kernel(member(n, 8), 3, given, by=by)
    begun = start(many, 3)
    together, said = jax.jit(many.step)(begun, (data, jnp.int32(n)))
    one = jax.tree.map(lambda x: x[1], begun.learner)
    mine = data._replace(answers=data.answers._replace(weight=weight[1]))
    alone, _ = jax.jit(member(n, 8).step)(one, (mine, jnp.int32(n)))
    np.testing.assert_allclose(
        together.learner.params.model["table"][1], alone.params.model["table"], atol=1e-6
    )
    assert said["loss/reward"].shape == (2,)


def test_resampled_members_are_weighted_by_bootstraps_of_their_own_that_stay_for_a_round():
    n = 64
    data = told(answers(0, np.zeros(n, int), np.ones((1, V))))
    begun = start(ensemble.kernel(member(n, 8), 3, ensemble.resampled), 3)
    weight, _, _ = ensemble.resampled(begun, data, jnp.int32(n))
    np.testing.assert_allclose(weight.sum(1), n)
    assert len({tuple(w) for w in np.asarray(weight).tolist()}) == 3
    again, _, _ = ensemble.resampled(begun, data, jnp.int32(n))
    np.testing.assert_array_equal(weight, again)
    more, _, _ = ensemble.resampled(begun, data, jnp.int32(2 * n))
    assert (np.asarray(more) != np.asarray(weight)).any()


@pytest.mark.parametrize(
    ("how", "expected"),
    [("mean", 0.5), ("worst_case", -1.0), ("uncertainty_weighted", 0.5 - 2.0 * 0.75 * 0.25 * 4)],
)
def test_a_panel_makes_one_reward_of_its_members_by_how_common_they_are(how, expected):
    # Two tables that say 1 and −1 of every "a"; the first is three times as common.
    params = {"table": jnp.zeros((2, V)).at[:, 3].set(jnp.asarray([1.0, -1.0]))}
    judges = reward.Judge(params, jnp.zeros(2), jnp.ones(2))
    prior = jnp.log(jnp.asarray([0.75, 0.25]))
    scale = ensemble.Scale(jnp.zeros(()), jnp.ones(()))
    whole = ensemble.Scale(jnp.float32(0.2), jnp.float32(0.5))
    joined = ensemble.joined(Reward(aggregate=how, doubt=2.0))
    panel = ensemble.Panel(judges, prior, joined, whole, scale, unknown())
    tokens = jnp.full((1, LANGUAGE.length), 0).at[0, 0].set(3)
    x = Episode(prompts(1), tokens, jnp.arange(LANGUAGE.length)[None] < 1)
    got = ensemble.score(BAG, panel, x)
    # … of which the whole is put on its own scale.
    np.testing.assert_allclose(got, [(expected - 0.2) / 0.5], atol=1e-6)


def test_judges_put_every_member_on_its_own_scale():
    reference, other = episodes(4, 100), episodes(5, 7)
    params = jax.vmap(BAG.init)(jax.random.split(jax.random.key(3), 3))
    params = {"table": params["table"] * jnp.asarray([1.0, 10.0, 0.1])[:, None]}
    members = ensemble.judges(BAG, params, reference)
    got = ensemble.scores(BAG, members, other)
    raw = lambda x: jax.vmap(lambda p: read(BAG, p, x))(params)
    np.testing.assert_allclose(got, standardise(raw(other), raw(reference)), atol=1e-4)
    assert worst_case(got).shape == (7,)
