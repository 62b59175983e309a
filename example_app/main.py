"""A support desk that calls Claude, routed by Tierline.

Nine endpoints and a WebSocket, three tenants, two budgets, and pages for an operator. Without ANTHROPIC_API_KEY it
calls an offline stand-in for the API, and says so. Start it with `make run`, open http://localhost:8000, or ask:

    curl -s localhost:8000/answer -H 'authorization: Bearer desk-acme' \
         -H 'content-type: application/json' -d '{"text": "Are you open on Saturday?"}'

An answer comes with a handle, in `why`. Whoever saw it may say how good it was, once:

    curl -s localhost:8000/grade -H 'authorization: Bearer desk-acme' \
         -H 'content-type: application/json' -d '{"handle": "…", "good": true}'

A summary that may come later costs half. The answer says where it will be; it is asked for there, with the same key:

    curl -si localhost:8000/later -H 'authorization: Bearer desk-acme' \
         -H 'content-type: application/json' -d '{"text": "Sum up what I wrote in May."}'

TIERLINE_STORE says where balances are kept: `memory://`, `sqlite:///desk.db`, `redis://localhost`. Who runs the desk
looks at the money, and changes a limit:

    curl -s localhost:8000/operator/history -H 'authorization: Bearer desk-operator'
    curl -s localhost:8000/operator/refusal -H 'authorization: Bearer desk-operator'
    curl -s -X PUT 'localhost:8000/operator/plans/acme?limit=$2' -H 'authorization: Bearer desk-operator'

The same as a page, live, is at http://localhost:8000/operator/page/ (the token is `desk-operator-page`); traces, with
example_app/docker-compose.yml, at http://localhost:16686.

TIERLINE_SHADOW=0.1 lets the tier above answer one call in ten too, for a judge to compare:

    curl -s localhost:8000/operator/shadows -H 'authorization: Bearer desk-operator'
"""

from __future__ import annotations

import hmac
import json
import logging
import os
from collections import deque
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

from anthropic import Anthropic, AsyncAnthropic
from fastapi import (
    APIRouter,
    Depends,
    FastAPI,
    Header,
    HTTPException,
    Query,
    Request,
    Response,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from pydantic import BaseModel, Field
from starlette.requests import HTTPConnection

from example_app.front import plan_of, show_page
from example_app.later import later_of
from example_app.metrics import Scraped
from tierline import Budget, Decision, Report, Router, policy
from tierline.asgi import TierlineMiddleware
from tierline.batches import Queue
from tierline.dashboard import dashboard
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.fastapi import REFUSALS, Claude, Routing, SyncClaude
from tierline.ledger import Alert, Balance
from tierline.telemetry import configure_tracing
from tierline.testing import FakeClaude
from tierline.values import Refusal, Shadow, usd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, MutableMapping

log = logging.getLogger("uvicorn.error")

KEYS = {"desk-acme": "acme", "desk-globex": "globex", "desk-initech": "initech"}
"""Who may use the desk. A real app has these in its database."""

OPERATOR_KEY = "desk-operator"
"""Who may look at everybody's money. A real app asks its single sign-on."""

PAGE_TOKEN = "desk-operator-page"  # noqa: S105  (of a demo)
"""What the same person types in to see it as a page. A real app makes one at random, and has it in its environment."""

JAEGER = "http://localhost:16686/trace/{trace_id}"

PLANS = {"acme": "$0.50/day", "globex": "$0.06/day", "initech": "$0.03/day"}
"""What each tenant pays for."""

CATEGORIES = ("billing", "delivery", "repair", "warranty", "contract", "other")


class Turn(BaseModel):
    """One earlier message of a chat."""

    role: Literal["user", "assistant"]
    content: str = Field(min_length=1)


class Question(BaseModel):
    """What a customer writes."""

    text: str = Field(min_length=1)
    history: list[Turn] = []

    def messages(self) -> list[Any]:
        """The conversation as the Messages API takes it."""
        return [*(turn.model_dump() for turn in self.history), {"role": "user", "content": self.text}]


class Tried(BaseModel):
    """One request to Claude."""

    tier: str
    role: str
    outcome: str
    cost: str
    seconds: float


class Why(BaseModel):
    """What became of the call."""

    tier: str
    requested_tier: str
    label: str | None
    source: str
    cost: str
    top: str
    """What it would have cost on the top tier, as far as that is known."""
    saved: str
    saved_share: float
    estimated: bool
    seconds: float
    reasons: list[str]
    attempts: list[Tried]
    handle: str
    """Lets whoever sees the answer say how good it was: see `/grade`."""

    @classmethod
    def of(cls, decision: Decision) -> Why:
        """The part of a decision that is worth showing."""
        return cls(
            tier=decision.tier,
            requested_tier=decision.requested_tier,
            label=decision.label,
            source=decision.source,
            cost=usd(decision.cost),
            top=usd(decision.cost + decision.saved),
            saved=usd(decision.saved),
            saved_share=decision.saved / max(1, decision.cost + decision.saved),
            estimated=decision.estimated,
            seconds=decision.latency_s,
            reasons=list(decision.reasons),
            attempts=[
                Tried(tier=each.tier, role=each.role, outcome=each.outcome, cost=usd(each.cost), seconds=each.seconds)
                for each in decision.attempts
            ],
            handle=decision.handle,
        )


class Thumb(BaseModel):
    """Up or down, for an answer."""

    handle: str = Field(max_length=4_000)
    good: bool


class Answer(BaseModel):
    """What the desk answers."""

    text: str
    why: Why


class Order(BaseModel):
    """What a customer wants to buy."""

    item: str
    quantity: int


class Read(BaseModel):
    """An order, as it was read from a mail."""

    order: Order | None
    why: Why


async def authenticated(connection: HTTPConnection, authorization: Annotated[str, Header()] = "") -> None:
    """Check the tenant's key. Tierline trusts what the app says here, and nothing that a client sends."""
    offered = authorization.removeprefix("Bearer ").encode()
    for key, tenant in KEYS.items():
        if hmac.compare_digest(key.encode(), offered):
            connection.state.tenant = tenant
            return
    raise HTTPException(401, "send your key, such as `authorization: Bearer desk-acme`")


async def operator(authorization: Annotated[str, Header()] = "") -> None:
    """Let nobody in but who runs the desk."""
    if not hmac.compare_digest(OPERATOR_KEY.encode(), authorization.removeprefix("Bearer ").encode()):
        raise HTTPException(401, "send the operator's key")


def tenant_of(scope: MutableMapping[str, Any]) -> str | None:
    """Whom a request is for, as `authenticated` found out."""
    tenant: str | None = scope.get("state", {}).get("tenant")
    return tenant


def text_of(message: Any) -> str:
    """The text of an answer, without its thinking."""
    return "".join(block.text for block in message.content if block.type == "text")


async def on_budget(alert: Alert) -> None:
    """Tell whoever is on duty. A real app posts this to its chat."""
    log.warning(
        "budget %s of %s: %s of %s is spent%s", alert.budget, alert.account, usd(alert.spent), usd(alert.limit),
        "; calls are refused" if alert.refused else "",
    )  # fmt: skip


def pages_of(router: Router, refusals: deque[Refusal], scraped: Scraped) -> APIRouter:
    """What an operator sees: the same from every process that shares the store."""
    pages = APIRouter(prefix="/operator", dependencies=[Depends(operator)])

    @pages.get("/balances")
    async def balances() -> list[Balance]:
        return await router.balances()

    @pages.get("/holds")
    async def holds() -> PlainTextResponse:
        return PlainTextResponse(f"{await router.holds()}\n")

    @pages.get("/history")
    async def history(hours: Annotated[int, Query(ge=1, le=2_160)] = 24) -> PlainTextResponse:
        return PlainTextResponse(f"{await router.history(timedelta(hours=hours))}\n")

    @pages.get("/report")
    async def report() -> Report:
        return router.report()

    @pages.get("/refusal")
    async def refusal() -> PlainTextResponse:
        if not refusals:
            raise HTTPException(404, "this process has refused nothing")
        return PlainTextResponse(f"{await router.explain(refusals[-1])}\n")

    @pages.get("/shadows")
    async def shadows() -> tuple[Shadow, ...]:
        return router.shadows()

    @pages.get("/metrics")
    def metrics() -> Response:
        return scraped.page()

    @pages.put("/plans/{tenant}", status_code=204)
    async def plan(tenant: str, limit: str | None = None) -> None:
        try:
            await router.set_limit("plan", tenant, limit=limit)
        except ConfigurationError as error:
            raise HTTPException(422, str(error)) from error

    return pages


def trace_if_asked() -> None:
    """Send traces to the collector that the environment names, such as Jaeger at http://localhost:4318."""
    if os.environ.keys() & {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_EXPORTER"}:
        configure_tracing("support-desk")


def offline(resources: AsyncExitStack) -> AsyncAnthropic | None:
    """A client of the stand-in for the API, where there is no key; None where there is one."""
    if os.environ.get("ANTHROPIC_API_KEY"):
        return None
    log.warning("no ANTHROPIC_API_KEY: the answers come from an offline stand-in for the API")
    fake = FakeClaude(chunk_delay=float(os.environ.get("DESK_CHUNK_DELAY", "0")))
    client = AsyncAnthropic(api_key=fake.api_key, base_url=resources.enter_context(fake.serve_in_thread()))
    resources.push_async_callback(client.close)
    return client


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

    app = FastAPI(title="Support desk", lifespan=lifespan)
    app.state.router, app.state.refusals = router, refusals
    # Whoever calls the desk sees the tier and the time in headers, and a busy API as "come back later".
    app.add_middleware(
        TierlineMiddleware, router=router, tenant=tenant_of, headers=True, server_timing=True, busy_as_503=True
    )
    desk = APIRouter(dependencies=[Depends(authenticated)], responses=REFUSALS)

    @desk.post(
        "/classify",
        dependencies=[Depends(policy(task="classify a support ticket", expected_output=10, quality=0.9))],
    )
    async def classify(question: Question, claude: Claude, routing: Routing) -> Answer:
        message = await claude.messages.create(
            model="auto",
            max_tokens=400,
            system=f"Sort the ticket into one of: {', '.join(CATEGORIES)}. Answer with that word alone.",
            messages=question.messages(),
        )
        return Answer(text=text_of(message), why=Why.of(routing.decisions[-1]))

    @desk.post("/answer")
    async def answer(question: Question, claude: Claude, routing: Routing) -> Answer:
        message = await claude.messages.create(
            model="auto",
            max_tokens=1500,
            system="You answer customers of a shop for electric bikes. Be brief and correct.",
            messages=question.messages(),
        )
        return Answer(text=text_of(message), why=Why.of(routing.decisions[-1]))

    @desk.post("/summary")
    @policy(label="simple", tags={"feature": "summary"})
    def summary(question: Question, claude: SyncClaude, routing: Routing) -> Answer:
        message = claude.messages.create(
            model="auto",
            max_tokens=400,
            system="Sum up the conversation in one sentence.",
            messages=question.messages(),
        )
        return Answer(text=text_of(message), why=Why.of(routing.decisions[-1]))

    @desk.post("/order", dependencies=[Depends(policy(escalate=True, task="read an order from a mail"))])
    async def order(question: Question, claude: Claude, routing: Routing) -> Read:
        # The cheapest tier reads it; what is no order by its form is read again by the next.
        message = await claude.messages.parse(
            model="auto",
            max_tokens=300,
            system="Read from the mail what the customer orders.",
            messages=question.messages(),
            output_format=Order,
        )
        return Read(order=message.parsed_output, why=Why.of(routing.decisions[-1]))

    @desk.post("/contracts", dependencies=[Depends(policy(floor="sonnet", critical=True))])
    async def contracts(question: Question, claude: Claude, routing: Routing) -> Answer:
        message = await claude.messages.create(
            model="auto",
            max_tokens=2000,
            system="You review service contracts for a shop. Point out every obligation and every risk.",
            messages=question.messages(),
        )
        return Answer(text=text_of(message), why=Why.of(routing.decisions[-1]))

    @desk.post("/chat")
    async def chat(question: Question, claude: Claude, routing: Routing) -> StreamingResponse:
        async def events() -> AsyncIterator[str]:
            async with claude.messages.stream(model="auto", max_tokens=1500, messages=question.messages()) as stream:
                async for text in stream.text_stream:
                    yield f"data: {json.dumps(text)}\n\n"
            yield f"event: why\ndata: {Why.of(routing.decisions[-1]).model_dump_json()}\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @desk.websocket("/live")
    async def live(socket: WebSocket, claude: Claude, routing: Routing) -> None:
        await socket.accept()
        with suppress(WebSocketDisconnect):
            async for text in socket.iter_text():
                message = await claude.messages.create(
                    model="auto", max_tokens=1500, messages=[{"role": "user", "content": text}]
                )
                answer = Answer(text=text_of(message), why=Why.of(routing.decisions[-1]))
                await socket.send_text(answer.model_dump_json())

    @desk.post("/grade")
    async def grade(thumb: Thumb) -> dict[str, bool]:
        return {"counted": await router.grade(thumb.handle, thumb.good)}

    @app.get("/ready")
    async def ready(response: Response) -> list[str]:
        found = await router.ready()
        response.status_code = 200 if found else 503
        return list(found.problems)

    @app.exception_handler(BudgetExceededError)
    async def refused(_: Request, error: BudgetExceededError) -> JSONResponse:
        """Answer as Tierline would, and keep the numbers for the operator."""
        refusals.append(error.refusal)
        return JSONResponse(error.problem, error.http_status, error.http_headers, "application/problem+json")

    desk.include_router(plan_of(router, plan))
    desk.include_router(later_of(router))
    app.include_router(desk)
    app.mount("/operator/page", dashboard(router, token=PAGE_TOKEN, may_act=lambda *_: True, trace=JAEGER))
    app.include_router(pages_of(router, refusals, scraped))
    show_page(app)
    return app
