from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bag import LIKELIHOOD, V, answers, member, start, told

from rlhf_jax.kernels import ensemble, mixture_reward


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


def test_two_groups_that_want_opposite_things_are_told_apart_where_one_reward_fails():
    """A third of 60 people love "a" and hate "b", the others the reverse; all like "c"."""
    people, each = 60, 12
    group = np.arange(people) % 3 == 0
    want = np.zeros((people, V))
    want[:, 5] = 1.0
    want[:, 3], want[:, 4] = np.where(group, 2.5, -2.5), np.where(group, -2.5, 2.5)
    batch = answers(7, np.repeat(np.arange(people), each), want)

    data, n = told(batch), jnp.int32(len(batch.label))
    fit = lambda k, weigh: ensemble.kernel(member(720, 720), k, weigh)
    mixture = fit(2, ensemble.by_group(LIKELIHOOD, people))
    state, step, loss = start(mixture, 2, seed=3), jax.jit(mixture.step), []
    for _ in range(200):
        state, metrics = step(state, (data, n))
        loss.append(float(metrics["loss/mixture"][-1]))
    share = np.exp(np.asarray(state.log_prior))
    few = int(np.argmin(share))
    assert share[few] == pytest.approx(1 / 3, abs=0.05)
    assert loss[-1] < 0.75 * np.log(2)
    table = np.asarray(state.learner.params.model["table"])
    truth = np.stack([want[1], want[0]]) if few else np.stack([want[0], want[1]])
    np.testing.assert_allclose(table[:, 3:], truth[:, 3:], atol=0.8)
    weight, _, _ = ensemble.by_group(LIKELIHOOD, people)(state, data, n)
    belongs = np.asarray(weight[few])[::each] > 0.5
    assert np.mean(belongs == group) > 0.95

    alone = fit(1, ensemble.alike)
    single, one = start(alone, 1), jax.jit(alone.step)
    for _ in range(200):
        single, metrics = one(single, (data, n))
    # The majority wins, and nobody is described well.
    pooled = np.asarray(single.learner.params.model["table"][0])
    assert pooled[4] > 0 > pooled[3]
    assert float(metrics["loss/reward"][0]) > loss[-1] + 0.1


def test_with_one_kind_of_people_it_is_one_reward():
    n = 16
    data = told(answers(9, np.arange(n) % 4, np.ones((4, V))))
    both = [
        ensemble.kernel(member(n, 8), 1, weigh)
        for weigh in (ensemble.by_group(LIKELIHOOD, 4), ensemble.alike)
    ]
    a, b = (jax.jit(k.step)(start(k, 1), (data, jnp.int32(n)))[0] for k in both)
    np.testing.assert_allclose(
        a.learner.params.model["table"], b.learner.params.model["table"], rtol=1e-6
    )
    np.testing.assert_allclose(a.log_prior, 0, atol=1e-6)
