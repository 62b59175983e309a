"""The ASGI seam: apps on a real server, real clients that leave, budgets told over HTTP."""

from __future__ import annotations

import asyncio
import gc
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from tierline import Budget, Router, current, policy
from tierline.asgi import TierlineMiddleware
from tierline.classify import ClaudeClassifier
from tierline.errors import BudgetExceededError, ConfigurationError, LedgerUnavailableError, TierlineError
from tierline.ledger import MemoryLedger
from tierline.ledger.base import Reservation
from tierline.starlette import claude_of
from tierline.testing import Fault, Reply
from tierline.values import Offer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx
    from starlette.requests import Request
    from starlette.types import Message, Receive, Scope, Send

    from tierline.testing import FakeClaude

    Serve = Callable[[Any], Awaitable[httpx.AsyncClient]]
    MakeRouter = Callable[..., Router]

pytestmark = pytest.mark.usefixtures("quiet")

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


def app_of(router: Router, *routes: Route | Mount, **options: Any) -> Starlette:
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


# The Binding


async def test_request_is_bound(router: Router, serve: Serve) -> None:
    """Inside a request `current()` is its Binding, with tenant, route and what was decided; outside there is none."""
    browser = await serve(app_of(router))
    found = (await browser.get("/answer", headers={"x-tenant": "acme"})).json()
    assert found == {"model": "claude-sonnet-5-5", "tenant": "acme", "route": "/answer"}
    with pytest.raises(ConfigurationError, match=r"router\.bind"):
        current()


async def test_each_request_has_its_own(router: Router, serve: Serve) -> None:
    """Requests at the same time do not see each other's tenant or decisions."""
    browser = await serve(app_of(router))
    names = [f"t{n}" for n in range(20)]
    found = await asyncio.gather(*(browser.get("/answer", headers={"x-tenant": name}) for name in names))
    assert [response.json()["tenant"] for response in found] == names
    assert {name: spend.calls for name, spend in router.report().by_account.items()} == dict.fromkeys(names, 1)


async def test_tenant_is_asked_late(make_router: MakeRouter, serve: Serve) -> None:
    """The tenant is read when Claude is called, so authentication may stand below the middleware."""

    class Authentication(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            request.scope["tenant"] = "acme"
            return await call_next(request)

    router = make_router(budgets=[Budget("$5/day", per="tenant")])
    app = Starlette(routes=[Route("/answer", answer)])
    app.add_middleware(Authentication)
    app.add_middleware(TierlineMiddleware, router=router, tenant=lambda scope: scope.get("tenant"))
    browser = await serve(app)
    assert (await browser.get("/answer")).json()["tenant"] == "acme"
    assert [b.account for b in await router.balances()] == ["acme"]


async def test_remote_client_cannot_say_who_it_is(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """Headers and bodies of a remote client lift no floor, no budget, and name no tenant but as the app says."""
    router = make_router(budgets=[Budget("$5/day", per="tenant")])
    app = Starlette(routes=[Route("/answer", answer)])
    app.add_middleware(TierlineMiddleware, router=router, tenant=lambda _: "acme", routes={"/*": policy(floor="opus")})
    browser = await serve(app)
    spoofed = {"x-tenant": "other", "x-tierline-tenant": "other", "x-tierline-tier": "haiku", "host": "x/free?"}
    assert (await browser.get("/answer", headers=spoofed)).json()["tenant"] == "acme"
    assert [r.model for r in fake.requests] == ["claude-opus-5-5"]


async def test_other_scopes_pass(router: Router) -> None:
    """Lifespan events pass untouched."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])
        assert "tierline" not in scope

    await TierlineMiddleware(app, router=router)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


@pytest.mark.parametrize(
    "options", [{"router": "router"}, {"tenant": "acme"}, {"routes": {"checkout": policy()}}, {"routes": {"/": 7}}]
)
def test_nonsense_is_refused(options: dict[str, Any]) -> None:
    """Arguments that cannot work are named when the middleware is made."""
    with pytest.raises(ConfigurationError):
        TierlineMiddleware(answer, **{"router": Router(), **options})  # type: ignore[arg-type]


def test_unknown_tier_in_the_table() -> None:
    """A tier that is not on the ladder is named with the pattern that it stands in."""
    with pytest.raises(ConfigurationError, match=r"/checkout/\*.*gpt"):
        TierlineMiddleware(answer, router=Router(), routes={"/checkout/*": policy(floor="gpt")})  # type: ignore[arg-type]


# Budgets as HTTP


async def refusing(make_router: MakeRouter, amount: str = "$0.05/hour") -> Router:
    """A Router whose only budget is used up."""
    router = make_router(budgets=[Budget(amount)])
    line = router.budgets[0].line("global")
    held = await router.ledger.reserve("all of it", [Offer("sonnet", "m", line.limit)], [line], thresholds=False)
    assert isinstance(held, Reservation)
    await router.ledger.settle(held, line.limit)
    return router


@pytest.mark.parametrize(("amount", "status"), [("$0.05/hour", 429), ("$0.05", 402), ("$0.000001/hour", 402)])
async def test_refusal_over_http(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, amount: str, status: int
) -> None:
    """A budget that renews answers 429 with Retry-After, a total 402; nothing is sent, and nothing secret is told."""
    router = await refusing(make_router, amount)
    browser = await serve(app_of(router))
    response = await browser.get("/answer", headers={"x-tenant": "acme-secret"})
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {"type": "about:blank", "title": response.json()["title"], "status": status}
    if status == 429:
        assert 1 <= int(response.headers["retry-after"]) <= 3600
    else:
        assert "retry-after" not in response.headers
    told = response.text + str(response.headers)
    assert not any(secret in told for secret in (CANARY, "acme-secret", fake.api_key, amount))
    assert fake.requests == []
    assert await held_by(router) == 0
    assert router.report().refusals == 1


async def test_ledger_unavailable(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A ledger that cannot be asked is a 503: nothing is sent, and its address is not told."""

    class Down(MemoryLedger):
        async def reserve(self, *_: Any, **__: Any) -> Any:
            raise LedgerUnavailableError("redis://user:hunter2@db is down")

    browser = await serve(app_of(make_router(ledger=Down(), budgets=[Budget("$5")])))
    response = await browser.get("/answer")
    assert (response.status_code, fake.requests) == (503, [])
    assert "hunter2" not in response.text


async def test_ledger_that_fails_to_settle(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """An answer that was paid for reaches the app, whole or streamed, whatever the ledger does afterwards."""

    class Forgetful(MemoryLedger):
        async def settle(self, *_: Any, **__: Any) -> bool:
            raise LedgerUnavailableError("gone")

    router = make_router(ledger=Forgetful(), budgets=[Budget("$5")])
    browser = await serve(app_of(router))
    assert (await browser.get("/answer")).status_code == 200
    assert (await browser.get("/chat")).text != ""
    assert await held_by(router) >= fake.billed > 0


@pytest.mark.parametrize("cors_inside", [True, False])
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
async def test_refusals_have_cors_headers(
    make_router: MakeRouter, serve: Serve, cors_inside: bool, framework: Any
) -> None:
    """A browser may read a refusal, whichever of the two middlewares is outside."""
    router = await refusing(make_router)
    app = framework(routes=[Route("/answer", answer)])
    cors: tuple[Any, dict[str, Any]] = (CORSMiddleware, {"allow_origins": ["*"]})
    ours: tuple[Any, dict[str, Any]] = (TierlineMiddleware, {"router": router})
    for middleware, options in (cors, ours) if cors_inside else (ours, cors):
        app.add_middleware(middleware, **options)
    response = await (await serve(app)).get("/answer", headers=CORS)
    assert response.status_code == 429
    assert response.headers["access-control-allow-origin"] == "*"


async def test_refusal_with_the_middleware_around_the_app(make_router: MakeRouter, serve: Serve) -> None:
    """Wrapped around a whole app with mounts, refusals are answered inside of it all the same."""
    router = await refusing(make_router)
    inner = Starlette(routes=[Route("/answer", answer)])
    inner.add_middleware(CORSMiddleware, allow_origins=["*"])
    app = Starlette(routes=[Mount("/v1", app=inner)])
    browser = await serve(TierlineMiddleware(app, router=router))
    response = await browser.get("/v1/answer", headers=CORS)
    assert response.status_code == 429
    assert response.headers["access-control-allow-origin"] == "*"


async def test_refusal_without_a_framework(make_router: MakeRouter, serve: Serve) -> None:
    """Around a bare ASGI app, the middleware answers by itself."""
    router = await refusing(make_router)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await router.claude.messages.create(**ask())

    response = await (await serve(TierlineMiddleware(app, router=router))).get("/anything")
    assert (response.status_code, response.headers["content-type"]) == (429, "application/problem+json")


def swallowing(ask_claude: Callable[[], Awaitable[Any]], status: int) -> Any:
    """A framework that knows no error of ours: it answers all that it does not know by a page of its own."""
    page = b"<h1>Something went wrong</h1>" * 9
    headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(page)), (b"x-app", b"shop")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(TierlineError):
            await ask_claude()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": page[:9], "more_body": True})
        await send({"type": "http.response.body", "body": page[9:]})

    return app


async def test_refusal_in_a_framework_that_swallows_it(make_router: MakeRouter, serve: Serve) -> None:
    """Where a framework makes a 500 of a refusal, the client is told of the refusal, below the framework's headers."""
    router = await refusing(make_router)
    app = swallowing(lambda: router.claude.messages.create(**ask()), 500)
    response = await (await serve(TierlineMiddleware(app, router=router))).get("/")
    assert (response.status_code, response.json()["status"]) == (429, 429)
    assert response.headers.get_list("content-type") == ["application/problem+json"]
    assert int(response.headers["content-length"]) == len(response.content)
    assert int(response.headers["retry-after"]) > 0
    assert response.headers["x-app"] == "shop"


async def test_refusal_below_a_middleware_that_copies_the_scope(
    make_router: MakeRouter, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the app's exception handling is out of sight, its 500 is exchanged, and the server is told of no crash."""
    router = await refusing(make_router)

    async def quiet_answer(_: Request) -> JSONResponse:
        return JSONResponse({"id": (await router.claude.messages.create(**ask())).id})

    inner = Starlette(routes=[Route("/answer", quiet_answer)])

    async def copying(scope: Scope, receive: Receive, send: Send) -> None:
        await inner(dict(scope), receive, send)

    response = await (await serve(TierlineMiddleware(copying, router=router))).get("/answer")
    assert (response.status_code, response.headers["content-type"]) == (429, "application/problem+json")
    assert [record for record in caplog.records if record.exc_info] == []


async def test_other_answers_of_a_framework_stay(make_router: MakeRouter, serve: Serve, router: Router) -> None:
    """An app that answers a refusal itself, or that fails for a reason of its own, keeps its answer."""
    poor = await refusing(make_router)
    for ours, status in ((poor, 503), (poor, 200), (router, 500)):
        app = swallowing(lambda claude=ours.claude: claude.messages.create(**ask()), status)  # type: ignore[misc]
        response = await (await serve(TierlineMiddleware(app, router=ours))).get("/")
        assert (response.status_code, response.text[:4]) == (status, "<h1>")


async def test_handler_of_the_app_may_say_500(make_router: MakeRouter, serve: Serve) -> None:
    """A handler of the app's own is asked, and what it says is not exchanged."""
    app = app_of(await refusing(make_router))
    app.add_exception_handler(BudgetExceededError, lambda *_: PlainTextResponse("sorry", 500))
    response = await (await serve(app)).get("/answer")
    assert (response.status_code, response.text) == (500, "sorry")


async def test_refusal_that_a_framework_wraps(make_router: MakeRouter, serve: Serve) -> None:
    """An exception that a framework raises from a refusal, once events have begun, ends them with an error event."""
    router = await refusing(make_router)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            await router.claude.messages.create(**ask())
        except TierlineError as error:
            raise ValueError("caught after the response has begun") from error

    response = await (await serve(TierlineMiddleware(app, router=router))).get("/")
    assert response.text.startswith("event: error\ndata: ")


@pytest.mark.parametrize("handled", [BudgetExceededError, TierlineError])
async def test_handler_of_the_app_wins(make_router: MakeRouter, serve: Serve, handled: type[Exception]) -> None:
    """An exception handler of the app's own answers instead, with every number at hand."""

    async def teapot(_: Request, error: Any) -> PlainTextResponse:
        return PlainTextResponse(error.refusal.budget, 418)

    app = app_of(await refusing(make_router))
    app.add_exception_handler(handled, teapot)
    browser = await serve(app)
    for _ in range(2):
        response = await browser.get("/answer")
        assert (response.status_code, response.text) == (418, "$0.05/hour")


async def test_app_may_catch_it(make_router: MakeRouter, serve: Serve) -> None:
    """An endpoint may catch a refusal itself, and its answer is the answer."""

    async def careful(request: Request) -> PlainTextResponse:
        try:
            await claude_of(request).messages.create(**ask())
        except BudgetExceededError:
            return PlainTextResponse("later")
        return PlainTextResponse("now")

    browser = await serve(app_of(await refusing(make_router), Route("/careful", careful)))
    assert (await browser.get("/careful")).text == "later"


async def test_refusal_in_an_event_stream(make_router: MakeRouter, serve: Serve) -> None:
    """A response of events that has begun ends with an error event, and not with a broken connection."""

    async def events(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "data: first\n\n"
            await claude_of(request).messages.create(**ask())

        return StreamingResponse(body(), media_type="text/event-stream")

    browser = await serve(app_of(await refusing(make_router), Route("/events", events)))
    text = (await browser.get("/events")).text
    first, error, end = text.split("\n\n")
    assert (first, end) == ("data: first", "")
    name, data = error.split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["status"] == 429


@pytest.mark.parametrize(("amount", "code"), [("$0.05/hour", 1013), ("$0.05", 1008)])
@pytest.mark.parametrize("framework", [True, False])
async def test_refusal_on_a_websocket(make_router: MakeRouter, amount: str, code: int, framework: bool) -> None:
    """A WebSocket is closed with a code that says whether to come back later."""
    router = await refusing(make_router, amount)
    app: Any = FastAPI()

    @app.websocket("/live")
    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await claude_of(websocket).messages.create(**ask())

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        await router.claude.messages.create(**ask())

    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {"type": "websocket", "path": "/live", "headers": [], "query_string": b"", "subprotocols": []}
    await TierlineMiddleware(app if framework else bare, router=router)(scope, receive, send)
    assert [m["type"] for m in sent] == ["websocket.accept", "websocket.close"]
    assert sent[-1]["code"] == code


async def test_other_errors_are_the_apps(router: Router, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """What is no error of Tierline's is raised on: the framework answers 500."""

    async def broken(_: Request) -> PlainTextResponse:
        raise RuntimeError("mine")

    browser = await serve(app_of(router, Route("/broken", broken)))
    assert (await browser.get("/broken")).status_code == 500
    caplog.clear()  # the server logs it, as it should


# Many at a time


async def test_hundred_calls_on_a_small_budget(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A hundred calls at once against a small total: at no moment more than the limit, and nothing held at the end."""
    worst: list[int] = []

    class Watched(MemoryLedger):
        async def reserve(self, *args: Any, **options: Any) -> Any:
            found = await super().reserve(*args, **options)
            worst.extend(b.spent + b.held for b in await self.balances())
            return found

    router = make_router(ledger=Watched(), budgets=[Budget("$0.04")])
    browser = await serve(app_of(router))
    found = await asyncio.gather(*(browser.get("/answer", params={"q": f"question {n}"}) for n in range(100)))
    statuses = [response.status_code for response in found]
    assert set(statuses) == {200, 402}
    assert max(worst) <= 40_000_000
    assert await settled(router) == {("$0.04", "global"): fake.billed}
    assert statuses.count(200) == len(fake.requests)
    assert router.report().refusals == statuses.count(402)


async def test_fifty_equal_prompts_get_one_verdict(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """Fifty equal prompts at once ask Claude once how hard they are."""
    router = make_router(classifier=ClaudeClassifier(), budgets=[Budget("$5", per="tenant")])
    browser = await serve(app_of(router))
    await asyncio.gather(*(browser.get("/answer", headers={"x-tenant": "acme"}) for _ in range(50)))
    assert sum("Labels: " in str(r.body.get("system")) for r in fake.requests) == 1
    assert len(fake.requests) == 51
    assert await settled(router) == {("$5 per tenant", "acme"): fake.billed}
    report = router.report()
    assert (report.cost, report.cache_hits, report.cache_misses) == (fake.billed, 49, 1)


async def test_verdict_survives_the_one_who_asked(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Whoever asked may be cancelled: those who wait get the verdict, and it is kept and charged."""
    router = make_router(classifier=ClaudeClassifier(), budgets=[Budget("$5")])
    fake.verdict = lambda _text, _labels: ("complex", 0.9)
    answered = asyncio.Event()

    async def hold(_: float) -> None:
        await answered.wait()

    fake._latency, fake._sleep = 1.0, hold
    first = asyncio.create_task(router.claude.messages.create(**ask()))
    await fake.until(lambda requests: requests and requests[0].body)
    second = asyncio.create_task(router.claude.messages.create(**ask()))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    answered.set()
    assert (await second).model == "claude-opus-5-5"
    assert [r.model for r in fake.requests] == ["claude-haiku-5-5", "claude-opus-5-5"]
    assert await settled(router) == {("$5", "global"): fake.billed}
    assert router.report().cost == fake.billed


async def test_request_budgets_are_forgotten(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A budget for each request bounds that request alone, and leaves no account behind."""
    router = make_router(budgets=[Budget("$0.03", per="request")], policy=policy(tier="sonnet"))
    fake.answer = lambda _: Reply("word " * 400, output_tokens=490)

    async def greedy(request: Request) -> JSONResponse:
        done = 0
        try:
            for _ in range(10):
                await claude_of(request).messages.create(**ask())
                done += 1
        except BudgetExceededError:
            assert len(await router.balances()) == 1
        return JSONResponse(done)

    browser = await serve(app_of(router, Route("/greedy", greedy)))
    first = (await browser.get("/greedy")).json()
    assert 1 <= first < 10
    assert (await browser.get("/greedy")).json() == first
    await browser.get("/chat")
    await settled(router)
    assert await router.balances() == []


# Streams, and clients that leave


async def test_stream_read_to_its_end(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A stream through an app is settled exactly, on its tenant."""
    router = make_router(budgets=[Budget("$5", per="tenant")])
    browser = await serve(app_of(router))
    async with browser.stream("GET", "/chat", headers={"x-tenant": "acme"}) as response:
        pieces = [piece async for piece in response.aiter_text()]
    assert "".join(pieces)
    assert await settled(router) == {("$5 per tenant", "acme"): fake.billed}
    assert fake.requests[0].ended == "complete"


async def test_client_leaves_in_mid_stream(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A browser that vanishes ends the upstream stream too, and its tenant pays for what was used."""
    router = make_router(budgets=[Budget("$5", per="tenant")])
    fake.always(None, Fault.hang(after=8))
    fake.answer = lambda _: Reply("word " * 50, thinking="hm")
    browser = await serve(app_of(router))
    client = await Socket.get(browser, "/chat", **{"x-tenant": "acme"})
    assert await client.body()
    assert await held_by(router) > 0
    client.vanish()
    await fake.idle()
    assert fake.requests[0].ended == "disconnected"
    (spent,) = (await settled(router)).values()
    assert spent >= fake.billed > 0
    report = router.report()
    assert (report.calls, report.failures, list(report.by_account)) == (1, 0, ["acme"])
    assert report.cost == spent


async def test_client_leaves_before_the_first_byte(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A browser that leaves while the model is silent leaves no hold and no open connection behind."""
    router = make_router(budgets=[Budget("$5")])
    fake.always(None, Fault.hang(after=1))
    browser = await serve(app_of(router))
    client = await Socket.get(browser, "/chat")
    await fake.until(lambda requests: requests and requests[0].status)
    client.vanish()
    await fake.idle()
    assert fake.requests[0].ended == "disconnected"
    assert sum((await settled(router)).values()) >= fake.billed > 0


async def test_generator_that_nobody_closes(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A generator that is left at its `yield` is swept with its request, and charged to it, in nobody else's."""
    router = make_router(budgets=[Budget("$5", per="tenant")])
    kept: list[Any] = []

    async def flood(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            async with claude_of(request).messages.stream(**ask()) as stream:
                async for _ in stream:
                    yield b"x"

        generator = body()
        kept.append(generator)
        return StreamingResponse(generator)

    fake.always(None, Fault.hang(after=4))
    app = Starlette(routes=[Route("/flood", flood), Route("/answer", answer)])
    bound = TierlineMiddleware(app, router=router, tenant=tenant_of)
    blocked = asyncio.Event()

    async def receive() -> Message:
        await blocked.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            # The client does not read: the cancellation lands here, and the generator is not closed.
            blocked.set()
            await asyncio.Event().wait()

    def scope_of(path: str, tenant: bytes) -> Scope:
        headers = [(b"x-tenant", tenant)]
        return {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}

    await bound(scope_of("/flood", b"acme"), receive, send)
    assert kept[0].ag_frame is not None
    await fake.idle()
    assert fake.requests[0].ended == "disconnected"
    accounts = await settled(router)
    assert list(accounts) == [("$5 per tenant", "acme")]
    assert accounts["$5 per tenant", "acme"] >= fake.billed > 0

    fake.clear()

    async def collect(message: Message) -> None:
        kept.clear()
        gc.collect()  # its `finally` runs in here, in the request of another tenant

    await bound(scope_of("/answer", b"other"), receive, collect)
    assert await settled(router) == accounts | {("$5 per tenant", "other"): fake.requests[-1].billed}


async def test_background_task(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A background task calls Claude for the request that started it, under its policy, when that is long answered."""
    router = make_router(budgets=[Budget("$5", per="tenant")])
    done = asyncio.Event()

    @policy(floor="opus")
    async def later(request: Request) -> PlainTextResponse:
        async def work() -> None:
            await claude_of(request).messages.create(**ask())
            done.set()

        return PlainTextResponse("soon", background=BackgroundTask(work))

    browser = await serve(app_of(router, Route("/later", later)))
    await browser.get("/later", headers={"x-tenant": "acme"})
    await asyncio.wait_for(done.wait(), 5)
    assert [r.model for r in fake.requests] == ["claude-opus-5-5"]
    assert await settled(router) == {("$5 per tenant", "acme"): fake.billed}


async def test_task_that_outlives_its_request(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A task that still reads its stream when the request is over is not cut off, and is settled on its tenant."""
    router = make_router(budgets=[Budget("$5", per="tenant")])
    answered, tasks = asyncio.Event(), []
    fake._chunk_delay, held = 1.0, asyncio.Event()

    async def hold(_: float) -> None:
        await held.wait()

    fake._sleep = hold

    async def start(request: Request) -> PlainTextResponse:
        async def read() -> str:
            async with claude_of(request).messages.stream(**ask()) as stream:
                async for _ in stream:
                    answered.set()
                return await stream.get_final_text()

        tasks.append(asyncio.create_task(read()))
        await answered.wait()
        return PlainTextResponse("started")

    browser = await serve(app_of(router, Route("/start", start)))
    await browser.get("/start", headers={"x-tenant": "acme"})
    assert await held_by(router) > 0
    held.set()
    assert await tasks[0]
    assert await settled(router) == {("$5 per tenant", "acme"): fake.billed}
    assert fake.requests[0].ended == "complete"


async def test_shutdown_settles_what_is_open(make_router: MakeRouter, fake: FakeClaude) -> None:
    """What is open when the app stops is closed upstream and settled."""
    router = make_router(budgets=[Budget("$5")])
    fake.always(None, Fault.hang(after=4))
    async with router.lifespan():
        stream = await router.claude.messages.create(**ask(), stream=True)
        assert await held_by(router) > 0
    assert await held_by(router) == 0
    await fake.idle()
    assert fake.requests[0].ended == "disconnected"
    await stream.close()


async def test_middlewares_of_starlette_around(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
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


async def test_a_refusal_in_a_task_group(make_router: MakeRouter, serve: Serve) -> None:
    """Several calls that were refused together are answered as one."""
    router = make_router(budgets=[Budget("$0.000001")])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages: Any = [{"role": "user", "content": "Why?"}]
        async with asyncio.TaskGroup() as group:
            group.create_task(router.claude.messages.create(model="auto", max_tokens=9, messages=messages))
            group.create_task(router.claude.messages.create(model="auto", max_tokens=9, messages=messages))

    browser = await serve(TierlineMiddleware(app, router=router))
    assert (await browser.get("/")).status_code == 402


def test_a_tenant_function_must_be_plain(router: Router) -> None:
    """It is asked in the middle of a call: a coroutine function is refused at start-up."""

    async def tenant(scope: Any) -> str:
        return "acme"

    with pytest.raises(ConfigurationError, match="plain function"):
        TierlineMiddleware(lambda *_: None, router=router, tenant=tenant)  # type: ignore[arg-type]
