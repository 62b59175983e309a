"""Slices: parts of budgets that this process holds, and admits calls against without asking the ledger.

Nothing here waits or asks: what a slice may come to was held in the ledger before, whole. `slicing` takes slices,
reports what they came to, and gives them back.
"""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.budgets import within_thresholds
from tierline.errors import ConfigurationError
from tierline.ledger.base import NOWHERE, Origin, Reservation
from tierline.ledger.checks import checked_cost
from tierline.ledger.slice import MARGIN, Slice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tierline.budgets import Line
    from tierline.ledger.slice import Name, Report
    from tierline.values import Offer
    from tierline.windows import Span

HOT: Final = 20
"""Calls under the same accounts, within one second, from which on a slice is worth its report of every second."""
_COOL: Final = 3.0
"""Seconds after which a slice that there was no room for is asked for again."""
_QUIET: Final = 3
"""Reports in a row without a call after which a slice is given back."""
_DUE: Final = 5.0
"""Seconds after a report from which on it is looked whether there is still somebody who reports."""
_MOST_SLICES: Final = 256
_MOST_COUNTED: Final = 4_096
"""Of how many combinations of accounts the calls of a second are counted."""
_MOST_ENDED: Final = 10_000
"""How many ids are remembered that have ended, at least; at most twice as many."""


class _Held(NamedTuple):
    reservation: Reservation
    part_of: Slice


class _Wanted:
    """Calls of this second that had no slice."""

    __slots__ = ("calls", "cost", "largest")

    def __init__(self) -> None:
        self.calls = self.cost = self.largest = 0


class Slices:
    """All slices of this process, for any number of its threads and event loops.

    `share` is the largest part of what an account has left that one slice takes, above 0 and at most 0.5. `time` gives
    the ledger's time, `version` that of the limits that are set. `wake` sees to it that somebody reports, with True at
    once.
    """

    def __init__(
        self, share: float, lease: float, *, time: Callable[[], float], version: Callable[[], str],
        wake: Callable[[bool], None] = lambda _: None,
    ) -> None:  # fmt: skip
        check_share(share)
        self.share = share
        self.lease = lease
        self.wake = wake
        self.hot = HOT
        self._time = time
        self._version = version
        self._pid = 0
        self._births: dict[int, Lock] = {}
        self._here()

    def _here(self) -> Lock:
        """The lock. A forked child begins with nothing: what it has of its parent, the parent reports."""
        pid = os.getpid()
        if self._pid != pid:
            with self._births.setdefault(pid, Lock()):
                if self._pid != pid:
                    self._begin()
                    self._pid = pid
        return self._lock

    def _begin(self) -> None:
        self._lock = Lock()  # a thread that is not there any more may have held the parent's
        self._slices: dict[Name, Slice] = {}
        self._closing: list[Slice] = []
        self._held: dict[str, _Held] = {}
        self._deadlines: dict[str, float] = {}  # in the order of their deadlines
        self._ended: set[str] = set()
        self._ended_before: set[str] = set()  # dropped whole when the other one is full
        self._asked: set[str] = set()
        self._asked_before: set[str] = set()
        self._second = 0.0
        self._counted: dict[Name, _Wanted] = {}
        self._cool: dict[Name, float] = {}

    # Calls

    def admit(
        self, key: str, offers: Sequence[Offer], lines: Sequence[Line], *, thresholds: bool, origin: Origin = NOWHERE
    ) -> Reservation | None:
        """The reservation that `reserve` would make, out of a slice. None where the ledger has to be asked.

        It is this process's own: it is settled, renewed and released here, and by no other process. ValueError for an
        id that has ended here.
        """
        if not lines:
            return None
        name = tuple([(line.budget, line.account, line.window.series) for line in lines])
        with self._here():
            now = self._time()
            known = self._held.get(key)
            if known is not None:
                return known.reservation
            if key in self._ended or key in self._ended_before:
                raise ValueError(f"reservation {key!r:.80} has ended")
            if key in self._asked or key in self._asked_before:
                return None
            found = self._slices.get(name)
            if found is None:
                self._count(name, offers, lines, now, origin)
                return None
            if now >= found.due:
                self.wake(False)  # the loop of whoever did may be closed
            if not (found.open and now < found.until and now < found.expires and found.version == self._version()):
                return None
            if found.lines != tuple(lines):
                return None  # a plan has changed: the ledger is told of it by this call
            left_out, tight = 0, ""
            used = found.used()
            if found.alarmed and thresholds:
                left_out, tight = within_thresholds(
                    len(offers), zip([line for line, _ in found.pairs], used, strict=True)
                )
            offer = offers[left_out]
            cost = offer.cost
            if type(cost) is not int or cost < 0:
                return None
            found.largest = max(found.largest, cost)
            needed = found.busy + found.spent + cost
            found.peak = max(found.peak, needed)
            found.quiet = 0
            if 4 * needed > 3 * found.size and found.admitted >= self.hot and not found.woken:
                found.woken = True
                self.wake(True)
            if needed > found.size:
                return None
            held = Reservation(key, offer, cost, found.pairs, used, left_out, tight, now, origin, leased=True)
            found.busy += cost
            found.admitted += 1
            if found.origin is not origin:
                self._mix(found, origin)
            self._held[key] = _Held(held, found)
            self._deadlines[key] = now + self.lease
            return held

    def settle(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Replace the hold by `cost`. False where it is not held here."""
        checked_cost(cost)
        with self._here():
            found = self._pop(reservation.id)
            if found is None:
                return False
            held, part_of = found
            part_of.note(held._replace(attempts=reservation.attempts), cost, cost if estimated else 0)
            idle = not part_of.open and not part_of.busy
        if idle:
            self.wake(True)
        return True

    def release(self, key: str) -> bool:
        """Give the hold back. False where it is not held here: then no later `admit` holds anything under this id."""
        with self._here():
            found = self._pop(key)
            idle = found is not None and not found.part_of.open and not found.part_of.busy
            self._end(key)
        if idle:
            self.wake(True)
        return found is not None

    def renew(self, keys: Iterable[str]) -> None:
        """Begin the leases of these anew, if they are held here."""
        with self._here():
            deadline = self._time() + self.lease
            for key in keys:
                if self._deadlines.pop(key, None) is not None:
                    self._deadlines[key] = deadline
        if not self.empty:
            self.wake(False)

    def knows(self, key: str) -> bool:
        """Whether this id is held here, or has ended here."""
        with self._here():
            return key in self._held or key in self._ended or key in self._ended_before

    def asked(self, key: str) -> None:
        """The ledger is asked for this id, and may hold it: it is never held here."""
        with self._here():
            self._asked.add(key)
            if len(self._asked) > _MOST_ENDED:
                self._asked, self._asked_before = set(), self._asked

    def standing(self) -> list[tuple[Line, Span, int]]:
        """Each account of which there is a slice, and what it has used as far as is known here, the slice whole."""
        with self._here():
            return [
                (line, span, used + found.room)
                for found in self._slices.values()
                if found.open
                for (line, span), used in zip(found.pairs, found.used(), strict=True)
            ]

    # With the lock held

    def _pop(self, key: str) -> _Held | None:
        found = self._held.pop(key, None)
        if found is not None:
            self._deadlines.pop(key, None)
            found.part_of.busy -= found.reservation.cost
            self._end(key)
        return found

    def _end(self, key: str) -> None:
        self._ended.add(key)
        if len(self._ended) > _MOST_ENDED:
            self._ended, self._ended_before = set(), self._ended

    def _mix(self, found: Slice, origin: Origin) -> None:
        """What calls of several origins have in common is where a slice comes from."""
        mine = found.started.origin
        found.origin = origin
        if (mine.tenant, mine.route) != (origin.tenant, origin.route):
            tenant = mine.tenant if mine.tenant == origin.tenant else None
            route = mine.route if mine.route == origin.route else None
            found.started = found.started._replace(origin=Origin(tenant, route))

    def _count(self, name: Name, offers: Sequence[Offer], lines: Sequence[Line], now: float, origin: Origin) -> None:
        """A call without a slice: at so many within a second, take one."""
        if not self._second <= now < self._second + 1:
            self._second = now
            self._counted.clear()
        wanted = self._counted.get(name)
        if wanted is None:
            if len(self._counted) >= _MOST_COUNTED:
                return
            wanted = self._counted[name] = _Wanted()
        cost = offers[0].cost
        wanted.calls += 1
        if type(cost) is int and cost > 0:
            wanted.cost += cost
            wanted.largest = max(wanted.largest, cost)
        if wanted.calls < self.hot or len(self._slices) >= _MOST_SLICES or len(set(name)) < len(name):
            return
        if self._cool.get(name, now) > now:
            return
        pairs = tuple((line, line.window.span(now)) for line in lines)
        started = Reservation("", offers[0]._replace(changes={}, reasons=()), 0, pairs, (0,) * len(pairs), at=now,
                              origin=origin)  # fmt: skip
        found = Slice(name, tuple(lines), started, max(wanted.cost, 1))
        if found.until - now < 2 * MARGIN:
            return
        found.largest = max(wanted.largest, 1)
        found.origin = origin
        self._slices[name] = found
        self.wake(True)

    # What is reported

    def tend(self) -> list[Slice]:
        """Slices that there is something to say of. Those that nobody uses, or whose window ends, are closed."""
        with self._here():
            now = self._time()
            self._lapse(now)
            for found in list(self._slices.values()):
                if found.number and found.pending is None and (
                    found.lapsed or found.orphan or not found.open or now >= found.until or found.quiet >= _QUIET
                ):  # fmt: skip
                    self._close(found)
                found.quiet += 1
            for name in [name for name, until in self._cool.items() if until <= now]:
                del self._cool[name]
            return [
                *self._slices.values(),
                *(each for each in self._closing if not each.lapsed or not each.busy),
            ]

    def close(self, names: Iterable[Name] | None = None) -> None:
        """Admit nothing more against these slices, or all."""
        with self._here():
            for name in list(self._slices) if names is None else names:
                if (found := self._slices.get(name)) is not None:
                    self._close(found)

    def close_for(self, lines: Iterable[Line]) -> list[Slice]:
        """Admit nothing more against the slices that hold a part of one of these accounts. Those, and what is told."""
        accounts = {(line.budget, line.account, line.window.series) for line in lines}
        found = [each for each in self.all() if not accounts.isdisjoint(each.name)]
        self.close([each.name for each in found])
        return found

    def _close(self, found: Slice) -> None:
        found.open = False
        self._slices.pop(found.name, None)
        if found.number and found not in self._closing:  # the ledger knows nothing of one that was never told of
            self._closing.append(found)

    def _lapse(self, now: float) -> None:
        """Give up calls that nobody renews: the ledger is told to charge them."""
        while self._deadlines:
            key, deadline = next(iter(self._deadlines.items()))
            if deadline > now:
                break
            del self._deadlines[key]
            held, part_of = self._held.pop(key)
            part_of.busy -= held.cost
            part_of.size -= held.cost
            part_of.base -= held.cost
            part_of.left.append(held)

    def all(self) -> list[Slice]:
        """All that there is, in use or closing."""
        with self._here():
            return [*self._slices.values(), *self._closing]

    def begin(self, found: Slice) -> Report | None:
        """What to tell of it; None where nothing is, or somebody is telling."""
        with self._here():
            if found.reporting:
                return None
            gone = found not in self._closing and self._slices.get(found.name) is not found
            if gone or (found.lapsed and found.busy):
                return None
            closing = found in self._closing
            report = found.report(self._time(), final=closing and not found.busy and found.number > 0)
            found.reporting = True
            return report

    def stopped(self, found: Slice) -> bool:
        """Nobody tells of it any more. Whether there is more to tell of it at once, for it is closing."""
        with self._here():
            found.reporting = False
            if found not in self._closing or (found.lapsed and found.busy):
                return False
            return bool(not found.busy or found.size > found.busy or found.rows or found.left)

    def accepted(
        self, found: Slice, report: Report, pairs: tuple[tuple[Line, Span], ...], version: str, idle: tuple[int, int],
        seen: Sequence[int], sent: float, *, back: bool,
    ) -> None:  # fmt: skip
        """The ledger has it. `pairs` are its lines under the limits that hold.

        `idle` is how much more it holds than was in flight, and how much of that is still so when the next report is
        under way.
        """
        with self._here():
            found.pairs, found.version = pairs, version
            found.accepted(report, *idle, seen, sent + 0.9 * self.lease)
            found.due = sent + _DUE
            if report.final:
                self._drop(found)
            elif found not in self._closing:
                found.open = True
                if back or not idle[0]:
                    self._cool[found.name] = self._time() + _COOL
                    self._close(found)

    def refused(self, found: Slice) -> None:
        """There is no room for it."""
        with self._here():
            found.pending = None
            self._cool[found.name] = self._time() + _COOL
            self._drop(found)

    def ended(self, found: Slice) -> None:
        """The ledger has its last report."""
        with self._here():
            self._drop(found)

    def lapsed(self, found: Slice, told: int) -> None:
        """Its lease has ended there: it was charged whole, until it ends here."""
        with self._here():
            if found.pending is not None and found.pending.number != told:
                found.withdrawn()
            found.pending, found.lapsed = None, True
            self._close(found)

    def lost(self, found: Slice) -> Report:
        """The ledger does not know it any more: what it came to has to be charged otherwise."""
        with self._here():
            found.withdrawn()
            found.orphan = True
            self._close(found)
            return found.report(self._time(), final=not found.busy)

    def charged(self, found: Slice) -> None:
        """What a slice came to that the ledger had lost was charged."""
        with self._here():
            found.pending = None
            if not found.busy and not found.rows and not found.left:
                self._drop(found)

    def _drop(self, found: Slice) -> None:
        found.open = False
        if self._slices.get(found.name) is found:
            del self._slices[found.name]
        if found in self._closing:
            self._closing.remove(found)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to look after."""
        return not self._slices and not self._closing

    @property
    def busy(self) -> bool:
        """Whether calls are admitted against slices, or something is yet to be told. Else only leases go on."""
        return bool(self._slices) or any(not each.busy or each.rows for each in self._closing)


def check_share(share: object) -> None:
    """ConfigurationError for what is no share that one slice may take."""
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 0.5:  # noqa: PLR2004
        raise ConfigurationError(
            f"RedisLedger(slices={share!r:.40}): that is the share of what an account has left that one process may "
            "hold at a time, above 0 and at most 0.5, such as 0.05; None: each call is asked for"
        )
