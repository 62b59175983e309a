"""Cases D50 to D67 of the hostile catalogue: the real SDK, over sockets, against an API that fails in every way."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anthropic
import anyio
import httpx2
import pytest

from tests.proof import ASK, HARD, Proof, nothing_left
from tierline import Budget, breaker, policy
from tierline.attempts import Reply
from tierline.breaker import FIRST_HOLD, HALF, IN_A_ROW, LEAST, LONGEST_HOLD
from tierline.classify import ClaudeClassifier
from tierline.retries import BURST, OWN_BURST
from tierline.testing import OK, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from anthropic import Anthropic

    from tierline import Router
    from tierline.testing import FakeClaude
    from tierline.testing._log import Received

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
PATIENCE = 30.0
"""Seconds after which what has not happened never will. A byte every 0.05 s, and an answer is whole much later."""
ALL_SDK_ERRORS = (anthropic.APIError, httpx2.HTTPError, ValueError)


@pytest.fixture
async def proof(
    fake: FakeClaude, make_router: Callable[..., Router], caplog: pytest.LogCaptureFixture
) -> AsyncIterator[Proof]:
    """Calls to ask, and after them: the books are even, no task is left, and nobody complained."""
    async with nothing_left(caplog):
        proof = Proof(fake, make_router)
        yield proof
        await proof.holds()


async def fail(proof: Proof, times: int, error: type[Exception] = anthropic.APIError, **changes: Any) -> Exception:
    """So many calls that fail; the error of the last one."""
    for _ in range(times):
        with pytest.raises(error) as caught:
            await proof.ask(**changes)
    return caught.value


def how_it_ended(received: Received) -> str:
    """How the API saw a request end, which it sees a moment after the client that ended it."""
    until = time.monotonic() + PATIENCE
    while received.ended == "open" and time.monotonic() < until:
        time.sleep(0.01)
    return received.ended


async def _all_of(stream: Any) -> list[Any]:
    return [event async for event in stream]


# Rate limits


async def test_429_retry_after_1(proof: Proof, fake: FakeClaude) -> None:
    """What the API asks to wait is waited for, and then the same tier answers."""
    fake.script(Fault.rate_limit(1), OK, Fault.rate_limit(None).saying(retry_after_ms="250"), OK)
    await proof.ask()
    await proof.ask()
    assert proof.clock.waits == [1, 0.25]
    assert proof.models == ["sonnet"] * 4
    assert [a.role for a in proof.attempts] == ["first", "retry"] * 2


async def test_429_retry_after_3600(proof: Proof, fake: FakeClaude) -> None:
    """An hour is not waited: another tier answers, and while the limit lasts this one is not tried before it."""
    fake.always(SONNET, Fault.rate_limit(3600))
    await proof.ask()
    await proof.ask()
    assert (proof.clock.waits, proof.models) == ([], ["sonnet", "haiku", "haiku"])
    assert "fallback from sonnet to haiku: rate_limit_error" in proof.reasons(0)
    assert "sonnet is not tried: its rate limit is exhausted for 36" in proof.reasons()
    # Where there is no other tier it is tried, and the API's word is the app's.
    with policy(tier="sonnet"):
        error = await fail(proof, 1, anthropic.RateLimitError)
    assert error.response.headers["retry-after"] == "3600"  # type: ignore[attr-defined]
    assert proof.models[3:] == ["sonnet"]
    fake.clear()
    proof.clock.at += 3600
    await proof.ask()
    assert proof.models[4:] == ["sonnet"]


async def test_429_no_retry_after(proof: Proof, fake: FakeClaude) -> None:
    """Without a word on when, the waits are a random share of a bound that doubles."""
    fake.script(*[Fault.rate_limit(None)] * 2, OK)
    await proof.ask()
    assert (proof.clock.waits, proof.models) == ([0.25, 0.5], ["sonnet"] * 3)


@pytest.mark.parametrize("fault", [Fault.exhausted(30), Fault.rate_limit(None, resets_in=30)])
async def test_what_remains_is_remembered(proof: Proof, fake: FakeClaude, fault: Fault) -> None:
    """Headers that say that nothing remains hold until they say that it renews, and only for that model and key."""
    fake.script(fault)
    await proof.ask(proof.router.claude.with_options(max_retries=0))
    before = len(proof.models)
    await proof.ask()
    # A copy of the client that changes nothing of address and key is the same to the API.
    await proof.ask(proof.router.claude.with_options(timeout=30))
    assert proof.models[before:] == ["haiku"] * 2
    await proof.ask(proof.router.claude.with_options(base_url=str(proof.router.claude.base_url) + "/"))
    proof.clock.at += 31
    await proof.ask()
    assert proof.models[-1] == "sonnet"


@pytest.mark.parametrize("limited", ["haiku", "sonnet"])
async def test_a_guess_and_a_tight_budget(proof: Proof, fake: FakeClaude, limited: str) -> None:
    """Where a budget has room for no tier but one whose limit seems exhausted, that is tried, and no call refused."""
    proof.options = {"budgets": [Budget("$0.02/day", downgrade_at=None, cheapest_at=None)]}
    fake.script(Fault.exhausted(30))
    with policy(tier=limited):
        await proof.ask()
    # Room for a sonnet of 1,100 tokens and no opus, or for a haiku of 3,000 and no sonnet.
    bounds = policy(floor="sonnet") if limited == "sonnet" else policy(ceiling="sonnet")
    with bounds:
        await proof.ask(max_tokens=1_100 if limited == "sonnet" else 3_000)
    assert proof.models == [limited] * 2
    assert f"has no room for another: {limited} is tried after all" in proof.reasons()


async def test_a_limit_of_a_key_that_a_request_brings(proof: Proof, fake: FakeClaude) -> None:
    """Apps that send each tenant's own key with its requests learn of one tenant's limit nothing about another's."""
    fake.always(SONNET, Fault.rate_limit(3600))
    with policy(tier="sonnet"):
        await fail(proof, 1, anthropic.RateLimitError, extra_headers={"X-Api-Key": fake.api_key})
    fake.clear()
    await proof.ask()
    await proof.ask(extra_headers={"authorization": f"Bearer {fake.api_key}"})
    await proof.ask(extra_headers={"X-Api-Key": fake.api_key})
    assert proof.models == ["sonnet", "sonnet", "sonnet", "haiku"]


async def test_all_limits_exhausted(proof: Proof, fake: FakeClaude) -> None:
    """Where nothing remains on any tier, the one that would have been taken is tried: a guess refuses no call."""
    fake.script(Fault.exhausted(30))
    await proof.ask()
    with policy(floor="sonnet", ceiling="sonnet"):
        await proof.ask()
    assert proof.models == ["sonnet"] * 2
    fake.script(*[Fault.exhausted(30)] * 3)
    for tier in ("haiku", "sonnet", "opus"):
        with policy(tier=tier):
            await proof.ask()
    await proof.ask()
    assert proof.models[-1] == "sonnet"


async def test_x_should_retry(proof: Proof, fake: FakeClaude) -> None:
    """The API's own word on retries is followed, in both directions."""
    fake.script(Fault.error(500).saying(x_should_retry="false"), Fault.error(400).saying(x_should_retry="true"), OK)
    with policy(tier="sonnet"):
        await fail(proof, 1, anthropic.InternalServerError)
        await proof.ask()
    assert [len(decision.attempts) for decision in proof.decisions] == [1, 2]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("stream", [False, True])
async def test_400_spend_limit_not_retried(proof: Proof, fake: FakeClaude, *, own: bool, stream: bool) -> None:
    """A spend limit is one request: every tier meets it, and waiting does not help."""
    fake.always(None, Fault.spend_limit(own=own))
    error = await fail(proof, 1, anthropic.APIStatusError, stream=stream)
    assert type(error) is (anthropic.BadRequestError if own else anthropic.EnforcedSpendLimitReachedError)
    assert (proof.clock.waits, proof.models) == ([], ["sonnet"])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
async def test_futile_errors(proof: Proof, fake: FakeClaude, status: int) -> None:
    """What is wrong with the request or the key is asked once, and opens no breaker."""
    fake.always(None, Fault.error(status))
    await fail(proof, 2 * IN_A_ROW, anthropic.APIStatusError)
    assert proof.models == ["sonnet"] * 2 * IN_A_ROW
    assert not proof.router.health.troubled


# Breakers


async def test_529_burst_breaker(proof: Proof, fake: FakeClaude) -> None:
    """A tier that is overloaded is left alone after a while, and taken again when it answers one attempt."""
    fake.always(SONNET, Fault.overloaded())
    for _ in range(20):
        await proof.ask()
    tries = proof.models.count("sonnet")
    assert tries == IN_A_ROW
    assert proof.models[-5:] == ["haiku"] * 5
    assert f"sonnet is not tried: its breaker is open after {IN_A_ROW} failures in a row" in proof.reasons()
    assert proof.counted("tierline.breakers.open") == {SONNET: 1}
    assert proof.counted("tierline.attempts.withheld")["breaker"] > 5
    proof.clock.at += FIRST_HOLD
    await proof.ask()  # the probe fails, and it stays open for twice as long
    proof.clock.at += FIRST_HOLD
    await proof.ask()
    assert proof.models.count("sonnet") == tries + 1
    fake.clear()
    proof.clock.at += FIRST_HOLD
    await proof.ask()
    await proof.ask()
    assert proof.models[-2:] == ["sonnet"] * 2
    assert proof.counted("tierline.breakers.open") == {SONNET: 0}
    assert proof.counted("tierline.breaker.changes") == {"open": 2, "half_open": 2, "closed": 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_25_consecutive_500s_open_breaker(proof: Proof, fake: FakeClaude, *, stream: bool) -> None:
    """Where no other tier is allowed, the SDK's own error comes at once, says so, and says when to come back."""
    fake.always(None, Fault.error(500))
    with policy(tier="opus"):
        error = await fail(proof, 25, anthropic.InternalServerError, stream=stream)
    assert proof.models == ["opus"] * IN_A_ROW
    assert isinstance(error, anthropic.APIStatusError)
    assert error.status_code == 500
    assert "Tierline did not send this request (opus: its breaker is open after" in str(error)
    assert 0 < int(error.response.headers["retry-after"]) <= LONGEST_HOLD
    assert (error.type, error.request.method) == ("api_error", "POST")
    assert (proof.decisions[-1].attempts, proof.decisions[-1].cost) == ((), 0)
    fake.clear()
    proof.clock.at += FIRST_HOLD
    with policy(tier="opus"):
        await proof.ask()
    assert len(proof.models) == IN_A_ROW + 1


async def test_all_breakers_open(proof: Proof, fake: FakeClaude) -> None:
    """With every tier down, nothing is sent any more but probes, and errors are of the type of the last failure."""
    fake.always(None, Fault.overloaded())
    await fail(proof, 60, anthropic.OverloadedError)
    sent = len(fake.requests)
    assert sent <= 3 * IN_A_ROW
    waits = len(proof.clock.waits)
    error = await fail(proof, 20, anthropic.OverloadedError)
    assert (len(fake.requests), len(proof.clock.waits)) == (sent, waits)
    assert all(f"{tier}: its breaker" in str(error) for tier in ("haiku", "sonnet", "opus"))
    url = f"{str(proof.router.claude.base_url).rstrip('/')}/v1/messages"
    for path in ("/v1/messages", "v1/messages", url):
        with pytest.raises(anthropic.OverloadedError) as caught:
            await proof.router.claude.post(path, body=ASK, cast_to=anthropic.types.Message)
        assert str(caught.value.request.url) == url


async def test_a_dead_line_opens_breakers_too(proof: Proof, fake: FakeClaude) -> None:
    """Connections that are reset end in the SDK's connection error, with and without a request."""
    fake.always(None, Fault.reset())
    with policy(tier="haiku"):
        error = await fail(proof, 2 * IN_A_ROW, anthropic.APIConnectionError)
    assert len(fake.requests) == IN_A_ROW
    assert "did not send this request" in str(error)


async def test_bad_requests_open_nothing_and_close_what_is_half_open(proof: Proof, fake: FakeClaude) -> None:
    """An API that says 400 is up: a row of failures ends there, and the next call needs no other proof."""
    broken = [Fault.error(500)] * (IN_A_ROW - 1)
    one = proof.router.claude.with_options(max_retries=0)
    fake.script(*broken, Fault.error(400), *broken, Fault.error(400), *broken, Fault.error(500))
    with policy(tier="opus"):
        for number in range(3 * IN_A_ROW):
            if number % IN_A_ROW == 0:
                proof.clock.at += 2 * HALF  # of the rate nothing is left
            with pytest.raises(anthropic.APIStatusError):
                await proof.ask(one)
        assert len(fake.requests) == 3 * IN_A_ROW
        tier = proof.router.health.of(proof.router.claude.middleware[-1].endpoint, OPUS)
        assert tier.breaker.state == "open"
        proof.clock.at = tier.breaker.until
        fake.script(Fault.error(400))
        await fail(proof, 1, anthropic.BadRequestError)
        assert tier.breaker.state == "closed"
        await asyncio.gather(*(proof.ask() for _ in range(5)))


async def test_a_long_answer_is_no_outage(proof: Proof, fake: FakeClaude) -> None:
    """An app that gives up on whole answers before they can be written opens no breaker; silence on a stream does."""
    tier = proof.router.health.of(proof.router.claude.middleware[-1].endpoint, HAIKU)
    one = proof.router.claude.with_options(max_retries=0)
    fake.always(None, Fault.hang())
    with policy(tier="haiku"):
        for stream in (False, True):
            for _ in range(IN_A_ROW):
                asking = asyncio.ensure_future(proof.ask(one, stream=stream, max_tokens=7_000, timeout=0.5))
                reached = len(fake.requests) + 1
                await fake.until(lambda requests, reached=reached: len(requests) == reached)  # type: ignore[misc]
                proof.clock.at += 100
                with pytest.raises(anthropic.APITimeoutError):
                    await asking
            assert (stream, tier.breaker.state) == (stream, "open" if stream else "closed")


async def test_a_tenant_that_fails_leaves_retries_to_others(proof: Proof, fake: FakeClaude) -> None:
    """Requests of one tenant that always end in 500 do not use up the retry of another's that would pass."""

    async def ask(tenant: str) -> Any:
        async with proof.router.bind(tenant=tenant) as binding:
            try:
                return await proof.router.claude.messages.create(**ASK)
            finally:
                proof.decisions += binding.decisions

    with policy(tier="opus"):
        for _ in range(2 * BURST):
            fake.always(OPUS, Fault.error(500))
            with pytest.raises(anthropic.InternalServerError):
                await ask("bad")
            fake.clear()
            for _ in range(3):
                await ask("good")
        assert "this process has used up its budget of retries" in proof.reasons(-4)
        fake.script(Fault.error(500), OK)
        await ask("good")
    assert [a.role for a in proof.decisions[-1].attempts] == ["first", "retry"]


async def test_a_tier_that_hangs(proof: Proof, fake: FakeClaude) -> None:
    """Timeouts that no hurry explains open the breaker, and the error stays a timeout."""
    fake.always(None, Fault.hang())
    tier = proof.router.health.of(proof.router.claude.middleware[-1].endpoint, HAIKU)
    with policy(tier="haiku"):
        await fail(proof, 1, anthropic.APITimeoutError, timeout=0.05)
        assert not proof.router.health.troubled
        for _ in range(IN_A_ROW):
            tier.ended(Reply(error="timeout", down=True), proof.clock.at - 600, "closed")
            proof.clock.at += 601
        before = len(fake.requests)
        proof.clock.at = tier.breaker.until - 1
        error = await fail(proof, 1, anthropic.APITimeoutError)
    assert len(fake.requests) == before
    assert "did not send this request" in str(error)


async def test_half_open_single_probe(proof: Proof, fake: FakeClaude) -> None:
    """Of fifty calls at the moment when a breaker may close, one is sent; when it has come back, all are."""
    fake.always(None, Fault.error(500))
    with policy(tier="opus"):
        await fail(proof, IN_A_ROW)
        fake.clear()
        fake._latency = 0.3
        proof.clock.at += FIRST_HOLD
        before = len(fake.requests)
        results = await asyncio.gather(*(proof.ask() for _ in range(50)), return_exceptions=True)
        assert len(fake.requests) == before + 1
        refused = [r for r in results if isinstance(r, anthropic.InternalServerError)]
        assert len(refused) == 49
        assert "one attempt is out to try it" in str(refused[0])
        await asyncio.gather(*(proof.ask() for _ in range(5)))
    assert len(fake.requests) == before + 6


async def test_a_cancelled_probe_makes_way(proof: Proof, fake: FakeClaude) -> None:
    """A probe whose caller is gone keeps nobody out."""
    fake.always(None, Fault.error(500))
    with policy(tier="opus"):
        await fail(proof, IN_A_ROW)
        fake.clear()
        fake.script(Fault.hang())
        proof.clock.at += FIRST_HOLD
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(proof.ask(), 0.2)
        await proof.ask()


async def test_one_blip_opens_nothing(proof: Proof, fake: FakeClaude) -> None:
    """Thirty connections that are reset at the same moment are no thirty failures in a row."""
    fake.script(*[Fault.overloaded()] * 30)
    fake._latency = 0.2
    await asyncio.gather(*(proof.ask() for _ in range(30)), return_exceptions=True)
    assert not proof.router.health.troubled
    fake.clear()
    await proof.ask()


async def test_observing_holds_nothing_back(proof: Proof, fake: FakeClaude) -> None:
    """A call that is only watched meets every failure of the API as the SDK would."""
    proof.options = {"mode": "observe", "budgets": []}
    fake.always(None, Fault.error(500))
    await fail(proof, 2 * IN_A_ROW)
    assert len(fake.requests) == 3 * 2 * IN_A_ROW


# Broken answers


async def test_reset_pre_headers(proof: Proof, fake: FakeClaude) -> None:
    """A connection that is reset before the answer is tried again; what it may have cost is charged, and marked."""
    fake.script(Fault.reset(), OK)
    await proof.ask()
    assert [(a.outcome, a.estimated) for a in proof.attempts] == [("connection_error", True), ("ok", False)]


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.reset_after(4), "connection_error"),
        (Fault.error_event(after=4), "overloaded_error"),
        (Fault.clean_eof(4), "truncated"),
        (Fault.truncated_json(), "truncated"),
    ],
    ids=["reset_mid_stream", "sse_error_after_200", "clean_eof_no_stop", "truncated_event"],
)
async def test_broken_streams(proof: Proof, fake: FakeClaude, fault: Fault, outcome: str) -> None:
    """A stream that breaks is charged as estimated and never sent again; where all break, the breaker opens."""
    fake.always(None, fault)
    with policy(tier="haiku"):
        for _ in range(LEAST):
            try:
                await proof.read()
            except ALL_SDK_ERRORS as error:
                last = error
    assert {a.outcome for a in proof.attempts} == {outcome}
    assert all(a.estimated and a.role == "first" for a in proof.attempts)
    # Each of them began well, so it takes a rate to tell.
    assert len(fake.requests) == LEAST // 2
    assert f"breaker is open after {LEAST // 2} failures of {LEAST}" in str(last)


@pytest.mark.parametrize("fault", [Fault.missing_usage(), Fault.usage(output_tokens=-5)])
async def test_whole_streams_without_usage_open_no_breaker(proof: Proof, fake: FakeClaude, fault: Fault) -> None:
    """A proxy that leaves the usage out of whole answers makes them dear, and is no API that is down."""
    fake.always(None, fault)
    with policy(tier="haiku"):
        for _ in range(LEAST + 1):
            assert (await proof.read())[-1] == "message_stop"
    assert {a.estimated for a in proof.attempts} == {True}
    assert proof.models == ["haiku"] * (LEAST + 1)


async def test_reset_mid_stream(proof: Proof, fake: FakeClaude) -> None:
    """The app sees the reset as the SDK tells it, and nothing is sent again."""
    fake.script(Fault.reset_after(4))
    with pytest.raises((httpx2.HTTPError, anthropic.APIConnectionError)):
        await proof.read()
    assert [(a.outcome, a.estimated) for a in proof.attempts] == [("connection_error", True)]


async def test_sse_error_after_200(proof: Proof, fake: FakeClaude) -> None:
    """The SDK's error for an `error` event has the status 200."""
    fake.script(Fault.error_event(after=4))
    with pytest.raises(anthropic.APIStatusError) as caught:
        await proof.read()
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")
    assert [(a.outcome, a.estimated) for a in proof.attempts] == [("overloaded_error", True)]


async def test_clean_eof_no_stop(proof: Proof, fake: FakeClaude) -> None:
    """The SDK notices nothing of a stream that ends early; the bill does."""
    fake.script(Fault.clean_eof(4))
    assert "message_stop" not in await proof.read()
    assert [(a.outcome, a.estimated) for a in proof.attempts] == [("truncated", True)]


@pytest.mark.parametrize("fault", [Fault.truncated_json(), Fault.clean_eof(4)])
async def test_truncated_json_200(proof: Proof, fake: FakeClaude, fault: Fault) -> None:
    """Half of the JSON is the app's to notice, as with the plain SDK, and is charged in full, once."""
    fake.script(fault)
    with pytest.raises(ALL_SDK_ERRORS):
        await proof.ask()
    assert [a.estimated for a in proof.attempts] == [True]
    assert len(fake.requests) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_html_200(proof: Proof, fake: FakeClaude, *, stream: bool) -> None:
    """A page of HTML instead of an answer is charged as estimated, for nobody knows what came before it."""
    fake.script(Fault.html())
    with suppress(*ALL_SDK_ERRORS):
        await (proof.read() if stream else proof.ask())
    assert [a.estimated for a in proof.attempts] == [True]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [Fault.missing_usage(), Fault.usage(output_tokens=-5), Fault.usage(input_tokens="9")])
async def test_missing_usage(proof: Proof, fake: FakeClaude, fault: Fault, *, stream: bool) -> None:
    """Usage that is missing or nonsense is no zero."""
    fake.script(fault)
    with suppress(*ALL_SDK_ERRORS):
        await (proof.read() if stream else proof.ask())
    (attempt,) = proof.attempts
    assert attempt.estimated or attempt.cost == fake.billed
    assert attempt.cost >= fake.billed > 0


async def test_pings_forever_slowloris(proof: Proof, fake: FakeClaude) -> None:
    """A stream that says nothing for ever is the app's to leave: then it is closed upstream, and settled."""
    fake.script(Fault.pings(every=0.01))
    async with proof.bound():
        stream = await proof.router.claude.messages.create(**ASK, stream=True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_all_of(stream), 0.3)
        await stream.close()
    await asyncio.wait_for(fake.idle(), 1)
    assert [a.estimated for a in proof.attempts] == [True]


async def test_bytes_forever_slowloris(proof: Proof, fake: FakeClaude) -> None:
    """An answer that comes byte by byte keeps within every timeout of the SDK, and not within the deadline."""
    proof.options = {"deadline": 0.5, "timing": None}
    fake.script(Fault.drip(every=0.05))
    with pytest.raises(anthropic.APITimeoutError):
        await proof.ask()
    await asyncio.wait_for(fake.idle(), PATIENCE)
    assert [received.ended for received in fake.requests] == ["disconnected"]
    assert [(a.outcome, a.estimated) for a in proof.attempts] == [("timeout", True)]


@pytest.mark.parametrize("kind", ["plain", "raw", "in a worker thread"])
def test_bytes_forever_in_threads(fake: FakeClaude, make_sync_router: Callable[..., Router], kind: str) -> None:
    """The read of a synchronous client is ended too, whatever it says of its own timeout, and its thread is free."""
    router = make_sync_router(deadline=0.5, timing=None, budgets=[HARD])
    fake.script(Fault.drip(every=0.05))
    messages = router.sync_claude.messages
    create = messages.with_raw_response.create if kind == "raw" else messages.create

    def ask() -> None:
        with pytest.raises(anthropic.APITimeoutError):
            create(**ASK, timeout=60)

    async def in_a_worker_thread() -> None:
        await anyio.to_thread.run_sync(ask)
        await router.aclose()

    if kind == "in a worker thread":
        asyncio.run(in_a_worker_thread())
    else:
        ask()
    assert [how_it_ended(received) for received in fake.requests] == ["disconnected"]
    if kind != "in a worker thread":
        messages.create(**ASK)
        assert len(fake.requests) == 2


def test_a_verdict_that_drips_keeps_no_thread(fake: FakeClaude, make_sync_router: Callable[..., Router]) -> None:
    """A question of Tierline's own that is answered byte by byte is given up in time by a thread that waits for it."""
    router = make_sync_router(timing=None, classifier=ClaudeClassifier(timeout=0.5))
    fake.always(HAIKU, Fault.drip(every=0.05))
    with router.bind() as binding, policy(floor="sonnet"):
        router.sync_claude.messages.create(**ASK)
    decision = binding.decisions[-1]
    assert (decision.tier, decision.source) == ("sonnet", "default")
    verdict, answer = fake.requests
    assert (verdict.model, how_it_ended(verdict)) == (HAIKU, "disconnected")
    assert (answer.model, how_it_ended(answer)) == (SONNET, "complete")


async def test_unknown_event(proof: Proof, fake: FakeClaude) -> None:
    """Events of tomorrow reach the app, and the bill is exact."""
    fake.script(Fault.unknown_event())
    assert (await proof.read())[-1] == "message_stop"
    assert [a.estimated for a in proof.attempts] == [False]


@pytest.mark.parametrize("after", [0, 1, 4])
async def test_no_retry_after_first_byte(proof: Proof, fake: FakeClaude, after: int) -> None:
    """Once the app has an answer in its hand, nothing is sent again, however that ends."""
    fake.script(Fault.reset_after(after))
    with pytest.raises((httpx2.HTTPError, anthropic.APIConnectionError)):
        await proof.read()
    assert (len(fake.requests), proof.clock.waits) == (1, [])
    assert [a.estimated for a in proof.attempts] == [True]


# The budget of retries, and the deadline


@pytest.mark.parametrize("breakers", [False, True])
@pytest.mark.parametrize("at_once", [1, 20])
async def test_all_tiers_down_amplification(
    proof: Proof, fake: FakeClaude, monkeypatch: pytest.MonkeyPatch, at_once: int, *, breakers: bool
) -> None:
    """With every tier down a process sends at most 1.1 requests a call after its burst, and with breakers far fewer."""
    if not breakers:
        monkeypatch.setattr(breaker, "IN_A_ROW", 1_000_000)
        monkeypatch.setattr(breaker, "LEAST", 1_000_000)
    fake.always(None, Fault.overloaded())
    calls = 200
    for _ in range(calls // at_once):
        await asyncio.gather(*(proof.ask() for _ in range(at_once)), return_exceptions=True)
    assert len(proof.decisions) == calls
    assert len(fake.requests) <= 1.1 * calls + BURST
    if breakers:
        assert len(fake.requests) < calls
    else:
        assert len(fake.requests) >= 1.1 * calls
        assert "this process has used up its budget of retries" in proof.reasons()


async def test_a_tier_down_is_no_outage(proof: Proof, fake: FakeClaude, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another tier answers, every call gets its fallback: what succeeds costs the budget nothing."""
    monkeypatch.setattr(breaker, "IN_A_ROW", 1_000_000)
    monkeypatch.setattr(breaker, "LEAST", 1_000_000)
    fake.always(SONNET, Fault.overloaded())
    for _ in range(60):
        await proof.ask()
    assert {decision.tier for decision in proof.decisions} == {"haiku"}
    assert proof.models.count("sonnet") <= 1.1 * 60 + BURST


async def test_own_questions_cost_no_retries(proof: Proof, fake: FakeClaude) -> None:
    """Verdicts that fail are retried out of a budget of their own."""
    proof.options = {"classifier": ClaudeClassifier()}
    fake.always(HAIKU, Fault.overloaded())
    with policy(floor="sonnet"):
        for number in range(6):
            await proof.ask(messages=[{"role": "user", "content": f"Why is it blue, part {number}?"}])
    assert proof.router.health.retries.tokens > BURST
    assert proof.models.count("haiku") <= 1.1 * 6 + OWN_BURST
    assert proof.models.count("sonnet") == 6


async def test_own_questions_keep_to_what_is_known(proof: Proof, fake: FakeClaude) -> None:
    """No verdict is asked of a tier that is exhausted or down: the app's call is what tells when it is back."""
    proof.options = {"classifier": ClaudeClassifier()}
    with policy(tier="haiku"):
        fake.script(Fault.exhausted(30))
        await proof.ask()
    await proof.ask()
    assert (proof.models, proof.reasons().split("\n")[0]) == (["haiku", "sonnet"], "no verdict: RateLimitError")
    proof.clock.at += 31
    fake.always(HAIKU, Fault.overloaded())
    with policy(tier="haiku"):
        await fail(proof, IN_A_ROW)
    fake.clear()
    proof.clock.at += FIRST_HOLD
    before = len(proof.models)
    await proof.ask()
    assert proof.models[before:] == ["sonnet"]


async def test_own_questions_find_out_where_no_call_does(proof: Proof, fake: FakeClaude) -> None:
    """A tier that only verdicts go to is tried by one of them, when it has waited for a call of the app's in vain."""
    proof.options = {"classifier": ClaudeClassifier()}
    fake.always(HAIKU, Fault.error(500))

    async def ask(number: int) -> str:
        await proof.ask(messages=[{"role": "user", "content": f"Why is it blue, part {number}?"}])
        return proof.decisions[-1].source

    with policy(floor="sonnet"):
        for number in range(2 * IN_A_ROW):
            assert await ask(number) == "default"
        before = proof.models.count("haiku")
        fake.clear()
        proof.clock.at += 2 * FIRST_HOLD
        assert await ask(100) == "default"
        assert proof.models.count("haiku") == before
        proof.clock.at += 2 * FIRST_HOLD
        assert await ask(101) == "claude"
    # What was held back by a breaker is not told as a rate limit.
    assert set(proof.counted("tierline.attempts.withheld")) == {"breaker", "retry_budget"}


async def test_a_request_that_is_none(proof: Proof, fake: FakeClaude) -> None:
    """What cannot be sent, such as a header with a line break, costs nothing, is not retried, and tells nothing."""
    tokens = proof.router.health.retries.tokens
    for _ in range(IN_A_ROW):
        error = await fail(proof, 1, anthropic.APIConnectionError, extra_headers={"x-user": "a\nb"})
        assert isinstance(error.__cause__, httpx2.LocalProtocolError)
    assert (fake.requests, {(a.cost, a.estimated) for a in proof.attempts}) == ([], {(0, False)})
    assert len(proof.attempts) == IN_A_ROW
    assert proof.router.health.retries.tokens >= tokens
    await proof.ask()
    assert proof.models == ["sonnet"]


async def test_deadline(proof: Proof, fake: FakeClaude) -> None:
    """A wait that would pass the deadline is not begun: another tier is asked, or the API's error comes at once."""
    proof.options = {"deadline": 5.0}
    fake.script(Fault.rate_limit(4), OK, Fault.rate_limit(5), OK, Fault.rate_limit(5))
    await proof.ask()
    await proof.ask()
    with policy(tier="opus"):
        error = await fail(proof, 1, anthropic.RateLimitError)
    assert proof.clock.waits == [4]
    assert proof.models == ["sonnet", "sonnet", "sonnet", "haiku", "opus"]
    assert error.response.headers["retry-after"] == "5"  # type: ignore[attr-defined]
    assert "no retry: the API asks to wait 5 s" in proof.reasons()


async def test_deadline_cuts_an_attempt(proof: Proof, fake: FakeClaude) -> None:
    """An attempt gets what is left of the deadline, and no more."""
    proof.options = {"deadline": 0.4, "timing": None}
    fake.always(None, Fault.hang())
    await fail(proof, 1, anthropic.APITimeoutError)
    assert [(a.outcome, a.estimated) for a in proof.attempts] == [("timeout", True)]


async def test_a_deadline_is_none_of_pauses(proof: Proof, fake: FakeClaude) -> None:
    """What is left of a deadline is for an answer to begin in: a stream may then pause for longer."""
    proof.options = {"deadline": 0.4, "timing": None}
    fake._chunk_delay = 0.5
    async with proof.bound(), await proof.router.claude.messages.create(**ASK, stream=True) as stream:
        assert len([await anext(stream) for _ in range(3)]) == 3
    assert [a.outcome for a in proof.attempts] == ["closed"]


def test_a_deadline_is_none_of_pauses_in_threads(fake: FakeClaude, make_sync_router: Callable[..., Router]) -> None:
    """The same for a synchronous client."""
    fake._chunk_delay = 0.5
    router = make_sync_router(deadline=0.4, timing=None)
    with router.sync_claude.messages.create(**ASK, stream=True) as stream:
        assert len([next(stream) for _ in range(3)]) == 3


async def test_the_sdks_timeout_is_a_deadline(proof: Proof, fake: FakeClaude) -> None:
    """Where nobody says more, a call waits no longer than the attempts that the SDK's timeout allows it."""
    fake.always(None, Fault.rate_limit(50))
    with policy(tier="opus"), pytest.raises(anthropic.RateLimitError):
        await proof.ask(timeout=2)
    assert (proof.clock.waits, proof.models) == ([], ["opus"])
    with policy(tier="opus"), pytest.raises(anthropic.RateLimitError):
        await proof.ask()
    assert proof.clock.waits == [50, 50]


def test_synchronous_clients(fake: FakeClaude, sync_sdk: Anthropic, make_sync_router: Callable[..., Router]) -> None:
    """Synchronous clients, in threads of any kind, have the same breakers, deadlines and retries."""
    router = make_sync_router(sync_sdk, deadline=30)
    claude = router.sync_claude
    fake.script(Fault.overloaded(), OK)
    claude.messages.create(**ASK)
    assert [r.model for r in fake.requests] == [SONNET, SONNET]
    fake.always(None, Fault.error(500))
    with policy(tier="opus"):
        for _ in range(2 * IN_A_ROW):
            with pytest.raises(anthropic.InternalServerError) as caught:
                claude.messages.create(**ASK)
    assert [r.model for r in fake.requests].count(OPUS) == IN_A_ROW
    assert "breaker is open" in str(caught.value)
    assert router.health.of(0, "x").breaker.ready
