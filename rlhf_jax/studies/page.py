"""A study's page: one HTML file that needs nothing else, and the same as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from rlhf_jax.expectations import Expectation, claim
from rlhf_jax.report import elements
from rlhf_jax.report import tables as report_tables
from rlhf_jax.report.drawing import Content
from rlhf_jax.report.wording import plural, setting
from rlhf_jax.studies import figures, tables, treatment
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
    """`Of 4 expectations stated before their data, 2 primary: 2 supported (1 primary), ….`

    Those that were stated after their data are counted apart.
    """
    every: list[tuple[Expectation, str]] = [(v.expectation, v.outcome) for v in judged.verdicts]
    every += [(e, "not judged") for e in judged.unjudged]
    said = [_counted(when, every) for when in ("before", "after")]
    return " ".join(filter(None, said)) or "Nothing was expected."


def _counted(when: str, every: Sequence[tuple[Expectation, str]]) -> str:
    mine = [(e.primary, outcome) for e, outcome in every if e.stated == when]
    if not mine:
        return ""
    found = []
    for kind in (*tables.MARKS, "not judged"):
        n, first = sum(o == kind for _, o in mine), mine.count((True, kind))
        found += [f"{n} {kind}" + (f" ({first} primary)" if first else "")] if n else []
    return f"Of {plural(len(mine), 'expectation')} stated {when} the data: {', '.join(found)}."


def too_few(judged: Judged, study: Study) -> str:
    """Where so few seeds can settle nothing, that in words; else empty."""
    claims = max(1, sum(v.expectation.primary for v in judged.verdicts))
    if not judged.verdicts or study.seeds >= seeds_needed(claims):
        return ""
    together = f", and all {claims} primary ones {seeds_needed(claims)}" if claims > 1 else ""
    return (
        f"{plural(study.seeds, 'seed')} cannot settle that by the rule below, whatever they show: "
        f"a claim takes at least {seeds_needed(1)}{together}."
    )


def positive(judged: Judged, study: Study) -> str:
    """The positive control in words."""
    if judged.positive is None:
        return "Positive control: not judged, its arms, points or numbers are not there."
    line = tables.line(judged.positive)
    if line.outcome == "supported":
        return f"Positive control, found: {line.text}."
    if study.seeds < seeds_needed(1):
        return f"Positive control, not to be settled by so few seeds either: {line.text}."
    return (
        f"POSITIVE CONTROL NOT FOUND: {line.text}. What must be there is not seen, so that what is "
        "not found on this page may be there all the same."
    )


def negative(judged: Judged) -> str:
    """The negative control in words; empty where there is none."""
    c = judged.negative
    if c is None:
        return ""
    found = []
    if c.primary:
        claims = "the primary claim" if c.primary == 1 else f"any of {c.primary} primary claims"
        found.append(f"{claims} of an effect in {c.false} of {c.deals} deals")
    if c.exploratory:
        found.append(f"an exploratory one in {c.false_each} of {c.deals * c.exploratory} cases")
    return (
        f"Negative control: with each seed's numbers dealt anew over arms and points, the same "
        f"rule supported {' and '.join(found)} (expected: at most 2.5 %). Dealing gives all arms "
        "one shape; scripts/false_claims.py simulates arms of different shape."
    )


def unjudged(judged: Judged, study: Study) -> list[str]:
    return [
        f"Not judged, its arms, points or numbers are not there: {claim(e, study.axis_name)}."
        for e in judged.unjudged
    ]


def result_tables(results: Results, analysis: Analysis) -> list[Table]:
    beside = tables.compared(results)
    failed = tables.failures(results)
    first = [failed] if failed else []
    return [*first, *analysis.tables, *tables.measured(results), *([beside] if beside else [])]


RULE = (
    "A verdict is about one number a seed, and two tests must agree: Student's t of the mean, and "
    "the sign test, which asks whether a claim holds in more than half of all seeds and is right "
    "for seeds of any distribution. Supported: the data would be this favourable with probability "
    "≤ 2.5 % were the claim false, by both tests; not supported: this unfavourable with "
    "probability ≤ 2.5 % were it true; inconclusive otherwise. No p is below 2⁻ⁿ, that of n seeds "
    "which all agree. Primary claims are adjusted together (Holm). All others are exploratory: "
    "their p is as if each had been asked alone, and so are all intervals. Claims stated after "
    "their data fit them by making: other seeds confirm them (--fresh)."
)
OPEN = (
    "Seeds that would settle an open claim in three of four studies, were the measured effect Δ "
    "and deviation s the true ones: n = ½π ((z₁₋ₐ + z₀.₈) s / |Δ − by|)², a = 2.5 % over the "
    "number of primary claims. If the true effect is exactly the margin, no number of seeds would."
)


def _verdicts(judged: Judged, study: Study) -> str:
    items = "".join(
        f'<li class="{line.outcome.replace(" ", "-")}">'
        f"<b>{tables.MARKS[line.outcome]} {line.outcome} · {line.kind}</b>{escape(line.text)}"
        + (f"<small> Expected by: {escape(line.source)}</small>" if line.source else "")
        + "</li>"
        for line in tables.verdict_lines(judged)
    )
    listed = f'<ul class="verdicts">{items}</ul>' if items else ""
    notes = [*unjudged(judged, study), *_notes(judged, study)]
    return elements.section("Verdicts", listed, *(elements.paragraph(n, "note") for n in notes))


def _notes(judged: Judged, study: Study) -> list[str]:
    """Controls and rules, where something was expected."""
    if not study.expectations:
        return []
    rules = [RULE] if judged.verdicts else []
    rules += [OPEN] if any(v.outcome == "inconclusive" for v in judged.verdicts) else []
    return [
        *filter(None, (too_few(judged, study), positive(judged, study), negative(judged))),
        *rules,
    ]


def unequal(results: Results) -> list[str]:
    """In what the arms differ besides what they name, a sentence a quantity."""
    if len(results.arms) < 2 or results.study.reference not in results.arms:
        return []
    found = treatment.sentences(results.treated, results.study.reference)
    return found or [
        f"Of what was measured all arms had the same, to within {treatment.MARGIN:.0%}."
    ]


def _treatment(results: Results) -> str:
    said = unequal(results)
    if not said:
        return ""
    return elements.section(
        "Were the arms treated alike?",
        elements.paragraph(treatment.RULE, "note"),
        *(elements.paragraph(line) for line in said),
        tables.html(tables.treatment(results), "settings"),
    )


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
                elements.paragraph(
                    f"Value [95 % interval], as in the figures. {tables.FAR_OUT}", "note"
                ),
                *map(tables.html, result_tables(results, said.analysis)),
            ),
            elements.section("Compared with", elements.paragraph(study.compare_with))
            if study.compare_with
            else "",
            _treatment(results),
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
    for line in tables.verdict_lines(said.judged):
        source = f" (expected by: {line.source})" if line.source else ""
        lines.append(f"* **{line.outcome}**: {line.said}{source}")
    lines += [f"* {line}" for line in unjudged(said.judged, study)]
    lines += ["", method(study.seeds), "", *(f"{n}\n" for n in said.analysis.notes)]
    lines += [tables.markdown(t) for t in result_tables(results, said.analysis)]
    lines += [f"{note}\n" for note in (tables.FAR_OUT, *_notes(said.judged, study))]
    apart = unequal(results)
    lines += [f"Arms besides what they name: {' '.join(apart)}", ""] if apart else []
    lines += [f"Compared with: {study.compare_with}", ""] if study.compare_with else []
    lines += [tables.markdown(tables.setting_table(study))]
    lines += [f"Cost: {' '.join(sentences(said.bill))}", "", f"    {command}", ""]
    return "\n".join(lines)
