"""Speculation: the cheapest tier beside the verdict, over the real SDK, in every order in which they can end."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import anthropic
import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.gates import REST, VERDICT, GatedClaude
from tierline import Budget, Ladder, Policy, Router, policy
from tierline.attempts import Timing
from tierline.classify import ClaudeClassifier
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.gains import MOST_AT_ONCE, Gains, Rates
from tierline.ledger import MemoryLedger
from tierline.policies import combine
from tierline.testing import Fault
from tierline.values import NANO, Offer

if TYPE_CHECKING:
    from collections.abc import Callable

    from anthropic import Anthropic

    from tierline import Binding, Decision

    MakeRouter = Callable[..., Router]

pytestmark = pytest.mark.usefixtures("quiet")

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
PLENTY = Budget("$5", downgrade_at=None, cheapest_at=None)


def ask(text: str = "Why is it blue?", **more: Any) -> dict[str, Any]:
    return {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": text}], **more}


class Watched(Gains):
    """Rates that can be waited for: they are told when an answer has begun, on this side of the wire."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = self.ends = 0
        self._came = asyncio.Event()

    def end(self) -> None:
        super().end()
        self.ends += 1
        self._came.set()

    def learn(self, route: str | None, change: Callable[[Rates], Rates], *, streamed: bool) -> None:
        super().learn(route, change, streamed=streamed)
        self.answers += change(Rates()).answers > 0
        self._came.set()

    async def until(self, answers: int = 0, ends: int = 0) -> None:
        while self.answers < answers or self.ends < ends:
            self._came.clear()
            await self._came.wait()


class Desk:
    """A Router that speculates, and what it made of its calls."""

    def __init__(self, router: Router, fake: GatedClaude) -> None:
        self.router, self.fake = router, fake
        self.gains = router.gains = Watched()
        self.bindings: list[Binding] = []

    async def call(self, text: str = "Why is it blue?", *, rules: Policy | None = None, **more: Any) -> Any:
        async with self.router.bind() as binding:
            self.bindings.append(binding)
            with rules or policy():
                return await self.router.claude.messages.create(**ask(text, **more))

    def begin(self, text: str = "Why is it blue?", **more: Any) -> asyncio.Task[Any]:
        return asyncio.create_task(self.call(text, **more))

    @property
    def decision(self) -> Decision:
        return self.bindings[-1].decisions[-1]

    def attempts(self) -> list[tuple[str, str, str]]:
        return [(attempt.tier, attempt.role, attempt.outcome) for attempt in self.decision.attempts]

    async def balance(self) -> tuple[int, int]:
        (only,) = await self.router.balances()
        return only.spent, only.held

    async def settled(self, estimate: int = 0) -> None:
        """Nothing is held, and what was billed (or estimated so much higher) is in the ledger, decision and report."""
        await self.fake.idle()
        told = sum(decision.cost for binding in self.bindings for decision in binding.decisions)
        assert await self.balance() == (self.fake.billed + estimate, 0)
        assert told == self.router.report().cost == self.fake.billed + estimate
        assert all(decision.settled for binding in self.bindings for decision in binding.decisions)
        assert not any(binding.open for binding in self.bindings)

    def estimates(self) -> int:
        """By how much the estimated attempts are charged more than they were billed."""
        estimated = sum(a.cost for b in self.bindings for d in b.decisions for a in d.attempts if a.estimated)
        return estimated - sum(received.billed for received in self.fake.requests if received.ended == "disconnected")


@pytest.fixture
def fake() -> GatedClaude:
    """The offline API, with gates. Everything is `simple`."""
    return GatedClaude(verdict=lambda _text, _labels: ("simple", 0.9))


def says(fake: GatedClaude, label: str, confidence: float = 0.9) -> None:
    fake.verdict = lambda _text, _labels: (label, confidence)


@pytest.fixture
def desk(make_router: MakeRouter, fake: GatedClaude) -> Desk:
    """A Router that always asks Claude, and speculates."""
    return Desk(
        make_router(classifier=ClaudeClassifier(worth=0), budgets=[PLENTY], policy=policy(speculate=True)), fake
    )


# The verdict leads there


async def test_an_answer_that_was_there_first(desk: Desk, fake: GatedClaude) -> None:
    """An answer that comes before its verdict is held back, and is the answer when that leads to its tier."""
    fake.hold(VERDICT)
    task = desk.begin()
    await fake.waits(VERDICT)
    await desk.gains.until(answers=1)
    assert not task.done()
    fake.open(VERDICT)
    assert (await task).model == HAIKU
    assert desk.attempts() == [("haiku", "speculative", "ok")]
    assert "speculation on haiku: the verdict led there" in desk.decision.reasons
    assert (desk.decision.label, desk.decision.source, desk.decision.estimated) == ("simple", "claude", False)
    assert len(fake.requests) == 2
    await desk.settled()
    report = desk.router.report()
    assert (report.speculated, report.speculations_won, report.speculation_cost) == (1, 1, 0)
    assert "speculated" in str(report)


async def test_a_verdict_that_was_there_first(desk: Desk, fake: GatedClaude) -> None:
    """Where the verdict comes first, its tier is being asked already, and is waited for."""
    fake.hold(HAIKU)
    task = desk.begin()
    await fake.waits(HAIKU)
    await fake.until(lambda requests: any(received.ended == "complete" for received in requests))
    fake.open(HAIKU)
    assert (await task).model == HAIKU
    assert desk.attempts() == [("haiku", "speculative", "ok")]
    assert len(fake.requests) == 2
    await desk.settled()


async def test_another_label_for_the_same_tier(desk: Desk, fake: GatedClaude) -> None:
    """What counts is where the plan begins, with floor and ceiling: not what the label is called."""
    says(fake, "complex")
    fake.hold(SONNET)
    assert (await desk.call(rules=policy(floor="sonnet"))).model == OPUS
    fake.open(SONNET)
    assert desk.attempts() == [("sonnet", "speculative", "discarded"), ("opus", "first", "ok")]
    says(fake, "moderate")
    assert (await desk.call("And now?", rules=policy(floor="sonnet"))).model == SONNET
    assert desk.attempts() == [("sonnet", "speculative", "ok")]


async def test_another_body_for_the_same_tier(make_router: MakeRouter, fake: GatedClaude) -> None:
    """Where a label caps the output, an answer with another cap is not what the plan wants."""
    ladder = Ladder.of(haiku=HAIKU, opus=OPUS, labels={"moderate": "haiku"}, max_tokens={"simple": 100})
    desk = Desk(make_router(ladder=ladder, classifier=ClaudeClassifier(worth=0), budgets=[PLENTY]), fake)
    says(fake, "moderate")
    await desk.call(rules=policy(speculate=True))
    assert [role for _, role, _ in desk.attempts()] == ["speculative", "first"]
    assert [received.body["max_tokens"] for received in fake.requests if received.ended == "complete"][-1] == 500


# It leads elsewhere


async def test_called_off_before_its_answer(desk: Desk, fake: GatedClaude) -> None:
    """What the verdict does not want is called off, and charged the input's part of its reservation."""
    says(fake, "complex")
    fake.hold(HAIKU)
    assert (await desk.call()).model == OPUS
    assert desk.attempts() == [("haiku", "speculative", "discarded"), ("opus", "first", "ok")]
    assert "speculation on haiku in vain" in desk.decision.reasons
    lost = desk.decision.attempts[0]
    assert (lost.estimated, lost.cost > 0) == (True, True)
    await desk.settled(desk.estimates())
    assert [received.ended for received in fake.requests].count("disconnected") == 1
    report = desk.router.report()
    assert (report.speculated, report.speculations_won, report.speculation_cost) == (1, 0, lost.cost)
    assert desk.router.gains.of(None, streamed=False).lost_cost == lost.cost


async def test_an_answer_in_vain_costs_what_it_used(desk: Desk, fake: GatedClaude) -> None:
    """An answer that was there whole, and is not wanted, is charged for what it used, and no part of what is saved."""
    says(fake, "complex")
    fake.hold(VERDICT)
    task = desk.begin()
    await desk.gains.until(answers=1)
    fake.open(VERDICT)
    assert (await task).model == OPUS
    assert desk.attempts() == [("haiku", "speculative", "ok"), ("opus", "first", "ok")]
    assert not desk.decision.estimated
    await desk.settled()
    assert desk.decision.usage.output_tokens == sum(a.usage.output_tokens for a in desk.decision.attempts)
    assert desk.decision.saved == desk.decision.attempts[1].cost - desk.decision.cost


async def test_no_verdict_is_moderate(make_router: MakeRouter, fake: GatedClaude) -> None:
    """An answer is held back no longer than the question may take; without a verdict it is not good enough."""
    router = make_router(classifier=ClaudeClassifier(worth=0, timeout=0.05), budgets=[PLENTY])
    desk = Desk(router, fake)
    fake.hold(VERDICT)
    assert (await desk.call(rules=policy(speculate=True))).model == SONNET
    assert desk.attempts()[-1] == ("sonnet", "first", "ok")
    assert desk.decision.label == "moderate"
    assert "no verdict within 0.05 s" in desk.decision.reasons
    assert (await desk.balance())[1] == 0


@pytest.mark.parametrize("verdict", ["opus, obviously", ("simple", 0.2)])
async def test_a_verdict_that_is_none_or_in_doubt(desk: Desk, fake: GatedClaude, verdict: Any) -> None:
    """Nonsense and doubt lead higher, as without speculation."""
    fake.verdict = lambda _text, _labels: verdict
    assert (await desk.call()).model == SONNET
    assert desk.attempts()[-1] == ("sonnet", "first", "ok")
    await desk.settled(desk.estimates())


# It fails


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (Fault.rate_limit(retry_after=1), "rate_limit_error"),
        (Fault.error(500), "api_error"),
        (Fault.error(400), "invalid_request_error"),
        (Fault.reset(), "connection_error"),
    ],
)
async def test_a_failure_loses_nothing(desk: Desk, fake: GatedClaude, fault: Fault, outcome: str) -> None:
    """Where the cheapest tier fails beside the verdict, the call goes on as if it had not been asked."""
    fake.script(fault, model=SONNET)
    fake.hold(VERDICT)
    says(fake, "complex")
    task = desk.begin(rules=policy(floor="sonnet"))
    await desk.gains.until(ends=1)
    fake.open(VERDICT)
    assert (await task).model == OPUS
    assert desk.attempts() == [("sonnet", "speculative", outcome), ("opus", "first", "ok")]
    assert f"speculation on sonnet failed: {outcome}" in desk.decision.reasons
    assert (await desk.balance())[1] == 0


async def test_a_failure_where_the_verdict_leads(desk: Desk, fake: GatedClaude) -> None:
    """A failed one is no retry used up: the tier is tried as ever, within its breaker and the budget of retries."""
    fake.script(Fault.error(500), model=SONNET)
    says(fake, "moderate")
    tokens = desk.router.health.retries.tokens
    assert (await desk.call(rules=policy(floor="sonnet"))).model == SONNET
    assert desk.attempts() == [("sonnet", "speculative", "api_error"), ("sonnet", "first", "ok")]
    assert desk.router.health.retries.tokens == pytest.approx(tokens + 0.1 - 1)
    await desk.settled()


async def test_nothing_is_sent_to_what_is_known_to_fail(desk: Desk, fake: GatedClaude) -> None:
    """A tier with an exhausted limit, or a process without a retry to spare, is not asked beside a verdict."""
    fake.script(Fault.exhausted(600), model=SONNET)
    says(fake, "complex")
    await desk.call("One", rules=policy(tier="sonnet"))
    await desk.call("Two", rules=policy(floor="sonnet"))
    assert desk.attempts() == [("opus", "first", "ok")]
    assert any("no speculation: sonnet: its rate limit" in reason for reason in desk.decision.reasons)
    while desk.router.health.retries.take():
        pass
    await desk.call("Three")
    assert desk.attempts() == [("opus", "first", "ok")]
    assert "no speculation: this process has used up its budget of retries" in desk.decision.reasons


async def test_only_so_many_at_once(desk: Desk) -> None:
    """Past the bound of the process a call goes on without, and the place of each is given back."""
    for _ in range(MOST_AT_ONCE):
        assert desk.gains.begin()
    await desk.call("One")
    assert desk.attempts() == [("haiku", "first", "ok")]
    assert "no speculation: too many are under way" in desk.decision.reasons
    desk.gains.end()
    for text in ("Two", "Three"):
        await desk.call(text)
        assert desk.attempts() == [("haiku", "speculative", "ok")]


# Who does not speculate


SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 1}
TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
LOOP: list[Any] = [
    {"role": "user", "content": "Look."},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "blue"}]},
]


@pytest.mark.parametrize(
    ("rules", "more"),
    [
        (policy(speculate=False), {}),
        (policy(critical=True), {}),
        (policy(tier="haiku"), {}),
        (policy(label="simple"), {}),
        (policy(ceiling="haiku"), {}),
        (policy(), {"model": HAIKU}),
        (policy(), {"tools": [SEARCH]}),
        (policy(), {"tools": [TOOL], "messages": LOOP}),
    ],
    ids=["off", "critical", "pin", "label", "one-tier", "explicit", "server-tool", "tool-loop"],
)
async def test_who_does_not_speculate(desk: Desk, rules: Policy, more: dict[str, Any]) -> None:
    """Nothing is sent twice where the tier is settled, where the API would act twice, or where the policy says no."""
    await desk.call(rules=rules, **more)
    assert [role for _, role, _ in desk.attempts()] == ["first"]
    assert not any("specul" in reason for reason in desk.decision.reasons)
    await desk.settled()


async def test_only_where_a_question_goes_out(desk: Desk, fake: GatedClaude) -> None:
    """A verdict that is in the cache is not waited for, so nothing is sent beside it."""
    await desk.call()
    await desk.call()
    assert [desk.bindings[n].decisions[0].attempts[0].role for n in (0, 1)] == ["speculative", "first"]
    assert desk.decision.source == "cache"
    assert len(fake.requests) == 3


async def test_not_what_is_only_observed(make_router: MakeRouter, fake: GatedClaude) -> None:
    """Mode observe sends one attempt, to the app's own model."""
    router = make_router(classifier=ClaudeClassifier(worth=0), policy=policy(speculate=True), mode="observe")
    desk = Desk(router, fake)
    await desk.call()
    assert [role for _, role, _ in desk.attempts()] == ["first"]


async def test_a_classifier_that_asks_twice(make_router: MakeRouter, fake: GatedClaude) -> None:
    """However many questions go out for a call, it is sent once beside them."""

    class Twice(ClaudeClassifier):
        async def classify(self, view: Any, consult: Any) -> Any:
            await super().classify(view, consult)
            return await super().classify(view, consult)

    desk = Desk(make_router(classifier=Twice(worth=0), budgets=[PLENTY], policy=policy(speculate=True)), fake)
    await desk.call()
    assert desk.attempts() == [("haiku", "speculative", "ok")]
    assert len(fake.requests) == 3
    await desk.settled()


# Budgets


async def worst_of(desk: Desk, tier: str) -> int:
    """The worst case of a call on a tier, as the ledger holds it."""
    held: list[int] = []
    ledger: Any = desk.router.ledger
    reserve = ledger.reserve

    async def watched(key: str, offers: Any, lines: Any, **options: Any) -> Any:
        held.append(offers[0].cost)
        return await reserve(key, offers, lines, **options)

    ledger.reserve = watched
    await desk.call(rules=policy(tier=tier))
    ledger.reserve = reserve
    return held[0]


async def test_both_must_fit(make_router: MakeRouter, desk: Desk, fake: GatedClaude) -> None:
    """Where a budget has no room for the verdict and the dearest tier too, only one is sent: what it would be."""
    says(fake, "complex")
    one, other = await worst_of(desk, "haiku"), await worst_of(desk, "opus")
    for room, roles in ((one + other + 3 * 10**6, ["speculative", "first"]), (one + other - 1, ["first"])):
        limit = Budget(f"${room / NANO:.9f}", name="tight", downgrade_at=None, cheapest_at=None)
        tight = Desk(make_router(classifier=ClaudeClassifier(worth=0), budgets=[limit]), fake)
        await tight.call(rules=policy(speculate=True))
        assert [role for _, role, _ in tight.attempts()] == roles
        assert tight.decision.tier == "opus"
        spent, held = await tight.balance()
        assert (spent <= room, held) == (True, 0)
    assert "no speculation: budget tight has no room for two answers" in tight.decision.reasons
    assert tight.router.report().refusals == 0


async def test_both_must_fit_under_any_cap(make_router: MakeRouter, desk: Desk, fake: GatedClaude) -> None:
    """What must fit is the dearest tier as it is asked under the label that caps it least."""
    says(fake, "complex")
    ladder = Ladder.of(haiku=HAIKU, sonnet=SONNET, opus=OPUS, max_tokens={"simple": 10})
    room = await worst_of(desk, "haiku") + await worst_of(desk, "opus") - 10**7
    limit = Budget(f"${room / NANO:.9f}", name="tight", downgrade_at=None, cheapest_at=None)
    tight = Desk(make_router(ladder=ladder, classifier=ClaudeClassifier(worth=0), budgets=[limit]), fake)
    await tight.call(rules=policy(speculate=True))
    assert [role for _, role, _ in tight.attempts()] == ["first"]
    assert "no speculation: budget tight has no room for two answers" in tight.decision.reasons


async def test_none_where_a_budget_saves(make_router: MakeRouter, fake: GatedClaude) -> None:
    """From the first threshold on nothing is spent twice; and no operator is told of a refusal that was none."""
    told: list[Any] = []
    budget = Budget("$0.01", name="low", downgrade_at=0.000001, cheapest_at=None)
    router = make_router(classifier=ClaudeClassifier(worth=0), budgets=[budget], on_budget=told.append)
    desk = Desk(router, fake)
    await desk.call(rules=policy(speculate=True))
    assert [role for _, role, _ in desk.attempts()] == ["first"]
    assert "no speculation: budget low has no room for two answers" in desk.decision.reasons
    assert told == []


async def test_no_alarm_for_what_was_not_asked_for(make_router: MakeRouter, desk: Desk, fake: GatedClaude) -> None:
    """That a budget had no room beside the verdict is no refusal of a call, and nobody is told that it was."""
    worst, told = await worst_of(desk, "haiku"), list[Any]()
    budget = Budget("$1", name="full", downgrade_at=None, cheapest_at=None)
    router = make_router(classifier=ClaudeClassifier(worth=0), budgets=[budget], on_budget=told.append)
    full = Desk(router, fake)
    await router.ledger.reserve("other", [Offer("a", "x", NANO - worst + 1)], [budget.line("global")])
    fake.hold(VERDICT)
    task = full.begin(rules=policy(speculate=True))
    await full.gains.until(ends=1)
    await router.ledger.release("other")
    fake.open(VERDICT)
    await task
    assert full.attempts() == [("haiku", "first", "ok")]
    assert any(reason.startswith("no speculation: budget full refused") for reason in full.decision.reasons)
    await router.books.background.drain(5)
    assert told == []


async def test_a_hard_limit_holds_for_many_at_once(make_router: MakeRouter, fake: GatedClaude) -> None:
    """Calls that speculate together never hold or spend more than the limit, and each that is refused says so."""

    class Most(MemoryLedger):
        most = 0

        async def reserve(self, *args: Any, **options: Any) -> Any:
            found = await super().reserve(*args, **options)
            (balance,) = await self.balances()
            self.most = max(self.most, balance.spent + balance.held)
            return found

    limit, ledger = 60_000_000, Most()
    says(fake, "complex")
    budget = Budget(f"${limit / NANO:.9f}", downgrade_at=None, cheapest_at=None)
    router = make_router(
        classifier=ClaudeClassifier(worth=0), budgets=[budget], ledger=ledger, policy=policy(speculate=True)
    )
    desk = Desk(router, fake)
    found = await asyncio.gather(*(desk.call(f"Why {n}?") for n in range(12)), return_exceptions=True)
    assert all(isinstance(each, (anthropic.types.Message, BudgetExceededError)) for each in found)
    assert any(isinstance(each, anthropic.types.Message) for each in found)
    assert 0 < ledger.most <= limit
    await fake.idle()
    spent, held = await desk.balance()
    assert (fake.billed <= spent <= limit, held) == (True, 0)


# Streams


async def test_the_first_byte_is_held(desk: Desk, fake: GatedClaude) -> None:
    """Of a stream nothing passes before the verdict, and then every event as the API sent it."""
    fake.hold(VERDICT, HAIKU + REST)
    task = desk.begin(stream=True)
    await fake.waits(HAIKU + REST)
    await desk.gains.until(answers=1)
    assert not task.done()
    fake.open(VERDICT)
    stream = await task
    first = await anext(stream)
    assert (first.type, desk.decision.settled) == ("message_start", False)
    fake.open(HAIKU + REST)
    kinds = [event.type async for event in stream]
    assert kinds[-1] == "message_stop"
    assert desk.attempts() == [("haiku", "speculative", "ok")]
    await desk.settled()
    assert desk.router.gains.of(None, streamed=True).answers == 1
    assert desk.router.gains.of(None, streamed=False) == Rates()


async def test_a_stream_in_vain_is_closed(desk: Desk, fake: GatedClaude) -> None:
    """A stream that had begun and is not wanted is closed, and charged as one of which nothing passed."""
    says(fake, "complex")
    fake.hold(VERDICT, HAIKU + REST)
    task = desk.begin(stream=True)
    await desk.gains.until(answers=1)
    fake.open(VERDICT)
    text = [event async for event in await task]
    assert text[0].message.model == OPUS
    assert desk.attempts() == [("haiku", "speculative", "discarded"), ("opus", "first", "ok")]
    await fake.until(lambda requests: any(received.ended == "disconnected" for received in requests))
    await desk.settled(desk.estimates())


async def test_a_stream_that_is_left(desk: Desk, fake: GatedClaude) -> None:
    """One that the app leaves in its middle is charged as any other stream."""
    async with desk.router.bind() as binding, desk.router.claude.messages.stream(**ask()) as stream:
        await anext(stream)
    desk.bindings.append(binding)
    (attempt,) = desk.decision.attempts
    assert (attempt.role, attempt.outcome) == ("speculative", "closed")
    assert (await desk.balance())[1] == 0


async def test_a_stream_that_is_dropped(desk: Desk, fake: GatedClaude) -> None:
    """One that the app drops without closing it is collected, for nothing here keeps it, and settled."""
    fake.hold(HAIKU + REST)
    async with desk.router.bind() as binding:
        desk.bindings.append(binding)
        stream = await desk.router.claude.messages.create(**ask(stream=True))
        await anext(stream)
        del stream
        for _ in range(5):
            gc.collect()
            await asyncio.sleep(0)
        await fake.idle()
        await desk.router.books.background.drain(5)
        assert desk.attempts() == [("haiku", "speculative", "closed")]
    assert (await desk.balance())[1] == 0


@pytest.mark.parametrize("label", ["simple", "complex"])
async def test_raw_responses(desk: Desk, fake: GatedClaude, label: str) -> None:
    """Raw responses, whole or read by the app, are those of the tier that the verdict leads to."""
    says(fake, label)
    fake.hold(VERDICT)
    messages = desk.router.claude.messages
    async with desk.router.bind() as binding:
        desk.bindings.append(binding)
        raw = asyncio.create_task(messages.with_raw_response.create(**ask("One")))
        await desk.gains.until(answers=1)
        fake.open(VERDICT)
        read = await (await raw).parse()
        fake.hold(VERDICT)

        async def body() -> Any:
            async with messages.with_streaming_response.create(**ask("Two")) as response:
                return await response.json()

        task = asyncio.create_task(body())
        await desk.gains.until(answers=2)
        fake.open(VERDICT)
        found = await task
    wanted = HAIKU if label == "simple" else OPUS
    assert (read.model, found["model"]) == (wanted, wanted)
    first, second = binding.decisions
    outcomes = [[(a.role, a.outcome) for a in decision.attempts] for decision in (first, second)]
    if label == "simple":
        assert outcomes == [[("speculative", "ok")], [("speculative", "ok")]]
        await desk.settled()
    else:
        # The body of the second had come, but nobody has read its usage: the whole reservation.
        assert outcomes == [[("speculative", "ok"), ("first", "ok")], [("speculative", "discarded"), ("first", "ok")]]
        assert second.attempts[0].cost > first.attempts[0].cost
        spent, held = await desk.balance()
        assert (spent > fake.billed, held) == (True, 0)


# Endings


@pytest.mark.parametrize("held", [(VERDICT, HAIKU), (VERDICT,), (HAIKU,), (VERDICT, HAIKU + REST)])
@pytest.mark.parametrize("again", [False, True])
async def test_a_call_that_is_cancelled(desk: Desk, fake: GatedClaude, held: tuple[str, ...], again: bool) -> None:
    """Wherever a call is cut off, once or again, both attempts end, nothing stays held, and the table is charged."""
    streamed = HAIKU + REST in held
    fake.hold(*held)
    task = desk.begin(stream=streamed)
    if HAIKU in held:
        await fake.waits(HAIKU)
    else:
        await desk.gains.until(answers=1)
    if VERDICT in held:
        await fake.waits(VERDICT)
    else:
        await fake.until(lambda requests: any(received.ended == "complete" for received in requests))
    task.cancel()
    if again:
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    fake.open(*held)
    # A verdict that others may wait for goes on, and is paid for by the call that asked.
    await desk.router.cache.drain(5)
    await fake.idle()
    (attempt,) = desk.decision.attempts
    assert (attempt.tier, attempt.role) == ("haiku", "speculative")
    assert attempt.outcome == ("ok" if held == (VERDICT,) else "cancelled")
    assert desk.decision.settled
    spent, still = await desk.balance()
    assert (spent >= fake.billed, still) == (True, 0)
    assert desk.router.gains._under_way == 0


async def test_a_shutdown_ends_it(make_router: MakeRouter, fake: GatedClaude) -> None:
    """A Router that closes waits for no verdict: a held stream is let go, and the call has no more than it had."""
    router = make_router(classifier=ClaudeClassifier(worth=0), budgets=[PLENTY], policy=policy(speculate=True))
    desk = Desk(router, fake)
    fake.hold(VERDICT, HAIKU + REST)
    task = desk.begin(stream=True)
    await desk.gains.until(answers=1)
    await router.aclose(timeout=0)
    fake.open(VERDICT, HAIKU + REST)
    with suppress(anthropic.APIError):
        stream = await task
        await stream.close()
    await fake.idle()
    assert (await desk.balance())[1] == 0


async def test_the_deadline_bounds_it(make_router: MakeRouter, fake: GatedClaude) -> None:
    """A call's deadline holds for what is sent beside the verdict, too: half of it for the question."""
    router = make_router(
        classifier=ClaudeClassifier(worth=0), budgets=[PLENTY], policy=policy(speculate=True), deadline=0.2
    )
    desk = Desk(router, fake)
    fake.hold(VERDICT, HAIKU, SONNET)
    with pytest.raises(anthropic.APITimeoutError):
        await desk.call()
    assert [(tier, role) for tier, role, _ in desk.attempts()] == [("haiku", "speculative"), ("sonnet", "first")]
    assert (await desk.balance())[1] == 0


# Synchronous clients


class SyncDesk:
    """The same for code without a loop. `ended` is set with each call that is counted."""

    def __init__(self, router: Router, fake: GatedClaude) -> None:
        self.router, self.fake = router, fake
        self.ended = threading.Semaphore(0)
        counted = router.metrics.ended

        def ended(*args: Any, **more: Any) -> None:
            counted(*args, **more)
            if more["purpose"] == "answer":
                self.ended.release()

        router.metrics.ended = ended  # type: ignore[method-assign]

    def settled(self, estimate: int = 0) -> None:
        """Nothing is held, and what was billed is in the ledger and the report."""
        (only,) = asyncio.run(self.router.balances())
        assert (only.spent, only.held) == (self.fake.billed + estimate, 0)
        assert self.router.report().cost == only.spent


@pytest.fixture
def sync_desk(make_sync_router: MakeRouter, fake: GatedClaude) -> SyncDesk:
    """A Router for synchronous code that always asks Claude, and speculates."""
    return SyncDesk(
        make_sync_router(classifier=ClaudeClassifier(worth=0), budgets=[PLENTY], policy=policy(speculate=True)), fake
    )


def test_sync_answer(sync_desk: SyncDesk) -> None:
    """A synchronous client asks for its verdict in the thread that called, and for the answer in another one."""
    with sync_desk.router.bind() as binding:
        message = sync_desk.router.sync_claude.messages.create(**ask())
        (decision,) = binding.decisions
    assert message.model == HAIKU
    assert [(a.role, a.outcome) for a in decision.attempts] == [("speculative", "ok")]
    sync_desk.settled()


def test_sync_answer_in_vain(sync_desk: SyncDesk, fake: GatedClaude) -> None:
    """No thread that waits for a first byte can be called off: the call goes on, and is settled when that has come."""
    says(fake, "complex")
    fake.hold(HAIKU)
    with sync_desk.router.bind() as binding:
        message = sync_desk.router.sync_claude.messages.create(**ask())
        (early,) = binding.decisions
    assert message.model == OPUS
    assert not early.settled
    assert [(a.role, a.outcome) for a in early.attempts] == [("first", "ok")]
    fake.open(HAIKU)
    assert sync_desk.ended.acquire(timeout=30)
    (decision,) = binding.decisions
    assert [(a.tier, a.role, a.outcome) for a in decision.attempts] == [
        ("haiku", "speculative", "ok"),
        ("opus", "first", "ok"),
    ]
    assert (decision.settled, decision.estimated, decision.cost) == (True, False, fake.billed)
    assert decision.latency_s >= early.latency_s
    sync_desk.settled()
    report = sync_desk.router.report()
    assert (report.calls, report.speculated, report.speculation_cost) == (1, 1, decision.attempts[0].cost)


@pytest.mark.parametrize("label", ["simple", "complex"])
def test_sync_stream(sync_desk: SyncDesk, fake: GatedClaude, label: str) -> None:
    """The first byte of a stream is held for synchronous code, too; one that is not wanted is closed."""
    says(fake, label)
    fake.hold(VERDICT, HAIKU + REST)
    found: list[Any] = []

    def call() -> None:
        with sync_desk.router.bind() as binding:
            found.extend((binding, *sync_desk.router.sync_claude.messages.create(**ask(), stream=True)))

    thread = threading.Thread(target=call)
    thread.start()
    asyncio.run(fake.waits(HAIKU + REST))
    assert found == []
    if label == "simple":
        fake.open(HAIKU + REST)
    fake.open(VERDICT)
    assert sync_desk.ended.acquire(timeout=30)
    thread.join()
    binding, first, *_, last = found
    assert (first.message.model, last.type) == (HAIKU if label == "simple" else OPUS, "message_stop")
    asyncio.run(fake.idle())
    (decision,) = binding.decisions
    first_sent = decision.attempts[0]
    assert (first_sent.role, first_sent.outcome) == ("speculative", "ok" if label == "simple" else "discarded")
    left = sum(received.billed for received in fake.requests if received.ended == "disconnected")
    sync_desk.settled(sum(a.cost for a in decision.attempts if a.estimated) - left)


async def test_sync_client_of_an_app(make_router: MakeRouter, sync_sdk: Anthropic, fake: GatedClaude) -> None:
    """In a worker thread of an app the core runs on the app's loop, and the answer comes through a thread aside."""
    router = make_router(
        sync_client=sync_sdk, classifier=ClaudeClassifier(worth=0), budgets=[PLENTY], policy=policy(speculate=True)
    )
    async with router.bind() as binding:
        for text, label, model in (("One", "simple", HAIKU), ("Two", "complex", OPUS)):
            says(fake, label)
            create = partial(router.sync_claude.messages.create, **ask(text))
            assert (await anyio.to_thread.run_sync(create)).model == model
    await fake.idle()
    await router.aclose()
    assert [decision.attempts[0].role for decision in binding.decisions] == ["speculative", "speculative"]
    (only,) = await router.balances()
    assert only.held == 0


# "auto"


async def test_auto_weighs_what_the_route_has_shown(desk: Desk) -> None:
    """`"auto"` speculates where a route has shown that it is worth it, and says with numbers why it does not."""
    rules = policy(speculate="auto")
    await desk.call("One", rules=rules)
    assert [role for _, role, _ in desk.attempts()] == ["first"]
    assert "no speculation: too little is known here: 0 verdicts, 0 answers" in desk.decision.reasons
    shown = desk.router.gains.of(None, streamed=False)
    assert (shown.verdicts, shown.cheap, shown.answers) == (1, 1.0, 1)
    for seconds, roles in ((2.0, ["speculative"]), (0.0, ["first"])):
        good = Rates(verdicts=40, cheap=0.9, verdict_s=seconds, answers=20, answer_s=seconds)
        desk.gains.learn(None, lambda _, good=good: good, streamed=False)  # type: ignore[misc]
        await desk.call(f"Two {seconds}", rules=rules)
        assert [role for _, role, _ in desk.attempts()] == roles
    assert any(reason.startswith("no speculation: it would gain 0.00 s") for reason in desk.decision.reasons)


async def test_auto_learns_from_calls_that_do_not_speculate(make_router: MakeRouter, fake: GatedClaude) -> None:
    """Verdicts and answers of ordinary calls are enough to begin; where verdicts lead elsewhere it ends by itself."""
    clock = iter(range(10**9))
    router = make_router(
        classifier=ClaudeClassifier(worth=0),
        timing=Timing(perf=lambda: next(clock) / 10),
        policy=policy(speculate="auto"),
        second_worth="$0.00003",
    )
    async with router.bind() as binding:
        for n in range(25):
            await router.claude.messages.create(**ask(f"Why {n}?"))
        roles = [decision.attempts[0].role for decision in binding.decisions]
        assert roles == ["first"] * 20 + ["speculative"] * 5
        says(fake, "complex")
        for n in range(30):
            await router.claude.messages.create(**ask(f"How {n}?"))
    assert [decision.attempts[0].role for decision in binding.decisions][-5:] == ["first"] * 5


# What is told


async def test_what_is_traced_and_counted(make_router: MakeRouter, fake: GatedClaude) -> None:
    """Each attempt has a span with its role, the route an event, and a metric counts what came of it."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracing = TracerProvider()
    tracing.add_span_processor(SimpleSpanProcessor(spans))
    router = make_router(
        classifier=ClaudeClassifier(worth=0),
        policy=policy(speculate=True),
        tracer_provider=tracing,
        meter_provider=MeterProvider(metric_readers=[reader]),
    )
    desk = Desk(router, fake)
    desk.gains = router.gains = Watched()
    async with router.bind(route="/a"):
        await router.claude.messages.create(**ask("One"))
        says(fake, "complex")
        fake.hold(HAIKU)
        await router.claude.messages.create(**ask("Two"))
    done = spans.get_finished_spans()
    roles = [
        dict(span.attributes or {}).get("tierline.attempt.role") for span in done if span.name.startswith("attempt")
    ]
    assert sorted(map(str, roles)) == ["first", "speculative", "speculative"]
    routes = [span for span in done if span.name.startswith("route")]
    assert [
        dict(event.attributes or {})["outcome"]
        for span in routes
        for event in span.events
        if event.name == "speculation"
    ] == ["won", "lost"]
    assert len({span.context.trace_id for span in done if span.context}) == 2
    data: Any = reader.get_metrics_data()
    (points,) = [
        metric.data.data_points
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        if metric.name == "tierline.speculations"
    ]
    counted = {point.attributes["tierline.speculation.outcome"]: point.value for point in points}
    assert counted == {"won": 1, "lost": 1}


def test_the_words_of_a_policy() -> None:
    """`speculate` is True, False, "auto" or None, and the innermost one holds."""
    for wrong in ("yes", 1, 0.5, []):
        with pytest.raises(ConfigurationError, match="speculate"):
            policy(speculate=wrong)  # type: ignore[arg-type]
    ladder = Ladder.of(a=HAIKU, b=OPUS)
    assert combine([], ladder).speculate is False
    assert combine([policy(speculate="auto"), policy(floor="a")], ladder).speculate == "auto"
    assert combine([policy(speculate=True), policy(speculate=False)], ladder).speculate is False
    assert repr(policy(speculate="auto")) == "policy(speculate='auto')"


# Any order of events


class Slow(MemoryLedger):
    """A ledger whose steps take a turn of the loop, as those over a network do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.instant = False

    async def reserve(self, *args: Any, **options: Any) -> Any:
        await asyncio.sleep(0)
        found = await super().reserve(*args, **options)
        await asyncio.sleep(0)
        return found

    async def settle(self, *args: Any, **options: Any) -> Any:
        await asyncio.sleep(0)
        return await super().settle(*args, **options)


EVENTS = st.lists(st.sampled_from([VERDICT, HAIKU, "cancel"]), unique=True, min_size=0, max_size=3)
CALLS = st.lists(
    st.tuples(st.sampled_from(["simple", "moderate", "complex"]), EVENTS, st.sampled_from([None, 429, 500])),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25)
@given(CALLS, st.booleans())
def test_any_order(calls: list[tuple[str, list[str], int | None]], slow: bool) -> None:
    """Whatever ends first, fails or is cancelled: one answer at most, nothing stays held, and the books are right."""
    asyncio.run(_any_order(calls, slow=slow))


async def _any_order(calls: list[tuple[str, list[str], int | None]], *, slow: bool) -> None:
    label = "simple"
    fake = GatedClaude(verdict=lambda _text, _labels: (label, 0.9))
    router = Router(
        fake.client(max_retries=1),
        classifier=ClaudeClassifier(worth=0),
        budgets=[PLENTY],
        policy=policy(speculate=True),
        timing=Timing(sleep=lambda _: asyncio.sleep(0)),
        ledger=Slow(clock=lambda: 0.0) if slow else None,
    )
    desk = Desk(router, fake)
    for number, (label, events, fault) in enumerate(calls):  # noqa: B007  (the fake says it)
        fake.hold(VERDICT, HAIKU)
        task = desk.begin(f"Why {number}?")
        await fake.waits(VERDICT)
        await fake.waits(HAIKU)
        for event in events:
            if event == "cancel":
                task.cancel()
            elif event == HAIKU and fault:
                fake.script(Fault.error(fault), model=OPUS)
                fake.open(HAIKU)
            else:
                fake.open(event)
            for _ in range(number):
                await asyncio.sleep(0)
        fake.open(VERDICT, HAIKU)
        try:
            message = await task
        except asyncio.CancelledError:
            assert "cancel" in events
        else:
            assert message.model == desk.decision.model
            assert desk.decision.attempts[-1].outcome == "ok"
            assert desk.decision.tier in ("haiku", "sonnet", "opus")
        await router.cache.drain(5)
        assert desk.decision.settled
        assert sum(attempt.role == "speculative" for attempt in desk.decision.attempts) <= 1
    await fake.idle()
    await router.books.background.drain(5)
    attempts = [a for b in desk.bindings for d in b.decisions for a in d.attempts]
    (balance,) = await router.balances()
    assert balance.held == 0
    assert balance.spent == router.report().cost >= fake.billed
    if not any(attempt.estimated for attempt in attempts):
        assert balance.spent == fake.billed
    assert not any(binding.open for binding in desk.bindings)
    assert router.gains._under_way == 0
    assert sum(len(b.decisions) for b in desk.bindings) == len(calls)
    await router.aclose()
