"""Server-sent events: what changes is sent, whoever hangs is let go of, and a server can end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.dashboard.conftest import BEARER, TOKEN
from tierline import Budget, Router
from tierline.dashboard import app as app_module
from tierline.dashboard import dashboard, live
from tierline.dashboard.board import Board
from tierline.dashboard.live import Pace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from starlette.types import ASGIApp

    Serve = Callable[[ASGIApp], Awaitable[httpx.AsyncClient]]

QUICK = Pace(look=0.01, tick=0.01, ping=0.05, life=30.0, patience=10.0)
SAID = [{"role": "user", "content": "hi"}]


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> Callable[[Pace], None]:
    """Make pages whose streams live faster."""
    monkeypatch.setattr("tierline.dashboard.kept.EACH", 0.0)
    monkeypatch.setattr("tierline.dashboard.kept.SHARE", 0)
    return lambda pace: monkeypatch.setattr(app_module, "Pace", lambda: pace)


class Events:
    """What a browser makes of a stream."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self._lines = response.aiter_lines()

    async def next(self, kind: str = "") -> tuple[str, Any]:
        """The next event, or the next of a kind."""
        found = ""
        while True:
            line = await anext(self._lines)
            if line.startswith("event: "):
                found = line.removeprefix("event: ")
            elif line.startswith("data: ") and kind in ("", found):
                return found, json.loads(line.removeprefix("data: "))
            elif line.startswith((":", "retry")) and kind == line:
                return line, None


@asynccontextmanager
async def events(browser: httpx.AsyncClient, **query: Any) -> AsyncIterator[Events]:
    async with browser.stream("GET", "/page/api/events", params=query, headers=BEARER) as response:
        yield Events(response)


def app_of(router: Router, **options: Any) -> Starlette:
    return Starlette(routes=[Mount("/page", dashboard(router, token=TOKEN, **options))], lifespan=router.lifespan)


async def test_what_changes_is_sent(desk: Router, serve: Serve, paced: Callable[[Pace], None]) -> None:
    """The overview at once, and again after a call, with its decision; nothing twice, and pings where nothing is."""
    paced(QUICK)
    browser = await serve(app_of(desk, trace="http://jaeger/{trace_id}"))
    async with asyncio.timeout(20), events(browser, hours=48) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        await stream.next("retry: 1000")
        kind, first = await stream.next()
        assert (kind, first["total"]["calls"], len(first["hours"])) == ("overview", 0, 48)
        assert first["trace"] == "http://jaeger/{trace_id}"
        await stream.next(": ping")
        await desk.claude.messages.create(model="auto", max_tokens=10, messages=SAID)
        seen = dict([await stream.next(), await stream.next()])
        while not seen.get("overview", first)["total"]["calls"] or "decisions" not in seen:
            seen |= dict([await stream.next()])
        (decision,) = seen["decisions"]
        assert seen["overview"]["total"]["cost"] == decision["cost"]
        await desk.claude.messages.create(model="auto", max_tokens=10, messages=SAID)
        _, newer = await stream.next("decisions")
        assert decision["id"] not in {row["id"] for row in newer}


async def test_one_look_is_enough_for_all(
    desk: Router, serve: Serve, paced: Callable[[Pace], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many look, the store is asked once each second; and not at all when they have gone."""
    paced(QUICK)
    monkeypatch.setattr("tierline.dashboard.kept.EACH", 3600.0)
    asked = 0
    fullest = desk.ledger.fullest

    async def counted(most: int) -> Any:
        nonlocal asked
        asked += 1
        return await fullest(most)

    monkeypatch.setattr(desk.ledger, "fullest", counted)
    browser = await serve(app_of(desk))

    async def look() -> None:
        async with events(browser) as stream:
            await stream.next("overview")
            await stream.next(": ping")

    await asyncio.gather(*(look() for _ in range(20)), browser.get("/page/api/accounts", headers=BEARER))
    assert asked == 1


async def test_streams_are_bounded(
    desk: Router, serve: Serve, paced: Callable[[Pace], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One too many is told to come back, and may when another has gone."""
    paced(QUICK)
    monkeypatch.setattr(app_module, "MOST_STREAMS", 2)
    browser = await serve(app_of(desk))
    async with asyncio.timeout(20):
        async with events(browser) as one, events(browser) as other:
            await asyncio.gather(one.next("overview"), other.next("overview"))
            refused = await browser.get("/page/api/events", headers=BEARER)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
            assert (await browser.head("/page/api/events", headers=BEARER)).status_code == 200
        while (response := await status_of_stream(browser)) != 200:
            assert response == 503


async def status_of_stream(browser: httpx.AsyncClient) -> int:
    async with browser.stream("GET", "/page/api/events", headers=BEARER) as response:
        return response.status_code


async def test_a_stream_ends_so_that_permission_is_looked_at_again(
    desk: Router, serve: Serve, paced: Callable[[Pace], None]
) -> None:
    """After its time, as a whole answer."""
    paced(Pace(look=0.01, tick=0.01, life=0.1))
    browser = await serve(app_of(desk))
    async with asyncio.timeout(20), browser.stream("GET", "/page/api/events", headers=BEARER) as response:
        assert b"event: overview" in await response.aread()


async def test_whoever_does_not_read_is_let_go_of(
    desk: Router, paced: Callable[[Pace], None], caplog: pytest.LogCaptureFixture
) -> None:
    """A send that waits for its client ends the stream, and nothing of it stays behind."""
    paced(Pace(look=0.01, tick=0.01, patience=0.05))
    app = dashboard(desk, token=TOKEN)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if b"overview" in message.get("body", b""):
            await asyncio.Event().wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    scope = {
        "type": "http", "method": "GET", "path": "/api/events", "query_string": b"", "server": ("desk.test", 80),
        "headers": [(b"authorization", BEARER["authorization"].encode())], "scheme": "http", "http_version": "1.1",
    }  # fmt: skip
    with caplog.at_level("INFO", "tierline"):
        async with asyncio.timeout(10):
            await app(scope, receive, send)
    assert "page: a stream is ended that nobody reads" in caplog.messages
    assert sent[-1]["more_body"]
    assert not [task for task in asyncio.all_tasks() if "client gone" in task.get_name()]


async def test_a_client_that_goes(desk: Router, paced: Callable[[Pace], None], serve: Serve, quiet: None) -> None:
    """Ends its stream, and nothing is logged as an error."""
    paced(QUICK)
    browser = await serve(app_of(desk))
    async with asyncio.timeout(20):
        async with events(browser) as stream:
            await stream.next("overview")
        while [task for task in asyncio.all_tasks() if "client gone" in task.get_name()]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_the_store_goes_away(
    make_router: Callable[..., Router], serve: Serve, paced: Callable[[Pace], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was known stays on the page, and it says since when; when the store is back, it is as before."""
    from tierline.errors import LedgerUnavailableError

    paced(QUICK)
    router = make_router(budgets=[Budget("$5/day")])
    browser = await serve(app_of(router))
    await router.claude.messages.create(model="auto", max_tokens=10, messages=SAID)

    async def away(*_: object, **__: object) -> Any:
        raise LedgerUnavailableError("no route to the store")

    async with asyncio.timeout(20), events(browser) as stream:
        _, before = await stream.next("overview")
        assert before["trouble"] is None
        with monkeypatch.context() as patch:
            for what in ("balances", "traffic", "decisions"):
                patch.setattr(router, what, away)
            patch.setattr(router.ledger, "fullest", away)
            _, during = await stream.next("overview")
            assert "no route to the store" in during["trouble"]
            assert "what is shown is of 20" in during["trouble"]
            assert (during["total"], during["budgets"][0]["spent"]) == (
                before["total"], before["budgets"][0]["spent"],
            )  # fmt: skip
        while (await stream.next("overview"))[1]["trouble"]:
            pass


async def test_the_store_has_never_been_there(desk: Router, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is there, and says so."""
    from tierline.errors import LedgerUnavailableError

    async def away(*_: object, **__: object) -> Any:
        raise LedgerUnavailableError("no route to the store")

    browser = await serve(app_of(desk))
    for what in ("balances", "traffic", "decisions", "decision"):
        monkeypatch.setattr(desk, what, away)
    monkeypatch.setattr(desk.ledger, "fullest", away)
    overview = (await browser.get("/page/api/overview", headers=BEARER)).json()
    assert overview["trouble"] == "the store cannot be asked: no route to the store; nothing can be shown yet"
    assert (overview["budgets"], overview["total"]["calls"], len(overview["hours"])) == ([], 0, 24)
    for path in ("accounts", "decisions", "decisions/1"):
        found = await browser.get(f"/page/api/{path}", headers=BEARER)
        assert (found.status_code, "no route" in found.json()["error"]) == (503, True)


SERVER = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from tierline import Router
from tierline.dashboard import dashboard
router = Router()
page = dashboard(router, token=sys.argv[1])
app = Starlette(routes=[Mount("/page", page)], lifespan=router.lifespan)
uvicorn.run(app, fd=int(sys.argv[2]), log_level="warning")
"""


def start() -> tuple[subprocess.Popen[bytes], str]:
    """A server of its own, and where it listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", SERVER, TOKEN, str(listener.fileno())],
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "ANTHROPIC_API_KEY": "none"},
        )
        return process, f"http://127.0.0.1:{listener.getsockname()[1]}"


async def test_a_server_that_waits_for_its_connections_can_end() -> None:
    """Uvicorn waits for ever by itself: with open streams it still ends by SIGTERM, and each of them ends whole."""
    process, url = start()
    try:
        async with (
            asyncio.timeout(60),
            httpx.AsyncClient(base_url=url, timeout=60) as browser,
            events(browser) as one,
            events(browser) as other,
        ):
            await asyncio.gather(one.next("overview"), other.next("overview"))
            process.send_signal(signal.SIGTERM)
            for stream in (one, other):
                with pytest.raises(StopAsyncIteration):
                    await stream.next("never")
        _, errors = await asyncio.to_thread(partial(process.communicate, timeout=30))
        assert (process.returncode, errors) == (-signal.SIGTERM, b"")
    finally:
        process.kill()


def test_only_a_server_that_was_told_to_end_does() -> None:
    """A handler of another kind says nothing, and here nobody was told."""
    assert not live.going_down()


async def test_streams_that_begin_at_once_are_bounded(
    desk: Router, serve: Serve, paced: Callable[[Pace], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where permission to act is looked up in a thread before each of them."""
    paced(QUICK)
    monkeypatch.setattr(app_module, "MOST_STREAMS", 3)
    browser = await serve(app_of(desk, may_act=lambda *_: True))
    statuses: list[int] = []
    all_there = asyncio.Event()

    async def look() -> None:
        async with browser.stream("GET", "/page/api/events", headers=BEARER) as response:
            statuses.append(response.status_code)
            if len(statuses) == 20:
                all_there.set()
            await all_there.wait()

    async with asyncio.timeout(20):
        await asyncio.gather(*(look() for _ in range(20)))
    assert sorted(statuses) == [200] * 3 + [503] * 17


async def test_many_lengths_of_time(desk: Router) -> None:
    """Whoever asks for each of them has a bounded number kept up, and the store is asked for few at a time."""
    board = Board(desk)
    read, now, most = desk.traffic, 0, 0

    async def slow(*given: Any, **named: Any) -> Any:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.001)
        now -= 1
        return await read(*given, **named)

    desk.traffic = slow  # type: ignore[method-assign]
    shots = await asyncio.gather(*(board.overview(hours) for hours in range(1, 101)))
    assert len(shots) == 100
    assert len(board._views) <= 32
    assert most <= 2
