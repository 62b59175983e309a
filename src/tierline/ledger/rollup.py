"""Spend by hour, tenant, route and tier, in the memory of a process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from tierline.ledger.base import Spent

if TYPE_CHECKING:
    from tierline.ledger.base import Reservation

HOUR: Final = 3600
_MOST_ROWS: Final = 100_000
"""Most rows that are kept in memory: names of tenants may come from anywhere. The oldest hours go first."""

_Key: TypeAlias = tuple[str | None, str | None, str]


def hour_of(at: float) -> int:
    """When the hour of `at` began: a multiple of 3,600 seconds since the epoch."""
    return int(at // HOUR) * HOUR


class Row:
    """The sums of one `Spent`. Money in nano-USD."""

    __slots__ = ("attempts", "cost", "estimated", "own")

    def __init__(self) -> None:
        self.attempts = self.cost = self.own = self.estimated = 0

    def add(self, cost: int, estimated: int, *, own: bool, attempts: int = 0) -> None:
        """Add to it; less than nothing takes back."""
        self.cost += cost
        self.estimated += estimated
        if own:
            self.own += cost
        else:
            self.attempts += attempts


class Rollup:
    """Rows of `Spent`, added up as holds end. Not safe across threads: the ledger's lock is held.

    `retention` is in seconds. One hour may have all the rows there are; then further tenants share the one without a
    name.
    """

    def __init__(self, retention: float) -> None:
        self._retention = retention
        self._hours: dict[int, dict[_Key, Row]] = {}
        self._rows = 0

    def row(self, held: Reservation, now: float) -> Row:
        """The row that `held` is booked to. Of an hour that is not kept any more: one that nobody will read."""
        hour = int(held.at // HOUR) * HOUR
        rows = self._hours.get(hour)
        if rows is None:
            if hour <= now - self._retention:
                return Row()
            rows = self._hours[hour] = {}
            self._drop(now)
        origin = held.origin
        key = (origin.tenant, origin.route, held.offer.tier)
        row = rows.get(key)
        if row is None:
            row = self._open(hour, key, now)
        return row

    def _open(self, hour: int, key: _Key, now: float) -> Row:
        if self._rows >= _MOST_ROWS:
            self._drop(now)
            if self._rows >= _MOST_ROWS:
                key = (None, *key[1:])
        rows = self._hours.get(hour)
        if rows is None:
            return Row()
        row = rows.get(key)
        if row is None:
            row = rows[key] = Row()
            self._rows += 1
        return row

    def history(self, since: float, until: float, now: float) -> list[Spent]:
        """Rows of the hours that began in `since <= hour < until`, in order, but those that came to nothing."""
        self._drop(now)
        return [
            Spent(float(hour), tenant, route, tier, row.attempts, row.cost, row.own, row.estimated)
            for hour in sorted(self._hours)
            if since <= hour < until
            for (tenant, route, tier), row in self._hours[hour].items()
            if row.attempts or row.cost
        ]

    def erase(self, tenant: str) -> None:
        """Drop the rows of a tenant."""
        for rows in self._hours.values():
            for key in [key for key in rows if key[0] == tenant]:
                del rows[key]
                self._rows -= 1

    def _drop(self, now: float) -> None:
        """Drop the hours that are over the bounds, oldest first. The newest one is not dropped for its rows."""
        hours = sorted(self._hours)
        for hour in hours:
            if hour > now - self._retention and (self._rows < _MOST_ROWS or hour == hours[-1]):
                break
            self._rows -= len(self._hours.pop(hour))
