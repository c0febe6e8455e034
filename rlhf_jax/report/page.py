"""The page: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from rlhf_jax.report import curves, figures, tables
from rlhf_jax.report.disclosed import disclosed, shortcomings
from rlhf_jax.report.disclosure import INTERVAL
from rlhf_jax.report.drawing import Content
from rlhf_jax.report.elements import absent, panels, paragraph, section
from rlhf_jax.report.elements import document as page
from rlhf_jax.report.records import Record
from rlhf_jax.report.results import KL, NONWORDS, Result, aim
from rlhf_jax.report.wording import duration, interval, number, plural, rated, span, valued


def sentence(record: Record, outcome: Sequence[Result]) -> str:
    """The run in one sentence, from its numbers."""
    metric, name = aim(record)
    if not any(r.of(metric).change.n for r in outcome):
        why = "it was stopped early"
        if len(record.gone) == record.members:
            why = "every member diverged"
        return f"The run has no evaluation of {name} before and after: {why}."
    if record.swept:
        ranked = sorted(outcome, key=lambda r: r.of(metric).change.mean)
        low, high = ranked[0], ranked[-1]
        n = plural(len(record.points[0].columns), "seed")
        return (
            f"Over {len(outcome)} settings × {n}, the change in {name} ranges from "
            f"{interval(low.of(metric).change, sign=True)} ({low.point.label}) to "
            f"{interval(high.of(metric).change, sign=True)} ({high.point.label})."
        )
    r = outcome[0]
    gold = r.of(metric)
    over = "With one seed" if gold.change.n == 1 else f"Over {gold.change.n} seeds"
    parts = [
        f"{over}, {name} went from {number(gold.before.mean)} to "
        f"{number(gold.after.mean)} (change {number(gold.change.mean, sign=True)}"
        + (f", 95 % interval {span(gold.change)})" if gold.change.n > 1 else ")")
    ]
    if r.of(KL).after.n:
        parts[0] += f" at a KL of {number(r.of(KL).after.mean)} nats from the reference"
    if r.accuracy.n:
        people = f" (another person: {number(r.ceiling_human.mean, share=True)})"
        parts.append(
            f"the reward model agrees with held-out human answers in "
            f"{number(r.accuracy.mean, share=True)}{people if r.ceiling_human.n else ''}"
        )
    if r.of(NONWORDS).after.n:
        share = number(r.of(NONWORDS).after.mean, share=True)
        parts.append(f"{share} of the samples are strings that nobody rated")
    if not valued(record.config):
        parts.append("nobody knows what the responses are worth: only the proxy was measured")
    return "; ".join(parts) + "."


def _about_means(record: Record) -> str:
    n = len(record.points[0].columns)
    if n == 1:
        return "One seed: lines are its values, and there are no intervals."
    bands = "shaded bands and error bars" if figures.banded(record) else "error bars"
    return (
        f"Lines and points are means over n = {n} seeds"
        f"{' of each setting' if record.swept else ''}; {bands} are 95 % Student t intervals of "
        f"that mean (t with n − 1 degrees of freedom, times s/√n)."
    )


def _results(record: Record, outcome: Sequence[Result], swept: Content) -> str:
    n = len(record.points[0].columns)
    last, planned = outcome[0].round, record.config.get("rounds", "?")
    about = f"After: {plural(last, 'round')} of PPO of {planned} planned. "
    if n > 1:
        about += (
            f"Mean ± half-width of the {INTERVAL}, n = {n}. A change pairs each seed with itself. "
        )
        about += "The proxy has mean 0 and deviation 1 on the reference policy by construction"
        about += "." if valued(record.config) else ", over prompts that are not held out."
    else:
        about += "One seed, so no interval."
    return section(
        "Results", tables.results_html(record, outcome), paragraph(about, "note"), panels(swept)
    )


def _distance(record: Record, content: Content) -> str:
    about = (
        f"How far optimisation went against what it brought. {_about_means(record)} Each seed's "
        f"PPO iterations are sorted into {figures.BINS} equal bins of √KL (exact KL, summed over "
        f"the response) and averaged within a bin, then over seeds; a bin is drawn, at its "
        f"middle, where at least half of the seeds reached it. Lines join the bins."
    )
    title = "Gold and proxy" if valued(record.config) else "Proxy"
    return section(title, paragraph(about, "note") if content.panels else "", panels(content))


def _curves(record: Record, drawn: Drawn) -> str:
    rules = " Dotted rules: a new round begins." if record.config.get("rounds", 1) > 1 else ""
    parts = [paragraph(f"Means and bands as above.{rules}", "note")]
    for title, content in (
        ("Pretraining", drawn.pretraining),
        ("Fitting the reward", drawn.reward),
        ("Policy", drawn.policy),
    ):
        parts += [f"<h3>{title}</h3>", panels(content)]
    return section("Learning curves", *parts)


def _samples(record: Record) -> str:
    about = (
        "Responses of all seeds pooled: equal ones once with their count, the most frequent "
        "first, then in the order drawn. Reward is the mean over seeds, whose reward models "
        "differ."
    )
    about += " Italics: strings that nobody rated." if rated(record.config) else ""
    parts = []
    for i, point in enumerate(record.points):
        inside = "".join(tables.samples_html(record, point, d) for d in ("sampled", "greedy"))
        if inside and record.swept:
            opened = " open" if i == 0 else ""
            inside = f"<details{opened}><summary>{escape(point.label)}</summary>{inside}</details>"
        parts.append(inside)
    if not any(parts):
        return section("What the policy says", absent(["The run recorded no samples."]))
    return section("What the policy says", paragraph(about, "note"), *parts)


def _provenance(record: Record, document: dict[str, Any]) -> str:
    run = document["run"]
    took = duration(run["seconds"]) if run["seconds"] is not None else "unknown"
    versions = ", ".join(f"{k} {v}" for k, v in run["versions"].items())
    rows = [
        ["command", f"<code>{escape(run['command'])}</code>"],
        ["started", escape(run["started"])],
        ["finished", escape(run["finished"] or "not finished")],
        ["duration", escape(took)],
        ["git revision", f"<code>{escape(run['git_revision'])}</code>"],
        ["devices", escape(run["devices"])],
        ["versions", escape(versions)],
    ]
    provenance = tables.table(["", ""], rows, "settings")
    return section(
        "How it was run",
        provenance,
        f"<details><summary>All {len(record.config)} settings</summary>"
        f"{tables.settings_html(record.config)}</details>",
    )


class Drawn(NamedTuple):
    """Every figure of the page."""

    optimisation: Content
    judge: Content
    pretraining: Content
    reward: Content
    policy: Content
    sweep: Content

    @property
    def missing(self) -> list[str]:
        return [line for content in self for line in content.missing]


def draw(record: Record, outcome: tuple[Result, ...]) -> Drawn:
    return Drawn(
        figures.optimisation(record),
        figures.judge(record),
        curves.curves(record, curves.PRETRAIN),
        curves.curves(record, curves.REWARD),
        curves.curves(record, curves.policy(record)),
        figures.sweep(record, outcome),
    )


def html(
    record: Record, outcome: tuple[Result, ...], document: dict[str, Any], drawn: Drawn
) -> str:
    """The whole page."""
    run = document["run"]
    members = plural(len(record.points[0].columns), "seed")
    if record.swept:
        members = f"{len(record.points)} settings × {members}"
    took = f" · {duration(run['seconds'])}" if run["seconds"] is not None else ""
    body = "\n".join(
        (
            f"<header><h1>{escape(run['name'])}</h1>",
            paragraph(f"One RLHF run · {members}{took} · {run['started']}", "note"),
            paragraph(sentence(record, outcome), "lead"),
            absent(record.notes) + "</header>",
            _results(record, outcome, drawn.sweep),
            section("What failed or fell short", shortcomings(document, len(outcome))),
            _distance(record, drawn.optimisation),
            section("Reward model", panels(drawn.judge)),
            _curves(record, drawn),
            _samples(record),
            section("Disclosure", disclosed(document)),
            _provenance(record, document),
        )
    )
    return page(run["name"], body)
