"""Every place where FastAPI lets a policy be written, with every kind of endpoint; and what of it shows in OpenAPI."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator  # noqa: TC003  (FastAPI reads annotations)
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from anthropic import AsyncAnthropic  # noqa: TC002  (FastAPI reads annotations)
from fastapi import APIRouter, Depends, FastAPI
from fastapi.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route
from starlette.testclient import TestClient

from tests.apps import ask, refusing
from tierline import Budget, Router, policy
from tierline.asgi import TierlineMiddleware
from tierline.errors import BudgetExceededError, ConfigurationError, LedgerUnavailableError
from tierline.fastapi import REFUSALS, Claude, Routing, claude_of, routing_of
from tierline.starlette import claude_of as starlette_claude_of
from tierline.values import Refusal

if TYPE_CHECKING:
    from starlette.requests import Request

    from tests.apps import MakeRouter, Serve
    from tierline.testing import FakeClaude

pytestmark = pytest.mark.usefixtures("quiet")

OPUS = policy(floor="opus")
TIER = {"claude-haiku-5-5": "haiku", "claude-sonnet-5-5": "sonnet", "claude-opus-5-5": "opus"}


async def tier_of(claude: AsyncAnthropic) -> str:
    return TIER[(await claude.messages.create(**ask())).model]


# Endpoints of every kind: each made anew, for a decorator marks its function


def async_def() -> Any:
    async def endpoint(claude: Claude, page: int = 1) -> str:
        return await tier_of(claude)

    return endpoint


def plain_def() -> Any:
    def endpoint(claude: Claude, page: int = 1) -> str:
        return anyio.from_thread.run(tier_of, claude)

    return endpoint


def instance() -> Any:
    class Endpoint:
        async def __call__(self, claude: Claude, page: int = 1) -> str:
            return await tier_of(claude)

    return Endpoint()


def sync_instance() -> Any:
    class Endpoint:
        def __call__(self, claude: Claude, page: int = 1) -> str:
            return anyio.from_thread.run(tier_of, claude)

    return Endpoint()


def method() -> Any:
    class Endpoints:
        async def answer(self, claude: Claude, page: int = 1) -> str:
            return await tier_of(claude)

    return Endpoints().answer


def class_method() -> Any:
    class Endpoints:
        @classmethod
        async def answer(cls, claude: Claude, page: int = 1) -> str:
            return await tier_of(claude)

    return Endpoints.answer


def partial() -> Any:
    async def endpoint(word: str, claude: Claude, page: int = 1) -> str:
        return word + await tier_of(claude)

    return functools.partial(endpoint, "")


def wrapped() -> Any:
    def timed(function: Callable[..., Any]) -> Any:
        @functools.wraps(function)
        async def timing(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return timing

    return timed(async_def())


def events() -> Any:
    async def endpoint(claude: Claude, page: int = 1) -> AsyncIterator[str]:
        yield await tier_of(claude)

    return endpoint


def sync_events() -> Any:
    def endpoint(claude: Claude, page: int = 1) -> Iterator[str]:
        yield anyio.from_thread.run(tier_of, claude)

    return endpoint


KINDS: list[Callable[[], Any]] = [
    async_def, plain_def, instance, sync_instance, method, class_method, partial, wrapped, events, sync_events,
]  # fmt: skip


def app_with(kind: Callable[[], Any], rule: Any, inside: Callable[[], Any] = lambda: None) -> FastAPI:
    """An app with an endpoint in each place; `rule` makes the policy, or what stands there without one."""
    more: dict[str, Any] = {"response_class": EventSourceResponse} if "events" in kind.__name__ else {}
    depends = [Depends(rule)] if rule is not None else [Depends(nothing)]
    decorate = rule if rule is not None else lambda function: function
    app = FastAPI()
    app.get("/route", dependencies=depends, **more)(kind())
    app.get("/inner", **more)(decorate(kind()))
    outer = app.get("/outer", **more)(kind())
    decorate(outer)
    app.add_api_route("/added", decorate(kind()), methods=["GET"], **more)
    lifted = APIRouter(prefix="/router", dependencies=depends)
    lifted.get("/x", **more)(kind())
    app.include_router(lifted)
    deep = APIRouter()
    deep.get("/x", **more)(kind())
    middle = APIRouter()
    middle.include_router(deep, prefix="/deep", dependencies=depends)
    app.include_router(middle, prefix="/included")
    app.get("/table/{x}/y", **more)(kind())
    sub = FastAPI(dependencies=depends)
    sub.get("/x", **more)(kind())
    app.mount("/app", sub)
    app.get("/plain", **more)(kind())
    return app


def nothing() -> None:
    """No policy."""


PLACES = ("/route", "/inner", "/outer", "/added", "/router/x", "/included/deep/x", "/table/7/y", "/app/x")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_a_floor_in_every_place(router: Router, serve: Serve, kind: Callable[[], Any]) -> None:
    """A floor holds wherever it is written, for endpoints of every kind, and for no other route."""
    app = app_with(kind, OPUS)
    app.add_middleware(TierlineMiddleware, router=router, routes={"/table/{x}/y": OPUS})
    browser = await serve(app)
    told = {}
    for path in (*PLACES, "/plain"):
        response = await browser.get(path)
        assert response.status_code == 200, (path, response.text)
        told[path] = next(tier for tier in TIER.values() if tier in response.text)
    assert told == dict.fromkeys(PLACES, "opus") | {"/plain": "sonnet"}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_openapi_is_not_polluted(router: Router, kind: Callable[[], Any]) -> None:
    """The schema is the same with policies in every place and with none."""
    with_policies, without = app_with(kind, OPUS), app_with(kind, None)
    with_policies.add_middleware(TierlineMiddleware, router=router, routes={"/table/{x}/y": OPUS})
    assert with_policies.openapi() == without.openapi()
    assert len(without.openapi()["paths"]) == len(PLACES)


# Dependencies that run late


async def test_dependencies_that_run_late(router: Router, serve: Serve) -> None:
    """A policy among dependencies holds from there on; what holds for a route holds in all that run for it."""
    app = FastAPI()

    async def early(claude: Claude) -> str:
        return await tier_of(claude)

    async def open_until_the_end(claude: Claude, routing: Routing) -> AsyncIterator[str]:
        yield await tier_of(claude)
        after.append(await tier_of(claude))

    after: list[str] = []

    @app.get("/parameter")
    async def parameter(
        claude: Claude,
        first: str = Depends(early),  # noqa: FAST002  (local names)
        opened: str = Depends(open_until_the_end),  # noqa: FAST002
        _: None = Depends(OPUS),  # noqa: FAST002
    ) -> list[str]:
        return [first, opened, await tier_of(claude)]

    async def both(
        first: str = Depends(early),
        opened: str = Depends(open_until_the_end),
    ) -> list[str]:
        return [first, opened]

    app.get("/listed", dependencies=[Depends(OPUS)])(both)
    app.get("/marked")(policy(floor="opus", tags={"marked": "1"})(both))

    async def guarded(_: None = Depends(OPUS)) -> None:
        """A dependency that brings a policy along."""

    @app.get("/nested", dependencies=[Depends(guarded)])
    async def nested(claude: Claude) -> list[str]:
        return [await tier_of(claude)]

    app.add_middleware(TierlineMiddleware, router=router)
    browser = await serve(app)
    assert (await browser.get("/parameter")).json() == ["sonnet", "sonnet", "opus"]
    assert (await browser.get("/listed")).json() == ["opus", "opus"]
    assert (await browser.get("/marked")).json() == ["opus", "opus"]
    assert (await browser.get("/nested")).json() == ["opus"]
    assert after == ["opus", "opus", "opus"]


async def test_a_refusal_in_events_of_fastapi(make_router: MakeRouter, serve: Serve) -> None:
    """An endpoint that yields events is told apart from one that has not begun: its stream ends with an error event."""
    app = FastAPI()

    @app.get("/events", response_class=EventSourceResponse)
    async def stream(claude: Claude) -> AsyncIterator[str]:
        yield "first"
        yield await tier_of(claude)

    app.add_middleware(TierlineMiddleware, router=await refusing(make_router))
    response = await (await serve(app)).get("/events")
    assert response.status_code == 200
    assert response.text.startswith('data: "first"\n\n')
    assert response.text.count("event: error\n") == 1
    assert '"status": 429' in response.text


# Plain Starlette


async def page(request: Request) -> PlainTextResponse:
    return PlainTextResponse(await tier_of(starlette_claude_of(request)))


def fresh() -> Any:
    async def decorated(request: Request) -> PlainTextResponse:
        return await page(request)

    return decorated


class Page:
    async def __call__(self, request: Request) -> PlainTextResponse:
        return await page(request)


async def test_places_of_starlette(router: Router, serve: Serve) -> None:
    """Decorators hold on routes, in mounts and hosts, on instances and partials, below middlewares of a route."""

    class Passing:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)

    # Starlette takes a callable instance for an ASGI app: the wrapper of the decorator is a function.
    routes = [
        Route("/function", OPUS(fresh())),
        Route("/instance", OPUS(Page())),
        Route("/partial", OPUS(functools.partial(fresh()))),
        Route("/middleware", OPUS(fresh()), middleware=[Middleware(Passing)]),
        Mount("/mount", routes=[Route("/deep/{x}", OPUS(fresh()))]),
        Route("/plain", page),
    ]
    app = Starlette(routes=[Host("api.example.org", app=Starlette(routes=routes)), *routes])
    app.add_middleware(TierlineMiddleware, router=router)
    browser = await serve(app)
    for host in ("api.example.org", "www.example.org"):
        for path in ("/function", "/instance", "/partial", "/middleware", "/mount/deep/7"):
            assert (await browser.get(path, headers={"host": host})).text == "opus", (host, path)
        assert (await browser.get("/plain", headers={"host": host})).text == "sonnet"


# OpenAPI where it is asked for


def test_refusals_in_openapi(router: Router) -> None:
    """`responses=REFUSALS` shows the three answers with their schema, on a route and a router, and is not changed."""
    before = repr(REFUSALS)
    app = FastAPI()
    app.get("/route", responses=REFUSALS)(async_def())
    app.get("/both", responses={**REFUSALS, 404: {"description": "None"}})(async_def())
    lifted = APIRouter(responses=REFUSALS)
    lifted.get("/router")(async_def())
    app.include_router(lifted)
    app.get("/plain")(async_def())
    paths = app.openapi()["paths"]
    assert repr(REFUSALS) == before
    for path in ("/route", "/both", "/router"):
        found = paths[path]["get"]["responses"]
        assert {"402", "429", "503"} <= set(found)
        assert all(set(found[status]["content"]) == {"application/problem+json"} for status in ("402", "429", "503"))
        assert "Retry-After" in found["429"]["headers"]
    assert "404" in paths["/both"]["get"]["responses"]
    assert {"402", "429", "503"}.isdisjoint(paths["/plain"]["get"]["responses"])


@pytest.mark.parametrize(
    "error",
    [
        BudgetExceededError(Refusal("b", "a", 5, 5, 0, 3, renews_in=7.0)),
        BudgetExceededError(Refusal("b", "a", 5, 5, 0, 3)),
        LedgerUnavailableError("down"),
    ],
)
def test_the_schema_is_what_is_answered(error: Any) -> None:
    """What the schema promises of a refusal is what its answer has."""
    described = REFUSALS[error.http_status]
    schema = described["content"]["application/problem+json"]["schema"]
    assert set(schema["required"]) == set(schema["properties"]) == set(error.problem)
    assert schema["properties"]["status"]["const"] == error.problem["status"]
    assert {name.lower() for name in described.get("headers", {})} >= set(error.http_headers)


# Tests of an app


def test_overrides_in_the_testclient(fake: FakeClaude) -> None:
    """`dependency_overrides`, lifespan and refusals work in FastAPI's TestClient, whose loop is another thread's."""
    from anthropic import AsyncAnthropic

    with fake.serve_in_thread() as url:
        router = Router(AsyncAnthropic(api_key=fake.api_key, base_url=url), budgets=[Budget("$1", per="tenant")])
        app = FastAPI(lifespan=router.lifespan)
        app.get("/", dependencies=[Depends(OPUS)])(async_def())
        app.get("/capped", dependencies=[Depends(policy(budgets=[Budget("$0.000001", name="tiny")]))])(async_def())

        @app.get("/routing")
        async def routing(routing: Routing) -> str:
            return str(routing)

        app.add_middleware(TierlineMiddleware, router=router, headers=True)
        with TestClient(app) as browser:
            response = browser.get("/")
            assert (response.json(), response.headers["x-tierline-tier"]) == ("opus", "opus")
            assert browser.get("/capped").status_code == 402

            class Scripted:
                class messages:  # noqa: N801  (as the SDK has it)
                    @staticmethod
                    async def create(**_: Any) -> Any:
                        return type("Message", (), {"model": "claude-haiku-5-5"})

            app.dependency_overrides[claude_of] = Scripted
            app.dependency_overrides[routing_of] = lambda: "mine"
            assert browser.get("/").json() == "haiku"
            assert browser.get("/routing").json() == "mine"
            app.dependency_overrides.clear()
            assert browser.get("/").json() == "opus"
            assert browser.portal is not None
            browser.portal.call(router.claude.close)
    assert len(fake.requests) == 2
    assert all(balance.held == 0 for balance in anyio.run(router.balances))


def test_the_testclient_checks_at_startup() -> None:
    """A policy that cannot work stops the app's TestClient too."""
    router = Router(classifier=None)
    app = FastAPI(lifespan=router.lifespan)
    app.get("/bad", dependencies=[Depends(policy(floor="gpt"))])(async_def())
    with pytest.raises(ConfigurationError, match="gpt"), TestClient(app):
        pass
