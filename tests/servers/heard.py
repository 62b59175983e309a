"""What the app reads of Claude's answers, counted below Tierline: by that, tests know what must be charged."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import httpx2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

_NAME = "heard"
_BEGUN = "http11.send_request_headers.started"
"""What the transport says when it has a connection, and begins to write on it."""


class Heard:
    """Of one answer: what came of it as far as it was read, in bytes. Events that carry usage are in neither sum."""

    def __init__(self) -> None:
        self.sent = False
        """Whether anything of the request can have left: before, there is no connection."""
        self.size = 0
        self.streamed = False
        self.started = False
        self.text = 0
        """Of the texts of whole events."""
        self.deltas = 0
        """How many of them there are."""
        self.other = 0
        """Of whole events that are no texts."""
        self.tail = b""
        """The event that has come in part."""
        self.final: int | None = None
        """The output tokens that the end of a stream tells."""

    def take(self, chunk: bytes) -> None:
        self.size += len(chunk)
        if not self.streamed:
            return
        *frames, self.tail = (self.tail + chunk).split(b"\n\n")
        for frame in frames:
            event = json.loads(frame.partition(b"data: ")[2])
            match event["type"]:
                case "message_start":
                    self.started = True
                case "content_block_delta":
                    self.deltas += 1
                    self.text += len("".join(text for kind, text in event["delta"].items() if kind != "type").encode())
                case "message_delta":
                    self.final = event["usage"]["output_tokens"]
                case _:
                    self.other += len(frame) + 2

    def step(self, name: str, _: object) -> None:
        """What the transport does for the request, step by step."""
        self.sent |= name == _BEGUN

    async def step_async(self, name: str, about: object) -> None:
        """The same of an asynchronous one."""
        self.step(name, about)

    def told(self) -> dict[str, Any]:
        return {**vars(self), "tail": len(self.tail)}


heard: dict[str, list[Heard]] = defaultdict(list)
"""By the names of calls. What has no name is not listened to."""


def asked(request: httpx2.Request) -> None:
    if (found := _listened(request)) is not None:
        request.extensions["trace"] = found.step


def _listened(request: httpx2.Request) -> Heard | None:
    if (name := request.headers.get("x-call")) is None:
        return None
    request.extensions[_NAME] = found = Heard()
    heard[name].append(found)
    return found


def answered(response: httpx2.Response) -> None:
    found: Heard | None = response.request.extensions.get(_NAME)
    if found is None:
        return
    found.streamed = response.headers["content-type"].startswith("text/event-stream")
    inner: Any = response.stream
    response.stream = (_Async if isinstance(inner, httpx2.AsyncByteStream) else _Sync)(inner, found)


async def asked_async(request: httpx2.Request) -> None:
    if (found := _listened(request)) is not None:
        request.extensions["trace"] = found.step_async


async def answered_async(response: httpx2.Response) -> None:
    answered(response)


class _Async(httpx2.AsyncByteStream):
    def __init__(self, inner: Any, found: Heard) -> None:
        self.inner, self.found = inner, found

    def __aiter__(self) -> AsyncIterator[bytes]:
        self.chunks = aiter(self.inner)
        return self

    async def __anext__(self) -> bytes:
        chunk = await anext(self.chunks)
        self.found.take(chunk)
        return chunk

    async def aclose(self) -> None:
        await self.inner.aclose()


class _Sync(httpx2.SyncByteStream):
    def __init__(self, inner: Any, found: Heard) -> None:
        self.inner, self.found = inner, found

    def __iter__(self) -> Iterator[bytes]:
        self.chunks = iter(self.inner)
        return self

    def __next__(self) -> bytes:
        chunk = next(self.chunks)
        self.found.take(chunk)
        return chunk

    def close(self) -> None:
        self.inner.close()
