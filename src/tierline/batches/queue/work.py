"""What is done with deferred requests: gathered into jobs, their answers taken in, and called where time runs out."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, Protocol

from tierline.batches.calling import Called, call
from tierline.batches.queue.kept import request_of, result_text
from tierline.batches.values import Unreadable
from tierline.errors import ConfigurationError, LedgerUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tierline.batches.jobs import JobStore, ResultRow
    from tierline.batches.queue.settings import Queue
    from tierline.batches.queue.store import Group, Item, QueueStore
    from tierline.batches.values import BatchRequest, BatchStatus, WhenFull
    from tierline.router import Router

log: Final = logging.getLogger("tierline")

_PAGE: Final = 250
_SOONEST: Final = 0.5
_LONGEST: Final = 60.0
"""Seconds between two looks at a job; soon at first, for many end within minutes."""
_AGAIN: Final = 10.0
"""Seconds after which a call is tried again that may succeed, where nobody says when."""


class Jobs(Protocol):
    """What is needed of `router.batches`."""

    async def submit(
        self, requests: AsyncIterator[object], *, job: str | None = None, when_full: WhenFull = "refuse"
    ) -> str:
        """Take in requests."""
        ...

    async def status(self, job: str) -> BatchStatus:
        """How far a job is; it is looked after from then on."""
        ...

    async def cancel(self, job: str) -> BatchStatus:
        """Send nothing more of a job."""
        ...

    async def delete(self, job: str) -> None:
        """Forget a job that has ended."""
        ...


class QueueWork:
    """What one worker does with groups and requests that it has the lease of."""

    def __init__(
        self, router: Router[Any], lane: Jobs, jobs: JobStore, store: QueueStore, queue: Queue, owner: str
    ) -> None:
        self._router, self._lane, self._jobs = router, lane, jobs
        self._store, self._queue, self._owner = store, queue, owner

    def _now(self) -> float:
        return self._router.timing.now()

    # In a batch

    async def advance(self, group: Group) -> None:
        """Take a group as far as it goes now, and say when it is to be looked at again."""
        if not group.submitted:
            group = await self._submitted(group)
        else:
            kept = await self._collected(group)
            if kept is None:
                return
            group = kept
        await self._store.save(group, self._owner)

    async def _submitted(self, group: Group) -> Group:
        """Let the lane have the requests. To do that again passes over those that it has."""
        try:
            when_full: Any = group.when_full
            await self._lane.submit(self._requests(group), job=group.id, when_full=when_full)
        except ConfigurationError as error:
            # Whoever began it is not known to be dead yet.
            log.info("job %s of deferred requests is not submitted yet: %s", group.id, error)
            return group._replace(due=self._now() + self._router.ledger.lease / 3)
        return group._replace(submitted=self._now(), due=self._now())

    async def _requests(self, group: Group) -> AsyncIterator[BatchRequest | Unreadable]:
        """Each at its place: where one is gone, there is none."""
        at, after = 0, -1
        while members := await self._store.members(group.id, after, _PAGE):
            after = members[-1].place
            for each in members:
                for _ in range(each.place - at):
                    yield Unreadable("it is not in this batch any more")
                at = each.place + 1
                yield request_of(each.handle, each.request)
        for _ in range(group.number - at):
            yield Unreadable("it is not in this batch any more")

    async def _collected(self, group: Group) -> Group | None:
        """Take in answers. None where all is done, and the group is gone."""
        counts = await self._jobs.counts(group.id)
        if counts is None:
            # Somebody deleted the job: what has no answer of it waits anew.
            await self._store.drop(group.id, self._owner)
            return None
        final = sum(number for outcome, (number, _) in counts.outcomes.items() if outcome)
        over = not counts.open and not counts.busy
        if over or final > group.seen:
            await self._take_in(group)
        if over:
            await self._lane.delete(group.id)
            await self._store.drop(group.id, self._owner)
            return None
        await self._lane.status(group.id)  # so that somebody looks after it
        now = self._now()
        due = now + min(_LONGEST, max(_SOONEST, (now - group.submitted) / 4))
        if group.canceled:
            return group._replace(seen=final, due=now + _SOONEST)
        if group.act_by > now:
            return group._replace(seen=final, due=min(due, group.act_by))
        log.info("job %s of deferred requests is cancelled: a deadline comes near", group.id)
        await self._lane.cancel(group.id)
        return group._replace(seen=final, due=now + _SOONEST, canceled=True)

    async def _take_in(self, group: Group) -> None:
        after = -1
        while members := await self._store.members(group.id, after, _PAGE):
            after = members[-1].place
            handles = {each.place: each.handle for each in members}
            found = await self._jobs.found(group.id, list(handles))
            back = [handles[row.place] for row in found if row.outcome == "canceled"]
            late = [handles[row.place] for row in found if row.outcome == "expired"]
            good = [row for row in found if row.outcome not in ("canceled", "expired")]
            now = self._now()
            answers = [(handles[row.place], _of_job(row)) for row in good]
            if answers:
                await self._store.answer(group.id, answers, now)
            if back:
                await self._store.back(group.id, back, *self._queue.again(now), None)
            if late:
                # Batches had their chance: it is called at once.
                await self._store.back(group.id, late, now, now, now)

    # Called

    async def call(self, item: Item) -> None:
        """Send a request as a usual call, at the full price: its deadline is near.

        LedgerUnavailableError where the store is away; whoever comes after calls it then.
        """
        try:
            found = await call(self._router, request_of(item.handle, item.request or "{}"))
        except LedgerUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  (ours, or of a client of the app's: it may quote the request)
            log.error("a deferred request cannot be called: %s", type(error).__name__)  # noqa: TRY400
            found = Called("errored", error=type(error).__name__, again=True, wait=_LONGEST)
        now = self._now()
        wait = self._wait(item, found)
        if wait is not None and now + wait < item.deadline:
            await self._store.back(self._owner, [item.handle], now, now + wait, now + wait)
            return
        text = result_text(
            found.outcome,
            raw=found.raw,
            error=found.error,
            tier=found.tier,
            model=found.model,
            cost=found.cost,
            estimated=found.estimated,
            tries=int(found.sent),
        )
        await self._store.answer(self._owner, [(item.handle, text)], now)

    def _wait(self, item: Item, found: Called) -> float | None:
        """In how many seconds another try may succeed; None where none will, or none is wanted."""
        if found.outcome == "errored" and found.again:
            return max(found.wait or 0.0, _AGAIN)
        wait = None if found.refusal is None else found.refusal.fits_in
        return max(1.0, wait) if item.when_full == "defer" and wait is not None else None


def _of_job(row: ResultRow) -> str:
    good = row.outcome == "succeeded"
    return result_text(
        row.outcome,
        raw=row.result if good else None,
        error=None if good else row.result,
        tier=row.tier,
        model=row.model,
        cost=row.cost,
        estimated=row.estimated,
        tries=row.tries,
    )
