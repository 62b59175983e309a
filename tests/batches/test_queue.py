"""Requests that are deferred one by one: batched, called where a deadline comes near, answered once."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from tests.batches.world import broken, params, world
from tierline import Budget, policy
from tierline.batches import BatchRequest, Queue
from tierline.batches.calling import Called, call
from tierline.classify import FixedClassifier
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.testing import Fault
from tierline.values import NANO

if TYPE_CHECKING:
    from tests.batches.world import World
    from tierline import Router
    from tierline.batches import Deferred

HOUR = 3600.0


async def answer(router: Router, handle: str) -> Deferred:
    """A request when it is answered."""
    keeper = router.batches._deferring.keeper()
    while (found := await router.batches.deferred(handle)) is not None and found.state == "pending":
        await keeper.turned()
    assert found is not None
    return found


async def sent(it: World, router: Router) -> None:
    """Wait until a batch is there."""
    keeper = router.batches._deferring.keeper()
    while not it.fake.batches:
        await keeper.turned()


def request(name: str = "r", **more: Any) -> BatchRequest:
    return BatchRequest(name, params(f"say {name}"), **more)


def called(it: World) -> int:
    """Usual calls that were made."""
    return sum(each.path == "/v1/messages" for each in it.fake.requests)


async def test_requests_are_answered_from_one_batch() -> None:
    """At half the price, each with its own answer; what was asked is gone, and nothing is left of the job."""
    async with world() as it:
        router = it.router(queue=Queue(max_wait="10m"))
        begun = it.clock.now
        handles = [await router.batches.defer(request(f"r{n}")) for n in range(3)]
        found = [await answer(router, handle) for handle in handles]
        assert [each.custom_id for each in found] == ["r0", "r1", "r2"]
        assert all(each.result is not None and each.result.outcome == "succeeded" for each in found)
        assert all(each.result is not None and each.result.message is not None for each in found)
        assert len(set(handles)) == 3
        assert it.clock.now - begun >= 600
        assert [sum(batch.counts.values()) for batch in it.fake.batches] == [3]
        assert called(it) == 0
        assert await it.spent(router) == it.fake.billed > 0
        while await router.batches.jobs():
            await router.batches._deferring.keeper().turned()
        kept = await router.batches._deferring._store.get(handles[0])
        assert kept is not None
        assert kept.request is None


async def test_a_batch_goes_out_when_it_is_full() -> None:
    """Nobody waits for the clock then; what is left over waits for its own."""
    async with world() as it:
        router = it.router(queue=Queue(size=2, max_wait="40m"))
        begun = it.clock.now
        handles = [await router.batches.defer(request(f"r{n}")) for n in range(5)]
        for handle in handles[:4]:
            await answer(router, handle)
        assert it.clock.now - begun < HOUR / 2
        await answer(router, handles[4])
        assert it.clock.now - begun > HOUR / 2
        assert [sum(batch.counts.values()) for batch in it.fake.batches] == [2, 2, 1]


async def test_a_request_is_called_when_its_deadline_comes_near() -> None:
    """It goes into no batch that could not come back in time."""
    async with world(batch_delay=HOUR / 6) as it:
        router = it.router(queue=Queue(max_wait="10h"))
        handle = await router.batches.defer(request(), within="6m")
        # A batch has until three minutes before the deadline; this one goes out 90 s before that, and takes too long.
        found = await answer(router, handle)
        assert found.result is not None
        assert (found.result.outcome, found.result.tier) == ("succeeded", "haiku")
        assert called(it) == 1
        while await router.batches.jobs():
            await router.batches._deferring.keeper().turned()
        assert [batch.counts["canceled"] for batch in it.fake.batches] == [1]
        assert await it.spent(router) == it.fake.billed > 0


async def test_what_leaves_a_batch_no_time_is_called_at_once() -> None:
    """It would be back too late, and be paid in vain."""
    async with world() as it:
        router = it.router()
        found = await answer(router, await router.batches.defer(request(), within="299s"))
        assert found.result is not None
        assert found.result.outcome == "succeeded"
        assert (called(it), it.fake.batches) == (1, [])


async def test_a_batch_that_is_cancelled_in_time_is_not_paid() -> None:
    """What it gives back is called, and nothing of it was billed."""
    async with world(batch_delay=20 * HOUR) as it:
        router = it.router(queue=Queue(max_wait="1m"))
        handle = await router.batches.defer(request(), within="70m")
        await sent(it, router)
        it.fake._batches._delay = 2.0  # to cancel takes a second
        found = await answer(router, handle)
        assert found.result is not None
        assert (found.result.outcome, called(it)) == ("succeeded", 1)
        assert it.clock.now < found.deadline - 900
        assert [batch.counts["canceled"] for batch in it.fake.batches] == [1]
        assert await it.spent(router) == it.fake.billed == it.fake.requests[-1].billed


async def test_a_batch_that_is_cancelled_takes_nobody_along() -> None:
    """Whose deadline is later waits for another batch, and is not called."""
    async with world(batch_delay=HOUR) as it:
        router = it.router(queue=Queue(max_wait="1m"))
        soon = await router.batches.defer(request("soon"), within="40m")
        late = await router.batches.defer(request("late"), within="24h")
        await sent(it, router)
        it.fake._batches._delay = 60.0
        await answer(router, soon)
        assert called(it) == 1
        found = await answer(router, late)
        assert found.result is not None
        assert found.result.outcome == "succeeded"
        assert called(it) == 1
        assert len(it.fake.batches) == 2
        assert await it.spent(router) == it.fake.billed


async def test_hours_that_are_cheap_are_waited_for() -> None:
    """Where the deadline leaves time for a batch then; else it goes out at once."""
    from datetime import UTC, datetime, timedelta

    async with world() as it:
        now = datetime.fromtimestamp(it.clock.now, UTC)
        opens = (now + timedelta(hours=2)).replace(minute=0, second=0, microsecond=0)
        hours = f"{opens:%H:%M}-{opens + timedelta(hours=2):%H:%M}"
        router = it.router(queue=Queue(max_wait="5m", off_peak=hours))
        patient = await router.batches.defer(request("patient"), within="12h")
        hurried = await router.batches.defer(request("hurried"), within="2h")
        await answer(router, hurried)
        assert it.clock.now < opens.timestamp()
        await answer(router, patient)
        assert opens.timestamp() <= it.clock.now < opens.timestamp() + HOUR
        assert called(it) == 0


async def test_a_budget_without_room_is_an_answer() -> None:
    """Nothing is sent, and nobody has to ask why it does not come."""
    async with world() as it:
        router = it.router(budgets=[Budget("$0.000001")], queue=Queue(max_wait="1m"))
        found = await answer(router, await router.batches.defer(request()))
        assert found.result is not None
        assert found.result.outcome == "refused"
        assert "$0.000001" in str(found.result.error)
        assert it.fake.batches == []


async def test_a_budget_that_renews_may_be_waited_for() -> None:
    """In the batch, as requests of any job do."""
    async with world() as it:
        router = it.router(budgets=[Budget("$0.001/hour")], queue=Queue(max_wait="1s"))
        handles = [await router.batches.defer(request(f"r{n}"), within="12h", when_full="defer") for n in range(4)]
        found = [await answer(router, handle) for handle in handles]
        assert [each.result.outcome for each in found if each.result] == ["succeeded"] * 4
        assert called(it) == 0
        assert len(it.fake.batches) > 1
        assert await it.spent(router) <= it.fake.billed


async def test_a_budget_is_not_waited_for_past_the_deadline() -> None:
    """Then the refusal is the answer."""
    async with world() as it:
        worst = (await it.router().batches.preview([request()])).total.worst
        router = it.router(budgets=[Budget(f"${worst / NANO:.9f}/24h rolling")], queue=Queue(max_wait="1s"))
        await answer(router, await router.batches.defer(request(), within="40m"))
        begun, sent = it.clock.now, len(it.fake.requests)
        found = await answer(router, await router.batches.defer(request(), within="40m", when_full="defer"))
        assert found.result is not None
        assert found.result.outcome == "refused"
        assert it.clock.now - begun >= HOUR / 3
        assert (len(it.fake.requests), len(it.fake.batches)) == (sent, 1)


async def test_what_held_then_holds_when_it_is_sent() -> None:
    """Tenant, route, policies from blocks and requests, and accounts that only the request could tell."""
    async with world() as it:
        budgets = [
            Budget("$1/day", name="users", per=lambda scope: str(scope["user"])),
            Budget("$1", per="run", name="runs"),
            Budget("$1/day", per="tenant", name="tenants"),
        ]
        router = it.router(budgets=budgets, queue=Queue(max_wait="1m"))
        async with router.bind(tenant="acme", route="/later", run="nightly") as binding:
            binding.scope = {"type": "http", "user": "ada"}
            with policy(floor="opus", tags={"team": "a"}):
                batched = await router.batches.defer(request("b", policy=policy(max_tokens=5)))
                urgent = await router.batches.defer(request("u", policy=policy(max_tokens=5)), within="1s")
            binding.scope = None
        for handle in (urgent, batched):
            found = await answer(router, handle)
            assert found.tenant == "acme"
            assert found.result is not None
            assert found.result.tier == "opus"
            assert found.result.message is not None
            assert found.result.message.usage.output_tokens <= 5
        balances = {(each.budget, each.account): each.spent for each in await router.balances()}
        assert set(balances) == {("users", "ada"), ("runs", "acme/nightly"), ("tenants", "acme")}
        assert set(balances.values()) == {it.fake.billed}


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (policy(classifier=FixedClassifier("simple")), "classifier"),
        (policy(budgets=[Budget(lambda _: "$1/day", name="plans")]), "plans"),
        (policy(budgets=[Budget("$1/day", per=lambda _: "a", name="users")]), "users"),
    ],
)
async def test_what_cannot_be_kept_is_said_at_once(rule: Any, word: str) -> None:
    """A function or an object of this process is not there for the one that sends it."""
    async with world() as it:
        router = it.router()
        with pytest.raises(ConfigurationError, match=word):
            await router.batches.defer(request(policy=rule))
        assert await router.batches._deferring._store.next([]) is None


@pytest.mark.parametrize(
    ("given", "options", "word"),
    [
        (3, {}, "BatchRequest"),
        (BatchRequest("", params()), {}, "custom_id"),
        (BatchRequest("r", {"model": "auto"}), {}, "messages"),
        (BatchRequest("r", params(stream=True)), {}, "stream"),
        (BatchRequest("r", params(metadata=object())), {}, "JSON"),
        (BatchRequest("r", params()), {"within": "soon"}, "within"),
        (BatchRequest("r", params()), {"within": "0s"}, "within"),
        (BatchRequest("r", params()), {"within": "30d"}, "29 days"),
        (BatchRequest("r", params()), {"when_full": "wait"}, "when_full"),
        (BatchRequest("r", params()), {"to": "nobody"}, "deliver_to"),
        (BatchRequest("r", params(), accounts={"users": 3}), {}, "accounts"),  # type: ignore[dict-item]
    ],
)
async def test_bad_input_is_told(given: Any, options: dict[str, Any], word: str) -> None:
    """With what to write instead, and nothing is kept."""
    async with world() as it:
        router = it.router()
        with pytest.raises(ConfigurationError, match=word):
            await router.batches.defer(given, **options)
        assert await router.batches._deferring._store.next([]) is None


@pytest.mark.parametrize(
    "given",
    [
        {"size": 0}, {"size": 10_001}, {"max_wait": "x"}, {"max_wait": 5}, {"margin": "-1m"}, {"keep": ""},
        {"off_peak": "22-6"}, {"off_peak": "22:00-22:00"}, {"off_peak": "24:00-06:00"}, {"off_peak": "10:61-11:00"},
        {"off_peak": 5}, {"timezone": "Mars/Olympus"},
    ],
)  # fmt: skip
def test_settings_that_cannot_be(given: dict[str, Any]) -> None:
    """Are refused when they are made."""
    with pytest.raises(ConfigurationError):
        Queue(**given)


async def test_a_handle_is_of_its_tenant() -> None:
    """Another is told that there is none, and cannot take it away; nor can one that was made up be told from it."""
    async with world() as it:
        router = it.router(queue=Queue(max_wait="1h"))
        batches = router.batches
        handle = await batches.defer(request(tenant="acme"))
        assert len(handle) == 32
        assert await batches.deferred(handle) is not None
        for tenant, known in (("acme", True), ("globex", False), (None, False)):
            async with router.bind(tenant=tenant):
                assert (await batches.deferred(handle) is not None) is known
                if not known:
                    assert not await batches.forget(handle)
        assert await batches.deferred(handle, tenant="globex") is None
        for wrong in (handle[:-1], handle + "A", "", "ü", "x" * 5000, None):
            assert await batches.deferred(wrong) is None  # type: ignore[arg-type]
        assert await batches.forget(handle, tenant="acme")
        assert await batches.deferred(handle) is None


async def test_what_is_forgotten_in_time_is_not_sent() -> None:
    """What is in a batch by then is answered into nothing, and paid for; its companions are answered."""
    async with world() as it:
        router = it.router(queue=Queue(max_wait="1m", size=2))
        first = await router.batches.defer(request("first"))
        assert await router.batches.forget(first)
        handles = [await router.batches.defer(request(f"r{n}")) for n in range(2)]
        await sent(it, router)
        assert await router.batches.forget(handles[0])
        assert (await answer(router, handles[1])).result is not None
        assert [sum(batch.counts.values()) for batch in it.fake.batches] == [2]
        while await router.batches.jobs():
            await router.batches._deferring.keeper().turned()
        assert await it.spent(router) == it.fake.billed


async def test_what_is_a_tenants_is_erased_with_it() -> None:
    """What waits and what was answered; others keep theirs."""
    async with world() as it:
        router = it.router(queue=Queue(max_wait="1h", size=2))
        batches = router.batches
        handles = {name: await batches.defer(request(name, tenant=name)) for name in ("acme", "globex")}
        for handle in handles.values():
            await answer(router, handle)
        waits = await batches.defer(request("later", tenant="acme"))
        await router.erase("acme")
        assert await batches.deferred(handles["acme"]) is None
        assert await batches.deferred(waits) is None
        assert (await answer(router, handles["globex"])).result is not None


async def test_answers_are_kept_for_a_time() -> None:
    """And then forgotten, by whoever looks next."""
    async with world() as it:
        router = it.router(queue=Queue(max_wait="1m", keep="1h"))
        old = await router.batches.defer(request("old"))
        await answer(router, old)
        it.clock.now += 2 * HOUR
        new = await router.batches.defer(request("new"))
        await answer(router, new)
        assert await router.batches.deferred(old) is None
        assert await router.batches.deferred(new) is not None


async def test_a_call_that_may_succeed_later_is_tried_within_the_deadline() -> None:
    """An API that is busy when a deadline comes near is asked again; what it answers last is the answer."""
    async with world(batch_delay=20 * HOUR) as it:
        router = it.router()
        it.fake.script(*[Fault.overloaded()] * 4)
        found = await answer(router, await router.batches.defer(request(), within="299s"))
        assert found.result is not None
        assert found.result.outcome == "succeeded"
        assert called(it) >= 5


async def test_a_call_that_the_apps_client_breaks(caplog: pytest.LogCaptureFixture) -> None:
    """What a middleware of the app's own raises may quote the prompt: the log and the result have its kind."""
    caplog.set_level(logging.DEBUG, "tierline")
    async with world() as it:
        router = it.router(middleware=[broken])
        found = await answer(router, await router.batches.defer(request("canary"), within="299s"))
    assert found.result is not None
    assert (found.result.outcome, found.result.error) == ("errored", "RuntimeError")
    assert "RuntimeError" in caplog.text
    assert "canary" not in caplog.text


async def test_a_keeper_calls_what_it_is_calling_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its leases have ended meanwhile, for the store was away: a second call would be paid, too."""
    async with world() as it:
        router = it.router()
        batches = router.batches._deferring
        keeper, going, begun = batches.keeper(), asyncio.Event(), 0

        async def away(*_: Any) -> None:
            raise LedgerUnavailableError("away")

        async def slow(*given: Any) -> Called:
            nonlocal begun
            begun += 1
            await going.wait()
            return await call(*given)

        monkeypatch.setattr(batches._store, "keep", away)
        monkeypatch.setattr("tierline.batches.queue.work.call", slow)
        handle = await router.batches.defer(request(), within="299s")
        ended = it.clock.now + 3 * router.ledger.lease
        while it.clock.now < ended:
            await keeper.turned()
        going.set()
        assert (await answer(router, handle)).state == "answered"
        assert (begun, called(it)) == (1, 1)
