from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from tiny import SHAPE

from rlhf_jax import pipeline
from rlhf_jax.config import (
    DPO,
    GRPO,
    PPO,
    BestOfN,
    Collect,
    Config,
    ConfigError,
    Evaluate,
    Human,
    Model,
    Pretrain,
    Reinforce,
    Reward,
    World,
)
from rlhf_jax.study import replaced
from rlhf_jax.validate import validate

TINY = Config(
    seeds=2,
    world=World(name="probe", symbols=3, length=3, held_out=0.2),
    model=SHAPE,
    pretrain=Pretrain(epochs=0, shared=False),
    human=Human(rationality=2.0),
    collect=Collect(budget=128, people=8),
    reward=Reward(batch=16, steps=4, look=2),
    ppo=PPO(iterations=1, batch=16, epochs=1),
    reinforce=Reinforce(iterations=1, batch=16),
    grpo=GRPO(iterations=1, batch=16),
    dpo=DPO(iterations=1, batch=16),
    bestofn=BestOfN(iterations=1, batch=4),
    evaluate=Evaluate(samples=32, shown=2),
)


def run(config: Config) -> dict[str, np.ndarray]:
    """The last metrics of every stage."""
    line = pipeline.build(validate(config), jax.devices()[:1])
    state, out = line.begin(), {}
    for call in line.plan:
        state, metrics = call.run(state)
        out |= {name: np.asarray(x) for name, x in metrics.items()}
    return out


def test_whoever_samples_the_policy_does_it_at_the_temperature_of_its_learner():
    ppo, bestofn = PPO(temperature=0.5), BestOfN(temperature=2.0)
    config = dataclasses.replace(TINY, ppo=ppo, bestofn=bestofn)
    own = {"ppo": 0.5, "imitation": 2.0, "reinforce": 1.0, "grpo": 1.0, "dpo": 1.0}
    for learner, expected in own.items():
        assert pipeline.temperature(dataclasses.replace(config, learner=learner)) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"collect.feedback": "rating", "learner": "reinforce"},
        {"collect.feedback": "ranking", "learner": "grpo", "reward.members": 2},
        {"collect.feedback": "process", "learner": "imitation", "reward.noise": "known"},
        {"learner": "dpo", "reward.kind": "gold", "collect.repeats": 2},
        {"reward.kind": "mixture", "reward.aggregate": "worst_case", "reward.noise": "fitted"},
        {"reward.kind": "distributional", "reward.start": "fresh", "reward.bootstrap": True},
        {"collect.feedback": "demonstration", "ppo.critic_start": "reward"},
        {"reward.loss": "rao_kupper", "reward.kind": "mixture", "human.tie": 0.5},
        {"reward.loss": "davidson", "reward.members": 2, "human.tie": 0.5, "ppo.temperature": 0.5},
    ],
    ids=lambda changes: "-".join(str(v) for v in changes.values()),
)
def test_every_part_runs_through_the_whole_pipeline_with_finite_numbers(changes):
    config = TINY
    for path, value in changes.items():
        head, _, rest = path.partition(".")
        if rest:
            value = dataclasses.replace(getattr(config, head), **{rest: value})
        config = dataclasses.replace(config, **{head: value})
    found = run(config)
    for name, x in found.items():
        assert np.isfinite(np.asarray(x, float)).all(), name
    assert found["collect/cost"].tolist() == [128, 128]
    # The policy moved, and the world knows where its optimum lies.
    assert (found["eval/kl_exact"] > 0).all()
    assert (found["eval/kl_optimum"] > 0).all()


def test_a_batch_that_the_budget_does_not_buy_is_named():
    config = dataclasses.replace(TINY, collect=Collect(budget=24))
    with pytest.raises(ConfigError) as caught:
        pipeline.build(config, jax.devices()[:1])
    assert str(caught.value) == (
        "reward.batch = 16 is more than the 11 answers that collect.budget = 24 buys at 2 samples "
        "each and reward.held_back = 0.1 leaves to fit to"
    )


def test_a_budget_of_which_nothing_can_be_held_back_is_refused():
    config = dataclasses.replace(TINY, collect=Collect(budget=16), reward=Reward(batch=8))
    with pytest.raises(ConfigError, match=r"held_back = 0\.1 of the 8 items of a round is none"):
        pipeline.build(config, jax.devices()[:1])


def test_compiled_programs_are_shared_where_only_floats_seeds_and_how_models_are_joined_differ():
    one = dataclasses.replace(TINY, seeds=4)
    more = [
        dataclasses.replace(one, first_seed=4, name="other"),
        dataclasses.replace(one, human=Human(lapse=0.2)),
        replaced(one, "reward.aggregate", "worst_case"),
        dataclasses.replace(one, seeds=2, human=Human(lapse=(0.2, 0.3))),
    ]
    assert all(pipeline.same_program(one, other) for other in more)
    others = [
        dataclasses.replace(one, seeds=3),
        dataclasses.replace(one, rounds=2),
        dataclasses.replace(one, model=Model(width=32)),
        dataclasses.replace(one, reward=Reward(loss="davidson")),
    ]
    assert not any(pipeline.same_program(one, other) for other in others)
    first = pipeline.build(one, jax.devices()[:1])
    again = pipeline.build(more[0], jax.devices()[:1], like=first)
    assert again.parts.policy is first.parts.policy
    assert again.parts.config.first_seed == 4


def test_what_follows_the_fit_is_shared_by_configurations_that_differ_in_feedback_alone():
    first = pipeline.build(TINY, jax.devices()[:1])
    for path, value, shared in (
        ("collect.budget", 64, True),
        ("reward.steps", 8, True),
        ("reward.members", 2, False),
        ("ppo.batch", 64, False),
        ("evaluate.samples", 64, False),
    ):
        other = replaced(TINY, path, value)
        assert not pipeline.same_program(TINY, other)
        parts = pipeline.build(other, jax.devices()[:1], like=first).parts
        for name in ("pretrain", "draw", "measure", "policy", "evaluate"):
            assert (getattr(parts, name) is getattr(first.parts, name)) == shared, (path, name)
        assert parts.reward is not first.parts.reward
        assert parts.config == other
