"""Deferred requests in the ledger's SQLite file; or in the memory of this process, by the same statements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from tierline.batches.queue import tables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.batches.queue.store import Group, Item, Member
    from tierline.batches.queue.values import Delivery

T = TypeVar("T")


class Runs(Protocol):
    """What does a step in a transaction: a store of jobs in SQL, which has the same connection."""

    async def run(self, step: Callable[..., T], *args: Any) -> T:
        """What the step returned, once that is committed."""
        ...


class SQLQueue:
    """A `QueueStore` in SQL. `clock` gives seconds since the epoch, `lease` is in seconds."""

    def __init__(self, jobs: Runs, *, clock: Callable[[], float], lease: float) -> None:
        self._run, self._clock, self._lease = jobs.run, clock, lease

    @property
    def _until(self) -> float:
        return self._clock() + self._lease

    async def put(self, item: Item) -> None:
        """See `QueueStore`."""
        await self._run(tables.put, item)

    async def get(self, handle: str) -> Item | None:
        """See `QueueStore`."""
        return await self._run(tables.get, handle)

    async def gather(self, group: str, size: int) -> bool:
        """See `QueueStore`."""
        return await self._run(tables.gather, self._clock(), group, size)

    async def groups(self, owner: str, limit: int) -> list[Group]:
        """See `QueueStore`."""
        return await self._run(tables.groups, self._clock(), self._until, owner, limit)

    async def members(self, group: str, after: int, limit: int) -> list[Member]:
        """See `QueueStore`."""
        return await self._run(tables.members, group, after, limit)

    async def save(self, group: Group, owner: str) -> bool:
        """See `QueueStore`."""
        return await self._run(tables.save, group, owner)

    async def drop(self, group: str, owner: str) -> None:
        """See `QueueStore`."""
        await self._run(tables.drop, group, owner)

    async def calls(self, owner: str, limit: int) -> list[Item]:
        """See `QueueStore`."""
        return await self._run(tables.calls, self._clock(), self._until, owner, limit)

    async def answer(self, by: str, found: Sequence[tuple[str, str]], now: float) -> int:
        """See `QueueStore`."""
        return await self._run(tables.answer, by, found, now)

    async def back(self, by: str, handles: Sequence[str], ready: float, fill_by: float, act_by: float | None) -> None:
        """See `QueueStore`."""
        await self._run(tables.back, by, handles, ready, fill_by, act_by)

    async def deliveries(self, owner: str, targets: Sequence[str], limit: int) -> list[Item]:
        """See `QueueStore`."""
        return await self._run(tables.deliveries, self._clock(), self._until, owner, targets, limit)

    async def deliver(self, handle: str, owner: str, delivery: Delivery, due: float, tries: int) -> None:
        """See `QueueStore`."""
        await self._run(tables.deliver, handle, owner, delivery, due, tries)

    async def keep(self, owner: str, groups: Sequence[str], handles: Sequence[str]) -> None:
        """See `QueueStore`."""
        await self._run(tables.keep, self._until, owner, groups, handles)

    async def next(self, targets: Sequence[str]) -> float | None:
        """See `QueueStore`."""
        return await self._run(tables.next_due, self._clock(), targets)

    async def purge(self, before: float, limit: int) -> int:
        """See `QueueStore`."""
        return await self._run(tables.purge, before, limit)

    async def forget(self, handle: str) -> bool:
        """See `QueueStore`."""
        return await self._run(tables.forget, handle)

    async def of(self, tenant: str, limit: int) -> list[str]:
        """See `QueueStore`."""
        return await self._run(tables.of, tenant, limit)
