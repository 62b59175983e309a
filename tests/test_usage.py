from __future__ import annotations

import json
import struct
import zlib
from base64 import b64encode
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierline.testing import _eventstream
from tierline.usage import (
    LONGEST_FRAME,
    MOST_BUFFERED,
    EventStreamReader,
    Metered,
    StreamReader,
    WholeReader,
    at_cut,
    decoder_for,
    metered,
    reader_for,
)
from tierline.values import REGIONAL, Terms, Usage

if TYPE_CHECKING:
    import random

ASKED = Terms()
START = {
    "input_tokens": 25,
    "output_tokens": 1,
    "cache_creation_input_tokens": 30,
    "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    "cache_read_input_tokens": 7,
}


def frame(kind: str, **data: Any) -> bytes:
    text = json.dumps({"type": kind, **data}, separators=(",", ":"), ensure_ascii=False)
    return f"event: {kind}\ndata: {text}\n\n".encode()


def start(usage: Any = None) -> bytes:
    return frame("message_start", message={"id": "msg_1", "usage": START if usage is None else usage})


def delta(text: str) -> bytes:
    return frame("content_block_delta", index=0, delta={"type": "text_delta", "text": text})


def end(usage: Any = None) -> bytes:
    return frame("message_delta", delta={"stop_reason": "end_turn"}, usage=usage or {"output_tokens": 90})


STOP = frame("message_stop")
PING = frame("ping")
ERROR = frame("error", error={"type": "overloaded_error", "message": "Overloaded"})


def state(reader: StreamReader) -> tuple[Any, ...]:
    return reader.seen, reader.final, reader.error, reader.cut_bound


def read(data: bytes, cuts: list[int] | None = None) -> StreamReader:
    reader = StreamReader(ASKED)
    places = [0, *sorted(c % (len(data) + 1) for c in cuts or []), len(data)]
    for a, b in pairwise(places):
        reader.feed(data[a:b])
    return reader


# Answers that talk about the very things that are looked for.
tricky = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.lists(
        st.sampled_from([
            '"usage"', '"usage":{"output_tokens":5}', "event: error", "event: content_block_delta", "\n\n",
            "\r\n\r\n",
            'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":0}}\n\n', "data: [DONE]",
            "\\",
        ]),
        max_size=6,
    ).map("".join),
)  # fmt: skip
extras = st.one_of(
    tricky.map(delta),
    st.just(PING),
    tricky.map(lambda t: frame("some_news", usage={"output_tokens": 10**6}, text=t)),
    tricky.map(lambda t: frame("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": t})),
    tricky.map(
        lambda t: frame("content_block_start", index=2, content_block={"type": "tool_use", "input": {"usage": t}})
    ),
    st.just(b": a comment\n\n"),
    st.just(b"event: message_delta\ndata: {\n\n"),
    st.just(b'data: [1, "usage"]\n\n'),
)
endings = st.sampled_from([b"", end(), end() + STOP, ERROR, end() + ERROR, b"event: message_delta\ndata: {"])


@settings(max_examples=150)
@given(st.lists(extras, max_size=8), endings, st.lists(st.integers(0, 10**6), max_size=12), st.booleans())
def test_any_cut_reads_the_same(middle: list[bytes], ending: bytes, cuts: list[int], crlf: bool) -> None:
    """However a stream is cut into chunks, with either line break, the same is read from it."""
    data = start() + b"".join(middle) + ending
    whole = state(read(data))
    if crlf:
        data = data.replace(b"\n", b"\r\n")
    assert state(read(data, cuts)) == whole


@settings(max_examples=40)
@given(st.lists(extras, max_size=3), endings)
def test_byte_by_byte(middle: list[bytes], ending: bytes) -> None:
    """A stream that comes in single bytes, with CRLF, is read as one that comes at once."""
    data = start() + b"".join(middle) + ending
    crlf = data.replace(b"\n", b"\r\n")
    assert state(read(crlf, list(range(len(crlf))))) == state(read(data))


@given(st.lists(extras, max_size=8), st.randoms(use_true_random=False))
def test_unknown_events_change_nothing(middle: list[bytes], dice: random.Random) -> None:
    """Events that say nothing of usage, in any order, leave what is read alone."""
    bare = read(start() + end() + STOP)
    dice.shuffle(middle)
    found = read(start() + b"".join(middle) + end() + STOP)
    assert (found.seen, found.final, found.error) == (bare.seen, True, "")
    assert found.seen == Metered(Usage(25, 90, 10, 20, 7), Terms(geo="global"), "msg_1", "end_turn")


@given(st.lists(tricky, min_size=1, max_size=8), st.lists(st.integers(0, 10**6), max_size=6))
def test_the_bound_of_a_cut(said: list[str], cuts: list[int]) -> None:
    """A stream that is cut is bounded by no less than the bytes of content that passed, and not by much more."""
    data = start() + b"".join(map(delta, said))
    reader = read(data, cuts)
    passed = sum(len(json.dumps(text, ensure_ascii=False).encode()) - 2 for text in said)
    assert not reader.final
    assert passed <= reader.cut_bound <= passed + 12 * len(said)  # type: ignore[operator]
    assert reader.cut_bound >= sum(len(text.encode()) for text in said)  # type: ignore[operator]


@given(tricky, st.integers(0, 10**6))
def test_the_bound_of_a_cut_in_a_frame(said: str, cut: int) -> None:
    """Content that came in a frame which is not whole counts too: it was generated, and is billed."""
    last = delta(said)
    cut %= len(last)
    reader = read(start() + delta("x" * 500) + last[:cut])
    assert reader.cut_bound is not None
    begin, end = last.index(b'"text":"') + len(b'"text":"'), len(last) - len(b'"}}\n\n')
    passed = max(0, min(cut, end) - begin)
    assert 500 + passed <= reader.cut_bound <= 500 + passed + 20


def test_one_chunk_is_bounded_too() -> None:
    """Content that comes in one chunk with the start of the message is not forgotten."""
    reader = read(start() + delta("x" * 500))
    assert reader.cut_bound is not None
    assert 500 <= reader.cut_bound <= 520


def test_an_answer_about_streaming_is_not_free() -> None:
    """A model that is asked to repeat the words of the protocol does not lower its own bound."""
    said = "event: content_block_delta " * 100
    assert read(start() + delta(said)).cut_bound >= len(said)  # type: ignore[operator]


def test_split_of_cache_writes_survives_the_end() -> None:
    """The last usage has no split of cache writes by lifetime: the one of the start holds."""
    reader = read(start() + end({"output_tokens": 3, "cache_creation_input_tokens": 50, "input_tokens": None}))
    assert reader.seen is not None
    assert reader.seen.usage == Usage(25, 3, 30, 20, 7)


@pytest.mark.parametrize(
    "bad", [{"output_tokens": -5}, {"output_tokens": "5"}, {"output_tokens": 1.5}, {"x": 1}, [], 5]
)
def test_an_end_that_counts_nothing(bad: Any) -> None:
    """An end without a usable number is no end: what was seen before stays."""
    usage = START if bad != {"x": 1} else {k: v for k, v in START.items() if k != "output_tokens"}
    reader = read(start(usage) + delta("abc") + frame("message_delta", usage=bad))
    assert not reader.final
    assert reader.seen == metered(usage, ASKED, "msg_1")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (ERROR, "overloaded_error"),
        (frame("error", error="no object"), "error"),
        (frame("error"), "error"),
        (frame("error", error={"type": "x" * 500}), "x" * 60),
        (frame("error", error={"type": ["a"]}), "error"),
    ],
)
def test_an_error_in_mid_stream(data: bytes, error: str) -> None:
    """The type of an error is told, in at most 60 characters, and ends nothing."""
    reader = read(start() + data)
    assert (reader.error, reader.final) == (error, False)


def test_nonsense_is_passed_over() -> None:
    """Frames that are no JSON, too deep or of another shape leave no trace."""
    deep = b'event: message_delta\ndata: {"usage":' + b"[" * 100_000 + b"\n\n"
    for data in (deep, b'event: x\ndata: "usage" \xff\n\n', b'data: {"type":"message_start","message":"usage"}\n\n'):
        reader = read(data)
        assert (reader.seen, reader.final, reader.error) == (None, False, "")


numbers = st.one_of(st.integers(-3, 50), st.sampled_from([None, True, 1.0, "5", [], 10**400, float("nan")]))
raw_usages = st.fixed_dictionaries(
    {"input_tokens": numbers, "output_tokens": numbers},
    optional={
        "cache_creation_input_tokens": numbers,
        "cache_read_input_tokens": numbers,
        "cache_creation": st.one_of(numbers, st.fixed_dictionaries({"ephemeral_1h_input_tokens": numbers})),
        "server_tool_use": st.one_of(numbers, st.fixed_dictionaries({"web_search_requests": numbers})),
        "service_tier": st.sampled_from(["standard", "batch", None, 5]),
        "speed": st.sampled_from(["fast", "standard", None, 5]),
        "inference_geo": st.sampled_from(["us", "global", "not_available", None, 5]),
    },
)


@settings(max_examples=200)
@given(raw_usages)
def test_metered_is_whole_or_nothing(raw: dict[str, Any]) -> None:
    """Usage is taken only where every number in it is whole and at least 0, and then nothing of it is lost."""
    found = metered(raw, ASKED)
    split = raw.get("cache_creation")
    tools = raw.get("server_tool_use")
    optional = [raw.get("cache_creation_input_tokens"), raw.get("cache_read_input_tokens")]
    optional.append(split.get("ephemeral_1h_input_tokens") if isinstance(split, dict) else None)
    optional.append(tools.get("web_search_requests") if isinstance(tools, dict) else None)
    usable = [type(n) is int and 0 <= n <= 10**9 for n in (raw["input_tokens"], raw["output_tokens"])]
    usable += [n is None or (type(n) is int and 0 <= n <= 10**9) for n in optional]
    if not all(usable):
        assert found is None
        return
    written, read_, long, searches = (n or 0 for n in optional)
    if long > written:
        assert found is None
        return
    assert found is not None
    assert found.usage == Usage(raw["input_tokens"], raw["output_tokens"], written - long, long, read_, searches)
    assert found.terms.batch == (raw.get("service_tier") == "batch")
    assert found.terms.fast == (raw.get("speed") == "fast")


@pytest.mark.parametrize(
    ("answer", "asked", "terms"),
    [
        ({}, Terms(), Terms(geo="global")),
        ({}, Terms(fast=True, geo="us"), Terms(fast=True, geo="us")),
        ({"inference_geo": "us"}, Terms(geo="global"), Terms(geo="us")),
        ({"speed": "standard"}, Terms(fast=True), Terms(geo="global")),
    ],
)
def test_the_terms_of_the_answer_go_first(answer: dict[str, Any], asked: Terms, terms: Terms) -> None:
    """What the answer says of speed and place is billed; the request stands in for what it leaves out."""
    found = metered({"input_tokens": 1, "output_tokens": 1, **answer}, asked)
    assert found is not None
    assert found.terms == terms


@given(st.lists(st.integers(0, 200), max_size=5))
def test_whole_answers(cuts: list[int]) -> None:
    """A whole answer is read at its end, however it was cut, and not before."""
    data = json.dumps({"id": "m", "usage": {"input_tokens": 3, "output_tokens": 4}}).encode()
    reader = WholeReader(ASKED)
    places = [0, *sorted(c % len(data) for c in cuts), len(data)]
    for a, b in pairwise(places):
        assert not reader.final
        reader.feed(data[a:b])
    assert reader.final
    assert reader.seen is not None
    assert reader.seen.usage == Usage(3, 4)
    assert reader.cut_bound is None


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b'{"usage":{"input_tokens":3', b"[" * 100_000, b"5", b'{"usage": 5}', b"\xff", b"{}"]
)
def test_whole_answers_that_cannot_be_read(data: bytes) -> None:
    """Neither nonsense nor truncation raises or counts."""
    reader = WholeReader(ASKED)
    reader.feed(data)
    assert reader.seen is None
    assert not reader.final


def test_a_huge_answer_is_not_kept() -> None:
    """Past the bound nothing more is buffered, and nothing is read out of a part."""
    reader = WholeReader(ASKED)
    piece = b" " * (MOST_BUFFERED // 4)
    for _ in range(5):
        reader.feed(piece)
    reader.feed(b'{"usage":{"input_tokens":3,"output_tokens":4}}')
    assert reader.seen is None
    assert sum(map(len, reader._parts)) <= MOST_BUFFERED


@pytest.mark.parametrize("encoding", ["", "identity", "gzip", "GZIP", " gzip ", "x-gzip", "deflate"])
def test_decoders(encoding: str) -> None:
    """What can be undone is undone, in any chunks; the name may be written in any case."""
    decode = decoder_for(encoding)
    assert decode is not None
    data = b"abc" * 1_000
    bits = zlib.MAX_WBITS | 16 if "gzip" in encoding.lower() else zlib.MAX_WBITS
    packer = zlib.compressobj(wbits=bits)
    sent = packer.compress(data) + packer.flush() if encoding not in ("", "identity") else data
    assert b"".join(decode(sent[i : i + 7]) for i in range(0, len(sent), 7)) == data


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, deflate", "odd"])
def test_no_decoder(encoding: str) -> None:
    """What cannot be undone is said so, and not guessed."""
    assert decoder_for(encoding) is None


@given(st.integers(0, 100), st.integers(0, 100))
def test_at_cut(seen: int, passed: int) -> None:
    """A cut answer has at least the output that was seen, and everything else as it was."""
    before = Metered(Usage(5, seen, 1, 2, 3, 4), Terms(geo="us"))
    assert at_cut(before, passed) == Metered(Usage(5, max(seen, passed), 1, 2, 3, 4), Terms(geo="us"))


def test_iterations_of_others_cannot_be_priced() -> None:
    """Usage whose sums leave something out is no usage: the reservation is charged."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    assert metered({**usage, "iterations": [{"type": "message"}]}, Terms()) is not None
    assert metered({**usage, "iterations": [{"type": "compaction"}]}, Terms()) is None
    assert metered({**usage, "iterations": ["odd"]}, Terms()) is None


# The event stream of AWS


def packed(data: bytes) -> bytes:
    """The events of a stream as Bedrock frames them."""
    texts = [line[5:] for line in data.split(b"\n") if line.startswith(b"data:")]
    return b"".join(_eventstream.encode(json.loads(text)) for text in texts)


def read_packed(data: bytes, cuts: list[int] | None = None) -> EventStreamReader:
    reader = EventStreamReader(ASKED)
    places = [0, *sorted(c % (len(data) + 1) for c in cuts or []), len(data)]
    for a, b in pairwise(places):
        reader.feed(data[a:b])
    return reader


@settings(max_examples=200)
@given(
    st.lists(st.text(max_size=40).map(delta) | st.just(PING), max_size=8),
    st.sampled_from([b"", end(), end() + STOP]),
    st.lists(st.integers(0, 10_000), max_size=6),
)
def test_frames_say_what_events_say(middle: list[bytes], ending: bytes, cuts: list[int]) -> None:
    """Wherever it is cut, a stream of frames has the usage of the same events."""
    data = b"".join([start(), *middle, ending])
    plain, framed = read(data), read_packed(packed(data), cuts)
    assert (framed.seen, framed.final, framed.error) == (plain.seen, plain.final, plain.error)


@given(st.lists(st.text(max_size=60), max_size=8), st.integers(0, 10_000))
def test_the_bound_of_a_cut_in_frames(said: list[str], cut: int) -> None:
    """A cut stream of frames is bounded by at least the bytes of the text that passed."""
    frames = [packed(start()), *(packed(delta(text)) for text in said)]
    data = b"".join(frames)[: max(len(frames[0]), cut)]
    whole, size = 0, len(frames[0])
    for text, frame in zip(said, frames[1:], strict=True):
        size += len(frame)
        whole += len(text.encode()) if size <= len(data) else 0
    reader = read_packed(data)
    assert reader.cut_bound is not None
    assert reader.cut_bound >= whole


def test_an_exception_in_mid_stream() -> None:
    """An exception of Bedrock has its name, and is no usage."""
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}
    reader = read_packed(packed(start() + delta("Hi")) + _eventstream.encode(error))
    assert (reader.error, reader.final) == ("throttlingException", False)
    assert reader.seen is not None


@settings(max_examples=200)
@given(st.binary(max_size=200), st.booleans())
def test_frames_that_are_none(noise: bytes, begun: bool) -> None:
    """Noise is never usage and never an error of ours; its bytes count as content."""
    before = packed(start()) if begun else b""
    reader = read_packed(before + noise)
    assert reader.cut_bound is not None
    assert reader.cut_bound + 16 >= len(noise)
    assert not reader.final


def test_a_frame_without_an_event() -> None:
    """A payload that is no event of ours counts as content."""
    reader = read_packed(_eventstream._frame({":message-type": "event"}, {"p": "x" * 50}))
    assert (reader.seen, reader.final) == (None, False)
    assert reader.cut_bound is not None
    assert reader.cut_bound >= 50


@pytest.mark.parametrize(
    ("kind", "reader"),
    [
        ("text/event-stream; charset=utf-8", StreamReader),
        ("application/vnd.amazon.eventstream", EventStreamReader),
        ("application/json", WholeReader),
        ("", WholeReader),
    ],
)
def test_reader_for(kind: str, reader: type) -> None:
    """The type of an answer says how its usage is read."""
    assert type(reader_for(kind, ASKED)) is reader


def test_a_region_is_in_no_answer() -> None:
    """That the endpoint is a regional one holds whatever the answer says of where it ran."""
    found = metered({"input_tokens": 1, "output_tokens": 1, "inference_geo": "not_available"}, Terms(geo=REGIONAL))
    assert found is not None
    assert found.terms.geo == REGIONAL


@pytest.mark.parametrize("said", [b"event: message_stop", b"\n\nevent: message_stop\n\n", b"hi"])
@pytest.mark.parametrize("crlf", [False, True])
@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_a_stream_that_is_cut(said: bytes, size: int, *, crlf: bool) -> None:
    """A stream is cut unless its end passed, wherever it is cut into chunks; what the model says is no end."""
    body = start({}) + delta(said.decode()) + frame("message_delta", delta={})
    for text, cut in ((body, True), (body + STOP, False), (body + STOP[:-2], False), (body + STOP + PING, False)):
        sent = text.replace(b"\n", b"\r\n") if crlf else text
        reader = StreamReader(ASKED)
        assert not reader.cut
        for at in range(0, len(sent), size):
            reader.feed(sent[at : at + size])
        assert (reader.cut, reader.final) == (cut, False)


def test_a_stream_of_bedrock_that_is_cut() -> None:
    """The same of binary frames."""
    reader = EventStreamReader(ASKED)
    for kind, cut in (("message_start", True), ("content_block_delta", True), ("message_stop", False)):
        reader.feed(_eventstream.encode({"type": kind}))
        assert reader.cut is cut


def test_a_binary_stream_that_is_none_is_not_taken_up_again() -> None:
    """What follows on nonsense counts as content, however it is cut: no usage is read out of the middle of it."""
    whole, pieces = (reader_for("application/vnd.amazon.eventstream", Terms()) for _ in range(2))
    payload = json.dumps({"bytes": b64encode(b'{"type":"message_stop"}').decode()}).encode()
    frame = struct.pack(">III", len(payload) + 16, 0, 0) + payload + b"\0\0\0\0"
    whole.feed(b"x" * 20 + frame)
    for part in (b"x" * 20, frame):
        pieces.feed(part)
    assert (whole.cut, whole.cut_bound) == (pieces.cut, pieces.cut_bound) == (True, 20 + len(frame))


def test_a_stream_of_one_delta_is_cut() -> None:
    """However it comes."""
    delta = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0}\n\n'
    for size in (1, len(delta)):
        reader = reader_for("text/event-stream", Terms())
        for at in range(0, len(delta), size):
            reader.feed(delta[at : at + size])
        assert reader.cut


def test_an_event_without_an_end() -> None:
    """An event that never ends is not kept, and all of it counts."""
    reader = StreamReader(ASKED)
    for _ in range(5):
        reader.feed(b"event: content_block_delta\ndata: " + b"x" * LONGEST_FRAME)
    assert len(reader._tail) <= LONGEST_FRAME
    assert (reader.cut_bound or 0) >= 5 * LONGEST_FRAME
