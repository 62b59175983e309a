"""Holds the first part of an answer back from the app: taken out of the stream, looked at, and then passed on.

What was taken comes first when the app reads, byte for byte, with the end or the error that it met. It stands outside
of the tap, so that usage is read, and the attempt ended, when the bytes come in.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, cast

import httpx2

from tierline.usage import decoder_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from datetime import timedelta

    from tierline.blocking import Aside, Bridge


class _Kept:
    """What was taken out of a stream and is to be passed on."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._parts: deque[bytes] = deque()
        self._error: Exception | None = None
        self._ended = False

    @property
    def elapsed(self) -> timedelta | None:
        """The `elapsed` of the wrapped stream, which httpx2 looks for on the stream of a response."""
        return getattr(self._inner, "elapsed", None)

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


class _Held(_Kept, httpx2.AsyncByteStream):
    """For an asynchronous client."""

    _next: Callable[[], Awaitable[bytes]] | None = None

    async def take(self) -> bytes | None:
        """The next bytes; None at the end. An error is kept for the app."""
        if self._next is None:
            self._next = self._inner.__aiter__().__anext__
        try:
            part = await self._next()
        except StopAsyncIteration:
            self._ended = True
            return None
        except Exception as error:
            self._error = error
            self._ended = True
            raise
        self._parts.append(part)
        return part

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._parts:
            return self._parts.popleft()
        self._raise()
        if self._ended:
            raise StopAsyncIteration
        if self._next is None:
            self._next = self._inner.__aiter__().__anext__
        return await self._next()

    async def aclose(self) -> None:
        await self._inner.aclose()


class _BlockingHeld(_Kept, httpx2.SyncByteStream):
    """For a synchronous client: in the thread that reads."""

    _rest: Iterator[bytes] | None = None

    def take(self) -> bytes | None:
        """The next bytes; None at the end. An error is kept for the app."""
        if self._rest is None:
            self._rest = iter(self._inner)
        try:
            part = next(self._rest, None)
        except Exception as error:
            self._error = error
            self._ended = True
            raise
        if part is None:
            self._ended = True
        else:
            self._parts.append(part)
        return part

    def __iter__(self) -> Iterator[bytes]:
        while self._parts:
            yield self._parts.popleft()
        self._raise()
        if not self._ended:
            yield from self._inner if self._rest is None else self._rest

    def close(self) -> None:
        self._inner.close()


class HeldAnswer:
    """The beginning of one answer that has not been read yet. With a `bridge`, of a synchronous client."""

    def __init__(self, raw: httpx2.Response, bridge: Bridge | Aside | None) -> None:
        self._bridge = bridge
        self._decode = decoder_for(raw.headers.get("content-encoding", ""))
        held: _Held | _BlockingHeld
        held = _Held(raw.stream) if bridge is None else _BlockingHeld(raw.stream)
        raw.stream = self._held = held

    async def more(self) -> bytes | None:
        """The next bytes as they are read, None at the end. Raises what reading raises, and what cannot be decoded."""
        if self._decode is None:
            raise ValueError("an encoding that is not read")
        if self._bridge is None:
            part = await cast("_Held", self._held).take()
        else:
            part = await self._bridge.here(cast("_BlockingHeld", self._held).take)
        return None if part is None else self._decode(part)
