"""The app that is served as a process: endpoints that call Claude in every way, and what it tells of itself.

The environment says what is around: `AROUND` is `nothing`, `base` (a `BaseHTTPMiddleware` above and below Tierline) or
`copies` (middleware that hand on a copy of the scope). `LEDGER=slow` is one whose every answer takes turns of the loop.
When it ends, it writes what it knows of itself to the file `LAST_WORDS`.

A request says in its headers who it is for (`x-tenant`) and what it is called (`x-call`), and Claude is told both.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anthropic import Anthropic, AsyncAnthropic, DefaultAsyncHttpxClient, DefaultHttpxClient
from heard import answered, answered_async, asked, asked_async, heard
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute

from tierline import Budget, Ladder, Router, current, policy
from tierline.asgi import TierlineMiddleware
from tierline.classify import FixedClassifier
from tierline.ledger import MemoryLedger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.types import ASGIApp, Message, Receive, Scope, Send
    from starlette.websockets import WebSocket

STATM = Path("/proc/self/statm")
trace.set_tracer_provider(TracerProvider())


class Recording(MemoryLedger):
    """Writes down every hold and how it ended; `slow`, it takes turns of the loop, as one over a network does."""

    def __init__(self) -> None:
        super().__init__()
        self.instant = os.environ.get("LEDGER") != "slow"
        self.recorded: dict[str, dict[str, Any]] = {}
        self.records = os.environ.get("RECORD") != "no"

    async def _wait(self) -> None:
        for _ in range(0 if self.instant else 3):
            await asyncio.sleep(0)

    async def reserve(self, key: str, *args: Any, **options: Any) -> Any:
        await self._wait()
        held = await super().reserve(key, *args, **options)
        if self.records:
            self.recorded[key] = {
                "tenant": held.origin.tenant, "worst": held.cost, "input": held.offer.input_cost, "settled": [],
            }  # fmt: skip
        await self._wait()
        return held

    async def settle(self, reservation: Any, cost: int, *, estimated: bool = False) -> bool:
        await self._wait()
        if self.records:
            self.recorded[reservation.id]["settled"].append(cost)
        return await super().settle(reservation, cost, estimated=estimated)

    async def release(self, key: str) -> bool:
        await self._wait()
        if key in self.recorded:
            self.recorded[key]["settled"].append(0)
        return await super().release(key)


ledger = Recording()
router = Router(
    AsyncAnthropic(
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(event_hooks={"request": [asked_async], "response": [answered_async]}),
    ),
    sync_client=Anthropic(
        max_retries=0, http_client=DefaultHttpxClient(event_hooks={"request": [asked], "response": [answered]})
    ),
    # The first thinks only when it is asked to: what it said bounds what it cost. The second thinks always.
    ladder=Ladder.of(plain="claude-haiku-4-5", thinking="claude-opus-5-5"),
    classifier=FixedClassifier("simple"),
    budgets=[Budget("$100000", per="tenant", name="all")],
    ledger=ledger,
)
calls: dict[str, Any] = {}
"""The Bindings of the requests that have a name, by that."""
kept: list[Any] = []
"""What nobody collects for now."""


def tenant_of(scope: Scope) -> str | None:
    return dict(scope["headers"]).get(b"x-tenant", b"").decode() or None


def ask(connection: Any, **changes: Any) -> dict[str, Any]:
    """A request to Claude that says whose it is. Apps of their own would not tell, and need not."""
    headers = {name: connection.headers[name] for name in ("x-tenant", "x-call") if name in connection.headers}
    if (name := headers.get("x-call")) is not None:
        calls[name] = current()
    return {
        "model": "auto",
        "max_tokens": 2_000,
        "messages": [{"role": "user", "content": "Open today?"}],
        "extra_headers": headers,
        **changes,
    }


def tier_of(connection: Any) -> Any:
    return policy(tier=connection.query_params.get("tier", "plain"))


# Endpoints


async def answer(request: Request) -> JSONResponse:
    with tier_of(request):
        message = await current().claude.messages.create(**ask(request))
    return JSONResponse(message.content[-1].text)


def sync_answer(request: Request) -> JSONResponse:
    with tier_of(request):
        message = current().sync_claude.messages.create(**ask(request))
    return JSONResponse(message.content[-1].text)


async def texts(request: Request) -> StreamingResponse:
    """The texts of an answer, through the SDK's helper."""

    async def body() -> AsyncIterator[str]:
        with tier_of(request):
            async with current().claude.messages.stream(**ask(request)) as stream:
                async for text in stream.text_stream:
                    yield text

    return StreamingResponse(body())


async def events(request: Request) -> StreamingResponse:
    """The names of the events of an answer, each as long as the request wants it to be."""
    size = int(request.query_params.get("size", "0"))

    async def body() -> AsyncIterator[str]:
        with tier_of(request):
            async for event in await current().claude.messages.create(**ask(request), stream=True):
                yield event.type.ljust(size) + "\n"

    return StreamingResponse(body())


async def raw(request: Request) -> StreamingResponse:
    """The very bytes of an answer."""

    async def body() -> AsyncIterator[bytes]:
        messages = current().claude.messages.with_streaming_response
        with tier_of(request):
            async with messages.create(**ask(request), stream=True) as response:
                async for chunk in response.iter_bytes():
                    yield chunk

    return StreamingResponse(body())


async def opened(request: Request) -> StreamingResponse:
    """A stream that is open before the answer to the browser begins."""
    with tier_of(request):
        stream = await current().claude.messages.create(**ask(request), stream=True)

    async def body() -> AsyncIterator[str]:
        async for event in stream:
            yield event.type + "\n"

    return StreamingResponse(body())


async def sync_texts(request: Request) -> StreamingResponse:
    """A plain generator: nothing can cancel it."""

    def body() -> Iterator[str]:
        with tier_of(request), current().sync_claude.messages.stream(**ask(request)) as stream:
            yield from stream.text_stream

    return StreamingResponse(body())


async def never_awaits(request: Request) -> StreamingResponse:
    """A generator that takes no breath between two calls of Claude."""

    async def body() -> AsyncIterator[str]:
        await current().claude.messages.create(**ask(request))
        for _ in range(2_000):
            yield "word " * 50
        request.app.state.reached = request.headers["x-call"]
        await current().claude.messages.create(**ask(request))

    return StreamingResponse(body())


async def broken(request: Request) -> StreamingResponse:
    """An app that fails in the midst of its answer."""

    async def body() -> AsyncIterator[str]:
        async with current().claude.messages.stream(**ask(request)) as stream:
            async for text in stream.text_stream:
                yield text
                raise ValueError("a mistake of the app's")

    return StreamingResponse(body())


async def abandon(request: Request) -> PlainTextResponse:
    """Begin to read a stream, and forget it where only the garbage collector finds it."""

    async def body() -> AsyncIterator[str]:
        async with current().claude.messages.stream(**ask(request)) as stream:
            async for text in stream.text_stream:
                yield text

    generator = body()
    await anext(generator)
    circle: list[Any] = [generator]
    circle.append(circle)
    kept.append(circle)
    return PlainTextResponse("forgotten")


async def collect(_: Request) -> PlainTextResponse:
    """The garbage collector comes by in this request."""
    kept.clear()
    gc.collect()
    return PlainTextResponse("collected")


async def twice(request: Request) -> PlainTextResponse:
    """A task that reads is cancelled, and once more so many turns of the loop later."""
    begun = asyncio.Event()

    async def read() -> None:
        async with current().claude.messages.stream(**ask(request)) as stream:
            async for _ in stream:
                begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    for _ in range(int(request.query_params["turns"])):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    return PlainTextResponse("cancelled" if task.cancelled() else repr(task.exception()))


async def detached(request: Request) -> PlainTextResponse:
    """A call that outlives its request, and that no server knows of."""
    kept.append(asyncio.create_task(current().claude.messages.create(**ask(request))))
    return PlainTextResponse("under way")


async def live(websocket: WebSocket) -> None:
    """An answer for each word."""
    await websocket.accept()
    async for _ in websocket.iter_text():
        with tier_of(websocket):
            async with current().claude.messages.stream(**ask(websocket)) as stream:
                async for text in stream.text_stream:
                    await websocket.send_text(text)
        await websocket.send_text("")


async def about(request: Request) -> JSONResponse:
    return JSONResponse(await state(calls=request.query_params.get("calls") == "yes"))


async def state(*, calls: bool = False) -> dict[str, Any]:
    """What is held and spent, what runs, and how much memory it takes (bytes)."""
    pages = int(STATM.read_text(encoding="ascii").split()[1])  # noqa: ASYNC240  (no disk is asked)
    found: dict[str, Any] = {
        "held": sum(b.held for b in await router.balances()),
        "spent": {b.account: b.spent for b in await router.balances()},
        "open": len(router.books._open),
        "tasks": sorted(getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()),
        "reached": getattr(app_itself.state, "reached", ""),
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
    }
    if calls:
        found |= {
            "holds": ledger.recorded,
            "calls": {name: told(binding) for name, binding in globals()["calls"].items()},
            "heard": {name: [each.told() for each in answers] for name, answers in heard.items()},
        }
    return found


def told(binding: Any) -> list[list[Any]]:
    """The attempts of a request."""
    return [
        [attempt.tier, attempt.outcome, attempt.cost, attempt.estimated, decision.tenant, decision.id]
        for decision in binding.decisions
        for attempt in decision.attempts
    ]


# What is around


class Passing(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: Any) -> Any:
        return await call_next(request)


class Copying:
    """Hands on a copy of the scope."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(dict(scope), receive, send)


class Spec24:
    """Makes any server one of ASGI 2.4 for requests that want it: `send` raises OSError when the client has gone."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (b"x-spec", b"2.4") not in scope["headers"]:
            await self.app(scope, receive, send)
            return
        gone, queue = asyncio.Event(), asyncio.Queue[Any]()

        async def listen() -> None:
            while True:
                message = await receive()
                queue.put_nowait(message)
                if message["type"] == "http.disconnect":
                    gone.set()
                    return

        async def tell(message: Message) -> None:
            if gone.is_set():
                raise OSError("the client has gone")
            await send(message)

        listening = asyncio.create_task(listen())
        try:
            await self.app(scope | {"asgi": {"version": "3.0", "spec_version": "2.4"}}, queue.get, tell)
        except ClientDisconnect:
            pass
        finally:
            listening.cancel()
            await asyncio.wait((listening,))


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    asyncio.get_running_loop().slow_callback_duration = 3600  # what is slow here is the machine
    async with router.lifespan(app):
        yield
    if path := os.environ.get("LAST_WORDS"):
        Path(path).write_text(json.dumps(await state()), encoding="utf-8")  # noqa: ASYNC240  (nothing else runs)


tierline = Middleware(TierlineMiddleware, router=router, tenant=tenant_of)
around = {
    "nothing": [],
    "base": [Middleware(Passing)],
    "copies": [Middleware(Copying)],
}[os.environ.get("AROUND", "nothing")]
endpoints = (
    answer, sync_answer, texts, events, raw, opened, sync_texts, never_awaits, broken, abandon, collect, twice,
    detached, about,
)  # fmt: skip
app_itself = Starlette(
    routes=[
        *(Route(f"/{endpoint.__name__}", endpoint) for endpoint in endpoints),
        WebSocketRoute("/live", live),
    ],
    middleware=[*around, tierline, *around],
    lifespan=lifespan,
)
app = Spec24(app_itself)
