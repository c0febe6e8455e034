"""H: people as pytrees of floats. One person is scalars; a population has a leading axis.

`human` says what a person is, `perception` what of a sample reaches them, `choice` how they
answer, `links` which of their parameters can be fitted, `population` how many are asked.
"""

from rlhf_jax.humans.choice import CANT_TELL, choose, compare, log_choice, prefer
from rlhf_jax.humans.human import Human, person, teacher
from rlhf_jax.humans.perception import Moment, Perceived, Sample, perceive

__all__ = [
    "CANT_TELL",
    "Human",
    "Moment",
    "Perceived",
    "Sample",
    "choose",
    "compare",
    "log_choice",
    "perceive",
    "person",
    "prefer",
    "teacher",
]
