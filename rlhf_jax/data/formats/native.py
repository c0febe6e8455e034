"""Our own JSON lines: every field of a row that is not at its default, nothing lost."""

from __future__ import annotations

import dataclasses
import json
from types import NoneType
from typing import Any

from rlhf_jax.data.checks import content, expect, messages, only, pop, texts
from rlhf_jax.data.formats.base import Format, Options
from rlhf_jax.data.rows import KINDS, TYPES, Row, RowError, Span, Step, Text, dump, is_plain, kind


def _text(value: Any, what: str) -> Text:
    return () if value == [] else content(value, what)


def _steps(value: Any, what: str) -> tuple[Step, ...]:
    return tuple(_tuple(Step, v, f"{what}[{i}]") for i, v in enumerate(expect(value, what, list)))


def _spans(value: Any, what: str) -> tuple[Span, ...]:
    return tuple(_tuple(Span, v, f"{what}[{i}]") for i, v in enumerate(expect(value, what, list)))


def _tuple(cls: Any, value: Any, what: str) -> Any:
    rest = dict(expect(value, what, dict))
    defaults, out = cls._field_defaults, {}
    for name, annotation in cls.__annotations__.items():
        kinds = PLAIN[_name(annotation)]
        if name in rest or name not in defaults:
            out[name] = pop(rest, name, *kinds)
    only(not rest, f"{what} has '{next(iter(rest), '')}', which is no field of a {cls.__name__}")
    return cls(**out)


def _name(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else annotation.__forward_arg__


PLAIN: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "bool": (bool,),
    "int": (int,),
    "int | None": (int, NoneType),
    "float": (float,),
    "float | None": (float, NoneType),
}


def _decode(annotation: str, value: Any, what: str) -> Any:
    if annotation in PLAIN:
        value = expect(value, what, *PLAIN[annotation])
        return float(value) if type(value) is int and "float" in annotation else value
    if annotation == "Text":
        return _text(value, what)
    if annotation == "tuple[str, ...]":
        return tuple(texts(expect(value, what, list), what))
    if annotation == "tuple[int, ...]":
        return tuple(expect(v, what, int) for v in expect(value, what, list))
    return {"tuple[Step, ...]": _steps, "tuple[Span, ...]": _spans}[annotation](value, what)


def _encode(annotation: str, value: Any) -> Any:
    if annotation == "Text":
        return value[0].content if is_plain(value) else messages(value)
    if annotation in ("tuple[Step, ...]", "tuple[Span, ...]"):
        return [v._asdict() for v in value]
    return list(value) if isinstance(value, tuple) else value


def _extra(value: Any) -> str:
    return dump(expect(value, "field 'extra'", dict))


def read(record: dict[str, Any], options: Options) -> list[Row]:
    rest = dict(record)
    name = pop(rest, "type", str)
    if name not in KINDS:
        raise RowError(f"field 'type' = {name!r}, expected one of {', '.join(KINDS)}")
    out: dict[str, Any] = {}
    for f in dataclasses.fields(KINDS[name]):
        if f.name == "extra":
            out["extra"] = _extra(rest.pop("extra", {}))
        elif f.name in rest:
            out[f.name] = _decode(str(f.type), rest.pop(f.name), f"field '{f.name}'")
        elif f.default is dataclasses.MISSING:
            raise RowError(f"field '{f.name}' is missing")
    only(not rest, f"'{next(iter(rest), '')}' is no field of a {name}")
    return [KINDS[name](**out)]


def write(rows: list[Row], options: Options) -> dict[str, Any]:
    row, out = rows[0], {"type": kind(rows[0])}
    for f in dataclasses.fields(row):
        value = getattr(row, f.name)
        if value != f.default:
            out[f.name] = json.loads(value) if f.name == "extra" else _encode(str(f.type), value)
    return out


FORMAT = Format(
    "rows",
    "our own: every field of every feedback type.",
    TYPES,
    frozenset({"type"}),
    read,
    write,
)
