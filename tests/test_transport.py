"""The transport over aiohttp behaves as the SDK's own client: each test asks the same of both, on real sockets."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import os
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic, DefaultAsyncHttpxClient

from tierline import Router
from tierline.classify import FixedClassifier
from tierline.transport import AiohttpTransport, _socket

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tierline.testing import FakeClaude

    Handler = Callable[["Visit"], Awaitable[None]]

ASK: dict[str, Any] = {
    "model": "claude-haiku-5-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Why is it blue?"}]
}  # fmt: skip
MESSAGE = json.dumps({
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-haiku-5-5", "stop_reason": "end_turn",
    "content": [{"type": "text", "text": "Because."}], "usage": {"input_tokens": 3, "output_tokens": 2},
}).encode()  # fmt: skip
SOON = httpx2.Timeout(5, connect=0.2, read=0.2, write=0.2, pool=0.2)
EVENT = b'event: ping\ndata: {"type": "ping"}\n\n'
LIMITS = httpx2.Limits(max_connections=2, max_keepalive_connections=2, keepalive_expiry=5)


class Visit:
    """One connection of a client, as a server sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: Server) -> None:
        self.reader = reader
        self.writer = writer
        self.server = server

    async def request(self) -> tuple[bytes, bytes]:
        """Head and body of the next one."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0
        )
        body = await self.reader.readexactly(length)
        self.server.requests.append((head, body))
        self.server.changed.set()
        return head, body

    def answer(self, body: bytes = MESSAGE, *headers: str, status: str = "200 OK", length: int | None = None) -> None:
        lines = [
            f"HTTP/1.1 {status}", f"content-length: {len(body) if length is None else length}",
            "content-type: application/json", *headers,
        ]  # fmt: skip
        self.writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    def stream(self) -> None:
        self.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")

    def event(self, event: bytes = EVENT) -> None:
        self.writer.write(b"%x\r\n%b\r\n" % (len(event), event))

    def reset(self) -> None:
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.writer.transport.abort()


class Server:
    """A server that does to each connection what `handler` says, and remembers how many there were."""

    def __init__(self) -> None:
        self.handler: Handler = answering
        self.url = ""
        self.visits = 0
        self.gone = 0
        self.requests: list[tuple[bytes, bytes]] = []
        self.changed = asyncio.Event()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        try:
            await self.handler(Visit(reader, writer, self))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.gone += 1
            self.changed.set()
            writer.close()

    async def until(self, *, requests: int = 0, gone: int = 0) -> None:
        """Wait for so many requests, and for so many connections to end."""
        while len(self.requests) < requests or self.gone < gone:
            await self.changed.wait()
            self.changed.clear()


async def answering(visit: Visit) -> None:
    while True:
        await visit.request()
        visit.answer()


@asynccontextmanager
async def listening(tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(asyncio.CancelledError):
            await server.accept(reader, writer)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    server.url = f"{'https' if tls else 'http'}://localhost:{listener.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with listening() as found:
        yield found


def http(kind: str, limits: httpx2.Limits = LIMITS, **options: Any) -> httpx2.AsyncClient:
    """The SDK's HTTP client, or the same with the transport."""
    if kind == "aiohttp":
        options["transport"] = AiohttpTransport(limits, options.pop("verify", None))
    return DefaultAsyncHttpxClient(limits=limits, trust_env=True, **options)


@pytest.fixture(params=["httpx2", "aiohttp"])
def kind(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.fixture
async def client(server: Server, kind: str) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(api_key="k", base_url=server.url, http_client=http(kind), max_retries=0) as made:
        yield made


async def cause_of(call: Awaitable[Any], error: type[Exception] = anthropic.APIConnectionError) -> type[object]:
    """The class of what the SDK's error came from."""
    with pytest.raises(error) as caught:
        await call
    assert type(caught.value) is error
    return type(caught.value.__cause__)


async def test_the_same_request(server: Server) -> None:
    """Both send the same headers, once each, with the same values, and the same body."""
    for kind in ("httpx2", "aiohttp"):
        async with AsyncAnthropic(api_key="k", base_url=server.url, http_client=http(kind)) as client:
            await client.messages.create(**ASK, extra_headers={"x-name": "Zoë", "idempotency-key": "1"})
            await client.models.list()
    sent = []
    for head, body in server.requests:
        first, *lines = head.rstrip().split(b"\r\n")
        pairs = [line.split(b": ", 1) for line in lines]
        sent.append((first, sorted((name.lower(), value) for name, value in pairs), body))
    assert sent[:2] == sent[2:]
    assert len(sent) == 4


async def test_answers(client: AsyncAnthropic, server: Server) -> None:
    """A message, its headers and its encodings, and an error of the API with its body, arrive as they were sent."""

    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.answer(gzip.compress(MESSAGE), "content-encoding: gzip", "request-id: req_1", "x-two: a", "x-two: b")
        await visit.request()
        visit.answer(b'{"type": "error", "error": {"type": "overloaded_error", "message": "no"}}', status="529 Busy")
        await visit.request()
        visit.writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n" + MESSAGE)

    server.handler = handler
    raw = await client.messages.with_raw_response.create(**ASK)
    assert ((await raw.parse()).id, raw.headers["request-id"], raw.headers["x-two"]) == ("msg_1", "req_1", "a, b")
    assert (raw.http_response.reason_phrase, raw.http_response.http_version) == ("OK", "HTTP/1.1")
    assert raw.http_response.elapsed.total_seconds() > 0
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client.messages.create(**ASK)
    assert (caught.value.status_code, caught.value.response.reason_phrase) == (529, "Busy")
    assert pickle.loads(pickle.dumps(caught.value)).status_code == 529  # noqa: S301
    assert (await client.messages.create(**ASK)).id == "msg_1"


async def test_nobody_listens(kind: str) -> None:
    """A connection that is refused, or has no address, was never made."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        for host in (f"127.0.0.1:{free.getsockname()[1]}", "nowhere.invalid"):
            async with AsyncAnthropic(
                api_key="k", base_url=f"http://{host}", http_client=http(kind), max_retries=0
            ) as client:
                assert await cause_of(client.messages.create(**ASK)) is httpx2.ConnectError


async def test_nobody_accepts(kind: str) -> None:
    """A connection that is not made in time is a timeout of connecting."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        async with AsyncAnthropic(
            api_key="k", base_url=f"http://127.0.0.1:{full.getsockname()[1]}", http_client=http(kind),
            timeout=SOON, max_retries=0,
        ) as client:  # fmt: skip
            found = await cause_of(client.messages.create(**ASK), anthropic.APITimeoutError)
        for one in waiting:
            one.close()
    assert found is httpx2.ConnectTimeout


async def test_no_name_in_time(client: AsyncAnthropic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that nobody tells the address of is a timeout of connecting, too."""

    async def never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", never)
    slow = client.with_options(base_url="http://slow.example", timeout=SOON)
    assert await cause_of(slow.messages.create(**ASK), anthropic.APITimeoutError) is httpx2.ConnectTimeout


async def test_silence(client: AsyncAnthropic, server: Server) -> None:
    """A server that does not answer, or stops in the midst of an answer, is a timeout of reading."""

    async def handler(visit: Visit) -> None:
        await visit.request()
        if server.visits > 1:
            visit.stream()
            visit.event()
        await visit.reader.read()

    server.handler = handler
    slow = client.with_options(timeout=SOON)
    assert await cause_of(slow.messages.create(**ASK), anthropic.APITimeoutError) is httpx2.ReadTimeout
    stream = await slow.messages.create(**ASK, stream=True)
    events = aiter(stream)
    with pytest.raises((httpx2.ReadTimeout, anthropic.APITimeoutError)) as caught:
        await anext(events)
    assert httpx2.ReadTimeout in (type(caught.value), type(caught.value.__cause__))


async def test_a_server_that_does_not_read(client: AsyncAnthropic, server: Server) -> None:
    """A request that the server stops taking is a timeout of writing, and does not wait for ever."""

    async def handler(visit: Visit) -> None:
        visit.writer.transport.pause_reading()
        await asyncio.Event().wait()

    server.handler = handler
    long = {**ASK, "messages": [{"role": "user", "content": "x" * 30_000_000}]}
    patient = client.with_options(timeout=httpx2.Timeout(60, write=0.3))
    assert await cause_of(patient.messages.create(**long), anthropic.APITimeoutError) is httpx2.WriteTimeout


async def test_a_long_request(client: AsyncAnthropic, server: Server) -> None:
    """A long body arrives whole, with its length, and keeps the connection."""
    long = {**ASK, "messages": [{"role": "user", "content": "ü" * 400_000}]}
    for _ in range(2):
        await client.messages.create(**long)
    assert [json.loads(body)["messages"] for _, body in server.requests] == [long["messages"]] * 2
    assert all(b"transfer-encoding" not in head.lower() for head, _ in server.requests)
    assert server.visits == 1


async def test_an_early_refusal(client: AsyncAnthropic, server: Server) -> None:
    """An answer that comes before the request has been read is an answer."""

    async def handler(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        visit.answer(b'{"type": "error", "error": {"type": "request_too_large", "message": "no"}}', status="413 Large")
        await visit.reader.readexactly(1_000_000)

    server.handler = handler
    with pytest.raises(anthropic.APIStatusError) as caught:
        await client.messages.create(**{**ASK, "messages": [{"role": "user", "content": "x" * 1_000_000}]})
    assert caught.value.status_code == 413


@pytest.mark.parametrize(
    ("ending", "cause"),
    [
        ("close", httpx2.RemoteProtocolError),
        ("reset", httpx2.ReadError),
        ("cut", httpx2.RemoteProtocolError),
        ("nonsense", httpx2.RemoteProtocolError),
    ],
)
async def test_broken_answers(client: AsyncAnthropic, server: Server, ending: str, cause: type[Exception]) -> None:
    """What breaks after a request was sent is never taken for a connection that was not made."""

    async def handler(visit: Visit) -> None:
        await visit.request()
        if ending == "reset":
            visit.reset()
        elif ending == "cut":
            visit.answer(MESSAGE[:20], length=len(MESSAGE))
            await visit.writer.drain()
        elif ending == "nonsense":
            visit.writer.write(b"HELLO\r\n\r\n")
            await visit.writer.drain()

    server.handler = handler
    assert await cause_of(client.messages.create(**ASK)) is cause


@pytest.mark.parametrize("ending", ["close", "reset"])
async def test_broken_streams(client: AsyncAnthropic, server: Server, ending: str) -> None:
    """A stream that breaks raises what is no end where it is read."""
    cause = (httpx2.ReadError, httpx2.RemoteProtocolError) if ending == "reset" else httpx2.RemoteProtocolError
    go = asyncio.Event()

    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.stream()
        visit.event()
        await go.wait()
        if ending == "reset":
            visit.reset()

    server.handler = handler
    streaming = client.messages.with_streaming_response
    async with streaming.create(**ASK, stream=True) as response:
        parts = response.http_response.aiter_raw()
        assert await anext(parts) == EVENT
        go.set()
        with pytest.raises(cause):
            await anext(parts)


async def test_a_header_that_is_none(client: AsyncAnthropic, server: Server) -> None:
    """A header that cannot be sent is this side's mistake, and reaches nobody."""
    found = await cause_of(client.messages.create(**ASK, extra_headers={"x-bad": "a\r\nx-more: b"}))
    assert found is httpx2.LocalProtocolError
    assert all(b"x-more" not in head for head, _ in server.requests)


async def test_an_address_that_is_none(client: AsyncAnthropic) -> None:
    """So is an address of no protocol that is known."""
    odd = client.with_options(base_url="gopher://localhost")
    assert await cause_of(odd.messages.create(**ASK)) is httpx2.UnsupportedProtocol


async def test_connections_are_kept(client: AsyncAnthropic, server: Server) -> None:
    """One connection serves one call after the other, whole and streamed."""

    async def handler(visit: Visit) -> None:
        while True:
            _, body = await visit.request()
            if b'"stream":true' in body.replace(b" ", b""):
                visit.stream()
                for _ in range(1_000):
                    visit.event()
                visit.event(b'event: message_stop\ndata: {"type": "message_stop"}\n\n')
                visit.writer.write(b"0\r\n\r\n")
            else:
                visit.answer()

    server.handler = handler
    for _ in range(3):
        await client.messages.create(**ASK)
        seen = [event.type async for event in await client.messages.create(**ASK, stream=True)]
        assert seen == ["message_stop"]
    assert server.visits == 1


async def test_a_connection_that_the_server_closed(kind: str) -> None:
    """A kept connection that was closed meanwhile is not used, even if the loop had no time to hear of it."""
    served = 0

    def serve(listener: socket.socket) -> None:
        nonlocal served
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                while b"Why is it blue?" not in connection.recv(65_536):
                    pass
                connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(MESSAGE), MESSAGE))
                served += 1
                time.sleep(0.1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with AsyncAnthropic(api_key="k", base_url=url, http_client=http(kind), max_retries=0) as client:
            await client.messages.create(**ASK)
            time.sleep(0.3)  # noqa: ASYNC251  (the loop hears of nothing)
            await client.messages.create(**ASK)
        thread.join()
    assert served == 2


async def test_connections_that_are_not_kept(server: Server, kind: str) -> None:
    """Limits of no kept connection, and of a short life, hold."""
    for limits in (httpx2.Limits(max_keepalive_connections=0), httpx2.Limits(keepalive_expiry=0.05)):
        server.visits = 0
        async with AsyncAnthropic(api_key="k", base_url=server.url, http_client=http(kind, limits)) as client:
            for _ in range(2):
                await client.messages.create(**ASK)
                await asyncio.sleep(0.1)
        assert server.visits == 2


async def test_no_free_connection(client: AsyncAnthropic, server: Server) -> None:
    """At most so many connections at a time; who waits too long for one is told so; who is cancelled frees it."""

    async def handler(visit: Visit) -> None:
        await visit.request()
        await visit.reader.read()

    server.handler = handler
    busy = [asyncio.create_task(client.messages.create(**ASK)) for _ in range(2)]
    await server.until(requests=2)
    waiting = client.with_options(timeout=httpx2.Timeout(5, pool=0.1))
    assert await cause_of(waiting.messages.create(**ASK), anthropic.APITimeoutError) is httpx2.PoolTimeout
    for task in busy:
        task.cancel()
    await asyncio.gather(*busy, return_exceptions=True)
    server.handler = answering
    assert (await client.messages.create(**ASK)).id == "msg_1"
    await server.until(requests=3, gone=2)


@pytest.mark.parametrize("steps", range(1, 6))
async def test_cancelled_at_once(kind: str, server: Server, steps: int) -> None:
    """Who is cancelled before anything is sent, however early, takes no connection with it."""
    limits = httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=5)
    timeout = httpx2.Timeout(5, pool=0.5)
    async with http(kind, limits) as sender:
        task = asyncio.create_task(sender.post(f"{server.url}/v1/messages", content=b"{}", timeout=timeout))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        answer = await sender.post(f"{server.url}/v1/messages", content=b"{}", timeout=timeout)
    assert answer.content == MESSAGE


@pytest.mark.parametrize("how", ["close", "break", "cancel"])
async def test_left_in_mid_stream(client: AsyncAnthropic, server: Server, how: str) -> None:
    """Whoever leaves a stream before its end closes the connection to the server, and frees it."""

    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.stream()
        visit.event(b'event: message_stop\ndata: {"type": "message_stop"}\n\n')
        await visit.reader.read()

    async def leave(reading: asyncio.Event) -> None:
        async with await client.messages.create(**ASK, stream=True) as stream:
            async for _ in stream:
                reading.set()
                if how == "close":
                    await stream.close()
                elif how == "cancel":
                    await asyncio.Event().wait()
                break

    server.handler = handler
    for number in range(1, 4):  # more than there are connections
        reading = asyncio.Event()
        task = asyncio.create_task(leave(reading))
        await reading.wait()
        if how == "cancel":
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await server.until(requests=number, gone=number)


async def test_cookies(client: AsyncAnthropic, server: Server) -> None:
    """A cookie of the server's comes back once."""

    async def handler(visit: Visit) -> None:
        while True:
            await visit.request()
            visit.answer(MESSAGE, "set-cookie: a=1; path=/")

    server.handler = handler
    for _ in range(2):
        await client.messages.create(**ASK)
    assert server.requests[1][0].lower().count(b"cookie: a=1") == 1


async def test_redirects(client: AsyncAnthropic, server: Server) -> None:
    """A redirect is followed, with the body."""

    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.answer(b"", f"location: {server.url}/elsewhere", status="307 There")
        await visit.request()
        visit.answer()

    server.handler = handler
    assert (await client.messages.create(**ASK)).id == "msg_1"
    assert [head.split(b" ")[1] for head, _ in server.requests] == [b"/v1/messages", b"/elsewhere"]
    assert server.requests[0][1] == server.requests[1][1]


async def test_an_upload(client: AsyncAnthropic, server: Server) -> None:
    """A file goes up as it is read."""
    with suppress(anthropic.APIError, ValueError, TypeError):
        await client.beta.files.upload(file=("a.txt", b"x" * 200_000, "text/plain"))
    (head, body), *_ = server.requests
    assert b"multipart/form-data" in head
    assert body.count(b"x") >= 200_000


async def test_a_name_and_a_password_in_the_address(kind: str, server: Server) -> None:
    """They go into a header, and not along with the address."""
    async with http(kind) as plain:
        await plain.post(server.url.replace("//", "//me:secret@") + "/a%2Fb?c=%20d", content=b"{}")
    head, _ = server.requests[0]
    assert head.startswith(b"POST /a%2Fb?c=%20d HTTP/1.1")
    assert head.lower().count(b"authorization: basic ") == 1


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    subprocess.run(  # noqa: S603
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",  # noqa: S607
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


async def test_certificates(kind: str, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate is verified: refused unless its authority is in SSL_CERT_FILE, and the name is its own."""
    here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    here.load_cert_chain(*certificate)
    async with listening(here) as server:
        for trusted, url in (
            (False, server.url), (True, server.url), (True, server.url.replace("localhost", "127.0.0.1"))
        ):  # fmt: skip
            monkeypatch.setenv("SSL_CERT_FILE", certificate[0]) if trusted else monkeypatch.delenv("SSL_CERT_FILE")
            async with AsyncAnthropic(api_key="k", base_url=url, http_client=http(kind), max_retries=0) as client:
                if trusted and url == server.url:
                    assert (await client.messages.create(**ASK)).id == "msg_1"
                else:
                    assert await cause_of(client.messages.create(**ASK)) is httpx2.ConnectError


SCRIPT = """
import asyncio, gc, os, sys, threading
from tierline import Router
from tierline.classify import FixedClassifier

ASK = dict(model="auto", max_tokens=50, messages=[dict(role="user", content="Why is it blue?")])
router = Router(classifier=FixedClassifier("simple"))

async def call(close=False):
    await router.claude.messages.create(**ASK)
    stream = await router.claude.messages.create(**ASK, stream=True)
    if close:
        await stream.close()
        await router.aclose()

def several_loops():
    for _ in range(3):
        asyncio.run(call())
    threads = [threading.Thread(target=lambda: asyncio.run(call())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

def fork():
    with asyncio.Runner() as runner:
        runner.run(call())
        child = os.fork()
        if not child:
            asyncio.run(call(close=True))
            del globals()["router"]
            gc.collect()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        runner.run(call(close=True))

async def dropped():
    await call()
    del globals()["router"]
    gc.collect()

{"loops": several_loops, "fork": fork, "closed": lambda: asyncio.run(call(close=True)),
 "dropped": lambda: asyncio.run(dropped()), "left": lambda: asyncio.run(call())}[sys.argv[1]]()
assert "aiohttp" in sys.modules
"""


@pytest.mark.parametrize(("how", "calls"), [("loops", 12), ("fork", 6), ("closed", 2), ("dropped", 2), ("left", 2)])
def test_the_routers_own_client(fake: FakeClaude, how: str, calls: int) -> None:
    """A Router's own client works on several loops and in a forked child; left, dropped or closed, it says nothing."""
    with fake.serve_in_thread() as url:
        environment = {
            name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")
        } | {"ANTHROPIC_API_KEY": fake.api_key, "ANTHROPIC_BASE_URL": url}  # fmt: skip
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", SCRIPT, how],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [received.status for received in fake.requests] == [200] * calls


async def test_without_aiohttp(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where aiohttp is not installed, a Router's own client is the SDK's usual one."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    monkeypatch.setattr("tierline.anthropic.find_spec", lambda _: None)
    router = Router(classifier=FixedClassifier("simple"))
    assert (await router.claude.messages.create(**ASK | {"model": "auto"})).id == "msg_1"
    assert not isinstance(router.claude._client._transport, AiohttpTransport)
    await router.aclose()


async def test_a_header_of_other_bytes(server: Server, kind: str) -> None:
    """What is no UTF-8 is not sent as something else."""
    async with http(kind) as plain:
        try:
            await plain.post(server.url, headers=[(b"x-name", b"Zo\xeb")], content=b"{}")
        except httpx2.LocalProtocolError:
            return
    assert b"Zo\xeb" in server.requests[0][0]


async def test_closed_on_another_loop(fake: FakeClaude) -> None:
    """Closing it closes what other loops have, too: of one that runs, of one that stands still, of one that is gone."""
    with fake.serve_in_thread() as url:
        client = AsyncAnthropic(api_key=fake.api_key, base_url=url, http_client=http("aiohttp"))
        still = asyncio.new_event_loop()
        await asyncio.to_thread(still.run_until_complete, client.messages.create(**ASK))
        running = asyncio.new_event_loop()
        thread = threading.Thread(target=running.run_forever)
        thread.start()
        made = asyncio.run_coroutine_threadsafe(client.messages.create(**ASK), running)
        assert (await asyncio.to_thread(made.result)).id
        here = list(client._client._transport._here.values())  # type: ignore[attr-defined]
        await client.close()
        assert await asyncio.to_thread(asyncio.run_coroutine_threadsafe(asyncio.sleep(0.05), running).result) is None
        assert [each.session.closed for each in here] == [True, True]
        await asyncio.to_thread(still.run_until_complete, asyncio.sleep(0))
        running.call_soon_threadsafe(running.stop)
        await asyncio.to_thread(thread.join)
        for loop in (still, running):
            loop.close()


async def test_dropped_answers(server: Server) -> None:
    """An answer that is dropped without being read or closed gives its connection back."""

    async def handler(visit: Visit) -> None:
        await visit.request()
        visit.stream()
        visit.event()
        await visit.reader.read()

    server.handler = handler
    plain = http("aiohttp")
    for _ in range(3):  # more than there are connections
        request = plain.build_request("POST", server.url, content=b"{}", timeout=httpx2.Timeout(10, pool=5))
        answer = await plain.send(request, stream=True)
        del answer
        gc.collect()
        await asyncio.sleep(0)
    await plain.aclose()


async def test_proxies(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a proxy in the environment a Router's own client goes through it, and past it where NO_PROXY says so."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://api.example")
    for name in ("NO_PROXY", "no_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", server.url.replace("//", "//me:secret@"))
    router = Router()
    await router.claude.with_options(max_retries=0).messages.create(**ASK)
    (head, _), *_ = server.requests
    assert head.startswith(b"POST http://api.example/v1/messages HTTP/1.1")
    assert b"proxy-authorization: basic" in head.lower()
    await router.aclose()
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    router = Router()
    await router.claude.messages.create(**ASK)
    assert server.requests[1][0].startswith(b"POST /v1/messages HTTP/1.1")
    await router.aclose()


def test_connections_keep_watch() -> None:
    """Silent connections are probed, as those of the SDK's own client."""
    with _socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ())) as made:
        assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert made.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
