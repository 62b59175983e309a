"""Jobs from end to end: over a socket, with the fake's Batches API, on every store."""

from __future__ import annotations

import asyncio

import pytest

from tests.batches.world import LADDER, params, requests, world
from tierline import Budget, policy
from tierline.batches import BatchRequest
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.testing import Fault
from tierline.values import Usage


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: object) -> str:
    """A store that goes by the clock of a test."""
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/a.db"


both = pytest.mark.parametrize("store", ["memory", "sqlite"], indirect=True)


@both
async def test_every_request_is_answered_once_in_order_at_half_price(store: str) -> None:
    """What the ledger has is what was billed, which is half of what the calls would have cost; payloads are gone."""
    async with world(store) as it:
        router = it.router()
        it.clock.stopped = True
        job = await router.batches.submit(requests(30, tenant="acme"), job="nightly")
        assert job == "nightly"
        before = await router.batches.status(job)
        assert (before.state, before.submitted, before.processing) == ("in_progress", 30, 30)
        assert sum(each.held for each in await router.balances("global")) > 0
        it.clock.go()
        found = [each async for each in router.batches.results(job)]
        assert [(each.custom_id, each.place, each.outcome) for each in found] == [
            (f"r{n}", n, "succeeded") for n in range(30)
        ]
        assert all(each.message is not None and each.message.content for each in found)
        assert {(each.tier, each.model, each.tries) for each in found} == {("haiku", "claude-haiku-4-5", 1)}
        assert sum(each.cost for each in found) == it.fake.billed == await it.spent(router)
        answer = await router.claude.messages.create(**params("say 1"))
        assert it.fake.requests[-1].billed == 2 * found[1].cost
        assert answer.usage.output_tokens == found[1].message.usage.output_tokens  # type: ignore[union-attr]
        done = await router.batches.status(job)
        assert (done.state, done.succeeded, done.cost, done.done) == ("ended", 30, sum(e.cost for e in found), True)
        assert await router.batches.wait(job) == done
        (spent,) = [each for each in (await router.history(0)).rows if each.tenant == "acme"]
        assert (spent.tier, spent.cost) == ("haiku", done.cost)
        await router.batches.delete(job)
        assert await router.batches.jobs() == []


async def test_each_request_has_its_own_policy_route_and_tenant() -> None:
    """Floors, pins, labels; what another one may do is no reason."""
    async with world() as it:
        router = it.router()
        said = [
            BatchRequest("floor", params(), policy=policy(floor="opus")),
            BatchRequest("label", params(), policy=policy(label="complex")),
            BatchRequest("plain", params(), tenant="a", route="/x"),
            BatchRequest("id", params(model="claude-opus-4-8"), tenant="b"),
            BatchRequest("ceiling", params(model="claude-opus-4-8"), policy=policy(ceiling="haiku")),
        ]
        with policy(max_tokens=7):
            job = await router.batches.submit(said)
        found = {each.custom_id: each async for each in router.batches.results(job)}
        assert {name: each.tier for name, each in found.items()} == {
            "floor": "opus", "label": "opus", "plain": "haiku", "id": "opus", "ceiling": "haiku",
        }  # fmt: skip
        assert all(each.message and each.message.usage.output_tokens <= 7 for each in found.values())
        rows = {(each.tenant, each.route, each.tier): each.cost for each in (await router.history(0)).rows}
        assert rows["a", "/x", "haiku"] == found["plain"].cost
        assert rows["b", None, "opus"] == found["id"].cost


@both
async def test_traffic_has_what_the_ledger_has(store: str) -> None:
    """What batches cost is counted once, at its tier, route and account."""
    async with world(store) as it:
        router = it.router(traffic=True)
        said = [*requests(5, tenant="acme", route="/x"), *requests(5, 5, tenant="globex", policy=policy(tier="opus"))]
        await router.batches.wait(await router.batches.submit(said))
        history, traffic = await router.history(0), await router.traffic(0)
        assert traffic.total.cost == history.total.cost == it.fake.billed > 0
        for what, found in (
            ("tier", traffic.by_tier), ("route", traffic.by_route), ("account", traffic.by_account),
        ):  # fmt: skip
            assert {name: each.cost for name, each in found.items()} == {
                name: each.cost for name, each in history.by(what).items()
            }


async def test_the_tenant_of_the_job_around_holds_for_requests_without_one() -> None:
    """What is submitted inside of `router.bind` is for whom that says."""
    async with world() as it:
        router = it.router()
        async with router.bind(tenant="acme"):
            job = await router.batches.submit(requests(2))
        await router.batches.wait(job)
        assert [each.spent for each in await router.balances("acme")] == [it.fake.billed]


@both
async def test_what_has_no_room_is_refused_one_by_one(store: str) -> None:
    """As many as fit go, at batch prices; the rest is told, and holds nothing."""
    async with world(store) as it:
        router = it.router()
        it.clock.stopped = True
        job = await router.batches.submit(requests(1))
        (hold,) = [each.held for each in await router.balances("global") if each.window == "day"]
        it.clock.go()
        await router.batches.wait(job)
        tight = it.router(store="memory://", budgets=[Budget(f"${10 * hold / 1e9:.9f}")])
        job = await tight.batches.submit(requests(25))
        found = [each async for each in tight.batches.results(job)]
        outcomes = [each.outcome for each in found]
        assert sorted(outcomes) == ["refused"] * 15 + ["succeeded"] * 10
        assert "budget" in (found[-1].error or "")
        assert sum(each.cost for each in found) == await it.spent(tight)


@both
async def test_what_has_no_room_waits_until_its_budget_renews(store: str) -> None:
    """With `when_full="defer"`: the rest goes out in the next windows, and all is answered."""
    async with world(store) as it:
        probe = it.router(store="memory://")
        it.clock.stopped = True
        await probe.batches.submit(requests(1))
        (hold,) = [each.held for each in await probe.balances("global") if each.window == "day"]
        router = it.router(budgets=[Budget(f"${4 * hold / 1e9:.9f}/minute")])
        it.clock.stopped = True
        job = await router.batches.submit(requests(9), when_full="defer")
        status = await router.batches.status(job)
        assert (status.deferred, status.processing) == (5, 9)
        it.clock.go()
        found = [each async for each in router.batches.results(job)]
        assert [each.outcome for each in found] == ["succeeded"] * 9
        assert len(it.fake.batches) >= 3


@both
async def test_what_is_no_request_is_said_and_the_rest_goes_on(store: str) -> None:
    """Nothing is lost, and each has its place."""
    async with world(store) as it:
        router = it.router()
        said = [
            *requests(1), 7, BatchRequest("", params()), BatchRequest("no model", {"messages": []}),
            BatchRequest("r0", params("again")), BatchRequest("stream", params(stream=True)),
            BatchRequest("set", params(metadata={"user_id": {1}})), {"custom_id": "api", "params": params()},
            {"custom_id": "more", "params": params(), "x": 1}, BatchRequest("tenant", params(), tenant=""),
            BatchRequest("policy", params(), policy="opus"),  # type: ignore[arg-type]
            BatchRequest("params", "text"), *requests(1, 5),  # type: ignore[arg-type]
        ]  # fmt: skip
        job = await router.batches.submit(iter(said))
        found = [each async for each in router.batches.results(job)]
        good = [each.place for each in found if each.outcome == "succeeded"]
        assert good == [0, 7, 12]
        assert all(each.outcome == "invalid" and each.error for each in found if each.place not in good)
        assert "request 0" in (found[4].error or "")
        assert [each.place for each in found] == list(range(13))


async def test_a_request_that_no_batch_has_room_for_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """And those that have are put into as many batches as it takes."""
    monkeypatch.setattr("tierline.batches.routing.MOST_BYTES", 20_000)
    monkeypatch.setattr("tierline.batches.submitting._ENOUGH", 20_000 - 4096)
    async with world() as it:
        router = it.router()
        said = [BatchRequest(f"r{n}", params("x" * size)) for n, size in enumerate((100, 30_000, 9_000, 9_000, 9_000))]
        job = await router.batches.submit(said)
        found = [each async for each in router.batches.results(job)]
        assert [each.outcome for each in found] == ["succeeded", "invalid", "succeeded", "succeeded", "succeeded"]
        assert len(it.fake.batches) == 3


async def test_batches_are_as_large_as_the_api_takes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is more goes into the next."""
    monkeypatch.setattr("tierline.batches.submitting.MOST_REQUESTS", 30)
    monkeypatch.setattr("tierline.batches.submitting.PAGE", 10)
    async with world() as it:
        router = it.router()

        async def lines() -> object:
            for each in requests(70):
                yield each

        job = await router.batches.submit(lines())  # type: ignore[arg-type]
        await router.batches.wait(job)
        assert sorted(sum(batch.counts.values()) for batch in it.fake.batches) == [10, 30, 30]


@pytest.mark.parametrize("bad", ["text", {"custom_id": "x"}, 7, None])
async def test_what_is_no_collection_of_requests_is_refused(bad: object) -> None:
    """At once, with how it is written."""
    async with world() as it:
        with pytest.raises(ConfigurationError, match="BatchRequest"):
            await it.router().batches.submit(bad)  # type: ignore[arg-type]


async def test_bad_arguments_are_refused_and_leave_nothing() -> None:
    """No requests, a name that is none, a word that is none, a job that is not known."""
    async with world() as it:
        lane = it.router().batches
        with pytest.raises(ConfigurationError, match="no requests"):
            await lane.submit([])
        with pytest.raises(ConfigurationError, match="when_full"):
            await lane.submit(requests(1), when_full="wait")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="a job has a name"):
            await lane.submit(requests(1), job="a\nb")
        for asked in (lane.status, lane.wait, lane.cancel, lane.delete):
            with pytest.raises(ConfigurationError, match="there is no job 'nobody'"):
                await asked("nobody")
        with pytest.raises(ConfigurationError, match="there is no job"):
            _ = [each async for each in lane.results("nobody")]
        assert await lane.jobs() == []


@both
async def test_to_submit_again_goes_on_where_it_was_cut_off(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was taken then is not taken twice, and the job ends with all of it."""
    monkeypatch.setattr("tierline.batches.submitting.PAGE", 25)
    async with world(store) as it:
        router = it.router()
        given = requests(60)

        def cut() -> object:
            yield from given[:40]
            raise OSError("the file is gone")

        with pytest.raises(OSError, match="gone"):
            await router.batches.submit(cut(), job="j")  # type: ignore[arg-type]
        status = await router.batches.status("j")
        assert (status.state, status.submitted) == ("interrupted", 25)
        await router.batches.submit(given, job="j")
        await router.batches.submit(given, job="j")
        found = [each async for each in router.batches.results("j")]
        assert [each.place for each in found if each.outcome == "succeeded"] == list(range(60))
        assert sum(sum(batch.counts.values()) for batch in it.fake.batches) == 60
        assert await it.spent(router) == it.fake.billed


async def test_expired_and_errored_requests_are_tried_again_within_a_bound() -> None:
    """What no other try mends is told at once, what keeps failing after the third; nothing of it is paid."""
    tries: dict[str, int] = {}

    def outcome(name: str, body: object) -> Fault | str | None:
        text = body["messages"][0]["content"]  # type: ignore[index]
        tries[text] = tries.get(text, 0) + 1
        return {
            "say 1": Fault.overloaded(), "say 2": "expired" if tries[text] < 3 else None,
            "say 3": Fault.status(400, "invalid_request_error", "no"), "say 4": "canceled" if tries[text] < 2 else None,
        }.get(text)  # fmt: skip

    async with world(batch_outcome=outcome) as it:
        router = it.router()
        job = await router.batches.submit(requests(6))
        found = [each async for each in router.batches.results(job)]
        assert [(each.outcome, each.tries) for each in found] == [
            ("succeeded", 1), ("errored", 3), ("succeeded", 3), ("errored", 1), ("succeeded", 2), ("succeeded", 1),
        ]  # fmt: skip
        assert found[1].error == "overloaded_error: Overloaded"
        assert found[3].error == "invalid_request_error: no"
        assert await it.spent(router) == it.fake.billed == sum(each.cost for each in found)


@both
async def test_a_cancelled_job_sends_nothing_more(store: str) -> None:
    """What the API has is cancelled there, what waits for money is not sent, and nothing stays held."""
    async with world(store) as it:
        router = it.router()
        it.clock.stopped = True
        job = await router.batches.submit(requests(5))
        await router.batches.cancel(job)
        while it.fake.batches[0].cancelled is None:  # noqa: ASYNC110  (a fake tells nobody)
            await asyncio.sleep(0.01)
        it.clock.go()
        done = await router.batches.wait(job)
        assert (done.state, done.canceled, done.cost) == ("ended", 5, 0)
        assert await it.spent(router) == 0
        assert len(it.fake.batches) == 1


@both
async def test_a_creation_that_was_not_answered_is_found_again(store: str) -> None:
    """The API does not know a batch that it is given twice: it is looked for, by its custom ids."""
    async with world(store) as it:
        router = it.router()
        it.fake.script(Fault.reset_after(0), path="/v1/messages/batches")
        it.clock.stopped = True
        job = await router.batches.submit(requests(4))
        assert (await router.batches.status(job)).problems
        it.clock.go()
        found = [each async for each in router.batches.results(job)]
        assert [each.outcome for each in found] == ["succeeded"] * 4
        assert len(it.fake.batches) == 1
        assert await it.spent(router) == it.fake.billed


async def test_a_creation_that_never_arrived_is_made_once_more() -> None:
    """There is none like it, for as long as one might still appear; those of others are not taken for it."""
    async with world(batch_delay=0.0) as it:
        router, other = it.router(), it.router()
        job = await other.batches.submit(requests(4))
        await other.batches.wait(job)
        it.fake.script(Fault.reset(), path="/v1/messages/batches")
        job = await router.batches.submit(requests(4))
        done = await router.batches.wait(job)
        assert done.succeeded == 4
        assert len(it.fake.batches) == 2
        assert await it.spent(router) == it.fake.billed / 2


async def test_what_the_api_refuses_for_now_is_tried_again() -> None:
    """429, 529 and 401 of each step; the status says why, and nothing is created twice."""
    async with world() as it:
        router = it.router()
        path = "/v1/messages/batches"
        it.fake.script(Fault.rate_limit(retry_after=30), Fault.overloaded(), Fault.error(401, "key"), path=path)
        it.fake.script(Fault.overloaded(), Fault.reset(), path=f"{path}/{{id}}")
        it.fake.script(Fault.overloaded(), path=f"{path}/{{id}}/results")
        it.clock.stopped = True
        job = await router.batches.submit(requests(3))
        assert (await router.batches.status(job)).problems[0].startswith("429 rate_limit_error")
        it.clock.go()
        assert (await router.batches.wait(job)).succeeded == 3
        assert len(it.fake.batches) == 1
        assert await it.spent(router) == it.fake.billed


async def test_a_batch_that_is_no_batch_is_told_for_each_request() -> None:
    """A 400 for the whole of it would be one the next time, too."""
    async with world() as it:
        router = it.router()
        it.fake.script(Fault.error(400, "not in this workspace"), path="/v1/messages/batches")
        job = await router.batches.submit(requests(2))
        found = [each async for each in router.batches.results(job)]
        assert [each.outcome for each in found] == ["errored"] * 2
        assert "not in this workspace" in (found[0].error or "")
        assert await it.spent(router) == 0


@pytest.mark.parametrize("cut", [Fault.truncated_json(), Fault.clean_eof(3), Fault.reset_after(2), Fault.html()])
async def test_results_that_break_off_are_read_again(cut: Fault) -> None:
    """Whatever way they end too soon; nothing is counted twice."""
    async with world() as it:
        router = it.router()
        it.fake.script(cut, cut, path="/v1/messages/batches/{id}/results")
        job = await router.batches.submit(requests(8))
        assert (await router.batches.wait(job)).succeeded == 8
        assert await it.spent(router) == it.fake.billed


async def test_results_that_never_come_are_charged_as_estimated() -> None:
    """After five tries; what may have been billed is not given back."""
    async with world() as it:
        router = it.router()
        it.fake.script(*[Fault.clean_eof(1)] * 5, path="/v1/messages/batches/{id}/results")
        job = await router.batches.submit(requests(3))
        found = [each async for each in router.batches.results(job)]
        assert sorted(each.outcome for each in found) == ["errored", "errored", "succeeded"]
        (balance,) = [each for each in await router.balances("global") if each.window == "day"]
        assert balance.spent == balance.estimated == sum(each.cost for each in found)
        assert balance.spent >= it.fake.billed


@both
async def test_another_process_goes_on_with_what_one_has_left(store: str) -> None:
    """As `router.lifespan` starts; it needs no more than the store."""
    if store == "memory://":
        return
    async with world(store) as it:
        first = it.router()
        await first.batches.submit(requests(3), job="j")
        await first.aclose()
        second = it.router()
        async with second.lifespan():
            assert (await second.batches.wait("j")).succeeded == 3
        assert await it.spent(it.router()) == it.fake.billed


async def test_two_processes_collect_a_batch_once(tmp_path: object) -> None:
    """Both look after the same jobs; each batch is read by one of them."""
    async with world(f"sqlite:///{tmp_path}/a.db") as it:
        one, other = it.router(), it.router()
        jobs = [await one.batches.submit(requests(3), job=f"j{n}") for n in range(4)]
        for job in jobs:
            assert (await other.batches.wait(job)).succeeded == 3
        read = [each.path for each in it.fake.requests if each.path.endswith("/results")]
        assert len(read) == len(set(read)) == 4
        assert await it.spent(one) == it.fake.billed


async def test_a_batch_of_the_apps_own_is_pointed_here() -> None:
    """`messages.batches` of a routed client would spend what nothing bounds."""
    async with world() as it:
        claude = it.router().claude
        asked = {"custom_id": "x", "params": params(model="claude-haiku-4-5")}
        with pytest.raises(BudgetExceededError, match=r"router\.batches"):
            await claude.messages.batches.create(requests=[asked])  # type: ignore[typeddict-item]
        assert not it.fake.batches


@pytest.mark.parametrize("mode", ["observe", "off"])
async def test_modes_hold_for_batches(mode: str) -> None:
    """Nothing is refused, and `auto` is the highest tier that may be used."""
    async with world() as it:
        router = it.router(mode=mode, budgets=[Budget("$0.000000001")])
        job = await router.batches.submit([*requests(2), BatchRequest("id", params(model="claude-haiku-4-5"))])
        found = [each async for each in router.batches.results(job)]
        assert [(each.outcome, each.tier) for each in found] == [
            ("succeeded", "opus"), ("succeeded", "opus"), ("succeeded", "haiku"),
        ]  # fmt: skip


async def test_accounts_of_a_request_end_with_it() -> None:
    """A budget for each request holds for each of a job, and leaves nothing."""
    async with world() as it:
        router = it.router(budgets=[Budget("$1", per="request")])
        it.clock.stopped = True
        job = await router.batches.submit(requests(3))
        assert len(await router.balances()) == 3
        it.clock.go()
        assert (await router.batches.wait(job)).succeeded == 3
        assert await router.balances() == []


async def test_a_full_budget_sends_to_a_cheaper_tier() -> None:
    """As for calls: past its threshold, and where there is no room; never below a floor."""
    async with world() as it:
        router = it.router(budgets=[Budget("$1/day", downgrade_at=0.000001)])
        hard = [BatchRequest(f"c{n}", params(), policy=policy(label="complex")) for n in range(255)]
        job = await router.batches.submit([*hard, BatchRequest("f", params(), policy=policy(floor="opus"))])
        found = [each async for each in router.batches.results(job)]
        assert found[0].tier == "opus"
        assert found[-2].tier == "haiku"
        assert found[-1].tier == "opus"


async def test_verdicts_for_a_job_are_asked_for_many_at_a_time() -> None:
    """Several texts in one request, each charged; the tiers are what was said."""
    from tierline.classify import ClaudeClassifier

    async with world(verdict=lambda text, _: ("complex" if text.endswith("7") else "simple", 0.9)) as it:
        router = it.router(classifier=ClaudeClassifier(), ladder=LADDER)
        job = await router.batches.submit(requests(20))
        found = [each async for each in router.batches.results(job)]
        assert [each.tier for each in found] == ["opus" if n % 10 == 7 else "haiku" for n in range(20)]
        asked = [each for each in it.fake.requests if each.path == "/v1/messages"]
        assert 0 < len(asked) < 10
        assert await it.spent(router) == it.fake.billed


@both
async def test_a_job_is_reported_by_account_and_tier(store: str) -> None:
    """Counts, cost, and what it would have been as calls and on the top tier: to the nano-USD, as calls are billed."""
    async with world(store) as it:
        router = it.router()
        said = [
            *requests(3, tenant="a"),
            BatchRequest("dear", params(), tenant="a", policy=policy(floor="opus")),
            *requests(2, 10),
            BatchRequest("bad", {"model": "auto"}),
        ]
        it.clock.stopped = True
        job = await router.batches.submit(said, job="j")
        before = await router.batches.report(job)
        assert before.by_tier()["haiku"].outcomes == {"processing": 5}
        assert (before.total.requests, before.total.cost, before.total.saved) == (7, 0, 0)
        it.clock.go()
        await router.batches.wait(job)
        found = await router.batches.report(job)
        assert [(each.tenant, each.tier, each.outcomes) for each in found.shares] == [
            (None, "", {"invalid": 1}),
            (None, "haiku", {"succeeded": 2}),
            ("a", "haiku", {"succeeded": 3}),
            ("a", "opus", {"succeeded": 1}),
        ]
        assert {name: each.requests for name, each in found.by_tenant().items()} == {None: 3, "a": 4}
        total = found.total
        assert total.cost == it.fake.billed == (await router.batches.status(job)).cost
        assert total.plain == 2 * total.cost
        results = [each async for each in router.batches.results(job, after=2)]
        assert [each.place for each in results] == [3, 4, 5, 6]
        dear = found.shares[3]
        assert (dear.top, dear.saved, dear.guesses) == (dear.plain, dear.cost, 0)
        cheap = found.shares[1]
        usages = [each.message.usage for each in results if each.tier == "haiku" and each.message]
        alone = [Usage(each.input_tokens, each.output_tokens) for each in usages]
        assert router.prices.cost("claude-opus-4-8", sum(alone, Usage())) == cheap.top
