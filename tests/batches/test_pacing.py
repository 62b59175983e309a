"""How fast the concurrent lane goes: pure, in time that is set."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tierline.attempts import Reply, Timing
from tierline.batches.pacing import KEPT, MOST, START, Pacer, Turn, Window
from tierline.values import Attempt, Usage

MODEL = ("here", "m")


class Time:
    """Time that goes by when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def time() -> Time:
    """At the beginning."""
    return Time()


@pytest.fixture
def pacer(time: Time) -> Pacer:
    """That knows nothing yet."""
    return Pacer(Timing(now=lambda: time.now, perf=lambda: time.now, sleep=time.sleep))


def said(status: int = 200, wait: float | None = None, **left: tuple[int, int]) -> Reply:
    """What the API says of limits: of each, what it is and what remains."""
    headers = {}
    for kind, (limit, rest) in left.items():
        name = f"anthropic-ratelimit-{kind.replace('_', '-')}"
        headers |= {f"{name}-limit": str(limit), f"{name}-remaining": str(rest)}
    response = SimpleNamespace(http_response=SimpleNamespace(headers=headers))
    error = "" if status == 200 else "rate_limit_error"
    return Reply(response, status=status, error=error, retry_after=wait)


async def sent(pacer: Pacer, reply: Reply, size: int = 100, usage: Usage | None = None) -> float:
    """One call from its turn to its end; how long it waited."""
    turn = Turn(pacer, size)
    waited = await turn.room(*MODEL)
    turn.sent(*MODEL)
    turn.heard(*MODEL, reply)
    outcome = reply.error or "ok"
    turn.ended([Attempt("t", "m", "first", outcome, usage or Usage())])
    return waited


def test_the_window_opens_until_the_api_is_busy() -> None:
    """From five, by one with each answer; then halved once for all that were on their way, and slower."""
    window = Window()
    for _ in range(7):
        window.answered()
    assert window.size == START + 7
    window.busy(sent=1.0, now=2.0)
    window.busy(sent=1.5, now=2.1)
    assert window.size == 6
    for _ in range(6):
        window.answered()
    assert 6.9 < window.size < 7.1
    for _ in range(100_000):
        window.answered()
    assert window.size == MOST
    for n in range(20):
        window.busy(sent=10.0 + n, now=10.5 + n)
    assert window.size == 1


async def test_a_call_waits_for_what_the_headers_say_is_left(pacer: Pacer, time: Time) -> None:
    """As the bucket fills, and so that a part of it is left to others."""
    kept = int(60 * KEPT)
    assert await sent(pacer, said(requests=(60, 59))) == 0
    for rest in range(58, kept - 1, -1):
        assert await sent(pacer, said(requests=(60, rest))) == 0
    assert await sent(pacer, said(requests=(60, kept))) == pytest.approx(1.0)
    began = time.now
    for _ in range(10):
        await sent(pacer, said(requests=(60, kept)))
    assert time.now - began == pytest.approx(10.0)


async def test_tokens_are_expected_as_answers_had_them(pacer: Pacer, time: Time) -> None:
    """A request of 1,000 characters had 500 tokens: of 1,000 in a minute, with 50 kept, one more has room at once."""
    usage = Usage(input_tokens=500)
    await sent(pacer, said(input_tokens=(1_000, 1_000)), 1_000, usage)
    assert await sent(pacer, said(), 1_000, usage) == 0
    assert await sent(pacer, said(), 1_000, usage) == pytest.approx(3.0)  # 500 are left, 550 are wanted
    assert await sent(pacer, said(), 400, Usage(input_tokens=200)) == pytest.approx(12.0)  # 50 are, 250 are


async def test_what_was_not_used_is_there_for_others(pacer: Pacer) -> None:
    """Such as the tokens that a cache had."""
    await sent(pacer, said(input_tokens=(1_000, 1_000)), 1_000, Usage(input_tokens=800))
    for _ in range(3):
        assert await sent(pacer, said(), 1_000, Usage(input_tokens=10, cache_read=790)) == 0


async def test_the_app_s_other_calls_are_seen_in_what_is_left(pacer: Pacer) -> None:
    """There is never more than an answer says."""
    await sent(pacer, said(requests=(60, 59)))
    await sent(pacer, said(requests=(60, 1)))
    assert await sent(pacer, said()) == pytest.approx(3.0)  # four are wanted


async def test_after_a_429_nothing_is_sent_until_the_api_said(pacer: Pacer) -> None:
    """To that model; and the window is halved."""
    await sent(pacer, said(429, 20.0, requests=(60, 0)))
    assert pacer.window.size == START / 2
    turn = Turn(pacer, 100)
    assert await turn.room("here", "other") == 0
    assert await sent(pacer, said()) == pytest.approx(20.0)


async def test_who_waits_first_goes_first(pacer: Pacer) -> None:
    """In the order in which they came, each when there is room for it."""
    await sent(pacer, said(requests=(60, int(60 * KEPT))))
    order: list[int] = []

    async def one(number: int) -> None:
        await Turn(pacer, 100).room(*MODEL)
        order.append(number)

    await asyncio.gather(*map(one, range(5)))
    assert order == list(range(5))


async def test_another_tier_is_counted_and_not_waited_for(pacer: Pacer) -> None:
    """A fallback takes of the limit of where it goes."""
    await sent(pacer, said(requests=(60, 5)))
    turn = Turn(pacer, 100)
    assert await turn.room("here", "other") == 0
    assert turn.waits
    turn.sent("here", "other")
    turn.heard("here", "other", said(529))
    turn.sent(*MODEL)
    assert not turn.waits
    assert await sent(pacer, said()) == 0
    assert await sent(pacer, said()) == pytest.approx(1.0)


@pytest.mark.parametrize("wrong", ["", "many", "-1", "9" * 400, "1e3", "²"])
async def test_headers_that_cannot_be_read_are_none(pacer: Pacer, wrong: str) -> None:
    """Nothing is held back by them."""
    reply: Any = said()
    reply.response.http_response.headers["anthropic-ratelimit-requests-limit"] = wrong
    reply.response.http_response.headers["anthropic-ratelimit-requests-remaining"] = wrong
    await sent(pacer, reply)
    assert await sent(pacer, said()) == 0
