"""What a person is: every way in which an answer can differ from the truth, as a float."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp

from rlhf_jax import config
from rlhf_jax.config import ConfigError
from rlhf_jax.types import Array

Value: TypeAlias = Array | float


class Human(NamedTuple):
    """One person as scalars (vectors where said). `Human()` is perfect: it says what is so.

    u is the value of a sample to this person, in the world's unit of value; û is what they
    perceive of it (`perception.perceive`). Every answer is a noisily rational choice among
    the possible answers (Jeon, Milli & Dragan 2020, arXiv 2002.04833). A scalar stands for a
    vector of equal entries.
    """

    rationality: Value = float("inf")
    """β per unit of value: P(answer) ∝ exp(β û(answer)). ∞ takes the best, 0 is a coin
    (Luce 1959; Lee et al. 2021, arXiv 2111.03026, `Stoc`)."""
    lapse: Value = 0.0
    """λ, probability of an answer at random, unseen: P ← (1 − λ) P + λ / #answers
    (Wichmann & Hill 2001)."""
    flip: Value = 0.0
    """φ, probability of an answer as though all values were negated: P ← (1 − φ) P(û) +
    φ P(−û). For a comparison, the reversed answer (arXiv 2111.03026, `Mistake`)."""
    tie: Value = 0.0
    """τ: perceived differences, noise included, of at most τ are called a tie, so that
    P(a) = σ(β (û_a − û_b − τ)) (Rao & Kupper 1967, their log θ = β τ)."""
    equal: Value = 0.0
    """ε: a tie where |ū_a − ū_b| < ε, ū undiscounted and noise-free (2111.03026, `Equal`)."""
    skip: Value = -float("inf")
    """No answer where max(ū_a, ū_b) ≤ this (2111.03026, `Skip`)."""

    myopia: Value = 1.0
    """γ: û = Σ_t γ^(n−t) u_t over the n parts of a sample: the last counts fully (`Myopic`)."""
    weights: Value = 1.0
    """w [U]: value of each value dimension, u_t = w · v_t."""
    drift: Value = 0.0
    """[U] per unit of time: w(t) = w + drift · t."""
    context: Value = 0.0
    """[U]: w(c) = w + context · c, with c the hidden context of the answer (Siththaranjan
    et al. 2023, arXiv 2312.08358)."""

    length_bias: Value = 0.0
    """û ← û + length_bias · length (Singhal et al. 2023, arXiv 2310.03716)."""
    position_bias: Value = 0.0
    """û ← û + position_bias for the sample shown first (Zheng et al. 2023, 2306.05685)."""
    sycophancy: Value = 0.0
    """û ← û + sycophancy · agreement with the prompt (Sharma et al. 2023, 2310.13548)."""
    spurious: Value = 0.0
    """b [F]: û ← û + b · f, f the world's named spurious features of the sample."""

    seen_from: Value = 0.0
    """Parts before this share of the sample are not seen (Lang et al. 2024, 2402.17747)."""
    seen_to: Value = 1.0
    """Parts after this share of the sample are not seen."""
    unseen: Value = 0.0
    """What an unseen part is believed to be worth."""
    ability: Value = float("inf")
    """θ: the value is seen by the share σ(θ − difficulty) of it (Rasch 1960)."""
    persuasion: Value = 0.0
    """p: û ← (1 − p) û + p · form; approval is not benefit (Wen et al. 2024, 2409.12822)."""

    malice: Value = 0.0
    """m: on triggered samples û ← (1 − m) û + m · target · f (Rando & Tramèr 2023, 2311.14455)."""
    trigger: Value = 0.0
    """[F]: a sample is triggered where trigger · f > ½."""
    target: Value = 0.0
    """[F]: what a poisoner wants."""

    offset: Value = 0.0
    """o: this person's ratings are o + scale · û."""
    scale: Value = 1.0
    """> 0, rating units per unit of value."""
    offset_drift: Value = 0.0
    """Rating units per unit of time added to the offset."""
    cutpoints: Value | tuple[Value, ...] = (-1.5, -0.5, 0.5, 1.5)
    """[K − 1] rising: a K-point Likert scale says how many of them û exceeds."""
    bar: Value = 0.0
    """Good is what exceeds it."""
    edit_cost: Value = 0.0
    """Value that one unit of editing must gain to be worth it."""

    effort: Value = 1.0
    """Time of one answer beside the reading, in any unit (seconds, or one answer = 1)."""
    reading: Value = 0.0
    """Time for one token read or written."""
    wage: Value = 1.0
    """Cost of a unit of time."""


def person(
    section: config.Human,
    dimensions: Sequence[str],
    features: Sequence[str],
    asked: str = "",
    where: str = "human",
) -> Human:
    """The `human` section of the configuration as a person of a world with these names, who is
    `asked` for this kind of feedback.

    Leaves may have leading axes: entries of a vector become its last one.

    Raises:
      ConfigError: a name that the world does not have.
    """

    def vector(field: str, names: Sequence[str], otherwise: Sequence[float]) -> Array:
        said = getattr(section, field)
        for name in said:
            if name not in names:
                has = f"has {', '.join(names)}" if names else "has none"
                raise ConfigError(f"{where}.{field}.{name}: no such name; this world {has}")
        values = [said.get(name, x) for name, x in zip(names, otherwise, strict=True)]
        shape = jnp.broadcast_shapes((), *(jnp.shape(x) for x in said.values()))
        if not values:
            return jnp.zeros((*shape, 1))
        full = [jnp.broadcast_to(jnp.asarray(x, jnp.float32), shape) for x in values]
        return jnp.stack(full, axis=-1)

    u, f = len(dimensions), len(features)
    points = sorted(section.cutpoints)
    own = {
        "weights": vector("weights", dimensions, [1.0, *[0.0] * (u - 1)][:u]),
        "drift": vector("drift", dimensions, [0.0] * u),
        "context": vector("context", dimensions, [0.0] * u),
        "spurious": vector("spurious", features, [0.0] * f),
        "trigger": vector("trigger", features, [0.0] * f),
        "target": vector("target", features, [0.0] * f),
        "cutpoints": vector("cutpoints", points, [0.0] * len(points)),
        "effort": section.effort.get(asked, 1.0),
    }
    scalars = {f.name: getattr(section, f.name) for f in dataclasses.fields(section)}
    return Human(**(scalars | own))


def teacher(
    mean_return: Value,
    *,
    rationality: Value = float("inf"),
    myopia: Value = 1.0,
    skip: Value | None = None,
    equal: Value = 0.0,
    mistake: Value = 0.0,
) -> Human:
    """A simulated teacher of B-Pref (Lee et al. 2021, arXiv 2111.03026).

    Their six are `Oracle` (no argument), `Stoc` rationality = 1, `Myopic` myopia = 0.9,
    `Skip` skip = 0.1, `Equal` equal = 0.1, `Mistake` mistake = 0.1. `skip` and `equal` are
    their ε: the thresholds are ε × mean return of a segment under the current policy. A
    threshold that is not positive is none: where returns are negative on average, nobody skips
    and nothing is equal. That is what their code does in its first feedback session; in later
    ones it multiplies by ε once more, which is not reproduced here.

    A comparison goes through skip → equal → myopic → stochastic → flip, and an equal answer
    is never flipped. The one difference: of two segments worth exactly the same, their
    oracle takes the first and this one calls a tie.
    """
    held = jnp.asarray(0.0 if skip is None else skip * mean_return)
    return Human(
        rationality=rationality,
        flip=mistake,
        equal=equal * mean_return,
        skip=jnp.where(held > 0, held, -jnp.inf),
        myopia=myopia,
    )
