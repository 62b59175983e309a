"""One Redis for all parts of a process: connections, bounded waits, and scripts.

redis-py is loaded when a store is made, and not before.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from hashlib import sha1
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.store.schema import REDIS_OLDEST, REDIS_SCHEMA

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

CONNECTIONS: Final = 8
"""Most connections of one event loop. More calls than that wait for one: a server runs one script at a time anyway."""
PATIENCE: Final = 10
"""How many timeouts a step is waited for while the server goes on answering others: we are slow then, and not it."""
LATE: Final = 10
"""What part of a timeout the loop may be late before a silence is taken for its own."""
LONGEST_NAMESPACE: Final = 100
_SCHEMES: Final = ("redis", "rediss", "unix")
_NEWER: Final = re.compile(r"NEWER (\d+)")

_LEFT: Final[list[object]] = []
"""Clients that can no longer be closed: of a parent process, or of a loop that was closed under them.

They are kept, for letting go of them would touch the parent's sockets, or warn.
"""


class RedisStore:
    """A Redis server (6 or later, or Valkey), or a cluster of them.

    - `url`: redis://, rediss:// (TLS) or unix://, as redis-py reads it
    - `namespace`: begins every key: all of them are in one hash slot, `{namespace}`
    - `timeout`: seconds for a whole step, connecting included. After that LedgerUnavailableError, where the server has
      answered nothing for so long; while it does answer, there is a queue, and it may take ten times that. So may the
      first contact: a process that has just started is slow itself
    - `cluster`: whether the URL is one node of a Redis Cluster

    Any thread, loop and process may use one object: a client is made for each on first use, and closed with its loop.
    Nothing is retried, but a script whose connection broke, once: scripts are idempotent.

    ConfigurationError for arguments that cannot work, and where redis-py is not installed.
    """

    def __init__(self, url: str, *, namespace: str = "tierline", timeout: float = 0.2, cluster: bool = False) -> None:
        try:
            parts = urlsplit(url)
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            raise ConfigurationError("a Redis URL is written as redis://:password@host:6379/0") from None
        if parts.scheme not in _SCHEMES:
            raise ConfigurationError(
                f"a Redis URL begins with redis://, rediss:// or unix://, not {parts.scheme!r:.20}"
            )
        if parts.scheme != "unix" and (
            "@" in parts.path + parts.fragment or (not parts.hostname and "@" in parts.query)
        ):
            # What follows would be shown as the name of a database, and the server be another.
            raise ConfigurationError(
                "a Redis URL has an @ behind its host: in a password write / as %2F, ? as %3F, # as %23 and @ as %40"
            )
        if not (0 < len(namespace) <= LONGEST_NAMESPACE and namespace.isprintable()) or set("{}") & set(namespace):
            raise ConfigurationError(
                f"RedisStore(namespace={namespace!r:.120}): a namespace is text of at most {LONGEST_NAMESPACE} "
                "printable characters without braces"
            )
        if not timeout > 0:
            raise ConfigurationError(f"RedisStore(timeout={timeout!r}): a timeout is a number of seconds above 0")
        try:
            import redis.asyncio  # noqa: PLC0415  (134 ms, for those who use it)
        except ImportError:
            raise ConfigurationError('redis-py is not installed: pip install "tierline[redis]"') from None
        self.namespace = namespace
        self.timeout = timeout
        self.prefix = f"{{{namespace}}}:"
        self._redis: Any = redis
        self._url = url
        passwords = [parts.password or "", unquote(parts.password or ""), *parse_qs(parts.query).get("password", [])]
        self._secrets = [password for password in passwords if password]
        self._where = f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"
        self._cluster = cluster
        self._lock = Lock()
        self._pid = os.getpid()
        self._sent: set[str] = set()
        """Scripts that the server was told."""
        self._clients: dict[asyncio.AbstractEventLoop, _Client] = {}
        try:
            self._connect()
        except (ValueError, TypeError, self._redis.RedisError) as error:
            raise ConfigurationError(f"{self!r}: {self._clean(error)}") from None

    def __repr__(self) -> str:
        return f"RedisStore({self._where!r}, namespace={self.namespace!r})"

    @property
    def only_here(self) -> bool:
        """Whether there are connections, and only those of this loop of this process."""
        return self._pid == os.getpid() and list(self._clients) == [asyncio.get_running_loop()]

    @property
    def longest(self) -> float:
        """Seconds that a step may take in all."""
        return PATIENCE * self.timeout

    async def script(
        self, name: str, keys: Sequence[str], args: Callable[[float], Sequence[Any]], until: float | None = None
    ) -> Any:
        """What the Lua script `name` (`ledger/settle`) returns; `until` ends all patience, by the loop's clock.

        `args` gives its arguments, when there is a connection to send them on, and is given for how many seconds the
        answer will be waited for, should the server be silent.

        LedgerUnavailableError where it cannot be known. The script may then have been run, or be run later.
        """
        client = self._client()
        if until is None:
            until = asyncio.get_running_loop().time() + self.longest
        source, digest = _script(name)
        # The first time the server is not asked whether it knows it: that would be a round trip more.
        verb = ("EVALSHA", digest) if name in self._sent else ("EVAL", source)

        def command() -> tuple[Any, ...]:
            return (*verb, len(keys), *keys, *args(left()))

        errors = self._redis.exceptions
        cut = False
        try:
            async with client.patience(self.timeout, until) as left:
                while True:
                    try:
                        answer = await client.run(command, lambda: left() > self.timeout / 2)
                        break
                    except errors.NoScriptError:
                        verb = ("EVAL", source)
                    except errors.ConnectionError as error:
                        # Those that are more than that say what the server thinks of us.
                        if cut or type(error) is not errors.ConnectionError:
                            raise
                        cut = True  # perhaps long ago, and the server may well be there
                self._sent.add(name)
                return answer
        except TimeoutError as error:
            raise LedgerUnavailableError(f"{self._where} did not answer within {self.timeout:g} s") from error
        except (errors.RedisError, errors.RedisClusterException, OSError) as error:
            if newer := _NEWER.match(str(error)):
                raise LedgerUnavailableError(
                    f"{self!r} was written by a newer Tierline (schema {newer[1]}, this one knows {REDIS_SCHEMA}): "
                    "upgrade this one, or give it another namespace"
                ) from None
            raise LedgerUnavailableError(f"{self._where}: {type(error).__name__}: {self._clean(error)}") from error

    async def command(self, *parts: str) -> Any:
        """What the server answers to a command of an operator's, such as `INFO`, as redis-py reads it.

        LedgerUnavailableError where it does not answer, or does not allow it.
        """
        client = self._client()
        until = asyncio.get_running_loop().time() + self.longest
        try:
            async with client.patience(self.timeout, until):
                return await client.run(lambda: parts, lambda: True)
        except TimeoutError as error:
            raise LedgerUnavailableError(f"{self._where} did not answer within {self.timeout:g} s") from error
        except (self._redis.RedisError, self._redis.exceptions.RedisClusterException, OSError) as error:
            raise LedgerUnavailableError(f"{self._where}: {type(error).__name__}: {self._clean(error)}") from error

    async def aclose(self) -> None:
        """Close the connections of this loop. The store may be used again."""
        with self._lock:
            client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None and self._pid == os.getpid():
            await client.aclose()

    def _client(self) -> _Client:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is not None and self._pid == os.getpid():
            return client
        with self._lock:
            if self._pid != os.getpid():
                # A child has copies of its parent's sockets: to close them properly would be to speak for the parent.
                _LEFT.extend(self._clients.values())
                self._clients, self._pid = {}, os.getpid()
            for closed in [known for known in self._clients if known.is_closed()]:
                self._clients.pop(closed).leave()
            client = self._clients[loop] = _Client(self._connect(), self._forget)
        client.begin()
        return client

    def _forget(self, client: _Client) -> None:
        with self._lock:
            for loop in [loop for loop, known in self._clients.items() if known is client]:
                del self._clients[loop]

    def _connect(self) -> _Cluster | _Server:
        asynchronous = self._redis.asyncio
        options: dict[str, Any] = {
            "socket_timeout": None,  # the whole step is bounded: a task for each write would cost more than the script
            "socket_connect_timeout": self.longest,
            "socket_keepalive": True,
            "retry": asynchronous.retry.Retry(self._redis.backoff.NoBackoff(), 0),
            "protocol": 2,
            **self._anonymous(),
        }
        if self._cluster:
            return _Cluster(asynchronous.RedisCluster.from_url(self._url, max_connections=2 * CONNECTIONS, **options))
        if urlsplit(self._url).scheme == "unix":
            del options["socket_keepalive"]
        pool = asynchronous.ConnectionPool.from_url(self._url, **options)
        return _Server(pool, self._redis.ResponseError)

    def _anonymous(self) -> dict[str, None]:
        """Tell the server nothing of the library: that would be a round trip with each connection."""
        if hasattr(self._redis, "DriverInfo"):
            return {"driver_info": None}
        return {"lib_name": None, "lib_version": None}

    def _clean(self, error: Exception) -> str:
        """What an error says, without what is secret in the URL."""
        text = str(error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:200]


class _Client:
    """What belongs to one event loop."""

    def __init__(self, server: _Cluster | _Server, forget: Callable[[_Client], None]) -> None:
        self._server = server
        self._forget = forget
        self._gate = asyncio.Semaphore(CONNECTIONS)
        self._answered = -inf
        self._end: AsyncGenerator[None, None] | None = None

    def begin(self) -> None:
        """Close the connections when the loop shuts down: it closes the asynchronous generators that began on it."""
        self._end = self._until_the_end()
        with suppress(StopIteration):
            self._end.__anext__().__await__().__next__()

    async def run(self, command: Callable[[], tuple[Any, ...]], patient: Callable[[], bool]) -> Any:
        """What the server answers. TimeoutError where the caller is no longer `patient` when there is a connection."""
        async with self._gate:
            # Who is let in by those that gave up is about to give up as well: nothing is sent that nobody waits for.
            if not patient():
                raise TimeoutError
            try:
                return await self._server.run(command())
            finally:
                if sys.exc_info()[0] is not asyncio.CancelledError:
                    self._answered = asyncio.get_running_loop().time()

    @asynccontextmanager
    async def patience(self, timeout: float, until: float) -> AsyncGenerator[Callable[[], float], None]:
        """TimeoutError inside once the server has been silent for `timeout` seconds, or at `until`. Gives the rest."""
        loop = asyncio.get_running_loop()
        heard = loop.time()
        quiet = timeout if self._answered > -inf else PATIENCE * timeout
        timer: asyncio.TimerHandle

        def left() -> float:
            return min(max(heard, self._answered) + quiet, until) - loop.time()

        def check() -> None:
            nonlocal timer, heard
            now = loop.time()
            if now - timer.when() > timeout / LATE:
                heard = now  # this process was asleep: what came meanwhile has not been read yet
            if (more := left()) <= 0:
                waiting.reschedule(now)
            else:
                timer = loop.call_later(more, check)

        timer = loop.call_later(quiet, check)
        try:
            async with asyncio.timeout(None) as waiting:
                yield left
        finally:
            timer.cancel()

    async def aclose(self) -> None:
        """Close them."""
        if self._end is not None:
            await self._end.aclose()

    def leave(self) -> None:
        """The loop is closed, and they are not: close what is under them, and keep what cannot be let go of."""
        if not self._server.leave():
            _LEFT.append(self)

    async def _until_the_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._forget(self)
            with suppress(Exception):  # who goes does not care
                await self._server.aclose()


class _Server:
    """Connections to one server, as redis-py makes them.

    Its client and its pool are left out: they take half of the time that a script costs here.
    """

    def __init__(self, pool: Any, answered: type[Exception]) -> None:
        self._make = pool.make_connection
        self._answered = answered
        self._free: list[Any] = []
        self._all: set[Any] = set()

    async def run(self, command: tuple[Any, ...]) -> Any:
        """What the server answers."""
        if self._free:
            connection = self._free.pop()
        else:
            connection = self._make()
            self._all.add(connection)
        try:
            # The end, or an answer that nobody waited for: what comes next must not be taken for ours.
            if connection.is_connected and await _is_stale(connection):
                await connection.disconnect(nowait=True)
            if not connection.is_connected:
                await connection.connect()
            await connection.send_packed_command(_packed(command), check_health=False)
            answer = await connection.read_response()
        except self._answered:
            self._free.append(connection)
            raise
        except BaseException:
            self._all.discard(connection)
            await connection.disconnect(nowait=True)
            raise
        self._free.append(connection)
        return answer

    async def aclose(self) -> None:
        """Close them all."""
        connections, self._all = self._all, set()
        self._free.clear()
        await asyncio.gather(*(connection.disconnect() for connection in connections), return_exceptions=True)

    def leave(self) -> bool:
        """Their loop is closed: close the sockets under them. Whether nothing of them warns when it is collected."""
        clean = True
        for connection in self._all:
            writer = getattr(connection, "_writer", None)
            if writer is None:
                continue
            if (under := getattr(writer.get_extra_info("socket"), "_sock", None)) is not None:
                under.close()
            lost = getattr(writer.transport, "_call_connection_lost", None)
            if lost is None or connection not in self._free:
                clean = False  # perhaps a task waits for an answer, and would be collected in the midst of that
                continue
            with suppress(RuntimeError):
                writer.transport.abort()
            with suppress(RuntimeError):
                lost(None)  # its loop would do that, were it not closed
            connection._writer = connection._reader = None  # noqa: SLF001  (there is none any more)
        return clean


class _Cluster:
    """Connections to the nodes of a cluster: those of redis-py, which follows slots as they move."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def run(self, command: tuple[Any, ...]) -> Any:
        """What the server answers."""
        return await self._client.execute_command(*command)

    async def aclose(self) -> None:
        """Close them all."""
        await self._client.aclose()

    def leave(self) -> bool:
        """Their loop is closed. They cannot be let go of: redis-py would warn of each."""
        return False


async def _is_stale(connection: Any) -> bool:
    # Before redis-py 8 it is called otherwise.
    can_read = getattr(connection, "can_read", None) or connection.can_read_destructive
    return bool(await can_read())


def _packed(command: tuple[Any, ...]) -> bytes:
    """A command as it is sent. Text is put together as text, and encoded once: that takes half the time."""
    parts = [f"*{len(command)}\r\n"]
    for each in command:
        if isinstance(each, bytes):
            return _packed_bytes(command)
        part = each if type(each) is str else str(each)
        parts.append(f"${len(part) if part.isascii() else len(part.encode())}\r\n{part}\r\n")
    return "".join(parts).encode()


def _packed_bytes(command: tuple[Any, ...]) -> bytes:
    """The same, with arguments that are no text."""
    parts = [b"*%d\r\n" % len(command)]
    for each in command:
        data = each if isinstance(each, bytes) else str(each).encode()
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


@lru_cache(maxsize=64)
def _script(name: str) -> tuple[str, str]:
    """The source of a script, and its digest."""
    from importlib.resources import files  # noqa: PLC0415  (20 ms, for those who use it)

    package, _, script = name.partition("/")
    folder = files(f"tierline.{package}") / "lua"
    known = f"local SCHEMA, OLDEST = {REDIS_SCHEMA}, {REDIS_OLDEST}\n"
    parts = (files("tierline.store") / "lua" / "schema.lua", folder / "prelude.lua", folder / f"{script}.lua")
    source = known + "".join(part.read_text("utf-8") for part in parts)
    return source, sha1(source.encode(), usedforsecurity=False).hexdigest()
