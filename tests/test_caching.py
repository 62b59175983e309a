"""Prompt caching for apps that do not ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tierline import Budget, Ladder, policy
from tierline.attempts import Timing
from tierline.caching import TTL, PromptCaching, gain
from tierline.call import read_call
from tierline.classify import FixedClassifier
from tierline.prices import PriceBook
from tierline.values import Terms, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline import Router
    from tierline.call import Call
    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

HAIKU, OLD, OPUS = "claude-haiku-5-5", "claude-haiku-4-5", "claude-opus-5-5"
LONG = "You answer customers of a shop for bikes. " * 200
TOOL = {"name": "look", "input_schema": {"type": "object"}}
WORDY = TOOL | {"description": LONG}
MARK = {"type": "ephemeral"}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def read(**body: Any) -> Call:
    call = read_call(
        "create", {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], **body}
    )
    assert call is not None
    return call


def marked(call: Call, models: tuple[str, ...] = (HAIKU,)) -> Call | None:
    """What becomes of a call whose prefix was seen a moment ago."""
    caching = PromptCaching(b"secret", Clock())
    assert caching.marked(call, models) is None
    return caching.marked(call, models)


@pytest.mark.parametrize(
    ("body", "end"),
    [
        ({"system": LONG}, {"system": [{"type": "text", "text": LONG, "cache_control": MARK}]}),
        (
            {"system": [{"type": "text", "text": "a"}, {"type": "text", "text": LONG}]},
            {"system": [{"type": "text", "text": "a"}, {"type": "text", "text": LONG, "cache_control": MARK}]},
        ),
        ({"tools": [TOOL, WORDY]}, {"tools": [TOOL, WORDY | {"cache_control": MARK}]}),
        (
            {"tools": [WORDY, TOOL | {"defer_loading": True}]},
            {"tools": [WORDY | {"cache_control": MARK}, TOOL | {"defer_loading": True}]},
        ),
        ({"system": "x", "tools": [WORDY]}, {"system": [{"type": "text", "text": "x", "cache_control": MARK}]}),
    ],
)
def test_the_end_of_the_prefix_is_marked(body: dict[str, Any], end: dict[str, Any]) -> None:
    """One mark at the end of tools and system, and nothing else is touched; the worst case knows of it."""
    call = read(**body)
    before = dict(call.body)
    found = marked(call)
    assert found is not None
    assert (found.body, found.cache_ttl) == ({**before, **end}, "5m")
    assert call.body == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"system": "short"},
        {"system": LONG, "cache_control": MARK},
        {"system": [{"type": "text", "text": LONG, "cache_control": MARK}]},
        {"system": LONG, "thread": {"type": "continue", "previous_message_id": "m"}},
        {"system": {"odd": LONG}},
        {"tools": {"odd": LONG}},
        {"system": LONG, "tools": [{1, 2}]},
        {"tools": [WORDY | {"defer_loading": True}]},
    ],
)
def test_what_is_left_alone(body: dict[str, Any]) -> None:
    """Short prefixes, apps that cache for themselves, conversations that the server holds, and what is no request."""
    assert marked(read(**body)) is None


def test_models_have_minimums() -> None:
    """A prefix is marked where one of the allowed models would cache it."""
    call = read(system="x" * 4_000)
    assert marked(call, (OLD,)) is None
    assert marked(call, (OLD, OPUS)) is not None


def test_seen_twice_within_the_life_of_a_cache() -> None:
    """The same prefix, and soon: a first time, a later time and another prefix are not marked."""
    clock = Clock()
    caching = PromptCaching(b"secret", clock)
    call = read(system=LONG)
    assert caching.marked(call, [HAIKU]) is None
    assert caching.marked(read(system=LONG + "!"), [HAIKU]) is None
    clock.now = TTL
    assert caching.marked(call, [HAIKU]) is None
    clock.now += TTL - 1
    assert caching.marked(call, [HAIKU]) is not None


def test_the_gain_is_list_prices() -> None:
    """Reading from the cache saves nine tenths of the prompt, writing to it costs a quarter more."""
    prices, usual = PriceBook(), Terms(geo="global")
    plain = prices.cost(OPUS, Usage(1_000), usual)
    assert plain is not None
    assert gain(OPUS, Usage(0, 0, 1_000), prices, usual) == -plain // 4
    assert gain(OPUS, Usage(0, 0, 0, 0, 1_000), prices, usual) == plain - plain // 20
    assert gain("my-own", Usage(0, 0, 1_000), prices, usual) == 0


async def test_an_app_that_does_not_cache(make_router: MakeRouter, fake: FakeClaude) -> None:
    """From the second call on the prompt is cached, the report has the gain, and the hard budget bounds the write."""
    router = make_router(cache_prompt=True, budgets=[Budget("$1")], classifier=FixedClassifier("complex"))
    async with router.bind() as binding:
        for question in ("Are you open?", "Where are you?", "Who are you?"):
            await router.claude.messages.create(
                model="auto", max_tokens=100, system=LONG, messages=[{"role": "user", "content": question}]
            )
    first, second, third = binding.decisions
    assert first.usage.cache_write_5m == first.usage.cache_read == 0
    assert second.usage.cache_write_5m > 1_000
    assert third.usage.cache_read == second.usage.cache_write_5m
    assert "the prefix is marked for caching" in third.reasons
    assert fake.requests[0].body["system"] == LONG
    usual = Terms(geo="global")
    gains = [gain(OPUS, d.usage, router.prices, usual) for d in (second, third)]
    report = router.report()
    assert report.prompt_caching_saved == sum(gains) > 0
    assert "prompt caching" in str(report)
    (balance,) = await router.balances()
    assert (balance.spent, balance.held) == (fake.billed, 0)


async def test_a_count_reads_no_cache(make_router: MakeRouter, fake: FakeClaude) -> None:
    """An app that counts before it asks has sent its prefix once, and not twice."""
    router = make_router(cache_prompt=True)
    say: Any = {"model": "auto", "system": LONG, "messages": [{"role": "user", "content": "hi"}]}
    await router.claude.messages.count_tokens(**say)
    await router.claude.messages.create(max_tokens=9, **say)
    assert fake.requests[-1].body["system"] == LONG


@pytest.mark.parametrize("mode", ["observe", "off"])
async def test_watching_marks_nothing(make_router: MakeRouter, fake: FakeClaude, mode: str) -> None:
    """Where nothing is to be touched, nothing is marked."""
    router = make_router(cache_prompt=True, mode=mode)
    for _ in range(3):
        await router.claude.messages.create(
            model=OPUS, max_tokens=100, system=LONG, messages=[{"role": "user", "content": "hi"}]
        )
    assert [request.body["system"] for request in fake.requests] == [LONG] * 3


async def test_thoughts_outlive_a_mark(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A mark is outside of the API's check of what stood before a thought: the next turn is no 400."""
    router = make_router(cache_prompt=True, ladder=Ladder.of(opus=OPUS), timing=Timing())
    messages: list[Any] = []
    for turn in range(3):
        messages.append({"role": "user", "content": f"turn {turn}"})
        answer = await router.claude.messages.create(model="auto", max_tokens=2_000, system=LONG, messages=messages)
        messages.append({"role": "assistant", "content": [block.model_dump() for block in answer.content]})
    assert any(block["type"] == "thinking" for block in messages[1]["content"])
    assert [request.status for request in fake.requests] == [200] * 3
    with policy(sticky=True):
        messages.append({"role": "user", "content": "last"})
        await router.claude.messages.create(model="auto", max_tokens=2_000, system=LONG, messages=messages)
