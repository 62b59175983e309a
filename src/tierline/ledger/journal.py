"""What a ledger could not be told while it was away, until it can be: in memory, or in a small file.

MemoryJournal   dies with its process
DiskJournal     outlives it: whoever shares the file delivers what a dead process has left
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import quote

from tierline.errors import ConfigurationError
from tierline.ledger.entries import Entry, read, written

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

log: Final = logging.getLogger("tierline")

MOST_IN_MEMORY: Final = 100_000
"""Most entries that are kept in memory: about a hundred megabytes. The oldest go first."""
_APPLICATION: Final = 0x54494A31
"""By which the file of a journal is known, and its version."""
_OURS: Final = ((0,), (_APPLICATION,))
_WAIT: Final = 2.0
"""Seconds that are waited for another process that writes."""
_SCHEMA: Final = """CREATE TABLE IF NOT EXISTS entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, due REAL NOT NULL, body TEXT NOT NULL,
    teller TEXT NOT NULL DEFAULT '', until REAL NOT NULL DEFAULT 0)"""
_TAKE: Final = """UPDATE entries SET teller = :me, until = :until WHERE number IN (
    SELECT number FROM entries WHERE due <= :now AND (until <= :now OR teller = :me) ORDER BY number LIMIT :most)
    RETURNING number, key, due, body"""
_TELLING: Final = 5.0
"""Seconds for which entries are left to the process that is about to tell them."""


class Kept(NamedTuple):
    """An entry in a journal. The `number` of one that has been replaced is not used again."""

    number: int
    entry: Entry


class Journal(Protocol):
    """Entries in the order in which they were written. Any thread and any loop may call."""

    @property
    def lasting(self) -> bool:
        """Whether it outlives its process."""
        ...

    @property
    def fate(self) -> str:
        """What becomes of its entries when the process ends, for people."""
        ...

    async def open(self) -> None:
        """Look whether the journal can be used. ConfigurationError where it cannot."""
        ...

    async def put(self, entry: Entry) -> None:
        """Write an entry, in place of one with its key that waits; one that does not wait stays, and this is dropped.

        Where it cannot be written, it is kept in memory.
        """
        ...

    async def withdraw(self, key: str) -> None:
        """Drop the entry of a key."""
        ...

    async def renew(self, keys: Sequence[str], due: float) -> None:
        """Let the entries of calls in flight wait until `due`."""
        ...

    async def due(self, now: float, most: int) -> list[Kept]:
        """The oldest entries that may be told now. For a few seconds, no other process is given them."""
        ...

    async def drop(self, numbers: Sequence[int]) -> None:
        """These have been told."""
        ...

    async def set_aside(self, number: int) -> None:
        """This one can never be told: keep it out of the way."""
        ...

    async def next_due(self) -> float | None:
        """From when on the next entry may be told; None where none waits."""
        ...

    async def aclose(self) -> None:
        """Let go of threads. The journal may be used again."""
        ...


class MemoryJournal:
    """A `Journal` in the memory of this process: a forked child begins with an empty one."""

    lasting = False
    fate = "that ends with this process, and holds are charged as estimated when their leases end"

    def __init__(self) -> None:
        self._pid = 0
        self._kept: dict[str, Kept] = {}
        self._numbers = count(-1, -1)  # below those of a file, which it may stand in for
        self._lock = threading.Lock()

    async def open(self) -> None:
        """Memory is there."""

    async def put(self, entry: Entry) -> None:
        """Keep an entry."""
        kept = self._mine()
        with self._lock:
            if (before := kept.get(entry.key)) is not None and not before.entry.due:
                return
            kept.pop(entry.key, None)
            kept[entry.key] = Kept(next(self._numbers), entry)
            if len(kept) > MOST_IN_MEMORY:
                oldest = kept.pop(next(iter(kept))).entry
                log.error(
                    "the journal of the outage is full: %s of %d nano-USD is not told to the ledger",
                    oldest.kind, oldest.cost,
                )  # fmt: skip

    async def withdraw(self, key: str) -> None:
        """Drop the entry of a key."""
        self._mine().pop(key, None)

    async def renew(self, keys: Sequence[str], due: float) -> None:
        """Let these wait until `due`."""
        kept = self._mine()
        with self._lock:
            for key in keys:
                if (found := kept.get(key)) is not None and found.entry.due:
                    kept[key] = found._replace(entry=found.entry._replace(due=due))

    async def due(self, now: float, most: int) -> list[Kept]:
        """The oldest entries that may be told now."""
        kept = self._mine()
        with self._lock:
            found = []
            for each in kept.values():
                if each.entry.due <= now:
                    found.append(each)
                    if len(found) == most:
                        break
            return found

    async def drop(self, numbers: Sequence[int]) -> None:
        """These have been told."""
        told = set(numbers)
        kept = self._mine()
        with self._lock:
            for key in [key for key, each in kept.items() if each.number in told]:
                del kept[key]

    async def set_aside(self, number: int) -> None:
        """Nobody could look at it later."""
        await self.drop([number])

    async def next_due(self) -> float | None:
        """From when on the next entry may be told."""
        with self._lock:
            return min((each.entry.due for each in self._mine().values()), default=None)

    async def aclose(self) -> None:
        """Nothing belongs to a loop."""

    def _mine(self) -> dict[str, Kept]:
        if self._pid != os.getpid():
            # What its parent could not tell is the parent's to tell.
            self._pid, self._kept, self._lock = os.getpid(), {}, threading.Lock()
        return self._kept


class DiskJournal:
    """A `Journal` in a small SQLite file, which any number of processes of one host may share.

    A `kill -9` loses nothing of it; a power cut may lose the last few entries. What cannot be written (a full disk) is
    kept in memory, and said in the log.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()  # wherever the process goes
        self.lasting = True
        self.fate = f"it stands in {self.path}, for the next process that uses it"
        self._spilled = MemoryJournal()
        self._spills = False
        self._name = secrets.token_hex(4)
        self._desks: dict[int, _Desk] = {}

    async def open(self) -> None:
        """Make the file if it is not there. ConfigurationError where it cannot be used."""
        import sqlite3  # noqa: PLC0415  (only for who has a journal)

        try:
            await self._do(_nothing)
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY:
                return  # others write to it
            raise ConfigurationError(_help(self.path, error)) from None

    async def put(self, entry: Entry) -> None:
        """Write an entry; keep it in memory where that cannot be done."""
        row = (entry.key, entry.due, written(entry))

        def write(file: sqlite3.Connection) -> None:
            file.execute("DELETE FROM entries WHERE key = ? AND due > 0", row[:1])
            file.execute("INSERT OR IGNORE INTO entries (key, due, body) VALUES (?, ?, ?)", row)

        if await self._try(write):
            await self._spilled.withdraw(entry.key)
        else:
            await self._spilled.put(entry)

    async def withdraw(self, key: str) -> None:
        """Drop the entry of a key."""
        await self._spilled.withdraw(key)
        await self._try(lambda file: file.execute("DELETE FROM entries WHERE key = ?", (key,)))

    async def renew(self, keys: Sequence[str], due: float) -> None:
        """Let these wait until `due`."""
        await self._spilled.renew(keys, due)
        rows = [(due, key) for key in keys]
        statement = "UPDATE entries SET due = ? WHERE key = ? AND due > 0"
        await self._try(lambda file: file.executemany(statement, rows))

    async def due(self, now: float, most: int) -> list[Kept]:
        """The oldest entries that may be told now."""
        rows: list[Any] = []
        asked = {"me": f"{os.getpid()} {self._name}", "now": now, "until": now + _TELLING, "most": most}
        await self._try(lambda file: rows.extend(file.execute(_TAKE, asked)))
        found = []
        for number, key, due, body in sorted(rows):
            try:
                found.append(Kept(number, read(key, due, body)))
            except (ValueError, LookupError, TypeError) as error:
                log.error("the journal %s has an entry that cannot be read: %s", self.path, type(error).__name__)  # noqa: TRY400
                await self.set_aside(number)
        return found or await self._spilled.due(now, most)

    async def drop(self, numbers: Sequence[int]) -> None:
        """These have been told."""
        await self._spilled.drop(numbers)
        rows = [(number,) for number in numbers if number > 0]
        if rows:
            await self._try(lambda file: file.executemany("DELETE FROM entries WHERE number = ?", rows))

    async def set_aside(self, number: int) -> None:
        """Leave it in the file, for somebody to look at, and never tell it."""
        await self._spilled.drop([number])
        await self._try(lambda file: file.execute("UPDATE entries SET due = ? WHERE number = ?", (inf, number)))

    async def next_due(self) -> float | None:
        """From when on the next entry may be told."""
        rows: list[Any] = []
        statement = "SELECT min(due) FROM entries WHERE due < ?"
        await self._try(lambda file: rows.extend(file.execute(statement, (inf,))))
        there = [due for (due,) in rows if due is not None]
        if (spilled := await self._spilled.next_due()) is not None:
            there.append(spilled)
        return min(there, default=None)

    async def aclose(self) -> None:
        """Close the file, and end the thread."""
        if (desk := self._desks.pop(os.getpid(), None)) is not None:
            desk.close()

    async def _try(self, work: Callable[[sqlite3.Connection], object]) -> bool:
        """Do `work` with the file. False where that failed, which the log is told once until it goes again."""
        import sqlite3  # noqa: PLC0415

        try:
            await self._do(work)
        except (sqlite3.Error, OSError) as error:
            if not self._spills:
                self._spills = True
                then = "Until then, what a ledger that is away is not told is kept in memory"
                log.error("%s. %s", _help(self.path, error), then)  # noqa: TRY400
            return False
        self._spills = False
        return True

    async def _do(self, work: Callable[[sqlite3.Connection], object]) -> None:
        desk = self._desks.get(os.getpid()) or self._desks.setdefault(os.getpid(), _Desk(self.path))
        try:
            waiting = asyncio.get_running_loop().run_in_executor(desk.thread, desk.do, work)
        except RuntimeError:  # the interpreter exits, or somebody closed it just now
            alone = _Desk(self.path)
            try:
                alone.do(work)
            finally:
                alone.close()
        else:
            await waiting


class _Desk:
    """The thread of one process that writes, and its file. A forked child has another, and leaves this alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="tierline-journal")
        self._file: sqlite3.Connection | None = None
        self._inode = 0

    def do(self, work: Callable[[sqlite3.Connection], object]) -> None:
        """Do `work` in a transaction."""
        if self._file is not None and (not self.path.exists() or self.path.stat().st_ino != self._inode):
            self._shut()  # somebody has moved it away
        try:
            file = self._file or self._open()
            file.execute("BEGIN IMMEDIATE")
            work(file)
            file.execute("COMMIT")
        except BaseException:
            self._shut()
            raise

    def close(self) -> None:
        """Close the file when all is done, and end the thread."""
        try:
            self.thread.submit(self._shut)
        except RuntimeError:  # the interpreter exits: nothing is under way any more
            self._shut()
        self.thread.shutdown(wait=False)

    def _shut(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _open(self) -> sqlite3.Connection:
        import sqlite3  # noqa: PLC0415

        # Made here alone, and not where a link leads to: SQLite would let all read it.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        # Closed at the exit of the interpreter by whatever thread is left.
        file = self._file = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode=rw", timeout=_WAIT, isolation_level=None, check_same_thread=False,
            uri=True,
        )  # fmt: skip
        self._inode = self.path.stat().st_ino
        if file.execute("PRAGMA application_id").fetchone() != (_APPLICATION,):
            file.execute("BEGIN IMMEDIATE")  # another process may be about to do the same
            tables = file.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'").fetchall()
            if tables not in ([], [("entries",)]) or file.execute("PRAGMA application_id").fetchone() not in _OURS:
                raise sqlite3.DatabaseError("it is no journal of this version of Tierline")
            file.execute(_SCHEMA)
            file.execute(f"PRAGMA application_id = {_APPLICATION}")
            file.execute("COMMIT")
        # What is committed outlives a process that is killed. For a power cut, calls would wait for each other's disk.
        file.execute("PRAGMA journal_mode = WAL")
        file.execute("PRAGMA synchronous = NORMAL")
        return file


def _nothing(_: object) -> None:
    pass


def _help(path: Path, error: Exception) -> str:
    return (
        f"the journal {path} cannot be used: {error}. It may hold what was spent while the ledger was away: mend what "
        "is wrong with it, or move it to another place and look into it there"
    )
