"""GRPO: the group's scores are the baseline, the KL stands in the loss as k3.

Shao et al. 2024 (arXiv 2402.03300): Â_i = (s_i − mean s)/(std s + 1e-4) over the samples of
one prompt, the clipped surrogate averaged over a response's tokens and then over responses,
plus β Σ k3. Dr. GRPO (Liu et al. 2025, arXiv 2503.20783) neither divides by the deviation nor
by the length. On-policy, E ∇k3 is the gradient of the *forward* KL(π_ref ‖ π) of each state,
and the tokens before see none of it: the rest is not π_ref exp(r/β)/Z. A sample is part of its
own baseline, so scores count (G − 1)/G: for responses of one token without division the rest
is π(a) = β′ π_ref(a) / (β′ + E_π r − r(a)) with β′ = β G/(G − 1), see `rest`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from rlhf_jax.config import GRPO, ConfigError
from rlhf_jax.feedback.kind import Settings
from rlhf_jax.kernels.experience import Given, Task, gather, objective, shuffled
from rlhf_jax.kernels.learner import Learner, descend, optimiser, start
from rlhf_jax.kernels.method import AVERAGES, Method, repeated, sentence, worded
from rlhf_jax.kernels.sampling import check, chosen, log_distribution
from rlhf_jax.mesh import spread
from rlhf_jax.models.heads import Policy
from rlhf_jax.ops import divergences
from rlhf_jax.ops.policy_losses import surrogate, weighted, weights
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params

EPSILON = 1e-4


class State(NamedTuple):
    policy: Learner


class Experience(NamedTuple):
    episode: Episode
    logps: Array
    """[B, T] of the policy that acted"""
    reference: Array
    """[B, T]"""
    advantages: Array
    """[B]"""


def group_advantages(scores: Array, group: int, divide: bool) -> Array:
    """[B] → [B]: (s_i − mean)/(std + ε), moments of its group (neighbours), itself among them,
    no Bessel: of the published algorithm, not the unbiased `reinforce.leave_one_out`."""
    rows = scores.reshape(-1, group)
    centred = rows - jnp.mean(rows, axis=1, keepdims=True)
    if divide:
        centred = centred / (jnp.std(rows, axis=1, keepdims=True) + EPSILON)
    return centred.reshape(-1)


def policy_loss(
    policy: Policy, params: Params, hp: GRPO, data: Experience
) -> tuple[Array, Metrics]:
    mask = data.episode.mask
    log_p = log_distribution(policy, params, data.episode, hp.temperature)
    logps = chosen(log_p, data.episode)
    advantages = jnp.broadcast_to(data.advantages[:, None], mask.shape)
    loss = surrogate(logps - data.logps, advantages, hp.clip, jnp.asarray(jnp.inf))
    kl = divergences.k3(logps - data.reference)
    weight, share = weights(mask, hp.average), weights(mask, "tokens")
    ratio = jnp.exp(logps - data.logps)
    moved = jnp.abs(ratio - 1.0) > hp.clip
    return weighted(loss + hp.kl_weight * kl, weight), {
        "loss/policy_avg": weighted(loss, weight),
        "policy/entropy_avg": weighted(divergences.entropy(log_p), share),
        "policy/approxkl_avg": weighted(divergences.k2(logps - data.logps), share),
        "policy/clipfrac_avg": weighted(moved.astype(jnp.float32), share),
        "val/ratio": weighted(ratio, share),
    }


def kernel(task: Task, steps: int) -> Kernel:
    """`init` is given the policy's starting parameters; batch: `Given`.

    Raises: `ConfigError` at `init` where the batch is not whole groups or minibatches.
    """

    def transformation(hp: GRPO) -> optax.GradientTransformation:
        return optimiser(hp.adam, steps * hp.epochs * hp.minibatches, hp.adam.learning_rate)

    def init(key: Key, hparams: GRPO, policy_params: Params) -> State:
        check(task.language)
        if hparams.group < 2 or hparams.batch % hparams.group:
            raise ConfigError(
                f"grpo.group = {hparams.group}: must be 2 or more and divide grpo.batch = "
                f"{hparams.batch}"
            )
        if hparams.batch % hparams.minibatches:
            raise ConfigError(
                f"grpo.minibatches = {hparams.minibatches} does not divide grpo.batch = "
                f"{hparams.batch}"
            )
        return State(start(policy_params, key, hparams, transformation(hparams)))

    def step(state: State, given: Given) -> tuple[State, Metrics]:
        hp = state.policy.hparams
        iteration = state.policy.step // (hp.epochs * hp.minibatches)
        roll_key, order_key = jax.random.split(jax.random.fold_in(state.policy.key, iteration))
        x = gather(task, given, state.policy.params, roll_key, hp.batch, hp.temperature, hp.group)
        advantages = group_advantages(x.scores, hp.group, hp.deviation)
        reference = chosen(x.reference, x.episode)
        data = Experience(x.episode, x.logps, reference, advantages)

        def one(policy: Learner, take: Array) -> tuple[Learner, Metrics]:
            part = spread(jax.tree.map(lambda leaf: leaf[take], data))
            loss = lambda params: policy_loss(task.policy, params, hp, part)
            gradient, said = jax.grad(loss, has_aux=True)(policy.params)
            return descend(policy, gradient, transformation(hp)), said

        rows = shuffled(order_key, hp.batch, hp.epochs, hp.minibatches)
        policy, learned = jax.lax.scan(one, state.policy, rows)
        metrics = objective(task, given, x, hp.kl_weight)
        metrics["val/ratio_first"] = learned["val/ratio"][0]
        return State(policy), metrics | jax.tree.map(jnp.mean, learned)

    return Kernel(init, step)


def rest(log_reference: Array, reward: Array, weight: Array, group: float) -> Array:
    """log π [N] where GRPO without division comes to rest on one-token responses.

    A group's mean has the sample itself in it: E[(r_i − mean r) ∇log π(x_i)] = (G − 1)/G ∇E r,
    so the penalty weighs β′ = β G/(G − 1) beside the whole of it (`group` = ∞: a baseline that
    is independent of the sample). 0 = π(a) (r(a) − E_π r) + β′ (π_ref(a) − π(a)) for every a,
    so π(a) = β′ π_ref(a)/(c − r(a)) with c > max r such that Σ π = 1 (then c = β′ + E_π r):
    found by bisection. In words: the logarithm of PPO's optimum is replaced by a rational
    function of the reward (Vojnovic & Yun 2025, arXiv 2502.18548).
    """
    weight = weight / (1.0 - 1.0 / group)
    top = jnp.max(reward)

    def halve(between: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        low, high = between
        c = 0.5 * (low + high)
        more = jnp.sum(weight * jnp.exp(log_reference) / (c - reward)) > 1.0
        return (jnp.where(more, c, low), jnp.where(more, high, c)), None

    # At c = top + β every term is at most π_ref: the sum is at most 1.
    (_, c), _ = jax.lax.scan(halve, (top, top + weight), length=60)
    return jnp.log(weight) + log_reference - jnp.log(c - reward)


ADVANTAGES = {
    True: "Â = (r_φ(x) − mean r_φ)/(deviation r_φ + 1e-4)",
    False: "Â = r_φ(x) − mean r_φ",
}
"""By `grpo.deviation`."""


def equation(settings: Settings) -> str:
    """The objective, what an advantage is, what is averaged over."""
    return sentence(
        "max_θ E_{x~π_θ}[Â log π_θ(x)] − β_KL E Σ_t (π_ref/π_θ − 1 + log π_θ/π_ref)(a_t|s_t), "
        "Â of the samples of a prompt; GRPO, the KL in the loss (k3)",
        ADVANTAGES[bool(settings.get("grpo.deviation", True))],
        worded(AVERAGES, settings, "grpo.average"),
    )


LEARNER = Method(
    name="grpo",
    section="grpo",
    equation=equation,
    samples=lambda settings: settings["grpo.batch"],
    kernel=lambda task, config, steps, call: repeated(kernel(task, steps), call),
)
