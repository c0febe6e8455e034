"""B4: how far can a learnt reward be optimised before gold falls, and what moves that point?

.venv/bin/rlhf-jax study reward_hacking        # --quick: 4 seeds, 3 arms

What it had found was withdrawn on 2026-11-27 (docs/studies.md); in full it is to be run again.

Of the 15 claims 9 were stated before their data, 4 while the first run was being made and 2 between
two runs of the same seeds; the margins of the trends were set on 2026-11-27.
"""

import dataclasses

from rlhf_jax import laptop
from rlhf_jax.config import Evaluate, Model
from rlhf_jax.expectations import Differs, Trend
from rlhf_jax.studies.frontier import DATA, SINGLE, WIDTHS, analyse, proxy_name
from rlhf_jax.studies.metrics import gold_at_proxy, kl_wasted
from rlhf_jax.studies.overoptimisation import BEST_OF_N, POLICY
from rlhf_jax.study import Axis, Metric, Quick, Study


def arm(width: int = 32, answers: int = 2048, kl_weight: float = 0.0, **reward: object):
    """A proxy of this width, fresh, fitted to this many comparisons of θ_ref's samples."""
    shape = Model(width=width, layers=2, heads=2, kv_heads=2, mlp=3 * width)
    return laptop.config(
        world=dataclasses.replace(laptop.WORLD, gold="model"),
        collect=laptop.collect(2 * answers, corpus_share=0.0),
        reward=laptop.reward(start="fresh", model=shape, **reward),
        ppo=laptop.ppo(kl_weight=kl_weight),
        evaluate=Evaluate(samples=512, shown=4, best_of=4096),
    )


SIZES = {proxy_name(w, n): arm(w, n) for w in WIDTHS for n in DATA}
PENALTIES = {f"kl-{b:g}": arm(kl_weight=b) for b in (0.02, 0.1, 0.5)}
FOUR = {"members": 4}
ENSEMBLES = {
    "mean-of-4": arm(**FOUR),
    "worst-of-4": arm(**FOUR, aggregate="worst_case"),
    "doubt-of-4": arm(**FOUR, aggregate="uncertainty_weighted", doubt=0.5),
}

study = Study(
    name="reward_hacking",
    atlas="B4",
    title="Reward hacking: gold and proxy against √KL",
    question="A reward model fitted to all the real ratings plays the person. Proxies of four "
    "sizes learn from four amounts of its comparisons, clean or one in four turned round. How "
    "do gold and proxy move as best-of-n and PPO optimise the proxy, and do KL penalties or "
    "ensembles help?",
    arms={**SIZES, **PENALTIES, **ENSEMBLES},
    baseline=SINGLE,
    axis=Axis("human.flip", (0.0, 0.25), "answers turned round", "share"),
    metrics=(
        gold_at_proxy(unit="gold model's rating"),
        kl_wasted(),
        Metric("gold", "gold after PPO", "gold model's rating"),
        Metric(
            "accuracy",
            "proxy's accuracy, held-out words",
            "share",
            "measure",
            "reward/accuracy_heldout",
        ),
        Metric("KL", "KL after PPO", "nats", metric="eval/kl_exact", better="lower"),
        *BEST_OF_N,
        *POLICY,
    ),
    expectations=(
        # Margins of coefficients: what 0.2 of gold at √KL = 2 takes. Those of trends were set when
        # the rule came to ask for them.
        Trend(
            "best-of-n α",
            "clean answers",
            "increases",
            by=0.1,
            scale="log",
            source="Gao et al. 2022",
            stated="before",
            primary=True,
        ),
        Trend(
            "best-of-n β",
            "clean answers",
            "decreases",
            by=0.05,
            scale="log",
            source="Gao et al. 2022",
            stated="before",
        ),
        Trend(
            "best-of-n gold at the end",
            "more data",
            "increases",
            by=0.2,
            scale="log",
            source="Gao et al. 2022",
            stated="before",
        ),
        Differs(
            "accuracy",
            proxy_name(32, 128),
            0.5,
            "same",
            by=0.05,
            at=0.0,
            source="Gao et al. 2022: few comparisons = chance",
            stated="before",
        ),
        Differs(
            "KL to a proxy of 1",
            "PPO",
            "best-of-n",
            "higher",
            source="Gao et al. 2022",
            stated="before",
            primary=True,
        ),
        Differs(
            "gold at √KL = 2",
            "kl-0.1",
            SINGLE,
            "same",
            by=0.2,
            source="Gao et al. 2022: the same frontier",
            stated="before",
        ),
        Differs(
            "best-of-n gold at the end",
            "worst-of-4",
            SINGLE,
            "higher",
            source="Coste et al. 2023",
            stated="before",
            primary=True,
        ),
        Differs(
            "decline of best-of-n",
            "worst-of-4",
            SINGLE,
            "lower",
            source="Coste et al. 2023",
            stated="before",
        ),
        Differs(
            "gold",
            "worst-of-4",
            SINGLE,
            "higher",
            at=0.25,
            source="Coste et al. 2023",
            stated="before",
        ),
        # While the first run of all arms was being made.
        Trend(
            "PPO β",
            "clean answers",
            "decreases",
            by=0.15,
            scale="log",
            source="Gao et al. 2022",
            stated="after",
        ),
        Differs(
            "bend of the proxy",
            "best-of-n",
            0.0,
            "same",
            by=0.1,
            source="Gao et al. 2022: the proxy is about linear in √KL",
            stated="after",
        ),
        Differs(
            "bend of the proxy",
            "PPO",
            0.0,
            "same",
            by=0.1,
            source="Gao et al. 2022",
            stated="after",
        ),
        Differs(
            "accuracy",
            SINGLE,
            SINGLE,
            "lower",
            at=0.25,
            baseline_at=0.0,
            source="Coste et al. 2023: 25 % noise hurts",
            stated="after",
        ),
        # Between two runs of the same seeds.
        Differs(
            "best-of-n gold at the end",
            "doubt-of-4",
            SINGLE,
            "higher",
            source="Coste et al. 2023",
            stated="after",
        ),
        Differs(
            "gold",
            "doubt-of-4",
            SINGLE,
            "higher",
            at=0.25,
            source="Coste et al. 2023",
            stated="after",
        ),
    ),
    control=Differs(
        "accuracy",
        proxy_name(32, 8192),
        0.5,
        "higher",
        by=0.05,
        at=0.0,
        source="a proxy of 8192 comparisons is better than chance",
        stated="after",
    ),
    analyse=analyse,
    compare_with="Gao et al. 2022 (arXiv 2210.10760): α rises and β falls about linearly in the "
    "log of the proxy's size; the proxy is about linear in √KL; RL spends more KL than best-of-n; "
    "a KL penalty moves along the same frontier. Coste et al. 2023 (arXiv 2310.02743): worst-case "
    "and uncertainty-weighted ensembles remove the decline of best-of-n.",
    quick=Quick(
        seeds=4,
        arms=(SINGLE, proxy_name(8, 2048), proxy_name(32, 8192), "kl-0.1"),
        settings={"ppo.iterations": 40},
    ),
)
