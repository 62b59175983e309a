"""The example app's traffic in a real backend: Arize Phoenix, asked over its own API what it has received."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.soak

ROOT = Path(__file__).parents[2]
PHOENIX = Path(sys.prefix, "phoenix", "bin", "phoenix")
"""Where `make soak` puts it: a large package, in an environment of its own."""
ASKED = {
    "answer": "Why does my battery lose range in winter, and what can I do about it?",
    "classify": "My parcel has not arrived.",
    "summary": "He wants his money back.",
    "contracts": "Review: the lessee pays all repairs and waives every claim.",
    "chat": "Are you open on Saturday?",
    "order": "Two bells and a lock, please.",
}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def process(*command: str, until: str, **env: str) -> Iterator[None]:
    """A server that answers at `until`."""
    running = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **env})  # noqa: S603
    try:
        while running.poll() is None:
            try:
                httpx.get(until, timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        assert running.poll() is None, "it did not start"
        yield
    finally:
        running.terminate()
        running.wait(30)


def wait_for(port: int) -> None:
    """Until somebody listens there."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return


def spans_in(url: str) -> list[dict[str, Any]]:
    found = httpx.get(f"{url}/v1/projects/default/spans", params={"limit": 1000}, timeout=30)
    found.raise_for_status()
    data: list[dict[str, Any]] = found.json()["data"]
    return data


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_desks_traffic(protocol: str, tmp_path: Path) -> None:
    """Every request of the desk is one trace in Phoenix, with the routing of its call below the SDK's span."""
    if not PHOENIX.exists():
        pytest.skip("Phoenix is not installed: `make soak` does that")
    port, grpc, desk = free_port(), free_port(), free_port()
    url, app = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{desk}"
    with ExitStack() as stack:
        stack.enter_context(
            process(
                str(PHOENIX), "serve", until=f"{url}/healthz", PHOENIX_WORKING_DIR=str(tmp_path),
                PHOENIX_HOST="127.0.0.1", PHOENIX_PORT=str(port), PHOENIX_GRPC_PORT=str(grpc),
                PHOENIX_TELEMETRY_ENABLED="false",
            )
        )  # fmt: skip
        wait_for(grpc)  # it opens after the other one
        with process(
            sys.executable, "-m", "uvicorn", "--factory", "example_app.main:build", "--port", str(desk),
            until=f"{app}/ready", OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{grpc}" if protocol == "grpc" else url,
        ):  # fmt: skip
            for path, text in ASKED.items():
                asked = {"text": text}
                answer = httpx.post(
                    f"{app}/{path}", json=asked, headers={"authorization": "Bearer desk-acme"}, timeout=60
                )
                assert answer.status_code == 200, answer.text
            # While the desk is up: at its end it waits for a slow backend no longer than for one that is away.
            wanted = len(ASKED)
            for _ in range(240):
                spans = spans_in(url)
                if sum(span["name"].startswith("POST /") for span in spans) >= wanted:
                    break
                time.sleep(0.5)
    by_id = {span["context"]["span_id"]: span for span in spans}
    routes = [span for span in spans if span["name"].startswith("route ")]
    assert len(routes) == wanted
    for route in routes:
        call = by_id[route["parent_id"]]
        assert call["name"] == "anthropic.messages.create"
        assert route["attributes"]["tierline.cost.usd"] > 0
        assert route["status_code"] == "UNSET"
        below = {span["name"].split()[0] for span in spans if span["parent_id"] == route["context"]["span_id"]}
        assert "attempt" in below <= {"attempt", "classify"}
        root = call
        while root["parent_id"] in by_id:
            root = by_id[root["parent_id"]]
        assert root["name"].removeprefix("POST /") in ASKED
    assert not [text for text in ASKED.values() if text in str(spans)]
