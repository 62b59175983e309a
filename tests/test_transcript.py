"""The text of an answer, however it came."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.testing import _eventstream
from tierline.transcript import (
    MOST_BYTES,
    KeptEventStream,
    KeptStream,
    KeptWhole,
    keeping,
    plain_text,
    streamed_text,
    text_in,
)
from tierline.usage import EventStreamReader, StreamReader, WholeReader
from tierline.values import Terms

if TYPE_CHECKING:
    from collections.abc import Sequence

ASKED = Terms()
TEXT = {"type": "text", "text": ""}


def events_of(*deltas: str, reason: str | None = "end_turn", blocks: Sequence[dict[str, Any]] = (TEXT,)) -> list[Any]:
    last = len(blocks) - 1
    return [
        {"type": "message_start", "message": {"id": "msg_1", "usage": {"input_tokens": 3, "output_tokens": 1}}},
        *({"type": "content_block_start", "index": n, "content_block": block} for n, block in enumerate(blocks)),
        *({"type": "content_block_delta", "index": last, "delta": {"type": "text_delta", "text": d}} for d in deltas),
        {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]


def sse(events: list[Any], end: str = "\n") -> bytes:
    return "".join(f"event: {e['type']}{end}data: {json.dumps(e)}{end}{end}" for e in events).encode()


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({min(place, len(data)) for place in at})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(st.lists(st.text(min_size=1), min_size=1), st.lists(st.integers(0, 3_000)), st.sampled_from(["\n", "\r\n"]))
def test_a_stream_cut_anywhere(deltas: list[str], at: list[int], end: str) -> None:
    """The text of a stream is that of its deltas, wherever its bytes are cut, and its usage is read as ever."""
    kept, plain = KeptStream(ASKED), StreamReader(ASKED)
    for chunk in cut(sse(events_of(*deltas), end), at):
        kept.feed(chunk)
        plain.feed(chunk)
    assert (kept.seen, kept.final, kept.cut_bound) == (plain.seen, plain.final, plain.cut_bound)
    assert plain.final
    whole = "".join(deltas)
    assert kept.text() == (whole if whole.strip() else None)


@given(st.lists(st.text(min_size=1), min_size=1), st.lists(st.integers(0, 3_000)))
def test_a_stream_of_bedrock(deltas: list[str], at: list[int]) -> None:
    """The same for binary frames."""
    data = b"".join(_eventstream.encode(event) for event in events_of(*deltas))
    kept = KeptEventStream(ASKED)
    for chunk in cut(data, at):
        kept.feed(chunk)
    assert kept.final
    whole = "".join(deltas)
    assert kept.text() == (whole if whole.strip() else None)


THOUGHT = {"type": "thinking", "thinking": "hm", "signature": "s"}
TOOL = {"type": "tool_use", "id": "t", "name": "search", "input": {}}


@pytest.mark.parametrize(
    ("events", "text"),
    [
        (events_of("a", "b"), "ab"),
        (events_of("a", blocks=[THOUGHT, TEXT]), "a"),
        (events_of("a", reason="stop_sequence"), "a"),
        (events_of("a", reason="max_tokens"), None),
        (events_of("a", reason="refusal"), None),
        (events_of("a", reason="tool_use", blocks=[TOOL, TEXT]), None),
        (events_of("a", blocks=[{"type": "server_tool_use"}, TEXT]), None),
        (events_of("a", reason=None), None),
        (events_of(" \n"), None),
        (events_of("a")[:-1], None),
        (events_of("a")[1:], "a"),
        ([*events_of("a")[:1], *events_of("a")[2:]], None),
        ([3, *events_of("a")], None),
    ],
)
def test_which_streams_are_plain_answers(events: list[Any], text: str | None) -> None:
    """Only one that came to its end by itself, with text and thoughts alone."""
    assert streamed_text(json.dumps(event).encode() for event in events) == text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": [THOUGHT, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        ({"content": [{"type": "text", "text": "a"}, TOOL]}, None),
        ({"content": [{"type": "text", "text": "a"}], "stop_reason": "max_tokens"}, None),
        ({"content": [{"type": "text", "text": 3}]}, None),
        ({"content": ["a"]}, None),
        ({"content": "a"}, None),
        ({"content": []}, None),
        ([], None),
    ],
)
def test_which_whole_answers_are_plain(message: Any, text: str | None) -> None:
    """The same of an answer that came whole, in three ways to read it."""
    if isinstance(message, dict):
        message = {"stop_reason": "end_turn"} | message
    raw = json.dumps(message).encode()
    assert text_in(raw) == text
    kept = KeptWhole(ASKED)
    for byte in raw:
        kept.feed(bytes([byte]))
    assert kept.text() == text


def test_no_document() -> None:
    """Half of an answer, and none, has no text."""
    assert text_in(b'{"content": [') is None
    assert plain_text(None) is None
    assert plain_text(object()) is None


def test_too_long() -> None:
    """Of an answer past the bound nothing is kept, and its usage is read all the same."""
    events = events_of("x" * MOST_BYTES)
    kept = KeptStream(ASKED)
    for chunk in cut(sse(events), list(range(0, MOST_BYTES, 10_000))):
        kept.feed(chunk)
    assert (kept.text(), kept.final) == (None, True)
    whole = KeptWhole(ASKED)
    whole.feed(
        json.dumps({"stop_reason": "end_turn", "content": [{"type": "text", "text": "x" * MOST_BYTES}]}).encode()
    )
    assert whole.text() is None


def test_the_same_kind_of_reader() -> None:
    """What keeps an answer reads it as what it takes the place of."""
    for reader in (StreamReader, EventStreamReader, WholeReader):
        kept = keeping(reader(ASKED), ASKED)
        assert isinstance(kept, reader)
        assert isinstance(kept, EventStreamReader) is (reader is EventStreamReader)


def test_a_text_is_given_once() -> None:
    """What was read is let go of."""
    kept = KeptStream(ASKED)
    kept.feed(sse(events_of("a")))
    assert (kept.text(), kept.text()) == ("a", None)
