"""An app with traffic of its own, the page mounted in it, and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from tests.serving import serving
from tierline import Budget, Router, current
from tierline.asgi import TierlineMiddleware
from tierline.classify import FixedClassifier
from tierline.dashboard import dashboard
from tierline.errors import BudgetExceededError
from tierline.starlette import claude_of
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, BrowserContext, Page
    from starlette.requests import Request
    from starlette.types import Scope

TOKEN: Final = "a-token-of-the-tests"
PATIENCE: Final = 30_000
"""Milliseconds after which what has not happened never will: machines that run tests are slow."""
FLAGS: Final = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")
"""Containers have little shared memory, and no user namespaces for a sandbox."""
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium_path() -> str:
    """Where the browser is. Skips where there is none; never in CI: there it is an error."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        if os.environ.get("CI"):
            raise RuntimeError("there is no chromium on the PATH, and CI must have one: apt-get install chromium")
        pytest.skip("there is no chromium on the PATH")
    return found


def tenant_of(scope: Scope) -> str | None:
    """The tenant in a header, which is escaped: headers have no other letters than ASCII."""
    return dict(scope["headers"]).get(b"x-tenant", b"").decode("unicode-escape") or None


async def answer(request: Request) -> JSONResponse:
    """Ask Claude what was asked."""
    said = await request.json()
    try:
        await claude_of(request).messages.create(
            model=said.get("model", "auto"), max_tokens=200, messages=[{"role": "user", "content": said["text"]}]
        )
    except BudgetExceededError as error:
        return JSONResponse({"error": str(error)}, error.http_status)
    return JSONResponse({"id": current().decisions[-1].id})


@dataclass
class Site:
    """The app on its socket."""

    url: str
    router: Router[Any]
    http: httpx.AsyncClient
    home: str = field(init=False)

    def __post_init__(self) -> None:
        self.home = f"{self.url}/money/"

    async def ask(self, text: str = "Why?", *, route: str = "/answer", tenant: str = "acme", **more: Any) -> str:
        """Let the app ask Claude; the id of the decision, or what was wrong."""
        headers = {"x-tenant": tenant.encode("unicode-escape").decode()}
        found = (await self.http.post(route, json={"text": text, **more}, headers=headers)).json()
        return str(found.get("id") or found["error"])

    async def spent(self) -> int:
        """What the ledger has of the last day, in nano-USD."""
        return (await self.router.history(self.router.timing.now() - 86_400)).total.cost


@asynccontextmanager
async def site_of(
    *routes: str, fake: FakeClaude | None = None, may_act: Any = None, **options: Any
) -> AsyncIterator[Site]:
    """An app with these routes besides `/answer`."""
    fake = fake or FakeClaude()
    async with fake.client() as client:
        settings = {
            "classifier": FixedClassifier("simple"),
            "budgets": [Budget("$50/day"), Budget("$2/hour", per="tenant")],
        }
        router: Router[Any] = Router(client, **settings | options)
        page = dashboard(router, token=TOKEN, may_act=may_act, trace="http://traces.example/trace/{trace_id}")
        app = Starlette(
            routes=[
                *(Route(route, answer, methods=["POST"]) for route in ("/answer", *routes)),
                Mount("/money", page),
            ],
            lifespan=router.lifespan,
        )
        app.add_middleware(TierlineMiddleware, router=router, tenant=tenant_of)
        async with serving(app) as url, httpx.AsyncClient(base_url=url, timeout=30) as http:
            yield Site(url, router, http)


@dataclass
class Viewer:
    """Somebody who looks, and all that was wrong while they did."""

    page: Page
    context: BrowserContext
    faults: list[str]

    async def sign_in(self, site: Site) -> None:
        """Type the token, and wait until there are numbers."""
        await self.page.goto(site.home)
        await self.page.get_by_label("Token").fill(TOKEN)
        await self.page.keyboard.press("Enter")
        await self.page.locator("#spent").wait_for()

    async def text(self, selector: str) -> str:
        """What stands there."""
        return (await self.page.locator(selector).inner_text()).strip()


_LISTEN: Final = """
addEventListener('securitypolicyviolation', (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`));
"""


@asynccontextmanager
async def viewer_of(browser: Browser, origin: str, **options: Any) -> AsyncIterator[Viewer]:
    """A browser window of its own, which may go to `origin` and nowhere else, and in which nothing may go wrong."""
    context = await browser.new_context(**{"locale": "en-GB", "timezone_id": "Europe/Berlin"} | options)
    faults: list[str] = []
    context.set_default_timeout(PATIENCE)
    page = await context.new_page()

    def hear(said: Any) -> None:
        # A browser tells of each answer that is no success, and the form to sign in is one.
        expected = "401" in said.text and said.location["url"].endswith("/money/")
        if said.type in ("error", "warning") and not expected:
            faults.append(f"console: {said.text}")

    async def refuse(route: Any) -> None:
        faults.append(f"went to {route.request.url}")
        await route.abort()

    async def dismiss(dialog: Any) -> None:
        faults.append(f"a dialog: {dialog.message}")
        await dialog.dismiss()

    await context.route(lambda url: not url.startswith((f"{origin}/", "data:")), refuse)
    await context.add_init_script(_LISTEN)
    page.on("console", hear)
    page.on("pageerror", lambda error: faults.append(f"error: {error}"))
    page.on("dialog", dismiss)
    try:
        yield Viewer(page, context, faults)
    finally:
        await context.close()
    assert faults == []
