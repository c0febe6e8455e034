"""Every kind of feedback that a run can ask for, whole: what is asked, what it says of a reward.

On a language of 31 strings whose rewards are a table of prefixes. Whatever stands in `KINDS` is
tried here: nothing has to be added for a new kind.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import spearmanr
from tiny import BOS, EOS, PAD

from rlhf_jax import config, parts
from rlhf_jax.config import Collect, ConfigError
from rlhf_jax.feedback import (
    KINDS,
    STANDARD,
    comparison,
    correction,
    demonstration,
    find,
    language,
    named,
    process,
    span,
)
from rlhf_jax.feedback.comparison import Comparison
from rlhf_jax.feedback.kind import NOISE, Kind, Reading, Seen, described, refuse, settled
from rlhf_jax.feedback.language import GRAMMAR
from rlhf_jax.humans import CANT_TELL, Human
from rlhf_jax.types import Array, Episode, Language, Prompts

T, N, OPTIONS = 4, 6000, 3
KEY = jax.random.key(1)
ACTIONS = np.asarray([False, False, True, True, True])
ALPHABET = Language(("·", "^", "$", "a", "b"), PAD, BOS, EOS, ACTIONS, T)
NODES = (3 ** (T + 1) - 1) // 2
"""Prefixes: 0 is empty, the child of s by symbol a is 3 s + a − 1."""
each = pytest.mark.parametrize("name", [kind.name for kind in KINDS])


def episode(symbols: np.ndarray) -> Episode:
    """[..., T] symbols, cut after the first EOS."""
    ends = symbols == EOS
    mask = np.cumsum(ends, axis=-1) - ends == 0
    start = np.full((*symbols.shape[:-1], 1), BOS, np.int32)
    return Episode(Prompts(start, start == BOS), np.where(mask, symbols, PAD), mask)


def strings(*shape: int) -> Episode:
    """Symbols drawn evenly until EOS or the limit: leaves [*shape, …]."""
    return episode(np.random.default_rng(0).integers(EOS, 5, (*shape, T), np.int32))


def written(*words: str) -> Episode:
    """Words as samples of one item: leaves [K, …]."""
    return episode(
        np.asarray([[ALPHABET.symbols.index(c) for c in (w + "$$$$")[:T]] for w in words])
    )


def walk(x: Episode) -> np.ndarray:
    """[..., T + 1] prefixes passed; a string that has ended stays where it is."""
    tokens, mask = np.asarray(x.tokens), np.asarray(x.mask)
    nodes = [np.zeros(tokens.shape[:-1], np.int32)]
    for t in range(T):
        nodes.append(np.where(mask[..., t], 3 * nodes[-1] + tokens[..., t] - 1, nodes[-1]))
    return np.stack(nodes, axis=-1)


def read(table: np.ndarray, nodes: np.ndarray) -> Reading:
    return Reading(table[nodes[..., -1]], table[nodes])


def drawn_truth() -> np.ndarray:
    table = np.random.default_rng(7).normal(size=NODES).astype(np.float32)
    table[0] = 0.0  # nothing said
    return table


TRUTH = drawn_truth()
PERSON = Human(rationality=1.5, lapse=0.05, flip=0.05, tie=0.3, bar=0.2, edit_cost=0.4)


def every_string() -> tuple[np.ndarray, np.ndarray]:
    """Nodes of all 31 strings, and their probabilities under `strings`."""
    symbols = np.asarray(list(itertools.product(range(EOS, 5), repeat=T)))
    nodes, count = np.unique(walk(episode(symbols))[:, -1], return_counts=True)
    return nodes, count / 3.0**T


def fitted_truth(name: str, human: Human) -> np.ndarray:
    """What the likelihood calls true: û itself; for the best of K that came to mind, log p_K/q
    / β with p_K(x)/q(x) = E[K e^βû(x)/(e^βû(x) + Σ_j e^βû(x_j))], K = 3, all pairs summed.
    """
    if name != "demonstration":
        return TRUTH
    nodes, q = every_string()
    e = np.exp(human.rationality * TRUTH[nodes].astype(np.float64))
    share = 3 * e[:, None, None] / (e[:, None, None] + e[None, :, None] + e[None, None, :])
    ratio = np.einsum("ijk,j,k->i", share, q, q)
    assert ratio @ q == pytest.approx(1.0)
    truth = TRUTH.copy()
    truth[nodes] = np.log(ratio) / human.rationality
    return truth


class Answers(NamedTuple):
    kind: Kind
    ask: Any
    score: Any
    """(reading, data, human) → its gradient of Σ nll, and nll"""
    human: Human
    seen: Seen
    data: Any
    nodes: np.ndarray
    """[N, K, T + 1] prefixes of the samples that the data speaks of"""

    def nll(self, table: np.ndarray, human: Human) -> np.ndarray:
        return np.asarray(self.score(read(table, self.nodes), self.data, human)[1])

    def slope(self, table: np.ndarray) -> tuple[np.ndarray, float]:
        """[N, NODES], each answer's gradient of its nll; and the mean nll."""
        (by_reward, by_state), nll = self.score(read(table, self.nodes), self.data, self.human)
        gradient = np.array(by_state, np.float64)
        gradient[..., -1] += by_reward
        at = np.arange(N)[:, None] * NODES + self.nodes.reshape(N, -1)
        total = np.bincount(at.ravel(), gradient.ravel(), N * NODES)
        return total.reshape(N, NODES), float(np.mean(nll))


@functools.cache
def answers(name: str) -> Answers:
    """N answers by one person about TRUTH; leaves of the person are [N]."""
    kind = named(Collect(feedback=name, options=OPTIONS), ALPHABET)
    # Fair draws leave Z out of a demonstration's likelihood: flips and lapses bring it back.
    # A span is the difference of two entries, and 6000 answers do not tell its tails from slips.
    attentive = PERSON._replace(lapse=0.0, flip=0.0)
    who = attentive if name in ("demonstration", "span") else PERSON

    def total(reading: Reading, data: Any, human: Human) -> tuple[Array, Array]:
        nll = kind.nll(reading, data, human)
        return jnp.sum(nll), nll

    ask, score = jax.jit(kind.ask), jax.jit(jax.grad(total, has_aux=True))
    x = strings(N, kind.samples)
    values, states = read(TRUTH, walk(x))
    time = np.full(N, 2.0, np.float32)
    human, seen = everyone(who), Seen(x, values, states[..., 1:] if kind.steps else None, time)
    data = ask(human, seen, KEY)
    return Answers(kind, ask, score, human, seen, data, walk(kind.episodes(data)))


def everyone(human: Human) -> Human:
    return jax.tree.map(lambda x: np.full(N, x, np.float32), human)


def rows(tree: Any, at: Any) -> Any:
    return jax.tree.map(lambda x: x[at], tree)


# --- what a kind says of itself


def test_a_configuration_names_the_kinds_that_there_are():
    assert get_args(get_type_hints(Collect)["feedback"]) == tuple(kind.name for kind in KINDS)


@each
def test_a_kind_says_what_is_asked_what_is_fitted_and_in_which_unit(name):
    kind = find(name)
    others = [other for other in KINDS if other.name != name]
    equation = described(kind, config.leaves(config.Config()))
    assert equation.startswith("min_φ E[")
    assert "+ λ_r(φ)" in equation
    assert kind.asked not in [other.asked for other in others]
    assert equation not in [described(other, config.leaves(config.Config())) for other in others]
    assert kind.units


def otherwise(value: Any) -> Any:
    """Another value of a field of `everyone`."""
    return jax.tree.map(lambda x: np.where(np.isinf(x), 0.4, 2 * x + 0.7).astype(np.float32), value)


@each
def test_the_fields_of_a_person_that_act_are_those_that_change_an_answer(name):
    case = answers(name)
    acts = set()
    for field in Human._fields:
        changed = case.human._replace(**{field: otherwise(getattr(case.human, field))})
        data = case.ask(changed, case.seen, KEY)
        pairs = zip(*map(jax.tree.leaves, (data, case.data)), strict=True)
        if not all(np.array_equal(a, b) for a, b in pairs):
            acts.add(field)
    assert acts == set(case.kind.acts)


@each
def test_a_setting_of_a_person_that_acts_in_other_kinds_only_is_refused(name):
    kind = find(name)
    refuse(kind, KINDS, config.Human())
    for f in filter(config.is_sweep, dataclasses.fields(config.Human)):
        put = lambda value, f=f: dataclasses.replace(config.Human(), **{f.name: value})
        refuse(kind, KINDS, put((f.default,)))
        elsewhere = any(f.name in other.acts for other in KINDS)
        for value in (0.25, (f.default, 0.25)):
            if f.name in kind.acts or not elsewhere:
                refuse(kind, KINDS, put(value))
                continue
            with pytest.raises(ConfigError, match=rf"^human\.{f.name} = .* changes no answer") as e:
                refuse(kind, KINDS, put(value))
            assert f"collect.feedback = {name}:" in str(e.value)


def test_a_run_is_refused_before_it_starts_where_a_setting_of_its_people_does_nothing():
    run = config.Config(
        world=config.World(name="probe", symbols=2, length=2),
        human=config.Human(tie=(0.0, 0.5)),
        collect=Collect(feedback="rating"),
    )
    with pytest.raises(ConfigError, match=r"^human\.tie = \(0\.0, 0\.5\) changes no answer"):
        parts.make(run, jax.devices()[:1])


def test_the_table_of_kinds_in_the_documentation_is_what_they_say():
    rows = ["| kind | a person is asked | drawn | read or written | acts | unit of the reward |"]
    rows += ["|---|---|---|---|---|---|"]
    for kind in (settled(k, Collect(), ALPHABET) for k in KINDS):
        acts = ", ".join(f"`{a}`" for a in kind.acts if a not in NOISE) or "–"
        rows.append(
            f"| {kind.name} | {kind.asked} | {kind.samples} | {kind.cost} | {acts} | {kind.units} |"
        )
    page = (Path(__file__).parents[2] / "docs" / "feedback.md").read_text()
    assert "\n".join(rows) in page, "\n".join(rows)


# --- ask and nll are two halves of one model


@each
def test_gradient_of_the_likelihood_is_zero_in_expectation_at_the_truth_only(name):
    case = answers(name)

    def z(table):
        """Sum over the answers of each prefix's gradient, in its standard errors; these are at
        least β, one choice, since the rare answer of a sure thing may not be among N.
        """
        gradient, _ = case.slope(table)
        told = np.count_nonzero(gradient, axis=0) > 50
        return (gradient.sum(0) / np.hypot(PERSON.rationality, np.linalg.norm(gradient, axis=0)))[
            told
        ]

    at_truth = z(fitted_truth(name, PERSON))
    assert len(at_truth) >= 30
    assert np.abs(at_truth).max() < 4
    assert np.abs(z(np.zeros_like(TRUTH))).max() > 10


@each
def test_a_table_fitted_from_zero_ranks_the_strings_as_the_person_does(name):
    """With the prior that TRUTH is drawn from, N(0, 1). Found: rank correlations 0.95 (spans) …
    0.99 (language), slopes of what is true on what is fitted 0.90 … 1.02.
    """
    case = answers(name)

    def objective(table):
        gradient, nll = case.slope(table.astype(np.float32))
        return nll + table @ table / (2 * N), gradient.mean(0) + table / N

    found = minimize(
        objective, np.zeros(NODES), jac=True, method="L-BFGS-B", options={"maxiter": 40}
    )
    nodes, _ = every_string()
    slope = np.polyfit(found.x[nodes], fitted_truth(name, PERSON)[nodes], 1)[0]
    assert spearmanr(found.x[nodes], TRUTH[nodes])[0] > 0.9
    assert 0.85 < slope < 1.15


@each
def test_only_anchored_kinds_know_the_reward_from_the_reward_plus_one(name):
    case = answers(name)
    here, there = (case.nll(TRUTH + np.float32(c), case.human) for c in (0, 1))
    if case.kind.anchored:
        assert np.abs(here - there).mean() > 0.1
    else:
        np.testing.assert_allclose(here, there, atol=1e-4)


# --- who answers, and that answers are apart


@each
@pytest.mark.parametrize("odd_one", [{"flip": 1.0}, {"rationality": 0.0}])
def test_a_different_person_in_every_other_row_changes_those_rows_only(name, odd_one):
    case = answers(name)
    attentive = PERSON._replace(lapse=0.0, flip=0.0)
    other, plain = everyone(attentive._replace(**odd_one)), everyone(attentive)
    even = np.arange(N) % 2 == 0
    mixed = jax.tree.map(lambda a, b: np.where(even, a, b), other, plain)
    told = [case.ask(h, case.seen, KEY) for h in (mixed, other, plain)]
    changed = np.zeros(N, bool)
    for a, b, c in zip(*map(jax.tree.leaves, told), strict=True):
        a, b, c = (np.asarray(leaf).reshape(N, -1) for leaf in (a, b, c))
        np.testing.assert_array_equal(a[even], b[even])
        np.testing.assert_array_equal(a[~even], c[~even])
        changed |= (a != c).any(axis=1)
    assert changed[even].mean() > 0.1
    nll = [case.nll(TRUTH, h) for h in (mixed, other, plain)]
    np.testing.assert_allclose(nll[0][even], nll[1][even], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(nll[0][~even], nll[2][~even], rtol=1e-5, atol=1e-6)
    assert np.abs(nll[0] - nll[2])[even].mean() > 0.02


@each
def test_one_person_for_all_is_the_same_person_in_every_row(name):
    case = answers(name)
    one = rows(case.human, 0)
    data = jax.jit(case.kind.ask)(one, case.seen, KEY)
    # Apart from rounding, which may also decide where two options are worth the same.
    for a, b in zip(*map(jax.tree.leaves, (data, case.data)), strict=True):
        assert np.isclose(a, b, rtol=1e-5, atol=1e-6).mean() > 0.999
    nll = jax.jit(case.kind.nll)(read(TRUTH, case.nodes), case.data, one)
    np.testing.assert_allclose(nll, case.nll(TRUTH, case.human), rtol=1e-5, atol=1e-6)


@each
def test_no_answer_depends_on_the_others_so_that_those_without_weight_do_not_matter(name):
    case = answers(name)
    keep = np.arange(N) < 100
    at = np.where(keep, np.arange(N), np.random.default_rng(1).integers(0, N, N))
    given = read(TRUTH, case.nodes), case.data, case.human
    before = np.asarray(case.score(*given)[1])
    after = np.asarray(case.score(*rows(given, at))[1])
    np.testing.assert_array_equal(before[keep], after[keep])
    assert (before != after).any()


@each
def test_answers_are_rows_of_a_table_that_can_be_checkpointed(name):
    case = answers(name)
    for leaf in jax.tree.leaves(case.data):
        assert leaf.shape[0] == N
        assert leaf.size
    np.testing.assert_array_equal(case.data.weight, np.ones(N, np.float32))
    assert case.data.weight.dtype == np.float32
    assert case.data.who is None
    x = case.kind.episodes(case.data)
    kept = x.tokens.shape[1]
    assert {leaf.shape[:2] for leaf in jax.tree.leaves(x)} == {(N, kept)}
    seeds = jax.eval_shape(
        jax.vmap(case.kind.ask, (None, None, 0)),
        PERSON,
        case.seen,
        jax.random.split(jax.random.key(0)),
    )
    assert all(s.shape[:2] == (2, N) for s in jax.tree.leaves(seeds))


# K = 3 options, F = 2 features.
@pytest.mark.parametrize(
    ("name", "samples", "cost"),
    [
        ("comparison", 2, 2),
        ("ranking", 3, 3),
        ("rating", 1, 1),
        ("likert", 1, 1),
        ("label", 1, 1),
        ("correction", 3, 2),
        ("demonstration", 5, 1),
        ("language", 5, 2),
        ("process", 1, 1),
        ("span", 1, 1),
    ],
)
def test_what_an_answer_costs(name, samples, cost):
    kind = named(Collect(feedback=name, options=OPTIONS), ALPHABET)
    assert (kind.samples, kind.cost) == (samples, cost)


@pytest.mark.parametrize("name", [kind.name for kind in KINDS if kind.chooses])
def test_a_choice_among_one_is_refused(name):
    with pytest.raises(ConfigError, match=f"options = 1: {name}"):
        named(Collect(feedback=name, options=1), ALPHABET)


# --- comparisons


OF_COMPARISON = jax.jit(comparison.nll)


def compared(label: Any, human: Human) -> np.ndarray:
    """nll of labels of one pair with r_a − r_b = ln 3."""
    label = jnp.asarray(label, jnp.float32)
    rewards = jnp.broadcast_to(jnp.asarray([np.log(3.0), 0.0]), (len(label), 2))
    data = Comparison(None, None, label, jnp.ones(len(label)))
    return np.asarray(OF_COMPARISON(Reading(rewards, None), data, human))


def test_a_tie_of_a_person_without_threshold_costs_what_a_coin_would():
    labels = [1.0, 0.75, 0.5, 0.0, CANT_TELL]
    a, b = -np.log(3 / 4), -np.log(1 / 4)
    expected = [a, 0.75 * a + 0.25 * b, (a + b) / 2, b, 0.0]
    np.testing.assert_allclose(compared(labels, STANDARD), expected, rtol=1e-5)
    np.testing.assert_allclose(
        comparison.bradley_terry(jnp.full(5, np.log(3.0)), jnp.zeros(5), jnp.asarray(labels)),
        expected,
        rtol=1e-5,
    )


def test_a_tie_of_a_person_with_a_threshold_is_an_answer_of_its_own():
    # τ = ln 2: P(a) = σ(ln 3/2) = 3/5, P(b) = σ(−ln 6) = 1/7, P(tie) = 9/35
    human = STANDARD._replace(tie=jnp.asarray([np.log(2.0), np.log(2.0), 0.0]))
    expected = [-np.log(3 / 5), -np.log(9 / 35), -np.log(3 / 16) / 2]
    np.testing.assert_allclose(compared([1.0, 0.5, 0.5], human), expected, rtol=1e-5)


def test_whoever_cannot_tell_has_not_answered():
    seen = Seen(strings(2, 2), jnp.asarray([[0.0, 1.0], [2.0, 1.0]]), None)
    kind = named(Collect(), ALPHABET)
    data = jax.jit(kind.ask)(Human(skip=1.5), seen, KEY)
    np.testing.assert_array_equal(data.label, [CANT_TELL, 1.0])
    np.testing.assert_array_equal(data.weight, [0.0, 1.0])


# --- corrections, demonstrations


def test_distance_is_the_share_of_places_that_differ():
    # ab$· beside ab$·, a$··, ba$·, abab
    np.testing.assert_array_equal(
        correction.distance(written("ab", "ab", "a", "ba", "abab")), [0, 0, 0.5, 0.5, 0.5]
    )


def test_a_person_and_their_likelihood_count_what_an_edit_costs():
    # Half of the places of a change, at 4 a whole one: worth 3 − 2 = 1 or 1 − 2 = −1.
    x = rows(written("ab", "a"), None)
    human, kind = Human(edit_cost=4.0), named(Collect(feedback="correction"), ALPHABET)
    for value, chosen in ((3.0, 1), (1.0, 0)):
        data = jax.jit(kind.ask)(human, Seen(x, jnp.asarray([[0.0, value]]), None), KEY)
        assert data.chosen == chosen
    reading = Reading(jnp.asarray([[0.0, 2 + np.log(3.0)]]), None)
    data = data._replace(chosen=jnp.asarray([1]))
    nll = kind.nll(reading, data, human._replace(rationality=1.0))
    np.testing.assert_allclose(nll, -np.log(3 / 4), rtol=1e-5)


def test_a_demonstration_is_the_best_of_what_came_to_mind_beside_fair_draws():
    x = rows(written("a", "b", "ab", "bb", "aaa"), None)
    seen = Seen(x, jnp.asarray([[1.0, 3.0, 2.0, 9.0, 9.0]]), None)
    data = jax.jit(demonstration.ask)(Human(), seen, KEY)
    np.testing.assert_array_equal(data.x.tokens, x.tokens[:, 1])
    np.testing.assert_array_equal(data.others.tokens, x.tokens[:, 3:])


def test_raising_demonstrations_alone_gains_less_and_less_and_never_more_than_all_there_is():
    case = answers("demonstration")
    fair, slopes = read(TRUTH, case.nodes), []
    for c in (0.0, 4.0, 8.0, 40.0):
        raised = fair.rewards + np.asarray([c, 0.0, 0.0], np.float32)
        gradient, nll = case.score(fair._replace(rewards=raised), case.data, case.human)
        slopes.append(float(np.mean(gradient.rewards[:, 0])))
    assert (np.diff(slopes) > 0).all()
    assert -1e-6 < slopes[-1] <= 0
    assert (np.asarray(nll) >= 0).all()


# --- critiques


measure = jax.jit(functools.partial(language.measure, ALPHABET))
counterfactuals = jax.jit(functools.partial(language.counterfactuals, ALPHABET))
ask_critique = jax.jit(functools.partial(language.ask, ALPHABET))


def test_features_by_hand():
    x = written("", "b", "ab", "abbb")
    top, bottom = zip(*(measure(*item) for item in zip(x.tokens, x.mask, strict=True)), strict=True)
    # a and b are letters 0 and 1 of the alphabet.
    np.testing.assert_allclose(np.divide(top, bottom), [[0, 0], [1, 1], [2, 0.5], [4, 0.75]])


def critique(values: list[float], *words: str) -> str:
    seen = Seen(rows(written(*words), None), jnp.asarray([values]), None)
    data = ask_critique(Human(), seen, KEY)
    return language.render(GRAMMAR, int(data.statement[0]))


def test_people_ask_for_more_of_what_would_help_most_and_less_of_what_would_harm_most():
    # ab beside a longer (abb of a, abb) and a later one (b of b, ba).
    words = ("ab", "a", "abb", "b", "ba")
    assert critique([0, 9, 2, 1, 9], *words) == "Make it more long."
    assert critique([0, 9, 1, -2, 9], *words) == "Make it less late."


def test_nothing_is_said_of_a_feature_that_no_draw_has_more_of():
    # Nothing is longer than abab; bbab is later.
    words = ("abab", "a", "baba", "bbab", "a")
    assert critique([0, 5, 5, 1, 0], *words) == "Make it more late."
    at, mask = counterfactuals(written(*words))
    np.testing.assert_array_equal(at, [2, 3])
    np.testing.assert_array_equal(mask, [False, True])


def test_a_critique_keeps_what_it_speaks_of():
    case = answers("language")
    x = case.kind.episodes(case.data)
    index, mask = jax.jit(jax.vmap(counterfactuals))(case.seen.x)
    np.testing.assert_array_equal(x.tokens[:, 0], case.seen.x.tokens[:, 0])
    for f in range(2):
        np.testing.assert_array_equal(
            x.tokens[:, 1 + f], case.seen.x.tokens[np.arange(N), index[:, f]]
        )
    np.testing.assert_array_equal(case.data.mask, mask)
    assert 0.3 < np.mean(mask) < 0.9


# --- spans


@pytest.mark.parametrize("n", range(10))
def test_spans_are_as_even_as_can_be_and_add_up_to_the_sample(n):
    mask = jnp.arange(9) < n
    ends, real = jax.jit(span.cuts)(mask)
    assert real.sum() == min(n, span.SPANS)
    assert (int(ends[0]), int(ends[-1])) == (0, n)
    lengths = np.diff(ends)
    assert not lengths[~np.asarray(real)].any()
    if n:
        assert np.ptp(lengths[np.asarray(real)]) <= 1
        assert lengths[np.asarray(real)].min() >= 1
    prefixes = jnp.arange(10.0) ** 2
    assert jax.jit(span.gained)(prefixes, mask).sum() == n**2


def test_a_perfect_person_marks_the_spans_that_weaken_the_sample():
    # a, ab, ab$: worth 1, −1, 0; the fourth span does not exist.
    x = rows(written("ab"), None)
    seen = Seen(x, jnp.zeros((1, 1)), jnp.asarray([[[1.0, -1.0, 0.0, 7.0]]]))
    data = jax.jit(span.ask)(Human(bar=9.0), seen, KEY)
    np.testing.assert_array_equal(data.spans, [[True, True, True, False]])
    np.testing.assert_array_equal(data.category[0, :3], [0, 1, 0])


def test_a_perfect_person_calls_the_prefixes_above_the_bar_good():
    x = rows(written("ab"), None)
    seen = Seen(x, jnp.zeros((1, 1)), jnp.asarray([[[1.0, -1.0, 0.6, 7.0]]]))
    data = jax.jit(process.ask)(Human(bar=0.5), seen, KEY)
    np.testing.assert_array_equal(data.steps, [[True, True, True, False]])
    np.testing.assert_array_equal(data.label[0, :3], [1, 0, 1])
