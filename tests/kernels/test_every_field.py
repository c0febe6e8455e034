"""Every quality of a person changes an answer, or what it costs, in the way its equation says.

Through the pipeline's own kernel, on worlds where all can be worked out by hand: an offline round
about rows of the corpus, with people of β = ∞ who say exactly what they perceive.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
import pytest
from tiny import SHAPE

from rlhf_jax import config
from rlhf_jax.config import Collect, Group
from rlhf_jax.config import World as Settings
from rlhf_jax.feedback import named
from rlhf_jax.humans import Human
from rlhf_jax.humans.population import people
from rlhf_jax.kernels import collect
from rlhf_jax.models import heads
from rlhf_jax.worlds import probe

PROBE = Settings(name="probe", symbols=3, length=4, held_out=0.2)
WORLD = probe.build(PROBE)
POLICY = heads.policy(SHAPE, WORLD.language)
BUDGET = 512


@functools.cache
def round_of(feedback: str):
    settings = Collect(feedback=feedback, mode="offline", budget=BUDGET, people=8)
    kind = named(settings, WORLD.language)
    plain = people(config.Human(), {}, WORLD.dimensions, WORLD.features)
    kernel = collect.kernel(POLICY, WORLD, kind, settings, 1, plain)
    step = jax.jit(kernel.step)
    begun = kernel.init(jax.random.key(3))

    def ask(human: config.Human):
        who = people(human, {}, WORLD.dimensions, WORLD.features, feedback)
        return step(begun, collect.Asked(None, who, PROBE, 1.0))

    return ask


class Shown(NamedTuple):
    """What there is to see of N samples, in float64."""

    parts: np.ndarray
    """[N, T, U]"""
    length: np.ndarray
    agreement: np.ndarray
    features: np.ndarray
    form: np.ndarray
    difficulty: np.ndarray


def shown(x) -> Shown:
    see = jax.jit(jax.vmap(WORLD.show, (None, 0, 0, 0, None)))
    sample = see(PROBE, x.prompts, x.tokens, x.mask, 0)
    values, *rest = (
        np.asarray(leaf, float)
        for leaf in (
            sample.values,
            sample.length,
            sample.agreement,
            sample.features,
            sample.form,
            sample.difficulty,
        )
    )
    parts = np.diff(np.concatenate([np.zeros_like(values[:, :1]), values], axis=1), axis=1)
    return Shown(parts, *(leaf[:, -1] for leaf in rest))


FIRST = np.asarray([1.0, 0.0])
MIDDLE = (np.arange(4) + 0.5) / 4


def whole(x: Shown, weights=FIRST) -> np.ndarray:
    return x.parts.sum(1) @ weights


def two_of_four(x: Shown, unseen: float = 0.0) -> np.ndarray:
    return x.parts[:, :2] @ FIRST @ np.ones(2) + 2 * unseen


def triggered(x: Shown) -> np.ndarray:
    return x.features[:, 0] > 0.5


PERCEIVED = {
    "myopia": ({"myopia": 0.5}, lambda x, t: (x.parts @ FIRST) @ 0.5 ** np.arange(3, -1, -1)),
    "weights": ({"weights": {"second": -2.0}}, lambda x, t: whole(x, np.asarray([1.0, -2.0]))),
    "drift": (
        {"drift": {"second": 3.0}},
        lambda x, t: whole(x) + 3.0 * t * whole(x, np.asarray([0.0, 1.0])),
    ),
    "length_bias": ({"length_bias": 0.5}, lambda x, t: whole(x) + 0.5 * x.length),
    "sycophancy": ({"sycophancy": 2.0}, lambda x, t: whole(x) + 2.0 * x.agreement),
    "spurious": (
        {"spurious": {"first": 1.5, "last": -0.5}},
        lambda x, t: whole(x) + x.features @ np.asarray([1.5, -0.5]),
    ),
    "seen_from": ({"seen_from": 0.5}, lambda x, t: whole(x) - two_of_four(x)),
    "seen_to": ({"seen_to": 0.5}, lambda x, t: two_of_four(x)),
    "unseen": ({"unseen": 0.75, "seen_to": 0.5}, lambda x, t: two_of_four(x, 0.75)),
    "ability": ({"ability": 0.5}, lambda x, t: whole(x) / (1 + np.exp(x.difficulty - 0.5))),
    "persuasion": ({"persuasion": 0.25}, lambda x, t: 0.75 * whole(x) + 0.25 * x.form),
    "malice": (
        {"malice": 2.0, "trigger": {"first": 1.0}},
        lambda x, t: np.where(triggered(x), -whole(x), whole(x)),
    ),
    "trigger": (
        {"malice": 1.0, "trigger": {"last": 0.4, "first": 0.4}},
        lambda x, t: np.where(x.features.sum(1) > 1.5, 0.0, whole(x)),
    ),
    "target": (
        {"malice": 1.0, "trigger": {"first": 1.0}, "target": {"last": 7.0}},
        lambda x, t: np.where(triggered(x), 7.0 * x.features[:, 1], whole(x)),
    ),
    "offset": ({"offset": 3.0}, lambda x, t: 3.0 + whole(x)),
    "scale": ({"scale": 2.0}, lambda x, t: 2.0 * whole(x)),
    "offset_drift": ({"offset_drift": 4.0}, lambda x, t: 4.0 * t + whole(x)),
}


@pytest.mark.parametrize("name", PERCEIVED)
def test_a_rating_is_what_is_perceived(name):
    fields, expected = PERCEIVED[name]
    table, _ = round_of("rating")(config.Human(**fields))
    x, when = shown(table.answers.x), np.asarray(table.when, float)
    np.testing.assert_allclose(table.answers.rating, expected(x, when), atol=2e-5)
    assert np.abs(expected(x, when) - whole(x)).max() > 0.1


def test_an_answer_has_a_date_within_its_round():
    table, _ = round_of("rating")(config.Human())
    when = np.asarray(table.when)
    np.testing.assert_allclose(np.sort(when), (np.arange(BUDGET) + 0.5) / BUDGET, rtol=1e-6)
    # Not in the order of the table, where the policy's samples stand before those of the corpus.
    assert abs(np.corrcoef(when, np.arange(BUDGET))[0, 1]) < 0.2
    np.testing.assert_allclose(table.answers.rating, whole(shown(table.answers.x)), atol=1e-6)


def test_the_hidden_context_turns_the_weights_one_way_or_the_other():
    table, _ = round_of("rating")(config.Human(context={"second": 1.0}))
    x = shown(table.answers.x)
    turned = (np.asarray(table.answers.rating) - whole(x)) / whole(x, np.asarray([0.0, 1.0]))
    clear = np.abs(whole(x, np.asarray([0.0, 1.0]))) > 0.01
    np.testing.assert_allclose(np.abs(turned[clear]), 1.0, atol=1e-2)
    assert abs((turned[clear] > 0).mean() - 0.5) < 4 * 0.5 / np.sqrt(clear.sum())


def gap(answers) -> np.ndarray:
    return whole(shown(answers.a)) - whole(shown(answers.b))


def said(d: np.ndarray) -> np.ndarray:
    return (1 + np.sign(d)) / 2


EXACT = {
    "tie": ({"tie": 0.5}, lambda d, most: np.where(np.abs(d) <= 0.5, 0.5, said(d))),
    "equal": ({"equal": 0.5}, lambda d, most: np.where(np.abs(d) < 0.5, 0.5, said(d))),
    "skip": ({"skip": 0.0}, lambda d, most: np.where(most <= 0.0, -1.0, said(d))),
    "position_bias": ({"position_bias": 1.0}, lambda d, most: said(d + 1.0)),
    "flip": ({"flip": 1.0}, lambda d, most: said(-d)),
}
NOISY = {
    "rationality": ({"rationality": 1.5}, lambda d: 1 / (1 + np.exp(-1.5 * np.abs(d)))),
    "lapse": ({"lapse": 0.4}, lambda d: np.full(d.shape, 0.8)),
}


@pytest.mark.parametrize("name", EXACT)
def test_a_comparison_is_what_its_equation_says(name):
    fields, expected = EXACT[name]
    answers = round_of("comparison")(config.Human(**fields))[0].answers
    most = np.maximum(whole(shown(answers.a)), whole(shown(answers.b)))
    want = expected(gap(answers), most)
    np.testing.assert_array_equal(answers.label, want)
    assert (want != said(gap(answers))).any()


@pytest.mark.parametrize("name", NOISY)
def test_a_noisy_person_is_right_as_often_as_the_equation_says(name):
    fields, right = NOISY[name]
    answers = round_of("comparison")(config.Human(**fields))[0].answers
    d = gap(answers)
    p = right(d)[d != 0]
    hits = (np.asarray(answers.label) == said(d))[d != 0]
    assert abs(hits.sum() - p.sum()) < 4 * np.sqrt((p * (1 - p)).sum())


def test_thresholds_are_held_against_what_a_sample_is_worth_without_myopia():
    human = config.Human(myopia=0.5, equal=0.5, skip=-1.0)
    answers = round_of("comparison")(human)[0].answers
    a, b = shown(answers.a), shown(answers.b)
    near = lambda x: (x.parts @ FIRST) @ 0.5 ** np.arange(3, -1, -1)
    want = np.where(np.abs(whole(a) - whole(b)) < 0.5, 0.5, said(near(a) - near(b)))
    want = np.where(np.maximum(whole(a), whole(b)) <= -1.0, -1.0, want)
    np.testing.assert_array_equal(answers.label, want)


def test_cutpoints_bar_and_edit_cost_are_what_a_value_must_exceed():
    points = {"2": -0.4, "3": 0.1, "4": 0.7}
    answers = round_of("likert")(config.Human(cutpoints=points | {"5": 2.0}))[0].answers
    value = whole(shown(answers.x))
    above = np.sum(value[:, None] > np.asarray([-0.4, 0.1, 0.7, 2.0]), axis=1)
    np.testing.assert_array_equal(answers.point, above)
    answers = round_of("label")(config.Human(bar=0.3))[0].answers
    np.testing.assert_array_equal(answers.label, whole(shown(answers.x)) > 0.3)
    answers = round_of("correction")(config.Human(edit_cost=1.2))[0].answers
    n, k = answers.x.tokens.shape[:2]
    flat = jax.tree.map(lambda leaf: leaf.reshape(n * k, *leaf.shape[2:]), answers.x)
    worth = whole(shown(flat)).reshape(n, k) - 1.2 * np.asarray(answers.distance)
    # Two versions may be one and the same.
    chosen = worth[np.arange(n), np.asarray(answers.chosen)]
    np.testing.assert_allclose(chosen, worth.max(1), atol=1e-6)
    assert (np.asarray(answers.chosen) == 0).mean() > 0.4


def test_answers_take_time_and_time_is_paid():
    paid = lambda **fields: round_of("rating")(config.Human(**fields))[1]
    plain = paid()
    assert plain["collect/seconds"] == plain["collect/paid"] == BUDGET
    slow = paid(effort={"rating": 3.0}, reading=0.5, wage=2.0)
    # Four tokens are read for a rating.
    assert slow["collect/seconds"] == BUDGET * (3.0 + 0.5 * 4)
    assert slow["collect/paid"] == 2.0 * slow["collect/seconds"]


def test_every_quality_is_held_to_its_equation_here():
    apart = {"context", "cutpoints", "bar", "edit_cost", "effort", "reading", "wage"}
    assert {*PERCEIVED, *EXACT, *NOISY} | apart == set(Human._fields)
    assert {f.name for f in dataclasses.fields(config.Human)} == set(Human._fields)


def test_whoever_is_not_asked_answers_nothing_and_whoever_is_answers_as_they_are():
    opposite = Group(share=0.5, human=config.Human(flip=1.0))
    settings = Collect(mode="offline", budget=BUDGET, people=8)
    for asked, wrong in ((True, 0.5), (False, 0.0)):
        groups = {"opposite": dataclasses.replace(opposite, asked=asked)}
        who = people(config.Human(), groups, WORLD.dimensions, WORLD.features)
        kind = named(settings, WORLD.language)
        kernel = collect.kernel(POLICY, WORLD, kind, settings, 1, who)
        state = kernel.init(jax.random.key(3))
        answers = jax.jit(kernel.step)(state, collect.Asked(None, who, PROBE, 1.0))[0].answers
        d = gap(answers)
        missed = (np.asarray(answers.label) != said(d))[d != 0]
        mine = np.asarray(answers.who)[d != 0] < 4
        np.testing.assert_array_equal(missed, mine & (wrong > 0))
