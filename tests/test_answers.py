"""How errors are told: as HTTP through the framework, as events of a stream, as the close of a WebSocket."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from tests.apps import CANARY, CORS, answer, app_of, ask, held_by, refusing
from tierline import Budget, policy
from tierline.answers import told
from tierline.asgi import TierlineMiddleware
from tierline.errors import LONGEST_RETRY_AFTER, RETRY_AFTER, BudgetExceededError, LedgerUnavailableError, TierlineError
from tierline.ledger import MemoryLedger
from tierline.starlette import claude_of
from tierline.testing import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import Message, Receive, Scope, Send

    from tests.apps import MakeRouter, Serve
    from tierline import Router
    from tierline.testing import FakeClaude

pytestmark = pytest.mark.usefixtures("quiet")

# Budgets as HTTP


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
@pytest.mark.parametrize("status", [402, 429, 503])
async def test_refusals_have_cors_headers(
    make_router: MakeRouter, serve: Serve, cors_inside: bool, framework: Any, status: int
) -> None:
    """A browser may read a refusal, whichever of the two middlewares is outside."""

    class Down(MemoryLedger):
        async def reserve(self, *_: Any, **__: Any) -> Any:
            raise LedgerUnavailableError("down")

    if status == 503:
        router = make_router(ledger=Down(), budgets=[Budget("$5")])
    else:
        router = await refusing(make_router, "$0.05/hour" if status == 429 else "$0.05")
    app = framework(routes=[Route("/answer", answer)])
    cors: tuple[Any, dict[str, Any]] = (CORSMiddleware, {"allow_origins": ["*"]})
    ours: tuple[Any, dict[str, Any]] = (TierlineMiddleware, {"router": router})
    for middleware, options in (cors, ours) if cors_inside else (ours, cors):
        app.add_middleware(middleware, **options)
    response = await (await serve(app)).get("/answer", headers=CORS)
    assert response.status_code == status
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


# The API's 429 and 529, where it is asked for

BUSY = {
    "429": Fault.rate_limit(retry_after=7, message=f"{CANARY} sk-ant-secret"),
    "529": Fault.status(529, "overloaded_error", f"{CANARY} sk-ant-secret"),
}


def busy_app(router: Router, *routes: Route, **options: Any) -> Starlette:
    return app_of(router, *routes, busy_as_503=True, **options)


@pytest.mark.parametrize("status", ["429", "529"])
async def test_busy_api_over_http(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, status: str, waits: list[float]
) -> None:
    """After retries and fallbacks a client is told 503 and when to come back, and nothing of the API's words."""
    fake.always(None, BUSY[status])
    browser = await serve(busy_app(make_router()))
    response = await browser.get("/answer")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json() == {"type": "about:blank", "title": "The model is busy", "status": 503}
    assert response.headers["retry-after"] == ("7" if status == "429" else str(RETRY_AFTER))
    assert len(waits) == 2
    assert {r.model for r in fake.requests} == {"claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"}
    told_to_client = response.text + str(response.headers)
    assert not any(secret in told_to_client for secret in (CANARY, "sk-ant", fake.api_key))


async def test_open_breakers_over_http(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """Where nothing is sent any more, clients are told the same, and when the next attempt may be made."""
    fake.always(None, BUSY["529"])
    router = make_router()
    browser = await serve(busy_app(router))
    while len(router.health.troubled) < 3:
        await browser.get("/answer")
    sent = len(fake.requests)
    response = await browser.get("/answer")
    assert len(fake.requests) == sent
    assert (response.status_code, response.json()["title"]) == (503, "The model is busy")
    assert 1 <= int(response.headers["retry-after"]) <= 7
    assert "breaker" not in response.text


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("1", 1), ("0", 1), ("2.2", 3), ("59", 59), ("86400", LONGEST_RETRY_AFTER), ("soon", RETRY_AFTER),
        ("-5", RETRY_AFTER), ("nan", RETRY_AFTER), ("9" * 400, LONGEST_RETRY_AFTER), ("1\u00b2", RETRY_AFTER),
        ("inf", RETRY_AFTER),
    ],
)  # fmt: skip
def test_when_to_come_back(header: str, seconds: int) -> None:
    """What the API says is passed on as whole seconds, at most an hour; where it says nothing sane, ten seconds."""
    import httpx2

    request = httpx2.Request("POST", "https://api.example/v1/messages")
    response = httpx2.Response(529, headers=[(b"retry-after", header.encode())], request=request)
    error = told(anthropic.OverloadedError("busy", response=response, body=None), busy_as_503=True)
    assert error is not None
    assert error.http_headers == {"retry-after": str(seconds)}


async def test_busy_api_is_the_apps_by_default(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the option the SDK's own error reaches the app, and its handler; without a handler it is a 500."""
    fake.always(None, Fault.overloaded())
    app = app_of(make_router())
    browser = await serve(app)
    assert (await browser.get("/answer")).status_code == 500
    assert any(r.exc_info and isinstance(r.exc_info[1], anthropic.OverloadedError) for r in caplog.records)
    caplog.clear()

    async def mine(_: Request, error: Any) -> PlainTextResponse:
        return PlainTextResponse(type(error).__name__, 418)

    app = app_of(make_router())
    app.add_exception_handler(anthropic.OverloadedError, mine)
    response = await (await serve(app)).get("/answer")
    assert (response.status_code, response.text) == (418, "OverloadedError")


@pytest.mark.parametrize(
    "handled",
    [
        anthropic.OverloadedError, anthropic.InternalServerError, anthropic.APIStatusError, anthropic.APIError,
        anthropic.AnthropicError,
    ],
)  # fmt: skip
async def test_handlers_of_the_app_win_over_busy(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, handled: type[Exception]
) -> None:
    """Whoever handles an error of the SDK, or a base of it, answers instead; what is left is told."""

    async def mine(_: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse(type(error).__name__, 418)

    app = busy_app(make_router())
    app.add_exception_handler(handled, mine)
    browser = await serve(app)
    fake.always(None, Fault.overloaded())
    for _ in range(2):
        response = await browser.get("/answer")
        assert (response.status_code, response.text) == (418, "OverloadedError")
    fake.always(None, Fault.rate_limit())
    others = (anthropic.OverloadedError, anthropic.InternalServerError)
    assert (await browser.get("/answer")).status_code == (503 if handled in others else 418)


async def test_other_errors_of_the_api_are_not_busy(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, caplog: pytest.LogCaptureFixture
) -> None:
    """What waiting does not mend stays the app's, with the option too."""
    browser = await serve(busy_app(make_router()))
    for fault in (Fault.error(500), Fault.spend_limit(own=True), Fault.error(401)):
        fake.always(None, fault)
        assert (await browser.get("/answer")).status_code == 500
    caplog.clear()


@pytest.mark.parametrize("cors_inside", [True, False])
@pytest.mark.parametrize("framework", [Starlette, FastAPI])
@pytest.mark.parametrize("path", ["/answer", "/collected", "/group"])
async def test_busy_api_has_cors_headers(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, cors_inside: bool, framework: Any, path: str
) -> None:
    """A browser may read it: of a plain call, of a stream that is collected, and of calls in a task group."""

    async def collected(request: Request) -> PlainTextResponse:
        async with claude_of(request).messages.stream(**ask()) as stream:
            return PlainTextResponse(await stream.get_final_text())

    async def group(request: Request) -> PlainTextResponse:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(3):
                tasks.create_task(claude_of(request).messages.create(**ask()))
        return PlainTextResponse("done")

    fake.always(None, Fault.error_event() if path == "/collected" else Fault.overloaded())
    app = framework(routes=[Route("/answer", answer), Route("/collected", collected), Route("/group", group)])
    cors: tuple[Any, dict[str, Any]] = (CORSMiddleware, {"allow_origins": ["*"]})
    ours: tuple[Any, dict[str, Any]] = (TierlineMiddleware, {"router": make_router(), "busy_as_503": True})
    for middleware, options in (cors, ours) if cors_inside else (ours, cors):
        app.add_middleware(middleware, **options)
    response = await (await serve(app)).get(path, headers=CORS)
    assert (response.status_code, response.headers["retry-after"]) == (503, str(RETRY_AFTER))
    assert response.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("framework", [True, False])
async def test_busy_api_in_an_event_stream(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, framework: bool
) -> None:
    """A stream of events that has begun ends with an error event, also where an event was cut in its middle."""
    router = make_router()

    async def body() -> AsyncIterator[str]:
        yield "data: first\n\n"
        yield "data: cut"
        async with router.claude.messages.stream(**ask()) as stream:
            async for text in stream.text_stream:
                yield text

    async def events(_: Request) -> StreamingResponse:
        return StreamingResponse(body(), media_type="text/event-stream")

    async def bare(scope: Scope, receive: Receive, send: Send) -> None:
        await StreamingResponse(body(), media_type="text/event-stream")(scope, receive, send)

    fake.always(None, Fault.error_event(after=2, message=CANARY))
    app = busy_app(router, Route("/events", events))
    browser = await serve(app if framework else TierlineMiddleware(bare, router=router, busy_as_503=True))
    text = (await browser.get("/events")).text
    first, cut, error, end = text.split("\n\n")
    assert (first, cut, end) == ("data: first", "data: cut", "")
    name, data = error.split("\n")
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: ")) == {
        "type": "about:blank", "title": "The model is busy", "status": 503,
    }  # fmt: skip


async def test_what_is_compressed_is_not_written_on(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, caplog: pytest.LogCaptureFixture
) -> None:
    """Events that some middleware inside has compressed end as they would without Tierline: text would break them."""
    import httpx

    async def events(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"\x1f\x8b\x08"
            await claude_of(request).messages.create(**ask())

        return StreamingResponse(body(), media_type="text/event-stream", headers={"content-encoding": "gzip"})

    browser = await serve(app_of(await refusing(make_router), Route("/events", events)))
    with pytest.raises(httpx.RemoteProtocolError):
        await browser.get("/events")
    caplog.clear()


async def test_busy_is_a_matter_of_the_request(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, caplog: pytest.LogCaptureFixture
) -> None:
    """Where two middlewares stand in one app, only the requests of the one that says so are answered with 503."""
    from starlette.middleware import Middleware

    router = make_router()
    quiet = [Middleware(TierlineMiddleware, router=router)]  # type: ignore[arg-type]
    telling = [Middleware(TierlineMiddleware, router=router, busy_as_503=True)]  # type: ignore[arg-type]
    app = Starlette(
        routes=[
            Mount("/telling", routes=[Route("/answer", answer)], middleware=telling),
            Mount("/quiet", routes=[Route("/answer", answer)], middleware=quiet),
        ]
    )
    fake.always(None, Fault.overloaded())
    browser = await serve(app)
    statuses = [(await browser.get(f"/{who}/answer")).status_code for who in ("telling", "quiet", "telling")]
    assert statuses == [503, 500, 503]
    caplog.clear()


async def test_a_group_with_an_error_of_the_apps(
    make_router: MakeRouter, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """A refusal does not hide an error of the app's that was raised beside it."""

    async def mixed(request: Request) -> PlainTextResponse:
        try:
            await claude_of(request).messages.create(**ask())
        except BudgetExceededError as error:
            raise ExceptionGroup("both", [error, ValueError("mine")]) from None
        return PlainTextResponse("never")

    browser = await serve(app_of(await refusing(make_router), Route("/mixed", mixed)))
    assert (await browser.get("/mixed")).status_code == 500
    caplog.clear()


# Frameworks that make a failure of what they do not know


def swallowing(ask_claude: Callable[[], Awaitable[Any]], status: int) -> Any:
    """A framework that knows no error of ours: it answers all that it does not know by a page of its own."""
    page = b"<h1>Something went wrong</h1>" * 9
    headers = [(b"content-type", b"text/html"), (b"content-length", b"%d" % len(page)), (b"x-app", b"shop")]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(TierlineError, anthropic.APIError):
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


@pytest.mark.parametrize("asked", [True, False])
async def test_a_busy_api_in_a_framework_that_swallows_it(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude, asked: bool
) -> None:
    """The same for the API's 429 and 529, where the app asked for it."""
    router = make_router()
    fake.always(None, Fault.overloaded())
    app = swallowing(lambda: router.claude.messages.create(**ask()), 500)
    response = await (await serve(TierlineMiddleware(app, router=router, busy_as_503=asked))).get("/")
    assert response.status_code == (503 if asked else 500)
    assert response.headers.get("retry-after") == (str(RETRY_AFTER) if asked else None)


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


async def test_an_app_that_asked_again_fails_for_itself(make_router: MakeRouter, serve: Serve) -> None:
    """A refusal that the app caught, and went on from with another call, is not what its own 500 is exchanged for."""
    router = make_router()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        with policy(budgets=[Budget("$0.000000001", name="full")]), suppress(BudgetExceededError):
            await router.claude.messages.create(**ask())
        await router.claude.messages.create(**ask())
        await PlainTextResponse("the database is gone", 500)(scope, receive, send)

    response = await (await serve(TierlineMiddleware(app, router=router))).get("/")
    assert (response.status_code, response.text) == (500, "the database is gone")


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
