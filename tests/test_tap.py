"""The taps: what the app reads is what the API sent, byte for byte, and as early as it was sent."""

from __future__ import annotations

import asyncio
import json
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from anthropic import Anthropic, AsyncAnthropic

from tierline import Budget, Router
from tierline.anthropic import attach
from tierline.classify import FixedClassifier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ASK: dict[str, Any] = {
    "model": "claude-haiku-4-5",
    "max_tokens": 500,
    "messages": [{"role": "user", "content": "Hello"}],
}
USAGE = {"input_tokens": 25, "output_tokens": 1, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}


def frame(kind: str, **data: Any) -> bytes:
    text = json.dumps({"type": kind, **data}, ensure_ascii=False)
    return f"event: {kind}\ndata: {text}\n\n".encode()


def block(index: int, kind: str, **data: Any) -> bytes:
    return frame("content_block_start", index=index, content_block={"type": kind, **data})


def delta(index: int, kind: str, **data: Any) -> bytes:
    return frame("content_block_delta", index=index, delta={"type": kind, **data})


CITED = {
    "type": "char_location", "cited_text": "the “usage”", "document_index": 0, "document_title": None,
    "start_char_index": 0, "end_char_index": 9, "file_id": None,
}  # fmt: skip
STREAM = [
    frame(
        "message_start",
        message={
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-haiku-4-5",
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": USAGE,
        },
    ),
    frame("ping"),
    block(0, "thinking", thinking="", signature=""),
    delta(0, "thinking_delta", thinking="Hm, event: message_delta\n\n"),
    delta(0, "signature_delta", signature="abc"),
    frame("content_block_stop", index=0),
    block(1, "text", text="", citations=[]),
    delta(1, "text_delta", text='Grüße, "usage": {"output_tokens": 0}'),
    delta(1, "citations_delta", citation=CITED),
    frame("content_block_stop", index=1),
    frame("news_of_next_year", usage={"output_tokens": 10**9}),
    b": a comment\n\n",
    block(2, "tool_use", id="toolu_1", name="search", input={}),
    delta(2, "input_json_delta", partial_json='{"q": "x"}'),
    frame("content_block_stop", index=2),
    frame("message_delta", delta={"stop_reason": "tool_use", "stop_sequence": None}, usage={"output_tokens": 77}),
    frame("message_stop"),
]
# A frame in two pieces, two frames in one, and one that ends in the middle of a letter.
PIECES = [
    STREAM[0][:40],
    STREAM[0][40:],
    STREAM[1] + STREAM[2],
    *STREAM[3:7],
    STREAM[7][:90],
    STREAM[7][90:],
    *STREAM[8:],
]
WHOLE = b"".join(STREAM)


class Upstream:
    """Sends a piece when the reader has seen the one before, and no sooner."""

    def __init__(self) -> None:
        self.seen = threading.Semaphore(0)
        self.url = ""
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        try:
            for piece in PIECES:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
                if not await asyncio.to_thread(self.seen.acquire, timeout=20):
                    break  # whoever waits for all of it has been waiting for this one
            else:
                writer.write(b"0\r\n\r\n")
            writer.close()
            await writer.wait_closed()
        except ConnectionError:
            self.left.set()


@asynccontextmanager
async def upstream() -> AsyncIterator[Upstream]:
    found = Upstream()
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    async with server:
        found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield found


def router() -> Router:
    return Router(classifier=FixedClassifier("simple"), budgets=[Budget("$1")])


async def read(client: AsyncAnthropic, way: str, saw: Callable[[], None]) -> list[Any]:
    """Read a stream in one of the SDK's ways, and say of each piece that it was seen."""
    found: list[Any] = []
    if way == "bytes":
        async with client.messages.with_streaming_response.create(**ASK, stream=True) as response:
            async for chunk in response.http_response.aiter_raw():
                found.append(chunk)
                saw()
        assert response.http_response.elapsed is not None
    elif way == "raw response":
        raw = await client.messages.with_raw_response.create(**ASK, stream=True)
        found += [event.model_dump() async for event in await raw.parse()]
    elif way == "events":
        found += [event.model_dump() async for event in await client.messages.create(**ASK, stream=True)]
    else:
        async with client.messages.stream(**ASK) as stream:
            found += [event.model_dump() async for event in stream]
            found.append((await stream.get_final_message()).model_dump())
    return found


def read_in_thread(client: Anthropic, way: str, saw: Callable[[], None]) -> list[Any]:
    """The same with a synchronous client."""
    found: list[Any] = []
    if way == "bytes":
        with client.messages.with_streaming_response.create(**ASK, stream=True) as response:
            for chunk in response.http_response.iter_raw():
                found.append(chunk)
                saw()
        assert response.http_response.elapsed is not None
    elif way == "raw response":
        found += [event.model_dump() for event in client.messages.with_raw_response.create(**ASK, stream=True).parse()]
    elif way == "events":
        found += [event.model_dump() for event in client.messages.create(**ASK, stream=True)]
    else:
        with client.messages.stream(**ASK) as stream:
            found += [event.model_dump() for event in stream]
            found.append(stream.get_final_message().model_dump())
    return found


WAYS = ("bytes", "raw response", "events", "helper")


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("way", WAYS)
async def test_every_byte_as_it_came_and_as_early(way: str, blocking: bool) -> None:
    """What is read through a tap is what the plain SDK reads, in the same pieces, and nothing is kept back."""

    async def once(routes: Router | None) -> list[Any]:
        async with upstream() as api:
            # In pieces where somebody looks at each; else the API does not wait.
            saw = api.seen.release
            if way != "bytes":
                api.seen.release(len(PIECES))
            if blocking:
                with Anthropic(api_key="none", base_url=api.url, max_retries=0) as plain:
                    client = plain if routes is None else attach(plain, routes)
                    return await asyncio.to_thread(read_in_thread, client, way, saw)
            async with AsyncAnthropic(api_key="none", base_url=api.url, max_retries=0) as plain:
                return await read(plain if routes is None else attach(plain, routes), way, saw)

    routes = router()
    through = await once(routes)
    assert through == await once(None)
    if way == "bytes":
        assert through == PIECES
        assert b"".join(through) == WHOLE
    (balance,) = await routes.balances()
    # Read on the way: 25 tokens at $1 and 77 at $5 a million.
    assert (balance.spent, balance.held, balance.estimated) == (25 * 1_000 + 77 * 5_000, 0, 0)
    await routes.aclose()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_the_connection_is_closed_however_often_who_reads_is_cancelled(times: int) -> None:
    """A reader that is cancelled, and again while it lets go, leaves nothing open and nothing in the pool."""
    routes = router()
    async with upstream() as api, httpx2.AsyncClient() as http:
        client = attach(AsyncAnthropic(api_key="none", base_url=api.url, http_client=http, max_retries=0), routes)
        begun = asyncio.Event()

        async def reading() -> None:
            async with client.messages.stream(**ASK) as stream:
                async for _ in stream:
                    begun.set()

        task = asyncio.create_task(reading())
        api.seen.release(3)
        await begun.wait()
        for _ in range(times):
            task.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [c for c in http._transport._pool.connections if not c.is_closed()] == []  # type: ignore[attr-defined]
        (balance,) = await routes.balances()
        assert (balance.held, balance.spent > 25_000, balance.estimated > 0) == (0, True, True)
        api.seen.release(len(PIECES))
        await asyncio.wait_for(api.left.wait(), 20)
    await routes.aclose()
