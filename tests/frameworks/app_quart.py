"""Quart, which is told by its path; decorators and blocks hold as everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from common import BINDS, FLOOR, answer, balances, events, router, words, words_in_a_block
from quart import Blueprint, Quart

from tierline.asgi import TierlineMiddleware

app = Quart(__name__)
app.asgi_app = TierlineMiddleware(app.asgi_app, **BINDS)


@app.while_serving
async def lifespan() -> AsyncIterator[None]:
    async with router.lifespan():
        yield


async def endpoint(**_: str) -> dict[str, Any]:
    return await answer()


for path in ("/free", "/table", "/parameter/<name>", "/rest/<path:path>", "/renews", "/total", "/function"):
    app.add_url_rule(path, path.replace("/", "_"), endpoint)
blueprint = Blueprint("inner", __name__, url_prefix="/inner")
blueprint.add_url_rule("/inside", "inside", endpoint)
outer = Blueprint("prefix", __name__, url_prefix="/prefix")
outer.register_blueprint(blueprint)
app.register_blueprint(outer)


@app.get("/stream")
async def stream() -> Any:
    return words(), {"content-type": "text/plain"}


@app.get("/events")
async def event_stream() -> Any:
    return events(), {"content-type": "text/event-stream"}


@app.get("/background")
async def background() -> dict[str, Any]:
    app.add_background_task(answer)
    return {}


@app.get("/balances")
async def show_balances() -> list[dict[str, Any]]:
    return await balances()


@app.get("/decorator/inside")
@FLOOR
async def inside() -> dict[str, Any]:
    return await answer()


@FLOOR
@app.get("/decorator/outside")
async def outside() -> dict[str, Any]:
    return await answer()


@app.get("/block")
async def block() -> dict[str, Any]:
    with FLOOR:
        return await answer()


@app.get("/block/stream")
async def block_in_a_generator() -> Any:
    return words_in_a_block(), {"content-type": "text/plain"}
