"""Synchronous clients in apps: plain `def` endpoints in AnyIO's worker threads, and `async def` by mistake."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import anyio.to_thread
import httpx2
import pytest
from anthropic import Anthropic
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tierline import Budget, Router, current, policy
from tierline.anthropic import attach
from tierline.asgi import TierlineMiddleware
from tierline.attempts import Timing
from tierline.classify import ClaudeClassifier, Question
from tierline.fastapi import Routing, SyncClaude, sync_claude_of
from tierline.starlette import sync_claude_of as sync_claude_of_request
from tierline.testing import FakeClaude, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    import httpx
    from starlette.requests import Request

    from tierline.classify import Consult, View
    from tierline.values import Classification

    Serve = Callable[[Any], Awaitable[httpx.AsyncClient]]
    MakeRouter = Callable[..., Router]

pytestmark = pytest.mark.usefixtures("quiet")

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
ASK: dict[str, Any] = {"model": "auto", "max_tokens": 200, "messages": [{"role": "user", "content": "Why?"}]}
TIER = {HAIKU: "haiku", SONNET: "sonnet", OPUS: "opus"}


@pytest.fixture
def router(make_sync_router: MakeRouter) -> Router:
    """A Router with a budget for each tenant for which everything is `moderate`."""
    return make_sync_router(budgets=[Budget("$5", per="tenant")])


def app_of(router: Router, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=router.lifespan, **options)
    app.add_middleware(TierlineMiddleware, router=router, tenant=_tenant)
    return app


def _tenant(scope: Any) -> str | None:
    return dict(scope["headers"]).get(b"x-tenant", b"").decode() or None


async def totals(router: Router) -> tuple[int, int]:
    """What was spent and is held on all accounts."""
    balances = await router.balances()
    return sum(b.spent for b in balances), sum(b.held for b in balances)


def plain(claude: SyncClaude) -> str:
    """Answer with the tier that a call went to."""
    return TIER[claude.messages.create(**ASK).model]


async def test_def_endpoints(router: Router, serve: Serve, fake: FakeClaude) -> None:
    """A `def` endpoint has the routed client, its tenant, its route and its policies, on the app's loop."""
    app = app_of(router)
    loops: list[object] = []

    @app.get("/items/{item}")
    @policy(floor="opus")
    def items(item: int, claude: SyncClaude, routing: Routing) -> dict[str, Any]:
        assert type(claude) is Anthropic
        with claude.messages.stream(**ASK) as stream:
            loops.extend(attempt.loop for attempt in routing.open)
            stream.get_final_message()
        (decision,) = routing.decisions
        return {"route": decision.route, "tier": decision.tier, "tenant": decision.tenant, "settled": decision.settled}

    app.get("/floor", dependencies=[Depends(policy(floor="opus"))])(plain)
    app.get("/plain")(plain)
    browser = await serve(app)
    found = (await browser.get("/items/7", headers={"x-tenant": "acme"})).json()
    assert found == {"route": "/items/{item}", "tier": "opus", "tenant": "acme", "settled": True}
    assert loops == [asyncio.get_running_loop()]
    assert [(await browser.get(path)).json() for path in ("/floor", "/plain")] == ["opus", "sonnet"]
    assert await totals(router) == (fake.billed, 0)


async def test_many_def_endpoints_at_once(make_sync_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """More `def` endpoints at once than AnyIO has worker threads, each with a verdict, end without a deadlock."""
    router = make_sync_router(classifier=ClaudeClassifier(), budgets=[Budget("$5", per="tenant")])
    fake.verdict = lambda _text, _labels: ("complex", 0.9)
    app = app_of(router)

    @app.get("/{number}")
    def numbered(number: int, claude: SyncClaude) -> str:
        message = claude.messages.create(**{**ASK, "messages": [{"role": "user", "content": f"Why {number}?"}]})
        with claude.messages.stream(**ASK) as stream:
            assert stream.get_final_message().model == OPUS
        return TIER[message.model]

    browser = await serve(app)
    found = await asyncio.gather(*(browser.get(f"/{n}", headers={"x-tenant": str(n % 7)}) for n in range(60)))
    assert [response.json() for response in found] == ["opus"] * 60
    assert await totals(router) == (fake.billed, 0)
    assert len(await router.balances()) == 7


async def test_sync_generator_streams(router: Router, serve: Serve, fake: FakeClaude) -> None:
    """A response that is streamed from a plain generator is read in many threads, and settled."""
    app = app_of(router)

    @app.get("/stream")
    def stream(claude: SyncClaude) -> StreamingResponse:
        def text() -> Iterator[str]:
            with policy(tier="opus"), claude.messages.stream(**ASK) as stream:
                yield from stream.text_stream

        return StreamingResponse(text())

    browser = await serve(app)
    response = await browser.get("/stream", headers={"x-tenant": "acme"})
    assert response.text
    assert fake.requests[0].model == OPUS
    assert await totals(router) == (fake.billed, 0)


async def test_sync_generator_disconnect(router: Router, serve: Serve, fake: FakeClaude) -> None:
    """A client that leaves a plain generator in mid-stream leaves nothing held, on its own tenant's account."""
    app = app_of(router)
    fake.script(Fault.pings(after=4))

    @app.get("/stream")
    def stream(claude: SyncClaude) -> StreamingResponse:
        def text() -> Iterator[str]:
            for event in claude.messages.create(**ASK, stream=True):
                yield f"{event.type}\n"

        return StreamingResponse(text())

    browser = await serve(app)
    async with browser.stream("GET", "/stream", headers={"x-tenant": "acme"}) as response:
        await anext(response.aiter_text())
        (held,) = await router.balances()
        assert (held.account, held.held > 0) == ("acme", True)
    await fake.idle()
    assert fake.requests[0].ended == "disconnected"
    while (await totals(router))[1]:  # noqa: ASYNC110  (who settles it is not known: a sweep, or the collector)
        await asyncio.sleep(0.01)
    (left,) = await router.balances()
    assert (left.account, left.spent > 0, left.held) == ("acme", True, 0)


async def test_background_task(router: Router, serve: Serve, fake: FakeClaude) -> None:
    """A `def` background task that runs after the response is charged to the request's tenant."""
    app = app_of(router)
    done = asyncio.Event()
    loop = asyncio.get_running_loop()

    @app.get("/later")
    def later(claude: SyncClaude, tasks: BackgroundTasks) -> str:
        def work() -> None:
            claude.messages.create(**ASK)
            loop.call_soon_threadsafe(done.set)

        tasks.add_task(work)
        return "soon"

    browser = await serve(app)
    assert (await browser.get("/later", headers={"x-tenant": "acme"})).json() == "soon"
    await done.wait()
    assert [(b.account, b.spent, b.held) for b in await router.balances()] == [("acme", fake.billed, 0)]


async def test_refusal_in_a_def_endpoint(make_sync_router: MakeRouter, serve: Serve) -> None:
    """A budget that has no room answers 402 from a `def` endpoint too."""
    app = app_of(make_sync_router(budgets=[Budget("$0.0000001")]))
    app.get("/plain")(plain)
    response = await (await serve(app)).get("/plain")
    assert (response.status_code, response.headers["content-type"]) == (402, "application/problem+json")


async def test_overrides(router: Router, serve: Serve) -> None:
    """`app.dependency_overrides` takes `sync_claude_of` as a key."""
    app = app_of(router)
    app.get("/plain")(plain)
    other = FakeClaude()
    with other.serve_in_thread() as url, Anthropic(api_key=other.api_key, base_url=url) as offline:
        app.dependency_overrides[sync_claude_of] = lambda: attach(offline, router)
        assert (await (await serve(app)).get("/plain")).json() == "sonnet"
    assert len(other.requests) == 1


async def test_starlette(router: Router, serve: Serve) -> None:
    """`sync_claude_of(request)` is the routed client in a plain Starlette endpoint."""

    def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse(TIER[sync_claude_of_request(request).messages.create(**ASK).model])

    app = Starlette(routes=[Route("/", endpoint)], lifespan=router.lifespan)
    app.add_middleware(TierlineMiddleware, router=router, routes={"/": policy(floor="opus")})
    assert (await (await serve(app)).get("/")).text == "opus"


def test_test_client(router: Router, fake: FakeClaude) -> None:
    """Under TestClient, with or without its lifespan, `def` endpoints are routed and settled."""
    app = app_of(router)
    app.get("/plain")(plain)
    assert TestClient(app).get("/plain").json() == "sonnet"
    with TestClient(app) as browser:
        assert [browser.get("/plain").json() for _ in range(3)] == ["sonnet"] * 3
    assert asyncio.run(totals(router)) == (fake.billed, 0)


async def test_call_without_a_request_is_told_once(
    router: Router, fake: FakeClaude, caplog: pytest.LogCaptureFixture
) -> None:
    """While an app runs, a thread that knows no request is charged to the default accounts, which the log says once."""

    def work() -> None:
        threads = [threading.Thread(target=router.sync_claude.messages.create, kwargs=ASK) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    async with router.lifespan():
        await asyncio.to_thread(work)
        with router.bind(tenant="acme"):
            await asyncio.to_thread(lambda: router.sync_claude.messages.create(**ASK))
    assert {b.account for b in await router.balances()} == {"default", "acme"}
    told = [r.getMessage() for r in caplog.records if "belongs to no request" in r.getMessage()]
    assert len(told) == 1


# In an `async def`


async def test_async_def_is_warned_about_once(
    router: Router, serve: Serve, fake: FakeClaude, caplog: pytest.LogCaptureFixture
) -> None:
    """A synchronous client in an `async def` blocks the loop, but works: no deadlock, and one line in the log."""
    app = app_of(router)

    @app.get("/blocking")
    async def blocking(claude: SyncClaude, routing: Routing) -> list[str]:
        claude.messages.create(**ASK)
        with claude.messages.stream(**ASK) as stream:
            stream.get_final_message()
        for _ in claude.messages.create(**ASK, stream=True):
            break
        return [decision.tier for decision in routing.decisions if decision.settled]

    browser = await serve(app)
    for _ in range(2):
        assert (await browser.get("/blocking", headers={"x-tenant": "acme"})).json()[:2] == ["sonnet", "sonnet"]
    await router.aclose()
    assert [(b.account, b.held) for b in await router.balances()] == [("acme", 0)]
    told = [r.getMessage() for r in caplog.records if r.name == "tierline" and r.levelno >= logging.WARNING]
    assert len(told) == 1
    assert "blocks the event loop" in told[0]


class _Blocking:
    """A classifier of an app that uses a synchronous routed client, wherever it runs."""

    name, fingerprint, cacheable = "mine", "1", False

    def __init__(self) -> None:
        self.router: Any = None

    async def classify(self, view: View, consult: Consult) -> Classification | None:
        with policy(label="simple"):
            self.router.sync_claude.messages.create(**ASK)
        return await consult.ask(_question(view.text))


def _question(text: str) -> Question:
    return Question(text, ("simple", "moderate", "complex"), "How hard?")


def test_classifier_that_blocks_the_portal(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """A classifier that calls a synchronous client on the portal's own loop is served by another one."""
    classifier = _Blocking()
    classifier.router = router = make_sync_router(classifier=classifier)
    fake.verdict = lambda _text, _labels: ("complex", 0.9)
    assert router.sync_claude.messages.create(**ASK).model == OPUS
    assert [r.model for r in fake.requests] == [HAIKU, HAIKU, OPUS]


async def test_loops_do_not_wait_for_each_other(
    router: Router, fake: FakeClaude, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is collected on a portal's loop is settled on its own, for which the portal does not wait."""
    monkeypatch.setattr("tierline.tap._LONGEST_WAIT", 60)
    with router.bind() as binding:
        stream = await anyio.to_thread.run_sync(lambda: router.sync_claude.messages.create(**ASK, stream=True))
        (attempt,) = binding.open
        portal = router.portal.loop()
        assert attempt.loop is asyncio.get_running_loop() is not portal
        returned = asyncio.run_coroutine_threadsafe(_close(stream), portal)
        # This loop stands still, as in a synchronous call by mistake.
        assert returned.result(20) is False
        await asyncio.sleep(0)
        await router.books.background.drain(5)
        assert binding.decisions[-1].settled


async def _close(stream: Any) -> bool:
    """Whether something was settled by the time that the stream was closed."""
    stream.close()
    return bool(current().decisions[-1].settled)


# Shutdown and traces


async def test_shutdown_settles_what_threads_have_open(router: Router, serve: Serve, fake: FakeClaude) -> None:
    """The lifespan's end settles streams of threads that belong to no loop."""
    streams: list[Any] = []
    others = set(threading.enumerate())
    async with router.lifespan():

        def work() -> None:
            streams.append(router.sync_claude.messages.create(**ASK, stream=True))
            next(streams[0])

        thread = threading.Thread(target=work)
        thread.start()
        await asyncio.to_thread(thread.join)
        assert (await totals(router))[1] > 0
    assert (await totals(router))[1] == 0
    assert "tierline" not in {thread.name for thread in set(threading.enumerate()) - others}
    streams.clear()


async def test_shutdown_while_threads_wait(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """A call that waits for its retry when the Router is closed is given up, and its thread goes on."""
    waiting = threading.Event()

    async def sleep(_: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    router = make_sync_router(timing=Timing(sleep=sleep))
    fake.always(None, Fault.error(500))
    call = asyncio.create_task(asyncio.to_thread(lambda: router.sync_claude.messages.create(**ASK)))
    await asyncio.to_thread(waiting.wait)
    await router.aclose(timeout=0.1)
    with pytest.raises(RuntimeError, match="closed while this call was under way"):
        await call


def test_spans_nest(make_sync_router: MakeRouter, fake: FakeClaude) -> None:
    """Spans of the core are under the caller's, what the client sends for a verdict or an attempt under those."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("app")
    router = make_sync_router(classifier=ClaudeClassifier(), tracer_provider=provider)
    fake.verdict = lambda _text, _labels: ("complex", 0.9)

    def sent(_: object) -> None:
        tracer.start_span("wire").end()

    with httpx2.Client(event_hooks={"request": [sent]}) as http, tracer.start_as_current_span("request"):
        router.sync_claude.with_options(http_client=http).messages.create(**ASK)
    spans = {span.context.span_id: span for span in exporter.get_finished_spans()}

    def path(span: Any) -> list[str]:
        names = []
        while span is not None:
            names.append(span.name)
            span = spans.get(span.parent.span_id) if span.parent is not None else None
        return names[::-1]

    found = [path(span) for span in spans.values()]
    assert ["request", "route opus", "attempt opus", "wire"] in found
    assert ["request", "route opus", "classify", "wire"] in found


async def test_a_background_task_after_the_client_has_gone(router: Router, fake: FakeClaude, serve: Serve) -> None:
    """What a client has left behind is not cut off: a task in the background that asks Claude reads to the end."""
    fake.answer = lambda _: "word " * 30
    fake._chunk_delay = 0.02
    read: list[str] = []
    done = threading.Event()

    def remember(claude: Anthropic) -> None:
        try:
            with claude.messages.create(**ASK, stream=True) as stream:
                read.extend(event.type for event in stream)
        finally:
            done.set()

    app = app_of(router)

    @app.get("/")
    def answer(claude: SyncClaude, background: BackgroundTasks) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0.01)

        background.add_task(remember, claude)
        return StreamingResponse(pieces(), background=background)

    browser = await serve(app)
    async with browser.stream("GET", "/") as response:
        await anext(response.aiter_raw())
    assert await asyncio.to_thread(done.wait, 10)
    assert read[-1] == "message_stop"
    await fake.idle()
    assert [(b.held, b.spent, b.estimated) for b in await router.balances()] == [(0, fake.billed, 0)]
