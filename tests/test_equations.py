"""What a page says was fitted and maximised, over every value of the settings that decide it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, get_args, get_type_hints

import pytest

from rlhf_jax import config as cfg
from rlhf_jax import equations
from rlhf_jax.config import Config, ConfigError
from rlhf_jax.feedback import comparison
from rlhf_jax.kernels import dpo, ppo
from rlhf_jax.kernels.learners import LEARNERS
from rlhf_jax.kernels.method import AVERAGES
from rlhf_jax.validate import validate


def values(section: type, field: str) -> tuple[str, ...]:
    """All that a setting may be."""
    return get_args(get_type_hints(section)[field])


@pytest.mark.parametrize(
    ("table", "section", "field"),
    [
        (comparison.EQUATIONS, cfg.Reward, "loss"),
        (equations.REWARDS, cfg.Reward, "kind"),
        (equations.NOISE, cfg.Reward, "noise"),
        (equations.AGGREGATES, cfg.Reward, "aggregate"),
        (equations.QUANTILES, cfg.Reward, "aggregate"),
        (ppo.PENALTIES, cfg.PPO, "kl"),
        (ppo.MISSING_EOS, cfg.PPO, "missing_eos"),
        (AVERAGES, cfg.PPO, "average"),
        (AVERAGES, cfg.GRPO, "average"),
        (dpo.LOSSES, cfg.DPO, "loss"),
    ],
)
def test_every_value_of_a_setting_has_an_entry_and_no_other(table, section, field):
    assert set(table) == set(values(section, field))


def test_a_configuration_names_the_learners_that_there_are_and_has_their_settings():
    assert values(cfg.Config, "learner") == tuple(learner.name for learner in LEARNERS)
    plain = cfg.leaves(Config())
    for learner in LEARNERS:
        own = getattr(Config(), learner.section)
        assert {"iterations", "batch", "adam"} <= {f.name for f in dataclasses.fields(own)}
        assert learner.samples(plain) >= own.batch


def settings(**changed: Any) -> dict[str, Any] | None:
    """The settings of a run that may be, None of one that may not."""
    leaves = {name.replace("__", "."): value for name, value in changed.items()}
    config = Config()
    for path, value in leaves.items():
        *section, field = path.split(".")
        if not section:
            config = dataclasses.replace(config, **{field: value})
            continue
        inner = dataclasses.replace(getattr(config, section[0]), **{field: value})
        config = dataclasses.replace(config, **{section[0]: inner})
    try:
        return cfg.leaves(validate(config))
    except ConfigError:
        return None


def told_apart(say, **choices: tuple[Any, ...]) -> int:
    """Every combination that may run has a text of its own; how many there are."""
    said: dict[str, dict[str, Any]] = {}
    for chosen in itertools.product(*choices.values()):
        made = settings(**dict(zip(choices, chosen, strict=True)))
        if made is None:
            continue
        text = say(made)
        unfilled = [gap for gap in ("None", "not stated", "{doubt}", "{value}") if gap in text]
        assert not unfilled, text
        assert said.setdefault(text, made) == made, f"said of two runs: {text}"
    return len(said)


def test_every_reward_that_may_be_fitted_has_an_equation_of_its_own():
    kinds, noise = values(cfg.Reward, "kind"), values(cfg.Reward, "noise")
    losses, feedback = values(cfg.Reward, "loss"), values(cfg.Collect, "feedback")
    fitted = tuple(kind for kind in kinds if kind != "gold")
    found = told_apart(
        equations.reward,
        reward__kind=fitted,
        reward__loss=losses,
        reward__noise=noise,
        collect__feedback=feedback,
    )
    # One reward and a mixture: 4 losses + 2 noises of comparisons, 3 of each of other answers.
    assert found == 2 * (4 + 2 + (len(feedback) - 1) * 3) + 2
    assert equations.reward(settings(reward__kind="gold") or {}).startswith("nothing was fitted")


@pytest.mark.parametrize("kind", ["one", "mixture", "distributional"])
def test_what_many_rewards_come_to_is_said(kind):
    members = (1,) if kind == "mixture" else (3,)
    ways = values(cfg.Reward, "aggregate")
    found = told_apart(
        equations.reward,
        reward__kind=(kind,),
        reward__members=members,
        reward__aggregate=ways,
        reward__bootstrap=(False,) if kind == "mixture" else (False, True),
    )
    assert found == len(ways) * (1 if kind == "mixture" else 2)


def test_every_policy_that_may_be_trained_has_an_objective_of_its_own():
    found = told_apart(
        equations.policy,
        ppo__kl=values(cfg.PPO, "kl"),
        ppo__missing_eos=values(cfg.PPO, "missing_eos"),
        ppo__average=values(cfg.PPO, "average"),
        ppo__entropy=(0.0, 0.1),
    )
    assert found == 5 * 4 * 3 * 2
    grpo = {"grpo__deviation": (True, False), "grpo__average": values(cfg.GRPO, "average")}
    assert told_apart(equations.policy, learner=("grpo",), **grpo) == 2 * 3
    dpo = {"dpo__loss": values(cfg.DPO, "loss")}
    assert told_apart(equations.policy, learner=("dpo",), **dpo) == 2
    others = ("reinforce", "imitation", "grpo", "dpo", "ppo")
    assert told_apart(equations.policy, learner=others) == 5


def test_labels_that_are_smoothed_are_said_to_be():
    smooth = settings(learner="dpo", dpo__smoothing=(0.0, 0.1))
    assert smooth is not None
    assert "s = (0.0, 0.1)" in equations.policy(smooth)
    plain = settings(learner="dpo", dpo__loss="ipo", dpo__smoothing=0.1)
    assert plain is not None
    assert "(1−s)" not in equations.policy(plain)  # IPO has none


def test_the_penalty_on_the_reward_is_the_one_that_its_feedback_has():
    assert "E(Σ r_φ)²" in equations.reward(settings(collect__feedback="ranking") or {})
    assert "E(Σ r_φ)²" not in equations.reward(settings(collect__feedback="rating") or {})


def test_a_run_whose_settings_are_older_or_younger_is_said_by_their_names():
    assert "not stated" in equations.reward({})
    assert "telepathy" in equations.reward({"collect.feedback": "telepathy"})
    assert equations.policy({"learner": "sarsa"}) == "sarsa"
