"""Step 3: max_θ E_{x~π_θ}[ r_φ(x) − β_KL Σ_t log π_θ(a_t|s_t)/π_ref(a_t|s_t) ] by PPO.

Schulman et al. 2017 (arXiv 1707.06347) with the per-token KL penalty and adaptive
controller of Ziegler et al. 2019 (arXiv 1909.08593). Rollout, scoring and all epochs are one
program: old log-probabilities come from the rollout, reference and reward run once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.config import PPO
from rlhf_jax.kernels.learner import Learner, descend, optimiser, start
from rlhf_jax.kernels.reward import Judge
from rlhf_jax.kernels.sampling import Rollout, chosen, log_distribution, sample
from rlhf_jax.mesh import spread
from rlhf_jax.models.heads import Policy, Scalar
from rlhf_jax.ops import divergences
from rlhf_jax.ops.returns import generalised_advantage
from rlhf_jax.ops.statistics import masked_mean, whiten
from rlhf_jax.ops.tokens import last
from rlhf_jax.types import Array, Episode, Key, Kernel, Language, Metrics, Params, Prompts


class State(NamedTuple):
    """Policy and critic are separate networks, each with its own Adam and gradient clip."""

    policy: Learner
    critic: Learner
    kl_weight: Array
    """β_KL now"""


class Given(NamedTuple):
    """What a PPO step is given and never changes."""

    reference: Params
    """its own buffer, never an alias of the donated policy"""
    judge: Judge
    world: Any
    """hyper-parameters of the world, for what is observed"""


class Experience(NamedTuple):
    """What the epochs learn from."""

    episode: Episode
    logps: Array
    """[B, T] of the policy that acted"""
    values: Array
    """[B, T] of the critic then"""
    advantages: Array
    returns: Array


Score = Callable[[Given, Episode], Array]
"""→ [B] float32, what the policy is trained to raise"""
Observe = Callable[[Given, Episode, Array], Metrics]
"""(given, episode, scores) → metrics that the learner never sees, gold among them"""


def surrogate(logps: Array, old: Array, advantages: Array, clip: Array) -> Array:
    """−min(ρ Â, clip(ρ, 1 ± ε) Â) with ρ = exp(log π − log π_old); 1707.06347, eq. 7."""
    ratio = jnp.exp(logps - old)
    clipped = jnp.clip(ratio, 1.0 - clip, 1.0 + clip)
    return -jnp.minimum(ratio * advantages, clipped * advantages)


def clipped_value_loss(values: Array, old: Array, returns: Array, clip: Array) -> Array:
    """½ max((V − R)², (V_old + clip(V − V_old, ±ε) − R)²)."""
    near = old + jnp.clip(values - old, -clip, clip)
    return 0.5 * jnp.maximum(jnp.square(values - returns), jnp.square(near - returns))


def adapt(kl_weight: Array, kl: Array, target: Array, horizon: Array, episodes: int) -> Array:
    """β ← β (1 + clip(KL/target − 1, ±0.2) · episodes/horizon); 1909.08593, eq. 4."""
    error = jnp.clip(kl / target - 1.0, -0.2, 0.2)
    return kl_weight * (1.0 + error * episodes / horizon)


def shaped_rewards(log_ratio: Array, scores: Array, mask: Array, kl_weight: Array) -> Array:
    """r_t = −β_KL ρ_t + [t last] · score: [T], with k1 = ρ_t unclamped. One episode."""
    at_end = jnp.arange(mask.shape[0]) == last(mask)
    return jnp.where(mask, -kl_weight * divergences.k1(log_ratio) + at_end * scores, 0.0)


def kernel(
    policy: Policy,
    critic: Scalar,
    language: Language,
    prompt: Callable[[Key], tuple[Array, Array]],
    score: Score,
    observe: Observe,
    steps: int,
) -> Kernel:
    """`init` is given the policy's and the critic's starting parameters; batch: `Given`."""

    def transformations(hp: PPO) -> tuple:
        updates = steps * hp.epochs * hp.minibatches
        return tuple(
            optimiser(hp.adam, updates, rate)
            for rate in (hp.adam.learning_rate, hp.value_learning_rate)
        )

    def init(key: Key, hparams: PPO, policy_params: Params, critic_params: Params) -> State:
        policy_tx, critic_tx = transformations(hparams)
        return State(
            start(policy_params, key, hparams, policy_tx),
            start(critic_params, key, hparams, critic_tx),
            jnp.asarray(hparams.kl_weight, jnp.float32),
        )

    def experience(
        state: State, given: Given, key: Key
    ) -> tuple[Rollout, Experience, Metrics]:
        hp = state.policy.hparams
        prompt_key, sample_key = jax.random.split(key)
        prompts = Prompts(*jax.vmap(prompt)(jax.random.split(prompt_key, hp.batch)))
        roll = sample(
            policy, language, state.policy.params, spread(prompts), sample_key, hp.temperature
        )
        episode, mask = roll.episode, roll.episode.mask
        reference = log_distribution(policy, given.reference, episode, hp.temperature)
        values = critic.values(state.critic.params, episode)[:, :-1]
        scores = score(given, episode).astype(jnp.float32)
        log_ratio = jnp.where(mask, roll.logps - chosen(reference, episode), 0.0)
        rewards = jax.vmap(shaped_rewards, (0, 0, 0, None))(
            log_ratio, scores, mask, state.kl_weight
        )
        # The score is for the whole response, so time running out ends the episode too.
        advantages = jax.vmap(generalised_advantage, (0, 0, 0, None, None, None))(
            rewards, values, mask, hp.discount, hp.gae_lambda, jnp.zeros(())
        )
        exact = jnp.where(mask, divergences.exact(roll.distribution, reference), 0.0)
        kl = jnp.mean(jnp.sum(log_ratio, axis=1))
        metrics = {
            "objective/kl": kl,
            "objective/kl_exact": jnp.mean(jnp.sum(exact, axis=1)),
            "objective/entropy": jnp.mean(jnp.sum(-roll.logps, axis=1)),
            "objective/scores": jnp.mean(scores),
            "objective/non_score_reward": -state.kl_weight * kl,
            "objective/rlhf_reward": jnp.mean(jnp.sum(rewards, axis=1)),
            "objective/kl_coef": state.kl_weight,
            "val/length": jnp.mean(jnp.sum(mask, axis=1).astype(jnp.float32)),
            **observe(given, episode, scores),
        }
        returns = jnp.where(mask, advantages + values, 0.0)
        advantages = whiten(advantages, mask)
        return roll, Experience(episode, roll.logps, values, advantages, returns), metrics

    def policy_loss(params: Params, hp: PPO, data: Experience) -> tuple[Array, Metrics]:
        mask = data.episode.mask
        log_p = log_distribution(policy, params, data.episode, hp.temperature)
        logps = chosen(log_p, data.episode)
        entropy = masked_mean(divergences.entropy(log_p), mask)
        loss = masked_mean(surrogate(logps, data.logps, data.advantages, hp.clip), mask)
        ratio = jnp.exp(logps - data.logps)
        return loss - hp.entropy * entropy, {
            "loss/policy_avg": loss,
            "policy/entropy_avg": entropy,
            "policy/approxkl_avg": masked_mean(divergences.k2(logps - data.logps), mask),
            "policy/clipfrac_avg": masked_mean(jnp.abs(ratio - 1.0) > hp.clip, mask),
            "val/ratio": masked_mean(ratio, mask),
        }

    def value_loss(params: Params, hp: PPO, data: Experience) -> tuple[Array, Metrics]:
        mask = data.episode.mask
        values = critic.values(params, data.episode)[:, :-1]
        loss = clipped_value_loss(values, data.values, data.returns, hp.value_clip)
        moved = jnp.abs(values - data.values) > hp.value_clip
        return masked_mean(loss, mask), {
            "loss/value_avg": masked_mean(loss, mask),
            "val/clipfrac_avg": masked_mean(moved, mask),
        }

    def update(state: State, data: Experience) -> tuple[State, Metrics]:
        hp = state.policy.hparams
        policy_tx, critic_tx = transformations(hp)
        up, said = jax.grad(policy_loss, has_aux=True)(state.policy.params, hp, data)
        down, valued = jax.grad(value_loss, has_aux=True)(state.critic.params, hp, data)
        return (
            state._replace(
                policy=descend(state.policy, up, policy_tx),
                critic=descend(state.critic, down, critic_tx),
            ),
            {**said, **valued},
        )

    def step(state: State, given: Given) -> tuple[State, Metrics]:
        hp = state.policy.hparams
        iteration = state.policy.step // (hp.epochs * hp.minibatches)
        roll_key, order_key = jax.random.split(jax.random.fold_in(state.policy.key, iteration))
        _, data, metrics = experience(state, given, roll_key)

        def shuffled(key: Key) -> Array:
            return jax.random.permutation(key, hp.batch).reshape(hp.minibatches, -1)

        rows = jax.vmap(shuffled)(jax.random.split(order_key, hp.epochs))
        rows = rows.reshape(hp.epochs * hp.minibatches, -1)

        def one(state: State, take: Array) -> tuple[State, Metrics]:
            return update(state, spread(jax.tree.map(lambda x: x[take], data)))

        state, learned = jax.lax.scan(one, state, rows)
        kl_weight = adapt(
            state.kl_weight, metrics["objective/kl"], hp.kl_target, hp.kl_horizon, hp.batch
        )
        metrics |= jax.tree.map(jnp.mean, learned)
        return state._replace(kl_weight=kl_weight), metrics

    return Kernel(init, step)
