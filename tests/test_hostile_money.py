"""Calls that try to cost more than was held for them: over sockets, against a hard budget with no room to spare."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from tierline import Budget, Ladder, Router, Tier, policy
from tierline.classify import FixedClassifier
from tierline.errors import BudgetExceededError, UnknownModelError
from tierline.ladder import DEFAULT_LADDER
from tierline.ledger import MemoryLedger, Reservation
from tierline.prices import PriceBook, Rates
from tierline.testing import FakeClaude, Reply
from tierline.values import NANO, usd

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeRouter = Callable[..., Router]

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "Why is it blue?"}]}
HOUR = {"type": "ephemeral", "ttl": "1h"}
LONG = "All work and no play makes a long document. " * 200


class Noting(MemoryLedger):
    """A ledger that remembers what it held."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Reservation] = []

    async def reserve(self, *arguments: Any, **options: Any) -> Any:
        found = await super().reserve(*arguments, **options)
        if isinstance(found, Reservation):
            self.held.append(found)
        return found


def hard(limit: int) -> Budget:
    """A hard budget of so many nano-USD, without steps before it."""
    return Budget(f"{usd(limit)}/day", name="hard", downgrade_at=None, cheapest_at=None)


def spends_all(received: Any) -> Reply:
    """The longest answer that the request allows, with every search."""
    tools = received.body.get("tools") or []
    return Reply("x", output_tokens=10**9, web_searches=sum(tool.get("max_uses") or 0 for tool in tools))


async def send(router: Router, body: dict[str, Any]) -> Any:
    """Send any JSON at all through the SDK."""
    return await router.claude.post("/v1/messages", body=body, cast_to=anthropic.types.Message)


async def bounded(make_router: MakeRouter, fake: FakeClaude, body: dict[str, Any], **options: Any) -> tuple[int, int]:
    """Send a call that costs as much as it can. What was held for it, and what it was billed.

    The worst case is the least that a hard budget must have: with one nano-dollar less nothing is sent.
    """
    fake.answer = spends_all
    ledger = Noting()
    router = make_router(budgets=[hard(1_000 * NANO)], ledger=ledger, **options)
    before = fake.billed
    await send(router, body)
    (held,) = ledger.held
    billed = fake.billed - before
    assert 0 < billed <= held.cost
    (balance,) = await router.balances()
    assert (balance.spent, balance.held, balance.estimated) == (billed, 0, 0)
    await send(make_router(budgets=[hard(held.cost)], **options), body)
    sent = len(fake.requests)
    with pytest.raises(BudgetExceededError) as refused:
        await send(make_router(budgets=[hard(held.cost - 1)], **options), body)
    assert (refused.value.refusal.needed, len(fake.requests)) == (held.cost, sent)
    return held.cost, billed


NO_NUMBER = ["500", 500.0, True, None, [], {}, 0, -5, 10**30, 1e308]


@pytest.mark.parametrize("body", [ASK | {"max_tokens": v} for v in NO_NUMBER] + [{**ASK, "max_tokens": ...}])
async def test_missing_max_tokens(make_router: MakeRouter, fake: FakeClaude, body: dict[str, Any]) -> None:
    """Without a `max_tokens` that is a whole number above 0 there is no bound: a hard budget refuses, and says why."""
    body = {name: value for name, value in body.items() if value is not ...}
    with pytest.raises(anthropic.BadRequestError):
        await send(make_router(), body)
    assert len(fake.requests) == 1
    router = make_router(budgets=[hard(5 * NANO)])
    with pytest.raises(BudgetExceededError, match="cannot be bounded: max_tokens is not a whole number") as refused:
        await send(router, body)
    assert refused.value.http_status == 402
    assert len(fake.requests) == 1
    assert await router.balances() == []
    assert "no bound: max_tokens" in str(await router.explain(refused.value))
    soft = make_router(budgets=[Budget("$5/day", hard=False)])
    with pytest.raises(anthropic.BadRequestError):
        await send(soft, body)
    assert [(b.spent, b.held) for b in await soft.balances()] == [(0, 0)]


@pytest.mark.usefixtures("quiet")
async def test_huge_max_tokens_pins_budget(make_router: MakeRouter) -> None:
    """A huge `max_tokens` holds its worst case while it runs, and not a moment longer; the refusal shows who holds it.

    Whoever can be short passes meanwhile. A cap takes the sting out of it.
    """
    going_on = asyncio.Event()

    async def until_told(_: float) -> None:
        await going_on.wait()

    fake = FakeClaude(latency={OPUS: 1.0}, sleep=until_told)
    # Without a timeout the SDK refuses so long an answer that is no stream.
    huge = {**ASK, "model": OPUS, "max_tokens": 128_000, "timeout": 60}
    async with fake.serve() as url, AsyncAnthropic(api_key=fake.api_key, base_url=url) as client:
        router = make_router(client, budgets=[hard(3 * NANO)])
        pinned = asyncio.create_task(router.claude.messages.create(**huge))
        await fake.until(lambda requests: len(requests) == 1)
        (hold,) = await router.holds()
        assert 128_000 * 20_000 <= hold.cost < 3 * NANO
        with pytest.raises(BudgetExceededError) as refused:
            await router.claude.messages.create(**huge)
        assert (refused.value.refusal.held, refused.value.refusal.spent) == (hold.cost, 0)
        explained = await router.explain(refused.value)
        assert [held.id for held in explained.holds] == [hold.id]
        assert not explained.fits_now
        await router.claude.messages.create(**{**ASK, "model": HAIKU})
        capped = make_router(client, budgets=[hard(NANO)], policy=policy(max_tokens=2_000, explicit_model="ceiling"))
        await capped.claude.messages.create(**{**huge, "model": SONNET})
        assert fake.requests[-1].body is not None
        assert fake.requests[-1].body["max_tokens"] == 2_000
        going_on.set()
        await pinned
        assert len(await router.holds()) == 0
        assert (await router.explain(refused.value)).fits_now
        await router.claude.messages.create(**huge)
        (balance,) = await router.balances()
        assert (balance.spent, balance.held) == (fake.billed - (await capped.balances())[0].spent, 0)


CAPPED = Ladder(
    Tier("haiku", HAIKU, max_tokens=700), Tier("sonnet", SONNET, max_tokens=600), Tier("opus", OPUS, max_tokens=800)
)


@pytest.mark.parametrize(
    ("asked", "ladder", "rule", "sent"),
    [
        (5_000, CAPPED, {}, 600),
        (5_000, CAPPED, {"max_tokens": 400}, 400),
        (300, CAPPED, {"max_tokens": 400}, 300),
        (5_000, Ladder(*CAPPED, max_tokens={"moderate": 450}), {}, 450),
        (5_000, CAPPED, {"critical": True, "max_tokens": 4_000}, 4_000),
        (1_000_000, DEFAULT_LADDER, {}, 128_000),
    ],
)
async def test_conflicting_token_caps(
    make_router: MakeRouter, fake: FakeClaude, asked: int, ladder: Ladder, rule: dict[str, Any], sent: int
) -> None:
    """Of several caps the least is sent, and it is the one that money is held for."""
    floor = policy(floor="sonnet", **rule)
    held, _ = await bounded(make_router, fake, {**ASK, "max_tokens": asked}, ladder=ladder, policy=floor)
    assert [received.body["max_tokens"] for received in fake.requests if received.body] == [sent] * 2
    assert fake.requests[-1].usage.output_tokens == sent
    # Not what was asked for, nor the cap of another tier: the prompt is under 1,500 tokens at its most.
    # A workspace may be in the US, a tenth dearer.
    assert sent * 11_000 < held < sent * 11_000 + 1_500 * 3_000


async def test_conflicting_token_caps_of_thinking(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A cap leaves a budget for thinking its room, which the API would refuse otherwise: both are held."""
    ladder = Ladder(Tier("old", "claude-haiku-4-5", max_tokens=500))
    body = {**ASK, "max_tokens": 5_000, "thinking": {"type": "enabled", "budget_tokens": 2_000}}
    held, _ = await bounded(make_router, fake, body, ladder=ladder)
    assert fake.requests[-1].usage.output_tokens == 2_500
    assert 2_500 * 5_000 < held < 2_500 * 5_000 + 1_500 * 1_250


@pytest.mark.parametrize(
    "cached",
    [
        {"system": [{"type": "text", "text": LONG, "cache_control": HOUR}]},
        {"system": LONG, "cache_control": HOUR},
        {"tools": [{"name": "t", "description": LONG, "input_schema": {"type": "object"}, "cache_control": HOUR}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": LONG, "cache_control": HOUR}]}]},
    ],
)
@pytest.mark.parametrize("model", [HAIKU, SONNET, OPUS])
async def test_cache_write_1h_pricing(
    make_router: MakeRouter, fake: FakeClaude, model: str, cached: dict[str, Any]
) -> None:
    """What is written to the cache for an hour costs twice a fresh token: that is held, wherever it is asked for."""
    await bounded(make_router, fake, {**ASK, "model": model, "max_tokens": 1, **cached})
    wrote, read = fake.requests
    assert wrote.usage.cache_write_1h > 1_000
    assert read.usage.cache_read == wrote.usage.cache_write_1h


@pytest.mark.parametrize("where", ["global", "us"])
@pytest.mark.parametrize(
    ("model", "more", "letters"),
    [
        (HAIKU, {}, 400_000),
        (HAIKU, {"inference_geo": "us"}, 400_000),
        (HAIKU, {"inference_geo": "global"}, 300),
        (SONNET, {"inference_geo": "us"}, 400_000),
        (OPUS, {"speed": "fast"}, 400_000),
        (OPUS, {"speed": "fast", "inference_geo": "us"}, 300),
        (OPUS, {}, 300),
    ],
)
async def test_long_context_fast_geo_pricing(
    make_router: MakeRouter, where: str, model: str, more: dict[str, Any], letters: int
) -> None:
    """Long prompts, fast mode and the US are held at their price, also where only the workspace says the US."""
    fake = FakeClaude(inference_geo=where)
    body = {**ASK, "model": model, **more, "messages": [{"role": "user", "content": "word " * (letters // 5)}]}
    async with fake.serve() as url, AsyncAnthropic(api_key=fake.api_key, base_url=url) as client:
        held, billed = await bounded(lambda **options: make_router(client, **options), fake, body)
    assert (fake.requests[0].usage.prompt_tokens > 100_000) is (letters > 300)
    plain = PriceBook().cost(model, fake.requests[0].usage)
    assert plain is not None
    factor = (2 if "speed" in more else 1) * (11 if more.get("inference_geo", where) == "us" else 10)
    assert billed == pytest.approx(plain * factor / 10, abs=1)
    assert held < 6 * billed  # a bound, and not just a large number


SEARCH: dict[str, Any] = {"type": "web_search_20250305", "name": "web_search"}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"tools": [SEARCH]}, "web_search_20250305 has no max_uses"),
        ({"tools": [{**SEARCH, "max_uses": -1}]}, "web_search_20250305 has no max_uses"),
        ({"tools": [{**SEARCH, "max_uses": 10**6}]}, "web_search_20250305 has no max_uses"),
        ({"tools": [{"type": "web_fetch_20250910", "name": "web_fetch"}]}, "web_fetch_20250910 has no max_uses"),
        ({"mcp_servers": [{"type": "url", "url": "https://mcp.example", "name": "m"}]}, "remote tools"),
    ],
)
async def test_server_tool_unbounded(make_router: MakeRouter, fake: FakeClaude, more: dict[str, Any], why: str) -> None:
    """Tools that run at the API as often as they like have no bound: a hard budget refuses, and says which it is."""
    router = make_router(budgets=[hard(1_000 * NANO)])
    with pytest.raises(BudgetExceededError, match=f"cannot be bounded: .*{why}") as refused:
        await send(router, {**ASK, **more})
    assert refused.value.http_status == 402
    assert (fake.requests, await router.balances()) == ([], [])


async def test_server_tool_bounded(make_router: MakeRouter, fake: FakeClaude) -> None:
    """With `max_uses` every search is held, at its price and with the prompt that it is billed with again."""
    held, _ = await bounded(make_router, fake, {**ASK, "model": SONNET, "tools": [{**SEARCH, "max_uses": 3}]})
    assert fake.requests[0].usage.web_searches == 3
    assert held > 3 * 10_000_000


async def test_unknown_model_price(make_router: MakeRouter, caplog: pytest.LogCaptureFixture) -> None:
    """A model without a price is refused by a hard budget as that, and recorded by a soft one; with a price it is held.

    It is told as an unknown model, and not as a budget that is used up.
    """
    fake = FakeClaude(aliases={"our-model": OPUS})
    async with fake.serve() as url, AsyncAnthropic(api_key=fake.api_key, base_url=url) as client:
        for options in ({}, {"ladder": Ladder.of(ours="our-model")}):
            router = make_router(client, budgets=[hard(5 * NANO)], classifier=FixedClassifier("simple"), **options)
            with pytest.raises(UnknownModelError, match="'our-model' has no known price"):
                await router.claude.messages.create(**{**ASK, "model": "auto" if options else "our-model"})
            assert await router.balances() == []
        assert fake.requests == []
        soft = make_router(client, budgets=[Budget("$5/day", hard=False)])
        async with soft.bind() as binding:
            await soft.claude.messages.create(**{**ASK, "model": "our-model"})
        assert any("not bounded: the model has no known price" in reason for reason in binding.decisions[-1].reasons)
        rates = PriceBook().rates(OPUS)
        assert isinstance(rates, Rates)
        await bounded(
            lambda **options: make_router(client, **options),
            fake,
            {**ASK, "model": "our-model"},
            prices=PriceBook({"our-model": rates}),
        )
