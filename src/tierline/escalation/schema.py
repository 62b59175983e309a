"""Whether a value meets a JSON Schema, as far as its common keywords say.

Read are `type`, `enum`, `const`, `properties`, `required`, `additionalProperties`, `items`, `prefixItems`, the bounds
of numbers, texts, lists and objects, `pattern`, `multipleOf`, `uniqueItems`, `anyOf`, `oneOf`, `allOf`, `not`, and
`$ref` within the document. Other keywords say nothing: an answer is held to be poor only where that is sure. No I/O.

Answers are what a prompt makes of them, and schemas may come with a request. So all of it takes bounded time: what
would take longer says nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

_DEEPEST: Final = 64
"""How deep values and references are followed; what lies deeper says nothing."""
_MOST: Final = 20_000
"""Most pairs of a value and a rule that are looked at: references to itself make a short schema an endless one."""
_LONGEST: Final = 200
"""Most characters of a `pattern`, and of a text that is held against one."""
_MOST_CHOICES: Final = 2
"""Most repeats and alternatives of a `pattern`; one more where it is anchored. Each may cost the text's length over."""
_ESCAPED: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", re.DOTALL)
_CHOICES: Final = re.compile(r"[*+?|]|\{\d*,\d*\}")
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def unmet(value: Any, schema: Any) -> str:
    """The keyword that a value does not meet; empty where it meets all that are read. Never raises."""
    validator = _Validator(schema)
    try:
        found = validator.unmet(value, schema, 0)
    except RecursionError:
        return ""
    return "" if validator.looks > _MOST else found


class _Validator:
    def __init__(self, root: Any) -> None:
        self._root = root
        self.looks = 0

    def unmet(self, value: Any, schema: Any, depth: int) -> str:
        if schema is False:
            return "false"
        self.looks += 1
        if not isinstance(schema, Mapping) or depth > _DEEPEST or self.looks > _MOST:
            return ""
        if "$ref" in schema and (wrong := self.unmet(value, self._found(schema["$ref"]), depth + 1)):
            return wrong
        return (
            _shape(value, schema)
            or _number(value, schema)
            or _text(value, schema)
            or self._list(value, schema, depth)
            or self._object(value, schema, depth)
            or self._several(value, schema, depth)
        )

    def _found(self, ref: Any) -> Any:
        """What a reference within the document points at; None for any other."""
        if not isinstance(ref, str) or not ref.startswith("#"):
            return None
        found = self._root
        for step in ref[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, Mapping) else None
        return found

    def _list(self, value: Any, schema: Mapping[str, Any], depth: int) -> str:
        if not isinstance(value, list):
            return ""
        if wrong := _bounds(len(value), schema, "minItems", "maxItems"):
            return wrong
        if schema.get("uniqueItems") is True and len({json.dumps(v, sort_keys=True) for v in value}) < len(value):
            return "uniqueItems"
        first = schema.get("prefixItems")
        first = first if isinstance(first, list) else []
        for item, rule in zip(value, first, strict=False):
            if wrong := self.unmet(item, rule, depth + 1):
                return wrong
        rest = schema.get("items")
        return next((wrong for item in value[len(first) :] if (wrong := self.unmet(item, rest, depth + 1))), "")

    def _object(self, value: Any, schema: Mapping[str, Any], depth: int) -> str:
        if not isinstance(value, dict):
            return ""
        if wrong := _bounds(len(value), schema, "minProperties", "maxProperties"):
            return wrong
        required = schema.get("required")
        if isinstance(required, list) and any(name not in value for name in required):
            return "required"
        named = schema.get("properties")
        named = named if isinstance(named, Mapping) else {}
        patterns = schema.get("patternProperties")
        others = schema.get("additionalProperties") if not patterns else None
        for name, item in value.items():
            if name in named:
                wrong = self.unmet(item, named[name], depth + 1)
            else:
                wrong = "additionalProperties" if others is False else self.unmet(item, others, depth + 1)
            if wrong:
                return wrong
        return ""

    def _several(self, value: Any, schema: Mapping[str, Any], depth: int) -> str:
        for name in ("allOf", "anyOf", "oneOf"):
            rules = schema.get(name)
            if not isinstance(rules, list) or not rules:
                continue
            met = sum(not self.unmet(value, rule, depth + 1) for rule in rules)
            enough = {"allOf": met == len(rules), "anyOf": met > 0, "oneOf": met == 1}[name]
            if not enough:
                return name
        rule = schema.get("not")
        return "not" if isinstance(rule, Mapping) and rule and not self.unmet(value, rule, depth + 1) else ""


def _shape(value: Any, schema: Mapping[str, Any]) -> str:
    kinds = schema.get("type")
    if isinstance(kinds, str):
        kinds = [kinds]
    if isinstance(kinds, list) and kinds and not any(_is(value, kind) for kind in kinds):
        return "type"
    if isinstance(among := schema.get("enum"), list) and not any(_same(value, each) for each in among):
        return "enum"
    return "const" if "const" in schema and not _same(value, schema["const"]) else ""


def _is(value: Any, kind: Any) -> bool:
    if kind == "integer":
        return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value % 1 == 0))
    known = _TYPES.get(kind) if isinstance(kind, str) else None
    if known is None:
        return True  # a type that is not known says nothing
    return isinstance(value, known) and (kind == "boolean" or not isinstance(value, bool))


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: true is no 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def _number(value: Any, schema: Mapping[str, Any]) -> str:
    if not _is(value, "number"):
        return ""
    for name, holds in (
        ("minimum", lambda bound: value >= bound),
        ("maximum", lambda bound: value <= bound),
        ("exclusiveMinimum", lambda bound: value > bound),
        ("exclusiveMaximum", lambda bound: value < bound),
        # Of fractions nobody can tell: 0.3 is no multiple of 0.1 to a computer.
        ("multipleOf", lambda step: not isinstance(value, int) or not isinstance(step, int) or value % step == 0),
    ):
        bound = schema.get(name)
        if _is(bound, "number") and (bound or name != "multipleOf") and not holds(bound):
            return name
    return ""


def _text(value: Any, schema: Mapping[str, Any]) -> str:
    if not isinstance(value, str):
        return ""
    if wrong := _bounds(len(value), schema, "minLength", "maxLength"):
        return wrong
    pattern = schema.get("pattern")
    if not isinstance(pattern, str) or max(len(pattern), len(value)) > _LONGEST:
        return ""
    found = _compiled(pattern)
    return "pattern" if found is not None and found.search(value) is None else ""


@lru_cache(maxsize=256)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """A pattern that is matched in bounded time; None for another, and for one of a dialect that Python does not read.

    Python's engine goes back to every choice that it had, and then to those in them: `(a+)+` takes hours on a line.
    """
    bare = _ESCAPED.sub("x", pattern)
    groups = bare.replace("(?:", "(")
    repeated = re.search(r"\)[*+?{]", groups) is not None
    referring = "(?" in groups or re.search(r"\\[1-9]", pattern) is not None
    choices = len(_CHOICES.findall(groups)) - (bare[:1] == "^" and "|" not in bare)
    if repeated or referring or choices > _MOST_CHOICES:
        return None
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return None


def _bounds(size: int, schema: Mapping[str, Any], least: str, most: str) -> str:
    low, high = schema.get(least), schema.get(most)
    if isinstance(low, int) and size < low:
        return least
    return most if isinstance(high, int) and size > high else ""
