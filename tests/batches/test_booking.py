"""What is told of requests of batches: report, history, traffic, metrics; how long they are kept, and for whom."""

from __future__ import annotations

import json
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING

import pytest

from tests.batches.test_lane import both, store
from tests.batches.world import LADDER, params, requests, world
from tests.test_metrics import Meters
from tierline import Budget, Router, policy
from tierline.batches import BatchRequest
from tierline.decisionlog import DecisionLog
from tierline.errors import ConfigurationError
from tierline.evaluation.rows import read
from tierline.testing import Fault
from tierline.values import NANO

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["store"]

WEEK = timedelta(days=7)
DAY = 86_400.0


async def test_a_report_tells_of_batches_beside_calls() -> None:
    """Requests, money and what half the price saved, by tier and outcome; calls stay what they are."""
    async with world(batch_outcome=lambda custom_id, _: "expired" if custom_id.endswith("-3") else None) as it:
        router = it.router()
        await router.claude.messages.create(**requests(1)[0].params)
        calls = it.fake.billed
        top = requests(2, 10, policy=policy(floor="opus"))
        job = await router.batches.submit([*requests(4), *top, BatchRequest("bad", {"model": "auto"})])
        await router.batches.wait(job)
        found, shares = router.report(), await router.batches.report(job)
        assert (found.calls, found.cost) == (1, calls)
        batched = found.batched
        assert (batched.requests, batched.cost) == (7, it.fake.billed - calls)
        assert batched.by_outcome == {"succeeded": 5, "expired": 1, "invalid": 1}
        assert [(name, spend.calls) for name, spend in batched.by_tier.items()] == [("haiku", 4), ("opus", 2)]
        assert sum(spend.cost for spend in batched.by_tier.values()) == batched.cost
        assert (batched.plain, batched.top) == (shares.total.plain, shares.total.top)
        assert batched.plain == 2 * batched.cost
        assert batched.saved == batched.top - batched.cost > batched.cost
        assert "7 requests for" in str(found)
        assert "half the price" in str(found)


@both
async def test_history_and_traffic_have_what_was_billed(store: str) -> None:
    """Each request that was sent is an attempt, and in traffic one that was batched; money is the same everywhere."""
    async with world(store) as it:
        router = it.router(traffic=True)
        await router.claude.messages.create(**requests(1)[0].params)
        job = await router.batches.submit([*requests(6, tenant="acme"), *requests(3, 10, tenant="other")])
        shares = (await router.batches.wait(job)) and await router.batches.report(job)
        history = await router.history(since=WEEK)
        assert (history.total.attempts, history.total.cost) == (10, it.fake.billed)
        assert {name: each.attempts for name, each in history.by("account").items()} == {
            "acme": 6,
            "other": 3,
            "(no tenant)": 1,
        }
        traffic = await router.traffic(since=WEEK)
        total = traffic.total
        assert (total.calls, total.batched, total.cost) == (1, 9, it.fake.billed)
        assert total.saved == shares.total.saved + router.report().saved
        assert traffic.by_account["acme"].batched == 6
        assert traffic.by_account["acme"].cost == history.by("account")["acme"].cost
        assert "batched" in str(traffic)


async def test_what_was_not_sent_is_no_attempt() -> None:
    """A job that was cancelled before any of it was sent leaves no row in the history."""
    async with world() as it:
        router = it.router()
        it.fake.script(Fault.overloaded(), path="/v1/messages/batches")
        job = await router.batches.submit(requests(3))
        await router.batches.cancel(job)
        assert (await router.batches.wait(job)).canceled == 3
        assert (await router.history(since=WEEK)).rows == ()
        assert await it.spent(router) == 0


async def test_metrics_of_batches() -> None:
    """Requests by what became of them, what they cost and are charged to, and how many jobs are under way."""
    meters = Meters()
    async with world() as it:
        router = it.router(meter_provider=meters.provider, budgets=[Budget("$10/day", name="all")])
        job = await router.batches.submit([*requests(5, route="/night"), BatchRequest("bad", {"model": "auto"})])
        assert meters.sums("tierline.batch.jobs") == {(): 1}
        await router.batches.wait(job)
        assert meters.sums("tierline.batch.requests") == {("haiku", "succeeded"): 5, ("", "invalid"): 1}
        billed = it.fake.billed / NANO
        assert meters.sums("tierline.cost") == {("haiku", "batch", "/night"): pytest.approx(billed)}
        assert meters.sums("tierline.budget.spent") == {("all",): pytest.approx(billed)}
        shares = await router.batches.report(job)
        assert meters.sums("tierline.saved") == {("/night",): pytest.approx(shares.total.saved / NANO)}
        assert meters.sums("tierline.cost.top") == {("/night",): pytest.approx(shares.total.top / NANO)}
        while meters.sums("tierline.batch.jobs") != {(): 0}:
            await router.batches._keeper().turned()


@both
async def test_a_tenant_that_is_erased_has_no_answers_here(store: str) -> None:
    """Those that have come, and those that come later; its batch goes on for the others, and the bill is whole."""
    async with world(store) as it:
        router = it.router()
        mixed = [BatchRequest(f"r{n}", each.params, tenant=("acme", "other")[n % 2]) for n, each in
                 enumerate(requests(6))]  # fmt: skip
        first = await router.batches.submit(mixed, job="first")
        await router.batches.wait(first)
        it.clock.stopped = True
        second = await router.batches.submit(mixed, job="second")
        await router.erase("acme")
        it.clock.go()
        await router.batches.wait(second)
        for job in (first, second):
            found = [result async for result in router.batches.results(job)]
            assert [result.custom_id for result in found] == [None, "r1", None, "r3", None, "r5"]
            assert [result.outcome for result in found] == ["canceled", "succeeded"] * 3
            assert {result.error for result in found} == {"its tenant was erased", None}
            assert all((result.message is None) == (result.custom_id is None) for result in found)
            shares = await router.batches.report(job)
            assert {each.tenant for each in shares.shares} == {None, "other"}
        assert (await router.batches.report(first)).total.cost * 2 == it.fake.billed
        assert await it.spent(router) == it.fake.billed


async def test_a_tenant_is_erased_while_its_batch_is_sent() -> None:
    """Its requests are taken out before the batch is created again; the others are answered, and nothing is lost."""
    async with world() as it:
        router = it.router()
        payloads, gone = router.batches._store.payloads, []

        async def slow(batch: str, after: int, limit: int) -> list[tuple[int, str | None]]:
            if not gone:
                gone.append(batch)
                await router.erase("acme")
            return await payloads(batch, after, limit)

        router.batches._store.payloads = slow  # type: ignore[method-assign]
        job = await router.batches.submit([*requests(2, tenant="acme"), *requests(2, 5, tenant="other")])
        done = await router.batches.wait(job)
        assert (done.succeeded, done.canceled) == (2, 2)
        assert [batch.counts["succeeded"] for batch in it.fake.batches] == [2]
        assert await it.spent(router) == it.fake.billed


@both
async def test_a_job_is_kept_for_so_long(store: str) -> None:
    """Then it is forgotten with its answers; one that somebody has submitted to since stays."""
    async with world(store) as it:
        router = it.router(batch_retention=10 * DAY)
        old = await router.batches.submit(requests(3), job="old")
        await router.batches.wait(old)
        it.clock.now += 6 * DAY
        await router.batches.wait(await router.batches.submit(requests(3), job="new"))
        assert await router.batches.jobs() == ["old", "new"]
        it.clock.now += 6 * DAY
        await router.batches.start()
        assert await router.batches.jobs() == ["new"]
        with pytest.raises(ConfigurationError, match="there is no job 'old'"):
            await router.batches.status("old")
        while await router.batches._store.left():
            await router.batches._keeper().turned()
        await router.batches.wait(await router.batches.submit(requests(1), job="old"))
        assert [each.custom_id async for each in router.batches.results("old")] == ["r0"]


async def test_retention_has_an_end_or_none() -> None:
    """Zero would drop answers before anybody has read them."""
    assert Router(ladder=LADDER, batch_retention=inf)
    for wrong in (0, -1, True, "29 days", float("nan")):
        with pytest.raises(ConfigurationError, match="batch_retention"):
            Router(ladder=LADDER, batch_retention=wrong)  # type: ignore[arg-type]


@both
async def test_the_decision_log_has_a_line_for_each_request(store: str, tmp_path: Path) -> None:
    """With what it was and why it went where it went, what it used and cost; and the text where that is wanted."""
    async with world(store) as it:
        log = tmp_path / "decisions.jsonl"
        router = it.router(decision_log=DecisionLog(log, text=True))
        two = [
            BatchRequest("a", params("say one"), tenant="acme", route="/night", policy=policy(tags={"team": "ops"})),
            BatchRequest("b", params("say two"), policy=policy(floor="opus")),
        ]
        job = await router.batches.submit(two, job="nightly")
        await router.batches.wait(job)
        found = [result async for result in router.batches.results(job)]
        assert (await router.batches._store.results(job, -1, 9))[0].result
        await router.aclose()
        first, second = sorted(map(json.loads, log.read_text().splitlines()), key=lambda each: str(each["id"]))
        assert (first["route"], first["tenant"], first["tags"]) == ("/night", "acme", {"team": "ops"})
        assert (first["tier"], first["label"], first["source"], first["outcome"]) == ("haiku", "simple", "fixed", "ok")
        assert (second["tier"], second["requested_tier"]) == ("opus", "opus")
        assert first["reasons"][-1] == "in a batch of job nightly"
        assert [first["cost"], second["cost"]] == [result.cost for result in found]
        assert first["attempts"][0]["usage"]["output_tokens"] == found[0].message.usage.output_tokens  # type: ignore[union-attr]
        assert (first["text"], second["text"]) == ("say one", "say two")
        assert len(list(read(log))) == 2


async def test_no_prompt_is_logged_that_was_not_wanted(tmp_path: Path) -> None:
    """Nor kept beside its payload."""
    async with world() as it:
        router = it.router(decision_log=str(tmp_path / "decisions.jsonl"))
        await router.batches.wait(await router.batches.submit(requests(3)))
        await router.aclose()
        text = (tmp_path / "decisions.jsonl").read_text()
        assert len(text.splitlines()) == 3
        assert "say" not in text
