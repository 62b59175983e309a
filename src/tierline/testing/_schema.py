"""A small value that fits a JSON schema: enough for tools and structured outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEPTH: Final = 12
"""How deep a value is built with its optional parts; a schema that needs itself ends there."""

_FORMATS: Final = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "email": "someone@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
    "hostname": "example.com",
    "duration": "PT1S",
}


def example(schema: Mapping[str, Any], *, name: str = "value") -> Any:
    """Return the same small instance for the same schema.

    Knows types, enum, const, default, properties, required, items, prefixItems, minItems, string lengths and formats,
    number bounds, anyOf, oneOf, allOf and local `$ref`. Does not know patterns. `name` is what a string says.
    """
    return _build(schema, schema, name, 0)


def _build(schema: Any, root: Mapping[str, Any], name: str, depth: int) -> Any:
    if not isinstance(schema, dict) or not schema:
        return name
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if "$ref" in schema:
        return _build(_resolve(str(schema["$ref"]), root), root, name, depth + 1) if depth < 2 * _DEPTH else None
    for key in ("anyOf", "oneOf"):
        if schema.get(key):
            return _build(_choose(schema[key], depth), root, name, depth + 1)
    if schema.get("allOf"):
        return _build(_merge(schema, root), root, name, depth)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = "null" if depth >= _DEPTH and "null" in kind else next((k for k in kind if k != "null"), "null")
    match kind:
        case "object":
            return _object(schema, root, depth)
        case "array":
            return _array(schema, root, name, depth)
        case "integer" | "number":
            return _number(schema, whole=kind == "integer")
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _string(schema, name)


def _object(schema: Mapping[str, Any], root: Mapping[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    needed = set(schema.get("required") or ())
    return {
        key: _build(inner, root, key, depth + 1) for key, inner in properties.items() if depth < _DEPTH or key in needed
    }


def _array(schema: Mapping[str, Any], root: Mapping[str, Any], name: str, depth: int) -> list[Any]:
    fixed = [_build(inner, root, name, depth + 1) for inner in schema.get("prefixItems") or ()]
    least = int(schema.get("minItems") or 0)
    # One element shows more than none; where the schema refers to itself, none is what ends it.
    length = max(least, 1 if depth < _DEPTH // 2 else 0) if schema.get("maxItems") != 0 else 0
    rest = [_build(schema.get("items"), root, name, depth + 1) for _ in range(length - len(fixed))]
    return fixed + rest


def _number(schema: Mapping[str, Any], *, whole: bool) -> float:
    if "minimum" in schema:
        value: float = schema["minimum"]
    elif "exclusiveMinimum" in schema:
        value = schema["exclusiveMinimum"] + (1 if whole else 0.5)
    else:
        value = min(1, schema["maximum"]) if "maximum" in schema else 1
    step = schema.get("multipleOf")
    if step:
        value = -(-value // step) * step
    return int(value) if whole else value


def _string(schema: Mapping[str, Any], name: str) -> str:
    text = _FORMATS.get(str(schema.get("format")), f"example {name}")
    least, most = int(schema.get("minLength") or 0), schema.get("maxLength")
    text = text.ljust(least, "x")
    return text if most is None else text[: int(most)]


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        if step:
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
    return found


def _choose(options: list[Any], depth: int) -> Any:
    def is_null(option: Any) -> bool:
        return isinstance(option, dict) and option.get("type") == "null"

    wanted = [option for option in options if is_null(option) == (depth >= _DEPTH)]
    return (wanted or options)[0]


def _merge(schema: Mapping[str, Any], root: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
    for part in schema["allOf"]:
        inner = _resolve(str(part["$ref"]), root) if "$ref" in part else part
        for key, value in (inner or {}).items():
            if key == "properties":
                merged["properties"] = {**merged.get("properties", {}), **value}
            elif key == "required":
                merged["required"] = [*merged.get("required", []), *value]
            else:
                merged.setdefault(key, value)
    return merged
