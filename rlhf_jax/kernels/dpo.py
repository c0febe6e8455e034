"""DPO: comparisons fit the policy itself, its log-ratio to the reference being the reward.

r(x) = β log π_θ(x)/π_ref(x) (+ a constant), so the Bradley–Terry likelihood of step 2 is a loss
for θ. Rafailov et al. 2023 (arXiv 2305.18290), eq. 7; label smoothing: Chowdhury et al. 2024
(arXiv 2403.00409) call it cDPO. IPO (Azar et al. 2023, arXiv 2310.12036, eq. 17) asks for a
log-ratio gap of 1/(2τ) instead of an ever larger one.

With Bradley–Terry labels DPO's minimum is π_ref exp(r/β)/Z wherever both samples can occur:
PPO's optimum, with no sampling from π_θ. IPO's is π_ref exp(P(x ≻ x')/τ)/Z, with the
probability of being preferred to a random sample in the place of the reward.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.config import DPO, Config, reaches
from rlhf_jax.feedback.comparison import Comparison, bradley_terry
from rlhf_jax.feedback.kind import Settings
from rlhf_jax.kernels.experience import Task
from rlhf_jax.kernels.learner import Learner, descend, optimiser, position, start
from rlhf_jax.kernels.method import Method, alone, sentence, worded
from rlhf_jax.kernels.sampling import sequence_log_probs
from rlhf_jax.models.heads import Policy
from rlhf_jax.transforms import minibatches
from rlhf_jax.types import Array, Kernel, Key, Metrics, Params


class State(NamedTuple):
    policy: Learner


class Pairs(NamedTuple):
    """Comparisons with what the reference thinks of both sides; it is asked once, not each step."""

    answers: Comparison
    reference_a: Array
    """[N] log π_ref(a)"""
    reference_b: Array


def pair(policy: Policy, reference: Params, answers: Comparison) -> Pairs:
    return Pairs(
        answers,
        sequence_log_probs(policy, reference, answers.a),
        sequence_log_probs(policy, reference, answers.b),
    )


def identity_preference(gap: Array, label: Array, weight: Array) -> Array:
    """IPO: y (h − 1/2τ)² + (1 − y)(h + 1/2τ)², h = difference of log-ratios. [N] → [N].

    A label outside [0, 1] ("can't tell") costs nothing.
    """
    goal = 0.5 / weight
    loss = label * jnp.square(gap - goal) + (1.0 - label) * jnp.square(gap + goal)
    return jnp.where(label < 0.0, 0.0, loss)


def kernel(policy: Policy, steps: int) -> Kernel:
    """`init` is given the policy's starting parameters; batch: `Pairs` [N, …].

    Metrics are means over the pairs that a person did not call equal, named as in TRL:
    `logps/chosen` log π_θ of the preferred response, `rewards/chosen` its implied reward
    β log π_θ/π_ref, `rewards/margins` chosen less rejected.
    """

    def init(key: Key, hparams: DPO, policy_params: Params) -> State:
        tx = optimiser(hparams.adam, steps, hparams.adam.learning_rate)
        return State(start(policy_params, key, hparams, tx))

    def objective(params: Params, hp: DPO, batch: Pairs) -> tuple[Array, Metrics]:
        answers = batch.answers
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), answers.a, answers.b)
        log_a, log_b = jnp.split(sequence_log_probs(policy, params, both), 2)
        ratio_a, ratio_b = log_a - batch.reference_a, log_b - batch.reference_b
        if hp.loss == "ipo":
            each = identity_preference(ratio_a - ratio_b, answers.label, hp.kl_weight)
        else:
            implied = hp.kl_weight * ratio_a, hp.kl_weight * ratio_b
            each = bradley_terry(*implied, answers.label, smoothing=hp.smoothing)
        total = jnp.maximum(jnp.sum(answers.weight), 1e-12)
        loss = jnp.sum(answers.weight * each) / total
        untied = answers.weight * (answers.label != 0.5) * (answers.label >= 0)
        mean = lambda x: jnp.sum(x * untied) / jnp.maximum(jnp.sum(untied), 1e-12)
        first = answers.label > 0.5
        chosen = jnp.where(first, log_a, log_b), jnp.where(first, ratio_a, ratio_b)
        rejected = jnp.where(first, log_b, log_a), jnp.where(first, ratio_b, ratio_a)
        return loss, {
            "loss/policy_avg": loss,
            "train/accuracy": mean((ratio_a > ratio_b) == first),
            "logps/chosen": mean(chosen[0]),
            "logps/rejected": mean(rejected[0]),
            "rewards/chosen": hp.kl_weight * mean(chosen[1]),
            "rewards/rejected": hp.kl_weight * mean(rejected[1]),
            "rewards/margins": hp.kl_weight * mean(chosen[1] - rejected[1]),
        }

    def step(state: State, batch: Pairs) -> tuple[State, Metrics]:
        learner, hp = state.policy, state.policy.hparams
        gradient, metrics = jax.grad(objective, has_aux=True)(learner.params, hp, batch)
        tx = optimiser(hp.adam, steps, hp.adam.learning_rate)
        return State(descend(learner, gradient, tx)), metrics

    return Kernel(init, step)


def from_table(policy: Policy, fit: Kernel, batch: int, steps: int) -> Kernel:
    """`steps` minibatches of all comparisons so far a call.

    Batch: (the reference, `Comparison` [N, …], how many of them are filled). The reference is
    asked about each minibatch: a call sees a few rows of a long table.
    """

    def step(state: State, given: tuple[Params, Comparison, Array]) -> tuple[State, Metrics]:
        reference, answers, filled = given
        asked = Kernel(fit.init, lambda s, rows: fit.step(s, pair(policy, reference, rows)))
        many = minibatches(asked, batch, lambda s: position(s.policy), steps)
        return many.step(state, (answers, filled))

    return Kernel(fit.init, step)


LOSSES = {
    "dpo": "min_θ E[−y log σ(Δ) − (1−y) log σ(−Δ)], Δ = β log π_θ/π_ref(a) − β log π_θ/π_ref(b), "
    "on the comparisons themselves; DPO, a tie is y = ½",
    "ipo": "min_θ E[y (Δ − 1/2τ)² + (1−y) (Δ + 1/2τ)²], Δ = log π_θ/π_ref(a) − log π_θ/π_ref(b), "
    "on the comparisons themselves; IPO, a tie is y = ½",
}
"""By `dpo.loss`."""


def equation(settings: Settings) -> str:
    """The loss, and how labels are smoothed where they are."""
    smoothed = reaches(settings.get("dpo.smoothing", 0)) and settings.get("dpo.loss") == "dpo"
    smoothing = f"y ← (1−s) y + s/2, s = {settings.get('dpo.smoothing')}"
    return sentence(worded(LOSSES, settings, "dpo.loss"), smoothing if smoothed else "")


def _kernel(task: Task, config: Config, steps: int, call: int) -> Kernel:
    fit = kernel(task.policy, steps)
    return Kernel(alone(fit), from_table(task.policy, fit, config.dpo.batch, call).step)


LEARNER = Method(
    name="dpo",
    section="dpo",
    equation=equation,
    samples=lambda settings: settings["dpo.batch"],
    kernel=_kernel,
    reads="comparisons",
)
