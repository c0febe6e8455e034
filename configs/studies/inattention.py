"""A3 and A8: what careless answers cost, and what helps at equal cost.

.venv/bin/rlhf-jax study inattention        # --quick: 4 seeds, 2 points

What it had found was withdrawn on 2026-11-27 (docs/studies.md); in full it is to be run again.

Of the 7 claims 6 were stated before their data, that at equal proxy after it; the margins of the
trends were set on 2026-11-27, of what they mean.
"""

from rlhf_jax import laptop
from rlhf_jax.expectations import Differs, Trend
from rlhf_jax.studies.metrics import gold_at_kl, gold_at_proxy, gold_of_optimum, kl_wasted
from rlhf_jax.study import Axis, Metric, Quick, Study


def arm(budget: int = 12288, repeats: int = 1, **reward: str) -> laptop.Config:
    return laptop.config(
        collect=laptop.collect(budget, repeats=repeats), reward=laptop.reward(**reward)
    )


study = Study(
    name="inattention",
    atlas="A3, A8",
    title="Careless answers, and what helps at equal cost",
    question="A growing share of answers is given without looking. What does it cost the reward "
    "model and the policy? Is it better to model the noise, to ask three people about a third "
    "of the pairs, or to buy half as many answers from people who look (compare half the "
    "answers at 0 with all of them at 0.5)?",
    arms={
        "plain": arm(),
        "rate-known": arm(noise="known"),
        "rate-fitted": arm(noise="fitted"),
        "three-people": arm(repeats=3),
        "half-the-answers": arm(6144),
    },
    axis=Axis("human.lapse", (0.0, 0.25, 0.5, 0.75), "answers given at random", "share"),
    metrics=(
        gold_at_proxy(),
        gold_of_optimum(),
        kl_wasted(),
        gold_at_kl(4.0),
        Metric("gold", "gold of samples", "mean human rating, −4…4"),
        Metric(
            "accuracy",
            "accuracy on a person's held-out comparisons",
            "share",
            "measure",
            "reward/accuracy_heldout",
        ),
        Metric(
            "log-loss",
            "log-loss on held-out comparisons",
            "nats",
            "measure",
            "reward/logloss",
            better="lower",
        ),
        Metric("KL", "KL from the reference", "nats", metric="eval/kl_exact", better="lower"),
    ),
    expectations=(
        # Two answers in a hundred, a fifth of a rating unit: set when the rule came to ask for
        # them, of what they mean.
        Trend(
            "accuracy",
            "plain",
            "decreases",
            by=0.02,
            source="Coste et al. 2023: 25 % noise hurts",
            stated="before",
        ),
        Trend(
            "gold at KL 4",
            "plain",
            "decreases",
            by=0.2,
            source="Gao et al. 2022: fewer useful labels",
            stated="before",
        ),
        Trend(
            gold_at_proxy().name,
            "plain",
            "decreases",
            by=0.2,
            source="Gao et al. 2022: fewer useful labels",
            stated="after",
            primary=True,
        ),
        Differs(
            "log-loss",
            "rate-known",
            "plain",
            "lower",
            by=0.01,
            at=0.5,
            stated="before",
            primary=True,
        ),
        Differs("log-loss", "rate-fitted", "plain", "lower", by=0.01, at=0.5, stated="before"),
        Differs("accuracy", "three-people", "plain", "lower", by=0.01, at=0.5, stated="before"),
        Differs(
            "accuracy",
            "half-the-answers",
            "plain",
            "higher",
            by=0.01,
            at=0.0,
            baseline_at=0.5,
            stated="before",
            primary=True,
        ),
    ),
    control=Differs(
        "accuracy",
        "plain",
        0.5,
        "higher",
        by=0.05,
        at=0.0,
        source="a judge of answers that are all looked at is better than chance",
        stated="after",
    ),
    compare_with="Coste et al. 2023 (arXiv 2310.02743): 25 % label noise makes over-optimisation "
    "worse. Gao et al. 2022 (arXiv 2210.10760): gold rises with the number of comparisons.",
    quick=Quick(seeds=4, points=(0, 2), arms=("plain", "rate-known", "half-the-answers")),
)
