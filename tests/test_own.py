"""What is passed in from Python takes the place of what is named: the blocks of docs/python.md."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import LANGUAGE, prompts

import rlhf_jax
from rlhf_jax import config as cfg
from rlhf_jax import loop, pipeline
from rlhf_jax.config import Config, ConfigError, World
from rlhf_jax.feedback import comparison, rating
from rlhf_jax.kernels.credit import credit
from rlhf_jax.kernels.experience import Scored
from rlhf_jax.kernels.sampling import chosen
from rlhf_jax.own import Own
from rlhf_jax.report import records
from rlhf_jax.report.disclosure import _reward
from rlhf_jax.types import Episode

DOCUMENT = Path(__file__).parents[1] / "docs" / "python.md"
IN_MEMORY, IMPORTS, *BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.S)
SCORE, FEEDBACK, PERSON, WORLD, LOSS, PENALTY, STUDY = BLOCKS
TINY = Config(
    name="own",
    seeds=2,
    world=World(name="probe", length=3, symbols=3),
    model=cfg.Model(width=8, layers=1, heads=2, kv_heads=1, mlp=16),
    pretrain=cfg.Pretrain(epochs=2, batch=8),
    collect=cfg.Collect(budget=64),
    reward=cfg.Reward(steps=4, look=2, batch=8),
    ppo=cfg.PPO(iterations=8, batch=32, epochs=2, minibatches=1),
    evaluate=cfg.Evaluate(samples=64, shown=0),
    run=cfg.Run(chunk=4),
)


def names(block: str, config: Config = TINY) -> dict[str, Any]:
    """What a block of the document defines."""
    found: dict[str, Any] = {"config": config}
    exec(IMPORTS + block, found)
    return found


def through(line: pipeline.Pipeline, until: str = "") -> tuple[pipeline.State, list[tuple]]:
    """The last state and (stage, metrics) of every call, up to the first of a stage."""
    state, said = line.begin(), []
    for call in line.plan:
        state, metrics = call.run(state)
        said.append((call.stage, {k: np.asarray(v) for k, v in metrics.items()}))
        if call.stage == until:
            break
    return state, said


@pytest.mark.parametrize("block", [IN_MEMORY, *BLOCKS])
def test_each_takes_ten_lines_or_fewer(block):
    assert len([line for line in block.splitlines() if line.strip()]) <= 10


def test_a_run_in_memory_is_that_of_the_loop(tmp_path):
    found: dict[str, Any] = {"config": TINY}
    exec(IN_MEMORY, found)
    run = dataclasses.replace(TINY.run, directory=str(tmp_path))
    directory = loop.run(dataclasses.replace(TINY, run=run), "test")
    rows = [json.loads(row) for row in (directory / "metrics.jsonl").read_text().splitlines()]
    last = {k: v for k, v in found["metrics"].items() if not k.startswith("sample/")}
    for name, values in last.items():
        np.testing.assert_array_equal(np.asarray(values, np.float32), np.float32(rows[-1][name]))


def test_a_score_is_what_the_policy_is_trained_to_raise_and_nothing_is_fitted(tmp_path):
    slow = dataclasses.replace(
        TINY, ppo=dataclasses.replace(TINY.ppo, iterations=40, batch=64, kl_weight=0.1)
    )
    found = names(SCORE, slow)
    state, said = through(found["line"])
    assert "reward" not in [stage for stage, _ in said]
    looks = [m["eval/proxy_sampled"] for stage, m in said if stage == "evaluate"]
    # On its scale: mean 0 and deviation 1 over samples of the reference.
    np.testing.assert_allclose(looks[0], 0.0, atol=0.5)
    np.testing.assert_allclose(state.judging.panel.whole.deviation, 0.27, atol=0.1)
    assert (looks[-1] > 0.7).all()


def test_a_kind_of_feedback_fills_the_table():
    line = names(FEEDBACK)["line"]
    state, said = through(line, "reward")
    ratings = np.asarray(state.table.answers.rating)
    np.testing.assert_array_equal(ratings, np.round(ratings))
    assert len(np.unique(ratings)) > 2
    assert np.isfinite(said[-1][1]["loss/reward"]).all()


def test_a_person_and_a_world_are_who_is_asked_about_what():
    line = names(PERSON)["line"]
    np.testing.assert_array_equal(line.parts.people.human.seen_to, 0.5)
    np.testing.assert_array_equal(line.parts.people.human.weights, [[[1.0, 0.5]]] * 2)
    state, _ = through(names(WORLD)["line"], "collect")
    answers = state.table.answers
    count = lambda x: np.asarray(jnp.sum((x.tokens == 0) & x.mask, axis=-1))
    d = count(answers.a) - count(answers.b)
    np.testing.assert_array_equal(answers.label, (1 + np.sign(d)) / 2)


def test_a_loss_is_what_the_reward_model_is_fitted_by():
    def nll(reading, data, human):
        """Bradley and Terry's, written once more."""
        gap = reading.rewards[:, 0] - reading.rewards[:, 1]
        return jnp.logaddexp(0.0, -gap) + (1.0 - data.label) * gap

    told = [
        through(rlhf_jax.build(TINY, **own), "reward")[1][-1][1]["loss/reward"]
        for own in ({}, {"feedback": comparison.KIND._replace(nll=nll)})
    ]
    np.testing.assert_allclose(*told, rtol=1e-5)
    hinge = through(names(LOSS)["line"], "reward")[1][-1][1]["loss/reward"]
    assert (np.abs(hinge - told[0]) > 0.01).all()


def test_a_penalty_is_paid_in_the_place_of_the_kl():
    squares = names(PENALTY)["squares"]
    rng = np.random.default_rng(0)
    logits = [jnp.asarray(rng.normal(size=(4, 3, 5)), jnp.float32) for _ in "πr"]
    own, reference = map(jax.nn.log_softmax, logits)
    tokens, mask = (
        jnp.asarray(rng.integers(0, 5, (4, 3))),
        jnp.arange(3)[None] < jnp.ones((4, 1)) * 2,
    )
    x = Episode(prompts(4), tokens, mask)
    scored = Scored(x, jnp.where(mask, chosen(own, x), 0.0), own, reference, jnp.arange(4.0))
    values, beta = jnp.zeros((4, 4)), jnp.float32(0.5)
    raw = cfg.PPO(whiten_advantages=False, gae_lambda=1.0)
    paid = lambda penalty, weight=beta: credit(raw, LANGUAGE, scored, values, weight, penalty)[1]
    np.testing.assert_allclose(paid(lambda a, b: a - b), paid(None), rtol=1e-6)
    np.testing.assert_allclose(paid(lambda a, b: 0.0 * a), paid(None, 0.0 * beta), rtol=1e-6)
    half = 0.5 * np.square(np.asarray(chosen(own, x) - chosen(reference, x)))[:, :2]
    # What is still to come: the score less the squares from here on.
    owed = np.arange(4.0)[:, None] - 0.5 * half[:, ::-1].cumsum(1)[:, ::-1]
    np.testing.assert_allclose(paid(squares)[:, :2], owed, rtol=1e-5)
    np.testing.assert_array_equal(paid(squares)[:, 2], 0.0)


def test_what_was_passed_in_is_in_the_metadata_and_no_other_run_takes_its_folder(tmp_path):
    run = dataclasses.replace(TINY.run, directory=str(tmp_path))
    config = dataclasses.replace(TINY, run=run)
    score = names(SCORE)["score"]
    directory = rlhf_jax.run(config, score=score)
    record = records.read(directory)
    assert record.metadata["own"] == {
        "score": "r(x) is score (The share of a's), passed in from Python; nothing was fitted"
    }
    assert _reward(record) == record.metadata["own"]["score"]
    page = (directory / "report.html").read_text()
    assert "score (The share of a" in page
    with pytest.raises(ConfigError, match="passed in from Python: score there, nothing here"):
        rlhf_jax.run(config)


def test_a_loss_that_says_no_equation_is_named():
    mine = comparison.KIND._replace(nll=lambda reading, data, human: data.weight)
    assert "−log P by" in Own(feedback=mine).said({})["feedback"]
    assert (
        "Bradley"
        in Own(feedback=comparison.KIND).said({"reward.loss": "bradley_terry"})["feedback"]
    )


def test_a_study_of_these_is_made_and_answered(tmp_path):
    from rlhf_jax.studies.runs import carry_out

    study = names(PENALTY + STUDY)["study"]
    page = carry_out(study, tmp_path)
    assert "passed in = penalty" in page.read_text()
    own = [records.read(tmp_path / "penalties" / arm / "seeds-0-1") for arm in study.arms]
    assert [sorted(record.metadata["own"]) for record in own] == [[], ["penalty"]]
    ends = [record.metrics["evaluate", "eval/kl_exact"].values[-1] for record in own]
    assert not np.array_equal(*ends)


@pytest.mark.parametrize(
    ("own", "changes", "said"),
    [
        (
            Own(penalty=lambda a, b: a),
            {"learner": "grpo"},
            "ppo .* not grpo and k1",
        ),
        (Own(score=lambda x: x), {"learner": "dpo"}, "dpo learns from comparisons"),
        (Own(score=lambda x: x), {"ppo": cfg.PPO(critic_start="reward")}, "needs a reward model"),
        (Own(feedback=rating.KIND), {"reward": cfg.Reward(kind="borda")}, "of your own is rating"),
    ],
    ids=["penalty", "dpo", "critic", "borda"],
)
def test_what_has_no_place_beside_what_is_named_is_refused(own, changes, said):
    config = dataclasses.replace(TINY, **changes)
    with pytest.raises(ConfigError, match=said):
        loop.build(config, own=own)
