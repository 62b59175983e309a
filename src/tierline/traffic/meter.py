"""What this process has seen, until it is in the store: added up as calls end, written behind everybody's back."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from tierline.budgets import run_account
from tierline.decisionlog.record import line_of, record_of
from tierline.errors import LedgerUnavailableError
from tierline.ledger.checks import plain
from tierline.report import NO_ROUTE, NO_TENANT, OTHER
from tierline.traffic.base import NAMES, BreakerStanding, Counts
from tierline.traffic.store import HOUR, Beat, Record, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from tierline.ledger.base import Reservation
    from tierline.traffic.store import Kind, TrafficStore
    from tierline.values import Decision

log: Final = logging.getLogger("tierline")

SOON: Final = 1.0
"""Seconds in which what calls did is gathered before it is written."""
BEAT: Final = 5.0
"""Seconds after which a process with an app says that it is alive, where nothing happens."""
RETRY: Final = 5.0
"""Seconds after which a store that was away is told again."""
MOST_RECORDS: Final = 50
"""Most decisions that are written at once: of more than that within a second, the latest."""
MOST_CELLS: Final = 50_000
"""Most names that are told apart while they wait for the store; the rest is `(other)`."""
LONGEST: Final = 2_000
"""Most characters of a text in a decision that is kept."""
AT_ONCE: Final = 100
"""Most rows of one step: the store does nothing else meanwhile."""
_LAST: Final = 1.0
"""Seconds for writing at a shutdown, even where it has no time."""

(
    _CALLS, _COST, _OWN, _ESTIMATED, _TOP, _LOOKUPS, _HITS, _DOWNGRADES, _ESCALATIONS, _FALLBACKS, _REFUSALS, _FAILURES,
    _BATCHED,
) = range(len(NAMES))  # fmt: skip

_Cell: TypeAlias = list[int]
"""Sums in the order of `NAMES`."""
_Place: TypeAlias = tuple[int, str, str | None, str | None]
"""An hour, a tier, a route, a tenant."""


class _Seen(NamedTuple):
    """A decision, as it waits to be written."""

    decision: Decision
    at: float
    outcome: str
    tools: int


class _Batch(NamedTuple):
    """What is written in one step."""

    number: int
    rows: Sequence[Row]
    records: Sequence[Record]


class Meter:
    """Adds up what the calls of this process did, and has it written about once a second.

    - a call waits for nothing and fails for nothing of it
    - what the store does not take is kept, added up, and written when it is back
    - each sum is added exactly once, also where an answer of the store was lost: see `TrafficStore.add`
    - what a process that is killed has not written is lost: about a second of it

    `now` gives seconds since the epoch, `away` says whether the store is known to be away, and `breakers` which of this
    process, by the id of the worker, are not closed. Safe from any thread.
    """

    def __init__(
        self,
        store: TrafficStore,
        *,
        now: Callable[[], float] = time.time,
        away: Callable[[], bool] = lambda: False,
        breakers: Callable[[str], tuple[BreakerStanding, ...]] = lambda _: (),
    ) -> None:
        self.store = store
        self._now, self._away, self._breakers = now, away, breakers
        self._begin()
        if hasattr(os, "register_at_fork"):
            forked = weakref.WeakMethod(self._begin)
            os.register_at_fork(after_in_child=lambda: (begin := forked()) and begin())

    def _begin(self) -> None:
        """As in a process that has just started; what waits in its parent is the parent's to write."""
        self.worker = secrets.token_hex(8)
        self.started = self._now()
        self._lock = threading.Lock()
        """Held for no longer than a few additions, and never over an await."""
        self._cells: dict[_Place, _Cell] = {}
        self._jobs: dict[tuple[int, str], _Cell] = {}
        self._seen: deque[_Seen] = deque(maxlen=MOST_RECORDS)
        self._number = 0
        self._batches: deque[_Batch] = deque()
        """Those of which it is not known that the store has them; by one sender at a time, in order."""
        self._sender: asyncio.Task[Any] | None = None
        """Who writes now."""
        self._timers: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._beats: dict[asyncio.AbstractEventLoop, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed = False

    # As it happens: from calls

    def spent(self, reservation: Reservation, cost: int, *, estimated: bool) -> None:
        """An attempt was settled: booked as the ledger books it."""
        tenant, route, own = reservation.origin
        hour = int(reservation.at // HOUR) * HOUR
        with self._lock:
            cell = self._cell((hour, reservation.offer.tier, route, tenant))
            cell[_COST] += cost
            cell[_TOP] += cost
            if own:
                cell[_OWN] += cost
            if estimated:
                cell[_ESTIMATED] += cost
        self._soon()

    def batched(self, reservation: Reservation, saved: int) -> None:
        """A request of a batch has come back, at the place where its hold is booked; `saved` against the top tier."""
        tenant, route, _ = reservation.origin
        with self._lock:
            cell = self._cell((int(reservation.at // HOUR) * HOUR, reservation.offer.tier, route, tenant))
            cell[_BATCHED] += 1
            cell[_TOP] += saved
        self._soon()

    def looked_up(self, tier: str, route: str | None, tenant: str | None, *, hit: bool) -> None:
        """A verdict was looked for in the cache; `tier` is asked where there is none."""
        with self._lock:
            cell = self._cell((self._hour(), tier, route, tenant))
            cell[_LOOKUPS] += 1
            cell[_HITS] += hit
        self._soon()

    def ended(
        self, decision: Decision, outcome: str, *, sent: bool, failed: bool, downgraded: bool, tools: int = 0
    ) -> None:
        """A call of the app's is over. `sent` is False for one that a budget refused before anything was sent."""
        roles = [attempt.role for attempt in decision.attempts]
        hour = self._hour()
        with self._lock:
            cells = [self._cell((hour, decision.tier, decision.route, decision.tenant))]
            if decision.run is not None:
                cells.append(job := self._job((hour, run_account(decision.tenant, decision.run))))
                # No ledger knows what a run is: it has what its calls cost.
                job[_COST] += decision.cost
                job[_TOP] += decision.cost
                job[_OWN] += decision.classifier_cost + decision.grading_cost
                job[_ESTIMATED] += sum(attempt.cost for attempt in decision.attempts if attempt.estimated)
            for cell in cells:
                cell[_TOP] += decision.saved
                cell[_REFUSALS] += outcome == "refused"
                if sent:
                    cell[_CALLS] += 1
                    cell[_DOWNGRADES] += downgraded
                    cell[_ESCALATIONS] += "escalation" in roles
                    cell[_FALLBACKS] += "fallback" in roles
                    cell[_FAILURES] += failed
            self._seen.append(_Seen(decision, self._now(), outcome, tools))
        self._soon()

    def refused(self, tier: str, route: str | None, tenant: str | None) -> None:
        """A call was refused of which there is no decision, for it cannot be read."""
        with self._lock:
            self._cell((self._hour(), tier, route, tenant))[_REFUSALS] += 1
        self._soon()

    def _hour(self) -> int:
        return int(self._now() // HOUR) * HOUR

    def _cell(self, place: _Place) -> _Cell:
        cell = self._cells.get(place)
        if cell is None:
            if len(self._cells) >= MOST_CELLS:
                place = (place[0], place[1], OTHER, OTHER)
                if (cell := self._cells.get(place)) is not None:
                    return cell
            cell = self._cells[place] = [0] * len(NAMES)
        return cell

    def _job(self, place: tuple[int, str]) -> _Cell:
        cell = self._jobs.get(place)
        if cell is None:
            if len(self._jobs) >= MOST_CELLS:
                place = (place[0], OTHER)
            cell = self._jobs.setdefault(place, [0] * len(NAMES))
        return cell

    # In the background

    def begin_beating(self) -> None:
        """Say from now on that this process is alive, as long as this loop runs."""
        loop = asyncio.get_running_loop()
        if loop not in self._beats:
            self._start(self._round())
            self._beats[loop] = loop.call_later(BEAT, self._beat, loop)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beats[loop] = loop.call_later(BEAT, self._beat, loop)
        if not self._away() and not self._is_busy(loop):
            self._start(self._round())

    def _is_busy(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether a round is under way: where the store is slow, they must not pile up."""
        return any(task.get_loop() is loop for task in tuple(self._tasks))

    def _soon(self, seconds: float = SOON) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # a thread's: it is written with what comes next, or at the end
        if loop not in self._timers:
            for closed in [known for known in tuple(self._timers) if known.is_closed()]:
                self._timers.pop(closed, None)
            self._timers[loop] = loop.call_later(seconds, self._fire, loop)

    def _fire(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timers.pop(loop, None)
        if self._away():
            self._soon(RETRY)
        elif self._is_busy(loop):
            self._soon()
        else:
            self._start(self._round())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _round(self) -> None:
        try:
            await self.flush()
        except LedgerUnavailableError:
            self._soon(RETRY)  # the log tells of the ledger, which is in the same store
        except Exception as error:  # noqa: BLE001  (nobody waits for this)
            if not self._failed:
                self._failed = True
                log.error("traffic was not recorded: %s: %s. This is said once", type(error).__name__, error)  # noqa: TRY400

    async def flush(self) -> None:
        """Write what there is, and that this process is alive. LedgerUnavailableError where the store is away."""
        me = await self._take_turns()
        try:
            beat = Beat(self.worker, self.started, self._breakers(self.worker))
            if not self._batches:
                self._batches.extend(self._swapped())
            if not self._batches:
                await self.store.add(beat, 0, (), ())
            while self._sender is me and self._batches:
                await self.store.add(beat, *self._batches[0])
                if self._sender is not me:
                    return  # this loop stood still, and somebody else goes on: whatever was added counts once
                self._batches.popleft()
                if not self._batches and self._cells:  # what came while an older one was written
                    self._batches.extend(self._swapped())
        finally:
            with self._lock:
                if self._sender is me:
                    self._sender = None

    async def _take_turns(self) -> asyncio.Task[Any]:
        """Wait until no other task or loop writes: numbers of batches must come in order. Gives who writes now.

        One whose loop does not run does not write: it was closed, or left for a while, such as a script's.
        """
        me = asyncio.current_task()
        assert me is not None  # noqa: S101  (this is a coroutine)
        while True:
            with self._lock:
                if self._sender is None or not self._sender.get_loop().is_running():
                    self._sender = me
                    return me
            await asyncio.sleep(0.01)

    def _swapped(self) -> Iterator[_Batch]:
        with self._lock:
            cells, self._cells = self._cells, {}
            jobs, self._jobs = self._jobs, {}
            seen = list(self._seen)
            self._seen.clear()
        rows = rows_of(cells, jobs)
        records = [self._record(each) for each in seen]
        for place in range(0, max(len(rows), 1) if records or rows else 0, AT_ONCE):
            self._number += 1
            yield _Batch(self._number, rows[place : place + AT_ONCE], () if place else records)

    def _record(self, seen: _Seen) -> Record:
        decision = seen.decision
        record = record_of(decision, at=seen.at, outcome=seen.outcome, tools=seen.tools)
        return Record(
            decision.id, record["at"], plain(decision.tenant or ""), line_of(_bounded(record) | {"worker": self.worker})
        )

    async def close(self, timeout: float) -> None:
        """Write what waits, within `timeout` seconds and at least one, and end what runs on this loop."""
        loop = asyncio.get_running_loop()
        if beat := self._beats.pop(loop, None):
            beat.cancel()
        if self._cells or self._seen or self._batches:
            with suppress(LedgerUnavailableError, TimeoutError):
                await asyncio.wait_for(self.flush(), max(timeout, _LAST))
        if timer := self._timers.pop(loop, None):
            timer.cancel()
        mine = [task for task in tuple(self._tasks) if task.get_loop() is loop]
        for task in mine:
            task.cancel()
        if mine:
            await asyncio.wait(mine)


def _bounded(value: Any) -> Any:
    """The same with no text longer than `LONGEST`: a tenant or a model may be what somebody outside has sent."""
    if isinstance(value, str):
        return value[:LONGEST]
    if isinstance(value, dict):
        return {_bounded(key): _bounded(each) for key, each in value.items()}
    return [_bounded(each) for each in value] if isinstance(value, (list, tuple)) else value


def rows_of(cells: dict[_Place, _Cell], jobs: dict[tuple[int, str], _Cell]) -> list[Row]:
    """The same sums by tier, by route, by account, and by job."""
    sums: dict[tuple[Kind, int, str], _Cell] = {}
    for (hour, tier, route, tenant), cell in cells.items():
        _add(sums, ("tier", hour, tier), cell)
        _add(sums, ("route", hour, route or NO_ROUTE), cell)
        _add(sums, ("account", hour, tenant or NO_TENANT), cell)
    for (hour, job), cell in jobs.items():
        _add(sums, ("job", hour, job), cell)
    return [Row(kind, hour, name, Counts(*cell)) for (kind, hour, name), cell in sums.items()]


def _add(sums: dict[tuple[Kind, int, str], _Cell], key: tuple[Kind, int, str], cell: _Cell) -> None:
    kind, hour, name = key
    kept = sums.setdefault((kind, hour, plain(name)), [0] * len(NAMES))
    for place, number in enumerate(cell):
        kept[place] += number
