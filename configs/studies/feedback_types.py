"""A9: ten kinds of feedback at equal cost, each through the whole pipeline of words.

.venv/bin/rlhf-jax study feedback_types        # --quick: 4 seeds, 4 kinds

What it had found was withdrawn on 2026-11-27 (docs/studies.md); in full it is to be run again.

The claims at equal proxy were stated after gold at the end of the run had been seen; those about
the end before. A fourth of them, that comparisons bring gold above 0, was taken out after it.
"""

from rlhf_jax import laptop
from rlhf_jax.expectations import Differs
from rlhf_jax.studies.metrics import gold_at_kl, gold_at_proxy, gold_of_optimum, kl_wasted
from rlhf_jax.study import Metric, Quick, Study

KINDS = (
    *("comparison", "ranking", "rating", "likert", "label"),
    *("correction", "demonstration", "language", "process", "span"),
)

HEADLINE = gold_at_proxy().name

study = Study(
    name="feedback_types",
    atlas="A9",
    title="Ten kinds of feedback at equal cost",
    question="People read or write 6144 samples a seed. Which kind of answer about them makes the "
    "best policy, and the best reward model?",
    arms={kind: laptop.config(collect=laptop.collect(feedback=kind)) for kind in KINDS},
    metrics=(
        gold_at_proxy(),
        Metric("gold", "gold of samples", "mean human rating, −4…4"),
        gold_of_optimum(),
        kl_wasted(),
        gold_at_kl(4.0),
        Metric("start", "gold before", "mean human rating, −4…4", round=0),
        Metric(
            "rank correlation",
            "rank correlation, held-out words",
            "Spearman's ρ",
            "measure",
            "reward/rank_correlation",
        ),
        Metric(
            "accuracy",
            "accuracy on a person's held-out comparisons",
            "share",
            "measure",
            "reward/accuracy_heldout",
        ),
        Metric("KL", "KL from the reference", "nats", metric="eval/kl_exact", better="lower"),
        Metric(
            "answered", "share of answers that count", "share", "collect", "collect/answered_share"
        ),
    ),
    expectations=(
        # At equal proxy: when gold at the end of the run had been seen to settle nothing, of judges
        # that had not been given equal steps.
        Differs(
            HEADLINE,
            "rating",
            "comparison",
            "higher",
            by=0.1,
            source="a number tells more than one bit (Jeon et al. 2020)",
            stated="after",
            primary=True,
        ),
        Differs(
            HEADLINE,
            "ranking",
            "comparison",
            "higher",
            by=0.1,
            source="K log K bits for K samples",
            stated="after",
            primary=True,
        ),
        Differs(HEADLINE, "label", "rating", "lower", by=0.1, stated="after", primary=True),
        Differs("gold", "rating", "comparison", "higher", stated="before"),
        Differs("gold", "ranking", "comparison", "higher", stated="before"),
        Differs("gold", "label", "rating", "lower", stated="before"),
    ),
    control=Differs(
        "accuracy",
        "rating",
        0.5,
        "higher",
        by=0.05,
        source="a judge of 6144 ratings is better than chance",
        stated="after",
    ),
    compare_with="multi-type-feedback (Metz et al. 2025): no kind is best everywhere; at equal "
    "numbers of answers rich kinds win.",
    quick=Quick(seeds=4, arms=("comparison", "rating", "label", "ranking")),
)
