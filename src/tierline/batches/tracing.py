"""The spans of jobs: `submit batch`, and later, in a trace of its own that is linked to it, `collect batch`.

In the concurrent lane `submit calls` is above the spans of its calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from tierline.telemetry import active, bounded
from tierline.values import NANO

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    from opentelemetry.trace import Span, Tracer

    from tierline.batches.jobs import BatchRow, Ended

_PARTS: Final = 3


def written(context: SpanContext) -> str:
    """Which span it was, as text; empty for none."""
    if not context.is_valid:
        return ""
    return f"{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def here() -> str:
    """The span around, as text."""
    return written(trace.get_current_span().get_span_context())


def _read(text: str) -> SpanContext | None:
    parts = text.split("-")
    if len(parts) != _PARTS:
        return None
    try:
        ids = [int(part, 16) for part in parts]
    except ValueError:
        return None
    return SpanContext(ids[0], ids[1], is_remote=True, trace_flags=TraceFlags(ids[2]))


class _Trace:
    def __init__(self, span: Span, row: BatchRow) -> None:
        self._span = span
        if span.is_recording():
            span.set_attributes(
                {
                    "tierline.batch.id": row.id,
                    "tierline.batch.job": bounded(row.job),
                    "tierline.batch.requests": row.number,
                }
            )

    def active(self) -> AbstractContextManager[Any]:
        """Make it current around what is awaited."""
        return active(self._span)

    def _end(self, error: str) -> None:
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()


class SubmitTrace(_Trace):
    """A batch is sent: below the span in which its job was submitted."""

    def __init__(self, tracer: Tracer, row: BatchRow, parent: str) -> None:
        above = _read(parent)
        where = trace.set_span_in_context(NonRecordingSpan(above), Context()) if above is not None else Context()
        super().__init__(tracer.start_span("submit batch", context=where, kind=SpanKind.INTERNAL), row)

    @property
    def context(self) -> str:
        """Which span it is, as text."""
        return written(self._span.get_span_context())

    def end(self, api: str, error: str) -> None:
        """It has been sent, or not."""
        if api:
            self._span.set_attribute("tierline.batch.api_id", bounded(api))
        self._end(error)


class CollectTrace(_Trace):
    """Results are collected: a trace of its own, perhaps a day later."""

    def __init__(self, tracer: Tracer, row: BatchRow) -> None:
        sent = _read(row.trace)
        links = [Link(sent)] if sent is not None else []
        super().__init__(
            tracer.start_span("collect batch", context=Context(), kind=SpanKind.INTERNAL, links=links), row
        )
        self._span.set_attribute("tierline.batch.api_id", bounded(row.api))
        self._outcomes: dict[str, int] = {}
        self.cost = 0
        """Nano-USD."""

    def count(self, page: Sequence[Ended]) -> None:
        """Results have been taken in."""
        for each in page:
            self._outcomes[each.outcome] = self._outcomes.get(each.outcome, 0) + 1

    def end(self, error: str) -> None:
        """They have all been, or not."""
        if self._span.is_recording():
            for outcome, number in self._outcomes.items():
                self._span.set_attribute(f"tierline.batch.{outcome}", number)
            self._span.set_attribute("tierline.cost.usd", self.cost / NANO)
        self._end(error)


class CallsTrace:
    """A job of the concurrent lane: above the spans of its calls, below the one in which it was submitted."""

    def __init__(self, tracer: Tracer, job: str) -> None:
        self._span = tracer.start_span("submit calls", kind=SpanKind.INTERNAL)
        if self._span.is_recording():
            self._span.set_attribute("tierline.batch.job", bounded(job))

    def active(self) -> AbstractContextManager[Any]:
        """Make it current around what is awaited."""
        return active(self._span)

    def end(self, outcomes: Mapping[str, int], cost: int, error: str) -> None:
        """It is over, or was cut off. `cost` in nano-USD."""
        if self._span.is_recording():
            self._span.set_attribute("tierline.batch.requests", sum(outcomes.values()))
            for outcome, number in outcomes.items():
                self._span.set_attribute(f"tierline.batch.{outcome}", number)
            self._span.set_attribute("tierline.cost.usd", cost / NANO)
        if error:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()
