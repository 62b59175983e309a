"""The SDK's clients of other platforms, real ones over real sockets: each routed, bounded and metered as the API's."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest
from anthropic import (
    AsyncAnthropicBedrock,
    beta_async_tool,
)
from pydantic import BaseModel

from tests.needs import need
from tierline import Budget, Ladder, Router, policy
from tierline.anthropic import attach
from tierline.classify import ClaudeClassifier, FixedClassifier
from tierline.errors import BudgetExceededError, UnknownModelError
from tierline.prices import PriceBook
from tierline.testing import OK, Fault, Reply

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tierline.testing import FakeClaude

need("boto3")

pytestmark = pytest.mark.usefixtures("quiet")

ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "Why is it blue?"}]}
HARD = Budget("$5/day", downgrade_at=None, cheapest_at=None)
TOOL: dict[str, Any] = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}

OWN = Ladder.of(haiku="claude-haiku-5-5", sonnet="claude-sonnet-5-5", opus="claude-opus-5-5")
BEDROCK = Ladder.of(
    haiku="us.anthropic.claude-haiku-4-5-20251001-v1:0",
    sonnet="global.anthropic.claude-sonnet-5-5",
    opus="apac.anthropic.claude-opus-5-5-v1:0",
)
MANTLE = Ladder.of(
    haiku="anthropic.claude-haiku-5-5", sonnet="anthropic.claude-sonnet-5-5", opus="anthropic.claude-opus-5-5"
)
VERTEX = Ladder.of(haiku="claude-haiku-4-5@20251001", sonnet="claude-sonnet-5-5", opus="claude-opus-5-5@20260901")
ARN = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-5-5"

MAKE: dict[str, tuple[str, Callable[[str, str], dict[str, Any]], Ladder]] = {
    "bedrock": (
        "AnthropicBedrock",
        lambda key, url: {
            "aws_access_key": key, "aws_secret_key": "secret", "aws_region": "us-east-1", "base_url": url
        },
        BEDROCK,
    ),
    "bedrock with a key": (
        "AnthropicBedrock",
        lambda key, url: {"api_key": key, "aws_region": "us-east-1", "base_url": url},
        BEDROCK,
    ),
    "mantle": (
        "AnthropicBedrockMantle",
        lambda key, url: {
            "aws_access_key": key, "aws_secret_key": "secret", "aws_region": "us-east-1", "base_url": f"{url}/anthropic"
        },
        MANTLE,
    ),
    "vertex": (
        "AnthropicVertex",
        lambda key, url: {
            "region": "europe-west1", "project_id": "p", "access_token": key, "base_url": f"{url}/v1"
        },
        VERTEX,
    ),
    "vertex global": (
        "AnthropicVertex",
        lambda key, url: {"region": "global", "project_id": "p", "access_token": key, "base_url": url},
        VERTEX,
    ),
    "foundry": ("AnthropicFoundry", lambda key, url: {"api_key": key, "base_url": f"{url}/anthropic"}, OWN),
    "foundry with a token": (
        "AnthropicFoundry",
        lambda key, url: {"azure_ad_token_provider": lambda: key, "base_url": f"{url}/anthropic"},
        OWN,
    ),
    "aws": (
        "AnthropicAWS",
        lambda key, url: {
            "aws_access_key": key, "aws_secret_key": "secret", "aws_region": "us-east-1", "workspace_id": "w",
            "base_url": url,
        },
        OWN,
    ),
    "google cloud": (
        "AnthropicGoogleCloud",
        lambda key, url: {"token_provider": lambda: key, "workspace_id": "w", "base_url": url},
        OWN,
    ),
}  # fmt: skip
"""Clients by the name of their class, with what they are made of."""


def made(name: str, key: str, url: str, prefix: str = "Async") -> Any:
    kind, arguments, _ = MAKE[name]
    return getattr(anthropic, prefix + kind)(**arguments(key, url))


@dataclass
class Platform:
    """A client of a platform, the ids of its models, and a maker of Routers for both."""

    name: str
    client: Any
    ladder: Ladder
    make_router: Callable[..., Router]

    def model(self, name: str) -> str:
        return next(tier.model for tier in self.ladder if tier.name == name)

    def router(self, **options: Any) -> Router:
        return self.make_router(self.client, **{"ladder": self.ladder, "budgets": [HARD], **options})


EACH = ("bedrock", "mantle", "vertex", "foundry", "aws", "google cloud")
"""One client of each class; the others differ in how they prove who they are, and where they run."""


@pytest.fixture(params=EACH)
async def platform(
    request: pytest.FixtureRequest, fake: FakeClaude, fake_url: str, make_router: Callable[..., Router]
) -> AsyncIterator[Platform]:
    async with made(request.param, fake.api_key, fake_url) as client:
        yield Platform(request.param, client, MAKE[request.param][-1], make_router)


def models(fake: FakeClaude) -> list[str | None]:
    return [received.model for received in fake.requests]


async def balance(router: Router) -> tuple[int, int]:
    (only,) = await router.balances()
    return only.spent, only.held


@pytest.mark.parametrize("platform", MAKE, indirect=True)
async def test_create(platform: Platform, fake: FakeClaude) -> None:
    """A call goes to the id that the platform has for its tier, and costs what the platform bills."""
    router = platform.router()
    async with router.bind() as binding:
        message = await router.claude.messages.create(**ASK)
    (decision,) = binding.decisions
    assert models(fake) == [platform.model("sonnet")]
    assert message.content[-1].type == "text"
    assert (decision.tier, decision.estimated) == ("sonnet", False)
    assert await balance(router) == (decision.cost, 0) == (fake.billed, 0)
    assert decision.saved > 0


@pytest.mark.parametrize("name", MAKE)
def test_synchronous(name: str, fake: FakeClaude, thread_url: str, make_sync_router: Callable[..., Router]) -> None:
    """A synchronous client of the platform is routed and billed the same, streams included."""
    ladder = MAKE[name][-1]
    with made(name, fake.api_key, thread_url, prefix="") as client:
        router = make_sync_router(client, ladder=ladder, budgets=[HARD])
        assert type(router.sync_claude) is type(client)
        with router.bind() as binding:
            router.sync_claude.messages.create(**ASK)
            with router.sync_claude.messages.stream(**ASK) as stream:
                assert len(list(stream.text_stream)) > 1
        assert models(fake) == [next(tier.model for tier in ladder if tier.name == "sonnet")] * 2
        assert sum(decision.cost for decision in binding.decisions) == fake.billed
        assert asyncio.run(balance(router)) == (fake.billed, 0)


@pytest.mark.parametrize("platform", MAKE, indirect=True)
@pytest.mark.parametrize("tier", ["haiku", "opus"])
async def test_cached_prompt(platform: Platform, fake: FakeClaude, tier: str) -> None:
    """Writing and reading the prompt cache costs what the platform bills, on every tier."""
    router = platform.router()
    system = [{"type": "text", "text": "Be brief. " * 3_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    with policy(tier=tier):
        for _ in range(2):
            await router.claude.messages.create(**ASK, system=system)
    assert fake.requests[1].usage.cache_read > 0
    assert await balance(router) == (fake.billed, 0)


@pytest.mark.parametrize("beta", [False, True])
async def test_stream(platform: Platform, fake: FakeClaude, beta: bool) -> None:
    """A stream holds its worst case while it is read, and is settled for what the platform bills."""
    router = platform.router()
    messages: Any = router.claude.beta.messages if beta else router.claude.messages
    async with messages.stream(**ASK) as stream:
        spent, held = await balance(router)
        pieces = [text async for text in stream.text_stream]
    assert len(pieces) > 1
    assert (spent, held > fake.billed > 0) == (0, True)
    events = [event async for event in await messages.create(**ASK, stream=True)]
    assert events[-1].type == "message_stop"
    assert await balance(router) == (fake.billed, 0)
    assert router.report().calls == 2


async def test_other_methods(platform: Platform, fake: FakeClaude) -> None:
    """Raw responses, raw streams, `parse` and `beta` are metered exactly too."""

    class City(BaseModel):
        name: str

    router = platform.router()
    claude = router.claude
    raw = await claude.messages.with_raw_response.create(**ASK)
    assert raw.status_code == 200
    async with claude.messages.with_streaming_response.create(**ASK, stream=True) as response:
        assert len([chunk async for chunk in response.iter_bytes()]) > 1
    async with claude.messages.with_streaming_response.create(**ASK) as response:
        await response.read()
    assert (await claude.messages.parse(**ASK, output_format=City)).parsed_output is not None
    await claude.beta.messages.create(**ASK)
    assert len(fake.requests) == 5
    assert await balance(router) == (fake.billed, 0)


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_tier_above_answers_too(platform: Platform, fake: FakeClaude, streamed: bool) -> None:
    """A shadow goes the platform's own way, and what it is compared with is read as the platform sends it."""
    fake.answer = lambda received: str(received.model)
    fake.judge = lambda asked: "A" if "opus" in asked.a else "B"
    router = platform.router(shadow=1.0, shadow_budget="$1")
    if streamed:
        async with router.claude.messages.stream(**ASK) as stream:
            assert "sonnet" in await stream.get_final_text()
    else:
        await router.claude.messages.create(**ASK)
    async with asyncio.timeout(10):
        while not router.shadows():  # noqa: ASYNC110  (nothing tells of it)
            await asyncio.sleep(0.01)
    assert [shadow.verdict for shadow in router.shadows()] == ["worse"]
    assert models(fake) == [platform.model("sonnet"), *[platform.model("opus")] * 3]
    assert {b.budget: b.spent for b in await router.balances()}[HARD.name] == fake.billed


async def test_tool_runner(platform: Platform, fake: FakeClaude) -> None:
    """The SDK's tool runner stays on one tier of the platform."""

    @beta_async_tool
    async def weather(city: str) -> str:
        """The weather of a city."""
        return f"20 degrees in {city}"

    fake.answer = lambda received: (
        "Warm." if "tool_result" in str(received.body) else Reply(tool="weather", input={"city": "Rome"})
    )
    router = platform.router()
    runner = router.claude.beta.messages.tool_runner(**{**ASK, "max_tokens": 2000}, tools=[weather])
    assert (await runner.until_done()).content[-1].text == "Warm."
    assert models(fake) == [platform.model("sonnet")] * 2
    assert await balance(router) == (fake.billed, 0)


async def test_count_tokens(platform: Platform, fake: FakeClaude) -> None:
    """A count goes to a real model where the platform counts, and is the SDK's own error where it does not."""
    router = platform.router()
    ask = {"model": "auto", "messages": ASK["messages"]}
    if isinstance(platform.client, AsyncAnthropicBedrock):
        with pytest.raises(anthropic.AnthropicError, match="not supported in Bedrock"):
            await router.claude.messages.count_tokens(**ask)
        assert fake.requests == []
    else:
        counted = await router.claude.messages.count_tokens(**ask)
        assert counted.input_tokens > 0
        assert models(fake) == [platform.model("sonnet")]
    assert router.report().calls == 0


async def test_retries_and_fallback(platform: Platform, fake: FakeClaude) -> None:
    """A failure is retried by Tierline alone, then another tier of the platform takes the call."""
    router = platform.router()
    fake.script(Fault.error(500), Fault.overloaded(), OK)
    async with router.bind() as binding:
        await router.claude.messages.create(**ASK)
        fake.always(platform.model("sonnet"), Fault.rate_limit(0))
        await router.claude.with_options(max_retries=1).messages.create(**ASK)
        async with router.claude.messages.stream(**ASK) as stream:
            await stream.get_final_message()
    first, second, third = binding.decisions
    assert [a.role for a in first.attempts] == ["first", "retry", "retry"]
    assert [a.role for a in second.attempts] == ["first", "retry", "fallback"]
    assert [a.tier for a in third.attempts] == ["sonnet"] * 3 + ["haiku"]
    assert len(fake.requests) == 10
    assert await balance(router) == (fake.billed, 0)


async def test_worst_case_is_held(platform: Platform, fake: FakeClaude) -> None:
    """A budget that the worst case does not fit is not touched; one that it just fits lets the call pass."""
    free = platform.router(budgets=())
    with policy(tier="opus"), pytest.raises(BudgetExceededError) as refused:
        await platform.router(budgets=[Budget("$0.000000001")]).claude.messages.create(**ASK)
    needed = refused.value.refusal.needed
    assert needed is not None
    assert fake.requests == []
    with policy(tier="opus"):
        await platform.router(budgets=[Budget(f"${needed / 1e9:.9f}")]).claude.messages.create(**ASK)
        await free.claude.messages.create(**{**ASK, "max_tokens": 500})
    assert needed > fake.requests[0].billed > 0


async def test_verdicts(platform: Platform, fake: FakeClaude) -> None:
    """Claude gives its verdict on the platform's cheapest tier, quietly, and it is charged to the call."""
    fake.verdict = lambda _text, _labels: ("complex", 0.9)
    router = platform.router(classifier=ClaudeClassifier())
    async with router.bind() as binding:
        await router.claude.messages.create(**ASK)
    (decision,) = binding.decisions
    assert models(fake) == [platform.model(name) for name in ("haiku", "opus")]
    assert (decision.source, decision.tier) == ("claude", "opus")
    assert fake.requests[0].usage.output_tokens < 40
    assert await balance(router) == (fake.billed, 0)


async def test_what_a_model_rejects(platform: Platform, fake: FakeClaude) -> None:
    """A forced tool does not go to a model that rejects it, by whatever id it is sold."""
    router = platform.router(classifier=FixedClassifier("complex"))
    await router.claude.messages.create(**ASK, tools=[TOOL], tool_choice={"type": "any"})
    assert models(fake) == [platform.model("haiku")]


async def test_explicit_ids(platform: Platform, fake: FakeClaude) -> None:
    """An id of the platform is respected, ranked by its rung, and held to the policy."""
    router = platform.router()
    haiku, sonnet, opus = (tier.model for tier in platform.ladder)
    async with router.bind() as binding:
        await router.claude.messages.create(**{**ASK, "model": opus})
        with policy(floor="sonnet"):
            await router.claude.messages.create(**{**ASK, "model": haiku})
        with policy(ceiling="haiku"):
            await router.claude.messages.create(**{**ASK, "model": sonnet})
    assert models(fake) == [opus, sonnet, haiku]
    assert [d.source for d in binding.decisions] == ["explicit"] * 3
    assert await balance(router) == (fake.billed, 0)


async def test_copies_stay_routed(platform: Platform, fake: FakeClaude) -> None:
    """Copies of a routed client are routed, and of the class that the app chose."""
    router = platform.router()
    routed = attach(platform.client, router)
    assert attach(routed, router) is routed
    copies = (routed, routed.copy(), routed.with_options(timeout=20), routed.with_middleware(_pass_on))
    for copy in copies:
        assert type(copy) is type(platform.client)
        assert sum(type(entry).__name__ == "Seam" for entry in copy.middleware) == 1
        await copy.messages.create(**ASK)
    assert models(fake) == [platform.model("sonnet")] * len(copies)
    assert await balance(router) == (fake.billed, 0)
    assert platform.client.middleware == ()


async def _pass_on(request: Any, call_next: Any) -> Any:
    return await call_next(request)


# Streams that end otherwise


@pytest.mark.parametrize(
    "fault", [Fault.reset_after(events=5), Fault.clean_eof(after=5), Fault.error_event(after=5), Fault.truncated_json()]
)
@pytest.mark.parametrize("tier", ["haiku", "opus"])
@pytest.mark.parametrize("platform", ["bedrock", "vertex"], indirect=True)
async def test_stream_that_breaks(platform: Platform, fake: FakeClaude, fault: Fault, tier: str) -> None:
    """A stream that breaks is charged at least what the platform billed, as an estimate, and never twice."""
    router = platform.router()
    fake.script(fault)
    async with router.bind() as binding:
        with policy(tier=tier), suppress(anthropic.APIError, httpx2.HTTPError, ValueError):
            async for _ in await router.claude.messages.create(**ASK, stream=True):
                pass
    await fake.idle()
    (decision,) = binding.decisions
    assert (decision.estimated, len(fake.requests)) == (True, 1)
    spent, held = await balance(router)
    assert (spent == decision.cost >= fake.billed > 0, held) == (True, 0)
    assert router.report().failures == 1


async def test_stream_left_early(platform: Platform, fake: FakeClaude) -> None:
    """A stream that the app leaves lets go of the connection and of the hold."""
    router = platform.router()
    fake.always(None, Fault.hang(after=5))
    with policy(tier="haiku"):
        stream = await router.claude.messages.create(**ASK, stream=True)
        kinds = [(await anext(stream)).type for _ in range(4)]
        await stream.close()
    await fake.idle()
    assert kinds[0] == "message_start"
    assert fake.requests[0].ended == "disconnected"
    spent, held = await balance(router)
    assert (spent >= fake.billed > 0, held) == (True, 0)


async def test_stream_dropped(platform: Platform, fake: FakeClaude) -> None:
    """A stream that is forgotten is settled when it is collected."""
    router = platform.router()
    fake.always(None, Fault.hang(after=4))
    await router.claude.messages.create(**ASK, stream=True)
    for _ in range(5):
        gc.collect()
        await asyncio.sleep(0)
    await fake.idle()
    spent, held = await balance(router)
    assert (spent >= fake.billed > 0, held) == (True, 0)


# What is special to one platform


def bedrock(fake: FakeClaude, url: str) -> AsyncAnthropicBedrock:
    return AsyncAnthropicBedrock(
        aws_access_key=fake.api_key, aws_secret_key="secret", aws_region="us-east-1", base_url=url
    )


@pytest.mark.parametrize(
    "path",
    [
        "/model/us.anthropic.claude-opus-5-5/invoke",
        "model/us.anthropic.claude-opus-5-5/invoke-with-response-stream",
        "/model/us.anthropic.claude-opus-5-5/converse",
        "/projects/p/locations/global/publishers/anthropic/models/claude-opus-5-5:rawPredict",
        "/projects/p/locations/global/publishers/anthropic/models/claude-opus-5-5:streamRawPredict",
    ],
)
async def test_no_path_of_a_platform_escapes_a_hard_budget(platform: Platform, fake: FakeClaude, path: str) -> None:
    """A body that is posted past the SDK's methods, to the platform's own path, is refused where it must be bounded."""
    router = platform.router()
    body = {key: value for key, value in ASK.items() if key != "model"}
    with pytest.raises(BudgetExceededError):
        await router.claude.post(path, body=body, cast_to=object)
    assert fake.requests == []


async def test_an_inference_profile_by_its_arn(
    fake: FakeClaude, fake_url: str, make_router: Callable[..., Router]
) -> None:
    """The ARN of an inference profile is priced, bounded and ranked as the model in it."""
    async with bedrock(fake, fake_url) as client:
        router = make_router(client, ladder=BEDROCK, budgets=[HARD])
        with policy(floor="sonnet"):
            await router.claude.messages.create(**{**ASK, "model": ARN})
        with policy(ceiling="haiku"):
            await router.claude.messages.create(**{**ASK, "model": ARN})
    assert models(fake) == [ARN, BEDROCK[0].model]
    assert await balance(router) == (fake.billed, 0)


async def test_an_id_that_only_the_app_knows(
    fake: FakeClaude, fake_url: str, make_router: Callable[..., Router]
) -> None:
    """An application's own inference profile is refused by a hard budget until the app gives it a price."""
    profile = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/shop"
    fake._aliases[profile] = "claude-sonnet-5-5"
    rates = PriceBook().rates("claude-sonnet-5-5")
    assert rates is not None
    ladder = Ladder.of(haiku=BEDROCK[0].model, shop=profile)
    async with bedrock(fake, fake_url) as client:
        with policy(tier="shop"):
            with pytest.raises(UnknownModelError, match="no known price"):
                await make_router(client, ladder=ladder, budgets=[HARD]).claude.messages.create(**ASK)
            router = make_router(client, ladder=ladder, budgets=[HARD], prices=PriceBook({profile: rates}))
            await router.claude.messages.create(**ASK)
    assert models(fake) == [profile]
    assert await balance(router) == (fake.billed, 0)


async def test_a_ladder_of_the_wrong_platform(
    fake: FakeClaude, fake_url: str, make_router: Callable[..., Router]
) -> None:
    """Ids that the platform does not have are its own error, and cost nothing."""
    async with bedrock(fake, fake_url) as client:
        router = make_router(client, ladder=OWN, budgets=[HARD])
        with pytest.raises(anthropic.BadRequestError, match="model identifier is invalid"):
            await router.claude.messages.create(**ASK)
    assert await balance(router) == (0, 0)


async def test_a_region_costs_more(fake: FakeClaude, fake_url: str, make_router: Callable[..., Router]) -> None:
    """The same call on a regional endpoint of Vertex is held and charged a tenth more than on the global one."""
    worst, costs = [], []
    for name in ("vertex global", "vertex"):
        async with made(name, fake.api_key, fake_url) as client:
            router = make_router(client, ladder=MAKE[name][-1], budgets=[HARD])
            with policy(tier="haiku"):
                async with router.claude.messages.stream(**ASK) as stream:
                    worst.append((await balance(router))[1])
                    await stream.get_final_message()
            costs.append((await balance(router))[0])
            with policy(tier="haiku"):
                moved = router.claude.with_options(region="global" if name == "vertex" else "us-east5")
                await moved.messages.create(**ASK)
            assert (await balance(router))[0] == sum(r.billed for r in fake.requests[-2:])
    assert sum(costs) + sum(r.billed for r in fake.requests[1::2]) == fake.billed
    assert [cost * 11 for cost in (worst[0], costs[0])] == [cost * 10 for cost in (worst[1], costs[1])]


async def test_closed_early(platform: Platform, fake: FakeClaude) -> None:
    """A call on a client that was closed is the SDK's own error, is not sent, and holds nothing."""
    router = platform.router()
    _ = router.claude
    await platform.client.close()
    async with router.bind() as binding:
        with pytest.raises(anthropic.APIConnectionError):
            await router.claude.messages.create(**ASK)
    assert [a.outcome for a in binding.decisions[-1].attempts] == ["client_closed"]
    assert fake.requests == []
    assert await balance(router) == (0, 0)
