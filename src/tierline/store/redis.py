"""One Redis for all parts of a process: connections, bounded waits, and scripts.

redis-py is loaded when a store is made, and not before.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from functools import lru_cache
from hashlib import sha1
from threading import Lock
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from tierline.errors import ConfigurationError, LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

CONNECTIONS: Final = 32
"""Most connections of one event loop. More calls than that wait for one: a server runs one script at a time anyway."""
LONGEST_NAMESPACE: Final = 100
_SCHEMES: Final = ("redis", "rediss", "unix")

_LEFT: Final[list[object]] = []
"""Clients that can no longer be closed: of a parent process, or of a loop that was closed under them.

They are kept, for letting go of them would touch the parent's sockets, or warn.
"""


class RedisStore:
    """A Redis server (6 or later, or Valkey), or a cluster of them.

    `url`        redis://, rediss:// (TLS) or unix://, as redis-py reads it
    `namespace`  begins every key: all of them are in one hash slot, `{namespace}`
    `timeout`    seconds for a whole step, connecting included. After that LedgerUnavailableError
    `cluster`    whether the URL is one node of a Redis Cluster

    Any thread, loop and process may use one object: a client is made for each on first use, and closed with its loop.
    Nothing is retried, but a script whose connection broke, once: scripts are idempotent.

    ConfigurationError for arguments that cannot work, and where redis-py is not installed.
    """

    def __init__(self, url: str, *, namespace: str = "tierline", timeout: float = 0.2, cluster: bool = False) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise ConfigurationError(
                f"a Redis URL begins with redis://, rediss:// or unix://, not {parts.scheme!r:.20}"
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
        self._secrets = tuple({part for raw in (parts.password, parts.username) if raw for part in (raw, unquote(raw))})
        self._where = f"{parts.scheme}://{parts.hostname or ''}{f':{port}' if (port := parts.port) else ''}{parts.path}"
        self._cluster = cluster
        self._lock = Lock()
        self._pid = os.getpid()
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

    async def script(self, name: str, keys: Sequence[str], args: Sequence[Any], until: float | None = None) -> Any:
        """What the Lua script `name` returns; `until` is the end of the wait, by the loop's clock.

        LedgerUnavailableError where it cannot be known. The script may then have been run, or be run later.
        """
        client = self._client()
        if until is None:
            until = asyncio.get_running_loop().time() + self.timeout
        source, digest = _script(name)
        command: tuple[Any, ...] = ("EVALSHA", digest, len(keys), *keys, *args)
        errors = self._redis.exceptions
        cut = False
        try:
            async with asyncio.timeout_at(until):
                while True:
                    try:
                        return await client.run(command)
                    except errors.NoScriptError:
                        command = ("EVAL", source, *command[2:])
                    except errors.ConnectionError as error:
                        # Those that are more than that say what the server thinks of us.
                        if cut or type(error) is not errors.ConnectionError:
                            raise
                        cut = True  # perhaps long ago, and the server may well be there
        except TimeoutError as error:
            raise LedgerUnavailableError(f"{self._where} did not answer within {self.timeout:g} s") from error
        except (errors.RedisError, errors.RedisClusterException, OSError) as error:
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

    def _connect(self) -> Any:
        asynchronous = self._redis.asyncio
        options: dict[str, Any] = {
            "socket_timeout": None,  # the whole step is bounded: a task for each write would cost more than the script
            "socket_connect_timeout": self.timeout,
            "socket_keepalive": True,
            "retry": self._redis.asyncio.retry.Retry(self._redis.backoff.NoBackoff(), 0),
            "protocol": 2,
        }
        if self._cluster:
            return asynchronous.RedisCluster.from_url(self._url, max_connections=2 * CONNECTIONS, **options)
        if urlsplit(self._url).scheme == "unix":
            del options["socket_keepalive"]
        return asynchronous.Redis.from_pool(
            asynchronous.BlockingConnectionPool.from_url(
                self._url, max_connections=CONNECTIONS, timeout=self.timeout, **options
            )
        )

    def _clean(self, error: Exception) -> str:
        """What an error says, without what is secret in the URL."""
        text = str(error)
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:200]


class _Client:
    """The connections of one event loop."""

    def __init__(self, redis: Any, forget: Callable[[_Client], None]) -> None:
        self._redis = redis
        self._forget = forget
        # The pool of a cluster refuses whom it has no connection for; here they wait.
        self._gate = asyncio.Semaphore(CONNECTIONS)
        self._end: AsyncGenerator[None, None] | None = None

    def begin(self) -> None:
        """Close them when the loop shuts down: loops close the asynchronous generators that began on them."""
        self._end = self._until_the_end()
        with suppress(StopIteration):
            self._end.__anext__().__await__().__next__()

    async def run(self, command: tuple[Any, ...]) -> Any:
        """What the server answers."""
        async with self._gate:
            return await self._redis.execute_command(*command)

    async def aclose(self) -> None:
        """Close them."""
        if self._end is not None:
            await self._end.aclose()

    def leave(self) -> None:
        """The loop is closed, and they are not: close what is under them, and keep the rest."""
        _LEFT.append(self)
        pool = getattr(self._redis, "connection_pool", None)
        for connection in (*getattr(pool, "_available_connections", ()), *getattr(pool, "_in_use_connections", ())):
            writer = getattr(connection, "_writer", None)
            transport_socket = writer and writer.get_extra_info("socket")
            if (under := getattr(transport_socket, "_sock", None)) is not None:
                under.close()

    async def _until_the_end(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._forget(self)
            with suppress(Exception):  # who goes does not care
                await self._redis.aclose()


@lru_cache(maxsize=64)
def _script(name: str) -> tuple[str, str]:
    """The source of a script, and its digest."""
    from importlib.resources import files  # noqa: PLC0415  (20 ms, for those who use it)

    folder = files("tierline.ledger") / "lua"
    source = "".join((folder / f"{part}.lua").read_text("utf-8") for part in ("prelude", name))
    return source, sha1(source.encode(), usedforsecurity=False).hexdigest()
