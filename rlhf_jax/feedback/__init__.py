"""One file a type of feedback: `elicit` draws it, `loss` is its negative log-likelihood.

Every type is a noisily rational choice (Jeon, Milli & Dragan 2020, arXiv 2002.04833), so the
two halves are one statistical model: `elicit(human, perceived, key)` draws from P(y | û, H)
and `loss(rewards, y, human)` is −log P(y | r, H), in nats, one for each answer. `loss` takes
the evaluator's parameters as an argument: `STANDARD` measures the reward in units of their
noise, `humans.links.constrain` makes them learnable, and a vmap gives each answer its own
person. Data is N answers: what was shown, what was said, how much it counts, who said it.
"""

from rlhf_jax.humans import Human

STANDARD = Human(rationality=1.0)
"""Unbiased, attentive, β = 1: the reward is then in units of the evaluator's noise."""

__all__ = ["STANDARD"]
