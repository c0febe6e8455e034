"""B2: one reward for a divided people: who wins, and do mixtures, MaxMin or doubt serve all?

.venv/bin/rlhf-jax study one_reward_many_people    # --quick: 4 seeds, 2 points

What it had found was withdrawn on 2026-11-27 (docs/studies.md); in full it is to be run again.

All 6 claims were stated before their data (the pilot was of one reward alone); the margin of the
trend was set on 2026-11-27.
"""

import numpy as np

from rlhf_jax import laptop
from rlhf_jax.config import Group, Human
from rlhf_jax.expectations import Differs, Trend
from rlhf_jax.report.records import Record
from rlhf_jax.studies.metrics import gold_at_proxy, kl_wasted
from rlhf_jax.study import Axis, Metric, Quick, Study

LENGTH = 2.0
"""Rating units that a deviation of length is worth to the majority, and costs the minority. At 0.75
a pilot of four other seeds served both groups alike under one reward: there was nothing to mend."""


def arm(**reward: object) -> laptop.Config:
    return laptop.config(
        human=Human(weights={"length": LENGTH}),
        groups={"minority": Group(human=Human(weights={"length": -LENGTH}))},
        collect=laptop.collect(12288, people=40),
        reward=laptop.reward(**reward),
        ppo=laptop.ppo(kl_weight=1.0, adam=laptop.SLOW),
    )


def smaller(record: Record) -> np.ndarray:
    """Share of the people whom EM counts to the smaller group; NaN where there is one reward."""
    found = record.metrics.get(("measure", "reward/share"))
    if found is None or record.config["reward.kind"] != "mixture":
        return np.full(record.metrics["evaluate", "eval/gold_sampled"].values.shape[1], np.nan)
    return found.values[-1].min(axis=-1)


NEAR = 0.5
"""Deviations of the proxy: a policy that is held at a nat a deviation goes little further."""
WANTS = f"rating units, ± {LENGTH:g} a deviation of length"

study = Study(
    name="one_reward_many_people",
    atlas="B2",
    title="One reward for a divided people",
    question="All people value a word by its real rating; the majority also likes long words, the "
    "minority short ones. Whom does one reward serve? Does a mixture of rewards with MaxMin, a "
    "distributional reward or a Borda count raise the worst-served group?",
    arms={
        "single": arm(),
        "mixture-mean": arm(kind="mixture"),
        "maxmin": arm(kind="mixture", aggregate="worst_case"),
        "borda": arm(kind="borda"),
        "distributional": arm(kind="distributional", aggregate="worst_case"),
    },
    axis=Axis("groups.minority.share", (0.0, 0.2, 0.5), "minority", "share of people"),
    metrics=(
        Metric(
            "worst group", "gold of the worst-served group", WANTS, metric="eval/gold_worst_group"
        ),
        Metric("majority", "gold of the majority", WANTS, metric="eval/gold_of_rest"),
        Metric("minority", "gold of the minority", WANTS, metric="eval/gold_of_minority"),
        Metric("gold", "gold, all people alike", WANTS),
        gold_at_proxy(NEAR, WANTS),
        kl_wasted(NEAR),
        Metric(
            "found",
            "people in EM's smaller group",
            "share",
            better="lower",
            derive=smaller,
        ),
        Metric("KL", "KL from the reference", "nats", metric="eval/kl_exact", better="lower"),
    ),
    expectations=(
        Differs(
            "worst group",
            "maxmin",
            "single",
            "higher",
            by=0.1,
            at=0.2,
            source="MaxMin-RLHF: 42 → 57",
            stated="before",
            primary=True,
        ),
        Differs(
            "majority",
            "maxmin",
            "single",
            "lower",
            by=0.1,
            at=0.2,
            source="MaxMin-RLHF: 70 → 57",
            stated="before",
            primary=True,
        ),
        Differs("worst group", "mixture-mean", "single", "same", by=0.3, at=0.2, stated="before"),
        Differs(
            "gold",
            "borda",
            "single",
            "same",
            by=0.3,
            at=0.2,
            source="Siththaranjan et al. 2023",
            stated="before",
            primary=True,
        ),
        Differs("worst group", "distributional", "single", "higher", at=0.2, stated="before"),
        # The margin is that of the other claims about groups, set when the rule came to ask for it.
        Trend("majority", "single", "decreases", by=0.1, stated="before"),
    ),
    control=Differs(
        "found",
        "maxmin",
        "maxmin",
        "lower",
        by=0.1,
        at=0.2,
        baseline_at=0.5,
        source="EM tells a fifth of the people from half of them",
        stated="after",
    ),
    compare_with="MaxMin-RLHF (Chakraborty et al. 2024, arXiv 2402.08925): majority/minority 70/42 "
    "under one reward, 57/57 under MaxMin. Siththaranjan et al. 2023 (arXiv 2312.08358): one "
    "reward fitted to hidden context is a Borda count.",
    quick=Quick(seeds=4, points=(1, 2), arms=("single", "maxmin")),
)
