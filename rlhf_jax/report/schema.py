"""The part of JSON Schema (2020-12) that the disclosure's schema uses, checked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def disclosure() -> dict[str, Any]:
    """The schema that every disclosure.json satisfies."""
    text = resources.files(__package__).joinpath("disclosure.schema.json").read_text("utf-8")
    return json.loads(text)


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool) and name != "boolean":
        return False
    return isinstance(value, _TYPES[name])


def faults(value: Any, schema: Any, root: Any = None, at: str = "$") -> Iterator[str]:
    """Where and how `value` departs from `schema`: type, enum, minimum, minLength, minItems,
    required, properties, additionalProperties, items and local $ref."""
    root = schema if root is None else root
    if "$ref" in schema:
        yield from faults(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root, at)
        return
    types = schema.get("type", list(_TYPES))
    types = [types] if isinstance(types, str) else types
    if not any(_is(value, name) for name in types):
        yield f"{at} is {value!r:.60}, not {' or '.join(types)}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at} is {value!r:.60}, not one of {schema['enum']}"
    if _is(value, "number") and value < schema.get("minimum", value):
        yield f"{at} is {value}, below {schema['minimum']}"
    if isinstance(value, str) and len(value) < schema.get("minLength", 0):
        yield f"{at} is too short"
    if isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield f"{at} has fewer than {schema['minItems']} items"
        for i, item in enumerate(value):
            yield from faults(item, schema.get("items", {}), root, f"{at}[{i}]")
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        for name in schema.get("required", []):
            if name not in value:
                yield f"{at}.{name} is missing"
        for name, item in value.items():
            if name not in properties and others is False:
                yield f"{at}.{name} is not part of the schema"
            elif name in properties or others is not False:
                yield from faults(item, properties.get(name, others), root, f"{at}.{name}")
