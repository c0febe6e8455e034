"""OpenAI's summarise-from-feedback (Stiennon et al. 2020, arXiv 2009.01325).

Comparisons of two summaries, and ratings of one by axis (overall, accuracy, coverage,
coherence). The prompt is the post (or article); id, title and subreddit stay in `extra`.
`choice` is 0 or 1: there are no ties. `worker` is a person, `extra.confidence` a 1–9 scale, kept
as it is.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

from rlhf_jax.data.checks import expect, only, pop, same
from rlhf_jax.data.formats.base import Format, Options, common
from rlhf_jax.data.rows import Comparison, Rating, Row, Text, dump, extra_of, plain, text

BODIES = ("post", "article")


def _info(rest: dict[str, Any]) -> tuple[Text, str, dict[str, Any], str]:
    """(prompt, id, what else is known of the post, the field that has it)"""
    info = dict(pop(rest, "info", dict))
    body = next((k for k in BODIES if info.get(k) is not None), "post")
    post = text(pop(info, body, str))
    return post, pop(info, "id", str, default=""), info, body


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    post, name, info, body = _info(rest)
    pair = pop(rest, "summaries", list)
    only(len(pair) == 2, f"field 'summaries' has {len(pair)} entries, expected 2")
    summaries = [dict(expect(s, f"field 'summaries'[{i}]", dict)) for i, s in enumerate(pair)]
    choice = pop(rest, "choice", int)
    only(choice in (0, 1), f"field 'choice' = {choice}, expected 0 or 1")
    more = dict(pop(rest, "extra", dict, NoneType, default=None) or {})
    confidence = pop(more, "confidence", int, float, NoneType, default=None)
    a, b = (text(pop(s, "text", str)) for s in summaries)
    a_id, b_id = (pop(s, "policy", str, NoneType, default=None) or "" for s in summaries)
    row = Comparison(
        prompt=post,
        item=name,
        group=pop(rest, "batch", str, default=""),
        source="summarize",
        annotator=pop(rest, "worker", str, default=""),
        confidence=None if confidence is None else float(confidence),
        a=a,
        b=b,
        a_id=a_id,
        b_id=b_id,
        label=1.0 - choice,
        extra=dump(
            {"info": info, "summaries": summaries, "extra": more, "record": rest, "body": body}
        ),
    )
    return [row]


def _told(row: Row, kept: dict[str, Any]) -> dict[str, Any]:
    post = {kept.get("body", "post"): plain(row.prompt, "prompt")}
    named: dict[str, Any] = {"id": row.item} if row.item else {}
    return named | post | kept.get("info", {})


def write(rows: list[Row], options: Options) -> dict[str, Any]:
    row = rows[0]
    assert isinstance(row, Comparison)
    only(row.label in (0.0, 1.0), "only a strict choice has a place here, no tie or 'can't tell'")
    kept = extra_of(row, "summarize")
    notes = kept.get("summaries", [{}, {}])
    confidence = row.confidence
    if confidence is not None:
        number = int(confidence) if confidence == int(confidence) else confidence
    return {
        "info": _told(row, kept),
        "summaries": [
            {"text": plain(x, "summary")} | ({"policy": name} if name else {}) | note
            for x, name, note in zip((row.a, row.b), (row.a_id, row.b_id), notes, strict=True)
        ],
        "choice": int(1 - (row.label or 0.0)),
        **({"worker": row.annotator} if row.annotator else {}),
        **({"batch": row.group} if row.group else {}),
        **kept.get("record", {}),
        "extra": ({} if confidence is None else {"confidence": number}) | kept.get("extra", {}),
    }


def read_axes(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    post, name, info, body = _info(rest)
    summary = dict(pop(rest, "summary", dict))
    axes = dict(pop(summary, "axes", dict))
    shared: dict[str, Any] = {
        "prompt": post,
        "item": name,
        "group": pop(rest, "batch", str, default=""),
        "annotator": pop(rest, "worker", str, default=""),
        "source": "summarize_axes",
        "x": text(pop(summary, "text", str)),
        "x_id": pop(summary, "policy", str, NoneType, default=None) or "",
    }
    rated = {k: v for k, v in axes.items() if v is not None}
    others = {k: v for k, v in axes.items() if v is None}
    kept = {"info": info, "summary": summary, "record": rest, "body": body, "axes": others}
    shared["extra"] = dump(kept)
    return [
        Rating(**shared, axis=k, value=float(expect(v, f"summary.axes.{k}", int, float)))
        for k, v in rated.items()
    ]


def write_axes(rows: list[Row], options: Options) -> dict[str, Any]:
    ratings = [r for r in rows if isinstance(r, Rating)]
    same(rows, *common(rows), "x", "x_id")
    row, kept = ratings[0], extra_of(ratings[0], "summarize_axes")
    only(len({r.axis for r in ratings}) == len(ratings), "one axis is rated twice")
    axes = {
        r.axis or "overall": int(r.value) if r.value == int(r.value) else r.value for r in ratings
    }
    summary = {"text": plain(row.x, "summary")} | ({"policy": row.x_id} if row.x_id else {})
    return {
        "info": _told(row, kept),
        "summary": summary | {"axes": axes | kept.get("axes", {})} | kept.get("summary", {}),
        **({"worker": row.annotator} if row.annotator else {}),
        **({"batch": row.group} if row.group else {}),
    } | kept.get("record", {})


FORMAT = Format(
    "summarize",
    "two summaries of a post, one chosen by a named worker with a confidence; no ties or times.",
    (Comparison,),
    frozenset({"info", "summaries", "choice"}),
    read,
    write,
)
AXES = Format(
    "summarize_axes",
    "one summary of a post, rated by axis by a named worker; no times.",
    (Rating,),
    frozenset({"info", "summary"}),
    read_axes,
    write_axes,
    lambda row: (row.group, row.item, row.annotator, getattr(row, "x", ())),
)
