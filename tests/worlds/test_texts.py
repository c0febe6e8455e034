"""Real answers become a table, a reward that is measured on held-out prompts, and a policy."""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import SHAPE

from rlhf_jax import loop, pipeline, report
from rlhf_jax.config import (
    PPO,
    Adam,
    Collect,
    Config,
    ConfigError,
    Evaluate,
    Pretrain,
    Reward,
    World,
)
from rlhf_jax.data.rows import Comparison, Rating, Row, text
from rlhf_jax.humans.choice import CANT_TELL
from rlhf_jax.kernels import measure
from rlhf_jax.own import Own
from rlhf_jax.study import replaced as replaced_at
from rlhf_jax.validate import validate
from rlhf_jax.worlds import texts

SETTINGS = World(name="texts", length=8, prompt_length=8, vocabulary=64, held_out=0.25)
CONFIG = Config(
    seeds=1,
    world=SETTINGS,
    model=SHAPE,
    pretrain=Pretrain(epochs=2, batch=16, adam=Adam(learning_rate=1e-2)),
    reward=Reward(batch=32, steps=192, look=48, adam=Adam(learning_rate=1e-2, final=1.0)),
    ppo=PPO(iterations=2, batch=16, epochs=1),
    evaluate=Evaluate(samples=32, shown=2),
)
WORDS = ("good", "bad", "so", "it")


def replaced(config: Any, changes: dict[str, Any]) -> Any:
    for path, value in changes.items():
        config = replaced_at(config, path, value)
    return config


def answers(people: tuple[str, ...] = ("",), prompts: int = 16) -> list[Comparison]:
    """Of two responses the one that says good more often wins; equal ones tie."""
    rng = np.random.default_rng(0)
    out = []
    for p, _ in itertools.product(range(prompts), range(12)):
        a, b = (" ".join(rng.choice(WORDS, 3)) for _ in range(2))
        more = np.sign(a.count("good") - b.count("good"))
        for who in people:
            out.append(
                Comparison(
                    prompt=text(f"number {p:04b}"),
                    a=text(a),
                    b=text(b),
                    label=float((more + 1) / 2),
                    annotator=who,
                )
            )
    return out


def number(prompt: str) -> int:
    return int(prompt.split()[1], 2)


def spelled(data: texts.Answered, tokens: np.ndarray, mask: np.ndarray) -> list[str]:
    assert data.world.language.text is not None
    return [data.world.language.text(t[m]) for t, m in zip(tokens, mask, strict=True)]


@pytest.fixture(scope="module")
def line() -> pipeline.Pipeline:
    config = validate(CONFIG)
    data = texts.answered(answers(), config.world)
    return pipeline.build(config, jax.devices()[:1], own=Own(data=data))


@pytest.fixture(scope="module")
def metrics(line: pipeline.Pipeline) -> dict[str, np.ndarray]:
    state, out = line.begin(), {}
    for call in line.plan:
        state, found = call.run(state)
        out |= {name: np.asarray(x) for name, x in found.items()}
    return out


@pytest.mark.slow
def test_a_reward_model_learns_the_rule_of_real_answers_on_held_out_prompts(
    metrics: dict[str, np.ndarray],
):
    assert metrics["reward/accuracy_heldout"] > 0.95


@pytest.mark.slow
def test_of_a_world_without_gold_nothing_is_measured_that_only_gold_could_say(
    metrics: dict[str, np.ndarray],
):
    for name in metrics:
        assert "gold" not in name
        assert "nonword" not in name
    assert {"eval/proxy_sampled", "eval/kl_exact", "eval/distinct_share"} <= metrics.keys()
    assert 1 <= metrics["eval/length"] <= SETTINGS.length + 1


@pytest.mark.slow
def test_where_nobody_answers_twice_no_ceiling_is_said(metrics: dict[str, np.ndarray]):
    assert "reward/ceiling_human" not in metrics


@pytest.mark.slow
def test_the_table_holds_the_rows_in_their_order(line: pipeline.Pipeline):
    state = line.begin()
    collect = next(call for call in line.plan if call.stage == "collect")
    state, found = collect.run(state)
    table, data = state.table.answers, line.parts.data
    assert data is not None
    shown = set(range(16)) - {number(s) for s in held_out_prompts(data)}
    rows = [r for r in answers() if number(r.prompt[0].content) in shown]
    one = jax.tree.map(lambda leaf: np.asarray(leaf[0]), table)
    assert spelled(data, one.a.tokens, one.a.mask) == [r.a[0].content for r in rows]
    assert spelled(data, one.b.tokens, one.b.mask) == [r.b[0].content for r in rows]
    asked = one.a.prompts
    assert spelled(data, asked.tokens, asked.mask) == [r.prompt[0].content for r in rows]
    np.testing.assert_array_equal(one.label, [r.label for r in rows])
    assert int(state.table.filled[0]) == len(rows)
    ties = np.mean([r.label == 0.5 for r in rows])
    np.testing.assert_allclose(found["collect/tie_share"][0], ties, rtol=1e-6)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(
    line: pipeline.Pipeline, tmp_path: Path
):
    once, twice = (
        replaced(CONFIG, {"run.directory": str(tmp_path), "name": name}) for name in ("a", "b")
    )
    straight = loop.run(once, "once", line)
    loop.run(twice, "stopped", line._replace(plan=line.plan[:5]))
    stopped = loop.run(twice, "again", line)
    for name in ("metrics.jsonl", "samples.jsonl"):
        assert (straight / name).read_bytes() == (stopped / name).read_bytes()
    # What is written of it.
    page = report.write_report(straight).read_text()
    said = json.loads((straight / "disclosure.json").read_text())
    assert "rows given in Python" in said["feedback"]["who"]
    assert "4 were held out" in said["feedback"]["shown"]
    assert said["feedback"]["person"] == {}
    assert said["evaluation"]["gold"].startswith("none")
    assert {"no_gold", "no_ceiling"} <= {found["rule"] for found in said["shortcomings"]}
    measured = {row["metric"] for row in said["evaluation"]["results"]}
    assert measured == {
        "eval/proxy_sampled",
        "eval/kl_exact",
        "eval/distinct_share",
        "eval/length",
    }
    assert said["missing"] == []
    for word in (
        "non-word",
        "Non-word",
        "gold went",
        "strings that nobody rated",
        "Another person",
    ):
        assert word not in page
    assert "only the proxy was measured" in page
    # Another file under the same name is another run.
    other = line._replace(world=line.world._replace(facts=line.world.facts | {"sha256": "1"}))
    metadata = json.loads((straight / "metadata.json").read_text())
    assert "sha256" not in metadata["data"]
    fresh = replaced(once, {"name": "c"})
    loop.run(fresh, "one file", other._replace(plan=other.plan[:2]))
    changed = line._replace(world=line.world._replace(facts=line.world.facts | {"sha256": "2"}))
    with pytest.raises(ConfigError, match="put the file back"):
        loop.run(fresh, "another", changed)


def held_out_prompts(data: texts.Answered) -> set[str]:
    asked = data.unseen.x.prompts
    return set(spelled(data, np.asarray(asked.tokens), np.asarray(asked.mask)))


def test_nothing_of_a_held_out_prompt_is_shown_or_modelled():
    data = texts.answered(answers(), SETTINGS)
    corpus = data.world.asked
    assert corpus is not None
    shown = set(spelled(data, np.asarray(corpus.tokens), np.asarray(corpus.mask)))
    told = set(spelled(data, data.answers.a.prompts.tokens, data.answers.a.prompts.mask))
    out = held_out_prompts(data)
    assert len(out) == 4
    assert told == shown
    assert out | shown == {f"number {p:04b}" for p in range(16)}
    assert not out & shown
    for prompt, expected in ((data.world.prompt, shown), (data.world.examined, out)):
        assert prompt is not None
        drawn = jax.vmap(prompt, (None, 0))(SETTINGS, jax.random.split(jax.random.key(0), 64))
        assert set(spelled(data, *map(np.asarray, drawn))) <= expected


def test_prompts_of_one_group_are_held_out_together():
    rows = [
        dataclasses.replace(r, group=f"debate {number(r.prompt[0].content) // 4}")
        for r in answers()
    ]
    out = {number(s) // 4 for s in held_out_prompts(texts.answered(rows, SETTINGS))}
    assert len(out) == 1


def test_a_response_is_cut_at_its_end_and_a_prompt_at_its_beginning():
    rows = answers()
    long = dataclasses.replace(
        rows[0], prompt=text("so so so so so so so so it"), a=text(" ".join(["good"] * 20))
    )
    data = texts.answered([long, *rows], replaced(SETTINGS, {"held_out": 0.05}))
    assert data.world.facts["responses_cut"] == 1
    assert data.world.facts["prompts_cut"] == 1
    a = jax.tree.map(lambda leaf: leaf[0], data.answers.a)
    language = data.world.language
    assert a.mask.all()
    assert language.eos not in a.tokens
    assert a.prompts.mask.all()
    assert a.prompts.tokens[-1] == language.bos
    assert spelled(data, a.prompts.tokens[None], a.prompts.mask[None])[0].endswith("it")


def test_whoever_cannot_tell_counts_for_nothing():
    rows = answers()
    skipped = [dataclasses.replace(r, label=None) for r in rows[::3]]
    data = texts.answered([*rows, *skipped], SETTINGS)
    unknown = np.asarray(data.answers.label) == CANT_TELL
    assert unknown.any()
    np.testing.assert_array_equal(data.answers.weight, ~unknown)
    assert data.unseen.said.sum() == sum(
        r.prompt[0].content in held_out_prompts(data) for r in rows
    )


def test_the_tokenizer_is_the_same_for_the_same_texts():
    corpus = [r.a[0].content + " é ü ö" for r in answers()]
    one, other = (texts.trained(corpus, 20) for _ in range(2))
    assert one.to_str() == other.to_str()
    assert one.get_vocab_size() <= 20


def test_a_tokenizer_is_loaded(tmp_path: Path):
    path = tmp_path / "tokenizer.json"
    texts.trained([r.a[0].content for r in answers()], 40).save(str(path))
    data = texts.answered(answers(), replaced(SETTINGS, {"tokenizer": str(path)}))
    assert data.world.facts["tokenizer"] == "loaded: tokenizer.json"
    with pytest.raises(ConfigError, match=r"world.tokenizer = .*absent"):
        texts.answered(answers(), replaced(SETTINGS, {"tokenizer": str(tmp_path / "absent")}))


def test_the_ceiling_is_how_well_another_annotator_predicts_one():
    # Of 3 a and 1 b each a is predicted by 2 of 3 others, the b by none; then one pair that is
    # tied but for one, and one that a single person saw.
    votes = np.asarray([[3.0, 0.0, 1.0], [1.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    found = texts.ceilings(votes)
    assert found is not None
    np.testing.assert_allclose(found[0], (3 * 2 / 3 + 0 + 0.5) / 5)
    np.testing.assert_allclose(found[1], (3 + 0 + 0.5) / 5)
    assert texts.ceilings(votes[2:]) is None


def test_whoever_answers_twice_about_one_pair_is_no_ceiling_to_themselves():
    once = answers(("Ada",))
    assert texts.answered([*once, *once], SETTINGS).unseen.ceilings is None
    ceilings = texts.answered(answers(("Ada", "Bob")), SETTINGS).unseen.ceilings
    assert ceilings == (1.0, 1.0)


def test_a_pair_is_one_whichever_is_shown_first():
    rows = answers(("Ada",))
    turned = [
        dataclasses.replace(r, a=r.b, b=r.a, label=1.0 - (r.label or 0.0), annotator="Bob")
        for r in rows
    ]
    alone, both = (texts.answered(x, SETTINGS).unseen for x in (rows, [*rows, *turned]))
    np.testing.assert_array_equal(both.said, 2 * alone.said)


def test_scores_are_measured_by_the_answers_that_take_a_side():
    x = texts.answered(answers(), SETTINGS).unseen.x
    said = np.asarray([[3, 1, 1], [0, 2, 1], [0, 1, 4]], np.float32)
    pairs = np.asarray([[0, 1], [1, 2], [0, 2]], np.int32)
    unseen = texts.Unseen(x, pairs[:, 0], pairs[:, 1], said, (0.75, 0.8))
    found = measure.by_pairs(unseen, jnp.asarray([2.0, 1.0, 1.5]))
    gaps, sides = np.asarray([1.0, -0.5, 0.5]), said[:, [0, 2]]
    cost = np.log1p(np.exp(-np.stack([gaps, -gaps], axis=1)))
    np.testing.assert_allclose(found["reward/accuracy_heldout"], (3 + 1 + 0) / 9, rtol=1e-6)
    np.testing.assert_allclose(found["reward/accuracy_majority"], 1 / 2, rtol=1e-6)
    np.testing.assert_allclose(found["reward/logloss"], (cost * sides).sum() / 9, rtol=1e-6)
    np.testing.assert_allclose(found["reward/ceiling_human"], 0.75, rtol=1e-6)


def test_calibration_does_not_depend_on_which_is_shown_first():
    x = texts.answered(answers(), SETTINGS).unseen.x
    # Four of five prefer the first, whose reward says so: log odds of 4.
    first = texts.Unseen(x, np.asarray([0]), np.asarray([1]), np.asarray([[4.0, 0.0, 1.0]]), None)
    second = first._replace(a=first.b, b=first.a, said=first.said[:, ::-1])
    for unseen in (first, second):
        found = measure.by_pairs(unseen, jnp.asarray([np.log(4.0), 0.0], jnp.float32))
        np.testing.assert_allclose(found["reward/ece"], 0.0, atol=1e-6)
        assert "reward/ceiling_human" not in found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"collect.feedback": "rating"}, "collect.feedback is rating"),
        ({"rounds": 2}, "rounds = 2"),
        ({"collect.budget": 64}, "collect.budget = 64"),
        ({"human.lapse": 0.1}, "human.lapse = 0.1"),
        ({"reward.kind": "gold"}, "no gold"),
        ({"reward.noise": "known"}, "reward.noise = known"),
        ({"world.name": "words", "world.vocabulary": 512}, "world.prompt_length = 8"),
        ({"collect.arguments": "second.json"}, "collect.arguments"),
    ],
    ids=lambda x: "" if isinstance(x, str) else "-".join(x),
)
def test_what_real_answers_leave_no_room_for_is_refused(changes: dict[str, Any], words: str):
    with pytest.raises(ConfigError, match=words):
        validate(replaced(CONFIG, changes))


def test_a_source_needs_a_world_of_texts():
    with pytest.raises(ConfigError, match=r"collect.source = file.jsonl needs world.name = texts"):
        validate(Config(collect=Collect(source="file.jsonl")))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "holds nothing"),
        ([Rating(x=text("it"), value=1.0)], "holds rating, and only comparisons"),
        (answers(prompts=1), "about one prompt"),
        ([dataclasses.replace(r, label=None) for r in answers()], "nobody answered"),
    ],
    ids=("empty", "ratings", "one prompt", "no answer"),
)
def test_rows_that_say_nothing_of_held_out_prompts_are_refused(rows: list[Row], words: str):
    with pytest.raises(ConfigError, match=words):
        texts.answered(rows, SETTINGS)


def test_what_a_file_is_too_small_for_is_said_of_the_file():
    data = texts.answered(answers(), SETTINGS)
    large = validate(replaced(CONFIG, {"reward.batch": 256}))
    with pytest.raises(ConfigError, match=r"more than the \d+ answers that rows given in Python"):
        pipeline.build(large, jax.devices()[:1], own=Own(data=data))
    two = texts.answered(answers(prompts=2), SETTINGS)
    small = validate(replaced(CONFIG, {"reward.batch": 4}))
    with pytest.raises(ConfigError, match=r"all 12 answers .* about one prompt"):
        pipeline.build(small, jax.devices()[:1], own=Own(data=two))


def test_without_answers_there_is_no_world_of_texts():
    with pytest.raises(ConfigError, match=r"--collect.source FILE"):
        pipeline.build(validate(CONFIG), jax.devices()[:1])


def test_answers_are_given_once():
    data = texts.answered(answers(), SETTINGS)
    both = validate(replaced(CONFIG, {"collect.source": "file.jsonl"}))
    with pytest.raises(ConfigError, match=r"file.jsonl: the answers are given already"):
        pipeline.build(both, jax.devices()[:1], own=Own(data=data))
    with pytest.raises(ConfigError, match=r"need world.name = texts, not words"):
        pipeline.build(Config(), jax.devices()[:1], own=Own(data=data))


def test_a_file_gives_what_its_rows_give(tmp_path: Path):
    decided = [r for r in answers() if r.label != 0.5]
    path = tmp_path / "own.jsonl"
    with path.open("w") as file:
        for r in decided:
            chosen, rejected = (r.a, r.b) if r.label else (r.b, r.a)
            said = {"prompt": r.prompt, "chosen": chosen, "rejected": rejected}
            file.write(json.dumps({k: x[0].content for k, x in said.items()}) + "\n")
    found = texts.read(replaced(CONFIG, {"collect.source": str(path)}))
    won = [r if r.label else dataclasses.replace(r, a=r.b, b=r.a, label=1.0) for r in decided]
    expected = texts.answered(won, SETTINGS)
    jax.tree.map(np.testing.assert_array_equal, found.answers, expected.answers)
    assert found.world.facts["source"] == "own.jsonl"
    assert found.world.facts["format"] == "trl_preference"


def test_real_transcripts_become_a_world_whose_ceiling_nobody_knows(data_folder: Path):
    path = data_folder / "hh_rlhf_harmless.jsonl.gz"
    data = texts.read(replaced(CONFIG, {"collect.source": str(path), "world.vocabulary": 512}))
    facts = data.world.facts
    assert facts["format"] == "hh_rlhf"
    assert facts["answers"] == 1800 == len(data.answers.label) + facts["answers_held_out"]
    assert facts["prompts_held_out"] == np.ceil(SETTINGS.held_out * facts["prompts"])
    assert data.unseen.ceilings is None
    assert set(np.asarray(data.answers.label)) == {1.0}


def test_real_debates_are_held_out_whole_and_have_a_ceiling(data_folder: Path, tmp_path: Path):
    with gzip.open(data_folder / "ukpconvarg1_pairs.jsonl.gz", "rt") as file:
        lines = list(file)[::40]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(lines))
    second = data_folder / "ukpconvarg1_args.json.gz"
    changes = {"collect.source": str(path), "collect.arguments": str(second)}
    data = texts.read(replaced(CONFIG, changes | {"world.vocabulary": 256}))
    debate = {json.loads(line)["topic"]: json.loads(line)["debate"] for line in lines}
    assert data.world.facts["prompts"] == len(debate)
    assert len(set(data.unit.tolist())) < len(set(debate.values()))
    another, most = data.unseen.ceilings or (0.0, 0.0)
    assert 0.6 < another < most < 0.85
