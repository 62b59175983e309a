"""What a job would be, before it is one; and what is told while it is taken in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.batches.world import params, requests, world
from tierline import Budget, policy
from tierline.batches import BatchRequest, Unreadable
from tierline.classify import ClaudeClassifier
from tierline.errors import ConfigurationError
from tierline.values import Terms, Usage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

BAD = [
    Unreadable("line 7: it is no JSON", None),
    BatchRequest("r1", params()),
    BatchRequest("none", {"model": "auto"}),
    {"custom_id": "r9"},
]
WHY = [
    (3, None, "line 7: it is no JSON"),
    (4, None, "custom_id 'r1' is that of"),
    (5, "none", "params are no Messages request"),
    (6, "r9", "a mapping is a request with the keys"),
]


async def test_a_preview_has_tiers_costs_and_room() -> None:
    """By the lengths that are expected, at half price; nothing is sent, and nothing held."""
    async with world() as it:
        router = it.router(budgets=[Budget("$1/day", name="day"), Budget("$1/day", per="tenant", name="each")])
        rules = policy(expected_output=10)
        said = [
            *requests(2, tenant="a", policy=rules),
            BatchRequest("dear", params(), tenant="b", policy=policy(floor="opus", expected_output=5)),
        ]
        found = await router.batches.preview(said)
        assert list(found.by_tier) == ["haiku", "opus"]
        cheap, prices = found.by_tier["haiku"], router.prices
        one = Usage(1, 10)  # "say 0" at 3.6 characters a token
        assert cheap.expected == 2 * (prices.cost("claude-haiku-4-5", one, Terms(batch=True)) or 0)
        assert (cheap.plain, cheap.requests, cheap.unbounded) == (2 * cheap.expected, 2, 0)
        assert cheap.top == 2 * (prices.cost("claude-opus-4-8", one) or 0)
        assert found.total.worst > found.total.expected
        rooms = {(each.budget, each.account): each for each in found.rooms}
        assert rooms["each", "a"].needed == cheap.worst
        assert rooms["day", "global"].needed == found.total.worst
        assert rooms["day", "global"].left == 1_000_000_000
        calls = (await router.batches.preview(said, lane="concurrent")).total
        assert (calls.expected, calls.plain) == (found.total.plain, found.total.plain)
        assert calls.worst >= 2 * found.total.worst - 3
        assert it.fake.requests == []
        assert await router.balances() == []
        assert await router.batches.jobs() == []


async def test_a_preview_asks_nobody() -> None:
    """Where Claude would be asked for a verdict, the tier is what it is without one."""
    async with world() as it:
        router = it.router(classifier=ClaudeClassifier())
        found = await router.batches.preview(requests(5))
        assert (found.total.requests, it.fake.requests) == (5, [])


async def test_what_does_not_fit_is_said_before() -> None:
    """A budget that has less left than all of them may cost."""
    async with world() as it:
        router = it.router(budgets=[Budget("$0.002/day", name="day")])
        await router.claude.messages.create(**params())
        left = (await router.balances())[0]
        found = await router.batches.preview(requests(10))
        (room,) = found.rooms
        assert room.short
        assert room.left == left.limit - left.spent
        assert found.total.worst == room.needed


async def test_what_is_wrong_is_told_by_place() -> None:
    """By a preview, and by a submit once it is written down; a second submit passes it over."""
    async with world() as it:
        router = it.router()
        told: list[tuple[int, str | None, str]] = []

        def tell(place: int, name: str | None, why: str) -> None:
            told.append((place, name, why[: len(next(each for each in WHY if each[0] == place)[2])]))

        said = [*requests(3), *BAD]
        preview = await router.batches.preview(said, told=tell)
        assert sorted(told) == WHY
        assert preview.invalid == 4
        told.clear()
        job = await router.batches.submit(said, told=tell)
        assert sorted(told) == WHY
        told.clear()
        assert await router.batches.submit(said, job=job, told=tell) == job
        assert told == []
        found = [each async for each in router.batches.results(job)]
        assert [each.outcome for each in found] == ["succeeded"] * 3 + ["invalid"] * 4
        assert found[3].error == "line 7: it is no JSON"


async def test_what_is_refused_is_told() -> None:
    """With its place and the budget that had no room."""
    async with world() as it:
        router = it.router(budgets=[Budget("$0.000001/day", name="little")])
        told: list[tuple[int, str | None, str]] = []
        await router.batches.submit(requests(2), told=lambda *each: told.append(each))
        assert [(place, name) for place, name, _ in told] == [(0, "r0"), (1, "r1")]
        assert all("little" in why for _, _, why in told)


async def test_a_job_is_made_of_one_thing() -> None:
    """Another file under the same name would be passed over in silence: it is refused, and the job is as it was."""
    async with world() as it:
        router = it.router()
        await router.batches.submit(requests(2), job="j", source="a.jsonl 1234")
        with pytest.raises(ConfigurationError, match=r"made of 'a\.jsonl 1234', and not of 'b': give it another name"):
            await router.batches.submit(requests(5), job="j", source="b")
        await router.batches.submit(requests(2), job="j", source="a.jsonl 1234")
        assert (await router.batches.wait("j")).succeeded == 2
        await router.batches.submit(requests(1), job="k")
        with pytest.raises(ConfigurationError, match="made of something that was not named"):
            await router.batches.submit(requests(1), job="k", source="b")


async def test_a_result_for_an_unknown_id_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """It is left out, and the others are taken in."""
    async with world() as it:
        router = it.router()
        api = router.batches._api
        results = api.results

        async def more(name: str) -> AsyncIterator[dict[str, Any]]:
            yield {"custom_id": "nobody-0", "result": {"type": "succeeded", "message": {}}}
            async for line in results(name):
                yield line

        api.results = more  # type: ignore[method-assign]
        job = await router.batches.submit(requests(2))
        assert (await router.batches.wait(job)).succeeded == 2
        assert it.fake.billed == (await router.batches.status(job)).cost
    assert "1 of its results are of no request, and are left out" in caplog.text
