"""What is fitted and what is maximised, in words: one entry for each value of the settings.

What a kind of feedback is fitted by and what a learner maximises they say themselves
(`feedback.kind`, `kernels.method`); here is what `kernels.reward` makes of it.
"""

from __future__ import annotations

from rlhf_jax import feedback
from rlhf_jax.feedback.kind import Settings, described
from rlhf_jax.kernels import learners
from rlhf_jax.kernels.method import sentence, worded

REWARDS = {
    "one": "",
    "mixture": "one reward for each kind of people, told apart by EM",
    "distributional": "min_φ E[−y log Φ(z) − (1−y) log Φ(−z)] + λ_r(μ), z = (μ(a) − μ(b)) / "
    "√(σ(a)² + σ(b)²); a normal distribution of rewards over people",
    "borda": "min_φ E[½ (Δ − (2y − 1))²] + λ_r(φ), Δ = r_φ(a) − r_φ(b); Borda count",
    "gold": "nothing was fitted: the policy was given gold itself",
}
"""What the reward is, by `reward.kind`; "one" and "mixture" have the loss of the feedback."""
NOISE = {
    "standard": "",
    "known": "rates of lapses and flips known",
    "fitted": "rates of lapses and flips fitted with φ, each person's own",
}
"""Whose mistakes the loss counts with, by `reward.noise`."""
AGGREGATES = {
    "mean": "their mean",
    "worst_case": "the least of them",
    "uncertainty_weighted": "their mean − {doubt} · their variance",
}
"""What many rewards come to, by `reward.aggregate`; of a distribution: `QUANTILES`."""
QUANTILES = {
    "mean": "the policy is given μ",
    "worst_case": "the policy is given the 5 % quantile, μ − 1.645 σ",
    "uncertainty_weighted": "the policy is given μ − {doubt} σ²",
}


def penalty(settings: Settings) -> str:
    """λ_r of `kernels.reward`, with the weights of this run."""
    decay = f"λ_r = {settings.get('reward.l2', 'l2')} Σφ²"
    if settings.get("reward.l2_adapts", False):
        decay = (
            f"λ_r = λ Σφ², λ from {settings.get('reward.l2', 'l2')} on moved so that the loss of "
            "answers held back stays 1.1 to 1.5 times that of those fitted"
        )
    kind = feedback.find(settings.get("collect.feedback", "comparison"))
    if kind is not None and kind.anchored:
        return decay
    return f"{decay} + {settings.get('reward.centring', 'centring')} E(Σ r_φ)² over an answer"


def reward(settings: Settings) -> str:
    """What the reward model was fitted to: equation; mistakes; how many; what they come to."""
    kind = settings.get("reward.kind", "one")
    if kind == "gold":
        return REWARDS["gold"]
    aggregate = lambda table: worded(table, settings, "reward.aggregate").format(
        doubt=settings.get("reward.doubt", "λ")
    )
    name, noise = settings.get("collect.feedback", "comparison"), ""
    asked = feedback.find(name)
    if kind in ("distributional", "borda"):
        equation = REWARDS[kind]
    elif asked is None:
        equation = str(name)
    else:
        equation = sentence(described(asked, settings), f"the reward is in {asked.units}")
        if settings.get("reward.noise", "standard") != "standard":
            noise = worded(NOISE, settings, "reward.noise")
            if isinstance(asked.equation, str):
                noise += ", P mixed with them as that of a comparison is"
    several = ""
    members = settings.get("reward.members", 1)
    if kind == "mixture":
        several = f"{settings.get('reward.groups', 'several')} rewards, {aggregate(AGGREGATES)}"
        several = sentence(REWARDS["mixture"], several)
    elif members > 1:
        drawn = ", each of a resample of the answers" if settings.get("reward.bootstrap") else ""
        joined = "the mean of each output" if kind == "distributional" else aggregate(AGGREGATES)
        several = f"{members} models{drawn}, {joined}"
    quantile = aggregate(QUANTILES) if kind == "distributional" else ""
    return sentence(equation, noise, several, quantile, penalty(settings))


def policy(settings: Settings) -> str:
    """What the policy was trained for."""
    name = settings.get("learner", "ppo")
    learner = learners.find(name)
    return str(name) if learner is None else learner.equation(settings)
