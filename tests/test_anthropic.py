"""The seam: the real SDK over a real socket, every method, every ending."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest
from anthropic import Anthropic, AsyncAnthropic, Middleware, beta_async_tool
from pydantic import BaseModel

from tierline import Budget, Ladder, Router, policy
from tierline.anthropic import attach
from tierline.attempts import Timing
from tierline.classify import ClaudeClassifier, FixedClassifier
from tierline.errors import BudgetExceededError, ConfigurationError, IllegalRequestError, UnknownModelError
from tierline.testing import OK, FakeClaude, Fault, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline import Decision
    from tierline.testing import Received

pytestmark = pytest.mark.usefixtures("quiet")

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "Why is it blue?"}]}
TOOL: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
HARD = Budget("$5/day", downgrade_at=None, cheapest_at=None)


def models(fake: FakeClaude) -> list[str | None]:
    return [received.model for received in fake.requests]


def asked(fake: FakeClaude) -> list[Received]:
    """The verdicts that were asked for."""
    return [r for r in fake.requests if r.body and "Labels: " in str(r.body.get("system", ""))]


async def balance(router: Router) -> tuple[int, int]:
    """What was spent and is held on the only account."""
    (only,) = await router.balances()
    return only.spent, only.held


async def decision_of(router: Router, **changes: Any) -> Decision:
    """The decision of one call."""
    async with router.bind() as binding:
        await router.claude.messages.create(**{**ASK, **changes})
    return binding.decisions[-1]


# Every method


async def test_create(router: Router, fake: FakeClaude) -> None:
    """`create` goes to the tier of its label, with the answer as the SDK gives it."""
    message = await router.claude.messages.create(**ASK)
    assert (message.model, models(fake)) == (SONNET, [SONNET])
    assert message.content[-1].type == "text"
    assert isinstance(message, anthropic.types.Message)


async def test_stream_helper(router: Router, fake: FakeClaude) -> None:
    """`messages.stream` gives its text in pieces, and is settled at its end."""
    async with router.bind() as binding:
        async with router.claude.messages.stream(**ASK) as stream:
            assert not binding.decisions[-1].settled
            pieces = [text async for text in stream.text_stream]
            final = await stream.get_final_message()
        (decision,) = binding.decisions
    assert len(pieces) > 1
    assert final.model == SONNET
    assert decision.settled
    assert not decision.estimated
    assert decision.cost == fake.billed
    assert decision.usage.output_tokens == final.usage.output_tokens


async def test_create_stream(router: Router, fake: FakeClaude) -> None:
    """`create(stream=True)` is one call too, with the same events."""
    async with router.bind() as binding:
        stream = await router.claude.messages.create(**ASK, stream=True)
        kinds = [event.type async for event in stream]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert [d.cost for d in binding.decisions] == [fake.billed]


async def test_parse(router: Router, fake: FakeClaude) -> None:
    """`parse` validates into a model of the app's, and is metered."""

    class City(BaseModel):
        name: str
        people: int

    async with router.bind() as binding:
        message = await router.claude.messages.parse(**ASK, output_format=City)
    assert isinstance(message.parsed_output, City)
    assert binding.decisions[-1].cost == fake.billed > 0


@pytest.mark.parametrize("beta", [False, True])
async def test_raw_response(router: Router, fake: FakeClaude, beta: bool) -> None:
    """`with_raw_response` shows headers and body, and is metered without being parsed."""
    messages = router.claude.beta.messages if beta else router.claude.messages
    async with router.bind() as binding:
        raw = await messages.with_raw_response.create(**ASK)
    assert raw.headers["request-id"].startswith("req_")
    assert (await _parsed(raw)).model == SONNET
    assert binding.decisions[-1].cost == fake.billed > 0


async def _parsed(raw: Any) -> Any:
    parsed = raw.parse()
    return await parsed if asyncio.iscoroutine(parsed) else parsed


async def test_streaming_response(router: Router, fake: FakeClaude) -> None:
    """`with_streaming_response` is settled when its body has been read."""
    async with router.bind() as binding:
        async with router.claude.messages.with_streaming_response.create(**ASK) as response:
            assert not binding.decisions[-1].settled
            body = json.loads(await response.read())
        (decision,) = binding.decisions
    assert body["model"] == SONNET
    assert decision.settled
    assert decision.cost == fake.billed
    assert not decision.estimated


async def test_streaming_response_of_a_stream(router: Router, fake: FakeClaude) -> None:
    """`with_streaming_response.create(stream=True)` passes lines on as they come."""
    create = router.claude.messages.with_streaming_response.create
    async with router.bind() as binding, create(**ASK, stream=True) as response:
        lines = [line async for line in response.iter_lines()]
    assert any("message_stop" in line for line in lines)
    assert binding.decisions[-1].cost == fake.billed


async def test_streaming_response_unread(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """An answer that is no stream is whole before it is sent, so one that is left unread is charged as such."""
    router = make_router(budgets=[HARD])
    fake.answer = lambda _: Reply("word " * 300, output_tokens=480)
    async with router.bind() as binding:
        async with router.claude.messages.with_streaming_response.create(**ASK) as response:
            assert response.status_code == 200
        (decision,) = binding.decisions
    await fake.idle()
    spent, held = await balance(router)
    assert decision.estimated
    assert (spent >= fake.billed > 0, held) == (True, 0)


async def test_beta_messages(router: Router, fake: FakeClaude) -> None:
    """`beta.messages` is routed, whole and streamed."""
    message = await router.claude.beta.messages.create(**ASK)
    async with router.claude.beta.messages.stream(**ASK) as stream:
        final = await stream.get_final_message()
    assert (message.model, final.model) == (SONNET, SONNET)
    assert router.report().cost == fake.billed


async def test_tool_loop_has_one_verdict(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """Steps of a tool loop go where its first one went, and Claude is asked once how hard it is."""
    router = make_router(classifier=ClaudeClassifier())
    fake.verdict = lambda _text, _labels: ("moderate", 0.9)
    replies = [Reply(tool="weather", input={"city": "Rome"}), Reply(tool="weather", input={"city": "Oslo"})]
    fake.answer = lambda _: replies.pop(0) if replies else "Warm."
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Is it warmer in Rome?"}]
    async with router.bind() as binding:
        for _ in range(3):
            step = await router.claude.messages.create(model="auto", max_tokens=2000, messages=messages, tools=[TOOL])
            messages.append({"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in step.content]})
            results = [
                {"type": "tool_result", "tool_use_id": b.id, "content": "20"}
                for b in step.content
                if b.type == "tool_use"
            ]
            messages.append({"role": "user", "content": results or "Thanks"})
    assert [d.tier for d in binding.decisions] == ["sonnet"] * 3
    assert len(asked(fake)) == 1
    assert step.content[-1].text == "Warm."
    assert router.report().cost == fake.billed


async def test_tool_loop_without_an_opinion_stays(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A loop whose first step had no opinion keeps its tier: doubt moves no later step up."""
    router = make_router(classifier=ClaudeClassifier())
    fake.verdict = lambda _text, _labels: "no idea"
    fake.answer = lambda received: (
        Reply(tool="weather", input={"city": "Rome"}) if len(received.body["messages"]) == 1 else "Warm."
    )
    first = await router.claude.messages.create(**{**ASK, "max_tokens": 2000}, tools=[TOOL])
    use = first.content[-1]
    await router.claude.messages.create(
        model="auto",
        max_tokens=2000,
        tools=[TOOL],
        messages=[
            *ASK["messages"],
            {"role": "assistant", "content": [b.model_dump(exclude_none=True) for b in first.content]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use.id, "content": "20"}]},
        ],
    )
    assert models(fake) == [HAIKU, SONNET, SONNET]


async def test_tool_runner(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """The SDK's tool runner runs its loop through the seam, on one tier, although later turns show little of it."""
    router = make_router(classifier=ClaudeClassifier(), budgets=[HARD])
    labels = ["complex", "simple", "simple"]
    fake.verdict = lambda _text, _labels: (labels.pop(0), 0.9)

    @beta_async_tool
    async def weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: Its name.
        """
        return f"20 degrees in {city}"

    fake.answer = lambda received: (
        "It is warm." if "tool_result" in str(received.body) else Reply(tool="weather", input={"city": "Rome"})
    )
    runner = router.claude.beta.messages.tool_runner(**{**ASK, "max_tokens": 2000}, tools=[weather])
    final = await runner.until_done()
    assert final.content[-1].text == "It is warm."
    assert models(fake) == [HAIKU, OPUS, OPUS]
    assert router.report().calls == 2
    assert await balance(router) == (fake.billed, 0)


async def test_count_tokens(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A count with `auto` gets a real model, and Claude is not asked which one."""
    router = make_router(classifier=ClaudeClassifier())
    counted = await router.claude.messages.count_tokens(model="auto", messages=ASK["messages"])
    assert counted.input_tokens > 0
    assert [(r.path, r.model) for r in fake.requests] == [("/v1/messages/count_tokens", SONNET)]
    beta = await router.claude.beta.messages.count_tokens(model="auto", messages=ASK["messages"])
    assert beta.input_tokens == counted.input_tokens
    assert router.report().calls == 0


async def test_count_tokens_keeps_to_the_policy(router: Router, fake: FakeClaude) -> None:
    """A count goes to the tier that a call like it would go to, by label, floor and ceiling."""
    for rule in (policy(label="complex"), policy(ceiling="haiku"), policy(floor="opus"), policy(tier="haiku")):
        with rule:
            await router.claude.messages.count_tokens(model="auto", messages=ASK["messages"])
    assert models(fake) == [OPUS, HAIKU, OPUS, HAIKU]


async def test_count_tokens_takes_no_verdict_away(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A call that comes at the same moment as a count still gets its verdict."""
    router = make_router(classifier=ClaudeClassifier())
    fake.verdict = lambda _text, _labels: ("complex", 0.9)
    client = router.claude.messages
    # `max_tokens` is part of the verdict's key, so the count carries it as the call does.
    count = client.count_tokens(model="auto", messages=ASK["messages"], extra_body={"max_tokens": 500})
    results = await asyncio.gather(count, client.create(**ASK), return_exceptions=True)
    assert results[1].model == OPUS  # type: ignore[union-attr]


async def test_low_level_post(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """The SDK's low-level `post` is metered, also where it answers with a bare response."""
    router = make_router(budgets=[HARD])
    response = await router.claude.post("/v1/messages", body=ASK, cast_to=httpx2.Response)
    assert response.json()["model"] == SONNET
    assert await balance(router) == (fake.billed, 0)
    fake.script(Fault.error(400))
    refused = await router.claude.post("/v1/messages", body=ASK, cast_to=httpx2.Response)
    assert refused.status_code == 400


# Model ids and policies


async def test_explicit_id_is_respected(router: Router, fake: FakeClaude) -> None:
    """An id that the app wrote goes out as it is, and falls back nowhere."""
    decision = await decision_of(router, model="claude-opus-4-8")
    assert (models(fake), decision.source) == (["claude-opus-4-8"], "explicit")
    fake.script(Fault.spend_limit(), model=OPUS)
    fake.always(OPUS, Fault.overloaded())
    with pytest.raises(anthropic.RateLimitError):
        await decision_of(router, model=OPUS)
    with pytest.raises(anthropic.OverloadedError):
        await decision_of(router, model=OPUS)
    assert set(models(fake)) == {"claude-opus-4-8", OPUS}


@pytest.mark.parametrize(
    ("rule", "model", "sent"),
    [
        (policy(floor="sonnet"), HAIKU, SONNET),
        (policy(ceiling="sonnet"), OPUS, SONNET),
        (policy(ceiling="sonnet"), "claude-fable-5-2", SONNET),
        (policy(explicit_model="ceiling"), OPUS, SONNET),
        (policy(explicit_model="ceiling"), HAIKU, HAIKU),
        (policy(explicit_model="route"), HAIKU, SONNET),
        (policy(tier="opus"), HAIKU, OPUS),
        (policy(label="simple"), "auto", HAIKU),
        (policy(max_tokens=100), "claude-sonnet-5-5-20260601", "claude-sonnet-5-5-20260601"),
    ],
)
async def test_explicit_id_and_policy(make_router: Callable[..., Router], rule: Any, model: str, sent: str) -> None:
    """A policy holds for ids that the app hard-coded, in the way that it says."""
    fake = FakeClaude(aliases={"claude-sonnet-5-5-20260601": SONNET})
    router = make_router(fake.client())
    async with router.bind():
        with rule:
            await router.claude.messages.create(**{**ASK, "model": model})
    assert models(fake) == [sent]
    assert fake.requests[0].body["max_tokens"] == (rule.max_tokens or 500)


async def test_unknown_id_under_a_floor(router: Router, fake: FakeClaude) -> None:
    """An id without a price cannot be held to a floor, and is not sent."""
    with policy(floor="sonnet"), pytest.raises(UnknownModelError, match="unheard-of"):
        await router.claude.messages.create(**{**ASK, "model": "unheard-of"})
    assert fake.requests == []


# attach


async def test_attach_is_idempotent(sdk: AsyncAnthropic, router: Router, make_router: Callable[..., Router]) -> None:
    """A routed client is returned as it is; another Router takes it over with its retries."""
    routed = attach(sdk, router)
    assert attach(routed, router) is routed
    assert type(routed) is AsyncAnthropic
    assert sdk.middleware == ()
    other = attach(routed, make_router())
    assert len(other.middleware) == 1
    assert other.middleware[0].retries == 2


@pytest.mark.parametrize("retries", [0, 1, 3])
async def test_with_options_bounds_the_retries(router: Router, fake: FakeClaude, retries: int) -> None:
    """`with_options(max_retries=n)` is the bound of Tierline's loop: n + 1 requests upstream, no more."""
    fake.always(None, Fault.error(500))
    client = router.claude.with_options(max_retries=retries)
    with policy(tier="sonnet"), pytest.raises(anthropic.InternalServerError):
        await client.messages.create(**ASK)
    assert models(fake) == [SONNET] * (retries + 1)


async def test_sdk_does_not_retry_on_top(router: Router, fake: FakeClaude) -> None:
    """Where one request asks the SDK itself for retries, Tierline's loop is still all that there is."""
    fake.always(None, Fault.error(500))
    options: Any = {"max_retries": 3}
    with policy(tier="sonnet"), pytest.raises(anthropic.InternalServerError):
        await router.claude.post("/v1/messages", body=ASK, cast_to=anthropic.types.Message, options=options)
    assert models(fake) == [SONNET] * 3


async def test_retries_of_the_client_are_kept(
    fake: FakeClaude, fake_url: str, make_router: Callable[..., Router]
) -> None:
    """The client's own `max_retries` is the bound, also after a copy that changes something else."""
    async with AsyncAnthropic(api_key=fake.api_key, base_url=fake_url, max_retries=1) as client:
        router = make_router(client)
        fake.always(None, Fault.error(500))
        for routed in (router.claude, router.claude.with_options(timeout=30), router.claude.copy()):
            before = len(fake.requests)
            with policy(tier="haiku"), pytest.raises(anthropic.InternalServerError):
                await routed.messages.create(**ASK)
            assert len(fake.requests) - before == 2


async def test_copies_stay_routed(router: Router, fake: FakeClaude) -> None:
    """Whatever makes a copy of a routed client makes a routed one, with one seam."""
    seen: list[str] = []

    async def note(request: Any, call_next: Any) -> Any:
        seen.append(request.json["model"])
        return await call_next(request)

    client = router.claude
    for copy in (client.copy(), client.with_options(timeout=20), client.with_middleware(note), client.copy().copy()):
        await copy.messages.create(**ASK)
        assert sum(type(entry).__name__ == "Seam" for entry in copy.middleware) == 1
    assert models(fake) == [SONNET] * 4
    assert seen == ["auto"]


async def test_middleware_of_the_app_runs(sdk: AsyncAnthropic, make_router: Callable[..., Router]) -> None:
    """A middleware that the client has already still sees its calls, and may change them."""

    class Named(Middleware):
        async def handle_async(self, request: Any, call_next: Any) -> Any:
            copied = request.copy(headers={**request.headers, "x-app": "shop"})
            return await call_next(copied)

    router = make_router(sdk.with_middleware(Named()))
    fake = FakeClaude()
    async with fake.serve() as url:
        await router.claude.with_options(base_url=url).messages.create(**ASK)
    assert fake.requests[0].headers["x-app"] == "shop"
    assert fake.requests[0].model == SONNET


@pytest.mark.parametrize("what", [object(), "sk-ant-key", Anthropic, httpx2.Client])
def test_what_is_no_client_is_refused(what: Any) -> None:
    """What is no client of the SDK is named as the mistake that it is."""
    with pytest.raises(ConfigurationError, match=r"a client of the anthropic SDK is needed"):
        attach(what, Router())
    with pytest.raises(ConfigurationError, match=r"a client of the anthropic SDK is needed"):
        Router(what)


def test_clients_of_the_other_kind_are_refused(fake: FakeClaude) -> None:
    """A Router with a synchronous client for an asynchronous one, or the reverse, says where it belongs."""
    with pytest.raises(ConfigurationError, match=r"got Anthropic: give it as Router\(sync_client=…\)"):
        Router(Anthropic(api_key=fake.api_key))
    with pytest.raises(ConfigurationError, match=r"got AsyncAnthropic: give it as Router\(client=…\)"):
        Router(sync_client=fake.client())


# Retries and fallback


async def test_one_call_is_one_decision(router: Router, fake: FakeClaude) -> None:
    """Retries are attempts of one decision, under one idempotency key."""
    fake.script(Fault.error(500), Fault.overloaded(), OK)
    decision = await decision_of(router)
    assert [(a.role, a.outcome) for a in decision.attempts] == [
        ("first", "api_error"),
        ("retry", "overloaded_error"),
        ("retry", "ok"),
    ]
    assert len({r.idempotency_key for r in fake.requests}) == 1
    assert decision.cost == decision.attempts[-1].cost == fake.billed
    assert router.report().calls == 1


async def test_backoff_has_full_jitter(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """The longest wait doubles up to its cap, and each wait is a random share of it."""
    waits: list[float] = []
    shares = iter([1.0, 0.5, 0.0, 1.0, 1.0, 1.0])

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    router = make_router(timing=Timing(sleep=sleep, jitter=lambda: next(shares)))
    fake.always(None, Fault.error(500))
    with policy(tier="haiku"), pytest.raises(anthropic.InternalServerError):
        await router.claude.with_options(max_retries=6).messages.create(**ASK)
    assert waits == [0.5, 0.5, 0.0, 4.0, 8.0, 8.0]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((("retry-after", "7"),), 7.0),
        ((("retry-after-ms", "1500"), ("retry-after", "9")), 1.5),
        ((("retry-after", "Sat, 21 Nov 2026 10:00:09 GMT"), ("date", "Sat, 21 Nov 2026 10:00:00 GMT")), 9.0),
        ((("retry-after", "soon"),), 0.25),
        ((("retry-after", "-1"),), 0.25),
        ((("retry-after-ms", "nan"),), 0.25),
        ((("retry-after-ms", "nan"), ("retry-after", "3")), 3.0),
        ((), 0.25),
    ],
)
async def test_retry_after(
    router: Router, fake: FakeClaude, waits: list[float], headers: tuple[tuple[str, str], ...], expected: float
) -> None:
    """What the API asks to wait is waited, and nonsense is answered with jitter."""
    fake.script(Fault.status(429, "rate_limit_error", headers=headers))
    await decision_of(router)
    assert waits == [expected]


async def test_long_retry_after_falls_back(router: Router, fake: FakeClaude, waits: list[float]) -> None:
    """A wait of an hour is not waited: another tier takes the call."""
    fake.script(Fault.rate_limit(retry_after=3600))
    decision = await decision_of(router)
    assert (waits, models(fake)) == ([], [SONNET, HAIKU])
    assert decision.attempts[-1].role == "fallback"


@pytest.mark.parametrize("fault", [Fault.overloaded(), Fault.error(500), Fault.error(503), Fault.rate_limit(0)])
async def test_fallback_down_the_ladder(make_router: Callable[..., Router], fake: FakeClaude, fault: Fault) -> None:
    """A tier that fails after its retries hands on to the next lower one."""
    router = make_router(classifier=FixedClassifier("complex"))
    fake.always(OPUS, fault)
    fake.always(SONNET, fault)
    decision = await decision_of(router)
    assert models(fake) == [OPUS] * 3 + [SONNET, HAIKU]
    assert (decision.requested_tier, decision.tier) == ("opus", "haiku")
    assert sum("fallback from" in reason for reason in decision.reasons) == 2
    assert router.report().fallbacks == 1
    assert decision.cost == fake.billed


async def test_fallback_keeps_to_the_floor(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """No fallback goes under the floor, whatever fails; the SDK's own error reaches the app."""
    router = make_router(classifier=FixedClassifier("complex"))
    fake.always(None, Fault.overloaded())
    with policy(floor="sonnet"), pytest.raises(anthropic.OverloadedError):
        await router.claude.messages.create(**ASK)
    assert models(fake) == [OPUS] * 3 + [SONNET]


async def test_fallback_goes_up_where_nothing_is_below(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """The lowest tier falls back upward, and a critical call only upward, never over the ceiling."""
    router = make_router(classifier=FixedClassifier("simple"))
    fake.always(HAIKU, Fault.overloaded())
    with policy(ceiling="sonnet"):
        await router.claude.messages.create(**ASK)
    assert models(fake) == [HAIKU] * 3 + [SONNET]
    router = make_router()
    fake.clear()
    fake.always(SONNET, Fault.overloaded())
    with policy(critical=True):
        await router.claude.messages.create(**ASK)
    assert models(fake)[4:] == [SONNET] * 3 + [OPUS]


async def test_bad_request_is_not_repeated(router: Router, fake: FakeClaude) -> None:
    """A 400 is the app's own: it reaches the app at once, and costs nothing."""
    with pytest.raises(anthropic.BadRequestError):
        await decision_of(router, messages=[{"role": "robot", "content": "Hi"}])
    assert (len(fake.requests), router.report().cost) == (1, 0)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault.error(401), anthropic.AuthenticationError),
        (Fault.error(403), anthropic.PermissionDeniedError),
    ],
)
async def test_rejected_key(
    make_router: Callable[..., Router], fake: FakeClaude, fault: Fault, error: type[Exception]
) -> None:
    """A key that is rejected is not tried again, nor elsewhere, nor for verdicts until a call succeeds."""
    router = make_router(classifier=ClaudeClassifier())
    fake.always(None, fault)
    with pytest.raises(error):
        await decision_of(router)
    assert models(fake) == [HAIKU, SONNET]
    with pytest.raises(error):
        await decision_of(router, messages=[{"role": "user", "content": "Another question?"}])
    assert models(fake) == [HAIKU, SONNET, SONNET]
    fake.clear()
    await decision_of(router)
    assert models(fake)[3:] == [SONNET]
    await decision_of(router)
    assert [r.model for r in asked(fake)] == [HAIKU, HAIKU]


async def test_wrong_key_over_the_wire(fake: FakeClaude, fake_url: str, make_router: Callable[..., Router]) -> None:
    """A wrong key is told as the SDK tells it, and stands in no reason and no log."""
    async with AsyncAnthropic(api_key="sk-ant-wrong-1234", base_url=fake_url) as client:
        router = make_router(client)
        async with router.bind() as binding:
            with pytest.raises(anthropic.AuthenticationError):
                await router.claude.messages.create(**ASK)
    assert "wrong-1234" not in repr(binding.decisions)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("own", [False, True])
async def test_spend_limit_is_futile(router: Router, fake: FakeClaude, waits: list[float], own: bool) -> None:
    """A spend limit holds for all tiers and does not pass soon, so nothing is tried again."""
    fake.always(None, Fault.spend_limit(own=own))
    with pytest.raises(anthropic.APIStatusError):
        await decision_of(router)
    assert (len(fake.requests), waits) == (1, [])


async def test_connection_refused_costs_nothing(make_router: Callable[..., Router], waits: list[float]) -> None:
    """What never left costs nothing, is retried, and is told as the SDK tells it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with AsyncAnthropic(api_key="k", base_url=f"http://127.0.0.1:{port}") as client:
        router = make_router(client, budgets=[HARD])
        async with router.bind() as binding:
            with pytest.raises(anthropic.APIConnectionError):
                await router.claude.messages.create(**ASK)
        (decision,) = binding.decisions
        assert [(a.outcome, a.cost) for a in decision.attempts] == [("connection_error", 0)] * 3
        assert len(waits) == 2
        assert await balance(router) == (0, 0)


async def test_reset_before_the_answer_is_charged_in_full(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A connection that broke after the request went out may have been billed: the whole hold, as an estimate."""
    router = make_router(budgets=[HARD])
    fake.script(Fault.reset())
    async with router.bind() as binding:
        await router.claude.messages.create(**ASK)
    (decision,) = binding.decisions
    first, second = decision.attempts
    assert (first.outcome, first.estimated, second.estimated) == ("connection_error", True, False)
    assert first.cost > second.cost == fake.billed
    assert await balance(router) == (decision.cost, 0)


async def test_timeout(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A timeout is told as the SDK tells it, after the retries, and each is charged as estimated."""
    router = make_router(budgets=[HARD])
    fake.always(None, Fault.hang())
    client = router.claude.with_options(timeout=0.05, max_retries=1)
    async with router.bind() as binding:
        with pytest.raises(anthropic.APITimeoutError):
            await client.messages.create(**ASK)
    (decision,) = binding.decisions
    assert [(a.outcome, a.estimated) for a in decision.attempts] == [("timeout", True)] * 2
    assert await balance(router) == (decision.cost, 0)
    assert decision.cost > 0


async def test_no_key_at_all(
    monkeypatch: pytest.MonkeyPatch, make_router: Callable[..., Router], fake_url: str
) -> None:
    """A client without a key fails as the SDK's own does, and what was not sent costs nothing."""
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    async with AsyncAnthropic(base_url=fake_url) as client:
        router = make_router(client, budgets=[HARD], classifier=ClaudeClassifier())
        with pytest.raises((TypeError, anthropic.AnthropicError)):
            await router.claude.messages.create(**ASK)
    assert await balance(router) == (0, 0)


# Bad input


def sent_as(body: Any) -> dict[str, Any]:
    """The arguments with which the SDK's low-level `post` sends any JSON at all."""
    return {"path": "/v1/messages", "body": body, "cast_to": anthropic.types.Message}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"model": "auto"},
        {"model": 7, "messages": []},
        {"model": "auto", "messages": "hello", "max_tokens": 5},
        {"model": "auto", "messages": [], "max_tokens": 5},
        [],
        "hello",
        None,
    ],
)
async def test_no_messages_request(make_router: Callable[..., Router], fake: FakeClaude, body: Any) -> None:
    """What is no Messages request goes out untouched, and not at all where a hard budget holds."""
    with pytest.raises(anthropic.APIStatusError):
        await make_router().claude.post(**sent_as(body))
    assert len(fake.requests) == 1
    assert fake.requests[0].body == (body if isinstance(body, dict) else None)
    hard = make_router(budgets=[HARD])
    with pytest.raises(BudgetExceededError, match="no Messages request"):
        await hard.claude.post(**sent_as(body))
    assert len(fake.requests) == 1
    assert hard.report().refusals == 1


@pytest.mark.parametrize("content", [None, 7, [None], [{"type": 5}], [{"type": "text", "text": 9}], {"a": []}])
async def test_content_of_any_type(make_router: Callable[..., Router], fake: FakeClaude, content: Any) -> None:
    """Content of any JSON type crashes nothing here: the API rejects it, and it costs nothing."""
    router = make_router(budgets=[HARD], classifier=ClaudeClassifier())
    with pytest.raises(anthropic.BadRequestError):
        await router.claude.post(**sent_as({**ASK, "messages": [{"role": "user", "content": content}]}))
    assert await balance(router) == (fake.billed, 0)


async def test_lone_surrogate(make_router: Callable[..., Router], sdk: AsyncAnthropic, fake: FakeClaude) -> None:
    """A text that no request can carry fails as it does without Tierline, and holds nothing."""
    body = {**ASK, "messages": [{"role": "user", "content": "half \ud800 a character"}]}
    try:
        await sdk.messages.create(**{**body, "model": HAIKU})
        plain: type[Exception] | None = None
    except Exception as error:  # noqa: BLE001
        plain = type(error)
    router = make_router(budgets=[HARD], classifier=ClaudeClassifier())
    before = fake.billed
    if plain is None:
        await router.claude.messages.create(**body)
    else:
        with pytest.raises(plain):
            await router.claude.messages.create(**body)
    assert await balance(router) == (fake.billed - before, 0)


async def test_nan(make_router: Callable[..., Router], sdk: AsyncAnthropic, fake: FakeClaude) -> None:
    """A body that is no JSON fails as it does without Tierline, and costs nothing."""
    extra = {"metadata": {"user_id": float("nan")}}
    with pytest.raises(ValueError, match="JSON"):
        await sdk.messages.create(**{**ASK, "model": HAIKU}, extra_body=extra)
    router = make_router(budgets=[HARD])
    with pytest.raises(ValueError, match="JSON"):
        await router.claude.messages.create(**ASK, extra_body=extra)
    assert (await balance(router), fake.requests) == ((0, 0), [])


async def test_ten_megabytes(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A prompt over every window is refused, is classified by a bounded view, and costs its verdict."""
    router = make_router(budgets=[Budget("$500/day")], classifier=ClaudeClassifier())
    with pytest.raises(IllegalRequestError, match="opus rejects a prompt over 1000000 tokens"):
        await decision_of(router, messages=[{"role": "user", "content": "lorem ipsum " * 900_000}])
    (question,) = asked(fake)
    assert len(str(question.body)) < 10_000
    assert await balance(router) == (fake.billed, 0)


async def test_batches(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A batch cannot be bounded here: a hard budget refuses to create one, and lets one be cancelled."""
    requests = [{"custom_id": "1", "params": {**ASK, "model": HAIKU}}]
    hard = make_router(budgets=[HARD])
    with pytest.raises(BudgetExceededError, match="batches"):
        await hard.claude.messages.batches.create(requests=requests)
    assert fake.requests == []
    for call in (hard.claude.messages.batches.cancel("b_1"), hard.claude.messages.batches.retrieve("b_1")):
        with pytest.raises(anthropic.NotFoundError):
            await call
    assert (await make_router().claude.messages.batches.create(requests=requests)).request_counts.processing == 1
    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    "fault", [Fault.missing_usage(), Fault.usage(output_tokens=-5), Fault.usage(input_tokens="many"), Fault.html()]
)
async def test_usage_that_is_none(make_router: Callable[..., Router], fake: FakeClaude, fault: Fault) -> None:
    """A 200 without usage that can be read is charged in full, as an estimate."""
    router = make_router(budgets=[HARD])
    fake.script(fault)
    async with router.bind() as binding:
        raw = await router.claude.messages.with_raw_response.create(**ASK)
    (decision,) = binding.decisions
    assert raw.status_code == 200
    assert decision.estimated
    assert await balance(router) == (decision.cost, 0)
    assert decision.cost > fake.billed


# Streams


async def test_stream_left_early(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A stream that the app leaves is charged at least what was billed, and the upstream connection is closed."""
    router = make_router(budgets=[HARD])
    async with router.bind() as binding:
        async with router.claude.messages.stream(**ASK) as stream:
            async for _ in stream:
                break
        await fake.idle()
    assert fake.requests[0].ended == "disconnected"
    spent, held = await balance(router)
    assert (spent >= fake.billed > 0, held) == (True, 0)
    assert binding.decisions[-1].estimated
    assert router.report().failures == 0


async def test_stream_cancelled(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A task that is cancelled in mid-stream settles it, and lets go of the connection."""
    router = make_router(budgets=[HARD])
    fake.always(None, Fault.hang(after=4))
    begun = asyncio.Event()

    async def read() -> None:
        async with router.claude.messages.stream(**ASK) as stream:
            async for _ in stream:
                begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await fake.idle()
    assert fake.requests[0].ended == "disconnected"
    spent, held = await balance(router)
    assert (spent >= fake.billed > 0, held) == (True, 0)


async def test_call_cancelled_before_the_answer(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A call that is cancelled while it waits is charged for its input, and holds nothing."""
    router = make_router(budgets=[HARD])
    fake.always(None, Fault.hang())
    async with router.bind() as binding:
        task = asyncio.create_task(router.claude.messages.create(**ASK))
        await fake.until(lambda requests: requests and requests[0].body)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await fake.idle()
    (decision,) = binding.decisions
    assert [(a.outcome, a.estimated) for a in decision.attempts] == [("cancelled", True)]
    assert await balance(router) == (decision.cost, 0)
    assert decision.cost > 0


@pytest.mark.parametrize("started", [False, True])
async def test_stream_dropped(make_router: Callable[..., Router], fake: FakeClaude, started: bool) -> None:
    """A stream that is forgotten, unread or half read, is settled and closed when it is collected."""
    router = make_router(budgets=[HARD])
    fake.always(None, Fault.hang(after=4))

    async def forget() -> None:
        stream = await router.claude.messages.create(**ASK, stream=True)
        if started:
            await anext(stream.__aiter__())

    await forget()
    assert (await balance(router))[1] > 0
    for _ in range(5):
        gc.collect()
        await asyncio.sleep(0)
    await fake.idle()
    assert fake.requests[0].ended == "disconnected"
    spent, held = await balance(router)
    assert (spent >= fake.billed > 0, held) == (True, 0)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.reset_after(events=4), "connection_error"),
        (Fault.clean_eof(after=4), "truncated"),
        (Fault.error_event(after=4), "overloaded_error"),
        (Fault.truncated_json(), "truncated"),
    ],
)
async def test_stream_that_breaks(
    make_router: Callable[..., Router], fake: FakeClaude, fault: Fault, outcome: str
) -> None:
    """A stream that breaks is not tried again, is charged at least what was billed, and counts as a failure."""
    router = make_router(budgets=[HARD])
    fake.script(fault)
    async with router.bind() as binding:
        stream = await router.claude.messages.create(**ASK, stream=True)
        # What the SDK makes of it is its own: some of these it does not notice.
        with suppress(anthropic.APIError, httpx2.HTTPError, ValueError):
            async for _ in stream:
                pass
    await fake.idle()
    (decision,) = binding.decisions
    assert [a.outcome for a in decision.attempts] == [outcome]
    assert (decision.estimated, len(fake.requests)) == (True, 1)
    spent, held = await balance(router)
    assert (spent == decision.cost >= fake.billed, held) == (True, 0)
    assert router.report().failures == 1


async def test_stream_with_an_unknown_event(router: Router, fake: FakeClaude) -> None:
    """An event of a type that nobody knows yet changes nothing of the bill."""
    fake.script(Fault.unknown_event())
    async with router.bind() as binding:
        stream = await router.claude.messages.create(**ASK, stream=True)
        _ = [event async for event in stream]
    assert binding.decisions[-1].cost == fake.billed
    assert not binding.decisions[-1].estimated


async def test_stream_retries_before_its_first_byte(router: Router, fake: FakeClaude) -> None:
    """A stream that is refused before it begins is retried as any call."""
    fake.script(Fault.overloaded())
    async with router.bind() as binding, router.claude.messages.stream(**ASK) as stream:
        await stream.get_final_message()
    assert [a.outcome for a in binding.decisions[-1].attempts] == ["overloaded_error", "ok"]
    assert binding.decisions[-1].cost == fake.billed


# Invariant 8


@pytest.mark.parametrize("stream", [False, True])
async def test_nothing_else_is_changed(
    sdk: AsyncAnthropic, fake: FakeClaude, make_router: Callable[..., Router], stream: bool
) -> None:
    """With no budget, a fixed label and one tier, a request differs in its model alone, and its answer in nothing."""
    router = make_router(ladder=Ladder.of(only=SONNET), classifier=FixedClassifier("simple"))
    body: dict[str, Any] = {
        "max_tokens": 300,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        "tools": [TOOL],
        "tool_choice": {"type": "auto"},
        "metadata": {"user_id": "u1"},
        "stop_sequences": ["END"],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Why? ünïcödé \u2028"}]}],
    }

    async def bytes_of(client: AsyncAnthropic, model: str) -> tuple[bytes, dict[str, str]]:
        create = client.messages.with_streaming_response.create
        async with create(model=model, **body, stream=stream) as response:
            return b"".join([c async for c in response.iter_bytes()]), dict(response.headers)

    plain, plain_headers = await bytes_of(sdk, SONNET)
    routed, routed_headers = await bytes_of(router.claude, "auto")
    first, second = fake.requests
    assert list(first.body.items()) == list(second.body.items())
    numbered = first.headers | {"idempotency-key": "", "traceparent": ""}
    assert numbered == second.headers | {"idempotency-key": "", "traceparent": ""}

    def bare(data: bytes) -> bytes:
        # The fake numbers its messages, and caches the prompt of the second.
        return data.replace(b"msg_fake00000000000000000001", b"msg_fake00000000000000000002")

    assert bare(plain) == bare(routed)
    assert plain_headers.keys() == routed_headers.keys()


@pytest.mark.parametrize("path", ["v1/messages", "/v1/messages/", "/v1/sessions", "/v1/sessions/s1/events"])
async def test_no_spelling_of_a_path_escapes_a_hard_budget(
    make_router: Callable[..., Router], fake: FakeClaude, path: str
) -> None:
    """What spends is refused where it cannot be bounded, however its path is written."""
    router = make_router(budgets=[Budget("$0.000000001")])
    with pytest.raises(BudgetExceededError):
        await router.claude.post(path, cast_to=object, body={"odd": True})
    assert fake.requests == []
