"""The ASGI side: a Starlette app that does nothing, called in this process, under one middleware or another."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from slowapi import Limiter
from slowapi.middleware import SlowAPIASGIMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from benchmarks.peers.column import Column, NotDoneError
from benchmarks.peers.rows import NOTHING
from benchmarks.spans import Spans
from tierline import Binding, Budget, Router
from tierline.asgi import TierlineMiddleware

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from benchmarks.peers.column import World
    from benchmarks.peers.rows import Kind

CHUNKS: Final = 100
_NEVER: Final = "1000000000/minute"
_CHUNK: Final = (
    b'data: {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " word"}}\n\n'
)


class NoOp:
    """Pure ASGI, and the least that a middleware can be."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


class Passing(BaseHTTPMiddleware):
    """What most people write."""

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        return await call_next(request)


async def at_once(_: Request) -> PlainTextResponse:
    """An endpoint that does nothing."""
    return PlainTextResponse("done")


async def events(_: Request) -> StreamingResponse:
    """Server-sent events, as fast as they are taken."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(CHUNKS):
            yield _CHUNK

    return StreamingResponse(chunks(), media_type="text/event-stream")


def scope_of(path: str) -> dict[str, Any]:
    """A request as uvicorn hands it on."""
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "GET",
        "scheme": "http", "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"",
        "headers": [(b"host", b"localhost:8000"), (b"user-agent", b"benchmark"), (b"accept", b"*/*")],
        "client": ("127.0.0.1", 50_000), "server": ("127.0.0.1", 8_000), "state": {},
    }  # fmt: skip


async def ask(app: ASGIApp, path: str) -> tuple[dict[str, Any], int, int]:
    """One request: its scope, the status of the response, and the pieces of its body that are not empty."""
    scope, status, pieces, asked = scope_of(path), 0, 0, False

    async def receive() -> Message:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()  # nobody goes away
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, pieces
        status = message.get("status", status)
        pieces += bool(message.get("body"))

    await app(scope, receive, send)
    return scope, status, pieces


def column(name: str, *around: Middleware, did: Callable[[dict[str, Any]], str | None] = lambda _: "") -> Column:
    """The app under these. `did`: what is seen of them in the scope of a request, None where they did nothing."""
    app = Starlette(routes=[Route("/", at_once), Route("/events", events)], middleware=list(around))

    def check(kind: Kind, came: tuple[dict[str, Any], int, int]) -> str:
        scope, status, pieces = came
        if (status, pieces) != (200, 1 if kind == "request" else CHUNKS) or (seen := did(scope)) is None:
            raise NotDoneError(f"status {status}, {pieces} pieces of a body, {did(scope)}")
        return ", ".join(filter(None, (f"{pieces} pieces sent", seen)))

    async def request(_: str) -> Any:
        return await ask(app, "/")

    async def stream(_: str) -> Any:
        return await ask(app, "/events")

    return Column(name, {"request": request, "events": stream}, check)


def limited() -> Column:
    """slowapi, with a limit that nobody reaches, in memory."""
    limiter = Limiter(key_func=lambda request: request.client.host, default_limits=[_NEVER])

    class Limited(SlowAPIASGIMiddleware):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope["app"].state.limiter = limiter
            await super().__call__(scope, receive, send)

    def did(_: dict[str, Any]) -> str | None:
        counted = sum(getattr(limiter.limiter.storage, "storage", {}).values())
        return f"{counted} counted" if counted else None

    return column("slowapi", Middleware(Limited), did=did)


def traced() -> Column:
    """The contrib ASGI instrumentation as it comes, its spans exported in batches."""
    spans = Spans()

    def did(_: dict[str, Any]) -> str | None:
        return f"{len(spans.exported)} spans exported" if spans.exported else None

    async def flush() -> None:
        spans.flush()

    found = column("OpenTelemetry's ASGI instrumentation",
                   Middleware(OpenTelemetryMiddleware, tracer_provider=spans.provider), did=did)  # fmt: skip
    found.flush = flush
    return found


def bound(router: Router) -> Column:
    """Tierline's middleware with a tenant; nobody calls Claude."""

    def did(scope: dict[str, Any]) -> str | None:
        return "a Binding in the scope" if any(isinstance(each, Binding) for each in scope.values()) else None

    return column("Tierline", Middleware(TierlineMiddleware, router=router, tenant=lambda _: "acme"), did=did)


@asynccontextmanager
async def opened(_: World) -> AsyncIterator[list[Column]]:
    """All of them."""
    router = Router(budgets=[Budget("$1000000/day"), Budget("$1000000/hour", per="tenant")])
    yield [
        column("no middleware"),
        column(NOTHING, Middleware(NoOp)),
        bound(router),
        column("BaseHTTPMiddleware", Middleware(Passing)),
        limited(),
        traced(),
    ]
    await router.aclose()
