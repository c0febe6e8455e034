"""All that can optimise the policy: to add a learner is to write its file, to name its value here
and in `config.Config.learner`, and to give it a section of settings.
"""

from __future__ import annotations

from rlhf_jax.config import ConfigError
from rlhf_jax.kernels import bestofn, dpo, grpo, ppo, reinforce
from rlhf_jax.kernels.method import Method

LEARNERS = (ppo.LEARNER, reinforce.LEARNER, grpo.LEARNER, dpo.LEARNER, bestofn.LEARNER)
"""In the order of `config.Config.learner`."""


def find(name: str) -> Method | None:
    """The learner of this name; None where there is none, as of a run younger than this code."""
    return next((learner for learner in LEARNERS if learner.name == name), None)


def named(name: str) -> Method:
    """The learner of this name. Raises `ConfigError` where there is none."""
    learner = find(name)
    if learner is None:
        raise ConfigError(f"learner = {name}: there is no such learner")
    return learner
