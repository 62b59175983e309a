"""The ledger of one process: dicts under a lock.

For several processes that share a budget it is the wrong one: each would have the whole limit to itself.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from heapq import nsmallest
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Final, TypeAlias

from tierline.budgets import first_fit
from tierline.ledger.base import NOWHERE, RETENTION, Alert, Balance, Fullest, Hold, Origin, Reservation
from tierline.ledger.checks import check_offers, check_seconds, checked_cost, checked_limit
from tierline.ledger.limits import Limits, limited
from tierline.ledger.refusing import Part, refusal
from tierline.ledger.rollup import Rollup, Row
from tierline.ledger.slots import Account, Accounts, Name, Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tierline.budgets import Line
    from tierline.ledger.base import Spent
    from tierline.values import Offer, Refusal
    from tierline.windows import Span

_MOST_LAPSED: Final = 10_000
"""How many lapsed holds are remembered for a late settlement. The estimates of older ones stand."""
_MOST_ENDED: Final = 10_000
"""How many ids are remembered that have ended, at least; at most twice as many."""

_Held: TypeAlias = tuple[Reservation, list[Slot], float]
"""A reservation, its slots (even where the ledger has dropped them), and when its lease ends."""
_Lapsed: TypeAlias = tuple[Reservation, list[Slot], Row]
"""A reservation, its slots, and where its estimate was booked."""


class MemoryLedger:
    """A `Ledger` in the memory of this process, for any number of its threads and event loops.

    `clock` gives seconds since the epoch, `lease` and `retention` (of spend by hour) are in seconds. No method
    suspends, so none can be cancelled half done. Time never goes back: a clock that does is waited for, so that a
    window that has ended stays ended. What a hold's lease has left is counted in steps forward only.

    Memory: one record for each account in a window that has not ended (of a rolling one at most 61), one for each
    hold, and a bounded number of lapsed ones, of ids that have ended, and of rows of spend by hour. Records of ended
    windows go a few with each reservation.

    Raises ConfigurationError for a lease or a retention that cannot be.
    """

    def __init__(
        self, clock: Callable[[], float] = time.time, lease: float = 30.0, retention: float = RETENTION
    ) -> None:
        check_seconds("MemoryLedger", lease=lease, retention=retention)
        self.lease = lease
        self.instant = True
        self._clock = clock
        self._lock = Lock()
        self._accounts = Accounts()
        self._holds: OrderedDict[str, _Held] = OrderedDict()  # in the order of their deadlines
        self._lapsed: OrderedDict[str, _Lapsed] = OrderedDict()
        self._ended: set[str] = set()
        self._ended_before: set[str] = set()  # dropped whole when the other one is full
        self._limits: Limits = {}
        self._rollup = Rollup(retention)
        self._listeners: list[Callable[[Alert], None]] = []
        self._alerts: list[Alert] = []  # to be told when the lock is let go of
        self._read = self._now = clock()
        self._behind = 0.0  # how far the clock has gone back in all, so that leases are counted in steps forward
        self._next_lapse = inf  # at or before the first deadline

    async def reserve(
        self,
        key: str,
        offers: Sequence[Offer],
        lines: Sequence[Line],
        *,
        thresholds: bool = True,
        origin: Origin = NOWHERE,
    ) -> Reservation | Refusal:
        """Hold the worst case of the first offer that fits: see `Ledger`."""
        with self._lock:
            found = self._reserve(key, offers, lines, thresholds, origin)
        if self._alerts:
            self._tell()
        return found

    def _reserve(
        self, key: str, offers: Sequence[Offer], lines: Sequence[Line], thresholds: bool, origin: Origin
    ) -> Reservation | Refusal:
        now = self._tick()
        if key in self._holds:
            return self._holds[key][0]
        if key in self._ended or key in self._ended_before or key in self._lapsed:
            raise ValueError(f"reservation {key!r:.80} has ended")
        check_offers(offers)

        slots: list[Slot] = []
        used: list[int] = []
        charged: list[tuple[Line, Span]] = []
        fresh: list[tuple[Name, Slot]] = []  # what only this call has opened
        for line in lines:
            window = line.window
            span = window.span(now)
            name = (line.budget, line.account, window.series)
            account = self._accounts.get(name)
            if account is None:
                account = self._accounts[name] = Account()
                account.take(line, limited=bool(self._limits))
            elif account.line is not line:  # a plan may have changed since
                account.take(line, limited=bool(self._limits))
            live = account.slots
            if len(live) == 1 and live[0].start == span.start:
                slot = live[0]
                used.append(slot.spent + slot.held)
            else:
                known = len(account.live(now))
                slot = account.slot(span)
                if len(live) > known:
                    fresh.append((name, slot))
                used.append(sum([each.spent + each.held for each in live]))
            slots.append(slot)
            charged.append((line, span))
        if self._limits:
            lines = [limited(self._limits, line) for line in lines]
            charged = [(line, span) for line, (_, span) in zip(lines, charged, strict=True)]

        skipped, left_out, tight = first_fit(offers, lines, used, thresholds=thresholds)
        if skipped == len(offers):
            return self._refuse(offers[left_out:], lines, slots, fresh)

        offer = offers[skipped]
        for name, slot in fresh:
            if slot.account.due is None:
                self._accounts.expect(name, slot.account)
        cost = offer.cost or 0
        if len(slots) > 1:
            slots = list(dict.fromkeys(slots))  # a budget that stands here twice is charged once
        for slot in slots:
            slot.held += cost
        reservation = Reservation(key, offer, cost, tuple(charged), tuple(used), skipped, tight, now, origin)
        deadline = self._read + self._behind + self.lease
        self._holds[key] = reservation, slots, deadline
        if self._next_lapse == inf:  # no deadline is before an earlier one
            self._next_lapse = deadline
        return reservation

    def _refuse(
        self,
        offers: Sequence[Offer],
        lines: Sequence[Line],
        slots: Sequence[Slot],
        fresh: Sequence[tuple[Name, Slot]],
    ) -> Refusal:
        found = refusal(offers, lines, [_parts(slot.account.slots) for slot in slots], self._now)
        for name, slot in fresh:  # who is refused leaves no trace: names of tenants may come from anywhere
            slot.account.slots.remove(slot)
            if not slot.account.slots:
                del self._accounts[name]
        for account in {slot.account for slot in slots}:
            if (account.line.budget, account.line.account) == (found.budget, found.account):
                self._note_refused(account)
        return found

    async def settle(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Replace the hold by `cost`. False where it had been settled before, or lapsed too long ago."""
        checked_cost(cost)
        with self._lock:
            ended = self._end(reservation.id, cost, cost if estimated else 0, reservation.attempts)
        if self._alerts:
            self._tell()
        return ended

    async def release(self, key: str) -> bool:
        """Give the hold back. False where there is none."""
        with self._lock:
            ended = self._end(key, 0, 0, 0)
        if self._alerts:
            self._tell()
        return ended

    def _end(self, key: str, cost: int, estimated: int, attempts: int) -> bool:
        """The first ending of an id replaces its hold, or the estimate of its lapse, by `cost`."""
        self._ended.add(key)
        if len(self._ended) > _MOST_ENDED:
            self._ended, self._ended_before = set(), self._ended
        found = self._holds.pop(key, None)
        if found is not None:
            held, slots, _ = found
            more = cost
            if attempts:
                self._rollup.book(held, cost, estimated, self._now, attempts)
            for slot in slots:
                slot.held -= held.cost
        elif self._lapsed and (late := self._lapsed.pop(key, None)) is not None:
            held, slots, row = late
            more, estimated = cost - held.cost, estimated - held.cost
            row.correct(more, estimated, attempts - 1)
        else:
            return False
        for slot in slots:
            slot.spent += more
            slot.estimated += estimated
            if slot.spent >= slot.account.alarm:
                self._note_spent(slot)
        return True

    async def post(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Charge `cost`, without asking for room. False where this id is held here, or has ended before."""
        checked_cost(cost)
        key, guess = reservation.id, cost if estimated else 0
        with self._lock:
            now = self._tick()
            if key in self._holds or key in self._ended or key in self._ended_before or key in self._lapsed:
                return False
            self._forbid(key)
            charged = {
                (line.budget, line.account, line.window.series): (line, span) for line, span in reservation.lines
            }
            for name, (line, span) in charged.items():
                if span.end <= now:
                    continue
                account = self._accounts.get(name)
                if account is None:
                    account = self._accounts[name] = Account()
                    account.take(line, limited=bool(self._limits))
                account.live(now)
                slot = account.slot(span)
                if account.due is None:
                    self._accounts.expect(name, account)
                slot.spent += cost
                slot.estimated += guess
                self._note_spent(slot)
            self._rollup.book(reservation, cost, guess, now, reservation.attempts)
        self._tell()
        return True

    async def renew(self, reservations: Sequence[Reservation]) -> None:
        """Begin the lease of every hold anew; those that have ended are left alone."""
        with self._lock:
            self._tick()
            deadline = self._read + self._behind + self.lease
            for reservation in reservations:
                found = self._holds.pop(reservation.id, None)
                if found is not None:
                    self._holds[reservation.id] = found[0], found[1], deadline
        self._tell()

    async def forget(self, lines: Sequence[Line]) -> None:
        """Drop the balances of these accounts. A hold on one of them ends as any other, and is charged nowhere."""
        with self._lock:
            self._tick()
            self._accounts.forget([(line.budget, line.account, line.window.series) for line in lines])
        self._tell()

    async def ping(self) -> None:
        """The memory of this process is there."""

    async def aclose(self) -> None:
        """Nothing belongs to a loop."""

    # What operators ask

    async def balances(self, account: str | None = None) -> list[Balance]:
        """Every account that was ever charged in a span that has not ended; or those with one name."""
        with self._lock:
            now = self._tick()
            found = [
                self._balance(each, now)
                for each in self._accounts.values()
                if (account is None or each.line.account == account) and each.live(now)
            ]
        self._tell()
        return found

    async def fullest(self, most: int) -> Fullest:
        """The `most` accounts that have used the largest share of their limits: see `Ledger`."""
        with self._lock:
            now = self._tick()
            shares = {
                name: sum(slot.spent + slot.held for slot in live) / limited(self._limits, each.line).limit
                for name, each in self._accounts.items()
                if (live := each.live(now))
            }
            chosen = nsmallest(most, shares, key=lambda name: (-shares[name], name))
            balances = tuple(self._balance(self._accounts[name], now) for name in chosen)
        self._tell()
        return Fullest(balances, len(shares), frozenset(budget for budget, *_ in shares))

    def _balance(self, account: Account, now: float) -> Balance:
        line, counting = account.line, account.live(now)
        ends = [slot.end for slot in counting if slot.spent or slot.held] or [counting[-1].end]
        return Balance(
            line.budget,
            line.account,
            sum(slot.spent for slot in counting),
            sum(slot.held for slot in counting),
            limited(self._limits, line).limit,
            None if min(ends) == inf else min(ends),
            sum(slot.estimated for slot in counting),
            line.hard,
            line.window.series,
        )

    async def holds(self) -> list[Hold]:
        """Every hold, oldest first."""
        with self._lock:
            now = self._tick()
            moment = self._read + self._behind
            found = [
                Hold(
                    held.id,
                    held.offer.tier,
                    held.offer.model,
                    held.cost,
                    held.at,
                    now + deadline - moment,
                    tuple((slot.account.line.budget, slot.account.line.account) for slot in slots),
                    held.origin.tenant,
                    held.origin.route,
                )
                for held, slots, deadline in self._holds.values()
            ]
        self._tell()
        return sorted(found, key=lambda hold: hold.at)

    async def history(self, since: float, until: float | None = None) -> list[Spent]:
        """Spend of every hour that began at or after `since` and before `until`."""
        with self._lock:
            now = self._tick()
            found = self._rollup.history(since, inf if until is None else until, now)
        self._tell()
        return found

    async def set_limit(self, budget: str, account: str | None, limit: int | None) -> None:
        """Let another limit hold, from the next reservation on; None takes that back."""
        with self._lock:
            for each in self._accounts.values():
                each.alarm = 0
            if limit is None:
                self._limits.pop((budget, account), None)
            else:
                self._limits[budget, account] = checked_limit(limit)

    async def limits(self) -> dict[tuple[str, str | None], int]:
        """What `set_limit` has set."""
        with self._lock:
            return dict(self._limits)

    async def confirm(self) -> None:
        """Nothing is lost that this object had."""

    async def erase(self, account: str) -> None:
        """Drop all that is kept under a name. Holds of it end as any other, and are charged to their other accounts."""
        with self._lock:
            self._tick()
            self._accounts.forget([name for name in self._accounts if name[1] == account])
            self._accounts.compact()
            for limit in [limit for limit in self._limits if limit[1] == account]:
                del self._limits[limit]
            self._rollup.erase(account)
            for key, (held, slots, deadline) in list(self._holds.items()):
                self._holds[key] = *_without(account, held, slots), deadline
            for key, (held, slots, row) in list(self._lapsed.items()):
                self._lapsed[key] = *_without(account, held, slots), row
        self._tell()

    def watch(self, listener: Callable[[Alert], None]) -> None:
        """Tell `listener` of every alert."""
        self._listeners.append(listener)

    # With the lock held

    def _forbid(self, key: str) -> None:
        """No reservation may have this id any more."""
        self._ended.add(key)
        if len(self._ended) > _MOST_ENDED:
            self._ended, self._ended_before = set(), self._ended

    def _note_spent(self, slot: Slot) -> None:
        """Something was charged to `slot`: note which shares of the limit that reaches for the first time."""
        account = slot.account
        alerts = (limited(self._limits, account.line) if self._limits else account.line).alerts
        if not alerts:
            return
        self._now = max(self._now, self._clock())
        live = account.live(self._now)
        if slot in live:
            spent = sum(each.spent for each in live)
            self._note(account, live, sum(1 << place for place, alert in enumerate(alerts) if spent >= alert))

    def _note_refused(self, account: Account) -> None:
        """A call was refused for want of room here. Of an account with nothing in it no trace is kept."""
        line, live = account.line, account.slots
        if line.alert_at and line.alert_at[-1] == 1 and any(each.spent or each.held for each in live):
            self._note(account, live, 1 << (len(line.alert_at) - 1), refused=True)

    def _note(self, account: Account, live: list[Slot], reached: int, *, refused: bool = False) -> None:
        for slot in live:
            reached &= ~slot.told
        if not reached:
            return
        live[-1].told |= reached
        balance = self._balance(account, self._now)
        self._alerts += [
            Alert(balance.budget, balance.account, share, balance.spent, balance.limit, balance.renews_at, refused)
            for place, share in enumerate(account.line.alert_at)
            if reached >> place & 1
        ]

    def _tick(self) -> float:
        """The time by which windows go, after doing what has come due."""
        read = self._clock()
        if read < self._read:
            self._behind += self._read - read
        elif read > self._now:
            self._now = read
        self._read = read
        if read + self._behind >= self._next_lapse:
            self._lapse_until(read + self._behind)
        endings = self._accounts.endings
        if endings and endings[0][0] <= self._now:
            self._accounts.prune(self._now)
        return self._now

    def _lapse_until(self, moment: float) -> None:
        """Charge holds whole whose lease is over, for nobody will say what they came to; remember, should somebody."""
        self._next_lapse = inf
        while self._holds:
            key, found = next(iter(self._holds.items()))
            held, slots, deadline = found
            if deadline > moment:
                self._next_lapse = deadline
                break
            del self._holds[key]
            self._lapsed[key] = held, slots, self._rollup.book(held, held.cost, held.cost, self._now)
            for slot in slots:
                slot.held -= held.cost
                slot.spent += held.cost
                slot.estimated += held.cost
                self._note_spent(slot)
        while len(self._lapsed) > _MOST_LAPSED:
            self._forbid(self._lapsed.popitem(last=False)[0])

    # Without it

    def _tell(self) -> None:
        if not self._alerts:
            return
        with self._lock:
            alerts, self._alerts = self._alerts, []
        for alert in alerts:
            for listener in tuple(self._listeners):
                listener(alert)


def _parts(slots: Iterable[Slot]) -> list[Part]:
    return [Part(slot.end, slot.spent, slot.held) for slot in slots]


def _without(account: str, held: Reservation, slots: list[Slot]) -> tuple[Reservation, list[Slot]]:
    """A hold that knows nothing of an account or a tenant of that name."""
    if held.origin.tenant == account:
        held = held._replace(origin=held.origin._replace(tenant=None))
    kept = [place for place, (line, _) in enumerate(held.lines) if line.account != account]
    if len(kept) < len(held.lines):
        lines, used = tuple(held.lines[place] for place in kept), tuple(held.used[place] for place in kept)
        held = held._replace(lines=lines, used=used)
        slots = [slot for slot in slots if slot.account.line.account != account]
    return held, slots
