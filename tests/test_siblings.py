"""A budget in memory is no budget for several workers: they are found out, and nobody else is."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tierline import Budget, Policy, Router, siblings
from tierline.asgi import TierlineMiddleware
from tierline.errors import ConfigurationError
from tierline.siblings import alone, inherited

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeRouter = Callable[..., Router]

APP = """
import logging, os
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from tierline import Budget, Router, operating, siblings

logging.basicConfig(level=logging.WARNING)
siblings.PATIENCE = 0.5
operating.announce = lambda *_: None  # it looks at the client: loading the SDK takes each worker a second
router = Router(budgets=[Budget("$5/day")], store=os.environ["STORE"])
who = Route("/", lambda request: PlainTextResponse(str(os.getpid())))
app = Starlette(routes=[who], lifespan=router.lifespan)
"""


PATIENCE = 90.0
"""Seconds for four processes to start on a machine that is busy."""


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(siblings, "PATIENCE", 0.3)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("WEB_CONCURRENCY", raising=False)
    others = inherited()  # of other tests, perhaps
    monkeypatch.setattr(siblings, "inherited", lambda: inherited() - others)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A socket that a server would have handed to this process."""
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        yield found


def in_another_process(work: Callable[[], Any]) -> Callable[[], int]:
    """Run `work` in a forked child, which has inherited all sockets; what it came to is asked for later."""
    child = os.fork()
    if not child:
        code = 3
        try:
            work()
            code = 0
        except ConfigurationError:
            code = 1
        finally:
            os._exit(code)
    return lambda: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def start(*budgets: str) -> None:
    async def run() -> None:
        async with alone(budgets):
            pass

    asyncio.run(run())


# Who is a sibling


async def test_the_second_worker_is_refused(listener: socket.socket) -> None:
    """Who shares a server's socket with a worker that keeps the same budget is told what to do."""
    async with alone(["$5/day"]):
        assert in_another_process(lambda: start("$5/day"))() == 1
        assert in_another_process(lambda: start("$6/day"))() == 0
        assert in_another_process(start)() == 0
    assert in_another_process(lambda: start("$5/day"))() == 0


async def test_several_of_one_process_share_the_lock(listener: socket.socket) -> None:
    """The first of two Routers to end leaves the lock to the other."""
    async with alone(["$5/day"]):
        async with alone(["$5/day"]):
            assert in_another_process(lambda: start("$5/day"))() == 1
        assert in_another_process(lambda: start("$5/day"))() == 1
    assert in_another_process(lambda: start("$5/day"))() == 0


async def test_what_it_is_told(listener: socket.socket) -> None:
    """The error names the budget, and the three ways out."""
    reader, writer = os.pipe()

    def fail() -> None:
        try:
            start("$5/day")
        except ConfigurationError as error:
            os.write(writer, str(error).encode())

    async with alone(["$5/day"]):
        in_another_process(fail)()
    os.close(writer)
    with open(reader) as said:  # noqa: ASYNC230, PTH123
        text = said.read()
    for part in ("'$5/day'", "sqlite:///tierline.db", "redis://", "start one worker"):
        assert part in text


async def test_an_old_worker_may_drain(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new worker waits for one that ends: servers reload that way."""
    monkeypatch.setattr(siblings, "PATIENCE", 10.0)
    async with alone(["$5/day"]):
        came_to = in_another_process(lambda: start("$5/day"))
        await asyncio.sleep(0.2)
    assert await asyncio.to_thread(came_to) == 0


async def test_several_routers_of_one_process(listener: socket.socket, tmp_path: Path) -> None:
    """Routers of one process are no siblings, whichever ends first, and no file is left behind."""
    async with alone(["$5/day"]), alone(["$5/day"]):
        pass
    first, second = alone(["$5/day"]), alone(["$5/day"])
    await first.__aenter__()
    await second.__aenter__()
    await first.__aexit__(None, None, None)
    await second.__aexit__(None, None, None)
    assert list(tmp_path.glob("*/*")) == []  # noqa: ASYNC240


async def test_without_a_socket_nobody_is_a_sibling() -> None:
    """A process that has inherited nothing, such as a script or a test, takes no lock."""
    async with alone(["$5/day"]):
        assert in_another_process(lambda: start("$5/day"))() == 0


async def test_a_worker_that_was_killed_leaves_nothing(listener: socket.socket) -> None:
    """After a `kill -9` the next worker starts at once."""
    reader, writer = os.pipe()

    def hang() -> None:
        async def run() -> None:
            async with alone(["$5/day"]):
                os.write(writer, b"x")
                await asyncio.sleep(60)

        asyncio.run(run())

    child = os.fork()
    if not child:
        try:
            hang()
        finally:
            os._exit(3)
    os.read(reader, 1)
    with pytest.raises(ConfigurationError):
        async with alone(["$5/day"]):
            pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)  # noqa: ASYNC222
    async with alone(["$5/day"]):
        pass
    os.close(reader)
    os.close(writer)


def test_which_sockets_count(tmp_path: Path) -> None:
    """Bound stream sockets count, listening or not; connections, datagrams, pairs and fresh ones do not."""
    before = inherited()
    made = [socket.socket() for _ in range(4)]
    bound, listening, client, _fresh = made
    bound.bind(("127.0.0.1", 0))
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    client.connect(listening.getsockname())
    server, _ = listening.accept()
    datagram = socket.socket(type=socket.SOCK_DGRAM)
    datagram.bind(("127.0.0.1", 0))
    local = socket.socket(socket.AF_UNIX)
    local.bind(str(tmp_path / "s"))
    pair = socket.socketpair()
    try:
        found = {where for where, _ in inherited() - before}
        assert found == {repr(each.getsockname()) for each in (bound, listening, local)}
    finally:
        for each in (*made, server, datagram, local, *pair):
            each.close()


# What a Router makes of it


async def refused(*routers: Router) -> bool:
    """Whether the second Router is refused in another worker of the server of the first."""
    first, second = routers

    async def run() -> None:
        async with second.lifespan():
            pass

    async with first.lifespan():
        return in_another_process(lambda: asyncio.run(run()))() == 1


async def test_routers_that_mind(make_router: MakeRouter, listener: socket.socket, tmp_path: Path) -> None:
    """A hard budget minds, wherever it is written; soft ones, none, another store and another mode do not."""
    hard, soft = Budget("$5/day"), Budget("$5/day", name="soft", hard=False)

    async def two(**options: Any) -> bool:
        return await refused(make_router(**options), make_router(**options))

    assert await two(budgets=[hard])
    assert await two(policy=Policy(budgets=[hard]))
    by_table = make_router(), make_router()
    for router in by_table:
        TierlineMiddleware(_app, router=router, routes={"/x": Policy(budgets=[hard])})
    assert await refused(*by_table)
    assert not await two(budgets=[soft])
    assert not await two()
    assert not await two(budgets=[hard], mode="observe")
    assert not await two(budgets=[hard], store=f"sqlite:///{tmp_path}/ledger.db")


async def test_a_mode_that_is_set_later(make_router: MakeRouter, listener: socket.socket) -> None:
    """What is refused at start-up is not to be had by switching to it; the one that is alone may, and may end."""
    first, second = (make_router(budgets=[Budget("$5/day")], mode="observe") for _ in range(2))

    async def switch() -> None:
        async with second.lifespan():
            try:
                second.mode = "enforce"
            finally:
                assert second.mode == "observe"

    async with first.lifespan():
        for _ in range(2):
            first.mode = "enforce"
        assert in_another_process(lambda: asyncio.run(switch()))() == 1
    async with first.lifespan():
        assert in_another_process(lambda: start("$5/day"))() == 1
    assert in_another_process(lambda: start("$5/day"))() == 0


async def _app(*_: Any) -> None:
    pass


async def test_web_concurrency(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Where only the environment speaks of workers, nobody is refused for it; the log says what to do."""
    for said, warned in (("1", False), ("4", True)):
        monkeypatch.setenv("WEB_CONCURRENCY", said)
        caplog.clear()
        async with alone(["$5/day"]):
            pass
        assert ("WEB_CONCURRENCY says several workers" in caplog.text) is warned


async def test_a_place_that_cannot_be_had(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no lock can be kept, the app starts, and the log says so."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    async with alone(["$5/day"]):
        assert "nobody looks for other workers" in caplog.text


# A real server


@contextmanager
def _served(tmp_path: Path, store: str, *options: str) -> Iterator[tuple[str, Path]]:
    """An app with a hard budget, served by uvicorn in processes of its own; its URL and its log."""
    (tmp_path / "served.py").write_text(APP)
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path / "log"
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(tmp_path), "--port", str(port), *options, "served:app"]
    environment = {
        **os.environ, "STORE": store, "TMPDIR": str(tmp_path), "PYTHONPATH": str(Path(siblings.__file__).parents[1]),
    }  # fmt: skip
    with log.open("wb") as output:
        server = subprocess.Popen(  # noqa: S603
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield f"http://127.0.0.1:{port}", log
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _asked(url: str) -> str | None:
    """Which process answers on a new connection."""
    try:
        return httpx.get(url, timeout=5).text
    except httpx.TransportError:
        return None


def test_four_workers_memory_store_refused_or_warned(tmp_path: Path) -> None:
    """Of four workers with a hard budget in memory only one ever serves, and the log says what to do."""
    with _served(tmp_path, "memory://", "--workers", "4") as (url, log):
        served: set[str] = set()
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and log.read_text().count("another worker of this server") < 3:
            served.add(_asked(url) or "")
            time.sleep(0.02)
        served |= {_asked(url) or "" for _ in range(50)}
        assert len(served - {""}) == 1
        text = log.read_text()
        assert text.count("another worker of this server") >= 3
        assert 'Router(store="sqlite:///tierline.db")' in text
        assert len(re.findall(r"Application startup complete", text)) == 1


def test_four_workers_with_a_shared_store(tmp_path: Path) -> None:
    """The same app with a file serves with all four."""
    with _served(tmp_path, f"sqlite:///{tmp_path}/ledger.db", "--workers", "4") as (url, log):
        served: set[str] = set()
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and len(served - {""}) < 4:
            served.add(_asked(url) or "")
            time.sleep(0.005)
        assert len(served - {""}) == 4, log.read_text()
        assert "ConfigurationError" not in log.read_text()


def test_one_worker_that_reloads(tmp_path: Path) -> None:
    """A server that reloads its one worker starts the next one."""
    with _served(tmp_path, "memory://", "--reload", "--reload-dir", str(tmp_path)) as (url, log):
        until = time.monotonic() + PATIENCE
        while not (first := _asked(url)) and time.monotonic() < until:
            time.sleep(0.05)
        (tmp_path / "served.py").write_text(f"{APP}\n# changed\n")
        while (second := _asked(url)) in (None, first) and time.monotonic() < until:
            time.sleep(0.05)
        assert second not in (None, first), log.read_text()
        assert "another worker" not in log.read_text()
