"""The metrics of this process: as Prometheus scrapes one process, and pushed to it where there are several workers."""

from __future__ import annotations

import os
import uuid

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.responses import Response


class Scraped:
    """A meter provider for a Router, and what it has counted.

    A scrape meets one of several workers, and counters would jump: with OTEL_EXPORTER_OTLP_METRICS_ENDPOINT each pushes
    its own, under a name of its own.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        readers: list[MetricReader] = [PrometheusMetricReader(registry=self._registry)]
        if os.environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"):
            readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
        this = Resource.create({"service.name": "support-desk", "service.instance.id": uuid.uuid4().hex})
        self.provider = MeterProvider(readers, this)

    def page(self) -> Response:
        """All metrics, in the text that Prometheus reads."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def close(self) -> None:
        """Count no longer."""
        self.provider.shutdown()
