"""What is passed in from Python in the place of what a configuration names: the open door.

Free of JAX, so that a study can be read without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from rlhf_jax.config import Config, ConfigError

if TYPE_CHECKING:
    from rlhf_jax.feedback.kind import Kind
    from rlhf_jax.types import Array, Episode, World

    Score: TypeAlias = Callable[[Episode], Array]
    Penalty: TypeAlias = Callable[[Array, Array], Array]


class Own(NamedTuple):
    """What takes the place of what a configuration names; None: it is as the configuration says."""

    world: World | None = None
    score: Score | None = None
    """B episodes → [B] float32, a reward of your own: no reward model is fitted. It is put on the
    scale on which samples of the reference have mean 0 and deviation 1, as every reward is."""
    feedback: Kind | None = None
    """A kind of feedback of your own, or one of `feedback.KINDS` with a loss of your own."""
    penalty: Penalty | None = None
    """(log π(a_t | s_t), log π_ref(a_t | s_t)), [B, T] each → [B, T] nats: λ_p of PPO, paid in the
    reward in the place of k1. What it says after the end of a response does not count."""

    data: Any = None
    """`worlds.texts.Answered`: what real people said, and the world of texts that they spoke of."""

    def same(self, other: Own) -> bool:
        """Whether both pass the very same things."""
        return all(a is b for a, b in zip(self, other, strict=True))

    def said(self, settings: Mapping[str, Any]) -> dict[str, str]:
        """What stands in a run's metadata and disclosure: what was passed, in words."""
        words: dict[str, str] = {}
        if self.world is not None:
            words["world"] = str(self.world.facts.get("name", "a world passed in from Python"))
        if self.score is not None:
            words["score"] = (
                f"r(x) is {_name(self.score)}, passed in from Python; nothing was fitted"
            )
        if self.feedback is not None:
            from rlhf_jax import feedback
            from rlhf_jax.feedback.kind import described

            mine, theirs = self.feedback, feedback.find(self.feedback.name)
            words["asked"] = mine.asked
            words["feedback"] = f"{mine.name}: {described(mine, settings)}"
            if (
                theirs is not None
                and mine.equation is theirs.equation
                and mine.nll is not theirs.nll
            ):
                words["feedback"] = f"{mine.name}: −log P by {_name(mine.nll)}, passed in"
        if self.data is not None:
            words["data"] = "what real people said, as rows"
        if self.penalty is not None:
            words["penalty"] = (
                f"max_θ E_{{x~π_θ}}[r_φ(x) − β_KL Σ_t λ_t], λ_t by {_name(self.penalty)}, passed "
                "in; PPO"
            )
        return words


NOTHING = Own()


def refuse(own: Own, config: Config) -> None:
    """Raises `ConfigError` where what is passed has no place beside what is named."""
    if own.penalty is not None and (config.learner, config.ppo.kl) != ("ppo", "k1_in_reward"):
        raise ConfigError(
            "a penalty of your own takes the place of k1 in PPO's reward: it needs learner = ppo "
            f"and ppo.kl = k1_in_reward, not {config.learner} and {config.ppo.kl}"
        )
    kind, compared = own.feedback, config.reward.kind in ("borda", "distributional")
    compared = compared or config.learner == "dpo" or config.reward.loss != "bradley_terry"
    if kind is not None and compared and kind.name != "comparison":
        raise ConfigError(
            f"reward.kind = {config.reward.kind}, reward.loss = {config.reward.loss} and learner = "
            f"{config.learner} are of comparisons: feedback of your own is {kind.name}"
        )
    if own.score is not None and config.learner == "dpo":
        raise ConfigError("learner = dpo learns from comparisons: a score of your own is not used")
    if own.score is not None and config.ppo.critic_start == "reward":
        raise ConfigError("ppo.critic_start = reward needs a reward model, not a score of your own")


def _name(function: Any) -> str:
    name = getattr(function, "__qualname__", type(function).__name__)
    first = (getattr(function, "__doc__", None) or "").strip().splitlines()[:1]
    return f"{name} ({first[0].rstrip('.')})" if first else str(name)
