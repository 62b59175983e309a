"""SIGTERM to servers with calls under way, and tasks that are cancelled more than once."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.servers.conftest import SERVERS, SOON, Browser, everywhere, serving, until
from tierline.testing import FakeClaude, Fault, Reply

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.conftest import Served

on_each = pytest.mark.parametrize("server", SERVERS)


@on_each
async def test_sigterm_drain(server: str, tmp_path: Path) -> None:
    """What is under way at SIGTERM ends as it would have, in the server's time or the lifespan's, charged exactly."""
    fake = FakeClaude(answer=lambda _: Reply("word " * 100), chunk_delay=0.02)
    with serving(server, tmp_path, fake=fake, LEDGER="slow") as app:
        assert (await app.get("/detached", "later", "late")).text == "under way"
        browser = await Browser.get(app, "/texts", "now", "early")
        assert await browser.body()
        app.stop()
        assert b"word" in await browser.rest()
        await browser.leave()
        last = await app.ended()
        await until(lambda: all(r.ended != "open" for r in fake.requests), SOON)
        assert [r.ended for r in fake.requests] == ["complete", "complete"]
    (later,), (now,) = app.of("later"), app.of("now")
    assert (last["held"], last["open"]) == (0, 0)
    assert last["spent"] == {"late": later.billed, "early": now.billed}


@on_each
async def test_sigterm_timeout_exceeded(server: str, tmp_path: Path) -> None:
    """What does not end in time is cut off and settled: after the server's second, and five of the lifespan's."""
    fake = FakeClaude(answer=lambda _: Reply("word " * 100))
    fake.script(Fault.hang(), Fault.hang(), Fault.hang(after=8), Fault.hang(after=8))
    with serving(server, tmp_path, fake=fake, grace=1, LEDGER="slow") as app:
        waiting = await Browser.get(app, "/answer", "waiting", "a")
        await app.reached("waiting", status=0)
        assert (await app.get("/detached", "detached", "b")).text == "under way"
        await app.reached("detached", status=0)
        reading = await Browser.get(app, "/texts", "reading", "c")
        assert await reading.body()
        threads = await Browser.get(app, "/sync_texts", "threads", "d")
        assert await threads.body()
        await asyncio.sleep(0.5)  # until the app has read all that was sent: what is in buffers bounds nothing
        began = time.monotonic()
        app.stop()
        last = await app.ended()
        took = time.monotonic() - began
        await until(lambda: all(r.ended == "disconnected" for r in fake.requests), SOON)
        for browser in (waiting, reading, threads):
            await browser.leave()
    assert (last["held"], last["open"]) == (0, 0)
    assert set(last["spent"]) == {"a", "b", "c", "d"}
    for name, tenant in (("waiting", "a"), ("detached", "b"), ("reading", "c"), ("threads", "d")):
        assert last["spent"][tenant] >= app.of(name)[0].billed
        assert last["spent"][tenant] > 0
    assert took < 1 + 5 + SOON


@on_each
async def test_sigterm_after_the_client_has_gone(server: str, tmp_path: Path) -> None:
    """A request whose client has gone is cancelled once more when the server goes, too, and is settled once."""
    fake = FakeClaude(answer=lambda _: Reply("word " * 100))
    fake.always(None, Fault.hang(after=8))
    with serving(server, tmp_path, fake=fake, grace=1, LEDGER="slow") as app:
        browsers = [await Browser.get(app, "/texts", f"call{n}", "a") for n in range(5)]
        for browser in browsers:
            assert await browser.body()
        await asyncio.sleep(0.5)  # until the app has read all that was sent
        for browser in browsers:
            await browser.leave()
        app.stop()
        last = await app.ended()
        await until(lambda: all(r.ended == "disconnected" for r in fake.requests), SOON)
    assert (last["held"], last["open"]) == (0, 0)
    assert last["spent"]["a"] >= sum(r.billed for r in fake.requests) > 0


@on_each
async def test_sigterm_and_websockets(server: str, tmp_path: Path) -> None:
    """A socket on which an answer is written at SIGTERM is settled when the process has gone."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    fake = FakeClaude(answer=lambda _: Reply("word " * 100))
    fake.always(None, Fault.hang(after=8))
    with serving(server, tmp_path, fake=fake, grace=1, LEDGER="slow") as app:
        host, port = app.address
        headers = {"x-call": "live", "x-tenant": "a"}
        async with connect(f"ws://{host}:{port}/live", additional_headers=headers) as socket:
            await socket.send("hello")
            assert await socket.recv()
            app.stop()
            with suppress(ConnectionClosed):
                async for _ in socket:
                    pass
        last = await app.ended()
        await until(lambda: all(r.ended == "disconnected" for r in fake.requests), SOON)
    assert (last["held"], last["open"]) == (0, 0)
    assert last["spent"]["a"] >= fake.billed > 0


@everywhere
async def test_double_cancel(app_under: Served, call: str, tenant: str) -> None:
    """A task that is cancelled twice, however long after, leaves no hold, no task and no connection behind."""
    app_under.fake.answer = lambda _: Reply("word " * 400)
    app_under.fake.always(None, Fault.hang(after=20))
    names = [f"{call}-{turns}" for turns in range(8)]
    answers = await asyncio.gather(
        *(app_under.get(f"/twice?turns={turns}", name, tenant) for turns, name in enumerate(names))
    )
    assert {answer.text for answer in answers} == {"cancelled"}
    await until(lambda: all(app_under.of(name)[0].ended == "disconnected" for name in names), SOON)
    # Not what was billed, for some leave before they have read what is on its way.
    assert await app_under.charged(tenant, *names) == ["seen"] * len(names)


@on_each
async def test_a_server_that_is_killed_is_not_drained(server: str, tmp_path: Path) -> None:
    """The counterproof: without a shutdown there are no last words, so what the others read is of a real drain."""
    fake = FakeClaude(answer=lambda _: Reply("word " * 100))
    fake.always(None, Fault.hang(after=8))
    with serving(server, tmp_path, fake=fake) as app:
        browser = await Browser.get(app, "/texts", "call", "a")
        assert await browser.body()
        app.stop(9)
        await until(lambda: app.process.poll() is not None)
        assert not app.last_words.exists()
        with pytest.raises(httpx.HTTPError):
            await app.about()
        await browser.leave()
