"""The Message Batches API of the fake, as the SDK sees it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from anthropic import (
    APIConnectionError,
    AsyncAnthropic,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    RateLimitError,
)

from tierline.testing import FakeClaude, Fault, _batches

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PATH = "/v1/messages/batches"
NAMES = ("a", "b", "c", "d")


def asked(*names: str, **more: Any) -> list[Any]:
    said = [{"role": "user", "content": "hello"}]
    body = {"model": "claude-haiku-4-5", "max_tokens": 20, "messages": said, **more}
    return [{"custom_id": name, "params": body} for name in names]


@pytest.fixture
def fake() -> FakeClaude:
    said = {"b": "expired", "c": Fault.overloaded()}
    return FakeClaude(clock=lambda: 0.0, batch_delay=60.0, batch_outcome=lambda name, _: said.get(name))


@pytest.fixture
async def client(fake: FakeClaude) -> AsyncIterator[AsyncAnthropic]:
    async with fake.serve() as url, AsyncAnthropic(api_key=fake.api_key, base_url=url, max_retries=0) as sdk:
        yield sdk


async def test_a_batch_is_processed_when_its_time_has_come(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """In progress until then; every request has a result, in another order."""
    made = await client.messages.batches.create(requests=asked(*NAMES))
    assert (made.processing_status, made.request_counts.processing, made.results_url) == ("in_progress", 4, None)
    assert made.expires_at - made.created_at == timedelta(hours=24)
    fake.advance(59)
    assert (await client.messages.batches.retrieve(made.id)).processing_status == "in_progress"
    fake.advance(1)
    ended = await client.messages.batches.retrieve(made.id)
    counts = ended.request_counts
    assert (ended.processing_status, counts.succeeded, counts.expired, counts.errored) == ("ended", 2, 1, 1)
    found = {each.custom_id: each.result async for each in await client.messages.batches.results(made.id)}
    assert {name: each.type for name, each in found.items()} == {
        "a": "succeeded", "b": "expired", "c": "errored", "d": "succeeded",
    }  # fmt: skip
    assert list(found) != list(NAMES)
    assert found["c"].error.error.type == "overloaded_error"  # type: ignore[union-attr]


async def test_a_batch_costs_half(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """What is answered is billed, once, at half of what the same call costs."""
    made = await client.messages.batches.create(requests=asked("a", "b"))
    fake.advance(60)
    for _ in range(2):
        found = [each.result async for each in await client.messages.batches.results(made.id)]
    half = fake.billed
    message = await client.messages.create(**asked("x")[0]["params"])
    assert fake.billed - half == 2 * half > 0
    (good,) = [each.message for each in found if each.type == "succeeded"]
    assert good.usage.service_tier == "batch"
    assert good.usage.output_tokens == message.usage.output_tokens


async def test_params_that_no_model_takes_are_errors_of_their_request(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """The batch is taken all the same: they are looked at later."""
    bad = asked("a", model="claude-nothing") + asked("d", stream=True) + asked("e", max_tokens=-1) + asked("f")
    made = await client.messages.batches.create(requests=bad)
    fake.advance(60)
    found = {each.custom_id: each.result async for each in await client.messages.batches.results(made.id)}
    assert [found[name].type for name in ("a", "d", "e", "f")] == ["errored"] * 3 + ["succeeded"]


async def test_a_batch_that_is_none_is_refused(client: AsyncAnthropic, monkeypatch: pytest.MonkeyPatch) -> None:
    """None, too many, an id twice, an id that is none, no params, no key, too many bytes."""
    create = client.messages.batches.create
    monkeypatch.setattr(_batches, "MOST_REQUESTS", 2)
    for bad in ([], asked("a", "b", "c"), asked("a", "a"), asked("a b"), asked("x" * 65), [{"custom_id": "a"}]):
        with pytest.raises(BadRequestError):
            await create(requests=bad)
    with pytest.raises(AuthenticationError):
        await client.with_options(api_key="wrong").messages.batches.create(requests=asked("a"))


async def test_the_same_batch_given_twice_is_two(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """Whatever key of idempotency it has; the list has both, newest first, page by page."""
    one, other = [
        (await client.messages.batches.create(requests=asked("a"), extra_headers={"idempotency-key": "k"})).id
        for _ in range(2)
    ]
    assert [each.id async for each in client.messages.batches.list(limit=1)] == [other, one]
    assert [batch.id for batch in fake.batches] == [one, other]


async def test_a_batch_is_cancelled_and_deleted(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """What is not answered is canceled and not billed; only what has ended may be deleted."""
    batches = client.messages.batches
    made = await batches.create(requests=asked("a", "d"))
    with pytest.raises(BadRequestError):
        await batches.delete(made.id)
    assert (await batches.cancel(made.id)).processing_status == "canceling"
    fake.advance(30)
    assert (await batches.retrieve(made.id)).request_counts.canceled == 2
    assert fake.billed == 0
    with pytest.raises(BadRequestError):
        await batches.cancel(made.id)
    await batches.delete(made.id)
    with pytest.raises(NotFoundError):
        await batches.retrieve(made.id)


async def test_a_batch_expires_after_a_day() -> None:
    """One that would take longer has no results but that."""
    fake = FakeClaude(clock=lambda: 0.0, batch_delay=90_000.0)
    client = fake.client(max_retries=0)
    made = await client.messages.batches.create(requests=asked("a"))
    fake.advance(86_400)
    assert (await client.messages.batches.retrieve(made.id)).request_counts.expired == 1
    await client.close()


async def test_faults_strike_before_a_batch_is_taken_or_after(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """A lost answer leaves a batch that its client knows nothing of."""
    batches = client.messages.batches
    fake.script(Fault.rate_limit(), Fault.error(500), Fault.reset(), Fault.reset_after(0), path=PATH)
    for error in (RateLimitError, InternalServerError, APIConnectionError):
        with pytest.raises(error):
            await batches.create(requests=asked("a"))
    assert not fake.batches
    with pytest.raises(APIConnectionError):
        await batches.create(requests=asked("a"))
    assert len(fake.batches) == 1
    fake.script(Fault.overloaded(), path=f"GET {PATH}")
    with pytest.raises(InternalServerError):
        await batches.list()
    fake.advance(60)
    fake.script(Fault.clean_eof(1), path=f"{PATH}/{{id}}/results")
    made = await batches.create(requests=asked("a", "d"))
    fake.advance(60)
    assert len([each async for each in await batches.results(made.id)]) == 1


async def test_results_that_are_not_there_yet_are_an_error(client: AsyncAnthropic) -> None:
    """As are paths that nobody serves."""
    made = await client.messages.batches.create(requests=asked("a"))
    with pytest.raises(BadRequestError):
        await client.get(f"{PATH}/{made.id}/results", cast_to=object)
    with pytest.raises(NotFoundError):
        await client.get(f"{PATH}/{made.id}/nothing", cast_to=object)
