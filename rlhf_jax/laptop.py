"""The size at which the studies run on a laptop: short words, a tiny transformer, many seeds."""

from __future__ import annotations

import dataclasses
from typing import Any

from rlhf_jax.config import PPO, Adam, Collect, Config, Model, Pretrain, Reward, World

MODEL = Model(width=48, layers=2, heads=4, kv_heads=2, mlp=128)
WORLD = World(length=10)
ADAM = Adam(learning_rate=2e-3, final=1.0, weight_decay=0.01)

SLOW = dataclasses.replace(PPO().adam, learning_rate=1e-4)
"""For policies that are held close: a nat wasted there costs more than the whole proxy gains."""


def collect(budget: int = 6144, **more: Any) -> Collect:
    """Samples of the policy and rated words, half and half."""
    return Collect(budget=budget, **more)


def reward(**more: Any) -> Reward:
    """Small batches, and no more of them than help."""
    own: dict[str, Any] = {"batch": 64, "adam": ADAM}
    return Reward(**(own | more))


def ppo(iterations: int = 60, **more: Any) -> PPO:
    """Two epochs an iteration, held to the reference by 0.3 deviations a nat."""
    own: dict[str, Any] = {"iterations": iterations, "epochs": 2, "kl_weight": 0.3}
    return PPO(**(own | more))


def config(**sections: Any) -> Config:
    """A run of this size; `sections` take the place of its own."""
    own: dict[str, Any] = {
        "world": WORLD,
        "model": MODEL,
        "pretrain": Pretrain(epochs=30),
        "collect": collect(),
        "reward": reward(),
        "ppo": ppo(),
    }
    return Config(**(own | sections))
