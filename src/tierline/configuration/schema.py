"""The JSON Schema of a configuration, for editors: made of the description that it is checked with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tierline.configuration.keys import BUDGET, ESCALATE, LEGALITY, MIDDLEWARE, POLICY, ROUTER, TIER
from tierline.values import LABELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.configuration.keys import Key

_TYPES: Final = {"text": "string", "number": "number", "whole": "integer", "switch": "boolean", "choice": "string"}


def schema() -> dict[str, Any]:
    """Draft 2020-12."""
    budgets = {"type": "array", "items": _table(BUDGET) | {"required": ["amount"]}}
    policy = _table(POLICY)
    policy["properties"]["escalate"]["anyOf"][0] = _table(ESCALATE)
    policy["properties"]["budgets"] = budgets | {"description": "Further budgets that these calls are charged to"}
    tier = {"anyOf": [{"type": "string"}, _table(TIER) | {"required": ["model"]}]}
    tables: dict[str, Any] = {
        "ladder": {"type": "object", "description": "The tiers, cheapest first", "additionalProperties": tier},
        "labels": {
            "type": "object",
            "description": "The tier that each label begins at",
            "properties": {label: {"type": "string"} for label in LABELS},
            "additionalProperties": False,
        },
        "policy": policy | {"description": "What holds for every call"},
        "routes": {
            "type": "object",
            "description": "What holds by route",
            "patternProperties": {"^/": policy},
            "additionalProperties": False,
        },
        "budgets": budgets | {"description": "What may be spent; every call is charged to all of them"},
        "legality": _table(LEGALITY) | {"description": "What is done about what a model rejects"},
        "middleware": _table(MIDDLEWARE) | {"description": "How TierlineMiddleware is made"},
    }
    found = _table(ROUTER)
    found["properties"] |= tables
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "tierline.toml", **found}


def _table(keys: Sequence[Key]) -> dict[str, Any]:
    return {"type": "object", "properties": {key.name: _of(key) for key in keys}, "additionalProperties": False}


def _of(key: Key) -> dict[str, Any]:
    bounds = {name: value for name, value in (("minimum", key.least), ("maximum", key.most)) if value is not None}
    found: dict[str, Any]
    match key.kind:
        case "texts":
            found = {"type": "array", "items": {"type": "string"}}
        case "numbers":
            found = {"type": "array", "items": {"type": "number", **bounds}}
        case "pairs":
            found = {"type": "object", "additionalProperties": {"type": "string"}}
        case "fields":
            found = {"type": "object"}
        case "choice":
            found = {"enum": list(key.choices)}
        case kind:
            found = {"type": _TYPES[kind], **bounds, **({"minLength": 1} if kind == "text" else {})}
    if key.or_ is not None:
        found = {"anyOf": [found, {"type": "boolean"} if key.or_ else {"const": False}]}
    return found | {"description": key.help}
