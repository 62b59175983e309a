"""The ledger of one process: dicts under a lock.

For several processes that share a budget it is the wrong one: each would have the whole limit to itself.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from heapq import heapify, heappop, heappush
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeAlias

from tierline.budgets import first_fit
from tierline.errors import ConfigurationError
from tierline.ledger.base import Balance, Reservation
from tierline.values import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.budgets import Line
    from tierline.values import Offer

_MOST_LAPSED: Final = 10_000
_FEW: Final = 64
"""How many lapsed holds are remembered for a late settlement. The estimates of older ones stand."""

_Slot: TypeAlias = tuple[str, str, int]
"""A budget's name, the account, and the key of a window."""


class _Account:
    """What one account has spent and holds in one window, in nano-USD, under the limit that it was last given."""

    __slots__ = ("end", "estimated", "held", "line", "spent")

    def __init__(self, line: Line, end: float) -> None:
        self.line = line
        self.end = end
        self.spent = self.held = self.estimated = 0


_Hold: TypeAlias = tuple[Reservation, list[_Account], float]
"""A reservation, its accounts (even where the ledger has dropped them), and when its lease ends."""


class MemoryLedger:
    """A `Ledger` in the memory of this process, for any number of its threads and event loops.

    `clock` gives seconds since the epoch, `lease` is in seconds. No method suspends, so none can be cancelled half
    done. Time never goes back: a clock that does is waited for, so that a window that has ended stays ended.
    What a hold's lease has left is counted in steps forward only.

    Memory: one record for each account in a window that has not ended, one for each hold, and a bounded number of
    lapsed ones. Records of ended windows go a few with each reservation.

    Raises ConfigurationError for a lease that cannot be.
    """

    def __init__(self, clock: Callable[[], float] = time.time, lease: float = 30.0) -> None:
        if not lease > 0:
            raise ConfigurationError(f"MemoryLedger(lease={lease!r}): a lease is a number of seconds above 0")
        self.lease = lease
        self.instant = True
        self._clock = clock
        self._lock = Lock()
        self._accounts: dict[_Slot, _Account] = {}
        self._endings: list[tuple[float, _Slot]] = []  # a heap: the next account to drop is first
        self._holds: OrderedDict[str, _Hold] = OrderedDict()  # in the order of their deadlines
        self._lapsed: OrderedDict[str, _Hold] = OrderedDict()
        self._read = self._now = clock()
        self._behind = 0.0  # how far the clock has gone back in all, so that leases are counted in steps forward
        self._next_lapse = inf  # at or before the first deadline

    async def reserve(
        self, key: str, offers: Sequence[Offer], lines: Sequence[Line], *, thresholds: bool = True
    ) -> Reservation | Refusal:
        """Hold the worst case of the first offer that fits: see `Ledger`."""
        with self._lock:
            now = self._tick()
            if key in self._holds:
                return self._holds[key][0]

            accounts: list[_Account] = []
            used: list[int] = []
            charged: list[tuple[Line, int]] = []
            fresh: list[_Slot] = []
            for line in lines:
                span = line.window.span(now)
                slot = (line.budget, line.account, span.key)
                account = self._accounts.get(slot)
                if account is None:
                    account = self._accounts[slot] = _Account(line, span.end)
                    fresh.append(slot)
                account.line = line  # a plan may have changed since
                amount = account.spent + account.held
                accounts.append(account)
                used.append(amount)
                charged.append((line, span.key))

            skipped, left_out, tight = first_fit(offers, lines, used, thresholds=thresholds)
            if skipped == len(offers):
                for slot in fresh:  # who is refused leaves no trace: names of tenants may come from anywhere
                    del self._accounts[slot]
                return _refusal(offers[left_out:], lines, accounts, now)

            offer = offers[skipped]
            for slot in fresh:
                if self._accounts[slot].end != inf:
                    heappush(self._endings, (self._accounts[slot].end, slot))
            cost = _checked(offer.cost or 0)
            if len(accounts) > 1:
                accounts = list(dict.fromkeys(accounts))  # a budget that stands here twice is charged once
            for account in accounts:
                account.held += cost
            reservation = Reservation(key, offer, cost, tuple(charged), tuple(used), skipped, tight)
            deadline = self._read + self._behind + self.lease
            self._holds[key] = reservation, accounts, deadline
            if self._next_lapse == inf:  # no deadline is before an earlier one
                self._next_lapse = deadline
            if self._lapsed:
                self._lapsed.pop(key, None)
            return reservation

    async def settle(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Replace the hold by `cost`. False where it had been settled before, or lapsed too long ago."""
        _checked(cost)
        held = reservation.cost
        with self._lock:
            hold = self._holds.pop(reservation.id, None)
            if hold is not None:
                for account in hold[1]:
                    account.held -= held
                    account.spent += cost
                    if estimated:
                        account.estimated += cost
                return True
            hold = self._lapsed.pop(reservation.id, None)
            if hold is None:
                return False
            for account in hold[1]:
                account.spent += cost - held
                account.estimated += (cost if estimated else 0) - held
            return True

    async def release(self, reservation: Reservation) -> bool:
        """Give the hold back. False as for `settle`."""
        return await self.settle(reservation, 0)

    async def renew(self, reservations: Sequence[Reservation]) -> None:
        """Begin the lease of every hold anew; those that have ended are left alone."""
        with self._lock:
            self._tick()
            deadline = self._read + self._behind + self.lease
            for reservation in reservations:
                hold = self._holds.pop(reservation.id, None)
                if hold is not None:
                    self._holds[reservation.id] = hold[0], hold[1], deadline

    async def forget(self, lines: Sequence[Line]) -> None:
        """Drop the balances of these accounts. A hold on one of them ends as any other, and is charged nowhere."""
        with self._lock:
            now = self._tick()
            for line in lines:
                self._accounts.pop((line.budget, line.account, line.window.key(now)), None)
            if len(self._endings) > 2 * len(self._accounts) + _FEW:
                # What was forgotten left its ending behind: an account for each request would fill a month of them.
                self._endings = [entry for entry in self._endings if entry[1] in self._accounts]
                heapify(self._endings)

    async def ping(self) -> None:
        """The memory of this process is there."""

    async def balances(self) -> list[Balance]:
        """Every account that was ever charged in a window that has not ended."""
        with self._lock:
            now = self._tick()
            open_now = [
                (account.line, account.spent, account.held, account.estimated)
                for account in self._accounts.values()
                if account.end > now
            ]
        return [
            Balance(line.budget, line.account, spent, held, line.limit, line.window.ends_at(now), estimated)
            for line, spent, held, estimated in open_now
        ]

    def _tick(self) -> float:
        """The time by which windows go, after doing what has come due. Called with the lock held."""
        read = self._clock()
        if read < self._read:
            self._behind += self._read - read
        elif read > self._now:
            self._now = read
        self._read = read
        if read + self._behind >= self._next_lapse:
            self._lapse_until(read + self._behind)
        if self._endings and self._endings[0][0] <= self._now:
            # More than a reservation opens, so that the records of ended windows shrink while calls go on.
            for _ in range(8):
                if not self._endings or self._endings[0][0] > self._now:
                    break
                self._accounts.pop(heappop(self._endings)[1], None)
        return self._now

    def _lapse_until(self, moment: float) -> None:
        """Charge holds whole whose lease is over, for nobody will say what they came to; remember, should somebody."""
        self._next_lapse = inf
        while self._holds:
            key, hold = next(iter(self._holds.items()))
            reservation, accounts, deadline = hold
            if deadline > moment:
                self._next_lapse = deadline
                break
            del self._holds[key]
            for account in accounts:
                account.held -= reservation.cost
                account.spent += reservation.cost
                account.estimated += reservation.cost
            self._lapsed[key] = hold
            if len(self._lapsed) > _MOST_LAPSED:
                self._lapsed.popitem(last=False)


def _checked(cost: int) -> int:
    if type(cost) is not int or cost < 0:
        raise ValueError(f"a cost is a whole number of nano-USD, at least 0, not {cost!r:.40}")
    return cost


def _refusal(offers: Sequence[Offer], lines: Sequence[Line], accounts: Sequence[_Account], now: float) -> Refusal:
    """The line that has no room for the cheapest offer; of several, the one that renews last.

    Until that one renews, no other renewal lets the call pass: a client told to come back earlier comes in vain.
    """
    needed = min((offer.cost for offer in offers if offer.cost is not None), default=None)
    refusing = [
        (line.window.span(now).end, account.spent + account.held - line.limit, index)
        for index, (line, account) in enumerate(zip(lines, accounts, strict=True))
        if line.hard and (needed is None or account.spent + account.held + needed > line.limit)
    ]
    end, _, index = max(refusing)
    line, account = lines[index], accounts[index]
    return Refusal(
        budget=line.budget,
        account=line.account,
        limit=line.limit,
        spent=account.spent,
        held=account.held,
        needed=needed,
        renews_in=None if end == inf else end - now,
        unbounded="" if needed is not None else offers[-1].unbounded,
    )
