"""What apps, servers and clients do to the ASGI seam: each case under its own name."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from anthropic import AsyncAnthropic
from fastapi import APIRouter, FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Host, Mount, Route
from websockets.asyncio.client import connect

from tests.apps import answer, app_of, ask, chat, held_by, settled, tenant_of
from tierline import Budget, current, policy
from tierline.anthropic import attach
from tierline.asgi import TierlineMiddleware
from tierline.errors import BudgetExceededError
from tierline.fastapi import Claude, Routing  # noqa: TC001  (FastAPI reads annotations)
from tierline.starlette import claude_of, routing_of
from tierline.testing import Fault, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

    from tests.apps import MakeRouter, Serve
    from tierline import Router
    from tierline.testing import FakeClaude

pytestmark = pytest.mark.usefixtures("quiet")

TIER = {"claude-haiku-5-5": "haiku", "claude-sonnet-5-5": "sonnet", "claude-opus-5-5": "opus"}


async def tier_of(client: AsyncAnthropic) -> str:
    return TIER[(await client.messages.create(**ask())).model]


async def page(request: Request) -> PlainTextResponse:
    """Answer with tier and route: `sonnet`, unless a policy says otherwise."""
    tier = await tier_of(claude_of(request))
    return PlainTextResponse(f"{tier} {routing_of(request).decisions[-1].route}")


async def test_base_http_middleware_above_and_below(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """`BaseHTTPMiddleware` above and below changes nothing for streams, tenants and refusals."""

    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            return await call_next(request)

    router = make_router(budgets=[Budget("$0.05", per="tenant")], policy=policy(tier="sonnet"))
    app = Starlette(routes=[Route("/answer", answer), Route("/chat", chat)])
    app.add_middleware(Passing)
    app.add_middleware(TierlineMiddleware, router=router, tenant=tenant_of)
    app.add_middleware(Passing)
    browser = await serve(app)
    assert (await browser.get("/chat", headers={"x-tenant": "acme"})).text
    assert await settled(router) == {("$0.05 per tenant", "acme"): fake.billed}
    statuses = [(await browser.get("/answer", headers={"x-tenant": "acme"})).status_code for _ in range(60)]
    assert set(statuses) == {200, 402}


async def test_scope_copying_middleware(router: Router, serve: Serve) -> None:
    """Behind a middleware that hands on a copy of the scope, no floor of the table is lost."""

    class Copying:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await self.app(dict(scope), receive, send)

    async def blind(_: Request) -> PlainTextResponse:
        return PlainTextResponse(await tier_of(router.claude))

    app = Starlette(routes=[Route("/free", blind), Route("/seen", page)])
    app.add_middleware(Copying)
    app.add_middleware(TierlineMiddleware, router=router, routes={"/checkout/*": policy(floor="opus")})
    browser = await serve(app)
    assert (await browser.get("/free")).text == "opus"
    assert (await browser.get("/seen")).text == "sonnet /seen"


async def test_include_router_prefix_floor(router: Router, serve: Serve) -> None:
    """A floor of the table holds for a route below `include_router(prefix=…)`, nested ones too, and for no other."""

    async def told(claude: Claude, routing: Routing) -> str:
        return f"{await tier_of(claude)} {routing.decisions[-1].route}"

    inner = APIRouter(prefix="/pay")
    inner.get("/{order}")(told)
    shop = APIRouter()
    shop.include_router(inner, prefix="/checkout")
    shop.get("/{order}")(told)
    app = FastAPI()
    app.include_router(shop, prefix="/v1")
    app.include_router(shop, prefix="/v2")
    app.add_middleware(TierlineMiddleware, router=router, routes={"/v1/checkout/*": policy(floor="opus")})
    browser = await serve(app)
    paths = ("/v1/checkout/pay/7", "/v2/checkout/pay/7", "/v1/7")
    assert [(await browser.get(path)).json() for path in paths] == [
        "opus /v1/checkout/pay/{order}",
        "sonnet /v2/checkout/pay/{order}",
        "sonnet /v1/{order}",
    ]


@pytest.mark.parametrize("proxied", [False, True])
async def test_mount_host_root_path(router: Router, serve: Serve, proxied: bool) -> None:
    """Mounts count as part of the path; hosts and the root path of a proxy do not, whatever a client writes there."""
    api = Starlette(routes=[Mount("/v1", routes=[Route("/pay", page), Route("/free", page)])])
    app = Starlette(routes=[Host("api.example.org", app=api), Mount("/api", app=api), Route("/free", page)])
    app.add_middleware(
        TierlineMiddleware,
        router=router,
        routes={"/v1/pay": policy(floor="opus"), "/api/v1/pay": policy(tier="haiku"), "/free": policy(tier="haiku")},
    )

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        if proxied and scope["type"] == "http":
            scope = {**scope, "root_path": "/shop", "path": f"/shop{scope['path']}"}
        await app(scope, receive, send)

    browser = await serve(proxy)

    async def get(path: str, host: str) -> str:
        return (await browser.get(path, headers={"host": host})).text

    assert await get("/v1/pay", "api.example.org") == "opus /v1/pay"
    assert await get("/v1/free", "api.example.org") == "sonnet /v1/free"
    assert await get("/api/v1/pay", "www.example.org") == "haiku /api/v1/pay"
    assert await get("/api/v1/free", "www.example.org") == "sonnet /api/v1/free"
    assert await get("/free", "www.example.org") == "haiku /free"
    assert await get("/v1/pay", "x/free?") == "Not Found"


async def test_404_405_redirect_head(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """Error pages that ask Claude have the strictest floor where no route ran, redirects and HEAD lose none."""

    async def error_page(request: Request, error: Any) -> PlainTextResponse:
        return PlainTextResponse(await tier_of(claude_of(request)), error.status_code)

    router = make_router(budgets=[Budget("$5")])
    app = Starlette(routes=[Route("/checkout/pay", page), Route("/free", page)])
    app.add_middleware(
        TierlineMiddleware, router=router, routes={"/checkout/*": policy(floor="opus"), "/free": policy(tier="haiku")}
    )
    app.add_exception_handler(404, error_page)
    app.add_exception_handler(405, error_page)
    browser = await serve(app)
    missing = await browser.get("/nothing")
    assert (missing.status_code, missing.text) == (404, "opus")
    wrong = await browser.post("/checkout/pay")
    assert (wrong.status_code, wrong.text) == (405, "opus")
    assert (await browser.post("/free")).text == "haiku"
    fake_calls = len(fake.requests)
    moved = await browser.get("/checkout/pay/")
    assert (moved.status_code, len(fake.requests)) == (307, fake_calls)
    assert (await browser.get("/checkout/pay/", follow_redirects=True)).text == "opus /checkout/pay"
    head = await browser.head("/checkout/pay")
    assert (head.status_code, head.text) == (200, "")
    assert fake.requests[-1].model == "claude-opus-5-5"
    assert await settled(router) == {("$5", "global"): fake.billed}


async def test_websocket_multi_call(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """Many calls on one socket are charged to whom it is for by then, each under its own policy, each decided anew."""
    router = make_router(budgets=[Budget("$5", per="tenant")])
    app = FastAPI()

    @app.websocket("/live/{room}")
    async def live(websocket: WebSocket, claude: Claude, routing: Routing) -> None:
        await websocket.accept()
        async for word in websocket.iter_text():
            if word.startswith("i am "):
                websocket.state.tenant = word.removeprefix("i am ")
                continue
            with policy(tier=word):
                await claude.messages.create(**ask())
            last = routing.decisions[-1]
            await websocket.send_json([last.tier, last.tenant, last.route, len(routing.decisions)])

    app.add_middleware(TierlineMiddleware, router=router, tenant=lambda scope: scope.get("state", {}).get("tenant"))
    browser = await serve(app)
    told = []
    async with connect(f"ws://{browser.base_url.host}:{browser.base_url.port}/live/7") as socket:
        for word in ("haiku", "i am acme", "opus", "sonnet", "i am other", "haiku"):
            await socket.send(word)
            if not word.startswith("i am "):
                told.append(await socket.recv())
    assert told == [
        '["haiku",null,"/live/{room}",1]',
        '["opus","acme","/live/{room}",2]',
        '["sonnet","acme","/live/{room}",3]',
        '["haiku","other","/live/{room}",4]',
    ]
    billed = [r.billed for r in fake.requests]
    name = "$5 per tenant"
    assert await settled(router) == {
        (name, "default"): billed[0], (name, "acme"): billed[1] + billed[2], (name, "other"): billed[3],
    }  # fmt: skip


async def test_background_task_after_response(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A background task calls Claude for the request that started it, under its policy, when that is long answered."""
    router = make_router(budgets=[Budget("$5", per="tenant")])
    answered, done = asyncio.Event(), asyncio.Event()

    @policy(floor="opus")
    async def later(request: Request) -> PlainTextResponse:
        async def work() -> None:
            await answered.wait()
            await claude_of(request).messages.create(**ask())
            done.set()

        return PlainTextResponse("soon", background=BackgroundTask(work))

    browser = await serve(app_of(router, Route("/later", later)))
    assert (await browser.get("/later", headers={"x-tenant": "acme"})).text == "soon"
    assert fake.requests == []
    answered.set()
    await asyncio.wait_for(done.wait(), 5)
    assert [r.model for r in fake.requests] == ["claude-opus-5-5"]
    assert await settled(router) == {("$5 per tenant", "acme"): fake.billed}


@pytest.mark.parametrize("how", ["executor", "thread"])
async def test_raw_thread_call_metered(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, fake_url: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A call in a thread that carries no request is charged to the default accounts, and said once in the log."""
    router = make_router(budgets=[Budget("$5", per="tenant"), Budget("$6")], policy=policy(floor="opus"))

    async def call() -> str:
        async with AsyncAnthropic(api_key=fake.api_key, base_url=fake_url) as client:
            return await tier_of(attach(client, router))

    async def raw(_: Request) -> PlainTextResponse:
        loop = asyncio.get_running_loop()
        if how == "executor":
            return PlainTextResponse(await loop.run_in_executor(None, asyncio.run, call()))
        answered: asyncio.Future[str] = loop.create_future()
        threading.Thread(
            target=lambda: loop.call_soon_threadsafe(answered.set_result, asyncio.run(call())), daemon=True
        ).start()
        return PlainTextResponse(await answered)

    async def carried(_: Request) -> PlainTextResponse:
        return PlainTextResponse(await asyncio.to_thread(asyncio.run, call()))

    def said() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.name == "tierline" and r.levelno == logging.WARNING]

    browser = await serve(app_of(router, Route("/raw", raw), Route("/carried", carried)))
    assert (await browser.get("/carried", headers={"x-tenant": "acme"})).text == "opus"
    assert said() == []
    for _ in range(3):
        assert (await browser.get("/raw", headers={"x-tenant": "acme"})).text == "opus"
    (warning,) = said()
    assert "asyncio.to_thread" in warning
    first, *others = (r.billed for r in fake.requests)
    assert await settled(router) == {
        ("$5 per tenant", "acme"): first, ("$5 per tenant", "default"): sum(others), ("$6", "global"): fake.billed,
    }  # fmt: skip
    assert router.report().calls == 4


async def test_fanout_100_gather_one_request(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A hundred calls at once in one request: no block leaks to a sibling, no budget is passed, and each is settled."""
    router = make_router(budgets=[Budget("$5", per="tenant"), Budget("$0.25", per="request", downgrade_at=None)])
    fake.answer = lambda _: Reply("yes", output_tokens=400)

    async def fan(request: Request) -> JSONResponse:
        claude = claude_of(request)

        async def one(tier: str) -> str:
            try:
                with policy(tier=tier):
                    await asyncio.sleep(0)
                    return await tier_of(claude) + tier
            except BudgetExceededError:
                return ""

        found = await asyncio.gather(*(one(("haiku", "sonnet", "opus")[n % 3]) for n in range(100)))
        accounts = {b.account: b for b in await router.balances() if b.budget == "$0.25 per request"}
        (mine,) = accounts.values()
        return JSONResponse([found, mine.spent, mine.held, len(current().decisions)])

    browser = await serve(app_of(router, Route("/fan", fan)))
    found, spent, held, decisions = (await browser.get("/fan", headers={"x-tenant": "acme"})).json()
    served = [tiers for tiers in found if tiers]
    assert set(served) == {"haikuhaiku", "sonnetsonnet", "opusopus"}
    assert len(served) == len(fake.requests) < 100
    assert held == 0
    assert spent == fake.billed <= 250_000_000
    assert decisions == 100
    assert await settled(router) == {("$5 per tenant", "acme"): fake.billed}
    assert router.report().refusals == 100 - len(served)


async def test_exception_after_start(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, caplog: pytest.LogCaptureFixture
) -> None:
    """An app that fails in mid-stream breaks the connection, and what it had open is closed upstream and settled."""
    router = make_router(budgets=[Budget("$5", per="tenant")])

    async def broken(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            async with claude_of(request).messages.stream(**ask()) as stream:
                async for text in stream.text_stream:
                    yield text
                    raise ValueError("mine")

        return StreamingResponse(body())

    @policy(budgets=[Budget("$0.000001", name="tiny")])
    async def refused(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "so far so good"
            await claude_of(request).messages.create(**ask())

        return StreamingResponse(body())

    fake.always(None, Fault.hang(after=8))
    fake.answer = lambda _: Reply("word " * 50, thinking="hm")
    browser = await serve(app_of(router, Route("/broken", broken), Route("/refused", refused)))
    for path in ("/broken", "/refused"):
        with pytest.raises(httpx.RemoteProtocolError):
            await browser.get(path, headers={"x-tenant": "acme"})
    await fake.idle()
    assert [r.ended for r in fake.requests] == ["disconnected"]
    accounts = await settled(router)
    assert accounts["$5 per tenant", "acme"] >= fake.billed > 0
    assert await held_by(router) == 0
    caplog.clear()
