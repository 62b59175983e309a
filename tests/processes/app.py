"""An app that calls Claude, in a process of its own, to be killed: `python -m tests.processes.app URL STORE LEASE FD`.

Where it is asked to, a call stops for good at one moment of its way, and says so, so that a kill strikes just there.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient
from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from tests.processes.stores import ledger_of
from tierline import Budget, Router
from tierline.asgi import TierlineMiddleware
from tierline.fastapi import Claude

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BUDGETS = (Budget("$1"), Budget("$1/day", per="tenant"))
ASK: dict[str, Any] = {"max_tokens": 500, "messages": [{"role": "user", "content": "Tell me about the sea."}]}
STOP_BEFORE, STOP_AFTER = "stop before sending", "stop before settling"
"""System prompts of the calls that stop in the HTTP client."""


async def _stop(where: str) -> None:
    Path(os.environ["MARKS"], where).touch()  # noqa: ASYNC240  (the one who waits for it kills us next)
    await asyncio.Event().wait()


async def _sending(request: Any) -> None:
    if STOP_BEFORE.encode() in request.content:
        await _stop("before")


async def _answered(response: Any) -> None:
    if STOP_AFTER.encode() in response.request.content:
        await response.aread()
        await _stop("after")


def build(base_url: str, store: str, lease: float) -> FastAPI:
    """The app, on a store of its own choosing; its leases are as long as it is told."""
    http = DefaultAsyncHttpxClient(event_hooks={"request": [_sending], "response": [_answered]})
    client = AsyncAnthropic(api_key=os.environ["FAKE_KEY"], base_url=base_url, http_client=http)
    router = Router(client, budgets=BUDGETS, ledger=ledger_of(store, lease=lease))
    app = FastAPI(lifespan=router.lifespan)
    app.add_middleware(TierlineMiddleware, router=router, tenant=lambda _: "acme")

    @app.get("/whole")
    async def whole(claude: Claude, system: str = "") -> dict[str, Any]:
        said = await claude.messages.create(model="claude-haiku-4-5", system=system, **ASK)
        return {"pid": os.getpid(), "tokens": said.usage.output_tokens}

    @app.get("/stream")
    async def stream(claude: Claude) -> StreamingResponse:
        async def lines() -> AsyncIterator[str]:
            async with claude.messages.stream(model="claude-haiku-4-5", **ASK) as events:
                async for text in events.text_stream:
                    yield text

        return StreamingResponse(lines())

    @app.get("/balances")
    async def balances() -> list[Any]:
        return [[each.budget, each.account, each.spent, each.held] for each in await router.balances()]

    return app


if __name__ == "__main__":
    url, store, lease, descriptor = sys.argv[1:]
    config = uvicorn.Config(build(url, store, float(lease)), log_level="warning", access_log=False, ws="none")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(descriptor))])
