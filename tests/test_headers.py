"""What responses say of their calls, in headers: pure, and over a socket where several middlewares have a say."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from tests.apps import app_of, ask, refusing
from tierline import Decision, policy
from tierline.asgi import TierlineMiddleware
from tierline.headers import shown, timed
from tierline.starlette import claude_of
from tierline.testing import Fault
from tierline.values import Attempt

if TYPE_CHECKING:
    from starlette.requests import Request

    from tests.apps import MakeRouter, Serve
    from tierline.testing import FakeClaude

pytestmark = pytest.mark.usefixtures("quiet")


def decision(*attempts: Attempt, **more: Any) -> Decision:
    values: dict[str, Any] = {
        "id": "1", "tier": "haiku", "model": "m", "requested_tier": "haiku", "label": None, "confidence": 1.0,
        "source": "claude", "settled": True,
    }  # fmt: skip
    return Decision(**values | {"attempts": attempts} | more)


def attempt(seconds: float, tier: str = "haiku", **more: Any) -> Attempt:
    return Attempt(**{"tier": tier, "model": "m", "role": "first", "outcome": "ok", "seconds": seconds} | more)


def said(*decisions: Decision, there: tuple[bytes, ...] = ()) -> str:
    return b"".join(value for _, value in timed(decisions, there)).decode()


def test_a_call_and_its_parts() -> None:
    """All of a call comes first, then classifying and each attempt, in milliseconds; the rest is what they leave."""
    first = attempt(0.25, outcome="overloaded_error")
    second = attempt(0.5, "opus", role="fallback")
    assert said(decision(first, second, tier="opus", latency_s=1.0, classifier_latency_s=0.125)) == (
        'tierline;dur=1000.00;desc="opus, claude", tierline-classify;dur=125.00;desc="claude", '
        'tierline-attempt;dur=250.00;desc="haiku, first, overloaded_error", '
        'tierline-attempt;dur=500.00;desc="opus, fallback, ok", tierline-rest;dur=125.00'
    )


@pytest.mark.parametrize(("verdict", "rest"), [(0.75, 250), (0.25, 500)])
def test_what_ran_beside_the_question_is_not_counted_twice(verdict: float, rest: int) -> None:
    """Of a speculative attempt and its question, the longer one is a part of the call."""
    text = said(decision(attempt(0.5, role="speculative"), latency_s=1.0, classifier_latency_s=verdict))
    assert text.endswith(f"tierline-rest;dur={rest}.00")


def test_no_time_is_below_nothing() -> None:
    """An attempt that a thread read on after its call is longer than that."""
    assert said(decision(attempt(2.0), latency_s=1.0)).endswith("tierline-rest;dur=0.00")


def test_a_call_that_was_not_sent_names_no_tier() -> None:
    """A refused call has no tier and no source; one that goes on is not told of yet."""
    assert said(decision(latency_s=0.001)) == 'tierline;dur=1.00;desc="nothing sent", tierline-rest;dur=1.00'
    assert said(decision(attempt(0.1), settled=False)) == ""
    assert shown([decision()], []) == []


def test_it_is_bounded() -> None:
    """Of many calls with many attempts the latest are told, and the header stays small."""
    calls = [decision(*[attempt(1.0, "x" * 500)] * 50, tier=f"t{n}" + "y" * 500) for n in range(100)]
    text = said(*calls)
    assert len(text) < 3_000
    assert re.findall(r'tierline;dur=0\.00;desc="t(\d+)y', text) == ["96", "97", "98", "99"]


@pytest.mark.parametrize(
    ("name", "desc"),
    [
        ("a\r\nset-cookie: x=1", None), ("na\u00efve", None), ("x\x00y", None), ("\ud800", None),
        ('q"u\\o', r'"q\"u\\o, claude"'), ("a, b;c", '"a, b;c, claude"'),
    ],
)  # fmt: skip
def test_no_header_is_injected(name: str, desc: str | None) -> None:
    """What is no text of a header is left out, what ends a quoted one is escaped."""
    entry = said(decision(attempt(0.1), tier=name, latency_s=0.1)).split(", tierline-")[0]
    assert entry == "tierline;dur=100.00" + (f";desc={desc}" if desc else "")


async def test_middlewares_and_apps_that_speak_too(make_router: MakeRouter, serve: Serve) -> None:
    """What the app says of its time stays; a middleware inside of another one has said all, and it is said once."""

    async def pay(request: Request) -> PlainTextResponse:
        await claude_of(request).messages.create(**ask())
        with policy(tier="opus"):
            await claude_of(request).messages.create(**ask())
        return PlainTextResponse("paid", headers={"Server-Timing": "db;dur=5"})

    router = make_router()
    inner = Starlette(routes=[Route("/pay", pay)])
    inner.add_middleware(TierlineMiddleware, router=router, server_timing=True)
    outer = Starlette(routes=[Mount("/sub", inner)])
    outer.add_middleware(TierlineMiddleware, router=router, server_timing=True)
    browser = await serve(outer)
    mine, ours = (await browser.get("/sub/pay")).headers.get_list("server-timing")
    assert mine == "db;dur=5"
    assert re.findall(r'tierline;dur=[\d.]+;desc="(.*?)"', ours) == ["sonnet, fixed", "opus, pin"]


async def test_errors_say_what_came_before(make_router: MakeRouter, serve: Serve, fake: FakeClaude) -> None:
    """A refusal, and a busy API told as 503, show where the time went; without the switch there is no header."""
    refused = await (await serve(app_of(await refusing(make_router), server_timing=True))).get("/answer")
    assert refused.status_code in (402, 429)
    assert 'desc="nothing sent"' in refused.headers["server-timing"]
    silent = await (await serve(app_of(make_router(), headers=True))).get("/answer")
    assert "server-timing" not in silent.headers
    fake.always(None, Fault.overloaded())
    pinned = make_router(policy=policy(tier="opus"))
    busy = await (await serve(app_of(pinned, server_timing=True, busy_as_503=True))).get("/answer")
    assert busy.status_code == 503
    assert 'desc="opus, first, overloaded_error"' in busy.headers["server-timing"]
