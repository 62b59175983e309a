from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tierline
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.store.schema import MIGRATIONS
from tierline.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

SLACK = 1.0
"""Seconds within which an answer comes that is promised within 250 ms: this machine may be busy."""

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("ready", flush=True)
sys.stdin.read()
"""
QUEUE = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=10)
while True:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE notes SET text = text || 'x'")
    print("ready", flush=True)
    time.sleep(0.1)
    connection.execute("COMMIT")
    time.sleep(0.01)
"""


@contextlib.contextmanager
def child(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A Python of its own that has said "ready"; it is killed at the end."""
    process = subprocess.Popen(  # noqa: S603  (a script of these tests)
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(tierline.__file__).parents[1])},
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def note(text: str):
    """A step that writes."""

    def step(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
        connection.execute("INSERT INTO notes VALUES (?)", (text,))

    return step


def notes(connection: sqlite3.Connection) -> list[str]:
    """A step that reads."""
    return [row[0] for row in connection.execute("SELECT text FROM notes ORDER BY rowid")]


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


async def fill(store: SQLiteStore) -> None:
    """Write more than there is room for."""
    for _ in range(100):
        await store.run(note("x" * 4000))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(tmp_path / "a.db")
    yield store
    await store.aclose()


async def test_what_returned_is_on_the_disk(store: SQLiteStore) -> None:
    """Another connection sees what a step wrote as soon as it has returned."""
    await store.run(note("one"))
    with contextlib.closing(sqlite3.connect(store.path)) as other:
        assert notes(other) == ["one"]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert await store.run(lambda connection: connection.execute("PRAGMA synchronous").fetchone()) == (2,)


async def test_group_commit(store: SQLiteStore) -> None:
    """Steps that are asked for together are committed together, and what goes first is done once for all of them."""
    begun: list[int] = []

    def first(connection: sqlite3.Connection) -> None:
        begun.append(connection.total_changes)

    await store.run(note("zero"))
    await asyncio.gather(*(store.run(note(str(number)), first=first) for number in range(100)))
    assert len(begun) < 50
    assert len(await store.run(notes)) == 101


async def test_a_transaction_is_cut(store: SQLiteStore) -> None:
    """However much is asked for, and however slow it is: other processes have their turn in between."""
    begun: list[int] = []

    def slow(_: sqlite3.Connection) -> None:
        time.sleep(0.015)

    def first(connection: sqlite3.Connection) -> None:
        begun.append(connection.total_changes)

    await store.run(note("zero"))
    await asyncio.gather(*(store.run(slow, first=first) for _ in range(10)))
    assert len(begun) >= 5
    begun.clear()
    await asyncio.gather(*(store.run(note("x"), first=first) for _ in range(500)))
    assert len(begun) >= 4
    assert len(await store.run(notes)) == 501


async def test_no_thread_to_be_had(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, as at the end of an interpreter, the file cannot be used: that is told."""

    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    await refused(store, "no thread can be started")
    monkeypatch.undo()
    await store.run(note("one"))


async def test_a_step_that_fails_undoes_itself_alone(store: SQLiteStore) -> None:
    """Neighbours in the same transaction stand."""

    def fail(connection: sqlite3.Connection) -> None:
        note("wrong")(connection)
        raise ValueError("no")

    await store.run(note("zero"))
    one, no, two = await asyncio.gather(
        store.run(note("one")), store.run(fail), store.run(note("two")), return_exceptions=True
    )
    assert (one, two) == (None, None)
    assert isinstance(no, ValueError)
    with pytest.raises(sqlite3.OperationalError, match="no such table: nowhere"):
        await store.run(lambda connection: connection.execute("SELECT * FROM nowhere"))
    assert await store.run(notes) == ["zero", "one", "two"]


async def test_a_cancelled_waiter(store: SQLiteStore) -> None:
    """What was asked for is done though nobody waits, and its end is told."""
    told: list[None] = []
    await store.run(note("zero"))
    waiting = asyncio.create_task(store.run(note("one"), after=told.append))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await store.run(notes) == ["zero", "one"]
    assert told == [None]


async def test_steps_of_a_loop_that_was_closed(store: SQLiteStore) -> None:
    """They are done, and told on the thread of the store."""
    told = threading.Event()
    held = threading.Event()

    async def leave() -> None:
        slow = asyncio.create_task(store.run(lambda _: held.wait(10)))
        last = asyncio.create_task(store.run(note("late"), after=lambda _: told.set()))
        await asyncio.sleep(0)
        slow.cancel()
        last.cancel()

    await asyncio.to_thread(lambda: asyncio.run(leave()))
    held.set()
    assert await asyncio.to_thread(told.wait, 10)
    assert await store.run(notes) == ["late"]


def test_event_loop_swap(tmp_path: Path) -> None:
    """One store serves loop after loop, whether or not the one before closed it, and loops in several threads."""
    store = SQLiteStore(tmp_path / "a.db")
    for number in range(3):
        asyncio.run(store.run(note(str(number))))
    asyncio.run(store.aclose())
    threads = [threading.Thread(target=lambda: asyncio.run(store.run(note("thread")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asyncio.run(store.run(notes)) == ["0", "1", "2", *["thread"] * 4]
    asyncio.run(store.aclose())


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    """A store that is closed, or collected, ends its thread and its files."""
    before = set(threading.enumerate())
    store = SQLiteStore(tmp_path / "a.db")
    asyncio.run(store.run(note("one")))
    (thread,) = set(threading.enumerate()) - before
    asyncio.run(store.aclose())
    thread.join(10)
    assert names(tmp_path) == {"a.db"}
    asyncio.run(store.run(note("two")))
    (thread,) = set(threading.enumerate()) - before
    del store
    thread.join(10)
    assert not thread.is_alive()
    assert names(tmp_path) == {"a.db"}


def test_the_exit_of_the_interpreter(tmp_path: Path) -> None:
    """It does not hang, and loses nothing that was asked for: not even what nobody waited for."""
    script = """
import asyncio, sys
from tierline.store.sqlite import SQLiteStore
store = SQLiteStore(sys.argv[1])
def note(connection):
    connection.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
    connection.execute("INSERT INTO notes VALUES ('x')")
async def main():
    await store.run(note)
    tasks = [asyncio.create_task(store.run(note)) for _ in range(20)]
    await asyncio.sleep(0)
print("ready", flush=True)
asyncio.run(main())
"""
    with child(script, tmp_path / "a.db") as process:
        assert process.wait(20) == 0
    with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        assert len(notes(connection)) == 21


async def test_who_may_read_it(store: SQLiteStore) -> None:
    """The file and what SQLite keeps beside it belong to their owner alone; a file that was there keeps its mode."""
    await store.run(note("one"))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.path.parent.iterdir()}
    assert modes == {"a.db": 0o600, "a.db-wal": 0o600, "a.db-shm": 0o600}
    shared = SQLiteStore(store.path.with_name("shared.db"))
    shared.path.touch()
    shared.path.chmod(0o660)
    await shared.run(note("one"))
    await shared.aclose()
    assert stat.S_IMODE(shared.path.stat().st_mode) == 0o660


@pytest.mark.parametrize("path", ["", ":memory:", "a\0b", b"bytes"])
def test_paths_that_cannot_be(path) -> None:
    """They are errors of the configuration, and say what to write."""
    with pytest.raises(ConfigurationError, match="path of a file"):
        SQLiteStore(path)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_timeouts_that_cannot_be(timeout: float) -> None:
    """So are they."""
    with pytest.raises(ConfigurationError, match="timeout"):
        SQLiteStore("a.db", timeout)


async def test_names_that_mean_something_in_a_url(tmp_path: Path) -> None:
    """The path is taken as it is."""
    store = SQLiteStore(tmp_path / "a b?mode=memory#%41é.db")
    await store.run(note("one"))
    await store.aclose()
    assert names(tmp_path) == {"a b?mode=memory#%41é.db"}


# E73


async def refused(store: SQLiteStore, match: str) -> float:
    """Seconds until a step is told that the file cannot be used."""
    start = time.monotonic()
    with pytest.raises(LedgerUnavailableError, match=match) as raised:
        await store.run(note("lost"))
    assert str(store.path) in str(raised.value)
    return time.monotonic() - start


async def test_sqlite_locked_enospc_readonly(store: SQLiteStore) -> None:
    """A file that another process keeps locked is told in bounded time, to all who wait; then it works by itself."""
    await store.run(note("one"))
    with child(HOLD, store.path):
        waited = await asyncio.gather(*(refused(store, "locked by another process") for _ in range(20)))
        assert 0.2 < max(waited) < SLACK
        assert await refused(store, "locked by another process") < SLACK
    await store.run(note("two"))
    assert await store.run(notes) == ["one", "two"]


async def test_another_lock_later(store: SQLiteStore) -> None:
    """A lock that did not move is forgotten when nobody looks: the next one is waited for as if it were the first."""
    await store.run(note("one"))
    with child(HOLD, store.path):
        await refused(store, "locked by another process")
    await asyncio.sleep(0.3)
    with child(HOLD, store.path):
        assert await refused(store, "locked by another process") > 0.2


async def test_sqlite_locked_while_it_is_opened(tmp_path: Path) -> None:
    """The same where the lock is there first."""
    sqlite3.connect(tmp_path / "a.db").close()
    store = SQLiteStore(tmp_path / "a.db")
    with child(HOLD, store.path):
        assert await refused(store, "locked by another process") < SLACK
    await store.run(note("one"))
    await store.aclose()


async def test_a_queue_is_no_lock(store: SQLiteStore) -> None:
    """Where others hold the lock nearly all the time, but do move, nobody is told that the file is locked."""
    await store.run(note("one"))
    with child(QUEUE, store.path):
        for _ in range(5):
            await store.run(note("two"))
    assert len(await store.run(notes)) == 6


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 256 KB."""
    directory = Path(tempfile.mkdtemp())
    mount = shutil.which("mount")
    done = mount and subprocess.run(  # noqa: S603
        [mount, "-t", "tmpfs", "-o", "size=512k", "tmpfs", directory], capture_output=True, check=False
    )
    if not done or done.returncode:
        directory.rmdir()
        pytest.skip("no file system can be mounted here")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=True)  # noqa: S603, S607
        directory.rmdir()


async def test_sqlite_enospc(small_disk: Path) -> None:
    """A full disk is told; nothing that was written is lost, and when there is room it goes on."""
    store = SQLiteStore(small_disk / "a.db")
    await store.run(note("one"))
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(LedgerUnavailableError, match="the disk is full"):
        await fill(store)
    await refused(store, "the disk is full")
    ballast.unlink()
    await store.run(note("two"))
    found = await store.run(notes)
    assert (found[0], found[-1]) == ("one", "two")
    assert await store.run(lambda connection: connection.execute("PRAGMA integrity_check").fetchone()) == ("ok",)
    await store.aclose()


def test_sqlite_no_larger_than_allowed(tmp_path: Path) -> None:
    """The same where not the disk but a quota says no: so it is tested where nothing can be mounted, too."""
    script = """
import asyncio, resource, signal, sys
from tierline.errors import LedgerUnavailableError
from tierline.store.sqlite import SQLiteStore
store = SQLiteStore(sys.argv[1])
def note(connection):
    connection.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT)")
    connection.execute("INSERT INTO notes VALUES (?)", ("x" * 4000,))
def count(connection):
    return connection.execute("SELECT count(*) FROM notes").fetchone()[0]
async def main():
    await store.run(note)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    done = 1
    try:
        while done < 1000:
            await store.run(note)
            done += 1
    except LedgerUnavailableError as error:
        assert "make room" in str(error) or "see to the disk" in str(error), error
    assert 1 < done < 1000
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await store.run(note)
    assert await store.run(count) == done + 1
    await store.aclose()
print("ready", flush=True)
asyncio.run(main())
"""
    with child(script, tmp_path / "a.db") as process:
        assert process.wait(60) == 0


@contextlib.contextmanager
def as_somebody() -> Iterator[None]:
    """Not as root, for whom nothing is read-only."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A directory that others than root can reach."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o777)
    yield directory
    directory.chmod(0o777)
    shutil.rmtree(directory)


@pytest.mark.parametrize("what", ["file", "directory", "new file"])
async def test_sqlite_readonly(everybodys: Path, what: str) -> None:
    """A file, or a directory, that may not be written is told, and used again as soon as it may be."""
    store = SQLiteStore(everybodys / "a.db")
    if what != "new file":
        await store.run(note("one"))
        await store.aclose()
    changed = store.path if what == "file" else everybodys
    if what != "new file":
        store.path.chmod(0o666)
    changed.chmod(0o444 if what == "file" else 0o555)
    with as_somebody():
        assert await refused(store, "cannot be written: let this user write") < SLACK
        await store.aclose()
    changed.chmod(0o666 if what == "file" else 0o777)
    with as_somebody():
        await store.run(note("two"))
        assert (await store.run(notes))[-1] == "two"
        await store.aclose()


async def test_no_such_directory(tmp_path: Path) -> None:
    """A directory that is missing is told, and used when it is there: a volume may come late."""
    store = SQLiteStore(tmp_path / "data" / "a.db")
    await refused(store, "make the directory .*data")
    store.path.parent.mkdir()
    await store.run(note("one"))
    await store.aclose()
    await refused(SQLiteStore(tmp_path), "is a directory")


@pytest.mark.parametrize("whole", [True, False])
async def test_a_damaged_file(tmp_path: Path, whole: bool) -> None:
    """Damage is told and not mended: what to do is the operator's to say."""
    store = SQLiteStore(tmp_path / "a.db")
    await store.run(note("one"))
    await store.aclose()
    good = store.path.read_bytes()
    store.path.write_bytes(b"no database " * 1000 if whole else good[:4096] + b"\xff" * (len(good) - 4096))
    await refused(store, "is no SQLite database|is damaged")
    await store.aclose()
    store.path.write_bytes(good)
    await store.run(note("two"))
    assert await store.run(notes) == ["one", "two"]
    await store.aclose()


async def test_a_file_of_the_future(store: SQLiteStore) -> None:
    """Tables that this version does not know are left alone, also when an upgrade comes in mid-flight."""
    await store.run(note("one"))
    await store.aclose()
    with contextlib.closing(sqlite3.connect(store.path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    await refused(store, "written by a newer Tierline")
    with contextlib.closing(sqlite3.connect(store.path)) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    assert await store.run(notes) == ["one"]


@pytest.mark.parametrize("statement", ["CREATE TABLE users (name)", "PRAGMA user_version = 7"])
async def test_the_database_of_another_program(tmp_path: Path, statement: str) -> None:
    """Nothing is written into it."""
    with contextlib.closing(sqlite3.connect(tmp_path / "app.db")) as app:
        app.execute(statement)
    before = (tmp_path / "app.db").read_bytes()
    store = SQLiteStore(tmp_path / "app.db")
    await refused(store, "the database of another program")
    await store.aclose()
    assert (tmp_path / "app.db").read_bytes() == before


@pytest.mark.parametrize("closed", [True, False])
async def test_a_file_that_was_deleted(store: SQLiteStore, closed: bool) -> None:
    """With the file the balances are gone: nothing is written until somebody says that it may begin anew."""
    await store.run(note("one"))
    if closed:
        await store.aclose()
    for path in store.path.parent.iterdir():
        path.unlink()
    await refused(store, "is gone, and with it what was spent")
    assert not store.path.exists()
    await store.confirm()
    await store.run(note("two"))
    assert await store.run(notes) == ["two"]


async def test_a_file_that_was_put_back(store: SQLiteStore) -> None:
    """The same file, or a backup of it, needs nobody's word."""
    await store.run(note("one"))
    await store.aclose()
    kept = store.path.with_name("kept.db")
    shutil.copy(store.path, kept)
    await store.run(note("two"))
    await store.aclose()
    store.path.unlink()
    await refused(store, "is gone")
    kept.rename(store.path)
    assert await store.run(notes) == ["one"]


async def test_a_file_that_was_replaced(store: SQLiteStore) -> None:
    """Another file in its place is noticed by all who knew the old one, and one word is enough for all."""
    theirs = SQLiteStore(store.path)
    await store.run(note("one"))
    await theirs.run(note("two"))
    another = SQLiteStore(store.path.with_name("other.db"))
    await another.run(note("other"))
    await another.aclose()
    for path in store.path.parent.glob("a.db-*"):
        path.unlink()
    another.path.replace(store.path)
    for each in (store, theirs):
        await refused(each, "is another file than it was")
    await theirs.confirm()
    assert await store.run(notes) == ["other"]
    assert await theirs.run(notes) == ["other"]
    await theirs.aclose()


async def test_two_who_make_it_at_once(tmp_path: Path) -> None:
    """Many that open a new file together all find its tables made, once."""
    stores = [SQLiteStore(tmp_path / "a.db") for _ in range(8)]
    await asyncio.gather(*(each.run(lambda _: None) for each in stores))
    await asyncio.gather(*(each.run(note("x")) for each in stores))
    assert len(await stores[0].run(notes)) == 8
    epochs = await asyncio.gather(
        *(each.run(lambda connection: connection.execute("SELECT id FROM epoch").fetchall()) for each in stores)
    )
    assert all(each == epochs[0] and len(each) == 1 for each in epochs)
    for each in stores:
        await each.aclose()
