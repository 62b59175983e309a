"""The Router: what an app sees of it, outside of requests and in its reports."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from anyio import CancelScope, sleep

from tests.ledger.switched import Switched
from tierline import Budget, Ladder, Router, Tier, current, policy
from tierline.classify import ClaudeClassifier, FixedClassifier
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.testing import Fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from anthropic import AsyncAnthropic

    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

pytestmark = pytest.mark.usefixtures("quiet")

ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": "Why?"}]}


async def test_bind_for_scripts(make_router: MakeRouter, fake: FakeClaude) -> None:
    """`router.bind()` gives a job its tenant, its route and its decisions, and nests."""
    router = make_router(budgets=[Budget("$5", per="tenant"), Budget("$6", per="route")])
    async with router.bind(tenant="acme", route="nightly") as outer:
        assert current() is outer
        async with router.bind(tenant="other") as inner:
            assert current() is inner
            await current().claude.messages.create(**ASK)
        await router.claude.messages.create(**ASK)
        assert [d.tenant for d in outer.decisions] == ["acme"]
    with pytest.raises(ConfigurationError, match=r"router\.bind"):
        current()
    first, second = (r.billed for r in fake.requests)
    assert {(b.budget, b.account): b.spent for b in await router.balances()} == {
        ("$5 per tenant", "other"): first,
        ("$6 per route", "default"): first,
        ("$5 per tenant", "acme"): second,
        ("$6 per route", "nightly"): second,
    }


async def test_calls_outside_of_everything(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A call that nobody has bound is charged to the default accounts, and leaves none for itself behind."""
    router = make_router(budgets=[Budget("$5", per="tenant"), Budget("$1", per="request")])
    await router.claude.messages.create(**ASK)
    assert [(b.account, b.spent, b.held) for b in await router.balances()] == [("default", fake.billed, 0)]


async def test_accounts_of_who_is_cancelled(make_router: MakeRouter) -> None:
    """The account of a job goes with it, also where nothing of the job may wait any more."""
    router = make_router(ledger=Switched(), budgets=[Budget("$5", per="tenant"), Budget("$1", per="request")])
    with CancelScope() as scope:
        async with router.bind():
            await router.claude.messages.create(**ASK)
            assert len(await router.balances()) == 2
            scope.cancel()
            await sleep(1)
    assert scope.cancelled_caught
    await router.books.background.drain(5)
    assert [balance.account for balance in await router.balances()] == ["default"]


async def test_classify(make_router: MakeRouter, fake: FakeClaude) -> None:
    """`router.classify` labels a text of the app's own on the cheapest tier, cached and charged."""
    router = make_router(budgets=[Budget("$5", per="tenant")])
    fake.verdict = lambda text, labels: (labels[1] if "refund" in text else labels[0], 0.8)
    labels = ["question", "complaint"]
    async with router.bind(tenant="acme"):
        found = await router.classify("I want a refund", labels, "What is this mail?")
        again = await router.classify("I want a refund", labels, "What is this mail?")
        other = await router.classify("I want a refund", labels, "Is this mail angry?")
    assert found is not None
    assert again is not None
    assert other is not None
    assert (found.label, found.confidence, found.source) == ("complaint", 0.8, "claude")
    assert (again.label, again.source, again.cost) == ("complaint", "cache", 0)
    assert other.source == "claude"
    assert {r.model for r in fake.requests} == {"claude-haiku-5-5"}
    assert [(b.account, b.spent) for b in await router.balances()] == [("acme", fake.billed)]
    assert router.report().cost == fake.billed


async def test_classify_without_an_opinion(make_router: MakeRouter, fake: FakeClaude) -> None:
    """An answer outside the set is None; labels that cannot be told apart are a mistake."""
    router = make_router()
    fake.verdict = lambda _text, _labels: "neither"
    assert await router.classify("hello", ["a", "b"], "Which?") is None
    for labels in ([], ["a", "a"]):
        with pytest.raises(ConfigurationError):
            await router.classify("hello", labels, "Which?")


async def test_report_is_the_bill(make_router: MakeRouter, fake: FakeClaude) -> None:
    """The numbers of the report are those of the upstream's bill, call by call."""
    router = make_router(classifier=ClaudeClassifier(), budgets=[Budget("$5")])
    labels = {"easy": "simple", "usual": "moderate", "hard": "complex"}
    fake.verdict = lambda text, _labels: (labels[text.split()[0]], 0.9)
    for text in ("easy one", "usual one", "hard one", "easy one"):
        async with router.bind(tenant=text.split()[0], route="/x"):
            await router.claude.messages.create(**{**ASK, "messages": [{"role": "user", "content": text}]})
    fake.always("claude-opus-5-5", Fault.overloaded())
    async with router.bind(tenant="hard"):
        await router.claude.messages.create(**{**ASK, "messages": [{"role": "user", "content": "hard one"}]})
    report = router.report()
    verdicts = sum(r.billed for r in fake.requests if "Labels: " in str(r.body.get("system")))
    assert (report.calls, report.cost, report.classifier_cost) == (5, fake.billed, verdicts)
    assert {name: spend.calls for name, spend in report.by_tier.items()} == {"haiku": 2, "sonnet": 2, "opus": 1}
    assert {name: spend.calls for name, spend in report.by_account.items()} == {"easy": 2, "usual": 1, "hard": 2}
    assert {name: spend.calls for name, spend in report.by_route.items()} == {"/x": 4, "(no route)": 1}
    assert (report.cache_hits, report.cache_misses, report.fallbacks, report.failures) == (2, 3, 1, 0)
    assert report.saved == report.all_on["opus"] - report.cost
    assert report.all_on["haiku"] < report.cost < report.all_on["opus"]
    assert "5" in str(report).splitlines()[0]
    (balance,) = await router.balances()
    assert (balance.spent, balance.held) == (fake.billed, 0)


async def test_refused_calls_are_counted_apart(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A refusal is no call and no failure; a failure is both."""
    router = make_router(budgets=[Budget("$0.0000001")])
    with pytest.raises(BudgetExceededError):
        await router.claude.messages.create(**ASK)
    report = router.report()
    assert (report.refusals, report.calls, report.failures, report.cost) == (1, 0, 0, 0)


async def test_lifespan_logs_the_report(make_router: MakeRouter, caplog: pytest.LogCaptureFixture) -> None:
    """At the outermost end of the lifespan the report is logged, once."""
    router = make_router()
    caplog.set_level(logging.INFO, "tierline")
    async with router.lifespan():
        async with router.lifespan():
            await router.claude.messages.create(**ASK)
        assert "verdict cache" not in caplog.text
    assert caplog.text.count("verdict cache") == 1


async def test_client_from_the_environment(monkeypatch: pytest.MonkeyPatch, fake: FakeClaude, fake_url: str) -> None:
    """Without a client one is made from the environment, closed by the lifespan, and made anew when it is needed."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", fake.api_key)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", fake_url)
    router = Router(classifier=FixedClassifier("simple"))
    async with router.lifespan():
        client = router.claude
        await client.messages.create(**ASK)
    assert client.is_closed()
    assert router.claude is not client
    await router.claude.messages.create(**ASK)
    await router.aclose()
    assert len(fake.requests) == 2


async def test_client_of_the_app_stays_open(sdk: AsyncAnthropic) -> None:
    """A client that the app made is the app's to close."""
    async with Router(sdk).lifespan():
        pass
    assert not sdk.is_closed()


async def test_floor_and_ceiling_over_many_policies(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Whatever is written where, the tier is within the outer bounds, and a pin inside moves with them."""
    router = make_router(policy=policy(floor="sonnet", ceiling="opus"))
    for rule in (policy(tier="haiku"), policy(ceiling="haiku"), policy(label="simple"), policy(explicit_model="route")):
        with rule:
            await router.claude.messages.create(**{**ASK, "model": "claude-haiku-5-5"})
    assert {r.model for r in fake.requests} == {"claude-sonnet-5-5"}


async def test_patch_and_caps_of_a_tier(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A tier adds its patch where the app set nothing, and caps what a routed call may ask for."""
    ladder = Ladder(
        Tier("low", "claude-haiku-5-5", max_tokens=300, patch={"output_config": {"effort": "low"}}),
        Tier("high", "claude-opus-5-5"),
    )
    router = make_router(ladder=ladder, classifier=FixedClassifier("simple"))
    await router.claude.messages.create(**ASK)
    await router.claude.messages.create(**ASK, output_config={"effort": "high"})
    assert [(r.body["max_tokens"], r.body["output_config"]) for r in fake.requests] == [
        (300, {"effort": "low"}),
        (300, {"effort": "high"}),
    ]


async def test_policy_isolated_between_tasks(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A block in one task does not hold in its sisters."""
    router = make_router()

    async def one(floor: str | None) -> str:
        if floor is None:
            return str((await router.claude.messages.create(**ASK)).model)
        with policy(floor=floor):
            return str((await router.claude.messages.create(**ASK)).model)

    async with router.bind():
        found = await asyncio.gather(one("opus"), one(None), one("opus"), one(None))
    assert found == ["claude-opus-5-5", "claude-sonnet-5-5"] * 2


@pytest.mark.parametrize(
    "options",
    [
        {"ladder": {"haiku": "claude-haiku-5-5"}},
        {"min_confidence": 1.5},
        {"policy": policy(floor="gpt")},
        {"budgets": [Budget("$1", name="a"), Budget("$2", name="a")]},
        {"cache_size": 0},
        {"cache_ttl": -1.0},
        {"secret": "a text"},
        {"secret": b""},
    ],
)
def test_nonsense_is_refused(options: dict[str, Any]) -> None:
    """Arguments that cannot work are named when the Router is made."""
    with pytest.raises(ConfigurationError):
        Router(**options)


async def test_stream_in_a_script_with_a_request_budget(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A stream that nobody has bound is settled, on the account of a request of its own."""
    router = make_router(budgets=[Budget("$1", per="request")])
    async with router.claude.messages.stream(**ASK) as stream:
        await stream.get_final_message()
    assert sum(b.held for b in await router.balances()) == 0
    assert router.report().cost == fake.billed


async def test_a_soft_budget_says_that_it_is_exceeded(
    make_router: MakeRouter, caplog: pytest.LogCaptureFixture
) -> None:
    """A soft budget refuses nothing; the decision and one line of the log tell of it."""
    router = make_router(budgets=[Budget("$0.0001/day", hard=False)])
    async with router.bind() as binding:
        await router.claude.messages.create(**ASK)
        await router.claude.messages.create(**ASK)
    assert "budget $0.0001/day is exceeded, and not enforced" in binding.decisions[-1].reasons
    assert [r.getMessage() for r in caplog.records if "exceeded" in r.getMessage()] == [
        "budget $0.0001/day is exceeded, and not enforced: $0.0001"
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"classifier": ClaudeClassifier},
        {"classifier": "claude"},
        {"budgets": ["$5/day"]},
        {"policy": "sonnet"},
        {"min_confidence": "0.6"},
        {"budgets": [Budget("$5", name="x")], "policy": policy(budgets=[Budget("$6", name="x")])},
    ],
)
def test_what_cannot_work_is_said_at_once(wrong: dict[str, Any]) -> None:
    """A wrong argument is a ConfigurationError when the Router is made, and not an odd error of a request."""
    with pytest.raises(ConfigurationError):
        Router(**wrong)
