"""The desk's page: a person asks, and sees tier, reasons, cost and the stream. All it draws is what endpoints say."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.staticfiles import StaticFiles

from tierline import Budget, Router
from tierline.fastapi import Routing
from tierline.values import usd

STATIC = Path(__file__).parent / "static"

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""The page runs what is beside it and nothing else, whatever an answer may say."""


class Plan(BaseModel):
    """What is left of a tenant's own plan."""

    left: str
    limit: str
    share: float


def plan_of(router: Router, budget: Budget) -> APIRouter:
    """What a tenant may know of the money: its own."""
    pages = APIRouter()

    @pages.get("/plan")
    async def plan(routing: Routing) -> Plan:
        tenant = str(routing.tenant)
        found = next((each for each in await router.balances(tenant) if each.budget == budget.name), None)
        if found is not None:
            limit, used = found.limit, found.spent + found.held
        else:
            limits = await router.limits()
            limit, used = limits.get((budget.name, tenant), budget.limit_of(tenant).nano), 0
        return Plan(left=usd(max(0, limit - used)), limit=usd(limit), share=min(1.0, used / limit))

    return pages


def show_page(app: FastAPI) -> None:
    """Serve the page and its files."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=HEADERS)

    app.mount("/static", StaticFiles(directory=STATIC))
