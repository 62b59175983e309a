"""OpenLLMetry's instrumentation of the SDK."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from opentelemetry.instrumentation.anthropic import AnthropicInstrumentor

from benchmarks.peers.columns.instrumented import patched
from benchmarks.peers.columns.sdk import plain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.peers.column import Column, World


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[list[Column]]:
    """The SDK without it, and with it."""
    yield [plain(world), patched(world, "OpenLLMetry", AnthropicInstrumentor())]
