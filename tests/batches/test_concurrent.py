"""The concurrent lane, from end to end, over a socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, get_args

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.batches.world import World, params, requests, world
from tierline import Budget, policy
from tierline.attempts import Timing
from tierline.batches import BatchRequest
from tierline.batches.calling import Called, call
from tierline.batches.concurrent import AHEAD, CHUNK, Concurrent
from tierline.batches.pacing import MOST
from tierline.batches.values import Lane
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.testing import OK, Fault
from tierline.values import NANO

if TYPE_CHECKING:
    from collections.abc import Iterator


REAL = Timing()
"""Time as it is, for what does not wait for any: simulated time would pass while calls are on their way."""


class Flaky:
    """Hands steps on to a store, which is away at first: before it has done them, or when it has."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.away = ["known before", "add before", "add after"]

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)

        async def step(*args: Any, **options: Any) -> Any:
            self._fail(f"{name} before")
            answer = await found(*args, **options)
            self._fail(f"{name} after")
            return answer

        return step if name in ("known", "add") else found

    def _fail(self, where: str) -> None:
        if where in self.away:
            self.away.remove(where)
            raise LedgerUnavailableError("away")


def simulated(it: World) -> Timing:
    """Time that goes by when nobody has anything else to do, by all clocks."""
    return Timing(now=it.clock, perf=it.clock, sleep=it.clock.sleep, jitter=lambda: 0.5)


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: object) -> str:
    """A store that goes by the clock of a test."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/a.db"


both = pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)


@both
async def test_every_request_is_answered_once_in_order(store: str) -> None:
    """At the list price; what the ledger has is what was billed, and by account what the job's report says."""
    async with world(store) as it:
        router = it.router(timing=REAL)
        said = [*requests(60, tenant="acme"), *requests(60, 60, policy=policy(tier="opus"))]
        job = await router.batches.submit(said, job="now", lane="concurrent")
        done = await router.batches.status(job)
        assert (done.state, done.submitted, done.succeeded, done.processing) == ("ended", 120, 120, 0)
        found = [each async for each in router.batches.results(job)]
        assert [(each.custom_id, each.place, each.outcome, each.tries) for each in found] == [
            (f"r{n}", n, "succeeded", 1) for n in range(120)
        ]
        assert all(each.message is not None and each.message.content for each in found)
        assert {each.tier for each in found[:60]} == {"haiku"}
        assert {each.model for each in found[60:]} == {"claude-opus-4-8"}
        assert done.cost == sum(each.cost for each in found) == it.fake.billed == await it.spent(router)
        report = await router.batches.report(job)
        assert {(each.tenant, each.tier): each.cost for each in report.shares} == {
            ("acme", "haiku"): sum(each.cost for each in found[:60]),
            (None, "opus"): sum(each.cost for each in found[60:]),
        }
        assert report.total.saved > 0
        await router.batches.delete(job)


async def test_results_come_while_it_runs_and_none_is_passed_over() -> None:
    """They are read in their order by another task; what is invalid, or comes twice, has its place among them."""
    async with world() as it:
        router = it.router(timing=REAL)
        said: list[object] = [*requests(120)]
        said[7], said[60] = {"custom_id": "bad", "params": {"model": "auto"}}, "no request"
        said[90] = BatchRequest("bad", params())
        said[119] = BatchRequest("r3", params())
        told: list[tuple[int, str | None]] = []
        submitting = asyncio.create_task(
            router.batches.submit(
                said, job="j", lane="concurrent", told=lambda place, name, _: told.append((place, name))
            )
        )
        await it.fake.until(lambda seen: len(seen) >= 1)
        found = [each async for each in router.batches.results("j")]
        await submitting
        assert [each.place for each in found] == list(range(120))
        wrong = {each.place: (each.custom_id, each.error or "") for each in found if each.outcome == "invalid"}
        assert sorted(wrong) == [7, 60, 90, 119]
        assert wrong[7][0] == "bad"
        assert "no Messages request" in wrong[7][1]
        assert wrong[90] == (None, "custom_id 'bad' is that of request 7, too")
        assert wrong[119] == (None, "custom_id 'r3' is that of request 3, too")
        assert sorted(told) == [(7, "bad"), (60, None), (90, None), (119, None)]
        assert len(it.fake.requests) == 116


async def test_it_stays_within_the_rate_limits() -> None:
    """A minute's requests at once, the rest as the limit renews; nothing is answered with a 429, or goes elsewhere."""
    async with world(limits={"requests": 60}) as it:
        router = it.router(timing=simulated(it))
        began = it.clock.now
        job = await router.batches.submit(requests(120), lane="concurrent")
        assert (await router.batches.status(job)).succeeded == 120
        assert {each.status for each in it.fake.requests} == {200}
        assert {each.model for each in it.fake.requests} == {"claude-haiku-4-5"}
        assert 60 <= it.clock.now - began < 90


async def test_a_job_of_few_is_done_before_one_of_many_that_came_first() -> None:
    """Accounts take turns over all jobs of a process."""
    async with world() as it:
        router = it.router(timing=REAL)
        many = asyncio.create_task(router.batches.submit(requests(300, tenant="many"), job="many", lane="concurrent"))
        await it.fake.until(lambda seen: len(seen) >= 1)
        await router.batches.submit(requests(5, tenant="few"), job="few", lane="concurrent")
        assert not many.done()
        assert (await router.batches.status("few")).succeeded == 5
        await many
        assert (await router.batches.status("many")).succeeded == 300


async def test_what_has_no_room_is_refused_when_nothing_is_on_its_way() -> None:
    """Calls in flight hold more than they cost: what has no room beside them is not refused for that."""
    async with world() as it:
        probe = it.router(timing=REAL, store="memory://")
        job = await probe.batches.submit(requests(1), lane="concurrent")
        cost = (await probe.batches.status(job)).cost
        router = it.router(timing=REAL, store="memory://", budgets=[Budget(f"${20 * cost / 1e9:.9f}")])
        job = await router.batches.submit(requests(40), lane="concurrent")
        found = [each async for each in router.batches.results(job)]
        spent = await it.spent(router)
        good = sum(each.outcome == "succeeded" for each in found)
        assert {each.outcome for each in found} == {"succeeded", "refused"}
        assert all("budget" in (each.error or "") for each in found if each.outcome == "refused")
        assert spent == sum(each.cost for each in found) <= 20 * cost
        assert good >= 10


async def test_what_has_no_room_waits_until_its_budget_renews() -> None:
    """With `when_full="defer"`: all is answered, in as many windows as it takes: three, for at most four fit in one."""
    async with world() as it:
        probe = it.router(timing=simulated(it), store="memory://")
        worst = (await probe.batches.preview(requests(1), lane="concurrent")).total.worst
        job = await probe.batches.submit(requests(1), lane="concurrent")
        cost = (await probe.batches.status(job)).cost
        budgets = [Budget(f"${(worst + 3 * cost) / 1e9:.9f}/minute")]
        router = it.router(timing=simulated(it), store="memory://", budgets=budgets)
        began = it.clock.now
        job = await router.batches.submit(requests(9), lane="concurrent", when_full="defer")
        assert (await router.batches.status(job)).succeeded == 9
        assert it.clock.now - began > 60


async def test_what_never_has_room_is_refused() -> None:
    """Also where requests that have none wait: a budget that renews would not have more."""
    async with world() as it:
        for lane in get_args(Lane):
            worst = (await it.router().batches.preview(requests(1), lane=lane)).total.worst
            budgets = [Budget(f"${(worst - 1) / 1e9:.9f}/minute")]
            router = it.router(timing=simulated(it), store="memory://", budgets=budgets)
            job = await router.batches.submit(requests(2), lane=lane, when_full="defer")
            done = await router.batches.wait(job)
            assert (done.state, done.refused, done.deferred) == ("ended", 2, 0), lane
            assert await it.spent(router) == 0


async def test_what_the_api_fails_is_tried_again_within_a_bound() -> None:
    """Then it is reported, with how often it was sent; the others go on."""
    async with world() as it:
        router = it.router(timing=simulated(it))
        it.fake.script(*[Fault.error(500)] * 3)
        found = [
            each
            async for each in router.batches.results(
                await router.batches.submit(requests(1, policy=policy(tier="haiku")), lane="concurrent")
            )
        ]
        assert [(each.outcome, each.tries) for each in found] == [("errored", 3)]
        assert (found[0].error or "").startswith("api_error")
        it.fake.script(Fault.overloaded(), Fault.rate_limit(retry_after=30))
        job = await router.batches.submit(requests(1, policy=policy(tier="haiku")), lane="concurrent")
        (result,) = [each async for each in router.batches.results(job)]
        assert (result.outcome, result.tries) == ("succeeded", 3)


async def test_for_a_limit_it_waits_and_goes_to_no_dearer_tier() -> None:
    """After a 429 nothing is sent to that model until the API said, and then it is sent there."""
    async with world() as it:
        router = it.router(timing=simulated(it))
        it.fake.script(Fault.rate_limit(retry_after=30))
        began = it.clock.now
        job = await router.batches.submit(requests(1), lane="concurrent")
        (result,) = [each async for each in router.batches.results(job)]
        assert (result.outcome, result.tier, result.tries) == ("succeeded", "haiku", 2)
        assert {each.model for each in it.fake.requests} == {"claude-haiku-4-5"}
        assert it.clock.now - began >= 30


async def test_a_key_that_is_rejected_stops_the_job() -> None:
    """It is said, what was answered is kept, and submitted again it goes on."""
    async with world() as it:
        router = it.router(timing=REAL)
        it.fake.script(*[OK] * 8, *[Fault.error(401, "invalid x-api-key")] * 60)
        with pytest.raises(ConfigurationError, match="takes no calls: authentication_error"):
            await router.batches.submit(requests(80), job="j", lane="concurrent")
        status = await router.batches.status("j")
        assert (status.state, status.succeeded) == ("interrupted", 8)
        assert status.cost == it.fake.billed == await it.spent(router)
        it.fake.clear()
        await router.batches.submit(requests(80), job="j", lane="concurrent")
        found = [each async for each in router.batches.results("j")]
        assert [each.place for each in found] == list(range(80))
        assert {each.outcome for each in found} == {"succeeded"}
        assert sum(each.cost for each in found) == it.fake.billed == await it.spent(router)


@both
async def test_a_job_that_is_cancelled_sends_nothing_more(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was on its way is answered, and paid for; each of the others says that it was canceled."""
    noticed, cancel = asyncio.Event(), Concurrent.cancel

    def cancelled(run: Concurrent) -> None:
        cancel(run)
        noticed.set()

    async def slow(*given: Any) -> Called:
        found = await call(*given)
        await noticed.wait()  # or a machine that is fast enough is done before anybody looks
        return found

    monkeypatch.setattr(Concurrent, "cancel", cancelled)
    monkeypatch.setattr("tierline.batches.concurrent.call", slow)
    async with world(store) as it:
        router = it.router(timing=REAL)
        submitting = asyncio.create_task(router.batches.submit(requests(400), job="j", lane="concurrent"))
        await it.fake.until(lambda seen: len(seen) >= 5)
        # Another process: that is noticed within seconds; here it would be at once.
        await (router if store == "memory://" else it.router(timing=REAL)).batches.cancel("j")
        await submitting
        found = [each async for each in router.batches.results("j")]
        assert [each.place for each in found] == list(range(400))
        good = [each for each in found if each.outcome == "succeeded"]
        assert {each.outcome for each in found} == {"succeeded", "canceled"}
        assert len(good) == len(it.fake.requests)
        assert sum(each.cost for each in found) == it.fake.billed == await it.spent(router)


async def test_a_job_that_was_deleted_under_its_run_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """By who took it for cut off, when its process had stood still: it can be submitted to again as any other."""
    going = asyncio.Event()

    async def slow(*given: Any) -> Called:
        await going.wait()
        return await call(*given)

    monkeypatch.setattr("tierline.batches.concurrent.call", slow)
    async with world() as it:
        router = it.router(timing=simulated(it))
        batches = router.batches
        submitting = asyncio.create_task(batches.submit(requests(5), job="j", lane="concurrent"))
        while "j" not in batches._running:
            await it.clock.sleep(0.1)
        await batches._store.finish("j", batches._running["j"]._owner, whole=False)
        await batches.delete("j")
        while not await batches.jobs():
            await it.clock.sleep(1)
        going.set()
        await submitting
        await batches.submit(requests(6), job="j", lane="concurrent")
        assert [each.outcome async for each in batches.results("j")] == ["succeeded"] * 6
        assert len(it.fake.requests) == 6


@both
async def test_a_job_that_is_cut_off_goes_on_when_it_is_submitted_again(store: str) -> None:
    """As by Ctrl-C: what was answered is there, and is not asked for again."""
    async with world(store) as it:
        router = it.router(timing=REAL)
        submitting = asyncio.create_task(router.batches.submit(requests(150), job="j", lane="concurrent"))
        await it.fake.until(lambda seen: sum(each.ended == "complete" for each in seen) >= 10)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
        status = await router.batches.status("j")
        assert status.state == "interrupted"
        assert 0 < status.succeeded < 150
        sent = len(it.fake.requests)
        assert sent - status.succeeded <= MOST
        with pytest.raises(ConfigurationError, match=r"another lane: go on with submit\(lane='concurrent'\)"):
            await router.batches.submit(requests(150), job="j")
        await router.batches.submit(requests(150), job="j", lane="concurrent")
        found = [each async for each in router.batches.results("j")]
        assert [(each.place, each.outcome) for each in found] == [(n, "succeeded") for n in range(150)]
        assert len(it.fake.requests) - sent == 150 - status.succeeded
        assert all(each.held == 0 for each in await router.balances())


async def test_it_reads_no_further_ahead_than_it_must() -> None:
    """Of a long iterable there are never more than a thousand in memory."""
    async with world() as it:
        router = it.router(timing=REAL)
        read = 0

        def long() -> Iterator[BatchRequest]:
            nonlocal read
            for request in requests(2_000):
                read += 1
                yield request

        submitting = asyncio.create_task(router.batches.submit(long(), job="j", lane="concurrent"))
        await it.fake.until(lambda seen: sum(each.ended == "complete" for each in seen) >= 50)
        assert read <= AHEAD + CHUNK + sum(each.ended != "open" for each in it.fake.requests)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting


async def test_what_is_wrong_with_the_iterable_is_raised() -> None:
    """As it is; what was read by then may be submitted again."""
    async with world() as it:
        router = it.router(timing=REAL)

        def broken() -> Iterator[BatchRequest]:
            yield from requests(60)
            raise OSError("the disk")

        with pytest.raises(OSError, match="the disk"):
            await router.batches.submit(broken(), job="j", lane="concurrent")
        status = await router.batches.status("j")
        assert status.state == "interrupted"
        assert status.cost == it.fake.billed == await it.spent(router)
        await router.batches.submit(requests(60), job="j", lane="concurrent")
        assert (await router.batches.status("j")).succeeded == 60


async def test_a_store_that_is_away_is_waited_for() -> None:
    """What was answered is written down when it is back, once, also where it was and nobody was told."""
    async with world() as it:
        router = it.router(timing=simulated(it))
        batches: Any = router.batches
        batches._store = Flaky(batches._store)
        await batches.submit(requests(60), job="j", lane="concurrent")
        assert (await batches.status("j")).succeeded == len(it.fake.requests) == 60
        assert batches._store.away == []


async def test_a_lane_that_is_none_is_refused() -> None:
    """With those that are."""
    async with world() as it:
        with pytest.raises(ConfigurationError, match="write one of batch, concurrent"):
            await it.router(timing=REAL).batches.submit(requests(1), lane="fast")  # type: ignore[arg-type]


async def test_the_spans_of_calls_are_below_one_of_the_job() -> None:
    """With what came of it, and no prompt."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with world() as it:
        router = it.router(timing=REAL, tracer_provider=provider)
        with provider.get_tracer("app").start_as_current_span("labels") as around:
            await router.batches.submit([*requests(3), "no request"], job="j", lane="concurrent")
        cost = it.fake.billed
    made = spans.get_finished_spans()
    (job,) = [span for span in made if span.name == "submit calls"]
    routes = [span for span in made if span.name == "route haiku"]
    assert job.parent is not None
    assert job.parent.span_id == around.get_span_context().span_id
    assert dict(job.attributes or {}) == {
        "tierline.batch.job": "j", "tierline.batch.requests": 4, "tierline.batch.succeeded": 3,
        "tierline.batch.invalid": 1, "tierline.cost.usd": cost / NANO,
    }  # fmt: skip
    assert len(routes) == 3
    assert {span.parent.span_id for span in routes if span.parent} == {job.context.span_id}
    assert not any("say" in str(span.attributes) for span in made)
