"""The studies of steps and of spans: arrays by hand, fits that recover a known reward, no leak."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlhf_jax.data.convert import read_rows
from rlhf_jax.data.formats import FORMATS, Options
from rlhf_jax.data.relations import RELATION, relation, run, tokens
from rlhf_jax.data.rows import Process, RowError, Span, Step, text
from rlhf_jax.data.segments import collect, mark, segments
from rlhf_jax.feedback import STANDARD, comparison, process, span

SCRIPTS = Path(__file__).parents[2] / "scripts"


def load(name):
    spec = importlib.util.spec_from_file_location(f"{name}_script", SCRIPTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[f"{name}_script"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def steps():
    return load("steps")


@pytest.fixture(scope="module")
def spans():
    return load("spans")


def trace(said, first, task="t", prompt="a b"):
    labels = [1 if first is None or i < first else -1 if i == first else None for i in range(9)]
    parts = tuple(Step(i, s, v) for i, (s, v) in enumerate(zip(said, labels, strict=False)))
    return Process(prompt=text(prompt), group=task, steps=parts)


def test_relations_count_what_is_new_and_what_is_missing():
    own, other = tokens("( ; stack: ( <"), tokens("< ; stack: (")
    found = dict(zip(RELATION, relation(own, other), strict=True))
    # Bags {( ; stack : ( <} and {< ; stack : (}: five in common; "; stack : (" is the longest run.
    assert found["share of own tokens in the other"] == pytest.approx(5 / 6)
    assert found["share of the other's tokens in own"] == 1.0
    assert found["one longer"] == 1.0
    assert found["log tokens only here"] == pytest.approx(np.log(2))
    assert run(own, other).tolist() == [4 / 5, 1.0]
    assert run(own, other[:2]).tolist() == [1 / 2, 1.0]
    assert not relation([], own).any()
    assert not run(own, []).any()


def test_segments_end_at_punctuation_and_have_five_words():
    said = " One two three four five, six seven. Eight nine ten eleven twelve. "
    assert [said[a:b] for a, b in segments(said)] == [
        "One two three four five, six seven.",
        "Eight nine ten eleven twelve.",
    ]
    assert [a for a, _ in segments("Hm. One two three four five.")] == [0]
    assert segments("  ") == []


def test_a_segment_has_the_span_that_overlaps_it_most_if_that_is_half_of_either():
    parts = [(0, 10), (11, 40), (41, 60)]
    marked = (Span(0, 4, "x"), Span(5, 28, "y"), Span(58, 70, "z"))
    # (0, 10): x is in it whole (4), y covers half of it (5). (11, 40): y 17 of 29. z 2 of 12.
    assert mark(parts, marked) == [1, 1, -1]
    assert mark(parts, ()) == [-1, -1, -1]


def test_steps_become_rows_in_order_and_none_is_the_number_of_steps(steps):
    data = steps.collect([trace(["a", "b", "c"], 1), trace(["d"], None, "u")])
    assert data.first.tolist() == [1, 1]
    assert data.real.tolist() == [[True, True, True], [True, False, False]]
    assert data.place.tolist() == [[0, 1, 2], [3, 0, 0]]
    assert (data.owner.tolist(), data.task.tolist()) == ([0, 0, 0, 1], [0, 1])
    with pytest.raises(steps.ConfigError, match="must be answers"):
        steps.collect([])


def test_one_reading_a_step_says_what_the_index_of_the_first_mistake_says(steps):
    rng = np.random.default_rng(0)
    r = jnp.asarray(rng.normal(size=(20, 5)), jnp.float32)
    real = np.arange(5)[None] < rng.integers(1, 6, 20)[:, None]
    first = jnp.asarray(np.minimum(rng.integers(0, 6, 20), real.sum(1)), jnp.int32)
    at = jnp.arange(5)[None]
    right, seen = (at < first[:, None]).astype(jnp.int32), real & (at <= first[:, None])
    whole = lambda r: jnp.sum(process.loss_first_error(r, first, real))
    for nll in (steps.first_mistake, steps.every_step):
        parts = lambda r, nll=nll: jnp.sum(
            jnp.where(seen.ravel(), nll(r.ravel(), right.ravel()), 0)
        )
        assert parts(r) == pytest.approx(float(whole(r)), rel=1e-5)
        np.testing.assert_allclose(jax.grad(parts)(r), jax.grad(whole)(r), atol=1e-5)


def test_sure_rewards_are_judged_right_and_level_ones_halve_at_each_step(steps):
    first, real = np.asarray([1, 3, 2]), np.asarray([[1, 1, 1], [1, 1, 1], [1, 1, 0]], bool)
    sure = np.where(np.arange(3)[None] < first[:, None], 40.0, -40.0)
    found = steps.judge(sure, first, real)
    assert found.guess.tolist() == first.tolist()
    np.testing.assert_allclose(found.mistake, [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found.nats, 0, atol=1e-6)
    # Coins: P(first = e) = 2^−(e+1), P(none) = 2^−n.
    level = steps.judge(np.zeros((3, 3)), first, real)
    np.testing.assert_allclose(np.exp(-level.nats), [1 / 4, 1 / 8, 1 / 4], rtol=1e-5)
    np.testing.assert_allclose(level.mistake, [7 / 8, 7 / 8, 3 / 4], rtol=1e-5)


def test_scores_of_the_truth_are_perfect(steps):
    rows = [trace(["a", "b", "c"], i % 3 if i % 4 else None) for i in range(12)]
    data, n = steps.collect(rows), 12
    sure = np.where(np.arange(3)[None] < data.first[:, None], 40.0, -40.0)
    draws = steps.scores.draw(np.ones(n), np.arange(n))
    cells = steps.measure(steps.judge(sure, data.first, data.real), data, draws)
    assert cells[:4] == ["1.000 [1.000, 1.000]"] * 4
    assert cells[4:] == ["0.000 [0.000, 0.000]"] * 2


def made(key, n, s, k, weights):
    """Features [n·s, k], true rewards [n, s] of `weights` [g, k], whose group is n mod g."""
    x = jax.random.normal(key, (n * s, k))
    group = np.arange(n) % len(weights)
    r = jnp.sum(x.reshape(n, s, k) * jnp.asarray(weights)[group][:, None], axis=2) + 1.0
    return x, group, r


def test_the_fit_to_first_mistakes_recovers_the_reward_of_each_group(steps):
    n, s = 3000, 5
    x, group, r = made(jax.random.key(0), n, s, 3, np.asarray([[1.0, -0.5, 0.0], [0.0, 1.0, 0.5]]))
    real = np.arange(s)[None] < np.random.default_rng(0).integers(2, s + 1, n)[:, None]
    first = process.elicit_first_error(STANDARD, r, jnp.asarray(real), jax.random.key(1))
    at, group = np.arange(s)[None], np.repeat(group, s)
    right = np.asarray(at < first[:, None], np.int32).ravel()

    def fit(seen):
        weight = np.asarray(seen, np.float32).ravel()[None]
        return steps.fit(x, right, group, weight, steps.first_mistake, 2, 1e-6, 25)[0].reshape(n, s)

    read = fit(real & (at <= first[:, None]))
    assert np.abs(read - r)[real].mean() < 0.15
    # To call all that follows a mistake wrong is not what the person said: rewards sink.
    assert (fit(real) - r)[real].mean() < -0.3


def test_the_label_of_a_held_out_answer_leaves_no_trace_in_its_prediction(steps):
    said = [["a b", "a", "b b"], ["b", "c a", "a"], ["c", "c b", "a a a"]]
    firsts = [0, 1, 2, None, 1, 0, None, 2, 1]
    rows = [trace(said[i % 3], f) for i, f in enumerate(firsts)]
    other = [trace(said[0], 2), *rows[1:]]
    out = np.arange(9) % 3
    one, two = (steps.held_out(steps.collect(r), "place + text", out, True) for r in (rows, other))
    np.testing.assert_array_equal(one[out == 0], two[out == 0])
    assert np.abs(one[out > 0] - two[out > 0]).max() > 1e-3


def test_the_fit_to_spans_recovers_the_rewards_of_every_category(spans):
    n, k, count = 6000, 3, 2
    x = jax.random.normal(jax.random.key(2), (n, k))
    w = np.asarray([[1.0, 0.0], [-1.0, 0.5], [0.0, 1.0]], np.float32)
    r = x @ w + jnp.asarray([[0.5, 1.0]])
    said = span.elicit(STANDARD, r[:, None], jax.random.key(3))[:, 0]
    half = (np.arange(n) < n // 2) * np.ones((2, 1))
    known = np.stack([half[0], 1 - half[1]]).astype(np.float32)
    found = spans.fit(x, said, known, x, count, 1e-6, 25)
    assert np.abs(found - r[None]).mean(axis=(1, 2)).max() < 0.15
    # log-probabilities of the truth, against the likelihood itself
    log_p = spans.log_probabilities(r)[np.arange(n), said]
    nll = span.loss(r[:, None], said[:, None], jnp.ones((n, 1), bool))
    np.testing.assert_allclose(log_p, -nll, atol=1e-5)


def test_the_fit_to_preferences_recovers_the_order_of_answers(spans):
    x = jax.random.normal(jax.random.key(4), (50, 2))
    r = x @ jnp.asarray([1.0, -2.0])
    a, b = np.random.default_rng(2).integers(0, 50, (2, 4000))
    label = comparison.elicit(STANDARD, r[a], r[b], jax.random.key(5))
    found = spans.fit_pairs(x, a, b, label, np.ones((1, 4000), np.float32), 1e-6, 25)[0]
    assert np.abs((found - found.mean()) - (r - r.mean())).mean() < 0.15


def test_the_threshold_is_that_of_the_greatest_f1(spans):
    # marking 1, 2, 3, 4: F1 2/3, 2/4, 4/5, 4/6
    assert spans.threshold(np.asarray([0.1, 0.5, 0.9, 0.2]), np.asarray([0, 0, 1, 1])) == 0.2


def test_the_real_steps_load_fit_and_beat_the_base_rate(data_folder, steps):
    path = data_folder / "bigbench_mistake.jsonl.gz"
    rows = read_rows(path, FORMATS["bigbench_mistake"], Options()).rows
    assert len({(r.group, r.prompt) for r in rows}) == len(rows) == 1886  # no problem comes twice
    data = steps.collect([r for r in rows if r.group == "tracking_shuffled_objects"])
    none = data.first == data.real.sum(1)
    assert (len(none), none.sum()) == (300, 40)
    parts = steps.scores.folds(np.arange(300), 3)
    nats = {}
    for kind in ("base rate", "place + text"):
        found = steps.judge(steps.held_out(data, kind, parts, True), data.first, data.real)
        nats[kind] = found.nats.mean()
    assert nats["place + text"] < nats["base rate"] - 0.1


def test_the_real_spans_load_and_their_segments_are_marked(data_folder):
    path = data_folder / "finegrained_rlhf_dev.jsonl.gz"
    data = collect(read_rows(path, FORMATS["finegrained_rlhf"], Options()).rows)
    assert data.categories[0] == "Irrelevant"
    assert len(data.categories) == 5
    assert len(data.label) == 2400
    asked = data.category >= 0
    assert len(np.unique(data.owner[asked])) == 400
    assert data.spans == 1110
    assert data.lost < 0.1 * data.spans
    with pytest.raises(RowError, match="must be marked"):
        collect([])


@pytest.mark.parametrize("name", ["steps", "spans"])
def test_a_usage_mistake_is_one_clear_error(name, request, tmp_path, capsys):
    study = request.getfixturevalue(name)
    assert study.cli.main(study.work, []) == 2
    assert study.cli.main(study.work, [str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 2
