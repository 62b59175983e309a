"""Who looks after the jobs of a store: one task of each event loop, for as long as there is something to do."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import secrets
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final

from tierline.batches.holding import release_lapsed, reservation_of
from tierline.batches.working import Work
from tierline.errors import LedgerUnavailableError

if TYPE_CHECKING:
    from tierline.batches.api import BatchAPI
    from tierline.batches.jobs import BatchRow, JobStore
    from tierline.router import Router

log: Final = logging.getLogger("tierline")

AT_ONCE: Final = 4
"""Batches that one process works on side by side."""
SOONEST: Final = 0.5
"""Seconds between two looks at the store, while things happen; they double up to `LONGEST`."""
LONGEST: Final = 60.0
RETIRING: Final = 3600.0
"""Seconds between two looks for jobs that are too old."""
SWEPT: Final = 500
"""Requests that are dropped in one step."""
_HOLDS: Final = 500


class Keeper:
    """Sends, polls, collects and renews, for all jobs of a store that nobody else works on.

    It begins with whatever is asked of jobs, and ends when none of them has anything left to do.
    """

    def __init__(
        self, router: Router[Any], store: JobStore, api: BatchAPI, *, lease: float, unsure: float, retention: float
    ) -> None:
        self._router, self._store, self._retention = router, store, retention
        self._retired = -inf
        """When jobs were last looked through for those that are too old."""
        self._owner = secrets.token_hex(8)
        self._lease = lease
        self._work = Work(router, store, api, self._owner, LONGEST, unsure)
        self._task: asyncio.Task[None] | None = None
        self._beat: asyncio.Task[None] | None = None
        self._turn = asyncio.Event()
        self._rounds = 0
        self._wake = asyncio.Event()
        self.also: set[str] = set()
        """Owners of submissions that run here."""

    def wake(self) -> None:
        """There is something to do now."""
        self._wake.set()
        if self._task is None or self._task.done():
            # In a context of its own: what it does belongs to no request.
            empty = contextvars.Context()
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), context=empty)
        if self._beat is None or self._beat.done():
            self._beat = asyncio.get_running_loop().create_task(self._renew(), context=contextvars.Context())

    async def turned(self) -> None:
        """Wait until it has looked once more."""
        self.wake_if_idle()
        await self._turn.wait()

    async def caught_up(self) -> None:
        """Wait until it has looked at all that is due, from now on."""
        busy = self._task is not None and not self._task.done()
        wanted = self._rounds + (2 if busy else 1)  # what it does now may have begun before
        while self._rounds < wanted:
            self.wake()
            await self.turned()

    def wake_if_idle(self) -> None:
        """Begin, where nothing runs."""
        if self._task is None or self._task.done():
            self.wake()

    async def close(self) -> None:
        """Leave what is under way to whoever comes after: it is all in the store."""
        tasks = [task for task in (self._task, self._beat) if task is not None]
        self._task = self._beat = None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self) -> None:
        pause = SOONEST
        while True:
            self._wake.clear()
            did = False
            try:
                await release_lapsed(self._router.ledger, self._store)
                await self._retire()
                while rows := await self._store.take(self._owner, AT_ONCE):
                    did = True
                    # All of them, whatever one meets: what is still under way must not be taken once more.
                    for error in await asyncio.gather(*map(self._advance, rows), return_exceptions=True):
                        if error is not None:
                            raise error
                    self.told()
                if self._router.metrics.recording:
                    self._router.metrics.jobs(await self._store.under_way())
                if not did and not self.also and not await self._store.left():
                    self._rounds += 1
                    self.told()
                    return
            except LedgerUnavailableError as error:
                log.warning("jobs of batches wait, for their store is away: %s", error)
            self._rounds += 1
            self.told()
            pause = SOONEST if did else min(2 * pause, LONGEST)
            sleeping = asyncio.ensure_future(self._router.timing.sleep(pause))
            waking = asyncio.ensure_future(self._wake.wait())
            try:
                await asyncio.wait((sleeping, waking), return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeping.cancel()
                waking.cancel()
            if self._wake.is_set():
                pause = SOONEST

    async def _advance(self, row: BatchRow) -> None:
        try:
            await self._work.advance(row)
        except LedgerUnavailableError:
            raise
        except Exception:
            # Of our own making, or of a client of the app's: the batch is looked at again when it has cooled down.
            log.exception("batch %s of job %s cannot be worked on", row.id, row.job)
            again = row._replace(due=self._router.timing.now() + LONGEST, fails=row.fails + 1)
            with suppress(LedgerUnavailableError):
                await self._store.save(again, self._owner, give_back=True)

    async def _retire(self) -> None:
        """Drop what is too old, and what was deleted, bit by bit: others use the store meanwhile."""
        now = self._router.timing.now()
        if now >= self._retired + RETIRING and self._retention < inf:
            self._retired = now
            if number := await self._store.retire(self._retention):
                log.info("%d jobs are forgotten, for they have ended %.0f s ago or more", number, self._retention)
        while await self._store.sweep(SWEPT):
            pass

    def told(self) -> None:
        """Let those who wait look again."""
        turn, self._turn = self._turn, asyncio.Event()
        turn.set()

    async def _renew(self) -> None:
        """Keep leases and holds alive, while there are any."""
        while self._task is not None and not self._task.done():
            try:
                for owner in (self._owner, *self.also):
                    await self._store.keep(owner)
                after = ""
                while held := await self._store.holds(after, _HOLDS):
                    after = held[-1].id
                    await self._router.ledger.renew([reservation_of(each)[0] for each in held])
            except LedgerUnavailableError:
                log.debug("leases are not renewed, for the store is away")
            await self._router.timing.sleep(self._lease / 3)
