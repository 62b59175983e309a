"""FastAPI: the client as a dependency, and policies wherever FastAPI lets them be written."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any

import pytest
from anthropic import AsyncAnthropic
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from tierline import Budget, Router, policy
from tierline.anthropic import attach
from tierline.asgi import TierlineMiddleware
from tierline.errors import ConfigurationError
from tierline.fastapi import Claude, Routing, claude_of, routing_of
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import httpx

    Serve = Callable[[Any], Awaitable[httpx.AsyncClient]]
    MakeRouter = Callable[..., Router]

pytestmark = pytest.mark.usefixtures("quiet")

ASK: dict[str, Any] = {"model": "auto", "max_tokens": 200, "messages": [{"role": "user", "content": "Why?"}]}
TIER = {"claude-haiku-5-5": "haiku", "claude-sonnet-5-5": "sonnet", "claude-opus-5-5": "opus"}


async def tier_of(claude: AsyncAnthropic) -> str:
    return TIER[(await claude.messages.create(**ASK)).model]


async def endpoint(claude: Claude) -> str:
    """Answer with the tier that a call went to: `sonnet`, unless a policy says otherwise."""
    return await tier_of(claude)


def app_of(router: Router, **options: Any) -> FastAPI:
    app = FastAPI(lifespan=router.lifespan, **options)
    app.add_middleware(TierlineMiddleware, router=router)
    return app


# The dependencies


async def test_claude_and_routing(router: Router, serve: Serve, fake: FakeClaude) -> None:
    """`Claude` is the routed client of the SDK's own class, `Routing` the Binding with what was decided."""
    app = app_of(router)

    @app.post("/items/{item}")
    async def items(item: int, claude: Claude, routing: Routing) -> dict[str, Any]:
        assert type(claude) is AsyncAnthropic
        await claude.messages.create(**ASK)
        (decision,) = routing.decisions
        return {"route": decision.route, "tier": decision.tier, "cost": decision.cost}

    response = await (await serve(app)).post("/items/7")
    assert response.json() == {"route": "/items/{item}", "tier": "sonnet", "cost": fake.billed}


async def test_no_middleware(serve: Serve, router: Router, caplog: pytest.LogCaptureFixture) -> None:
    """Without the middleware, the error names what is missing."""
    app = FastAPI()
    app.get("/")(endpoint)
    app.get("/floor", dependencies=[Depends(policy(floor="opus"))])(lambda: "never")
    browser = await serve(app)
    for path in ("/", "/floor"):
        assert (await browser.get(path)).status_code == 500
    told = [str(record.exc_info[1]) for record in caplog.records if record.exc_info]
    assert all("TierlineMiddleware" in text for text in told)
    assert len(told) == 2
    caplog.clear()


async def test_overrides(router: Router, serve: Serve) -> None:
    """`app.dependency_overrides` takes the public functions as keys."""
    app = app_of(router)
    app.get("/")(endpoint)

    @app.get("/routing")
    async def routing(routing: Routing) -> str:
        return str(routing)

    other = FakeClaude()
    offline = other.client()
    app.dependency_overrides[claude_of] = lambda: attach(offline, router)
    app.dependency_overrides[routing_of] = lambda: "mine"
    browser = await serve(app)
    assert (await browser.get("/")).json() == "sonnet"
    assert len(other.requests) == 1
    await offline.close()
    assert (await browser.get("/routing")).json() == "mine"


async def test_openapi_stays_clean(router: Router) -> None:
    """Neither the client nor a policy shows in the schema of an endpoint."""
    app = app_of(router, dependencies=[Depends(policy(floor="sonnet"))])

    @app.get("/a")
    @policy(floor="opus")
    async def a(claude: Claude, routing: Routing, page: int = 1) -> str:
        return ""

    (operation,) = app.openapi()["paths"]["/a"].values()
    assert [p["name"] for p in operation["parameters"]] == ["page"]
    assert "requestBody" not in operation


# Policies


async def test_policy_on_a_route(router: Router, serve: Serve) -> None:
    """`Depends(policy(…))` holds on its own route and on no other."""
    app = app_of(router)
    app.get("/floor", dependencies=[Depends(policy(floor="opus"))])(endpoint)
    app.get("/plain")(endpoint)

    @app.get("/parameter")
    async def parameter(claude: Claude, _: Annotated[None, Depends(policy(ceiling="haiku"))]) -> str:
        return await tier_of(claude)

    browser = await serve(app)
    assert [(await browser.get(path)).json() for path in ("/floor", "/plain", "/parameter")] == [
        "opus",
        "sonnet",
        "haiku",
    ]


async def test_policy_on_routers_with_prefixes(router: Router, serve: Serve) -> None:
    """Policies of nested routers and of the app hold together, and the table sees the whole template."""

    async def explained(claude: Claude, routing: Routing) -> list[Any]:
        tier = await tier_of(claude)
        return [tier, routing.decisions[-1].route, routing.decisions[-1].tags]

    inner = APIRouter(prefix="/inner")
    inner.get("/{name}")(explained)
    outer = APIRouter(prefix="/outer", dependencies=[Depends(policy(floor="haiku", tags={"who": "outer"}))])
    outer.include_router(inner, prefix="/deep", dependencies=[Depends(policy(floor="opus"))])
    outer.get("/plain")(explained)
    app = FastAPI(lifespan=router.lifespan, dependencies=[Depends(policy(tags={"app": "shop"}))])
    app.include_router(outer, prefix="/v1")
    app.add_middleware(
        TierlineMiddleware,
        router=router,
        routes={"/v1/outer/plain": policy(ceiling="haiku"), "/v1/outer/deep/inner/{x}": policy(tags={"table": "deep"})},
    )
    browser = await serve(app)
    assert (await browser.get("/v1/outer/deep/inner/bob")).json() == [
        "opus",
        "/v1/outer/deep/inner/{name}",
        [["app", "shop"], ["table", "deep"], ["who", "outer"]],
    ]
    assert (await browser.get("/v1/outer/plain")).json() == [
        "haiku",
        "/v1/outer/plain",
        [["app", "shop"], ["who", "outer"]],
    ]


@pytest.mark.parametrize("outside", [True, False])
async def test_decorator_in_both_orders(router: Router, serve: Serve, outside: bool) -> None:
    """The decorator holds above the framework's and below it, beside parameters and body of the endpoint."""
    app = app_of(router)

    async def plain(item: int, claude: Claude, q: str = "x") -> dict[str, Any]:
        return {"item": item, "q": q, "tier": await tier_of(claude)}

    get, floor = app.get("/{item}"), policy(floor="opus")
    if outside:
        floor(get(plain))
    else:
        get(floor(plain))
    browser = await serve(app)
    assert (await browser.get("/7?q=y")).json() == {"item": 7, "q": "y", "tier": "opus"}
    assert (await browser.get("/seven")).status_code == 422


async def test_block(router: Router, serve: Serve) -> None:
    """A `with` block holds for its calls, and the dependency's floor holds inside of it."""
    app = app_of(router)

    @app.get("/", dependencies=[Depends(policy(floor="sonnet"))])
    async def calls(claude: Claude) -> list[str]:
        before = await tier_of(claude)
        with policy(floor="opus"):
            inside = await tier_of(claude)
        with policy(tier="haiku"):
            pinned = await tier_of(claude)
        return [before, inside, pinned, await tier_of(claude)]

    assert (await (await serve(app)).get("/")).json() == ["sonnet", "opus", "sonnet", "sonnet"]


@pytest.mark.parametrize("where", ["dependency", "decorator", "block", "yield dependency"])
async def test_policy_in_a_streaming_body(router: Router, serve: Serve, where: str) -> None:
    """A policy holds inside the body of a StreamingResponse, wherever it was written."""
    app = app_of(router)
    opus = policy(floor="opus")

    async def lifted() -> AsyncIterator[None]:
        with opus:
            yield

    async def stream(claude: Claude) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield await tier_of(claude) + " "
            if where == "block":
                with opus:
                    yield await tier_of(claude)
                    yield " " + await tier_of(claude)
            else:
                yield await tier_of(claude)

        return StreamingResponse(body())

    dependencies = {"dependency": [Depends(opus)], "yield dependency": [Depends(lifted)]}.get(where, [])
    app.get("/", dependencies=dependencies)(opus(stream) if where == "decorator" else stream)
    app.get("/plain")(endpoint)
    browser = await serve(app)
    expected = "sonnet opus opus" if where == "block" else "opus opus"
    assert (await browser.get("/")).text == expected
    assert (await browser.get("/plain")).json() == "sonnet"


async def test_policy_in_a_background_task(router: Router, serve: Serve, fake: FakeClaude) -> None:
    """The route's policy holds in its background tasks."""
    app = app_of(router)

    @app.get("/", dependencies=[Depends(policy(floor="opus"))])
    async def later(claude: Claude, tasks: BackgroundTasks) -> str:
        tasks.add_task(tier_of, claude)
        return "soon"

    assert (await (await serve(app)).get("/")).json() == "soon"
    await fake.until(lambda requests: requests and requests[0].ended == "complete")
    assert [r.model for r in fake.requests] == ["claude-opus-5-5"]


async def test_policy_of_the_router(make_router: MakeRouter, serve: Serve) -> None:
    """`Router(policy=…)` holds for every call, and its ceiling gives way to a floor only, with a reason."""
    router = make_router(policy=policy(ceiling="haiku"))
    app = app_of(router)
    app.get("/plain")(endpoint)

    @app.get("/floor", dependencies=[Depends(policy(floor="sonnet"))])
    async def floor(claude: Claude, routing: Routing) -> tuple[str, list[str]]:
        return await tier_of(claude), list(routing.decisions[-1].reasons)

    browser = await serve(app)
    assert (await browser.get("/plain")).json() == "haiku"
    tier, reasons = (await browser.get("/floor")).json()
    assert tier == "sonnet"
    assert any("above ceiling" in reason for reason in reasons)


async def test_budget_of_a_policy(router: Router, serve: Serve, fake: FakeClaude) -> None:
    """A budget in a policy is charged by its routes alone."""
    app = app_of(router)
    app.get("/capped", dependencies=[Depends(policy(budgets=[Budget("$1", name="capped")]))])(endpoint)
    app.get("/plain")(endpoint)
    browser = await serve(app)
    await browser.get("/plain")
    assert await router.balances() == []
    await browser.get("/capped")
    (balance,) = await router.balances()
    assert (balance.budget, balance.spent, balance.held) == ("capped", fake.requests[-1].billed, 0)


async def test_mounted_app(router: Router, serve: Serve) -> None:
    """Below a mount, the sub-app's own routes and policies hold, with the whole path in the table."""
    sub = FastAPI()
    sub.get("/x", dependencies=[Depends(policy(floor="opus"))])(endpoint)
    sub.get("/y")(endpoint)
    app = FastAPI()
    app.mount("/tenants/{tenant}", sub)
    app.add_middleware(TierlineMiddleware, router=router, routes={"/tenants/{t}/y": policy(ceiling="haiku")})
    browser = await serve(app)
    assert (await browser.get("/tenants/acme/x")).json() == "opus"
    assert (await browser.get("/tenants/acme/y")).json() == "haiku"


# Start-up


def bad_decorator(app: FastAPI) -> None:
    @app.get("/bad")
    @policy(floor="gpt")
    async def bad() -> None: ...


def bad_dependency(app: FastAPI) -> None:
    app.get("/bad", dependencies=[Depends(policy(tier="gpt"))])(endpoint)


def bad_parameter(app: FastAPI) -> None:
    async def bad(_: Annotated[None, Depends(policy(ceiling="gpt"))]) -> None: ...

    app.get("/bad")(bad)


def bad_nested_dependency(app: FastAPI) -> None:
    async def authenticated(_: Annotated[None, Depends(policy(floor="gpt"))]) -> None: ...

    app.get("/bad", dependencies=[Depends(authenticated)])(endpoint)


def bad_router(app: FastAPI) -> None:
    inner = APIRouter(dependencies=[Depends(policy(floor="gpt"))])
    inner.get("/x")(endpoint)
    outer = APIRouter()
    outer.include_router(inner, prefix="/bad")
    app.include_router(outer)


def bad_include(app: FastAPI) -> None:
    inner = APIRouter()
    inner.get("/bad")(endpoint)
    app.include_router(inner, dependencies=[Depends(policy(floor="gpt"))])


def bad_mount(app: FastAPI) -> None:
    sub = FastAPI()
    bad_decorator(sub)
    app.mount("/sub", sub)


@pytest.mark.parametrize(
    "write",
    [
        bad_decorator,
        bad_dependency,
        bad_parameter,
        bad_nested_dependency,
        bad_router,
        bad_include,
        bad_mount,
    ],
)
async def test_unknown_tier_is_found_at_startup(router: Router, write: Callable[[FastAPI], None]) -> None:
    """An app with a tier that is on no ladder does not start, and the error names tier and place."""
    app = app_of(router)
    write(app)
    with pytest.raises(ConfigurationError, match=r"gpt.*haiku, sonnet, opus") as caught:
        async with router.lifespan(app):
            pass
    assert "bad" in str(caught.value) or "dependencies of" in str(caught.value)


async def test_unknown_tier_of_the_app(router: Router) -> None:
    """Dependencies of the app itself are checked too."""
    app = app_of(router, dependencies=[Depends(policy(floor="gpt"))])
    with pytest.raises(ConfigurationError, match=r"the app.*gpt"):
        async with router.lifespan(app):
            pass


async def test_lifespan_composes_and_nests(make_router: MakeRouter, serve: Serve) -> None:
    """The lifespan stands inside one of the app's own, and twice in one app; calls work in start-up and shutdown."""
    router = make_router()
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with router.lifespan(app), router.lifespan(app):
            told.append(await tier_of(router.claude))
            yield {"told": told}
            told.append(await tier_of(router.claude))

    app = FastAPI(lifespan=lifespan)
    app.include_router(APIRouter(lifespan=router.lifespan))
    app.add_middleware(TierlineMiddleware, router=router)
    app.get("/")(endpoint)
    async with lifespan(app):
        pass
    assert told == ["sonnet", "sonnet"]
    assert (await (await serve(app)).get("/")).json() == "sonnet"


async def test_error_of_the_api_is_the_apps(router: Router, serve: Serve, fake: FakeClaude) -> None:
    """An error of the API reaches the endpoint as the SDK's own type, for the app to answer."""
    from anthropic import BadRequestError

    app = app_of(router)

    @app.get("/")
    async def careful(claude: Claude) -> str:
        try:
            await claude.messages.create(model="auto", max_tokens=10, messages=[{"role": "user", "content": ""}])
        except BadRequestError as error:
            raise HTTPException(422, error.body["error"]["type"]) from error  # type: ignore[index,call-overload]
        return "ok"

    response = await (await serve(app)).get("/")
    assert (response.status_code, response.json()["detail"]) == (422, "invalid_request_error")
