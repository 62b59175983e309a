"""The same records in SQLite: one table that several processes write to, and that people can ask with SQL."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from tierline.decisionlog.record import line_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

APPLICATION_ID: Final = 0x74_6C_64_6C  # "tldl"
_PATIENCE: Final = 10.0
"""Seconds that a writer waits for others."""
_OLDEST: Final = 10
"""One part in so many is dropped when the file is full."""

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS decisions (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    at REAL NOT NULL,
    route TEXT,
    tier TEXT NOT NULL,
    cost INTEGER NOT NULL,
    record TEXT NOT NULL
)
"""


class Table:
    """A table of records. `record` is the whole of one as JSON, the other columns are its fields of that name.

    - each batch is one transaction: of a killed process all of it is there, or nothing
    - when the file has more than `max_bytes` in use, the oldest tenth is dropped, and its room is used again
    - readable by its owner alone

    sqlite3.Error or OSError where it cannot be written.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._connection: sqlite3.Connection | None = None

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Add a row for each record."""
        rows = [(r["id"], r["at"], r["route"], r["tier"], r["cost"], line_of(r)) for r in records]
        try:
            connection = self._connection or self._open()
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO decisions (id, at, route, tier, cost, record) VALUES (?, ?, ?, ?, ?, ?)", rows
            )
            self._trim(connection)
            connection.execute("COMMIT")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file. The next row opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def abandon(self) -> None:
        """Let go of what a fork has inherited, without closing it: its locks are the parent's."""
        connection, self._connection = self._connection, None
        if connection is not None:  # made immortal
            import ctypes  # noqa: PLC0415  (rarely needed)

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def _open(self) -> sqlite3.Connection:
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600))
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode=rw",
            uri=True,
            timeout=_PATIENCE,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            _check(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may cost the last moments
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _trim(self, connection: sqlite3.Connection) -> None:
        """Drop the oldest rows of a file that is full."""
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        while True:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            (free,) = connection.execute("PRAGMA freelist_count").fetchone()
            first, last = connection.execute("SELECT min(number), max(number) FROM decisions").fetchone()
            if (pages - free) * size <= self._max_bytes or first == last:
                return
            connection.execute("DELETE FROM decisions WHERE number <= ?", (first + (last - first) // _OLDEST,))


def _check(connection: sqlite3.Connection) -> None:
    """OSError where the file is the database of something else."""
    (whose,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if whose != APPLICATION_ID and (whose or tables):
        raise OSError("it is another database: give the decision log a file of its own")
