"""What every store of verdicts must do: in SQLite, in Redis."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.redis_server import RedisServer, fresh_namespace, redis_server
from tierline.errors import LedgerUnavailableError
from tierline.store.redis import RedisStore
from tierline.store.sqlite import SQLiteStore
from tierline.verdicts.opening import open_verdicts
from tierline.verdicts.redis import RedisVerdicts
from tierline.verdicts.sqlite import SQLiteVerdicts
from tierline.verdicts.store import Kept, StoredVerdicts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tierline.verdicts.store import VerdictStore


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server: each test has a namespace of its own."""
    with redis_server() as server:
        yield server


class Shared:
    """One state, and how a process opens it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.namespace = fresh_namespace()
        self.now = 1_000.0
        self.connections: list[RedisStore | SQLiteStore] = []

    def open(self, **options: Any) -> VerdictStore:
        if self.url.startswith("redis"):
            self.connections.append(redis := RedisStore(self.url, namespace=self.namespace, timeout=5))
            return RedisVerdicts(redis, **options)
        self.connections.append(sqlite := SQLiteStore(self.url, timeout=5))
        return SQLiteVerdicts(sqlite, clock=lambda: self.now, **options)


@pytest.fixture(params=["sqlite", "redis"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shared]:
    """An empty state."""
    url = str(tmp_path / "a.db") if request.param == "sqlite" else request.getfixturevalue("server").url
    found = Shared(url)
    yield found
    for each in found.connections:
        await each.aclose()


def kept(key: str, value: str = "v", account: str = "acme", ttl: float = 60.0) -> Kept:
    return Kept(key, account, value, ttl)


async def test_what_was_put_is_found(shared: Shared) -> None:
    """As it was, in another process too, in the order of the keys; what is not there is None."""
    odd = '1.ab.["étiquette \\u0000",0.30000000000000004]'
    await shared.open().put([kept("a", odd), kept("b")])
    assert await shared.open().get(["b", "none", "a", "b"]) == ["v", None, odd, "v"]
    assert await shared.open().get([]) == []


async def test_all_are_dropped(shared: Shared) -> None:
    """Of all accounts, however many; what was counted stays, and what is put afterwards."""
    store = shared.open()
    await store.put([kept(str(number), account=f"a{number % 7}") for number in range(1_200)])
    await store.used({"1": 2}, 30)
    await shared.open().clear()
    assert await store.stats() == StoredVerdicts(0, 2, 30)
    assert await store.get(["1", "1199"]) == [None, None]
    await store.put([kept("a")])
    assert (await store.stats()).size == 1


async def test_the_latest_counts(shared: Shared) -> None:
    """One that is put again takes the place of the first."""
    store = shared.open()
    await store.put([kept("a", "1"), kept("a", "2")])
    await store.put([kept("a", "3")])
    assert await store.get(["a"]) == ["3"]
    assert (await store.stats()).size == 1


async def test_counts(shared: Shared) -> None:
    """Hits and what they saved add up over processes, also of keys that are gone."""
    one, other = shared.open(), shared.open()
    assert await one.stats() == StoredVerdicts(0, 0, 0)
    await one.put([kept("a"), kept("b")])
    await one.used({"a": 2, "gone": 1}, 10**15)
    await other.used({"a": 1, "b": 4}, 5)
    assert await one.stats() == await other.stats() == StoredVerdicts(2, 8, 10**15 + 5)
    assert await one.get(["gone"]) == [None]


async def test_it_is_bounded(shared: Shared) -> None:
    """The oldest are dropped."""
    store = shared.open(size=10)
    for number in range(25):
        await store.put([kept(f"{number}", ttl=60 + number)])
    assert (await store.stats()).size == 10
    found = await store.get([f"{number}" for number in range(25)])
    assert found == [None] * 15 + ["v"] * 10


async def test_many_at_once(shared: Shared) -> None:
    """More than one step takes."""
    store = shared.open()
    await store.put([kept(f"{number}", f"{number}") for number in range(450)])
    assert await store.get([f"{number}" for number in range(450)]) == [f"{number}" for number in range(450)]


async def test_an_account_is_forgotten(shared: Shared) -> None:
    """Its verdicts are gone, and nobody else's."""
    store = shared.open()
    await store.put([kept(f"{n}", account="acme" if n % 2 else "globex") for n in range(1_100)])
    await shared.open().forget("acme")
    assert (await store.stats()).size == 550
    assert await store.get(["0", "1", "2", "3", "1099"]) == ["v", None, "v", None, None]


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
async def test_too_old(shared: Shared) -> None:
    """What is too old is not found, and is gone when something is put."""
    store = shared.open()
    await store.put([kept("a", ttl=60), kept("b", ttl=90)])
    shared.now += 59.9
    assert await store.get(["a", "b"]) == ["v", "v"]
    shared.now += 0.1
    assert await store.get(["a", "b"]) == [None, "v"]
    assert (await store.stats()).size == 1
    await store.put([kept("c")])
    with contextlib.closing(sqlite3.connect(shared.url)) as file:
        assert file.execute("SELECT key FROM verdict ORDER BY key").fetchall() == [("b",), ("c",)]


@pytest.mark.parametrize("shared", ["redis"], indirect=True)
async def test_redis_lets_them_expire(shared: Shared, server: RedisServer) -> None:
    """The server itself does, and nothing of them stays for ever."""
    store = shared.open()
    await store.put([kept("a", ttl=60), kept("b", ttl=90)])
    prefix = f"{{{shared.namespace}}}:verdicts"
    with server.client() as client:
        assert 50_000 < client.pttl(f"{prefix}:a") <= 60_000
        assert 80_000 < client.pttl(prefix) <= 90_000
        # As if a minute had passed.
        client.zadd(prefix, {"a": 1})
        client.delete(f"{prefix}:a")
        assert (await store.stats()).size == 1
        await store.put([kept("c", ttl=1)])
        assert client.zrange(prefix, 0, -1) == [b"c", b"b"]
        assert client.pttl(prefix) > 80_000


@pytest.mark.parametrize("shared", ["redis"], indirect=True)
async def test_something_else_has_its_name(shared: Shared, server: RedisServer) -> None:
    """What is no verdict is none, and is written over."""
    store = shared.open()
    with server.client() as client:
        client.set(f"{{{shared.namespace}}}:verdicts:a", "else")
        client.rpush(f"{{{shared.namespace}}}:verdicts:b", "else")
    assert await store.get(["a", "b"]) == [None, None]
    await store.used({"a": 1}, 1)
    await store.put([kept("a"), kept("b")])
    assert await store.get(["a", "b"]) == ["v", "v"]


@pytest.mark.parametrize("shared", ["sqlite"], indirect=True)
async def test_a_value_that_is_no_text(shared: Shared) -> None:
    """It is none."""
    store = shared.open()
    await store.put([kept("a")])
    with contextlib.closing(sqlite3.connect(shared.url)) as file, file:
        file.execute("UPDATE verdict SET value = x'00ff'")
    assert await store.get(["a"]) == [None]


async def test_sqlite_is_away(tmp_path: Path) -> None:
    """Every method says so, and works again when the file does."""
    store = SQLiteStore(tmp_path / "none" / "a.db", timeout=0.05)
    verdicts = SQLiteVerdicts(store)
    for ask in (
        verdicts.get(["a"]),
        verdicts.put([kept("a")]),
        verdicts.used({}, 0),
        verdicts.forget("b"),
        verdicts.stats(),
    ):
        with pytest.raises(LedgerUnavailableError):
            await ask
    (tmp_path / "none").mkdir()
    await verdicts.put([kept("a")])
    assert await verdicts.get(["a"]) == ["v"]
    await store.aclose()


async def test_redis_is_away_and_comes_back_empty() -> None:
    """It says so; what comes back empty has no verdicts."""
    with redis_server() as server:
        store = RedisStore(server.url, timeout=0.2)
        verdicts = RedisVerdicts(store)
        await verdicts.put([kept("a")])
        server.kill()
        for ask in (verdicts.get(["a"]), verdicts.put([kept("a")]), verdicts.forget("b"), verdicts.stats()):
            with pytest.raises(LedgerUnavailableError):
                await ask
        server.start()
        assert await verdicts.get(["a"]) == [None]
        await store.aclose()


def test_what_is_shared_over(tmp_path: Path, server: RedisServer) -> None:
    """A SQLite file or a Redis; over anything else nothing is shared."""
    assert type(open_verdicts(SQLiteStore(tmp_path / "a.db"), clock=float)) is SQLiteVerdicts
    assert type(open_verdicts(RedisStore(server.url), clock=float)) is RedisVerdicts
    assert open_verdicts(None, clock=float) is None
    assert open_verdicts(object(), clock=float) is None
