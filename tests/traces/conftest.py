"""Apps whose traces go over the wire to a collector, and the trees that it received."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import DEFAULT_ON
from opentelemetry.util._once import Once

from tests.apps import CANARY
from tests.traces.collector import collecting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx
    from anthropic import AsyncAnthropic

    from tests.apps import MakeRouter, Serve
    from tests.traces.collector import Collected, Collector
    from tierline import Router


@pytest.fixture(scope="module")
def collectors() -> Iterator[Collector]:
    """One collector for each module: its ports take a while to open."""
    with collecting() as collector:
        yield collector


@pytest.fixture
def collector(collectors: Collector) -> Collector:
    """The collector, with nothing in it."""
    collectors.clear()
    return collectors


def exporter_to(collector: Collector, way: str) -> Any:
    if way == "grpc":
        return GrpcExporter(collector.grpc, insecure=True)
    return HttpExporter(f"{collector.http}/v1/traces")


class Stage:
    """Where a scenario is played: its provider, its collector, and how the SDK tells of its calls there.

    `sdk` says whether the SDK's own spans are on. Then a call is `anthropic.messages.create`, else Tierline's `chat`.
    """

    def __init__(
        self, collector: Collector, sdk: str, way: str, make_router: MakeRouter, client: AsyncAnthropic, serve: Serve
    ) -> None:
        self.collector, self.sdk, self.opted_in = collector, sdk == "on", False
        self._make_router, self._client, self._serve = make_router, client, serve
        self._way, self._processors = way, []
        self.provider = self.sampling(DEFAULT_ON)

    def sampling(self, sampler: Any) -> TracerProvider:
        """A provider that exports what `sampler` takes. From now on it is the stage's."""
        self.provider = TracerProvider(resource=Resource({"service.name": "desk"}), sampler=sampler)
        self._processors.append(
            BatchSpanProcessor(exporter_to(self.collector, self._way), schedule_delay_millis=60_000)
        )
        self.provider.add_span_processor(self._processors[-1])
        return self.provider

    def close(self) -> None:
        for processor in self._processors:
            processor.shutdown()

    def client(self, **traces: Any) -> AsyncAnthropic:
        """The app's own client."""
        return self._client.copy(
            open_telemetry={"tracer_provider": self.provider, "traces": {"enabled": self.sdk, **traces}}
        )

    def router(self, **options: Any) -> Router:
        return self._make_router(options.pop("client", None) or self.client(), tracer_provider=self.provider, **options)

    async def serve(self, app: Any) -> httpx.AsyncClient:
        return await self._serve(app)

    def call(self, model: str = "auto") -> str:
        """How a call of the app's, or a question about it to `model`, is told in a tree."""
        return "anthropic.messages.create CLIENT OK" if self.sdk else f"chat {model} CLIENT UNSET"

    @property
    def verdict(self) -> str:
        """The same for the question of how hard it is."""
        return self.call("claude-haiku-5-5")

    async def ended(self, of: Callable[[Collected], bool] = lambda span: span.kind == "SERVER", count: int = 1) -> None:
        """Wait until as many spans of this kind have come: those of requests, which end after their response."""
        async with asyncio.timeout(10):
            while True:
                await asyncio.to_thread(self.provider.force_flush)
                if sum(map(of, self.collector.spans)) >= count:
                    return
                await asyncio.sleep(0.005)

    async def nothing(self) -> None:
        """Let what might still be exported come."""
        for _ in range(5):
            await asyncio.sleep(0)
            await asyncio.to_thread(self.provider.force_flush)


# Each way over the wire with each way to tell: the other two would prove no more.
@pytest.fixture(params=[("on", "http"), ("off", "grpc")], ids=["sdk-http", "chat-grpc"])
def stage(
    request: pytest.FixtureRequest,
    collector: Collector,
    make_router: MakeRouter,
    sdk: AsyncAnthropic,
    serve: Serve,
) -> Iterator[Stage]:
    """A stage for one scenario, in both ways."""
    made = Stage(collector, *request.param, make_router, sdk, serve)
    yield made
    made.close()
    # By default nothing that anybody wrote is on any span, whatever became of the call.
    assert made.opted_in or CANARY.encode() not in collector.bytes


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which nobody has set up anything, whatever this one's environment says."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", None)
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER_SET_ONCE", Once())
    # The one that stands in until then would keep the provider that is set, after the test too.
    monkeypatch.setattr(metrics._internal, "_PROXY_METER_PROVIDER", metrics._internal._ProxyMeterProvider())
    yield
    for provider in (trace.get_tracer_provider(), metrics.get_meter_provider()):
        if isinstance(provider, (TracerProvider, MeterProvider)):
            provider.shutdown()
