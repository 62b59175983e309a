"""WebSockets: real clients over sockets, refusals as close codes, clients that leave in mid-call."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Depends, FastAPI, WebSocket, WebSocketDisconnect
from starlette.applications import Starlette
from starlette.endpoints import WebSocketEndpoint
from starlette.routing import Mount, WebSocketRoute
from starlette.testclient import TestClient
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.apps import ask, refusing, settled
from tierline import Budget, policy
from tierline.asgi import TierlineMiddleware
from tierline.errors import BudgetExceededError
from tierline.fastapi import Claude, Routing  # noqa: TC001  (FastAPI reads annotations)
from tierline.starlette import claude_of
from tierline.testing import Fault, Reply

if TYPE_CHECKING:
    import httpx
    from starlette.types import Receive, Scope, Send

    from tests.apps import MakeRouter, Serve
    from tierline import Router
    from tierline.testing import FakeClaude

pytestmark = pytest.mark.usefixtures("quiet")

TIER = {"claude-haiku-5-5": "haiku", "claude-sonnet-5-5": "sonnet", "claude-opus-5-5": "opus"}


def at(browser: httpx.AsyncClient, path: str) -> str:
    return f"ws://{browser.base_url.host}:{browser.base_url.port}{path}"


def tenant_of(scope: Scope) -> str | None:
    """The tenant as the endpoint left it, after the handshake."""
    return scope.get("state", {}).get("tenant")


def app_of(router: Router, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=router.lifespan)

    @app.websocket("/echo")
    async def echo(websocket: WebSocket, claude: Claude) -> None:
        await websocket.accept()
        async for text in websocket.iter_text():
            message = await claude.messages.create(**ask(text))
            await websocket.send_text(TIER[message.model])

    @app.websocket("/stream")
    async def stream(websocket: WebSocket, claude: Claude) -> None:
        await websocket.accept()
        websocket.state.tenant = await websocket.receive_text()
        with suppress(WebSocketDisconnect):
            async with claude.messages.stream(**ask()) as chunks:
                async for text in chunks.text_stream:
                    await websocket.send_text(text)

    app.add_middleware(TierlineMiddleware, router=router, tenant=tenant_of, **options)
    return app


async def closed(url: str, word: str) -> tuple[int, str]:
    """How a socket was closed when this was said."""
    async with connect(url) as socket:
        await socket.send(word)
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert socket.close_code is not None
        return socket.close_code, socket.close_reason or ""


@pytest.mark.parametrize(("amount", "code"), [("$0.05/hour", 1013), ("$0.05", 1008)])
@pytest.mark.parametrize("framework", [True, False])
async def test_refusal_closes(make_router: MakeRouter, serve: Serve, amount: str, code: int, framework: bool) -> None:
    """A refusal closes the socket with a code that says whether to come back later, in a framework and without one."""
    router = await refusing(make_router, amount)

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await receive()
        await receive()
        await router.claude.messages.create(**ask())

    browser = await serve(app_of(router) if framework else TierlineMiddleware(bare, router=router))
    assert await closed(at(browser, "/echo"), "hi") == (code, "The budget for this service is used up")
    assert router.report().refusals == 1


@pytest.mark.parametrize("framework", [True, False])
async def test_busy_api_closes(make_router: MakeRouter, serve: Serve, fake: FakeClaude, framework: bool) -> None:
    """Where it is asked for, a busy API closes the socket with 1013: try again later."""
    router = make_router()

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await receive()
        await receive()
        await router.claude.messages.create(**ask())

    fake.always(None, Fault.overloaded())
    telling: Any = TierlineMiddleware(bare, router=router, busy_as_503=True)
    browser = await serve(app_of(router, busy_as_503=True) if framework else telling)
    assert await closed(at(browser, "/echo"), "hi") == (1013, "The model is busy")


async def test_busy_api_is_the_apps_by_default(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the option it is an error of the app, as any other: nobody is told to come back."""
    fake.always(None, Fault.overloaded())
    browser = await serve(app_of(make_router()))
    code, reason = await closed(at(browser, "/echo"), "hi")
    assert code not in (1000, 1013)
    assert reason == ""
    assert any("ASGI application" in record.getMessage() for record in caplog.records)
    caplog.clear()


async def test_app_catches_a_refusal_itself(make_router: MakeRouter, serve: Serve) -> None:
    """An endpoint may say it in words of its own, and keep the socket open for more."""
    router = make_router(budgets=[Budget("$0.02", per="tenant")], policy=policy(tier="sonnet"))
    app = FastAPI()

    @app.websocket("/live")
    async def live(websocket: WebSocket, claude: Claude) -> None:
        await websocket.accept()
        async for tenant in websocket.iter_text():
            websocket.state.tenant = tenant
            try:
                await claude.messages.create(**ask())
            except BudgetExceededError as error:
                await websocket.send_text(f"{error.refusal.account}: {error.http_status}")
            else:
                await websocket.send_text("ok")

    app.add_middleware(TierlineMiddleware, router=router, tenant=tenant_of)
    browser = await serve(app)
    async with connect(at(browser, "/live")) as socket:

        async def say(tenant: str) -> str:
            await socket.send(tenant)
            return str(await socket.recv())

        answers = [await say("acme") for _ in range(12)]
        assert await say("other") == "ok"
        assert await say("acme") == "acme: 402"
    assert answers[0] == "ok"
    assert answers[-1] == "acme: 402"


async def test_refused_before_it_is_accepted(make_router: MakeRouter, serve: Serve) -> None:
    """A call before the handshake that is refused is a handshake that is rejected."""
    app = FastAPI()

    @app.websocket("/early")
    async def early(websocket: WebSocket, claude: Claude) -> None:
        await claude.messages.create(**ask())
        await websocket.accept()

    app.add_middleware(TierlineMiddleware, router=await refusing(make_router))
    with pytest.raises(InvalidStatus) as caught:
        async with connect(at(await serve(app), "/early")):
            pass
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize("framework", [True, False])
async def test_refused_when_nobody_is_there(make_router: MakeRouter, serve: Serve, framework: bool) -> None:
    """A refusal after the client has left, or the app has closed, is told to nobody, and is no crash of the app."""
    router = await refusing(make_router)
    refused = asyncio.Event()

    async def call(client: Any) -> None:
        try:
            await client.messages.create(**ask())
        finally:
            refused.set()

    app = FastAPI()

    @app.websocket("/left")
    async def left(websocket: WebSocket, claude: Claude) -> None:
        await websocket.accept()
        try:
            await websocket.receive_text()
        except WebSocketDisconnect:
            await call(claude)

    @app.websocket("/closed")
    async def closes(websocket: WebSocket, claude: Claude) -> None:
        await websocket.accept()
        await websocket.close()
        await call(claude)

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await receive()
        await receive()
        await call(router.claude)

    app.add_middleware(TierlineMiddleware, router=router)
    browser = await serve(app if framework else TierlineMiddleware(bare, router=router))
    # Without a framework an app that has said its last word is answered for by nobody.
    paths = ("/left", "/closed") if framework else ("/left",)
    for path in paths:
        refused.clear()
        async with connect(at(browser, path)) as socket:
            socket.transport.abort()
        await asyncio.wait_for(refused.wait(), 5)
    assert router.report().refusals == len(paths)


@pytest.mark.parametrize(("kind", "framework"), [("websocket", True), ("websocket", False), ("http", False)])
async def test_refused_over_a_broken_connection(make_router: MakeRouter, framework: bool, kind: str) -> None:
    """Servers may raise OSError where nobody is there to be told: that is no crash of the app."""
    router = await refusing(make_router)
    tried: list[str] = []

    async def receive() -> Any:
        return {"type": f"{kind}.connect" if kind == "websocket" else "http.request"}

    async def send(message: Any) -> None:
        tried.append(message["type"])
        if message["type"] != "websocket.accept":
            raise OSError

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        if kind == "websocket":
            await send({"type": "websocket.accept"})
        await router.claude.messages.create(**ask())

    app = FastAPI()

    @app.websocket("/")
    async def live(websocket: WebSocket, claude: Claude) -> None:
        await websocket.accept()
        await claude.messages.create(**ask())

    scope: Scope = {
        "type": kind, "path": "/", "headers": [], "query_string": b"", "subprotocols": [], "method": "GET",
    }  # fmt: skip
    await TierlineMiddleware(app if framework else bare, router=router)(scope, receive, send)
    assert tried[-1] == ("websocket.close" if kind == "websocket" else "http.response.start")


async def test_client_leaves_in_mid_call(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A call whose client leaves meanwhile is completed and charged to whom it was for."""
    router = make_router(budgets=[Budget("$5", per="tenant")])
    answered, left = asyncio.Event(), asyncio.Event()
    app = FastAPI()

    @app.websocket("/live")
    async def live(websocket: WebSocket, claude: Claude, routing: Routing) -> None:
        await websocket.accept()
        websocket.state.tenant = await websocket.receive_text()
        await claude.messages.create(**ask())
        with suppress(WebSocketDisconnect):
            await websocket.receive_text()
        left.set()

    async def hold(_: float) -> None:
        await answered.wait()

    fake._latency, fake._sleep = 1.0, hold
    app.add_middleware(TierlineMiddleware, router=router, tenant=tenant_of)
    browser = await serve(app)
    async with connect(at(browser, "/live")) as socket:
        await socket.send("acme")
        await fake.until(lambda requests: requests and requests[0].body)
        socket.transport.abort()
    answered.set()
    await asyncio.wait_for(left.wait(), 5)
    assert await settled(router) == {("$5 per tenant", "acme"): fake.billed}
    assert fake.requests[0].ended == "complete"


async def test_client_leaves_in_mid_stream(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A stream whose reader is gone is closed upstream, and settled on the tenant that the endpoint named."""
    router = make_router(budgets=[Budget("$5", per="tenant")])
    fake._chunk_delay, fake._sleep = 1.0, lambda _: asyncio.sleep(0.001)
    fake.answer = lambda _: Reply("word " * 5_000, output_tokens=490)
    browser = await serve(app_of(router))
    async with connect(at(browser, "/stream")) as socket:
        await socket.send("acme")
        await socket.recv()
        socket.transport.abort()
    await fake.idle()
    assert fake.requests[0].ended == "disconnected"
    (spent,) = (await settled(router)).items()
    assert spent[0] == ("$5 per tenant", "acme")
    assert spent[1] >= fake.billed > 0


async def test_policies_on_sockets(router: Router, serve: Serve) -> None:
    """Dependencies, decorators, endpoint classes and the table hold on sockets as on requests."""
    app = FastAPI()

    async def tell(websocket: WebSocket, claude: Claude) -> None:
        await websocket.accept()
        await websocket.send_text(TIER[(await claude.messages.create(**ask())).model])
        await websocket.close()

    opus = policy(floor="opus")
    app.websocket("/depends", dependencies=[Depends(opus)])(tell)
    app.websocket("/table/{x}")(tell)
    app.websocket("/plain")(tell)

    @app.websocket("/decorated")
    @opus
    async def decorated(websocket: WebSocket, claude: Claude) -> None:
        await tell(websocket, claude)

    @opus
    class Live(WebSocketEndpoint):
        encoding = "text"

        async def on_connect(self, websocket: WebSocket) -> None:
            await tell(websocket, claude_of(websocket))

    app.mount("/starlette", Starlette(routes=[Mount("/in", routes=[WebSocketRoute("/live", Live)])]))
    app.add_middleware(TierlineMiddleware, router=router, routes={"/table/*": opus})
    browser = await serve(app)
    told = {}
    for path in ("/depends", "/table/7", "/decorated", "/starlette/in/live", "/plain"):
        async with connect(at(browser, path)) as socket:
            told[path] = await socket.recv()
    assert told.pop("/plain") == "sonnet"
    assert set(told.values()) == {"opus"}


def test_sockets_in_the_testclient(fake: FakeClaude) -> None:
    """Starlette's TestClient, its loop in another thread, sees tiers, refusals and close codes."""
    from anthropic import AsyncAnthropic

    from tierline import Router

    with fake.serve_in_thread() as url:
        client = AsyncAnthropic(api_key=fake.api_key, base_url=url)
        router = Router(client, policy=policy(tier="sonnet"), budgets=[Budget("$0.02")])
        app = app_of(router)
        with TestClient(app) as browser, browser.websocket_connect("/echo") as socket:
            answers: list[str] = []
            code = 0
            try:
                while len(answers) < 100:
                    socket.send_text("hi")
                    answers.append(socket.receive_text())
            except WebSocketDisconnect as error:
                code = error.code
            assert browser.portal is not None
            browser.portal.call(client.close)
    assert code == 1008
    assert answers == ["sonnet"] * len(fake.requests)
    assert 0 < len(answers) < 100
