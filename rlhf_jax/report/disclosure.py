"""What a run owes its readers (Casper et al. 2023, arXiv 2307.15217, section 5), from its files.

Nothing here is written by hand: facts come from config.json and metadata.json, numbers from
metrics.jsonl, and what fell short from rules (`shortcomings`).
"""

from __future__ import annotations

import math
from typing import Any

from rlhf_jax import equations, feedback
from rlhf_jax.config import ConfigError
from rlhf_jax.kernels import learners
from rlhf_jax.report import schema
from rlhf_jax.report.intervals import Estimate
from rlhf_jax.report.records import Record
from rlhf_jax.report.results import Result, quantities
from rlhf_jax.report.shortcomings import find, names
from rlhf_jax.report.wording import corpus, setting, valued

INTERVAL = "95 % Student t interval of the mean over seeds"


def _plain(value: Any) -> Any:
    """Strict JSON: ∞ becomes a word, anything unusual its text."""
    if isinstance(value, float) and not math.isfinite(value):
        return setting(value) if math.isinf(value) else None
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, str | int | float) or value is None:
        return value
    return str(value)


def _section(record: Record, prefix: str) -> dict[str, Any]:
    """The settings whose path begins with `prefix`."""
    return {k: _plain(v) for k, v in record.config.items() if k.startswith(prefix)}


def _estimate(e: Estimate) -> dict[str, Any]:
    def known(value: float) -> float | None:
        return round(value, 6) if math.isfinite(value) else None

    return {"mean": known(e.mean), "half_width": known(e.half), "seeds": e.n}


def _run(record: Record) -> dict[str, Any]:
    m = record.metadata
    command, devices = m.get("command", ""), m.get("devices", "unknown")
    return {
        "name": str(m.get("name", "run")),
        "command": " ".join(command) if isinstance(command, list) else str(command),
        "started": str(m.get("started", "unknown")),
        "finished": None if m.get("finished") is None else str(m["finished"]),
        "seconds": m.get("seconds"),
        "git_revision": str(m.get("git_revision") or "unknown"),
        "versions": {k: str(v) for k, v in m.get("versions", {}).items()},
        "devices": ", ".join(map(str, devices)) if isinstance(devices, list) else str(devices),
    }


def _who(record: Record) -> str:
    data, own = record.metadata.get("data", {}), record.metadata.get("own", {})
    if "world" in own:
        return f"Simulated people in {own['world']}. Values: {data.get('gold', 'not stated')}."
    source = data.get("source", data.get("ratings", "not stated"))
    if not valued(record.config):
        of = f", format {data['format']}" if "format" in data else ""
        named = data.get("annotators_named", 0)
        who = f"{named} named people" if named else "people whom the source does not name"
        return (
            f"Real people, not modelled: {who}. Source: {source}{of}. Licence: "
            f"{data.get('licence', 'not stated')}."
        )
    if record.config.get("world.name") != "words":
        return f"Simulated people, no real ones. Values: {source}."
    if record.config.get("world.gold") == "model":
        return (
            f"A reward model fitted to all the real ratings plays the person; its value of a "
            f"string is what they perceive. Ratings: {source}."
        )
    per_word = data.get("ratings_per_word", "several")
    return (
        f"Simulated people whose impression of a word is one of {per_word} ratings that real "
        f"people gave it, drawn anew for every answer. Source: {source}. The value of a "
        f"string that nobody rated is assumed to be "
        f"{setting(record.config.get('world.nonword_value', 'unknown'))}."
    )


def _shown(record: Record) -> str:
    c = record.config
    if not valued(c):
        data = record.metadata.get("data", {})
        count = lambda name: data.get(name, "an unknown number of")
        return (
            f"Two responses to a prompt; which is better, or a tie. {count('answers')} answers "
            f"about {count('responses')} responses to {count('prompts')} prompts, of which "
            f"{count('prompts_held_out')} were held out with the {count('answers_held_out')} "
            f"answers about them. {count('responses_cut')} responses and {count('prompts_cut')} "
            f"prompts were cut to the longest that the model reads."
        )
    kind = feedback.find(str(c.get("collect.feedback", "comparison")))
    said = "not stated" if kind is None else kind.asked
    said = record.metadata.get("own", {}).get("asked", said)
    what = f"Asked for: {said}. {c.get('collect.budget', 'An unknown number of')} samples were "
    what += "read or written by people in each round, for each seed"
    if c.get("collect.repeats", 1) > 1:
        what += f", each item by {c['collect.repeats']} of them"
    if c.get("collect.shuffled", False):
        what += ", and the answers then dealt anew over the items of a round"
    if c.get("collect.mode") == "offline":
        return f"{what}: {corpus(c)}; nothing the policy said."
    share = c.get("collect.corpus_share", 0)
    if share:
        return f"{what}: {share:.0%} {corpus(c)}, the rest the policy's of that round."
    return f"{what}: the policy's of that round."


def _quality(result: Result) -> dict[str, Any]:
    return {
        "setting": result.point.label,
        "accuracy": _estimate(result.accuracy),
        "ceiling_human": _estimate(result.ceiling_human),
        "ceiling_mean": _estimate(result.ceiling_mean),
    }


def _evaluation(record: Record, outcome: tuple[Result, ...]) -> dict[str, Any]:
    rows = []
    for result in outcome:
        for q in quantities(record):
            change = result.of(q.metric)
            row = {"setting": result.point.label, "round": result.round, "metric": q.metric}
            rows.append(row | {k: _estimate(e) for k, e in change._asdict().items()})
    gold = record.metadata.get("data", {}).get("gold", record.gold_unit)
    if not valued(record.config):
        gold = f"{gold}. Measured instead: the proxy on held-out prompts, KL, variety and length"
    fields = (".weights.", ".drift.", ".share.", ".served.")
    stated = {k: v for k, v in record.config.items() if any(f in f"{k}." for f in fields)}
    if stated:
        said = ", ".join(f"{k} = {setting(v)}" for k, v in stated.items())
        gold = f"{gold}; of the people who are served, by what they value and their share: {said}"
    return {
        "gold": str(gold),
        "interval": INTERVAL,
        "seeds": len(record.points[0].columns),
        "samples_per_seed": record.config.get("evaluate.samples"),
        "results": rows,
    }


def _reward(record: Record) -> str:
    """The equation of the reward, by what was passed in from Python where something was."""
    own = record.metadata.get("own", {})
    return str(own.get("score") or own.get("feedback") or equations.reward(record.config))


def disclose(record: Record, outcome: tuple[Result, ...], missing: list[str]) -> dict[str, Any]:
    """The disclosure as JSON-able data. Raises `ConfigError` where it departs from the schema."""
    name = str(record.config.get("learner", "ppo"))
    learner = learners.find(name)
    theta = f"{name if learner is None else learner.section}."
    data, own = record.metadata.get("data", {}), record.metadata.get("own", {})
    document = {
        "format": "rlhf_jax disclosure 1",
        "run": _run(record),
        "pretraining": {
            "base": str(record.metadata.get("base") or "not stated"),
            "settings": _section(record, "pretrain."),
            "data": {k: _plain(v) for k, v in data.items()},
        },
        "feedback": {
            "who": _who(record),
            "shown": _shown(record),
            "person": _section(record, "human.") if valued(record.config) else {},
            "groups": _section(record, "groups."),
            "quality": [_quality(r) for r in outcome],
        },
        "objective": {
            "reward": {
                "equation": _reward(record),
                "settings": _section(record, "reward."),
            },
            "policy": {
                "equation": own.get("penalty") or equations.policy(record.config),
                "settings": _section(record, theta),
            },
        },
        "evaluation": _evaluation(record, outcome),
        "shortcomings": [
            {"rule": f.rule, "setting": f.point, "statement": f.statement}
            for f in find(record, outcome)
        ],
        "rules": list(names()),
        "missing": list(missing),
    }
    for fault in schema.faults(document, schema.disclosure()):
        raise ConfigError(f"disclosure: {fault}")
    return document
