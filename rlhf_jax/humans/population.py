"""Many people: who they are, who is asked, and what their answers cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax import config
from rlhf_jax.config import ConfigError
from rlhf_jax.humans.human import Human, Value, person
from rlhf_jax.humans.links import constrain, unconstrain
from rlhf_jax.humans.perception import Moment, weights_at
from rlhf_jax.types import Array, Key


class People(NamedTuple):
    """The G groups of people, the first of them being everybody who is in no other."""

    human: Human
    """leaves [G, …]"""
    share: Array
    """[G] of all people, Σ = 1"""
    asked: Array
    """[G] 1 where they give feedback, else 0"""
    served: Array
    """[G] 1 where what they value is part of gold, else 0"""
    triggered: Array
    """[G] bool: they put the trigger into the prompts that they are asked about"""


def people(
    human: config.Human,
    groups: dict[str, config.Group],
    dimensions: Sequence[str],
    features: Sequence[str],
    asked: str = "",
) -> People:
    """The people of a configuration, in a world whose dimensions and features have these names,
    who are asked for one kind of feedback.

    Leaves of the sections may have a leading axis [M]; those of the result are [M, G, …].
    Raises `ConfigError` for names that the world does not have.
    """
    names = sorted(groups)  # whatever the order in which they are written
    every = [config.Group(share=1.0, human=human), *(groups[name] for name in names)]
    where = ["human", *(f"groups.{name}.human" for name in names)]
    persons = [
        person(g.human, dimensions, features, asked, at) for g, at in zip(every, where, strict=True)
    ]
    vectors = {"weights", "drift", "context", "spurious", "trigger", "target", "cutpoints"}
    parts = jnp.broadcast_arrays(*(jnp.asarray(g.share, jnp.float32) for g in every))
    shape = jnp.broadcast_shapes(
        *(jnp.shape(x)[:1] if jnp.ndim(x) else () for x in (human.lapse, *parts))
    )

    def stacked(path: Any, *leaves: Value) -> Array:
        own = 1 if path[0].name in vectors else 0
        arrays = [jnp.asarray(x, jnp.float32) for x in leaves]
        widths = {x.shape[-1] for x in arrays} if own else set()
        if len(widths) > 1:
            raise ConfigError(f"human.{path[0].name}: as many of them in every group of people")
        return jnp.stack(
            [jnp.broadcast_to(x, (*shape, *x.shape[x.ndim - own :])) for x in arrays], len(shape)
        )

    some = lambda name: jnp.asarray([getattr(g, name) for g in every])
    spread = lambda x: jnp.broadcast_to(x, (*shape, len(every)))
    others = sum(parts[1:], jnp.zeros_like(parts[0]))
    return People(
        jax.tree.map_with_path(stacked, *persons),
        jnp.broadcast_to(jnp.stack([1.0 - others, *parts[1:]], axis=-1), (*shape, len(every))),
        spread(some("asked").astype(jnp.float32)),
        spread(some("served").astype(jnp.float32)),
        spread(some("triggered")),
    )


def shares(people: People, among: Array) -> Array:
    """[G], Σ = 1: the share of each group of those who are asked, or who are served."""
    share = people.share * among
    return share / jnp.maximum(jnp.sum(share), 1e-12)


def group_of(people: People, who: Array, number: int) -> Array:
    """int32: the group of each of `number` people of those asked, by their number from 0.

    The named groups come first, by their names, each as many as its share of those asked says; the
    rest are in group 0.
    """
    until = jnp.cumsum(shares(people, people.asked)[1:])
    at = jnp.searchsorted(until, (who + 0.5) / number, side="right", method="compare_all")
    return jnp.where(at == until.shape[0], 0, at + 1).astype(jnp.int32)


def valued(people: People, values: Array, time: Value) -> Array:
    """[B, U] → [G, B]: w_g(t) · v(x), what each group values of each sample."""
    moment = Moment(time)
    weights = jax.vmap(lambda h: weights_at(h, moment))(people.human)
    return jax.vmap(lambda w: jnp.sum(w[None] * values, axis=-1))(weights)


def served(people: People, valued: Array) -> Array:
    """Gold, Σ_g share_g u_g over the groups that are served: [G, …] → […]."""
    share, gold = shares(people, people.served), valued[0]
    for k in range(1, valued.shape[0]):
        gold = gold + share[k] * (valued[k] - valued[0])
    return gold


def stack(people: Sequence[Human]) -> Human:
    """P people → one `Human` with a leading axis [P].

    Raises `ConfigError` where a field has different shapes in different people.
    """
    if not people:
        raise ConfigError("a population needs at least one person")
    if len({jax.tree.structure(h) for h in people}) > 1:
        raise ConfigError("people of one population need cut-points of the same form and number")
    columns = zip(*(jax.tree.leaves_with_path(h) for h in people), strict=True)
    leaves = []
    for column in columns:
        values = [jnp.asarray(x, jnp.float32) for _, x in column]
        if len({v.shape for v in values}) > 1:
            name = jax.tree_util.keystr(column[0][0])
            raise ConfigError(f"human{name}: shapes differ between the people of one population")
        leaves.append(jnp.stack(values))
    return jax.tree.unflatten(jax.tree.structure(people[0]), leaves)


def repeat(human: Human, people: int) -> Human:
    """The same person `people` times."""
    return jax.tree.map(
        lambda x: jnp.repeat(jnp.asarray(x, jnp.float32)[None], people, axis=0), human
    )


def size(people: Human) -> int:
    """P, the length of the leading axis."""
    return jax.tree.leaves(people)[0].shape[0]


def take(people: Human, who: Array) -> Human:
    """The person of each answer: who int32 [...] → `Human` with leaves [..., …].

    `jax.vmap(elicit)(take(people, who), values, keys)` asks each item of its own person.
    """
    return jax.tree.map(lambda x: x[who], people)


def mixture(groups: Human, shares: Array, people: int, key: Key) -> tuple[Human, Array]:
    """`people` persons, each of group g with probability shares[g] / Σ shares.

    Args: groups with leading axis [G]; shares [G] ≥ 0. Consumes `key`.
    Returns: (people [P], group int32 [P]): the identity stays with the data.
    """
    group = jax.random.categorical(key, jnp.log(shares), shape=(people,)).astype(jnp.int32)
    return take(groups, group), group


def varied(human: Human, spread: dict[str, float], people: int, key: Key) -> Human:
    """`people` persons around one: link(field) + spread · N(0, 1), independent of each other.

    On the scales of `links`: β, τ and scale are log-normal, λ and φ logit-normal, offsets and
    weights normal; cut-points move as a whole and in their gaps. A person's limit (β = ∞,
    λ = 0) stays one. Other fields are the same for all. Consumes `key`.
    """
    everyone = repeat(human, people)
    raw = unconstrain(human, list(spread))
    keys = jax.random.split(key, max(len(raw), 1))
    moved = {
        name: jnp.broadcast_to(x, (people, *x.shape))
        + spread[name] * jax.random.normal(k, (people, *x.shape))
        for (name, x), k in zip(raw.items(), keys, strict=False)
    }
    return constrain(everyone, moved)


def assign(appeal: Array, items: int, times: int, key: Key) -> Array:
    """Who is asked about each item: int32 [items, times], different people for one item.

    Drawn without replacement with the stated bias: the first is person p with probability
    ∝ exp(appeal_p), the next likewise among the rest (Gumbel top-k; Efraimidis & Spirakis
    2006). appeal [P], 0 is even-handed. times > 1 labels an item repeatedly.
    Raises `ConfigError` where there are fewer people than `times`. Consumes `key`.
    """
    if times > appeal.shape[0]:
        raise ConfigError(f"{times} answers an item need as many people, not {appeal.shape[0]}")
    noisy = appeal[None, :] + jax.random.gumbel(key, (items, appeal.shape[0]))
    return jax.lax.top_k(noisy, times)[1].astype(jnp.int32)


def time(human: Human, tokens: Array) -> Array:
    """effort + reading · tokens read or written, for one answer each. tokens [...] → [...]."""
    return human.effort + human.reading * tokens


def cost(human: Human, tokens: Array) -> Array:
    """wage · time."""
    return human.wage * time(human, tokens)
