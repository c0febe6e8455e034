from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bag import BAG, FIT, V, answers, start

from rlhf_jax.feedback.comparison import bradley_terry
from rlhf_jax.kernels import ensemble, mixture_reward
from rlhf_jax.models.heads import reward as read
from rlhf_jax.ops.aggregate import worst_case


def test_responsibilities_of_two_people_by_hand():
    # Person 0 gave two answers, 0.9 and 0.9 likely under r_0, 0.1 and 0.1 under r_1; person 1
    # one of weight 2, ½ likely under both; person 2 none. π = (¼, ¾).
    nll = -jnp.log(jnp.asarray([[0.9, 0.5, 0.9, 0.3], [0.1, 0.5, 0.1, 0.3]]))
    who, weight = jnp.asarray([0, 1, 0, 2]), jnp.asarray([1.0, 2.0, 1.0, 0.0])
    told = mixture_reward.log_likelihood(nll, who, weight, 3)
    np.testing.assert_allclose(jnp.exp(told), [[0.81, 0.01], [0.25, 0.25], [1, 1]], rtol=1e-5)
    belongs, evidence = mixture_reward.responsibilities(told, jnp.log(jnp.asarray([0.25, 0.75])))
    np.testing.assert_allclose(
        belongs, [[0.81 / 0.84, 0.03 / 0.84], *[[0.25, 0.75]] * 2], rtol=1e-5
    )
    np.testing.assert_allclose(jnp.exp(evidence), [0.21, 0.25, 1], rtol=1e-5)
    share = mixture_reward.shares(belongs, who, weight)
    np.testing.assert_allclose(share, (np.asarray(belongs)[0] + [0.25, 0.75]) / 2, rtol=1e-5)


def test_the_expected_reward_weighs_by_share_and_maxmin_takes_the_worst_served():
    scores = jnp.asarray([[1.0, 0.2], [-1.0, 0.1]])
    np.testing.assert_allclose(
        mixture_reward.expected(scores, jnp.log(jnp.asarray([0.8, 0.2]))), [0.6, 0.18], rtol=1e-5
    )
    assert int(jnp.argmax(worst_case(scores))) == 1


def test_two_groups_that_want_opposite_things_are_told_apart_where_one_reward_fails():
    """A third of 60 people love "a" and hate "b", the others the reverse; all like "c"."""
    people, each = 60, 12
    group = np.arange(people) % 3 == 0
    want = np.zeros((people, V))
    want[:, 5] = 1.0
    want[:, 3], want[:, 4] = np.where(group, 2.5, -2.5), np.where(group, -2.5, 2.5)
    batch = answers(7, np.repeat(np.arange(people), each), want)

    def nll(state, batch):
        r = [read(BAG, state.params, x) for x in (batch.a, batch.b)]
        return bradley_terry(*r, batch.label)

    mixture = mixture_reward.kernel(FIT, nll, people, 2)
    state, step, loss = start(mixture, 2, seed=3), jax.jit(mixture.step), []
    for _ in range(200):
        state, metrics = step(state, batch)
        loss.append(float(metrics["loss/mixture"]))
    share = np.exp(np.asarray(state.log_prior))
    few = int(np.argmin(share))
    assert share[few] == pytest.approx(1 / 3, abs=0.05)
    assert loss[-1] < 0.75 * np.log(2)
    table = np.asarray(state.members.params["table"])
    truth = np.stack([want[1], want[0]]) if few else np.stack([want[0], want[1]])
    np.testing.assert_allclose(table[:, 3:], truth[:, 3:], atol=0.8)
    told = mixture_reward.log_likelihood(
        jax.vmap(nll, (0, None))(state.members, batch), batch.who, batch.weight, people
    )
    belongs, _ = mixture_reward.responsibilities(told, state.log_prior)
    assert np.mean((np.asarray(belongs)[:, few] > 0.5) == group) > 0.95

    single = start(ensemble.kernel(FIT), 1)
    one = jax.jit(ensemble.kernel(FIT).step)
    for _ in range(200):
        single, metrics = one(single, batch._replace(weight=batch.weight[None]))
    # The majority wins, and nobody is described well.
    pooled = np.asarray(single.params["table"][0])
    assert pooled[4] > 0 > pooled[3]
    assert float(metrics["loss/reward"][0]) > loss[-1] + 0.1


def test_with_one_member_it_is_the_plain_reward_kernel():
    batch = answers(9, np.arange(16) % 4, np.ones((4, V)))
    mixture = mixture_reward.kernel(FIT, lambda s, b: jnp.zeros(16), 4, 1)
    begun = start(mixture, 1)
    after, _ = jax.jit(mixture.step)(begun, batch)
    alone, _ = jax.jit(FIT.step)(jax.tree.map(lambda x: x[0], begun.members), batch)
    np.testing.assert_allclose(after.members.params["table"][0], alone.params["table"], rtol=1e-6)
    np.testing.assert_allclose(after.log_prior, 0, atol=1e-6)
