"""Clients as apps make, copy, share and close them: routed all the same, over real sockets."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic, DefaultAioHttpClient, DefaultAsyncHttpxClient

from tierline import Budget, Router
from tierline.anthropic import attach
from tierline.classify import ClaudeClassifier, FixedClassifier
from tierline.errors import ConfigurationError
from tierline.testing import OK, Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.testing import FakeClaude

pytestmark = pytest.mark.usefixtures("quiet")

SONNET = "claude-sonnet-5-5"
ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "Why is it blue?"}]}
HARD = Budget("$5/day", downgrade_at=None, cheapest_at=None)


async def balance(router: Router) -> tuple[int, int]:
    (only,) = await router.balances()
    return only.spent, only.held


async def test_two_routers(make_router: Callable[..., Router], sdk: AsyncAnthropic, fake: FakeClaude) -> None:
    """A client that goes to a second Router is that one's alone: each call is decided, held and charged once."""
    first, second = make_router(budgets=[HARD]), make_router(budgets=[HARD], classifier=FixedClassifier("complex"))
    mine = attach(sdk, first)
    theirs = attach(mine, second)
    fake.script(Fault.error(500), OK)
    await theirs.messages.create(**ASK)
    assert [r.model for r in fake.requests] == ["claude-opus-5-5"] * 2
    assert (await first.balances(), await balance(second)) == ([], (fake.billed, 0))
    await mine.messages.create(**ASK)
    assert sum([(await balance(router))[0] for router in (first, second)]) == fake.billed
    assert (first.report().calls, second.report().calls) == (1, 1)


async def test_what_the_app_set_is_kept(make_router: Callable[..., Router], fake: FakeClaude, fake_url: str) -> None:
    """Headers, query, timeout and an HTTP client of the app's own are those of its routed calls, and of copies."""
    seen: list[str] = []

    async def note(request: httpx2.Request) -> None:
        seen.append(str(request.url.query, "ascii"))

    http = DefaultAsyncHttpxClient(event_hooks={"request": [note]})
    async with AsyncAnthropic(
        api_key=fake.api_key, base_url=fake_url, http_client=http, timeout=7, default_headers={"x-app": "shop"},
        default_query={"shop": "1"},
    ) as client:  # fmt: skip
        routed = make_router(client).claude
        assert (routed.timeout, routed._client) == (7, http)
        await routed.messages.create(**ASK)
        await routed.with_options(default_headers={"x-more": "2"}, timeout=9).messages.create(
            **ASK, extra_headers={"x-call": "3"}
        )
    assert [r.headers.get("x-app") for r in fake.requests] == ["shop", "shop"]
    assert (fake.requests[1].headers["x-more"], fake.requests[1].headers["x-call"]) == ("2", "3")
    assert seen == ["shop=1", "shop=1"]


async def test_a_timeout_of_one_call(make_router: Callable[..., Router], sdk: AsyncAnthropic, fake: FakeClaude) -> None:
    """A timeout of one copy or of one call ends that call alone."""
    router = make_router(sdk.with_options(max_retries=0), budgets=[HARD])
    fake.script(Fault.hang(), Fault.hang())
    with pytest.raises(anthropic.APITimeoutError):
        await router.claude.messages.create(**ASK, timeout=0.05)
    with pytest.raises(anthropic.APITimeoutError):
        await router.claude.with_options(timeout=0.05).messages.create(**ASK)
    await router.claude.messages.create(**ASK)
    assert router.report().failures == 2
    assert (await balance(router))[1] == 0


async def test_aiohttp(make_router: Callable[..., Router], fake: FakeClaude, fake_url: str) -> None:
    """The SDK's aiohttp client is routed and metered, whole, streamed, left and broken off."""
    async with AsyncAnthropic(
        api_key=fake.api_key, base_url=fake_url, http_client=DefaultAioHttpClient(), max_retries=0
    ) as client:
        router = make_router(client, budgets=[HARD])
        await router.claude.messages.create(**ASK)
        async with router.claude.messages.stream(**ASK) as stream:
            await stream.get_final_message()
        assert await balance(router) == (fake.billed, 0)
        fake.script(Fault.hang(after=4))
        async with router.claude.messages.stream(**ASK) as stream:
            async for _ in stream:
                break
        fake.script(Fault.reset())
        with pytest.raises(anthropic.APIConnectionError):
            await router.claude.messages.create(**ASK)
    await fake.idle()
    spent, held = await balance(router)
    assert (spent > fake.billed, held) == (True, 0)


async def test_the_routed_client_as_a_context(
    make_router: Callable[..., Router], fake: FakeClaude, fake_url: str
) -> None:
    """`async with attach(…)` gives the routed client, and closes the connections that it shares with the app's."""
    client = AsyncAnthropic(api_key=fake.api_key, base_url=fake_url)
    async with attach(client, make_router()) as routed:
        await routed.messages.create(**ASK)
    assert routed.is_closed()
    assert client.is_closed()


async def test_a_class_of_the_apps_own(make_router: Callable[..., Router], fake: FakeClaude, fake_url: str) -> None:
    """A subclass that the SDK can copy is routed; of one that it cannot, the error says what is missing."""

    class Shop(AsyncAnthropic):
        pass

    class Closed(AsyncAnthropic):
        def __init__(self, key: str) -> None:
            super().__init__(api_key=key, base_url=fake_url)

    router = make_router()
    async with Shop(api_key=fake.api_key, base_url=fake_url) as client:
        routed = attach(client, router)
        assert type(routed) is Shop
        await routed.messages.create(**ASK)
    async with Closed(fake.api_key) as client:
        with pytest.raises(ConfigurationError, match=r"Closed cannot be routed.*constructor"):
            attach(client, router)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("wrong", [None, "claude", AsyncAnthropic, httpx2.AsyncClient])
def test_what_is_no_client(wrong: Any) -> None:
    """What is no client of the SDK is named as the mistake that it is."""
    with pytest.raises(ConfigurationError, match="a client of the anthropic SDK is needed"):
        attach(wrong, Router())


@pytest.mark.parametrize("stream", [False, True])
async def test_closed_early(
    make_router: Callable[..., Router], fake: FakeClaude, fake_url: str, waits: list[float], stream: bool
) -> None:
    """A call on a closed client is the SDK's own error at once: nothing is sent, waited for, asked, held or charged."""
    client = AsyncAnthropic(api_key=fake.api_key, base_url=fake_url)
    router = make_router(client, budgets=[HARD], classifier=ClaudeClassifier())
    routed = router.claude
    await client.close()
    with pytest.raises(anthropic.APIConnectionError):
        await routed.messages.create(**ASK, stream=stream)
    assert (fake.requests, waits, await balance(router)) == ([], [], (0, 0))


async def test_closed_while_an_answer_is_read(
    make_router: Callable[..., Router], fake: FakeClaude, fake_url: str
) -> None:
    """A client that is closed in mid-stream leaves nothing held."""
    client = AsyncAnthropic(api_key=fake.api_key, base_url=fake_url)
    router = make_router(client, budgets=[HARD])
    fake.script(Fault.hang(after=4))
    stream = await router.claude.messages.create(**ASK, stream=True)
    await anext(stream)
    await client.close()
    with suppress(anthropic.APIError, httpx2.HTTPError, RuntimeError):
        async for _ in stream:
            pass
    await stream.close()
    await fake.idle()
    spent, held = await balance(router)
    assert (spent >= fake.billed > 0, held) == (True, 0)


def test_one_router_for_two_loops(fake: FakeClaude) -> None:
    """Loops with a client each share a Router, at the same time: one budget, and nothing held at the end."""
    router: Router = Router(budgets=[HARD], classifier=ClaudeClassifier())
    failed: list[BaseException] = []
    both = threading.Barrier(2)

    async def work(url: str) -> None:
        async with AsyncAnthropic(api_key=fake.api_key, base_url=url) as client:
            routed = attach(client, router)
            await asyncio.to_thread(both.wait)
            for number in range(5):
                ask = {**ASK, "messages": [{"role": "user", "content": f"Question {number % 2}?"}]}
                await routed.messages.create(**ask)
                async with routed.messages.stream(**ask) as stream:
                    await stream.get_final_message()

    def run(url: str) -> None:
        try:
            asyncio.run(work(url))
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    with fake.serve_in_thread() as url:
        threads = [threading.Thread(target=run, args=(url,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failed == []
    assert router.report().calls == 20
    assert asyncio.run(balance(router)) == (fake.billed, 0)


def test_one_client_for_two_loops(fake: FakeClaude) -> None:
    """One client on two loops, one after the other, behaves as it does without Tierline, and nothing stays held."""
    with fake.serve_in_thread() as url:
        http = httpx2.AsyncClient(limits=httpx2.Limits(max_keepalive_connections=0))
        client = AsyncAnthropic(api_key=fake.api_key, base_url=url, http_client=http)
        router = Router(client, budgets=[HARD], classifier=FixedClassifier("moderate"))

        async def call() -> None:
            await router.claude.messages.create(**ASK)

        for _ in range(3):
            asyncio.run(call())
        asyncio.run(client.close())
    assert [r.model for r in fake.requests] == [SONNET] * 3
    assert asyncio.run(balance(router)) == (fake.billed, 0)
