"""A request of a job, sent as a usual call over a socket."""

from __future__ import annotations

import json

import httpx2
import pytest
from anthropic import AsyncAnthropic

from tests.batches.world import LADDER, params, world
from tierline import Budget, Router, policy
from tierline.batches import BatchRequest
from tierline.batches.calling import call
from tierline.classify import FixedClassifier
from tierline.testing import Fault


async def test_a_call_is_that_of_its_tenant_route_and_policy() -> None:
    """The answer whole, what it cost at the list price, and the accounts that paid for it."""
    async with world() as it:
        router = it.router()
        request = BatchRequest(
            "a", params(stop_sequences=["STOP"]), tenant="acme", route="/x", policy=policy(tier="opus")
        )
        found = await call(router, request)
        assert (found.outcome, found.tier, found.model, found.estimated) == (
            "succeeded", "opus", "claude-opus-4-8", False,
        )  # fmt: skip
        assert found.cost == it.fake.billed == await it.spent(router) > 0
        assert json.loads(found.raw or "")["content"][0]["text"]
        assert found.sent
        (row,) = (await router.history(0)).rows
        assert (row.tenant, row.route, row.cost) == ("acme", "/x", found.cost)
        assert it.fake.requests[0].body["stop_sequences"] == ["STOP"]
        assert router.report().calls == 1


async def test_what_is_bound_around_holds_inside() -> None:
    """A tenant and a policy of the code that calls are those of a request which says nothing of them."""
    async with world() as it:
        router = it.router()
        async with router.bind(tenant="globex"):
            with policy(floor="opus"):
                found = await call(router, BatchRequest("a", params()))
        assert found.tier == "opus"
        assert [each.spent for each in await router.balances("globex")] == [found.cost]


async def test_a_long_answer_comes_as_a_stream() -> None:
    """Of more tokens than the SDK lets come whole; the message is the same kind of JSON."""
    async with world() as it:
        router = it.router()
        found = await call(router, BatchRequest("a", params(max_tokens=40_000)))
        assert it.fake.requests[0].streamed
        message = json.loads(found.raw or "")
        assert message["content"][0]["text"]
        assert message["usage"]["output_tokens"] > 0
        assert found.cost == it.fake.billed == await it.spent(router)


async def test_what_has_no_room_is_refused() -> None:
    """Nothing is sent, and the numbers are there."""
    async with world() as it:
        router = it.router(budgets=[Budget("$0.000001/day")])
        found = await call(router, BatchRequest("a", params()))
        assert (found.outcome, found.sent, found.cost) == ("refused", False, 0)
        assert found.refusal is not None
        assert found.refusal.renews_in is not None
        assert "budget" in (found.error or "")
        assert it.fake.requests == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (params(stream=True), "stream"),
        ({"model": "auto", "max_tokens": 5}, "no Messages request"),
        (params(max_tokens="many"), "max_tokens"),
        (params(metadata={"user_id": object()}), "no JSON"),
        (params(model="gpt-9"), "UnknownModelError"),
    ],
)
async def test_what_is_no_call_is_invalid(given: dict[str, object], why: str) -> None:
    """It is said what is wrong, and nothing is sent."""
    async with world() as it:
        found = await call(it.router(), BatchRequest("a", given))
        assert (found.outcome, found.sent) == ("invalid", False)
        assert why in (found.error or "")
        assert it.fake.requests == []


async def test_an_error_of_the_api_is_told() -> None:
    """Whether another try may help, and when; what would be rejected again is not tried again."""
    async with world() as it:
        router = it.router()
        it.fake.always(None, Fault.rate_limit(retry_after=120))
        found = await call(router, BatchRequest("a", params(), policy=policy(tier="haiku")))
        assert (found.outcome, found.status, found.again, found.wait) == ("errored", 429, True, 120.0)
        assert (found.error or "").startswith("rate_limit_error: ")
        it.fake.clear()
        found = await call(router, BatchRequest("b", params(messages=[{"role": "wizard", "content": "hi"}])))
        assert (found.outcome, found.status, found.again) == ("errored", 400, False)
        assert (found.error or "").startswith("invalid_request_error: ")
        assert await it.spent(router) == 0


async def test_an_answer_that_breaks_off_is_charged_as_estimated() -> None:
    """The way to the API is cut when the request is there."""
    async with world() as it:
        router = it.router()
        it.fake.always(None, Fault.reset_after(0))
        found = await call(router, BatchRequest("a", params()))
        assert (found.outcome, found.again, found.estimated) == ("errored", True, True)
        assert found.cost == sum(each.spent for each in await router.balances("global") if each.window == "day") > 0


@pytest.mark.parametrize("body", ["<html>sign in</html>", "", "[]"])
async def test_a_page_of_somebody_elses_is_no_answer(body: str) -> None:
    """A gateway may answer 200 with it: nobody could read that as a message. It may have been billed all the same."""
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _: httpx2.Response(200, text=body)))
    client = AsyncAnthropic(api_key="sk-ant-fake-0000", http_client=http, max_retries=0)
    router = Router(client, ladder=LADDER, classifier=FixedClassifier("simple"))
    found = await call(router, BatchRequest("a", params()))
    assert (found.outcome, found.raw, found.estimated, found.again) == ("errored", None, True, False)
    assert "no message" in (found.error or "")
    assert found.cost > 0
    await router.aclose()
    await client.close()
