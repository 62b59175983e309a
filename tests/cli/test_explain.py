"""`tierline explain`: what it says would become of a call becomes of it, and saying it sends and holds nothing."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from anthropic.types import Message
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Route
from typer.testing import CliRunner

from tests.needs import need
from tierline import Budget, Router, policy
from tierline.asgi import TierlineMiddleware
from tierline.classify import ClaudeClassifier, FixedClassifier, default_classifier
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.learn import Outcome
from tierline.testing import FakeClaude, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.requests import Request

need("typer", "rich")

from tierline.cli.app import app as command  # noqa: E402
from tierline.cli.foresight import foresee  # noqa: E402

UNCLEAR = "Our warehouse keeps losing parcels between the second scan and the truck. What would you look at?"
FORCED = {
    "tools": [{"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}],
    "tool_choice": {"type": "any"},
}

EACH = policy(budgets=[Budget("$1/day", "tenant")])


def body(text: str = "Is it open?", **more: Any) -> dict[str, Any]:
    return {"model": "auto", "max_tokens": 500, "messages": [{"role": "user", "content": text}], **more}


@pytest.mark.parametrize(
    ("options", "rules", "asked"),
    [
        pytest.param({}, (), body(), id="moderate"),
        pytest.param({"classifier": FixedClassifier("complex")}, (policy(ceiling="sonnet"),), body(), id="ceiling"),
        pytest.param({"classifier": default_classifier()}, (), body("Are you open on Saturday?"), id="by-weights"),
        pytest.param({"classifier": default_classifier()}, (), body("Prove the theorem of Bayes."), id="by-keyword"),
        pytest.param({}, (policy(tier="opus"), policy(ceiling="sonnet")), body(), id="pin"),
        pytest.param({}, (policy(label="complex"),), body(), id="label"),
        pytest.param({}, (policy(floor="opus"),), body(), id="one-tier"),
        pytest.param({}, (), body(model="claude-opus-5-5"), id="explicit"),
        pytest.param({}, (policy(explicit_model="ceiling"),), body(model="claude-haiku-5-5"), id="explicit-ceiling"),
        pytest.param({}, (), body(**FORCED), id="tool"),
        pytest.param({}, (), body(temperature=0.3), id="temperature"),
        pytest.param({}, (policy(max_tokens=100, expected_output=50),), body(), id="max-tokens"),
        pytest.param({"budgets": [Budget("$0.02")]}, (), body(), id="budget"),
        pytest.param({"budgets": [Budget("$0.002")]}, (), body(), id="no-room"),
        pytest.param({"budgets": [Budget("$0.002")]}, (policy(critical=True, floor="sonnet"),), body(), id="refused"),
        pytest.param({"budgets": [Budget("$0.0001", hard=False)]}, (), body(), id="soft"),
        pytest.param({"budgets": [Budget("$1", per="request")]}, (EACH,), body(), id="accounts"),
        pytest.param({"mode": "observe", "budgets": [Budget("$0.002")]}, (), body(), id="observed"),
    ],
)  # fmt: skip
async def test_it_becomes_what_was_said(
    make_router: Callable[..., Router], fake: FakeClaude, options: dict[str, Any], rules: Any, asked: dict[str, Any]
) -> None:
    """Tier, model, hold and body; a refusal is one. Before, nothing is sent, held or charged."""
    router = make_router(**options)
    async with router.bind(tenant="acme", route="/ask") as binding:
        found = await foresee(router, asked, binding, rules)
    assert (fake.requests, await router.balances(), len(await router.holds())) == ([], [], 0)
    (course,) = found.courses
    async with router.bind(tenant="acme", route="/ask") as binding:
        for rule in rules:
            binding.narrow(rule)
        if course.offer is None and router.mode == "enforce":
            assert not found.passes
            with pytest.raises(BudgetExceededError) as raised:
                await router.claude.messages.create(**asked)
            assert raised.value.refusal.budget == course.tight
            return
        await router.claude.post("/v1/messages", cast_to=Message, body=asked)
        decision = binding.decisions[-1]
    if decision.observed is not None:
        assert course.offer is not None
        assert (decision.observed.tier, decision.requested_tier) == (course.offer.tier, course.plan.requested)
        return
    assert found.passes
    assert course.offer is not None
    assert (decision.tier, decision.model, decision.source) == (
        course.offer.tier, course.offer.model, course.plan.source,
    )  # fmt: skip
    sent = fake.requests[-1].body
    assert {name: sent[name] for name in sent if name != "stream"} == course.body
    charged = {(each.line.budget, each.line.limit, each.room - (course.offer.cost or 0)) for each in found.accounts}
    assert {(each.budget, each.limit, each.remaining) for each in decision.budgets} == charged


async def test_each_verdict_of_claude(make_router: Callable[..., Router], fake: FakeClaude) -> None:
    """Where Claude would be asked it is not, and what becomes of the call is told for each answer."""
    router = make_router(classifier=default_classifier())
    async with router.bind() as binding:
        found = await foresee(router, body(UNCLEAR), binding)
    assert fake.requests == []
    assert found.verdict_cost is not None
    assert 0 < found.verdict_cost < 1_000_000
    told = {course.verdict: course.plan.requested for course in found.courses}
    assert told == {"": "sonnet", "simple": "haiku", "moderate": "sonnet", "complex": "opus"}
    async with router.bind() as binding:
        await router.claude.messages.create(**body(UNCLEAR))
        decision = binding.decisions[-1]
    assert decision.source == "claude"
    assert decision.tier == told[decision.label or ""]


async def test_a_question_that_is_not_worth_it(make_router: Callable[..., Router]) -> None:
    """The numbers say why Claude is not asked."""
    router = make_router(classifier=ClaudeClassifier(worth=1_000_000))
    async with router.bind() as binding:
        found = await foresee(router, body(UNCLEAR), binding)
    assert found.verdict_cost is None
    assert found.heard[-1].note.startswith("not asked: it would cost $0.0000")


async def test_what_a_route_has_taught(make_router: Callable[..., Router]) -> None:
    """The route chooses, and its outcomes are told."""
    router = make_router(classifier=default_classifier())
    for number in range(60):
        tier = "haiku" if number % 2 else "opus"
        router.learning.observe(Outcome("/ask", f"{UNCLEAR} {number}", tier, good=True))
    async with router.bind(route="/ask") as binding:
        found = await foresee(router, body(UNCLEAR), binding)
    assert found.forecast is not None
    assert round(found.forecast.evidence) == 60
    assert (found.courses[0].plan.source, found.courses[0].plan.requested) == ("route", "haiku")


async def test_what_is_no_request(make_router: Callable[..., Router]) -> None:
    """It says what is missing."""
    async with make_router().bind() as binding:
        with pytest.raises(ConfigurationError, match="needs a `model` and `messages`"):
            await foresee(binding.owner, {"model": "auto"}, binding)  # type: ignore[arg-type]


# As a person uses it


def desk() -> Any:
    """An app of a person's, made after the environment is set."""
    router = Router(classifier=default_classifier(), budgets=[Budget("$2/day", per="tenant", name="plan")])

    async def endpoint(_: Request) -> Response:
        return Response()

    return Starlette(
        routes=[Route("/contracts", policy(floor="sonnet", critical=True)(endpoint), methods=["POST"])],
        middleware=[Middleware(TierlineMiddleware, router=router)],
    )


def run(*arguments: str, **env: str) -> Any:
    found = {"COLUMNS": "120", "ANTHROPIC_API_KEY": "", **env}
    return CliRunner().invoke(command, ["explain", *arguments], env=found)


@pytest.fixture
def api() -> Iterator[FakeClaude]:
    """The offline API, for a process of its own loop."""
    fake = FakeClaude()
    with fake.serve_in_thread() as url:
        fake.url = url  # type: ignore[attr-defined]
        yield fake


NAMED = ("--factory", "--app", "tests.cli.test_explain:desk", "--route", "/contracts", "--tenant", "acme")


def test_what_a_person_sees() -> None:
    """Each step, with where its policy is written, and the money."""
    done = run("Prove it.", *NAMED)
    assert done.exit_code == 0, done.output
    for line in (
        r"POST /contracts, tenant acme",
        r"floor sonnet, critical \(decorator, tests/cli/test_explain.py:\d+\)",
        r"so: tiers from sonnet to opus, critical",
        r"keyword +complex 0.90 +the text has \"prove\"",
        r"haiku +claude-haiku-5-5 +\$0.000\d+ +\$0.000\d+ +below the floor",
        r"plan +acme +\$0.00 +\$0.00 +\$2.00 +\$2.00 +each day in UTC",
        r"→ opus \(claude-opus-5-5\): holds \$0.02\d+, about \$0.00\d+ expected",
        r"where it fails: no other tier is tried",
    ):
        assert re.search(rf"^ +{line} *$", done.output, re.MULTILINE), (line, done.output)


@pytest.mark.parametrize("tenant", ["[/x]", "[red]acme[/red] :cat:", "[link=https://example.org]acme[/link]"])
def test_a_tenant_that_reads_like_markup(tenant: str) -> None:
    """It is shown as it is called."""
    done = run("Prove it.", *NAMED[:-1], tenant)
    assert done.exit_code == 0, done.output
    assert re.search(rf"^ +plan +{re.escape(tenant)} +\$0.00", done.output, re.MULTILINE), done.output


def test_it_is_sent_after_all(api: FakeClaude) -> None:
    """With --send what happened is told beside it, and paid for by the accounts of the call."""
    env = {"ANTHROPIC_API_KEY": api.api_key, "ANTHROPIC_BASE_URL": api.url}  # type: ignore[attr-defined]
    done = run("Prove it.", *NAMED, "--send", **env)
    assert done.exit_code == 0, done.output
    assert len(api.requests) == 1
    assert re.search(r"What happened\n +opus \(claude-opus-5-5\) by keyword\n +\$0\.\d+ in ", done.output)
    told = json.loads(run("Prove it.", *NAMED, "--send", "--json", **env).stdout)
    assert (told["sent"]["tier"], told["courses"][0]["tier"], told["sent"]["error"]) == ("opus", "opus", None)
    api.always(None, Fault.error(400))
    failed = run("Prove it.", *NAMED, "--send", **env)
    assert (failed.exit_code, "BadRequestError" in failed.stdout) == (1, True), failed.output


def test_an_answer_does_not_move_the_cursor(api: FakeClaude) -> None:
    """Whoever wrote a prompt may have what they like in an answer, on each line of it: a terminal obeys none."""
    env = {"ANTHROPIC_API_KEY": api.api_key, "ANTHROPIC_BASE_URL": api.url}  # type: ignore[attr-defined]
    api.answer = lambda _: "one\x1b]0;title\x07\ntwo\x9b2J"
    done = run("Prove it.", *NAMED, "--send", **env)
    assert re.search(r"one·]0;title·\n +two·2J", done.stdout), done.output
    assert not set("\x1b\x07\x9b") & set(done.stdout)


def test_a_refusal_is_an_exit_code() -> None:
    """1, and which budget has no room; 1 for what no tier takes, too."""
    done = run("Prove it.", *NAMED, "--max-tokens", "100000", "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["passes"], told["courses"][0]["tight"]) == (1, False, "plan")
    assert "REFUSED: budget plan has no room for $2." in run("Prove it.", *NAMED, "--max-tokens", "100000").stdout
    unknown = run("Prove it.", *NAMED, "--model", "claude-unknown-9")
    assert (unknown.exit_code, "UnknownModelError: model 'claude-unknown-9'" in unknown.stdout) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "what is asked?"),
        (("hi", "--body", "x.json"), "a prompt or --body"),
        (("--body", "tests/cli/test_explain.py"), "is no JSON"),
        (("--body", "nothing.json"), "No such file"),
        (("hi", "--store", "sqlite:///nothing.db"), "there is no file nothing.db"),
        (("hi", "--store", "sqlite:///nothing.db", *NAMED), "--store is for without --app"),
        (
            ("hi", *NAMED[:3], "--route", "/other"),
            "there is no such route under a TierlineMiddleware; there are /contr",
        ),
        (("hi", "--send"), "--send needs a key"),
    ],
)
def test_what_cannot_be_explained(arguments: tuple[str, ...], says: str) -> None:
    """2, and one line that says what to write."""
    done = run(*arguments)
    assert (done.exit_code, says in done.stderr) == (2, True), done.output


def test_from_stdin_and_from_a_file(tmp_path: Any) -> None:
    """A prompt, and a whole request."""
    found = CliRunner().invoke(command, ["explain", "-", "--json"], input="Prove it.\n")
    assert json.loads(found.stdout)["courses"][0]["tier"] == "opus"
    (tmp_path / "request.json").write_text(json.dumps({"messages": body()["messages"], **FORCED}))
    told = json.loads(run("--body", str(tmp_path / "request.json"), "--json").stdout)
    assert told["call"]["features"] == ["forced tool"]
    assert [tier["note"] for tier in told["tiers"]] == ["", "rejects forced tool", "rejects forced tool"]
