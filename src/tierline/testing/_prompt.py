"""The prompt as the model reads it: one ordered list of pieces, with their tokens.

The tokenizer is a stand-in. It counts UTF-8 bytes, at four bytes a token for Haiku 4.5 and Sonnet 4.6 and
30% more tokens for the later models, rounded up for each piece. So a text never has more tokens than bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from tierline.testing._rules import line_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tierline.testing._rules import ModelRules

BASE_TOKENS: Final = 4
"""Of every request."""
MESSAGE_TOKENS: Final = 4
"""Of every message, for its role."""
TOOL_TOKENS: Final = 12
"""Of every tool, for its frame."""
IMAGE_TOKENS: Final = 1_600
"""Of every image, whatever its size: what the API documents for one of about 1.2 megapixels."""
PDF_TOKENS: Final = 3_000
"""Of every PDF, whatever its length: what the API documents as the upper end of one page."""

Section = Literal["tools", "system", "messages"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A block of the prompt: a tool, a system block, or a block of a message."""

    section: Section
    content: str
    """Canonical JSON of the block and its role, without `cache_control`: equal blocks have equal content."""
    tokens: int
    cache_control: Mapping[str, Any] | None
    kind: str


def text_tokens(text: str, rules: ModelRules) -> int:
    """Tokens of a text; at most its UTF-8 bytes."""
    return -(-len(text.encode("utf-8", "surrogatepass")) * rules.millitokens_per_byte // 1000)


def bytes_of(tokens: int, rules: ModelRules) -> int:
    """The most UTF-8 bytes that count as no more than `tokens`."""
    return tokens * 1000 // rules.millitokens_per_byte


def canonical(value: Any) -> str:
    """JSON that is equal for equal blocks: keys sorted, nulls and `cache_control` left out."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))


def pieces(body: Mapping[str, Any], rules: ModelRules) -> list[Piece]:
    """The prompt of a valid request, in the order of the cache: tools, system, messages."""
    return list(_pieces(body, rules))


def input_tokens(parts: list[Piece]) -> int:
    """All tokens of a prompt."""
    return BASE_TOKENS + sum(part.tokens for part in parts)


def blocks_of(content: Any) -> list[dict[str, Any]]:
    """The blocks of a message's or the system's content; a string is one text block."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [block for block in content or () if isinstance(block, dict)]


def latest_text(body: Mapping[str, Any]) -> str:
    """The text of the last user message."""
    for message in reversed(body.get("messages") or ()):
        if message.get("role") == "user":
            return "\n".join(b["text"] for b in blocks_of(message.get("content")) if b.get("type") == "text")
    return ""


def _pieces(body: Mapping[str, Any], rules: ModelRules) -> Iterator[Piece]:
    for tool in body.get("tools") or ():
        content = canonical(tool)
        tokens = TOOL_TOKENS + text_tokens(content, rules)
        yield Piece("tools", content, tokens, tool.get("cache_control"), "tool")
    schema = output_schema(body)
    if schema is not None:
        # It stands before the system prompt and counts as input, so a change of it breaks the cache too.
        content = canonical(schema)
        yield Piece("system", content, text_tokens(content, rules), None, "schema")
    for block in blocks_of(body.get("system")):
        yield Piece("system", canonical(block), _tokens(block, rules), block.get("cache_control"), "text")
    for message in body["messages"]:
        role, extra = message["role"], MESSAGE_TOKENS
        for block in blocks_of(message["content"]):
            tokens = extra + _tokens(block, rules)
            content = role + canonical(block)
            yield Piece("messages", content, tokens, block.get("cache_control"), str(block.get("type")))
            extra = 0


def output_schema(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON schema that the answer must fit, from either spelling of structured outputs."""
    config = body.get("output_config")
    for wanted in (config.get("format") if isinstance(config, dict) else None, body.get("output_format")):
        if isinstance(wanted, dict) and isinstance(wanted.get("schema"), dict):
            return dict(wanted["schema"])
    return None


def _tokens(block: Mapping[str, Any], rules: ModelRules) -> int:
    match block.get("type"):
        case "text":
            return text_tokens(str(block.get("text", "")), rules)
        case "thinking":
            # What the model cannot read is dropped, silently, and costs nothing.
            dropped = line_of(block.get("signature")) in rules.unreadable
            return 0 if dropped else text_tokens(str(block.get("thinking", "")), rules)
        case "image":
            return IMAGE_TOKENS
        case "document":
            source = block.get("source") or {}
            if source.get("type") == "text":
                return text_tokens(str(source.get("data", "")), rules)
            if source.get("type") == "content":
                return sum(_tokens(inner, rules) for inner in blocks_of(source.get("content")))
            return PDF_TOKENS
        case "tool_result":
            return sum(_tokens(inner, rules) for inner in blocks_of(block.get("content")))
        case "tool_use":
            return text_tokens(str(block.get("name", "")) + canonical(block.get("input")), rules)
        case _:
            return text_tokens(canonical(block), rules)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items() if key != "cache_control" and inner is not None}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value
