"""The metrics of calls, as a reader of the OpenTelemetry SDK collects them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tierline import Budget, policy
from tierline.classify import ClaudeClassifier, FixedClassifier, KeywordClassifier
from tierline.errors import BudgetExceededError
from tierline.metrics import MOST_VALUES, OTHER, Bounded, Metrics
from tierline.telemetry import MOST_CHARS
from tierline.testing import Fault
from tierline.values import NANO

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline import Router
    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

pytestmark = pytest.mark.usefixtures("quiet")

CANARY = "canary-prompt-7f3a"
ASK: dict[str, Any] = {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": CANARY}]}
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "anthropic", "gen_ai.request.model": "auto"}


class Meters:
    """What has been recorded until now."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider(metric_readers=[self.reader])

    def __getitem__(self, name: str) -> list[Any]:
        """The data points of a metric, in the order of their attributes."""
        found = self.reader.get_metrics_data()
        points = [
            point
            for resource in (found.resource_metrics if found is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]
        return sorted(points, key=lambda point: str(sorted(point.attributes.items())))

    def sums(self, name: str) -> dict[tuple[Any, ...], Any]:
        """A metric's values by those of its attributes, which are in the order of their names."""
        return {
            tuple(value for _, value in sorted(point.attributes.items())): getattr(point, "value", None)
            if hasattr(point, "value")
            else (point.count, point.sum)
            for point in self[name]
        }


@pytest.fixture
def meters() -> Meters:
    return Meters()


async def test_a_call(make_router: MakeRouter, meters: Meters, fake: FakeClaude) -> None:
    """A call and the question before it are operations of their own; money adds up to the bill."""
    router = make_router(meter_provider=meters.provider, classifier=ClaudeClassifier(), budgets=[Budget("$5/day")])
    fake.verdict = lambda _text, _labels: ("moderate", 0.9)
    async with router.bind(tenant="acme", route="/chat"):
        for _ in range(2):
            await router.claude.messages.create(**ASK)
    verdict, first, second = fake.requests
    assert meters.sums("tierline.decisions") == {
        ("claude", "sonnet", "enforce", "ok", "/chat"): 1,
        ("cache", "sonnet", "enforce", "ok", "/chat"): 1,
    }
    cost = meters.sums("tierline.cost")
    assert cost == {
        ("haiku", "classify", "/chat"): pytest.approx(verdict.billed / NANO),
        ("sonnet", "answer", "/chat"): pytest.approx((first.billed + second.billed) / NANO),
    }
    report = router.report()
    assert sum(cost.values()) == pytest.approx(report.cost / NANO)
    assert meters.sums("tierline.saved") == {("/chat",): pytest.approx(report.saved / NANO)}
    assert meters.sums("tierline.cache.lookups") == {(False,): 1, (True,): 1}
    (classified,) = (
        p for p in meters["tierline.classifier.duration"] if p.attributes["tierline.decision.source"] == "claude"
    )
    assert (classified.count, classified.attributes["tierline.classifier.name"]) == (1, "claude")
    assert {
        point.attributes["gen_ai.response.model"]: point.count for point in meters["gen_ai.client.operation.duration"]
    } == {
        "claude-haiku-5-5": 1,
        "claude-sonnet-5-5": 2,
    }
    tokens = {
        (p.attributes["gen_ai.response.model"], p.attributes["gen_ai.token.type"]): (p.count, p.sum)
        for p in meters["gen_ai.client.token.usage"]
    }
    assert tokens["claude-sonnet-5-5", "output"] == (2, first.usage.output_tokens + second.usage.output_tokens)
    assert tokens["claude-sonnet-5-5", "input"] == (2, first.usage.prompt_tokens + second.usage.prompt_tokens)
    assert tokens["claude-haiku-5-5", "input"] == (1, verdict.usage.prompt_tokens)
    assert {**CHAT, "gen_ai.response.model": "claude-sonnet-5-5"} in [
        dict(p.attributes) for p in meters["gen_ai.client.operation.duration"]
    ]
    (used,) = meters["tierline.budget.utilization"]
    assert (used.count, used.attributes) == (2, {"tierline.budget": "$5/day"})
    assert 0 < used.sum < 0.01
    assert meters["gen_ai.client.operation.time_to_first_chunk"] == []


async def test_a_stream(make_router: MakeRouter, meters: Meters) -> None:
    """A stream has a time to its first chunk; an answer that is read raw has none, for it comes whole."""
    router = make_router(meter_provider=meters.provider)
    async with router.claude.messages.stream(**ASK) as stream:
        await stream.get_final_message()
    async with router.claude.messages.with_streaming_response.create(**ASK) as response:
        await response.read()
    (first,) = meters["gen_ai.client.operation.time_to_first_chunk"]
    (whole,) = meters["gen_ai.client.operation.duration"]
    assert (first.count, whole.count) == (1, 2)
    assert 0 < first.sum <= whole.max


async def test_a_refusal(make_router: MakeRouter, meters: Meters, fake: FakeClaude) -> None:
    """A refused call is a decision and a refusal, and no operation: nothing was sent."""
    router = make_router(meter_provider=meters.provider, budgets=[Budget("$0.000000001", name="tiny")])
    with pytest.raises(BudgetExceededError):
        await router.claude.messages.create(**ASK)
    with pytest.raises(BudgetExceededError):
        await router.claude.messages.batches.create(requests=[])
    assert fake.requests == []
    assert meters.sums("tierline.refusals") == {("tiny",): 2}
    assert meters.sums("tierline.decisions") == {("fixed", "sonnet", "enforce", "refused", ""): 1}
    assert meters["gen_ai.client.operation.duration"] == []
    assert meters["tierline.budget.utilization"] == []


async def test_a_failure(make_router: MakeRouter, meters: Meters, fake: FakeClaude) -> None:
    """An error of the API is told by its type; no tokens and no cost are made up for it."""
    router = make_router(meter_provider=meters.provider)
    fake.always(None, Fault.error(400))
    with pytest.raises(anthropic.BadRequestError):
        await router.claude.messages.create(**ASK)
    (point,) = meters["gen_ai.client.operation.duration"]
    assert point.attributes["error.type"] == "invalid_request_error"
    assert meters["gen_ai.client.token.usage"] == []
    assert meters.sums("tierline.cost") == {("sonnet", "answer", ""): 0}


async def test_what_budgets_are_charged(make_router: MakeRouter, meters: Meters, fake: FakeClaude) -> None:
    """Each budget counts what is charged to it, questions included; limit and window are told where they are few."""
    budgets = [
        Budget("$5/day"), Budget("$7/3h rolling"), Budget("$9", name="ever"),
        Budget("$1/hour", per="tenant", name="plan"),
    ]  # fmt: skip
    router = make_router(meter_provider=meters.provider, classifier=ClaudeClassifier(), budgets=budgets)
    fake.verdict = lambda _text, _labels: ("moderate", 0.9)
    for tenant in ("acme", "global"):
        async with router.bind(tenant=tenant):
            await router.claude.messages.create(**ASK)
    billed = sum(request.billed for request in fake.requests) / NANO
    assert len(fake.requests) == 4
    assert meters.sums("tierline.budget.spent") == {
        (name,): pytest.approx(billed) for name in ("$5/day", "$7/3h rolling", "ever", "plan")
    }
    assert meters.sums("tierline.budget.limit") == {("$5/day",): 5, ("$7/3h rolling",): 7, ("ever",): 9}
    assert meters.sums("tierline.budget.window") == {("$5/day",): 86_400, ("$7/3h rolling",): 10_800}
    await router.set_limit("$5/day", None, limit="$6")
    await router.claude.messages.create(**ASK)
    assert meters.sums("tierline.budget.limit")[("$5/day",)] == 6


async def test_attempts(make_router: MakeRouter, meters: Meters, fake: FakeClaude) -> None:
    """Every request to the API counts, by tier and role; those that failed say how, those that were left did not."""
    router = make_router(meter_provider=meters.provider)
    fake.script(Fault.overloaded(), Fault.overloaded(), Fault.overloaded())
    await router.claude.messages.create(**ASK)
    async with router.claude.messages.stream(**ASK):
        pass
    points = {
        (p.attributes["tierline.attempt.tier"], p.attributes["tierline.attempt.role"], p.attributes.get("error.type")):
        p.value for p in meters["tierline.attempts"]
    }  # fmt: skip
    assert points == {
        ("sonnet", "first", "overloaded_error"): 1, ("sonnet", "retry", "overloaded_error"): 2,
        ("haiku", "fallback", None): 1, ("sonnet", "first", None): 1,
    }  # fmt: skip


async def test_all_on_the_top_tier(make_router: MakeRouter, meters: Meters, fake: FakeClaude) -> None:
    """What calls would have cost on the top tier only goes up; without what they cost, it is what was saved."""
    router = make_router(meter_provider=meters.provider)
    await router.claude.messages.create(**ASK)
    fake.always(None, Fault.error(400))
    with pytest.raises(anthropic.BadRequestError):
        await router.claude.messages.create(**ASK)
    (top,), (cost,) = meters["tierline.cost.top"], meters["tierline.cost"]
    assert top.value - cost.value == pytest.approx(router.report().saved / NANO)
    assert top.value > cost.value > 0


async def test_observed_calls_say_so(make_router: MakeRouter, meters: Meters) -> None:
    """Calls that are only observed can be told apart."""
    router = make_router(meter_provider=meters.provider, mode="observe")
    await router.claude.messages.create(**ASK)
    router.mode = "off"
    await router.claude.messages.create(**ASK)
    assert meters.sums("tierline.decisions") == {("fixed", "opus", "observe", "ok", ""): 1}


async def test_nobody_has_an_opinion(make_router: MakeRouter, meters: Meters) -> None:
    """The time of a classifier that says nothing counts too."""
    router = make_router(meter_provider=meters.provider, classifier=KeywordClassifier())
    await router.claude.messages.create(**ASK)
    assert [p.attributes["tierline.decision.source"] for p in meters["tierline.classifier.duration"]] == ["none"]


async def test_attributes_are_bounded(make_router: MakeRouter, meters: Meters, fake: FakeClaude) -> None:
    """However many routes, models, tenants and tags there are, so many series are made and nothing is lost."""
    router = make_router(meter_provider=meters.provider, budgets=[Budget("$5/day", per="tenant")])
    for number in range(MOST_VALUES + 10):
        async with router.bind(tenant=f"t{number}", route=f"/{number}"):
            with policy(tags={"n": str(number)}, tier="haiku"):
                await router.claude.messages.create(**ASK)
    points = meters["tierline.decisions"]
    assert len(points) == MOST_VALUES + 1
    assert sum(point.value for point in points) == MOST_VALUES + 10
    assert [p.value for p in points if p.attributes["tierline.route"] == OTHER] == [10]
    (used,) = meters["tierline.budget.utilization"]
    assert used.count == MOST_VALUES + 10


async def test_no_secrets_in_metrics(make_router: MakeRouter, meters: Meters, fake: FakeClaude) -> None:
    """No attribute has a prompt, a key or a tenant."""
    router = make_router(
        meter_provider=meters.provider, classifier=ClaudeClassifier(), budgets=[Budget("$5/day", per="tenant")]
    )
    fake.script(Fault.error(400, message=f"{CANARY} {fake.api_key}"))
    async with router.bind(tenant="acme-secret"):
        for _ in range(3):
            with suppress(anthropic.APIError):
                await router.claude.messages.create(**ASK)
    told = str(meters.reader.get_metrics_data())
    assert "tierline.cost" in told
    assert not [secret for secret in (CANARY, fake.api_key, "acme-secret") if secret in told]


def test_values_are_kept_as_they_came() -> None:
    """A value that has room stays itself, also when the room is gone; a long or broken one is cut and mended."""
    names = Bounded(2)
    assert [names(name) for name in ("a", "\ud800" * 500, "c", "a", "\ud800" * 500)] == [
        "a", "?" * MOST_CHARS, OTHER, "a", "?" * MOST_CHARS,
    ]  # fmt: skip


def test_nothing_is_recorded_without_a_provider() -> None:
    """Where the app has no OpenTelemetry SDK no attributes are built; with a provider of one's own they are."""
    assert not Metrics(None).recording
    assert Metrics(Meters().provider).recording


def test_a_provider_that_is_set_later_is_used() -> None:
    """An app may set its provider after it has made its Router, as instrumentation at start-up does."""
    code = (
        "from tierline.metrics import Metrics\n"
        "from opentelemetry import metrics\n"
        "from opentelemetry.sdk.metrics import MeterProvider\n"
        "from opentelemetry.sdk.metrics.export import InMemoryMetricReader\n"
        "ours = Metrics(None)\n"
        "assert not ours.recording\n"
        "reader = InMemoryMetricReader()\n"
        "metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))\n"
        "assert ours.recording\n"
        "ours.looked_up(True)\n"
        "assert 'tierline.cache.lookups' in str(reader.get_metrics_data())\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


async def test_two_routers_share_their_metrics(make_router: MakeRouter, meters: Meters) -> None:
    """The calls of all Routers of a process add up, and nothing is registered twice."""
    for _ in range(2):
        router = make_router(meter_provider=meters.provider, classifier=FixedClassifier("complex"))
        await router.claude.messages.create(**ASK)
    assert meters.sums("tierline.decisions") == {("fixed", "opus", "enforce", "ok", ""): 2}
