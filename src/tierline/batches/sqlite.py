"""Jobs in a SQLite file, for the processes of one machine; or in the memory of this process, by the same statements."""

from __future__ import annotations

import sqlite3
import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tierline.batches import forgetting, tables
from tierline.batches.jobs import Tally
from tierline.store.schema import BATCHES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from sqlite3 import Connection

    from tierline.batches.jobs import BatchRow, Begun, Counts, Ended, Fact, Held, Item, ResultRow, Share
    from tierline.store.sqlite import SQLiteStore

T = TypeVar("T")

_AT_ONCE: Final = 20_000
"""Requests that are counted in one step: whoever uses the store waits for it."""


class SQLJobs:
    """A `JobStore` in SQL. `clock` gives seconds since the epoch, `lease` is in seconds."""

    def __init__(self, *, clock: Callable[[], float], lease: float) -> None:
        self._clock, self._lease = clock, lease

    async def _run(self, step: Callable[..., T], *args: Any, **options: Any) -> T:
        raise NotImplementedError

    async def run(self, step: Callable[..., T], *args: Any) -> T:
        """A step of a part that is kept with jobs, in a transaction of its own."""
        return await self._run(step, *args)

    @property
    def _until(self) -> float:
        return self._clock() + self._lease

    async def _whether(self, step: Callable[..., None], *args: Any) -> bool:
        """Whether a step was done."""
        try:
            await self._run(step, *args)
        except tables.Undone:
            return False
        return True

    async def begin(self, job: str, uid: str, owner: str, settings: str) -> Begun:
        """See `JobStore`."""
        return await self._run(tables.begin, self._clock(), self._until, job, uid, owner, settings)

    async def known(self, job: str, first: int, last: int, names: Sequence[str]) -> tuple[set[int], dict[str, int]]:
        """See `JobStore`."""
        return await self._run(tables.known, job, first, last, names)

    async def intend(self, job: str, owner: str, holds: Sequence[str]) -> None:  # noqa: ARG002  (Redis needs it)
        """See `JobStore`."""
        await self._run(tables.intend, self._until, owner, holds)

    async def add(
        self, job: str, owner: str, batch: str, items: Sequence[Item], holds: Sequence[Held], intents: Sequence[str]
    ) -> bool:
        """See `JobStore`."""
        return await self._whether(tables.add, self._until, job, owner, batch, items, holds, intents)

    async def seal(self, batch: str, owner: str) -> bool:
        """See `JobStore`."""
        return await self._run(tables.seal, batch, owner)

    async def finish(self, job: str, owner: str, *, whole: bool) -> None:
        """See `JobStore`."""
        await self._run(tables.finish, self._clock(), job, owner, whole=whole)

    async def take(self, owner: str, limit: int) -> list[BatchRow]:
        """See `JobStore`."""
        return await self._run(tables.take, self._clock(), self._until, owner, limit)

    async def keep(self, owner: str) -> None:
        """See `JobStore`."""
        await self._run(tables.keep, self._until, owner)

    async def save(self, row: BatchRow, owner: str, *, give_back: bool) -> bool:
        """See `JobStore`."""
        return await self._run(tables.save, self._clock(), row, owner, give_back=give_back)

    async def payloads(self, batch: str, after: int, limit: int) -> list[tuple[int, str | None]]:
        """See `JobStore`."""
        return await self._run(tables.payloads, batch, after, limit)

    async def collect(self, batch: str, owner: str, found: Sequence[Ended]) -> bool:
        """See `JobStore`."""
        return await self._run(tables.collect, batch, owner, found)

    async def facts(self, batch: str, places: Sequence[int]) -> dict[int, Fact]:
        """See `JobStore`."""
        return await self._run(tables.facts, batch, places)

    async def shares(self, batch: str) -> list[Share]:
        """See `JobStore`."""
        return await self._run(tables.shares, batch)

    async def waiting(self, batch: str, hold: str, after: int, limit: int) -> list[tuple[int, int, str]]:
        """See `JobStore`."""
        return await self._run(tables.waiting, batch, hold, after, limit)

    async def move(
        self, batch: str, owner: str, to: str, places: Sequence[int], hold: Held, intents: Sequence[str]
    ) -> bool:
        """See `JobStore`."""
        return await self._whether(tables.move, self._until, batch, owner, to, places, hold, intents)

    async def end(self, holds: Sequence[str]) -> None:
        """See `JobStore`."""
        await self._run(tables.end, holds)

    async def holds(self, after: str, limit: int) -> list[Held]:
        """See `JobStore`."""
        return await self._run(tables.held, after, limit)

    async def lapsed(self, limit: int) -> list[str]:
        """See `JobStore`."""
        return await self._run(tables.lapsed, self._clock(), limit)

    async def whose(self, uid: str, place: int) -> str:
        """See `JobStore`."""
        return await self._run(tables.whose, uid, place)

    async def is_known(self, api: str) -> bool:
        """See `JobStore`."""
        return await self._run(tables.is_known, api)

    async def results(self, job: str, after: int, limit: int) -> list[ResultRow]:
        """See `JobStore`."""
        return await self._run(tables.results, job, after, limit)

    async def found(self, job: str, places: Sequence[int]) -> list[ResultRow]:
        """See `JobStore`."""
        return await self._run(tables.found, job, places)

    async def counts(self, job: str) -> Counts | None:
        """See `JobStore`."""
        found = await self._run(tables.standing, self._clock(), job)
        if found is None:
            return None
        # What it is was read first: one that has ended has all of its results by then.
        counts, last = found
        sums: dict[str, tuple[int, int]] = {}
        waiting = 0
        for first in range(0, last + 1, _AT_ONCE):
            for outcome, number, cost, waits in await self._run(tables.outcomes, job, first, first + _AT_ONCE - 1):
                before = sums.get(outcome, (0, 0))
                sums[outcome] = before[0] + number, before[1] + cost
                waiting += waits
        return counts._replace(outcomes=sums, waiting=waiting)

    async def over(self, job: str) -> bool | None:
        """See `JobStore`."""
        found = await self._run(tables.standing, self._clock(), job)
        return None if found is None else not found[0].open and not found[0].busy

    async def tally(self, job: str) -> list[Tally]:
        """See `JobStore`."""
        found = await self._run(tables.standing, self._clock(), job)
        sums: dict[tuple[str, str, str], list[int]] = {}
        for first in range(0, found[1] + 1 if found is not None else 0, _AT_ONCE):
            for tenant, tier, outcome, *numbers in await self._run(tables.tally, job, first, first + _AT_ONCE - 1):
                before = sums.setdefault((tenant, tier, outcome), [0] * len(numbers))
                sums[tenant, tier, outcome] = [one + more for one, more in zip(before, numbers, strict=True)]
        return [Tally(*key, *numbers) for key, numbers in sorted(sums.items())]

    async def sent(self, job: str) -> list[BatchRow]:
        """See `JobStore`."""
        return await self._run(tables.sent, job)

    async def left(self) -> bool:
        """See `JobStore`."""
        return await self._run(tables.left)

    async def under_way(self) -> int:
        """See `JobStore`."""
        return await self._run(tables.under_way)

    async def jobs(self) -> list[str]:
        """See `JobStore`."""
        return await self._run(tables.jobs)

    async def cancel(self, job: str) -> None:
        """See `JobStore`."""
        await self._run(tables.cancel, job)

    async def erase(self, job: str) -> bool:
        """See `JobStore`."""
        return await self._run(forgetting.erase, self._clock(), job)

    async def retire(self, seconds: float) -> int:
        """See `JobStore`."""
        return await self._run(forgetting.retire, self._clock(), seconds)

    async def sweep(self, limit: int) -> bool:
        """See `JobStore`."""
        return await self._run(forgetting.sweep, limit)

    async def forget(self, job: str, tenant: str, after: int, limit: int) -> int | None:
        """See `JobStore`."""
        return await self._run(forgetting.forget, job, tenant, after, limit)


class SQLiteJobs(SQLJobs):
    """Jobs in the ledger's file, over its connection."""

    def __init__(self, store: SQLiteStore, *, clock: Callable[[], float], lease: float) -> None:
        super().__init__(clock=clock, lease=lease)
        self._store = store

    async def _run(self, step: Callable[..., T], *args: Any, **options: Any) -> T:
        def do(db: Connection) -> T:
            return step(db, *args, **options)

        return await self._store.run(do)


class MemoryJobs(SQLJobs):
    """Jobs of one process, which end with it: for tests, and where nothing is to be kept."""

    def __init__(self, *, clock: Callable[[], float], lease: float) -> None:
        super().__init__(clock=clock, lease=lease)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.executescript(BATCHES)
        weakref.finalize(self, self._db.close)

    async def _run(self, step: Callable[..., T], *args: Any, **options: Any) -> T:
        do = partial(step, self._db, *args, **options)
        with self._lock:
            self._db.execute("BEGIN")
            try:
                found = do()
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        return found
