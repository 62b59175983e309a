"""Stores of jobs, each several times on one state, as processes have them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tierline.batches.opening import open_jobs, open_queue
from tierline.store.redis import RedisStore
from tierline.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    from tierline.batches.jobs import JobStore
    from tierline.batches.queue.store import QueueStore


class Shared:
    """One state, and how a process opens it."""

    def __init__(self, url: str, namespace: str = "tierline") -> None:
        self.url, self.namespace = url, namespace
        self._one: JobStore | None = None
        self._connections: list[RedisStore | SQLiteStore] = []

    def open(self, lease: float = 30.0) -> JobStore:
        """An object as another process has it. What is in memory has one alone."""
        if self.url == "memory":
            self._one = self._one or open_jobs(None, clock=time.time, lease=lease)
            return self._one
        connection: RedisStore | SQLiteStore
        if self.url.startswith("redis"):
            connection = RedisStore(self.url, namespace=self.namespace, timeout=5)
        else:
            connection = SQLiteStore(self.url, timeout=5)
        self._connections.append(connection)
        return open_jobs(connection, clock=time.time, lease=lease)

    def queue(self, lease: float = 30.0) -> QueueStore:
        """The store of deferred requests beside it."""
        jobs = self.open(lease)
        connection = self._connections[-1] if self._connections else None
        return open_queue(connection, jobs, clock=time.time, lease=lease)

    async def aclose(self) -> None:
        """Let go of everything."""
        for each in self._connections:
            await each.aclose()
