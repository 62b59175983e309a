"""`configure_tracing`: where spans go, for an app that has no set-up of its own. By the `OTEL_*` variables alone.

All that can be said in those variables is read by the OpenTelemetry SDK itself: samplers, limits, batches, resources,
addresses, headers, timeouts, and whether it is switched off at all. What is left to choose is which exporters there
are. The SDK is imported when this is called, and not before.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextlib import asynccontextmanager
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import metrics, trace

from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import TracerProvider

log: Final = logging.getLogger("tierline")

PATIENCE: Final = 2.0
"""Seconds that a shutdown waits for a collector."""
_HURRY: Final = 0.5
"""Those at its end, in which exporters are told to give up."""
_PIPES: Final = "_tierline_pipes"
"""Where a provider that was made here keeps what is to be shut down: others are their makers' business."""
_OTLP: Final = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
_MISSING: Final = "configure_tracing() needs the OpenTelemetry SDK and its exporters: pip install 'tierline[tracing]'"


def configure_tracing(service: str | None = None) -> TracerProvider:
    """OpenTelemetry's global tracer provider: the one that there is, else one that exports as `OTEL_*` says.

    Call it before the app starts, once or often: a provider that an app or an agent has set is returned as it is.
    `service` is what the app is called in a trace, unless `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` say.

    - spans go to `OTEL_EXPORTER_OTLP_ENDPOINT` (a collector or Jaeger on this host, where nothing is said), by
      `OTEL_EXPORTER_OTLP_PROTOCOL`: `http/protobuf` (by default) or `grpc`
    - `OTEL_TRACES_EXPORTER` names other exporters that are installed: `otlp`, `console`, several, or `none`
    - metrics are exported where `OTEL_METRICS_EXPORTER` names an exporter, such as `otlp` or `prometheus`
    - `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*`, `OTEL_SDK_DISABLED` and the like do what OpenTelemetry says of them

    What it made is shut down with the last lifespan of a Router, or when the process exits. A collector that is away
    holds that up for no more than two seconds.

    ConfigurationError where the extra `tierline[tracing]` is not installed, or a variable names what is not there.
    """
    there = trace.get_tracer_provider()
    if not isinstance(there, trace.ProxyTracerProvider):
        return there
    try:
        from opentelemetry.sdk.trace import TracerProvider as Made  # noqa: PLC0415  (with the extra)
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(_MISSING) from error
    off = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    exporters = [] if off else [make() for make in _named("traces", "otlp")]
    readers = [] if off else [make() for make in _named("metrics", "none")]
    resource = _resource(service)
    provider = Made(resource=resource)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    pipes = Pipes([provider.shutdown], exporters)
    if readers and (shutdown := _measure(resource, readers)) is not None:
        pipes.shutdowns.append(shutdown)
    setattr(provider, _PIPES, pipes)
    trace.set_tracer_provider(provider)
    return trace.get_tracer_provider()


def _resource(service: str | None) -> Resource:
    """Who speaks, as the environment has it, else as the app."""
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415  (with the extra)

    found = Resource.create()
    if service and str(found.attributes[SERVICE_NAME]).startswith("unknown_service"):
        return found.merge(Resource({SERVICE_NAME: service}))
    return found


def _measure(resource: Resource, readers: list[Any]) -> Callable[[], object] | None:
    """Export metrics too, unless the app has a provider for them. How to shut that down."""
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415  (with the extra)
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader  # noqa: PLC0415

    if not type(metrics.get_meter_provider()).__module__.startswith("opentelemetry.metrics"):
        return None
    # An exporter is pushed to; a reader, such as that of Prometheus, is asked.
    pulled = [each if isinstance(each, MetricReader) else PeriodicExportingMetricReader(each) for each in readers]
    provider = MeterProvider(pulled, resource)
    metrics.set_meter_provider(provider)
    return provider.shutdown


def _named(signal: str, usual: str) -> list[Callable[[], Any]]:
    """What makes the exporters of a signal that the environment names."""
    variable = f"OTEL_{signal.upper()}_EXPORTER"
    names = [name.strip() for name in (os.environ.get(variable) or usual).split(",")]
    return [_exporter(signal, name, variable) for name in names if name and name != "none"]


def _exporter(signal: str, name: str, variable: str) -> Callable[[], Any]:
    if name == "otlp":
        ways = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        variable = next((way for way in ways if os.environ.get(way)), ways[1])
        protocol = (os.environ.get(variable) or "http/protobuf").strip()
        if protocol not in _OTLP:
            raise ConfigurationError(f"{variable}={protocol!r:.60}: write one of {', '.join(_OTLP)}")
        name = _OTLP[protocol]
    found = entry_points(group=f"opentelemetry_{signal}_exporter")
    if name not in found.names:
        if name in _OTLP.values():
            raise ConfigurationError(_MISSING)
        raise ConfigurationError(
            f"{variable} names {name!r:.60}, which is not installed; there are: "
            f"{', '.join(sorted({'otlp', 'none', *found.names}))}"
        )
    try:
        make: Callable[[], Any] = found[name].load()
    except ImportError as error:
        raise ConfigurationError(_MISSING) from error
    return make


class Pipes:
    """What was made here, to be shut down once. `lifespans` counts those that it is open for."""

    def __init__(self, shutdowns: list[Callable[[], object]], exporters: list[Any]) -> None:
        self.shutdowns = shutdowns
        self._exporters = exporters
        self.lifespans = 0

    def shutdown(self, patience: float = PATIENCE) -> None:
        """Send what is left, in at most `patience` seconds. Whoever still waits for a collector is left behind."""
        over = _aside("shutdown", *self.shutdowns)
        if over.wait(max(0.0, patience - _HURRY)):
            return
        log.warning("not all spans could be exported in %g s: is the collector there?", patience)
        _aside("give up", *[exporter.shutdown for exporter in self._exporters]).wait(_HURRY / 2)
        over.wait(_HURRY / 2)


def _aside(what: str, *steps: Callable[[], object]) -> threading.Event:
    """Do `steps` in a thread that keeps nobody from going. Set when it is done."""
    over = threading.Event()

    def run() -> None:
        try:
            for step in steps:
                step()
        except Exception as error:  # noqa: BLE001  (of the exporters, while the app is going down)
            log.warning("tracing was not shut down cleanly: %s", type(error).__name__)
        finally:
            over.set()

    threading.Thread(target=run, name=f"tierline tracing: {what}", daemon=True).start()
    return over


@asynccontextmanager
async def exporting() -> AsyncIterator[None]:
    """The lifespan of a Router: when the last of them ends, what `configure_tracing` made is shut down."""
    if (pipes := _pipes()) is not None:
        pipes.lifespans += 1
    try:
        yield
    finally:
        # It may have been made meanwhile.
        if (pipes := _pipes()) is not None:
            pipes.lifespans -= 1
            if pipes.lifespans <= 0:
                await asyncio.to_thread(pipes.shutdown)


def _pipes() -> Pipes | None:
    found: Pipes | None = getattr(trace.get_tracer_provider(), _PIPES, None)
    return found
