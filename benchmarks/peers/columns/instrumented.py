"""Instrumentations that patch the SDK's classes: on for the blocks of their column, and off for those of the others."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.peers.column import Column, NotDoneError
from benchmarks.peers.columns.sdk import answered, calls_of, client_of
from benchmarks.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.peers.column import World
    from benchmarks.peers.rows import Kind


def patched(world: World, name: str, instrumentor: Any) -> Column:
    """The plain SDK under an instrumentor of OpenTelemetry."""
    spans = Spans()

    @contextmanager
    def around() -> Iterator[None]:
        instrumentor.instrument(tracer_provider=spans.provider)
        try:
            yield
        finally:
            instrumentor.uninstrument()

    async def flush() -> None:
        spans.flush()

    def check(kind: Kind, came: Any) -> str:
        if not spans.exported:
            raise NotDoneError("no span")
        return f"{answered(kind, came)}, {len(spans.exported)} spans exported"

    return Column(name, calls_of(client_of(world)), check, flush, around)
