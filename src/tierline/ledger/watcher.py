"""A task that looks after something on whatever loop there is, while loops, threads and processes come and go."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log: Final = logging.getLogger("tierline")

_DEAF: Final = 15.0
"""Seconds without a sign after which a watch is taken for one on a loop that no longer runs."""


class Watcher:
    """A task on the loop on which it was made. `work` is given it, to say when a round begins, and to sleep between."""

    def __init__(self, work: Callable[[Watcher], Awaitable[None]]) -> None:
        self.loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._event = asyncio.Event()
        self._seen = time.monotonic()
        self.woken = False
        """Whether somebody has called since the last round began."""
        self.task: asyncio.Task[None] = self.loop.create_task(self._run(work))

    @property
    def alive(self) -> bool:
        """Whether it can be expected to run on."""
        return (
            self._pid == os.getpid()
            and not self.task.done()
            and not self.loop.is_closed()
            and time.monotonic() - self._seen < _DEAF
        )

    def wake(self) -> None:
        """Begin the next round without delay. From any thread."""
        self.woken = True
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._event.set)

    def begin_round(self) -> None:
        """A sign of life."""
        self.woken = False
        self._event.clear()
        self._seen = time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait, but for no longer than until somebody calls."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)

    async def _run(self, work: Callable[[Watcher], Awaitable[None]]) -> None:
        try:
            await work(self)
        except Exception as error:
            log.exception("looking after the ledger failed: %s", type(error).__name__)
