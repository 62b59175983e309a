"""`configure_tracing()`: what it makes of the environment, seen from a collector's side."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from tests.apps import ask
from tierline.errors import ConfigurationError
from tierline.telemetry import configure_tracing

if TYPE_CHECKING:
    from tests.apps import MakeRouter
    from tests.traces.collector import Collector


pytestmark = pytest.mark.usefixtures("fresh")


@pytest.fixture
def to(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Say in the environment that spans go to the collector, by this protocol."""

    def say(protocol: str | None) -> None:
        if protocol is not None:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.grpc if protocol == "grpc" else collector.http)

    return say


async def one_life(make_router: MakeRouter) -> None:
    """A lifespan with one call in it."""
    router = make_router()
    async with router.lifespan():
        await router.claude.messages.create(**ask())


@pytest.mark.parametrize(("protocol", "way"), [(None, "/v1/traces"), ("http/protobuf", "/v1/traces"), ("grpc", "grpc")])
async def test_to_a_collector(
    make_router: MakeRouter, collector: Collector, to: Any, protocol: str | None, way: str
) -> None:
    """Spans of all go to the collector that the environment names, at the latest with the lifespan's end."""
    to(protocol)
    configure_tracing("desk")
    await one_life(make_router)
    assert {sent for sent, _ in collector.requests} == {way}
    assert collector.tree() == [
        "anthropic.messages.create CLIENT OK",
        "  route sonnet INTERNAL UNSET",
        "    classify INTERNAL UNSET",
        "    attempt sonnet INTERNAL UNSET",
    ]
    assert {span.resource["service.name"] for span in collector.spans} == {"desk"}


async def test_the_environments_words(
    make_router: MakeRouter, collector: Collector, to: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Headers, names and samplers are those of the environment."""
    to(None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=shop,deployment.environment.name=test")
    configure_tracing("desk")
    await one_life(make_router)
    assert {headers["x-team"] for _, headers in collector.requests} == {"blue"}
    told = {(span.resource["service.name"], span.resource["deployment.environment.name"]) for span in collector.spans}
    assert told == {("shop", "test")}


@pytest.mark.parametrize(
    "said",
    [
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
    ],
)
async def test_nothing_is_sent(
    make_router: MakeRouter, collector: Collector, to: Any, monkeypatch: pytest.MonkeyPatch, said: dict[str, str]
) -> None:
    """Where the environment wants no spans there are none."""
    to(None)
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    configure_tracing()
    await one_life(make_router)
    assert collector.requests == []


def test_a_provider_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an app or an agent has set up is returned, and shut down by nobody here."""
    mine = TracerProvider()
    trace.set_tracer_provider(mine)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "no such thing")
    assert configure_tracing() is mine


def test_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be called often, and makes one provider; metrics of the app's own stay."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "console")
    mine = MeterProvider()
    metrics.set_meter_provider(mine)
    assert configure_tracing() is configure_tracing()
    assert metrics.get_meter_provider() is mine


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "OTEL_TRACES_EXPORTER names 'jaeger', which is not installed; .*otlp"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "OTEL_EXPORTER_OTLP_PROTOCOL='http/json': write one of http/"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "udp"}, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL='udp'"),
        ({"OTEL_METRICS_EXPORTER": "statsd"}, "OTEL_METRICS_EXPORTER names 'statsd'"),
    ],
)  # fmt: skip
def test_words_that_mean_nothing(monkeypatch: pytest.MonkeyPatch, said: dict[str, str], told: str) -> None:
    """A variable that cannot be followed is an error that names it, and nothing is half set up."""
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=told):
        configure_tracing()
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@pytest.mark.parametrize(
    "missing", ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter"]
)
def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Where the extra is missing the error says how to install it."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'tierline\[tracing\]'"):
        configure_tracing()


async def test_a_collector_that_never_answers(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A shutdown leaves behind who still waits for a collector, and says so."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        configure_tracing()
        await one_life(make_router)
        left = [thread for thread in threading.enumerate() if thread.name == "tierline tracing: shutdown"]
        assert [thread.daemon for thread in left] == [True]
        assert "not all spans could be exported in 2 s: is the collector there?" in caplog.text
        connection, _ = silent.accept()
        connection.close()
    for thread in left:
        await asyncio.to_thread(thread.join, 20)
        assert not thread.is_alive()


async def test_the_last_lifespan(make_router: MakeRouter, collector: Collector, to: Any) -> None:
    """With several Routers, spans are exported until the last of their lifespans is over."""
    to(None)
    configure_tracing()
    first, second = make_router(), make_router()
    async with first.lifespan():
        async with second.lifespan():
            pass
        await first.claude.messages.create(**ask())
    assert collector.named("route sonnet")


def test_a_process_that_ends(collector: Collector) -> None:
    """A script that has no lifespan loses nothing; several exporters work at once, and metrics have their own."""
    code = (
        "from opentelemetry import metrics\n"
        "from tierline.telemetry import configure_tracing\n"
        "configure_tracing('script').get_tracer('t').start_span('work').end()\n"
        "metrics.get_meter('m').create_counter('counted').add(1)\n"
    )
    env = {
        **os.environ,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.http,
        "OTEL_TRACES_EXPORTER": "otlp,console",
        "OTEL_METRICS_EXPORTER": "console",
    }
    shown = subprocess.run([sys.executable, "-c", code], check=True, env=env, capture_output=True, text=True)  # noqa: S603
    assert collector.named("work").resource["service.name"] == "script"
    assert '"name": "work"' in shown.stdout
    assert '"name": "counted"' in shown.stdout
    assert shown.stderr == ""
