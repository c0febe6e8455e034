"""F1: KL-regularised RLHF is Bayesian inference, and what of it each learner reaches.

python scripts/study.py configs/studies/bayesian_view.py        # --quick: 4 seeds, 3 points
"""

from rlhf_jax.config import (
    DPO,
    GRPO,
    PPO,
    Adam,
    BestOfN,
    Collect,
    Config,
    Evaluate,
    Human,
    Model,
    Pretrain,
    Reinforce,
    Reward,
    World,
)
from rlhf_jax.expectations import Differs, Trend
from rlhf_jax.study import Axis, Metric, Quick, Study

BETA = 0.5
STEPS = (1, 4, 16, 64, 256)
ADAM = Adam(learning_rate=2e-3, warmup=0, final=0.1, eps=1e-5)


def arm(learner: str) -> Config:
    return Config(
        learner=learner,
        world=World(name="probe", symbols=4, length=4, held_out=0.01),
        model=Model(width=32, layers=2, heads=2, kv_heads=2, mlp=64),
        pretrain=Pretrain(epochs=0, shared=False),
        human=Human(rationality=1.0),
        collect=Collect(budget=2 * 2**14, corpus_share=0.0),
        reward=Reward(kind="gold", batch=128),
        ppo=PPO(batch=256, epochs=4, kl_weight=BETA, adam=ADAM, value_learning_rate=2e-3),
        reinforce=Reinforce(batch=256, kl_weight=BETA, adam=ADAM),
        grpo=GRPO(batch=256, kl_weight=BETA, adam=ADAM),
        dpo=DPO(batch=256, kl_weight=BETA, adam=ADAM),
        bestofn=BestOfN(n=8, batch=256, adam=ADAM),
        evaluate=Evaluate(samples=512, shown=0),
    )


AXIS = Axis(
    (
        "ppo.iterations",
        "reinforce.iterations",
        "grpo.iterations",
        "dpo.iterations",
        "bestofn.iterations",
    ),
    tuple((n,) * 5 for n in STEPS),
    "steps of the learner, 256 samples each",
    scale="log",
)

study = Study(
    name="bayesian_view",
    atlas="F1",
    title="RLHF as Bayesian inference",
    question="With gold itself as the reward, the KL-regularised optimum is the posterior "
    "π_ref exp(r/β)/Z. In a world where every response is known, which learners come to it, and "
    "at what cost?",
    arms={name: arm(name) for name in ("ppo", "reinforce", "grpo", "dpo", "imitation")},
    axis=AXIS,
    metrics=(
        Metric(
            "KL to posterior",
            "KL(π ‖ posterior)",
            "nats",
            metric="eval/kl_optimum",
            better="lower",
        ),
        Metric("gold", "gold of samples", "deviations"),
        Metric("KL", "KL from the reference", "nats", metric="eval/kl_exact"),
    ),
    expectations=(
        *(
            Trend("KL to posterior", name, "decreases", scale="log", source="Korbak et al. 2022")
            for name in ("ppo", "reinforce", "dpo")
        ),
        Differs("KL to posterior", "ppo", 0.05, "lower", at=256.0),
        Differs("KL to posterior", "reinforce", 0.05, "lower", at=256.0),
        Differs("KL to posterior", "dpo", 0.05, "lower", at=256.0),
        Differs("KL to posterior", "imitation", 0.05, "higher", at=256.0),
    ),
    compare_with="Korbak et al. 2022 (arXiv 2205.11275): RL with KL penalties is variational "
    "inference; the optimum is the posterior. DPO's posterior is that of the people's own "
    "rationality; best-of-n (imitated) has another optimum.",
    quick=Quick(seeds=4, points=(0, 2, 3), arms=("ppo", "dpo")),
)
