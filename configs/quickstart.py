"""The whole of RLHF on real human ratings, for eight seeds at once.

    make quickstart        or        python scripts/train.py configs/quickstart.py
"""

from rlhf_jax.config import PPO, Adam, Collect, Config, Pretrain, Reward

config = Config(
    name="quickstart",
    seeds=8,
    rounds=2,
    pretrain=Pretrain(epochs=10),
    collect=Collect(mode="online", comparisons=6144, corpus_share=0.5),
    reward=Reward(epochs=1, batch=64, adam=Adam(learning_rate=2e-3, weight_decay=0.01)),
    ppo=PPO(
        iterations=20,
        epochs=2,
        kl_weight=0.3,
        adam=Adam(learning_rate=5e-4, warmup=0, final=1.0, eps=1e-5),
    ),
)
