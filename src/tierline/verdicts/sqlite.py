"""Verdicts in a SQLite file, for the processes of one machine: in the ledger's file, over its connection."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tierline.verdicts.store import SIZE, StoredVerdicts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from sqlite3 import Connection

    from tierline.store.sqlite import SQLiteStore
    from tierline.verdicts.store import Kept


class SQLiteVerdicts:
    """A `VerdictStore` in a SQLite file. `size` is in verdicts; `clock` gives seconds since the epoch."""

    def __init__(self, store: SQLiteStore, *, size: int = SIZE, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._size, self._clock = size, clock

    async def get(self, keys: Sequence[str]) -> list[str | None]:
        """The value of each key."""
        now = self._clock()
        return await self._store.run(lambda db: [_value(db, key, now) for key in keys])

    async def put(self, kept: Sequence[Kept]) -> None:
        """Keep verdicts, and drop those that are too old or too many."""
        now = self._clock()
        await self._store.run(lambda db: self._put(db, kept, now))

    def _put(self, db: Connection, kept: Sequence[Kept], now: float) -> None:
        db.execute("DELETE FROM verdict WHERE until <= ?", (now,))
        for each in kept:
            db.execute(
                "INSERT INTO verdict (key, account, value, until, hits) VALUES (?, ?, ?, ?, 0) "
                "ON CONFLICT (key) DO UPDATE SET value = excluded.value, until = excluded.until",
                (each.key, each.account, each.value, now + each.ttl),
            )
        last = "SELECT number FROM verdict ORDER BY number DESC LIMIT 1 OFFSET ?"
        db.execute(f"DELETE FROM verdict WHERE number <= ({last})", (self._size,))  # noqa: S608  (constants)

    async def used(self, counts: Mapping[str, int], saved: int) -> None:
        """Count keys that were found, and nano-USD that this saved."""
        await self._store.run(lambda db: _used(db, counts, saved))

    async def forget(self, account: str) -> None:
        """Drop the verdicts of an account."""
        await self._store.run(lambda db: db.execute("DELETE FROM verdict WHERE account = ?", (account,)).rowcount)

    async def clear(self) -> None:
        """Drop all verdicts."""
        await self._store.run(lambda db: db.execute("DELETE FROM verdict").rowcount)

    async def stats(self) -> StoredVerdicts:
        """What there is."""
        now = self._clock()
        return await self._store.run(lambda db: _stats(db, now))


def _value(db: Connection, key: str, now: float) -> str | None:
    row = db.execute("SELECT value FROM verdict WHERE key = ? AND until > ?", (key, now)).fetchone()
    return row[0] if row is not None and isinstance(row[0], str) else None


def _used(db: Connection, counts: Mapping[str, int], saved: int) -> None:
    for key, count in counts.items():
        db.execute("UPDATE verdict SET hits = hits + ? WHERE key = ?", (count, key))
    db.execute(
        "INSERT INTO verdicts (one, hits, saved) VALUES (1, ?, ?) "
        "ON CONFLICT (one) DO UPDATE SET hits = hits + excluded.hits, saved = saved + excluded.saved",
        (sum(counts.values()), saved),
    )


def _stats(db: Connection, now: float) -> StoredVerdicts:
    size: int = db.execute("SELECT count(*) FROM verdict WHERE until > ?", (now,)).fetchone()[0]
    hits, saved = db.execute("SELECT hits, saved FROM verdicts").fetchone() or (0, 0)
    return StoredVerdicts(size, hits, saved)
