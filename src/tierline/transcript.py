"""The text of an answer, out of the bytes that passed: for the few calls whose answer is looked at again. No I/O.

Only a plain answer has one: it came to its end by itself, and it is text (and thoughts) and nothing else.
"""

from __future__ import annotations

import json
from base64 import b64decode
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tierline.usage import EventStreamReader, StreamReader, WholeReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tierline.usage import Reader
    from tierline.values import Terms

MOST_BYTES: Final = 512 * 1024
"""Most bytes of an answer, as it passed, that are kept to read its text; of a longer one nothing is."""
_ENDS: Final = ("end_turn", "stop_sequence")
_PLAIN: Final = ("text", "thinking", "redacted_thinking")


class _Kept:
    """Bytes that passed, unless they are too many."""

    __slots__ = ("_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= MOST_BYTES:
            self._parts.append(data)
        else:
            self._parts.clear()

    def take(self) -> bytes:
        """All of it, once."""
        found, self._parts = self.all(), []
        return found

    def all(self) -> bytes:
        """What there is so far."""
        return b"".join(self._parts)


class KeptStream(StreamReader):
    """Reads the usage of a stream, and keeps what passed."""

    __slots__ = ("_kept",)

    def __init__(self, asked: Terms) -> None:
        super().__init__(asked)
        self._kept = _Kept()

    def _read(self, data: bytes) -> None:
        self._kept.add(data)
        super()._read(data)

    def text(self) -> str | None:
        """The text of the answer, once; None unless it is a plain one."""
        self.look()
        return streamed_text(_events(self._kept.take()))

    @property
    def content(self) -> list[dict[str, Any]]:
        """The content of the answer, as far as it has passed."""
        self.look()
        return streamed_content(_events(self._kept.all()))


class KeptEventStream(EventStreamReader):
    """The same for the streams of Amazon Bedrock."""

    __slots__ = ("_kept",)

    def __init__(self, asked: Terms) -> None:
        super().__init__(asked)
        self._kept = _Kept()

    def _message(self, headers: bytes, payload: bytes) -> None:
        self._kept.add(payload + b"\n")
        super()._message(headers, payload)

    def text(self) -> str | None:
        """The text of the answer, once; None unless it is a plain one."""
        self.look()
        events = _unpacked(self._kept.take())
        return None if events is None else streamed_text(events)

    @property
    def content(self) -> list[dict[str, Any]]:
        """The content of the answer, as far as it has passed."""
        self.look()
        return streamed_content(_unpacked(self._kept.all()) or ())


class KeptWhole(WholeReader):
    """The same for an answer that is one JSON document."""

    __slots__ = ()

    def text(self) -> str | None:
        """The text of the answer; None unless it is a plain one."""
        return text_in(b"".join(self._parts)) if self._size <= MOST_BYTES else None

    @property
    def content(self) -> object:
        """The content of the answer. ValueError and the like for what is none."""
        return json.loads(b"".join(self._parts))["content"] if self._size <= MOST_BYTES else None


Keeping = KeptStream | KeptEventStream | KeptWhole
KEEPING: Final = (KeptStream, KeptEventStream, KeptWhole)


def keeping(reader: Reader, asked: Terms) -> Keeping:
    """A reader of the same kind that keeps what it reads: for an answer of which nothing has passed yet."""
    if isinstance(reader, EventStreamReader):
        return KeptEventStream(asked)
    return KeptStream(asked) if isinstance(reader, StreamReader) else KeptWhole(asked)


def text_in(document: bytes) -> str | None:
    """The text of a message, as the API sends one whole; None unless it is a plain one."""
    try:
        message = json.loads(document)
    except (ValueError, RecursionError):
        return None
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return None
    return _plain(message["content"], message.get("stop_reason"))


def streamed_text(events: Iterable[bytes]) -> str | None:
    """The same of a message that came as events."""
    blocks: dict[object, dict[str, Any]] = {}
    reason: object = None
    stopped = False
    for raw in events:
        try:
            event = json.loads(raw)
            kind = event["type"]
            if kind == "content_block_start":
                blocks[event["index"]] = {**event["content_block"]}
            elif kind == "content_block_delta" and event["delta"]["type"] == "text_delta":
                blocks[event["index"]]["text"] += event["delta"]["text"]
            elif kind == "message_delta":
                reason = event["delta"].get("stop_reason")
            elif kind == "message_stop":
                stopped = True
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None
    return _plain(list(blocks.values()), reason) if stopped else None


def streamed_content(events: Iterable[bytes]) -> list[dict[str, Any]]:
    """The content of a message that comes as events, as far as it came: the blocks that began, with what is in them."""
    blocks: dict[object, dict[str, Any]] = {}
    inputs: dict[object, str] = {}
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        for raw in events:
            event = json.loads(raw)
            if event["type"] == "content_block_start":
                blocks[event["index"]] = {**event["content_block"]}
            elif event["type"] == "content_block_delta":
                block, delta = blocks[event["index"]], event["delta"]
                for kind in ("text", "thinking"):
                    if delta["type"] == f"{kind}_delta":
                        block[kind] += delta[kind]
                if delta["type"] == "input_json_delta":
                    inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
    for index, text in inputs.items():
        with suppress(ValueError, RecursionError):  # one that is cut off says nothing of its input
            blocks[index]["input"] = json.loads(text)
    return list(blocks.values())


def plain_text(message: Any) -> str | None:
    """The same of a message as the SDK has read it."""
    blocks = [
        {"type": block.type, "text": getattr(block, "text", None)} for block in getattr(message, "content", None) or ()
    ]
    return _plain(blocks, getattr(message, "stop_reason", None))


def _events(stream: bytes) -> Iterator[bytes]:
    """The data of server-sent events."""
    for frame in stream.replace(b"\r\n", b"\n").split(b"\n\n"):
        if data := b"".join(line[5:] for line in frame.split(b"\n") if line.startswith(b"data:")):
            yield data


def _unpacked(payloads: bytes) -> list[bytes] | None:
    """The events in Bedrock's frames, one payload on each line; None where that is no such frame."""
    try:
        return [b64decode(json.loads(payload)["bytes"]) for payload in payloads.splitlines()]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _plain(blocks: list[Any], reason: object) -> str | None:
    if reason not in _ENDS or any(not isinstance(b, dict) or b.get("type") not in _PLAIN for b in blocks):
        return None
    texts = [block.get("text") for block in blocks if block["type"] == "text"]
    text = "".join(part for part in texts if isinstance(part, str))
    return text if text.strip() else None
