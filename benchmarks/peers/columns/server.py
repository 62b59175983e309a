"""The ASGI side, of `benchmarks.asgi`, and OpenTelemetry's instrumentation beside it: nobody calls Claude."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

from benchmarks import asgi
from benchmarks.peers.column import Column, NotDoneError
from benchmarks.spans import Spans

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from benchmarks.peers.column import World
    from benchmarks.peers.rows import Kind


def of_asgi(column: asgi.Column) -> Column:
    """A column of that benchmark, whose own tests see to it that it answers."""

    async def call(ask: Callable[[], Awaitable[None]], _: str) -> None:
        await ask()

    kinds: dict[Kind, Any] = {
        "request": column.request, "fastapi": column.fast, "events": column.stream, "served": column.served
    }  # fmt: skip
    calls = {kind: partial(call, ask) for kind, ask in kinds.items()}
    return Column(column.name, calls, lambda _, __: "answered", also=("none",))


def traced() -> Column:
    """The contrib instrumentation as it comes, its spans exported in batches."""
    spans = Spans()
    middle = partial(OpenTelemetryMiddleware, tracer_provider=spans.provider)
    found = of_asgi(asgi.column("OpenTelemetry's ASGI instrumentation", middle))

    def check(*_: Any) -> str:
        if not spans.exported:
            raise NotDoneError("no span")
        return f"answered, {len(spans.exported)} spans exported"

    async def flush() -> None:
        spans.flush()

    found.flush, found.check = flush, check
    return found


@asynccontextmanager
async def opened(_: World) -> AsyncIterator[list[Column]]:
    """All of them."""
    yield [*map(of_asgi, asgi.columns()), traced()]
