"""The taps: read usage out of an answer while the app reads it, and end its attempt when the app has."""

from __future__ import annotations

import os
import socket
import sys
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

import httpx2

from tierline.blocking import may_wait_for
from tierline.errors import ClientGoneError
from tierline.usage import StreamReader, decoder_for, reader_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from datetime import timedelta

    from tierline.attempts import OpenAttempt

_TOGETHER: Final = 0x1F
"""Pieces of a stream are looked at when their number has none of these bits: 32 at a time."""
_LARGE: Final = 4_096
"""Bytes of a piece that waits for no others: what waits is in memory."""
_LONGEST_WAIT: Final = 5.0
"""Most seconds that closing an answer waits for its settlement. The settlement itself goes on."""


def tap(raw: httpx2.Response, attempt: OpenAttempt, *, blocking: bool) -> None:
    """Put a tap between an answer and the app that reads it."""
    reader = reader_for(raw.headers.get("content-type", ""), attempt.terms)
    attempt.answers(reader, _closer(raw, attempt), blocking=blocking)
    decode = decoder_for(raw.headers.get("content-encoding", ""))
    if blocking:
        raw.stream = _BlockingTap(cast("httpx2.SyncByteStream", raw.stream), attempt, decode)
    else:
        raw.stream = _Tap(cast("httpx2.AsyncByteStream", raw.stream), attempt, decode)


def _closer(raw: httpx2.Response, attempt: OpenAttempt) -> Callable[[], Awaitable[None]]:
    """Closes an answer that is still there. It does not keep it there: what the app drops must be collected."""
    answer = weakref.ref(raw)

    async def close() -> None:
        if (still := answer()) is None:
            return
        # Told by the attempt: around the tap the SDK may have put a stream of its own.
        if attempt.blocking:
            if attempt.reading:
                hang_up(still)
            still.close()  # a socket is closed: nothing to wait for
        else:
            await still.aclose()

    return close


def hang_up(raw: httpx2.Response) -> None:
    """Wake a thread that waits for the next bytes: closing its socket alone would not."""
    network: Any = raw.extensions.get("network_stream")
    connection = network.get_extra_info("socket") if network is not None else None
    if isinstance(connection, socket.socket):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


class _Watch:
    """Looks at every byte on the side, and never raises for that.

    It is asked for every event of a stream, so what a piece costs is what a stream costs: pieces of a stream are kept,
    and looked at together.
    """

    def __init__(self, inner: Any, attempt: OpenAttempt, decode: Callable[[bytes], bytes] | None) -> None:
        self._inner = inner
        self._attempt = attempt
        self._decode = decode
        self._take: Callable[[bytes], None] = self._began
        self._look: Callable[[], None] = _nothing
        self._reader: StreamReader | None = None
        self._closed = False

    @property
    def elapsed(self) -> timedelta | None:
        """The `elapsed` of the wrapped stream, which httpx2 looks for on the stream of a response."""
        return getattr(self._inner, "elapsed", None)

    def _began(self, chunk: bytes) -> None:
        """The first piece. Not before it is known who reads: until then the reader may be exchanged for another."""
        attempt = self._attempt
        attempt.began()
        reader = attempt.reader
        if reader is None or self._decode is None:
            self._take = _ignore
        elif self._decode is bytes and isinstance(reader, StreamReader):
            self._reader = reader
            self._take, self._look = reader.waiting.append, self._looked
        else:
            self._take = self._decoded
        self._take(chunk)

    def _looked(self) -> None:
        if self._reader is not None:
            with suppress(Exception):
                self._reader.look()

    def _decoded(self, chunk: bytes) -> None:
        attempt = self._attempt
        try:
            if attempt.reader is not None and self._decode is not None:
                attempt.reader.feed(self._decode(chunk))
        except Exception:  # noqa: BLE001  (the app's stream comes first: what cannot be read is estimated)
            self._take = _ignore


def _ignore(_: bytes) -> None:
    pass


def _nothing() -> None:
    pass


def _outcome(error: Exception) -> str:
    return "timeout" if isinstance(error, httpx2.TimeoutException) else "connection_error"


def _ending(error: BaseException) -> str:
    if isinstance(error, StopAsyncIteration):
        return "ok"
    return _outcome(error) if isinstance(error, Exception) else "client_disconnected"


class _Tap(_Watch, httpx2.AsyncByteStream):
    """Passes every byte on as it came, as early as it came.

    No generator: what becomes of one that is dropped half read is a task of the event loop's, which meets those of
    the generators around it at the same work.
    """

    _next: Callable[[], Awaitable[bytes]]

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._next = self._inner.__aiter__().__anext__
        return self

    async def __anext__(self) -> bytes:
        attempt = self._attempt
        attempt.reading = True
        try:
            chunk = await self._next()
        except BaseException as error:
            try:
                await attempt.streamed(_ending(error))
            finally:
                attempt.reading = False
            raise
        attempt.reading = False
        self._take(chunk)
        attempt.progress = passed = attempt.progress + 1
        if not passed & _TOGETHER or len(chunk) > _LARGE:
            self._look()
        return chunk

    async def aclose(self) -> None:
        self._closed = True
        try:
            # At once, and in no task of its own: where a half read answer is collected, the generators inside of this
            # stream are being closed in tasks too, and find nothing left to do.
            await self._inner.aclose()
        finally:
            await self._attempt.streamed("closed")

    def __del__(self) -> None:
        # Dropped without being closed: nobody else will end it.
        if not self._closed:
            self._attempt.dropped(self._inner.aclose)


class _BlockingTap(_Watch, httpx2.SyncByteStream):
    """The same for a synchronous client, read in any thread. Attempts are ended on the loop that they belong to."""

    def __init__(
        self, inner: httpx2.SyncByteStream, attempt: OpenAttempt, decode: Callable[[bytes], bytes] | None
    ) -> None:
        super().__init__(inner, attempt, decode)
        self._pid = os.getpid()

    def __iter__(self) -> Iterator[bytes]:
        attempt = self._attempt
        chunks = iter(self._inner)
        try:
            while True:
                attempt.reading = True
                try:
                    chunk = next(chunks)
                except StopIteration:
                    break
                finally:
                    attempt.reading = False
                self._take(chunk)
                attempt.progress = passed = attempt.progress + 1
                if not passed & _TOGETHER or len(chunk) > _LARGE:
                    self._look()
                yield chunk
        except GeneratorExit:
            # Perhaps the garbage collector's, in the midst of anything: who closes the answer waits.
            self._end("client_disconnected", wait=False)
            raise
        except BaseException as error:
            self._end(_outcome(error) if isinstance(error, Exception) else "cancelled")
            if attempt.deserted and isinstance(error, Exception):
                raise ClientGoneError from error
            raise
        self._end("ok")

    def close(self) -> None:
        self._closed = True
        try:
            self._inner.close()
        finally:
            self._end("closed")

    def _end(self, outcome: str, *, wait: bool = True) -> None:
        """End the attempt on its loop, and wait until it is settled.

        Not for ever, for the garbage collector closes answers too, in a thread that may hold a lock which the loop
        wants. A forked child leaves it to its parent.
        """
        attempt = self._attempt
        if attempt.ended or os.getpid() != self._pid or sys.is_finalizing():
            return
        settled = threading.Event()

        async def settle() -> None:
            try:
                await attempt.streamed(outcome)
            finally:
                settled.set()

        if not attempt.books.background.start_on(attempt.loop, settle):
            attempt.lapse()
        elif wait and may_wait_for(attempt.loop):
            settled.wait(_LONGEST_WAIT)

    def __del__(self) -> None:
        if not self._closed and os.getpid() == self._pid:
            self._attempt.dropped(self._aclose)

    async def _aclose(self) -> None:
        self._inner.close()
