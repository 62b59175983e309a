"""Reads usage out of answers: whole ones, and streams as they pass. No I/O."""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64decode
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.call import MOST_TOKENS
from tierline.values import REGIONAL, Terms, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FRAME: Final = b"event: content_block_delta"
_FRAME_OVERHEAD: Final = 107
"""Bytes that the framing of a delta takes at least, its blank line included: what is over them is content."""
_CLOSING: Final = len(b'"}}\n\n')
"""How much of that stands behind the content."""
_NO_FRAME: Final = b"event: message_"
"""How frames begin that have no content: a start, a count of tokens, an end."""
_EVENT_OVERHEAD: Final = 72
"""The same without the framing of server-sent events."""
_STOP: Final = b"event: message_stop"
_NO_CONTENT: Final = ("message_start", "message_delta", "error")
MOST_BUFFERED: Final = 32 * 1024 * 1024
"""Most bytes of a whole answer that are kept to read its usage; a longer one is charged as estimated."""

LONGEST_FRAME: Final = 1024 * 1024
"""Most bytes of one event of a stream that are kept until it ends. A longer one counts as content, and is not read."""


class Metered(NamedTuple):
    """Usage that came back, on which terms it is billed, the id of the answer, and why that stopped where it did."""

    usage: Usage
    terms: Terms
    message_id: str = ""
    stop: str = ""


def metered(raw: Mapping[str, Any] | None, asked: Terms, message_id: object = "", stop: object = "") -> Metered | None:
    """The `usage` object of an answer, or None unless every number in it is a whole one of at least 0.

    `asked` are the request's terms, for what the answer does not say.
    """
    if not isinstance(raw, dict):
        return None
    steps = raw.get("iterations")
    if isinstance(steps, list) and any(
        not isinstance(s, dict) or s.get("type") not in (None, "message") for s in steps
    ):
        # Work of other models, or beside the answer, which the numbers above leave out.
        return None
    split = raw.get("cache_creation")
    tools = raw.get("server_tool_use")
    fresh, out = raw.get("input_tokens"), raw.get("output_tokens")
    if fresh is None or out is None:
        return None
    # These may be left out, which is 0.
    written = raw.get("cache_creation_input_tokens")
    long = split.get("ephemeral_1h_input_tokens") if isinstance(split, dict) else None
    read = raw.get("cache_read_input_tokens")
    searches = tools.get("web_search_requests") if isinstance(tools, dict) else None
    numbers = [0 if number is None else number for number in (fresh, out, written, long, read, searches)]
    for number in numbers:
        if type(number) is not int or not 0 <= number <= MOST_TOKENS:
            return None
    fresh, out, written, long, read, searches = numbers
    if long > written:
        return None
    geo, speed, service = raw.get("inference_geo"), raw.get("speed"), raw.get("service_tier")
    terms = Terms(
        batch=service == "batch",
        fast=speed == "fast" if isinstance(speed, str) else asked.fast,
        # Where neither the answer nor the request names a place, the standard price holds. The region of an endpoint
        # stands in no answer.
        geo=geo if isinstance(geo, str) and asked.geo != REGIONAL else asked.geo or "global",
    )
    usage = Usage(fresh, out, written - long, long, read, searches)
    return Metered(
        usage, terms, message_id if isinstance(message_id, str) else "", stop if isinstance(stop, str) else ""
    )


class WholeReader:
    """Collects an answer that is one JSON document, to read its usage at the end."""

    __slots__ = ("_asked", "_parts", "_size")
    cut_bound: int | None = None
    cut = False

    def __init__(self, asked: Terms) -> None:
        self._asked = asked
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the answer."""
        self._size += len(data)
        if self._size <= MOST_BUFFERED:
            self._parts.append(data)

    @property
    def seen(self) -> Metered | None:
        """What the answer used, or None while it is not whole."""
        if not self._parts or self._size > MOST_BUFFERED:
            return None
        try:
            document = json.loads(b"".join(self._parts))
        except (ValueError, RecursionError):
            return None
        if not isinstance(document, dict):
            return None
        return metered(document.get("usage"), self._asked, document.get("id"), document.get("stop_reason"))

    @property
    def final(self) -> bool:
        """Whether the usage is complete."""
        return self.seen is not None

    error: str = ""


class StreamReader:
    """Reads usage from server-sent events as they pass; only frames that can carry it are parsed.

    `seen` is the usage so far (input from `message_start`, output from the latest `message_delta`). `final`
    says that it is complete. `cut_bound` is an upper bound of the output tokens that have passed. `error` is what the
    stream says of itself, if it ends in one.

    Whoever passes thousands of small pieces on puts them into `waiting`, and lets them be looked at together from time
    to time: what is asked of a reader looks first. One thread may do so while another asks.
    """

    __slots__ = (
        "_asked", "_delta_bytes", "_error", "_fed", "_final", "_id", "_looking", "_seen", "_start", "_stopped", "_tail",
        "waiting",
    )  # fmt: skip

    def __init__(self, asked: Terms) -> None:
        self.waiting: list[bytes] = []
        self._looking = Lock()
        self._asked = asked
        self._tail = b""
        self._start: dict[str, Any] = {}
        self._id: object = ""
        self._delta_bytes = 0
        self._fed = self._stopped = False
        self._seen: Metered | None = None
        self._final = False
        self._error = ""

    @property
    def seen(self) -> Metered | None:
        """The usage so far."""
        self.look()
        return self._seen

    @property
    def final(self) -> bool:
        """Whether the usage is complete."""
        self.look()
        return self._final

    @property
    def error(self) -> str:
        """The error that the stream told, and empty where there is none."""
        self.look()
        return self._error

    @property
    def cut(self) -> bool:
        """Whether what passed is a stream that has not come to its end, whatever it says of usage."""
        self.look()
        return self._fed and not self._stopped and not self._tail.startswith(_STOP)

    @property
    def cut_bound(self) -> int | None:
        """Most tokens that the content which has passed can have: one for each of its bytes."""
        self.look()
        return max(0, self._bound())

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream, cut anywhere, and look at them."""
        self.waiting.append(data)
        self.look()

    def look(self) -> None:
        """Look at what waits."""
        waiting = self.waiting
        if waiting:
            with self._looking:
                parts = waiting[:]
                del waiting[: len(parts)]
                if parts:
                    self._read(parts[0] if len(parts) == 1 else b"".join(parts))

    def _bound(self) -> int:
        passed, tail = self._delta_bytes, self._tail
        if tail.startswith(_FRAME):
            passed += max(0, len(tail) - _FRAME_OVERHEAD + _CLOSING)
        elif not tail.startswith(_NO_FRAME) and not _FRAME.startswith(tail):
            passed += len(tail)
        return passed

    def _read(self, data: bytes) -> None:
        self._fed = True
        if self._tail:
            data = self._tail + data
        if b"\r" in data:
            # JSON holds no line break, so these are the stream's own. A last one may be half of a pair: it waits.
            data = data.replace(b"\r\n", b"\n")
        end = data.rfind(b"\n\n")
        self._tail = data[end + 2 :] if end >= 0 else data
        if len(self._tail) > LONGEST_FRAME:
            # No frame of the API's. It counts as content, and what is left of it begins no frame.
            self._delta_bytes += len(self._tail)
            self._tail = b"."
        if end < 0:
            return
        # Only at the start of a frame: a model may well write these words in its answer.
        if data.startswith(_STOP) or data.find(b"\n" + _STOP, 0, end) >= 0:
            self._stopped = True
        deltas = data.count(b"\n\n" + _FRAME, 0, end) + data.startswith(_FRAME)
        self._delta_bytes += end + 2 - _FRAME_OVERHEAD * deltas
        if data.find(b'"usage"', 0, end) < 0 and data.find(b"event: error", 0, end) < 0:
            return
        for frame in data[:end].split(b"\n\n"):
            if b'"usage"' in frame or frame.startswith(b"event: error"):
                self._frame(frame)

    def _frame(self, frame: bytes) -> None:
        self._event(b"".join(line[5:] for line in frame.split(b"\n") if line.startswith(b"data:")), len(frame) + 2)

    def _event(self, text: bytes, size: int) -> None:
        """Take an event that may carry usage; `size` is what it was counted as."""
        try:
            event = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not isinstance(event, dict):
            return
        kind = event.get("type")
        if kind in _NO_CONTENT:
            self._delta_bytes -= size
        if kind == "message_start" and isinstance(event.get("message"), dict):
            usage = event["message"].get("usage")
            self._start = usage if isinstance(usage, dict) else {}
            self._id = event["message"].get("id")
            self._seen = metered(self._start, self._asked, self._id)
        elif kind == "message_delta":
            usage = event.get("usage")
            # Cumulative, and without the split of cache writes by lifetime, which only the start has.
            merged = (
                self._start | {k: v for k, v in usage.items() if v is not None} if isinstance(usage, dict) else None
            )
            delta = event.get("delta")
            stop = delta.get("stop_reason") if isinstance(delta, dict) else ""
            found = metered(merged, self._asked, self._id, stop)
            self._final = found is not None
            self._seen = found or self._seen
        elif kind == "error":
            error = event.get("error")
            named = error.get("type") if isinstance(error, dict) else None
            self._error = named[:60] if isinstance(named, str) else "error"


class EventStreamReader(StreamReader):
    """The same for the streams of Amazon Bedrock: binary frames, in each an event as JSON, in base64, in JSON."""

    __slots__ = ("_broken",)
    _PRELUDE: Final = struct.Struct(">II")
    """Bytes of the whole frame and of its headers; a checksum follows, which the SDK looks at."""
    _OUTSIDE: Final = 16
    """Bytes of a frame that are neither headers nor payload: the prelude, its checksum and that of the frame."""

    def __init__(self, asked: Terms) -> None:
        super().__init__(asked)
        self._broken = False
        """Whether what came was no such stream: nothing that comes after it can be told from content."""

    def _bound(self) -> int:
        return self._delta_bytes + len(self._tail)

    def _read(self, data: bytes) -> None:
        self._fed = True
        if self._broken:
            self._delta_bytes += len(data)
            return
        data = self._tail + data
        at = 0
        while len(data) - at >= self._OUTSIDE:
            size, headers = self._PRELUDE.unpack_from(data, at)
            if not self._OUTSIDE + headers <= size <= MOST_BUFFERED:
                # No such stream: all of it counts as content, which bounds what is in it.
                self._broken = True
                self._delta_bytes += len(data) - at
                at = len(data)
            elif len(data) - at < size:
                break
            else:
                begin, end = at + self._OUTSIDE - 4, at + size - 4
                self._message(data[begin : begin + headers], data[begin + headers : end])
                at += size
        self._tail = data[at:]

    def _message(self, headers: bytes, payload: bytes) -> None:
        for name in (b":exception-type\x07", b":error-code\x07"):
            _, found, value = headers.partition(name)
            if found:
                self._error = value[2 : 2 + min(60, int.from_bytes(value[:2]))].decode("ascii", "replace")
                return
        try:
            event = b64decode(json.loads(payload)["bytes"])
        except (ValueError, KeyError, TypeError, RecursionError):
            self._delta_bytes += len(payload)
            return
        self._delta_bytes += len(event)
        self._stopped |= event.startswith(b'{"type":"message_stop"')
        if b'"usage"' in event or b'"error"' in event:
            self._event(event, len(event))
        elif event.startswith(b'{"type":"content_block_delta"'):
            self._delta_bytes -= _EVENT_OVERHEAD


Reader = WholeReader | StreamReader


def reader_for(content_type: str, asked: Terms) -> Reader:
    """Reads the usage of an answer of this type."""
    if content_type.startswith("text/event-stream"):
        return StreamReader(asked)
    if content_type.startswith("application/vnd.amazon.eventstream"):
        return EventStreamReader(asked)
    return WholeReader(asked)


def decoder_for(encoding: str) -> Callable[[bytes], bytes] | None:
    """Undoes a content encoding for reading on the side; None where it cannot be undone."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return bytes
    if encoding in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress
    return None


def at_cut(seen: Metered, output_tokens: int) -> Metered:
    """What a stream that was cut off may have used: the input is exact, the output at least what was seen."""
    output = max(seen.usage.output_tokens, output_tokens)
    return seen._replace(usage=replace(seen.usage, output_tokens=output))
