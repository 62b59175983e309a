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


class Rollup:
    """Rows of `Spent`, added up as holds end. Not safe across threads: the ledger's lock is held."""

    def __init__(self, retention: float) -> None:
        self._retention = retention
        self._hours: dict[int, dict[_Key, list[int]]] = {}
        self._rows = 0

    def book(self, held: Reservation, cost: int, estimated: int, *, attempts: int, now: float) -> None:
        """Add to the hour in which `held` was made; less than nothing takes back."""
        hour = hour_of(held.at)
        rows = self._hours.get(hour)
        if rows is None:
            if hour <= now - self._retention:
                return
            rows = self._hours[hour] = {}
            self._drop(now)
        key = (held.origin.tenant, held.origin.route, held.offer.tier)
        row = rows.get(key)
        if row is None:
            row = rows[key] = [0, 0, 0, 0]
            self._rows += 1
            if self._rows > _MOST_ROWS:
                self._drop(now)
        row[1] += cost
        row[3] += estimated
        if held.origin.own:
            row[2] += cost
        else:
            row[0] += attempts

    def history(self, since: float, until: float) -> list[Spent]:
        """Rows of the hours that began in `since <= hour < until`, in order."""
        return [
            Spent(float(hour), tenant, route, tier, *row)
            for hour in sorted(self._hours)
            if since <= hour < until
            for (tenant, route, tier), row in self._hours[hour].items()
        ]

    def erase(self, tenant: str) -> None:
        """Drop the rows of a tenant."""
        for rows in self._hours.values():
            for key in [key for key in rows if key[0] == tenant]:
                del rows[key]
                self._rows -= 1

    def _drop(self, now: float) -> None:
        for hour in sorted(self._hours):
            if hour > now - self._retention and (self._rows <= _MOST_ROWS or len(self._hours) == 1):
                break
            self._rows -= len(self._hours.pop(hour))
