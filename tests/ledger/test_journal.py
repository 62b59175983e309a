"""The journal: what it keeps, for whom, and that neither a crash nor a full disk loses any of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from math import inf
from typing import TYPE_CHECKING, Any

import pytest

from tierline import Budget
from tierline.errors import ConfigurationError
from tierline.ledger import Origin, Reservation
from tierline.ledger.entries import Entry, bare
from tierline.ledger.journal import DiskJournal, MemoryJournal, _Desk
from tierline.private import private_dir
from tierline.values import Offer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tierline.ledger.journal import Journal

LINES = (
    Budget("$1/day", timezone="Europe/Berlin").line("global"),
    Budget("$5", per="tenant", downgrade_at=None, alert_at=()).line("acme"),
    Budget("$2/24h rolling", hard=False, cheapest_at=0.95).line("x"),
)


def held(key: str = "k", now: float = 1_700_000_000.0) -> Reservation:
    offer = Offer("haiku", "claude-haiku-5-5", 50, 20, changes={"system": "canary-prompt"}, reasons=("canary",))
    lines = tuple((line, line.window.span(now)) for line in LINES)
    return Reservation(key, offer, 50, lines, (1, 2, 3), at=now, origin=Origin("acme", "/x", own=True), unasked=True)


@pytest.fixture(params=["memory", "disk"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Journal]:
    made: Journal = MemoryJournal() if request.param == "memory" else DiskJournal(tmp_path / "j.db")
    await made.open()
    yield made
    await made.aclose()


def keys(found: Any) -> list[str]:
    return [each.entry.key for each in found]


async def test_a_link_to_nowhere(tmp_path: Path) -> None:
    """Somebody who may write where the journal is to be does not choose another place for it."""
    (tmp_path / "j.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="journal"):
        await DiskJournal(tmp_path / "j.db").open()
    assert not (tmp_path / "elsewhere").exists()


async def test_a_process_that_goes_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that changes its directory, as daemons do, still finds its journal."""
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    journal = DiskJournal("j.db")
    await journal.put(Entry("settle", "a", bare(held()), 5))
    monkeypatch.chdir("other")
    assert keys(await journal.due(1.0, 10)) == ["a"]
    assert journal.path == tmp_path / "j.db"
    await journal.aclose()


async def test_in_order(journal: Journal) -> None:
    """Entries come back in the order in which they were written, those that are due; the first ending stays."""
    for key in "abc":
        await journal.put(Entry("settle", key, bare(held(key)), 5))
    await journal.put(Entry("post", "held", bare(held("held")), 50, estimated=True, due=100.0))
    await journal.put(Entry("post", "a", bare(held("a")), 6))
    await journal.put(Entry("post", "other", bare(held("other")), 50, estimated=True, due=200.0))
    await journal.put(Entry("post", "other", bare(held("other")), 7))
    assert keys(await journal.due(99.0, 10)) == ["a", "b", "c", "other"]
    assert [each.entry.cost for each in await journal.due(99.0, 10)] == [5, 5, 5, 7]
    assert keys(await journal.due(99.0, 2)) == ["a", "b"]
    assert await journal.next_due() == 0.0
    assert keys(await journal.due(100.0, 10)) == ["a", "b", "c", "held", "other"]
    await journal.drop([each.number for each in await journal.due(99.0, 10)])
    assert await journal.next_due() == 100.0
    await journal.renew(["held", "nobody"], 130.0)
    assert await journal.due(100.0, 10) == []
    assert await journal.next_due() == 130.0
    await journal.withdraw("held")
    await journal.withdraw("nobody")
    assert await journal.next_due() is None


async def test_a_newer_entry_outlives_the_delivery_of_the_older(journal: Journal) -> None:
    """What is written while its older version is told is not dropped with that."""
    await journal.put(Entry("post", "a", bare(held("a")), 50, estimated=True, due=1.0))
    older = await journal.due(1.0, 10)
    await journal.put(Entry("post", "a", bare(held("a")), 7))
    await journal.renew(["a"], 99.0)  # has ended: it does not wait again
    await journal.drop([each.number for each in older])
    (left,) = await journal.due(0.0, 10)
    assert (left.entry.cost, left.entry.estimated) == (7, False)


async def test_everything_comes_back(journal: Journal) -> None:
    """An entry is read as it was written, but for what only sending needs."""
    written = [
        Entry("post", "a", bare(held("a")), 7, estimated=True),
        Entry("settle", "b", bare(held("b"))),
        Entry("release", "c"),
        Entry("forget", "d", lines=LINES),
    ]
    for entry in written:
        await journal.put(entry)
    found = [each.entry for each in await journal.due(0.0, 10)]
    assert [each._replace(reservation=None) for each in found] == [each._replace(reservation=None) for each in written]
    for each in found[:2]:
        assert each.reservation is not None
        expected = held(each.key)
        assert each.reservation.lines == expected.lines
        assert each.reservation.offer == Offer("haiku", "claude-haiku-5-5", 50, 20)
        assert each.reservation._replace(offer=expected.offer, used=expected.used) == expected


async def test_no_prompt_is_written(tmp_path: Path) -> None:
    """The file holds ids, accounts, amounts and spans, and is for nobody else to read."""
    journal = DiskJournal(tmp_path / "j.db")
    await journal.put(Entry("post", "a", bare(held("a")), 7))
    await journal.aclose()
    assert b"canary" not in journal.path.read_bytes()
    assert journal.path.stat().st_mode & 0o077 == 0


async def test_processes_share_a_file(tmp_path: Path) -> None:
    """Any number of processes may open one journal at once, and each sees what the others left."""
    code = (
        "import asyncio, sys\n"
        "from tierline.ledger.entries import Entry\n"
        "from tierline.ledger.journal import DiskJournal\n"
        "async def main():\n"
        "    journal = DiskJournal(sys.argv[1]); await journal.open()\n"
        "    for n in range(20): await journal.put(Entry('release', f'{sys.argv[2]}.{n}'))\n"
        "asyncio.run(main())"
    )
    path = tmp_path / "j.db"
    run = [sys.executable, "-c", code, str(path)]
    workers = [
        await asyncio.create_subprocess_exec(*run, str(n), env={"PYTHONPATH": os.pathsep.join(sys.path)})
        for n in range(4)
    ]
    assert [await worker.wait() for worker in workers] == [0, 0, 0, 0]
    journal = DiskJournal(path)
    assert len(await journal.due(0.0, 100)) == 80
    await journal.aclose()


async def test_one_process_tells(tmp_path: Path) -> None:
    """What a process is about to tell is told by no other, unless it does not come to it."""
    first, second = DiskJournal(tmp_path / "j.db"), DiskJournal(tmp_path / "j.db")
    for key in "abc":
        await first.put(Entry("release", key))
    assert keys(await first.due(100.0, 2)) == ["a", "b"]
    assert keys(await second.due(101.0, 2)) == ["c"]
    assert keys(await first.due(101.0, 2)) == ["a", "b"]
    assert await second.next_due() == 0.0
    assert keys(await second.due(107.0, 3)) == ["a", "b", "c"]
    await first.aclose()
    await second.aclose()


def test_kill_9(tmp_path: Path) -> None:
    """What `put` has returned from is there after a `kill -9`."""
    code = (
        "import asyncio, os, signal, sys\n"
        "from tierline.ledger.entries import Entry\n"
        "from tierline.ledger.journal import DiskJournal\n"
        "async def main():\n"
        "    journal = DiskJournal(sys.argv[1])\n"
        "    await journal.put(Entry('release', 'a'))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())"
    )
    path = tmp_path / "j.db"
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, str(path)], env={"PYTHONPATH": os.pathsep.join(sys.path)}, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert keys(asyncio.run(DiskJournal(path).due(0.0, 10))) == ["a"]


def test_fork(tmp_path: Path) -> None:
    """A forked child shares a file and leaves what its parent has in memory to the parent."""

    async def put(journal: Journal, key: str) -> None:
        await journal.put(Entry("release", key))

    disk, memory = DiskJournal(tmp_path / "j.db"), MemoryJournal()
    asyncio.run(put(disk, "parent"))
    asyncio.run(put(memory, "parent"))
    child = os.fork()
    if not child:
        try:
            asyncio.run(put(disk, "child"))
            os._exit(0 if asyncio.run(memory.next_due()) is None else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert keys(asyncio.run(disk.due(0.0, 10))) == ["parent", "child"]
    assert keys(asyncio.run(memory.due(0.0, 10))) == ["parent"]
    asyncio.run(disk.aclose())


@pytest.mark.parametrize("content", [b"no database at all " * 100, None])
async def test_a_file_that_is_no_journal(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A corrupt file, or somebody else's, is an error that says what to do, and stays as it is."""
    path = tmp_path / "j.db"
    if content is None:
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE entries (mine)")
            other.execute("PRAGMA application_id = 7")
        other.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    journal = DiskJournal(path)
    with pytest.raises(ConfigurationError, match=r"j\.db cannot be used.*move it to another place"):
        await journal.open()
    for key in "ab":
        await journal.put(Entry("release", key))
    assert keys(await journal.due(0.0, 10)) == ["a", "b"]
    assert path.read_bytes() == before
    assert len([r for r in caplog.records if "is kept in memory" in r.getMessage()]) == 1
    await journal.aclose()


async def test_a_full_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written is kept in memory, the log says so once, and nothing is lost when it goes again."""
    path = tmp_path / "j.db"
    journal = DiskJournal(path)
    await journal.put(Entry("post", "a", bare(held("a")), 50, estimated=True, due=100.0))
    full = sqlite3.OperationalError("database or disk is full")
    await journal.aclose()
    monkeypatch.setattr(_Desk, "_open", _raising(full))
    await journal.put(Entry("post", "a", bare(held("a")), 7))
    await journal.put(Entry("release", "b"))
    assert keys(await journal.due(0.0, 10)) == ["a", "b"]
    assert await journal.next_due() == 0.0
    monkeypatch.undo()
    assert keys(await journal.due(0.0, 10)) == ["a", "b"]
    await journal.put(Entry("post", "a", bare(held("a")), 7))
    assert keys(await journal.due(0.0, 10)) == ["a"]
    assert keys(await MemoryJournal.due(journal._spilled, 0.0, 10)) == ["b"]
    assert len([r for r in caplog.records if "database or disk is full" in r.getMessage()]) == 1
    await journal.aclose()


def _raising(error: Exception) -> Any:
    def work(_: object) -> None:
        raise error

    return work


async def test_an_entry_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An entry that nobody here has written stays in the file, and holds up nothing."""
    journal = DiskJournal(tmp_path / "j.db")
    huge = ["b", "a", 10, "day", "UTC", 0, True, None, None, [10**400]]
    broken = {
        "a": "{",
        "b": json.dumps({"kind": "burn"}),
        "c": "[]",
        "d": "[" * 100_000,
        "e": json.dumps({"kind": "forget", "cost": 0, "estimated": False, "lines": [huge]}),
    }
    for key in [*broken, "good"]:
        await journal.put(Entry("release", key))
    with sqlite3.connect(journal.path) as file:
        for key, body in broken.items():
            file.execute("UPDATE entries SET body = ? WHERE key = ?", (body, key))
    file.close()
    assert keys(await journal.due(0.0, 10)) == ["good"]
    await journal.drop([each.number for each in await journal.due(0.0, 10)])
    assert await journal.next_due() is None
    with sqlite3.connect(journal.path) as file:
        assert file.execute("SELECT key, due FROM entries").fetchall() == [(key, inf) for key in broken]
    file.close()
    assert caplog.text.count("cannot be read") == 5
    await journal.aclose()


async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A journal in memory drops its oldest entries before it takes all of it, and says so."""
    monkeypatch.setattr("tierline.ledger.journal.MOST_IN_MEMORY", 2)
    journal = MemoryJournal()
    for key in "abc":
        await journal.put(Entry("post", key, bare(held(key)), 5))
    assert keys(await journal.due(0.0, 10)) == ["b", "c"]
    assert "5 nano-USD" in caplog.text


# Where it is by default


def test_a_directory_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Journals are in the state directory of the user, locks in that for temporary files; nobody else reads either."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temp"))
    lasting, passing = private_dir(lasting=True), private_dir(lasting=False)
    assert lasting == tmp_path / "state" / "tierline"
    assert passing == tmp_path / "temp" / f"tierline-{os.getuid()}"
    for made in (lasting, passing):
        assert made.stat().st_mode & 0o777 == 0o700
    lasting.chmod(0o755)
    assert private_dir(lasting=True).stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert private_dir(lasting=True) == passing


@pytest.mark.parametrize("trap", ["link", "file", "open"])
def test_a_directory_that_somebody_else_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trap: str) -> None:
    """What another user may have put there is not used."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = tmp_path / f"tierline-{os.getuid()}"
    if trap == "link":
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    elif trap == "file":
        path.write_text("")
    else:
        path.mkdir()
        path.chmod(0o777)
    with pytest.raises(OSError, match=r"tierline-"):
        private_dir(lasting=False)
