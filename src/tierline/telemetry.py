"""The spans of one call: `route`, `classify` and `attempt`, under the SDK's own span.

Only `opentelemetry-api` is used; without an SDK in the app nothing is recorded. Nothing is set up at import. No
attribute carries text of a prompt or a key, and none of the `gen_ai.*` names is used: the SDK's span has them.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from tierline.chat import ChatSpan
from tierline.display import MOST_CHARS, bounded
from tierline.tracing import configure_tracing
from tierline.values import NANO, usd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.trace import Tracer, TracerProvider

    from tierline.call import Call
    from tierline.chat import Chat
    from tierline.policies import Effective
    from tierline.values import Attempt, Classification, Decision, Refusal, Remaining

__all__ = [
    "MOST_CHARS", "MOST_ITEMS", "CallTrace", "active", "bounded", "configure_tracing", "describe", "end_attempt",
    "end_classify", "end_shadow", "tracer_of",
]  # fmt: skip

MOST_ITEMS: Final = 20
"""Most entries of a list attribute."""
_INACTIVE: Final = nullcontext()
"""It keeps nothing, so one is enough for all."""


def tracer_of(provider: TracerProvider | None) -> Tracer:
    """Tierline's tracer, from `provider` or from whatever the app installs, now or later."""
    return trace.get_tracer("tierline", tracer_provider=provider)


class CallTrace:
    """The spans of one call. Cheap where nothing is recorded: attributes are built only for spans that are.

    Without a tracer there are none. With `chat` the SDK tells nothing of this `call`, and `chat` is told of it; that is
    all of an `own` call, a question of Tierline's.
    """

    __slots__ = ("_route", "_tracer", "chat", "recording")

    def __init__(
        self, tracer: Tracer | None, chat: Chat | None = None, call: Call | None = None, *, own: bool = False
    ) -> None:
        self._tracer = tracer
        self._route: Span = trace.INVALID_SPAN
        self.chat: ChatSpan | None = None
        """The span around `route`, where it is Tierline's."""
        if tracer is not None:
            around = None
            if chat is not None and call is not None:
                self.chat = ChatSpan(tracer, chat, call)
                around = self.chat.context
            if not own:
                self._route = tracer.start_span("route", context=around, kind=SpanKind.INTERNAL)
        self.recording = self._route.is_recording()

    @property
    def links(self) -> tuple[Link, ...]:
        """What a later trace is linked to this one by."""
        return (Link(self._route.get_span_context()),) if self.recording else ()

    @property
    def trace_id(self) -> str:
        """The id of the trace, in 32 hexadecimal digits; empty where nothing is recorded."""
        return trace.format_trace_id(self._route.get_span_context().trace_id) if self.recording else ""

    def child(self, name: str) -> Span | None:
        """A span under the route, or None where the route is not recorded."""
        if self._tracer is None or not self.recording:
            return None
        return self._tracer.start_span(name, context=trace.set_span_in_context(self._route))

    def event(self, name: str, attributes: Mapping[str, Any], at: int | None = None) -> None:
        """Something that happened, on the route span: now, or at so many nanoseconds since the epoch."""
        if self.recording:
            self._route.add_event(name, dict(attributes), at)

    def budget(self, decision: str, estimate: int | None, tightest: Remaining | None) -> None:
        """How the ledger answered."""
        if not self.recording:
            return
        values: dict[str, Any] = {"decision": decision}
        if estimate is not None:
            values["estimate_usd"] = estimate / NANO
        if tightest is not None:
            values |= {
                "budget": bounded(tightest.budget),
                "remaining_usd": tightest.remaining / NANO,
                "limit_usd": tightest.limit / NANO,
            }
        self._route.add_event("budget.check", values)
        self._route.set_attribute("tierline.budget.decision", decision)

    def policy(self, policy: Effective, floor: str, ceiling: str) -> None:
        """What the call was allowed."""
        if self.recording:
            values: dict[str, Any] = {
                "tierline.policy.floor": floor,
                "tierline.policy.ceiling": ceiling,
                "tierline.policy.critical": policy.critical,
            }
            for key, value in policy.tags[:MOST_ITEMS]:
                values[f"tierline.tag.{bounded(key)}"] = bounded(value)
            self._route.set_attributes(values)

    def end(self, decision: Decision, outcome: str, error: str = "") -> None:
        """Close the route span with what was decided. A call that is refused or fails is an error of this span."""
        if self.recording:
            span = self._route
            span.update_name(f"route {decision.tier}")
            values: dict[str, Any] = {
                "tierline.decision.id": decision.id,
                "tierline.decision.tier": decision.tier,
                "tierline.decision.requested_tier": decision.requested_tier,
                "tierline.decision.source": decision.source,
                "tierline.decision.confidence": decision.confidence,
                "tierline.decision.reasons": [bounded(reason) for reason in decision.reasons[:MOST_ITEMS]],
                "tierline.cache.hit": decision.source == "cache",
                "tierline.cost.usd": decision.cost / NANO,
                "tierline.saved.usd": decision.saved / NANO,
                "tierline.cost.classifier.usd": decision.classifier_cost / NANO,
                "tierline.estimated": decision.estimated,
                "tierline.outcome": outcome,
            }
            if decision.grading_cost:
                values["tierline.cost.grading.usd"] = decision.grading_cost / NANO
            if decision.label is not None:
                values["tierline.decision.label"] = decision.label
            if decision.route is not None:
                values["tierline.route"] = bounded(decision.route)
            if decision.tenant is not None:
                values["tierline.tenant"] = bounded(decision.tenant)
            if decision.run is not None:
                values["tierline.run"] = bounded(decision.run)
            if (seen := decision.observed) is not None:
                values |= {
                    "tierline.mode": "observe",
                    "tierline.observed.tier": seen.tier or "refused",
                    "tierline.observed.saved.usd": seen.saved / NANO,
                }
                if seen.why:
                    values["tierline.observed.why"] = bounded(seen.why)
            span.set_attributes(values)
            if error:
                span.set_attribute("error.type", error)
                span.set_status(Status(StatusCode.ERROR, error))
        self._route.end()


def active(span: Span | None) -> AbstractContextManager[Any]:
    """Make a span current around an await. Never around a `yield`: its context would leak into the consumer."""
    if span is None:
        return _INACTIVE
    return trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)


def end_classify(span: Span, name: str, version: str, opinion: Classification | None) -> None:
    """Close a `classify` span."""
    values: dict[str, Any] = {"tierline.classifier.name": name, "tierline.classifier.version": version}
    if opinion is not None:
        values |= {
            "tierline.classification.label": bounded(opinion.label),
            "tierline.classification.confidence": opinion.confidence,
            "tierline.classification.source": opinion.source,
            "tierline.cost.usd": opinion.cost / NANO,
        }
    span.set_attributes(values)
    span.end()


def end_shadow(span: Span, decision: Decision, above: str, outcome: str, cost: int) -> None:
    """Close a `shadow` span: which call was compared with which tier, what came of it, what that cost (nano-USD)."""
    if span.is_recording():
        span.set_attributes(
            {
                "tierline.decision.id": decision.id,
                "tierline.decision.tier": decision.tier,
                "tierline.shadow.tier": above,
                "tierline.shadow.outcome": outcome,
                "tierline.route": bounded(decision.route or ""),
                "tierline.cost.usd": cost / NANO,
            }
        )
    span.end()


def end_attempt(span: Span | None, number: int, attempt: Attempt, *, failed: bool) -> None:
    """Close an `attempt` span. A client that left is no error; an attempt that the API failed is one."""
    if span is None:
        return
    span.set_attributes(
        {
            "tierline.attempt.number": number,
            "tierline.attempt.role": attempt.role,
            "tierline.attempt.outcome": bounded(attempt.outcome),
            "tierline.cost.usd": attempt.cost / NANO,
            "tierline.estimated": attempt.estimated,
        }
    )
    if failed:
        span.set_attribute("error.type", bounded(attempt.outcome))
        span.set_status(Status(StatusCode.ERROR, bounded(attempt.outcome)))
    span.end()


def describe(refusal: Refusal) -> str:
    """A refusal for the reasons of a decision: numbers, and no account (it may name a person)."""
    if refusal.needed is None:
        return f"budget {refusal.budget} refused: {refusal.unbounded}"
    left = max(0, refusal.limit - refusal.spent - refusal.held)
    return f"budget {refusal.budget} refused: {usd(left)} left, {usd(refusal.needed)} needed"
