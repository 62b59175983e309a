"""Sends the SDK's requests with aiohttp: half the work of the SDK's own HTTP library for the same bytes.

A transport of httpx2, which is the interface that the SDK has for this. The SDK brings one for aiohttp too
(`DefaultAioHttpClient`). This one is there for what that leaves out, and callers of the SDK's usual client rely on:

- connections belong to an event loop, and are kept for each: a Router may be used on several
- errors are those of httpx2, and tell a connection that was never made from a request that may have been billed
- waiting for a free connection, for a name, for a connection and for a server that takes no more bytes of a request
  each end at the timeout that is meant for them
- a connection that has long been silent stays open (TCP keep-alive), and one that the server has closed is not used
- no cookies of its own, no warning when it is dropped without being closed
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

import aiohttp
import httpx2
from aiohttp.http_exceptions import HttpProcessingError
from anthropic import DEFAULT_CONNECTION_LIMITS
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from ssl import SSLContext

_MANY: Final = 1_000_000
"""Connections at a time where nothing is said of them."""
_PART: Final = 65_536
"""Bytes of a request that are handed over at a time. What is shorter fits into the buffer of its connection."""
_QUIET: Final = 0.05
"""Seconds without a request after which the loop is asked first whether the server has closed a connection."""
_LONGEST_HEADER: Final = 65_536
_LEFT: Final[list[object]] = []
"""What a parent process had when this one was forked. It is kept: to let go of it would tell the selector, which both
have, to listen no more, and the parent would wait for ever."""
_PROBES: Final = (("TCP_KEEPINTVL", 60), ("TCP_KEEPCNT", 5), ("TCP_KEEPIDLE", 60))
"""As the SDK sets them: an answer may be silent for minutes, and what stands between forgets silent connections."""


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Sends with aiohttp. For clients on asyncio, without a proxy: httpx2's own transports know those.

    `limits`: `max_connections` at a time on each event loop, and `keepalive_expiry`, the seconds that an unused one
    stays open. TLS is verified as httpx2 does, with `SSL_CERT_FILE` and `SSL_CERT_DIR` of the environment; `verify`
    is another context.
    """

    def __init__(self, limits: httpx2.Limits = DEFAULT_CONNECTION_LIMITS, verify: SSLContext | None = None) -> None:
        self._limits = limits
        self._tls = verify or httpx2.create_ssl_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._here: dict[asyncio.AbstractEventLoop, _Here] = {}
        self._lock = threading.Lock()
        # Dropped without being closed, or there until the interpreter exits.
        weakref.finalize(self, _abandon, self._here)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, and give its answer as soon as its head is there. Raises what httpx2's transports raise."""
        here = self._here.get(asyncio.get_running_loop()) or self._on_this_loop()
        timeout: dict[str, float | None] = request.extensions.get("timeout", {})
        await here.enter(timeout.get("pool"))
        try:
            answer = await _sent(here.session, request, timeout)
        except Exception as error:
            here.leave()
            if (told := _told(error)) is None:
                raise
            raise told from error
        except BaseException:
            here.leave()
            raise
        extensions: dict[str, Any] = {"http_version": b"HTTP/1.1"}
        if answer.reason:
            extensions["reason_phrase"] = answer.reason.encode("latin-1", "replace")
        return httpx2.Response(
            answer.status, headers=answer.raw_headers, stream=_Answer(answer, here, timeout), extensions=extensions
        )

    def _on_this_loop(self) -> _Here:
        """What belongs to the loop that runs here. Called on that loop."""
        with self._lock:
            for loop in [loop for loop in self._here if loop.is_closed()]:
                _let_go(self._here.pop(loop))
            loop = asyncio.get_running_loop()
            here = self._here[loop] = _Here(self._limits, self._tls)
            return here

    async def aclose(self) -> None:
        """Close the connections of all loops. This waits for those of the loop that runs here."""
        with self._lock:
            all_here = self._here.copy()
            self._here.clear()
        mine = all_here.pop(asyncio.get_running_loop(), None)
        for here in all_here.values():
            _let_go(here)
        if mine is not None:
            await mine.session.close()


class _Here:
    """The connections of one event loop."""

    def __init__(self, limits: httpx2.Limits, tls: SSLContext) -> None:
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        # aiohttp's own limit has one timeout together with that of connecting.
        self._free = asyncio.Semaphore(limits.max_connections or _MANY)
        self._active = 0.0
        once = limits.max_keepalive_connections == 0
        connector = aiohttp.TCPConnector(
            limit=0, ssl=tls, socket_factory=_socket, resolver=aiohttp.ThreadedResolver(), force_close=once,
            keepalive_timeout=None if once else limits.keepalive_expiry,
        )  # fmt: skip
        self.session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False,
            max_line_size=_LONGEST_HEADER, max_field_size=_LONGEST_HEADER,
        )  # fmt: skip

    async def enter(self, timeout: float | None) -> None:
        """Wait for a free connection. PoolTimeout after `timeout` seconds."""
        if self._free.locked():
            try:
                async with asyncio.timeout(timeout):
                    await self._free.acquire()
            except TimeoutError as error:
                raise httpx2.PoolTimeout("no connection became free") from error
            return
        await self._free.acquire()
        if self.loop.time() - self._active > _QUIET:
            # What the server has closed meanwhile is not used again once the loop has looked, and then has heard of it.
            try:
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            except BaseException:
                self._free.release()
                raise

    def leave(self) -> None:
        """Give a connection back."""
        self._active = self.loop.time()
        self._free.release()


def _abandon(all_here: dict[asyncio.AbstractEventLoop, _Here]) -> None:
    """Close the connections of a transport that nobody has any more."""
    for here in all_here.values():
        _let_go(here)


def _let_go(here: _Here) -> None:
    """Close the connections of a loop that runs in another thread, or not at all: nobody waits for it."""
    if here.pid != os.getpid():
        _LEFT.append(here)
        return
    session, loop = here.session, here.loop
    connector = session.connector
    if connector is None:
        return
    with suppress(RuntimeError):  # its loop is being closed in this moment
        if loop.is_running():
            asyncio.run_coroutine_threadsafe(session.close(), loop)
            return
    session.detach()
    # Its first step closes all of them; what it then waits for are their transports, on a loop that stands still.
    closing = connector.close().__await__()
    with suppress(StopIteration, RuntimeError):
        next(closing)


def _socket(address: Any) -> socket.socket:
    """A socket for an address of `getaddrinfo` that notices when the other end has vanished."""
    family, kind, protocol, *_ = address
    made = socket.socket(family=family, type=kind, proto=protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _PROBES:
        if (option := getattr(socket, name, None)) is not None:
            made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made


async def _sent(
    session: aiohttp.ClientSession, request: httpx2.Request, timeout: dict[str, float | None]
) -> aiohttp.ClientResponse:
    """The answer to a request, its body still to be read."""
    connect = timeout.get("connect")
    url = request.url
    if url.userinfo:
        url = url.copy_with(username=None, password=None)  # it stands in a header
    options: dict[str, Any] = {
        "headers": [(name.decode(), value.decode()) for name, value in request.headers.raw],
        "allow_redirects": False,
        "timeout": aiohttp.ClientTimeout(
            total=None, connect=connect, sock_connect=connect, sock_read=timeout.get("read")
        ),
    }
    if (name := request.extensions.get("sni_hostname")) is not None:
        options["server_hostname"] = name
    address = URL(str(url), encoded=True)
    try:
        body = request.content
    except httpx2.RequestNotRead:
        body = None
    if body is not None and len(body) <= _PART:
        return await session.request(request.method, address, data=body or None, **options)
    parts = _parts_of(body) if body is not None else cast("AsyncIterator[bytes]", request.stream)
    patience = timeout.get("write")
    try:
        async with asyncio.timeout(None) as watch:
            return await session.request(request.method, address, data=_watched(parts, watch, patience), **options)
    except TimeoutError as error:
        if watch.expired():
            raise httpx2.WriteTimeout("the server takes no more of the request") from error
        raise


async def _parts_of(body: bytes) -> AsyncIterator[memoryview]:
    """A long body, in parts that are not copied."""
    whole = memoryview(body)
    for at in range(0, len(body), _PART):
        yield whole[at : at + _PART]


async def _watched(parts: Any, watch: asyncio.Timeout, patience: float | None) -> AsyncIterator[Any]:
    """The same parts. Each has to be taken within `patience` seconds: aiohttp itself would wait for ever."""
    loop = asyncio.get_running_loop()
    async for part in parts:
        if patience is not None and not watch.expired():
            watch.reschedule(loop.time() + patience)
        yield part
    if not watch.expired():
        watch.reschedule(None)


class _Answer(httpx2.AsyncByteStream):
    """The bytes of an answer, as they come."""

    def __init__(self, answer: aiohttp.ClientResponse, here: _Here, timeout: dict[str, float | None]) -> None:
        self._answer = answer
        self._content = answer.content
        self._here: _Here | None = here
        self._timeout = timeout
        self._patience = timeout.get("read")

    def __aiter__(self) -> AsyncIterator[bytes]:
        # Whoever has the answer may have said since that it may be silent for longer, or not for so long.
        patience = self._timeout.get("read")
        connection = self._answer.connection
        if patience != self._patience and connection is not None and connection.protocol is not None:
            connection.protocol.read_timeout = self._patience = patience
            connection.protocol.start_timeout()
        return self

    async def __anext__(self) -> bytes:
        try:
            part = await self._content.readany()
        except Exception as error:
            if (told := _told(error)) is None:
                raise
            raise told from error
        if part:
            return part
        self._end()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if self._content.at_eof():
            self._answer.release()
        else:
            self._answer.close()
        self._end()

    def _end(self) -> None:
        if (here := self._here) is not None:
            self._here = None
            here.leave()

    def __del__(self) -> None:
        # Dropped without being closed, perhaps found by the garbage collector in another thread.
        if self._here is None:
            return
        if os.getpid() != self._here.pid:
            _LEFT.append(self._answer)
            return
        with suppress(RuntimeError):
            self._here.loop.call_soon_threadsafe(self._here.leave)


def _told(error: Exception) -> Exception | None:
    """What httpx2 calls an error of aiohttp's; None for what is none of the network's."""
    kind: type[httpx2.TransportError]
    match error:
        case aiohttp.ConnectionTimeoutError():
            kind = httpx2.ConnectTimeout
        case aiohttp.ServerTimeoutError():
            kind = httpx2.ReadTimeout
        case aiohttp.ClientConnectorError():
            kind = httpx2.ConnectError
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            kind = httpx2.UnsupportedProtocol
        case aiohttp.ClientPayloadError():
            kind = httpx2.ReadError if isinstance(error.__cause__, OSError) else httpx2.RemoteProtocolError
        case aiohttp.ClientConnectionResetError():
            kind = httpx2.WriteError
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientResponseError() | HttpProcessingError():
            kind = httpx2.RemoteProtocolError
        case aiohttp.ClientError() | OSError():
            kind = httpx2.ReadError
        case ValueError():
            kind = httpx2.LocalProtocolError  # a header that is none
        case _:
            return None
    return kind(str(error))
