"""What every store of traffic must do: in memory, in SQLite, in Redis."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.redis_server import RedisServer, fresh_namespace, redis_server
from tierline.errors import LedgerUnavailableError
from tierline.report import OTHER
from tierline.store.redis import RedisStore
from tierline.store.sqlite import SQLiteStore
from tierline.traffic.base import BreakerStanding, Counts, total_of
from tierline.traffic.memory import MemoryTraffic
from tierline.traffic.opening import open_traffic
from tierline.traffic.redis import RedisTraffic
from tierline.traffic.sqlite import SQLiteTraffic
from tierline.traffic.store import (
    DAY,
    HOUR,
    HOURS_KEPT,
    KEPT,
    LEVELS,
    MOST_DECISIONS,
    WEEK,
    Beat,
    Piece,
    Place,
    Record,
    Row,
    Span,
    pieces_of,
    span_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tierline.traffic.store import Found, TrafficStore

NOW = 1_795_305_600.0 + 1_800  # the middle of an hour
HERE = int(NOW // HOUR) * HOUR
ME = Beat("me", NOW - 10)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server: each test has a namespace of its own."""
    with redis_server() as server:
        yield server


class Shared:
    """One state, and how a process opens it. What is in memory has one alone."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.namespace = fresh_namespace()
        self.now = NOW
        self.connections: list[RedisStore | SQLiteStore] = []
        self._one: TrafficStore | None = None

    def open(self, **options: Any) -> TrafficStore:
        def clock() -> float:
            return self.now

        if self.url == "memory":
            self._one = self._one or MemoryTraffic(clock=clock, **options)
            return self._one
        if self.url.startswith("redis"):
            self.connections.append(redis := RedisStore(self.url, namespace=self.namespace, timeout=5))
            return RedisTraffic(redis, clock=clock, **options)
        self.connections.append(sqlite := SQLiteStore(self.url, timeout=5))
        return SQLiteTraffic(sqlite, clock=clock, **options)


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def shared(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shared]:
    """An empty state."""
    urls = {"memory": lambda: "memory", "sqlite": lambda: str(tmp_path / "a.db")}
    found = Shared(urls.get(request.param, lambda: request.getfixturevalue("server").url)())
    yield found
    for each in found.connections:
        await each.aclose()


def row(name: str, cost: int = 1, *, kind: Any = "account", hour: int = HERE, **more: int) -> Row:
    return Row(kind, hour, name, Counts(calls=1, cost=cost, **more))


async def read(store: TrafficStore, hours: float = 1, most: int = 50, until: float = NOW) -> Found:
    return await store.read(span_of(until - hours * HOUR, until, NOW, named=True), most)


async def test_sums(shared: Shared) -> None:
    """What two processes saw is added up, by hour and tier and by name, to the last nano-USD."""
    one, other = shared.open(), shared.open()
    assert (await read(one)).hours == []
    big = 8_123_456_789_012_345
    await one.add(
        ME, 1, [row("haiku", big, kind="tier"), row("acme", big, top=big + 1), row("/a", 3, kind="route")], ()
    )
    await other.add(
        Beat("you", NOW), 1, [row("haiku", 9, kind="tier", hits=2), row("acme", 9, top=-2), row("globex", big + 50)], ()
    )
    found = await read(other)
    assert list(found.hours) == [(HERE, {"haiku": Counts(calls=2, cost=big + 9, hits=2)})]
    accounts = found.ranked["account"]
    assert list(accounts.names.items()) == [
        ("globex", Counts(calls=1, cost=big + 50)),
        ("acme", Counts(calls=2, cost=big + 9, top=big - 1)),
    ]
    assert accounts.number == 2
    assert accounts.total == Counts(calls=3, cost=2 * big + 59, top=big - 1)
    assert found.ranked["route"].names == {"/a": Counts(calls=1, cost=3)}
    assert found.ranked["job"].number == 0


@pytest.mark.parametrize("shared", ["redis"], indirect=True)
async def test_sums_of_any_size(shared: Shared) -> None:
    """Lua has no whole numbers above 2^53: sums are exact all the same, whatever their signs."""
    store = shared.open()
    number = 0

    edges = st.sampled_from([0, 1, 10**12 - 1, 10**12, 10**15 - 1, 10**15, 2**53, 2**53 + 1, 4 * 10**18])
    amounts = st.builds(lambda sign, n, more: sign * (n + more), st.sampled_from([-1, 1]), edges, st.integers(0, 10**6))

    cases: list[list[int]] = []

    @settings(max_examples=60, database=None)
    @given(st.lists(amounts, min_size=2, max_size=5))
    def draw(tops: list[int]) -> None:
        cases.append(tops)

    draw()
    for place, tops in enumerate(cases):
        for top in tops:
            number += 1
            await store.add(ME, number, [row(f"{place}", 0, top=top)], ())
    found = await read(store, most=1_000)
    for place, tops in enumerate(cases):
        assert found.ranked["account"].names[f"{place}"].top == sum(tops), tops


async def test_each_batch_counts_once(shared: Shared) -> None:
    """One that is sent again, for its answer was lost, adds nothing; nor does one that is older."""
    store = shared.open()
    for number in (1, 1, 2, 2, 1, 5, 3):
        await store.add(ME, number, [row("haiku", 10**number, kind="tier"), row("acme", 10**number)], ())
    await store.add(Beat("you", NOW), 1, [row("acme", 5)], ())
    found = await read(store)
    assert total_of(found.hours[0][1].values()).cost == 100_110
    assert found.ranked["account"].names == {"acme": Counts(calls=4, cost=100_115)}


async def test_the_dearest(shared: Shared) -> None:
    """Only so many names are told, by cost; all are counted, and what all came to is known."""
    store = shared.open()
    await store.add(ME, 1, [row(f"t{number}", number) for number in range(150)], ())
    found = (await read(store, most=3)).ranked["account"]
    assert list(found.names) == ["t149", "t148", "t147"]
    assert found.number == 150
    assert found.total == Counts(calls=150, cost=sum(range(150)))
    assert (await read(store, most=0)).ranked == {}


async def test_spans(shared: Shared) -> None:
    """Whatever is asked for, an hour that is in it counts, once, and no other; long spans have whole days."""
    store = shared.open()
    hours = [HERE - each * HOUR for each in (0, 1, 5, 23, 47, 48, 49, 99, 24 * 8, 24 * 15 + 7, 24 * 40, 24 * 80)]
    for number, hour in enumerate(hours, 1):
        await store.add(ME, number, [row("acme", 10**number, hour=hour), row("h", 1, kind="tier", hour=hour)], ())
    for back, until in ((1, 0), (24, 0), (47, 0), (49, 0), (24, 48), (48, 49), (200, 0), (200, 20), (24 * 30, 0),
                        (24 * 60, 24 * 9), (24 * 85, 0)):  # fmt: skip
        end = NOW - until * HOUR
        span = span_of(end - back * HOUR, end, NOW, named=True)
        assert span.since <= end - back * HOUR
        assert span.until >= end
        found = await store.read(span, 5)
        inside = [number for number, hour in enumerate(hours, 1) if span.since <= hour < span.until]
        assert found.ranked["account"].total.cost == sum(10**number for number in inside), (back, until)
        assert [hour for hour, _ in found.hours] == sorted(hours[number - 1] for number in inside)
        if back <= 48 and until <= 49:
            assert span.until - span.since <= (back + 1) * HOUR, "hours are whole, not days"


async def test_what_is_old_is_dropped(shared: Shared, server: RedisServer) -> None:
    """Hours and quarters of names go after four days, days and hours of tiers after ninety, and the names with them."""
    store = shared.open()
    rows = [
        row("acme", 5),
        row("acme/nightly", 5, kind="job"),
        row("haiku", 5, kind="tier"),
        row("/a", 5, kind="route"),
    ]
    await store.add(ME, 1, rows, ())
    if isinstance(store, RedisTraffic):
        with server.client() as client:
            begins = f"{{{shared.namespace}}}:traffic:"
            left = {key.decode().removeprefix(begins): client.ttl(key) for key in client.keys(f"{begins}*")}
        assert left.pop("workers") == -1  # a handful, and each is dropped a day after it was heard of
        start = {level: HERE - HERE % level for level in LEVELS}
        for name, seconds in left.items():
            kind, _, rest = name.partition(":")
            level = HOUR if kind == "tier" else int(rest.partition(":")[0])
            kept = HOURS_KEPT if level < DAY and kind != "tier" else KEPT
            assert abs(start[level] + level + kept - NOW - seconds) < 30, name
        return
    shared.now = NOW + HOURS_KEPT + 2 * HOUR
    later = int(shared.now // HOUR) * HOUR
    await store.add(ME, 2, [row("haiku", 7, kind="tier", hour=later), row("acme", 7, hour=HERE)], ())
    hour = Span(HERE, HERE + HOUR, (Piece(HOUR, HERE),))
    assert (await store.read(hour, 5)).ranked["account"].names == {}
    week = span_of(NOW - 3 * DAY, shared.now, shared.now, named=True)
    assert (await store.read(week, 5)).ranked["account"].total.cost == 12
    shared.now = NOW + KEPT + 4 * WEEK
    later = int(shared.now // HOUR) * HOUR
    await store.add(ME, 3, [row("haiku", 9, kind="tier", hour=later), row("old", 9, hour=HERE)], ())
    everything = span_of(0, shared.now, shared.now, named=True)
    found = await store.read(everything._replace(pieces=everything.pieces[-40:]), 5)
    assert list(found.hours) == [(later, {"haiku": Counts(calls=1, cost=9)})]
    assert found.ranked["account"].total == Counts()
    if isinstance(store, SQLiteTraffic):
        with contextlib.closing(sqlite3.connect(shared.url)) as file:
            assert file.execute("SELECT kind, name FROM traffic_name").fetchall() == [(0, "haiku")]
            assert file.execute("SELECT count(*) FROM traffic").fetchone() == (1,)
            assert file.execute("SELECT count(*) FROM traffic_day").fetchone() == (0,)
            assert file.execute("SELECT count(*) FROM traffic_worker").fetchone() == (1,)


async def test_names_are_bounded(shared: Shared) -> None:
    """Who makes up names fills a day with them, and no more: what is known goes on by its name."""
    store = shared.open(names=10)
    await store.add(ME, 1, [row("acme", 1)], ())
    await store.add(ME, 2, [row(f"made-up-{number}", 1) for number in range(50)], ())
    await store.add(ME, 3, [row("acme", 1), row("late", 1), row("/a", 1, kind="route")], ())
    found = (await read(store)).ranked["account"]
    assert len(found.names) == 10
    assert found.names["acme"] == Counts(calls=2, cost=2)
    assert OTHER not in found.names
    assert found.total == Counts(calls=53, cost=53)
    tomorrow = row("late", 2, hour=HERE + DAY)
    shared.now += DAY
    await store.add(ME, 4, [tomorrow], ())
    found = (await store.read(span_of(shared.now, shared.now, shared.now, named=True), 50)).ranked["account"]
    assert found.names == {"late": tomorrow.counts}


async def test_memory_is_bounded_over_days() -> None:
    """With new names on every hour of a month, memory keeps the latest and lets go of the oldest."""
    now = NOW
    store = MemoryTraffic(rows=300, clock=lambda: now)
    kept = []
    for number in range(24 * 30):
        now, hour = NOW + number * HOUR, HERE + number * HOUR
        names = [row(f"{number}-{each}", 2, hour=hour) for each in range(20)]
        await store.add(ME, number + 1, [row("haiku", 40, kind="tier", hour=hour), *names], ())
        kept.append(sum(map(len, store._pieces.values())))
    assert max(kept) <= 300 + len(LEVELS) * 21
    found = await store.read(span_of(now, now, now, named=True), 50)
    assert {name for name, _ in found.ranked["account"].names.items()} == {f"719-{each}" for each in range(20)}
    assert len((await store.read(span_of(NOW, now, now, named=False), 0)).hours) == 720


def record(number: int, account: str = "acme", at: float | None = None) -> Record:
    return Record(f"d{number}", NOW + number if at is None else at, account, json.dumps({"id": f"d{number}"}))


async def test_decisions(shared: Shared) -> None:
    """The latest are kept, over all processes, and found by when they were and by their id."""
    one, other = shared.open(), shared.open()
    await one.add(ME, 1, [row("acme")], [record(1), record(3)])
    await other.add(Beat("you", NOW), 1, (), [record(2)])
    ids = [json.loads(text)["id"] for text in await one.decisions(10, None)]
    assert ids == ["d3", "d2", "d1"]
    assert [json.loads(text)["id"] for text in await one.decisions(1, Place(NOW + 3))] == ["d2"]
    assert await one.decisions(5, Place(NOW)) == []
    assert await other.decision("d1") == '{"id": "d1"}'
    assert await other.decision("none") is None
    await one.add(ME, 2, (), [record(number) for number in range(4, MOST_DECISIONS + 10)])
    assert len(await one.decisions(MOST_DECISIONS + 50, None)) == MOST_DECISIONS
    assert await one.decision("d9") is None
    assert await one.decision("d10") is not None


async def test_decisions_of_one_moment(shared: Shared) -> None:
    """Page by page each is told, once, also where many were settled at the same time; as many are kept as of any."""
    store = shared.open()
    at = [NOW + number // 7 for number in range(20)]
    records = [Record(f"{number * 7 % 20:02}", at[number], "acme", json.dumps(number)) for number in range(20)]
    await store.add(ME, 1, (), records[::2])
    await store.add(ME, 2, (), records[1::2])
    order = [each.text for each in sorted(records, key=lambda each: (-each.at, -int(each.id)))]
    by_text = {each.text: each for each in records}
    for most in (1, 3, 20):
        seen: list[str] = []
        place = None
        while page := await store.decisions(most, place):
            assert len(page) <= most
            seen += page
            place = Place(by_text[page[-1]].at, by_text[page[-1]].id)
        assert seen == order
    assert (
        await store.decisions(20, Place(NOW + 1, "none of them"))
        == order[6:]
        == await store.decisions(20, Place(NOW + 1, "99"))
    )
    await store.add(
        ME, 3, (), [Record(f"m{number:03}", NOW + 9, "acme", f"{number}") for number in range(MOST_DECISIONS + 9)]
    )
    assert len(await store.decisions(MOST_DECISIONS + 50, None)) == MOST_DECISIONS


async def test_sessions_that_have_ended(shared: Shared) -> None:
    """All processes know them, until they would have ended by themselves."""
    one, other = shared.open(), shared.open()
    assert await one.ended() == frozenset()
    await one.end("a", NOW + 60)
    await other.end("b", NOW + 90)
    await other.end("b", NOW + 120)
    assert await one.ended() == await other.ended() == {"a", "b"}
    shared.now += 60
    assert await one.ended() == {"b"}
    await one.end("c", NOW + 600)
    shared.now += 60
    assert await other.ended() == {"c"}


async def test_a_decision_of_anybody(shared: Shared) -> None:
    """An account may have a line break in its name: records are read all the same, and those of others stay."""
    store = shared.open()
    await store.add(ME, 1, (), [record(1, "acme\nx"), record(2), record(3, "acme2")])
    assert [json.loads(text)["id"] for text in await store.decisions(10, None)] == ["d3", "d2", "d1"]
    assert await store.decision("d1") == '{"id": "d1"}'
    await store.forget("acme")
    assert [json.loads(text)["id"] for text in await store.decisions(10, None)] == ["d3", "d1"]
    await store.forget("acme\nx")
    assert await store.decision("d1") is None


async def test_a_clock_that_was_ahead(shared: Shared) -> None:
    """What it was told of is not the latest for ever: the next decision takes its place."""
    store = shared.open()
    shared.now = NOW + 30 * DAY
    await store.add(ME, 1, (), [record(number, at=shared.now) for number in range(MOST_DECISIONS)])
    shared.now = NOW
    await store.add(ME, 2, (), [record(-1)])
    assert await store.decisions(10, None) == ['{"id": "d-1"}']


async def test_many_names_are_read_in_parts(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else is kept waiting for long; what is told is the same."""
    store = shared.open()
    rows = [
        row(f"n{name}", 100 * (name % 7) + name, hour=HERE - HOUR * hour) for hour in (0, 1, 30) for name in range(20)
    ]
    await store.add(ME, 1, rows, ())
    whole = (await read(store, 40, most=7)).ranked["account"]
    assert list(whole.names) == ["n13", "n6", "n19", "n12", "n5", "n18", "n11"]
    assert whole.names["n13"] == Counts(3, 3 * 613)
    for name, few in (("redis._NAMES", 3), ("redis._SUMS", 2), ("memory._FEW", 0)):
        monkeypatch.setattr(f"tierline.traffic.{name}", few)
    assert (await read(store, 40, most=7)).ranked["account"] == whole
    assert whole.number == 20


async def test_workers(shared: Shared) -> None:
    """Who was heard of lately is told of, with the breakers that it has open."""
    store = shared.open()
    breaker = BreakerStanding("me", "claude-haiku-5-5", "a1b2", "open", NOW + 5)
    await store.add(Beat("me", NOW - 10, (breaker,)), 0, (), ())
    await store.add(Beat("you", NOW - 20), 0, (), ())
    found = await read(store)
    assert [worker.id for worker in found.workers] in (["you", "me"], ["me", "you"])
    assert {worker.started for worker in found.workers} == {NOW - 10, NOW - 20}
    assert list(found.breakers) == [breaker]
    await store.add(Beat("me", NOW - 10), 0, (), ())
    assert list((await read(store)).breakers) == []


@pytest.mark.parametrize("shared", ["memory", "sqlite"], indirect=True)
async def test_workers_go(shared: Shared) -> None:
    """One that is silent is not told of; what it wrote is remembered for a day."""
    store = shared.open()
    await store.add(ME, 7, [row("acme")], ())
    shared.now += 60
    assert list((await read(store)).workers) == []
    await store.add(ME, 7, [row("acme")], ())
    assert (await read(store)).ranked["account"].total.calls == 1


@pytest.mark.parametrize("shared", ["redis"], indirect=True)
async def test_workers_of_redis_go(shared: Shared, server: RedisServer) -> None:
    """The server's clock says who is alive; who was not heard of for a day is dropped."""
    store = shared.open()
    with server.client() as client:
        client.hset(f"{{{shared.namespace}}}:traffic:workers", "gone", json.dumps(["1.0", 1.0, 5, "[]"]))
        assert list((await read(store)).workers) == []
        await store.add(ME, 0, (), ())
        assert client.hkeys(f"{{{shared.namespace}}}:traffic:workers") == [b"me"]


async def test_an_account_is_forgotten(shared: Shared) -> None:
    """Its name, its jobs and its decisions are gone from every hour; sums without a name stay."""
    store = shared.open()
    for number, hour in enumerate((HERE, HERE - 30 * HOUR, HERE - 20 * DAY), 1):
        rows = [row("acme", 5, hour=hour), row("acme2", 3, hour=hour), row("haiku", 8, kind="tier", hour=hour)]
        jobs = [row("acme/nightly", 5, kind="job", hour=hour), row("acme2/nightly", 3, kind="job", hour=hour)]
        await store.add(ME, number, rows + jobs, [record(number), record(number + 10, "acme2")])
    await shared.open().forget("acme")
    found = await read(store, hours=24 * 30)
    assert found.ranked["account"].names == {"acme2": Counts(calls=3, cost=9)}
    assert found.ranked["account"].total == Counts(calls=6, cost=24)
    assert found.ranked["job"].names == {"acme2/nightly": Counts(calls=3, cost=9)}
    assert len(found.hours) == 3
    assert [json.loads(text)["id"] for text in await store.decisions(10, None)] == ["d13", "d12", "d11"]
    assert await store.decision("d1") is None
    await store.add(ME, 9, [row("acme", 2)], ())
    assert (await read(store)).ranked["account"].names["acme"] == Counts(calls=1, cost=2)


async def test_names_that_mean_something_elsewhere(shared: Shared) -> None:
    """They are names, and nothing else."""
    odd = ["a:b", "%", "a'b\"c", "ünï {x}", "0", "-", "a\nb", "cost"]
    store = shared.open()
    await store.add(ME, 1, [row(name, place) for place, name in enumerate(odd, 1)], ())
    assert list((await read(store)).ranked["account"].names) == odd[::-1]


@given(
    back=st.floats(0, 90 * DAY), length=st.floats(0, 90 * DAY), hour=st.integers(0, 24 * 89), into=st.integers(0, WEEK)
)
def test_an_hour_is_read_once(back: float, length: float, hour: int, into: int) -> None:
    """The pieces of a span hold every hour in it exactly once, and no hour out of it that there may be."""
    now = NOW + into
    until = now - min(back, length)
    since = until - length
    span = span_of(since, until, now, named=True)
    at = int(now // HOUR) * HOUR - hour * HOUR
    places = pieces_of(Row("account", at, "acme", Counts()), now)
    assert len(set(span.pieces) & set(places)) == (span.since <= at < span.until)
    assert span.since <= since
    assert span.until >= until


def test_a_stretch_is_few_pieces() -> None:
    """Whatever hour it is, each name is read a few times: up to two days ten pieces are all, and of a month as many."""
    for hour in range(7 * 24):
        now = HERE + hour * HOUR + 1.0
        for hours in range(1, 49):
            assert len(span_of(now - hours * HOUR, now, now, named=True).pieces) <= 10
        assert len(span_of(now - 7 * DAY, now, now, named=True).pieces) <= 8
        assert len(span_of(now - 30 * DAY, now, now, named=True).pieces) <= 11


async def test_sqlite_is_away(tmp_path: Path) -> None:
    """Every method says so, and works again when the file does."""
    store = SQLiteStore(tmp_path / "none" / "a.db", timeout=0.05)
    await _is_away(SQLiteTraffic(store))
    (tmp_path / "none").mkdir()
    await SQLiteTraffic(store).add(ME, 1, [row("acme")], ())
    await store.aclose()


async def test_redis_is_away_and_comes_back_empty() -> None:
    """It says so; what comes back empty has no traffic, and takes what comes next."""
    with redis_server() as server:
        store = RedisStore(server.url, timeout=0.2)
        traffic = RedisTraffic(store, clock=lambda: NOW)
        await traffic.add(ME, 1, [row("acme")], ())
        server.kill()
        await _is_away(traffic)
        server.start()
        assert (await read(traffic)).ranked["account"].number == 0
        await traffic.add(ME, 2, [row("acme")], ())
        assert (await read(traffic)).ranked["account"].number == 1
        await store.aclose()


async def _is_away(store: TrafficStore) -> None:
    for ask in (
        store.add(ME, 1, (), ()), read(store), store.decisions(1, None), store.decision("a"), store.forget("a"),
        store.end("a", NOW), store.ended(),
    ):  # fmt: skip
        with pytest.raises(LedgerUnavailableError):
            await ask


def test_where_it_is_kept(tmp_path: Path, server: RedisServer) -> None:
    """In a SQLite file or a Redis; over anything else in the memory of the process."""
    assert type(open_traffic(SQLiteStore(tmp_path / "a.db"), clock=float)) is SQLiteTraffic
    assert type(open_traffic(RedisStore(server.url), clock=float)) is RedisTraffic
    assert type(open_traffic(None, clock=float)) is MemoryTraffic
    assert type(open_traffic(object(), clock=float)) is MemoryTraffic


async def test_reading_keeps_nobody_from_writing(tmp_path: Path) -> None:
    """A look that takes long sees what was there when it began, and others write meanwhile."""
    store = SQLiteStore(tmp_path / "a.db")
    traffic = SQLiteTraffic(store, clock=lambda: NOW)
    await traffic.add(ME, 1, [row("acme")], ())
    import asyncio
    import threading

    looking, written = threading.Event(), threading.Event()

    def look(db: sqlite3.Connection) -> tuple[int, int]:
        first = db.execute("SELECT sum(calls) FROM traffic WHERE name > 0").fetchone()[0]
        looking.set()
        assert written.wait(30)
        return first, db.execute("SELECT sum(calls) FROM traffic WHERE name > 0").fetchone()[0]

    task = asyncio.create_task(store.read(look))
    await asyncio.to_thread(looking.wait, 30)
    await traffic.add(ME, 2, [row("acme")], ())
    written.set()
    assert await task == (len(LEVELS), len(LEVELS))
    assert (await read(traffic)).ranked["account"].total.calls == 2
    await store.aclose()
