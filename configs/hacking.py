"""Reward hacking on real ratings: a near-zero KL weight and a judge that saw only real words.

    .venv/bin/rlhf-jax train hacking

The people compare rated words only, so nobody ever told the reward model what gibberish is
worth, and almost nothing holds the policy to words.

Cost: about 3½ minutes on 2 CPU cores. Result (2026-11-23, 16 seeds, before judges were
fitted until they are and PPO warmed up): proxy +4.05 ± 0.46; gold rises
from −0.60 to 0.89 ± 0.67 at iteration 15 and then falls to −1.00, gibberish, in 15 of 16 seeds. One
seed ends on real words (2.07), which makes the mean at the end −0.81 ± 0.41.
"""

from rlhf_jax.config import PPO, Adam, Collect, Config, Pretrain, Reward

config = Config(
    name="hacking",
    seeds=16,
    rounds=1,
    pretrain=Pretrain(epochs=10),
    collect=Collect(mode="offline", budget=12288),
    reward=Reward(batch=64, adam=Adam(learning_rate=2e-3, final=1.0, weight_decay=0.01)),
    ppo=PPO(
        iterations=60,
        epochs=2,
        kl_weight=0.001,
        adam=Adam(learning_rate=5e-4, warmup=20, final=1.0, eps=1e-5),
    ),
)
