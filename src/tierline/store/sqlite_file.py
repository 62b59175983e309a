"""A SQLite file, as one thread sees it: opened when it is needed, checked, waited for, and what is wrong with it."""

from __future__ import annotations

import errno
import os
import random
import secrets
import sqlite3
import stat
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeVar
from urllib.parse import quote

from tierline.errors import LedgerUnavailableError
from tierline.store.schema import APPLICATION_ID, MIGRATIONS, OLDEST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

PATIENCE: Final = 20
"""How many times longer than for a lock that never moves is waited for one that goes from hand to hand."""
_SHORTEST_NAP: Final = 0.0003
_LONGEST_NAP: Final = 0.0012
"""Seconds between two looks at a lock. SQLite's own waiting looks less and less often, and the last comer wins."""

_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)
_STORAGE: Final = frozenset(
    (
        *_BUSY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOLFS,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_NOTADB,
    )
)


class SQLiteFile:
    """The connection to a file, and what is remembered of it when that is gone. For one thread at a time.

    `timeout` seconds are waited for a writer that does not move, and `PATIENCE` times as long while others write.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self.path = path
        self.timeout = timeout
        self.confirmed = False
        """Whether an operator has said that another file may stand in for the one that was lost."""
        self.lock = threading.Lock()
        """Held while SQLite is at work."""
        self._connection: sqlite3.Connection | None = None
        self._place: tuple[int, int] | None = None
        self._epoch: str | None = None
        self._oldest = 0  # the schema that who uses the file has to know, when it was opened
        self._version: int | None = None  # of what others have committed, as it was when the lock was last in the way
        self._looked = 0.0  # when that was
        self._still: float | None = None  # since when the lock has not moved; None while it is not in the way

    def begin(self, since: float) -> sqlite3.Connection:
        """The connection, with the right to write. `since` is when the first who wants that asked (monotonic).

        LedgerUnavailableError with what to do, in bounded time.
        """
        while True:
            try:
                connection = self._connection or self._open()
                connection.execute("BEGIN IMMEDIATE")
                if not self._is_in_place():
                    # Others are at work on another file. This one must not even be closed: that removes their log.
                    connection.execute("ROLLBACK")
                    self.abandon()
                    continue
                if _number(connection, "user_version") == self._oldest:
                    self._still = None
                    return connection
                # A newer program has changed the tables meanwhile. Whether they can still be used is looked at anew.
                connection.execute("ROLLBACK")
                self.close()
                continue
            except (sqlite3.Error, OSError) as error:
                if _code(error) not in _BUSY:
                    self.close()
                    raise self.explained(error) from error
                if self._is_stuck(since):
                    raise self.explained(error) from error
            time.sleep(random.uniform(_SHORTEST_NAP, _LONGEST_NAP))  # noqa: S311  (no secret)

    def _is_stuck(self, since: float) -> bool:
        """Whether to give up: the lock has not moved for long, or it is a queue that is far too long."""
        now, version = time.monotonic(), self._version
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        # What was seen long ago says nothing of those who hold the lock now.
        if self._still is None or version != self._version or now - self._looked > self.timeout:
            self._still = now
        self._looked = now
        return now >= min(self._still + self.timeout, since + PATIENCE * self.timeout)

    def read(self, look: Callable[[sqlite3.Connection], T]) -> T:
        """What `look` returned, on a connection for reading. LedgerUnavailableError where there can be none."""
        try:
            connection = sqlite3.connect(
                f"file:{quote(str(self.path))}?mode=ro", uri=True, timeout=self.timeout, isolation_level=None
            )
            try:
                connection.execute("BEGIN")
                return look(connection)
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise self.explained(error) from error

    def commit(self) -> None:
        """Write down what was begun. sqlite3.Error where that failed."""
        assert self._connection is not None  # noqa: S101  (begun)
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo what was begun; where even that fails, begin with a new connection."""
        try:
            if self._connection is not None and self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()

    def close(self) -> None:
        """Let go of the connection. The next step opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def abandon(self) -> None:
        """Let go of the connection without closing it: it is a parent's, or its file has gone.

        SQLite would take locks and remove files of others by their name. So it is made immortal.
        """
        connection, self._connection = self._connection, None
        if connection is not None:
            import ctypes  # noqa: PLC0415  (rarely needed)

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))

    def _is_in_place(self) -> bool:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._place

    def _open(self) -> sqlite3.Connection:
        self._create()
        # Never made by SQLite: that would be readable by all, and after a loss it would begin at 0.
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw", uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            found = self.path.stat()
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA secure_delete = ON")  # what is erased is gone from the file
            connection.execute("PRAGMA journal_size_limit = 16777216")
            self._check(connection)
            self._log_ahead(connection)
            if self._check(connection) < len(MIGRATIONS) or not self._knows(connection):
                connection.execute("BEGIN IMMEDIATE")
                self._migrate(connection, self._check(connection))
                self._recognize(connection)
                connection.execute("COMMIT")
            epoch: str = connection.execute("SELECT id FROM epoch WHERE number = 1").fetchone()[0]
            self._oldest = _number(connection, "user_version")
        except BaseException:
            connection.close()
            raise
        self._connection, self._place, self._epoch = connection, (found.st_dev, found.st_ino), epoch
        return connection

    def _create(self) -> None:
        """An empty file that nobody else may read, where there is none."""
        if self._epoch is not None and not self.confirmed and not self.path.exists():
            raise LedgerUnavailableError(
                f"{self.path} is gone, and with it what was spent: put it back, or confirm() to begin at 0"
            )
        with suppress(FileExistsError):
            if sys.platform == "linux":
                # Opens nothing: whoever closes a file lets go of all locks that this process has on it.
                os.mknod(self.path, stat.S_IFREG | 0o600)
            else:
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        if not os.access(self.path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            # SQLite would open it for reading, and leave a log beside it that nobody may write either.
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def _check(self, connection: sqlite3.Connection) -> int:
        """The schema of the file, 0 for none. LedgerUnavailableError where it is no file for us."""
        # In this order: another process may be making the tables right now.
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        oldest = _number(connection, "user_version")
        whose = _number(connection, "application_id")
        if whose != APPLICATION_ID and (whose or oldest or tables):
            raise LedgerUnavailableError(f"{self.path} is the database of another program: give Tierline its own file")
        if oldest > len(MIGRATIONS):
            raise LedgerUnavailableError(
                f"{self.path} was written by a newer Tierline (schema {oldest}, this one knows {len(MIGRATIONS)}): "
                "upgrade this one, or give it another file"
            )
        if "schema" not in tables:
            return oldest
        steps: int = connection.execute("SELECT steps FROM schema").fetchone()[0]
        return steps

    @staticmethod
    def _migrate(connection: sqlite3.Connection, schema: int) -> None:
        if schema >= len(MIGRATIONS):
            return
        for script in MIGRATIONS[schema:]:
            for statement in script.split(";\n"):
                connection.execute(statement)
        connection.execute("INSERT OR REPLACE INTO schema VALUES (1, ?)", (len(MIGRATIONS),))
        connection.execute(f"PRAGMA user_version = {max(OLDEST, _number(connection, 'user_version'))}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute("INSERT OR IGNORE INTO epoch VALUES (1, ?)", (secrets.token_hex(8),))

    def _log_ahead(self, connection: sqlite3.Connection) -> None:
        mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise LedgerUnavailableError(
                f"{self.path} is on a file system where processes cannot share memory (journal_mode is {mode}): "
                "put it on a local disk"
            )

    def _knows(self, connection: sqlite3.Connection) -> bool:
        """Whether the file is the one that this process has known, or stands in for it."""
        if self._epoch is None:
            return True
        return connection.execute("SELECT 1 FROM epoch WHERE id = ?", (self._epoch,)).fetchone() is not None

    def _recognize(self, connection: sqlite3.Connection) -> None:
        """LedgerUnavailableError where the file does not know what was spent, and nobody has said that this is fine."""
        if not self._knows(connection):
            if not self.confirmed:
                raise LedgerUnavailableError(
                    f"{self.path} is another file than it was, and does not know what was spent: put the right one "
                    "back, or confirm() to go on with this one"
                )
            connection.execute("INSERT INTO epoch (id) VALUES (?)", (self._epoch,))
            connection.execute("UPDATE time SET born = NULL")

    def explained(self, error: Exception) -> LedgerUnavailableError:
        """What to do about an error of SQLite or of the system."""
        return LedgerUnavailableError(f"{self.path} {self._advice(error)} ({error})")

    def _advice(self, error: Exception) -> str:
        code, parent = _code(error), self.path.parent
        if code in _BUSY:
            return "is locked by another process: end the one that holds it, such as a shell or a backup"
        if not parent.is_dir():
            return f"cannot be opened: make the directory {parent}, or give another path"
        if self.path.is_dir():
            return "is a directory: give the path of a file"
        if code == sqlite3.SQLITE_FULL or getattr(error, "errno", 0) == errno.ENOSPC or _is_full(parent):
            return "cannot grow: the disk is full, so make room"
        if code == sqlite3.SQLITE_NOTADB:
            return "is no SQLite database: put it back from a backup, or move it away"
        if code == sqlite3.SQLITE_CORRUPT:
            return "is damaged: put it back from a backup, or see what `sqlite3 FILE .recover` saves"
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_AUTH) or (
            getattr(error, "errno", 0) in (errno.EACCES, errno.EPERM, errno.EROFS)
        ):
            return "cannot be written: let this user write to it and to its directory, where SQLite keeps -wal and -shm"
        return "cannot be used: see to the disk"


def is_of_storage(error: Exception) -> bool:
    """Whether an error says something of the file, and not only of the step that met it."""
    return isinstance(error, sqlite3.Error) and _code(error) in _STORAGE


def _code(error: Exception) -> int:
    """SQLite's primary code; 0 for none."""
    code: int = getattr(error, "sqlite_errorcode", 0) or 0
    return code & 0xFF


def _is_full(directory: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return False
    with suppress(OSError):
        return os.statvfs(directory).f_bavail == 0
    return False


def _number(connection: sqlite3.Connection, name: Literal["user_version", "application_id"]) -> int:
    found: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return found
