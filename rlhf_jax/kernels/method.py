"""What a learner of step 3 is: one value, with which each learner's file ends."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from rlhf_jax.config import Config
from rlhf_jax.feedback.kind import Settings
from rlhf_jax.kernels.experience import Task
from rlhf_jax.transforms import repeat
from rlhf_jax.types import HParams, Kernel, Key, Params, State


class Method(NamedTuple):
    """One way to optimise a policy."""

    name: str
    """as `Config.learner` names it"""
    section: str
    """of `Config`, where its settings are"""
    equation: Callable[[Settings], str]
    """what the policy is trained for, of the settings of a run"""
    samples: Callable[[Settings], int]
    """responses that a step reads (comparisons, where it reads those)"""
    kernel: Callable[[Task, Config, int, int], Kernel]
    """(task, config, steps planned, steps of a call) → init: (key, own settings, θ, the critic's
    parameters), and a step that makes all of a call"""
    reads: Literal["samples", "comparisons"] = "samples"
    """what it is given: `experience.Given`, to sample and judge; or (reference, answers, how many
    of them), to fit to what people said"""


def alone(kernel: Kernel) -> Callable[[Key, HParams, Params, Params], State]:
    """The `init` of a learner without critic, whose parameters it leaves."""
    return lambda key, hparams, theta, critic: kernel.init(key, hparams, theta)


def repeated(kernel: Kernel, steps: int) -> Kernel:
    """A learner without critic that makes `steps` steps a call."""
    return Kernel(alone(kernel), repeat(kernel, steps).step)


# --- what equations are written with

AVERAGES = {
    "tokens": "mean over all tokens",
    "sequences": "mean over a response's tokens, then over responses",
    "constant": "sum over tokens, divided by responses × longest response",
}
"""What the loss of a token counts (`ops.policy_losses.weights`), by `ppo.average` and others."""


def worded(table: Mapping[Any, str], settings: Settings, path: str) -> str:
    """What the table says of a setting; the setting itself where the table is younger than it."""
    value = settings.get(path, "not stated")
    return table.get(value, str(value))


def sentence(*parts: str) -> str:
    """The parts that say something."""
    return "; ".join(part for part in parts if part)
