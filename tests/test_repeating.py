"""Which requests can be asked once more, and as what."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest

from tierline.call import read_call
from tierline.repeating import repeatable, snapshot

ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "Why?"}]}


@pytest.mark.parametrize(
    "changes",
    [
        {"thread": {"type": "stored"}}, {"container": "c1"}, {"mcp_servers": [{"url": "https://x"}]},
        {"fallbacks": "default"},
        {"fallbacks": [{"model": "claude-sonnet-5-5"}]}, {"max_tokens": True},
        {"tools": [{"type": "bash_20250124", "name": "bash"}]},
        {"tools": ["x"]}, {"messages": ["x"]}, {"messages": [{"role": "user", "content": 3}]},
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "x"}]}]},
        {"messages": [{"role": "user", "content": "x" * 600_000}]},
        {"messages": [{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "https://x"}}]}]},
    ],
)  # fmt: skip
def test_requests_that_cannot_be_asked_again(changes: dict[str, Any]) -> None:
    """What the server keeps, what it may do itself, and what is no text or too much of it."""
    call = read_call("create", {**ASK, **changes})
    assert call is not None
    assert not repeatable(call)
    plain = read_call("create", ASK)
    assert plain is not None
    assert repeatable(plain)


def test_a_snapshot() -> None:
    """The request without its stream and its marks, and the app keeps its own; what is no JSON is an error."""
    mark = {"cache_control": {"type": "ephemeral"}}
    tool = {"name": "t", "input_schema": {"properties": {"cache_control": {"type": "string"}}}}
    said = [{"type": "text", "text": "Why?"}]
    marked = {
        **ASK, **mark, "stream": True, "system": [{"type": "text", "text": "s", **mark}], "tools": [{**tool, **mark}],
        "messages": [{"role": "user", "content": [{**said[0], **mark}]}, {"role": "assistant", "content": "Because."}],
    }  # fmt: skip
    before = deepcopy(marked)
    call = read_call("create", marked)
    assert call is not None
    assert json.loads(snapshot(call)) == {
        **ASK, "system": [{"type": "text", "text": "s"}], "tools": [tool],
        "messages": [{"role": "user", "content": said}, {"role": "assistant", "content": "Because."}],
    }  # fmt: skip
    assert marked == before
    odd = read_call("create", {**ASK, "metadata": object()})
    assert odd is not None
    with pytest.raises(TypeError):
        snapshot(odd)
