"""Reward hacking on real ratings: a near-zero KL weight and a judge that saw only real words.

    python scripts/train.py configs/hacking.py

The people compare rated words only, so nobody ever told the reward model what gibberish is
worth, and almost nothing holds the policy to words.

Result (2026-11-23): proxy +3.50 ± 0.61 while gold falls from −0.62 to −1.00, change
−0.37 ± 0.04 (95 % over 8 seeds), after a peak of 0.56 ± 0.83 at iteration 10.
"""

from rlhf_jax.config import PPO, Adam, Collect, Config, Pretrain, Reward

config = Config(
    name="hacking",
    seeds=8,
    rounds=1,
    pretrain=Pretrain(epochs=10),
    collect=Collect(mode="offline", budget=12288),
    reward=Reward(epochs=1, batch=64, adam=Adam(learning_rate=2e-3, weight_decay=0.01)),
    ppo=PPO(
        iterations=60,
        epochs=2,
        kl_weight=0.001,
        adam=Adam(learning_rate=5e-4, warmup=0, final=1.0, eps=1e-5),
    ),
)
