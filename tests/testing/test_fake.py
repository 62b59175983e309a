"""FakeClaude as the real SDK sees it, over a real socket."""

from __future__ import annotations

import asyncio
import json

import anthropic
import httpx
import pytest
from anthropic import AsyncAnthropic, beta_async_tool
from pydantic import BaseModel

from tierline.errors import ConfigurationError
from tierline.testing import FakeClaude, Fault, Received, Reply
from tierline.values import Usage

HAIKU, SONNET, OPUS = "claude-haiku-4-5", "claude-sonnet-4-6", "claude-opus-5-5"
HELLO = [{"role": "user", "content": "Hello there"}]
ADD = {
    "name": "add",
    "input_schema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "unit": {"enum": ["m", "km"]}},
        "required": ["a", "unit"],
    },
}


class Gate:
    """A sleep that returns at once so many times, and then never."""

    def __init__(self, passes: int) -> None:
        self.passes = passes

    async def __call__(self, seconds: float) -> None:
        self.passes -= 1
        if self.passes < 0:
            await asyncio.Event().wait()


class City(BaseModel):
    name: str
    population: int
    districts: list[str]


async def test_create(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """A plain call is answered, logged and billed at list price."""
    message = await client.messages.create(model=HAIKU, max_tokens=200, messages=HELLO)
    assert message.content[0].text.startswith("On “Hello there”:")
    assert (message.stop_reason, message.model) == ("end_turn", HAIKU)
    (entry,) = fake.requests
    assert entry.usage == Usage(message.usage.input_tokens, message.usage.output_tokens)
    # Haiku 4.5: $1 and $5 a million
    assert fake.billed == entry.billed == message.usage.input_tokens * 1_000 + message.usage.output_tokens * 5_000
    assert (entry.status, entry.ended, entry.streamed, entry.stop_reason) == (200, "complete", False, "end_turn")


async def test_equal_requests_get_equal_answers(client: AsyncAnthropic) -> None:
    """Without a seed there is no chance in it."""
    one, two = [await client.messages.create(model=HAIKU, max_tokens=200, messages=HELLO) for _ in range(2)]
    assert (one.content, one.usage) == (two.content, two.usage)
    assert one.id != two.id


async def test_seed_varies_the_answers() -> None:
    """Fakes with different seeds differ, fakes with the same do not."""

    async def said(seed: int | None) -> str:
        async with FakeClaude(seed=seed).client() as client:
            return (await client.messages.create(model=HAIKU, max_tokens=500, messages=HELLO)).content[0].text

    assert await said(1) == await said(1)
    assert len({await said(seed) for seed in (None, 1, 2, 3, 4, 5)}) > 2


async def test_a_reply_says_what_its_prompt_has_and_how_long_it_takes() -> None:
    """Tokens of the prompt replace those that are counted, in usage and bill; seconds replace the fake's latency."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    fake = FakeClaude(
        answer=lambda _: Reply("Hi", input_tokens=1_000, output_tokens=10, seconds=2.5), latency=9.0, sleep=sleep
    )
    async with fake.client() as client:
        message = await client.messages.create(model=HAIKU, max_tokens=100, messages=HELLO)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (1_000, 10)
    assert fake.billed == 1_000 * 1_000 + 10 * 5_000
    assert slept == [2.5]


async def test_tokens_that_a_reply_names_share_the_prompt_with_the_cache() -> None:
    """What is written to the cache is part of them, and the rest is fresh."""
    fake = FakeClaude(answer=lambda _: Reply("Hi", input_tokens=50_000))
    system = [{"type": "text", "text": "Rules. " * 4_000, "cache_control": {"type": "ephemeral"}}]
    async with fake.client() as client:
        usage = (await client.messages.create(model=HAIKU, max_tokens=100, system=system, messages=HELLO)).usage
    assert usage.cache_creation_input_tokens > 4_096
    assert usage.input_tokens + usage.cache_creation_input_tokens == 50_000


async def test_headers_are_those_of_the_api(client: AsyncAnthropic) -> None:
    """The ids and the rate limit headers are there, and count down."""
    raw = await client.messages.with_raw_response.create(model=HAIKU, max_tokens=50, messages=HELLO)
    again = await client.messages.with_raw_response.create(model=HAIKU, max_tokens=50, messages=HELLO)
    assert raw.headers["request-id"].startswith("req_")
    assert raw.headers["anthropic-organization-id"]
    for kind in ("requests", "tokens", "input-tokens", "output-tokens"):
        before, after = (int(r.headers[f"anthropic-ratelimit-{kind}-remaining"]) for r in (raw, again))
        assert after < before < int(raw.headers[f"anthropic-ratelimit-{kind}-limit"])
        assert raw.headers[f"anthropic-ratelimit-{kind}-reset"].endswith("Z")
    assert (await raw.parse()).content[0].type == "text"


async def test_raw_stream_has_the_events_of_the_api(client: AsyncAnthropic) -> None:
    """A stream begins, pings, comes in several deltas, and ends with cumulative usage."""
    types = []
    last = None
    async for event in await client.messages.create(model=OPUS, max_tokens=400, messages=HELLO, stream=True):
        types.append(event.type)
        last = event if event.type == "message_delta" else last
    assert types[:2] == ["message_start", "content_block_start"]
    assert types[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert types.count("content_block_delta") > 5
    assert last is not None
    assert last.usage.output_tokens > 160
    assert last.usage.output_tokens_details.thinking_tokens == 160


async def test_ping_is_sent(fake: FakeClaude) -> None:
    """The SDK hides pings, so they are looked for without it."""
    async with fake.serve() as url, httpx.AsyncClient(base_url=url) as http:
        headers = {"x-api-key": fake.api_key, "anthropic-version": "2023-06-01"}
        body = {"model": HAIKU, "max_tokens": 50, "messages": HELLO, "stream": True}
        answer = await http.post("/v1/messages?beta=true", json=body, headers=headers)
    assert 'event: ping\ndata: {"type":"ping"}\n\n' in answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize("model", [HAIKU, SONNET, OPUS, "claude-haiku-5-5"])
async def test_stream_says_what_the_json_says(client: AsyncAnthropic, model: str) -> None:
    """The final message of a stream is the message of a plain call."""
    plain = await client.messages.create(model=model, max_tokens=400, messages=HELLO)
    async with client.messages.stream(model=model, max_tokens=400, messages=HELLO) as stream:
        final = await stream.get_final_message()
    assert final.model_dump(exclude={"id"}) == plain.model_dump(exclude={"id"})


async def test_beta_client(client: AsyncAnthropic) -> None:
    """`?beta=true` is answered in the same way."""
    message = await client.beta.messages.create(model=HAIKU, max_tokens=100, messages=HELLO)
    assert message.stop_reason == "end_turn"


async def test_count_tokens_agrees_with_usage(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """Counting costs nothing and says what a call then uses."""
    count = await client.messages.count_tokens(model=HAIKU, messages=HELLO, system="Be brief.", tools=[ADD])
    assert fake.billed == 0
    message = await client.messages.create(model=HAIKU, max_tokens=100, messages=HELLO, system="Be brief.", tools=[ADD])
    assert count.input_tokens == message.usage.input_tokens


async def test_forced_tool_gets_a_valid_input(client: AsyncAnthropic) -> None:
    """A forced tool is called with what its schema asks for, streamed or not."""
    ask = {"model": HAIKU, "max_tokens": 200, "messages": HELLO, "tools": [ADD], "tool_choice": {"type": "any"}}
    message = await client.messages.create(**ask)
    assert message.stop_reason == "tool_use"
    assert message.content[0].input == {"a": 1, "unit": "m"}
    async with client.messages.stream(**ask) as stream:
        final = await stream.get_final_message()
    assert final.content[0].input == message.content[0].input


async def test_tool_runner(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """The SDK's tool runner goes round once and ends with a text."""

    @beta_async_tool
    async def double(number: int) -> str:
        """Double a number."""
        return str(2 * number)

    def answer(received: Received) -> Reply:
        last = received.body["messages"][-1]["content"]
        if isinstance(last, str):
            return Reply(text="Let me see.", tool="double", input={"number": 21})
        return Reply(text=last[0]["content"])

    fake.answer = answer
    runner = client.beta.messages.tool_runner(
        model=OPUS, max_tokens=600, tools=[double], messages=[{"role": "user", "content": "Double 21"}]
    )
    final = await runner.until_done()
    assert final.content[-1].text == "42"
    assert [entry.stop_reason for entry in fake.requests] == ["tool_use", "end_turn"]


async def test_parse_gets_json_for_the_schema(client: AsyncAnthropic) -> None:
    """Structured outputs are valid for their model."""
    message = await client.messages.parse(model=SONNET, max_tokens=300, messages=HELLO, output_format=City)
    assert isinstance(message.parsed_output, City)


async def test_models(client: AsyncAnthropic) -> None:
    """The catalogue lists what the fake knows, page by page, and one by one."""
    ids = [model.id async for model in client.models.list(limit=3)]
    assert len(ids) == 15
    info = await client.models.retrieve(HAIKU)
    assert (info.max_input_tokens, info.max_tokens) == (200_000, 64_000)
    assert not info.capabilities.effort.supported
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("claude-nothing")
    with pytest.raises(anthropic.BadRequestError):
        await client.models.list(limit=0)


@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
@pytest.mark.parametrize("model", ["auto", "claude-3-opus-20240229", "claude-sonnet-4-20250514"])
async def test_unknown_model_is_not_found(fake: FakeClaude, client: AsyncAnthropic, model: str) -> None:
    """`auto` never reaches a model, and neither does a retired one; nothing is billed."""
    with pytest.raises(anthropic.NotFoundError) as caught:
        await client.messages.create(model=model, max_tokens=10, messages=HELLO)
    assert caught.value.type == "not_found_error"
    assert caught.value.body["request_id"] == caught.value.request_id
    with pytest.raises(anthropic.NotFoundError):
        await client.messages.count_tokens(model=model, messages=HELLO)
    assert (fake.billed, fake.requests[0].error) == (0, "not_found_error")


async def test_unknown_paths_and_methods(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """What nobody serves is not found, and a wrong method is refused."""
    with pytest.raises(anthropic.NotFoundError):
        await client.get("/v1/complete", cast_to=object)
    async with fake.serve() as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/v1/messages")).status_code == 405


async def test_only_its_key_is_accepted(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """A wrong key is a 401, as a key or as a token, and the right one works as both."""
    with pytest.raises(anthropic.AuthenticationError):
        await client.with_options(api_key="sk-wrong").messages.create(model=HAIKU, max_tokens=9, messages=HELLO)
    async with fake.serve() as url, httpx.AsyncClient(base_url=url) as http:
        body = {"model": HAIKU, "max_tokens": 9, "messages": HELLO}
        version = {"anthropic-version": "2023-06-01"}
        assert (await http.post("/v1/messages", json=body, headers=version)).status_code == 401
        bearer = {"authorization": f"Bearer {fake.api_key}"}
        assert (await http.post("/v1/messages", json=body, headers=bearer | version)).status_code == 200
        missing = await http.post("/v1/messages", json=body, headers=bearer)
        assert missing.json()["error"]["message"] == "anthropic-version: header is required"
    assert all(fake.api_key not in str(entry.headers) for entry in fake.requests)
    assert fake.requests[-1].headers["authorization"] == "[redacted]"


async def test_thinking_eats_a_small_answer(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """With 32 tokens, a model that thinks by default says nothing, and is paid for 32."""
    message = await client.messages.create(model="claude-haiku-5-5", max_tokens=32, messages=HELLO)
    assert (message.stop_reason, [block.type for block in message.content]) == ("max_tokens", ["thinking"])
    assert message.usage.output_tokens == message.usage.output_tokens_details.thinking_tokens == 32
    quiet = await client.messages.create(
        model="claude-haiku-5-5", max_tokens=32, messages=HELLO, thinking={"type": "disabled"}
    )
    assert quiet.content[0].type == "text"


async def test_a_reply_may_refuse_search_or_spend(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """A Reply sets what a string cannot: the stop reason, the searches, the tokens."""
    fake.answer = lambda received: Reply(text="No.", stop_reason="refusal", web_searches=2, output_tokens=1_000)
    message = await client.messages.create(model=HAIKU, max_tokens=5_000, messages=HELLO)
    assert (message.stop_reason, message.stop_details.type) == ("refusal", "refusal")
    assert message.usage.server_tool_use.web_search_requests == 2
    assert fake.billed == message.usage.input_tokens * 1_000 + 1_000 * 5_000 + 2 * 10_000_000


async def test_an_answer_that_fails_says_so(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """A bug in the test's own callable is a 500 that names it and is not retried."""

    def answer(received: Received) -> str:
        raise KeyError("oops")

    fake.answer = answer
    with pytest.raises(anthropic.InternalServerError, match="oops"):
        await client.with_options(max_retries=2).messages.create(model=HAIKU, max_tokens=9, messages=HELLO)
    fake.answer = lambda received: Reply(tool="missing")
    with pytest.raises(anthropic.InternalServerError, match="missing"):
        await client.messages.create(model=HAIKU, max_tokens=9, messages=HELLO)
    assert len(fake.requests) == 2


async def test_cache_fields_over_the_wire(client: AsyncAnthropic) -> None:
    """The first call writes the prefix, the second reads it."""
    system = [{"type": "text", "text": "x" * 20_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    one, two = [
        await client.messages.create(model=HAIKU, max_tokens=20, system=system, messages=HELLO) for _ in range(2)
    ]
    assert one.usage.cache_creation.ephemeral_1h_input_tokens == one.usage.cache_creation_input_tokens == 5_004
    assert (two.usage.cache_read_input_tokens, two.usage.cache_creation_input_tokens) == (5_004, 0)
    assert two.usage.input_tokens == one.usage.input_tokens


async def test_a_client_that_leaves_pays_for_what_was_generated() -> None:
    """A stream that is left costs its input and the output up to then, and no more."""
    fake = FakeClaude(chunk_delay=1, sleep=Gate(5), answer=lambda received: "word " * 200)
    async with fake.serve() as url, AsyncAnthropic(api_key=fake.api_key, base_url=url, max_retries=0) as client:
        stream = await client.messages.create(model=HAIKU, max_tokens=900, messages=HELLO, stream=True)
        await anext(aiter(stream))
        await stream.close()
        await fake.idle()
    (entry,) = fake.requests
    assert (entry.ended, entry.status, entry.streamed) == ("disconnected", 200, True)
    assert entry.usage.input_tokens > 0
    assert 0 < entry.usage.output_tokens < 250
    assert entry.billed == fake.billed == entry.usage.input_tokens * 1_000 + entry.usage.output_tokens * 5_000


async def test_a_client_that_leaves_before_the_answer_pays_the_input() -> None:
    """Nothing was generated yet, so no output is billed."""
    fake = FakeClaude(latency={HAIKU: 1.0}, sleep=Gate(0))
    async with fake.serve() as url, AsyncAnthropic(api_key=fake.api_key, base_url=url, max_retries=0) as client:
        call = asyncio.create_task(client.messages.create(model=HAIKU, max_tokens=9, messages=HELLO))
        await fake.until(lambda requests: requests and requests[0].body)
        call.cancel()
        await asyncio.wait([call])
        await fake.idle()
    (entry,) = fake.requests
    assert (entry.ended, entry.status, entry.usage.output_tokens) == ("disconnected", 0, 0)
    assert entry.billed == entry.usage.input_tokens * 1_000 > 0


async def test_latency_is_slept_once_and_only_for_messages() -> None:
    """The injected sleep gets the model's latency, before the first byte."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    fake = FakeClaude(latency={OPUS: 2.5}, chunk_delay=0.1, sleep=sleep)
    async with fake.client() as client:
        await client.messages.create(model=HAIKU, max_tokens=9, messages=HELLO)
        await client.models.list()
        assert slept == []
        await client.messages.create(model=OPUS, max_tokens=9, messages=HELLO)
        assert slept == [2.5]
        await client.messages.create(model=HAIKU, max_tokens=9, messages=HELLO, stream=True)
        assert set(slept[1:]) == {0.1}


async def test_geo_and_speed_are_billed(fake: FakeClaude, client: AsyncAnthropic) -> None:
    """US inference costs a tenth more, fast mode twice as much, and both multiply."""
    ask = {"model": OPUS, "max_tokens": 300, "messages": HELLO}
    for extra in ({}, {"inference_geo": "us"}, {"speed": "fast"}, {"speed": "fast", "inference_geo": "us"}):
        await client.messages.create(**ask, extra_body=extra)
    plain, us, fast, both = (entry.billed for entry in fake.requests)
    assert [us * 10, fast, both * 10] == [plain * 11, plain * 2, plain * 22]
    async with FakeClaude(inference_geo="us").client() as american:
        message = await american.messages.create(**ask)
    assert message.usage.inference_geo == "us"


async def test_a_workspace_in_the_us_is_billed_so() -> None:
    """The default place counts where a request does not say, and not for a model without the choice."""
    fake = FakeClaude(inference_geo="us")
    async with fake.client() as client:
        for model, extra in ((OPUS, {}), (OPUS, {"inference_geo": "global"}), (HAIKU, {})):
            await client.messages.create(model=model, max_tokens=300, messages=HELLO, extra_body=extra)
    us, elsewhere, haiku = fake.requests
    assert us.billed * 10 == elsewhere.billed * 11
    assert haiku.billed == haiku.usage.input_tokens * 1_000 + haiku.usage.output_tokens * 5_000


async def test_the_log_is_bounded_and_the_sum_is_not() -> None:
    """Old requests are dropped, their money is not."""
    fake = FakeClaude(keep=2)
    async with fake.client() as client:
        for _ in range(5):
            await client.messages.create(model=HAIKU, max_tokens=20, messages=HELLO)
    assert len(fake.requests) == 2
    assert fake.billed == 5 * fake.requests[0].billed


async def test_aliases() -> None:
    """A further id behaves and costs as the model that it stands for."""
    fake = FakeClaude(aliases={"claude-next": HAIKU})
    async with fake.client() as client:
        message = await client.messages.create(model="claude-next", max_tokens=50, messages=HELLO)
    assert message.model == "claude-next"
    assert fake.billed > 0
    with pytest.raises(ConfigurationError, match="claude-next"):
        FakeClaude(aliases={"claude-next": "gpt"})
    with pytest.raises(ConfigurationError, match="inference_geo"):
        FakeClaude(inference_geo="mars")


async def test_client_without_a_socket(fake: FakeClaude) -> None:
    """The ASGI client creates, streams and fails as the one on a socket does."""
    async with fake.client(max_retries=0) as client:
        assert (await client.messages.create(model=HAIKU, max_tokens=50, messages=HELLO)).content
        async with client.messages.stream(model=HAIKU, max_tokens=50, messages=HELLO) as stream:
            assert (await stream.get_final_message()).content
        fake.script(Fault.reset())
        with pytest.raises(anthropic.APIConnectionError):
            await client.messages.create(model=HAIKU, max_tokens=50, messages=HELLO)
        fake.script(Fault.overloaded())
        with pytest.raises(anthropic.OverloadedError):
            await client.messages.create(model=HAIKU, max_tokens=50, messages=HELLO)


async def test_lifespan_and_websockets(fake: FakeClaude) -> None:
    """A server may run its lifespan, and a WebSocket is refused."""
    sent: list[str] = []
    incoming = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        return {"type": next(incoming)}

    async def send(message: dict[str, object]) -> None:
        sent.append(str(message["type"]))

    await fake({"type": "lifespan"}, receive, send)
    await fake({"type": "websocket"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete", "websocket.close"]


async def test_a_send_that_fails_is_a_client_that_left(fake: FakeClaude) -> None:
    """Servers of ASGI 2.4 raise OSError from send; it goes no further, and the request is logged as left."""
    body = json.dumps({"model": HAIKU, "max_tokens": 50, "messages": HELLO}).encode()
    headers = [(b"x-api-key", fake.api_key.encode()), (b"anthropic-version", b"2023-06-01")]
    scope = {"type": "http", "method": "POST", "path": "/v1/messages", "headers": headers, "query_string": b""}
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, object]:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, object]) -> None:
        raise OSError

    await fake(scope, receive, send)
    assert fake.requests[0].ended == "disconnected"


async def test_a_client_that_leaves_while_it_sends(fake: FakeClaude) -> None:
    """Half a request is logged, answered by nobody, and free."""
    headers = [(b"x-api-key", fake.api_key.encode()), (b"anthropic-version", b"2023-06-01")]
    scope = {"type": "http", "method": "POST", "path": "/v1/messages", "headers": headers, "query_string": b""}

    async def receive() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, object]) -> None:
        raise AssertionError

    await fake(scope, receive, send)
    assert (fake.requests[0].ended, fake.billed) == ("disconnected", 0)


async def test_idempotency_key_and_mount_point(fake: FakeClaude) -> None:
    """The key of a request is logged, and a mounted fake finds its paths."""
    from starlette.applications import Starlette
    from starlette.routing import Mount

    transport = httpx.ASGITransport(app=Starlette(routes=[Mount("/claude", app=fake)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        headers = {"x-api-key": fake.api_key, "anthropic-version": "2023-06-01", "idempotency-key": "k1"}
        body = {"model": HAIKU, "max_tokens": 9, "messages": HELLO}
        assert (await http.post("/claude/v1/messages", json=body, headers=headers)).status_code == 200
    assert (fake.requests[0].path, fake.requests[0].idempotency_key) == ("/v1/messages", "k1")
