"""The second level of the verdict cache: over a restart, over processes, and when its store fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.redis_server import RedisServer, fresh_namespace, redis_server
from tierline import Budget, Ladder
from tierline.attempts import Timing
from tierline.classify import ClaudeClassifier, View
from tierline.classify.cache import About
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.ledger import RedisLedger
from tierline.store.redis import RedisStore
from tierline.values import Classification
from tierline.verdicts import shared as shared_module
from tierline.verdicts.sealing import Sealing
from tierline.verdicts.shared import SharedVerdicts
from tierline.verdicts.store import Kept, StoredVerdicts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tierline import Decision, Router
    from tierline.testing import FakeClaude

pytestmark = pytest.mark.usefixtures("quiet")

LABELS = ("bug", "praise")


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
async def sdk(fake: FakeClaude) -> AsyncIterator[Any]:
    """The real SDK, without a socket."""
    async with fake.client() as client:
        yield client


@pytest.fixture
def clock() -> list[float]:
    """Seconds since the epoch, and of the process."""
    return [1_795_262_400.0]


@pytest.fixture(params=["sqlite", "redis"])
async def process(
    request: pytest.FixtureRequest,
    make_router: Callable[..., Router],
    tmp_path: Path,
    clock: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Callable[..., Router]]:
    """Makes Routers as other processes that share a store have them: with a memory of their own.

    They wait for a store that is busy: how long an app would is no part of what is tested with them.
    """
    monkeypatch.setattr(shared_module, "PATIENCE", 5.0)
    url = f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("server").url
    namespace = fresh_namespace()
    ledgers: list[Any] = []

    def make(**options: Any) -> Router:
        where: dict[str, Any] = {"store": url}
        if request.param == "redis":
            ledgers.append(ledger := RedisLedger(RedisStore(url, namespace=namespace)))
            where = {"ledger": ledger}
        timing = Timing(now=lambda: clock[0], perf=lambda: clock[0])
        defaults = {"classifier": ClaudeClassifier(worth=0), "timing": timing, "budgets": [Budget("$5", per="tenant")]}
        return make_router(**(defaults | where | options))

    yield make
    for ledger in ledgers:
        await ledger.aclose()


async def decide(router: Router, text: str = "Why is it blue?", tenant: str | None = "acme") -> Decision:
    async with router.bind(tenant=tenant) as binding:
        messages: Any = [{"role": "user", "content": text}]
        await router.claude.messages.create(model="auto", max_tokens=50, messages=messages)
    return binding.decisions[-1]


def verdicts_in(fake: FakeClaude) -> int:
    return sum("Labels: " in str(request.body.get("system")) for request in fake.requests)


async def written(router: Router) -> StoredVerdicts:
    """What the store has, when it was told all."""
    found = await router.verdicts()
    assert found is not None
    return found


async def test_it_outlives_a_restart(process: Callable[..., Router], fake: FakeClaude) -> None:
    """What one process has asked for, the next need not ask for; hits are counted by level, and what they saved."""
    first = process()
    asked = await decide(first)
    await first.aclose()
    second = process()
    found = [await decide(second) for _ in range(2)]
    assert [(each.source, each.label, each.confidence, each.classifier_cost) for each in found] == [
        ("cache", asked.label, asked.confidence, 0)
    ] * 2
    assert verdicts_in(fake) == 1
    stats = second.cache.stats()
    assert (stats.stored, stats.hits, stats.misses, stats.passed_over) == (1, 1, 0, 0)
    assert stats.saved == 2 * asked.classifier_cost
    report = second.report()
    assert (report.cache_hits, report.cache_stored, report.cache_misses) == (2, 1, 0)
    assert "2 hits (1 in the store), 0 misses" in str(report)
    assert await written(second) == StoredVerdicts(1, 1, asked.classifier_cost)


async def test_two_routers_share_it(process: Callable[..., Router], fake: FakeClaude) -> None:
    """Workers that run side by side find each other's verdicts, but not those of another tenant."""
    one, other = process(), process()
    texts = [f"text {n}" for n in range(30)]
    await asyncio.gather(*(decide(one, text) for text in texts))
    asked = verdicts_in(fake)
    await written(one)
    found = await asyncio.gather(*(decide(other, text) for text in texts))
    assert {each.source for each in found} == {"cache"}
    assert verdicts_in(fake) == asked
    assert (await decide(other, texts[0], "globex")).source == "claude"
    assert (await decide(other, texts[0], None)).source == "claude"
    assert other.cache.stats().stored == 30
    assert (await written(other)).hits == 30


async def test_fifty_at_once_look_once(process: Callable[..., Router], fake: FakeClaude) -> None:
    """Those who ask for one text at the same time look for it together, and ask once."""
    router = process()
    found = await asyncio.gather(*(decide(router) for _ in range(50)))
    assert sum(each.classifier_cost > 0 for each in found) == 1
    assert verdicts_in(fake) == 1
    other = process()
    await written(router)
    await asyncio.gather(*(decide(other) for _ in range(50)))
    assert verdicts_in(fake) == 1
    assert (await written(other)).hits == 1


async def test_apps_classifications(process: Callable[..., Router], fake: FakeClaude) -> None:
    """`classify` and `classify_many` find what another process has labelled, with one another too."""
    one, other = process(), process()
    await one.classify_many([f"text {n}" for n in range(300)], LABELS, "Which?")
    await one.classify("another", LABELS, "Which?")
    requests = len(fake.requests)
    await written(one)
    assert (await other.classify("text 7", LABELS, "Which?")).source == "cache"  # type: ignore[union-attr]
    found = await other.classify_many(["another", *(f"text {n}" for n in range(300))], LABELS, "Which?")
    assert (found.cached, found.cost, len(fake.requests)) == (301, 0, requests)
    assert (await other.classify_many(["text 1"], LABELS, "How?")).cached == 0


async def test_age(process: Callable[..., Router], fake: FakeClaude, clock: list[float]) -> None:
    """A verdict counts for `cache_ttl` seconds from when it was given, however often it changes its place."""
    one = process(cache_ttl=100.0)
    await decide(one)
    await written(one)
    clock[0] += 60
    other = process(cache_ttl=100.0)
    assert (await decide(other)).source == "cache"
    clock[0] += 39
    assert (await decide(other)).source == "cache"
    clock[0] += 1
    assert (await decide(other)).source == "claude"
    # A Router that lets verdicts be less old does not take an older one.
    await written(other)
    clock[0] += 20
    assert (await decide(process(cache_ttl=10.0))).source == "claude"


@pytest.mark.parametrize("process", ["sqlite"], indirect=True)
async def test_another_model(process: Callable[..., Router], fake: FakeClaude) -> None:
    """What one model has said is no verdict of another's; nor is that of a classifier with other examples."""
    one = process()
    await decide(one)
    await written(one)
    old = Ladder.of(haiku="claude-haiku-4-5", sonnet="claude-sonnet-5-5", opus="claude-opus-5-5")
    assert (await decide(process(ladder=old))).source == "claude"
    other = ClaudeClassifier(worth=0, examples={"complex": ["Why?"]})
    assert (await decide(process(classifier=other))).source == "claude"
    assert (await decide(process())).source == "cache"


async def test_a_secret_of_the_apps(process: Callable[..., Router], fake: FakeClaude) -> None:
    """Only those who have it find what was stored with it."""
    one = process(secret=b"one")
    await decide(one)
    await written(one)
    assert (await decide(process(secret=b"two"))).source == "claude"
    assert (await decide(process(secret=b"one"))).source == "cache"


async def test_no_text_is_stored(
    process: Callable[..., Router], fake: FakeClaude, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Neither prompt nor tenant can be read from what is stored."""
    router = process(budgets=[])
    await decide(router, "canary in the mine", "tenant-canary")
    await written(router)
    if "sqlite" in request.node.name:
        with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as file:
            rows = str(file.execute("SELECT * FROM verdict").fetchall())
    else:
        with request.getfixturevalue("server").client() as client:
            names = client.keys(f"{router.shared.store._keys[0]}:*")
            rows = str([names, *(client.hgetall(name) for name in names)])
    assert "1." in rows
    assert "canary" not in rows


async def test_erase(process: Callable[..., Router], fake: FakeClaude) -> None:
    """A tenant's verdicts are gone from the store and from the process that erased them, and nobody else's."""
    one = process()
    await decide(one, tenant="acme")
    await decide(one, tenant="globex")
    await written(one)
    await one.erase("acme")
    assert (await written(one)).size == 1
    other = process()
    for router in (one, other):
        await decide(router, tenant="globex")
    assert verdicts_in(fake) == 2
    assert (await decide(one, tenant="acme")).source == "claude"
    # What waits to be written is erased as well.
    await one.erase("acme")
    assert (await written(one)).size == 1


async def test_turned_off(process: Callable[..., Router], make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """`share_verdicts=False` and balances in memory have no second level."""
    alone = process(share_verdicts=False)
    await decide(alone)
    assert await alone.verdicts() is None
    assert (await written(process())).size == 0
    assert await make_router().verdicts() is None
    with pytest.raises(ConfigurationError, match="share_verdicts"):
        make_router(share_verdicts="yes")


async def test_where_nothing_is_asked_nothing_is_looked_up(process: Callable[..., Router], fake: FakeClaude) -> None:
    """A call whose verdict is not worth its price does not wait for the store either."""
    one = process()
    await decide(one)
    await written(one)
    router = process(classifier=ClaudeClassifier(worth=10_000.0))
    found = await decide(router)
    assert any("is at stake" in reason for reason in found.reasons)
    stats = router.cache.stats()
    assert (stats.stored, stats.misses, stats.passed_over) == (0, 0, 0)


# When the store is not as it should be


def corrupt(server: RedisServer | None, path: Path, change: Callable[[str], str]) -> None:
    """Change what every stored verdict says."""
    if server is not None:
        with server.client() as client:
            for name in client.keys("*:verdicts:*"):
                if not name.endswith(b":about"):
                    client.hset(name, "v", change(client.hget(name, "v").decode()))
        return
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        for number, value in file.execute("SELECT number, value FROM verdict").fetchall():
            file.execute("UPDATE verdict SET value = ? WHERE number = ?", (change(value), number))


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value[:-5],
        lambda value: value.replace("simple", "complex").replace("moderate", "complex"),
        lambda value: "2" + value[1:],
        lambda _: "",
        lambda _: "nonsense",
        lambda _: '1.0000.["complex",1.0,0,0.0]',
        lambda value: value + "é",
    ],
)
async def test_entries_that_were_changed(
    process: Callable[..., Router], fake: FakeClaude, tmp_path: Path, request: pytest.FixtureRequest, change: Any
) -> None:
    """What is cut off, changed, of another version or no verdict at all is as if it were not there, and is replaced."""
    fake.verdict = lambda _text, _labels: ("simple", 0.9)
    one = process()
    await decide(one)
    await written(one)
    redis = request.getfixturevalue("server") if "redis" in request.node.name else None
    corrupt(redis, tmp_path / "a.db", change)
    other = process()
    assert ((found := await decide(other)).source, found.label) == ("claude", "simple")
    await written(other)
    assert (await decide(process())).source == "cache"


async def test_a_verdict_of_another_text_is_none() -> None:
    """Nor is one that was sealed for something else."""
    sealing = Sealing(b"secret", "model")
    mine, other = (sealing.key(About(View(text), "acme", "f", "v")) for text in ("mine", "other"))
    value = sealing.seal(other, Classification("complex", 0.5, "claude", 7, reason="canary"), 5.0)
    assert value is not None
    assert "canary" not in value
    assert sealing.unseal(mine, value) is None
    assert sealing.unseal(mine, value.replace(".", ".\ud800", 1)) is None
    assert sealing.unseal(other, value) == (Classification("complex", 0.5, "cache", 7), 5.0)
    assert Sealing(b"secret", "another").key(About(View("mine"), "acme", "f", "v")) != mine


@pytest.mark.parametrize("odd", [Classification("x" * 201, 1, "claude"), Classification("simple", 2, "claude")])
def test_what_is_not_kept(odd: Classification) -> None:
    """An opinion that cannot be one is not stored."""
    assert Sealing(b"secret", "model").seal("00", odd, 0.0) is None


async def test_a_frozen_redis(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """While the server hangs, calls ask Claude after one short wait; later nobody looks, and what was asked is kept."""
    with redis_server() as server:
        options = {"classifier": ClaudeClassifier(worth=0), "secret": b"secret"}
        router, other = (make_router(store=server.url, **options) for _ in range(2))
        await decide(router, "warm")
        server.freeze()
        found = await decide(router, "first")
        assert found.source == "claude"
        await asyncio.gather(*(decide(router, f"text {n}") for n in range(5)))
        assert router.cache.stats().passed_over == 6
        with pytest.raises(LedgerUnavailableError):
            await router.verdicts()
        server.thaw()
        assert (await written(router)).size == 7
        assert (await decide(other, "first")).source == "cache"


class Scripted:
    """A store that does as the test says."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.told = asyncio.Event()
        self.error: Exception | None = None
        self.gets: list[list[str]] = []
        self.kept: dict[str, Kept] = {}
        self.hits: dict[str, int] = {}

    async def get(self, keys: Sequence[str]) -> list[str | None]:
        self.gets.append(list(keys))
        await self.open.wait()
        self._fail()
        return [self.kept[key].value if key in self.kept else None for key in keys]

    async def put(self, kept: Sequence[Kept]) -> None:
        self._fail()
        self.kept |= {each.key: each for each in kept}
        self.told.set()

    async def used(self, counts: Mapping[str, int], saved: int) -> None:
        self._fail()
        for key, count in counts.items():
            self.hits[key] = self.hits.get(key, 0) + count

    async def forget(self, account: str) -> None:
        self.kept = {key: each for key, each in self.kept.items() if each.account != account}

    async def stats(self) -> StoredVerdicts:
        return StoredVerdicts(len(self.kept), sum(self.hits.values()), 0)

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error


class Known:
    """What is needed of a Learning."""

    secret: bytes | None = b"secret"

    async def known_secret(self) -> bytes:
        return b"secret"

    def digest(self, account: str | None) -> str:
        return json.dumps(account)


VERDICT = Classification("simple", 0.9, "claude", 7)


def about(text: str) -> About:
    return About(View(text), "acme", "f", "v")


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
async def level(now: list[float]) -> AsyncIterator[tuple[SharedVerdicts, Scripted, list[str]]]:
    """A second level over a scripted store, and what it tells of its look-ups."""
    store, told = Scripted(), []
    found = SharedVerdicts(
        store, Known(), model="m", ttl=60.0, now=lambda: 0.0, clock=lambda: now[0], on_look=told.append
    )
    yield found, store, told
    store.error = None
    await found.close(0)


async def test_a_store_that_does_not_answer(level: Any, now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for once, then passed over for five seconds, and asked again."""
    shared, store, told = level
    monkeypatch.setattr(shared_module, "FIRST", 0.01)
    assert await shared.find(about("a")) is None
    assert await shared.find(about("b")) is None
    assert (len(store.gets), told, shared.passed_over) == (1, ["passed_over"] * 2, 2)
    store.open.set()
    now[0] += shared_module.RETRY
    assert await shared.find(about("b")) is None
    assert told[2:] == ["miss"]


@pytest.mark.parametrize("error", [LedgerUnavailableError("away"), ValueError("canary")])
async def test_a_store_that_fails(level: Any, error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody hears of it but the log, and that not of what it was about."""
    shared, store, told = level
    store.open.set()
    store.error = error
    assert await shared.find(about("a")) is None
    assert told == ["passed_over"]
    assert "canary" not in caplog.text


async def test_looks_of_one_moment_are_one(level: Any) -> None:
    """A thousand look-ups at once are a few steps, each key once."""
    shared, store, told = level
    store.open.set()
    await shared.find(about("first"))
    shared.keep(about("text 5"), VERDICT)
    await shared.stats()
    found = await asyncio.gather(*(shared.find(about(f"text {n % 500}")) for n in range(1_000)))
    assert [n for n, each in enumerate(found) if each is not None] == [5, 505]
    assert [len(keys) for keys in store.gets] == [1, 200, 200, 100]
    assert told.count("hit") == 2
    assert (await shared.stats()).hits == 2


async def test_others_are_answered_meanwhile(level: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a store answers, part by part, those of the same moment that come later are waited for as well."""
    shared, store, _ = level
    store.open.set()
    await shared.find(about("first"))
    monkeypatch.setattr(shared_module, "PATIENCE", 0.2)
    monkeypatch.setattr(shared_module, "_BATCH", 1)
    get = store.get

    async def slowly(keys: Sequence[str]) -> list[str | None]:
        await asyncio.sleep(0.06)
        found: list[str | None] = await get(keys)
        return found

    monkeypatch.setattr(store, "get", slowly)
    await asyncio.gather(*(shared.find(about(f"{n}")) for n in range(6)))
    assert (len(store.gets), shared.passed_over) == (7, 0)


async def test_one_who_is_cancelled(level: Any) -> None:
    """Takes nobody along."""
    shared, store, _ = level
    store.open.set()
    await shared.find(about("first"))
    shared.keep(about("a"), VERDICT)
    await shared.stats()
    store.open.clear()
    looks = [asyncio.create_task(shared.find(about("a"))) for _ in range(3)]
    await asyncio.sleep(0)
    looks[0].cancel()
    store.open.set()
    done = await asyncio.gather(*looks, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert [each.verdict.label for each in done[1:]] == ["simple"] * 2


async def test_what_is_not_taken_is_kept(level: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Verdicts that could not be written are written later, the latest of them where there are too many."""
    shared, store, _ = level
    store.open.set()
    await shared.find(about("first"))
    monkeypatch.setattr(shared_module, "_MOST_WAITING", 3)
    store.error = LedgerUnavailableError("away")
    for number in range(5):
        shared.keep(about(f"{number}"), VERDICT)
        with pytest.raises(LedgerUnavailableError):
            await shared.stats()
    store.error = None
    assert (await shared.stats()).size == 3
    assert await shared.find(about("0")) is None
    assert (await shared.find(about("4"))).age == 0


async def test_it_writes_by_itself(level: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon after a verdict was given, though nobody asks for it; at a shutdown at once."""
    shared, store, _ = level
    store.open.set()
    await shared.find(about("first"))
    monkeypatch.setattr(shared_module, "LINGER", 0.001)
    shared.keep(about("a"), VERDICT)
    async with asyncio.timeout(30):
        await store.told.wait()
    assert len(store.kept) == 1
    monkeypatch.setattr(shared_module, "LINGER", 100.0)
    shared.keep(about("b"), VERDICT)
    await shared.close(0)
    assert len(store.kept) == 2
