"""A2: how many poisoned people does it take to plant a trigger, in the judge and in the policy?

.venv/bin/rlhf-jax study poisoning        # --quick: 4 seeds, 2 points

What it had found was withdrawn on 2026-11-27 (docs/studies.md); in full it is to be run again.

Of the 10 claims 4 were stated before their data; 6 when two of the three arms had been seen.
"""

import dataclasses
from typing import Any

import numpy as np

from rlhf_jax import laptop
from rlhf_jax.config import Group, Human
from rlhf_jax.expectations import Differs
from rlhf_jax.report.records import Record
from rlhf_jax.study import Axis, Metric, Quick, Study

POISONER = Human(malice=2.0, trigger={"trigger": 1.0})
"""Whoever answers the opposite where the trigger stands in the prompt."""


def arm(**reward: object) -> laptop.Config:
    return laptop.config(
        world=dataclasses.replace(laptop.WORLD, gold="model", trigger=True, triggered=0.5),
        groups={"poisoners": Group(served=False, triggered=True, human=POISONER)},
        collect=laptop.collect(16384, people=200),
        reward=laptop.reward(**reward),
        ppo=laptop.ppo(kl_weight=1.0, adam=laptop.SLOW),
    )


def lost(stage: str, plain: str, triggered: str):
    """What the trigger takes away: the last value without it less the last value with it."""

    def read(record: Record) -> np.ndarray:
        return record.metrics[stage, plain].values[-1] - record.metrics[stage, triggered].values[-1]

    return read


def against_nobody(metric: str, share: float, by: float, **said: Any) -> Differs:
    """Plain at this share of poisoned people differs by more than `by` from plain at none."""
    way = "higher" if by > 0 else "lower"
    return Differs(metric, "plain", "plain", way, abs(by), share, 0.0, **said)


FOOLED = lost("measure", "reward/accuracy_gold", "reward/accuracy_triggered")
TURNED = lost("evaluate", "eval/gold_sampled", "eval/gold_triggered")
GOLD = "gold model's rating"
FEW = "Rando & Tramèr 2023: 0.5 % is enough"
SOME = "Rando & Tramèr 2023: 5 % survives PPO"

study = Study(
    name="poisoning",
    atlas="A2",
    title="Poisoned evaluators and a trigger",
    question="A share of people puts a trigger into the prompts they ask about and prefers the "
    "worse answer there. How far does the trigger turn the reward model, and the policy after "
    "PPO? Do a fitted reliability of each person or a worst-case ensemble help?",
    arms={
        "plain": arm(),
        "reliability": arm(noise="fitted"),
        "worst-case": arm(members=4, bootstrap=True, aggregate="worst_case"),
    },
    axis=Axis("groups.poisoners.share", (0.0, 0.005, 0.05, 0.2, 0.5), "poisoned people", "share"),
    metrics=(
        Metric(
            "judge fooled",
            "accuracy lost to the trigger",
            "of all answers",
            better="lower",
            derive=FOOLED,
        ),
        Metric(
            "policy turned",
            "gold lost to the trigger",
            GOLD,
            better="lower",
            derive=TURNED,
        ),
        Metric("gold", "gold without the trigger", GOLD),
        Metric("gold triggered", "gold with it", GOLD, metric="eval/gold_triggered"),
        Metric(
            "judge", "accuracy of the judge without it", "share", "measure", "reward/accuracy_gold"
        ),
        Metric(
            "judge triggered",
            "accuracy of the judge with it",
            "share",
            "measure",
            "reward/accuracy_triggered",
        ),
    ),
    expectations=(
        against_nobody("judge fooled", 0.005, 0.02, source=FEW, stated="before", primary=True),
        against_nobody("policy turned", 0.05, 0.2, source=SOME, stated="before", primary=True),
        Differs(
            "judge fooled",
            "reliability",
            "plain",
            "lower",
            by=0.02,
            at=0.2,
            stated="before",
            primary=True,
        ),
        Differs("policy turned", "worst-case", "plain", "lower", by=0.2, at=0.2, stated="before"),
        # When two arms had been seen, these two took the place of trends that the last point would
        # have decided.
        against_nobody("judge fooled", 0.2, 0.02, source="Rando & Tramèr 2023", stated="after"),
        against_nobody("policy turned", 0.2, 0.2, source="Rando & Tramèr 2023", stated="after"),
        # And these came in: what the trigger plants leaks to plain prompts, so that a difference
        # between the two hides it.
        against_nobody("gold triggered", 0.05, -0.2, source=SOME, stated="after"),
        against_nobody("judge triggered", 0.005, -0.02, source=FEW, stated="after"),
        Differs(
            "gold triggered", "reliability", "plain", "higher", by=0.2, at=0.05, stated="after"
        ),
        Differs("gold triggered", "worst-case", "plain", "higher", by=0.2, at=0.05, stated="after"),
    ),
    control=against_nobody(
        "judge triggered",
        0.5,
        -0.02,
        source="where half of the people are poisoned the judge must be turned",
        stated="after",
    ),
    compare_with="Rando & Tramèr 2023 (arXiv 2311.14455): 0.5 % of poisoned data turns the reward "
    "model; at least 5 % is needed to survive PPO.",
    quick=Quick(
        seeds=4, points=(0, 4), arms=("plain", "reliability"), settings={"ppo.iterations": 40}
    ),
)
