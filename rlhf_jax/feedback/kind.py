"""What a kind of feedback is: one value, with which each type's file ends, and what all share.

A kind draws the answers of N items (`Kind.ask`), says which samples they speak of
(`Kind.episodes`) and what they say of a reward model (`Kind.nll`): −log P(answer | r_φ, human) in
nats, row by row. No row depends on another, so that answers of weight 0 are left out by not
counting them. What is said of it in words (`asked`, `equation`, `units`) and which settings of a
person it reads (`acts`) stand beside that: disclosure, refusals, documentation and tests read
them from there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar, cast

import jax
import jax.numpy as jnp

from rlhf_jax import config
from rlhf_jax.config import Collect, ConfigError
from rlhf_jax.humans import Human
from rlhf_jax.types import Array, Episode, Key, Language

STANDARD = Human(rationality=1.0)
"""Unbiased, attentive, β = 1: the reward is then in units of the evaluator's noise."""
NOISE = ("rationality", "lapse", "flip")
"""What every noisily rational choice has."""

Settings = Mapping[str, Any]
"""A configuration as {dotted path: value}; what is not in it is taken as "not stated"."""
T = TypeVar("T")


class Seen(NamedTuple):
    """What people are shown of N items and how they perceive it."""

    x: Episode
    """leaves [N, K, …]"""
    values: Array
    """[N, K] float32, perceived value û of each sample"""
    steps: Array | None
    """[N, K, T] float32, perceived value of each prefix tokens[:t + 1]; None where not needed"""
    time: Array | None = None
    """[N] float32, when each is asked; None where nobody keeps a calendar: all at 0"""
    whole: Array | None = None
    """[N, K] float32, ū: the same without myopia, which thresholds are held against; None: û"""


class Reading(NamedTuple):
    """What a reward model says of the K samples of N items."""

    rewards: Array
    """[N, K] float32, r_φ(x)"""
    states: Array
    """[N, K, T + 1] float32, of all prefixes s_0 … s_T; s_t has seen tokens[:t]"""


class Kind(NamedTuple):
    """One kind of feedback. A field that depends on a run is `of` its settings until `settled`."""

    name: str
    """as `Collect.feedback` names it"""
    asked: str
    """what a person is asked for"""
    equation: str | Callable[[Settings], str]
    """what is fitted to the answers of people who make no mistakes; a function of the settings
    where these choose among several, `reward.noise` included"""
    units: str
    """what one unit of the fitted reward is"""
    acts: tuple[str, ...]
    """fields of `Human` that `ask` reads: the others change no answer, given û"""
    samples: int
    """K, samples drawn for each item"""
    cost: int
    """samples that a person reads or writes for one answer"""
    ask: Callable[[Human, Seen, Key], Any]
    """(human, seen, key) → N answers of the kind's type, weight 1 or, where not answered, 0,
    and who = None. One person for all items or one for each (leaves [N])."""
    episodes: Callable[[Any], Episode]
    """answers → the samples that they speak of, leaves [N, K, …]; not always all drawn"""
    nll: Callable[[Reading, Any, Human], Array]
    """(what the reward model says of `episodes`, answers, human) → [N] nats"""
    steps: bool = False
    """whether `ask` needs Seen.steps"""
    anchored: bool = False
    """whether the likelihood fixes the reward's offset; centring is for those where not"""
    chooses: bool = False
    """whether it is a choice among `Collect.options`"""


class _Of(NamedTuple):
    field: Callable[[Collect, Language], Any]


def of(field: Callable[[Collect, Language], T]) -> T:
    """A field of a kind as a function of the run's settings and alphabet. Typed as what it will be,
    because `settled` works it out before anybody looks at it.
    """
    return cast(T, _Of(field))


def settled(kind: Kind, collect: Collect, alphabet: Language) -> Kind:
    """The kind in a run: every field that is `of` settings worked out.

    Raises `ConfigError` where a choice among `collect.options` is none.
    """
    if kind.chooses and collect.options < 2:
        raise ConfigError(f"collect.options = {collect.options}: {kind.name} needs at least two")
    fields = kind._asdict().items()
    return kind._replace(
        **{name: f.field(collect, alphabet) for name, f in fields if isinstance(f, _Of)}
    )


def described(kind: Kind, settings: Settings) -> str:
    """The equation that a run of these settings fits."""
    return kind.equation if isinstance(kind.equation, str) else kind.equation(settings)


def refuse(kind: Kind, kinds: Iterable[Kind], human: config.Human, where: str = "human") -> None:
    """Raises `ConfigError` for the first setting of a person that is not at its default and acts
    in the answers of others of `kinds`, but not of this one. A sweep is refused where any of its
    values differs.
    """
    elsewhere = {name for other in kinds for name in other.acts}
    usual = config.Human()
    for f in dataclasses.fields(human):
        value, default = getattr(human, f.name), getattr(usual, f.name)
        if f.name in kind.acts or f.name not in elsewhere or value == default:
            continue
        if not isinstance(value, tuple) or any(v != default for v in value):
            raise ConfigError(
                f"{where}.{f.name} = {value} changes no answer where collect.feedback = "
                f"{kind.name}: what acts there is {', '.join(kind.acts)}"
            )


# --- what kinds are written with


def each(f: Callable[..., Any]) -> Callable[..., Any]:
    """f(human, *one item) for N items: one person for all (scalar leaves), or one for each
    (leaves [N]), or some leaves so and some so. A vector such as cut-points is a tuple.
    """

    def every(human: Human, *items: Any) -> Any:
        axes = jax.tree.map(lambda x: 0 if jnp.ndim(x) else None, human)
        return jax.vmap(f, (axes, *(0 for _ in items)))(human, *items)

    return every


def answers(elicit: Callable[..., Any], human: Human, key: Key, *items: Array) -> Any:
    """elicit(human, key, *one item) for each of N items. Consumes `key`."""
    return each(elicit)(human, jax.random.split(key, len(items[0])), *items)


def all_answer(seen: Seen) -> Array:
    """[N] weights of items that everybody answers: 1."""
    return jnp.ones(seen.values.shape[0], jnp.float32)


def prefix_values(seen: Seen) -> Array:
    """[N, T] perceived value of the prefixes of sample 0, for kinds with `steps`."""
    assert seen.steps is not None
    return seen.steps[:, 0]


def first(x: Episode) -> Episode:
    """Leaves [N, K, …] → sample 0 of each item, leaves [N, …]."""
    return jax.tree.map(lambda leaf: leaf[:, 0], x)


def take(x: Episode, at: Array) -> Episode:
    """leaves [N, K, …], int32 [N, …] → the samples at these places, leaves [N, …, …]."""
    return jax.vmap(lambda item, i: jax.tree.map(lambda leaf: leaf[i], item))(x, at)


def alone(x: Episode) -> Episode:
    """One sample of each item as K = 1: leaves [N, …] → [N, 1, …]."""
    return jax.tree.map(lambda leaf: leaf[:, None], x)


def join(*parts: Episode) -> Episode:
    """leaves [N, K_i, …] → [N, Σ K_i, …]"""
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=1), *parts)


def lone(data: Any) -> Episode:
    """`Kind.episodes` of answers about one sample each, `data.x`."""
    return alone(data.x)


def several(data: Any) -> Episode:
    """`Kind.episodes` of answers about K samples each, `data.x`."""
    return data.x
