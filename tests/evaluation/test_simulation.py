"""Recorded decisions under another policy: the same one gives the same, and others move what they should."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from anthropic import beta_async_tool
from fastapi import FastAPI

from tests.needs import need
from tierline import Budget, Ladder, Policy, Router, policy
from tierline.asgi import TierlineMiddleware
from tierline.attempts import Timing
from tierline.classify import FixedClassifier
from tierline.decisionlog import DecisionLog, record_of
from tierline.errors import ConfigurationError
from tierline.evaluation import Scenario, read_scenario, simulate
from tierline.evaluation.rows import read
from tierline.evaluation.scenario import scenario_of
from tierline.evaluation.simulation import REFUSED, Quality, Sums
from tierline.fastapi import Claude, Routing  # noqa: TC001  (FastAPI reads annotations)
from tierline.ladder import DEFAULT_LADDER
from tierline.learn import Outcome, OutcomeModel
from tierline.prices import PriceBook
from tierline.testing import FakeClaude, Fault, Reply
from tierline.values import NANO, Attempt, Classification, Decision, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from tierline import Report

TIERS = ("haiku", "sonnet", "opus")
ROUTES = {"/contracts/*": policy(floor="sonnet"), "/pinned": policy(tier="opus"), "/cheap": policy(ceiling="haiku")}
LABELS = (("simple", 0.9), ("moderate", 0.9), ("complex", 0.9), ("simple", 0.4), ("moderate", 0.55))


class Told:
    """A classifier that is told the label and the confidence in the text; "?" is no opinion."""

    name = fingerprint = "told"
    cacheable = False

    async def classify(self, view: Any, _consult: Any) -> Classification | None:
        label, _, sure = view.text.partition(" ")
        return None if label == "?" else Classification(label, float(sure), "local")


def taught() -> OutcomeModel:
    """A model that knows of one route that Haiku will do there, and of another that it will not."""
    model = OutcomeModel(TIERS)
    for number in range(60):
        for tier in TIERS:
            model.observe(Outcome("/easy", f"order {number}", tier, good=1))
            model.observe(Outcome("/hard", f"order {number}", tier, good=int(tier == "opus")))
    return model


async def write_log(path: Path, *, text: bool = False, prepare: Callable[[FakeClaude], None] = lambda _: None,
                    calls: int = 60, **options: Any) -> Router:  # fmt: skip
    """A log that a real Router wrote, of calls on several routes."""
    fake = FakeClaude()
    prepare(fake)
    written = DecisionLog(path, text=text)
    timing = Timing(sleep=lambda _: asyncio.sleep(0))
    router = Router(fake.client(), classifier=Told(), decision_log=written, outcomes=taught(), timing=timing, **options)
    app = FastAPI(lifespan=router.lifespan)
    app.add_middleware(TierlineMiddleware, router=router, routes=ROUTES, tenant=lambda scope: scope["path"])

    @app.get("/explicit")
    async def explicit(claude: Claude) -> None:
        await claude.messages.create(
            model="claude-opus-5-5", max_tokens=300, messages=[{"role": "user", "content": "moderate 0.9"}]
        )

    async def ask(claude: Claude, routing: Routing, said: str) -> str:
        await claude.messages.create(model="auto", max_tokens=300, messages=[{"role": "user", "content": said}])
        return routing.decisions[-1].tier

    for place in ("/plain", "/easy", "/hard", "/pinned", "/cheap", "/contracts/{kind}"):
        app.get(place)(ask)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with router.lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://desk") as browser:
        places = ("/plain", "/easy", "/hard", "/contracts/new", "/pinned", "/cheap", "/explicit")
        for number in range(calls):
            label, sure = LABELS[number // 7 % 5]
            said = "? " if number % 13 == 12 else f"{label} {sure}"
            await browser.get(places[number % 7], params={"said": said})
    return router


SAME = Scenario(routes=ROUTES)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The log of a Router of which nothing more is asked, and its own report."""
    path = tmp_path_factory.mktemp("log") / "decisions.jsonl"
    return path, asyncio.run(write_log(path)).report()


def wanted(scenario: Scenario, path: Path, **more: Any) -> Any:
    return simulate(read(path), scenario, **more)


@pytest.mark.parametrize("name", ["decisions.jsonl", "decisions.db"])
async def test_the_same_policy_gives_the_same(tmp_path: Path, name: str) -> None:
    """Tier by tier, route by route, to the nano-USD: over pins, lessons, doubts, silence and explicit ids."""
    path = tmp_path / name
    router = await write_log(path)
    found = wanted(SAME, path)
    assert (found.calls, found.simulated, found.moved, found.unknown) == (60, 60, 0, {})
    assert found.cost == found.cost_then == found.cost_today == router.report().cost > 0
    assert found.saved == found.refused == found.held == 0
    for sums in (*found.by_tier.values(), *found.by_route.values()):
        assert (sums.calls, sums.cost) == (sums.calls_then, sums.cost_then)
    assert {name: sums.calls for name, sums in found.by_tier.items()} == {
        name: spend.calls for name, spend in router.report().by_tier.items()
    }
    sources = {(row.record or {})["source"] for row in read(path)}
    assert sources == {"local", "route", "pin", "fixed", "explicit", "default"}


def test_other_policies_move_what_they_should(log: tuple[Path, Report]) -> None:
    """All on the top costs what the recorded tokens cost there; a floor, a threshold and a ladder do their part."""
    path, report = log
    top = wanted(Scenario(policy=Policy(tier="opus")), path)
    assert top.cost_then == report.all_on["opus"]
    assert set(top.by_tier) == {"haiku", "sonnet", "opus"}
    assert (top.by_tier["opus"].calls_then, top.moved) == (60, 60 - report.by_tier["opus"].calls)
    assert top.saved < 0
    floor = wanted(Scenario(policy=Policy(floor="sonnet"), routes=ROUTES), path)
    assert floor.by_tier["haiku"].calls_then == 0
    assert "raised to the floor sonnet" in {move.why for move in floor.moves}
    brave = wanted(Scenario(routes=ROUTES, min_confidence=0.3), path)
    assert brave.by_tier["haiku"].calls_then > brave.by_tier["haiku"].calls
    assert {move.why for move in brave.moves} <= {"local: simple", "local: moderate", "raised to the floor sonnet"}
    slow = wanted(Scenario(routes=ROUTES, learn_after=1_000), path)
    assert slow.unknown == {"nobody was asked what it is (source route), and its text is not in the log": 18}
    two = Ladder.of(haiku="claude-haiku-5-5", opus="claude-opus-5-5")
    gone = wanted(Scenario(ladder=two), path)
    assert gone.by_tier["sonnet"].calls_then == 0
    assert gone.simulated + sum(gone.unknown.values()) == 60
    other = Ladder.of(haiku="claude-haiku-4-5", sonnet="claude-sonnet-4-6", opus="claude-opus-4-8")
    dearer = wanted(Scenario(ladder=other, routes=ROUTES), path)
    assert dearer.cost_then > dearer.cost
    for found in (top, floor, brave, slow, gone, dearer):
        assert sum(s.cost_then for s in found.by_tier.values()) == found.cost_then
        assert sum(s.cost for s in found.by_route.values()) == found.cost
        assert sum(move.calls for move in found.moves) == found.moved
        changed = sum(move.saved for move in found.moves)
        assert changed == found.saved or found is dearer  # its models changed where tiers did not


async def test_texts_say_what_nobody_was_asked(tmp_path: Path) -> None:
    """Where the log has texts, a classifier judges what was pinned, explicit or learned."""
    path = tmp_path / "decisions.jsonl"
    await write_log(path, text=True)
    alone = wanted(Scenario(), path)
    assert sum(alone.unknown.values()) == 60 - alone.simulated == 16
    assert all(why.startswith("nobody was asked what it is") for why in alone.unknown)
    judged = wanted(Scenario(), path, classifier=Told())
    assert judged.unknown == {}
    assert judged.simulated == 60


def test_what_routes_have_taught_says_how_good(log: tuple[Path, Report]) -> None:
    """The forecasts in the log, and grades of its decisions, say what a policy loses; what nobody knows is left out."""
    path, _ = log
    grades = {row.id: {"haiku": 0.0, "opus": 1.0} for row in read(path) if row.route == "/hard"}
    low = wanted(Scenario(policy=Policy(tier="haiku")), path, grades=grades)
    assert low.forecast is not None
    assert low.forecast.simulated < low.forecast.recorded - 0.2
    assert low.graded == Quality(len(grades), 1.0, 0.0)
    assert wanted(SAME, path).graded is None


def test_budgets_fill_up_as_they_are_spent(log: tuple[Path, Report]) -> None:
    """Downgrades from the shares on, refusals where there is no room; per tenant each has its own."""
    path, _ = log
    free = wanted(SAME, path)
    spent = free.cost / NANO
    tight = wanted(Scenario(routes=ROUTES, budgets=(Budget(f"${spent / 4:.6f}", name="all"),)), path)
    assert tight.refused > 0
    assert tight.cost_then <= spent / 4 * NANO
    assert tight.by_tier[REFUSED].calls_then == tight.refused
    assert {move.why for move in tight.moves} >= {"budget all", "budget all refuses it"}
    soft = Budget(f"${spent / 4:.6f}", name="soft", hard=False, downgrade_at=0.5, cheapest_at=0.5)
    lower = wanted(Scenario(routes=ROUTES, budgets=(soft,)), path)
    assert (lower.refused, lower.cost_then < free.cost) == (0, True)
    each = wanted(Scenario(routes=ROUTES, budgets=(Budget("$10", per="tenant"), Budget("$10", per="run"))), path)
    assert (each.moved, each.refused) == (0, 0)


async def test_what_failed_and_what_fell_back(tmp_path: Path) -> None:
    """A call without an answer is not simulated; one that fell back falls back again, where it goes the same way."""
    path = tmp_path / "decisions.jsonl"

    def prepare(fake: FakeClaude) -> None:
        fake.always("claude-sonnet-5-5", Fault.overloaded())

    await write_log(path, prepare=prepare, calls=28)
    found = wanted(SAME, path)
    assert found.moved == 0
    assert found.cost == found.cost_then
    assert any(attempt["role"] == "fallback" for row in read(path) for attempt in (row.record or {})["attempts"])
    bad = tmp_path / "bad.jsonl"
    await write_log(bad, prepare=lambda fake: fake.always(None, Fault.error(400, "no")), calls=7)
    assert set(wanted(SAME, bad).unknown) == {
        "it was not answered (invalid_request_error), so what it would use is not known"
    }


async def test_what_was_only_observed(tmp_path: Path) -> None:
    """A log of mode observe says what enforcing would save, before anything is enforced."""
    path = tmp_path / "decisions.jsonl"
    router = await write_log(path, mode="observe")
    seen = router.report().observed
    found = wanted(SAME, path)
    assert (found.cost, found.cost_then) == (seen.cost + seen.saved, seen.cost)
    assert {name: sums.calls_then for name, sums in found.by_tier.items()} == {
        name: spend.calls for name, spend in seen.by_tier.items()
    }


async def test_conversations_stay_as_recorded(tmp_path: Path) -> None:
    """What stayed for its warm cache stays, and is counted; a ceiling below takes it down all the same."""
    path, fake = tmp_path / "decisions.jsonl", FakeClaude()
    router = Router(fake.client(), classifier=FixedClassifier("moderate"), decision_log=path)
    system = [{"type": "text", "text": "lorem ipsum " * 12_000}]
    said: list[Any] = [{"role": "user", "content": "hi"}]
    async with router.bind():
        for label in ("complex", "moderate"):
            with policy(label=label):  # type: ignore[arg-type]
                await router.claude.messages.create(
                    model="auto", max_tokens=300, messages=said, system=system,  # type: ignore[arg-type]
                    cache_control={"type": "ephemeral"},
                )  # fmt: skip
            said += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": "and?"}]
    await router.aclose()
    found = wanted(Scenario(), path)
    assert (found.moved, found.held, found.by_tier["opus"].calls_then) == (0, 1, 2)
    assert any("stay as recorded" in note for note in found.notes)
    low = wanted(Scenario(policy=Policy(ceiling="sonnet")), path)
    assert low.by_tier["sonnet"].calls_then == 2


def test_a_file_of_something_else(tmp_path: Path) -> None:
    """Rows that are no decisions, and records of another version, are told."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": "simple"}\n')
    with pytest.raises(ConfigurationError, match="line 1: it is no decision"):
        wanted(SAME, path)
    path.write_text('{"v": 9, "id": "a", "requested_tier": "haiku", "attempts": [], "tier": "haiku"}\n')
    assert wanted(SAME, path).unknown == {"written by another version of Tierline": 1}


@pytest.mark.parametrize(
    "wrong", [{"at": "noon"}, {"at": 10**400}, {"cost": "much"}, {"attempts": [5]}, {"confidence": "very"}]
)
def test_records_that_nobody_wrote(tmp_path: Path, log: tuple[Path, Report], wrong: dict[str, Any]) -> None:
    """A record that was changed by hand is left out, and counted."""
    first = next((row.record or {}) for row in read(log[0]))
    path = tmp_path / "decisions.jsonl"
    path.write_text(json.dumps({**first, **wrong}) + "\n")
    scenario = Scenario(routes=ROUTES, budgets=(Budget("$1/day"),))
    assert wanted(scenario, path).unknown == {"the record is not as a Router writes it": 1}


async def test_what_the_server_holds(tmp_path: Path) -> None:
    """The SDK's tool runner keeps its model, in a simulation too, unless the policy forbids that."""
    path, replies = tmp_path / "decisions.jsonl", [Reply(tool="look", input={"n": 1}), Reply(text="Done.")]
    fake = FakeClaude(answer=lambda _: replies.pop(0))

    @beta_async_tool
    async def look(n: int) -> str:
        """Look something up.

        Args:
            n: Which.
        """
        return f"{n} is prime"

    router = Router(fake.client(), decision_log=path, policy=policy(label="complex"))
    await router.claude.beta.messages.tool_runner(
        model="auto", max_tokens=900, tools=[look], messages=[{"role": "user", "content": "Go."}]
    ).until_done()
    await router.aclose()
    found = wanted(Scenario(), path)
    assert (found.simulated, found.moved, found.by_tier["opus"].calls_then) == (2, 0, 2)
    low = wanted(Scenario(policy=Policy(ceiling="sonnet")), path)
    assert low.by_tier["sonnet"].calls_then == 2


def made(**fields: Any) -> str:
    """A line of a log: a call that Sonnet answered with the second attempt, as the fields say."""
    usage = Usage(1_000, 100)
    tried = fields.pop("tried", ("sonnet", "sonnet"))
    models = {tier.name: tier.model for tier in DEFAULT_LADDER}
    attempts = (
        Attempt(tried[0], models[tried[0]], "first", "ok", usage, 3_000_000),
        Attempt(tried[1], models[tried[1]], "retry" if tried[0] == tried[1] else "fallback", "ok", usage, 3_000_000),
    )
    decision = Decision("a", "sonnet", models["sonnet"], tried[0], fields.pop("label", "moderate"), 0.9, "local",
                        attempts=attempts, usage=usage + usage, cost=6_000_000, settled=True, **fields)  # fmt: skip
    return json.dumps(record_of(decision, at=1.0, outcome="ok")) + "\n"


def test_only_the_answer_is_asked_for_elsewhere(tmp_path: Path) -> None:
    """Of several attempts that used something the recorded cost has all, and another tier's only the last."""
    path = tmp_path / "decisions.jsonl"
    path.write_text(made())
    same, lower = wanted(Scenario(), path), wanted(Scenario(policy=Policy(tier="haiku")), path)
    assert (same.cost, same.cost_then, same.cost_today) == (6_000_000,) * 3
    assert (lower.cost, lower.cost_then) == (6_000_000, PriceBook().cost("claude-haiku-5-5", Usage(1_000, 100)))


def test_what_went_on_goes_on_where_it_may(tmp_path: Path) -> None:
    """A fallback comes again where the call begins alike; not with another model, nor above a ceiling."""
    path = tmp_path / "decisions.jsonl"
    path.write_text(made(tried=("haiku", "sonnet"), label="simple"))
    again = wanted(Scenario(), path)
    assert (again.moved, again.cost_then) == (0, 6_000_000)
    assert wanted(Scenario(policy=Policy(ceiling="haiku")), path).by_tier["haiku"].calls_then == 1
    other = Ladder.of(haiku="claude-haiku-4-5", sonnet="claude-sonnet-5-5", opus="claude-opus-5-5")
    assert wanted(Scenario(ladder=other), path).by_tier["haiku"].calls_then == 1
    free = Ladder.of(haiku="my-own", sonnet="claude-sonnet-5-5", opus="claude-opus-5-5")
    assert wanted(Scenario(ladder=free), path).unknown == {"model my-own has no known price": 1}


async def test_steps_of_agents(tmp_path: Path) -> None:
    """Steps that were routed by themselves go where they went, and below a lower ceiling with the rest."""
    path, fake = tmp_path / "decisions.jsonl", FakeClaude()
    router = Router(fake.client(), decision_log=path, policy=policy(label="complex", per_step=True))
    said: list[Any] = [{"role": "user", "content": "hi"}]
    tools: list[Any] = [{"name": "look", "input_schema": {"type": "object"}}]
    for number in range(3):
        fake.answer = lambda _, n=number: Reply(tool="look", input={"n": n})  # type: ignore[misc]
        more: Any = {} if number < 2 else {"tool_choice": {"type": "tool", "name": "look"}}
        message = await router.claude.messages.create(model="auto", max_tokens=900, messages=said, tools=tools, **more)
        block = message.content[-1]
        said += [
            {"role": "assistant", "content": [each.model_dump() for each in message.content]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "5"}]},  # type: ignore[union-attr]
        ]
    await router.aclose()
    found = wanted(Scenario(), path)
    assert {name: sums.calls for name, sums in found.by_tier.items()} == {"haiku": 1, "opus": 2}
    assert (found.moved, found.cost_then) == (0, found.cost)
    assert wanted(Scenario(policy=Policy(ceiling="sonnet")), path).by_tier["sonnet"].calls_then == 2


# The file

WHOLE = """
min_confidence = 0.7
learn_after = 50
[ladder]
small = "claude-haiku-5-5"
large = "claude-opus-5-5"
[labels]
moderate = "small"
[policy]
quality = 0.9
[routes."/contracts/*"]
floor = "large"
critical = true
[[budgets]]
amount = "$5/day"
per = "tenant"
cheapest_at = false
"""


def test_a_policy_file(tmp_path: Path) -> None:
    """Every part of it is read."""
    path = tmp_path / "new.toml"
    path.write_text(WHOLE)
    found = read_scenario(path)
    assert [tier.name for tier in found.ladder] == ["small", "large"]
    assert found.ladder.labels["moderate"] == 0
    assert (found.min_confidence, found.learn_after) == (0.7, 50)
    assert found.policy_for("/contracts/{id}").floor == 1
    assert found.policy_for("/contracts/{id}").critical
    assert found.policy_for("/other").floor == found.policy_for(None).floor == 0
    assert found.policy_for("/other").quality == 0.9
    assert found.budgets == (Budget("$5/day", per="tenant", cheapest_at=None),)
    path.write_text("")
    assert read_scenario(path) == Scenario()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("quality = 1", "quality cannot be simulated; there are min_confidence"),
        ("[policy]\nmax_tokens = 5", r"policy\.max_tokens cannot be simulated; there are floor"),
        ("[policy]\nfloor = 'x'", "policy: floor: there is no tier 'x'"),
        ("policy = 5", "policy is 5; write a table"),
        ("routes = 5", "routes is 5; write a table"),
        ("[routes.x]\nfloor = 'opus'", "a pattern begins with '/'"),
        ("[ladder]\nopus = 5", r"ladder\.opus is 5; write opus ="),
        ("budgets = 5", "budgets is no list"),
        ("[[budgets]]\nper = 'tenant'", "budgets, number 1: write"),
        ("[[budgets]]\namount = 5", "amount is 5, which is no str"),
        ("[[budgets]]\namount = '$1'\nper = 'request'", "a log does not tell requests apart"),
        ("[[budgets]]\namount = '$1'\nwhen = 5", "when cannot be simulated"),
        ("[[budgets]]\namount = '$1'\n[[budgets]]\namount = '$1'\nhard = false", "two budgets are called"),
        ("min_confidence = 2", "min_confidence is 2"),
        ("learn_after = 0", "learn_after is 0"),
        ("= 5", "is no TOML"),
    ],
)  # fmt: skip
def test_policy_files_that_cannot_be(tmp_path: Path, text: str, told: str) -> None:
    """The file and the key are named, and what there is instead."""
    path = tmp_path / "new.toml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=told) as caught:
        read_scenario(path)
    assert str(path) in str(caught.value)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_scenario(tmp_path / "none.toml")


def test_the_command(tmp_path: Path, log: tuple[Path, Report]) -> None:
    """Tables for people, JSON for machines, one line for what cannot be."""
    need("typer", "rich")
    from typer.testing import CliRunner

    from tierline.cli.app import app

    path, new = log[0], tmp_path / "new.toml"
    new.write_text('[policy]\nceiling = "sonnet"\n')

    def run(*more: str) -> Any:
        command = ["simulate", str(path), "--policy", str(new), *more]
        return CliRunner().invoke(app, command, env={"COLUMNS": "200"})

    done = run()
    assert done.exit_code == 0, done.output
    for words in ("calls, decided again", "by route", "lowered to the ceiling sonnet", "saved", "note: another tier"):
        assert words in done.stdout
    found: Mapping[str, Any] = json.loads(run("--json").stdout)
    same = simulate(read(path), read_scenario(new))
    assert (found["cost"], found["cost_then"], found["saved"]) == (same.cost, same.cost_then, same.saved)
    assert Sums(**found["by_tier"]["opus"]) == same.by_tier["opus"]
    new.write_text("flor = 1")
    wrong = run()
    assert (wrong.exit_code, "flor cannot be simulated" in wrong.stderr) == (2, True)
    assert scenario_of({}) == Scenario()
