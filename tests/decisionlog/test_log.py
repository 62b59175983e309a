"""Decisions are written down: whole, by several processes, and without a call that waits for it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.decisionlog.writer import decision
from tierline import Budget, Router
from tierline.decisionlog import DecisionLog
from tierline.errors import BudgetExceededError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.testing import FakeClaude

SECRET = "my bank is the Cold Harbour"
ROOT = Path(__file__).parents[2]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def rows(path: Path) -> list[dict[str, Any]]:
    with sqlite3.connect(path) as connection:
        found = [json.loads(record) for (record,) in connection.execute("SELECT record FROM decisions ORDER BY number")]
    connection.close()
    return found


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


READERS = {"decisions.jsonl": lines, "decisions.db": rows}


async def ask(router: Router, text: str = SECRET) -> None:
    await router.claude.messages.create(model="auto", max_tokens=50, messages=[{"role": "user", "content": text}])


@pytest.fixture(params=READERS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where a log is, of either kind."""
    return tmp_path / request.param


async def test_what_waits_for_the_disk_keeps_no_prompt(
    make_router: Callable[..., Router], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who takes the grades of a decision has the text until one comes: up to 10,000 of them would wait with it."""
    written = []
    monkeypatch.setattr("tierline.decisionlog.log.record_of", lambda each, **_: written.append(each) or {})
    router = make_router(decision_log=tmp_path / "decisions.jsonl")
    async with router.bind(route="/answer") as binding:
        await ask(router)
    await router.aclose()
    (waited,) = written
    assert waited == binding.decisions[-1]
    assert (bool(binding.decisions[-1].handle), waited.handle) == (True, "")


async def test_a_call_is_one_record(make_router: Callable[..., Router], place: Path) -> None:
    """Its decision, money and usage; no word of the prompt; and nobody else may read the file."""
    router = make_router(decision_log=str(place))
    async with router.bind(tenant="acme", route="/answer") as binding:
        await ask(router)
    await router.aclose()
    (record,) = READERS[place.name](place)
    made = binding.decisions[-1]
    assert (record["id"], record["route"], record["tenant"]) == (made.id, "/answer", "acme")
    assert (record["tier"], record["label"], record["source"]) == ("sonnet", "moderate", "fixed")
    assert record["cost"] == made.cost > 0
    assert record["usage"]["output_tokens"] == made.usage.output_tokens > 0
    assert [attempt["outcome"] for attempt in record["attempts"]] == ["ok"]
    assert (record["v"], record["outcome"], record["tools"]) == (1, "ok", 0)
    assert record["at"] == pytest.approx(time.time(), abs=60)
    assert "text" not in record
    for file in place.parent.iterdir():
        assert b"Cold Harbour" not in file.read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_stream_is_written_when_it_ends(make_router: Callable[..., Router], tmp_path: Path) -> None:
    """One record, and not before what it cost is known."""
    router = make_router(decision_log=tmp_path / "decisions.jsonl")
    stream = await router.claude.messages.create(
        model="auto", max_tokens=50, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    async for _ in stream:
        pass
    await router.aclose()
    (record,) = lines(tmp_path / "decisions.jsonl")
    assert record["cost"] > 0


async def test_a_shutdown_writes_what_it_cut_off(make_router: Callable[..., Router], place: Path) -> None:
    """A stream that nobody has read to its end when the app goes down is a record too, and there when it is down."""
    router = make_router(decision_log=place)
    stream = await router.claude.messages.create(
        model="auto", max_tokens=50, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    await anext(aiter(stream))
    await router.aclose()
    (record,) = READERS[place.name](place)
    assert (record["outcome"], record["estimated"]) == ("shutdown", True)


async def test_refusals_are_written(make_router: Callable[..., Router], tmp_path: Path) -> None:
    """A call that no budget has room for is a decision too."""
    router = make_router(decision_log=tmp_path / "decisions.jsonl", budgets=[Budget("$0.0000001/day")])
    with pytest.raises(BudgetExceededError):
        await ask(router)
    await router.aclose()
    (record,) = lines(tmp_path / "decisions.jsonl")
    assert (record["outcome"], record["cost"], record["attempts"]) == ("refused", 0, [])


async def test_the_text_only_if_the_app_says_so(make_router: Callable[..., Router], place: Path) -> None:
    """The latest turn, of any script, and half a surrogate pair breaks nothing."""
    router = make_router(decision_log=DecisionLog(place, text=True))
    await ask(router, "¿Où est 猫? 🐈")
    router.decision_log.write(decision("odd"), at=0, outcome="ok", text="half \ud83d")  # type: ignore[union-attr]
    await router.aclose()
    assert [record["text"] for record in READERS[place.name](place)] == ["¿Où est 猫? 🐈", "half ?"]


async def test_questions_of_tierlines_own_are_no_records(
    make_router: Callable[..., Router], fake: FakeClaude, tmp_path: Path
) -> None:
    """A verdict is part of the call that asked for it."""
    router = make_router(decision_log=tmp_path / "decisions.jsonl")
    await router.classify("some text", ["a", "b"], "which?")
    await ask(router)
    await router.aclose()
    assert len(fake.requests) == 2
    assert len(lines(tmp_path / "decisions.jsonl")) == 1


async def test_no_log_no_file(make_router: Callable[..., Router], tmp_path: Path, monkeypatch: Any) -> None:
    """Off by default, and nothing is made before the first record."""
    monkeypatch.chdir(tmp_path)
    router = make_router()
    await ask(router)
    make_router(decision_log="decisions.jsonl")
    assert router.decision_log is None
    assert names(tmp_path) == []


async def test_a_disk_that_fails_breaks_no_call(
    make_router: Callable[..., Router], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, also when it works again."""
    away = tmp_path / "later"
    router = make_router(decision_log=away / "decisions.jsonl")
    for _ in range(3):
        await ask(router)
        await asyncio.sleep(0.05)
    await router.decision_log.drain(5)  # type: ignore[union-attr]
    assert len([m for m in caplog.messages if "decisions cannot be written" in m]) <= 2
    assert "No such file" in caplog.text
    away.mkdir()
    await ask(router)
    await router.aclose()
    assert len(lines(away / "decisions.jsonl")) == 1


async def test_a_database_of_others_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The ledger's file is none for decisions."""
    with sqlite3.connect(tmp_path / "app.db") as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    log = DecisionLog(f"sqlite:///{tmp_path}/app.db")
    log.write(decision("a"), at=0, outcome="ok")
    await log.drain(10)
    assert "another database" in caplog.text
    with sqlite3.connect(tmp_path / "app.db") as connection:
        assert [row[0] for row in connection.execute("SELECT name FROM sqlite_master")] == ["mine"]
    connection.close()


async def test_rotation(tmp_path: Path) -> None:
    """Files are moved away at their size, the oldest is dropped, and none is larger than it may be."""
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog(path, max_bytes=4096, keep=2)
    for number in range(60):
        log.write(decision(f"n{number}"), at=number, outcome="ok")
    await log.drain(10)
    files = [Path(f"{path}.2"), Path(f"{path}.1"), path]
    assert names(tmp_path) == sorted(file.name for file in files)
    assert all(0 < file.stat().st_size <= 4096 for file in files)
    kept = [record["id"] for file in files for record in lines(file)]
    assert kept == [f"n{number}" for number in range(60 - len(kept), 60)]
    assert len(kept) < 60


async def test_a_long_record_has_a_file_of_its_own(tmp_path: Path) -> None:
    """A record beyond the size is written all the same."""
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog(path, text=True, max_bytes=4096)
    for number in range(3):
        log.write(decision(f"n{number}"), at=0, outcome="ok", text="x" * 5000 * (number == 1))
    await log.drain(10)
    assert [record["id"] for file in (f"{path}.2", f"{path}.1", path) for record in lines(Path(file))] == [
        "n0", "n1", "n2",
    ]  # fmt: skip


async def test_sqlite_drops_its_oldest(tmp_path: Path) -> None:
    """The file stays near its size, and what is there is the latest."""
    path = tmp_path / "decisions.db"
    log = DecisionLog(path, max_bytes=200_000)
    for number in range(2_000):
        log.write(decision(f"n{number}"), at=number, outcome="ok")
        await asyncio.sleep(0)
    await log.drain(30)
    kept = [record["id"] for record in rows(path)]
    assert kept == [f"n{number}" for number in range(2_000 - len(kept), 2_000)]
    assert 50 < len(kept) < 2_000
    assert path.stat().st_size < 500_000


async def test_a_line_that_was_cut_off_is_taken_away(tmp_path: Path) -> None:
    """What a killed process left of a line does not spoil the next one."""
    path = tmp_path / "decisions.jsonl"
    path.write_bytes(b'{"id":"whole"}\n{"id":"cut' + b"x" * 100_000)
    log = DecisionLog(path)
    log.write(decision("next"), at=0, outcome="ok")
    await log.drain(10)
    assert [record["id"] for record in lines(path)] == ["whole", "next"]


def started(path: Path, name: str, *numbers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.decisionlog.writer", str(path), name, *map(str, numbers)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True)  # noqa: S603


def finished(process: subprocess.Popen[str]) -> None:
    out, _ = process.communicate(timeout=100)
    assert (process.returncode, out) == (0, "ready\ndone\n")


@pytest.mark.parametrize(("name", "max_bytes"), [("decisions.jsonl", 150_000), ("decisions.db", 50_000_000)])
def test_processes_lose_and_tear_nothing(tmp_path: Path, name: str, max_bytes: int) -> None:
    """Four processes write and rotate; a fifth is killed again and again; all of the four's records are there, once."""
    path = tmp_path / name
    writers = [started(path, f"w{number}", 400, max_bytes, 1000, 0) for number in range(4)]
    for _ in range(3):
        victim = started(path, "victim", 0, max_bytes, 1000, 0)
        assert victim.stdout is not None
        assert victim.stdout.readline() == "ready\n"
        time.sleep(0.15)
        victim.kill()
        victim.communicate()
    for writer in writers:
        finished(writer)
    finished(started(path, "last", 1, max_bytes, 1000, 0))  # whatever the victims cut off is mended by now
    read = READERS[name]
    found = [
        record["id"] for file in sorted(tmp_path.glob(f"{name}*")) if "-" not in file.name for record in read(file)
    ]
    survivors = [ident for ident in found if not ident.startswith("victim")]
    assert sorted(survivors) == sorted([f"w{w}-{n}" for w in range(4) for n in range(400)] + ["last-0"])
    assert any(ident.startswith("victim") for ident in found)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """Where the system writes only a part of a batch, that part is taken back."""
    path = tmp_path / "decisions.jsonl"
    finished(started(path, "w", 500, 10_000_000, 5, 400_000))
    assert path.read_bytes().endswith(b"}\n")
    assert 0 < len(lines(path)) < 500


def test_scripts_that_close_nothing(tmp_path: Path) -> None:
    """What waits at the exit of the interpreter is written."""
    code = (
        "from tests.decisionlog.writer import decision\nfrom tierline.decisionlog import DecisionLog\n"
        f"log = DecisionLog({str(tmp_path / 'd.jsonl')!r})\n"
        "for n in range(300): log.write(decision(f'n{n}'), at=0, outcome='ok')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)  # noqa: S603
    assert len(lines(tmp_path / "d.jsonl")) == 300


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_forked_child_writes_for_itself(place: Path) -> None:
    """Parent and child share a file, and what the parent had waiting is written once."""
    log = DecisionLog(place)
    for number in range(200):
        log.write(decision(f"parent-{number}"), at=0, outcome="ok")
    child = os.fork()
    if not child:
        try:
            log.write(decision("child"), at=0, outcome="ok")
            asyncio.new_event_loop().run_until_complete(log.drain(10))
        finally:
            os._exit(0)
    for number in range(200, 300):
        log.write(decision(f"parent-{number}"), at=0, outcome="ok")
    await asyncio.to_thread(os.waitpid, child, 0)
    await log.drain(10)
    found = [record["id"] for record in READERS[place.name](place)]
    assert sorted(found) == sorted(["child", *(f"parent-{n}" for n in range(300))])


async def test_more_than_can_be_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is too slow costs records and no memory, and the log says how many."""
    monkeypatch.setattr("tierline.decisionlog.log.MOST_WAITING", 5)
    log = DecisionLog(tmp_path / "d.jsonl")
    log.write(decision("first"), at=0, outcome="ok")
    writer = log._writer
    assert writer is not None
    with writer.busy:
        for number in range(300):
            log.write(decision(f"n{number}"), at=0, outcome="ok")
    seen = threading.Event()
    writer.queue.put(seen)
    await asyncio.to_thread(seen.wait, 10)
    log.write(decision("last"), at=0, outcome="ok")
    await log.drain(10)
    found = [record["id"] for record in lines(tmp_path / "d.jsonl")]
    assert found[0] == "first"
    assert found[-1] == "last"
    # The thread may have taken some away in between: then it says so twice.
    missed = re.findall(r"(\d+) decisions are not in", caplog.text)
    assert len(found) < 302
    assert sum(map(int, missed)) == 302 - len(found)


async def test_a_log_that_is_dropped_ends_its_thread(tmp_path: Path) -> None:
    """Nobody has to close it."""
    log = DecisionLog(tmp_path / "d.jsonl")
    log.write(decision("a"), at=0, outcome="ok")
    assert log._writer is not None
    ended = log._writer.ended
    del log
    await asyncio.wait_for(asyncio.wrap_future(ended), 10)
    assert len(lines(tmp_path / "d.jsonl")) == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"path": ""}, "write a path"),
        ({"path": 7}, "write a path"),
        ({"path": "redis://here"}, "write a path"),
        ({"path": "d.csv"}, "JSON lines"),
        ({"path": "decisions"}, "JSON lines"),
        ({"path": "d.jsonl", "text": "yes"}, "True or False"),
        ({"path": "d.jsonl", "max_bytes": 10}, "at least 4096"),
        ({"path": "d.jsonl", "keep": 0}, "at least 1"),
    ],
)
def test_what_cannot_work(options: dict[str, Any], told: str) -> None:
    """Said at start-up, with what to write instead."""
    with pytest.raises(ConfigurationError, match=told):
        DecisionLog(**options)
    with pytest.raises(ConfigurationError, match=r"decision_log=7\)"):
        Router(decision_log=7)  # type: ignore[arg-type]


def test_how_a_path_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes for a relative path, four for an absolute one, and names that say SQLite; from where it is made."""
    monkeypatch.chdir(tmp_path)
    assert DecisionLog("sqlite:///d.log").path == tmp_path / "d.log"
    assert DecisionLog("sqlite:////var/d.log").path == Path("/var/d.log")
    assert DecisionLog("d.ndjson").path == tmp_path / "d.ndjson"
    assert repr(DecisionLog("d.db")) == f"DecisionLog('{tmp_path}/d.db', text=False)"
