from __future__ import annotations

import asyncio
import sys
import threading
import time
from contextlib import suppress
from subprocess import run
from typing import TYPE_CHECKING, Any

import pytest

from tests.ledger.words import hold, money, offer
from tests.proxy import Proxy
from tests.redis_server import RedisServer, fresh_namespace, redis_cluster, redis_server
from tierline.budgets import Line
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.ledger import Reservation
from tierline.ledger.redis import RedisLedger
from tierline.store.redis import RedisStore
from tierline.testing import LedgerConformance
from tierline.values import Refusal
from tierline.windows import Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from tierline.ledger import Ledger


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """One server for the tests that leave it alone: each has a namespace of its own."""
    with redis_server() as server:
        yield server


class TestRedis(LedgerConformance):
    """A server with no persistence; another object on the same state has connections of its own."""

    drift = 2_000
    herd = 200
    examples = 15

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.url = server.url

    def open_ledger(self, clock: Callable[[], float], lease: float) -> Ledger:
        store = RedisStore(self.url, namespace=fresh_namespace(), timeout=5)
        return RedisLedger(store, clock=clock, lease=lease)

    def open_again(self, ledger: Ledger, clock: Callable[[], float], lease: float) -> Ledger:
        assert isinstance(ledger, RedisLedger)
        return RedisLedger(RedisStore(self.url, namespace=ledger.store.namespace, timeout=5), clock=clock, lease=lease)


DAY = Line("day", "global", 10**9, Window("day"))
TOTAL = Line("total", "acme", 10**9, Window("total"))


@pytest.fixture
async def process(server: RedisServer) -> AsyncIterator[Callable[..., RedisLedger]]:
    """Make ledgers as processes have them: each with connections and memories of its own."""
    namespace, made = fresh_namespace(), []

    def make(port: int = server.port, timeout: float = 2, **options: Any) -> RedisLedger:
        made.append(
            RedisLedger(RedisStore(f"redis://127.0.0.1:{port}", namespace=namespace, timeout=timeout), **options)
        )
        return made[-1]

    yield make
    for ledger in made:
        await ledger.aclose()


async def test_redis_absent_at_start() -> None:
    """A server that is not there yet makes every call fail at once, and is used when it comes."""
    server = RedisServer()
    ledger = RedisLedger(server.url)
    try:
        for work in (ledger.reserve("a", [offer(1)], [DAY]), ledger.ping(), ledger.balances(), ledger.release("a")):
            began = time.monotonic()
            with pytest.raises(LedgerUnavailableError, match="Connect"):
                await work
            assert time.monotonic() - began < 1
        server.start()
        held = await hold(ledger, "a", 1, DAY)
        assert await ledger.settle(held, 1)
        await ledger.aclose()
    finally:
        server.remove()


async def test_redis_sigstop() -> None:
    """A frozen server costs each call its patience; what it was sent meanwhile holds nothing, and charges once."""
    with redis_server() as server:
        ledger = RedisLedger(server.url)
        before = [await hold(ledger, f"before {number}", 10, DAY, TOTAL) for number in range(5)]
        server.freeze()
        found = await asyncio.gather(
            *(ledger.reserve(f"during {number}", [offer(1000)], [DAY, TOTAL]) for number in range(20)),
            *(ledger.settle(each, 3) for each in before),
            return_exceptions=True,
        )
        assert {type(each) for each in found} == {LedgerUnavailableError}
        assert {str(each) for each in found} == {f"{server.url} did not answer within 0.2 s"}
        server.thaw()
        async with asyncio.timeout(5):
            while True:
                with suppress(LedgerUnavailableError):
                    await ledger.ping()
                    break
        assert await ledger.holds() == [hold for hold in await ledger.holds() if hold.id.startswith("before")]
        for each in before:
            await ledger.settle(each, 3)  # whoever was not answered asks again
        assert await money(ledger) == {"day": (15, 0), "total": (15, 0)}
        await ledger.aclose()


async def test_slow_reply_duplicates(server: RedisServer, process: Callable[..., RedisLedger]) -> None:
    """Over a network that delays, cuts and repeats, every call is charged once and nothing stays held."""
    proxy = Proxy(server.port)
    async with proxy.serve():
        ledger, direct = process(proxy.port, timeout=0.5), process()
        await ledger.ping()
        proxy.slow, proxy.delay, proxy.cut, proxy.twice = 0.15, 0.8, 0.05, True
        charged: list[int] = []

        async def insist(work: Callable[[], Awaitable[Any]]) -> Any:
            while True:
                with suppress(LedgerUnavailableError):
                    return await work()

        async def call(number: int) -> None:
            try:
                held = await hold(ledger, f"{number}", 100, DAY, TOTAL)
            except LedgerUnavailableError:
                await insist(lambda: ledger.release(f"{number}"))
            else:
                await insist(lambda: ledger.settle(held, number))
                charged.append(number)

        for first in range(0, 100, 20):
            await asyncio.gather(*map(call, range(first, first + 20)))
        await asyncio.sleep(1)  # what is repeated has arrived
        assert proxy.cuts
        assert len(charged) > 10
        assert await money(direct) == {"day": (sum(charged), 0), "total": (sum(charged), 0)}
        assert await direct.holds() == []


async def test_crossslot_keys() -> None:
    """In a real cluster all keys of a step are in one slot, whatever the accounts are called."""
    with redis_cluster() as node:
        store = RedisStore(node.url, namespace=fresh_namespace(), timeout=5, cluster=True)
        ledger = RedisLedger(store)
        lines = [Line(f"b{number}", f"{{tenant}} {number}", 100, Window("total")) for number in range(8)]
        held = [await hold(ledger, f"{{x}}{number}", 5, *lines) for number in range(10)]
        assert [await ledger.settle(each, 4) for each in held] == [True] * 10
        assert [(each.spent, each.held) for each in await ledger.balances()] == [(40, 0)] * 8
        await ledger.erase("{tenant} 0")
        assert len(await ledger.balances()) == 7
        await ledger.aclose()


async def test_rounding_past_2_to_the_53(process: Callable[..., RedisLedger]) -> None:
    """Sums that a float cannot tell apart are told apart, in calendar and rolling windows."""
    most = 10**18
    lines = [
        Line("total", "a", most, Window("total"), alert_at=(1.0,)),
        Line("rolling", "a", most, Window("rolling", seconds=3600)),
    ]
    ledger, told = process(), []
    ledger.watch(told.append)
    big = await hold(ledger, "big", most - 1, *lines)
    assert isinstance(await ledger.reserve("two", [offer(2)], lines), Refusal)
    small = await hold(ledger, "one", 1, *lines)
    assert small.used == (most - 1, most - 1)
    assert isinstance(await ledger.reserve("three", [offer(1)], lines), Refusal)
    await ledger.settle(big, most - 1)
    assert [alert.refused for alert in told] == [True]
    await ledger.settle(small, 0)
    assert await money(ledger) == {"total": (most - 1, 0), "rolling": (most - 1, 0)}


async def test_more_than_64_bits(process: Callable[..., RedisLedger]) -> None:
    """A soft budget that has come to more than can be added up refuses whole, and stays as it was."""
    ledger = process()
    lines = [Line("day", "a", 1, Window("day"), hard=False), Line("soft", "a", 1, Window("total"), hard=False)]
    for number in range(7):
        await ledger.settle(await hold(ledger, f"{number}", 1, *lines), 10**18)
    with pytest.raises(LedgerUnavailableError, match="cannot be added to"):
        await ledger.reserve("more", [offer(10**18)], lines)
    with pytest.raises(ValueError, match="at most"):
        await ledger.reserve("mistake", [offer(10**18 + 1)], lines)
    assert await money(ledger) == {"day": (7 * 10**18, 0), "soft": (7 * 10**18, 0)}


async def test_clients_with_skewed_clocks(process: Callable[..., RedisLedger]) -> None:
    """Windows and leases go by the server's clock, whatever those of the machines say."""
    minute = Line("minute", "a", 100, Window("minute"))
    early, late = process(), process()
    for ledger, skew in ((early, -3_600), (late, 86_400)):
        await ledger.ping()
        ledger._session._offset += skew
        ledger._session._now += skew
    one, two = await hold(early, "a", 10, minute), await hold(late, "b", 10, minute)
    assert abs(one.at - two.at) < 60
    assert abs(one.at - time.time()) < 60
    assert [each.at for each in await early.holds()] == [one.at, two.at]


async def test_many_lapse_at_once(process: Callable[..., RedisLedger]) -> None:
    """More leases than one step ends are all ended before anything is read."""
    now = [1_800_000_000.0]
    ledger = process(clock=lambda: now[0])
    held = [await hold(ledger, f"{number}", 2, TOTAL) for number in range(350)]
    now[0] += 31
    assert await money(ledger) == {"total": (700, 0)}
    assert await ledger.holds() == []
    assert all([await ledger.settle(each, 1) for each in held[:50]])
    assert await money(ledger) == {"total": (650, 0)}
    with pytest.raises(ValueError, match="has ended"):
        await ledger.reserve("349", [offer(1)], [TOTAL])


async def test_another_process_repeats(process: Callable[..., RedisLedger]) -> None:
    """An id that is held is known to every process, and the same reservation is given."""
    one, two = process(), process()
    first = await one.reserve("a", [offer(5 * 10**9), offer(70)], [DAY, TOTAL])
    again = await two.reserve("a", [offer(5 * 10**9), offer(70)], [DAY, TOTAL])
    assert first == again
    assert await two.settle(first, 5)
    assert not await one.settle(first, 6)
    await hold(one, "b", 1, DAY)
    with pytest.raises(ValueError, match="other budgets"):
        await two.reserve("b", [offer(1)], [TOTAL])


def test_event_loop_swap(server: RedisServer) -> None:
    """One ledger serves loop after loop, and several threads at once, exactly."""
    ledger = RedisLedger(RedisStore(server.url, namespace=fresh_namespace(), timeout=5))
    line = Line("b", "a", 1_000, Window("total"))
    admitted: list[int] = []

    async def spend(number: int) -> None:
        for turn in range(30):
            found = await ledger.reserve(f"{number}-{turn}", [offer(7), offer(3)], [line])
            if isinstance(found, Reservation):
                await ledger.settle(found, found.cost)
                admitted.append(found.cost)

    threads = [threading.Thread(target=lambda number=number: asyncio.run(spend(number))) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 997 < sum(admitted) <= 1000
    assert asyncio.run(money(ledger)) == {"b": (sum(admitted), 0)}


FORK = """
import asyncio, os, sys
from tierline.budgets import Line
from tierline.ledger.redis import RedisLedger
from tierline.store.redis import RedisStore
from tierline.values import Offer
from tierline.windows import Window

ledger = RedisLedger(RedisStore(sys.argv[1], namespace=sys.argv[2], timeout=5))
line = Line("b", "a", 10**6, Window("total"))

async def spend(who):
    for number in range(20):
        held = await ledger.reserve(f"{who}-{number}", [Offer("haiku", "claude-haiku", 10)], [line])
        await ledger.settle(held, 1)

loop = asyncio.new_event_loop()
loop.run_until_complete(spend("before"))
child = os.fork()
if child == 0:
    asyncio.run(spend("child"))
    os._exit(0)
loop.run_until_complete(spend("parent"))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child failed"
loop.run_until_complete(spend("after"))
loop.run_until_complete(ledger.aclose())
loop.close()
"""


async def test_fork_after_client_use(server: RedisServer) -> None:
    """Parent and child go on with one ledger, each as a member of its own."""
    namespace = fresh_namespace()
    await asyncio.to_thread(
        run, [sys.executable, "-W", "error", "-c", FORK, server.url, namespace], check=True, timeout=60
    )
    ledger = RedisLedger(RedisStore(server.url, namespace=namespace, timeout=2))
    assert await money(ledger) == {"b": (80, 0)}
    with server.client() as client:
        assert client.zcard(f"{{{namespace}}}:members") == 3 - 1, "the parent has left"
    await ledger.aclose()


async def test_a_call_takes_one_round_trip(server: RedisServer, process: Callable[..., RedisLedger]) -> None:
    """A reservation and its settlement are two commands."""
    ledger = process()
    await ledger.settle(await hold(ledger, "first", 5, DAY, TOTAL), 5)
    with server.client() as client:
        client.config_resetstat()
        for number in range(10):
            await ledger.settle(await hold(ledger, f"{number}", 5, DAY, TOTAL), 5)
        calls = client.info("commandstats")
        assert calls["cmdstat_evalsha"]["calls"] == 20
        assert "cmdstat_eval" not in calls


async def test_what_was_posted_is_known_for_days(server: RedisServer, process: Callable[..., RedisLedger]) -> None:
    """A journal that a killed process left may be told twice, the second time when the app is started next week."""
    ledger = process()
    held = await hold(ledger, "a", 10, DAY)
    posted = held._replace(id="posted")
    assert await ledger.post(posted, 10)
    with server.client() as client:
        assert client.ttl(f"{{{ledger.store.namespace}}}:h:posted") > 6 * 86_400


async def test_an_account_outlives_its_window_on_a_clock_that_was_set_back(
    server: RedisServer, process: Callable[..., RedisLedger]
) -> None:
    """The server drops keys by its own clock: not before the window ends by that."""
    now = [DAY.window.span(time.time()).start + 6 * 3600.0]
    ledger = process(clock=lambda: now[0])
    await ledger.ping()
    now[0] -= 3 * 3600
    await hold(ledger, "a", 10, DAY)
    with server.client() as client:
        assert client.ttl(f'{{{ledger.store.namespace}}}:a:["day","global","day"]') >= 21 * 3600


async def test_nothing_stays_for_ever(server: RedisServer, process: Callable[..., RedisLedger]) -> None:
    """Every key but those of totals and of what is in flight goes by itself."""
    ledger = process()
    await ledger.settle(await hold(ledger, "a", 5, DAY), 5)
    await hold(ledger, "b", 5, DAY)
    prefix = ledger.store.prefix
    with server.client() as client:
        lasting = {key.decode().removeprefix(prefix) for key in client.keys(f"{prefix}*") if client.ttl(key) < 0}
    assert lasting == {"schema", "meta", "accounts", "leases", "members", "hours", "h:b"}


@pytest.mark.parametrize(("policy", "warned"), [("allkeys-lru", True), ("volatile-ttl", True), ("noeviction", False)])
async def test_a_server_that_evicts(policy: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    """A server that throws keys away when it is full would throw away what was spent: that is said, once."""
    with redis_server(maxmemory="100mb", maxmemory_policy=policy) as server:
        ledger = RedisLedger(RedisStore(server.url, timeout=2))
        for _ in range(3):
            await ledger.ping()
        assert [record.message.endswith(f"is {policy}; set noeviction") for record in caplog.records] == [True] * warned
        await ledger.aclose()


async def test_many_accounts(process: Callable[..., RedisLedger]) -> None:
    """A process that comes to a store with many accounts reads them in steps, and is not kept from working."""
    one, two = process(), process()
    lines = [Line("b", f"tenant {number}", 100, Window("total")) for number in range(1_300)]
    for line in lines:
        await one.settle(await hold(one, line.account, 5, line), 5)
    assert len(await two.balances()) == 1_300
    assert len(await two.balances("tenant 7")) == 1
    await two.ping()
    assert len(two._session.recall._totals) == 1_300


@pytest.mark.parametrize("options", [{"lease": 0}, {"lease": float("inf")}, {"retention": -1}, {"lease": "30"}])
def test_lengths_of_time_that_are_none(options: dict) -> None:
    """A lease or a retention that cannot be is named at start-up."""
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        RedisLedger("redis://localhost", **options)
