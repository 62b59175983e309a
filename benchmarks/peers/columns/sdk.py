"""The SDK as it comes, and clients that look like it. It is a column beside every peer."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final

from anthropic import AsyncAnthropic

from benchmarks.calls import create, raw_events
from benchmarks.peers.column import Column, NotDoneError
from benchmarks.peers.rows import PLAIN
from benchmarks.upstream import PROSE, STREAM_EVENTS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.peers.column import World
    from benchmarks.peers.rows import Kind

MODEL: Final = "claude-haiku-5-5"
PLAIN_AIOHTTP: Final = "plain SDK on aiohttp"
FEWEST: Final = STREAM_EVENTS - 10
"""Pieces of a stream; some peers hand its beginning and end on in another number of them."""


def calls_of(
    client: AsyncAnthropic, model: str = MODEL, bind: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext
) -> dict[Kind, Callable[[str], Awaitable[Any]]]:
    """The calls of a client; each in a `bind` of its own."""

    async def whole(text: str) -> Any:
        async with bind():
            return await create(text)(client, model)

    async def stream(text: str) -> Any:
        async with bind():
            return await raw_events(text)(client, model)

    return {"create": whole, "stream": stream}


def answered(kind: Kind, came: Any) -> str:
    """The whole answer came, with its usage, or every event of a stream."""
    if kind == "stream":
        return pieces(came)
    if came.content[0].text != PROSE or (came.usage.input_tokens, came.usage.output_tokens) != (260, 64):
        raise NotDoneError(f"not the upstream's answer: {came}"[:200])
    return "answered"


def pieces(count: int) -> str:
    """How many pieces of a stream came."""
    if count < FEWEST:
        raise NotDoneError(f"only {count} pieces of a stream of {STREAM_EVENTS} events")
    return f"{count:,} pieces read"


def client_of(world: World, **options: Any) -> AsyncAnthropic:
    """A client of the local upstream, with whatever else is said; its spans are off."""
    return AsyncAnthropic(api_key="none", base_url=world.url, **options)


def plain(world: World, name: str = PLAIN) -> Column:
    """The SDK on the HTTP client that it brings."""
    return Column(name, calls_of(client_of(world)), answered)


def on_aiohttp(world: World) -> Column:
    """The SDK on the faster HTTP client that it knows."""
    from anthropic import DefaultAioHttpClient  # noqa: PLC0415  (not in every environment)

    return Column(PLAIN_AIOHTTP, calls_of(client_of(world, http_client=DefaultAioHttpClient())), answered)
