"""A support desk that calls Claude, routed by Tierline: the tour of the product.

Without ANTHROPIC_API_KEY it calls an offline stand-in for the API, and says so. Start it with `make run`, open
http://localhost:8000, or ask; every path below takes the same key and the same JSON:

    curl -s localhost:8000/answer -H 'authorization: Bearer desk-acme' \
         -H 'content-type: application/json' -d '{"text": "Are you open on Saturday?"}'

    /answer     routed by what the text looks like          /summary   a synchronous endpoint; the app says how hard
    /classify   a task with short answers                   /order     escalation: cheap first, checked, then better
    /contracts  a floor, and critical                       /quick     speculation: the cheapest while it is asked
    /expert     a pin                                       /agent     steps of a loop, and a budget for all of them
    /old        a model id in the code, as a ceiling        /sort      labels for {"texts": […]}
    /chat       a stream of events, and a conversation      /jobs      {"texts": […]} in a batch, then GET /jobs/ID
    /live       the same on a WebSocket                     /later     202, and the answer at its Location

An answer comes with a handle, in `why`. Whoever saw it may say how good it was, once:

    curl -s localhost:8000/grade -H 'authorization: Bearer desk-acme' \
         -H 'content-type: application/json' -d '{"handle": "…", "good": true}'

TIERLINE_STORE says where balances are kept: `memory://`, `sqlite:///desk.db`, `redis://localhost`. Who runs the desk
looks at the money, lets a plan run out, reads why a call was refused, and lets the desk only watch:

    curl -s localhost:8000/operator/history -H 'authorization: Bearer desk-operator'
    curl -s -X PUT 'localhost:8000/operator/plans/acme?limit=$0.002' -H 'authorization: Bearer desk-operator'
    curl -s localhost:8000/operator/refusal -H 'authorization: Bearer desk-operator'
    curl -s -X PUT 'localhost:8000/operator/mode?mode=observe' -H 'authorization: Bearer desk-operator'

The same as a page, live, is at http://localhost:8000/operator/page/ (the token is `desk-operator-page`), metrics for
Prometheus at /operator/metrics; traces, with example_app/docker-compose.yml, at http://localhost:16686.

TIERLINE_SHADOW=0.1 lets the tier above answer one call in ten too, for a judge to compare: /operator/shadows.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

from anthropic import Anthropic, AsyncAnthropic
from fastapi import APIRouter, Depends, FastAPI, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from example_app.agent import agent_of
from example_app.desk import desk_of
from example_app.front import plan_of, show_page
from example_app.later import later_of
from example_app.many import many_of
from example_app.metrics import Scraped
from example_app.offline import offline
from example_app.operators import pages_of
from example_app.people import PAGE_TOKEN, PLANS, authenticated, tenant_of
from example_app.shapes import TRACES
from tierline import Budget, Router
from tierline.asgi import TierlineMiddleware
from tierline.batches import Queue
from tierline.dashboard import dashboard
from tierline.errors import BudgetExceededError
from tierline.fastapi import REFUSALS
from tierline.ledger import Alert
from tierline.telemetry import configure_tracing
from tierline.values import Refusal, usd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

log = logging.getLogger("uvicorn.error")

TOO_MANY = 429


async def invalid(_: Request, error: Any) -> JSONResponse:
    """Say what is wrong and where, and not what was sent: NaN and half a character cannot be written down again."""
    found = [{"loc": each["loc"], "msg": each["msg"], "type": each["type"]} for each in error.errors()]
    return JSONResponse({"detail": found}, 422)


async def on_budget(alert: Alert) -> None:
    """Tell whoever is on duty. A real app posts this to its chat."""
    log.warning(
        "budget %s of %s: %s of %s is spent%s", alert.budget, alert.account, usd(alert.spent), usd(alert.limit),
        "; calls are refused" if alert.refused else "",
    )  # fmt: skip


def trace_if_asked() -> None:
    """Send traces to the collector that the environment names, such as Jaeger at http://localhost:4318."""
    if os.environ.keys() & {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER"}:
        configure_tracing("support-desk")


def build(client: AsyncAnthropic | None = None) -> FastAPI:
    """The app. `client` is whom it calls; by default the API, or its offline stand-in where there is no key."""
    trace_if_asked()
    resources, refusals = AsyncExitStack(), deque[Refusal](maxlen=20)
    client = client or offline(resources)
    scraped = resources.enter_context(closing(Scraped()))
    sync_client = Anthropic(api_key=client.api_key, base_url=client.base_url) if client is not None else None
    plan = Budget(lambda tenant: PLANS.get(tenant, "$0.01/day"), "tenant", "plan")
    router = Router(
        client,
        sync_client=sync_client,
        budgets=[Budget("$1.50/day"), plan],
        # Such as sqlite:///desk.db, or redis://localhost: for several workers, and for balances that outlive them.
        store=os.environ.get("TIERLINE_STORE", "memory://"),
        traffic=True,
        on_budget=on_budget,
        meter_provider=scraped.provider,
        shadow=float(os.environ.get("TIERLINE_SHADOW", "0")),
        shadow_budget="$0.20/day",
        # A demo is impatient: a real desk waits for a quarter of an hour, or for the night.
        queue=Queue(max_wait="5s"),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with resources, router.lifespan(app):
            yield

    app = FastAPI(title="Support desk", lifespan=lifespan, exception_handlers={RequestValidationError: invalid})
    app.state.router, app.state.refusals = router, refusals
    # Whoever calls the desk sees the tier and the time in headers, and a busy API as "come back later".
    app.add_middleware(
        TierlineMiddleware, router=router, tenant=tenant_of, headers=True, server_timing=True, busy_as_503=True
    )

    @app.get("/ready")
    async def ready(response: Response) -> list[str]:
        found = await router.ready()
        response.status_code = 200 if found else 503
        return list(found.problems)

    @app.exception_handler(BudgetExceededError)
    async def refused(asked: Request | WebSocket, error: BudgetExceededError) -> Response | None:
        """Answer as Tierline would, and keep the numbers for the operator."""
        refusals.append(error.refusal)
        if isinstance(asked, WebSocket):
            await asked.close(1013 if error.http_status == TOO_MANY else 1008, error.title)
            return None
        return JSONResponse(error.problem, error.http_status, error.http_headers, "application/problem+json")

    customers = APIRouter(dependencies=[Depends(authenticated)], responses=REFUSALS)
    for each in (desk_of(router), agent_of(), many_of(router), later_of(router), plan_of(router, plan)):
        customers.include_router(each)
    app.include_router(customers)
    app.mount("/operator/page", dashboard(router, token=PAGE_TOKEN, may_act=lambda *_: True, trace=TRACES))
    app.include_router(pages_of(router, refusals, scraped))
    show_page(app)
    return app
