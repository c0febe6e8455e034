"""D1 and D2: a judge that sees what the policy now says, never, sometimes, or all the time.

.venv/bin/rlhf-jax study refresh        # --quick: 4 seeds, 2 points

Result of 2026-11-25, 16 seeds: asked once, people leave a judge that over-values what the policy
comes to say; asked often, of as many answers, hardly. It is to be run again with judges that are
fitted until they are (docs/studies.md).

All 8 claims were stated before their data, three of them on the day of the run; the margin of the
trend was set on 2026-11-27.
"""

from rlhf_jax import laptop
from rlhf_jax.expectations import Differs, Trend, Turns
from rlhf_jax.study import Axis, Metric, Quick, Study

BUDGET, ITERATIONS, STEPS = 8192, 64, 2048
ROUNDS = (1, 4, 16)
"""Each round fits to all answers so far, from where the last one ended, until those held back say
that it is enough, and for `STEPS` in all at most. `words-only` has the same schedule and
never sees what the policy says."""


def arm(mode: str = "online", share: float = 0.5) -> laptop.Config:
    return laptop.config(
        collect=laptop.collect(mode=mode, corpus_share=share),
        ppo=laptop.ppo(kl_weight=0.3),
    )


study = Study(
    name="refresh",
    atlas="D1, D2",
    title="How often should people be asked again?",
    question="The same number of answers and of PPO steps, split into more and more rounds. Does "
    "asking about what the policy now says keep the judge right, and is there a best rate? Does "
    "it help to mix in old data?",
    arms={"words-only": arm("offline"), "policy-only": arm(share=0.0), "half-and-half": arm()},
    axis=Axis(
        ("rounds", "collect.budget", "ppo.iterations", "reward.steps"),
        tuple((n, BUDGET // n, ITERATIONS // n, STEPS // n) for n in ROUNDS),
        "rounds of collection at equal cost",
        scale="log",
    ),
    metrics=(
        Metric("gold", "gold of samples", "mean human rating, −4…4"),
        Metric(
            "judge's error",
            "judge's error on the policy's samples",
            "deviations of π_ref's gold",
            metric="eval/proxy_error",
            better="lower",
        ),
        Metric(
            "over-valued",
            "over-valued samples",
            "share",
            metric="eval/overvalued_share",
            better="lower",
        ),
        Metric("non-words", "non-words", "share", metric="eval/nonword_share", better="lower"),
        Metric("KL", "KL from the reference", "nats", metric="eval/kl_exact", better="lower"),
    ),
    expectations=(
        Differs(
            "judge's error",
            "policy-only",
            "policy-only",
            "lower",
            at=16.0,
            baseline_at=1.0,
            source="Christiano et al. 2017: a judge of old data degenerates",
            stated="before",
            primary=True,
        ),
        Differs(
            "gold",
            "policy-only",
            "policy-only",
            "higher",
            by=0.2,
            at=16.0,
            baseline_at=1.0,
            source="Christiano et al. 2017",
            stated="before",
            primary=True,
        ),
        Differs(
            "judge's error",
            "policy-only",
            "words-only",
            "lower",
            at=16.0,
            source="D1: what being asked again adds at the same schedule",
            stated="before",
        ),
        Differs(
            "gold",
            "policy-only",
            "words-only",
            "higher",
            by=0.2,
            at=16.0,
            stated="before",
            primary=True,
        ),
        Differs(
            "over-valued", "policy-only", "words-only", "lower", by=0.05, at=16.0, stated="before"
        ),
        # A fifth of a deviation, as of gold: set when the rule came to ask for a margin.
        Trend("judge's error", "half-and-half", "decreases", by=0.2, scale="log", stated="before"),
        Turns(
            "gold",
            "half-and-half",
            "peaks",
            source="D2: too often and too rarely both cost",
            stated="before",
        ),
        Differs("gold", "half-and-half", "policy-only", "higher", by=0.2, at=16.0, stated="before"),
    ),
    control=Differs(
        "gold",
        "policy-only",
        0.0,
        "higher",
        by=0.2,
        at=1.0,
        source="optimising people's answers brings gold from −0.59 to above neutral words",
        stated="after",
    ),
    compare_with="Christiano et al. 2017 (arXiv 1706.03741): with all comparisons collected at the "
    "start the learnt reward is exploited.",
    quick=Quick(seeds=4, points=(0, 1), arms=("policy-only", "half-and-half")),
)
