"""Upgrades: what earlier versions left goes on being there, once; and versions that know too little are told so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.redis_server import redis_server
from tests.store.earlier import files
from tests.store.earlier.filling import FOR, LASTING, NOON, fill, held, ledger_of, read, store_of
from tierline.errors import LedgerUnavailableError
from tierline.ledger import MemoryLedger, Reservation
from tierline.ledger.journal import _SCHEMA as JOURNAL
from tierline.store import redis as redis_store
from tierline.store import schema, sqlite_file
from tierline.values import Offer

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).parents[2]

_SEALED_JOURNAL: Final = "939d9a249934f3b02dbfcb6fe8c6dbe6439b4f7058715afc31ab874b1b9ef771"
SEALED: Final = (
    "2c31d235d297a78f35629817e4efd3d0ec935ca9f1e619da9dc341c3e371641e",
    "c49546783fb9fa519dc83fe3f9dc7a0d17f03f62e2cdcf4be4f1d7416415ce53",
    "c847faf46c9a5799c1246d40c5c25fe789733af060e8fb05a2210ce1b14edd5c",
    "e52be3f1f5086007909d1d4061ad589b9b5afc59e9857c0b718bbcbffb674843",
    "8cbb24dd48270b905f7bc054127c16145e67eaa579979bc8d575e7352ddd30eb",
    "0e9b62d86d626989f7eee8d043ff21381c2d609f11306c184ee23733247b80ab",
)
"""SHA-256 of each script of MIGRATIONS. Where this differs, files that are out there do too: add a script instead."""


def test_no_step_is_edited() -> None:
    """A file that has made a step never makes it again: what is to be different is a step of its own."""
    assert tuple(sha256(script.encode()).hexdigest() for script in schema.MIGRATIONS) == SEALED
    assert sha256(JOURNAL.encode()).hexdigest() == _SEALED_JOURNAL
    assert len(schema.MIGRATIONS) >= schema.OLDEST
    assert schema.REDIS_OLDEST <= schema.REDIS_SCHEMA


def test_every_earlier_schema_is_tried() -> None:
    """Of each that was ever left behind there is a file; 4 and 5 came together."""
    assert files.names("schema") == [f"schema-{n}" for n in range(1, len(schema.MIGRATIONS) + 1) if n != 4]
    assert files.names("redis") == [f"redis-{n}" for n in range(schema.REDIS_SCHEMA + 1)]


async def goes_on(store: Any) -> None:
    """What was in flight is settled once, what had lapsed is settled late, and the limits hold to the last nano-USD."""
    now = [NOON + 61]
    ledger = ledger_of(store, now)
    flying = await held(ledger, "flying", 500)
    assert [hold.id for hold in await ledger.holds()] == ["flying"], "asking again by its id held nothing more"
    assert await ledger.settle(flying, 200)
    assert not await ledger.settle(flying, 200)
    lapsed = await MemoryLedger(clock=lambda: NOON).reserve("lapsed", [Offer("haiku", "m", 70)], LASTING, origin=FOR)
    assert isinstance(lapsed, Reservation)
    await ledger.settle(lapsed, 10)
    daily, rolling, total = sorted(await ledger.balances(), key=lambda balance: balance.budget)
    assert [(each.spent, each.held, each.estimated) for each in (daily, rolling)] == [(360, 0, 30), (360, 0, 30)]
    assert (total.spent, total.held) == (900_000_000_000_000_361, 0)
    assert sum(hour.cost for hour in await ledger.history(0)) == total.spent
    assert not isinstance(await ledger.reserve("more", [Offer("haiku", "m", 541)], LASTING), Reservation)
    assert isinstance(await ledger.reserve("rest", [Offer("haiku", "m", 540)], LASTING), Reservation)
    await ledger.aclose()


# SQLite


def rows(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, by the names of their columns."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        found = {}
        for (name,) in names:
            cursor = connection.execute(f'SELECT * FROM "{name}"')  # noqa: S608  (names of our own)
            columns = [column[0] for column in cursor.description]
            found[name] = sorted((tuple(zip(columns, row, strict=True)) for row in cursor), key=repr)
        return found


def number(path: Path) -> tuple[int, int]:
    """The schema that the file asks for, and the one it has."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        oldest: int = connection.execute("PRAGMA user_version").fetchone()[0]
        steps: int = connection.execute("SELECT steps FROM schema").fetchone()[0]
        return oldest, steps


@pytest.fixture(params=files.names("schema"))
def left(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """A file as an earlier version left it."""
    files.put_back(request.param, tmp_path / "a.db")
    return request.param, tmp_path / "a.db"


async def test_a_file_of_every_version_before(left: tuple[str, Path]) -> None:
    """Every row is there as it was, the same is read out of it, and it can be gone on with."""
    name, path = left
    before = rows(path)
    store = store_of(str(path))
    await store.run(lambda _: None)
    after = rows(path)
    for table, kept in before.items():
        if table != "schema":
            assert after[table] == kept
    assert number(path) == (schema.OLDEST, len(schema.MIGRATIONS))
    expected = files.expected(name)
    found = json.loads(json.dumps(await read(store)))
    assert {part: found[part] for part in expected} == expected
    await goes_on(store)
    await store.aclose()


_DIES: Final = """
import os, signal, sqlite3, sys
from tierline.store.sqlite_file import SQLiteFile
from pathlib import Path
steps, number = [0], int(sys.argv[2])
def look(statement):
    if statement.split()[0] in ("CREATE", "INSERT", "COMMIT") or "user_version =" in statement:
        steps[0] += 1
        if steps[0] == number:
            os.kill(os.getpid(), signal.SIGKILL)
connect = sqlite3.connect
def watched(*args, **options):
    connection = connect(*args, **options)
    connection.set_trace_callback(look)
    return connection
sqlite3.connect = watched
file = SQLiteFile(Path(sys.argv[1]), 5.0)
file.begin(0.0)
file.rollback()
file.close()
print(steps[0])
"""


def run(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own, with the sources of these tests."""
    return subprocess.Popen(  # noqa: S603  (a script of these tests)
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(schema.__file__).parents[2]), str(ROOT)])},
    )


async def test_killed_in_the_middle_of_an_upgrade(tmp_path: Path) -> None:
    """Wherever it was, the file is the old one, whole; the next process makes the new one of it."""
    files.put_back("schema-1", tmp_path / "whole.db")
    told, _ = run(_DIES, tmp_path / "whole.db", 0).communicate(timeout=60)
    last = int(told)
    assert last > 40
    path = tmp_path / "a.db"
    files.put_back("schema-1", path)
    before = rows(path)
    for place in (1, 2, last // 3, last // 2, last - 2, last - 1, last):
        process = run(_DIES, path, place)
        process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert rows(path) == before
    store = store_of(str(path))
    found = json.loads(json.dumps(await read(store)))
    assert found["balances"] == files.expected("schema-1")["balances"]
    await goes_on(store)
    await store.aclose()


_RACES: Final = """
import asyncio, sys
from tests.store.earlier.filling import FOR, LASTING, NOON, ledger_of, store_of
from tierline.values import Offer
async def main():
    ledger = ledger_of(store_of(sys.argv[1]), [NOON + 60])
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(5):
        held = await ledger.reserve(f"{sys.argv[2]} {n}", [Offer("haiku", "m", 20)], LASTING, origin=FOR)
        assert await ledger.settle(held, 7)
    await ledger.aclose()
asyncio.run(main())
"""


async def test_processes_that_upgrade_at_once(tmp_path: Path) -> None:
    """One of them makes the steps, all of them go on, and every nano-USD is counted once."""
    path = tmp_path / "a.db"
    files.put_back("schema-2", path)
    racing = [run(_RACES, path, number) for number in range(4)]
    for process in racing:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in racing:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    for process in racing:
        process.communicate(timeout=60)
        assert process.returncode == 0
    store = store_of(str(path))
    balances = {budget: spent for budget, _, spent, *_ in (await read(store))["balances"]}
    assert balances == {"daily": 220 + 140, "rolling": 220 + 140, "total": 900_000_000_000_000_221 + 140}
    await store.aclose()


@contextlib.contextmanager
def newer(*, additive: bool) -> Iterator[None]:
    """Within, a program is of a later version: it knows one step more."""
    table = "CREATE TABLE later (\n    one INTEGER\n);\n"
    with pytest.MonkeyPatch.context() as later:
        later.setattr(sqlite_file, "MIGRATIONS", (*schema.MIGRATIONS, table))
        if not additive:
            later.setattr(sqlite_file, "OLDEST", len(schema.MIGRATIONS) + 1)
        yield


@pytest.fixture
async def current(tmp_path: Path) -> Path:
    """A file of this version, with something of everything in it."""
    store = store_of(str(tmp_path / "a.db"))
    await fill(store)
    await store.aclose()
    return tmp_path / "a.db"


async def test_an_additive_step_of_a_newer_version(current: Path) -> None:
    """Programs that do not know it go on, those that are running and those that start, and take nothing back."""
    running = store_of(str(current))
    await running.run(lambda _: None)
    with newer(additive=True):
        theirs = store_of(str(current))
        assert json.loads(json.dumps(await read(theirs)))["holds"][0][0] == "flying"
        await theirs.aclose()
    assert number(current) == (schema.OLDEST, len(schema.MIGRATIONS) + 1)
    await read(running)
    await running.aclose()
    await goes_on(starting := store_of(str(current)))
    await starting.aclose()
    assert number(current) == (schema.OLDEST, len(schema.MIGRATIONS) + 1)
    assert "later" in rows(current)


async def test_a_step_of_a_newer_version_that_is_not_additive(current: Path) -> None:
    """Programs that do not know it are refused in the middle of their work and touch nothing; the newer one goes on."""
    running = store_of(str(current))
    await running.run(lambda _: None)
    with newer(additive=False):
        theirs = store_of(str(current))
        await read(theirs)
        await theirs.aclose()
    before = rows(current)
    for store in (running, store_of(str(current))):
        ledger = ledger_of(store, [NOON + 60])
        with pytest.raises(LedgerUnavailableError, match=r"written by a newer Tierline \(schema 7, this one knows 6\)"):
            await held(ledger, "another", 5)
        await ledger.aclose()
    assert rows(current) == before
    with newer(additive=False):
        await goes_on(theirs)
        await theirs.aclose()


# Redis


@pytest.mark.parametrize("name", files.names("redis"))
async def test_a_redis_of_every_version_before(name: str) -> None:
    """The same is read out of it as by the version that filled it, and it can be gone on with."""
    with redis_server() as server, server.client(decode_responses=True) as client:
        files.put_keys_back(name, client)
        store = store_of(server.url)
        found = json.loads(json.dumps(await read(store)))
        assert found == files.expected(name)
        await goes_on(store)
        assert client.hgetall("{tierline}:schema") == {
            "steps": str(schema.REDIS_SCHEMA),
            "oldest": str(schema.REDIS_OLDEST),
        }
        await store.aclose()


async def everything(store: Any) -> list[BaseException]:
    """What each part of a program meets that is asked to write something."""
    from tierline.batches.opening import open_jobs, open_queue
    from tierline.learn.outcomes import Evidence
    from tierline.learn.redis import RedisOutcomes
    from tierline.traffic.opening import open_traffic
    from tierline.verdicts.opening import open_verdicts

    jobs = open_jobs(store, clock=lambda: NOON, lease=30.0)
    verdicts: Any = open_verdicts(store, clock=lambda: NOON)
    found = await asyncio.gather(
        held(ledger_of(store, [NOON + 60]), "another", 5),
        RedisOutcomes(store).add([Evidence("o", "/answer", "haiku", 1.0, b"")]),
        verdicts.clear(),
        open_traffic(store, clock=lambda: NOON).end("another", NOON + 9),
        jobs.begin("another", "u", "me", "{}"),
        open_queue(store, jobs, clock=lambda: NOON, lease=30.0).forget("a"),
        return_exceptions=True,
    )
    return [each for each in found if isinstance(each, BaseException)]


async def test_a_redis_of_a_newer_version() -> None:
    """Additive steps keep nobody from going on; after another one, no part of an older program changes a thing."""
    with redis_server() as server, server.client(decode_responses=True) as client:
        store = store_of(server.url)
        await fill(store)
        client.hset("{tierline}:schema", "steps", schema.REDIS_SCHEMA + 1)
        assert await everything(store) == []
        assert client.hget("{tierline}:schema", "steps") == str(schema.REDIS_SCHEMA + 1)
        client.hset("{tierline}:schema", "oldest", schema.REDIS_SCHEMA + 1)
        before = files.keys_of(client)
        for program in (store, store_of(server.url)):
            errors = await everything(program)
            assert len(errors) == 6
            for error in errors:
                assert isinstance(error, LedgerUnavailableError)
                assert "written by a newer Tierline (schema 2, this one knows 1): upgrade this one" in str(error)
            await program.aclose()
        assert files.keys_of(client) == before


async def test_a_newer_program_says_so_in_a_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its first script, whatever that is; and nobody takes it back."""
    with redis_server() as server, server.client(decode_responses=True) as client:
        running = store_of(server.url)
        await fill(running)
        with monkeypatch.context() as later:
            later.setattr(redis_store, "REDIS_SCHEMA", 3)
            later.setattr(redis_store, "REDIS_OLDEST", 2)
            redis_store._script.cache_clear()
            await (theirs := ledger_of(store_of(server.url), [NOON + 60])).ping()
            await theirs.aclose()
        redis_store._script.cache_clear()
        assert client.hgetall("{tierline}:schema") == {"steps": "3", "oldest": "2"}
        assert len(await everything(running)) == 6
        assert client.hgetall("{tierline}:schema") == {"steps": "3", "oldest": "2"}
        await running.aclose()


def shape(keys: list[list[Any]]) -> set[str]:
    """Which keys there are, of which kind, with which fields and what in them: without what differs from run to run."""

    def plain(text: str) -> str:
        return re.sub(r"[0-9a-f]{8,}|\d+(\.\d+)?(e[+-]?\d+)?|inf", "#", text)

    def form(value: Any) -> str:
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                if isinstance(inner := json.loads(value), (dict, list)):
                    return f"<{form(inner)}>"
            return "text"
        if isinstance(value, dict):
            return "{" + ", ".join(sorted({f"{plain(key)}: {form(each)}" for key, each in value.items()})) + "}"
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(sorted({form(each) for each in value})) + "]"
        return type(value).__name__

    return {f"{plain(key)} {kind} {form(value)}" for key, kind, value in keys}


async def test_the_shape_of_a_redis() -> None:
    """Keys and what is in them are those of the schema's number: another shape is another number."""
    kept = (files.FOLDER / f"redis-{schema.REDIS_SCHEMA}.jsonl").read_text().splitlines()
    with redis_server() as server, server.client(decode_responses=True) as client:
        store = store_of(server.url)
        await fill(store)
        await read(store)
        await store.aclose()
        assert shape(files.keys_of(client)) == shape([json.loads(line) for line in kept])
