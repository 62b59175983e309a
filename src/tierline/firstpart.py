"""The first part of an answer, read while nobody has it yet: what it says so far, and whether it has ended. No I/O."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final

from tierline.escalation.answers import Answer, is_call, read_answer
from tierline.usage import EventStreamReader, StreamReader
from tierline.values import Terms

if TYPE_CHECKING:
    from tierline.usage import Reader

MOST_BYTES: Final = 64 * 1024
"""Most bytes of a stream that are held, thoughts and pings included; a longer beginning is handed over unread."""
MOST_WHOLE: Final = 1024 * 1024
"""Most bytes of an answer in one piece that is not read before it is handed over."""
_TERMS: Final = Terms()


class FirstPart:
    """Takes an answer's bytes as they come. Never raises."""

    __slots__ = ("size",)
    most = MOST_BYTES

    def __init__(self) -> None:
        self.size = 0

    def feed(self, data: bytes) -> None:
        """The next bytes."""
        self.size += len(data)

    def ended(self) -> None:
        """There are no more."""

    @property
    def answer(self) -> Answer | None:
        """The answer so far; None where nothing can be said of it."""
        return None

    @property
    def document(self) -> bytes | None:
        """All of an answer that came as one document, when it has ended."""
        return None

    @property
    def full(self) -> bool:
        """Whether no more of it may be held."""
        return self.size > self.most


class _Whole(FirstPart):
    """An answer that is one JSON document: there is nothing to see before its end."""

    __slots__ = ("_ended", "_parts")
    most = MOST_WHOLE

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._ended = False

    def feed(self, data: bytes) -> None:
        super().feed(data)
        self._parts.append(data)

    def ended(self) -> None:
        self._ended = True

    @property
    def answer(self) -> Answer | None:
        return read_answer(b"".join(self._parts)) if self._ended else Answer("", whole=False)

    @property
    def document(self) -> bytes | None:
        return b"".join(self._parts) if self._ended else None


class _Told:
    """What the events of a stream have told."""

    __slots__ = ("calls", "error", "reason", "stopped", "texts")

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reason: str | None = None
        self.calls = self.stopped = False
        self.error = ""

    def take(self, raw: bytes) -> None:
        """One event, as JSON. What cannot be read says nothing."""
        try:
            event = json.loads(raw)
            self._event(event, event.get("type"))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return

    def _event(self, event: Any, kind: object) -> None:
        if kind == "content_block_start":
            block = event["content_block"]
            self.calls = self.calls or is_call(block.get("type"))
            if block.get("type") == "text":
                self._say(block.get("text"))
        elif kind == "content_block_delta" and event["delta"].get("type") == "text_delta":
            self._say(event["delta"].get("text"))
        elif kind == "message_delta":
            reason = event["delta"].get("stop_reason")
            self.reason = reason if isinstance(reason, str) else None
        elif kind == "message_stop":
            self.stopped = True
        elif kind == "error":
            named = event["error"].get("type")
            self.error = named[:60] if isinstance(named, str) and named else "error"

    def _say(self, text: object) -> None:
        if isinstance(text, str):
            self.texts.append(text)

    @property
    def answer(self) -> Answer:
        return Answer("".join(self.texts), self.reason, self.calls, self.stopped, self.error)


class _Events(FirstPart):
    """A stream of server-sent events."""

    __slots__ = ("_tail", "_told")

    def __init__(self) -> None:
        super().__init__()
        self._tail = b""
        self._told = _Told()

    def feed(self, data: bytes) -> None:
        super().feed(data)
        *frames, self._tail = (self._tail + data).replace(b"\r\n", b"\n").split(b"\n\n")
        for frame in frames:
            self._told.take(b"".join(line[5:] for line in frame.split(b"\n") if line.startswith(b"data:")))

    @property
    def answer(self) -> Answer | None:
        return self._told.answer


class _Frames(FirstPart):
    """A stream of Amazon Bedrock."""

    __slots__ = ("_reader", "_told")

    def __init__(self) -> None:
        super().__init__()
        self._told = _Told()
        self._reader = _FrameReader(self._told)

    def feed(self, data: bytes) -> None:
        super().feed(data)
        self._reader.feed(data)

    @property
    def answer(self) -> Answer | None:
        self._told.error = self._told.error or self._reader.error
        return self._told.answer


class _FrameReader(EventStreamReader):
    """Hands on the events in binary frames."""

    __slots__ = ("_told",)

    def __init__(self, told: _Told) -> None:
        super().__init__(_TERMS)
        self._told = told

    def _message(self, headers: bytes, payload: bytes) -> None:
        super()._message(headers, payload)
        try:
            self._told.take(b64decode(json.loads(payload)["bytes"]))
        except (ValueError, KeyError, TypeError, RecursionError):
            return


def first_part_of(reader: Reader | None) -> FirstPart:
    """What reads the beginning of an answer, of the kind whose usage `reader` reads."""
    if isinstance(reader, EventStreamReader):
        return _Frames()
    return _Events() if isinstance(reader, StreamReader) else _Whole()
