"""A bad network between a client and a server: it delays, cuts, and does things twice."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Proxy:
    """Passes bytes on to 127.0.0.1:`port`. Its faults may be changed at any time.

    `slow`    how often an answer is held up, for `delay` seconds
    `cut`     how often a connection is cut after a request has been passed on, and before its answer
    `twice`   whether every request is made a second time, over a connection whose answers nobody reads
    """

    def __init__(self, port: int, seed: int = 1) -> None:
        self.to = port
        self.port = 0
        self.slow = self.delay = self.cut = 0.0
        self.twice = False
        self.cuts = 0
        self._random = random.Random(seed)  # noqa: S311

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[Proxy]:
        """Listen on a free port."""
        tasks: set[asyncio.Task[None]] = set()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            try:
                await self._pass(reader, writer)
            except (OSError, asyncio.CancelledError):
                pass
            finally:
                tasks.discard(task)
                writer.close()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in tuple(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection("127.0.0.1", self.to)
        ignored, again = await asyncio.open_connection("127.0.0.1", self.to)

        async def back() -> None:
            while chunk := await answers.read(65_536):
                if self._random.random() < self.slow:
                    await asyncio.sleep(self.delay)
                writer.write(chunk)

        async def ignore() -> None:
            while await ignored.read(65_536):
                pass

        helpers = [asyncio.ensure_future(back()), asyncio.ensure_future(ignore())]
        try:
            while chunk := await reader.read(65_536):
                requests.write(chunk)
                if self.twice:
                    again.write(chunk)
                if self._random.random() < self.cut:
                    await requests.drain()
                    self.cuts += 1
                    return
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            with suppress(OSError):
                requests.close()
                again.close()
