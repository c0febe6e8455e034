"""Step 2: min_φ Σ ℓ(r_φ(x), y) + λ_r(φ), and the scale that the result is read on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from rlhf_jax.config import Reward
from rlhf_jax.feedback import STANDARD
from rlhf_jax.feedback.comparison import Comparison
from rlhf_jax.feedback.distributional import Normal
from rlhf_jax.feedback.distributional import loss as distributional_loss
from rlhf_jax.feedback.kind import Kind, Reading
from rlhf_jax.humans import Human
from rlhf_jax.humans.links import constrain
from rlhf_jax.kernels.learner import Learner, descend, optimiser, start
from rlhf_jax.models.heads import Scalar, ended, reward
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params


class Told(NamedTuple):
    """N answers of one type, and what is known of whoever gave each."""

    answers: Any
    """with `weight` and `who`: `Comparison`, `Ranking`, …"""
    lapse: Array
    """[N]"""
    flip: Array
    """[N]"""


class Fitted(NamedTuple):
    """φ and, where they are fitted with it, the people's rates of lapses and flips, or how far
    apart two samples must be for them to take a side."""

    model: Params
    noise: dict[str, Array]
    """lapse, flip: [people] each; threshold: []. Unconstrained and in units of `NOISE_UNIT`; empty
    where not fitted"""


NOISE_UNIT = 30.0
"""Logits per unit of `Fitted.noise`: rates move as far in a fit as weights do, times this."""


class Likelihood(Protocol):
    """Of answers under a reward model."""

    def __call__(
        self, params: Params, batch: Any, scale: Array | float = 1.0, /
    ) -> tuple[Array, Array, Array]:
        """(φ, N answers) → −log P of each [N] nats, the rewards of what they are about [N, K], and
        how much each counts [N]. Rewards are multiplied by `scale`."""


Penalty = Callable[[Reward, Params, Array, Array], Array]
"""(hparams, φ, rewards [N, K], weight [N]) → λ_r, scalar"""


class Judge(NamedTuple):
    """A fitted reward model on a fixed scale: (r_φ(x) − mean) / deviation."""

    params: Params
    mean: Array
    deviation: Array


def penalty(hparams: Reward, params: Params, rewards: Array, weight: Array) -> Array:
    """λ_r = l2 · Σφ² + centring · Σ w (Σ_k r_k)² / Σ w.

    A comparison or a choice leaves the reward's offset free; centring pins it (Eisenstein et
    al. 2023, arXiv 2312.09244, eq. 2).
    """
    total = jnp.maximum(jnp.sum(weight), 1e-12)
    centre = jnp.sum(weight * jnp.square(jnp.sum(rewards, axis=1))) / total
    return decay(hparams, params, rewards, weight) + hparams.centring * centre


def decay(hparams: Reward, params: Params, rewards: Array, weight: Array) -> Array:
    """λ_r = l2 · Σφ², for feedback that says where the reward's zero is."""
    return hparams.l2 * optax.tree.norm(params, squared=True)


def compare(model: Scalar, loss: Callable[[Array, Array, Array], Array]) -> Likelihood:
    """Of comparisons, by a loss (r_a, r_b, label) → nats, [N] each."""

    def likelihood(
        params: Params, batch: Comparison, scale: Array | float = 1.0
    ) -> tuple[Array, Array, Array]:
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), batch.a, batch.b)
        a, b = jnp.split(scale * reward(model, params, both), 2)
        return loss(a, b, batch.label), jnp.stack([a, b], axis=1), batch.weight

    return likelihood


def answers(model: Scalar, kind: Kind, noise: str) -> Likelihood:
    """Of any feedback, φ being `Fitted` and the batch `Told`.

    `noise`: "standard" takes β = 1 and no mistakes, "known" the rates in `Told`, "fitted"
    those in `Fitted`, each person's own.
    """

    def likelihood(
        params: Fitted, told: Told, scale: Array | float = 1.0
    ) -> tuple[Array, Array, Array]:
        x = kind.episodes(told.answers)
        n, k = x.tokens.shape[:2]
        flat = jax.tree.map(lambda leaf: leaf.reshape(n * k, *leaf.shape[2:]), x)
        # Where only wholes are spoken of the compiler drops the prefixes, and with them the work.
        states = model.values(params.model, flat).reshape(n, k, -1)
        if kind.steps:
            rewards = jnp.take_along_axis(states, ended(x)[..., None], axis=-1)[..., 0]
        else:
            rewards = reward(model, params.model, flat).reshape(n, k)
        human = {
            "standard": lambda: STANDARD,
            "known": lambda: STANDARD._replace(lapse=told.lapse, flip=told.flip),
            "fitted": lambda: noise_of(params, told.answers.who),
        }[noise]()
        rewards, states = scale * rewards, scale * states
        nll = kind.nll(Reading(rewards, states), told.answers, human)
        return nll, rewards, told.answers.weight

    return likelihood


def compared(
    model: Scalar,
    kind: Kind,
    loss: Callable[..., Array],
    threshold: Callable[[Array], Array] | None = None,
) -> Likelihood:
    """Of comparisons by people who make no mistakes, φ being `Fitted` and the batch `Told`.

    `loss` is one of `feedback.comparison.LOSSES`; with `threshold` of `THRESHOLDS` it is given what
    that makes of the number fitted with φ.
    """

    def likelihood(
        params: Fitted, told: Told, scale: Array | float = 1.0
    ) -> tuple[Array, Array, Array]:
        x = kind.episodes(told.answers)
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), x)
        rewards = scale * reward(model, params.model, flat).reshape(-1, 2)
        more = [] if threshold is None else [threshold(NOISE_UNIT * params.noise["threshold"])]
        nll = loss(rewards[:, 0], rewards[:, 1], told.answers.label, *more)
        return nll, rewards, told.answers.weight

    return likelihood


def distributed(model: Scalar, kind: Kind) -> Likelihood:
    """Of comparisons under a reward that is a normal distribution over people."""

    def likelihood(
        params: Fitted, told: Told, scale: Array | float = 1.0
    ) -> tuple[Array, Array, Array]:
        x = kind.episodes(told.answers)
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), x)
        said = normal(model, params.model, flat)
        said = Normal(scale * said.mean, said.log_deviation + jnp.log(scale))
        a, b = (Normal(*(leaf.reshape(-1, 2)[:, i] for leaf in said)) for i in (0, 1))
        nll = distributional_loss(a, b, told.answers.label)
        return nll, said.mean.reshape(-1, 2), told.answers.weight

    return likelihood


def normal(model: Scalar, params: Params, episode: Episode) -> Normal:
    """Mean and log deviation [B] of the value of each sample over people: two outputs."""
    assert model.outputs is not None
    per_state = model.outputs(params, episode)
    at = ended(episode)[:, None, None]
    out = jnp.take_along_axis(per_state, at, axis=1)[:, 0]
    return Normal(out[:, 0], out[:, 1])


def borda(reward_a: Array, reward_b: Array, label: Array) -> Array:
    """½ (r_a − r_b − (2y − 1))²: the fitted r is the Borda score, E over samples of what share
    prefers x less the share against it (Siththaranjan et al. 2023, arXiv 2312.08358). [N] → [N].
    """
    return jnp.where(label < 0.0, 0.0, 0.5 * jnp.square(reward_a - reward_b - (2 * label - 1)))


def noise_of(params: Fitted, who: Array) -> Human:
    """The person of each answer as fitted, [N]."""
    raw = {name: NOISE_UNIT * x[who] for name, x in params.noise.items()}
    return constrain(STANDARD, raw)


def _accuracy(batch: Any, rewards: Array, weight: Array) -> Metrics:
    """Share of untied comparisons that the rewards have the right way round."""
    given = batch.answers if isinstance(batch, Told) else batch
    if not isinstance(given, Comparison):
        return {}
    right = (rewards[:, 0] > rewards[:, 1]) == (given.label > 0.5)
    untied = weight * (given.label != 0.5)
    return {"train/accuracy": jnp.sum(right * untied) / jnp.maximum(jnp.sum(untied), 1e-12)}


def kernel(likelihood: Likelihood, regulariser: Penalty, steps: int) -> Kernel:
    """Batch: N answers. `init` takes the parameters to start from as third argument."""

    def init(key: Key, hparams: Reward, params: Params) -> Learner:
        tx = optimiser(hparams.adam, steps, hparams.adam.learning_rate)
        return start(params, key, hparams, tx)

    def objective(params: Params, hparams: Reward, batch: Any) -> tuple[Array, Metrics]:
        each, rewards, weight = likelihood(params, batch)
        total = jnp.maximum(jnp.sum(weight), 1e-12)
        # Never 0 · NaN: a row that does not count may be one that cannot be.
        nll = jnp.sum(jnp.where(weight > 0, weight * each, 0.0)) / total
        metrics = {"loss/reward": nll, **_accuracy(batch, rewards, weight)}
        return nll + regulariser(hparams, params, rewards, weight), metrics

    def step(state: Learner, batch: Any) -> tuple[Learner, Metrics]:
        hp = state.hparams
        gradient, metrics = jax.grad(objective, has_aux=True)(state.params, hp, batch)
        state = descend(state, gradient, optimiser(hp.adam, steps, hp.adam.learning_rate))
        return state, metrics

    return Kernel(init, step)


def normalise(model: Scalar, params: Params, reference: Episode) -> Judge:
    """The scale on which samples of the reference policy have mean 0 and deviation 1."""
    scores = reward(model, params, reference)
    return Judge(params, jnp.mean(scores), jnp.maximum(jnp.std(scores), 1e-6))


def score(model: Scalar, judge: Judge, episode: Episode) -> Array:
    """[B] float32: deviations above the reference policy's mean."""
    return (reward(model, judge.params, episode) - judge.mean) / judge.deviation
