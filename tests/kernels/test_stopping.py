from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bag import LIKELIHOOD, V, answers, member, start, told

from rlhf_jax.kernels import ensemble, stopping
from rlhf_jax.kernels.adaptive_l2 import adjust
from rlhf_jax.transforms import population

N, K, PEOPLE = 96, 2, 8


def noisy():
    """Answers of which a good part is chance: a fit that goes on too long becomes worse."""
    want = np.zeros((1, V))
    want[0, 3:] = 0.6, -0.6, 0.0
    data = told(answers(0, np.zeros(N, int), want))
    who = jnp.arange(N) % PEOPLE
    return data._replace(answers=data.answers._replace(who=who))


SPLIT = stopping.split(N, 1, 2, 0.25)
LOSS = ensemble.by_member(LIKELIHOOD)


def fit(split=SPLIT, patience=3, loss=LOSS, falls=0):
    many = ensemble.kernel(member(N, 24), K, ensemble.alike)
    return stopping.kernel(many, loss, split, patience, falls, noisy())


@pytest.fixture(scope="module")
def looks():
    """The states of 40 looks, the first of them before any, and what each said."""
    kernel = fit()
    step = jax.jit(kernel.step)
    states, said = [start(kernel, K)], []
    for _ in range(40):
        state, metrics = step(states[-1], (noisy(), jnp.int32(N)))
        states.append(state)
        said.append(metrics)
    return states, said


def test_whole_items_are_held_back_evenly_and_as_many_in_every_round():
    split = stopping.split(answers=24, rounds=2, repeats=3, share=0.25)
    # Items 3 and 7 of 8, three answers each.
    assert split.held.tolist() == [9, 10, 11, 21, 22, 23, 33, 34, 35, 45, 46, 47]
    assert sorted([*split.held, *split.fitted]) == list(range(48))
    assert [int(x) for x in split.filled(jnp.int32(24))] == [18, 6]
    assert [int(x) for x in split.filled(jnp.int32(48))] == [36, 12]
    assert stopping.split(24, 2, 3, 0.0).held.size == 0


def test_each_member_keeps_its_best_look_at_answers_it_was_not_fitted_to(looks):
    states, _ = looks
    rows = jax.tree.map(lambda x: x[SPLIT.held], noisy())
    made = states[1:]
    losses = np.asarray([LOSS(s.members, rows)[0] for s in made])
    at = losses.argmin(axis=0)
    last = states[-1]
    np.testing.assert_allclose(last.best.loss, losses.min(axis=0), rtol=1e-5)
    tables = np.asarray([s.members.learner.params.model["table"] for s in made])
    for k in range(K):
        np.testing.assert_array_equal(last.best.params.model["table"][k], tables[at[k], k])
    steps = np.asarray([s.members.learner.step for s in made])
    np.testing.assert_array_equal(last.best.steps, [steps[at[k], k] for k in range(K)])


def test_a_fit_ends_after_its_patience_and_then_nothing_moves(looks):
    states, said = looks
    made = [int(s.members.learner.step[0]) for s in states]
    end = made.index(made[-1])
    assert 3 < end < 40
    idle = [int(s.idle) for s in states]
    assert idle[end - 3 : end + 1] == [0, 1, 2, 3]
    assert jax.tree.all(jax.tree.map(np.array_equal, said[end - 1], said[-1]))
    assert float(said[-1]["reward/steps_made"]) == made[-1]
    best = float(jnp.mean(states[-1].best.steps))
    assert float(said[-1]["reward/steps"]) == best < made[-1]


def test_where_looks_stop_helping_the_rate_falls_and_the_best_look_is_gone_on_from(looks):
    straight, _ = looks
    made = [int(s.members.learner.step[0]) for s in straight]
    end = made.index(made[-1])
    step = jax.jit(fit(falls=2).step)
    states, said = [start(fit(falls=2), K)], []
    for _ in range(60):
        state, metrics = step(states[-1], (noisy(), jnp.int32(N)))
        states.append(state)
        said.append(metrics)
    falls = np.asarray([s.falls for s in states])
    assert falls[-1] == 2
    # Until the first fall all is as it is without any.
    table = lambda s: s.members.learner.params.model["table"]
    np.testing.assert_array_equal(table(states[end - 1]), table(straight[end - 1]))
    rate = states[0].members.learner.hparams.adam.learning_rate
    for at in np.flatnonzero(np.diff(falls)):
        before, after = states[at], states[at + 1]
        assert int(after.idle) == 0
        np.testing.assert_array_equal(table(after), after.best.params.model["table"])
        np.testing.assert_array_equal(
            after.best.loss, np.minimum(before.best.loss, after.best.loss)
        )
        # Adam's steps are of the size of the rate.
        moved = lambda i: np.abs(table(states[i + 1]) - table(states[i])).max()
        assert moved(at + 1) < 0.6 * moved(at - 1)
    np.testing.assert_array_equal(states[-1].members.learner.hparams.adam.learning_rate, rate)
    assert (states[-1].best.loss <= straight[-1].best.loss).all()
    assert int(states[-1].idle) == 3
    assert float(said[-1]["reward/falls"]) == 2
    last = int(states[-1].members.learner.step[0])
    assert last < 4 * 60
    assert float(said[-1]["reward/steps_made"]) == last


def test_answers_held_back_are_never_fitted_to():
    kernel = fit()
    data = noisy()
    label = data.answers.label.at[SPLIT.held].set(1 - data.answers.label[SPLIT.held])
    turned = data._replace(answers=data.answers._replace(label=label))
    begun = start(kernel, K)
    a, b = (jax.jit(kernel.step)(begun, (x, jnp.int32(N)))[0] for x in (data, turned))
    np.testing.assert_array_equal(
        a.members.learner.params.model["table"], b.members.learner.params.model["table"]
    )
    assert not np.allclose(a.best.loss, b.best.loss)


@pytest.mark.parametrize("why", ["nothing is held back", "nothing held back counts"])
def test_all_looks_are_made_and_the_last_is_kept_where(why):
    data, split = noisy(), SPLIT
    if why == "nothing is held back":
        split = stopping.split(N, 1, 1, 0.0)
    else:
        weight = data.answers.weight.at[SPLIT.held].set(0.0)
        data = data._replace(answers=data.answers._replace(weight=weight))
    kernel = fit(split, patience=1)
    state = start(kernel, K)
    for _ in range(12):
        state, metrics = jax.jit(kernel.step)(state, (data, jnp.int32(N)))
    # 4 steps a look: the member makes N / 24 of them, whatever is held back.
    np.testing.assert_array_equal(state.members.learner.step, 48)
    np.testing.assert_array_equal(state.best.steps, 48)
    np.testing.assert_array_equal(
        state.best.params.model["table"], state.members.learner.params.model["table"]
    )
    assert ("loss/reward_held_back" in metrics) == (split is SPLIT)


def test_another_round_goes_on_from_the_best_look(looks):
    states, _ = looks
    last = states[-1]
    new = stopping.again(last)
    np.testing.assert_array_equal(
        new.members.learner.params.model["table"], last.best.params.model["table"]
    )
    assert not new.members.learner.step.any()
    assert not new.best.steps.any()
    assert int(new.idle) == 0
    assert int(stopping.again(last._replace(falls=jnp.int32(2))).falls) == 0
    assert np.isposinf(new.best.loss).all()


def test_each_look_moves_an_l2_that_adapts_by_what_is_missed():
    many = ensemble.kernel(member(N, 24), K, ensemble.alike)
    unscaled = ensemble.by_member(LIKELIHOOD, (1.0,))
    kernel = stopping.kernel(many, LOSS, SPLIT, 1000, 0, noisy(), unscaled)
    state, step = start(kernel, K), jax.jit(kernel.step)
    held = jax.tree.map(lambda x: x[SPLIT.held], noisy())
    weight = lambda state: state.members.learner.hparams.l2
    for _ in range(4):
        before = weight(state)
        state, metrics = step(state, (noisy(), jnp.int32(N)))
        missed = jnp.mean(unscaled(state.members, held)[0])
        np.testing.assert_allclose(metrics["loss/reward_unscaled"], missed, rtol=1e-5)
        moved = adjust(before, metrics["loss/reward"], missed)
        np.testing.assert_allclose(weight(state), moved, rtol=1e-6)
    assert (weight(state) != weight(start(kernel, K))).all()


def test_how_sure_a_reward_is_does_not_decide_which_look_is_best():
    data = noisy()
    members = start(ensemble.kernel(member(N, 24), K, ensemble.alike), K)
    at = lambda c: members._replace(
        learner=members.learner._replace(
            params=jax.tree.map(lambda x: c * x, members.learner.params)
        )
    )
    # The best factor lies within those that are tried for both.
    np.testing.assert_allclose(LOSS(at(8.0), data)[0], LOSS(at(16.0), data)[0], rtol=1e-4)
    plain = [
        LIKELIHOOD(jax.tree.map(lambda x: x[0], at(c).learner.params), data)[0] for c in (8, 16)
    ]
    assert abs(float(plain[0].mean() - plain[1].mean())) > 0.01


def test_a_mixture_of_one_loses_what_a_member_loses():
    data = noisy()
    one = start(ensemble.kernel(member(N, 24), 1, ensemble.alike), 1)
    mixture = ensemble.by_mixture(LIKELIHOOD, PEOPLE)
    for a, b in zip(mixture(one, data), LOSS(one, data), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("by", ["vmap", "map"])
def test_a_population_goes_on_until_the_last_of_its_fits_has_ended(by, looks):
    states, _ = looks
    one = fit()
    many = stopping.ended(population(one, by=by, batch_axes=None), 3)
    batch = (noisy(), jnp.int32(N))
    both = lambda a, b: jax.tree.map(lambda *x: jnp.stack(x), a, b)
    made, _ = one.step(states[0], batch)
    state, _ = jax.jit(many.step)(both(states[-1], states[0]), batch)
    np.testing.assert_array_equal(state.idle, [states[-1].idle, made.idle])
    np.testing.assert_allclose(state.best.loss[1], made.best.loss, rtol=1e-5)
    np.testing.assert_array_equal(state.best.loss[0], states[-1].best.loss)
    over = both(states[-1], states[-1])
    same, again = jax.jit(many.step)(over, batch)
    assert jax.tree.all(jax.tree.map(np.array_equal, same.best, over.best))
    assert jax.tree.all(jax.tree.map(np.array_equal, again, over.said))
