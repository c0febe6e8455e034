"""Step 1: x ~ π_θ (or from the corpus), y = f(H, x, ε): comparisons into a growing table."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlhf_jax.config import Collect, Human
from rlhf_jax.config import World as WorldSettings
from rlhf_jax.feedback import comparison
from rlhf_jax.feedback.comparison import Comparison
from rlhf_jax.humans import CANT_TELL, person
from rlhf_jax.kernels.sampling import sample
from rlhf_jax.models.heads import Policy
from rlhf_jax.types import Array, Episode, Kernel, Key, Metrics, Params, Prompts, World


class Table(NamedTuple):
    """All answers so far: the first `filled` rows of `answers`."""

    answers: Comparison
    filled: Array
    """int32"""
    key: Key


class Asked(NamedTuple):
    """Who is asked about whose samples."""

    policy: Params
    human: Human
    world: WorldSettings


def corpus_episodes(world: World, rows: Array | np.ndarray) -> Episode:
    """Rows of the corpus as responses to the world's first prompt."""
    tokens, mask = world.corpus
    prompt, prompt_mask = world.prompt(jax.random.key(0))
    repeat = lambda x: jnp.broadcast_to(x, (len(rows), *x.shape))
    return Episode(Prompts(repeat(prompt), repeat(prompt_mask)), tokens[rows], mask[rows])


def prompts(world: World, key: Key, n: int) -> Prompts:
    """`n` prompts of the world. Consumes `key`."""
    return Prompts(*jax.vmap(world.prompt)(jax.random.split(key, n)))


def kernel(policy: Policy, world: World, hparams: Collect, rounds: int) -> Kernel:
    """One round of comparisons a step; batch: `Asked`.

    A pair is two samples of the policy for one prompt, or two corpus rows that may be shown
    (all of them offline, `corpus_share` of them online). A pair with a held-out sample is
    not asked (weight 0).
    """
    pairs = hparams.comparisons
    from_corpus = pairs if hparams.mode == "offline" else round(pairs * hparams.corpus_share)
    from_policy = pairs - from_corpus
    candidates = np.flatnonzero(np.asarray(world.shown))

    def init(key: Key) -> Table:
        blank = corpus_episodes(world, np.zeros(pairs * rounds, np.int32))
        nothing = jnp.zeros((pairs * rounds,), jnp.float32)
        # Two buffers, not one twice: the table is donated.
        answers = Comparison(blank, jax.tree.map(jnp.copy, blank), nothing, jnp.copy(nothing))
        return Table(answers, jnp.zeros((), jnp.int32), key)

    def draw(asked: Asked, key: Key) -> tuple[Episode, Episode]:
        row_key, sample_key, prompt_key = jax.random.split(key, 3)
        at = jax.random.randint(row_key, (2, from_corpus), 0, len(candidates))
        rows = jnp.asarray(candidates)[at]
        old = corpus_episodes(world, rows[0]), corpus_episodes(world, rows[1])
        if not from_policy:
            return old
        join = lambda x, y: jnp.concatenate([x, y])
        ask = prompts(world, prompt_key, from_policy)
        twice = jax.tree.map(join, ask, ask)
        new = sample(policy, world.language, asked.policy, twice, sample_key).episode
        a = jax.tree.map(lambda x, y: join(x[:from_policy], y), new, old[0])
        b = jax.tree.map(lambda x, y: join(x[from_policy:], y), new, old[1])
        return a, b

    def perceive(asked: Asked, x: Episode, key: Key) -> Array:
        impression = jax.vmap(world.perceive, (None, 0, 0, 0))
        return impression(asked.world, x.tokens, x.mask, jax.random.split(key, pairs))

    def may_show(x: Episode) -> Array:
        rows = jax.vmap(world.row)(x.tokens, x.mask)
        return (rows < 0) | world.shown[rows]

    def step(state: Table, asked: Asked) -> tuple[Table, Metrics]:
        draw_key, a_key, b_key, answer_key = jax.random.split(
            jax.random.fold_in(state.key, state.filled), 4
        )
        a, b = draw(asked, draw_key)
        label = comparison.elicit(
            person(asked.human), perceive(asked, a, a_key), perceive(asked, b, b_key), answer_key
        )
        shown = may_show(a) & may_show(b)
        weight = (shown & (label != CANT_TELL)).astype(jnp.float32)
        new = Comparison(a, b, label, weight)
        put = lambda old, x: jax.lax.dynamic_update_slice_in_dim(old, x, state.filled, 0)
        answers = jax.tree.map(put, state.answers, new)
        ties = jnp.sum(weight * (label == 0.5)) / jnp.maximum(jnp.sum(weight), 1.0)
        return Table(answers, state.filled + pairs, state.key), {
            "collect/asked_share": jnp.mean(shown),
            "collect/answered_share": jnp.mean(weight),
            "collect/tie_share": ties,
        }

    return Kernel(init, step)
