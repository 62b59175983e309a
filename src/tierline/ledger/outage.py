"""A ledger that may go away, and what is done until it is back.

While it is known to be away, no call waits for it again: one task asks every half second whether it is back. Calls that
no hard budget holds for pass. Under a hard budget nothing is sent (`closed`), or each worker spends up to a small share
of each limit from its own memory (`open`). What the ledger was not told stands in a journal, which is delivered before
the ledger is asked anything else.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeVar, get_args

from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.ledger.allowance import Allowance, Seen
from tierline.ledger.base import NOWHERE
from tierline.ledger.checks import checked_cost
from tierline.ledger.delivery import deliver
from tierline.ledger.entries import Entry, bare
from tierline.ledger.journal import MemoryJournal
from tierline.ledger.watcher import Watcher
from tierline.values import Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tierline.budgets import Line
    from tierline.ledger.base import Alert, Balance, Fullest, Hold, Ledger, Origin, Reservation, Spent
    from tierline.ledger.journal import Journal
    from tierline.ledger.slices import Slices
    from tierline.ledger.slicing import Slicing
    from tierline.values import Offer

log: Final = logging.getLogger("tierline")

T = TypeVar("T")

OnError = Literal["closed", "open"]

LOCAL: Final = ".here"
"""Ends the ids of reservations that are made here: the id that was asked for may yet arrive at the ledger."""
_INTERVAL: Final = 0.5
"""Seconds between two questions whether the ledger is back."""
_LONGEST_SLEEP: Final = 5.0
"""Seconds after which the journal is looked into again while something in it waits for a lease."""
_LAST: Final = 2.0
"""Seconds for a last delivery when the ledger is closed."""


class GuardedLedger:
    """A `Ledger` that goes on, as far as it may, while the one behind it cannot be asked.

    - `on_error`: what becomes of calls under a hard budget meanwhile. `"closed"`: LedgerUnavailableError. `"open"`:
      they are held on an allowance of this worker's, `allowance` of each limit (a share above 0, at most 1) for each
      window and outage; at its end, LedgerUnavailableError
    - `journal`: where that is kept which the ledger was not told; it is delivered when the ledger is back
    - `on_change` is told True when the ledger goes away, and False when it is back
    - `owned`: whether `aclose` closes the ledger, too

    A reservation that was made here is `unasked`. Balances and all else that operators ask raise
    LedgerUnavailableError while the ledger is away.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        on_error: OnError = "closed",
        allowance: float = 0.05,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.time,
        on_change: Callable[[bool], None] = lambda _: None,
        owned: bool = False,
    ) -> None:
        check_on_error(on_error, allowance)
        self.behind = ledger
        self.instant = False
        self.on_error: OnError = on_error
        self.journal: Journal = journal or MemoryJournal()
        self._share = allowance
        self._clock = clock
        self._on_change = on_change
        self._owned = owned
        self._slicing: Slicing | None = getattr(ledger, "slicing", None)
        self._slices: Slices | None = self._slicing and self._slicing.slices
        """What this process holds of its budgets: calls that are admitted against it go on while it is away."""
        self._seen = Seen()
        self._allowance: Allowance | None = None
        """What is spent here: there is one while the ledger is away."""
        self._why = ""
        self._gone_at = 0.0
        self._delivered = 0
        self._restless = self.journal.lasting
        """Whether something may wait in the journal, perhaps what a dead process has left, or the ledger is away."""
        self._here: set[str] = set()
        """Ids of the reservations that were made here, and are in flight."""
        self._locks: dict[int, threading.Lock] = {}
        self._watcher: Watcher | None = None

    @property
    def lease(self) -> float:
        """Seconds that a hold lives without being renewed."""
        return self.behind.lease

    @property
    def away(self) -> bool:
        """Whether the ledger is known to be away."""
        return self._allowance is not None

    async def start(self) -> None:
        """Look at the journal and for the ledger. ConfigurationError where either can never work."""
        await self.journal.open()
        with suppress(LedgerUnavailableError):  # it may come later: the log was told
            await self._ask(self.behind.ping)
        self._watch()

    # Calls

    async def reserve(
        self,
        key: str,
        offers: Sequence[Offer],
        lines: Sequence[Line],
        *,
        thresholds: bool = True,
        origin: Origin = NOWHERE,
    ) -> Reservation | Refusal:
        """Hold the worst case of the first offer that fits, there or here."""
        if self._restless:
            self._watch()
        allowance = self._allowance
        if allowance is None:
            try:
                found = await self.behind.reserve(key, offers, lines, thresholds=thresholds, origin=origin)
            except LedgerUnavailableError as error:
                allowance = self._gone(error)
                # It may have been done, or may yet be.
                await self._note(Entry("release", key))
            else:
                if isinstance(found, Refusal):
                    self._seen.refused(found, lines)
                else:
                    self._seen.held(found)
                return found
        if self.on_error == "closed" and any(line.hard for line in lines):
            raise LedgerUnavailableError(f"the ledger cannot be asked: {self._why}")
        key = key if key.endswith(LOCAL) else key + LOCAL
        try:
            found = await allowance.reserve(key, offers, lines, thresholds=thresholds, origin=origin)
        except LedgerUnavailableError as error:
            raise LedgerUnavailableError(f"the ledger cannot be asked: {error} ({self._why})") from None
        if isinstance(found, Refusal):
            return found
        self._here.add(key)
        # Before anything is sent: whatever becomes of this process, somebody will tell the ledger.
        await self._note(Entry("post", key, bare(found), found.cost, estimated=True, due=self._clock() + self.lease))
        return found

    async def settle(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Replace the hold by `cost`; the ledger is told as soon as it can be."""
        checked_cost(cost)
        if reservation.unasked:
            if reservation.id not in self._here:
                return False  # it has ended
            self._here.discard(reservation.id)
            if (allowance := self._allowance) is not None:
                await allowance.settle(reservation, cost)
            await self._note(Entry("post", reservation.id, bare(reservation), cost, estimated))
            return True
        if self._allowance is None or reservation.leased:  # what is leased is settled in this process
            try:
                return await self.behind.settle(reservation, cost, estimated=estimated)
            except LedgerUnavailableError as error:
                self._gone(error)
        await self._note(Entry("settle", reservation.id, bare(reservation), cost, estimated))
        return True

    async def release(self, key: str) -> bool:
        """Give the hold back; the ledger is told as soon as it can be."""
        if self._slices is not None and self._slices.release(key):
            return True
        here = key if key.endswith(LOCAL) else key + LOCAL
        if here in self._here:
            self._here.discard(here)
            if (allowance := self._allowance) is not None:
                await allowance.release(here)
            await self.journal.withdraw(here)
            if key == here:
                return True
        elif key == here:
            return False  # it has ended
        if self._allowance is None:
            try:
                return await self.behind.release(key)
            except LedgerUnavailableError as error:
                self._gone(error)
        await self._note(Entry("release", key))
        return True

    async def post(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Charge `cost`, without asking for room; the ledger is told as soon as it can be."""
        checked_cost(cost)
        if self._allowance is None:
            try:
                return await self.behind.post(reservation, cost, estimated=estimated)
            except LedgerUnavailableError as error:
                self._gone(error)
        await self._note(Entry("post", reservation.id, bare(reservation), cost, estimated))
        return True

    async def renew(self, reservations: Sequence[Reservation]) -> None:
        """Begin leases anew: of holds made here, and of those there if that can be told."""
        here = [held for held in reservations if held.unasked]
        if here:
            if (allowance := self._allowance) is not None:
                await allowance.renew(here)
            await self.journal.renew([held.id for held in here], self._clock() + self.lease)
        if self._slices is not None:
            self._slices.renew(held.id for held in reservations if held.leased)
        there = [held for held in reservations if not held.unasked and not held.leased]
        if there and self._allowance is None:
            try:
                await self.behind.renew(there)
            except LedgerUnavailableError as error:
                self._gone(error)  # a late settlement replaces what lapses meanwhile

    async def forget(self, lines: Sequence[Line]) -> None:
        """Drop the balances of accounts that cannot come back, as soon as that can be told."""
        if self._allowance is None:
            try:
                await self.behind.forget(lines)
            except LedgerUnavailableError as error:
                self._gone(error)
            else:
                return
        await self._note(Entry("forget", f"forget {secrets.token_hex(8)}", lines=tuple(lines)))

    # What operators ask

    async def ping(self) -> None:
        """Return where calls can be served. LedgerUnavailableError while the ledger is away, unless that is open."""
        if self.on_error == "closed":
            await self._ask(self.behind.ping)
        elif self._allowance is None:
            with suppress(LedgerUnavailableError):
                await self._ask(self.behind.ping)

    async def balances(self, account: str | None = None) -> list[Balance]:
        """Every account, as the ledger knows it."""
        return await self._ask(lambda: self.behind.balances(account))

    async def fullest(self, most: int) -> Fullest:
        """The fullest accounts, as the ledger knows them."""
        return await self._ask(lambda: self.behind.fullest(most))

    async def holds(self) -> list[Hold]:
        """Every hold that the ledger knows."""
        return await self._ask(self.behind.holds)

    async def history(self, since: float, until: float | None = None) -> list[Spent]:
        """Spend by hour."""
        return await self._ask(lambda: self.behind.history(since, until))

    async def set_limit(self, budget: str, account: str | None, limit: int | None) -> None:
        """Let another limit hold."""
        await self._ask(lambda: self.behind.set_limit(budget, account, limit))

    async def limits(self) -> dict[tuple[str, str | None], int]:
        """What `set_limit` has set."""
        return await self._ask(self.behind.limits)

    async def erase(self, account: str) -> None:
        """Drop all that is kept under a name."""
        await self._ask(lambda: self.behind.erase(account))

    async def confirm(self) -> None:
        """Go on with the balances as they are, and tell the ledger what it was not told."""
        await self.behind.confirm()
        await self._round()
        self._watch()

    def watch(self, listener: Callable[[Alert], None]) -> None:
        """Tell `listener` of every alert."""
        self.behind.watch(listener)

    async def aclose(self) -> None:
        """Let go of what belongs to this loop, after a last delivery of the journal."""
        watcher = self._watcher
        if watcher is not None and watcher.loop is asyncio.get_running_loop():
            self._watcher, self._restless = None, True
            watcher.task.cancel()
            await asyncio.wait((watcher.task,))
        if self._restless and await self.journal.next_due() is not None:
            there = False
            with suppress(TimeoutError):
                there = await asyncio.wait_for(self._round(), _LAST)
            if not there:
                log.warning("the ledger is away, and was not told all that was spent: %s", self.journal.fate)
        await self.journal.aclose()
        if self._slicing is not None:
            await self._slicing.aclose()
        if self._owned:
            await self.behind.aclose()

    async def _ask(self, question: Callable[[], Awaitable[T]]) -> T:
        if self._allowance is not None:
            self._watch()
        else:
            try:
                return await question()
            except LedgerUnavailableError as error:
                self._gone(error)
        raise LedgerUnavailableError(f"the ledger cannot be asked: {self._why}")

    # Going away and coming back

    async def _note(self, entry: Entry) -> None:
        """Keep for later what the ledger cannot be told now."""
        await self.journal.put(entry)
        self._watch()

    def _gone(self, error: LedgerUnavailableError) -> Allowance:
        """The ledger is away: see to it that somebody looks for it."""
        allowance = self._mark(error)
        self._watch()
        return allowance

    def _mark(self, error: LedgerUnavailableError) -> Allowance:
        """The allowance of the outage, which begins with the first who finds it."""
        with self._lock:
            if (allowance := self._allowance) is None:
                if self._slices is not None:
                    self._seen.sliced(self._slices.standing())
                allowance = self._allowance = Allowance(self._seen, self._share, self._clock, self.lease)
                self._gone_at, self._delivered = time.monotonic(), 0
                began = True
            else:
                began = False
            self._why = str(error)
        if began:
            log.error(
                "the ledger cannot be asked: %s. %s", self._why,
                "Calls under a hard budget are refused until it is back" if self.on_error == "closed" else
                f"Until it is back, this worker may spend {self._share:.3g} of each limit of a hard budget",
            )  # fmt: skip
            self._on_change(True)
        return allowance

    async def _back(self, outage: Allowance) -> None:
        """The ledger answers, and was told all. What has begun since it was asked is another outage."""
        with self._lock:
            ended = self._allowance is outage
            if ended:
                self._allowance = None
        if ended:
            await outage.close()
            log.warning(
                "the ledger is back after %.1f s; entries of the journal that it was told: %d",
                time.monotonic() - self._gone_at, self._delivered,
            )  # fmt: skip
            self._on_change(False)

    async def _round(self) -> bool:
        """Ask whether the ledger is there, and if so tell it what waits. Whether it is."""
        outage = self._allowance
        try:
            if outage is not None:
                await self.behind.ping()
            async for told in deliver(self.journal, self.behind, self._clock):
                self._delivered += told
        except LedgerUnavailableError as error:
            self._mark(error)
            return False
        if outage is not None:
            await self._back(outage)
        return self._allowance is None

    # The watch

    @property
    def _lock(self) -> threading.Lock:
        """Held for no longer than an assignment, and never over an await. A forked child has one of its own."""
        return self._locks.get(os.getpid()) or self._locks.setdefault(os.getpid(), threading.Lock())

    def _watch(self) -> None:
        """See to it that a task on some loop looks for the ledger, and after the journal, without delay."""
        with self._lock:
            self._restless = True
            watcher = self._watcher
            if watcher is None or not watcher.alive:
                self._watcher = watcher = Watcher(self._look_after)
        watcher.wake()

    async def _look_after(self, watcher: Watcher) -> None:
        while self._watcher is watcher:
            watcher.begin_round()
            there = await self._round()
            due = await self.journal.next_due() if there else None
            if there and due is None:
                with self._lock:
                    if not watcher.woken:
                        self._restless = False
                        if self._watcher is watcher:
                            self._watcher = None
                if not self._restless:
                    await self.journal.aclose()
                    return
                continue
            wait = _INTERVAL * random.uniform(0.5, 1.5)  # noqa: S311  (so that workers do not ask all at once)
            if due is None:
                await asyncio.sleep(wait)  # nobody can hurry a ledger that is away
            else:
                await watcher.sleep(min(max(wait, due - self._clock()), _LONGEST_SLEEP))


def check_on_error(on_error: object, allowance: object) -> None:
    """ConfigurationError for what cannot be."""
    if on_error not in get_args(OnError):
        raise ConfigurationError(f'on_ledger_error is "closed" or "open", not {on_error!r:.40}')
    if isinstance(allowance, bool) or not isinstance(allowance, (int, float)) or not 0 < allowance <= 1:
        raise ConfigurationError(f"allowance={allowance!r:.40} must be a share of each limit, above 0 and at most 1")
