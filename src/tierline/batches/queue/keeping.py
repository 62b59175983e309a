"""Who looks after deferred requests: one task of each event loop, for as long as there is something to do."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import secrets
from typing import TYPE_CHECKING, Any, Final

from tierline.batches.queue.delivery import Deliveries
from tierline.batches.queue.work import QueueWork
from tierline.errors import LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from tierline.batches.jobs import JobStore
    from tierline.batches.queue.delivery import Target
    from tierline.batches.queue.settings import Queue
    from tierline.batches.queue.store import QueueStore
    from tierline.batches.queue.work import Jobs
    from tierline.router import Router

log: Final = logging.getLogger("tierline")

GROUPS, CALLS, DELIVERIES = 4, 16, 8
"""How many groups, calls and deliveries one process works on side by side."""
_SOONEST: Final = 0.5
_LONGEST: Final = 60.0
"""Seconds between two looks at the store, at least and at most, if nothing wakes it."""
_GRACE: Final = 5.0
"""Seconds that calls have to end in, when the process does."""
_PURGED: Final = 500


class QueueKeeper:
    """Gathers, submits, collects, calls and delivers, whatever nobody else works on.

    It begins with whatever is deferred or asked for, and ends when nothing is left to do.
    """

    def __init__(
        self,
        router: Router[Any],
        lane: Jobs,
        jobs: JobStore,
        store: QueueStore,
        queue: Queue,
        targets: Mapping[str, Target],
        *,
        lease: float,
    ) -> None:
        self._router, self._store, self._queue, self._targets = router, store, queue, targets
        self._owner = secrets.token_hex(8)
        self._lease = lease
        self._work = QueueWork(router, lane, jobs, store, queue, self._owner)
        self._deliveries = Deliveries(router, store, self._owner)
        self._task: asyncio.Task[None] | None = None
        self._beat: asyncio.Task[None] | None = None
        self._wake, self._turn = asyncio.Event(), asyncio.Event()
        self._busy: dict[str, dict[str, asyncio.Task[None]]] = {"group": {}, "call": {}, "delivery": {}}
        """What is under way, by kind and id."""

    def wake(self) -> None:
        """There may be something to do now."""
        self._wake.set()
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done():
            # In a context of its own: what it does belongs to no request.
            self._task = loop.create_task(self._run(), context=contextvars.Context())
        if self._beat is None or self._beat.done():
            self._beat = loop.create_task(self._renew(), context=contextvars.Context())

    def wake_if_idle(self) -> None:
        """Begin, where nothing runs."""
        if self._task is None or self._task.done():
            self.wake()

    async def turned(self) -> None:
        """Wait until it has looked once more."""
        self.wake_if_idle()
        await self._turn.wait()

    async def close(self) -> None:
        """Leave what is under way to whoever comes after; calls, which are paid for, may end first."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        calls = list(self._busy["call"].values())
        if calls:
            await asyncio.wait(calls, timeout=_GRACE)
        rest = [task for tasks in self._busy.values() for task in tasks.values()]
        rest += [self._beat] if self._beat is not None else []
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        self._task = self._beat = None

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            try:
                await self._look()
                wait = await self._store.next(tuple(self._targets))
            except LedgerUnavailableError as error:
                log.warning("deferred requests wait, for their store is away: %s", error)
                wait = _LONGEST / 10
            self._told()
            if wait is None and not any(self._busy.values()) and not self._wake.is_set():
                return
            sleeping = asyncio.ensure_future(
                self._router.timing.sleep(min(_LONGEST, max(_SOONEST, _LONGEST if wait is None else wait)))
            )
            waking = asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeping.cancel()
                waking.cancel()

    async def _look(self) -> None:
        """Begin whatever is to be done now, as far as there is room for it."""
        while await self._store.gather(f"deferred-{secrets.token_hex(8)}", self._queue.size):
            pass
        if room := GROUPS - len(self._busy["group"]):
            for group in await self._store.groups(self._owner, room):
                self._begin("group", group.id, self._work.advance(group))
        if room := CALLS - len(self._busy["call"]):
            for item in await self._store.calls(self._owner, room):
                self._begin("call", item.handle, self._work.call(item))
        targets = tuple(self._targets)
        if targets and (room := DELIVERIES - len(self._busy["delivery"])):
            for item in await self._store.deliveries(self._owner, targets, room):
                target = self._targets[item.target]
                self._begin("delivery", item.handle, self._deliveries.deliver(item, target))
        await self._store.purge(self._router.timing.now() - self._queue.kept, _PURGED)

    def _begin(self, kind: str, name: str, doing: Coroutine[Any, Any, None]) -> None:
        if name in self._busy[kind]:
            # Its lease had ended, for the store was away or this loop stood still. To call it once more is paid twice.
            doing.close()
            return
        task = asyncio.get_running_loop().create_task(self._done(kind, doing))
        self._busy[kind][name] = task
        task.add_done_callback(self._ended(kind, name))

    async def _done(self, kind: str, doing: Coroutine[Any, Any, None]) -> None:
        """What fails is left to whoever comes after the lease."""
        try:
            await doing
        except LedgerUnavailableError as error:
            log.warning("a deferred %s waits, for the store is away: %s", kind, error)
        except Exception:
            log.exception("a deferred %s cannot be worked on", kind)

    def _ended(self, kind: str, name: str) -> Callable[[asyncio.Task[None]], None]:
        def ended(task: asyncio.Task[None]) -> None:
            if self._busy[kind].get(name) is task:
                del self._busy[kind][name]
            self._wake.set()

        return ended

    def _told(self) -> None:
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    async def _renew(self) -> None:
        """Keep leases alive, while there are any."""
        while self._task is not None and not self._task.done():
            await self._router.timing.sleep(self._lease / 3)
            try:
                groups = list(self._busy["group"])
                handles = [name for kind in ("call", "delivery") for name in self._busy[kind]]
                if groups or handles:
                    await self._store.keep(self._owner, groups, handles)
            except LedgerUnavailableError:
                log.debug("leases are not renewed, for the store is away")
