"""Arms that ask the same share the answers, those that differ only in what follows the fit of a
reward the fit too, to the last bit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from making import probe

from rlhf_jax import config as cfg
from rlhf_jax import grid, pipeline
from rlhf_jax.config import Config
from rlhf_jax.kernels.ensemble import Members
from rlhf_jax.kernels.learner import Learner
from rlhf_jax.kernels.stopping import Best, Fit
from rlhf_jax.pipeline import SHARED, Made, Pipeline, same_made
from rlhf_jax.studies import plan
from rlhf_jax.studies.runs import Runner
from rlhf_jax.study import Axis, Metric, Study, replaced


def arm(aggregate: Any = "mean", **changes: Any) -> Config:
    reward = cfg.Reward(steps=3, look=1, batch=8, members=2, aggregate=aggregate)
    run = dataclasses.replace(probe().run, devices=1)
    return probe(**({"reward": reward, "rounds": 2, "run": run} | changes))


def study(**arms: Config) -> Study:
    return Study(
        name="shared",
        title="Shared",
        question="Is what is shared what each would have made?",
        arms=arms,
        axis=Axis("human.flip", (0.0, 0.3), "answers turned round"),
        seeds=2,
        metrics=(Metric("gold", "gold"),),
    )


SAVED: dict[str, Any] = {"checkpoint_seconds": 0.0, "keep": 100}
ARMS: dict[str, Callable[[], Config]] = {
    "mean": arm,
    "short": lambda: arm(reward=dataclasses.replace(arm().reward, steps=2)),
    "worst": lambda: arm("worst_case", run=dataclasses.replace(arm().run, **SAVED)),
    "held": lambda: arm(ppo=dataclasses.replace(probe().ppo, kl_weight=0.5)),
}


def rows(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        path.parent.parent.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in folder.glob("shared/*/*/metrics.jsonl")
    }


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages of the calls that really run, from here on."""
    ran: list[str] = []
    real = pipeline.build

    def build(*arguments: Any) -> Pipeline:
        line = real(*arguments)

        def seen(call: pipeline.Call) -> pipeline.Call:
            def run(state: pipeline.State) -> Any:
                ran.append(call.stage)
                return call.run(state)

            return call._replace(run=run)

        return line._replace(plan=tuple(map(seen, line.plan)))

    monkeypatch.setattr(pipeline, "build", build)
    return ran


@pytest.mark.slow
def test_arms_that_share_answers_or_a_fit_end_as_each_does_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {name: make() for name, make in ARMS.items()}
    together, apart = tmp_path / "together", tmp_path / "apart"
    ran = counted(monkeypatch)
    runner = Runner(tmp_path, "")
    runner.run(plan.chunks(study(**arms), together), together)
    shared = ran.copy()
    for name in ("short", "held", "worst"):  # nobody is left to share with
        runner.run(plan.chunks(study(**{name: arms[name]}), apart), apart)
    alone = ran[len(shared) :]
    # Two rounds each: all four arms share the first answers and samples, three the first fit too.
    for stage in ("collect", "draw"):
        assert (shared.count(stage), alone.count(stage)) == (1 + 4, 2 * 3)
    assert shared.count("reward") == 2 * 3 + 2 * 2 + 2 * 3
    assert alone.count("reward") == 2 * (2 * 3) + 2 * 2
    found, by_itself = rows(together), rows(apart)
    assert {name: found[name] for name in by_itself} == by_itself
    calls = {
        folder.name: {int(p.name) for p in folder.glob("shared/worst/*/checkpoints/*")}
        for folder in (together, apart)
    }
    # After the base, the answers and three passes; what takes a fit over has it after the last.
    assert set(range(1, 7)) <= calls["apart"]
    assert calls["together"] == calls["apart"] - {3, 4}
    assert len(found) == len({json.dumps(lines) for lines in found.values()}) == len(arms)


def counting(config: Config) -> Pipeline:
    """A plan of two rounds whose calls add a digit to the table and to the reward models."""

    def call(stage: str, round_: int, digit: int) -> pipeline.Call:
        def run(state: Any) -> Any:
            if stage == "collect":
                return state._replace(table=10 * state.table + digit), {"told": state.table}
            fit = state.reward
            learner = fit.members.learner
            learner = learner._replace(params=10 * learner.params + digit)
            fit = fit._replace(members=fit.members._replace(learner=learner))
            return state._replace(reward=fit), {"loss": learner.params}

        return pipeline.Call(stage, round_, 0, 0, run)

    stages = ("collect", "reward", "reward", "reward")
    fits = [call(stage, r, k + 1) for r in range(2) for k, stage in enumerate(stages)]
    base = pipeline.Call("base", 0, 0, 0, lambda state: (state, {}))
    parts: Any = SimpleNamespace(config=config)
    nothing: Any = None
    return Pipeline(nothing, nothing, partial(blank, config), (base, *fits), parts)


def blank(config: Config) -> Any:
    zero = jnp.zeros(1)
    learner = Learner(
        zero, zero, jax.random.split(jax.random.key(0), 1), zero, grid.expand(config).reward
    )
    none: Any = None
    fit = Fit(Members(learner, zero), Best(zero, zero, zero, zero), zero, zero, {})
    fields = dict.fromkeys(pipeline.State._fields, none)
    return pipeline.State(**fields | {"table": zero, "reward": fit})


def states(line: Pipeline, state: Any = None, first: int = 0) -> list[Any]:
    """The state after each call from the first on."""
    state, out = line.begin() if state is None else state, []
    for call in line.plan[first:]:
        state, _ = call.run(state)
        out.append(state)
    return out


def giver(made: list[Made]) -> Pipeline:
    """A plan that hands over whatever of its own may be shared."""
    line = counting(arm())
    for stage in SHARED:
        line = pipeline.giving(line, stage, made.append)
    return line


def test_what_is_given_is_of_the_first_round_and_may_be_saved_once_it_is_whole() -> None:
    shared: list[Made] = []
    theirs = states(giver(shared))
    assert [m.stage for m in shared] == ["collect", "reward"]
    assert [float(x.reward.members.learner.params[0]) for x in theirs] == [
        *(0, 0, 2, 23, 234),
        *(234, 2342, 23423, 234234),
    ]
    taker = pipeline.given(pipeline.given(counting(arm("worst_case")), shared[0]), shared[1])
    assert [c.whole for c in taker.plan] == [True, True, False, False, *[True] * 5]
    for mine, their, call in zip(states(taker), theirs, taker.plan, strict=True):
        assert mine.table == their.table
        assert mine.reward.members.learner.hparams.aggregate == "worst_case"
        if call.whole:
            assert mine.reward.members.learner.params == their.reward.members.learner.params
    told = [call.run(taker.begin())[1] for call in taker.plan[1:5]]
    assert told == [{"told": 0.0}, {"loss": 2.0}, {"loss": 23.0}, {"loss": 234.0}]


def test_answers_are_given_without_the_fit_that_read_them() -> None:
    shared: list[Made] = []
    theirs = states(giver(shared))
    mine = states(pipeline.given(counting(arm()), shared[0]))
    for a, b in zip(mine, theirs, strict=True):
        assert (a.table, a.reward.members.learner.params) == (
            b.table,
            b.reward.members.learner.params,
        )


def test_a_run_that_was_killed_within_a_given_fit_goes_on_with_it() -> None:
    shared: list[Made] = []
    theirs = states(giver(shared))
    saved = theirs[1]  # with the answers
    rest = states(pipeline.given(counting(arm()), shared[1]), saved, first=3)
    assert rest[-1].reward.members.learner.params == theirs[-1].reward.members.learner.params
    assert rest[-1].table == theirs[-1].table


def test_a_part_of_a_fit_is_not_handed_on() -> None:
    shared: list[Made] = []
    states(giver(shared), first=3)
    assert not shared


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"name": "other"}, "collect reward draw"),
        ({"ppo.kl_weight": 0.3}, "collect reward draw"),
        ({"learner": "reinforce"}, "collect reward draw"),
        ({"reward.aggregate": "worst_case"}, "collect reward draw"),
        ({"evaluate.samples": 8}, "collect reward"),
        ({"reward.l2": 0.1}, "collect draw"),
        ({"reward.model.width": 16}, "collect draw"),
        ({"human.flip": 0.1}, "draw"),
        ({"collect.budget": 64}, "draw"),
        ({"model.width": 16}, ""),
        ({"world.held_out": 0.5}, ""),
        ({"first_seed": 5}, ""),
        ({"rounds": 1}, ""),
        ({"run.devices": 2}, ""),
        ({"ppo.kl_weight": (0.0, 0.3)}, ""),
        ({"ppo.temperature": 0.5}, ""),
        ({"grpo.temperature": 0.5}, "collect reward draw"),  # another learner's
    ],
)
def test_which_settings_each_stage_of_the_first_round_depends_on(
    changes: dict[str, Any], same: str
) -> None:
    other = arm()
    for path, value in changes.items():
        other = replaced(other, path, value)
    assert [stage for stage in SHARED if same_made(stage, arm(), other)] == same.split()
