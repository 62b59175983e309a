"""pydantic-ai, LangChain and instructor over a routed client: real packages, real sockets, the same promises."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from anthropic import AsyncAnthropicBedrock, AsyncAnthropicVertex

from tests.needs import need
from tierline import Budget, Ladder, Router, policy
from tierline.classify import ClaudeClassifier, FixedClassifier
from tierline.errors import BudgetExceededError, IllegalRequestError
from tierline.testing import FakeClaude, Fault, Received, Reply

need("pydantic_ai", "langchain_anthropic", "instructor", "boto3")

from tests.libraries.adapters import City, Instructor, LangChain, PydanticAI  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("quiet")

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
HARD = Budget("$5/day", downgrade_at=None, cheapest_at=None)
LIBRARIES = [PydanticAI, LangChain, Instructor]
WHAT = ["plain", "stream", "tools", "structured"]
# The TOOLS mode of instructor forces its tool, whatever the model: see test_a_forced_tool_above_its_tiers.
UNFORCED = [(library, what) for library in LIBRARIES for what in WHAT if (library, what) != (Instructor, "tools")]

each = pytest.mark.parametrize("library", LIBRARIES)
ROME = {"name": "Rome", "people": 3}


@pytest.fixture
def fake() -> FakeClaude:
    """An API that calls the tools that it is given, and says JSON to who asks for it."""

    def answer(received: Received) -> str | Reply | None:
        body = received.body
        names = {tool["name"].lower(): tool["name"] for tool in body.get("tools") or ()}
        if "weather" in names:
            done = "tool_result" in str(body["messages"])
            return "Warm." if done else Reply(tool=names["weather"], input={"city": "Rome"})
        if names:
            return Reply(tool=next(iter(names.values())), input=ROME)
        return json.dumps(ROME) if "JSON" in str(body.get("system")) else None

    return FakeClaude(answer=answer)


def models(fake: FakeClaude) -> list[str | None]:
    return [received.model for received in fake.requests]


async def balance(router: Router) -> tuple[int, int]:
    (only,) = await router.balances()
    return only.spent, only.held


@each
@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("label", ["simple", "moderate", "complex"])
async def test_auto(make_router: Callable[..., Router], fake: FakeClaude, library: Any, what: str, label: str) -> None:
    """Each call of a library with `model="auto"` is decided, goes to a legal tier, and is settled to the nano-USD."""
    router = make_router(budgets=[HARD], classifier=FixedClassifier(label))
    async with router.bind(tenant="acme", route="/city") as binding:
        answer = await getattr(library(router.claude, "auto"), what)()
    await fake.idle()
    assert answer
    assert {received.status for received in fake.requests} == {200}
    assert [d.model for d in binding.decisions] == models(fake)
    assert {(d.tenant, d.route, d.estimated, d.label) for d in binding.decisions} == {("acme", "/city", False, label)}
    assert await balance(router) == (fake.billed, 0)
    assert fake.billed > 0
    # A tool that must be called goes to the tier that lets itself be forced; all else to the tier of its label.
    forced = [r for r in fake.requests if (r.body.get("tool_choice") or {}).get("type") in ("any", "tool")]
    tier = {"simple": HAIKU, "moderate": SONNET, "complex": OPUS}[label]
    assert {r.model for r in fake.requests if r not in forced} <= {tier}
    assert {r.model for r in forced} <= {HAIKU}
    if what == "structured":
        assert isinstance(answer, City)


@pytest.mark.parametrize(("library", "what"), UNFORCED)
@pytest.mark.parametrize("rule", [policy(floor="sonnet"), policy(floor="opus", critical=True)])
async def test_floors(make_router: Callable[..., Router], fake: FakeClaude, library: Any, what: str, rule: Any) -> None:
    """No call of a library goes under the floor, when it is told a model by whose rules it may write its requests."""
    router = make_router(budgets=[HARD], classifier=FixedClassifier("simple"), policy=policy(explicit_model="route"))
    async with router.bind() as binding:
        with rule:
            assert await getattr(library(router.claude, SONNET), what)()
    assert set(models(fake)) == {{"sonnet": SONNET, "opus": OPUS}[rule.floor]}
    assert {received.status for received in fake.requests} == {200}
    assert len(binding.decisions) == len(fake.requests)
    assert await balance(router) == (fake.billed, 0)


@each
async def test_verdicts(make_router: Callable[..., Router], fake: FakeClaude, library: Any) -> None:
    """Claude is asked once how hard a library's request is, whatever it makes of it, and a tool loop keeps its tier."""
    fake.verdict = lambda _text, _labels: ("complex", 0.9)
    router = make_router(budgets=[HARD], classifier=ClaudeClassifier())
    async with router.bind() as binding:
        await library(router.claude, "auto").tools()
    verdict, *calls = fake.requests
    assert "Labels: " in str(verdict.body["system"])
    assert not any("Labels: " in str(r.body.get("system")) for r in calls)
    assert {d.label for d in binding.decisions} == {"complex"}
    assert len({r.model for r in calls}) == 1
    assert await balance(router) == (fake.billed, 0)


@each
@pytest.mark.parametrize("what", WHAT)
async def test_a_hard_budget(make_router: Callable[..., Router], fake: FakeClaude, library: Any, what: str) -> None:
    """A budget that has no room refuses a library's call before anything is sent, with Tierline's own error in it."""
    router = make_router(budgets=[Budget("$0.00000001/day")])
    with pytest.raises(Exception) as raised:  # noqa: PT011  (some wrap it)
        await getattr(library(router.claude, "auto"), what)()
    assert BudgetExceededError in {type(error) for error in _causes(raised.value)}
    assert fake.requests == []
    assert sum(b.spent + b.held for b in await router.balances()) == 0


def _causes(error: BaseException | None) -> list[BaseException]:
    """An error and all that it came from."""
    found: list[BaseException] = []
    while error is not None:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


@each
async def test_a_budget_downgrades(make_router: Callable[..., Router], fake: FakeClaude, library: Any) -> None:
    """A budget with room for a cheaper tier alone sends a library's call there."""
    # 2,000 tokens of output: $0.04 on Opus, $0.001 on Haiku.
    router = make_router(budgets=[Budget("$0.01/day")], classifier=FixedClassifier("complex"))
    async with router.bind() as binding:
        await library(router.claude, "auto").plain()
    assert models(fake) == [HAIKU]
    assert binding.decisions[-1].requested_tier == "opus"
    assert await balance(router) == (fake.billed, 0)


@each
async def test_retries_are_ours(make_router: Callable[..., Router], fake: FakeClaude, library: Any) -> None:
    """What fails is tried again by Tierline, as one call; for good, it reaches the library as the SDK's error."""
    router = make_router(budgets=[HARD], classifier=FixedClassifier("simple"), policy=policy(ceiling="haiku"))
    fake.script(Fault.overloaded(), Fault.error(500))
    async with router.bind() as binding:
        await library(router.claude, "auto").plain()
        assert [len(d.attempts) for d in binding.decisions] == [3]
        fake.always(None, Fault.error(400))
        with pytest.raises(Exception) as raised:  # noqa: PT011  (each has an error of its own around it)
            await library(router.claude, "auto").plain()
    assert anthropic.BadRequestError in {type(error) for error in _causes(raised.value)}
    assert len(fake.requests) == 4
    assert await balance(router) == (fake.billed, 0)


async def _pydantic_ai(client: Any) -> Any:
    return await PydanticAI(client, "auto").structured()


async def _langchain(client: Any) -> Any:
    chat = LangChain(client, "auto").chat
    return await chat.with_structured_output(City, method="function_calling").ainvoke("Where is it warm?")


async def _instructor(client: Any) -> Any:
    return await Instructor(client, SONNET).tools()


@pytest.mark.parametrize("ask", [_pydantic_ai, _langchain, _instructor])
async def test_a_forced_tool_above_its_tiers(make_router: Callable[..., Router], fake: FakeClaude, ask: Any) -> None:
    """A tool that a library forces under a floor whose tiers reject that is not sent: the error says which do so."""
    router = make_router(budgets=[HARD], policy=policy(explicit_model="route"))
    with policy(floor="sonnet"), pytest.raises(Exception, match="opus rejects forced tool") as raised:
        await ask(router.claude)
    assert IllegalRequestError in {type(error) for error in _causes(raised.value)}
    assert fake.requests == []
    assert await ask(router.claude)
    assert models(fake) == [HAIKU]


PLATFORMS: dict[str, tuple[Any, tuple[str, str, str]]] = {
    "bedrock": (
        lambda key, url: AsyncAnthropicBedrock(
            aws_access_key=key, aws_secret_key="secret", aws_region="us-east-1", base_url=url
        ),
        ("global.anthropic.claude-haiku-5-5", "us.anthropic.claude-sonnet-5-5", "us.anthropic.claude-opus-5-5"),
    ),
    "vertex": (
        lambda key, url: AsyncAnthropicVertex(region="us-east5", project_id="p", access_token=key, base_url=url),
        ("claude-haiku-4-5@20251001", "claude-sonnet-5-5", "claude-opus-5-5"),
    ),
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize(("library", "what"), UNFORCED)
async def test_platforms(
    make_router: Callable[..., Router], fake: FakeClaude, fake_url: str, library: Any, what: str, platform: str
) -> None:
    """A library over a client of another platform is routed, floored and metered as over the API's."""
    make, (haiku, sonnet, opus) = PLATFORMS[platform]
    async with make(fake.api_key, fake_url) as client:
        router = make_router(
            client,
            ladder=Ladder.of(haiku=haiku, sonnet=sonnet, opus=opus),
            budgets=[HARD],
            policy=policy(explicit_model="route", floor="sonnet"),
            classifier=FixedClassifier("simple"),
        )
        assert await getattr(library(router.claude, sonnet), what)()
    assert set(models(fake)) == {sonnet}
    assert {received.status for received in fake.requests} == {200}
    assert await balance(router) == (fake.billed, 0)
