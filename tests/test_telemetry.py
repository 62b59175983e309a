"""The trace of a call, as an exporter of the OpenTelemetry SDK receives it, beside the spans of the Claude SDK."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode

from tierline import Budget, policy
from tierline.classify import ClaudeClassifier, FixedClassifier
from tierline.errors import BudgetExceededError
from tierline.ledger.base import Reservation
from tierline.telemetry import MOST_CHARS, bounded
from tierline.testing import Fault
from tierline.values import Offer

if TYPE_CHECKING:
    from collections.abc import Callable

    from anthropic import AsyncAnthropic
    from opentelemetry.sdk.trace import ReadableSpan

    from tierline import Router
    from tierline.testing import FakeClaude

pytestmark = pytest.mark.usefixtures("quiet")

CANARY = "canary-prompt-7f3a"
NANO = 1_000_000_000
ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": CANARY}]}


class Trace:
    """What was exported, as a tree."""

    def __init__(self, sampler: Any = ALWAYS_ON) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> ReadableSpan:
        """The only span of that name."""
        (span,) = (span for span in self.spans if span.name == name)
        return span

    def tree(self) -> list[str]:
        """Names with their depth, children in the order of their start."""
        lines: list[str] = []

        def walk(parent: int | None, depth: int) -> None:
            for span in sorted(self.spans, key=lambda s: s.start_time or 0):
                if (span.parent.span_id if span.parent else None) == parent:
                    lines.append("  " * depth + span.name)
                    walk(span.context.span_id, depth + 1)

        walk(None, 0)
        return lines

    def told(self) -> str:
        """Everything in all spans."""
        return "\n".join(span.to_json() for span in self.spans)


@pytest.fixture
def trace() -> Trace:
    return Trace()


@pytest.fixture
def traced(make_router: Callable[..., Router], sdk: AsyncAnthropic, trace: Trace) -> Callable[..., Router]:
    """Make Routers whose spans, and the SDK's, go to `trace`."""

    def make(**options: Any) -> Router:
        client = sdk.copy(open_telemetry={"tracer_provider": trace.provider})
        return make_router(client, tracer_provider=trace.provider, **options)

    return make


def events_of(span: ReadableSpan) -> dict[str, dict[str, Any]]:
    return {event.name: dict(event.attributes or {}) for event in span.events}


async def test_plain(traced: Callable[..., Router], trace: Trace, fake: FakeClaude) -> None:
    """A call is a route span under the SDK's own, with its classification and its attempt below."""
    router = traced(classifier=ClaudeClassifier(), budgets=[Budget("$5/day")])
    fake.verdict = lambda _text, _labels: ("complex", 0.9)
    async with router.bind(tenant="acme", route="/contracts"):
        with policy(floor="sonnet", tags={"team": "legal"}):
            await router.claude.messages.create(**ASK)
    assert trace.tree() == [
        "anthropic.messages.create",
        "  route opus",
        "    classify",
        "      anthropic.messages.create",
        "    attempt opus",
    ]
    route = trace.named("route opus")
    verdict, call = fake.requests
    attributes = dict(route.attributes or {})
    assert attributes.pop("tierline.decision.id")
    assert attributes == {
        "tierline.policy.floor": "sonnet",
        "tierline.policy.ceiling": "opus",
        "tierline.policy.critical": False,
        "tierline.tag.team": "legal",
        "tierline.budget.decision": "admit",
        "tierline.decision.tier": "opus",
        "tierline.decision.requested_tier": "opus",
        "tierline.decision.source": "claude",
        "tierline.decision.label": "complex",
        "tierline.decision.confidence": 0.9,
        "tierline.decision.reasons": (),
        "tierline.cache.hit": False,
        "tierline.cost.usd": (verdict.billed + call.billed) / NANO,
        "tierline.cost.classifier.usd": verdict.billed / NANO,
        "tierline.saved.usd": -verdict.billed / NANO,
        "tierline.estimated": False,
        "tierline.outcome": "ok",
        "tierline.route": "/contracts",
        "tierline.tenant": "acme",
    }
    assert events_of(route)["cache.lookup"] == {"hit": False}
    assert events_of(route)["budget.check"]["decision"] == "admit"
    classify = dict(trace.named("classify").attributes or {})
    assert classify.pop("tierline.classifier.version") == router.classifier.fingerprint
    assert classify == {
        "tierline.classifier.name": "claude",
        "tierline.classification.label": "complex",
        "tierline.classification.confidence": 0.9,
        "tierline.classification.source": "claude",
        "tierline.cost.usd": verdict.billed / NANO,
    }
    assert dict(trace.named("attempt opus").attributes or {}) == {
        "tierline.attempt.number": 1,
        "tierline.attempt.role": "first",
        "tierline.attempt.outcome": "ok",
        "tierline.cost.usd": call.billed / NANO,
        "tierline.estimated": False,
    }
    ours = [span for span in trace.spans if not span.name.startswith("anthropic")]
    assert {span.kind for span in ours} == {SpanKind.INTERNAL}
    assert {span.status.status_code for span in ours} == {StatusCode.UNSET}
    assert not [key for span in ours for key in span.attributes or () if key.startswith("gen_ai")]
    assert {span.instrumentation_scope.name for span in ours if span.instrumentation_scope} == {"tierline"}


async def test_cache_hit(traced: Callable[..., Router], trace: Trace) -> None:
    """A verdict from the cache is an event with its age, and the trace has one attempt."""
    router = traced(classifier=ClaudeClassifier())
    await router.claude.messages.create(**ASK)
    trace.exporter.clear()
    await router.claude.messages.create(**ASK)
    assert trace.tree() == ["anthropic.messages.create", "  route haiku", "    classify", "    attempt haiku"]
    route = trace.named("route haiku")
    lookup = events_of(route)["cache.lookup"]
    assert lookup["hit"] is True
    assert lookup["age_s"] >= 0
    assert (route.attributes or {})["tierline.cache.hit"] is True
    assert (route.attributes or {})["tierline.decision.source"] == "cache"
    assert (route.attributes or {})["tierline.cost.classifier.usd"] == 0


async def test_fallback(traced: Callable[..., Router], trace: Trace, fake: FakeClaude) -> None:
    """An attempt that failed is in error, the fallback is an event, and the route is not in error."""
    router = traced(classifier=FixedClassifier("complex"))
    fake.always("claude-opus-5-5", Fault.overloaded())
    await router.claude.with_options(max_retries=1).messages.create(**ASK)
    assert trace.tree() == [
        "anthropic.messages.create",
        "  route sonnet",
        "    classify",
        "    attempt opus",
        "    attempt opus",
        "    attempt sonnet",
    ]
    route = trace.named("route sonnet")
    assert events_of(route)["fallback"] == {"reason": "overloaded_error", "from": "opus", "to": "sonnet"}
    assert route.status.status_code is StatusCode.UNSET
    attempts = sorted((s for s in trace.spans if s.name.startswith("attempt")), key=lambda s: s.start_time or 0)
    seen = [((s.attributes or {}).get("tierline.attempt.role"), s.status.status_code) for s in attempts]
    assert seen == [("first", StatusCode.ERROR), ("retry", StatusCode.ERROR), ("fallback", StatusCode.UNSET)]
    assert (attempts[0].attributes or {})["error.type"] == "overloaded_error"
    assert [(s.attributes or {})["tierline.attempt.number"] for s in attempts] == [1, 2, 3]


async def test_failure(traced: Callable[..., Router], trace: Trace, fake: FakeClaude) -> None:
    """A call that fails is an error of its route span, and no exception is copied into it."""
    router = traced()
    fake.script(Fault.error(400, message=CANARY))
    with pytest.raises(anthropic.BadRequestError):
        await router.claude.messages.create(**ASK)
    route = trace.named("route sonnet")
    assert route.status.status_code is StatusCode.ERROR
    assert (route.attributes or {})["error.type"] == "invalid_request_error"
    assert "exception" not in events_of(route)


async def _use(router: Router, share: float) -> None:
    """Spend a share of the only budget."""
    line = router.budgets[0].line("global")
    cost = int(line.limit * share)
    held = await router.ledger.reserve("used", [Offer("sonnet", "m", cost)], [line], thresholds=False)
    assert isinstance(held, Reservation)
    await router.ledger.settle(held, cost)


async def test_downgrade(traced: Callable[..., Router], trace: Trace) -> None:
    """A downgrade for the budget's sake is an event with the numbers, and the tier that was asked for stays."""
    router = traced(budgets=[Budget("$1/day", name="daily")])
    await _use(router, 0.8)
    await router.claude.messages.create(**ASK)
    route = trace.named("route haiku")
    attributes = route.attributes or {}
    assert attributes["tierline.decision.requested_tier"] == "sonnet"
    assert attributes["tierline.budget.decision"] == "downgrade"
    check = events_of(route)["budget.check"]
    assert check.pop("estimate_usd") > 0
    assert 0 < check.pop("remaining_usd") < 0.2
    assert check == {"decision": "downgrade", "budget": "daily", "limit_usd": 1.0}
    (downgrade,) = router.report().downgrades
    assert (downgrade.from_tier, downgrade.to_tier, downgrade.share) == ("sonnet", "haiku", 0.8)


async def test_refusal(traced: Callable[..., Router], trace: Trace) -> None:
    """A refusal has no attempt, and the route span is in error with the numbers that refused it."""
    router = traced(budgets=[Budget("$1/day", name="daily")])
    await _use(router, 1.0)
    with pytest.raises(BudgetExceededError):
        await router.claude.messages.create(**ASK)
    assert trace.tree() == ["anthropic.messages.create", "  route sonnet", "    classify"]
    route = trace.named("route sonnet")
    assert (route.status.status_code, (route.attributes or {})["error.type"]) == (StatusCode.ERROR, "budget_exceeded")
    assert (route.attributes or {})["tierline.budget.decision"] == "refuse"
    check = events_of(route)["budget.check"]
    assert check.pop("estimate_usd") > 0
    assert check == {"decision": "refuse", "budget": "daily", "limit_usd": 1.0, "remaining_usd": 0.0}


async def test_stream(traced: Callable[..., Router], trace: Trace, fake: FakeClaude) -> None:
    """The spans of a stream end with it, and its first bytes are an event."""
    router = traced()
    async with router.claude.messages.stream(**ASK) as stream:
        await anext(stream.__aiter__())
        assert not [span for span in trace.spans if span.name.startswith(("route", "attempt"))]
        await stream.get_final_message()
    attempt = trace.named("attempt sonnet")
    assert list(events_of(attempt)) == ["first_chunk"]
    assert (attempt.attributes or {})["tierline.cost.usd"] == fake.billed / NANO
    assert (trace.named("route sonnet").attributes or {})["tierline.outcome"] == "ok"


async def test_stream_cut(traced: Callable[..., Router], trace: Trace, fake: FakeClaude) -> None:
    """A stream that its reader leaves is no error: the attempt says so, and its cost is an estimate."""
    router = traced()
    fake.always(None, Fault.hang(after=4))
    async with router.bind():
        stream = await router.claude.messages.create(**ASK, stream=True)
        await anext(stream.__aiter__())
    await fake.idle()
    attempt, route = trace.named("attempt sonnet"), trace.named("route sonnet")
    assert (attempt.attributes or {})["tierline.attempt.outcome"] == "client_disconnected"
    assert (attempt.attributes or {})["tierline.estimated"] is True
    assert {attempt.status.status_code, route.status.status_code} == {StatusCode.UNSET}
    assert (attempt.end_time or 0) <= (route.end_time or 0)
    assert fake.requests[0].ended == "disconnected"
    await stream.close()


async def test_nothing_secret_is_told(traced: Callable[..., Router], trace: Trace, fake: FakeClaude) -> None:
    """No span has the prompt, the answer or the key, however a call ends."""
    router = traced(classifier=ClaudeClassifier(), budgets=[Budget("$5/day", per="tenant")])
    fake.answer = lambda _: f"answer {CANARY}"
    fake.script(Fault.overloaded(), Fault.error(400, message=f"{CANARY} {fake.api_key}"))
    async with router.bind(tenant="acme", route="/x"):
        for _ in range(4):
            try:
                async with router.claude.messages.stream(**ASK) as stream:
                    await stream.get_final_message()
            except anthropic.APIError:
                pass
    ours = [s.to_json() for s in trace.spans if s.instrumentation_scope and s.instrumentation_scope.name == "tierline"]
    assert len(ours) > 5
    assert not [text for text in ours if CANARY in text or fake.api_key in text]
    assert fake.api_key not in trace.told()


async def test_sampled_out(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """Where nothing is sampled nothing is exported, and calls work as ever."""
    trace = Trace(ALWAYS_OFF)
    router = make_router(tracer_provider=trace.provider, classifier=ClaudeClassifier())
    fake.script(Fault.overloaded())
    async with router.claude.messages.stream(**ASK) as stream:
        await stream.get_final_message()
    assert trace.spans == ()
    assert router.report().cost == fake.billed


def test_nothing_is_set_up_at_import() -> None:
    """Importing and using Tierline leaves OpenTelemetry's global provider to the app."""
    code = (
        "import tierline, tierline.asgi, tierline.fastapi, tierline.telemetry, sys\n"
        "from opentelemetry import trace\n"
        "tierline.Router()\n"
        "assert trace._TRACER_PROVIDER is None\n"
        "assert 'opentelemetry.sdk' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


def test_strings_are_bounded() -> None:
    """What goes into an attribute is short, and valid UTF-8."""
    assert bounded("x" * 1000) == "x" * MOST_CHARS
    assert bounded("a\ud800b").encode() == b"a?b"
    assert bounded("ünïcödé") == "ünïcödé"
