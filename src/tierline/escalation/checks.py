"""Structural checks of an answer: what can be seen of it at no cost. Pure."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from tierline.escalation.schema import unmet

if TYPE_CHECKING:
    from tierline.escalation.answers import Answer, Wanted
    from tierline.escalation.rules import Escalate

Kind = Literal[
    "json", "schema", "truncated", "refusal", "unsure", "phrase", "confidence", "check", "grade", "error",
]  # fmt: skip
_CUT: Final = {"max_tokens": "max_tokens", "model_context_window_exceeded": "the model's window"}
"""Reasons to stop in the midst of an answer, in words."""
_OPENING: Final = 400
"""Characters of an answer in whose sentences a phrase is looked for."""
_LITERALS: Final = ("true", "false", "null")
_NUMBER: Final = re.compile(r"-?[0-9.eE+\-]*\s*\Z")
_HELP: Final = (
    "help|assist|provide|answer|comply|fulfil|do that|do this|discuss|engage|support|create|write|generate|share|"
    "continue|offer|give|produce|participate|complete|perform|process|respond|accommodate"
)
_REFUSAL: Final = re.compile(
    r"\W*(?:(?:i(?:'m| am) (?:really |very |so |truly )?sorry|sorry|i apologi[sz]e|apologies|unfortunately)\b"
    r"[,.!:;\s\u2014\u2013-]*)?"
    r"(?:but |however,? )?(?:as an ai\b[^.!?\n]{0,60}?[,\s]+)?"
    r"i(?:(?:'m| am)(?: really| just)? (?:unable|not able|not allowed|not permitted) to"
    rf"| (?:can't|cannot|can not|won't|will not|must decline to|have to decline to))(?: \w+)?? (?:{_HELP})\b"
    r"|\W*i(?:'m| am) not comfortable\b|\W*i (?:must|have to) decline\b"
)
_UNSURE: Final = re.compile(
    r"i(?:'m| am) (?:not (?:entirely |really |quite |completely |at all )?(?:sure|certain)|unsure|uncertain)\b"
    r"|i (?:don't|do not)(?: really| actually)? know\b|i have no idea\b"
    r"|i (?:don't|do not) have (?:enough|sufficient) (?:information|context|data)\b"
    r"|i (?:can't|cannot) (?:be sure|be certain|tell for sure|say for (?:sure|certain))\b"
)
_LEAD: Final = re.compile(
    r"(?:sorry|i'm sorry|i am sorry|unfortunately|honestly|frankly|well|hmm+|to be honest)?[,:;\u2014\u2013\s-]*"
    r"(?:but )?"
)
_SENTENCE: Final = re.compile(r"(?:^|[.!?\n]\s+|\n)(?=\S)")


class Finding(NamedTuple):
    """What is wrong with an answer: of which kind, and in words for the reasons of a decision, without its text."""

    kind: Kind
    told: str


def structural(answer: Answer, wanted: Wanted, rules: Escalate) -> Finding | None:
    """What is wrong with an answer as far as its form shows; None where nothing is.

    One that calls a tool is an answer, whatever it says beside that, unless it was cut off or is a refusal.
    """
    if answer.error:
        return Finding("error", f"it began with {answer.error[:60]}")
    if answer.stop_reason == "refusal" and rules.refusals:
        return Finding("refusal", "it is a refusal (stop_reason)")
    if answer.stop_reason in _CUT and rules.truncated:
        return Finding("truncated", f"it was cut off by {_CUT[answer.stop_reason]}")
    if answer.calls or answer.stop_reason in ("tool_use", "pause_turn"):
        return None
    if asks_json(wanted, rules):
        return _json(answer, wanted, rules) if answer.whole else _json_begins(answer, wanted)
    return _phrases(answer.text, rules)


def asks_json(wanted: Wanted, rules: Escalate) -> bool:
    """Whether the text of the answer must be JSON."""
    return wanted.json or rules.json or rules.schema is not None


def _json_begins(answer: Answer, wanted: Wanted) -> Finding | None:
    """Whether a beginning can be that of JSON."""
    return None if begins_as_json(wanted.begins + answer.text) else Finding("json", "it does not begin as JSON")


def begins_as_json(text: str) -> bool:
    """Whether a text may go on to be JSON, as far as its first characters say."""
    rest = text.lstrip()
    nested = False
    while rest.startswith("["):
        rest, nested = rest[1:].lstrip(), True
    if not rest or rest[0] == '"' or (nested and rest[0] == "]"):
        return True
    if rest[0] == "{":
        inside = rest[1:].lstrip()
        return not inside or inside[0] in '"}'
    if rest[0] in "-0123456789":
        return nested or _NUMBER.match(rest) is not None
    return any(rest.startswith(word) or word.startswith(rest) for word in _LITERALS)


def _json(answer: Answer, wanted: Wanted, rules: Escalate) -> Finding | None:
    try:
        value = json.loads(wanted.begins + answer.text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return Finding("json", "it is no JSON")
    given = _parsed(rules.schema) if isinstance(rules.schema, str) else None
    for schema in (wanted.schema, given):
        if schema is not None and (keyword := unmet(value, schema)):
            return Finding("schema", f"it does not meet the schema ({keyword})")
    return _confidence(value, rules)


def _confidence(value: Any, rules: Escalate) -> Finding | None:
    least = rules.min_confidence
    if least is None or not isinstance(value, dict):
        return None
    said = value.get(rules.confidence_field)
    if isinstance(said, bool) or not isinstance(said, (int, float)) or said >= least:
        return None
    return Finding("confidence", f"its confidence is under {least:g}")


def _no_constant(name: str) -> Any:
    raise ValueError(name)


@lru_cache(maxsize=64)
def _parsed(schema: str) -> Any:
    return json.loads(schema)


def _phrases(text: str, rules: Escalate) -> Finding | None:
    """A phrase that says that this is no answer, at the beginning of one of its first sentences."""
    opening = text[:_OPENING].replace("\u2019", "'").strip().casefold()
    if rules.refusals and _REFUSAL.match(opening):
        return Finding("refusal", "it begins like a refusal")
    sentences = [found.end() for found in _SENTENCE.finditer(opening)] or [0]
    if rules.unsure and any(_UNSURE.match(opening, _lead(opening, at)) for at in sentences):
        return Finding("unsure", "it says that it is not sure")
    if any(phrase.casefold().replace("\u2019", "'") in opening for phrase in rules.phrases):
        return Finding("phrase", "it has a phrase of the app's list")
    return None


def _lead(text: str, at: int) -> int:
    found = _LEAD.match(text, at)
    return found.end() if found is not None else at
