"""A collector of spans on loopback: OTLP over HTTP and over gRPC, decoded with the protocol's own messages."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1 import trace_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def _value(any_value: Any) -> Any:
    """A value as Python has it."""
    kind = any_value.WhichOneof("value")
    found = getattr(any_value, kind) if kind else None
    return tuple(map(_value, found.values)) if kind == "array_value" else found


def _values(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


@dataclass(frozen=True)
class Collected:
    """A span, as it came over the wire."""

    name: str
    kind: str
    status: str
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]]
    times: list[tuple[str, int]]
    """When each event was."""
    links: list[bytes]
    """The traces that it is linked to."""
    scope: str
    resource: dict[str, Any]
    trace: bytes
    id: bytes
    parent: bytes
    start: int
    end: int

    def event(self, name: str) -> dict[str, Any]:
        """What the only event of that name has."""
        (found,) = (values for said, values in self.events if said == name)
        return found


@dataclass
class Collector:
    """What was received since it was last cleared, from any thread."""

    http: str = ""
    grpc: str = ""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path (`grpc` for none) and headers of each export."""
    raw: list[bytes] = field(default_factory=list)
    _spans: list[Collected] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def receive(self, way: str, headers: dict[str, str], request: ExportTraceServiceRequest) -> None:
        found = [
            Collected(
                name=span.name,
                kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
                attributes=_values(span.attributes),
                events=[(event.name, _values(event.attributes)) for event in span.events],
                times=[(event.name, event.time_unix_nano) for event in span.events],
                links=[link.trace_id for link in span.links],
                scope=scoped.scope.name,
                resource=_values(resource.resource.attributes),
                trace=span.trace_id,
                id=span.span_id,
                parent=span.parent_span_id,
                start=span.start_time_unix_nano,
                end=span.end_time_unix_nano,
            )
            for resource in request.resource_spans
            for scoped in resource.scope_spans
            for span in scoped.spans
        ]
        with self._lock:
            self.requests.append((way, headers))
            self.raw.append(request.SerializeToString())
            self._spans += found

    def clear(self) -> None:
        with self._lock:
            self.requests.clear()
            self.raw.clear()
            self._spans.clear()

    @property
    def spans(self) -> list[Collected]:
        with self._lock:
            return list(self._spans)

    @property
    def bytes(self) -> bytes:
        """All that came, for a look for what must not be in it."""
        with self._lock:
            return b"\n".join(self.raw)

    def named(self, name: str) -> Collected:
        """The only span of that name."""
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def roots(self) -> list[Collected]:
        """Spans whose parent has not come."""
        spans = self.spans
        ids = {span.id for span in spans}
        return sorted((span for span in spans if span.parent not in ids), key=lambda span: span.start)

    def below(self, parent: Collected) -> list[Collected]:
        """Its children, in the order in which they began."""
        return sorted((span for span in self.spans if span.parent == parent.id), key=lambda span: span.start)

    def tree(self, *, hide: Sequence[str] = ()) -> list[str]:
        """Each span as `name kind status`, indented below its parent; those of the scopes in `hide` are left out."""
        lines: list[str] = []

        def walk(span: Collected, depth: int) -> None:
            shown = span.scope not in hide
            if shown:
                lines.append("  " * depth + f"{span.name} {span.kind} {span.status}")
            for child in self.below(span):
                assert child.trace == span.trace
                walk(child, depth + shown)

        for root in self.roots():
            walk(root, 0)
        return lines


class _Service(TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  (the protocol's name)
        self._collector.receive("grpc", dict(context.invocation_metadata()), request)
        return ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on two free ports."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            request = ExportTraceServiceRequest.FromString(body)
            collector.receive(self.path, {name.lower(): value for name, value in self.headers.items()}, request)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ExitStack() as stack:
        web = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        web.daemon_threads = True
        threading.Thread(target=web.serve_forever, args=(0.05,), name="collector", daemon=True).start()
        stack.callback(web.shutdown)
        collector.http = f"http://127.0.0.1:{web.server_address[1]}"
        server = grpc.server(ThreadPoolExecutor(2, thread_name_prefix="collector"))
        add_TraceServiceServicer_to_server(_Service(collector), server)
        collector.grpc = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        stack.callback(lambda: server.stop(None).wait())
        yield collector
