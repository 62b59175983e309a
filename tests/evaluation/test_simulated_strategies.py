"""Recorded decisions under policies that escalate or speculate: what is expected of it, what is known, what is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.evaluation.test_simulation import ROUTES, Told, taught, wanted, write_log
from tests.needs import need
from tierline import Budget, Ladder, Policy, Router, policy
from tierline.classify import ClaudeClassifier
from tierline.decisionlog import record_of
from tierline.errors import ConfigurationError
from tierline.escalation import Escalate
from tierline.evaluation import Assumed, Scenario, read_scenario
from tierline.evaluation.rows import read
from tierline.evaluation.simulation import Escalation, Quality, Speculation
from tierline.ladder import DEFAULT_LADDER
from tierline.prices import PriceBook
from tierline.testing import FakeClaude, Reply
from tierline.values import Attempt, Chance, Decision, Forecast, Usage

if TYPE_CHECKING:
    from pathlib import Path

    from tierline.testing import Received

USED = Usage(1_000, 100)
MODELS = {tier.name: tier.model for tier in DEFAULT_LADDER}
HAIKU, SONNET, OPUS = (PriceBook().cost(model, USED) or 0 for model in MODELS.values())
CHANCES = {"haiku": 0.6, "sonnet": 0.8, "opus": 0.95}
UNKNOWN = "how good its answers are is neither in the log nor graded"
ESCALATING = Scenario(policy=Policy(escalate=True))


def line(tier: str = "sonnet", chances: dict[str, float] | None = None, tools: int = 0, **fields: Any) -> str:
    """A line of a log: a call that one tier answered."""
    forecast = Forecast(tuple(Chance(name, good, 20.0) for name, good in chances.items()), 60.0) if chances else None
    cost = PriceBook().cost(MODELS[tier], USED) or 0
    tried = fields.pop("attempts", (Attempt(tier, MODELS[tier], "first", "ok", USED, cost),))
    whole = {"label": "moderate", "confidence": 0.9, "source": "local", **fields}
    decision = Decision("a", tier, MODELS[tier], tier, attempts=tried, usage=USED, cost=sum(a.cost for a in tried),
                        settled=True, forecast=forecast, **whole)  # fmt: skip
    return json.dumps(record_of(decision, at=1.0, outcome="ok", tools=tools)) + "\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a log is to be."""
    return tmp_path / "decisions.jsonl"


def test_a_chain_costs_what_its_answers_cost_as_often_as_they_are_asked(path: Path) -> None:
    """Cost, quality and shares are sums over the tiers, by the recorded chances and the assumed rates."""
    path.write_text(line(chances=CHANCES))
    found = wanted(ESCALATING, path)
    on = 0.4 * 0.7 + 0.6 * 0.1
    further = on * (0.2 * 0.7 + 0.8 * 0.1)
    assert (found.simulated, found.unknown) == (1, {})
    assert found.cost == SONNET
    assert found.cost_then == round(HAIKU + on * SONNET + further * OPUS)
    shares = {"haiku": round(1 - on, 4), "sonnet": round(on - further, 4), "opus": round(further, 4)}
    told = "70% of poor answers are noticed, 10% of good ones rejected"
    assert found.escalation == Escalation(1, shares, round(on + further, 4), (told,))
    assert found.forecast is not None
    assert found.forecast.recorded == 0.8
    assert found.forecast.simulated == pytest.approx(0.6 * 0.9 + on * 0.8 * 0.9 + further * 0.95)
    assert found.by_tier["haiku"].calls_then == found.moved == 1
    assert any("70% of poor answers are noticed" in note for note in found.notes)
    perfect = wanted(Scenario(policy=Policy(escalate=Assumed(noticed=1, false_alarms=0))), path)
    assert perfect.cost_then == round(HAIKU + 0.4 * SONNET + 0.4 * 0.2 * OPUS)
    assert perfect.forecast.simulated == pytest.approx(1 - 0.4 * 0.2 * 0.05)
    usual = wanted(Scenario(policy=Policy(escalate=Escalate(graded=True))), path)
    assert usual.cost_then == found.cost_then


def test_floors_and_ceilings_bound_a_chain(path: Path) -> None:
    """It goes from the floor to the ceiling; where they meet there is none."""
    path.write_text(line(chances=CHANCES))
    high = wanted(Scenario(policy=Policy(escalate=True, floor="sonnet")), path)
    assert high.cost_then == round(SONNET + (0.2 * 0.7 + 0.8 * 0.1) * OPUS)
    low = wanted(Scenario(policy=Policy(escalate=True, ceiling="sonnet")), path)
    assert low.cost_then == round(HAIKU + (0.4 * 0.7 + 0.6 * 0.1) * SONNET)
    for one in (Policy(escalate=True, floor="opus"), Policy(escalate=True, tier="haiku"), Policy(escalate=False)):
        assert wanted(Scenario(policy=one), path).escalation is None
    path.write_text(line(chances=CHANCES, route="/a"))
    off = Scenario(policy=Policy(escalate=True), routes={"/*": Policy(escalate=False)})
    assert wanted(off, path).escalation is None


def test_a_route_that_knows_begins_higher(path: Path) -> None:
    """Where the cheapest tier is seldom good, a chain begins where a Router's begins."""
    path.write_text(line(chances={"haiku": 0.02, "sonnet": 0.9, "opus": 0.95}))
    found = wanted(ESCALATING, path)
    assert found.escalation is not None
    assert "haiku" not in found.escalation.answers
    assert found.cost_then == round(SONNET + (0.1 * 0.7 + 0.9 * 0.1) * OPUS)
    late = wanted(Scenario(policy=Policy(escalate=True), learn_after=1_000), path)
    assert "haiku" in late.escalation.answers  # so few outcomes are not asked


def test_what_nobody_knows_is_not_made_up(path: Path) -> None:
    """Neither forecast nor grades: it is counted. Grades go before forecasts, and say how good a chain is."""
    path.write_text(line())
    assert wanted(ESCALATING, path).unknown == {UNKNOWN: 1}
    only = wanted(ESCALATING, path, grades={"a": {"haiku": 0.0}})
    assert only.unknown == {UNKNOWN: 1}
    good = wanted(ESCALATING, path, grades={"a": {"haiku": 0.0, "sonnet": 1.0, "opus": 1.0}})
    assert good.cost_then == round(HAIKU + 0.7 * SONNET + 0.7 * 0.1 * OPUS)
    assert good.graded == Quality(1, 1.0, pytest.approx(0.7))
    assert good.by_tier["sonnet"].calls_then == 1  # 0.63 of it
    path.write_text(line(chances=CHANCES))
    mixed = wanted(ESCALATING, path, grades={"a": {"haiku": 1.0, "sonnet": 0.8}})
    assert mixed.graded is None  # of Opus there is no grade
    assert mixed.cost_then == round(HAIKU + 0.1 * SONNET + 0.1 * (0.2 * 0.7 + 0.8 * 0.1) * OPUS)
    strange = Ladder.of(haiku="claude-haiku-5-5", sonnet="my-own", opus="claude-opus-5-5")
    unpriced = wanted(Scenario(ladder=strange, policy=Policy(escalate=True)), path)
    assert unpriced.unknown == {"model my-own has no known price": 1}


def test_critical_calls_and_labels_begin_where_they_would(path: Path) -> None:
    """Their tier is chosen as ever, and the chain goes up from there."""
    path.write_text(line(chances=CHANCES))
    for one in (Policy(escalate=True, label="moderate"), Policy(escalate=True, critical=True, quality=1.0)):
        found = wanted(Scenario(policy=one, learn_after=1_000), path)
        assert found.cost_then == round(SONNET + (0.2 * 0.7 + 0.8 * 0.1) * OPUS)


def test_budgets_end_a_chain(path: Path) -> None:
    """One that is full, or begins to save on the way, asks no second answer."""
    path.write_text(line(chances=CHANCES))
    room = HAIKU + SONNET - 1
    full = Budget(f"${room / 1e9:.9f}", downgrade_at=None, cheapest_at=None)
    saves = Budget(f"${2 * HAIKU / 1e9:.9f}", downgrade_at=0.5, cheapest_at=None, hard=False)
    for budget in (full, saves):
        found = wanted(Scenario(policy=Policy(escalate=True), budgets=(budget,)), path)
        assert (found.cost_then, found.escalation.more) == (HAIKU, 0)


def test_tool_loops(path: Path) -> None:
    """Steps that are told stay as recorded; where the log does not tell them, the call is left out."""
    path.write_text(line(chances=CHANCES, tools=2))
    (why,) = wanted(ESCALATING, path).unknown
    assert why.startswith("tools were offered")
    step = {"source": "sticky", "label": None, "confidence": 0.0, "reasons": ("a tool loop stays on sonnet",)}
    path.write_text(line(tools=2, **step))
    kept = wanted(ESCALATING, path)
    assert (kept.simulated, kept.cost_then, kept.moved, kept.escalation) == (1, SONNET, 0, None)
    assert wanted(Scenario(policy=Policy(escalate=True, ceiling="haiku")), path).by_tier["haiku"].calls_then == 1
    path.write_text(line("opus", tools=2, label="complex", source="step"))
    assert wanted(ESCALATING, path).by_tier["opus"].calls_then == 1


async def test_calls_of_a_router_that_did_not_escalate(path: Path) -> None:
    """Pins, ids and single tiers stay; routes that have learned escalate; what nobody taught is counted."""
    await write_log(path)
    rows = [row.record or {} for row in read(path)]
    found = wanted(Scenario(policy=Policy(escalate=True), routes=ROUTES), path)
    fixed = [each for each in rows if each["route"] in ("/pinned", "/cheap", "/explicit")]
    chains = [each for each in rows if each not in fixed and each["chances"]]
    assert chains
    assert found.escalation is not None
    assert found.escalation.calls == len(chains)
    assert found.unknown == {UNKNOWN: 60 - len(fixed) - len(chains)}
    assert sum(found.escalation.answers.values()) == pytest.approx(len(chains), abs=1e-3)
    for route in ("/pinned", "/cheap", "/explicit"):
        assert found.by_route[route].cost == found.by_route[route].cost_then
    assert sum(s.cost_then for s in found.by_tier.values()) == found.cost_then


async def test_calls_of_a_router_that_escalated(path: Path) -> None:
    """The same policy gives the same, to the nano-USD; without escalation only the answer is left, if it is known."""
    fake = FakeClaude(answer=lambda seen: "I'm not sure." if "haiku" in str(seen.body["model"]) else "It is 42.")
    rules = policy(escalate=True)
    router = Router(fake.client(), classifier=Told(), decision_log=path, policy=rules, outcomes=taught())
    async with router.bind():
        for number in range(4):
            said: Any = [{"role": "user", "content": f"simple {number / 10}"}]
            await router.claude.messages.create(model="auto", max_tokens=300, messages=said)
    await router.aclose()
    same = wanted(ESCALATING, path)
    assert (same.simulated, same.moved, same.escalation) == (4, 0, None)
    assert same.cost_then == same.cost == fake.billed
    assert same.by_tier["sonnet"].calls_then == 4
    (why,) = wanted(Scenario(), path).unknown
    assert why.startswith("nobody was asked")
    without = wanted(Scenario(policy=Policy(label="moderate")), path)
    assert without.cost_then < same.cost
    assert wanted(Scenario(policy=Policy(label="simple")), path).by_tier["haiku"].calls_then == 4


async def test_what_is_expected_is_what_a_router_bills(tmp_path: Path) -> None:
    """By grades of every tier, and checks that see all: the cost and the tiers of a Router that does escalate."""
    tiers = list(MODELS)

    def answer(seen: Received) -> Reply:
        asked = str(seen.body["messages"][0]["content"])
        good = tiers.index(str(seen.model).split("-")[1]) >= int(asked.split()[2]) % 3
        return Reply(text="It is 42." if good else "I'm not sure.", input_tokens=900, output_tokens=50)

    async def played(path: Path, **options: Any) -> tuple[Router, FakeClaude]:
        fake = FakeClaude(answer=answer)
        router = Router(fake.client(), classifier=Told(), decision_log=path, **options)
        async with router.bind():
            for number in range(12):
                said: Any = [{"role": "user", "content": f"moderate 0.9 {number}"}]
                await router.claude.messages.create(model="auto", max_tokens=300, messages=said)
        await router.aclose()
        return router, fake

    await played(tmp_path / "plain.jsonl")
    real, fake = await played(tmp_path / "real.jsonl", policy=policy(escalate=True))
    grades = {
        row.id: {tier: float(place >= number % 3) for place, tier in enumerate(tiers)}
        for number, row in enumerate(read(tmp_path / "plain.jsonl"))
    }
    scenario = Scenario(policy=Policy(escalate=Assumed(noticed=1, false_alarms=0)))
    found = wanted(scenario, tmp_path / "plain.jsonl", grades=grades)
    assert found.cost_then == real.report().cost == fake.billed
    assert {name: sums.calls_then for name, sums in found.by_tier.items()} == dict.fromkeys(tiers, 4)
    assert {name: spend.calls for name, spend in real.report().by_tier.items()} == dict.fromkeys(tiers, 4)
    assert found.graded == Quality(12, pytest.approx(8 / 12), 1.0)
    assert found.escalation.more == len(fake.requests) - 12


@pytest.mark.parametrize("ended", ["haiku: it is a refusal, and no tier is above", "no escalation to opus: budget b"])
def test_a_recorded_chain_that_was_stopped_may_go_on(path: Path, ended: str) -> None:
    """What it would have found above is expected, and not taken as recorded; nor is a way that leaves a tier out."""
    begun = "escalates from haiku, the cheapest tier here"
    path.write_text(line("haiku", CHANCES, label=None, source="default", reasons=(begun, ended)))
    again = wanted(ESCALATING, path)
    assert again.escalation is not None
    assert wanted(Scenario(policy=Policy(escalate=True, ceiling="sonnet")), path).escalation is not None
    costs = {"haiku": HAIKU, "opus": OPUS}
    tried = tuple(Attempt(tier, MODELS[tier], "escalation", "ok", USED, cost) for tier, cost in costs.items())
    path.write_text(line("opus", CHANCES, label=None, source="default", reasons=(begun,), attempts=tried))
    assert wanted(ESCALATING, path).escalation is not None
    two = Ladder.of(haiku=MODELS["haiku"], opus=MODELS["opus"])
    same = wanted(Scenario(ladder=two, policy=Policy(escalate=True)), path)
    assert (same.escalation, same.cost_then) == (None, HAIKU + OPUS)


# Speculation


@pytest.mark.parametrize(("tier", "label"), [("sonnet", "moderate"), ("haiku", "simple"), ("opus", "complex")])
def test_a_speculation_in_vain_costs_its_input(path: Path, tier: str, label: str) -> None:
    """Where Claude was asked and said something else than simple; where it did not, nothing more."""
    path.write_text(line(tier, label=label, source="claude"))
    plain, found = wanted(Scenario(), path), wanted(Scenario(policy=Policy(speculate=True)), path)
    lost = 0 if tier == "haiku" else PriceBook().cost(MODELS["haiku"], Usage(1_000, 0)) or 0
    assert found.speculation == Speculation(1, int(lost > 0), lost)
    assert (found.cost_then, found.moved) == (plain.cost_then + lost, 0)
    assert plain.speculation is None
    high = wanted(Scenario(policy=Policy(speculate=True, floor="opus")), path)
    assert high.speculation is None
    for one in (Policy(speculate=True, critical=True), Policy(speculate=True, tier="opus"), Policy(speculate=False)):
        assert wanted(Scenario(policy=one), path).speculation is None
    saving = Budget("$1", downgrade_at=1e-9, cheapest_at=None)
    path.write_text(line(tier, label=label, source="claude") * 2)
    held = wanted(Scenario(policy=Policy(speculate=True), budgets=(saving,)), path)
    assert held.speculation is not None
    assert held.speculation.calls == 1  # the second one meets a budget that saves
    path.write_text(line(tier, label=label, source="cache"))
    assert wanted(Scenario(policy=Policy(speculate=True)), path).speculation is None


async def test_what_a_router_speculated_is_kept(path: Path) -> None:
    """An attempt in vain that is in the log costs what it did; and without speculation, nothing."""
    fake = FakeClaude(verdict=lambda _text, _labels: ("complex", 0.95))
    router = Router(fake.client(), classifier=ClaudeClassifier(worth=0), decision_log=path,
                    policy=policy(speculate=True))  # fmt: skip
    async with router.bind():
        said: Any = [{"role": "user", "content": "Prove it. " * 50}]
        await router.claude.messages.create(model="auto", max_tokens=300, messages=said)
    await router.aclose()
    (record,) = (row.record or {} for row in read(path))
    assert [each["role"] for each in record["attempts"]] == ["speculative", "first"]
    same = wanted(Scenario(policy=Policy(speculate=True)), path)
    assert (same.moved, same.cost_then, same.speculation) == (0, same.cost, None)
    without = wanted(Scenario(), path)
    assert without.saved == record["attempts"][0]["cost"] > 0
    low = wanted(Scenario(policy=Policy(label="simple")), path)
    assert low.by_tier["haiku"].calls_then == 1


# The file and the command


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('escalate = "yes"', "policy: escalate is 'yes'; write true, false or"),
        ("escalate = { hold = 5 }", r"escalate\.hold cannot be simulated; there are noticed, false_alarms"),
        ("escalate = { noticed = 2 }", "noticed is 2; write a share from 0 to 1"),
        ("escalate = { false_alarms = true }", "false_alarms is True; write a share"),
        ('speculate = "auto"', 'speculate is "auto": a log does not tell'),
        ("speculate = 5", "speculate must be True"),
    ],
)
def test_strategies_that_cannot_be(tmp_path: Path, text: str, told: str) -> None:
    """The file and the key are named, and what to write."""
    new = tmp_path / "new.toml"
    for head in ("[policy]", '[routes."/a"]'):
        new.write_text(f"{head}\n{text}")
        with pytest.raises(ConfigurationError, match=told.removeprefix("policy: ")) as caught:
            read_scenario(new)
        assert str(new) in str(caught.value)


def test_the_command_tells_of_strategies(tmp_path: Path, path: Path) -> None:
    """Rates that are assumed are said; fractions of calls are there, for people and for machines."""
    need("typer", "rich")
    from typer.testing import CliRunner

    from tierline.cli.app import app

    new = tmp_path / "new.toml"
    new.write_text('[policy]\nspeculate = true\n[routes."/a"]\nescalate = { noticed = 0.5, false_alarms = 0.0 }\n')
    path.write_text(line(chances=CHANCES, route="/a") + line(source="claude", route="/b"))
    command = ["simulate", str(path), "--policy", str(new)]
    done = CliRunner().invoke(app, command, env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert "1 calls escalate, 0.2 further answers; expected to answer: haiku 0.8, sonnet 0.2" in done.stdout
    assert "1 calls speculate, 1 of them in vain" in done.stdout
    assert "assumed, and in no log, that 50% of poor answers are noticed, 0% of good ones rejected" in done.stdout
    found = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert found["escalation"]["answers"] == {"haiku": 0.8, "sonnet": 0.18, "opus": 0.02}
    assert found["speculation"]["lost"] == 1
