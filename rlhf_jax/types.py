"""Every pytree and callable type that more than one module speaks of.

Index convention. Token t is the action a_t taken in state s_t = (prompt, tokens[:t]).
logps[t], values[t], rewards[t] and mask[t] all speak of s_t; nothing at index t has seen a_t.

Shapes: B episodes, P prompt tokens, T response tokens, V vocabulary.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
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
    text: Callable[[Sequence[int]], str] | None = None
    """tokens → what people read; None: the symbols, one after the other"""


class Sample(NamedTuple):
    """What there is to see of one sample; what a world does not have stays 0.

    A world shows it by prefix: every leaf says at t what tokens[:t + 1] are. `at` is one of them,
    where all but `values` and `mask` are of the whole.
    """

    values: Array
    """[T, U] float32: what tokens[:t + 1] are worth in each value dimension"""
    mask: Array
    """[T] bool, true on real parts"""
    length: Array | float = 0.0
    """In deviations of the world's samples, or whatever unit `length_bias` is per"""
    agreement: Array | float = 0.0
    """How far it says what the prompt wants to hear, −1…1"""
    features: Array | float = 0.0
    """[…, F] float32: spurious features, triggers and targets, as `World.features` names them"""
    form: Array | float = 0.0
    """Value that the form alone suggests"""
    difficulty: Array | float = 0.0
    """In logits of being judged rightly, as in `Human.ability`"""

    def at(self, t: Array) -> Sample:
        """tokens[:t + 1] as a sample of its own."""
        length, agreement, form, difficulty = (
            x if jnp.ndim(x) == 0 else jnp.asarray(x)[t]
            for x in (self.length, self.agreement, self.form, self.difficulty)
        )
        features = jnp.asarray(self.features)
        features = features if features.ndim < 2 else features[t]
        mask = self.mask & (jnp.arange(self.mask.shape[0]) <= t)
        return Sample(self.values, mask, length, agreement, features, form, difficulty)


class World(NamedTuple):
    """Prompts, data and the gold utility of one response, all usable inside jit.

    Functions are written for one example: tokens [T] int32, mask [T] bool. Where nobody knows what
    a response is worth there is no gold: `values`, `show` and `row` are None, `dimensions` and
    `features` empty, `impressions` 0.
    """

    language: Language
    corpus: tuple[Array, Array]
    """tokens [N, T], mask [N, T]: what step 0 models."""
    shown: Array
    """[N] bool: rows of the corpus that people may be shown; the rest is held out"""
    dimensions: tuple[str, ...]
    """Names of the U value dimensions, in which people value samples; the first is worth 1 to
    whoever says nothing else, the others 0"""
    features: tuple[str, ...]
    """Names of the F features that people may be swayed by"""
    values: Callable[[Any, Array, Array], Array] | None
    """(world hparams, tokens, mask) → [U] float32: what a response is worth in each dimension"""
    impressions: int
    """R: as how many people, each as likely as the others, may a sample strike somebody"""
    show: Callable[[Any, Prompts, Array, Array, Array], Sample] | None
    """(world hparams, prompt, tokens, mask, int32 which impression) → what there is to see, by
    prefix: leaves [T, …]. Mean values over impressions are `values`"""
    prompt: Callable[[Any, Key], tuple[Array, Array]]
    """(world hparams, key) → tokens [P], mask [P]"""
    trigger: int | None
    """Symbol that triggers poisoned behaviour where it stands in the prompt, if there is one"""
    row: Callable[[Array, Array], Array] | None
    """(tokens, mask) → row of the corpus that this response is, −1 if none"""
    facts: dict[str, Any]
    """What the disclosure says about the data."""
    complete: bool = False
    """Whether the corpus is every response there is"""
    asked: Prompts | None = None
    """[N]: what each row of the corpus answers; None: whatever `prompt` draws"""
    examined: Callable[[Any, Key], tuple[Array, Array]] | None = None
    """as `prompt`: held-out prompts, which only measurement draws; None: there are no others"""


def _register(section: type) -> None:
    """Makes a section of the configuration a pytree: `Sweep` fields are leaves, the rest static.

    So a section is the hyper-parameter argument of its kernel, with no second list of names.
    """
    nested = {c.__name__ for c in cfg.SECTIONS}
    fields = dataclasses.fields(section)
    data = [f.name for f in fields if cfg.is_data(f) or f.type in nested]
    meta = [f.name for f in fields if f.name not in data]
    jax.tree_util.register_dataclass(section, data_fields=data, meta_fields=meta)


for _section in cfg.SECTIONS:
    _register(_section)
