"""What every learner of its own samples does first: x ~ π_θ, r_φ(x), log π_ref(x)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.kernels.sampling import chosen, log_distribution, sample
from rlhf_jax.mesh import spread
from rlhf_jax.models.heads import Policy
from rlhf_jax.ops import divergences
from rlhf_jax.types import Array, Episode, Key, Language, Metrics, Params, Prompts


class Given(NamedTuple):
    """What a step is given and never changes."""

    reference: Params
    """its own buffer, never an alias of the donated policy"""
    judge: Any
    """what `Task.score` judges by: a `reward.Judge` or an `ensemble.Panel`"""
    world: Any
    """hyper-parameters of the world: prompts, and what is observed"""
    people: Any = None
    """whose gold is observed"""
    time: Any = 0.0
    """when, in rounds"""


Score = Callable[[Given, Episode], Array]
"""→ [B], what the policy is trained to raise"""
Observe = Callable[[Given, Episode, Array], Metrics]
"""(given, episode, scores) → metrics that the learner never sees, gold among them"""


Penalty = Callable[[Array, Array], Array]
"""(log π, log π_ref) of the chosen [B, T] → [B, T] nats"""


class Task(NamedTuple):
    """Who answers what, and how it is judged."""

    policy: Policy
    language: Language
    prompt: Callable[[Any, Key], tuple[Array, Array]]
    """(hyper-parameters of the world, key) → tokens [P], mask [P]"""
    score: Score
    observe: Observe
    penalty: Penalty | None = None
    """What PPO pays in the place of k1"""


class Scored(NamedTuple):
    """B episodes with what policy, reference and judge said of them."""

    episode: Episode
    logps: Array
    """[B, T] log π(a_t | s_t), 0 after the end"""
    distribution: Array
    """[B, T, V] log π(· | s_t)"""
    reference: Array
    """[B, T, V] log π_ref(· | s_t)"""
    scores: Array
    """[B] float32"""

    @property
    def log_ratio(self) -> Array:
        """[B, T]: log π(a_t | s_t) − log π_ref(a_t | s_t), 0 after the end."""
        ratio = self.logps - chosen(self.reference, self.episode)
        return jnp.where(self.episode.mask, ratio, 0.0)

    def penalised(self, penalty: Penalty) -> Array:
        """[B, T]: a penalty of the chosen tokens' log-probabilities, 0 after the end."""
        said = penalty(self.logps, chosen(self.reference, self.episode))
        return jnp.where(self.episode.mask, said, 0.0)

    @property
    def exact_kl(self) -> Array:
        """[B, T]: Σ_v π log π/π_ref at s_t, 0 after the end."""
        exact = divergences.exact(self.distribution, self.reference)
        return jnp.where(self.episode.mask, exact, 0.0)


def ended(language: Language, x: Episode) -> Array:
    """[B] bool: EOS was chosen. A language without EOS has responses of one length, all whole."""
    if language.eos is None:
        return jnp.ones(x.mask.shape[0], bool)
    return jnp.any((x.tokens == language.eos) & x.mask, axis=1)


def gather(
    task: Task,
    given: Given,
    params: Params,
    key: Key,
    batch: int,
    temperature: Array,
    group: int = 1,
) -> Scored:
    """`batch` episodes, `group` of each prompt, neighbours in the batch. Consumes `key`.

    Scores are made float32 whatever the judge returns.
    """
    prompt_key, sample_key = jax.random.split(key)
    keys = jax.random.split(prompt_key, batch // group)
    prompts = Prompts(*jax.vmap(task.prompt, (None, 0))(given.world, keys))
    prompts = jax.tree.map(lambda x: jnp.repeat(x, group, axis=0), prompts)
    roll = sample(task.policy, task.language, params, spread(prompts), sample_key, temperature)
    reference = log_distribution(task.policy, given.reference, roll.episode, temperature)
    scores = task.score(given, roll.episode).astype(jnp.float32)
    return Scored(roll.episode, roll.logps, roll.distribution, reference, scores)


def objective(task: Task, given: Given, x: Scored, kl_weight: Array) -> Metrics:
    """What is maximised, by part: means over episodes; KL and entropy are sums over tokens.

    `val/no_eos_share`: responses that time cut off, where the language has an EOS.
    """
    kl = jnp.mean(jnp.sum(x.log_ratio, axis=1))
    paid = kl if task.penalty is None else jnp.mean(jnp.sum(x.penalised(task.penalty), axis=1))
    scores = jnp.mean(x.scores)
    cut = {}
    if task.language.eos is not None:
        cut["val/no_eos_share"] = jnp.mean(~ended(task.language, x.episode))
    return {
        "objective/kl": kl,
        "objective/kl_exact": jnp.mean(jnp.sum(x.exact_kl, axis=1)),
        "objective/entropy": jnp.mean(jnp.sum(-x.logps, axis=1)),
        "objective/scores": scores,
        "objective/non_score_reward": -kl_weight * paid,
        "objective/rlhf_reward": scores - kl_weight * paid,
        "objective/kl_coef": kl_weight,
        "val/length": jnp.mean(jnp.sum(x.episode.mask, axis=1).astype(jnp.float32)),
        **cut,
        **task.observe(given, x.episode, x.scores),
    }


def shuffled(key: Key, batch: int, epochs: int, minibatches: int) -> Array:
    """[epochs · minibatches, batch / minibatches] rows: a permutation of the batch an epoch."""
    rows = jax.vmap(lambda k: jax.random.permutation(k, batch))(jax.random.split(key, epochs))
    return rows.reshape(epochs * minibatches, -1)
