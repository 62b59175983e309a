"""Looks after the slices of a process: takes them from a Redis ledger, reports what they came to, gives them back."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from tierline.errors import LedgerUnavailableError
from tierline.ledger.slices import Slices
from tierline.ledger.watcher import Watcher
from tierline.ledger.wire import asked, dumps, form, kept_of, text, whole_row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from tierline.budgets import Line
    from tierline.ledger.base import Reservation
    from tierline.ledger.session import Session
    from tierline.ledger.slice import Report, Slice
    from tierline.windows import Span

log: Final = logging.getLogger("tierline")

PERIOD: Final = 1.0
"""Seconds between two reports of a slice that calls are admitted against."""
_SOON: Final = 0.005
"""Seconds after which it is looked again whether another task has told of a slice."""
_TURNS: Final = 200
_MOST_REPORTS: Final = 4
"""Reports in a row: one that is told again, what came since, what it was left with meanwhile, and the end."""


class Slicing:
    """The slices of a Redis ledger, and what keeps them true.

    One task of one event loop reports all of them every second, and ends when there is none left. `post` charges what
    a slice came to that the ledger has lost.
    """

    def __init__(self, session: Session, share: float, lease: float, post: Callable[..., Awaitable[bool]]) -> None:
        self.slices = Slices(share, lease, time=session.time, version=lambda: session.version, wake=self._wake)
        self._session = session
        self._lease = lease
        self._post = post
        self._watcher: Watcher | None = None
        self._locks: dict[int, Lock] = {}

    async def give_back(self, lines: Iterable[Line]) -> None:
        """Give back what slices hold of these accounts that no call has."""
        for found in self.slices.close_for(lines):
            await self.tell(found)

    async def sync(self) -> None:
        """Tell the ledger all that slices came to. LedgerUnavailableError where that is not known."""
        for found in self.slices.all():
            await self.tell(found)

    async def round(self) -> None:
        """What is due every second: see which slices are still used, and tell the ledger of all."""
        for found in self.slices.tend():
            await self.tell(found)

    async def aclose(self) -> None:
        """Give back all that no call in flight has; whoever goes on takes slices anew."""
        watcher = self._watcher
        if watcher is not None and watcher.loop is asyncio.get_running_loop():
            self._watcher = None
            watcher.task.cancel()
            await asyncio.wait((watcher.task,))
        self.slices.close()
        with suppress(LedgerUnavailableError):  # what is not told lapses with its lease, and is charged
            await self.sync()

    # One slice

    async def tell(self, found: Slice) -> None:
        """Tell the ledger of one slice, and learn what it may hold. Waits for another task that is telling."""
        for _ in range(_TURNS):
            if not found.reporting:
                break
            await asyncio.sleep(_SOON)
        again = found.pending is not None  # what has come since is told after it
        for _ in range(_MOST_REPORTS):
            report = self.slices.begin(found)
            if report is None:
                return
            more = False
            try:
                if found.orphan:
                    await self._charge(found, report)
                else:
                    await self._report(found, report)
            finally:
                more = self.slices.stopped(found)
            if not more and not again:
                return
            again = False

    async def _report(self, found: Slice, report: Report) -> None:
        session = self._session
        own = [line for line, _ in found.started.lines]
        spans = [span for _, span in found.started.lines]
        fixed = dumps(self._ask(found, report))[:-1]
        start = max(span.start for span in spans)
        end = min(span.until for span in spans)
        charged: list[tuple[Line, Span]] = []
        sent = 0.0

        def arguments(_: float) -> tuple[str, ...]:
            nonlocal sent
            sent = session.time()
            charged[:] = zip(session.limited(own), spans, strict=True)
            lines = asked([(mine, *each) for mine, each in zip(own, charged, strict=True)], [0])
            return found.id, session.version, f'{fixed},"from":"{text(start)}","to":"{text(end)}","lines":{lines}}}'

        status, _, *rest = await session.step("slice", arguments, session.until())
        if status == "done":
            idle, seen, back, spent = int(rest[0]), [int(used) for used in rest[1]], bool(rest[2]), rest[3]
            pairs = tuple(charged)
            cap = int(rest[4])
            back = back or not all(spent)
            self.slices.accepted(found, report, pairs, session.version, (idle, cap), seen, sent, back=back)
            session.recall.charged(found.started, spent)
            if report.final:
                session.recall.ended(found.id)
            else:
                cost = report.busy + idle
                offer = found.started.offer._replace(cost=cost, input_cost=0)
                session.recall.held(found.started._replace(id=found.id, offer=offer, cost=cost))
            return
        session.recall.ended(found.id)
        if status == "none":
            self.slices.refused(found)
        elif status == "lapsed":
            self.slices.lapsed(found, int(rest[0]))
        elif status == "ended":
            self.slices.ended(found)
        else:
            log.warning("the store has lost a slice of a budget: what calls have come to is charged without it")
            await self._charge(found, self.slices.lost(found))

    def _ask(self, found: Slice, report: Report) -> dict[str, Any]:
        left = [
            [held.id, _record(held) | {"lines": [form(line).name for line, _ in held.lines]}] for held in report.left
        ]
        rows = [[_record(row.first), str(row.cost), str(row.guess), row.attempts] for row in report.rows]
        return {
            "number": report.number,
            "fresh": report.number == 1,
            "final": report.final,
            "spent": str(report.spent),
            "guess": str(report.guess),
            "busy": str(report.busy),
            "keep": str(report.keep),
            "want": str(report.want),
            "least": str(report.least),
            "share": self.slices.share,
            "rows": rows,
            "left": left,
            "hold": _record(found.started),
        }

    async def _charge(self, found: Slice, report: Report) -> None:
        """Charge by origin and tier what the slice came to."""
        for place, row in enumerate(report.rows):
            held = row.first._replace(attempts=row.attempts)
            for what, cost in (("measured", row.cost - row.guess), ("guessed", row.guess)):
                if cost or (what == "measured" and not row.guess):
                    key = f"{found.id}.{report.number}.{place}.{what}"
                    await self._post(held._replace(id=key), cost, estimated=what == "guessed")
                    held = held._replace(attempts=0)
        for held in report.left:
            await self._post(held, held.cost, estimated=True)
        self.slices.charged(found)

    # The task

    @property
    def _lock(self) -> Lock:
        """Held for no longer than an assignment, and never over an await. A forked child has one of its own."""
        return self._locks.get(os.getpid()) or self._locks.setdefault(os.getpid(), Lock())

    def _wake(self, now: bool) -> None:
        """See to it that a task on some loop looks after the slices, without delay if it is to be `now`. On a loop."""
        with self._lock:
            watcher = self._watcher
            if watcher is None or not watcher.alive:
                self._watcher = watcher = Watcher(self._look_after)
        if now:
            watcher.wake()

    async def _look_after(self, watcher: Watcher) -> None:
        while self._watcher is watcher:
            watcher.begin_round()
            try:
                await self.round()
            except LedgerUnavailableError as error:
                log.debug("slices of budgets cannot be reported now: %s", error)
            with self._lock:
                if self.slices.empty and not watcher.woken:
                    if self._watcher is watcher:
                        self._watcher = None
                    return
            await watcher.sleep(PERIOD if self.slices.busy else max(PERIOD, self._lease / 3))


def _record(held: Reservation) -> dict[str, Any]:
    """What a ledger keeps of a hold, or of a row."""
    return whole_row(kept_of(held.origin, held.at), held.offer) | {"cost": str(held.cost), "offer": 1}
