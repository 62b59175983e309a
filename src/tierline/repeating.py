"""Requests that can be asked once more: text alone, and leaving nothing anywhere. No I/O."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from tierline.call import Call

MOST_BYTES: Final = 512 * 1024
"""Most bytes that the text of such a request may have."""
_TEXT: Final = ("text", "thinking", "redacted_thinking")
_ELSEWHERE: Final = ("container", "thread", "fallbacks", "mcp_servers")
"""What an answer would leave on the server, or take from another model."""


def repeatable(call: Call) -> bool:
    """Whether nothing would come of asking a request once more but an answer, and all of it is text."""
    return (
        harmless(call)
        and call.input_bound is not None
        and call.input_bound <= MOST_BYTES
        and all(isinstance(turn, dict) and _is_text(turn.get("content")) for turn in call.body["messages"])
    )


def harmless(call: Call) -> bool:
    """Whether nothing would come of sending a request twice but two answers, whatever it is made of."""
    body = call.body
    tools = body.get("tools")
    return (
        call.rounds == 1
        and not call.unbounded
        and not any(body.get(name) for name in _ELSEWHERE)
        # Tools of the app are asked for in an answer; whatever else there is, the API would use itself.
        and isinstance(tools, (list, tuple, type(None)))
        and all(isinstance(t, dict) and t.get("type", "custom") == "custom" for t in (tools or ()))
    )


def snapshot(call: Call) -> bytes:
    """A request as it is now, as JSON: the app may change what it is made of. Errors as for `json.dumps`.

    It is not streamed, and has no marks for the prompt cache: to write there costs more, and nobody would read it.
    """
    body = {name: value for name, value in call.body.items() if name not in ("stream", "cache_control")}
    for name in ("system", "tools"):
        if name in body:
            body[name] = _unmarked(body[name])
    body["messages"] = [{**turn, "content": _unmarked(turn["content"])} for turn in body["messages"]]
    return json.dumps(body).encode()


def _unmarked(listed: Any) -> Any:
    if not isinstance(listed, list):
        return listed
    return [{name: value for name, value in each.items() if name != "cache_control"} for each in listed]


def _is_text(content: object) -> bool:
    return isinstance(content, str) or (
        isinstance(content, list) and all(isinstance(b, dict) and b.get("type") in _TEXT for b in content)
    )
