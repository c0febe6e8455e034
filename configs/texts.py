"""Your own preference file: a reward model measured on held-out prompts, a policy against it.

    .venv/bin/rlhf-jax train texts --collect.source FILE

FILE is whatever `rlhf-jax data stats FILE` reads, if it holds comparisons: TRL, hh-rlhf, Label
Studio, Argilla and others. There is no gold: the report says how well the reward model predicts
what people said of prompts that it never saw, what the proxy became and at what KL. See
docs/texts.md.
"""

from rlhf_jax.config import PPO, Adam, Config, Evaluate, Model, Pretrain, Reward, World

config = Config(
    name="texts",
    seeds=1,
    world=World(name="texts", length=64, prompt_length=32, vocabulary=512, held_out=0.2),
    model=Model(width=64, layers=2, heads=4, kv_heads=2, mlp=128),
    pretrain=Pretrain(epochs=3, batch=32),
    reward=Reward(
        batch=32, steps=512, look=32, adam=Adam(learning_rate=1e-3, final=1.0, weight_decay=0.01)
    ),
    ppo=PPO(
        iterations=20,
        batch=64,
        epochs=2,
        kl_weight=0.1,
        adam=Adam(learning_rate=3e-4, warmup=20, final=1.0, eps=1e-5),
    ),
    evaluate=Evaluate(samples=128, shown=12),
)
