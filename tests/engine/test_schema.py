from __future__ import annotations

from typing import Any

import pytest

from samrt.schema import problems


def test_a_fitting_document_has_no_problems() -> None:
    schema = {
        "type": "object",
        "required": ["a"],
        "properties": {"a": {"type": "array", "items": {"type": "integer", "minimum": 1}}},
    }
    assert problems({"a": [1, 2], "b": 1}, schema) == []


@pytest.mark.parametrize(
    ("schema", "value", "text"),
    [
        ({"type": "integer"}, True, "expected integer, got True"),
        ({"type": "integer"}, 1.0, "expected integer, got 1.0"),
        ({"type": "number"}, True, "expected number"),
        ({"type": "number"}, float("nan"), "must be finite"),
        ({"type": ["string", "null"]}, 3, "expected string or null, got 3"),
        ({"enum": ["x", "y"]}, "z", "got 'z', expected one of 'x', 'y'"),
        ({"minimum": 2}, 1, "got 1, expected at least 2"),
        ({"maximum": 2}, 3, "got 3, expected at most 2"),
        ({"exclusiveMinimum": 0}, 0, "got 0, expected more than 0"),
        ({"minLength": 1}, "", "is empty"),
        ({"pattern": "^[0-9]+$"}, "12x", "expected the form"),
        ({"pattern": "^[0-9]+$"}, "12\n", "expected the form"),
        ({"minItems": 2, "maxItems": 2}, [1], "has 1 items, expected 2"),
        ({"minItems": 1}, [], "has 0 items, expected 1 or more"),
        ({"required": ["k"]}, {}, "k: missing"),
        ({"properties": {}, "additionalProperties": False}, {"q": 1}, "q: unknown key"),
    ],
)
def test_each_keyword_finds_its_problem(schema: dict[str, Any], value: object, text: str) -> None:
    found = problems(value, schema)
    assert len(found) == 1
    assert text in found[0]


def test_problems_carry_their_place_and_all_are_found() -> None:
    tensor = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
    schema = {
        "properties": {"list": {"type": "array", "items": {"$ref": "#/$defs/tensor"}}},
        "$defs": {"tensor": tensor},
    }
    assert problems({"list": [{"name": "a"}, {}, {"name": 3}, 4]}, schema) == [
        "list[1].name: missing",
        "list[2].name: expected string, got 3",
        "list[3]: expected object, got 4",
    ]


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(ValueError, match="oneOf"):
        problems({}, {"oneOf": []})


def test_long_values_are_cut() -> None:
    (found,) = problems("x" * 5000, {"type": "integer"})
    assert len(found) < 120
