"""An OpenTelemetry SDK for benchmarks."""

from __future__ import annotations

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Spans:
    """An OpenTelemetry SDK that exports in batches, to nowhere."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(BatchSpanProcessor(self.exporter, max_queue_size=10_000))
        self.exported: list[str] = []
        """Names of the spans of the last block."""

    def flush(self) -> None:
        """Export what is waiting, and forget all of it but the names."""
        self.provider.force_flush()
        self.exported = [span.name for span in self.exporter.get_finished_spans()]
        self.exporter.clear()
