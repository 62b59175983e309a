"""The ASGI seam: apps on a real server, real clients that leave, budgets told over HTTP."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from tests.apps import Socket, answer, app_of, ask, held_by, refusing, settled, tenant_of
from tierline import Budget, Ladder, Router, Tier, current, policy
from tierline.asgi import TierlineMiddleware
from tierline.classify import ClaudeClassifier
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.ledger import MemoryLedger
from tierline.starlette import claude_of, routing_of
from tierline.testing import Fault, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx
    from starlette.requests import Request
    from starlette.types import Message, Receive, Scope, Send

    from tests.apps import MakeRouter, Serve
    from tierline.binding import Binding
    from tierline.testing import FakeClaude

pytestmark = pytest.mark.usefixtures("quiet")

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


@pytest.mark.parametrize("outside", [True, False])
async def test_a_path_cannot_be_spelled_into_another_budget(
    make_router: MakeRouter, serve: Serve, outside: bool
) -> None:
    """Whatever a client writes in the path of mounts, a route has one account, wherever the middleware stands."""
    router = make_router(budgets=[Budget("$5", per="route")])
    inner = Starlette(routes=[Route("/{id}", answer)])
    app: Any = Starlette(routes=[Mount("/{a}/x", app=Starlette(routes=[Mount("/{id}/y", app=inner)]))])
    if outside:
        app = TierlineMiddleware(app, router=router)
    else:
        app.add_middleware(TierlineMiddleware, router=router)
    browser = await serve(app)
    for path in ("/a/x/b/y/5", "/x/x/x/y/5", "/x/x/y/y/5", "/5/x/5/y/5", "/%7Ba%7D/x/{b}/y/5"):
        assert (await browser.get(path)).status_code == 200
    assert [balance.account for balance in await router.balances()] == ["/{a}/x/{id}/y/{id}"]


async def test_other_scopes_pass(router: Router) -> None:
    """Lifespan events pass untouched."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])
        assert "tierline" not in scope

    await TierlineMiddleware(app, router=router)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


@pytest.mark.parametrize(
    "options",
    [
        {"headers": 1},
        {"server_timing": "yes"},
        {"busy_as_503": "yes"},
        {"router": "router"},
        {"tenant": "acme"},
        {"routes": {"checkout": policy()}},
        {"routes": {"/": 7}},
    ],
)
def test_nonsense_is_refused(options: dict[str, Any]) -> None:
    """Arguments that cannot work are named when the middleware is made."""
    with pytest.raises(ConfigurationError):
        TierlineMiddleware(answer, **{"router": Router(), **options})  # type: ignore[arg-type]


def test_unknown_tier_in_the_table() -> None:
    """A tier that is not on the ladder is named with the pattern that it stands in."""
    with pytest.raises(ConfigurationError, match=r"/checkout/\*.*gpt"):
        TierlineMiddleware(answer, router=Router(), routes={"/checkout/*": policy(floor="gpt")})  # type: ignore[arg-type]


# What responses say


def told(response: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("x-tierline")}


async def test_headers_of_the_last_call(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """Where it is asked for, a response says tier, source and cost of the last call that ended before it began."""

    async def both(request: Request) -> PlainTextResponse:
        with policy(tier="opus"):
            await claude_of(request).messages.create(**ask())
        await claude_of(request).messages.create(**ask())
        return PlainTextResponse("two")

    async def none(_: Request) -> PlainTextResponse:
        return PlainTextResponse("none")

    router = make_router()
    browser = await serve(app_of(router, Route("/both", both), Route("/none", none), headers=True))
    response = await browser.get("/both", headers={"x-tierline-tier": "spoofed"})
    cost = fake.requests[-1].billed
    assert told(response) == {
        "x-tierline-tier": "sonnet",
        "x-tierline-source": "fixed",
        "x-tierline-cost-usd": f"{cost / 1e9:.9f}",
    }
    assert cost > 0
    assert told(await browser.get("/none")) == {}
    silent = await serve(app_of(make_router(), Route("/both", both)))
    assert told(await silent.get("/both")) == {}


async def test_headers_and_streams(make_router: MakeRouter, serve: Serve) -> None:
    """A response that begins before its call ends says nothing, or what an earlier call was."""

    async def two(request: Request) -> StreamingResponse:
        with policy(tier="haiku"):
            await claude_of(request).messages.create(**ask())

        async def body() -> AsyncIterator[str]:
            async with claude_of(request).messages.stream(**ask()) as stream:
                async for text in stream.text_stream:
                    yield text

        return StreamingResponse(body())

    browser = await serve(app_of(make_router(), Route("/two", two), headers=True))
    assert told(await browser.get("/chat")) == {}
    assert told(await browser.get("/two"))["x-tierline-tier"] == "haiku"


async def test_headers_where_nothing_was_sent(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A refusal took no tier, and says none; an error of the API says where it came from."""
    browser = await serve(app_of(await refusing(make_router), headers=True))
    assert told(await browser.get("/answer")) == {}
    fake.always(None, Fault.overloaded())
    browser = await serve(app_of(make_router(policy=policy(tier="opus")), headers=True, busy_as_503=True))
    response = await browser.get("/answer")
    assert response.status_code == 503
    assert told(response) == {
        "x-tierline-tier": "opus", "x-tierline-source": "pin", "x-tierline-cost-usd": "0.000000000",
    }  # fmt: skip


async def test_headers_of_the_app_stay(make_router: MakeRouter, serve: Serve) -> None:
    """A header that the app sets itself is not sent twice."""

    async def own(request: Request) -> PlainTextResponse:
        await claude_of(request).messages.create(**ask())
        return PlainTextResponse("x", headers={"X-Tierline-Tier": "mine"})

    response = await (await serve(app_of(make_router(), Route("/own", own), headers=True))).get("/own")
    assert response.headers.get_list("x-tierline-tier") == ["mine"]
    assert response.headers["x-tierline-source"] == "fixed"


@pytest.mark.parametrize("name", ["a\r\nset-cookie: x=1", "na\u00efve", "tab\there", "x\x00y"])
async def test_no_header_is_injected(make_router: MakeRouter, serve: Serve, name: str) -> None:
    """A tier whose name is no text of a header is not named in one; the rest is told."""
    router = make_router(ladder=Ladder(Tier(name, "claude-sonnet-5-5")))
    response = await (await serve(app_of(router, headers=True))).get("/answer")
    assert response.status_code == 200
    assert set(told(response)) == {"x-tierline-source", "x-tierline-cost-usd"}
    assert "set-cookie" not in response.headers


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


async def test_request_budgets_outlive_the_request(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A task that goes on when its request is over has what that left of its budget, and leaves no account behind."""
    router = make_router(budgets=[Budget("$0.03", per="request")], policy=policy(tier="sonnet"))
    fake.answer = lambda _: Reply("word " * 400, output_tokens=490)
    over, tasks = asyncio.Event(), list[asyncio.Task[None]]()

    async def later(request: Request) -> None:
        await over.wait()
        for _ in range(10):
            with suppress(BudgetExceededError):
                await claude_of(request).messages.create(**ask())

    async def begin(request: Request) -> JSONResponse:
        await claude_of(request).messages.create(**ask())
        tasks.append(asyncio.create_task(later(request)))
        return JSONResponse(None)

    browser = await serve(app_of(router, Route("/begin", begin)))
    await browser.get("/begin")
    await settled(router)
    over.set()
    await asyncio.gather(*tasks)
    assert 1 < len(fake.requests) < 10
    assert fake.billed <= 30_000_000
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


async def test_a_request_that_is_over(make_router: MakeRouter) -> None:
    """What is left of a request goes when it ends, with no work for the garbage collector, unless somebody has it."""
    kept: list[tuple[Any, Binding | None]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept.append((HTTPConnection(scope), current() if scope["path"] == "/kept" else None))

    routed = TierlineMiddleware(app, router=make_router())
    gc.disable()
    try:
        for path in ("/kept", "/gone"):
            await routed({"type": "http", "path": path, "headers": []}, None, None)  # type: ignore[arg-type]
    finally:
        gc.enable()
    (connection, binding), (other, _) = kept
    assert routing_of(connection) is binding
    with pytest.raises(ConfigurationError, match="the request is over"):
        routing_of(other)
