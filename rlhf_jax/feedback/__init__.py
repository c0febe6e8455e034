"""One file a type of feedback: `elicit` draws it, `loss` is its negative log-likelihood.

Every type is a noisily rational choice (Jeon, Milli & Dragan 2020, arXiv 2002.04833), so the
two halves are one statistical model: `elicit(human, perceived, key)` draws from P(y | û, H)
and `loss(rewards, y, human)` is −log P(y | r, H), in nats, one for each answer. `loss` takes
the evaluator's parameters as an argument: `STANDARD` measures the reward in units of their
noise, `humans.links.constrain` makes them learnable, and a vmap gives each answer its own
person. Data is N answers: what was shown, what was said, how much it counts, who said it.

A type that the pipeline can ask for ends in one value, its `KIND` (`feedback.kind`), which
`KINDS` lists: to add one is to write its file, to name it here and in `config.Collect`.
"""

from rlhf_jax.config import Collect, ConfigError
from rlhf_jax.feedback import (
    best_worst,
    comparison,
    correction,
    demonstration,
    label,
    language,
    likert,
    process,
    ranking,
    rating,
    span,
)
from rlhf_jax.feedback.kind import STANDARD, Kind, settled
from rlhf_jax.types import Language

KINDS = (
    comparison.KIND,
    ranking.KIND,
    best_worst.KIND,
    rating.KIND,
    likert.KIND,
    label.KIND,
    correction.KIND,
    demonstration.KIND,
    language.KIND,
    process.KIND,
    span.KIND,
)
"""All that a run can ask for, in the order of `config.Collect.feedback`."""


def find(name: str) -> Kind | None:
    """The kind of this name; None where there is none, as of a run younger than this code."""
    return next((kind for kind in KINDS if kind.name == name), None)


def named(collect: Collect, alphabet: Language) -> Kind:
    """The kind that `collect.feedback` names, `settled` for these settings.

    Raises `ConfigError` where there is no such kind, or its choice is none.
    """
    kind = find(collect.feedback)
    if kind is None:
        raise ConfigError(f"collect.feedback = {collect.feedback}: there is no such kind")
    return settled(kind, collect, alphabet)


__all__ = ["KINDS", "STANDARD", "find", "named"]
