"""Middlewares inside of each other: of the same Router, of another one, and jobs inside of requests."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi import Request as FastAPIRequest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Mount, Route

from tests.apps import ask, held_by, settled, tenant_of
from tierline import Budget, Ladder, current, policy
from tierline.asgi import TierlineMiddleware
from tierline.errors import BudgetExceededError
from tierline.fastapi import Claude, Routing  # noqa: TC001  (FastAPI reads annotations)
from tierline.starlette import claude_of, routing_of
from tierline.testing import Fault, Reply

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from tests.apps import MakeRouter, Serve
    from tierline import Router
    from tierline.testing import FakeClaude

pytestmark = pytest.mark.usefixtures("quiet")

SMALL = Ladder.of(small="claude-haiku-5-5", large="claude-opus-5-5")


async def page(request: Request) -> JSONResponse:
    """Answer with tier, tenant, tags and the number of decisions of the request."""
    await claude_of(request).messages.create(**ask())
    found = routing_of(request).decisions
    last = found[-1]
    return JSONResponse([last.tier, last.tenant, dict(last.tags), len(found)])


def nested(router: Router, inner: dict[str, Any], outer: dict[str, Any], *routes: Route) -> Starlette:
    """An app with a middleware that is mounted in an app with a middleware."""
    sub = Starlette(routes=[*routes, Route("/pay", page), Route("/free", page)])
    sub.add_middleware(TierlineMiddleware, router=inner.pop("router", router), **inner)
    app = Starlette(routes=[Mount("/sub", app=sub), Route("/free", page)])
    app.add_middleware(TierlineMiddleware, router=router, **outer)
    return app


async def test_who_asks_inside_does_not_ask_around(make_router: MakeRouter, serve: Serve) -> None:
    """What an app does after it has called the one inside is not charged to whom that one named."""
    router = make_router(budgets=[Budget("$5", per="tenant")])

    async def inside(scope: Scope, receive: Receive, send: Send) -> None:
        await router.claude.messages.create(**ask())

    inner = TierlineMiddleware(inside, router=router, tenant=lambda _: "inner")

    async def around(request: Request) -> JSONResponse:
        await claude_of(request).messages.create(**ask())
        await inner(request.scope, request.receive, request._send)
        await claude_of(request).messages.create(**ask())
        await router.claude.messages.create(**ask())
        return JSONResponse([decision.tenant for decision in routing_of(request).decisions])

    app = Starlette(routes=[Route("/both", around)])
    app.add_middleware(TierlineMiddleware, router=router)
    assert (await (await serve(app)).get("/both")).json() == [None, "inner", None, None]


async def test_policies_of_both_tables_hold(router: Router, serve: Serve) -> None:
    """The outer floor holds inside, the inner one where it is higher; an inner ceiling or pin lifts none."""
    app = nested(
        router,
        {"routes": {"/sub/pay": policy(tier="haiku", tags={"in": "1"}), "/sub/free": policy(floor="opus")}},
        {"routes": {"/sub/*": policy(floor="sonnet", tags={"out": "1"})}},
    )
    browser = await serve(app)
    assert (await browser.get("/sub/pay")).json() == ["sonnet", None, {"in": "1", "out": "1"}, 1]
    assert (await browser.get("/sub/free")).json()[0] == "opus"


async def test_a_mounted_app_keeps_its_floors(router: Router, serve: Serve) -> None:
    """A table below a mount is matched from there too: an app loses no floor by being mounted somewhere."""
    app = nested(router, {"routes": {"/pay": policy(floor="opus")}}, {"routes": {"/free": policy(floor="opus")}})
    browser = await serve(app)
    assert (await browser.get("/sub/pay")).json()[0] == "opus"
    # The outer table stands before the mount: its patterns have to say it.
    assert (await browser.get("/sub/free")).json()[0] == "sonnet"
    assert (await browser.get("/free")).json()[0] == "opus"


@pytest.mark.parametrize(("inner", "told"), [(None, "acme"), (lambda _: "other", "acme"), (lambda _: None, "acme")])
async def test_an_inner_one_cannot_take_the_tenant(
    make_router: MakeRouter, serve: Serve, inner: Any, told: str
) -> None:
    """Whom the outer middleware names, pays; the inner one is asked where the outer names nobody."""
    router = make_router(budgets=[Budget("$5", per="tenant")])
    browser = await serve(nested(router, {"tenant": inner}, {"tenant": tenant_of}))
    assert (await browser.get("/sub/pay", headers={"x-tenant": "acme"})).json()[1] == told
    unnamed = inner({}) if inner is not None else None
    assert (await browser.get("/sub/pay")).json()[1] == unnamed
    assert {b.account for b in await router.balances()} == {told, unnamed or "default"}


async def test_one_request_is_one_binding(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """Two middlewares of one Router are one request: one budget for it, one list of decisions, swept once."""
    ended: list[bool] = []
    router = make_router(budgets=[Budget("$0.03", per="request")], policy=policy(tier="sonnet"))
    end = router.end

    async def counted(binding: Any, *, whole: bool) -> None:
        ended.append(whole)
        await end(binding, whole=whole)

    router.end = counted  # type: ignore[method-assign]
    fake.answer = lambda _: Reply("word " * 400, output_tokens=490)

    async def greedy(request: Request) -> PlainTextResponse:
        done = 0
        try:
            for _ in range(10):
                await claude_of(request).messages.create(**ask())
                done += 1
        except BudgetExceededError:
            return PlainTextResponse(f"{done} of {len(current().decisions)}")
        return PlainTextResponse("never refused")

    app = nested(router, {}, {}, Route("/greedy", greedy))
    app.add_middleware(TierlineMiddleware, router=router)
    browser = await serve(app)
    done, decisions = map(int, (await browser.get("/sub/greedy")).text.split(" of "))
    assert 1 <= done < 10
    assert decisions == done + 1
    assert ended == [True]
    assert await router.balances() == []


async def test_headers_and_busy_of_an_inner_one(router: Router, serve: Serve, fake: FakeClaude) -> None:
    """Each middleware's switches hold for its own app; headers are written once."""
    browser = await serve(nested(router, {"headers": True, "busy_as_503": True}, {"headers": True}))
    response = await browser.get("/sub/pay")
    assert response.headers.get_list("x-tierline-tier") == ["sonnet"]
    fake.always(None, Fault.overloaded())
    assert (await browser.get("/sub/pay")).status_code == 503


async def test_another_router_inside(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """Each Router has its own tables, budgets and decisions; who asks is handed in; a client keeps its Router."""
    outer = make_router(budgets=[Budget("$5", per="tenant")])
    inner = make_router(ladder=SMALL, budgets=[Budget("$6", per="tenant")])
    sub = FastAPI()

    @sub.get("/both")
    async def both(claude: Claude, routing: Routing) -> list[Any]:
        await claude.messages.create(**ask())
        await outer.claude.messages.create(**ask())
        assert current() is routing
        return [[d.tier, d.tenant] for d in routing.decisions]

    sub.add_middleware(TierlineMiddleware, router=inner, routes={"/both": policy(floor="large")})
    app = FastAPI()
    app.mount("/sub", sub)
    app.add_middleware(
        TierlineMiddleware, router=outer, tenant=tenant_of, routes={"/sub/*": policy(floor="sonnet", ceiling="sonnet")}
    )
    browser = await serve(app)
    assert (await browser.get("/sub/both", headers={"x-tenant": "acme"})).json() == [["large", "acme"]]
    assert [r.model for r in fake.requests] == ["claude-opus-5-5", "claude-sonnet-5-5"]
    assert await settled(outer) == {("$5 per tenant", "acme"): fake.requests[1].billed}
    assert await settled(inner) == {("$6 per tenant", "acme"): fake.requests[0].billed}


async def test_what_names_no_router_holds_for_both(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """Dependencies, decorators and blocks inside hold for the outer Router's calls too."""
    outer, inner = make_router(), make_router()
    sub = FastAPI()

    @sub.get("/depends", dependencies=[Depends(policy(floor="opus"))])
    async def depends() -> None:
        await outer.claude.messages.create(**ask())

    @sub.get("/decorated")
    @policy(floor="opus")
    async def decorated() -> None:
        await outer.claude.messages.create(**ask())

    @sub.get("/block")
    async def block() -> None:
        with policy(floor="opus"):
            await outer.claude.messages.create(**ask())

    sub.add_middleware(TierlineMiddleware, router=inner)
    app = FastAPI()
    app.mount("/sub", sub)
    app.add_middleware(TierlineMiddleware, router=outer)
    browser = await serve(app)
    for path in ("depends", "decorated", "block"):
        assert (await browser.get(f"/sub/{path}")).status_code == 200
    assert {r.model for r in fake.requests} == {"claude-opus-5-5"}


async def test_a_tier_that_the_other_router_has_not(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A policy that a ladder cannot follow is no policy that is dropped: the call fails, and says why."""
    outer, inner = make_router(), make_router(ladder=SMALL)

    @policy(floor="large")
    async def large(request: Request) -> JSONResponse:
        return await page(request)

    sub = Starlette(routes=[Route("/x", large)])
    told: list[str] = []

    async def asks_outer(_: Request) -> PlainTextResponse:
        from tierline.errors import ConfigurationError

        try:
            with policy(floor="large"):
                await outer.claude.messages.create(**ask())
        except ConfigurationError as error:
            told.append(str(error))
        return PlainTextResponse("")

    sub.router.routes.append(Route("/outer", asks_outer))
    sub.add_middleware(TierlineMiddleware, router=inner)
    app = Starlette(routes=[Mount("/sub", app=sub)])
    app.add_middleware(TierlineMiddleware, router=outer)
    browser = await serve(app)
    assert (await browser.get("/sub/x")).json()[0] == "large"
    await browser.get("/sub/outer")
    assert "there is no tier 'large'" in told[0]
    assert len(fake.requests) == 1


async def test_a_router_inside_of_another_inside_of_itself(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude
) -> None:
    """Further inside, the first Router's request goes on: its tables, its budget for a request, its client."""
    first = make_router(budgets=[Budget("$5", per="request")])
    second = make_router(ladder=SMALL, budgets=[Budget("$5", per="request")])
    balances: list[int] = []

    async def all_of_them(request: Request) -> JSONResponse:
        await claude_of(request).messages.create(**ask())
        await second.claude.messages.create(**ask())
        balances.extend([len(await first.balances()), len(await second.balances())])
        return JSONResponse([d.tier for d in routing_of(request).decisions])

    app: Any = Starlette(routes=[Route("/x", all_of_them)])
    app = TierlineMiddleware(app, router=first, routes={"/x": policy(ceiling="opus")})
    app = TierlineMiddleware(app, router=second, routes={"/x": policy(floor="large")})
    app = TierlineMiddleware(app, router=first, routes={"/x": policy(floor="opus")})
    browser = await serve(app)
    assert (await browser.get("/x")).json() == ["opus"]
    assert [r.model for r in fake.requests] == ["claude-opus-5-5"] * 2
    assert balances == [1, 1]
    assert (await first.balances(), await second.balances()) == ([], [])


async def test_a_block_around_the_middleware(router: Router, serve: Serve) -> None:
    """A block that stands around the whole app, in a middleware of its own, holds for the requests inside."""
    inner = TierlineMiddleware(Starlette(routes=[Route("/x", page)]), router=router)

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        with policy(floor="opus"):
            await inner(scope, receive, send)

    assert (await (await serve(around)).get("/x")).json()[0] == "opus"


async def test_requests_that_an_app_makes_of_itself(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """An endpoint that calls its own app with copies of its scope loses neither its own floor nor its tenant."""
    router = make_router(budgets=[Budget("$5", per="tenant")])

    async def blind(_: Request) -> JSONResponse:
        return JSONResponse([(await router.claude.messages.create(**ask())).model])

    async def batch(request: Request) -> JSONResponse:
        bodies: list[bytes] = []

        async def call(path: str) -> None:
            async def send(message: Any) -> None:
                bodies.append(message.get("body", b""))

            await stack({**request.scope, "path": path}, request.receive, send)

        claude = claude_of(request)
        first = (await claude.messages.create(**ask())).model
        await asyncio.gather(call("/free"), call("/pay"), call("/free"))
        models = [first, (await claude.messages.create(**ask())).model]
        return JSONResponse([models, sorted(json.loads(body)[0] for body in bodies if body)])

    stack = TierlineMiddleware(
        Starlette(routes=[Route("/batch", batch), Route("/free", blind), Route("/pay", page)]),
        router=router,
        tenant=tenant_of,
        routes={"/batch": policy(floor="opus"), "/pay": policy(floor="opus"), "/free": policy(tier="haiku")},
    )
    models, tiers = (await (await serve(stack)).get("/batch", headers={"x-tenant": "acme"})).json()
    assert models == ["claude-opus-5-5"] * 2
    assert tiers == ["claude-haiku-5-5", "claude-haiku-5-5", "opus"]
    assert await settled(router) == {("$5 per tenant", "acme"): fake.billed}


async def test_requests_of_an_app_to_itself_narrow_apart(router: Router, serve: Serve) -> None:
    """Dependencies of one such request hold for no other; those of the endpoint that makes them hold for all."""
    app = FastAPI()
    tiers: dict[str, str] = {}
    met = asyncio.Barrier(2)

    async def called(request: FastAPIRequest, routing: Routing) -> None:
        await met.wait()
        tiers[request.url.path] = (await routing.claude.messages.create(**ask())).model
        await met.wait()

    app.get("/cheap", dependencies=[Depends(policy(ceiling="haiku"))])(called)
    app.get("/plain")(called)

    @app.get("/batch/{tier}")
    async def batch(tier: str, request: FastAPIRequest, claude: Claude) -> str:
        async def call(path: str) -> None:
            async def send(_: Any) -> None: ...

            scope = {k: v for k, v in request.scope.items() if not k.startswith("fastapi")}
            await stack({**scope, "path": path}, request.receive, send)

        current().narrow(policy(ceiling=tier))
        await asyncio.gather(call("/cheap"), call("/plain"))
        return (await claude.messages.create(**ask())).model

    stack = TierlineMiddleware(app, router=router)
    browser = await serve(stack)
    assert (await browser.get("/batch/opus")).json() == "claude-sonnet-5-5"
    assert tiers == {"/cheap": "claude-haiku-5-5", "/plain": "claude-sonnet-5-5"}
    assert (await browser.get("/batch/haiku")).json() == "claude-haiku-5-5"
    assert tiers == {"/cheap": "claude-haiku-5-5", "/plain": "claude-haiku-5-5"}


async def test_a_request_of_the_apps_own_after_its_request(
    make_router: MakeRouter, serve: Serve, fake: FakeClaude
) -> None:
    """What joins a request that is over by then is swept all the same."""
    router = make_router(budgets=[Budget("$5", per="tenant")])
    answered, kept, tasks = asyncio.Event(), [], []

    async def leaves(_: Request) -> PlainTextResponse:
        kept.append(await router.claude.messages.create(**ask(), stream=True))
        return PlainTextResponse("left")

    async def later(request: Request) -> PlainTextResponse:
        async def send(_: Any) -> None: ...

        async def work() -> None:
            await answered.wait()
            await stack({**request.scope, "path": "/leaves"}, request.receive, send)

        tasks.append(asyncio.create_task(work()))
        return PlainTextResponse("soon")

    fake.always(None, Fault.hang(after=4))
    app = Starlette(routes=[Route("/leaves", leaves), Route("/later", later)])
    stack = TierlineMiddleware(app, router=router, tenant=tenant_of)
    await (await serve(stack)).get("/later", headers={"x-tenant": "acme"})
    answered.set()
    await tasks[0]
    assert list(await settled(router)) == [("$5 per tenant", "acme")]
    await fake.idle()
    assert fake.requests[0].ended == "disconnected"
    assert kept


async def test_a_job_inside_of_a_request(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """`bind` in an endpoint is a job for whom it says; the request's floors and blocks hold in it."""
    router = make_router(budgets=[Budget("$5", per="tenant")])

    async def job(request: Request) -> JSONResponse:
        found = []
        for block in (policy(), policy(floor="opus")):
            with block:
                async with router.bind(tenant="job", route="nightly") as binding:
                    await claude_of(request).messages.create(**ask())
                found.append([binding.decisions[-1].tier, binding.decisions[-1].tenant, binding.decisions[-1].route])
        return JSONResponse([*found, len(current().decisions)])

    app = Starlette(routes=[Route("/job", job)])
    app.add_middleware(
        TierlineMiddleware, router=router, tenant=lambda _: "acme", routes={"/job": policy(tier="haiku")}
    )
    browser = await serve(app)
    assert (await browser.get("/job")).json() == [["haiku", "job", "nightly"], ["opus", "job", "nightly"], 0]
    assert await settled(router) == {("$5 per tenant", "job"): fake.billed}
    assert await held_by(router) == 0
