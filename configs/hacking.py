"""Reward hacking on real ratings: a near-zero KL weight and a judge that saw only real words.

    .venv/bin/rlhf-jax train hacking

The people compare rated words only, so nobody ever told the reward model what gibberish is
worth, and almost nothing holds the policy to words.

Cost: 8 minutes of processor time. Result (2026-11-27, 16 seeds): proxy +2.43 ± 0.25; gold rises
from −0.60 to 1.66 ± 0.56 at iteration 22 and then falls, to −1.00, gibberish, in ten of 16 seeds;
six end on real words (1.6 to 2.7), which makes the mean at the end 0.14 ± 0.82.
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
