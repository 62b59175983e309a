"""The example's containers: what their files name is there, and runs as they say. Images are built by nobody here."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from example_app.main import build
from tests.needs import need
from tests.redis_server import redis_server
from tests.traces.collector import Collector
from tierline import Router
from tierline.configuration.loading import unheard
from tierline.testing._serve import serving_in_thread

need("uvicorn", "yaml", "opentelemetry.exporter.otlp")

import uvicorn  # noqa: E402
import yaml  # noqa: E402
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest  # noqa: E402
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

    from tierline.ledger import Balance

ROOT = Path(__file__).parents[1]
DESK = ROOT / "example_app"
FILE: dict[str, Any] = yaml.safe_load((DESK / "docker-compose.yml").read_text("utf-8"))
SERVICES: dict[str, Any] = FILE["services"]
DOCKERFILE = re.sub(r"\\\n", "", (DESK / "Dockerfile").read_text("utf-8"))
KEYS = {"authorization": "Bearer desk-acme"}


def steps(word: str) -> list[str]:
    """What stands behind a word of the Dockerfile."""
    return re.findall(rf"^ *{word} (.*)$", DOCKERFILE, re.MULTILINE)


def command_of(service: str) -> list[str]:
    """What a container of the desk runs."""
    found: list[str] = SERVICES[service].get("command") or json.loads(steps("CMD")[-1])
    return [str(word) for word in found]


def environment_of(service: str) -> dict[str, str]:
    """Its environment, with the defaults of what whoever starts it may set."""
    return {
        name: re.sub(r"\$\{\w+:-(.*?)\}", r"\1", str(value)) for name, value in SERVICES[service]["environment"].items()
    }


def test_everything_is_pinned_and_of_this_machine() -> None:
    """Images have a version to the patch; no port is open to others."""
    images = [service["image"] for service in SERVICES.values() if "image" in service]
    assert len(images) == 4
    bases = [line.split()[0] for line in steps("FROM")]
    assert len(bases) == 2
    for image in (*images, *bases):
        assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-[a-z-]+)?", image), image
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert len(ports) == 6
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_what_is_copied_and_mounted_is_there() -> None:
    """Every file exists and is let through to the build; what is mounted is what its name says."""
    let = set((DESK / "Dockerfile.dockerignore").read_text("utf-8").split())
    for line in steps("COPY"):
        *sources, _ = line.split()
        if sources[0].startswith("--from"):
            continue
        for source in sources:
            assert (ROOT / source).exists(), source
            assert any(f"!{part}" in let for part in (source, *map(str, Path(source).parents))), source
    for service in SERVICES.values():
        if "build" in service:
            assert (
                DESK / service["build"]["context"] / service["build"]["dockerfile"]
            ).resolve() == DESK / "Dockerfile"
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source in FILE["volumes"]:
                continue
            assert yaml.safe_load((DESK / source).read_text("utf-8"))
    source = yaml.safe_load((DESK / "monitoring" / "datasources.yml").read_text("utf-8"))["datasources"][0]
    assert source["url"] == "http://prometheus:9090"


def test_the_commands_are_there() -> None:
    """The server knows the options, the module has the factory, and it listens where ports and probes look."""
    program, *words = command_of("desk")
    assert program == "uvicorn"
    known = {option for each in uvicorn.main.params for option in each.opts}
    assert {word for word in words if word.startswith("--")} <= known
    assert callable(build)
    assert "example_app.main:build" in words
    port = words[words.index("--port") + 1]
    assert SERVICES["desk"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert steps("EXPOSE") == [port]
    (probe,) = re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+)", DOCKERFILE)
    assert probe[0] == port
    assert probe[1] in {getattr(route, "path", "") for route in build().routes}
    grace = int(words[words.index("--timeout-graceful-shutdown") + 1])
    assert grace < int(SERVICES["desk"]["stop_grace_period"].removesuffix("s"))
    assert importlib.util.find_spec(command_of("claude")[2]) is not None


def test_nobody_is_root() -> None:
    """The user has no rights, nothing can be written, and no rights can be had."""
    assert re.search(r"useradd --uid 10001 .*nologin (\w+)", DOCKERFILE)
    assert steps("USER") == ["desk"]
    for name in ("desk", "claude"):
        assert (SERVICES[name]["read_only"], SERVICES[name]["cap_drop"]) == (True, ["ALL"])
        assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


def test_variables_are_heard() -> None:
    """Each variable of the desk is one that something reads, and each host is a service."""
    found = environment_of("desk")
    assert unheard(found) == {}
    source = "".join(path.read_text("utf-8") for path in DESK.glob("*.py"))
    for name in found:
        assert name.startswith(("TIERLINE_", "OTEL_", "ANTHROPIC_")) or f'"{name}"' in source, name
    hosts = set(re.findall(r"(?:http|redis)://([a-z]+):", " ".join(found.values()))) - {"localhost"}
    assert hosts <= {*SERVICES}
    assert hosts <= {*SERVICES["desk"]["depends_on"]}


def redis_options() -> dict[str, str]:
    """What Redis is started with, as the tests' own servers are told."""
    words = command_of("redis")
    assert words[0] == "redis-server"
    return {
        name.removeprefix("--").replace("-", "_"): value for name, value in zip(words[1::2], words[2::2], strict=True)
    }


def test_redis_is_as_money_needs_it() -> None:
    """What is spent outlives Redis, and is never dropped for want of memory; a real one takes the options."""
    options = redis_options()
    assert (options["appendonly"], options["maxmemory_policy"]) == ("yes", "noeviction")
    assert SERVICES["redis"]["volumes"] == ["balances:/data"]
    with redis_server(**options) as server:
        assert server.url.startswith("redis://")


@pytest.fixture
def taken() -> Iterator[tuple[str, Collector, list[ExportMetricsServiceRequest]]]:
    """A receiver of traces and metrics on a socket: its URL, and what came."""
    traces, metrics = Collector(), list[ExportMetricsServiceRequest]()

    async def take(request: Request) -> Response:
        body = await request.body()
        if request.url.path == "/v1/traces":
            traces.receive(request.url.path, dict(request.headers), ExportTraceServiceRequest.FromString(body))
        else:
            metrics.append(ExportMetricsServiceRequest.FromString(body))
        return Response()

    app = Starlette(routes=[Route(f"/v1/{kind}", take, methods=["POST"]) for kind in ("traces", "metrics")])
    with serving_in_thread(app) as url:
        yield url, traces, metrics


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def started(stack: ExitStack, words: list[str], environment: dict[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A container's command as a process of this machine."""
    program = {"uvicorn": [sys.executable, "-m", "uvicorn"], "python": [sys.executable]}[words[0]]
    file = stack.enter_context(log.open("wb"))
    process = subprocess.Popen(  # noqa: S603  (our own interpreter)
        [*program, *words[1:]], cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
    )

    def end() -> None:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    stack.callback(end)
    return process


def until(condition: Any, log: Path) -> None:
    """Wait for a process; the limit is that of the test."""
    while True:
        try:
            if condition():
                return
        except (httpx.HTTPError, OSError):
            pass
        assert "Traceback" not in log.read_text("utf-8"), log.read_text("utf-8")
        time.sleep(0.1)


async def balances(store: str) -> list[Balance]:
    """Those of acme."""
    router = Router(store=store)
    try:
        return await router.balances("acme")
    finally:
        await router.aclose()


@pytest.mark.timeout(300)
def test_the_desk_runs_as_its_container_does(
    tmp_path: Path, taken: tuple[str, Collector, list[ExportMetricsServiceRequest]]
) -> None:
    """Two workers on one Redis, with the command and the environment of the file: they share balances and a job.

    Only addresses are others. Traces come from both, metrics under a name of each worker's own; SIGTERM ends them well.
    """
    url, traces, metrics = taken
    port, api = free_port(), free_port()
    log = tmp_path / "desk.log"
    inherited = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    source = {**inherited, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONUNBUFFERED": "1"}
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(**redis_options()))
        addresses = {
            "http://claude:8484": f"http://127.0.0.1:{api}",
            "http://jaeger:4318": url,
            "redis://redis:6379/0": server.url,
        }
        found = environment_of("desk") | {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{url}/v1/metrics"}
        for name, value in found.items():
            for there, here in addresses.items():
                found[name] = found[name].replace(there, here) if there in value else found[name]
        started(stack, [*command_of("claude")[:-1], api], source, tmp_path / "claude.log")
        words = [port if word == "8000" else "127.0.0.1" if word == "0.0.0.0" else word for word in command_of("desk")]  # noqa: S104
        desk = started(stack, words, {**source, **found}, log)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=KEYS, timeout=60) as http:
            until(lambda: http.get("/ready").status_code == 200, log)
            until(lambda: log.read_text("utf-8").count("Application startup complete.") == 2, log)
            job = http.post("/jobs", json={"texts": ["My brakes squeak.", "Thank you!"]}).json()
            workers = set()

            def asked() -> bool:
                """Each on a connection of its own, so that both workers come to it."""
                key = {"authorization": "Bearer desk-operator"}
                workers.add(httpx.get(f"{http.base_url}/operator/mode", headers=key, timeout=60).json()["process"])
                answer = httpx.post(f"{http.base_url}/answer", json={"text": "Are you open?"}, headers=KEYS, timeout=60)
                assert answer.status_code == 200, answer.text
                return len(workers) == 2

            until(asked, log)
            until(lambda: http.get(f"/jobs/{job['id']}").json()["state"] == "ended", log)
            drafts = http.get(f"/jobs/{job['id']}").json()["results"]
            assert [draft["outcome"] for draft in drafts] == ["succeeded"] * 2, drafts
            assert http.get("/plan").json()["share"] > 0
        os.kill(desk.pid, signal.SIGTERM)
        assert desk.wait(60) == 0, log.read_text("utf-8")
        (acme,) = [row for row in asyncio.run(balances(found["TIERLINE_STORE"])) if row.budget == "plan"]
        assert acme.spent > 0
        assert acme.held == 0
    assert {span.name.split()[0] for span in traces.spans} >= {"route", "attempt"}
    assert {span.resource["service.name"] for span in traces.spans} == {"support-desk"}
    names = {
        value.value.string_value
        for request in metrics
        for resource in request.resource_metrics
        for value in resource.resource.attributes
        if value.key == "service.instance.id"
    }
    assert len(names) == 2
