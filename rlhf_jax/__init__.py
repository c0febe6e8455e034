"""A laboratory for reinforcement learning from human feedback, in JAX.

    0  pretrain    π_θ models the data                          kernels/pretrain
    1  feedback    x ~ π_θ,  y = f(H, x, ε)                      kernels/collect, humans, feedback
    2  reward      min_φ Σ ℓ(r_φ(x), y) + λ_r(φ)                 kernels/reward
    3  policy      max_θ E[ r_φ(x) + λ_p(θ_ref, θ, x) ]          kernels/ppo

Every step is a `Kernel(init, step)` of pure functions; `transforms` makes a population of it
(vmap), repeats it (scan) and lays it over devices (shard_map); `pipeline` puts the steps into
one plan, `loop` follows the plan and keeps the files. Casper et al. 2023 (arXiv 2307.15217).
"""

from rlhf_jax.config import Config, ConfigError

__all__ = ["Config", "ConfigError"]
