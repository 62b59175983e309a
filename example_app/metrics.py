"""The metrics of this process, as Prometheus scrapes them. Several workers would have a port each, or push them."""

from __future__ import annotations

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.responses import Response


class Scraped:
    """A meter provider for a Router, and what it has counted."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.provider = MeterProvider([PrometheusMetricReader(registry=self._registry)])

    def page(self) -> Response:
        """All metrics, in the text that Prometheus reads."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    def close(self) -> None:
        """Count no longer."""
        self.provider.shutdown()
