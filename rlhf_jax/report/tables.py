"""Results, samples and settings as tables: HTML for the page, rich for the terminal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf_jax.report.intervals import Estimate
from rlhf_jax.report.records import Point, Record, Sample
from rlhf_jax.report.results import GREEDY, KL, NONWORDS, Result, aim, quantities
from rlhf_jax.report.wording import NBSP, PM, interval, number, setting, valued

if TYPE_CHECKING:
    from rich.table import Table

WIDE = (
    "gold before", "gold after", "change", "greedy after", "KL (nats)", "RM accuracy",
    "another person", "non-words",
)  # fmt: skip
NARROW = ("gold\nbefore", "gold\nafter", "change", "", "KL", "RM\nacc.", "people", "non-\nwords")
"""Headings of a table with one row for each grid point"""
SHOWN = 24
"""Rows of a table of samples."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], kind: str) -> str:
    """Cells are HTML already; the first of each row is its heading."""
    top = "".join(f'<th scope="col">{h}</th>' for h in head)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>' + "".join(f"<td>{c}</td>" for c in row[1:]) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _breakable(text: str) -> str:
    """An interval that a narrow screen may break before its ±."""
    mean, pm, half = escape(text).partition(PM)
    return f"{mean} <span>±{NBSP}{half}</span>" if pm else mean


def _one_setting(record: Record, result: Result) -> list[tuple[str, ...]]:
    """(quantity, unit, before, after, change), plain text."""
    rows: list[tuple[str, ...]] = []
    for q in quantities(record):
        e = result.of(q.metric)
        rows.append(
            (
                q.name,
                q.unit,
                interval(e.before, share=q.share),
                interval(e.after, share=q.share),
                interval(e.change, share=q.share, sign=True),
            )
        )
    return rows


def _agreement(record: Record, result: Result) -> list[tuple[str, str]]:
    """What the reward model reaches on held-out answers, and what people reach."""
    named = (
        ("Reward model", result.accuracy, interval(result.accuracy, share=True)),
        (
            "Another person",
            result.ceiling_human,
            number(result.ceiling_human.mean, share=True),
        ),
        (
            "Mean of the others" if valued(record.config) else "Most of the others",
            result.ceiling_mean,
            number(result.ceiling_mean.mean, share=True),
        ),
    )
    return [(name, text) for name, e, text in named if e.n]


def _by_setting(
    record: Record, outcome: Sequence[Result], *, narrow: bool
) -> tuple[list[str], list[list[str]]]:
    """One row for each grid point; `narrow` keeps two intervals: of gold after and its change."""

    def other(e: Estimate, share: bool = False) -> str:
        return number(e.mean, share=share) if narrow else interval(e, share=share)

    metric, name = aim(record)
    head = ["", *NARROW] if narrow else [axes(record), *WIDE]
    head = [h.replace("gold", name) for h in head]
    rows = []
    for r in outcome:
        gold = r.of(metric)
        cells = [
            ", ".join(setting(v) for v in r.point.setting.values()),
            other(gold.before),
            interval(gold.after),
            interval(gold.change, sign=True),
            "–" if narrow else interval(r.of(GREEDY).after),
            other(r.of(KL).after),
            other(r.accuracy, True),
            number(r.ceiling_human.mean, share=True),
            other(r.of(NONWORDS).after, True),
        ]
        rows.append(cells)
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] != "–" for row in rows)]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in rows]


def axes(record: Record) -> str:
    """The swept settings, `ppo.kl_weight, human.lapse`."""
    return ", ".join(record.points[0].setting)


def results_html(record: Record, outcome: Sequence[Result]) -> str:
    if record.swept:
        head, rows = _by_setting(record, outcome, narrow=False)
        cells = ([_breakable(c) for c in row] for row in rows)
        return table([escape(h) for h in head], cells, "numbers dense")
    rows_ = (
        [f"{escape(name)}<small>{escape(unit)}</small>", *map(_breakable, rest)]
        for name, unit, *rest in _one_setting(record, outcome[0])
    )
    out = table(["", "before", "after", "change"], rows_, "numbers")
    agreement = _agreement(record, outcome[0])
    if agreement:
        pairs = ([escape(name), _breakable(value)] for name, value in agreement)
        out += table(
            ["One person's answer about two held-out texts is predicted by", "share"],
            pairs,
            "numbers",
        )
    return out


def terminal(record: Record, outcome: Sequence[Result]) -> Table:
    """The same numbers for the end of a run, within 80 columns."""
    from rich import box
    from rich.table import Table

    n = len(record.points[0].columns)
    what = f"mean ± 95 % CI over {n} seeds" if n > 1 else "one seed, no interval"
    by = f" by {axes(record)}" if record.swept else ""
    gold = f"gold: {record.gold_unit}" if valued(record.config) else "no gold is known"
    gone = f"; {len(record.gone)} of {record.members} members diverged" if record.gone else ""
    out = Table(
        title=f"{record.metadata.get('name', 'run')}{by}: {what}",
        caption=f"{gold}; proxy: deviations of the reference; KL: nats{gone}",
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )
    if record.swept:
        head, rows = _by_setting(record, outcome, narrow=True)
        rows = [[row[0], *(c.replace(NBSP, "") for c in row[1:])] for row in rows]
    else:
        head = ["", "before", "after", "change"]
        rows = [[name, *rest] for name, _, *rest in _one_setting(record, outcome[0])]
        rows += [
            [f"{name}, accuracy", "", value, ""] for name, value in _agreement(record, outcome[0])
        ]
    for i, name in enumerate(head):
        out.add_column(name, justify="left" if i == 0 else "right", no_wrap=i > 0)
    for row in rows:
        out.add_row(*row)
    return out


def _sample_rows(samples: Sequence[Sample], gold: bool) -> list[list[str]]:
    """Equal texts once with their count; most frequent first, then in the order drawn.

    Without `gold` that column is left out.
    """
    count = Counter(s.text for s in samples)
    by_text: dict[str, list[Sample]] = defaultdict(list)
    for s in samples:
        by_text[s.text].append(s)
    rows = []
    for text, times in count.most_common(SHOWN):
        same = by_text[text]
        word = escape(text) if text else "<small>(empty)</small>"
        shown = word if same[0].rated else f"<i>{word}</i> <small>non-word</small>"
        if any(s.prompt for s in same):
            shown += f" <small>to: {escape(same[0].prompt)}</small>"
        rewards = [s.reward for s in same if np.isfinite(s.reward)]
        reward = float(np.mean(rewards)) if rewards else float("nan")
        row = [shown, f"×{times}" if times > 1 else "", number(reward)]
        rows.append([*row, number(same[0].gold)] if gold else row)
    return rows


def _said(samples: Sequence[Sample], title: str, gold: bool) -> str:
    distinct = len({s.text for s in samples})
    more = f", {SHOWN} shown" if distinct > SHOWN else ""
    caption = f"<h4>{title}</h4><p class=note>{len(samples)} samples, {distinct} distinct{more}</p>"
    if not samples:
        return f"<div><h4>{title}</h4><p class=note>none recorded</p></div>"
    head = ["response", "", "reward", *(["gold"] if gold else [])]
    return f"<div>{caption}{table(head, _sample_rows(samples, gold), 'samples')}</div>"


def samples_html(record: Record, point: Point, decoding: str) -> str:
    """What the seeds of one grid point say before and after, pooled; empty without samples."""
    mine = [s for s in record.samples if s.member in point.columns and s.decoding == decoding]
    if not mine:
        return ""
    before = [s for s in mine if s.when == "before"]
    after = [s for s in mine if s.when == "after"]
    last = max((s.round for s in after), default=0)
    after = [s for s in after if s.round == last]
    gold = valued(record.config)
    return (
        f"<h3>{decoding.capitalize()}</h3>"
        f'<div class="pair">{_said(before, "before", gold)}{_said(after, "after", gold)}</div>'
    )


def settings_html(config: dict[str, Any]) -> str:
    rows = ([escape(k), escape(setting(v))] for k, v in config.items())
    return table(["setting", "value"], rows, "settings")
