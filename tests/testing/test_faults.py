"""Every fault, as the SDK meets it over a real socket."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic

from tierline.testing import OK, FakeClaude, Fault

HAIKU, OPUS = "claude-haiku-4-5", "claude-opus-5-5"
ASK: dict[str, Any] = {"model": HAIKU, "max_tokens": 200, "messages": [{"role": "user", "content": "Hello there"}]}


async def events_of(client: AsyncAnthropic) -> list[str]:
    return [event.type async for event in await client.messages.create(**ASK, stream=True)]


@pytest.mark.parametrize(
    ("fault", "error", "type_"),
    [
        (Fault.overloaded(), anthropic.OverloadedError, "overloaded_error"),
        (Fault.rate_limit(retry_after=3600), anthropic.RateLimitError, "rate_limit_error"),
        (Fault.rate_limit(retry_after=None), anthropic.RateLimitError, "rate_limit_error"),
        (Fault.spend_limit(), anthropic.EnforcedSpendLimitReachedError, "rate_limit_error"),
        (Fault.spend_limit(own=True), anthropic.BadRequestError, "invalid_request_error"),
        (Fault.error(500), anthropic.InternalServerError, "api_error"),
        (Fault.error(413), anthropic.ContentTooLargeError, "request_too_large"),
        (Fault.error(503), anthropic.ServiceUnavailableError, "api_error"),
        (Fault.status(403, "permission_error", "not yours"), anthropic.PermissionDeniedError, "permission_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors(
    fake: FakeClaude, client: AsyncAnthropic, *, fault: Fault, error: type[Exception], type_: str, stream: bool
) -> None:
    """An error has the SDK's type, the API's type, and costs nothing."""
    fake.script(fault)
    with pytest.raises(error) as caught:
        await client.messages.create(**ASK, stream=stream)
    assert isinstance(caught.value, anthropic.APIStatusError)
    assert caught.value.type == type_
    assert caught.value.response.headers.get("retry-after") == dict(fault.headers).get("retry-after")
    (entry,) = fake.requests
    assert (entry.error, entry.ended, entry.billed) == (type_, "fault", 0)
    if caught.value.status_code == 429:
        assert caught.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"


async def test_script_is_met_in_order(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """Each request takes the first step that is meant for it; others wait for theirs."""
    fake.script(Fault.overloaded(), model=OPUS)
    fake.script(OK, Fault.error(500))
    fake.script(Fault.error(503), path="/v1/messages/count_tokens")
    await client.messages.create(**ASK)
    with pytest.raises(anthropic.InternalServerError):
        await client.messages.create(**ASK)
    await client.messages.create(**ASK)
    with pytest.raises(anthropic.OverloadedError):
        await client.messages.create(**{**ASK, "model": OPUS})
    with pytest.raises(anthropic.ServiceUnavailableError):
        await client.messages.count_tokens(model=HAIKU, messages=ASK["messages"])
    assert (await client.messages.count_tokens(model=HAIKU, messages=ASK["messages"])).input_tokens > 0


async def test_always_until_cleared(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """A standing fault is for one model or for all, yields to the script, and ends with clear."""
    fake.always(OPUS, Fault.overloaded())
    await client.messages.create(**ASK)
    for _ in range(2):
        with pytest.raises(anthropic.OverloadedError):
            await client.messages.create(**{**ASK, "model": OPUS})
    fake.script(OK)
    await client.messages.create(**{**ASK, "model": OPUS})
    fake.always(None, Fault.error(500))
    with pytest.raises(anthropic.InternalServerError):
        await client.messages.create(**ASK)
    await client.messages.count_tokens(model=HAIKU, messages=ASK["messages"])
    fake.script(Fault.error(500))
    fake.clear()
    await client.messages.create(**ASK)


@pytest.mark.parametrize("stream", [False, True])
async def test_reset_before_the_headers(fake: FakeClaude, client: AsyncAnthropic, stream: bool) -> None:
    """The connection breaks, and nothing was begun, so nothing is billed."""
    fake.script(Fault.reset())
    with pytest.raises(anthropic.APIConnectionError) as caught:
        await client.messages.create(**ASK, stream=stream)
    assert isinstance(caught.value.__cause__, httpx2.ReadError)
    (entry,) = fake.requests
    assert (entry.status, entry.ended, entry.billed) == (0, "fault", 0)


async def test_reset_in_mid_stream(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """So many events arrive, then the connection breaks; what was generated is billed."""
    fake.script(Fault.reset_after(events=5))
    seen: list[str] = []

    async def read() -> None:
        async for event in await client.messages.create(**ASK, stream=True):
            seen.append(event.type)  # noqa: PERF401 - what came before the reset is kept

    with pytest.raises(httpx2.ReadError):
        await read()
    assert seen == ["message_start", "content_block_start", "content_block_delta", "content_block_delta"]
    (entry,) = fake.requests
    assert entry.ended == "fault"
    assert entry.billed == entry.usage.input_tokens * 1_000 + entry.usage.output_tokens * 5_000 > 0
    fake.script(Fault.reset_after())
    with pytest.raises(anthropic.APIConnectionError):
        await client.messages.create(**ASK)


@pytest.mark.parametrize("after", [None, 3])
@pytest.mark.parametrize("stream", [False, True])
async def test_hang_until_the_client_leaves(
    fake: FakeClaude, client: AsyncAnthropic, after: int | None, stream: bool
) -> None:
    """Nothing more comes; the fake notices the cancelled client and bills what there was."""
    fake.script(Fault.hang(after=after))

    async def read() -> None:
        answer = await client.messages.create(**ASK, stream=stream)
        async for _ in answer:
            pass

    call = asyncio.create_task(read())
    await fake.until(lambda requests: requests and requests[0].body and (not after or requests[0].status))
    call.cancel()
    await asyncio.wait([call])
    await fake.idle()
    (entry,) = fake.requests
    assert (entry.ended, entry.status) == ("disconnected", 200 if after else 0)
    assert entry.billed == entry.usage.input_tokens * 1_000 + entry.usage.output_tokens * 5_000
    assert (entry.usage.output_tokens > 0) == bool(after)


async def test_pings_forever() -> None:
    """A stream of pings goes on, at the asked pace, until the client leaves."""
    slept: list[float] = []
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 5:
            enough.set()
        await asyncio.sleep(0)

    fake = FakeClaude(sleep=sleep)
    async with fake.serve() as url, AsyncAnthropic(api_key=fake.api_key, base_url=url, max_retries=0) as client:
        fake.script(Fault.pings(every=0.5), Fault.pings())
        stream = await client.messages.create(**ASK, stream=True)
        await enough.wait()
        await stream.close()
        await fake.idle()
        call = asyncio.create_task(client.messages.create(**ASK))
        await fake.until(lambda requests: len(requests) == 2 and requests[1].body)
        call.cancel()
        await asyncio.wait([call])
        await fake.idle()
    assert set(slept) == {0.5}
    assert [entry.ended for entry in fake.requests] == ["disconnected", "disconnected"]


@pytest.mark.parametrize("fault", [Fault.truncated_json(), Fault.clean_eof()])
async def test_cut_json(fake: FakeClaude, client: AsyncAnthropic, fault: Fault) -> None:
    """Half of the JSON under a 200: the SDK lets the decoder's error through."""
    fake.script(fault)
    with pytest.raises(json.JSONDecodeError):
        await client.messages.create(**ASK)
    (entry,) = fake.requests
    assert (entry.status, entry.ended) == (200, "fault")
    assert entry.billed > 0


async def test_cut_streams(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """A stream that ends early raises nothing in the SDK; a cut event is billed as the whole answer."""
    whole = await events_of(client)
    fake.script(Fault.clean_eof(after=0), Fault.clean_eof(after=4), Fault.truncated_json())
    assert await events_of(client) == []
    assert await events_of(client) == ["message_start", "content_block_start", "content_block_delta"]
    assert (await events_of(client))[-1] == "content_block_delta"
    good, empty, ended, truncated = fake.requests
    assert (empty.status, empty.usage.output_tokens) == (200, 0)
    assert len(whole) > 6
    assert ended.usage.output_tokens < truncated.usage.output_tokens == good.usage.output_tokens


async def test_html(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """A page of HTML under a 200 is not a message, and not billed."""
    fake.script(Fault.html(), Fault.html())
    assert "<html>" in str(await client.messages.create(**ASK))
    assert await events_of(client) == []
    assert fake.billed == 0


async def test_hostile_usage(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """Usage is missing or lies, and the bill is the true one."""
    true = await client.messages.create(**ASK)
    fake.script(Fault.missing_usage(), Fault.missing_usage(), *[Fault.usage(output_tokens=-5, input_tokens="7")] * 2)
    assert (await client.messages.create(**ASK)).usage is None
    assert (await events_of(client))[-1] == "message_stop"
    message = await client.messages.create(**ASK)
    assert (message.usage.output_tokens, message.usage.input_tokens) == (-5, "7")
    async for event in await client.messages.create(**ASK, stream=True):
        if event.type == "message_delta":
            assert event.usage.output_tokens == -5
    assert {entry.billed for entry in fake.requests} == {fake.requests[0].billed}
    assert fake.requests[0].usage.output_tokens == true.usage.output_tokens


async def test_error_event(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """An error after the 200 is an APIStatusError with status 200; without a stream it is the status."""
    fake.script(Fault.error_event(after=3), Fault.error_event())
    with pytest.raises(anthropic.APIStatusError) as caught:
        await events_of(client)
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")
    with pytest.raises(anthropic.OverloadedError):
        await client.messages.create(**ASK)
    assert [entry.error for entry in fake.requests] == ["overloaded_error"] * 2


async def test_unknown_event(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """An event of the future does no harm."""
    fake.script(Fault.unknown_event(), Fault.unknown_event())
    assert "future_event" in await events_of(client)
    assert (await client.messages.create(**ASK)).stop_reason == "end_turn"
    assert fake.requests[0].stop_reason == "end_turn"
    assert fake.requests[0].ended == "fault"


async def test_reset_after_the_headers(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """The headers arrive, and then a reset and not a single byte."""
    fake.script(Fault.reset_after(0))
    stream = await client.messages.create(**ASK, stream=True)
    assert stream.response.status_code == 200
    with pytest.raises((httpx2.HTTPError, anthropic.APIConnectionError)):
        await anext(aiter(stream))
    await fake.idle()
    assert [entry.ended for entry in fake.requests] == ["fault"]


@pytest.mark.parametrize("stream", [False, True])
async def test_drip(fake: FakeClaude, client: AsyncAnthropic, *, stream: bool) -> None:
    """An answer that comes byte by byte is whole in the end, and billed as any."""
    fake.script(Fault.drip(every=0.0001))
    if stream:
        assert (await events_of(client))[-1] == "message_stop"
    else:
        assert (await client.messages.create(**ASK)).content
    (entry,) = fake.requests
    assert (entry.status, entry.billed) == (200, fake.billed)
    assert fake.billed > 0


async def test_exhausted(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """A good answer, and a 429, may say that nothing remains, and until when."""
    fake.script(Fault.exhausted(resets_in=7), Fault.rate_limit(None, resets_in=3))
    good = await client.messages.with_raw_response.create(**ASK)
    with pytest.raises(anthropic.RateLimitError) as caught:
        await client.messages.create(**ASK)
    for headers, seconds in ((good.headers, 7), (caught.value.response.headers, 3)):
        assert headers["anthropic-ratelimit-input-tokens-remaining"] == "0"
        reset = datetime.fromisoformat(headers["anthropic-ratelimit-requests-reset"])
        assert (reset - datetime.now(UTC)).total_seconds() <= seconds


async def test_headers_of_ones_own(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """A fault says what it is told to say, also in place of what the fake says by itself."""
    fake.script(Fault.overloaded().saying(x_should_retry="false", retry_after_ms="50"))
    fake.script(OK.saying(anthropic_ratelimit_requests_remaining="12"))
    with pytest.raises(anthropic.OverloadedError) as caught:
        await client.messages.create(**ASK)
    headers = caught.value.response.headers
    assert (headers["x-should-retry"], headers["retry-after-ms"]) == ("false", "50")
    good = await client.messages.with_raw_response.create(**ASK)
    assert good.headers.get_list("anthropic-ratelimit-requests-remaining") == ["12"]
