"""Where a Router's jobs are kept: with its balances, over the same connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from tierline.batches.queue.sqlite import SQLQueue
from tierline.batches.sqlite import MemoryJobs, SQLiteJobs, SQLJobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.batches.jobs import JobStore
    from tierline.batches.queue.store import QueueStore
    from tierline.store.redis import RedisStore


def open_queue(connection: object, jobs: JobStore, *, clock: Callable[[], float], lease: float) -> QueueStore:
    """The store of deferred requests beside that of jobs."""
    if isinstance(jobs, SQLJobs):
        return SQLQueue(jobs, clock=clock, lease=lease)
    from tierline.batches.queue.redis import RedisQueue  # noqa: PLC0415

    return RedisQueue(cast("RedisStore", connection), lease=lease)


def open_jobs(connection: object, *, clock: Callable[[], float], lease: float) -> JobStore:
    """The store of jobs over a `SQLiteStore` or a `RedisStore`; for all else the memory of this process.

    `clock` gives seconds since the epoch, `lease` is for how long in seconds whoever works on something has it.
    """
    if connection is None:
        return MemoryJobs(clock=clock, lease=lease)
    from tierline.store.redis import RedisStore  # noqa: PLC0415  (only for who has one)
    from tierline.store.sqlite import SQLiteStore  # noqa: PLC0415  (only for who has one)

    if isinstance(connection, SQLiteStore):
        return SQLiteJobs(connection, clock=clock, lease=lease)
    if isinstance(connection, RedisStore):
        from tierline.batches.redis import RedisJobs  # noqa: PLC0415

        return RedisJobs(connection, lease=lease)
    return MemoryJobs(clock=clock, lease=lease)
