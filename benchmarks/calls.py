"""What benchmarks call: a whole answer, a stream read event by event, by the SDK's helper, and to its first byte."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.upstream import PROSE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anthropic import AsyncAnthropic
    from anthropic.types import Message


def prompt(size: int) -> str:
    """A question that no rule is sure about, of about `size` characters, with some beyond ASCII as people write."""
    question = "My bike makes a “strange” noise when I pedal uphill and the battery is at 30%, what could it be? "
    return (question + PROSE * (size // len(PROSE) + 1))[:size]


def create(text: str) -> Callable[[AsyncAnthropic, str], Awaitable[Message]]:
    """A whole answer to `text`."""

    async def call(client: AsyncAnthropic, model: str) -> Message:
        return await client.messages.create(model=model, max_tokens=800, messages=[{"role": "user", "content": text}])

    return call


def raw_events(text: str) -> Callable[[AsyncAnthropic, str], Awaitable[int]]:
    """A stream, event by event; gives how many there were."""

    async def call(client: AsyncAnthropic, model: str) -> int:
        messages: Any = [{"role": "user", "content": text}]
        seen = 0
        async for _ in await client.messages.create(model=model, max_tokens=4_000, messages=messages, stream=True):
            seen += 1
        return seen

    return call


async def helper(client: AsyncAnthropic, model: str) -> None:
    """A stream through the SDK's helper, which builds the message up."""
    messages: Any = [{"role": "user", "content": prompt(1_000)}]
    async with client.messages.stream(model=model, max_tokens=4_000, messages=messages) as stream:
        async for _ in stream.text_stream:
            pass


async def first_byte(client: AsyncAnthropic, model: str) -> float:
    """Seconds until the first byte of a stream is there. The rest is read too, so that the connection is kept."""
    messages: Any = [{"role": "user", "content": prompt(1_000)}]
    began, first = time.perf_counter(), 0.0
    streaming = client.messages.with_streaming_response
    async with streaming.create(model=model, max_tokens=4_000, messages=messages, stream=True) as response:
        async for _ in response.http_response.aiter_raw():
            first = first or time.perf_counter() - began
    return first
