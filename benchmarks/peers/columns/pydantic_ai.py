"""pydantic-ai: an agent without tools, on the SDK's client."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.providers.anthropic import AnthropicProvider

from benchmarks.peers.column import Column, NotDoneError
from benchmarks.peers.columns.sdk import MODEL, client_of, pieces, plain
from benchmarks.spans import Spans
from benchmarks.upstream import PROSE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from benchmarks.peers.column import World
    from benchmarks.peers.rows import Kind


def agent_of(world: World, name: str, spans: Spans | None = None) -> Column:
    """An agent, made once."""
    model = AnthropicModel(MODEL, provider=AnthropicProvider(anthropic_client=client_of(world)))
    agent = Agent(model, model_settings={"max_tokens": 800})
    if spans is not None:
        agent.instrument = InstrumentationSettings(tracer_provider=spans.provider)

    async def whole(text: str) -> Any:
        return await agent.run(text)

    async def stream(text: str) -> int:
        async with agent.run_stream(text) as running:
            return len([piece async for piece in running.stream_text(delta=True, debounce_by=None)])

    def check(kind: Kind, came: Any) -> str:
        if kind == "create" and came.output != PROSE:
            raise NotDoneError(f"not the upstream's answer: {came}"[:200])
        said = "answered" if kind == "create" else pieces(came)
        if spans is None:
            return said
        if not spans.exported:
            raise NotDoneError("no span")
        return f"{said}, {len(spans.exported)} spans exported"

    async def flush() -> None:
        if spans is not None:
            spans.flush()

    return Column(name, {"create": whole, "stream": stream}, check, flush)


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[list[Column]]:
    """An agent, with and without spans."""
    yield [
        plain(world),
        agent_of(world, "pydantic-ai"),
        agent_of(world, "pydantic-ai, instrumented", Spans()),
    ]
