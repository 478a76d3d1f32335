"""A small JSON-schema checker: just the keywords that the manifest schema uses.

Keywords: ``type`` (also a list), ``enum``, ``required``, ``properties``,
``additionalProperties: false``, ``items``, ``minItems``, ``maxItems``, ``minimum``,
``maximum``, ``exclusiveMinimum``, ``minLength``, ``pattern`` and ``$ref`` into ``#/$defs``.
A schema with any other keyword is refused, so nothing in it can be ignored unnoticed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["problems"]

_KNOWN = {
    "$defs", "$ref", "additionalProperties", "enum", "exclusiveMinimum", "items", "maxItems",
    "maximum", "minItems", "minLength", "minimum", "pattern", "properties", "required", "title",
    "type",
}  # fmt: skip


def problems(document: object, schema: Mapping[str, Any]) -> list[str]:
    """Return every place where ``document`` breaks ``schema``; an empty list if there is none."""
    found: list[str] = []
    _check(document, schema, schema, "", found)
    return found


def _check(
    value: object, schema: Mapping[str, Any], root: Mapping[str, Any], at: str, found: list[str]
) -> None:
    unknown = set(schema) - _KNOWN
    if unknown:
        raise ValueError(f"schema keywords not implemented: {', '.join(sorted(unknown))}")
    if "$ref" in schema:
        name = str(schema["$ref"]).removeprefix("#/$defs/")
        _check(value, root["$defs"][name], root, at, found)
        return
    where = at or "the manifest"
    kinds = schema.get("type")
    if kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not any(_is_kind(value, kind) for kind in kinds):
            found.append(f"{where}: expected {' or '.join(kinds)}, got {_describe(value)}")
            return
    if "enum" in schema and value not in schema["enum"]:
        choices = ", ".join(repr(choice) for choice in schema["enum"])
        found.append(f"{where}: got {_describe(value)}, expected one of {choices}")
        return
    if isinstance(value, dict):
        _check_object(value, schema, root, at, found)
    elif isinstance(value, list):
        _check_array(value, schema, root, at, found)
    elif isinstance(value, str):
        _check_string(value, schema, where, found)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_number(value, schema, where, found)


def _check_object(
    value: dict[str, Any],
    schema: Mapping[str, Any],
    root: Mapping[str, Any],
    at: str,
    found: list[str],
) -> None:
    properties: Mapping[str, Any] = schema.get("properties", {})
    prefix = f"{at}." if at else ""
    found.extend(
        f"{prefix}{key}: missing" for key in schema.get("required", []) if key not in value
    )
    for key, item in value.items():
        if key in properties:
            _check(item, properties[key], root, f"{prefix}{key}", found)
        elif schema.get("additionalProperties") is False:
            found.append(f"{prefix}{key}: unknown key")


def _check_array(
    value: list[Any],
    schema: Mapping[str, Any],
    root: Mapping[str, Any],
    at: str,
    found: list[str],
) -> None:
    low, high = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if not low <= len(value) <= high:
        wanted = f"{low}" if low == high else f"{low} or more" if high == math.inf else f"≤ {high}"
        found.append(f"{at}: has {len(value)} items, expected {wanted}")
    if "items" in schema:
        for index, item in enumerate(value):
            _check(item, schema["items"], root, f"{at}[{index}]", found)


def _check_string(value: str, schema: Mapping[str, Any], where: str, found: list[str]) -> None:
    if len(value) < schema.get("minLength", 0):
        found.append(f"{where}: is empty")
    if "pattern" in schema and not re.fullmatch(schema["pattern"], value):
        found.append(f"{where}: got {_describe(value)}, expected the form {schema['pattern']}")


def _check_number(value: float, schema: Mapping[str, Any], where: str, found: list[str]) -> None:
    if not math.isfinite(value):
        found.append(f"{where}: must be finite, got {value}")
    elif value < schema.get("minimum", -math.inf):
        found.append(f"{where}: got {value}, expected at least {schema['minimum']}")
    elif value > schema.get("maximum", math.inf):
        found.append(f"{where}: got {value}, expected at most {schema['maximum']}")
    elif value <= schema.get("exclusiveMinimum", -math.inf):
        found.append(f"{where}: got {value}, expected more than {schema['exclusiveMinimum']}")


def _is_kind(value: object, kind: str) -> bool:
    if kind == "null":
        return value is None
    if kind == "boolean":
        return isinstance(value, bool)
    if kind == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, {"string": str, "object": dict, "array": list}[kind])


def _describe(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
