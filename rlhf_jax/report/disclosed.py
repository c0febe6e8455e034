"""The disclosure as people read it."""

from __future__ import annotations

from html import escape
from typing import Any

from rlhf_jax.report.disclosure import INTERVAL
from rlhf_jax.report.wording import number, plural, setting


def _facts(values: dict[str, Any]) -> str:
    return "; ".join(f"{k} = {setting(v)}" for k, v in values.items())


def _quality(q: dict[str, Any], modelled: bool) -> str:
    def per_cent(name: str) -> str:
        mean = q[name]["mean"]
        return number(float("nan") if mean is None else mean, share=True)

    where = f"{q['setting']}: on" if q["setting"] else "On"
    if not q["ceiling_human"]["seeds"]:
        return (
            f"{where} pairs of held-out texts, which of the two one person prefers is predicted by "
            f"the reward model in {per_cent('accuracy')}. How well another person would predict it "
            "was not measured."
        )
    if not modelled:
        return (
            f"{where} pairs of held-out texts, which of the two one person prefers is predicted by "
            f"the reward model in {per_cent('accuracy')}, by how another person who judged the "
            f"same pair answered in {per_cent('ceiling_human')}, by the side that most of the "
            f"others took in {per_cent('ceiling_mean')}."
        )
    return (
        f"{where} pairs of held-out texts, which of the two one person values more is predicted by "
        f"the reward model in {per_cent('accuracy')}, by how another of these people answers in "
        f"{per_cent('ceiling_human')}, by how one of them would who had the mean impression of "
        f"the others in {per_cent('ceiling_mean')}."
    )


def _said(rule: str, found: list[dict[str, str]], settings: int) -> str:
    """One rule: its statement, or how many settings it spoke of with the statements inside."""
    if settings == 1 or not found[0]["setting"]:
        return "".join(f"<li>{escape(f['statement'])}</li>" for f in found)
    each = "".join(f"<li>{escape(f['setting'])}: {escape(f['statement'])}</li>" for f in found)
    return (
        f"<li><details><summary>{escape(rule.replace('_', ' '))}: in {len(found)} of {settings} "
        f"settings</summary><ul>{each}</ul></details></li>"
    )


def shortcomings(document: dict[str, Any], settings: int) -> str:
    """HTML of what the rules found in a run of so many settings."""
    by_rule: dict[str, list[dict[str, str]]] = {}
    for finding in document["shortcomings"]:
        by_rule.setdefault(finding["rule"], []).append(finding)
    found = "".join(_said(rule, findings, settings) for rule, findings in by_rule.items())
    found = found or "<li>No rule found anything. They see only what is measured.</li>"
    rules = ", ".join(r.replace("_", " ") for r in document["rules"])
    return (
        f'<ul>{found}</ul><p class="note">Found in the numbers by rules that are the same for '
        f"every run: {escape(rules)}.</p>"
    )


def disclosed(document: dict[str, Any]) -> str:
    """HTML of the other parts of a `disclosure.json`."""
    pretraining, feedback = document["pretraining"], document["feedback"]
    reward, policy = document["objective"]["reward"], document["objective"]["policy"]
    evaluation = document["evaluation"]
    samples = evaluation["samples_per_seed"] or "an unknown number of"
    entries: tuple[tuple[str, list[str], dict[str, Any]], ...] = (
        (
            "Pretrained on",
            [pretraining["base"][:1].upper() + pretraining["base"][1:]],
            pretraining["data"],
        ),
        (
            "Who gave feedback",
            [feedback["who"], feedback["shown"]],
            feedback["person"] | feedback["groups"],
        ),
        (
            "How its quality was checked",
            [_quality(q, bool(feedback["person"])) for q in feedback["quality"]],
            {},
        ),
        ("Objective of the reward model", [reward["equation"]], reward["settings"]),
        ("Objective of the policy", [policy["equation"]], policy["settings"]),
        (
            "What was evaluated",
            [
                f"Gold: {evaluation['gold']}.",
                f"{plural(evaluation['seeds'], 'seed')}, {samples} samples each, before and "
                f"after; {INTERVAL}.",
            ],
            {},
        ),
    )
    terms = "".join(
        f"<dt>{escape(term)}</dt>"
        + "".join(f"<dd>{escape(text)}</dd>" for text in texts)
        + (f'<dd class="note">{escape(_facts(facts))}</dd>' if facts else "")
        for term, texts, facts in entries
    )
    return f"<dl>{terms}</dl>"
