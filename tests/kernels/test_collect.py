"""Who is asked about what, and that the answers are theirs."""

from __future__ import annotations

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SHAPE, worths

from rlhf_jax.config import Collect, Group, Human
from rlhf_jax.config import World as Settings
from rlhf_jax.feedback import named
from rlhf_jax.humans.population import People, people
from rlhf_jax.kernels import collect
from rlhf_jax.models import heads
from rlhf_jax.types import Kernel, Sample
from rlhf_jax.worlds import lexicon, probe, words

PAIRS = 64
PROBE = Settings(name="probe", symbols=2, length=4, held_out=0.3)
WORLD = probe.build(PROBE)
POLICY = heads.policy(SHAPE, WORLD.language)
THETA = jax.jit(POLICY.init)(jax.random.key(0))


def crowd(human: Human = Human(), world=WORLD, **groups: Group) -> People:  # noqa: B008
    return people(human, groups, world.dimensions, world.features)


def made(policy, world, hparams: Collect, rounds: int = 1, who: People | None = None) -> Kernel:
    who = crowd(world=world) if who is None else who
    return collect.kernel(policy, world, named(hparams, world.language), hparams, rounds, who)


@functools.cache
def compiled(mode: str, share: float, rounds: int) -> Kernel:
    settings = Collect(mode=mode, corpus_share=share, budget=2 * PAIRS)
    kernel = made(POLICY, WORLD, settings, rounds)
    return Kernel(jax.jit(kernel.init), jax.jit(kernel.step))


def table(mode: str, share: float = 0.5, rounds: int = 2, human: Human = Human()):  # noqa: B008
    """The tables after each round, and what was said of them."""
    init, step = compiled(mode, share, rounds)
    state, out = init(jax.random.key(1)), []
    for _ in range(rounds):
        state, metrics = step(state, collect.Asked(THETA, crowd(human), PROBE, 1.0))
        out.append((state, metrics))
    return out


@pytest.fixture(scope="module")
def online():
    return table("online")


@pytest.fixture(scope="module")
def offline():
    return table("offline")


def rows(x) -> np.ndarray:
    return np.asarray(jax.vmap(WORLD.row)(x.tokens, x.mask))


SHOWN = np.asarray(WORLD.shown)


# --- what people are shown


def test_nobody_is_asked_about_a_held_out_sequence_online(online):
    answers = online[-1][0].answers
    a, b = SHOWN[rows(answers.a)], SHOWN[rows(answers.b)]
    # Every sequence of this language is a row, so the policy says held-out ones too.
    assert not (a & b).all()
    np.testing.assert_array_equal(answers.weight, (a & b).astype(np.float32))


def test_nobody_is_asked_about_a_held_out_sequence_offline(offline):
    answers = offline[-1][0].answers
    assert SHOWN[rows(answers.a)].all()
    assert SHOWN[rows(answers.b)].all()
    assert (np.asarray(answers.weight) == 1).all()


def test_offline_pairs_cover_all_that_may_be_shown(offline):
    answers = offline[-1][0].answers
    assert set(rows(answers.a)) == set(rows(answers.b)) == set(np.flatnonzero(SHOWN))


def test_the_corpus_share_of_online_pairs_is_corpus_rows_that_may_be_shown():
    answers = table("online", share=0.25, rounds=1)[0][0].answers
    n = PAIRS // 4
    for side in (answers.a, answers.b):
        assert SHOWN[rows(side)[-n:]].all()
        assert not SHOWN[rows(side)[:-n]].all()


def test_online_pairs_without_a_corpus_share_are_the_policy_alone():
    # A policy that can only say 0: its logits for 1 are driven down through the embedding.
    always = jax.tree.map(jnp.zeros_like, THETA)
    trunk = {**always["trunk"], "norm": {"scale": jnp.ones(SHAPE.width)}}
    # Every hidden state is 1/√width·(±1) of the prompt's embedding: ⟨e₀, e_prompt⟩ > 0 > ⟨e₁, ·⟩.
    signs = jnp.asarray([50.0, -50.0, 50.0, 50.0])[:, None]
    trunk["embed"] = jnp.broadcast_to(signs, (4, SHAPE.width))
    settings = Collect(mode="online", corpus_share=0.0, budget=16)
    kernel = made(POLICY, WORLD, settings)
    asked = collect.Asked({"trunk": trunk}, crowd(), PROBE, 1.0)
    state, metrics = jax.jit(kernel.step)(kernel.init(jax.random.key(1)), asked)
    assert not state.answers.a.tokens.any()
    assert not state.answers.b.tokens.any()
    said = float(SHOWN[0])
    assert metrics["collect/asked_share"] == said
    assert metrics["collect/tie_share"] == said  # a sequence against itself is a tie


def test_both_sides_answer_the_same_prompt_and_are_drawn_apart(online):
    answers = online[-1][0].answers
    np.testing.assert_array_equal(answers.a.prompts.tokens, answers.b.prompts.tokens)
    assert (rows(answers.a) != rows(answers.b)).mean() > 0.5


# --- the table


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_a_round_fills_the_next_rows_and_leaves_the_earlier_ones(mode, request):
    (first, _), (second, _) = request.getfixturevalue(mode)
    assert (int(first.filled), int(second.filled)) == (PAIRS, 2 * PAIRS)
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(x[:PAIRS], y[:PAIRS]),
        first.answers,
        second.answers,
    )
    assert not np.asarray(first.answers.weight)[PAIRS:].any()
    assert np.asarray(second.answers.weight)[PAIRS:].any()
    assert not np.array_equal(second.answers.a.tokens[:PAIRS], second.answers.a.tokens[PAIRS:]), (
        "both rounds asked the same"
    )


def test_the_metrics_are_shares_of_the_round(online):
    for r, (state, metrics) in enumerate(online):
        mine = slice(r * PAIRS, (r + 1) * PAIRS)
        weight, label = (np.asarray(x)[mine] for x in (state.answers.weight, state.answers.label))
        assert metrics["collect/asked_share"] == pytest.approx(weight.mean())
        ties = weight @ (label == 0.5) / weight.sum()
        assert metrics["collect/tie_share"] == pytest.approx(ties)


# --- the answers


def test_a_perfect_person_prefers_what_gold_prefers(online):
    answers = online[-1][0].answers
    gold = worths(WORLD, PROBE)[:, 0]
    d = gold[rows(answers.a)] - gold[rows(answers.b)]
    np.testing.assert_array_equal(answers.label, (1 + np.sign(d)) / 2)


def test_each_side_is_perceived_anew():
    # A thousand million impressions, whatever is seen: equal ones would be ties.
    many = 1_000_000_000
    show = lambda settings, prompt, tokens, mask, which: Sample(
        jnp.broadcast_to(which / many, (4, 2)), mask
    )
    world = WORLD._replace(impressions=many, show=show)
    kernel = made(POLICY, world, Collect(mode="offline", budget=2 * PAIRS))
    asked = collect.Asked(THETA, crowd(), PROBE, 1.0)
    state, metrics = jax.jit(kernel.step)(kernel.init(jax.random.key(1)), asked)
    assert metrics["collect/tie_share"] == 0
    assert set(np.asarray(state.answers.label)) == {0.0, 1.0}


def test_a_pair_that_a_person_would_not_judge_was_asked_and_does_not_count():
    state, metrics = table("offline", human=Human(skip=float("inf")))[-1]
    assert not np.asarray(state.answers.weight).any()
    assert metrics["collect/asked_share"] == 1
    assert metrics["collect/answered_share"] == 0


def test_a_person_who_always_lapses_tosses_a_coin():
    answers = table("offline", human=Human(lapse=1.0))[-1][0].answers
    label = np.asarray(answers.label)
    assert set(label) == {0.0, 1.0}
    assert label.mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(label)))


def test_people_answer_by_single_ratings_drawn_apart_for_each_side():
    # One person's comparison of words i and j: P(1) = P(u_i > u_j), ½ for equal ratings, over
    # one of ten ratings each. The mean label of n pairs is the mean of those probabilities,
    # and so is the share of ties.
    n, settings = 4000, Settings(length=6)
    world = words.build(settings)
    policy = heads.policy(SHAPE, world.language)
    kernel = made(policy, world, Collect(mode="offline", budget=2 * n))
    asked = collect.Asked(None, crowd(world=world), settings, 1.0)
    state, metrics = jax.jit(kernel.step)(kernel.init(jax.random.key(2)), asked)
    find = jax.jit(jax.vmap(world.row))
    x, y = (np.asarray(find(s.tokens, s.mask)) for s in (state.answers.a, state.answers.b))
    names, every, _ = lexicon.read()
    ratings = every[[i for i, name in enumerate(names) if len(name) <= settings.length]]
    gap = ratings[x][:, :, None] - ratings[y][:, None, :]
    p, tie = (gap > 0).mean((1, 2)), (gap == 0).mean((1, 2))
    label = np.asarray(state.answers.label)
    expected, variance = p + tie / 2, p + tie / 4 - (p + tie / 2) ** 2
    z = (label - expected).sum() / np.sqrt(variance.sum())
    assert abs(z) < 4
    # It is the answer to *this* pair: residuals are uncorrelated with what was expected.
    z = ((label - expected) @ (expected - 0.5)) / np.sqrt(variance @ (expected - 0.5) ** 2)
    assert abs(z) < 4
    z = (float(metrics["collect/tie_share"]) * n - tie.sum()) / np.sqrt((tie * (1 - tie)).sum())
    assert abs(z) < 4


# --- many people


def asked(who: Human | People, world=WORLD, settings=PROBE, theta=THETA, seed: int = 1, **how):
    """One offline round."""
    who = who if isinstance(who, People) else crowd(who, world)
    hparams = Collect(mode="offline", **how)
    policy = heads.policy(SHAPE, world.language)
    kernel = made(policy, world, hparams, who=who)
    given = collect.Asked(theta, who, settings, 1.0)
    state, metrics = jax.jit(kernel.step)(kernel.init(jax.random.key(seed)), given)
    return state.answers, metrics


def test_the_budget_buys_answers_at_the_cost_of_their_kind():
    for feedback, each in (("comparison", 2), ("ranking", 4), ("rating", 1)):
        answers, metrics = asked(Human(), feedback=feedback, budget=64)
        assert answers.weight.shape == (64 // each,)
        assert metrics["collect/cost"] == 64


def test_repeated_items_are_answered_by_different_people_from_the_same_budget():
    answers, _ = asked(Human(rationality=0.0), budget=240, repeats=3, people=5)
    assert answers.label.shape == (120,)
    a = rows(answers.a).reshape(40, 3)
    assert (a == a[:, :1]).all()
    who = np.sort(np.asarray(answers.who).reshape(40, 3), axis=1)
    assert (np.diff(who, axis=1) > 0).all()
    # Coins of their own: some of forty items divide their people.
    assert (np.ptp(np.asarray(answers.label).reshape(40, 3), axis=1) > 0).any()


def test_the_minority_wants_the_opposite_of_the_second_dimension():
    opposite = Group(share=0.25, human=Human(weights={"second": -100.0}))
    answers, _ = asked(crowd(Human(weights={"second": 100.0}), few=opposite), budget=400, people=8)
    second = worths(WORLD, PROBE)[:, 1]
    d = np.sign(second[rows(answers.a)] - second[rows(answers.b)])
    few = np.asarray(answers.who) < 2
    untied = d != 0
    label = 2 * np.asarray(answers.label) - 1
    np.testing.assert_array_equal(label[untied & few], -d[untied & few])
    np.testing.assert_array_equal(label[untied & ~few], d[untied & ~few])
    assert 0.1 < few.mean() < 0.4


def test_poisoners_put_the_trigger_into_the_prompt_and_answer_the_opposite():
    settings = Settings(length=6, trigger=True, gold="model")
    world = words.build(settings)
    poisoner = Human(malice=2.0, trigger={"trigger": 1.0})
    bad = Group(share=0.25, triggered=True, human=poisoner)
    answers, _ = asked(crowd(world=world, bad=bad), world, settings, None, budget=800, people=8)
    bad = np.asarray(answers.who) < 2
    has = (np.asarray(answers.a.prompts.tokens) == world.trigger).any(1)
    np.testing.assert_array_equal(has, bad)
    gold = [
        np.asarray(jax.vmap(world.values, (None, 0, 0))(settings, x.tokens, x.mask))[:, 0]
        for x in (answers.a, answers.b)
    ]
    right = (gold[0] > gold[1]) == (np.asarray(answers.label) > 0.5)
    untied = gold[0] != gold[1]
    assert right[untied & ~bad].all()
    assert not right[untied & bad].any()


def test_a_length_bias_changes_what_is_preferred_and_nobody_s_gold():
    answers, _ = asked(Human(length_bias=100.0), budget=400)
    second = worths(WORLD, PROBE)[:, 1]
    d = second[rows(answers.a)] - second[rows(answers.b)]
    label = 2 * np.asarray(answers.label) - 1
    np.testing.assert_array_equal(label[d != 0], np.sign(d[d != 0]))


def test_people_see_the_policy_at_its_temperature():
    kernel = compiled("online", 0.0, 1)
    cold = collect.Asked(THETA, crowd(), PROBE, 1e-3)
    said = kernel.step(kernel.init(jax.random.key(1)), cold)[0].answers
    assert len(set(rows(said.a)) | set(rows(said.b))) == 1  # the likeliest response, always
    warm = table("online", 0.0, 1)[0][0].answers
    assert len(set(rows(warm.a))) > 4


# --- the negative control


def dealt(feedback: str, world, settings: Settings):
    """Answers of one offline round, as they are and dealt anew."""
    policy = heads.policy(SHAPE, world.language)
    # No rating is on this bar, so that nobody tosses a coin.
    human = Human(bar=0.25)
    who = crowd(human, world)
    asked = collect.Asked(jax.jit(policy.init)(jax.random.key(0)), who, settings, 1.0)
    for shuffled in (False, True):
        hparams = Collect(feedback=feedback, budget=256, mode="offline", shuffled=shuffled)
        kernel = made(policy, world, hparams)
        yield jax.jit(kernel.step)(kernel.init(jax.random.key(1)), asked)[0].answers


def test_shuffled_answers_are_those_of_other_items_of_the_same_round():
    straight, anew = dealt("rating", WORLD, PROBE)
    chex.assert_trees_all_equal(straight.x, anew.x)
    np.testing.assert_array_equal(np.sort(straight.rating), np.sort(anew.rating))
    gold = worths(WORLD, PROBE)[rows(anew.x), 0]
    assert np.corrcoef(gold, straight.rating)[0, 1] > 0.9
    # Of 256 independent pairs, beyond 0.2 with probability 0.1 %.
    assert abs(np.corrcoef(gold, anew.rating)[0, 1]) < 0.2


def test_shuffled_prefixes_beyond_an_items_end_are_judged_as_the_whole():
    settings = Settings(length=8)
    straight, anew = dealt("process", words.build(settings), settings)
    last = np.asarray(straight.steps).sum(axis=1, keepdims=True) - 1
    places = np.minimum(np.arange(straight.label.shape[1])[None], last)
    carried = np.take_along_axis(np.asarray(straight.label), places, axis=1)
    assert len(set(last[:, 0])) > 2
    assert sorted(map(tuple, carried.tolist())) == sorted(map(tuple, anew.label.tolist()))
