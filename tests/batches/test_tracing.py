"""The traces of a job: sent in one, collected in another that is linked to it."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, StatusCode, TraceFlags

from tests.batches.world import requests, world
from tierline.batches.tracing import written
from tierline.testing import Fault
from tierline.values import NANO


async def test_a_batch_is_sent_in_one_trace_and_collected_in_another() -> None:
    """Linked, with what came of it, no span for a request, and no prompt."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with world() as it:
        router = it.router(tracer_provider=provider)
        with provider.get_tracer("app").start_as_current_span("nightly") as around:
            job = await router.batches.submit(requests(40), job="j")
        await router.batches.wait(job)
        cost = it.fake.billed
    made = {span.name: span for span in spans.get_finished_spans()}
    assert sorted(made) == ["collect batch", "nightly", "submit batch"]
    sent, collected = made["submit batch"], made["collect batch"]
    assert sent.parent is not None
    assert sent.parent.span_id == around.get_span_context().span_id
    assert sent.context.trace_id == around.get_span_context().trace_id != collected.context.trace_id
    assert collected.parent is None
    assert [link.context.span_id for link in collected.links] == [sent.context.span_id]
    assert sent.attributes is not None
    assert collected.attributes is not None
    assert sent.attributes["tierline.batch.requests"] == collected.attributes["tierline.batch.succeeded"] == 40
    assert sent.attributes["tierline.batch.api_id"] == collected.attributes["tierline.batch.api_id"]
    assert collected.attributes["tierline.cost.usd"] == cost / NANO
    assert not any("say" in str(span.attributes) for span in made.values())


async def test_what_fails_is_an_error_of_its_span() -> None:
    """Each time that it is tried, in the trace of the job."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with world() as it:
        router = it.router(tracer_provider=provider)
        it.fake.script(Fault.overloaded(), Fault.reset_after(0), path="/v1/messages/batches")
        await router.batches.wait(await router.batches.submit(requests(2)))
    sent = [span for span in spans.get_finished_spans() if span.name == "submit batch"]
    assert [span.attributes and span.attributes["error.type"] for span in sent] == ["529", "unknown"]
    assert all(span.status.status_code is StatusCode.ERROR for span in sent)


def test_a_span_is_written_down_and_read_again() -> None:
    """None of it where there is none, or where it was cut off."""
    from tierline.batches.tracing import _read

    here = SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(1))
    assert _read(written(here)) == here
    assert written(trace.INVALID_SPAN_CONTEXT) == ""
    assert [_read(text) for text in ("", "a-b", "x-y-z")] == [None] * 3
