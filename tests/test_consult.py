"""Asking Claude: what a verdict costs, who pays, and what comes of an answer that is none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from anthropic import AsyncAnthropic, AuthenticationError

from tierline import Budget, Ladder
from tierline.anthropic import attach
from tierline.classify import CascadeClassifier, ClaudeClassifier, FixedClassifier, KeywordClassifier
from tierline.testing import Fault
from tierline.values import Classification

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline import Decision, Router
    from tierline.classify import Consult, View
    from tierline.testing import FakeClaude

pytestmark = pytest.mark.usefixtures("quiet")

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"


async def decide(router: Router, text: str = "Why is it blue?", tenant: str | None = None) -> Decision:
    async with router.bind(tenant=tenant) as binding:
        messages: Any = [{"role": "user", "content": text}]
        await router.claude.messages.create(model="auto", max_tokens=500, messages=messages)
    return binding.decisions[-1]


@pytest.fixture
def router(make_router: Callable[..., Router]) -> Router:
    """A Router that asks Claude how hard a request is."""
    return make_router(classifier=ClaudeClassifier(), budgets=[Budget("$5", per="tenant")])


async def test_verdict_is_paid_by_the_call_that_asks(router: Router, fake: FakeClaude) -> None:
    """A verdict is part of the call's cost and of its tenant's account, and its model thinks nothing."""
    decision = await decide(router, tenant="acme")
    verdict, call = fake.requests
    assert (verdict.model, verdict.body["thinking"]) == (HAIKU, {"type": "disabled"})
    assert (decision.classifier_cost, decision.cost) == (verdict.billed, verdict.billed + call.billed)
    assert decision.source == "claude"
    assert [(b.account, b.spent, b.held) for b in await router.balances()] == [("acme", fake.billed, 0)]
    assert router.report().calls == 1


async def test_second_asking_is_free(router: Router, fake: FakeClaude) -> None:
    """The same text from the same tenant costs no second verdict; another tenant's does."""
    await decide(router, tenant="acme")
    again = await decide(router, tenant="acme")
    assert (again.source, again.classifier_cost, len(fake.requests)) == ("cache", 0, 3)
    other = await decide(router, tenant="other")
    assert (other.source, len(fake.requests)) == ("claude", 5)
    report = router.report()
    assert (report.cache_hits, report.cache_misses) == (1, 2)


@pytest.mark.parametrize(
    ("said", "reason"),
    [("opus, obviously", "no label"), ("", "no label"), ('{"label": "opus", "confidence": 1}', "no label")],
)
async def test_answer_that_is_no_label(router: Router, fake: FakeClaude, said: str, reason: str) -> None:
    """An answer outside the closed set is no opinion: moderate, said in the reasons, asked again next time."""
    fake.verdict = lambda _text, _labels: said
    for _ in range(2):
        decision = await decide(router)
        assert (decision.label, decision.source, decision.tier) == ("moderate", "default", "sonnet")
        assert any(reason in entry for entry in decision.reasons)
    assert len(fake.requests) == 4
    assert router.report().cost == fake.billed


@pytest.mark.parametrize("fault", [Fault.error(400), Fault.error(403), Fault.missing_usage(), Fault.html()])
async def test_question_that_fails(router: Router, fake: FakeClaude, fault: Fault) -> None:
    """A question that fails upstream leaves the call to go on, and whatever it may have cost is charged."""
    fake.script(fault)
    decision = await decide(router)
    assert decision.tier in ("haiku", "sonnet")
    ((spent, held),) = [(b.spent, b.held) for b in await router.balances()]
    assert (spent >= fake.billed, held) == (True, 0)
    assert spent == router.report().cost


async def test_question_that_takes_too_long(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A verdict that does not come in time is given up: moderate, with the input of the question charged."""
    router = make_router(classifier=ClaudeClassifier(timeout=0.05), budgets=[Budget("$5")])
    fake.script(Fault.hang())
    decision = await decide(router)
    assert (decision.tier, decision.classifier_cost > 0) == ("sonnet", True)
    assert "no verdict within 0.05 s" in decision.reasons
    await fake.idle()
    assert fake.requests[0].ended == "disconnected"
    ((spent, held),) = [(b.spent, b.held) for b in await router.balances()]
    assert (spent, held) == (decision.cost, 0)


async def test_question_that_no_budget_has_room_for(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """Where the budget has no room for a verdict the call itself is refused, and that is counted once."""
    router = make_router(classifier=ClaudeClassifier(), budgets=[Budget("$0.0000001")])
    with pytest.raises(Exception, match="budget") as caught:
        await decide(router)
    assert type(caught.value).__name__ == "BudgetExceededError"
    assert (fake.requests, router.report().refusals) == ([], 1)


async def test_doubt_moves_up(router: Router, fake: FakeClaude) -> None:
    """A verdict that is not sure sends the call one tier higher."""
    fake.verdict = lambda _text, _labels: ("moderate", 0.3)
    decision = await decide(router)
    assert (decision.tier, decision.label) == ("opus", "moderate")


async def test_rules_before_claude(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A cascade asks Claude only where its rules are not sure."""
    router = make_router(classifier=CascadeClassifier([KeywordClassifier(), ClaudeClassifier()]))
    decision = await decide(router, "Prove that there are infinitely many primes, step by step.")
    assert (decision.source, decision.tier, len(fake.requests)) == ("keyword", "opus", 1)


class Failing:
    """A classifier of an app that breaks, and tells the prompt in its error."""

    name, fingerprint, cacheable = "mine", "1", False

    async def classify(self, view: View, consult: Consult) -> Classification | None:
        raise RuntimeError(view.text)


async def test_classifier_that_raises(make_router: Callable[..., Router]) -> None:
    """A classifier that raises breaks no call, and what it raised is told by its type alone."""
    decision = await decide(make_router(classifier=Failing()), "canary")
    assert decision.tier == "sonnet"
    assert "classifier mine failed: RuntimeError" in decision.reasons
    assert "canary" not in repr(decision)


async def test_classifier_with_a_label_of_its_own(make_router: Callable[..., Router]) -> None:
    """A label that no ladder knows is taken for moderate, within the ladder."""
    assert (await decide(make_router(classifier=FixedClassifier("gigantic")))).tier == "sonnet"
    two = Ladder.of(low=HAIKU, high=OPUS)
    assert (await decide(make_router(classifier=FixedClassifier("simple"), ladder=two))).tier == "low"


async def test_silent_flight_takes_nobody_along(router: Router, fake: FakeClaude) -> None:
    """While the key is rejected nobody flies, so whoever asks afterwards is not left without a verdict."""
    router.rejected[router.claude] = "the API answered 401"
    silent = await decide(router)
    assert silent.label == "moderate"
    assert any("401" in reason for reason in silent.reasons)
    assert router.claude not in router.rejected
    assert (await decide(router)).source == "claude"
    assert router.cache.stats().misses == 1


async def test_concurrent_texts_do_not_mix(router: Router, fake: FakeClaude) -> None:
    """Verdicts that are asked for at the same time go to those who asked for them."""
    fake.verdict = lambda text, _labels: ("complex" if "hard" in text else "simple", 0.9)
    found = await asyncio.gather(
        *(decide(router, f"{kind} question {n}") for n in range(10) for kind in ("hard", "easy"))
    )
    assert [decision.tier for decision in found] == ["opus", "haiku"] * 10
    assert router.report().cost == fake.billed


class Odd:
    """A classifier of an app's own that gives whatever it was made with."""

    name = "odd"
    fingerprint = "1"
    cacheable = False

    def __init__(self, opinion: Any) -> None:
        self.opinion = opinion

    async def classify(self, view: Any, consult: Any) -> Any:
        return self.opinion


@pytest.mark.parametrize(
    "opinion", ["simple", 5, Classification("easy", 1.0, "local"), Classification("simple", 95, "local")]
)
async def test_nonsense_is_no_opinion(make_router: Callable[..., Router], opinion: Any) -> None:
    """Whatever a classifier of the app's returns, its call goes on, and the reasons say so."""
    found = await decide(make_router(classifier=Odd(opinion)))
    assert (found.label, found.source) == ("moderate", "default")
    assert found.reasons[0].startswith("classifier odd failed")


async def test_a_ladder_of_models_that_think(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """A model that can be kept from thinking is asked so; one that cannot is not asked at all."""
    some = Ladder.of(sonnet="claude-sonnet-5-5", opus="claude-opus-5-5")
    found = await decide(make_router(ladder=some, classifier=ClaudeClassifier()))
    assert found.source == "claude"
    asked = len(fake.requests)
    all_thinking = Ladder.of(opus="claude-opus-5-5", fable="claude-fable-5-2")
    found = await decide(make_router(ladder=all_thinking, classifier=ClaudeClassifier()))
    assert found.reasons[0] == "no verdict: opus always thinks"
    assert len(fake.requests) == asked + 1


async def test_one_bad_key_is_no_reason_to_doubt_another(
    make_router: Callable[..., Router], sdk: AsyncAnthropic
) -> None:
    """A client whose key is rejected silences its own verdicts, and nobody else's."""
    router = make_router(classifier=ClaudeClassifier())
    bad = attach(sdk.copy(api_key="wrong"), router)
    with pytest.raises(AuthenticationError):
        await bad.messages.create(model="auto", max_tokens=9, messages=[{"role": "user", "content": "Why?"}])
    assert (await decide(router)).source == "claude"


class Fresh(ClaudeClassifier):
    """Asks Claude every time."""

    cacheable = False


@pytest.mark.parametrize("window", [0, 0.005])
async def test_a_verdict_that_is_cancelled_with_its_call_is_in_its_decision(
    make_router: Callable[..., Router], fake: FakeClaude, window: float
) -> None:
    """Whoever leaves while Claude is asked for him alone pays for that, and his decision says so."""
    router = make_router(classifier=Fresh(worth=0), budgets=[Budget("$5")], verdict_window=window)
    fake.script(Fault.hang())
    async with router.bind() as binding:
        asking: Any = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "Why?"}]}
        task = asyncio.create_task(router.claude.messages.create(**asking))
        await fake.until(lambda requests: len(requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await router.books.background.drain(5)
    (decision,), ((balance),) = binding.decisions, await router.balances()
    assert 0 < decision.classifier_cost == decision.cost == balance.spent == router.report().classifier_cost


async def test_a_verdict_that_a_shutdown_cancels_is_in_the_decision(
    make_router: Callable[..., Router], fake: FakeClaude
) -> None:
    """Its call goes on without an opinion, and what was spent on one is in its cost."""
    router = make_router(classifier=ClaudeClassifier(worth=0), budgets=[Budget("$5")])
    fake.script(Fault.hang())
    task = asyncio.create_task(decide(router))
    await fake.until(lambda requests: len(requests) == 1)
    await router.cache.drain(0)
    decision, (balance,) = await task, await router.balances()
    assert decision.attempts[-1].outcome == "ok"
    assert 0 < decision.classifier_cost == balance.spent - decision.attempts[-1].cost
    assert decision.cost == balance.spent


async def test_several_who_leave_a_request_pay_their_parts(
    make_router: Callable[..., Router], fake: FakeClaude
) -> None:
    """Where all are cancelled who were asked for in one request, each decision has its part of what it cost."""
    router = make_router(classifier=Fresh(worth=0), budgets=[Budget("$5")])
    fake.script(Fault.hang())
    async with router.bind() as binding:
        asking: Any = {"model": "auto", "max_tokens": 500}
        tasks = [
            asyncio.create_task(
                router.claude.messages.create(**asking, messages=[{"role": "user", "content": f"Why {n}?"}])
            )
            for n in range(3)
        ]
        await fake.until(lambda requests: len(requests) == 1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    (balance,) = await router.balances()
    costs = [decision.classifier_cost for decision in binding.decisions]
    assert len(costs) == 3
    assert min(costs) > 0
    assert sum(costs) == balance.spent
    assert max(costs) - min(costs) <= 1
