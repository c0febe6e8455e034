"""Negative controls that really run: every study, small, with answers dealt anew."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from rlhf_jax.config import Model
from rlhf_jax.studies import answers, command, plan, verdicts
from rlhf_jax.studies.runs import Runner
from rlhf_jax.study import Quick, Study, quickened, shuffled
from rlhf_jax.verdict import judge

STUDIES = Path(__file__).parents[2] / "configs" / "studies"
TINY: dict[str, Any] = {
    "model": Model(width=16, layers=1, heads=2, kv_heads=1, mlp=32),
    "pretrain.epochs": 2,
    "collect.budget": 512,
    "reward.epochs": 2,
    "reward.batch": 32,
    "ppo.iterations": 4,
    "ppo.batch": 32,
    "ppo.epochs": 1,
    "evaluate.samples": 64,
    "run.cache": "none",
}
SEEDS = 8
SMALL = {
    "bayesian_view": Quick(points=(0, 2), arms=("ppo", "dpo")),
    "feedback_types": Quick(arms=("comparison", "rating", "label")),
    "inattention": Quick(points=(0, 2), arms=("plain", "rate-known")),
    "one_reward_many_people": Quick(points=(1, 3), arms=("single", "maxmin")),
    "poisoning": Quick(points=(0, 1, 2, 3), arms=("plain", "reliability")),
    "refresh": Quick(points=(0, 3), arms=("policy-only",)),
    "reward_hacking": Quick(arms=("width-32-of-2048", "kl-0.1", "worst-of-4")),
}
"""Points and arms that most of the expectations need."""


def control(name: str) -> Study:
    """The negative control of a study of this repository, small."""
    study = command.read(STUDIES / f"{name}.py")
    moved = study.axis.paths if study.axis else ()
    tiny = {path: value for path, value in TINY.items() if path not in moved}
    quick = dataclasses.replace(SMALL[name], seeds=SEEDS, settings=tiny)
    return shuffled(quickened(dataclasses.replace(study, quick=quick)))


def test_every_study_has_a_control_here() -> None:
    assert {p.stem for p in STUDIES.glob("[!_]*.py")} == set(SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SMALL))
def test_shuffled_answers_support_no_effect(name: str, tmp_path: Path) -> None:
    study = control(name)
    Runner(tmp_path, "").run(plan.chunks(study, tmp_path), tmp_path / study.name)
    said = answers.answer(study, tmp_path)
    able = [e for e in study.expectations if e not in said.judged.unjudged]
    for claim in verdicts.effects(able):
        (verdict,) = judge((claim,), said.measured)
        print(verdict.outcome, verdict.sentence)
