"""Apps that call Claude, browsers that leave, and balances, for tests of the seams to frameworks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from tierline import Budget, current
from tierline.asgi import TierlineMiddleware
from tierline.ledger.base import Reservation
from tierline.starlette import claude_of
from tierline.values import Offer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx
    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from starlette.types import Scope

    from tierline import Router

    Serve = Callable[[Any], Awaitable[httpx.AsyncClient]]
    MakeRouter = Callable[..., Router]

CANARY = "canary-prompt-7f3a"
CORS = {"origin": "https://shop.example"}


def ask(text: str = CANARY, **changes: Any) -> dict[str, Any]:
    return {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": text}], **changes}


def tenant_of(scope: Scope) -> str | None:
    """The tenant in a header, as authentication would have left it."""
    return dict(scope["headers"]).get(b"x-tenant", b"").decode() or None


async def answer(request: Request) -> JSONResponse:
    message = await claude_of(request).messages.create(**ask(request.query_params.get("q", CANARY)))
    decision = current().decisions[-1]
    return JSONResponse({"model": message.model, "tenant": decision.tenant, "route": decision.route})


async def chat(request: Request) -> StreamingResponse:
    async def body() -> AsyncIterator[str]:
        async with claude_of(request).messages.stream(**ask()) as stream:
            async for text in stream.text_stream:
                yield text

    return StreamingResponse(body())


def app_of(router: Router, *routes: BaseRoute, **options: Any) -> Starlette:
    app = Starlette(routes=[*routes, Route("/answer", answer), Route("/chat", chat)], lifespan=router.lifespan)
    app.add_middleware(TierlineMiddleware, router=router, tenant=tenant_of, **options)
    return app


async def held_by(router: Router) -> int:
    return sum(balance.held for balance in await router.balances())


async def settled(router: Router) -> dict[tuple[str, str], int]:
    """What each account has spent, once nothing is held any more."""
    async with asyncio.timeout(5):
        while await held_by(router):  # noqa: ASYNC110  (a ledger tells nobody when it changes)
            await asyncio.sleep(0)
    return {(b.budget, b.account): b.spent for b in await router.balances()}


class Socket:
    """A browser of which only the socket is left: it can stop reading, and go."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def get(cls, browser: httpx.AsyncClient, path: str, **headers: str) -> Socket:
        url = browser.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port, limit=1024)
        lines = [f"GET {path} HTTP/1.1", f"host: {url.host}", *(f"{k}: {v}" for k, v in headers.items()), "", ""]
        writer.write("\r\n".join(lines).encode())
        await writer.drain()
        return cls(reader, writer)

    async def body(self) -> bytes:
        """The first bytes of the body."""
        await self.reader.readuntil(b"\r\n\r\n")
        return await self.reader.read(1)

    def vanish(self) -> None:
        self.writer.transport.abort()


async def refusing(make_router: MakeRouter, amount: str = "$0.05/hour") -> Router:
    """A Router whose only budget is used up."""
    router = make_router(budgets=[Budget(amount)])
    line = router.budgets[0].line("global")
    held = await router.ledger.reserve("all of it", [Offer("sonnet", "m", line.limit)], [line], thresholds=False)
    assert isinstance(held, Reservation)
    await router.ledger.settle(held, line.limit)
    return router
