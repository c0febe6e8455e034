"""Marked spans as segments with numbers, for models that are fitted to them. NumPy only."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rlhf_jax.data import text
from rlhf_jax.data.relations import relation, run, tokens
from rlhf_jax.data.rows import Comparison, Row, RowError, Span, Spans

BREAK = re.compile(r"(?<=[.!?;:,])\s+")
PLACES = 6


class Answers(NamedTuple):
    """T segments of A answers to Q questions; P pairs of answers."""

    categories: list[str]
    """C, the most frequent first"""
    question: np.ndarray
    """[A] int"""
    owner: np.ndarray
    """[T] int, answer of a segment"""
    category: np.ndarray
    """[T] int32: 0 none, 1…C; −1 where nobody was asked"""
    place: np.ndarray
    """[T, PLACES] where a segment stands and how long it is"""
    said: np.ndarray
    """[T, K] numbers for its text, and for it beside question, passages and what came before"""
    whole: np.ndarray
    """[A, K] features of whole answers, the first the log of the length"""
    a: np.ndarray
    """[P] int, answer"""
    b: np.ndarray
    label: np.ndarray
    """[P] 1 a preferred, 0 b, ½ a tie"""
    spans: int
    """Marked spans"""
    lost: int
    """Those that mark no segment: a longer one does, or the segment is mostly outside"""


def segments(text: str, least: int = 5) -> list[tuple[int, int]]:
    """Characters [start, end) of the parts between punctuation, in order, without spaces around.

    A part of fewer than `least` words is joined to the one before it (the first to the one
    after it), as in the data of Wu et al. 2023 (arXiv 2306.01693).
    """
    ends = [m.start() for m in BREAK.finditer(text)] + [len(text.rstrip())]
    starts = [len(text) - len(text.lstrip())] + [m.end() for m in BREAK.finditer(text)]
    out: list[tuple[int, int]] = []
    for start, end in zip(starts, ends, strict=True):
        if end <= start:
            continue
        few = min(len(text[a:b].split()) for a, b in [(start, end), *out[-1:]]) < least
        if out and few:
            start = out.pop()[0]
        out.append((start, end))
    return out


def mark(parts: list[tuple[int, int]], spans: tuple[Span, ...]) -> list[int]:
    """Of each segment the index of the span that marks it, −1 for none."""
    out = []
    for start, end in parts:
        shared = [min(end, s.end) - max(start, s.start) for s in spans]
        enough = [
            o if o > 0 and 2 * o >= min(end - start, s.end - s.start) else 0
            for o, s in zip(shared, spans, strict=True)
        ]
        out.append(int(np.argmax(enough)) if any(enough) else -1)
    return out


def describe(
    answer: str, question: list[str], passages: list[list[str]]
) -> tuple[list[list[float]], list[np.ndarray]]:
    """Place [PLACES] and text [K] of each segment of an answer."""
    parts, where, said = segments(answer), [], []
    known = set().union(*passages) if passages else set()
    for i, (start, end) in enumerate(parts):
        piece, left = answer[start:end], len(parts) - 1 - i
        own, before = tokens(piece), tokens(answer[:start])
        nearest = max(passages, key=lambda p: len(set(own) & set(p)) / (9 + len(p)), default=[])
        found = [np.mean([t in known for t in own]) if own else 0.0]
        numbers = [t for t in own if t.isdigit()]
        found.append(sum(t not in known for t in numbers))
        where.append(
            [np.log1p(i), np.log1p(left), i == 0, left == 0, i / len(parts), np.log1p(len(piece))]
        )
        beside = [relation(own, other) for other in (question, nearest, before)]
        said.append(np.concatenate([text.surface(piece), *beside, run(own, nearest), found]))
    return where, said


def _said(rows: Sequence[Comparison]) -> tuple[dict[tuple[str, str], int], list[str]]:
    """Number of each answer by item and name, in order of appearance, and its text."""
    found: dict[tuple[str, str], int] = {}
    texts: list[str] = []
    for p in rows:
        for name, x in ((p.a_id, p.a), (p.b_id, p.b)):
            if (p.item, name) not in found:
                found[p.item, name] = len(texts)
                texts.append(x[0].content)
    return found, texts


def collect(rows: Sequence[Row]) -> Answers:
    """Rows of one file → arrays: all answers that are compared, with the marks of those that have.

    Passages are those of the field `passages` of a record, a title before the sentences of each.
    Raises `RowError` where there are no spans or no pairs.
    """
    asked = {r.item: r for r in rows if isinstance(r, Spans)}
    pairs = [r for r in rows if isinstance(r, Comparison)]
    if not asked or not pairs:
        raise RowError("there must be marked spans and compared answers")
    tally = Counter(s.category for r in asked.values() for s in r.spans)
    categories = [c for c, _ in tally.most_common()]
    questions = {name: i for i, name in enumerate(sorted({r.prompt for r in asked.values()}))}
    answers, texts = _said(pairs)
    places: list[list[float]] = []
    said: list[np.ndarray] = []
    owner: list[int] = []
    category: list[int] = []
    lost = 0
    for (item, name), index in answers.items():
        row, parts = asked[item], segments(texts[index])
        record = json.loads(row.extra)["record"]
        passages = [tokens(s) for p in record.get("passages", []) for s in p[1:]]
        placed, described = describe(texts[index], tokens(row.prompt[0].content), passages)
        places += placed
        said += described
        owner += [index] * len(parts)
        by = mark(parts, row.spans) if name == row.x_id else []
        lost += len(set(range(len(row.spans))) - set(by)) if name == row.x_id else 0
        marks = [0 if k < 0 else 1 + categories.index(row.spans[k].category) for k in by]
        category += marks if name == row.x_id else [-1] * len(parts)
    return Answers(
        categories=categories,
        question=np.array([questions[asked[item].prompt] for item, _ in answers]),
        owner=np.array(owner),
        category=np.array(category, np.int32),
        place=np.array(places, np.float32),
        said=np.stack(said).astype(np.float32),
        whole=np.stack([text.surface(t) for t in texts]).astype(np.float32),
        a=np.array([answers[p.item, p.a_id] for p in pairs]),
        b=np.array([answers[p.item, p.b_id] for p in pairs]),
        label=np.array([p.label for p in pairs], np.float32),
        spans=sum(tally.values()),
        lost=lost,
    )
