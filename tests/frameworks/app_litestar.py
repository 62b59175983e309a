"""Litestar, which leaves the template of its route; decorators and blocks hold as everywhere."""

from __future__ import annotations

from typing import Any

from common import BINDS, FLOOR, answer, balances, events, router, words, words_in_a_block
from litestar import Litestar, Router, get
from litestar.background_tasks import BackgroundTask
from litestar.response import Response, Stream

from tierline.asgi import TierlineMiddleware


@get(["/free", "/table", "/parameter/{name:str}", "/rest/{path:path}", "/renews", "/total", "/function"])
async def endpoint() -> dict[str, Any]:
    return await answer()


@get("/stream")
async def stream() -> Stream:
    return Stream(words(), media_type="text/plain")


@get("/events")
async def event_stream() -> Stream:
    return Stream(events(), media_type="text/event-stream")


@get("/background")
async def background() -> Response[dict[str, Any]]:
    return Response({}, background=BackgroundTask(answer))


@get("/balances")
async def show_balances() -> list[dict[str, Any]]:
    return await balances()


@get("/decorator/inside")
@FLOOR
async def inside() -> dict[str, Any]:
    return await answer()


@get("/block")
async def block() -> dict[str, Any]:
    with FLOOR:
        return await answer()


@get("/block/stream")
async def block_in_a_generator() -> Stream:
    return Stream(words_in_a_block(), media_type="text/plain")


@get("/inside")
async def included() -> dict[str, Any]:
    return await answer()


app = TierlineMiddleware(
    Litestar(
        [
            endpoint, stream, event_stream, background, show_balances, inside, block,
            block_in_a_generator, Router("/prefix/inner", route_handlers=[included]),
        ],
        lifespan=[router.lifespan],
    ),
    **BINDS,
)  # fmt: skip
