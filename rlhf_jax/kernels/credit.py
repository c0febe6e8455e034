"""Who is paid what: from a judged response to advantages and returns of its tokens."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlhf_jax.config import PPO, ConfigError
from rlhf_jax.kernels.experience import Penalty, Scored, ended
from rlhf_jax.kernels.sampling import check, chosen
from rlhf_jax.ops.returns import generalised_advantage
from rlhf_jax.ops.rewards import judged, shaped, with_next
from rlhf_jax.ops.statistics import deviation, whiten
from rlhf_jax.types import Array, Language


class Anchor(NamedTuple):
    """What a KL in the loss needs."""

    log_p: Array
    """log π_ref, of the chosen [B, T] or of all [B, T, V]"""
    unit: Array
    """[B]: how much of the score one unit of the advantages is"""


def refuse(hp: PPO, language: Language) -> None:
    """Raises `ConfigError` for settings that this language gives no meaning to."""
    check(language)
    if language.eos is None:
        for name, neutral in (("missing_eos", "keep"), ("time_limit", "ends")):
            if getattr(hp, name) != neutral:
                raise ConfigError(
                    f"ppo.{name} = {getattr(hp, name)}: responses of this world have one length "
                    "and no EOS, none is cut off"
                )


def settle(hp: PPO, language: Language, x: Scored) -> Scored:
    """The scores after what a missing EOS costs; see `ops.rewards.judged`."""
    if hp.missing_eos == "keep":
        return x
    rule = partial(judged, how=hp.missing_eos, limit=language.length, tail=hp.length_tail)
    one = lambda score, end, length: rule(score, end, length, value=hp.missing_eos_value)
    length = jnp.sum(x.episode.mask, axis=1)
    return x._replace(scores=jax.vmap(one)(x.scores, ended(language, x.episode), length))


def states(hp: PPO, mask: Array) -> Array:
    """[B, T] bool: the states that have a value; one more than actions if it earns the score."""
    return jax.vmap(with_next)(mask) if hp.score_at == "after_end" else mask


def credit(
    hp: PPO,
    language: Language,
    x: Scored,
    values: Array,
    kl_weight: Array,
    penalty: Penalty | None = None,
) -> tuple[Array, Array, Array]:
    """Advantages [B, T] as the epochs use them, returns [B, T], and the unit [] of the former:
    how much of the score is 1, by which whitening has divided it. values: [B, T + 1]. `penalty` is
    paid in the place of what `hp.kl` says.

    A score is for the whole response: unless `hp.time_limit` says otherwise, time running out
    ends the episode just as EOS does, and nothing is bootstrapped.
    """
    mask = x.episode.mask
    valued = states(hp, mask)
    kl = {"k1_in_reward": x.log_ratio, "exact": x.exact_kl}.get(hp.kl, jnp.zeros_like(x.logps))
    if penalty is not None:
        kl = x.penalised(penalty)
    pay = jax.vmap(partial(shaped, at=hp.score_at), (0, 0, 0, None))
    rewards = pay(kl, x.scores, mask, kl_weight)
    unit = jnp.ones(())
    if hp.whiten_rewards:
        unit = deviation(rewards, valued)
        rewards = whiten(rewards, valued, shift=False)
    beyond = jnp.zeros_like(x.scores)
    if hp.time_limit == "bootstraps":
        beyond = jnp.where(ended(language, x.episode), 0.0, values[:, -1])
    estimate = jax.vmap(generalised_advantage, (0, 0, 0, None, None, 0))
    advantages = estimate(rewards, values[:, :-1], valued, hp.discount, hp.gae_lambda, beyond)
    returns = jnp.where(valued, advantages + values[:, :-1], 0.0)
    if hp.whiten_advantages:
        return whiten(advantages, mask), returns, unit * deviation(advantages, mask)
    return jnp.where(mask, advantages, 0.0), returns, unit


def anchor(hp: PPO, x: Scored, unit: Array) -> Anchor | None:
    """What the KL in the loss needs beside advantages in this unit []; None where it has none."""
    if hp.kl == "k1_in_reward":
        return None
    every = hp.kl in ("exact_in_loss", "exact")
    log_p = x.reference if every else chosen(x.reference, x.episode)
    return Anchor(log_p, jnp.broadcast_to(unit, x.scores.shape))
