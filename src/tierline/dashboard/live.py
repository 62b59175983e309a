"""The page as it changes: server-sent events.

    event: overview     at once, and then whenever something is different, at most each second
    event: decisions    those that are new, newest first
    : ping              where nothing is

A stream ends after a minute, and the browser comes back: so permission is looked at again, and a server that waits for
its connections to end has not long to wait. One of uvicorn's waits for ever by itself and tells no app: its streams
look whether it wants to go.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tierline.dashboard.written import json_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.types import Receive, Scope, Send

    from tierline.dashboard.board import Board

log: Final = logging.getLogger("tierline")

MOST_STREAMS: Final = 100
"""Most streams of a process at once."""
_HEADERS: Final = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"x-accel-buffering", b"no"),
)
_SHUTDOWNS: Final = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, slots=True)
class Pace:
    """Times, in seconds."""

    look: float = 1.0
    """Between two looks whether something is different."""
    tick: float = 0.25
    """Between two looks whether to go."""
    ping: float = 15.0
    life: float = 60.0
    patience: float = 10.0
    """For how long a client may not read."""


def going_down() -> bool:
    """Whether a server of uvicorn's kind, which runs in this process, was told to end."""
    handlers = (signal.getsignal(number) for number in _SHUTDOWNS)
    return any(getattr(getattr(handler, "__self__", None), "should_exit", False) is True for handler in handlers)


class Stream:
    """One viewer's, as an ASGI response. `tail` is what of an overview is theirs alone, `open_now` has those open."""

    def __init__(self, board: Board, hours: int, tail: bytes, pace: Pace, open_now: set[Stream]) -> None:
        self._board, self._hours, self._tail, self._pace, self._open = board, hours, tail, pace, open_now

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Send events until somebody has had enough."""
        gone = asyncio.get_running_loop().create_task(_left(receive), name="tierline page: client gone")
        patience = self._pace.patience
        self._open.add(self)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            async with aclosing(self._chunks(gone)) as chunks:
                async for chunk in chunks:
                    # A server lets this wait while nobody reads. It then lets go of the connection.
                    async with asyncio.timeout(patience):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
            async with asyncio.timeout(patience):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            log.info("page: a stream is ended that nobody reads")
        except OSError:
            pass  # the client has gone
        finally:
            self._open.discard(self)
            gone.cancel()
            with suppress(asyncio.CancelledError, OSError):
                await gone

    async def _chunks(self, gone: asyncio.Task[None]) -> AsyncGenerator[bytes, None]:
        loop, pace = asyncio.get_running_loop(), self._pace
        ends, quiet_until, look_at = loop.time() + pace.life, loop.time() + pace.ping, loop.time()
        shown: tuple[int, ...] | None = None
        known: set[str] = set()
        yield b"retry: 1000\n\n"
        while not gone.done() and loop.time() < ends and not going_down():
            if loop.time() >= look_at:
                chunk = b""
                shot = await self._board.overview(self._hours)
                if shot.edition != shown:
                    shown = shot.edition
                    chunk = _event("overview", shot.body[:-1] + b"," + self._tail[1:])
                found = await self._board.decisions.get() or ()
                if fresh := [row for row in found if row["id"] not in known]:
                    known = {row["id"] for row in found}
                    chunk += _event("decisions", json_of(fresh))
                if not chunk and loop.time() >= quiet_until:
                    chunk = b": ping\n\n"
                if chunk:
                    yield chunk
                    quiet_until = loop.time() + pace.ping
                look_at = loop.time() + pace.look
            await asyncio.wait((gone,), timeout=pace.tick)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(kind: str, data: bytes) -> bytes:
    """JSON has no line breaks of its own."""
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"
