"""A laboratory for reinforcement learning from human feedback, in JAX.

    0  pretrain    π_θ models the data                          kernels/pretrain
    1  feedback    x ~ π_θ,  y = f(H, x, ε)                      kernels/collect, humans, feedback
    2  reward      min_φ Σ ℓ(r_φ(x), y) + λ_r(φ)                 kernels/reward
    3  policy      max_θ E[ r_φ(x) + λ_p(θ_ref, θ, x) ]          kernels/ppo

Every step is a `Kernel(init, step)` of pure functions; `transforms` makes a population of it
(vmap), repeats it (scan) and lays it over devices (shard_map); `pipeline` puts the steps into
one plan, `loop` follows the plan and keeps the files. Casper et al. 2023 (arXiv 2307.15217).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhf_jax.config import Config, ConfigError, Group, Human

if TYPE_CHECKING:
    from pathlib import Path

    from rlhf_jax.pipeline import Pipeline

__all__ = ["Config", "ConfigError", "Group", "Human", "build", "run"]


def build(config: Config, **own: Any) -> Pipeline:
    """A run in memory: `begin()` is its state, `plan` the calls that take the state further.

        line = build(config)
        state = line.begin()
        for call in line.plan:
            state, metrics = call.run(state)

    Keywords are the fields of `own.Own`: a world, score, feedback or penalty of your own in the
    place of what the configuration names. Raises `ConfigError`.
    """
    from rlhf_jax import loop
    from rlhf_jax.own import Own

    return loop.build(config, own=Own(**own))


def run(config: Config, **own: Any) -> Path:
    """Runs, or goes on with, such a run, and returns its folder: checkpoints, metrics, report.

    Raises: as `loop.run`.
    """
    from rlhf_jax import loop, report

    directory = loop.run(config, "from Python", build(config, **own))
    report.write_report(directory)
    return directory
