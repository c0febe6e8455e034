"""The atlas: all studies of a folder as small multiples, each linked to its page."""

from __future__ import annotations

import json
import re
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_jax.config import ConfigError
from rlhf_jax.report import elements
from rlhf_jax.report.drawing import Content, Panel
from rlhf_jax.report.wording import plural
from rlhf_jax.studies import tables

if TYPE_CHECKING:
    from rlhf_jax.studies.results import Results
    from rlhf_jax.studies.verdicts import Judged

SUMMARY = "summary.json"
STYLE = """
.panels article { min-width: 0; break-inside: avoid; }
.panels article h2 { font-size: 1.05rem; margin: 0; padding: .6rem 0 0; }
.panels article a { color: inherit; }
.panels article ul { list-style: none; padding: 0; font-size: .85rem; }
.panels figure h4 { font-weight: 500; color: var(--soft); font-size: .85rem; }
"""


def summary(results: Results, judged: Judged, drawn: Content) -> dict[str, Any]:
    """What the atlas shows of a study."""
    from rlhf_jax.studies.page import headline, subtitle

    study = results.study
    return {
        "name": study.name,
        "atlas": study.atlas,
        "title": study.title,
        "question": study.question,
        "size": subtitle(results),
        "headline": headline(judged),
        "verdicts": [(line.outcome, line.said) for line in tables.verdict_lines(judged)],
        "panel": drawn.panels[0]._asdict() if drawn.panels else None,
    }


def found(root: Path) -> list[dict[str, Any]]:
    """The summaries of all studies in a folder, in the atlas's order.

    Raises: `ConfigError` if one cannot be read.
    """
    out = []
    for path in root.glob(f"*/{SUMMARY}"):
        try:
            out.append(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as problem:
            raise ConfigError(f"{path} cannot be read: {problem}; remove it") from None
    return sorted(out, key=lambda s: (not s["atlas"], natural(s["atlas"]), natural(s["name"])))


def natural(text: str) -> list[tuple[int, int, str]]:
    """A key that sorts A2 before A10."""
    parts = re.findall(r"\d+|\D+", text)
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]


def write(root: Path) -> Path:
    """Writes index.html and index.md of the studies in a folder; returns the page."""
    summaries = found(root)
    (root / "index.html").write_text(html(summaries), encoding="utf-8")
    (root / "index.md").write_text(markdown(summaries), encoding="utf-8")
    return root / "index.html"


def html(summaries: list[dict[str, Any]]) -> str:
    body = (
        "<header><h1>Studies</h1>"
        + elements.paragraph(
            f"{plural(len(summaries), 'study').replace('studys', 'studies')}. Each shows its main "
            "figure, what was expected and what was found; the title leads to everything else. "
            "Bands and error bars are 95 % intervals over seeds, defined on each page.",
            "note",
        )
        + f'</header>\n<div class="panels">{"".join(map(_article, summaries))}</div>'
    )
    return elements.document("Studies", body, STYLE)


def _article(s: dict[str, Any]) -> str:
    figure = ""
    if s["panel"]:
        panel = dict(s["panel"])
        panel["key"] = tuple(tuple(pair) for pair in panel["key"])
        figure = elements.figure(Panel(**panel))
    said = "".join(
        f"<li>{tables.MARKS[outcome]} {escape(sentence)}</li>"
        for outcome, sentence in s["verdicts"]
    )
    return (
        f'<article><h2><a href="{escape(s["name"])}/study.html">{escape(s["title"])}</a></h2>'
        f"{elements.paragraph(s['size'], 'note')}{elements.paragraph(s['question'])}{figure}"
        f"<details><summary>{escape(s['headline'])}</summary><ul>{said}</ul></details></article>"
    )


def markdown(summaries: list[dict[str, Any]]) -> str:
    """A row a study, for the README."""
    rows = [
        [s["atlas"] or "–", f"[{s['title']}]({s['name']}/study.html)", s["size"], s["headline"]]
        for s in summaries
    ]
    return tables.markdown(tables.Table("", ["", "study", "size", "result"], rows))
