"""One file an equation: pretrain, sampling, reward, ppo, evaluate."""
