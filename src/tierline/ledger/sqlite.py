"""The ledger of one machine: a SQLite file that outlives a restart, for any number of processes."""

from __future__ import annotations

import time
from math import inf
from typing import TYPE_CHECKING, TypeVar

from tierline.errors import ConfigurationError
from tierline.ledger import standings
from tierline.ledger.accounts import REMEMBER
from tierline.ledger.base import NOWHERE, RETENTION
from tierline.ledger.checks import bounded_cost, check_seconds, checked_limit
from tierline.ledger.tables import Tables
from tierline.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence
    from sqlite3 import Connection

    from tierline.budgets import Line
    from tierline.ledger.base import Alert, Balance, Fullest, Hold, Origin, Reservation, Spent
    from tierline.values import Offer, Refusal

T = TypeVar("T")


class SQLiteLedger:
    """A `Ledger` in a SQLite file, for the processes of one machine, their threads and event loops.

    `store` is the path of the file or a `SQLiteStore`. `clock` gives seconds since the epoch, the same for all
    processes; `lease` and `retention` (of spend by hour) are in seconds, and each process counts by its own. For
    `remember` seconds it is known which ids have ended; for at least a day which have lapsed, and may be settled late;
    for at least a week which were posted. What was returned is on the disk: a process that is killed loses nothing, and
    what it held lapses.

    Size: a row for each account in a window that has not ended (of a rolling one at most 61), for each hold, for each
    id that is remembered, and for each hour, tenant, route and tier.
    A cost is at most $1,000,000,000, a ValueError above.

    ConfigurationError for a lease or a path that cannot be; LedgerUnavailableError as `SQLiteStore` says.
    """

    def __init__(
        self,
        store: SQLiteStore | str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
        lease: float = 30.0,
        retention: float = RETENTION,
        remember: float = REMEMBER,
    ) -> None:
        check_seconds("SQLiteLedger", lease=lease, retention=retention, remember=remember)
        if lease == inf:
            raise ConfigurationError("SQLiteLedger(lease=inf): what nobody renews ends at some time")
        self.lease = lease
        self.instant = False
        self.store = store if isinstance(store, SQLiteStore) else SQLiteStore(store)
        self._tables = Tables(clock, lease, retention, remember)
        self._listeners: list[Callable[[Alert], None]] = []

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
        found = await self._run(lambda db: self._tables.reserve(db, key, offers, lines, thresholds, origin))
        if isinstance(found, ValueError):
            raise found
        return found

    async def settle(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Replace the hold by `cost`. False where it had been settled before, or lapsed too long ago."""
        bounded_cost(cost)
        return await self._run(lambda db: self._tables.settle(db, reservation, cost, estimated=estimated))

    async def release(self, key: str) -> bool:
        """Give the hold back. False where there is none."""
        return await self._run(lambda db: self._tables.end(db, key, 0, estimated=False, attempts=0))

    async def post(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Charge `cost`, without asking for room. False where this id is held here, or has ended before."""
        bounded_cost(cost)
        return await self._run(lambda db: self._tables.post(db, reservation, cost, estimated=estimated))

    async def renew(self, reservations: Sequence[Reservation]) -> None:
        """Begin the lease of every hold anew; those that have ended are left alone."""
        keys = [reservation.id for reservation in reservations]
        await self._run(lambda db: self._tables.renew(db, keys))

    async def forget(self, lines: Sequence[Line]) -> None:
        """Drop the balances of these accounts. A hold on one of them ends as any other, and is charged nowhere."""
        await self._run(lambda db: self._tables.forget(db, lines))

    async def ping(self) -> None:
        """Return where the file can be written."""
        await self._run(lambda _: None)

    async def aclose(self) -> None:
        """Do what is under way, close the file, and end its thread."""
        await self.store.aclose()

    # What operators ask

    async def balances(self, account: str | None = None) -> list[Balance]:
        """Every account that was ever charged in a span that has not ended; or those with one name."""
        moment = await self._run(self._tables.settled_down)
        return await self.store.read(lambda db: standings.balances(db, moment, account))

    async def fullest(self, most: int) -> Fullest:
        """The `most` accounts that have used the largest share of their limits: see `Ledger`."""
        moment = await self._run(self._tables.settled_down)
        return await self.store.read(lambda db: standings.fullest(db, moment, most))

    async def holds(self) -> list[Hold]:
        """Every hold, oldest first."""
        return await self._run(self._tables.holds)

    async def history(self, since: float, until: float | None = None) -> list[Spent]:
        """Spend of every hour that began at or after `since` and before `until`."""
        return await self._run(lambda db: self._tables.history(db, since, inf if until is None else until))

    async def set_limit(self, budget: str, account: str | None, limit: int | None) -> None:
        """Let another limit hold, from the next reservation of any process on; None takes that back."""
        if limit is not None:
            checked_limit(limit)
        await self._run(lambda db: self._tables.set_limit(db, budget, account, limit))

    async def limits(self) -> dict[tuple[str, str | None], int]:
        """What `set_limit` has set."""
        return await self._run(self._tables.limits)

    async def confirm(self) -> None:
        """Go on where the file was lost, with the one that is there now or a new one; and by the clock as it is now."""
        await self.store.confirm()
        await self._run(self._tables.trust_clock)

    async def erase(self, account: str) -> None:
        """Drop all that is kept under a name. Holds of it end as any other, and are charged to their other accounts."""
        await self._run(lambda db: self._tables.erase(db, account))

    def watch(self, listener: Callable[[Alert], None]) -> None:
        """Tell `listener` of every alert: on the event loop of the call that brought it about."""
        self._listeners.append(listener)

    async def _run(self, step: Callable[[Connection], T]) -> T:
        def noting(db: Connection) -> tuple[T, list[Alert]]:
            tables, noted = self._tables, len(self._tables.noted)
            try:
                result = step(db)
            except BaseException:
                del tables.noted[noted:]  # undone, with what it brought about
                raise
            alerts, tables.noted = tables.noted, []
            return result, alerts

        result, _ = await self.store.run(noting, first=self._tables.tick, after=self._tell)
        return result

    def _tell(self, found: tuple[object, list[Alert]]) -> None:
        for alert in found[1]:
            for listener in tuple(self._listeners):
                listener(alert)
