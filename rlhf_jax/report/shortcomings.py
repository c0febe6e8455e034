"""What failed or fell short, found in the numbers by rules that are the same for every run.

A rule speaks when its interval excludes the harmless answer, or where a fact about the run
limits what its numbers mean. It is silent otherwise, and the page names all rules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rlhf_jax.ops import evidence
from rlhf_jax.report.alarms import ALARMS
from rlhf_jax.report.intervals import Estimate, estimate, paired
from rlhf_jax.report.records import Record
from rlhf_jax.report.results import DISTINCT, GOLD, NONWORDS, PROXY, Result, measured
from rlhf_jax.report.wording import interval, number, plural, setting, span, valued


class Finding(NamedTuple):
    """A rule that spoke."""

    rule: str
    point: str
    """grid point, empty for the whole run"""
    statement: str


Rule = Callable[[Record, Result], str | None]


def _up(e: Estimate) -> bool:
    return e.n > 1 and e.low > 0.0


def _down(e: Estimate) -> bool:
    return e.n > 1 and e.high < 0.0


def gold_fell(record: Record, result: Result) -> str | None:
    change = result.of(GOLD).change
    if not _down(change):
        return None
    return f"Gold fell: {number(change.mean, sign=True)} (95 % interval {span(change)})."


def no_clear_change(record: Record, result: Result) -> str | None:
    change = result.of(GOLD).change
    if change.n < 2 or _up(change) or _down(change):
        return None
    return f"The change in gold is not told apart from 0: 95 % interval {span(change)}."


def reward_hacking(record: Record, result: Result) -> str | None:
    """Proxy up while gold is down: over the run, or from the first to the second half of the
    last round of PPO."""
    gold, proxy = result.of(GOLD).change, result.of(PROXY).change
    if _down(gold) and _up(proxy):
        return (
            f"Reward hacking: the proxy rose by {number(proxy.mean)} deviations while gold "
            f"changed by {number(gold.mean)}."
        )
    halves = []
    for metric in ("objective/gold", "objective/scores"):
        series = record.metrics.get(("policy", metric))
        if series is None:
            return None
        rows = series.of(result.point)[series.rounds == series.rounds.max()]
        middle = len(rows) // 2
        if middle < 2:
            return None
        halves.append(paired(rows[:middle].mean(axis=0), rows[middle:].mean(axis=0)))
    gold, proxy = halves
    if not (_down(gold) and _up(proxy)):
        return None
    return (
        f"Over-optimisation: from the first to the second half of the last round the proxy rose "
        f"by {number(proxy.mean)} deviations while gold changed by {number(gold.mean)}."
    )


def objective_fell(record: Record, result: Result) -> str | None:
    """What the learner itself was asked to raise, in its last round."""
    series = record.metrics.get(("policy", "objective/rlhf_reward"))
    if series is None:
        return None
    rows = series.of(result.point)[series.rounds == series.rounds.max()]
    change = paired(rows[0], rows[-1])
    if not _down(change):
        return None
    return (
        f"The objective ended below where it began: score − β KL changed by "
        f"{number(change.mean)} ({span(change)}) in the last round; the learner spent more KL than "
        "the score that it gained was worth."
    )


def seeds_that_lost(record: Record, result: Result) -> str | None:
    series = record.metrics.get(("evaluate", GOLD))
    if series is None or not result.round:
        return None
    before = series.at(0, result.point)
    if not before.size:
        return None
    after = series.at(result.round, result.point)
    lost, ended = int((after < before).sum()), int(np.isfinite(after).sum())
    if not lost:
        return None
    return f"{lost} of {plural(ended, 'seed')} ended with less gold than they began with."


def under_the_ceiling(record: Record, result: Result) -> str | None:
    if not _up(result.shortfall):
        return None
    return (
        f"The reward model predicts {interval(result.accuracy, share=True)} of what one person "
        "prefers among held-out texts, another of these people "
        f"{number(result.ceiling_human.mean, share=True)}."
    )


def cap_ended_the_fit(record: Record, result: Result) -> str | None:
    """In the last round, before answers held back had said often enough that no more steps help."""
    found = []
    for name in ("steps_made", "idle"):
        series = record.metrics.get(("reward", f"reward/{name}"))
        if series is None or not record.config.get("reward.held_back"):
            return None
        found.append(series.at(int(series.rounds.max()), result.point))
    made, idle = found
    cap, patience = record.config["reward.steps"], record.config["reward.patience"]
    capped = int(((made >= cap) & (idle < patience)).sum())
    if not capped:
        return None
    return (
        f"The fit of the reward model had not ended when its {cap} steps were over, for {capped} "
        f"of {plural(len(made), 'seed')}: more reward.steps may fit it better."
    )


_LOGISTIC = ("one", "mixture")
"""Kinds of reward whose differences are logits of a comparison."""


def miscalibrated(record: Record, result: Result) -> str | None:
    if record.config.get("reward.kind", "one") not in _LOGISTIC:
        return None
    ece = estimate(measured(record, "reward/ece", result.point))
    if not ece.n or not ece.mean > 0.05:
        return None
    off = number(ece.mean, share=True)
    return f"The reward model's probabilities are off by {off} on average (ECE; 5 % is let pass)."


def non_words(record: Record, result: Result) -> str | None:
    after = result.of(NONWORDS).after
    if not after.n or not after.mean > 0.05:
        return None
    value = result.point.setting.get(
        "world.nonword_value", record.config.get("world.nonword_value", "unknown")
    )
    worth = f"the assumed value {setting(value)}"
    if record.config.get("world.gold") == "model":
        worth = "what a model of the ratings says"
    return (
        f"{interval(after, share=True)} of the samples after are strings that nobody rated: "
        f"their gold is {worth}, not a measurement."
    )


def narrowing(record: Record, result: Result) -> str | None:
    distinct = result.of(DISTINCT)
    if not distinct.after.n or not distinct.after.mean < 0.5 * distinct.before.mean:
        return None
    return (
        f"The policy narrowed: {interval(distinct.after, share=True)} of its samples are "
        f"distinct, {interval(distinct.before, share=True)} before."
    )


def two_groups(record: Record, result: Result) -> str | None:
    series = record.metrics.get(("evaluate", GOLD))
    values = np.zeros(0) if series is None else series.at(result.round, result.point)
    groups = evidence.in_groups(values[np.isfinite(values)])
    if not groups:
        return None
    return (
        f"Gold after falls into two groups of seeds, {groups}: mean ± interval describes neither."
    )


def few_seeds(record: Record, result: Result) -> str | None:
    n = len(result.point.columns)
    if n == 1:
        return "One seed: no interval, and nothing here says what another seed would do."
    return f"{n} seeds: intervals are wide and lean on normality." if n < 5 else None


POINT_RULES: tuple[Rule, ...] = (
    gold_fell,
    no_clear_change,
    reward_hacking,
    objective_fell,
    seeds_that_lost,
    under_the_ceiling,
    cap_ended_the_fit,
    miscalibrated,
    non_words,
    narrowing,
    two_groups,
    few_seeds,
    *ALARMS,
)


def unfinished(record: Record, result: Result) -> str | None:
    planned = record.config.get("rounds", 1)
    if result.round >= planned:
        return None
    return f"Unfinished: evaluated after {result.round} of {plural(planned, 'round')}."


NAMED = 5
"""Members that are named one by one."""


def diverged(record: Record, result: Result) -> str | None:
    if not record.gone:
        return None
    named = [f"{record.who(i)} ({left})" for i, left in list(record.gone.items())[:NAMED]]
    more = len(record.gone) - len(named)
    return (
        f"{len(record.gone)} of {plural(record.members, 'member')} diverged, left out of means "
        f"from then on: {'; '.join(named)}{f'; and {more} more' if more else ''}."
    )


def shared_base(record: Record, result: Result) -> str | None:
    if not record.config.get("pretrain.shared", False):
        return None
    return (
        "All seeds start from one base model: the intervals say nothing about how results would "
        "differ with another."
    )


def many_settings(record: Record, result: Result) -> str | None:
    if not record.swept:
        return None
    n = len(record.points)
    return (
        f"{n} settings are shown side by side; intervals are not corrected for choosing among them."
    )


def no_gold(record: Record, result: Result) -> str | None:
    if valued(record.config):
        return None
    return (
        "No gold: nobody said what the policy's responses are worth. A proxy that rises may be "
        "over-optimised, and nothing here would show it."
    )


def no_ceiling(record: Record, result: Result) -> str | None:
    if valued(record.config) or not result.accuracy.n or result.ceiling_human.n:
        return None
    return (
        "No ceiling: no two named people answered about one held-out pair, so nobody knows how "
        "well a person is predicted by another, and how much of the accuracy's distance to 100 % "
        "could be gained."
    )


RUN_RULES: tuple[Rule, ...] = (
    unfinished,
    diverged,
    shared_base,
    many_settings,
    no_gold,
    no_ceiling,
)


def names() -> tuple[str, ...]:
    return tuple(rule.__name__ for rule in RUN_RULES + POINT_RULES)


def find(record: Record, outcome: tuple[Result, ...]) -> tuple[Finding, ...]:
    """Every rule that speaks: of the run once, of each grid point for itself."""
    jobs = [(rule, outcome[0], "") for rule in RUN_RULES]
    jobs += [(rule, r, r.point.label) for r in outcome for rule in POINT_RULES]
    said = ((rule.__name__, where, rule(record, result)) for rule, result, where in jobs)
    return tuple(Finding(rule, where, text) for rule, where, text in said if text)


def aloud(record: Record, outcome: tuple[Result, ...]) -> tuple[str, ...]:
    """What the end of a run must not keep quiet about: alarms, a line a rule, and who diverged."""
    out = []
    for rule in ALARMS:
        said = [(r.point.label, text) for r in outcome if (text := rule(record, r))]
        if said:
            where = f"{said[0][0]}: " if said[0][0] else ""
            more = f" (so at {len(said) - 1} more of {len(outcome)} settings)" * (len(said) > 1)
            out.append(where + said[0][1] + more)
    gone = diverged(record, outcome[0])
    return (*out, gone) if gone else tuple(out)
