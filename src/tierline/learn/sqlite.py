"""Outcomes in a SQLite file, for the processes of one machine: in the ledger's file, over its connection."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING

from tierline.learn.outcomes import REMEMBER, SIZE, Evidence, position

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from sqlite3 import Connection

    from tierline.store.sqlite import SQLiteStore

_COLUMNS = ", ".join(Evidence._fields)


class SQLiteOutcomes:
    """An `OutcomeStore` in a SQLite file. Writers take turns, so numbers are in the order of commits.

    `size` is in evidence, `remember` in seconds of `clock`, for which ids stay taken.
    """

    def __init__(
        self,
        store: SQLiteStore,
        *,
        size: int = SIZE,
        remember: float = REMEMBER,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._size, self._remember, self._clock = size, remember, clock
        self._secret = b""

    async def add(self, evidence: Sequence[Evidence]) -> list[bool]:
        """Keep evidence: see `OutcomeStore`."""
        now = self._clock()
        return await self._store.run(lambda db: self._add(db, evidence, now))

    def _add(self, db: Connection, evidence: Sequence[Evidence], now: float) -> list[bool]:
        db.execute("DELETE FROM graded WHERE until <= ?", (now,))
        new = []
        for each in evidence:
            taken = db.execute("INSERT OR IGNORE INTO graded VALUES (?, ?)", (each.id, now + self._remember))
            new.append(taken.rowcount == 1)
            if new[-1]:
                db.execute(f"INSERT INTO outcome ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", each)  # noqa: S608
        if any(new):
            last = "SELECT number FROM outcome ORDER BY number DESC LIMIT 1 OFFSET ?"
            db.execute(f"DELETE FROM outcome WHERE number <= ({last})", (self._size,))  # noqa: S608  (constants)
        return new

    async def since(self, cursor: str, limit: int = 1000) -> tuple[list[Evidence], str]:
        """At most `limit` that came after the cursor, and the cursor to go on from."""
        return await self._store.run(lambda db: self._since(db, cursor, limit))

    def _since(self, db: Connection, cursor: str, limit: int) -> tuple[list[Evidence], str]:
        edition = self._edition(db)
        last = position(cursor, edition)
        rows = db.execute(
            f"SELECT number, {_COLUMNS} FROM outcome WHERE number > ? ORDER BY number LIMIT ?",  # noqa: S608
            (last, limit),
        ).fetchall()
        if rows:
            last = rows[-1][0]
        return [Evidence(*row[1:]) for row in rows], f"{edition}:{last}"

    async def secret(self) -> bytes:
        """32 bytes that keys and signatures are made with."""
        self._secret = await self._store.run(self._shared)
        return self._secret

    def _shared(self, db: Connection) -> bytes:
        self._edition(db)
        mine = self._secret or secrets.token_bytes(32)
        db.execute("UPDATE learning SET secret = ? WHERE secret IS NULL", (mine,))
        found: bytes = db.execute("SELECT secret FROM learning").fetchone()[0]
        return found

    async def forget(self, account: str) -> None:
        """Drop what an account graded."""
        await self._store.run(lambda db: self._forget(db, account))

    def _forget(self, db: Connection, account: str) -> None:
        self._edition(db)
        db.execute("DELETE FROM outcome WHERE account = ?", (account,))
        db.execute("UPDATE learning SET edition = ?", (secrets.token_hex(8),))

    @staticmethod
    def _edition(db: Connection) -> str:
        db.execute("INSERT OR IGNORE INTO learning (one, edition) VALUES (1, ?)", (secrets.token_hex(8),))
        found: str = db.execute("SELECT edition FROM learning").fetchone()[0]
        return found
