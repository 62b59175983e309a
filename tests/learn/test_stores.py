"""What every store of outcomes must do: in memory, in SQLite, in Redis."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tierline
from tests.learn.stores import Shared, evidence, read
from tests.redis_server import RedisServer, fresh_namespace, redis_cluster, redis_server
from tierline.errors import LedgerUnavailableError
from tierline.learn.memory import MemoryOutcomes
from tierline.learn.opening import open_outcomes
from tierline.learn.outcomes import edition
from tierline.learn.redis import RedisOutcomes
from tierline.learn.sqlite import SQLiteOutcomes
from tierline.ledger import MemoryLedger
from tierline.ledger.opening import connection_of, open_ledger
from tierline.store.redis import RedisStore
from tierline.store.sqlite import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server: each test has a namespace of its own."""
    with redis_server() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shared]:
    """An empty state."""
    url = {"memory": "memory", "sqlite": str(tmp_path / "a.db"), "redis": ""}[request.param]
    found = Shared(url or request.getfixturevalue("server").url, fresh_namespace())
    yield found
    await found.aclose()


async def test_what_was_added_comes_back_as_it_was(shared: Shared) -> None:
    """Every field, in the order in which it was added, in another process too."""
    given = [
        evidence("one", good=0.1 + 0.2, features=bytes(range(256)), at=1795262400.123456),
        evidence("zwei", route="/résumé/{id}", source="user", weight=0.25, account="ab12", features=b""),
    ]
    assert await shared.open().add(given) == [True, True]
    found, cursor = await shared.open().since("")
    assert found == given
    assert await shared.open().since(cursor) == ([], cursor)


async def test_an_id_is_taken_once(shared: Shared) -> None:
    """However often it is given, by whom, and in one breath."""
    one, other = shared.open(), shared.open()
    assert await one.add([evidence("a"), evidence("b"), evidence("a")]) == [True, True, False]
    assert await other.add([evidence("b", good=0.0), evidence("c")]) == [False, True]
    assert (await read(other))[0] == ["a", "b", "c"]
    assert await one.add([]) == []


async def test_those_who_race_for_an_id(shared: Shared) -> None:
    """Of fifty that give it at once one is told that it counted."""
    stores = [shared.open(), shared.open(), shared.open()]
    told = await asyncio.gather(*(stores[n % 3].add([evidence("a", good=n / 50)]) for n in range(50)))
    assert sum(new for (new,) in told) == 1
    assert (await read(stores[0]))[0] == ["a"]


async def test_pages(shared: Shared) -> None:
    """A reader goes on from where it was, by pages of any size."""
    store = shared.open()
    names = [str(number) for number in range(25)]
    await store.add([evidence(name) for name in names])
    assert (await read(store, limit=7))[0] == names
    page, cursor = await store.since("", 10)
    assert [each.id for each in page] == names[:10]
    await store.add([evidence("late")])
    assert (await read(store, cursor, 4))[0] == [*names[10:], "late"]


async def test_readers_see_overlapping_commits_once(shared: Shared) -> None:
    """While many add and drop nothing, each of two readers sees each evidence exactly once."""
    stores = [shared.open() for _ in range(4)]
    over = asyncio.Event()

    async def write(number: int) -> None:
        for turn in range(30):
            await stores[number % 2].add([evidence(f"{number} {turn} {n}") for n in range(3)])

    async def follow(store: object) -> list[str]:
        seen, cursor = [], ""
        while not over.is_set():
            more, cursor = await read(store, cursor, 5)
            seen += more
            await asyncio.sleep(0)
        return seen + (await read(store, cursor))[0]

    readers = [asyncio.create_task(follow(store)) for store in stores[2:]]
    await asyncio.gather(*(write(number) for number in range(5)))
    over.set()
    for seen in await asyncio.gather(*readers):
        assert len(seen) == 450
        assert set(seen) == {f"{number} {turn} {n}" for number in range(5) for turn in range(30) for n in range(3)}


async def test_it_is_bounded(shared: Shared) -> None:
    """The oldest are dropped, their ids stay taken, and a reader that was far behind goes on with what is left."""
    store = shared.open(size=10)
    await store.add([evidence("first")])
    _, cursor = await store.since("")
    for number in range(5):
        await store.add([evidence(f"{number} {n}") for n in range(5)])
    expected = [f"{number} {n}" for number in (3, 4) for n in range(5)]
    assert (await read(store))[0] == expected
    assert (await read(store, cursor))[0] == expected
    assert await store.add([evidence("first"), evidence("0 0")]) == [False, False]


@pytest.mark.parametrize("shared", ["memory", "sqlite"], indirect=True)
async def test_ids_are_free_again(shared: Shared) -> None:
    """When no handle can be left that names them, by the clock that the store was given."""
    now = [1000.0]
    store = shared.open(remember=60.0, clock=lambda: now[0])
    assert await store.add([evidence("a")]) == [True]
    now[0] += 59
    assert await store.add([evidence("a")]) == [False]
    now[0] += 1
    assert await store.add([evidence("a")]) == [True]


async def test_redis_keeps_ids_for_as_long(server: RedisServer) -> None:
    """The server itself forgets them."""
    shared = Shared(server.url, fresh_namespace())
    await shared.open(remember=60.0).add([evidence("a")])
    with server.client() as client:
        assert 50 < client.ttl(f"{{{shared.namespace}}}:outcomes:id:a") <= 60
    await shared.aclose()


async def test_one_secret(shared: Shared) -> None:
    """Whoever asks first makes it, and all who ask at once have the same."""
    secrets = await asyncio.gather(*(shared.open().secret() for _ in range(8)))
    assert len(set(secrets)) == 1
    assert len(secrets[0]) == 32


async def test_an_account_is_forgotten(shared: Shared) -> None:
    """What it graded is gone, and readers are told to begin again by another edition."""
    store, other = shared.open(), shared.open()
    await store.add([evidence(f"{n}", account="acme" if n % 2 else "globex") for n in range(1100)])
    _, cursor = await read(store)
    await other.forget("acme")
    found, again = await store.since(cursor, 10_000)
    assert [each.id for each in found] == [f"{n}" for n in range(0, 1100, 2)]
    assert edition(again) != edition(cursor)
    assert await store.add([evidence("1"), evidence("new")]) == [False, True]
    assert (await read(store, again))[0] == ["new"]


@pytest.mark.parametrize("shared", ["sqlite", "redis"], indirect=True)
async def test_processes_that_are_killed(shared: Shared) -> None:
    """What a process was told is kept, wherever it was killed; each id was taken by one of them, and is there once."""
    await shared.open().secret()
    processes = []
    for name in ("one", "two", "three"):
        command = [sys.executable, "-m", "tests.learn.stores", shared.url, shared.namespace, name, "2000"]
        env = {**os.environ, "PYTHONPATH": str(Path(tierline.__file__).parents[1])}
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env))  # noqa: S603, ASYNC220
    store, seen, cursor = shared.open(), [], ""
    while len(seen) < 300:
        more, cursor = await read(store, cursor)
        seen += more
        await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311
    told = []
    for process in processes:
        process.kill()
        told += [name.replace("_", " ") for name in process.communicate()[0].split()]
    more, cursor = await read(store, cursor)
    seen += more
    assert len(seen) == len(set(seen))
    assert len(told) == len(set(told)), "two were told that it counted"
    assert set(told) <= set(seen)
    assert (await read(shared.open()))[0] == seen
    assert len(seen) - len(told) <= 2 * len(processes), "more than the last step of each is there that nobody knows of"


async def test_sqlite_is_away(tmp_path: Path) -> None:
    """Every method says so, and works again when the file does."""
    store = SQLiteStore(tmp_path / "none" / "a.db", timeout=0.05)
    outcomes = SQLiteOutcomes(store)
    for ask in (outcomes.add([evidence("a")]), outcomes.since(""), outcomes.secret(), outcomes.forget("acme")):
        with pytest.raises(LedgerUnavailableError):
            await ask
    (tmp_path / "none").mkdir()
    assert await outcomes.add([evidence("a")]) == [True]
    await store.aclose()


async def test_redis_is_away_and_loses_its_data() -> None:
    """It says so; what comes back empty begins another edition, with the secret that the process knows."""
    with redis_server() as server:
        store = RedisStore(server.url, timeout=0.2)
        outcomes = RedisOutcomes(store)
        await outcomes.add([evidence("a")])
        secret = await outcomes.secret()
        _, cursor = await outcomes.since("")
        server.kill()
        for ask in (outcomes.add([evidence("b")]), outcomes.since(cursor), outcomes.secret(), outcomes.forget("acme")):
            with pytest.raises(LedgerUnavailableError):
                await ask
        server.start()
        found, again = await outcomes.since(cursor)
        assert found == []
        assert edition(again) != edition(cursor)
        assert await outcomes.secret() == secret
        assert await RedisOutcomes(store).secret() == secret
        await store.aclose()


async def test_redis_comes_back_as_it_was_earlier(server: RedisServer) -> None:
    """A reader that knows more than the store does begins again, and misses nothing that is added then."""
    shared = Shared(server.url, fresh_namespace())
    store = shared.open()
    await store.add([evidence(f"{n}") for n in range(5)])
    _, cursor = await read(store)
    with server.client() as client:
        client.delete(f"{{{shared.namespace}}}:outcomes")
        client.hset(f"{{{shared.namespace}}}:outcomes:about", "number", 2)
    _, again = await store.since(cursor)
    assert edition(again) != edition(cursor)
    await store.add([evidence("new")])
    assert (await read(store, again))[0] == ["new"]
    await shared.aclose()


async def test_a_redis_script_that_is_sent_twice(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the connection broke after it was run, who sends it again is told what it had taken itself."""
    shared = Shared(server.url, fresh_namespace())
    store = shared.open()
    script = RedisStore.script

    async def twice(self, name, keys, args, until=None):
        await script(self, name, keys, args, until)
        return await script(self, name, keys, args, until)

    monkeypatch.setattr(RedisStore, "script", twice)
    assert await store.add([evidence("a"), evidence("a")]) == [True, False]
    assert await store.add([evidence("a")]) == [False]
    monkeypatch.undo()
    assert (await read(store))[0] == ["a"]
    await shared.aclose()


async def test_a_redis_cluster() -> None:
    """All keys of a namespace are in one slot, so scripts run there as well."""
    with redis_cluster() as node:
        store = RedisStore(node.url, timeout=5, cluster=True)
        outcomes = RedisOutcomes(store)
        assert await outcomes.add([evidence("a"), evidence("b", account="acme"), evidence("a")]) == [True, True, False]
        await outcomes.forget("acme")
        assert (await read(outcomes))[0] == ["a"]
        assert await outcomes.secret() == await RedisOutcomes(store).secret()
        await store.aclose()


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
async def test_it_goes_with_the_balances(kind: str, server: RedisServer, tmp_path: Path) -> None:
    """What a ledger is connected to keeps the outcomes, too; for anything else it is the memory of the process."""
    url = f"sqlite:///{tmp_path}/a.db" if kind == "sqlite" else server.url
    options = {"on_error": "closed", "allowance": 0.05, "journal": None, "clock": time.time, "on_change": print}
    ledger = open_ledger(url, None, **options)
    outcomes = open_outcomes(connection_of(ledger), remember=60, clock=time.time)
    assert type(outcomes) is (SQLiteOutcomes if kind == "sqlite" else RedisOutcomes)
    assert outcomes._store is ledger.behind.store
    own = open_ledger(None, MemoryLedger(), **options)
    for connection in (connection_of(own), None, object()):
        assert type(open_outcomes(connection, remember=60, clock=time.time)) is MemoryOutcomes
