"""Real servers: the app in a process under uvicorn or Hypercorn, FakeClaude on a socket, browsers that leave."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

import tierline
from tests.servers.charges import check
from tierline.testing import FakeClaude

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.servers.charges import Kind
    from tierline.testing._log import Received

HERE: Final = Path(__file__).parent
SERVERS: Final = ("uvicorn", "hypercorn")
DEADLINE: Final = 30.0
"""Seconds after which something that has not happened never will."""
START: Final = 90.0
"""The same for a process that starts."""
SOON: Final = 5.0
"""The same for what is promised within one second: machines that run tests are slow."""
LOST: Final = (
    "never retrieved", "was destroyed", "never awaited", "different Context", "Failed to detach",
    "failed in the background", "in the background failed", "not settled", "are not done", "asynchronous generator",
)  # fmt: skip
"""What nothing may say that ends well."""
CONNECTIONS: Final = ("EventWrapper.wait", "TCPServer._idle_timeout", "worker_serve.<locals>._server_callback")
"""Tasks of Hypercorn's own, which it has for a while for connections that are closed."""
_calls = count(1)


async def until(condition: Callable[[], Any], within: float = DEADLINE) -> Any:
    """Wait until something is true that nobody tells us of, and give it back."""
    end = time.monotonic() + within
    while True:
        found = condition()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < end, "it did not happen"
        await asyncio.sleep(0.01)


@dataclass
class Served:
    """An app that is served, and what is around it."""

    url: str
    fake: FakeClaude
    process: subprocess.Popen[bytes]
    log: Path
    last_words: Path
    idle: list[str]
    """The tasks of the app while it does nothing but tell of itself."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    async def get(self, path: str, call: str = "", tenant: str = "", **headers: str) -> httpx.Response:
        """A browser that waits for the whole answer, on a connection of its own."""
        async with httpx.AsyncClient(base_url=self.url, timeout=DEADLINE) as browser:
            return await browser.get(path, headers=headers_of(call, tenant) | headers)

    async def about(self, *, calls: bool = False) -> dict[str, Any]:
        """What the app says of itself."""
        for _ in range(20):
            # Hypercorn takes a connection that it is too busy to read from for an idle one, and closes it.
            with suppress(httpx.RemoteProtocolError):
                found: dict[str, Any] = (await self.get(f"/about{'?calls=yes' if calls else ''}")).json()
                found["tasks"] = [name for name in found["tasks"] if name not in CONNECTIONS]
                return found
        raise AssertionError(self.said())

    def of(self, call: str) -> list[Received]:
        """What the API received of a call."""
        return [received for received in self.fake.requests if received.headers.get("x-call") == call]

    async def reached(self, call: str, *, status: int = 200) -> Received:
        """Wait until a call has come so far."""
        found = await until(lambda: [r for r in self.of(call) if r.status == status and (status or r.body)])
        return found[0]

    async def settled(self, tenant: str, within: float = SOON) -> int:
        """What a tenant has spent, once nothing is held and nothing runs any more. Nanodollars."""

        async def quiet() -> dict[str, Any] | None:
            found = await self.about()
            return found if not found["held"] and not found["open"] else None

        await until(quiet, within)

        async def alone() -> bool:
            return (await self.about())["tasks"] == self.idle

        try:
            await until(alone)
        except AssertionError:
            raise AssertionError(f"{(await self.about())['tasks']} is not {self.idle}") from None
        found = await self.about()
        return int(found["spent"].get(tenant, 0))

    async def charged(self, tenant: str, *calls: str) -> list[Kind]:
        """How the attempts of calls were charged, each as it must be by what was read of it, and no more than that."""
        spent = await self.settled(tenant)
        found = await self.about(calls=True)
        kinds = [kind for call in calls for kind in check(found, call, self.of(call), tenant)]
        assert spent == sum(attempt[2] for call in calls for attempt in found["calls"].get(call, []))
        return kinds

    def said(self) -> str:
        """What the process has written."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    async def ended(self, within: float = DEADLINE) -> dict[str, Any]:
        """Wait for the end of the process, and give back its last words."""
        await until(lambda: self.process.poll() is not None, within)
        found: dict[str, Any] = json.loads(self.last_words.read_text(encoding="utf-8"))
        return found


def headers_of(call: str, tenant: str) -> dict[str, str]:
    return {name: value for name, value in (("x-call", call), ("x-tenant", tenant)) if value}


class Browser:
    """A browser of which only the socket is left: it can stop reading, and go in any way."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def get(cls, served: Served, path: str, call: str, tenant: str, **headers: str) -> Browser:
        """Ask, and read nothing yet. Its buffers are small, and those of the server's soon full."""
        plug = socket.socket()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plug.setblocking(False)
        await asyncio.get_running_loop().sock_connect(plug, served.address)
        reader, writer = await asyncio.open_connection(sock=plug, limit=1024)
        lines = [f"{name}: {value}" for name, value in {"host": "app", **headers_of(call, tenant), **headers}.items()]
        writer.write("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
        await writer.drain()
        return cls(reader, writer)

    async def body(self, size: int = 1) -> bytes:
        """The next bytes after the head; all that there are where the answer ends before."""
        async with asyncio.timeout(DEADLINE):
            await self.reader.readuntil(b"\r\n\r\n")
            try:
                return await self.reader.readexactly(size)
            except asyncio.IncompleteReadError as ended:
                return ended.partial

    async def rest(self) -> bytes:
        """All that still comes."""
        async with asyncio.timeout(DEADLINE):
            return await self.reader.read()

    async def leave(self, *, politely: bool = False) -> None:
        """Go: with an orderly end of the connection, or as one whose machine is gone."""
        if not politely:
            plug = self.writer.get_extra_info("socket")
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
            return
        self.writer.close()
        await self.writer.wait_closed()


@contextmanager
def serving(
    server: str, work: Path, *, grace: int = 30, fake: FakeClaude | None = None, **more: str
) -> Iterator[Served]:
    """Serve the app in a process of its own; `grace` are the seconds that the server gives its requests at the end."""
    fake = fake or FakeClaude(keep=200_000)
    log, last_words = work / f"{server}.log", work / f"{server}.json"
    with (
        fake.serve_in_thread() as url,
        socket.create_server(("127.0.0.1", 0), backlog=1024) as listener,
        log.open("wb") as out,
    ):
        environment = os.environ | {
            "ANTHROPIC_API_KEY": fake.api_key,
            "ANTHROPIC_BASE_URL": url,
            "PYTHONPATH": os.pathsep.join([str(Path(tierline.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
            "PYTHONASYNCIODEBUG": "1",
            "LAST_WORDS": str(last_words),
            **more,
        }
        process = subprocess.Popen(  # noqa: S603  (our own script)
            [sys.executable, str(HERE / "serve.py"), server, str(listener.fileno()), str(grace)],
            env=environment, pass_fds=[listener.fileno()], stdout=out, stderr=out,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            # Where the server does not come up, its browsers are refused and need not wait.
            listener.close()
            for _ in range(2):  # what is made on first use is there the second time
                time.sleep(0.3)
                with httpx.Client(base_url=address, timeout=START) as browser:
                    try:
                        tasks = browser.get("/about").json()["tasks"]
                    except httpx.HTTPError:
                        raise AssertionError(log.read_text(encoding="utf-8")) from None
            idle = [name for name in tasks if name not in CONNECTIONS]
            yield Served(address, fake, process, log, last_words, idle)
        finally:
            process.terminate()
            try:
                process.wait(DEADLINE)
            finally:
                process.kill()
                process.wait()
    said = log.read_text(encoding="utf-8", errors="replace")
    assert not any(words in said for words in LOST), said


class Up:
    """The server that is up: one at a time, exchanged where a test needs another."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.name = ""
        self.context: Any = None
        self.served: Any = None

    def get(self, name: str) -> Served:
        """The app under a server with something around: `uvicorn base`."""
        if name != self.name:
            self.close()
            server, around = name.split()
            place = self.work / name.replace(" ", "-")
            place.mkdir(exist_ok=True)
            self.context = serving(server, place, AROUND=around, LEDGER="slow")
            self.served, self.name = self.context.__enter__(), name
        found: Served = self.served
        return found

    def close(self) -> None:
        """Stop it, and look at what it said."""
        context, self.context, self.name = self.context, None, ""
        if context is not None:
            context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """The servers of this run, closed at its end."""
    found = Up(tmp_path_factory.mktemp("servers"))
    yield found
    found.close()


@pytest.fixture
def app_under(request: pytest.FixtureRequest, up: Up) -> Iterator[Served]:
    """The app under a server. What it has logged by the end of the test must not tell of anything lost."""
    found = up.get(request.param)
    already = len(found.said())
    yield found
    found.fake.clear()
    found.fake.answer = None
    said = found.said()[already:]
    assert not any(words in said for words in LOST), said


@pytest.fixture
def call() -> str:
    """A name for a call that no other test has."""
    return f"call-{next(_calls)}"


@pytest.fixture
def tenant(call: str) -> str:
    """A tenant that no other test has."""
    return f"tenant-of-{call}"


def under(*around: str) -> pytest.MarkDecorator:
    """Under both servers, with each of these around."""
    names = [f"{server} {name}" for server in SERVERS for name in around]
    return pytest.mark.parametrize("app_under", names, indirect=True)


plain = under("nothing")
everywhere = under("nothing", "base", "copies")
"""With nothing around, `BaseHTTPMiddleware`, and middleware that copy the scope."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one server follow each other, however the rest is shuffled: it is started once."""
    items.sort(key=lambda item: getattr(item, "callspec", NO_SERVER).params.get("app_under", ""))


NO_SERVER: Final = SimpleNamespace(params={})
