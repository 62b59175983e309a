"""An ASGI app on a free port of this machine, in the running loop or in a thread of its own."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.types import ASGIApp, Receive, Scope, Send

RESET: Final = "tierline.testing.reset"
"""The ASGI extension under which the app finds a function that resets the connection of its request."""


@asynccontextmanager
async def serving(app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve in the running asyncio loop, on any free port where none is said; the URL has no slash at its end.

    When left, open requests are cut off and all tasks have ended. Raises ConfigurationError without uvicorn, and
    OSError where the port is taken.
    """
    try:
        import uvicorn  # noqa: PLC0415 - only who serves needs it
        from uvicorn.protocols.http.h11_impl import H11Protocol  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            'FakeClaude serves with uvicorn, which is not installed: pip install "tierline[testing]"'
        ) from error
    connections: set[Any] = set()

    async def with_reset(scope: Scope, receive: Receive, send: Send) -> None:
        def reset() -> None:
            for connection in connections:
                if connection.client == scope["client"]:
                    _reset(connection.transport)

        scope.setdefault("extensions", {})[RESET] = reset
        await app(scope, receive, send)

    # Named TCP, or asyncio leaves Nagle's algorithm on, and each answer waits 40 ms for an acknowledgement.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    if port:  # one that was in use a moment ago is free
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    config = uvicorn.Config(
        with_reset, http=H11Protocol, ws="none", lifespan="off", log_config=None, access_log=False, proxy_headers=False
    )
    config.load()
    # Only the parts of a server that serve: no signal handlers, and no ticks to wait for when it closes.
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    connections = server.server_state.connections
    await server.startup(sockets=[listener])
    try:
        yield f"http://{host}:{listener.getsockname()[1]}"
    finally:
        await _close(server, listener)


@contextmanager
def serving_in_thread(app: ASGIApp, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve on a loop of a thread of its own, for programs without one. Raises as `serving` does."""
    ready = threading.Event()
    found: list[str] = []
    failed: list[BaseException] = []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def run() -> None:
        try:
            async with serving(app, host, port) as url:
                done = asyncio.Event()
                stop.append((asyncio.get_running_loop(), done))
                found.append(url)
                ready.set()
                await done.wait()
        except BaseException as error:  # noqa: BLE001 - it is raised where the thread was started
            failed.append(error)
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="tierline-fake-claude", daemon=True)
    thread.start()
    ready.wait()
    try:
        if found:
            yield found[0]
    finally:
        for loop, done in stop:
            loop.call_soon_threadsafe(done.set)
        thread.join()
    if failed:
        raise failed[0]


def _reset(transport: Any) -> None:
    """Close with a TCP reset and not with an orderly end: lingering for no time at all."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def _close(server: Any, listener: socket.socket) -> None:
    state = server.server_state
    for accepting in server.servers:
        accepting.close()
    listener.close()
    for connection in list(state.connections):
        busy = connection.cycle is not None and not connection.cycle.response_complete
        connection.transport.abort() if busy else connection.shutdown()
    for _ in range(10):  # what was answered is on its way out: let it go
        await asyncio.sleep(0)
    while state.connections or state.tasks:
        tasks = list(state.tasks)
        if tasks:
            await asyncio.wait(tasks, timeout=0.2)
            for task in state.tasks:
                task.cancel()
        else:
            await asyncio.sleep(0)
        for connection in list(state.connections):
            connection.transport.abort()
    for accepting in server.servers:
        await accepting.wait_closed()
