"""Starlette, with a policy in every place that it has."""

from __future__ import annotations

from typing import Any

import anyio.from_thread
from common import BINDS, FLOOR, answer, balances, events, router, strict, words, words_in_a_block
from endpoints import Floored, Method, letters
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount, Route, Router

from tierline.asgi import TierlineMiddleware


def endpoint() -> Any:
    """Another function each time: up to 1.0 a route is told by the function that it owns."""

    async def called(_: Request) -> JSONResponse:
        return JSONResponse(await answer())

    return called


def sync_endpoint(_: Request) -> JSONResponse:
    return JSONResponse(anyio.from_thread.run(answer))


async def stream(_: Request) -> StreamingResponse:
    return StreamingResponse(words(), media_type="text/plain")


async def event_stream(_: Request) -> StreamingResponse:
    return StreamingResponse(events(), media_type="text/event-stream")


async def background(_: Request) -> JSONResponse:
    return JSONResponse({}, background=BackgroundTask(answer))


async def show_balances(_: Request) -> JSONResponse:
    return JSONResponse(await balances())


@FLOOR
async def inside(_: Request) -> JSONResponse:
    return JSONResponse(await answer())


@FLOOR
async def decorated_stream(_: Request) -> StreamingResponse:
    return StreamingResponse(letters())


async def block(_: Request) -> JSONResponse:
    with FLOOR:
        return JSONResponse(await answer())


async def block_in_a_generator(_: Request) -> StreamingResponse:
    return StreamingResponse(words_in_a_block())


class Function:
    """An endpoint that is an ASGI app of its own."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await JSONResponse(await answer())(scope, receive, send)


free = ("/free", "/table", "/parameter/{name}", "/rest/{path:path}", "/renews", "/total")
apart = Starlette(routes=[Route("/inside", endpoint())], middleware=[Middleware(TierlineMiddleware, router=strict)])
app = Starlette(
    routes=[
        *(Route(path, endpoint()) for path in free),
        Route("/sync", sync_endpoint),
        Route("/stream", stream),
        Route("/events", event_stream),
        Route("/background", background),
        Route("/balances", show_balances),
        Route("/function", Function()),
        Route("/decorator/inside", inside),
        Route("/decorator/sync", FLOOR(sync_endpoint)),
        Route("/decorator/stream", decorated_stream),
        Route("/decorator/class", Floored),
        Route("/decorator/method", Method),
        Route("/block", block),
        Route("/block/stream", block_in_a_generator),
        Mount("/mount/{tenant}", routes=[Route("/inside", endpoint())]),
        Mount("/prefix", app=Router(routes=[Mount("/inner", app=Router(routes=[Route("/inside", endpoint())]))])),
        Mount("/router", app=apart),
    ],
    middleware=[Middleware(TierlineMiddleware, **BINDS)],
    lifespan=router.lifespan,
)
