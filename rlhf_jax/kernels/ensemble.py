"""Several reward models of one set of answers: an ensemble, or one for each kind of people.

Members are one more vmapped axis [k]. They differ by where they start, by the order in which
they see the answers, and by how much each answer counts for them: all alike, resampled
(bootstrap), or by whose answer it is (`mixture_reward`). What they say is put together by
`ops.aggregate`. Members with pretrained trunks of their own have less in common (Eisenstein
et al. 2023, arXiv 2312.09244): `init` takes their parameters as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.config import Reward
from rlhf_jax.kernels import mixture_reward, reward
from rlhf_jax.kernels.learner import Learner
from rlhf_jax.kernels.reward import Judge, Likelihood
from rlhf_jax.models.heads import Scalar
from rlhf_jax.ops import aggregate
from rlhf_jax.ops.tilt import Tilted
from rlhf_jax.transforms import population
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params


class Members(NamedTuple):
    """k reward models and how common the people are who agree with each."""

    learner: Learner
    """leaves [k, …]"""
    log_prior: Array
    """[k] nats; even where members are not kinds of people"""


class Scale(NamedTuple):
    """Where a number lies for samples of the reference policy."""

    mean: Array
    deviation: Array


class Joined(NamedTuple):
    """How k rewards are made one, as data: one program serves all that `Reward.aggregate` names."""

    worst: Array
    """bool: the least of them; else their mean − λ · their variance"""
    doubt: Array
    """λ; 0: their mean"""


def joined(hparams: Reward) -> Joined:
    """What `Reward.aggregate` names, on the shape of `hparams.doubt`."""
    doubt = jnp.asarray(hparams.doubt)
    doubted = hparams.aggregate == "uncertainty_weighted"
    worst = jnp.full(doubt.shape, hparams.aggregate == "worst_case")
    return Joined(worst, doubt if doubted else jnp.zeros_like(doubt))


class Panel(NamedTuple):
    """k fitted reward models, each on its own scale, and how they make one reward."""

    judges: Judge
    """leaves [k, …]"""
    log_prior: Array
    """[k]"""
    joined: Joined
    whole: Scale
    """Of the one reward: members of deviation 1 that disagree have a mean of less."""
    gold: Scale
    """Of gold: hidden from learners, but for those that are given gold itself."""
    optima: Tilted
    """What the one reward brings where it is optimised exactly; `value` is gold, hidden too."""


def bootstrap(weight: Array, key: Key) -> Array:
    """w_n c_n, c_n how often answer n comes in as many draws with replacement as there are answers.

    Efron 1979; Christiano et al. 2017, arXiv 1706.03741, §2.2.3. Answers of weight 0 were never
    given and are never drawn. [N] → [N]; vmap over keys for k members. Consumes `key`.
    """
    n = weight.shape[0]
    given = weight > 0
    count = jnp.sum(given)
    rows = jnp.argsort(~given, stable=True)
    drawn = rows[jax.random.randint(key, (n,), 0, jnp.maximum(count, 1))]
    often = jnp.zeros(n).at[drawn].add((jnp.arange(n) < count).astype(jnp.float32))
    return weight * often


Weigh = Callable[[Members, Any, Array], tuple[Array, Array, Metrics]]
"""(state, all answers, how many are filled) → weights [k, N], log prior [k], metrics"""


def alike(state: Members, data: Any, filled: Array) -> tuple[Array, Array, Metrics]:
    """All answers count alike for all members."""
    k = state.log_prior.shape[0]
    weight = _weight(data)
    return jnp.broadcast_to(weight, (k, *weight.shape)), state.log_prior, {}


def resampled(state: Members, data: Any, filled: Array) -> tuple[Array, Array, Metrics]:
    """Each member has a resample of its own, drawn anew when there are more answers."""
    keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 2), filled))
    return jax.vmap(bootstrap, (None, 0))(_weight(data), keys(state.learner.key)), *(
        state.log_prior,
        {},
    )


def by_group(likelihood: Likelihood, people: int) -> Weigh:
    """EM: each person's answers count by how probably the person is of a member's kind.

    At a fit's first step a person's mean log-likelihood an answer stands in for the sum: members
    that begin at random would else be sure at once of who is whose.
    """

    def weigh(state: Members, data: Any, filled: Array) -> tuple[Array, Array, Metrics]:
        params, weight, who = state.learner.params, _weight(data), data.answers.who
        nll = jax.lax.map(lambda p: likelihood(p, data)[0], params)
        told = mixture_reward.log_likelihood(nll, who, weight, people)
        answers = jax.ops.segment_sum(weight, who, people)
        untrained = jnp.all(state.learner.step == 0)
        told = told / jnp.where(untrained, jnp.maximum(answers, 1.0), 1.0)[:, None]
        belongs, evidence = mixture_reward.responsibilities(told, state.log_prior)
        share = mixture_reward.shares(belongs, who, weight)
        metrics = {
            "loss/mixture": -jnp.sum(evidence) / jnp.maximum(jnp.sum(weight), 1e-12),
            "mixture/share": share,
            "mixture/certainty": jnp.mean(jnp.max(belongs, axis=1)),
        }
        log_prior = jnp.log(jnp.maximum(share, 1e-30))
        return weight[None] * belongs[who].T, log_prior, metrics

    return weigh


SCALES = tuple(2.0 ** (i / 2) for i in range(-8, 3))
"""Factors that a reward is tried at on answers that it was not fitted to, 1/16 … 2."""


def by_member(
    likelihood: Likelihood, scales: tuple[float, ...] = SCALES
) -> Callable[[Members, Any], tuple[Array, Array]]:
    """Loss of answers held back, [k] nats: min_c Σ w · −log P(y | c r_m) / Σ w; and Σ w.

    A reward is read on a scale of its own, so that c is free: without it the loss says mostly when
    a model becomes too sure, which is long before it stops learning which sample is better.
    """

    def loss(state: Members, data: Any) -> tuple[Array, Array]:
        weight = _weight(data)
        total = jnp.sum(weight)

        def one(params: Params) -> Array:
            nll = jax.vmap(lambda c: likelihood(params, data, c)[0])(jnp.asarray(scales))
            told = jnp.where(weight[None] > 0, weight[None] * nll, 0.0)
            return jnp.min(jnp.sum(told, axis=1)) / jnp.maximum(total, 1e-12)

        return jax.lax.map(one, state.learner.params), total

    return loss


def by_mixture(
    likelihood: Likelihood, people: int, scales: tuple[float, ...] = SCALES
) -> Callable[[Members, Any], tuple[Array, Array]]:
    """The same of a mixture, min_c −Σ_p log Σ_m π_m Π_{n of p} P(y_n | c r_m)^w / Σ w, for all
    members alike."""

    def loss(state: Members, data: Any) -> tuple[Array, Array]:
        weight, who = _weight(data), data.answers.who
        total = jnp.sum(weight)
        each = lambda p: jax.vmap(lambda c: likelihood(p, data, c)[0])(jnp.asarray(scales))

        def at(nll: Array) -> Array:
            told = mixture_reward.log_likelihood(nll, who, weight, people)
            _, evidence = mixture_reward.responsibilities(told, state.log_prior)
            return -jnp.sum(evidence) / jnp.maximum(total, 1e-12)

        best = jnp.min(jax.vmap(at, 1)(jax.lax.map(each, state.learner.params)))
        return jnp.broadcast_to(best, state.log_prior.shape), total

    return loss


def _weight(data: Any) -> Array:
    return data.answers.weight


def _axes(data: Any) -> Any:
    """Axes of a batch that only the weights [k, N] differ in."""
    names = data.answers._fields
    own = type(data.answers)._make(0 if name == "weight" else None for name in names)
    return data._replace(answers=own, lapse=None, flip=None)


def kernel(member: Kernel, members: int, weigh: Weigh, *, by: str = "vmap") -> Kernel:
    """k members, fitted side by side. Batch: (`Told` with all answers, how many are filled).

    `member` takes (`Told`, filled), as `minibatches` makes it. `init` takes a key, the
    hyper-parameters and parameters [k]. Weights are found once a step: an E step, where
    they are responsibilities. Metrics are means over members.
    """

    def init(key: Key, hparams: Any, params: Params) -> Members:
        even = -jnp.log(jnp.full(members, members, jnp.float32))
        keys = jax.random.split(key, members)
        return Members(jax.vmap(member.init, (0, None, 0))(keys, hparams, params), even)

    def step(state: Members, batch: tuple[reward.Told, Array]) -> tuple[Members, Metrics]:
        data, filled = batch
        weight, log_prior, found = weigh(state, data, filled)
        own = data._replace(answers=data.answers._replace(weight=weight))
        fit = population(member, by=by, batch_axes=(_axes(data), None))
        learner, metrics = fit.step(state.learner, (own, filled))
        mean = {name: jnp.mean(x, axis=0) for name, x in metrics.items()}
        steps = next(iter(mean.values())).shape[:1]
        spread = lambda x: jnp.broadcast_to(x, (*steps, *x.shape))
        return Members(learner, log_prior), mean | jax.tree.map(spread, found)

    return Kernel(init, step)


def judges(model: Scalar, params: Params, reference: Episode) -> Judge:
    """Each member on its own scale: mean 0 and deviation 1 over samples of the reference."""
    return jax.lax.map(lambda p: reward.normalise(model, p, reference), params)


def scores(model: Scalar, members: Judge, episode: Episode) -> Array:
    """[k, B]: what each member says, on its own scale; for `ops.aggregate` and `ops.queries`."""
    # In turn: batches of small matrices are slow on a CPU, and on an accelerator k is small.
    return jax.lax.map(lambda judge: reward.score(model, judge, episode), members)


def score(model: Scalar, panel: Panel, episode: Episode) -> Array:
    """[B]: one reward of all members, on a scale of its own."""
    return (_together(model, panel, episode) - panel.whole.mean) / panel.whole.deviation


def _together(model: Scalar, panel: Panel, episode: Episode) -> Array:
    if model.outputs is not None:
        return _distributed(model, panel, episode)
    each, share = scores(model, panel.judges, episode), jnp.exp(panel.log_prior)
    if each.shape[0] == 1:
        return each[0]
    doubted = aggregate.uncertainty_weighted(each, panel.joined.doubt, share)
    return jnp.where(panel.joined.worst, aggregate.worst_case(each), doubted)


def _distributed(model: Scalar, panel: Panel, episode: Episode) -> Array:
    """Of a reward that is a normal distribution: mean − λ variance, or the 5 % quantile."""

    def one(judge: Judge) -> tuple[Array, Array]:
        said = reward.normal(model, judge.params, episode)
        return (said.mean - judge.mean) / judge.deviation, jnp.exp(
            said.log_deviation
        ) / judge.deviation

    mean, deviation = (jnp.mean(x, axis=0) for x in jax.lax.map(one, panel.judges))
    doubted = mean - panel.joined.doubt * jnp.square(deviation)
    return jnp.where(panel.joined.worst, mean - 1.6448536 * deviation, doubted)
