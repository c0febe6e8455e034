"""Step 3: max_θ E_{x~π_θ}[ r_φ(x) − β_KL Σ_t log π_θ(a_t|s_t)/π_ref(a_t|s_t) ] by PPO.

Schulman et al. 2017 (arXiv 1707.06347) with the per-token KL penalty and adaptive
controller of Ziegler et al. 2019 (arXiv 1909.08593). Rollout, scoring and all epochs are one
program: old log-probabilities come from the rollout, reference and reward run once.
docs/ppo.md says where the field disagrees and which option is which.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from rlhf_jax.config import PPO, Config, reaches
from rlhf_jax.feedback.kind import Settings
from rlhf_jax.kernels.credit import Anchor, anchor, credit, refuse, settle, states
from rlhf_jax.kernels.experience import Given, Task, gather, objective, shuffled
from rlhf_jax.kernels.learner import Learner, descend, optimiser, start, tensorflow_adam
from rlhf_jax.kernels.method import AVERAGES, Method, sentence, worded
from rlhf_jax.kernels.reward import Judge
from rlhf_jax.kernels.sampling import chosen
from rlhf_jax.mesh import spread
from rlhf_jax.models.heads import Scalar, scalar, zero_head
from rlhf_jax.models.shared import Joint, joint
from rlhf_jax.ops import divergences
from rlhf_jax.ops.policy_losses import clipped_value_loss, log_ratio, surrogate, weighted, weights
from rlhf_jax.ops.rewards import adapt
from rlhf_jax.ops.statistics import masked_mean
from rlhf_jax.transforms import repeat
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params

Parameters: TypeAlias = tuple[Params, Params]
"""The policy's and the critic's; the latter None where they share a trunk."""


class State(NamedTuple):
    """Policy and critic, each with its own Adam and gradient clip; one of them if shared."""

    policy: Learner
    """`params` hold the critic's head as well where the trunk is shared"""
    critic: Learner | None
    kl_weight: Array
    """β_KL now"""


class Experience(NamedTuple):
    """What the epochs learn from."""

    episode: Episode
    logps: Array
    """[B, T] of the policy that acted"""
    values: Array
    """[B, T] of the critic then"""
    advantages: Array
    returns: Array
    anchor: Anchor | None
    """None where the loss has no KL"""


class Part(NamedTuple):
    """Rows of a minibatch, with the weights that their losses have in the whole of it."""

    data: Experience
    policy_weight: Array
    value_weight: Array
    share: Array
    """[B, T]: the weights of a mean over the minibatch's tokens"""


Update: TypeAlias = Callable[[State, Experience], tuple[State, Metrics]]


def policy_loss(hp: PPO, kl_weight: Array, log_p: Array, part: Part) -> tuple[Array, Metrics]:
    """Σ weight · (clipped surrogate + β_KL/σ KL − c H), KL where `hp.kl` puts it into the loss.

    log_p: [B, T, V] log π_θ(· | s_t). Whitened advantages are scores divided by their deviation
    σ, and so is the weight of the KL: else it would lose against them as σ falls, and nothing
    would hold the policy. The estimators k2 and k3 are taken at the actions of the policy that
    acted, without importance weights, as everywhere else in the field.
    """
    data = part.data
    logps = chosen(log_p, data.episode)
    mean = partial(weighted, weight=part.share)
    log_rho = log_ratio(logps, data.logps, hp.log_ratio_clamp)
    loss = surrogate(log_rho, data.advantages, hp.clip, hp.dual_clip)
    entropy = divergences.entropy(log_p)
    surrogate_loss = weighted(loss, part.policy_weight)
    total = surrogate_loss - hp.entropy * weighted(entropy, part.policy_weight)
    ratio = jnp.exp(log_rho)
    metrics = {
        "loss/policy_avg": surrogate_loss,
        "policy/entropy_avg": mean(entropy),
        "policy/approxkl_avg": mean(divergences.k2(logps - data.logps)),
        "policy/clipfrac_avg": mean((jnp.abs(ratio - 1.0) > hp.clip).astype(jnp.float32)),
        "val/ratio": mean(ratio),
    }
    if data.anchor is None:
        return total, metrics
    reference, unit = data.anchor
    kl = {
        "k2_in_loss": lambda: divergences.k2(logps - reference),
        "k3_in_loss": lambda: divergences.k3(logps - reference),
        "exact_in_loss": lambda: divergences.exact(log_p, reference),
        "exact": lambda: divergences.exact(log_p, reference),
    }[hp.kl]()
    return total + kl_weight * weighted(kl / unit[:, None], part.policy_weight), metrics


def value_loss(hp: PPO, values: Array, part: Part) -> tuple[Array, Metrics]:
    """Σ weight · clipped squared error. values: [B, T] of the critic now."""
    data = part.data
    loss = clipped_value_loss(values, data.values, data.returns, hp.value_clip)
    moved = (jnp.abs(values - data.values) > hp.value_clip).astype(jnp.float32)
    value = weighted(loss, part.value_weight)
    return value, {"loss/value_avg": value, "val/clipfrac_avg": weighted(moved, part.share)}


def whole(hp: PPO, data: Experience) -> Part:
    """A minibatch as one part."""
    mask = data.episode.mask
    return Part(
        data,
        weights(mask, hp.average),
        weights(states(hp, mask), hp.average),
        weights(mask, "tokens"),
    )


def adopt(state: State, judge: Judge) -> State:
    """The critic starts as the reward model on the judge's scale: V(s_t) = r_φ(s_t) / deviation.

    The head has no offset, so the judge's mean is left for the critic to learn. On a shared
    trunk the head alone is taken. Every leaf is a copy: the state is donated, the judge not.
    """
    head = jax.tree.map(lambda w: w / judge.deviation, judge.params["head"])
    if state.critic is None:
        params = {**state.policy.params, "head": head}
        return state._replace(policy=state.policy._replace(params=params))
    params = {**jax.tree.map(jnp.copy, judge.params), "head": head}
    return state._replace(critic=state.critic._replace(params=params))


def parameters(state: State) -> Parameters:
    return state.policy.params, None if state.critic is None else state.critic.params


def epochs(
    hp: PPO, update: Update, state: State, data: Experience, rows: Array
) -> tuple[State, Metrics]:
    """One update for each row of `rows` [updates, minibatch]; metrics are means over them.

    `val/ratio_first` is that of the first, before any update: 1, or the policy that acted is not
    the one that learns.

    With `hp.stop_kl` the first minibatch that finds the policy too far away makes no update,
    nor do those after it. They still count as steps: the schedules of keys and of the learning
    rate go by updates planned. Adam's own count is of those made.
    """
    planned = lambda node: isinstance(node, optax.ScaleByScheduleState)

    def one(carry: tuple[State, Array], take: Array) -> tuple[tuple[State, Array], tuple]:
        state, going = carry
        new, said = update(state, spread(jax.tree.map(lambda x: x[take], data)))
        if math.isinf(hp.stop_kl):
            return (new, going), (said, going)
        go = going & (said["policy/approxkl_avg"] <= hp.stop_kl)
        keep = lambda a, b: a if planned(a) else jnp.where(go, a, b)
        kept = jax.tree.map(keep, new, state, is_leaf=planned)
        policy = kept.policy._replace(step=new.policy.step)
        return (kept._replace(policy=policy), go), (said, going)

    (state, _), (said, measured) = jax.lax.scan(one, (state, jnp.asarray(True)), rows)
    means = {name: masked_mean(x, measured) for name, x in said.items()}
    return state, {**means, "val/ratio_first": said["val/ratio"][0]}


def kernel(task: Task, critic: Scalar, steps: int, joint: Joint | None = None) -> Kernel:
    """`init` is given the policy's and the critic's starting parameters; batch: `Given`.

    With `joint` the policy's trunk bears the critic's head, and one loss trains both.
    `steps` iterations are planned: the learning rates decay over them. `init` raises
    `ConfigError`, see `credit.refuse`.
    """

    def transformations(hp: PPO) -> tuple[optax.GradientTransformation, ...]:
        updates = steps * hp.epochs * hp.minibatches
        adam = tensorflow_adam if hp.adam_epsilon == "tensorflow" else optax.scale_by_adam
        rates = (hp.adam.learning_rate, hp.value_learning_rate)
        return tuple(optimiser(hp.adam, updates, rate, adam) for rate in rates)

    def init(key: Key, hparams: PPO, policy_params: Params, critic_params: Params) -> State:
        refuse(hparams, task.language)
        policy_tx, critic_tx = transformations(hparams)
        if hparams.critic_start == "zero":
            critic_params = zero_head(critic_params)
        elif hparams.critic_start == "normal":
            fresh = critic.init(jax.random.fold_in(key, 1))
            critic_params = {**critic_params, "head": fresh["head"]}
        kl_weight = jnp.asarray(hparams.kl_weight, jnp.float32)
        if joint is not None:
            both = {**policy_params, "head": critic_params["head"]}
            return State(start(both, key, hparams, policy_tx), None, kl_weight)
        return State(
            start(policy_params, key, hparams, policy_tx),
            start(critic_params, key, hparams, critic_tx),
            kl_weight,
        )

    def read(params: Parameters, x: Episode) -> tuple[Array, Array]:
        """Logits [B, T, V] and values [B, T + 1]."""
        if joint is not None:
            return joint(params[0], x)
        return task.policy.logits(params[0], x), critic.values(params[1], x)

    def experience(state: State, given: Given, key: Key) -> tuple[Experience, Metrics]:
        hp = state.policy.hparams
        x = gather(task, given, state.policy.params, key, hp.batch, hp.temperature)
        x = settle(hp, task.language, x)
        _, values = read(parameters(state), x.episode)  # the compiler drops the logits
        advantages, returns, unit = credit(
            hp, task.language, x, values, state.kl_weight, task.penalty
        )
        old = values[:, :-1]
        data = Experience(x.episode, x.logps, old, advantages, returns, anchor(hp, x, unit))
        return data, objective(task, given, x, state.kl_weight)

    def loss(params: Parameters, hp: PPO, kl_weight: Array, part: Part) -> tuple[Array, Metrics]:
        logits, values = read(params, part.data.episode)
        log_p = jax.nn.log_softmax(logits / hp.temperature)
        acted, said = policy_loss(hp, kl_weight, log_p, part)
        valued, judged = value_loss(hp, values[:, :-1], part)
        weight = 1.0 if joint is None else hp.value_weight
        return acted + weight * valued, {**said, **judged}

    def gradients(state: State, data: Experience) -> tuple[Parameters, Metrics]:
        hp, params = state.policy.hparams, parameters(state)
        one = lambda part: jax.grad(loss, has_aux=True)(params, hp, state.kl_weight, spread(part))
        if hp.accumulate == 1:
            return one(whole(hp, data))
        cut = lambda x: x.reshape(hp.accumulate, -1, *x.shape[1:])
        parts = jax.tree.map(cut, whole(hp, data))
        zero = jax.tree.map(
            jnp.zeros_like, jax.eval_shape(one, jax.tree.map(lambda x: x[0], parts))
        )
        add = lambda total, part: (jax.tree.map(jnp.add, total, one(part)), None)
        return jax.lax.scan(add, zero, parts)[0]

    def update(state: State, data: Experience) -> tuple[State, Metrics]:
        policy_tx, critic_tx = transformations(state.policy.hparams)
        (up, down), metrics = gradients(state, data)
        policy = descend(state.policy, up, policy_tx)
        valued = None if state.critic is None else descend(state.critic, down, critic_tx)
        return State(policy, valued, state.kl_weight), metrics

    def step(state: State, given: Given) -> tuple[State, Metrics]:
        hp = state.policy.hparams
        iteration = state.policy.step // (hp.epochs * hp.minibatches)
        roll_key, order_key = jax.random.split(jax.random.fold_in(state.policy.key, iteration))
        data, metrics = experience(state, given, roll_key)
        rows = shuffled(order_key, hp.batch, hp.epochs, hp.minibatches)
        state, learned = epochs(hp, update, state, data, rows)
        kl_weight = adapt(
            state.kl_weight, metrics["objective/kl"], hp.kl_target, hp.kl_horizon, hp.batch
        )
        return state._replace(kl_weight=kl_weight), metrics | learned

    return Kernel(init, step)


PENALTIES = {
    "k1_in_reward": "max_θ E_{x~π_θ}[r_φ(x) − β_KL Σ_t log π_θ/π_ref(a_t|s_t)]; PPO, the KL paid "
    "in the reward (k1)",
    "k2_in_loss": "max_θ E_{x~π_θ}[r_φ(x)] − β_KL E Σ_t ½ (log π_θ/π_ref(a_t|s_t))²; PPO, the KL "
    "in the loss (k2): its gradient is that of each state's KL(π_θ‖π_ref), states given",
    "k3_in_loss": "max_θ E_{x~π_θ}[r_φ(x)] − β_KL E Σ_t (π_ref/π_θ − 1 + log π_θ/π_ref)(a_t|s_t); "
    "PPO, the KL in the loss (k3): its gradient is that of each state's KL(π_ref‖π_θ), states "
    "given",
    "exact_in_loss": "max_θ E_{x~π_θ}[r_φ(x)] − β_KL E Σ_t Σ_v π_θ log π_θ/π_ref(v|s_t); PPO, the "
    "exact KL of each state in the loss, states given",
    "exact": "max_θ E_{x~π_θ}[r_φ(x) − β_KL Σ_t Σ_v π_θ log π_θ/π_ref(v|s_t)]; PPO, the exact KL "
    "of each state, in the loss for itself and in the reward for the states before",
}
"""By `ppo.kl`."""
MISSING_EOS = {
    "keep": "",
    "subtract": "r_φ less {value} where EOS is missing",
    "replace": "{value} in the place of r_φ where EOS is missing",
    "length": "r_φ less up to {value} over the last {tail} tokens before the limit",
}
"""What a response without EOS costs, by `ppo.missing_eos`."""


def equation(settings: Settings) -> str:
    """The objective: penalty, responses without EOS, entropy, what is averaged over."""
    missing = worded(MISSING_EOS, settings, "ppo.missing_eos").format(
        value=settings.get("ppo.missing_eos_value"), tail=settings.get("ppo.length_tail")
    )
    entropy = f"+ {settings.get('ppo.entropy')} · entropy of each state, beside the advantages"
    return sentence(
        worded(PENALTIES, settings, "ppo.kl"),
        missing,
        entropy if reaches(settings.get("ppo.entropy", 0)) else "",
        worded(AVERAGES, settings, "ppo.average"),
    )


def _kernel(task: Task, config: Config, steps: int, call: int) -> Kernel:
    both = joint(config.model, task.language) if config.ppo.critic == "shared" else None
    return repeat(kernel(task, scalar(config.model, task.language), steps, both), call)


LEARNER = Method(
    name="ppo",
    section="ppo",
    equation=equation,
    samples=lambda settings: settings["ppo.batch"],
    kernel=_kernel,
)
