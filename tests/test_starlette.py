"""Plain Starlette: the client of a request, and policies through mounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.endpoints import HTTPEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.routing import Router as Routes

from tierline import policy
from tierline.asgi import TierlineMiddleware
from tierline.errors import ConfigurationError
from tierline.starlette import claude_of, routing_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import httpx

    from tierline import Router

    Serve = Callable[[Any], Awaitable[httpx.AsyncClient]]

pytestmark = pytest.mark.usefixtures("quiet")


async def endpoint(request: Request) -> PlainTextResponse:
    """Answer with the tier and the route: `sonnet`, unless a policy says otherwise."""
    messages: Any = [{"role": "user", "content": "Why?"}]
    await claude_of(request).messages.create(model="auto", max_tokens=200, messages=messages)
    decision = routing_of(request).decisions[-1]
    return PlainTextResponse(f"{decision.tier} {decision.route}")


def fresh() -> Any:
    """An endpoint to be decorated: the mark stays on the function."""

    async def decorated(request: Request) -> PlainTextResponse:
        return await endpoint(request)

    return decorated


def app_of(router: Router, *routes: Any, table: dict[str, Any] | None = None) -> Starlette:
    app = Starlette(routes=routes, lifespan=router.lifespan)
    app.add_middleware(TierlineMiddleware, router=router, routes=table)
    return app


async def test_claude_of(router: Router, serve: Serve) -> None:
    """`claude_of(request)` is the routed client, `routing_of(request)` what it did."""
    browser = await serve(app_of(router, Route("/items/{item:int}", endpoint)))
    assert (await browser.get("/items/3")).text == "sonnet /items/{item}"


def test_no_middleware() -> None:
    """Without the middleware, the error says what to add."""
    with pytest.raises(ConfigurationError, match=r"app\.add_middleware"):
        claude_of(Request({"type": "http"}))


async def test_table_through_mounts(router: Router, serve: Serve) -> None:
    """Patterns of the table match whole templates, mounts by their actual path."""
    app = app_of(
        router,
        Mount(
            "/v1", routes=[Mount("/{tenant}", app=Routes([Route("/chat/{id}", endpoint), Route("/free", endpoint)]))]
        ),
        Route("/free", endpoint),
        table={
            "/v1/{t}/chat/*": policy(floor="opus"),
            "/v1/*": policy(tags={"api": "1"}),
            "/free": policy(tier="haiku"),
        },
    )
    browser = await serve(app)
    paths = ("/v1/acme/chat/7", "/v1/acme/free", "/free")
    assert [(await browser.get(path)).text for path in paths] == [
        "opus /v1/{tenant}/chat/{id}",
        "sonnet /v1/{tenant}/free",
        "haiku /free",
    ]


@pytest.mark.parametrize("path", ["//checkout/pay", "/checkout/pay?x=/free", "/CHECKOUT/pay", "/free/../checkout/pay"])
async def test_path_tricks(router: Router, serve: Serve, path: str) -> None:
    """No spelling of a path gets to a route without its floor."""
    app = app_of(
        router,
        Route("/checkout/pay", endpoint),
        Route("/{rest:path}", endpoint),
        table={"/checkout/*": policy(floor="opus")},
    )
    browser = await serve(app)
    found = (await browser.get(path, headers={"host": "x/free?"})).text
    # Either the floored route ran, with its floor, or another route did, which has none.
    assert found in ("opus /checkout/pay", "sonnet /{rest}")


async def test_bare_asgi_app(router: Router, serve: Serve) -> None:
    """Around an app of no framework, the table is matched by the path, generously."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        messages: Any = [{"role": "user", "content": "Why?"}]
        message = await router.claude.messages.create(model="auto", max_tokens=200, messages=messages)
        await PlainTextResponse(message.model)(scope, receive, send)

    browser = await serve(TierlineMiddleware(app, router=router, routes={"/checkout/*": policy(floor="opus")}))
    for path in ("/checkout", "/checkout/pay", "/Checkout//pay/"):
        assert (await browser.get(path)).text == "claude-opus-5-5"
    assert (await browser.get("/free")).text == "claude-sonnet-5-5"


@pytest.mark.parametrize("where", ["function", "class", "method"])
async def test_decorated_endpoints(router: Router, serve: Serve, where: str) -> None:
    """The decorator holds on functions, on endpoint classes and on their methods."""
    opus = policy(floor="opus")

    class Page(HTTPEndpoint):
        async def get(self, request: Request) -> PlainTextResponse:
            return await endpoint(request)

        if where == "method":
            get = opus(get)

    found: Any = {"function": opus(fresh()), "class": opus(Page), "method": Page}[where]
    browser = await serve(app_of(router, Route("/x", found), Route("/plain", endpoint)))
    assert (await browser.get("/x")).text == "opus /x"


async def test_function_on_two_routes(router: Router, serve: Serve) -> None:
    """A decorated function carries its policy to every route; marks of one app are found at start-up."""
    marked = policy(floor="opus")(fresh())
    browser = await serve(app_of(router, Route("/a", marked), Mount("/m", routes=[Route("/b", marked)])))
    assert [(await browser.get(path)).text for path in ("/a", "/m/b")] == ["opus /a", "opus /m/b"]
    bad = app_of(router, Mount("/m", routes=[Route("/b", policy(tier="gpt")(_other))]))
    with pytest.raises(ConfigurationError, match=r"/m/b.*gpt"):
        async with router.lifespan(bad):
            pass


async def _other(_: Request) -> PlainTextResponse:
    return PlainTextResponse("")
