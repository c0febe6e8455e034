"""Negative controls that really run: every study, small, with answers dealt anew."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from rlhf_jax.config import Model
from rlhf_jax.studies import answers, command, plan, verdicts
from rlhf_jax.studies.frontier import SINGLE
from rlhf_jax.studies.runs import Runner
from rlhf_jax.study import Quick, Study, quickened, shuffled
from rlhf_jax.verdict import Verdict, judge

STUDIES = Path(__file__).parents[2] / "configs" / "studies"
TINY: dict[str, Any] = {
    "model": Model(width=16, layers=1, heads=2, kv_heads=1, mlp=32),
    "pretrain.epochs": 2,
    "collect.budget": 512,
    "reward.steps": 128,
    "reward.look": 8,
    "reward.batch": 32,
    "ppo.iterations": 8,
    "ppo.batch": 32,
    "ppo.epochs": 1,
    "ppo.adam.learning_rate": 2e-2,
    "evaluate.samples": 64,
    "run.cache": "none",
    "run.devices": 1,
}
SEEDS = 8
SMALL = {
    "bayesian_view": Quick(points=(0, 2), arms=("ppo", "dpo")),
    "feedback_types": Quick(arms=("comparison", "rating")),
    "inattention": Quick(points=(0, 2), arms=("plain", "rate-known")),
    "one_reward_many_people": Quick(points=(1, 2), arms=("single", "maxmin")),
    "poisoning": Quick(points=(0, 1, 2, 3), arms=("plain",)),
    "refresh": Quick(points=(0, 2), arms=("policy-only",)),
    "reward_hacking": Quick(arms=("width-8-of-2048", "width-32-of-2048", "width-32-of-512")),
}
"""Points and arms that most of the expectations need."""
OF_OPTIMISERS = {
    ("KL to posterior", "ppo"),
    ("KL at the end", "best-of-n"),
    ("KL to a proxy of 1", "PPO"),
}
"""(metric, arm) of claims about optimising any reward, whatever people say."""


def small(name: str) -> Study:
    """A study of this repository at a size for tests."""
    study = command.read(STUDIES / f"{name}.py")
    kept = study.axis.paths if study.axis else ()
    more: dict[str, Any] = {}
    if name == "reward_hacking":  # its arms are amounts of feedback
        kept, more = ("collect.budget",), {"evaluate.best_of": 256}
    if name == "refresh":  # its axis is a whole run in ever more parts
        parts = tuple((n, b // 4, i // 4, 128 // n) for n, b, i, _ in study.axis.points)
        study = dataclasses.replace(study, axis=dataclasses.replace(study.axis, points=parts))
    tiny = {path: value for path, value in TINY.items() if path not in kept}
    quick = dataclasses.replace(SMALL[name], seeds=SEEDS, settings=tiny | more)
    return quickened(dataclasses.replace(study, quick=quick))


def claimed(study: Study, folder: Path) -> list[Verdict]:
    """The verdicts on all claims of an effect, each judged by itself: judging them together, as
    the study does, would only make it harder to err."""
    Runner(folder, "").run(plan.chunks(study, folder), folder / study.name)
    said = answers.answer(study, folder)
    able = [e for e in study.expectations if e not in said.judged.unjudged]
    return [
        judge((e,), said.measured)[0]
        for e in verdicts.effects(able)
        if (e.metric, e.arm) not in OF_OPTIMISERS
    ]


def test_every_study_has_a_control_here() -> None:
    assert {p.stem for p in STUDIES.glob("[!_]*.py")} == set(SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALL))
def test_shuffled_answers_support_no_effect(name: str, tmp_path: Path) -> None:
    found = claimed(shuffled(small(name)), tmp_path)
    assert any(v.interval is not None for v in found)
    assert "supported" not in {v.outcome for v in found}, [v.sentence for v in found]


@pytest.mark.slow
def test_answers_that_are_not_shuffled_support_an_effect_at_this_size(tmp_path: Path) -> None:
    study = small("reward_hacking")
    (turned,) = (
        dataclasses.replace(e, at=0.5)
        for e in study.expectations
        if (e.metric, e.arm, getattr(e, "at", None)) == ("accuracy", SINGLE, 0.25)
    )
    assert study.axis is not None
    one = dataclasses.replace(
        study,
        arms={SINGLE: study.arms[SINGLE]},
        axis=dataclasses.replace(study.axis, points=(0.0, 0.5)),  # half turned round: a coin
        expectations=(turned,),
        quick=Quick(),
    )
    (noise,) = claimed(one, tmp_path)
    assert noise.outcome == "supported", noise.sentence
