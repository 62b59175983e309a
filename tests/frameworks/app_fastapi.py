"""FastAPI, with a policy in every place that it has."""

from __future__ import annotations

from typing import Any

import anyio.from_thread
from common import BINDS, FLOOR, answer, balances, events, router, strict, words, words_in_a_block
from endpoints import Floored, Method, letters
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.requests import Request

from tierline.asgi import TierlineMiddleware

app = FastAPI(lifespan=router.lifespan)
app.add_middleware(TierlineMiddleware, **BINDS)
needs = [Depends(FLOOR)]


async def endpoint() -> dict[str, Any]:
    return await answer()


def sync_endpoint() -> Any:
    return anyio.from_thread.run(answer)


async def stream() -> StreamingResponse:
    return StreamingResponse(words(), media_type="text/plain")


for path in ("/free", "/table", "/parameter/{name}", "/rest/{path:path}", "/renews", "/total"):
    app.get(path)(endpoint)
app.get("/sync")(sync_endpoint)
app.get("/stream")(stream)
app.get("/balances")(balances)


@app.get("/events")
async def event_stream() -> StreamingResponse:
    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/background")
async def background(tasks: BackgroundTasks) -> dict[str, Any]:
    tasks.add_task(answer)
    return {}


async def function(_: Request) -> JSONResponse:
    return JSONResponse(await answer())


app.add_route("/function", function)

# Dependencies

app.get("/depends/route", dependencies=needs)(endpoint)
app.get("/depends/sync", dependencies=needs)(sync_endpoint)
app.get("/depends/stream", dependencies=needs)(stream)
floored = APIRouter(dependencies=needs)
floored.get("/router")(endpoint)
app.include_router(floored, prefix="/depends")
sub = FastAPI(dependencies=needs)
sub.get("/inside")(endpoint)
app.mount("/depends/app", sub)

# Decorators


@app.get("/decorator/inside")
@FLOOR
async def inside() -> dict[str, Any]:
    return await answer()


@FLOOR
@app.get("/decorator/outside")
async def outside() -> dict[str, Any]:
    return await answer()


app.get("/decorator/sync")(FLOOR(sync_endpoint))


@app.get("/decorator/stream")
@FLOOR
async def decorated_stream() -> StreamingResponse:
    return StreamingResponse(letters())


app.add_route("/decorator/class", Floored)
app.add_route("/decorator/method", Method)

# Blocks


@app.get("/block")
async def block() -> dict[str, Any]:
    with FLOOR:
        return await answer()


@app.get("/block/stream")
async def block_in_a_generator() -> StreamingResponse:
    return StreamingResponse(words_in_a_block())


# Routers in routers, apps in apps

inner, outer = APIRouter(), APIRouter()
inner.get("/inside")(endpoint)
outer.include_router(inner, prefix="/inner")
app.include_router(outer, prefix="/prefix")

mounted = FastAPI()
mounted.get("/inside")(endpoint)
app.mount("/mount/{tenant}", mounted)

apart = FastAPI()
apart.add_middleware(TierlineMiddleware, router=strict)
apart.get("/inside")(endpoint)
app.mount("/router", apart)
