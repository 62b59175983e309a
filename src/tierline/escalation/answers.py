"""An answer as it is checked: what it says, how it ends, and what its request wants of it. No I/O."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tierline.veil import veiled

if TYPE_CHECKING:
    from collections.abc import Mapping


class Answer(NamedTuple):
    """An answer, or the beginning of one. Its text is in no repr.

    `calls` says that it calls a tool, or that a tool of the API's own is at work. `error` is the type of an error that
    came in the place of the answer, and `whole` says that it has come to its end.
    """

    text: str
    stop_reason: str | None = None
    calls: bool = False
    whole: bool = True
    error: str = ""

    def __repr__(self) -> str:
        return f"<Answer {len(self.text)} characters, {self.stop_reason}>"


@veiled("schema", "begins")
class Wanted(NamedTuple):
    """What a request says of the form of its answer: whether that is JSON, its schema, and how its text begins.

    `begins` is what the app wrote of the answer already (a prefill).
    """

    json: bool = False
    schema: Mapping[str, Any] | None = None
    begins: str = ""


def wanted_by(body: Mapping[str, Any]) -> Wanted:
    """Read it off a Messages request. Never raises."""
    config = body.get("output_config")
    schema = None
    asked = False
    for form in (config.get("format") if isinstance(config, dict) else None, body.get("output_format")):
        if isinstance(form, dict) and form.get("type") == "json_schema":
            asked, schema = True, form.get("schema")
            break
    messages = body.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    begun = isinstance(last, dict) and last.get("role") == "assistant"
    return Wanted(asked, schema if isinstance(schema, dict) else None, _text_in(last.get("content")) if begun else "")  # type: ignore[union-attr]


def _text_in(content: object) -> str:
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "".join(b["text"] for b in blocks if isinstance(b, dict) and isinstance(b.get("text"), str))


def read_answer(document: bytes) -> Answer | None:
    """The answer in a message, as the API sends one whole; None where that is none."""
    try:
        message = json.loads(document)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return None
    reason = message.get("stop_reason")
    blocks = [block for block in message["content"] if isinstance(block, dict)]
    text = "".join(b["text"] for b in blocks if b.get("type") == "text" and isinstance(b.get("text"), str))
    return Answer(text, reason if isinstance(reason, str) else None, any(is_call(b.get("type")) for b in blocks))


def is_call(kind: object) -> bool:
    """Whether a block of this type calls a tool, of the app or of the API."""
    return isinstance(kind, str) and kind.endswith("tool_use")
