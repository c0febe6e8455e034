"""Argilla records as `to_json` writes them.

{"id", "fields": {name: text}, "responses": {question: [{"value", "user_id", "status"}]},
"metadata", "suggestions", "vectors", "_server_id"}. Argilla 1 had "responses": [{"user_id",
"values": {question: {"value"}}, "status"}] and "external_id"; that is read too and written as
above. Only what was submitted is a verdict. A preference that was discarded is "can't tell",
whatever its value; drafts, empty responses and other discarded ones are kept in `extra`, and a
record without any other has no answers. Names are the project's own. Ours, with defaults:

    fields     prompt, a (response_a), b (response_b), x (response)
    questions  preference  one of the names of a and b, or tie          → Comparison
               ranking     names of fields, best first                  → Ranking
               rating      a whole number, about x                      → Rating
               label       an option, about x                           → Label
               critique    text about x                                 → Critique
               correction  text that should replace x                   → Correction

A response to any other question makes the record malformed. There are no times or confidences.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

from rlhf_jax.data.checks import content, expect, only, pop, same
from rlhf_jax.data.formats.base import Format, Options, by_item
from rlhf_jax.data.formats.trl import written
from rlhf_jax.data.rows import (
    SAID,
    Comparison,
    Correction,
    Critique,
    Label,
    Ranking,
    Rating,
    Row,
    Text,
    dump,
    extra_of,
    kind,
    plain,
    text,
)

FIELDS = {"prompt": "prompt", "a": "response_a", "b": "response_b", "x": "response"}
QUESTIONS = ("preference", "ranking", "rating", "label", "critique", "correction")
NAMES = FIELDS | {q: q for q in QUESTIONS} | {"tie": "tie"}
LEFT = "of the same record responses were left out that are not submitted, or empty"


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest, names = dict(record), options.names(NAMES)
    fields = dict(pop(rest, "fields", dict))
    responses = _by_question(pop(rest, "responses", dict, list, NoneType))
    external = rest.get("external_id") if "id" not in rest else None
    item = pop(rest, "id", str, int, NoneType, default=external)
    kinds = {names[q]: q for q in QUESTIONS}
    read_ = {k: content(v, f"field '{k}'") for k, v in fields.items() if type(v) in (str, list)}
    shared: dict[str, Any] = {
        "prompt": read_.get(names["prompt"], ()),
        "item": "" if item is None else str(item),
        "source": "argilla",
    }
    left: dict[str, list[Any]] = {}
    given: list[tuple[str, str, dict[str, Any], bool]] = []
    for question, answers in responses.items():
        only(question in kinds, f"question '{question}' is none of ours: name it with a field map")
        for i, value in enumerate(expect(answers, f"responses.{question}", list)):
            what = f"responses.{question}[{i}]"
            answer = dict(expect(value, what, dict))
            submitted = answer.get("status") in (None, "submitted")
            skipped = answer.get("status") == "discarded" and kinds[question] == "preference"
            if skipped or (submitted and answer.get("value") is not None):
                given.append((question, what, answer, skipped))
            else:
                left.setdefault(question, []).append([i, answer])
    kept = {"record": rest, "fields": fields} | ({"left": left, SAID: [LEFT]} if left else {})
    out: list[Row] = []
    for question, what, answer, skipped in given:
        said = None if skipped else pop(answer, "value", str, int, float, list)
        shared["annotator"] = pop(answer, "user_id", str, NoneType, default=None) or ""
        shared["extra"] = dump(kept | {"answer": answer})
        out.append(_row(kinds[question], said, read_, names, shared, what))
    return out


def _by_question(responses: Any) -> dict[str, list[Any]]:
    """{question: answers}, also of the list of people that Argilla 1 had."""
    if not isinstance(responses, list):
        return dict(responses or {})
    out: dict[str, list[Any]] = {}
    for i, value in enumerate(responses):
        person = dict(expect(value, f"responses[{i}]", dict))
        values = pop(person, "values", dict, NoneType, default=None) or {}
        for question, said in values.items():
            answer = dict(expect(said, f"responses[{i}].values.{question}", dict))
            out.setdefault(question, []).append(answer | person)
    return out


def _row(
    question: str,
    said: Any,
    fields: dict[str, Text],
    names: dict[str, str],
    shared: dict[str, Any],
    what: str,
) -> Row:
    def field(ours: str) -> Text:
        only(names[ours] in fields, f"fields.{names[ours]} is missing")
        return fields[names[ours]]

    if question == "preference":
        a, b = field("a"), field("b")
        labels = {names["a"]: 1.0, names["b"]: 0.0, names["tie"]: 0.5, None: None}
        only(
            expect(said, what, str, NoneType) in labels,
            f"{what} = {said!r}, expected one of {names['a']}, {names['b']}, {names['tie']}",
        )
        return Comparison(**shared, a=a, b=b, label=labels[said])
    if question == "ranking":
        return _ranking(expect(said, what, list), fields, shared, what)
    x = field("x")
    if question == "rating":
        return Rating(**shared, x=x, value=float(expect(said, what, int, float)))
    words = expect(said, what, str)
    if question == "label":
        return Label(**shared, x=x, value=words)
    if question == "critique":
        return Critique(**shared, x=x, words=words)
    return Correction(**shared, x=x, better=text(words))


def _ranking(
    said: list[Any], fields: dict[str, Text], shared: dict[str, Any], what: str
) -> Ranking:
    ids: list[str] = []
    ranks: list[int] = []
    for i, entry in enumerate(said):
        known = {"value": entry, "rank": i + 1} if isinstance(entry, str) else entry
        rest = dict(expect(known, f"{what}[{i}]", dict))
        ids.append(pop(rest, "value", str))
        ranks.append(pop(rest, "rank", int))
        only(ids[-1] in fields, f"{what} names '{ids[-1]}', which is no text field")
    only(len(set(ids)) == len(ids) > 1, f"{what} must name two or more different fields")
    options = tuple(plain(fields[k], f"field '{k}'") for k in ids)
    return Ranking(**shared, options=options, ids=tuple(ids), ranks=tuple(ranks))


def _said(row: Row, names: dict[str, str]) -> tuple[str, Any, dict[str, Text]]:
    """(question, value, the fields that it is about)"""
    if isinstance(row, Comparison):
        values = {1.0: names["a"], 0.0: names["b"], 0.5: names["tie"]}
        only(row.label in (*values, None), "soft labels have no place here")
        about = {names["a"]: row.a, names["b"]: row.b}
        return "preference", None if row.label is None else values[row.label], about
    if isinstance(row, Ranking):
        only(len(row.ids) == len(row.options) == len(row.ranks), "a ranking needs ids and ranks")
        about = {k: text(v) for k, v in zip(row.ids, row.options, strict=True)}
        if row.ranks == tuple(range(1, len(row.ranks) + 1)):
            return "ranking", list(row.ids), about
        pairs = zip(row.ids, row.ranks, strict=True)
        return "ranking", [{"value": k, "rank": r} for k, r in pairs], about
    x = {names["x"]: row.x}  # type: ignore[attr-defined]
    if isinstance(row, Rating):
        only(row.value == int(row.value), f"a rating of {row.value} is not a whole number")
        return "rating", int(row.value), x
    if isinstance(row, Label):
        return "label", row.value, x
    if isinstance(row, Critique):
        return "critique", row.words, x
    assert isinstance(row, Correction)
    return "correction", plain(row.better, "correction"), x


def write(rows: list[Row], options: Options) -> dict[str, Any]:
    same(rows, "prompt")
    names = options.names(NAMES)
    kept = extra_of(rows[0], "argilla")
    fields = dict(kept.get("fields", {}))
    if rows[0].prompt:
        fields[names["prompt"]] = written(rows[0].prompt, "prompt")
    seen: dict[str, Text] = {}
    responses: dict[str, list[Any]] = {}
    for row in rows:
        question, value, about = _said(row, names)
        for name, x in about.items():
            only(seen.setdefault(name, x) == x, f"a {kind(row)} is about another '{name}'")
            fields[name] = written(x, name)
        who = {"user_id": row.annotator} if row.annotator else {}
        skipped = {"status": "discarded"} if value is None else {}
        answer = {"value": value} | who | skipped | extra_of(row, "argilla").get("answer", {})
        responses.setdefault(names[question], []).append(answer)
    for question, others in kept.get("left", {}).items():
        for i, answer in others:
            responses.setdefault(question, []).insert(i, answer)
    return {
        **({"id": rows[0].item} if rows[0].item else {}),
        "fields": fields,
        "responses": responses,
    } | kept.get("record", {})


FORMAT = Format(
    "argilla",
    "preferences with ties, rankings, ratings, labels, critiques and corrections by named users; "
    "no times, reasons or confidence.",
    (Comparison, Ranking, Rating, Label, Critique, Correction),
    frozenset({"fields", "responses"}),
    read,
    write,
    by_item,
    as_list=True,
)
