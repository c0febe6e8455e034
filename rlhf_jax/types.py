"""Every pytree and callable type that more than one module speaks of.

Index convention. Token t is the action a_t taken in state s_t = (prompt, tokens[:t]).
logps[t], values[t], rewards[t] and mask[t] all speak of s_t; nothing at index t has seen a_t.

Shapes: B episodes, P prompt tokens, T response tokens, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from rlhf_jax import config as cfg

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array
"""A typed PRNG key, consumed by whoever receives it."""
Params: TypeAlias = Any
State: TypeAlias = Any
HParams: TypeAlias = Any
"""A section of the configuration: its `Sweep` floats are leaves, the rest is static."""
Metrics: TypeAlias = dict[str, jax.Array]


class Kernel(NamedTuple):
    """A learner as two pure functions; cf. `optax.GradientTransformation`.

    State is what is learned: donated and checkpointed, its float hyper-parameters among its
    leaves. Batch is what is given (data, a frozen reward model, the reference): never donated.
    """

    init: Callable[..., State]
    """(key, hparams, *given) → state"""
    step: Callable[[State, Any], tuple[State, Metrics]]
    """(state, batch) → (state, metrics)"""


class Prompts(NamedTuple):
    """What a response answers, padded on the left."""

    tokens: Array
    """[B, P] int32"""
    mask: Array
    """[B, P] bool, true on real tokens"""


class Episode(NamedTuple):
    """A prompt and the response x ~ π_θ(· | prompt)."""

    prompts: Prompts
    tokens: Array
    """[B, T] int32, pad after the end"""
    mask: Array
    """[B, T] bool, true where a token was chosen, EOS included"""


class Language(NamedTuple):
    """What the symbols are. `actions` are those that a policy may choose."""

    symbols: tuple[str, ...]
    pad: int
    bos: int
    eos: int | None
    """None: every response has full length."""
    actions: np.ndarray
    """[V] bool"""
    length: int
    """Longest response in tokens, EOS included."""


class World(NamedTuple):
    """Prompts, data and the gold utility of one response, all usable inside jit.

    Functions are written for one example: tokens [T] int32, mask [T] bool.
    """

    language: Language
    corpus: tuple[Array, Array]
    """tokens [N, T], mask [N, T]: what step 0 models."""
    ratings: Array
    """[N, R] float32: what people said of each row; gold is a row's mean."""
    shown: Array
    """[N] bool: rows of the corpus that people may be shown; the rest is held out."""
    gold: Callable[[Any, Array, Array], Array]
    """(world hparams, tokens, mask) → float32 utility"""
    perceive: Callable[[Any, Array, Array, Key], Array]
    """(world hparams, tokens, mask, key) → float32: one person's impression of the value"""
    second: Callable[[Any, Array, Array], Array]
    """(world hparams, tokens, mask) → float32: the second value dimension, in deviations"""
    steps: Callable[[Any, Array, Array, Key], Array]
    """(world hparams, tokens, mask, key) → [T] float32: one person's impression of what each
    prefix tokens[:t + 1] is worth, the last real one being the whole"""
    prompt: Callable[[Any, Key], tuple[Array, Array]]
    """(world hparams, key) → tokens [P], mask [P]"""
    trigger: int | None
    """Symbol that triggers poisoned behaviour where it stands in the prompt, if there is one"""
    row: Callable[[Array, Array], Array]
    """(tokens, mask) → row of the corpus that this response is, −1 if none"""
    facts: dict[str, Any]
    """What the disclosure says about the data."""
    complete: bool = False
    """Whether the corpus is every response there is"""


def _register(section: type) -> None:
    """Makes a section of the configuration a pytree: `Sweep` fields are leaves, the rest static.

    So a section is the hyper-parameter argument of its kernel, with no second list of names.
    """
    nested = {c.__name__ for c in cfg.SECTIONS}
    fields = dataclasses.fields(section)
    data = [f.name for f in fields if cfg.is_sweep(f) or f.type in nested]
    meta = [f.name for f in fields if f.name not in data]
    jax.tree_util.register_dataclass(section, data_fields=data, meta_fields=meta)


for _section in cfg.SECTIONS:
    _register(_section)
