"""Values for schemas."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from tierline.testing._schema import example


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({}, "value"),
        ({"type": "string"}, "example value"),
        ({"type": "string", "minLength": 20}, "example valuexxxxxxx"),
        ({"type": "string", "maxLength": 3}, "exa"),
        ({"type": "string", "format": "date"}, "2026-01-02"),
        ({"type": "integer"}, 1),
        ({"type": "integer", "minimum": 5}, 5),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "integer", "minimum": 5, "multipleOf": 4}, 8),
        ({"type": "number", "exclusiveMinimum": 5}, 5.5),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 1),
        ({"type": ["null"]}, None),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 7}, 7),
        ({"type": "array", "items": {"type": "integer"}}, [1]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, [1, 1, 1]),
        ({"type": "array", "maxItems": 0}, []),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}]}, [1, 2]),
        ({"anyOf": [{"type": "null"}, {"const": 3}]}, 3),
        ({"oneOf": [{"type": "null"}]}, None),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"const": 4}}}, 4),
        ({"$ref": "#/$defs/missing"}, "value"),
        ({"properties": {"a": {"type": "boolean"}}}, {"a": True}),
        (
            {
                "type": "object",
                "properties": {"a": {"const": 1}},
                "allOf": [{"properties": {"b": {"const": 2}}, "required": ["b"]}, {"$ref": "#/$defs/c"}],
                "$defs": {"c": {"properties": {"c": {"const": 3}}}},
            },
            {"a": 1, "b": 2, "c": 3},
        ),
    ],
)
def test_values(schema: dict[str, Any], value: object) -> None:
    """Each keyword is obeyed."""
    assert example(schema) == value


class Node(BaseModel):
    kind: Literal["leaf", "branch"]
    weight: float = Field(gt=0, lt=10)
    parent: Node | None = None
    children: list[Node] = []
    names: dict[str, int] = {}


def test_a_schema_that_needs_itself_ends() -> None:
    """A recursive model gets a finite value that it accepts."""
    assert Node.model_validate(example(Node.model_json_schema())).kind == "leaf"
