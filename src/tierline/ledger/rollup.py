"""Spend by hour, tenant, route and tier, in the memory of a process."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias

from tierline.ledger.base import Origin, Spent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tierline.ledger.base import Reservation

HOUR: Final = 3600
_MOST_ROWS: Final = 100_000
"""Most rows that are kept in memory: names of tenants may come from anywhere. The oldest hours go first."""

_Key: TypeAlias = tuple[Origin, str]
"""Where from, and which tier."""


def hour_of(at: float) -> int:
    """When the hour of `at` began: a multiple of 3,600 seconds since the epoch."""
    return int(at // HOUR) * HOUR


class Row:
    """The sums of one origin and tier in one hour. Money in nano-USD."""

    __slots__ = ("attempts", "cost", "estimated")

    def __init__(self) -> None:
        self.attempts = self.cost = self.estimated = 0

    def correct(self, cost: int, estimated: int, attempts: int) -> None:
        """Add what may be below 0."""
        self.cost += cost
        self.estimated += estimated
        self.attempts += attempts


class Rollup:
    """Rows of spend, added up as holds end. Not safe across threads: the ledger's lock is held.

    `retention` is in seconds. One hour may have all the rows there are; then further tenants share the one without a
    name.
    """

    def __init__(self, retention: float) -> None:
        self._retention = retention
        self._hours: dict[int, dict[_Key, Row]] = {}
        self._rows = 0
        self._last: tuple[float, float, dict[_Key, Row]] = (inf, inf, {})  # the hour that was booked to last

    def book(self, held: Reservation, cost: int, estimated: int, now: float, attempts: int = 1) -> Row:
        """Book attempts to the hour in which `held` was made; the row they went to.

        Of an hour that is not kept any more, that is one that nobody will read.
        """
        key = (held.origin, held.offer.tier)
        begin, end, rows = self._last
        row = rows.get(key) if begin <= held.at < end else None
        if row is None:
            row = self._open(hour_of(held.at), key, now)
        row.attempts += attempts
        row.cost += cost
        row.estimated += estimated
        return row

    def _open(self, hour: int, key: _Key, now: float) -> Row:
        if hour not in self._hours and hour > now - self._retention:
            self._hours[hour] = {}
            self._drop(now)
        if self._rows >= _MOST_ROWS:
            self._drop(now)
            if self._rows >= _MOST_ROWS:
                key = (key[0]._replace(tenant=None), key[1])
        rows = self._hours.get(hour)
        if rows is None:
            return Row()
        self._last = hour, hour + HOUR, rows
        row = rows.get(key)
        if row is None:
            row = rows[key] = Row()
            self._rows += 1
        return row

    def history(self, since: float, until: float, now: float) -> list[Spent]:
        """What was spent in the hours that began in `since <= hour < until`, in order."""
        self._drop(now)
        return [
            spent for hour in sorted(self._hours) if since <= hour < until for spent in _spent(hour, self._hours[hour])
        ]

    def erase(self, tenant: str) -> None:
        """Drop the rows of a tenant."""
        for rows in self._hours.values():
            for key in [key for key in rows if key[0].tenant == tenant]:
                del rows[key]
                self._rows -= 1

    def _drop(self, now: float) -> None:
        """Drop the hours that are over the bounds, oldest first. The newest one is not dropped for its rows."""
        hours = sorted(self._hours)
        for hour in hours:
            if hour > now - self._retention and (self._rows < _MOST_ROWS or hour == hours[-1]):
                break
            self._rows -= len(self._hours.pop(hour))
            self._last = inf, inf, {}


def _spent(hour: int, rows: dict[_Key, Row]) -> Iterator[Spent]:
    """The rows of one hour; but those that came to nothing, because all of it was taken back."""
    for origin, tier in dict.fromkeys((origin._replace(own=False), tier) for origin, tier in rows):
        calls = rows.get((origin, tier), _NOTHING)
        own = rows.get((origin._replace(own=True), tier), _NOTHING)
        cost = calls.cost + own.cost
        if calls.attempts or cost:
            yield Spent(
                float(hour), origin.tenant, origin.route, tier, calls.attempts, cost, own.cost,
                calls.estimated + own.estimated,
            )  # fmt: skip


_NOTHING: Final = Row()
