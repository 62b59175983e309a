"""A message as its server-sent events, one by one, with the output tokens that each has brought."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tierline.testing._answer import Draft

_DELTA_CHARS: Final = 16
"""Characters of an ordinary delta: a few tokens, as the API sends them."""
_MOST_DELTAS: Final = 400
"""Of one block; longer blocks come in larger deltas."""
_DELTA_USAGE: Final = (
    "input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens",
    "output_tokens_details", "server_tool_use",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """One event and the output tokens that are generated when it has been sent."""

    data: Mapping[str, Any]
    tokens: int


def encode(data: Mapping[str, Any]) -> bytes:
    """One event of the stream; its name is its type."""
    return f"event: {data['type']}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


def events(message: Mapping[str, Any], draft: Draft) -> Iterator[Event]:
    """The events of a message. Together they say exactly what its JSON says."""
    usage = message.get("usage")
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    if usage is not None:
        # What was generated when the first event goes out: the split by TTL stands only here.
        shown = {key: value for key, value in usage.items() if key not in ("output_tokens_details", "server_tool_use")}
        start["usage"] = {**shown, "output_tokens": min(1, usage["output_tokens"])}
    spent = 0
    yield Event({"type": "message_start", "message": start}, min(1, draft.output_tokens))
    for index, (block, tokens) in enumerate(draft.blocks):
        yield Event({"type": "content_block_start", "index": index, "content_block": _empty(block)}, max(1, spent))
        if index == 0:
            yield Event({"type": "ping"}, max(1, spent))
        deltas = list(_deltas(block))
        for number, delta in enumerate(deltas, start=1):
            so_far = min(spent + tokens * number // len(deltas), draft.output_tokens)
            yield Event({"type": "content_block_delta", "index": index, "delta": delta}, max(1, so_far))
        spent = min(spent + tokens, draft.output_tokens)
        yield Event({"type": "content_block_stop", "index": index}, max(1, spent))
    end: dict[str, Any] = {
        "type": "message_delta",
        "delta": {key: message[key] for key in ("stop_reason", "stop_sequence", "stop_details") if key in message},
    }
    if usage is not None:
        end["usage"] = {key: usage[key] for key in _DELTA_USAGE if key in usage}
    yield Event(end, draft.output_tokens)
    yield Event({"type": "message_stop"}, draft.output_tokens)


def _empty(block: Mapping[str, Any]) -> dict[str, Any]:
    match block["type"]:
        case "thinking":
            return {**block, "thinking": "", "signature": ""}
        case "tool_use":
            return {**block, "input": {}}
        case "text":
            return {**block, "text": ""}
        case _:
            return dict(block)  # such as the results of a search: they come whole


def _deltas(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    match block["type"]:
        case "thinking":
            yield from ({"type": "thinking_delta", "thinking": part} for part in _parts(block["thinking"]))
            if block.get("signature"):
                yield {"type": "signature_delta", "signature": block["signature"]}
        case "tool_use":
            yield {"type": "input_json_delta", "partial_json": ""}
            text = json.dumps(block["input"], ensure_ascii=False)
            yield from ({"type": "input_json_delta", "partial_json": part} for part in _parts(text))
        case "text":
            yield from ({"type": "text_delta", "text": part} for part in _parts(block["text"]))
        case _:
            return


def _parts(text: str) -> Iterator[str]:
    size = max(_DELTA_CHARS, -(-len(text) // _MOST_DELTAS))
    yield from (text[start : start + size] for start in range(0, len(text), size))
