"""Clients that leave, generators that nobody closes, apps that fail: each case under its own name, on real servers.

After each, `settled` has seen that nothing is held and no task is left, and the fixture that nothing was lost.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import httpx
import pytest
from websockets.asyncio.client import connect

from tests.servers.conftest import SOON, Browser, everywhere, headers_of, plain, until
from tierline.testing import Fault, Reply

if TYPE_CHECKING:
    from tests.servers.conftest import Served

LONG = Reply("word " * 400)
RESERVED = 2_000 * 5_000
"""Nanodollars that are held for the output of a call: `max_tokens` at $5 a million."""
PATHS = ("events", "raw", "opened")


READ: Final = 0.5
"""Seconds in which an app has read all that was sent to it. What is still in buffers when it leaves bounds nothing."""


async def closed(app: Served, call: str) -> int:
    """What the API billed for a call by the time that its connection was closed, which is soon."""
    (received,) = app.of(call)
    await until(lambda: received.ended != "open", SOON)
    assert received.ended == "disconnected"
    return received.billed


async def leaving_before_the_first_chunk(app: Served, call: str, tenant: str, path: str) -> None:
    app.fake.always(None, Fault.hang(after=1))
    browser = await Browser.get(app, f"/{path}", call, tenant)
    await app.reached(call)
    await browser.body(0)
    await browser.leave(politely=True)
    billed = await closed(app, call)
    assert await app.settled(tenant) >= billed > 0


@everywhere
@pytest.mark.parametrize("path", ["texts", "sync_texts"])
async def test_disconnect_before_first_chunk(app_under: Served, call: str, tenant: str, path: str) -> None:
    """Who leaves while the model is silent leaves no hold, no thread and no connection behind, and pays the prompt."""
    before = app_under.said()
    await leaving_before_the_first_chunk(app_under, call, tenant, path)
    assert app_under.said() == before


@plain
@pytest.mark.parametrize("path", PATHS)
async def test_disconnect_before_first_chunk_of_other_streams(
    app_under: Served, call: str, tenant: str, path: str
) -> None:
    """The same for `create(stream=True)`, raw bytes, and a stream that was open before the response was."""
    await leaving_before_the_first_chunk(app_under, call, tenant, path)


async def leaving_in_mid_stream(app: Served, call: str, tenant: str, path: str) -> None:
    app.fake.answer = lambda _: LONG
    app.fake.always(None, Fault.hang(after=20))
    browser = await Browser.get(app, f"/{path}", call, tenant)
    assert await browser.body(20)
    await asyncio.sleep(READ)
    await browser.leave()
    billed = await closed(app, call)
    spent = await app.settled(tenant)
    assert 0 < billed <= spent < RESERVED / 2
    assert await app.charged(tenant, call) == ["seen"]


@everywhere
async def test_disconnect_in_mid_stream(app_under: Served, call: str, tenant: str) -> None:
    """Who leaves in the midst of an answer pays at least what was billed, and less than the whole reservation."""
    await leaving_in_mid_stream(app_under, call, tenant, "texts")


@plain
@pytest.mark.parametrize("path", PATHS)
async def test_disconnect_in_other_streams(app_under: Served, call: str, tenant: str, path: str) -> None:
    """The same for `create(stream=True)`, raw bytes, and a stream that was open before the response was."""
    await leaving_in_mid_stream(app_under, call, tenant, path)


@everywhere
async def test_disconnect_during_backpressure(app_under: Served, call: str, tenant: str) -> None:
    """Who stops reading and then leaves ends a generator that waits to be read; nobody closes it but the sweep."""
    app_under.fake.answer = lambda _: Reply("word " * 20_000, output_tokens=1_900)
    # Nobody comes to its end, however fast a generator runs for which nobody waits any more.
    app_under.fake.always(None, Fault.pings(every=0.05, after=100))
    browser = await Browser.get(app_under, "/events?size=100000", call, tenant)
    assert await browser.body(100)
    received = await app_under.reached(call)

    async def full() -> bool:
        before = received.usage, (await app_under.about())["open"]
        return before[1] == 1

    await until(full)
    await browser.leave()
    await until(lambda: received.ended != "open", SOON)
    # Of what the model had already written, nobody has seen the most: it is in the buffers of the connection.
    assert 0 < await app_under.settled(tenant) < RESERVED + 1_000_000
    assert await app_under.charged(tenant, call) == ["seen"]


@everywhere
async def test_sync_generator_disconnect(app_under: Served, call: str, tenant: str) -> None:
    """A plain generator that waits for bytes in its thread is cut off when its client has gone, and settled."""
    before = app_under.said()
    app_under.fake.answer = lambda _: LONG
    app_under.fake.always(None, Fault.pings(every=0.05, after=20))
    browser = await Browser.get(app_under, "/sync_texts", call, tenant)
    assert await browser.body(20)
    await asyncio.sleep(READ)
    await browser.leave()
    billed = await closed(app_under, call)
    assert await app_under.settled(tenant) >= billed > 0
    assert await app_under.charged(tenant, call) == ["seen"]
    assert app_under.said() == before


@everywhere
async def test_generator_abandoned_gc_other_tenant(app_under: Served, call: str, tenant: str) -> None:
    """A generator that is collected in another tenant's request is charged to the tenant whose it was."""
    app_under.fake.answer = lambda _: LONG
    app_under.fake.always(None, Fault.hang(after=20))
    assert (await app_under.get("/abandon", call, tenant)).text == "forgotten"
    assert (await app_under.about())["open"] == 1
    assert (await app_under.get("/collect", "", "another tenant")).text == "collected"
    assert await closed(app_under, call) > 0
    assert 0 < await app_under.settled(tenant) < RESERVED / 2
    assert await app_under.charged(tenant, call) == ["seen"]
    assert "another tenant" not in (await app_under.about())["spent"]


@everywhere
@pytest.mark.parametrize("path", ["texts", "sync_texts"])
async def test_spec24_send_oserror(app_under: Served, call: str, tenant: str, path: str) -> None:
    """Under ASGI 2.4 it is `send` that tells of a client who has gone: at the next piece of the answer."""
    app_under.fake.answer = lambda _: LONG
    app_under.fake._chunk_delay = 0.02
    try:
        browser = await Browser.get(app_under, f"/{path}", call, tenant, **{"x-spec": "2.4"})
        assert await browser.body(20)
        await browser.leave()
        assert await closed(app_under, call) > 0
    finally:
        app_under.fake._chunk_delay = 0.0
    assert await app_under.charged(tenant, call) == ["seen"]


@everywhere
async def test_never_awaiting_generator(app_under: Served, call: str, tenant: str) -> None:
    """A generator that takes no breath runs on for a client who has gone: what it still calls is billed and settled."""
    browser = await Browser.get(app_under, "/never_awaits", call, tenant)
    assert await browser.body(20)
    await browser.leave()
    await until(lambda: all(received.ended != "open" for received in app_under.of(call)))
    kinds = await app_under.charged(tenant, call)
    # The first was answered before the client saw a byte. In the second the client is gone: it may be cancelled.
    assert kinds in (["exact"], ["exact", "exact"], ["exact", "input"])
    assert len(app_under.of(call)) in (1, 2)


@everywhere
async def test_exception_after_start(app_under: Served, call: str, tenant: str) -> None:
    """An app that fails in the midst of its answer breaks the connection, and what it had open is settled."""
    app_under.fake.answer = lambda _: LONG
    app_under.fake.always(None, Fault.hang(after=20))
    with suppress(httpx.RemoteProtocolError):  # `BaseHTTPMiddleware` ends an answer first, and fails then
        await app_under.get("/broken", call, tenant)
    assert await closed(app_under, call) > 0
    assert 0 < await app_under.settled(tenant) < RESERVED / 2
    assert await app_under.charged(tenant, call) == ["seen"]
    assert "a mistake of the app's" in app_under.said()


@everywhere
@pytest.mark.parametrize("path", ["answer", "sync_answer"])
async def test_a_whole_answer_for_nobody(app_under: Served, call: str, tenant: str, path: str) -> None:
    """A handler that answers at once runs to its end for a client who has gone, and is charged exactly."""
    app_under.fake._latency = 0.3
    try:
        browser = await Browser.get(app_under, f"/{path}", call, tenant)
        await app_under.reached(call, status=0)
        await browser.leave()
        (received,) = app_under.of(call)
        await until(lambda: received.ended != "open")
    finally:
        app_under.fake._latency = 0.0
    # `BaseHTTPMiddleware` cancels what it is around; the thread of a synchronous client nobody can.
    complete = received.ended == "complete"
    assert await app_under.charged(tenant, call) == ["exact" if complete else "input"]
    assert complete or path == "answer"


@plain
async def test_websocket_client_leaves(app_under: Served, call: str, tenant: str) -> None:
    """A socket that goes in the midst of an answer ends that, and it is settled; so was the answer before it."""
    app_under.fake.answer = lambda _: LONG
    host, port = app_under.address
    async with connect(f"ws://{host}:{port}/live", additional_headers=headers_of(call, tenant)) as socket:
        await socket.send("first")
        while await socket.recv():
            pass
        app_under.fake._chunk_delay = 0.02
        await socket.send("second")
        await socket.recv()
        socket.transport.abort()
    try:
        first, second = app_under.of(call)
        await until(lambda: second.ended != "open", SOON)
    finally:
        app_under.fake._chunk_delay = 0.0
    # Hypercorn lets an app write to a socket that has gone: it then reads to the end.
    assert (first.ended, second.ended) in (("complete", "disconnected"), ("complete", "complete"))
    assert first.billed < await app_under.settled(tenant) <= 2 * first.billed
    assert await app_under.charged(tenant, call) == ["exact", "seen" if second.ended == "disconnected" else "exact"]
