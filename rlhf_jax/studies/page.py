"""A study's page: one HTML file that needs nothing else, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from rlhf_jax.expectations import claim
from rlhf_jax.report import elements
from rlhf_jax.report import tables as report_tables
from rlhf_jax.report.drawing import Content
from rlhf_jax.report.wording import plural, setting
from rlhf_jax.studies import figures, tables
from rlhf_jax.studies.costs import sentences
from rlhf_jax.studies.results import Analysis, Results, Table
from rlhf_jax.studies.verdicts import Judged, method
from rlhf_jax.study import Study
from rlhf_jax.verdict import seeds_needed

if TYPE_CHECKING:
    from rlhf_jax.studies.answers import Answer

STYLE = """
.verdicts { list-style: none; padding: 0; }
.verdicts li { margin: .7rem 0; padding-left: .8rem; border-left: 4px solid var(--rule); }
.verdicts b { display: block; font-size: .9rem; }
.supported { border-color: #2c7a4b !important; }
.not-supported { border-color: #a3324f !important; }
.dense span { white-space: nowrap; }
@media (max-width: 30rem) { .dense td { white-space: normal !important; } }
"""


def draw(results: Results, analysis: Analysis) -> Content:
    """The study's own figures first, then its metrics over the axis."""
    return Content([*analysis.panels, *figures.panels(results)], [])


def headline(judged: Judged) -> str:
    """`Of 4 expectations: 2 supported, 1 inconclusive, 1 not judged.`"""
    n = len(judged.verdicts) + len(judged.unjudged)
    if not n:
        return "Nothing was expected."
    count = {k: sum(v.outcome == k for v in judged.verdicts) for k in tables.MARKS}
    count["not judged"] = len(judged.unjudged)
    said = [f"{c} {k}" for k, c in count.items() if c]
    return f"Of {plural(n, 'expectation')}: {', '.join(said)}."


def too_few(judged: Judged, study: Study) -> str:
    """Where so few seeds can settle nothing, that in words; else empty."""
    claims = len(judged.verdicts)
    if not claims or study.seeds >= seeds_needed(claims):
        return ""
    return (
        f"{plural(study.seeds, 'seed')} cannot settle {plural(claims, 'claim')} by the rule below, "
        f"whatever they show: that takes at least {seeds_needed(claims)}."
    )


def control(judged: Judged) -> str:
    """The negative control in words; empty where there is none."""
    c = judged.control
    if c is None:
        return ""
    return (
        f"Negative control: with each seed's numbers dealt anew over arms and points, the same "
        f"rule supported any of the {plural(c.claims, 'claim')} of an effect in {c.false} of "
        f"{c.deals} deals (expected: at most 2.5 %)."
    )


def unjudged(judged: Judged, study: Study) -> list[str]:
    return [
        f"Not judged, its arms, points or numbers are not there: {claim(e, study.axis_name)}."
        for e in judged.unjudged
    ]


def result_tables(results: Results, analysis: Analysis) -> list[Table]:
    beside = tables.compared(results)
    return [*analysis.tables, *tables.measured(results), *([beside] if beside else [])]


RULE = (
    "A verdict is Student's t on one number a seed: supported where the data would be this "
    "favourable with probability ≤ 2.5 % were the claim false, not supported where they would be "
    "this unfavourable with probability ≤ 2.5 % were it true, inconclusive otherwise; all claims "
    "of the study are adjusted together (Holm)."
)


def _verdicts(judged: Judged, study: Study) -> str:
    items = "".join(
        f'<li class="{outcome.replace(" ", "-")}"><b>{tables.MARKS[outcome]} {outcome}</b>'
        f"{escape(text)}{f'<small> Expected by: {escape(source)}</small>' if source else ''}</li>"
        for outcome, text, source in tables.verdict_lines(judged)
    )
    listed = f'<ul class="verdicts">{items}</ul>' if items else ""
    notes = [*unjudged(judged, study), *filter(None, (too_few(judged, study), control(judged)))]
    notes += [RULE] if items else []
    return elements.section("Verdicts", listed, *(elements.paragraph(n, "note") for n in notes))


def _settings(study: Study, results: Results) -> str:
    shared = tables.common(study)
    rows = [[escape(k), escape(setting(v))] for k, v in shared.items()]
    every = (
        f"<details><summary>{plural(len(rows), 'setting')} of all arms that "
        f"{'is' if len(rows) == 1 else 'are'} not the default</summary>"
        f"{report_tables.table(['setting', 'value'], rows, 'settings')}</details>"
    )
    varied = tables.setting_table(study)
    missing = [a for a in study.arms if a not in results.arms]
    left = elements.absent([f"Arm {a} is not finished." for a in missing])
    return elements.section("Setting", tables.html(varied, "settings"), every, left)


def _provenance(results: Results, bill: Sequence[str], command: str) -> str:
    rows = [
        ["command", f"<code>{escape(command)}</code>"],
        ["cost", escape(" ".join(bill))],
        ["git revision", f"<code>{escape(results.revision)}</code>"],
        ["devices", escape(results.devices)],
        ["versions", escape(", ".join(f"{k} {v}" for k, v in results.versions.items()))],
    ]
    return elements.section("How it was run", report_tables.table(["", ""], rows, "settings"))


def subtitle(results: Results) -> str:
    """`A3 · 2 arms × 5 points × 16 seeds`"""
    study = results.study
    factors = [plural(len(results.arms), "arm")]
    factors += [plural(len(study.axis.points), "point")] if study.axis else []
    factors += [plural(study.seeds, "seed")]
    return " · ".join([*([study.atlas] if study.atlas else []), " × ".join(factors)])


def html(said: Answer, drawn: Content, command: str) -> str:
    """The whole page."""
    results, study = said.results, said.results.study
    bill = sentences(said.bill)
    body = "\n".join(
        (
            f"<header><h1>{escape(study.title)}</h1>",
            elements.paragraph(subtitle(results), "note"),
            elements.paragraph(study.question, "lead"),
            elements.paragraph(headline(said.judged)) + "</header>",
            _verdicts(said.judged, study),
            elements.section(
                "Figures",
                elements.paragraph(method(study.seeds), "note"),
                elements.panels(drawn),
                *(elements.paragraph(note) for note in said.analysis.notes),
            ),
            elements.section(
                "Numbers",
                elements.paragraph("Value [95 % interval], as in the figures.", "note"),
                *map(tables.html, result_tables(results, said.analysis)),
            ),
            elements.section("Compared with", elements.paragraph(study.compare_with))
            if study.compare_with
            else "",
            _settings(study, results),
            _provenance(results, bill, command),
        )
    )
    return elements.document(study.title, body, STYLE)


def markdown(said: Answer, command: str) -> str:
    """The same without figures."""
    results, study = said.results, said.results.study
    lines = [f"# {study.title}", "", study.question, "", f"*{subtitle(results)}*", ""]
    lines += [headline(said.judged), ""]
    for outcome, text, source in tables.verdict_lines(said.judged):
        lines.append(f"* **{outcome}**: {text}" + (f" (expected by: {source})" if source else ""))
    lines += [f"* {line}" for line in unjudged(said.judged, study)]
    lines += ["", method(study.seeds), "", *(f"{n}\n" for n in said.analysis.notes)]
    lines += [tables.markdown(t) for t in result_tables(results, said.analysis)]
    for note in filter(None, (too_few(said.judged, study), control(said.judged))):
        lines += [note, ""]
    lines += [f"Compared with: {study.compare_with}", ""] if study.compare_with else []
    lines += [tables.markdown(tables.setting_table(study))]
    lines += [f"Cost: {' '.join(sentences(said.bill))}", "", f"    {command}", ""]
    return "\n".join(lines)
