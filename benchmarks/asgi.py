"""What a request costs with Tierline's middleware around an app that calls nobody, beside other middleware.

    python -m benchmarks.asgi [--seconds N]

In one process, with no sockets. Most rows call the app itself, with a scope of its own for each request, so that what
is measured is the app's own work; where uvicorn serves, it reads the bytes of a request and writes those of the answer
into memory. Rounds run one block for each column, in shuffled order; shown are the median CPU time, and the median
ratio to the no-op middleware with its 95% interval.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import random
import statistics
import time
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from uvicorn.server import ServerState

from benchmarks.pairs import ratio
from tierline import Router
from tierline.asgi import TierlineMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

NO_OP: Final = "no-op"
CHUNKS: Final = 100
_CHUNK: Final = b'event: content_block_delta\ndata: {"type": "content_block_delta"}\n\n'
_BLOCKS: Final = (
    ("an endpoint that does nothing, Starlette", "request", 400),
    ("an endpoint that does nothing, FastAPI", "fast", 200),
    (f"SSE, {CHUNKS} chunks, the app alone", "stream", 20),
    (f"SSE, {CHUNKS} chunks, served by uvicorn", "served", 4),
)


@dataclass(frozen=True)
class Column:
    """An app, with one middleware or none."""

    name: str
    app: ASGIApp
    fastapi: ASGIApp

    async def request(self) -> None:
        """One request to an endpoint that does nothing."""
        await self._get("/nothing")

    async def stream(self) -> None:
        """One answer of server-sent events, CHUNKS of them."""
        await self._get("/events")

    async def fast(self) -> None:
        """The same as `request`, of a FastAPI app."""
        await self._get("/nothing", self.fastapi)

    async def served(self) -> None:
        """The same as `stream`, through uvicorn."""
        memory = Memory()
        config = _config(self.app)
        protocol: Any = config.http_protocol_class(config=config, server_state=ServerState(), app_state={})
        protocol.connection_made(memory)
        protocol.data_received(b"GET /events HTTP/1.1\r\nhost: 127.0.0.1:8000\r\naccept: */*\r\n\r\n")
        await memory.ended.wait()
        protocol.connection_lost(None)

    async def _get(self, path: str, app: ASGIApp | None = None) -> None:
        # As uvicorn makes it.
        scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": "GET",
            "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 40_000), "scheme": "http", "root_path": "",
            "path": path, "raw_path": path.encode(), "query_string": b"", "state": {},
            "headers": [(b"host", b"127.0.0.1:8000"), (b"accept", b"*/*"), (b"user-agent", b"benchmark")],
        }  # fmt: skip
        await (app or self.app)(scope, _receive, _send)


_gone: asyncio.Event | None = None


async def _receive() -> Message:
    """The client stays until the answer is over."""
    global _gone  # noqa: PLW0603
    _gone = _gone or asyncio.Event()
    await _gone.wait()
    return {"type": "http.disconnect"}


async def _send(_: Message) -> None:
    pass


@cache
def _config(app: ASGIApp) -> uvicorn.Config:
    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    config.load()
    return config


class Memory(asyncio.Transport):
    """Takes what a server writes, and knows the end of a chunked answer."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Forget it."""
        if bytes(data[-5:]) == b"0\r\n\r\n":
            self.ended.set()

    def is_closing(self) -> bool:
        """Not before its end."""
        return False

    def close(self) -> None:
        """There is nothing to close."""

    def pause_reading(self) -> None:
        """Nothing comes."""

    def resume_reading(self) -> None:
        """Nothing comes."""


class NoOp:
    """The least that a middleware can be."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app."""
        await self.app(scope, receive, send)


class Dispatching(BaseHTTPMiddleware):
    """Starlette's own base for middleware, doing nothing."""

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Run the app."""
        return await call_next(request)


async def nothing(_: Request) -> Response:
    return PlainTextResponse("ok")


async def nothing_at_all() -> str:
    return "ok"


async def events(_: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(CHUNKS):
            yield _CHUNK

    return StreamingResponse(chunks(), media_type="text/event-stream")


def column(name: str, middleware: Any = None, limiter: Any = None, **options: Any) -> Column:
    """Two apps with one middleware. `limiter`: where slowapi finds its own."""
    app = Starlette(routes=[Route("/nothing", nothing), Route("/events", events)])
    fastapi = FastAPI()
    fastapi.get("/nothing")(nothing_at_all)
    for each in (app, fastapi):
        if middleware is not None:
            each.add_middleware(middleware, **options)
        each.state.limiter = limiter
    return Column(name, app, fastapi)


def columns() -> Sequence[Column]:
    """All columns; slowapi's only where it is installed."""
    limiter: Any = None
    if find_spec("slowapi") is not None:
        from slowapi import Limiter  # noqa: PLC0415  (of an environment of its own)
        from slowapi.middleware import SlowAPIASGIMiddleware  # noqa: PLC0415
        from slowapi.util import get_remote_address  # noqa: PLC0415

        limiter = Limiter(get_remote_address, default_limits=["1000000/minute"])
    found = [
        column("none"),
        column(NO_OP, NoOp),
        column("no-op again (A/A)", NoOp),
        column("Tierline", TierlineMiddleware, router=Router()),
        column("BaseHTTPMiddleware", Dispatching),
    ]
    return [*found, column("slowapi", SlowAPIASGIMiddleware, limiter)] if limiter is not None else found


async def block(column: Column, what: str, calls: int) -> float:
    """Microseconds of CPU for one request."""
    call = getattr(column, what)
    before = time.process_time()
    for _ in range(calls):
        await call()
    return (time.process_time() - before) / calls * 1e6


async def run(seconds: float) -> None:
    """Measure, and say what came of it."""
    within = columns()
    for title, what, calls in _BLOCKS:
        rounds: dict[str, list[float]] = {column.name: [] for column in within}
        for column in within:
            await block(column, what, calls)
        gc.collect()
        gc.freeze()
        order, ends = list(within), time.monotonic() + seconds
        while time.monotonic() < ends or len(rounds[NO_OP]) < 5:
            random.shuffle(order)
            for column in order:
                rounds[column.name].append(await block(column, what, calls))
        print(f"{title} ({len(rounds[NO_OP])} rounds of {calls}): µs of CPU a request, ratio to the no-op middleware")
        for name, found in rounds.items():
            middle, low, high = ratio(found, rounds[NO_OP])
            print(f"  {name:20} {statistics.median(found):8.1f}  {middle:6.3f} [{low:.3f}, {high:.3f}]")


def main() -> None:
    """All rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asgi", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row")
    asyncio.run(run(parser.parse_args().seconds))


if __name__ == "__main__":
    main()
