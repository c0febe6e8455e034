"""The least work of PPO in floating-point operations: what bench divides by and tests hold to.

Only matrix products are counted, 2 operations per multiply-add; attention sees the past alone;
logits and values are wanted of response tokens alone, a reward of the last one, and the last
layer needs no more than keys and values of the others; a backward pass is two forward passes.
"""

from __future__ import annotations

from typing import NamedTuple

from rlhf_jax.config import Model


class Sizes(NamedTuple):
    """Shapes of one iteration."""

    model: Model
    vocabulary: int
    prompt: int
    response: int
    batch: int
    epochs: int


def _sizes() -> dict[str, Sizes]:
    def shape(width: int, layers: int, heads: int, mlp: int, kv_heads: int) -> Model:
        return Model(width=width, layers=layers, heads=heads, mlp=mlp, kv_heads=kv_heads)

    return {
        "XS": Sizes(shape(64, 3, 4, 192, 2), 32, 1, 17, 128, 4),
        "S": Sizes(shape(128, 4, 4, 342, 4), 512, 16, 32, 64, 4),
        "M": Sizes(shape(512, 8, 8, 1366, 8), 8192, 32, 64, 32, 4),
        "135M": Sizes(shape(576, 30, 9, 1536, 3), 49152, 64, 128, 32, 4),
    }


SIZES = _sizes()
"""XS is the quickstart's, 135M the shape of SmolLM2; MLPs of S and M have 8/3 × width."""


class Work(NamedTuple):
    """Operations, by part of an iteration."""

    prefill: float
    decode: float
    """of one token for each episode"""
    scoring: float
    """reference, reward model and old values"""
    update: float
    """of one epoch: policy and critic, forward and backward"""


def trunk(model: Model, tokens: int, past: int, wanted: int) -> float:
    """`tokens` consecutive tokens of one sequence with `past` before them, the last `wanted` of
    which are asked for."""
    d, head = model.width, model.width // model.heads
    store, ask = 4 * d * model.kv_heads * head, 2 * d * (2 * d + 3 * model.mlp)

    def layer(n: int) -> float:
        """The last n tokens ask."""
        seen = n * (past + tokens - n) + n * (n + 1) / 2
        return store * tokens + ask * n + 4 * d * seen

    return (model.layers - 1) * layer(tokens) + layer(wanted)


def work(sizes: Sizes) -> Work:
    model, p, t = sizes.model, sizes.prompt, sizes.response
    logits = 2 * model.width * sizes.vocabulary
    policy = trunk(model, p + t - 1, 0, t) + t * logits
    critic = trunk(model, p + t, 0, t + 1)
    judge = trunk(model, p + t, 0, 1)
    decode = (trunk(model, t - 1, p, t - 1) + (t - 1) * logits) / (t - 1)
    scoring = policy + critic + judge
    parts = (trunk(model, p, 0, 1) + logits, decode, scoring, 3 * (policy + critic))
    return Work(*(sizes.batch * x for x in parts))


def iteration(sizes: Sizes) -> float:
    """All of it: the last token that is drawn is not read again."""
    w = work(sizes)
    decoding = (sizes.response - 1) * w.decode
    return w.prefill + decoding + w.scoring + sizes.epochs * w.update


def pair(sizes: Sizes) -> float:
    """Forward and backward of the reward model for both sides of one comparison."""
    return 2 * 3 * trunk(sizes.model, sizes.prompt + sizes.response, 0, 1)
