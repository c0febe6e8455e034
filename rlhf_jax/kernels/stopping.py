"""When a fit ends: at the lowest loss of answers that it was not fitted to.

Early stopping (Prechelt 1998, "Early stopping — but when?"): every few steps the loss of the
answers held back is looked at. After so many looks in a row that were not the best the fit goes
back to its best look and on at a lower rate; where the rate has fallen often enough, it ends. How
many steps a reward model is given then follows from what it can learn, not from how many answers
a budget buys, and no length has to be known beforehand for the rate to fall over it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.kernels.adaptive_l2 import adjust
from rlhf_jax.kernels.ensemble import Members
from rlhf_jax.types import Array, Kernel, Key, Metrics, Params

FALL = 0.3
"""What the learning rate becomes of itself where looks no longer help."""


class Best(NamedTuple):
    """The members at their best look so far, leaves [k, …]."""

    params: Params
    log_prior: Array
    loss: Array
    """the lowest, nats an answer; ∞ before the first look of a round"""
    steps: Array
    """int32: optimiser steps of this round to it"""


class Fit(NamedTuple):
    """The fit of one round under way."""

    members: Members
    best: Best
    idle: Array
    """int32: looks in a row that were the best of no member"""
    falls: Array
    """int32: how often the rate has fallen in this round"""
    said: Metrics
    """Of the last look that was made: of its parameters, not of the best ones."""


class Split(NamedTuple):
    """Rows of the table that are fitted to, and rows that are held back, round by round."""

    fitted: np.ndarray
    held: np.ndarray
    rounds: int

    def filled(self, filled: Array) -> tuple[Array, Array]:
        """How many of both are filled, where `filled` rows of all are: whole rounds.

        There may be rows that are neither, fewer of them than of both in a round.
        """
        answers = (self.fitted.size + self.held.size) // self.rounds
        made = jnp.minimum(filled // answers, self.rounds)
        return made * (self.fitted.size // self.rounds), made * (self.held.size // self.rounds)


Loss = Callable[[Members, Any], tuple[Array, Array]]
"""(members, answers held back) → nats an answer of each member [k], Σ w of the answers"""


def split(answers: int, rounds: int, repeats: int, share: float) -> Split:
    """Every (1/share)-th item of a round is held back, with all `repeats` answers about it.

    A round's items are drawn independently, one source after the other: evenly spaced ones are
    a sample of each source.
    """
    items = np.arange(answers) // repeats
    held = np.floor((items + 1) * share) > np.floor(items * share)
    rows = np.arange(rounds * answers).reshape(rounds, answers)
    return Split(rows[:, ~held].ravel(), rows[:, held].ravel(), rounds)


def again(state: Fit) -> Fit:
    """Goes on from the best look, as the fit of another round. Leaves may have leading axes."""
    best, learner = state.best, state.members.learner
    learner = learner._replace(
        params=jax.tree.map(jnp.copy, best.params), step=jnp.zeros_like(learner.step)
    )
    return state._replace(
        members=Members(learner, jnp.copy(best.log_prior)),
        best=best._replace(
            loss=jnp.full_like(best.loss, jnp.inf), steps=jnp.zeros_like(best.steps)
        ),
        idle=jnp.zeros_like(state.idle),
        falls=jnp.zeros_like(state.falls),
    )


def _at_rate(members: Members, factor: Array) -> Members:
    """The members' learning rate, times `factor`."""
    hparams = members.learner.hparams
    rate = hparams.adam.learning_rate * factor
    adam = dataclasses.replace(hparams.adam, learning_rate=rate)
    hparams = dataclasses.replace(hparams, adam=adam)
    return members._replace(learner=members.learner._replace(hparams=hparams))


def kernel(
    fit: Kernel,
    loss: Loss,
    split: Split,
    patience: int,
    falls: int,
    example: Any,
    unscaled: Loss | None = None,
) -> Kernel:
    """One look: the steps of `fit`, and whether they were worth it.

    Batch: (all answers [N, …], how many are filled), of which `example` has the shapes. The
    members go together: when none has had its best look in the last `patience`, each goes back to
    its own best and their rate falls to `FALL` of itself, `falls` times, and then the fit ends.
    With `unscaled`, the loss of the members as they are, each look moves the L2 weight as
    `adaptive_l2.adjust` says. After the end nothing is computed and the last numbers are said
    again. Where nothing is held back, or none of it counts, every look is the best and all are
    made.
    """

    def init(key: Key, hparams: Any, params: Params) -> Fit:
        members = fit.init(key, hparams, params)
        k = members.log_prior.shape[0]
        best = Best(
            jax.tree.map(jnp.copy, members.learner.params),
            jnp.copy(members.log_prior),
            jnp.full(k, jnp.inf, jnp.float32),
            jnp.zeros(k, jnp.int32),
        )
        none = jnp.zeros((), jnp.int32)
        _, shapes = jax.eval_shape(go, Fit(members, best, none, none, {}), example, none)
        said = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return Fit(members, best, none, jnp.copy(none), said)

    def go(state: Fit, data: Any, filled: Array) -> tuple[Fit, Metrics]:
        take = lambda rows: jax.tree.map(lambda x: x[rows], data)
        fitted, held = split.filled(filled)
        slowed = _at_rate(state.members, FALL**state.falls)
        members, found = fit.step(slowed, (take(split.fitted), fitted))
        own = state.members.learner.hparams
        members = members._replace(learner=members.learner._replace(hparams=own))
        metrics = {name: jnp.mean(x, axis=0) for name, x in found.items()}
        better, now = jnp.asarray(True), jnp.zeros_like(state.best.loss)
        if split.held.size:
            kept = take(split.held)
            counts = jnp.arange(split.held.size) < held
            weight = jnp.where(counts, kept.answers.weight, 0.0)
            kept = kept._replace(answers=kept.answers._replace(weight=weight))
            now, total = loss(members, kept)
            better = (now < state.best.loss) | (total == 0.0)
            metrics["loss/reward_held_back"] = jnp.mean(now)
            if unscaled is not None:
                missed = jnp.where(total > 0, jnp.mean(unscaled(members, kept)[0]), jnp.nan)
                own = dataclasses.replace(own, l2=adjust(own.l2, metrics["loss/reward"], missed))
                members = members._replace(learner=members.learner._replace(hparams=own))
                metrics["loss/reward_unscaled"] = missed
                metrics["reward/l2"] = jnp.mean(own.l2)
        better = jnp.broadcast_to(better, now.shape)
        steps = members.learner.step
        new = Best(members.learner.params, members.log_prior, now, steps)
        choose = lambda a, b: jnp.where(better.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
        best = jax.tree.map(choose, new, state.best)
        idle = jnp.where(jnp.any(better), 0, state.idle + 1)
        fall = (idle >= patience) & (state.falls < falls)
        back = lambda a, b: jnp.where(fall, a, b)
        params = jax.tree.map(back, best.params, members.learner.params)
        members = Members(
            members.learner._replace(params=params), back(best.log_prior, members.log_prior)
        )
        idle = jnp.where(fall, 0, idle)
        metrics["reward/steps"] = jnp.mean(best.steps.astype(jnp.float32))
        metrics["reward/steps_made"] = jnp.max(steps).astype(jnp.float32)
        metrics["reward/idle"] = idle.astype(jnp.float32)
        metrics["reward/falls"] = (state.falls + fall).astype(jnp.float32)
        return Fit(members, best, idle, state.falls + fall, metrics), metrics

    def step(state: Fit, batch: tuple[Any, Array]) -> tuple[Fit, Metrics]:
        data, filled = batch
        if not split.held.size:
            return go(state, data, filled)
        stay = lambda state, data, filled: (state, state.said)
        return jax.lax.cond(state.idle < patience, go, stay, state, data, filled)

    return Kernel(init, step)


def ended(fits: Kernel, patience: int) -> Kernel:
    """A population of such fits, of which nothing is computed once all have ended.

    Under `vmap` a fit that has ended is computed along with the others, and thrown away.
    """

    def step(state: Fit, batch: Any) -> tuple[Fit, Metrics]:
        stay = lambda state, batch: (state, state.said)
        return jax.lax.cond(jnp.all(state.idle >= patience), stay, fits.step, state, batch)

    return Kernel(fits.init, step)
