"""Policy and value function on one trunk, read in one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import flax.linen as nn
import jax.numpy as jnp

from rlhf_jax.config import Model as Shape
from rlhf_jax.models.heads import FORBIDDEN
from rlhf_jax.models.transformer import Dense, Transformer, since
from rlhf_jax.ops.tokens import positions
from rlhf_jax.types import Array, Episode, Language, Params

Joint: TypeAlias = Callable[[Params, Episode], tuple[Array, Array]]
"""(params, episode) → logits [B, T, V] of s_0 … s_{T−1}, values [B, T + 1] of s_0 … s_T"""


class _Both(nn.Module):
    shape: Shape
    vocabulary: int
    skip: int
    """Inputs before the one that s_0 ends with."""

    @nn.compact
    def __call__(self, tokens: Array, positions: Array, mask: Array) -> tuple[Array, Array]:
        trunk = Transformer(self.shape, self.vocabulary, name="trunk")
        x, table, _ = trunk(tokens, positions, mask, wanted=since(self.skip))
        logits = x[:, :-1].reshape(-1, x.shape[-1]) @ table.T
        logits = logits.reshape(x.shape[0], x.shape[1] - 1, -1).astype(jnp.float32)
        value = Dense(1, ("width", "score"), 0.0, name="head")(x)[..., 0]
        return logits, value.astype(jnp.float32)


def joint(shape: Shape, language: Language) -> Joint:
    """Reads the parameters of a `Scalar`: its trunk is the policy's too, its head the critic's."""
    allowed = jnp.asarray(language.actions)

    def apply(params: Params, episode: Episode) -> tuple[Array, Array]:
        prompts = episode.prompts
        tokens = jnp.concatenate([prompts.tokens, episode.tokens], axis=1)
        mask = jnp.concatenate([prompts.mask, episode.mask], axis=1)
        module = _Both(shape, len(language.symbols), prompts.tokens.shape[1] - 1)
        run: Callable[..., tuple[Array, Array]] = module.apply  # type: ignore[assignment]
        logits, values = run({"params": params}, tokens, positions(mask), mask)
        return jnp.where(allowed, logits, FORBIDDEN), values

    return apply
