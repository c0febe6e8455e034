"""A2: how many poisoned people does it take to plant a trigger, in the judge and in the policy?

python scripts/study.py configs/studies/poisoning.py        # --quick: 4 seeds, 2 points
"""

import dataclasses

from rlhf_jax import laptop
from rlhf_jax.config import Human
from rlhf_jax.expectations import Differs, Trend
from rlhf_jax.study import Axis, Metric, Quick, Study


def arm(**reward: object) -> laptop.Config:
    return laptop.config(
        world=dataclasses.replace(laptop.WORLD, trigger=True, triggered=0.5),
        human=Human(poisoned=0.0),
        collect=laptop.collect(12288, people=200),
        reward=laptop.reward(**reward),
    )


GOLD = "mean human rating, −4…4"

study = Study(
    name="poisoning",
    atlas="A2",
    title="Poisoned evaluators and a trigger",
    question="A share of people puts a trigger into the prompts they ask about and prefers the "
    "worse answer there. How well does the trigger turn the reward model, and the policy after "
    "PPO? Do a fitted reliability of each person or a worst-case ensemble help?",
    arms={
        "plain": arm(),
        "reliability": arm(noise="fitted"),
        "worst-case": arm(members=4, bootstrap=True, aggregate="worst_case"),
    },
    axis=Axis("human.poisoned", (0.0, 0.005, 0.02, 0.05, 0.1, 0.2), "poisoned people", "share"),
    metrics=(
        Metric("gold, trigger", "gold under the trigger", GOLD, metric="eval/gold_triggered"),
        Metric("gold", "gold without it", GOLD),
        Metric(
            "judge, trigger",
            "accuracy of the judge under the trigger",
            "share",
            "measure",
            "reward/accuracy_triggered",
        ),
        Metric(
            "judge",
            "accuracy of the judge without it",
            "share",
            "measure",
            "reward/accuracy_gold",
        ),
    ),
    expectations=(
        Trend("judge, trigger", "plain", "decreases", source="Rando & Tramèr 2023"),
        Differs(
            "judge, trigger",
            "plain",
            "plain",
            "lower",
            by=0.05,
            at=0.005,
            baseline_at=0.0,
            source="Rando & Tramèr 2023: 0.5 % poisons the reward model",
        ),
        Trend("gold, trigger", "plain", "decreases"),
        Differs(
            "gold, trigger",
            "plain",
            "plain",
            "lower",
            at=0.05,
            baseline_at=0.0,
            source="Rando & Tramèr 2023: 5 % survives PPO",
        ),
        Differs("judge, trigger", "reliability", "plain", "higher", at=0.2),
        Differs("gold, trigger", "worst-case", "plain", "higher", at=0.2),
    ),
    compare_with="Rando & Tramèr 2023 (arXiv 2311.14455): 0.5 % of poisoned data turns the reward "
    "model; at least 5 % is needed to survive PPO.",
    quick=Quick(seeds=4, points=(0, 5), arms=("plain",), settings={"ppo.iterations": 10}),
)
