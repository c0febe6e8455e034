"""OpenAI's summarise-from-feedback comparisons (Stiennon et al. 2020, arXiv 2009.01325).

The prompt is the post (or article); id, title and subreddit stay in `extra`. `choice` is 0 or 1:
there are no ties. `worker` is a person, `extra.confidence` a 1–9 scale, kept as it is.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

from rlhf_jax.data.checks import expect, only, pop
from rlhf_jax.data.formats.base import Format, Options
from rlhf_jax.data.rows import Comparison, Row, dump, extra_of, plain, text

BODIES = ("post", "article")


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    info = dict(pop(rest, "info", dict))
    body = next((k for k in BODIES if info.get(k) is not None), "post")
    post = pop(info, body, str)
    pair = pop(rest, "summaries", list)
    only(len(pair) == 2, f"field 'summaries' has {len(pair)} entries, expected 2")
    summaries = [dict(expect(s, f"field 'summaries'[{i}]", dict)) for i, s in enumerate(pair)]
    choice = pop(rest, "choice", int)
    only(choice in (0, 1), f"field 'choice' = {choice}, expected 0 or 1")
    more = dict(pop(rest, "extra", dict, default={}))
    confidence = pop(more, "confidence", int, float, NoneType, default=None)
    a, b = (text(pop(s, "text", str)) for s in summaries)
    a_id, b_id = (pop(s, "policy", str, NoneType, default=None) or "" for s in summaries)
    row = Comparison(
        prompt=text(post),
        item=pop(info, "id", str, default=""),
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
        "info": ({"id": row.item} if row.item else {})
        | {kept.get("body", "post"): plain(row.prompt, "prompt")}
        | kept.get("info", {}),
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


FORMAT = Format(
    "summarize",
    "two summaries of a post, one chosen by a named worker with a confidence; no ties or times.",
    (Comparison,),
    frozenset({"info", "summaries", "choice"}),
    read,
    write,
)
