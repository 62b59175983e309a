"""The verdict cache: exact keys, TTL and LRU, and one flight for many who ask."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
from collections import OrderedDict
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tierline.classify import CacheStats, VerdictCache, View
from tierline.classify.cache import About
from tierline.errors import ConfigurationError
from tierline.values import Classification

SECRET = b"a secret of the tests"
VERDICT = Classification("moderate", 0.8, "claude", cost=70, reason="as Claude said")
KEPT = Classification("moderate", 0.8, "cache", cost=0, reason="as Claude said")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Upstream:
    """Answers when the test says so."""

    def __init__(self, answer: Classification | Exception | None = VERDICT) -> None:
        self.answer = answer
        self.asked = 0
        self.cancelled = 0
        self.open = asyncio.Event()

    async def __call__(self) -> Classification | None:
        self.asked += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock) -> VerdictCache:
    return VerdictCache(maxsize=100, ttl=60.0, clock=clock, secret=SECRET)


async def say(answer: Classification | None = VERDICT) -> Classification | None:
    return answer


async def ticks(count: int = 5) -> None:
    """Let other tasks of the loop run."""
    for _ in range(count):
        await asyncio.sleep(0)


# Keys


BASE = {"tenant": "t", "fingerprint": "f", "version": "v"}
VIEW = View(
    "text", "context", 2, 3, forced_tool=False, images=1, documents=1, max_tokens=9, task="do", expected_output=5
)


def test_a_key_is_16_bytes_that_need_the_secret(cache):
    """Who has the verdict's key but not the secret cannot tell which text it belongs to."""
    key = cache.key(VIEW, **BASE)
    assert len(key) == 16
    assert VerdictCache(secret=SECRET).key(VIEW, **BASE) == key
    assert VerdictCache(secret=b"another").key(VIEW, **BASE) != key
    assert VerdictCache(secret=SECRET * 50).key(VIEW, **BASE) != key


@pytest.mark.parametrize("name", [field.name for field in fields(View)])
def test_every_field_of_the_view_is_in_the_key(cache, name):
    """A verdict is for exactly what was classified: one that is added to View must be added to the key."""
    value = getattr(VIEW, name)
    other = (not value) if isinstance(value, bool) else value + 1 if isinstance(value, int) else value + "x"
    assert cache.key(replace(VIEW, **{name: other}), **BASE) != cache.key(VIEW, **BASE)


@pytest.mark.parametrize("name", ["tenant", "fingerprint", "version"])
def test_tenant_classifier_and_policy_are_in_the_key(cache, name):
    """No tenant is answered with another's verdict, no classifier with an older one's."""
    assert cache.key(VIEW, **{**BASE, name: "x"}) != cache.key(VIEW, **BASE)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"tenant": None}, {"tenant": ""}),
        ({"tenant": "None"}, {"tenant": None}),
        ({"tenant": "ab", "fingerprint": "c"}, {"tenant": "a", "fingerprint": "bc"}),
        ({"fingerprint": "ab", "version": "c"}, {"fingerprint": "a", "version": "bc"}),
    ],
)
def test_neighbours_do_not_run_into_each_other(cache, one, other):
    """Every text is framed by its length."""
    assert cache.key(VIEW, **{**BASE, **one}) != cache.key(VIEW, **{**BASE, **other})


def test_no_task_is_not_an_empty_task(cache):
    """Absent and empty are different views."""
    assert cache.key(View("x", task=None), **BASE) != cache.key(View("x", task=""), **BASE)
    assert cache.key(View("x", expected_output=None), **BASE) != cache.key(View("x", expected_output=0), **BASE)


PARTS = st.text(st.sampled_from("a\0,1\ud800\udc00\U00010000"), max_size=4)
VIEWS = st.builds(View, text=PARTS, context=PARTS, task=st.none() | PARTS, turns=st.integers(1, 2))
ASKED = st.tuples(st.none() | PARTS, PARTS, PARTS, VIEWS)


@given(ASKED, ASKED)
def test_two_inputs_share_a_key_only_if_they_are_equal(one, other):
    """Lone surrogates, zero bytes and commas included: the framing leaves one way to read it."""
    cache = VerdictCache(secret=SECRET)

    def key(tenant, fingerprint, version, view):
        return cache.key(view, tenant=tenant, fingerprint=fingerprint, version=version)

    assert (key(*one) == key(*other)) == (one == other)


# What is kept


@pytest.mark.parametrize(
    ("given", "culprit"),
    [
        ({"maxsize": 0}, "maxsize"), ({"maxsize": 1.5}, "maxsize"), ({"maxsize": True}, "maxsize"),
        ({"ttl": 0}, "ttl"), ({"ttl": -1.0}, "ttl"), ({"ttl": float("nan")}, "ttl"), ({"ttl": "1h"}, "ttl"),
        ({"secret": b""}, "secret"), ({"secret": "text"}, "secret"),
    ],
)  # fmt: skip
def test_a_cache_that_cannot_work_is_refused(given, culprit):
    """The message names what is wrong, and does not show the secret."""
    with pytest.raises(ConfigurationError, match=culprit) as refused:
        VerdictCache(**{"secret": SECRET, **given})
    assert "text" not in str(refused.value)


async def test_a_miss_asks_and_a_hit_is_free(cache):
    """A hit has the label and confidence of the verdict, costs nothing, and saves what the verdict cost."""
    assert await cache.get_or_ask(b"k", say) == (VERDICT, False)
    assert await cache.get_or_ask(b"k", None) == (KEPT, True)
    assert cache.stats() == CacheStats(hits=1, misses=1, saved=70, size=1)


async def test_peek_counts_a_hit_and_never_a_miss(cache):
    """A lookup that finds nothing is followed by the question that counts it."""
    assert cache.peek(b"k") is None
    assert cache.stats() == CacheStats()
    await cache.get_or_ask(b"k", say)
    assert cache.peek(b"k") == KEPT
    assert cache.stats() == CacheStats(hits=1, misses=1, saved=70, size=1)


async def test_an_age_is_told_without_counting(cache, clock):
    """How old a verdict is, in seconds of the clock, as long as it is kept."""
    await cache.get_or_ask(b"k", say)
    clock.now = 59.0
    assert cache.age(b"k") == 59.0
    assert cache.age(b"other") is None
    clock.now = 60.0
    assert cache.age(b"k") is None
    assert cache.stats().hits == 0


async def test_no_opinion_is_not_kept(cache):
    """None is asked again, and is never a hit."""
    assert await cache.get_or_ask(b"k", lambda: say(None)) == (None, False)
    assert await cache.get_or_ask(b"k", say) == (VERDICT, False)
    assert cache.stats() == CacheStats(misses=2, size=1)


async def test_a_failure_is_not_kept(cache):
    """An exception is raised to the caller, and the next one asks again."""
    upstream = Upstream(ValueError("broken"))
    upstream.open.set()
    with pytest.raises(ValueError, match="broken"):
        await cache.get_or_ask(b"k", upstream)
    assert await cache.get_or_ask(b"k", say) == (VERDICT, False)


async def test_clear_forgets_without_counting_evictions(cache, clock):
    """What is cleared was not pushed out; what had been pushed out before stays counted."""
    await cache.get_or_ask(b"old", say)
    clock.now = 61.0
    await cache.get_or_ask(b"k", say)
    cache.clear()
    assert cache.peek(b"k") is None
    assert cache.stats() == CacheStats(misses=2, evictions=1)


class Model(RuleBasedStateMachine):
    """The cache against a plain dict in order of use, on a clock that the rules turn."""

    MAXSIZE = 3
    TTL = 4

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.cache = VerdictCache(maxsize=self.MAXSIZE, ttl=self.TTL, clock=self.clock, secret=SECRET)
        self.runner = asyncio.Runner()
        self.kept: OrderedDict[bytes, tuple[Classification, float]] = OrderedDict()
        self.expected = CacheStats()

    def count(self, **more: int) -> None:
        self.expected = replace(self.expected, **{k: getattr(self.expected, k) + v for k, v in more.items()})

    def expire(self) -> None:
        for key in [key for key, (_, until) in self.kept.items() if until <= self.clock.now]:
            del self.kept[key]
            self.count(evictions=1)

    @rule(seconds=st.integers(1, 5))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(key=st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), cost=st.none() | st.integers(0, 9))
    def ask(self, key: bytes, cost: int | None) -> None:
        answer = None if cost is None else Classification("simple", 0.5, "claude", cost)
        got = self.runner.run(self.cache.get_or_ask(key, lambda: say(answer)))
        self.expire()
        if key in self.kept:
            kept = self.kept[key][0]
            self.kept.move_to_end(key)
            self.count(hits=1, saved=kept.cost)
            assert got == (replace(kept, source="cache", cost=0), True)
            return
        self.count(misses=1)
        assert got == (answer, False)
        if answer is not None:
            if len(self.kept) == self.MAXSIZE:
                self.kept.popitem(last=False)
                self.count(evictions=1)
            self.kept[key] = (answer, self.clock.now + self.TTL)

    @rule(key=st.sampled_from([b"a", b"b", b"c", b"d", b"e"]))
    def peek(self, key: bytes) -> None:
        self.expire()
        got = self.cache.peek(key)
        if key not in self.kept:
            assert got is None
            return
        kept = self.kept[key][0]
        self.kept.move_to_end(key)
        self.count(hits=1, saved=kept.cost)
        assert got == replace(kept, source="cache", cost=0)

    @rule(key=st.sampled_from([b"a", b"b"]))
    def age(self, key: bytes) -> None:
        self.expire()
        if key not in self.kept:
            assert self.cache.age(key) is None
            return
        self.kept.move_to_end(key)
        assert self.cache.age(key) == self.clock.now - (self.kept[key][1] - self.TTL)

    @rule()
    def clear(self) -> None:
        self.expire()
        self.cache.stats()
        self.cache.clear()
        self.kept.clear()

    @invariant()
    def agrees(self) -> None:
        self.expire()
        assert self.cache.stats() == replace(self.expected, size=len(self.kept))

    def teardown(self) -> None:
        self.runner.close()


TestCacheAgainstModel = Model.TestCase


# Shares


def about(tenant: str | None, text: str) -> About:
    return About(View(text), tenant, "f", "1")


@given(
    st.integers(1, 9), st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.integers(0, 9)), max_size=40),
    st.integers(0, 60),
)  # fmt: skip
def test_a_flood_takes_half(maxsize: int, before: list[tuple[str | None, int]], flood: int) -> None:
    """Whatever there was, one tenant's flood leaves the others half of the places, or what they had."""
    cache = VerdictCache(maxsize=maxsize, ttl=60, clock=Clock(), secret=SECRET)

    def put(tenant: str | None, text: str) -> bytes:
        given = about(tenant, text)
        key = cache.key(given.view, tenant=tenant, fingerprint="f", version="1")
        cache.put(key, VERDICT, given)
        return key

    keys = {put(tenant, str(n)) for tenant, n in before}
    kept = sum(cache.peek(key) is not None for key in keys)
    assert kept == min(len(keys), maxsize)
    for n in range(flood):
        put("mallory", f"flood {n}")
    left = sum(cache.peek(key) is not None for key in keys)
    assert left >= min(kept, maxsize // 2)
    assert cache.stats().size == min(kept + flood, maxsize)
    assert cache.peek(put("mallory", "the last")) is not None


async def test_a_flood_of_one_tenant_alone(cache: VerdictCache, clock: Clock) -> None:
    """Who has all the places drops what was used longest ago, and what has expired counts for nobody."""
    for n in range(150):
        await cache.get_or_ask(b"%d" % n, say, about("acme", str(n)))
        assert cache.peek(b"0") is not None
    assert cache.stats().size == 100
    clock.now = 1_000.0
    assert (await cache.get_or_ask(b"new", say, about("globex", "new")))[1] is False
    assert cache.stats().size == 1


# Flights


async def test_those_who_ask_together_share_one_flight(cache):
    """One pays, the others get the same opinion for nothing, and the count says so."""
    upstream = Upstream()
    waiters = [asyncio.create_task(cache.get_or_ask(b"k", upstream)) for _ in range(5)]
    await ticks()
    upstream.open.set()
    assert await asyncio.gather(*waiters) == [(VERDICT, False), *[(KEPT, True)] * 4]
    assert upstream.asked == 1
    assert cache.stats() == CacheStats(misses=1, joined=4, saved=280, size=1)


async def test_different_keys_fly_apart(cache):
    """Only equal questions are one question."""
    upstream = Upstream()
    waiters = [asyncio.create_task(cache.get_or_ask(key, upstream)) for key in (b"a", b"b")]
    await ticks()
    upstream.open.set()
    await asyncio.gather(*waiters)
    assert upstream.asked == 2


@pytest.mark.parametrize("cancelled", [(0,), (1,), (0, 1), (1, 2)])
async def test_waiters_are_cancelled_one_by_one(cache, cancelled):
    """Who is cancelled is cancelled; the others, and the flight, do not notice."""
    upstream = Upstream()
    waiters = [asyncio.create_task(cache.get_or_ask(b"k", upstream)) for _ in range(3)]
    await ticks()
    for at in cancelled:
        waiters[at].cancel()
    await ticks()
    upstream.open.set()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    for at, result in enumerate(results):
        if at in cancelled:
            assert isinstance(result, asyncio.CancelledError)
        else:
            assert result == ((VERDICT, False) if at == 0 else (KEPT, True))
    assert (upstream.asked, upstream.cancelled) == (1, 0)


async def test_a_flight_that_nobody_waits_for_is_still_kept(cache):
    """It has been paid for: its verdict serves the next one who asks."""
    upstream = Upstream()
    waiters = [asyncio.create_task(cache.get_or_ask(b"k", upstream)) for _ in range(2)]
    await ticks()
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    upstream.open.set()
    await cache.drain(1.0)
    assert await cache.get_or_ask(b"k", None) == (KEPT, True)
    assert upstream.cancelled == 0


async def test_a_late_joiner_of_an_abandoned_flight_gets_its_verdict(cache):
    """The flight is found by its key, not by who started it."""
    upstream = Upstream()
    first = asyncio.create_task(cache.get_or_ask(b"k", upstream))
    await ticks()
    first.cancel()
    await ticks()
    late = asyncio.create_task(cache.get_or_ask(b"k", upstream))
    await ticks()
    upstream.open.set()
    assert await late == (KEPT, True)
    assert upstream.asked == 1


async def test_an_exception_reaches_every_waiter(cache):
    """They all asked, so they all learn that it failed; nothing is kept."""
    upstream = Upstream(ValueError("broken"))
    waiters = [asyncio.create_task(cache.get_or_ask(b"k", upstream)) for _ in range(3)]
    await ticks()
    upstream.open.set()
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert [str(result) for result in results] == ["broken"] * 3
    assert cache.stats().size == 0


async def test_a_failure_that_nobody_waited_for_is_not_logged(cache, caplog):
    """Its exception is retrieved, so that asyncio finds nothing to complain of."""
    upstream = Upstream(ValueError("broken"))
    waiter = asyncio.create_task(cache.get_or_ask(b"k", upstream))
    await ticks()
    waiter.cancel()
    await ticks()
    upstream.open.set()
    await cache.drain(1.0)
    await ticks()
    assert not caplog.records


async def test_no_opinion_of_a_flight_is_no_hit_for_joiners(cache):
    """There is nothing that came for free."""
    upstream = Upstream(None)
    waiters = [asyncio.create_task(cache.get_or_ask(b"k", upstream)) for _ in range(2)]
    await ticks()
    upstream.open.set()
    assert await asyncio.gather(*waiters) == [(None, False), (None, False)]
    assert cache.stats() == CacheStats(misses=1, joined=1)


async def test_who_asks_after_a_failed_flight_asks_anew(cache):
    """Even before the loop has cleared the old flight away."""
    failing = Upstream(ValueError("broken"))
    failing.open.set()
    again: list[object] = []

    async def first():
        try:
            await cache.get_or_ask(b"k", failing)
        except ValueError:
            again.append(await cache.get_or_ask(b"k", say))

    await first()
    assert again == [(VERDICT, False)]


async def test_a_done_flight_that_has_not_landed_is_not_joined(cache):
    """Between a flight's end and its callback stands one turn of the loop; a failure does not reach into it."""
    failing = Upstream(ValueError("broken"))
    waiter = asyncio.create_task(cache.get_or_ask(b"k", failing))
    await ticks()
    (flight,) = next(iter(cache._flights.values())).values()
    failing.open.set()
    while not flight.done():
        await ticks(1)
    cache._flights.setdefault(asyncio.get_running_loop(), {})[b"k"] = flight
    assert await cache.get_or_ask(b"k", say) == (VERDICT, False)
    with pytest.raises(ValueError, match="broken"):
        await waiter


async def test_landing_late_does_not_drop_the_next_flight(cache):
    """A callback takes away its own flight and no other."""
    upstream = Upstream()
    waiter = asyncio.create_task(cache.get_or_ask(b"k", upstream))
    await ticks()
    old = asyncio.create_task(say())
    await old
    cache._land(asyncio.get_running_loop(), b"k", old)
    joiner = asyncio.create_task(cache.get_or_ask(b"k", upstream))
    await ticks()
    upstream.open.set()
    assert (await waiter, await joiner) == ((VERDICT, False), (KEPT, True))
    assert upstream.asked == 1


async def test_a_flight_runs_in_the_context_of_the_first_asker(cache):
    """In a copy: what it sets there does not come back."""
    who = contextvars.ContextVar("who", default="nobody")
    seen: list[str] = []

    async def ask():
        seen.append(who.get())
        who.set("the flight")
        return VERDICT

    who.set("the first")
    await cache.get_or_ask(b"k", ask)
    assert (seen, who.get()) == (["the first"], "the first")


async def test_flights_leave_nothing_behind(cache):
    """When nothing is in the air, nothing is remembered, and no loop is held."""
    await cache.get_or_ask(b"k", say)
    await ticks()
    assert cache._flights == {}


async def test_drain_waits_for_flights(cache):
    """A verdict that arrives in time is kept."""
    upstream = Upstream()
    waiter = asyncio.create_task(cache.get_or_ask(b"k", upstream))
    await ticks()
    drained = asyncio.create_task(cache.drain(60.0))
    await ticks()
    assert not drained.done()
    upstream.open.set()
    await drained
    assert await waiter == (VERDICT, False)


async def test_drain_cancels_what_is_late(cache):
    """To those who still wait, a flight that was cancelled is no opinion, and not their own cancellation."""
    upstream = Upstream()
    waiters = [asyncio.create_task(cache.get_or_ask(b"k", upstream)) for _ in range(2)]
    await ticks()
    await cache.drain(0)
    assert await asyncio.gather(*waiters) == [(None, False), (None, False)]
    assert upstream.cancelled == 1
    assert cache.stats().size == 0


async def test_drain_of_nothing_is_nothing(cache):
    """An app that never asked shuts down at once."""
    await cache.drain(60.0)


async def test_clear_does_not_stop_a_flight(cache):
    """What was asked before is stored when it comes."""
    upstream = Upstream()
    waiter = asyncio.create_task(cache.get_or_ask(b"k", upstream))
    await ticks()
    cache.clear()
    upstream.open.set()
    await waiter
    assert cache.peek(b"k") == KEPT


def test_each_loop_has_its_own_flights_and_all_share_the_verdicts(cache):
    """A task of one loop cannot be awaited on another, so both ask; what either learns serves both."""
    together = threading.Barrier(2, timeout=30)
    asked: list[int] = []
    results: list[object] = []

    async def ask():
        asked.append(1)
        # Both flights are in the air before either lands.
        await asyncio.to_thread(together.wait)
        return VERDICT

    threads = [
        threading.Thread(target=lambda: results.append(asyncio.run(cache.get_or_ask(b"k", ask)))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [(VERDICT, False)] * 2
    assert len(asked) == 2
    assert asyncio.run(cache.get_or_ask(b"k", say)) == (KEPT, True)


def test_many_threads_keep_the_books(cache):
    """Counts add up and the bound holds when loops in many threads use one cache."""
    small = VerdictCache(maxsize=5, secret=SECRET)

    async def work(seed: int) -> None:
        for step in range(200):
            await small.get_or_ask(bytes([(seed * 7 + step * 3) % 11]), say)

    threads = [threading.Thread(target=lambda seed=seed: asyncio.run(work(seed))) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    stats = small.stats()
    assert stats.hits + stats.misses + stats.joined == 800
    assert stats.saved == 70 * stats.hits
    # Two loops may store one key twice, so that more was asked than was ever kept.
    assert stats.size <= 5
    assert stats.evictions + stats.size <= stats.misses


def test_a_loop_that_was_closed_in_mid_flight_is_let_go(cache):
    """Its flight can never land; the next loop that asks takes it off the list."""
    loop = asyncio.new_event_loop()
    waiter = loop.create_task(cache.get_or_ask(b"k", asyncio.Event().wait))
    loop.run_until_complete(ticks())
    flight = cache._flights[loop][b"k"]
    loop.close()
    assert asyncio.run(cache.get_or_ask(b"k", say)) == (VERDICT, False)
    assert cache._flights == {}
    # What asyncio would say of tasks that nobody can finish any more.
    for task in (waiter, flight):
        task._log_destroy_pending = False
        task.get_coro().close()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks are new in 3.12")
async def test_eager_tasks_do_not_lock_up(cache):
    """A flight that runs and ends while it is being made finds the lock free, and leaves nothing behind."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        assert await cache.get_or_ask(b"k", say) == (VERDICT, False)
        await ticks()
    finally:
        loop.set_task_factory(None)
    assert cache._flights == {}
