"""Arms that differ only in what follows the fit of a reward share the fit, to the last bit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from making import probe

from rlhf_jax import config as cfg
from rlhf_jax import loop, pipeline
from rlhf_jax.config import Config
from rlhf_jax.pipeline import Pipeline, same_fit
from rlhf_jax.studies import plan
from rlhf_jax.studies.runs import Runner
from rlhf_jax.study import Axis, Metric, Study

FITTING = ("collect", "reward")


def arm(aggregate: Any = "mean", **changes: Any) -> Config:
    reward = cfg.Reward(epochs=3, batch=8, members=2, aggregate=aggregate)
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


ARMS: dict[str, Callable[[], Config]] = {
    "mean": arm,
    "fresh": lambda: arm(collect=cfg.Collect(budget=64, corpus_share=1.0)),
    "worst": lambda: arm("worst_case"),
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
def test_arms_that_share_a_fit_end_as_each_does_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {name: make() for name, make in ARMS.items()}
    together, apart = tmp_path / "together", tmp_path / "apart"
    ran = counted(monkeypatch)
    Runner(together, "").run(plan.chunks(study(**arms), together), together)
    first = ran.count("collect")
    alone = Runner(apart, "")
    for name in ("held", "worst"):
        alone.run(plan.chunks(study(**{name: arms[name]}), apart), apart)
    # Two rounds each: three of the four arms share the first.
    assert (first, ran.count("collect") - first) == (6, 4)
    found, by_itself = rows(together), rows(apart)
    assert {name: found[name] for name in by_itself} == by_itself
    assert len(found) == len({json.dumps(lines) for lines in found.values()}) == len(arms)


@pytest.mark.slow
def test_a_run_with_a_given_fit_is_saved_only_where_it_can_go_on_without(tmp_path: Path) -> None:
    at = dataclasses.replace(arm().run, directory=str(tmp_path))
    named = lambda name, make: dataclasses.replace(make(), name=name, run=at)
    mean, worst = named("mean", ARMS["mean"]), named("worst", ARMS["worst"])
    fits: list[pipeline.Fit] = []
    loop.run(mean, "", pipeline.giving(loop.build(mean), fits.append))
    line = pipeline.given(loop.build(worst), fits[0])
    state, saved = line.begin(), []
    for i, call in enumerate(line.plan):
        state, _ = call.run(state)
        if call.whole:
            saved.append(i)
        if len(saved) == 3 and i + 1 < len(line.plan):
            break
    within = [c.stage for c in line.plan[: i + 1] if c.stage in FITTING]
    assert within == ["collect", "reward", "reward", "reward"]
    missing = [c.stage for k, c in enumerate(line.plan[: i + 1]) if k not in saved]
    assert missing == ["collect", "reward", "reward"]


def test_a_part_of_a_fit_is_not_handed_on() -> None:
    taken: list[pipeline.Fit] = []
    line = pipeline.giving(loop.build(ARMS["mean"]()), taken.append)
    state = line.begin()
    first = next(i for i, c in enumerate(line.plan) if c.stage == "reward")
    for call in line.plan[first : first + 3]:  # as if the answers had been there before
        state, _ = call.run(state)
    assert not taken


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"ppo.kl_weight": 0.3}, True),
        ({"reward.aggregate": "worst_case"}, True),
        ({"learner": "reinforce"}, True),
        ({"evaluate.samples": 8}, True),
        ({"human.flip": 0.1}, False),
        ({"reward.l2": 0.1}, False),
        ({"collect.budget": 64}, False),
        ({"first_seed": 5}, False),
        ({"rounds": 1}, False),
        ({"run.devices": 2}, False),
        ({"ppo.kl_weight": (0.0, 0.3)}, False),
    ],
)
def test_which_settings_a_fit_depends_on(changes: dict[str, Any], same: bool) -> None:
    from rlhf_jax.study import replaced

    other = arm()
    for path, value in changes.items():
        other = replaced(other, path, value)
    assert same_fit(arm(), other) is same
