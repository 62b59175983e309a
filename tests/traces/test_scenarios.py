"""What a collector receives of each kind of call: requests over sockets, spans over OTLP, whole trees with statuses."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from anthropic import BadRequestError
from opentelemetry import trace as otel
from starlette.middleware.opentelemetry import OpenTelemetryMiddleware
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from tests.apps import CANARY, Socket, app_of, ask, refusing
from tests.gates import VERDICT, GatedClaude
from tierline import Budget, policy
from tierline.classify import ClaudeClassifier, FixedClassifier
from tierline.ledger.base import Reservation
from tierline.starlette import claude_of
from tierline.testing import Fault, Reply
from tierline.values import Offer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from tests.traces.collector import Collector
    from tests.traces.conftest import Stage
    from tierline import Router

pytestmark = pytest.mark.usefixtures("quiet")

NANO = 1_000_000_000
HAIKU, OPUS = "claude-haiku-5-5", "claude-opus-5-5"


@pytest.fixture
def fake() -> GatedClaude:
    """The offline API, with gates."""
    return GatedClaude(verdict=lambda _text, _labels: ("complex", 0.9))


def app(router: Router, stage: Stage, *routes: Route, **options: Any) -> Any:
    """An app in Starlette's own tracing."""
    return OpenTelemetryMiddleware(app_of(router, *routes, **options), tracer_provider=stage.provider)


def call(stage: Stage, *below: str, server: str = "GET /answer") -> list[str]:
    """The tree of a request with one call, which is well."""
    return [f"{server} SERVER UNSET", f"  {stage.call()}", *(f"    {line}" for line in below)]


async def test_plain(stage: Stage, collector: Collector, fake: GatedClaude) -> None:
    """A request, its call, why it went where it went, the question that was asked for that, and the attempt."""
    router = stage.router(classifier=ClaudeClassifier(worth=0), budgets=[Budget("$5/day")])
    browser = await stage.serve(app(router, stage))
    assert (await browser.get("/answer", headers={"x-tenant": "acme"})).status_code == 200
    await stage.ended()
    assert collector.tree() == call(
        stage,
        "route opus INTERNAL UNSET",
        "  classify INTERNAL UNSET",
        f"    {stage.verdict}",
        "  attempt opus INTERNAL UNSET",
    )
    verdict, answer = fake.requests
    route = collector.named("route opus")
    assert (route.scope, route.resource["service.name"]) == ("tierline", "desk")
    assert route.attributes["tierline.cost.usd"] == (verdict.billed + answer.billed) / NANO
    assert route.attributes["tierline.cost.classifier.usd"] == verdict.billed / NANO
    assert (route.attributes["tierline.tenant"], route.attributes["tierline.route"]) == ("acme", "/answer")
    assert route.event("cache.lookup") == {"hit": False}
    assert route.event("budget.check")["decision"] == "admit"
    assert collector.named("classify").attributes["tierline.classification.label"] == "complex"
    attempt = collector.named("attempt opus")
    assert attempt.attributes == {
        "tierline.attempt.number": 1,
        "tierline.attempt.role": "first",
        "tierline.attempt.outcome": "ok",
        "tierline.cost.usd": answer.billed / NANO,
        "tierline.estimated": False,
    }
    ours = [span for span in collector.spans if span.scope == "tierline" and span.kind == "INTERNAL"]
    assert not [key for span in ours for key in span.attributes if key.startswith("gen_ai")]
    for span in collector.spans:
        (parent,) = [other for other in collector.spans if other.id == span.parent] or [span]
        assert parent.start <= span.start <= span.end <= parent.end


async def test_chat(stage: Stage, collector: Collector, fake: GatedClaude) -> None:
    """Where the SDK's spans are off, the call is told by the conventions: what the SDK's span has, ours has."""
    browser = await stage.serve(app(stage.router(), stage))
    assert (await browser.get("/answer")).status_code == 200
    await stage.ended()
    (server,) = collector.roots()
    (chat,) = collector.below(server)
    (received,) = fake.requests
    usage = received.usage
    found = {key: value for key, value in chat.attributes.items() if key.startswith(("gen_ai", "server"))}
    for more in ("gen_ai.response.finish_reasons", "gen_ai.usage.reasoning.output_tokens"):
        found.pop(more, None)  # of the first the SDK tells in words of its own, of the second the SDK alone
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "auto",
        "gen_ai.request.max_tokens": 500,
        "gen_ai.response.id": chat.attributes["gen_ai.response.id"],
        "gen_ai.response.model": received.model,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.cache_write.input_tokens": 0,
        "server.address": "127.0.0.1",
        "server.port": found["server.port"],
    }
    assert (chat.scope == "tierline") is not stage.sdk


async def test_cache_hit(stage: Stage, collector: Collector) -> None:
    """A verdict from the cache: no question, and its age."""
    browser = await stage.serve(app(stage.router(classifier=ClaudeClassifier(worth=0)), stage))
    for _ in range(2):
        await stage.ended(count=0)
        collector.clear()
        assert (await browser.get("/answer")).status_code == 200
        await stage.ended()
    assert collector.tree() == call(
        stage, "route opus INTERNAL UNSET", "  classify INTERNAL UNSET", "  attempt opus INTERNAL UNSET"
    )
    route = collector.named("route opus")
    lookup = route.event("cache.lookup")
    assert lookup["hit"] is True
    assert lookup["age_s"] >= 0
    assert (route.attributes["tierline.decision.source"], route.attributes["tierline.cache.hit"]) == ("cache", True)


async def test_speculation(stage: Stage, collector: Collector, fake: GatedClaude) -> None:
    """The cheapest tier was asked beside the verdict, in vain: it is discarded, which is no error."""
    router = stage.router(
        classifier=ClaudeClassifier(worth=0), budgets=[Budget("$5/day")], policy=policy(speculate=True)
    )
    browser = await stage.serve(app(router, stage))
    fake.hold(HAIKU, VERDICT)
    asked = asyncio.create_task(browser.get("/answer"))
    await fake.waits(HAIKU)
    fake.open(VERDICT)
    assert (await asked).json()["model"] == OPUS
    fake.open(HAIKU)
    await stage.ended()
    tree = collector.tree()
    assert sorted(tree[3:6]) == sorted(
        ["      classify INTERNAL UNSET", f"        {stage.verdict}", "      attempt haiku INTERNAL UNSET"]
    )
    assert tree[:3] + tree[6:] == call(stage, "route opus INTERNAL UNSET", "  attempt opus INTERNAL UNSET")
    lost = collector.named("attempt haiku").attributes
    assert (lost["tierline.attempt.role"], lost["tierline.attempt.outcome"]) == ("speculative", "discarded")
    route = collector.named("route opus")
    assert route.event("speculation") == {"tier": "haiku", "outcome": "lost"}


async def test_escalation(stage: Stage, collector: Collector, fake: GatedClaude) -> None:
    """A poor answer and a better one: both attempts are well, and the event says why there are two."""
    fake.answer = lambda received: "I'm not sure." if received.model == HAIKU else "It is scattered light."
    browser = await stage.serve(app(stage.router(policy=policy(escalate=True)), stage))
    assert (await browser.get("/answer")).status_code == 200
    await stage.ended()
    assert collector.tree() == call(
        stage,
        "route sonnet INTERNAL UNSET",
        "  attempt haiku INTERNAL UNSET",
        "  attempt sonnet INTERNAL UNSET",
    )
    assert collector.named("route sonnet").event("escalation") == {"reason": "unsure", "from": "haiku", "to": "sonnet"}
    first, second = (collector.named(f"attempt {tier}").attributes for tier in ("haiku", "sonnet"))
    (at,) = (at for name, at in collector.named("route sonnet").times if name == "escalation")
    assert collector.named("attempt haiku").end <= at <= collector.named("attempt sonnet").start
    assert (first["tierline.attempt.number"], first["tierline.attempt.outcome"]) == (1, "ok")
    assert (second["tierline.attempt.number"], second["tierline.attempt.role"]) == (2, "escalation")
    assert second["tierline.escalation.reason"] == "unsure"


async def test_fallback(stage: Stage, collector: Collector, fake: GatedClaude) -> None:
    """Attempts that the API failed are in error; the call that another tier took is not."""
    fake.always(OPUS, Fault.overloaded())
    router = stage.router(classifier=FixedClassifier("complex"))
    browser = await stage.serve(app(router, stage))
    assert (await browser.get("/answer")).status_code == 200
    await stage.ended()
    failed = "  attempt opus INTERNAL ERROR"
    assert collector.tree() == call(
        stage, "route sonnet INTERNAL UNSET", "  classify INTERNAL UNSET",
        failed, failed, failed, "  attempt sonnet INTERNAL UNSET",
    )  # fmt: skip
    route = collector.named("route sonnet")
    assert route.event("fallback") == {"reason": "overloaded_error", "from": "opus", "to": "sonnet"}
    attempts = collector.below(route)[1:]
    assert [span.attributes.get("error.type") for span in attempts] == ["overloaded_error"] * 3 + [None]
    roles = [span.attributes["tierline.attempt.role"] for span in attempts]
    assert roles == ["first", "retry", "retry", "fallback"]


async def test_failure(stage: Stage, collector: Collector, fake: GatedClaude) -> None:
    """A call that the API rejects is an error from the attempt up, and nothing of its message is told by us."""
    fake.script(Fault.error(400, message=CANARY))

    async def careful(request: Request) -> PlainTextResponse:
        with pytest.raises(BadRequestError):
            await claude_of(request).messages.create(**ask())
        return PlainTextResponse("sorry")

    browser = await stage.serve(app(stage.router(), stage, Route("/careful", careful)))
    assert (await browser.get("/careful")).text == "sorry"
    await stage.ended()
    for span in collector.spans:
        if span.name.startswith(("route", "attempt", "chat")):
            assert (span.status, span.attributes["error.type"]) == ("ERROR", "invalid_request_error")
    assert not [span for span in collector.spans if span.scope == "tierline" and "exception" in dict(span.events)]


async def test_downgrade(stage: Stage, collector: Collector) -> None:
    """A cheaper tier for the budget's sake: the numbers are an event, and what was wanted stays."""
    router = stage.router(budgets=[Budget("$1/day", name="daily")])
    line = router.budgets[0].line("global")
    held = await router.ledger.reserve("used", [Offer("sonnet", "m", line.limit * 4 // 5)], [line], thresholds=False)
    assert isinstance(held, Reservation)
    await router.ledger.settle(held, line.limit * 4 // 5)
    browser = await stage.serve(app(router, stage))
    assert (await browser.get("/answer")).status_code == 200
    await stage.ended()
    assert collector.tree() == call(
        stage, "route haiku INTERNAL UNSET", "  classify INTERNAL UNSET", "  attempt haiku INTERNAL UNSET"
    )
    route = collector.named("route haiku")
    assert route.attributes["tierline.decision.requested_tier"] == "sonnet"
    check = route.event("budget.check")
    assert check.pop("estimate_usd") > 0
    assert 0 < check.pop("remaining_usd") < 0.2
    assert check == {"decision": "downgrade", "budget": "daily", "limit_usd": 1.0}


@pytest.mark.parametrize(("amount", "status"), [("$0.05/hour", 429), ("$0.05", 402)])
async def test_refusal(stage: Stage, collector: Collector, amount: str, status: int) -> None:
    """A refusal has no attempt and is an error of the call; the request was answered, and is none."""
    router = await refusing(stage.router, amount)
    browser = await stage.serve(app(router, stage))
    assert (await browser.get("/answer")).status_code == status
    await stage.ended()
    about = "anthropic.messages.create CLIENT ERROR" if stage.sdk else "chat auto CLIENT ERROR"
    assert collector.tree() == [
        "GET /answer SERVER UNSET",
        f"  {about}",
        "    route sonnet INTERNAL ERROR",
        "      classify INTERNAL UNSET",
    ]
    server, route = collector.named("GET /answer"), collector.named("route sonnet")
    assert server.attributes["http.response.status_code"] == status
    assert "exception" not in dict(server.events)
    assert route.attributes["error.type"] == "budget_exceeded"
    assert route.event("budget.check")["decision"] == "refuse"


async def test_stream(stage: Stage, collector: Collector, fake: GatedClaude) -> None:
    """The spans of a stream last as long as it does, and none of them is current where the app reads it."""
    current: list[str] = []

    async def chat(request: Request) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            async with claude_of(request).messages.stream(**ask()) as stream:
                async for text in stream.text_stream:
                    current.append(otel.get_current_span().name)  # type: ignore[attr-defined]
                    yield text

        return StreamingResponse(body())

    router = stage.router()
    browser = await stage.serve(app(router, stage, Route("/stream", chat)))
    assert (await browser.get("/stream")).text
    await stage.ended()
    assert collector.tree() == call(
        stage,
        "route sonnet INTERNAL UNSET",
        "  classify INTERNAL UNSET",
        "  attempt sonnet INTERNAL UNSET",
        server="GET /stream",
    )
    attempt = collector.named("attempt sonnet")
    assert attempt.event("first_chunk") == {}
    assert attempt.attributes["tierline.cost.usd"] == fake.billed / NANO
    # The request's own span, whose name is not yet that of its route.
    assert set(current) == {"GET"}
    (chat_span,) = collector.below(collector.named("GET /stream"))
    assert chat_span.attributes["gen_ai.request.stream"] is True
    assert chat_span.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert chat_span.attributes["gen_ai.usage.output_tokens"] == fake.requests[0].usage.output_tokens


async def test_client_gone(stage: Stage, collector: Collector, fake: GatedClaude) -> None:
    """A client that leaves in mid-stream: first bytes, an estimate, and no error anywhere."""
    fake.always(None, Fault.hang(after=8))
    fake.answer = lambda _: Reply("word " * 50, thinking="hm")
    router = stage.router()
    browser = await stage.serve(app(router, stage))
    socket = await Socket.get(browser, "/chat")
    await socket.body()
    socket.vanish()
    await stage.ended()
    await stage.ended(lambda span: span.name == "route sonnet")
    assert collector.tree() == [
        "GET /chat SERVER UNSET",
        f"  {'anthropic.messages.create' if stage.sdk else 'chat auto'} CLIENT UNSET",
        "    route sonnet INTERNAL UNSET",
        "      classify INTERNAL UNSET",
        "      attempt sonnet INTERNAL UNSET",
    ]
    attempt = collector.named("attempt sonnet")
    assert attempt.attributes["tierline.attempt.outcome"] in ("client_disconnected", "closed")
    assert attempt.attributes["tierline.estimated"] is True
    assert attempt.event("first_chunk") == {}
    assert collector.named("route sonnet").attributes["tierline.cost.usd"] > 0
