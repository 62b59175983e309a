"""Every stream is the JSON answer, cut in pieces: read back by the SDK itself."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tierline.testing import FakeClaude, Reply
from tierline.testing._answer import Draft
from tierline.testing._rules import MODELS
from tierline.testing._sse import events

TOOL = {"name": "look", "input_schema": {"type": "object"}}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
REPLIES = st.builds(
    Reply,
    text=st.none() | st.text(max_size=200) | st.just("event: error\ndata: {}\n\n\r\u2028:"),
    tool=st.none() | st.just("look"),
    input=st.dictionaries(st.text(), JSON, max_size=3),
    thinking=st.none() | st.text(max_size=100),
    stop_reason=st.none() | st.sampled_from(["refusal", "pause_turn"]),
    output_tokens=st.none() | st.integers(1, 5_000),
    web_searches=st.integers(0, 2),
)


def comparable(message: Any) -> Any:
    found = message.model_dump()
    found.pop("id")
    for block in found["content"]:
        block.pop("id", None)
    return found


@settings(deadline=None, max_examples=60)
@given(REPLIES, st.sampled_from(sorted(MODELS)), st.integers(1, 400), st.booleans())
def test_a_stream_is_its_json(reply: Reply, model: str, max_tokens: int, stop: bool) -> None:
    """Whatever is said, in whatever room, the SDK reads the same message from both."""
    fake = FakeClaude(answer=lambda received: reply)
    ask: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Hello"}],
        "tools": [TOOL],
    }
    if stop:
        ask["stop_sequences"] = ["a", "b"]

    async def both() -> tuple[Any, Any]:
        async with fake.client() as client:
            plain = await client.messages.create(**ask)
            async with client.messages.stream(**ask) as stream:
                return comparable(plain), comparable(await stream.get_final_message())

    plain, streamed = asyncio.run(both())
    assert streamed == plain
    one, two = fake.requests
    assert (one.usage, one.billed, one.stop_reason) == (two.usage, two.billed, two.stop_reason)
    assert plain["usage"]["output_tokens"] <= max_tokens


def test_tokens_only_grow_and_long_blocks_come_in_larger_pieces() -> None:
    """The count of each event is between those of its neighbours, and no block has more than 400 deltas or so."""
    draft = Draft([({"type": "text", "text": "x" * 100_000}, 25_000)], output_tokens=25_000)
    message = {"content": [], "usage": {"output_tokens": 25_000}, "stop_reason": "end_turn"}
    found = list(events(message, draft))
    counts = [event.tokens for event in found]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (1, 25_000)
    assert 300 < len(found) < 420
