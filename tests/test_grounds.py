"""On what grounds a tier is chosen, through the whole of a call."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tierline import Budget, policy
from tierline.attempts import Timing
from tierline.classify import CascadeClassifier, ClaudeClassifier, FixedClassifier, KeywordClassifier
from tierline.errors import ConfigurationError
from tierline.learn import OutcomeModel
from tierline.testing import Reply
from tierline.values import Chance, Classification, Forecast

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline import Decision, Router
    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

pytestmark = pytest.mark.usefixtures("quiet")

WEATHER: Any = {"name": "weather", "description": "Looks it up.", "input_schema": {"type": "object", "properties": {}}}


class SmallModel(OutcomeModel):
    """Counts what is good and what is not, by route and tier, so that its numbers can be told by heart."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[tuple[str, str], list[int]] = {}

    def evidence(self, route: str) -> float:
        return float(sum(sum(self.counts.get((route, tier), ())) for tier in self.tiers))

    def forecast_of(self, route: str, seen: object) -> Forecast:
        chances = []
        for tier in self.tiers:
            good, bad = self.counts.get((route, tier), (0, 0))
            chances.append(Chance(tier, (good + 1) / (good + bad + 2), good + bad))
        return Forecast(tuple(chances), self.evidence(route))


def grades(model: SmallModel, tier: str, good: int, bad: int, route: str = "/answer") -> None:
    """Teach a model what happened on a route."""
    known = model.counts.setdefault((route, tier), [0, 0])
    known[0] += good
    known[1] += bad


def taught(route: str = "/answer") -> SmallModel:
    """Haiku does 19 of 20 there (0.91 with what is not known), Sonnet 10 of 10 (0.92), Opus 20 of 20 (0.95)."""
    model = SmallModel()
    grades(model, "haiku", 19, 1, route)
    grades(model, "sonnet", 10, 0, route)
    grades(model, "opus", 20, 0, route)
    return model


async def decide(
    router: Router, text: str = "Why is it blue?", tenant: str | None = None, route: str | None = "/answer", **more: Any
) -> Decision:
    body: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": text}]}
    async with router.bind(tenant=tenant, route=route) as binding:
        await router.claude.messages.create(**body | more)
    return binding.decisions[-1]


async def test_a_route_that_has_taught_enough_chooses(make_router: MakeRouter, fake: FakeClaude) -> None:
    """The cheapest tier that is good enough there is taken, nobody is asked, and the numbers are in the reasons."""
    router = make_router(outcomes=taught(), classifier=ClaudeClassifier())
    decision = await decide(router)
    assert (decision.tier, decision.source, decision.label) == ("haiku", "route", None)
    assert "haiku 0.91 of opus 0.95 here: 0.95 ≥ 0.95, from 50 outcomes" in decision.reasons
    assert decision.forecast is not None
    assert decision.forecast.evidence == 50
    assert decision.confidence == pytest.approx(20 / 22)
    assert (len(fake.requests), decision.classifier_cost) == (1, 0)
    assert not decision.explored


async def test_grades_become_a_choice(make_router: MakeRouter, fake: FakeClaude) -> None:
    """What the app says of its answers teaches the route, in the Router's own model, from the thirtieth grade on."""
    router = make_router(classifier=ClaudeClassifier())
    fake.verdict = lambda text, _labels: ("simple" if int(text.split()[-1]) % 2 else "complex", 1.0)
    for n in range(30):
        decision = await decide(router, f"What about order {n}")
        assert decision.source == "claude"
        decision.grade(good=True)
    await router.learning.sync()
    asked = len(fake.requests)
    decision = await decide(router, "What about order 1000")
    assert (decision.tier, decision.source, len(fake.requests)) == ("haiku", "route", asked + 1)
    assert decision.forecast is not None
    assert [round(chance.evidence) for chance in decision.forecast.chances] == [15, 0, 15]
    assert any("from 30 outcomes" in reason for reason in decision.reasons)


async def test_quality_is_the_strictest_that_holds(make_router: MakeRouter) -> None:
    """What any policy asks of the quality holds; one alone may ask for less than the default."""
    router = make_router(outcomes=taught())
    with policy(quality=0.9), policy(quality=1.0):
        assert (await decide(router)).tier == "opus"
    model = SmallModel()
    grades(model, "haiku", 16, 4)
    grades(model, "opus", 20, 0)
    router = make_router(outcomes=model)
    assert (await decide(router)).tier == "sonnet"  # not haiku, and nothing is known of the others: the text's
    with policy(quality=0.8):
        assert (await decide(router)).tier == "haiku"


@pytest.mark.parametrize("quality", [0, -1, 1.1, True, "0.9", float("nan")])
def test_quality_that_cannot_be(quality: Any) -> None:
    """A quality is a share of the top tier's."""
    with pytest.raises(ConfigurationError, match="quality"):
        policy(quality=quality)


async def test_before_that_the_text_chooses(make_router: MakeRouter) -> None:
    """With few outcomes, on another route or on none, the classifier chooses; `learn_after` says what few is."""
    assert (await decide(make_router(outcomes=taught()), route="/other")).source == "fixed"
    later = await decide(make_router(outcomes=taught(), learn_after=51))
    assert (later.source, later.forecast) == ("fixed", None)
    model = taught("default")
    nowhere = await decide(make_router(outcomes=model), route=None)
    assert (nowhere.source, nowhere.forecast) == ("fixed", None)


@pytest.mark.parametrize(
    ("options", "more", "tier", "source"),
    [
        ({"tier": "sonnet"}, {}, "sonnet", "pin"),
        ({"label": "complex"}, {}, "opus", "label"),
        ({"floor": "sonnet"}, {}, "sonnet", "route"),
        ({"floor": "opus"}, {}, "opus", "fixed"),
        ({"ceiling": "sonnet"}, {}, "haiku", "route"),
        ({"critical": True}, {}, "haiku", "route"),
        ({}, {"model": "claude-opus-5-5"}, "opus", "explicit"),
        ({"explicit_model": "ceiling"}, {"model": "claude-sonnet-5-5"}, "haiku", "route"),
        ({"task": "debug the kernel"}, {}, "haiku", "route"),
        ({"task": "settle chargebacks"}, {}, "opus", "keyword"),
    ],
)
async def test_what_the_app_says_comes_first(
    make_router: MakeRouter, options: Any, more: Any, tier: str, source: str
) -> None:
    """Pins, labels, ids, floors and rules of the app's own hold whatever the route has taught."""
    mine = KeywordClassifier(complex=["chargeback*"])
    router = make_router(outcomes=taught(), classifier=CascadeClassifier([mine]))
    with policy(**options):
        decision = await decide(router, **more)
    assert (decision.tier, decision.source) == (tier, source)


async def test_a_rule_of_the_apps_own_is_certain_and_a_guess_is_not(make_router: MakeRouter) -> None:
    """Phrases that the app wrote come before the route; those that Tierline guesses do not."""
    mine = KeywordClassifier(complex=["refund"])
    router = make_router(outcomes=taught(), classifier=CascadeClassifier([mine, FixedClassifier("moderate")]))
    assert (await decide(router, "About my refund")).tier == "opus"
    assert (await decide(router, "Translate to German: good night")).source == "route"
    guesses = make_router(outcomes=taught(), classifier=KeywordClassifier())
    assert (await decide(guesses, "Prove that it halts")).source == "route"


@pytest.mark.parametrize(
    "said", [ValueError("a prompt"), "complex", Classification("hard", 1.0, "keyword"), asyncio.sleep]
)
async def test_a_rule_that_fails_breaks_no_call(said: Any, make_router: MakeRouter) -> None:
    """It is the app's code: the call goes on as if it had said nothing, and the reason is kept."""

    class Broken(FixedClassifier):
        def certain(self, view: Any) -> Any:
            if isinstance(said, Exception):
                raise said
            return said

    decision = await decide(make_router(classifier=Broken("complex")))
    assert (decision.tier, decision.source) == ("opus", "fixed")
    assert [each for each in decision.reasons if "failed" in each] == [
        f"classifier fixed failed: {'TypeError' if isinstance(said, str) or callable(said) else 'ValueError'}"
    ]


async def test_a_classifier_that_has_but_a_question_is_not_weighed(make_router: MakeRouter) -> None:
    """Only an `Asking` has a price; another class may call something a question, too."""

    class Own(FixedClassifier):
        cacheable = True
        question = "How hard is it?"

    decision = await decide(make_router(classifier=Own("complex")))
    assert (decision.tier, decision.reasons) == ("opus", ())


async def test_a_route_with_enough_outcomes_asks_nothing(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Where the outcomes do not say which tier to take, Claude is not asked either: what is free chooses."""
    model = SmallModel()
    grades(model, "haiku", 5, 25)
    router = make_router(outcomes=model, classifier=ClaudeClassifier())
    decision = await decide(router)
    assert (decision.tier, decision.source, len(fake.requests)) == ("sonnet", "default", 1)
    assert "no verdict: the route has 30 outcomes" in decision.reasons
    easy = make_router(outcomes=model, classifier=FixedClassifier("simple"))
    assert (await decide(easy)).tier == "sonnet"  # haiku is known to fail here


async def test_a_tool_loop_stays_as_it_began(make_router: MakeRouter, fake: FakeClaude) -> None:
    """What is learned between two steps of a loop moves the next loop, and not this one."""
    model = taught()
    router = make_router(outcomes=model)
    fake.answer = lambda r: None if "tool_result" in str(r.body) else Reply(tool="weather", input={})
    ask: list[Any] = [{"role": "user", "content": "How warm is it in Rome?"}]
    body: dict[str, Any] = {"model": "auto", "max_tokens": 300, "tools": [WEATHER]}
    async with router.bind(route="/answer") as binding:
        first = await router.claude.messages.create(messages=ask, **body)
        grades(model, "haiku", 0, 60)
        use = next(block for block in first.content if block.type == "tool_use")
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "20"}
        ask += [{"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
        await router.claude.messages.create(messages=ask, **body)
    assert [d.tier for d in binding.decisions] == ["haiku", "haiku"]
    assert (await decide(router, "How warm is it in Rome?", tools=[WEATHER])).tier == "sonnet"


async def test_observing_says_what_the_route_would_have_chosen(make_router: MakeRouter) -> None:
    """In mode observe the call keeps its tier, and the forecast is used for what would have been."""
    decision = await decide(make_router(outcomes=taught(), mode="observe"))
    assert decision.observed is not None
    assert (decision.tier, decision.observed.tier, decision.source) == ("opus", "haiku", "route")


# Exploring


@pytest.fixture
def dice(make_router: MakeRouter) -> Callable[..., Router]:
    """Routers that explore one call in a hundred, with a die that shows what it is told."""

    def make(shows: float, **options: Any) -> Router:
        options = {"outcomes": taught(), "explore": 0.01} | options
        return make_router(timing=Timing(chance=lambda: shows), **options)

    return make


async def test_exploring(dice: Callable[..., Router], fake: FakeClaude) -> None:
    """A call that explores goes to the neighbour, and says so; any other does not."""
    decision = await decide(dice(0.0099))
    assert (decision.tier, decision.requested_tier, decision.explored) == ("sonnet", "sonnet", True)
    assert "explores sonnet in the place of haiku" in decision.reasons
    assert fake.requests[-1].model == "claude-sonnet-5-5"
    with policy(quality=1.0):
        router = dice(0.0)
        assert (await decide(router)).tier == "sonnet"  # in the place of opus
    assert router.report().explored == 1
    assert "explored" in str(router.report())
    decision = await decide(dice(0.01))
    assert (decision.tier, decision.explored) == ("haiku", False)


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"critical": True}, {}),
        ({"tier": "haiku"}, {}),
        ({"label": "simple"}, {}),
        ({"ceiling": "haiku"}, {}),
        ({}, {"model": "claude-haiku-5-5"}),
        ({}, {"route": None}),
    ],
)
async def test_never_explored(dice: Callable[..., Router], options: Any, more: Any) -> None:
    """Critical calls, pins, labels, ids, calls with one tier and calls of no route are left alone."""
    with policy(**options):
        decision = await decide(dice(0.0), **more)
    assert not decision.explored
    assert not any("explores" in reason for reason in decision.reasons)


@pytest.mark.parametrize("outcomes", [None, taught()])
async def test_a_tool_loop_that_explores_stays_where_it_is(
    outcomes: SmallModel | None, dice: Callable[..., Router], fake: FakeClaude
) -> None:
    """Its later steps go where its first one went, whether its route or a classifier had chosen."""
    router = dice(0.0, outcomes=outcomes, classifier=FixedClassifier("complex"))
    fake.answer = lambda r: None if str(r.body).count("tool_result") == 2 else Reply(tool="weather", input={})
    ask: list[Any] = [{"role": "user", "content": "How warm is it in Rome and Oslo?"}]
    body: dict[str, Any] = {"model": "auto", "max_tokens": 300, "tools": [WEATHER]}
    async with router.bind(route="/answer") as binding:
        for _ in range(3):
            answer = await router.claude.messages.create(messages=ask, **body)
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": "20"}
                for block in answer.content
                if block.type == "tool_use"
            ]
            ask = [*ask, {"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
    assert [(d.tier, d.explored) for d in binding.decisions] == [("sonnet", True)] * 3


async def test_a_budget_comes_before_exploring(dice: Callable[..., Router]) -> None:
    """What explores a dearer tier than a budget has room for goes where it would have gone, and has not explored."""
    router = dice(0.0, budgets=[Budget("$0.01")])
    decision = await decide(router, max_tokens=1_000)
    assert (decision.tier, decision.requested_tier, decision.explored) == ("haiku", "sonnet", False)


@pytest.mark.parametrize("explore", [0.011, 1, -0.1, True, "0.01", float("nan")])
def test_most_explored(explore: Any, make_router: MakeRouter) -> None:
    """More than one call in a hundred is not explored, whoever asks for it."""
    with pytest.raises(ConfigurationError, match=r"explore=.* 0\.01"):
        make_router(explore=explore)


@pytest.mark.parametrize("after", [0, -3, True, 2.5, "30"])
def test_learning_after_what_cannot_be(after: Any, make_router: MakeRouter) -> None:
    """A number of outcomes is a whole number above 0."""
    with pytest.raises(ConfigurationError, match="learn_after"):
        make_router(learn_after=after)


# Verdicts that are worth it


class Unsure:
    """Says `simple`, as sure as the test wants."""

    name, fingerprint, cacheable = "unsure", "1", False

    def __init__(self, confidence: float) -> None:
        self.confidence = confidence

    async def classify(self, view: Any, consult: Any) -> Classification:
        return Classification("simple", self.confidence, "local")


@pytest.mark.parametrize(
    ("worth", "sure", "max_tokens", "expected", "asked"),
    [
        (1.0, 0.7, 500, None, True),
        (1.0, 0.7, 500, 1, False),
        (1.0, 0.7, 500, 10, True),
        (5.0, 0.7, 500, 10, False),
        (1.0, 0.7, 1, None, False),
        (0.0, 0.74, 1, None, True),
    ],
)
async def test_a_verdict_is_asked_where_it_is_worth_it(
    make_router: MakeRouter,
    fake: FakeClaude,
    worth: float,
    sure: float,
    max_tokens: int,
    expected: int | None,
    asked: bool,
) -> None:
    """What a question costs is held against what is at stake: the spread of the tiers, times the doubt."""
    router = make_router(classifier=CascadeClassifier([Unsure(sure), ClaudeClassifier(worth=worth)]))
    with policy(expected_output=expected):
        decision = await decide(router, max_tokens=max_tokens)
    assert len(fake.requests) == 1 + asked
    said = [reason for reason in decision.reasons if "at stake here" in reason]
    assert bool(said) == (not asked)
    if said:
        assert "no verdict: it would cost $0.0" in said[0]
        assert f"{1 - sure:.2f} in doubt" in said[0]
        assert decision.tier == "haiku"


async def test_two_tiers_of_one_price_are_worth_no_verdict(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Between a floor and a ceiling that lie close there is less to save."""
    router = make_router(classifier=CascadeClassifier([Unsure(0.7), ClaudeClassifier(worth=3)]))
    with policy(ceiling="sonnet"):
        await decide(router, max_tokens=25)
    assert len(fake.requests) == 1
    await decide(router, max_tokens=25)
    assert len(fake.requests) == 3


async def test_a_verdict_that_is_there_is_used(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A cached verdict is free, however little is at stake."""
    unsure, claude = Unsure(0.0), ClaudeClassifier(worth=100)
    router = make_router(classifier=CascadeClassifier([unsure, claude]))
    fake.verdict = lambda _text, _labels: ("complex", 0.9)
    assert (await decide(router)).source == "claude"
    unsure.confidence = 0.74
    assert (await decide(router)).source == "cache"
    assert len(fake.requests) == 3
    other = await decide(router, "Why is it green?")
    assert (other.source, len(fake.requests)) == ("local", 4)


@pytest.mark.parametrize("worth", [-1, True, "5", float("inf"), float("nan")])
def test_worth_that_cannot_be(worth: Any) -> None:
    """A worth is a number."""
    with pytest.raises(ConfigurationError, match="worth"):
        ClaudeClassifier(worth=worth)


# Upgrades


async def test_upgrades_of_an_account_are_bounded(make_router: MakeRouter) -> None:
    """An account whose texts all want the top gets a fifth of its calls there; others are as before; it is counted."""
    reader = InMemoryMetricReader()
    router = make_router(
        classifier=KeywordClassifier(complex=["urgent"]), meter_provider=MeterProvider(metric_readers=[reader])
    )
    for n in range(60):
        await decide(router, f"Translate: {n}", tenant=f"t{n % 5}")
    flood = [await decide(router, f"urgent: {n}", tenant="mallory") for n in range(40)]
    tiers = [decision.tier for decision in flood]
    assert 8 <= tiers.count("opus") <= 14
    held = [decision for decision in flood if decision.tier == "haiku"]
    assert all("haiku as usual here: this account has had its share of upgrades" in d.reasons for d in held)
    assert (await decide(router, "urgent", tenant="t1")).tier == "opus"
    assert (await decide(router, "urgent", tenant="mallory", route="/other")).tier == "opus"
    with policy(floor="sonnet"):
        assert (await decide(router, "urgent", tenant="mallory")).tier == "sonnet"
    with policy(critical=True):
        assert (await decide(router, "urgent", tenant="mallory")).tier == "opus"
    assert router.report().upgrades_withheld == len(held) + 1
    assert "upgrades withheld" in str(router.report())
    found = reader.get_metrics_data()
    assert found is not None
    metrics = {m.name: m for r in found.resource_metrics for s in r.scope_metrics for m in s.metrics}
    (point,) = metrics["tierline.upgrades.withheld"].data.data_points
    assert (point.value, dict(point.attributes or {})) == (len(held) + 1, {"tierline.route": "/answer"})


async def test_upgrades_without_a_bound(make_router: MakeRouter) -> None:
    """`max_upgrades=1` lets every text have what it wants."""
    router = make_router(classifier=KeywordClassifier(complex=["urgent"]), max_upgrades=1)
    for n in range(50):
        await decide(router, f"Translate: {n}")
    assert {(await decide(router, f"urgent: {n}", tenant="mallory")).tier for n in range(30)} == {"opus"}
