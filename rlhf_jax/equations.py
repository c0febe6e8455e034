"""What is fitted and what is maximised, in words: one entry for each value of the settings.

What a kind of feedback is fitted by it says itself (`feedback.kind`). The other losses:
`kernels.reward`, `kernels.ppo` and its siblings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf_jax import feedback
from rlhf_jax.config import reaches
from rlhf_jax.feedback.kind import Settings, described

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
PENALTIES = {
    "k1_in_reward": "max_θ E_{x~π_θ}[r_φ(x) − β_KL Σ_t log π_θ/π_ref(a_t|s_t)]; PPO, the KL paid "
    "in the reward (k1)",
    "k2_in_loss": "max_θ E_{x~π_θ}[r_φ(x)] − β_KL E Σ_t ½ (log π_θ/π_ref(a_t|s_t))²; PPO, the KL "
    "in the loss (k2): its gradient is that of each state's KL(π_θ‖π_ref), states given",
    "k3_in_loss": "max_θ E_{x~π_θ}[r_φ(x)] − β_KL E Σ_t (π_ref/π_θ − 1 + log π_θ/π_ref)(a_t|s_t); "
    "PPO, the KL in the loss (k3): its gradient is that of each state's KL(π_ref‖π_θ), states "
    "given",
    "exact_in_loss": "max_θ E_{x~π_θ}[r_φ(x)] − β_KL E Σ_t Σ_v π_θ log π_θ/π_ref(v|s_t); PPO, the "
    "exact KL of each state in the loss, states given",
    "exact": "max_θ E_{x~π_θ}[r_φ(x) − β_KL Σ_t Σ_v π_θ log π_θ/π_ref(v|s_t)]; PPO, the exact KL "
    "of each state, in the loss for itself and in the reward for the states before",
}
"""Of PPO, by `ppo.kl`."""
MISSING_EOS = {
    "keep": "",
    "subtract": "r_φ less {value} where EOS is missing",
    "replace": "{value} in the place of r_φ where EOS is missing",
    "length": "r_φ less up to {value} over the last {tail} tokens before the limit",
}
"""What a response without EOS costs, by `ppo.missing_eos`."""
DPO = {
    "dpo": "min_θ E[−y log σ(Δ) − (1−y) log σ(−Δ)], Δ = β log π_θ/π_ref(a) − β log π_θ/π_ref(b), "
    "on the comparisons themselves; DPO, a tie is y = ½",
    "ipo": "min_θ E[y (Δ − 1/2τ)² + (1−y) (Δ + 1/2τ)²], Δ = log π_θ/π_ref(a) − log π_θ/π_ref(b), "
    "on the comparisons themselves; IPO, a tie is y = ½",
}
"""By `dpo.loss`."""
AVERAGES = {
    "tokens": "mean over all tokens",
    "sequences": "mean over a response's tokens, then over responses",
    "constant": "sum over tokens, divided by responses × longest response",
}
"""What the loss of a token counts, by `ppo.average` and `grpo.average`."""
LEARNERS = {
    "ppo": "",
    "reinforce": "max_θ E_{x~π_θ}[r_φ(x) − β_KL log π_θ/π_ref(x)]; REINFORCE, the other samples as "
    "baseline",
    "grpo": "max_θ E_{x~π_θ}[Â log π_θ(x)] − β_KL E Σ_t (π_ref/π_θ − 1 + log π_θ/π_ref)(a_t|s_t), "
    "Â of the samples of a prompt; GRPO, the KL in the loss (k3)",
    "dpo": "",
    "imitation": "max_θ E[log π_θ(x)] over the best x of n samples of π_ref by r_φ",
}
"""What the policy is trained for, by `learner`; PPO has `PENALTIES`, DPO `DPO`."""
ADVANTAGES = {
    True: "Â = (r_φ(x) − mean r_φ)/(deviation r_φ + 1e-4)",
    False: "Â = r_φ(x) − mean r_φ",
}
"""By `grpo.deviation`."""


def _named(table: Mapping[Any, str], settings: Settings, path: str) -> str:
    """What the table says of a setting; the setting itself where the table is younger than it."""
    value = settings.get(path, "not stated")
    return table.get(value, str(value))


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def penalty(settings: Settings) -> str:
    """λ_r of `kernels.reward`, with the weights of this run."""
    decay = f"λ_r = {settings.get('reward.l2', 'l2')} Σφ²"
    kind = feedback.find(settings.get("collect.feedback", "comparison"))
    if kind is not None and kind.anchored:
        return decay
    return f"{decay} + {settings.get('reward.centring', 'centring')} E(Σ r_φ)² over an answer"


def reward(settings: Settings) -> str:
    """What the reward model was fitted to: equation; mistakes; how many; what they come to."""
    kind = settings.get("reward.kind", "one")
    if kind == "gold":
        return REWARDS["gold"]
    aggregate = lambda table: _named(table, settings, "reward.aggregate").format(
        doubt=settings.get("reward.doubt", "λ")
    )
    name, noise = settings.get("collect.feedback", "comparison"), ""
    asked = feedback.find(name)
    if kind in ("distributional", "borda"):
        equation = REWARDS[kind]
    elif asked is None:
        equation = str(name)
    else:
        equation = _joined(described(asked, settings), f"the reward is in {asked.units}")
        if settings.get("reward.noise", "standard") != "standard":
            noise = _named(NOISE, settings, "reward.noise")
            if isinstance(asked.equation, str):
                noise += ", P mixed with them as that of a comparison is"
    several = ""
    members = settings.get("reward.members", 1)
    if kind == "mixture":
        several = f"{settings.get('reward.groups', 'several')} rewards, {aggregate(AGGREGATES)}"
        several = _joined(REWARDS["mixture"], several)
    elif members > 1:
        drawn = ", each of a resample of the answers" if settings.get("reward.bootstrap") else ""
        joined = "the mean of each output" if kind == "distributional" else aggregate(AGGREGATES)
        several = f"{members} models{drawn}, {joined}"
    quantile = aggregate(QUANTILES) if kind == "distributional" else ""
    return _joined(equation, noise, several, quantile, penalty(settings))


def policy(settings: Settings) -> str:
    """What the policy was trained for."""
    learner = settings.get("learner", "ppo")
    if learner == "ppo":
        return _ppo(settings)
    if learner == "dpo":
        smoothed = reaches(settings.get("dpo.smoothing", 0)) and settings.get("dpo.loss") == "dpo"
        smoothing = f"y ← (1−s) y + s/2, s = {settings.get('dpo.smoothing')}"
        return _joined(_named(DPO, settings, "dpo.loss"), smoothing if smoothed else "")
    own = ""
    if learner == "grpo":
        divided = ADVANTAGES[bool(settings.get("grpo.deviation", True))]
        own = _joined(divided, _named(AVERAGES, settings, "grpo.average"))
    if learner == "imitation":
        own = f"n = {settings.get('bestofn.n', 'not stated')}"
    return _joined(LEARNERS.get(learner, str(learner)), own)


def _ppo(settings: Settings) -> str:
    missing = _named(MISSING_EOS, settings, "ppo.missing_eos").format(
        value=settings.get("ppo.missing_eos_value"), tail=settings.get("ppo.length_tail")
    )
    entropy = f"+ {settings.get('ppo.entropy')} · entropy of each state, beside the advantages"
    return _joined(
        _named(PENALTIES, settings, "ppo.kl"),
        missing,
        entropy if reaches(settings.get("ppo.entropy", 0)) else "",
        _named(AVERAGES, settings, "ppo.average"),
    )
