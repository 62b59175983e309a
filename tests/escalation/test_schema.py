"""The JSON Schema keywords that are read: each met and not met, and what is not read says nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tierline.escalation.schema import unmet


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": "string"}, ["", "x"], [1, None, True, [], {}]),
        ({"type": "integer"}, [1, -1, 2.0], [1.5, True, "1"]),
        ({"type": "number"}, [1, 1.5], [True, "1", None]),
        ({"type": "boolean"}, [True, False], [0, 1, "true"]),
        ({"type": "null"}, [None], [0, "", False]),
        ({"type": ["string", "null"]}, ["x", None], [1]),
        ({"enum": ["a", 1, None]}, ["a", 1, None], ["b", True, 0]),
        ({"const": 1}, [1, 1.0], [True, 2]),
        ({"required": ["a"]}, [{"a": None}, []], [{}, {"b": 1}]),
        ({"properties": {"a": {"type": "string"}}}, [{"a": "x"}, {}, {"b": 1}, 1], [{"a": 1}]),
        ({"properties": {"a": {}}, "additionalProperties": False}, [{"a": 1}], [{"b": 1}]),
        ({"additionalProperties": {"type": "integer"}}, [{"a": 1}], [{"a": "x"}]),
        ({"patternProperties": {"^x": {}}, "additionalProperties": False}, [{"xa": 1}, {"b": 1}], []),
        ({"items": {"type": "integer"}}, [[], [1, 2], "x"], [[1, "x"]]),
        ({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}}, [["x", 1], ["x"]], [[1], ["x", "y"]]),
        ({"minItems": 1, "maxItems": 2}, [[1], [1, 2], "x"], [[], [1, 2, 3]]),
        ({"uniqueItems": True}, [[1, True, "1"], []], [[1, 1], [{"a": 1}, {"a": 1}]]),
        ({"minLength": 1, "maxLength": 2}, ["x", 3], ["", "xyz"]),
        ({"minProperties": 1, "maxProperties": 1}, [{"a": 1}], [{}, {"a": 1, "b": 2}]),
        ({"pattern": "^a+$"}, ["aa", 5], ["b", ""]),
        ({"minimum": 0, "maximum": 1}, [0, 0.5, 1, "x", True], [-0.1, 1.1]),
        ({"exclusiveMinimum": 0, "exclusiveMaximum": 1}, [0.5], [0, 1]),
        ({"multipleOf": 3}, [0, 6, 0.5], [4]),
        ({"multipleOf": 0}, [1], []),
        ({"anyOf": [{"type": "string"}, {"minimum": 5}]}, ["x", 5], [4]),
        ({"oneOf": [{"minimum": 5}, {"maximum": 7}]}, [4, 8], [6]),
        ({"allOf": [{"minimum": 5}, {"maximum": 7}]}, [6], [4, 8]),
        ({"not": {"type": "string"}}, [1], ["x"]),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "string"}}}, ["x"], [1]),
        ({"type": "object", "properties": {"next": {"$ref": "#"}}}, [{"next": {"next": {}}}], [{"next": {"next": 1}}]),
        (False, [], [1, None]),
    ],
)
def test_a_keyword(schema: Any, good: list[Any], bad: list[Any]) -> None:
    """A value that meets it passes, and one that does not is told by the keyword."""
    assert [value for value in good if unmet(value, schema)] == []
    assert [value for value in bad if not unmet(value, schema)] == []


@pytest.mark.parametrize(
    "schema",
    [
        True, {}, None, 1, {"type": "unheard of"}, {"type": 5}, {"enum": 1}, {"required": "a"}, {"properties": 1},
        {"pattern": "("}, {"pattern": 1}, {"minimum": "x"}, {"minLength": None}, {"anyOf": 1}, {"anyOf": []},
        {"not": 1},
        {"$ref": "https://elsewhere.example/a"}, {"$ref": "#/$defs/none"}, {"$ref": 1}, {"$ref": "#"},
        {"format": "date-time"}, {"items": 1},
    ],
)  # fmt: skip
def test_what_is_not_read_says_nothing(schema: Any) -> None:
    """Keywords that are unknown, odd or endless make no answer poor."""
    assert [value for value in (None, True, 1, "x", [1], {"a": 1}) if unmet(value, schema)] == []


def test_the_schema_of_a_pydantic_model() -> None:
    """What such a model takes meets its schema, and what lacks a field deep inside does not."""

    class Line(BaseModel):
        sku: str
        amount: int | None = None

    class Order(BaseModel):
        lines: list[Line]
        note: str | None

    schema = Order.model_json_schema()
    good = Order(lines=[Line(sku="a"), Line(sku="b", amount=2)], note=None).model_dump()
    assert unmet(good, schema) == ""
    assert unmet({"lines": [{"amount": 2}], "note": None}, schema) == "required"
    assert unmet({"lines": [{"sku": "a", "amount": "x"}], "note": None}, schema) == "anyOf"


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["type", "object", "#", "required", "a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "enum", "items", "$ref", "properties", "anyOf", "not", "minimum", "pattern", "a"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_VALUES, _VALUES)
def test_any_schema(value: Any, schema: Any) -> None:
    """Whatever stands in a schema, nothing is raised."""
    assert isinstance(unmet(value, schema), str)
