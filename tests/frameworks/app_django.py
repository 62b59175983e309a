"""Django's ASGI app, which is told by its path; decorators and blocks hold as everywhere."""

from __future__ import annotations

from typing import Any

import django
from asgiref.sync import async_to_sync
from common import BINDS, FLOOR, answer, balances, events, router, words, words_in_a_block
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse, StreamingHttpResponse
from django.urls import include, path
from django.views import View

from tierline.asgi import TierlineMiddleware

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of tests", USE_TZ=True, LOGGING_CONFIG=None)
django.setup()


async def view(request: HttpRequest, **_: str) -> JsonResponse:
    return JsonResponse(await answer())


def sync_view(request: HttpRequest) -> JsonResponse:
    return JsonResponse(async_to_sync(answer)())


async def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(words(), content_type="text/plain")


async def event_stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(events(), content_type="text/event-stream")


async def show_balances(request: HttpRequest) -> JsonResponse:
    return JsonResponse(await balances(), safe=False)


@FLOOR
async def inside(request: HttpRequest) -> JsonResponse:
    return await view(request)


class Method(View):
    @FLOOR
    async def get(self, request: HttpRequest) -> JsonResponse:
        return await view(request)


async def block(request: HttpRequest) -> JsonResponse:
    with FLOOR:
        return await view(request)


async def block_in_a_generator(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(words_in_a_block())


plain = ("free", "table", "parameter/<name>", "rest/<path:path>", "renews", "total", "function")
urlpatterns = [
    *(path(each, view) for each in plain),
    path("prefix/", include([path("inner/", include([path("inside", view)]))])),
    path("sync", sync_view),
    path("stream", stream),
    path("events", event_stream),
    path("balances", show_balances),
    path("decorator/inside", inside),
    path("decorator/sync", FLOOR(sync_view)),
    path("decorator/method", Method.as_view()),
    path("block", block),
    path("block/stream", block_in_a_generator),
]
served = TierlineMiddleware(get_asgi_application(), **BINDS)


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Django has no lifespan of its own."""
    if scope["type"] != "lifespan":
        await served(scope, receive, send)
        return
    await receive()
    async with router.lifespan():
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
