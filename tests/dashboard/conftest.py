"""The page of a Router, mounted in an app, and somebody who looks at it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tierline import Budget, Router
from tierline.dashboard import dashboard

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

TOKEN = "a token of the tests"
BEARER = {"authorization": f"Bearer {TOKEN}"}
HTML = {"accept": "text/html,application/xhtml+xml"}
MOUNT = "/operator/page"


@pytest.fixture
def desk(make_router: Callable[..., Router]) -> Router:
    """A Router with a budget for all and one for each tenant."""
    return make_router(budgets=[Budget("$5/day"), Budget("$2/hour", per="tenant", name="each")])


@pytest.fixture
async def visit() -> AsyncIterator[Callable[..., httpx.AsyncClient]]:
    """Mount the page of a Router, and give a browser without any permission: it keeps cookies."""
    browsers: list[httpx.AsyncClient] = []

    def open_at(router: Router, at: str = MOUNT, **options: Any) -> httpx.AsyncClient:
        if not {"authorize", "token"} & set(options):
            options["token"] = TOKEN
        app = Starlette(routes=[Mount(at, dashboard(router, **options))])
        transport = httpx.ASGITransport(app)
        browsers.append(httpx.AsyncClient(transport=transport, base_url=f"http://desk.test{at}/"))
        return browsers[-1]

    yield open_at
    for browser in browsers:
        await browser.aclose()


@pytest.fixture
def page(desk: Router, visit: Callable[..., httpx.AsyncClient]) -> httpx.AsyncClient:
    """The page, and somebody with the token."""
    browser = visit(desk)
    browser.headers.update(BEARER)
    return browser
