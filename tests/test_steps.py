"""Agents: each step of a loop on its own, where that pays, and never away from thoughts that it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from anthropic import beta_async_tool
from hypothesis import given
from hypothesis import strategies as st

from tierline import Budget, Ladder, policy
from tierline.attempts import Timing
from tierline.call import read_call
from tierline.conversation import Conversation, Warm
from tierline.errors import ConfigurationError
from tierline.models import MODELS, reads_thoughts
from tierline.policies import Policy, combine
from tierline.prices import PriceBook
from tierline.steps import Step, best_place, eased, learned_on, step_of
from tierline.testing import FakeClaude, Reply
from tierline.testing._rules import MODELS as RULES
from tierline.values import Classification, Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline import Router
    from tierline.testing._log import Received
    from tierline.values import Decision

    MakeRouter = Callable[..., Router]

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
LADDER = Ladder.of(haiku=HAIKU, sonnet=SONNET, opus=OPUS)
QUIET = Ladder.of(haiku="claude-haiku-4-5", sonnet="claude-sonnet-4-6", opus="claude-opus-4-8")
"""Models that think where they are asked to, and not otherwise."""
PRICES = PriceBook()
USUAL = Terms(geo="global")
TOOLS: list[Any] = [{"name": name, "input_schema": {"type": "object"}} for name in ("look", "write")]
SCHEMA = {"format": {"type": "json_schema", "schema": {"type": "object"}}}
READ = Step("read", "")
FILL = Step("fill", "")


def called(number: int, name: str = "look", **more: Any) -> dict[str, Any]:
    block = {"type": "tool_use", "id": f"t{number}", "name": name, "input": {"n": number, **more}}
    return {"role": "assistant", "content": [block]}


def result(number: int, text: str = "5", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "tool_result", "tool_use_id": f"t{number}", "content": text, **more}]}


def read(*turns: Any, **more: Any) -> Any:
    messages = [{"role": "user", "content": "Go."}, *turns]
    call = read_call("create", {"model": "auto", "max_tokens": 9, "tools": TOOLS, "messages": messages, **more})
    assert call is not None
    return call


# What a step is


THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
BESIDE = {"role": "user", "content": [*result(1)["content"], {"type": "text", "text": "And the other one."}]}


@pytest.mark.parametrize(
    ("turns", "more", "kind"),
    [
        ([], {}, None),
        ([{"role": "assistant", "content": "Yes."}, {"role": "user", "content": "And?"}], {}, None),
        ([called(1), result(1)], {}, "read"),
        ([called(1), result(1, is_error=True)], {}, "plan"),
        ([called(1), result(1, is_error=True)], {"tool_choice": {"type": "tool", "name": "write"}}, "plan"),
        ([called(1), BESIDE], {}, "plan"),
        ([called(1), BESIDE], {"tool_choice": {"type": "tool", "name": "write"}}, "fill"),
        ([called(1), result(1)], {"tool_choice": {"type": "any"}}, "read"),
        ([called(1), result(1)], {"tool_choice": {"type": "none"}}, "answer"),
        ([called(1), result(1)], {"tools": []}, "answer"),
        ([called(1), result(1)], {"tool_choice": {"type": "none"}, "output_config": SCHEMA}, "fill"),
        ([called(1), result(1)], {"output_config": SCHEMA}, "read"),
        ([called(1), result(1), called(2), result(2)], {}, "read"),
        ([called(1), result(1), called(1), result(1)], {}, "plan"),
        ([called(1), result(1), {"role": "user", "content": "Again."}, called(1), result(1)], {}, "read"),
    ],
)
def test_what_a_step_is(turns: list[Any], more: dict[str, Any], kind: str | None) -> None:
    """It is read off the last turn, and what the request lets follow."""
    found = step_of(read(*turns, **more))
    assert (found and found.kind) == kind


def test_thoughts_are_those_of_the_loop() -> None:
    """What was thought before the person's last turn binds nobody; in any answer since then it does."""
    thinking = {"role": "assistant", "content": [THOUGHT, *called(1)["content"]]}
    before = [thinking, result(1), {"role": "assistant", "content": "Done."}, {"role": "user", "content": "More."}]
    for turns, thoughts in (
        ([called(1), result(1)], False),
        ([thinking, result(1)], True),
        ([thinking, result(1), called(2), result(2)], True),
        ([*before, called(2), result(2)], False),
    ):
        found = step_of(read(*turns))
        assert found is not None
        assert found.thoughts == thoughts


def test_thoughts_of_nobody_knows_whom() -> None:
    """Where it is not known who thought, what reads is no easier than its loop; a form is."""
    turns = [{"role": "assistant", "content": [THOUGHT, *called(1)["content"]]}, result(1)]
    choice = {"type": "tool", "name": "write"}
    found = [step_of(read(*turns, **more), known=False) for more in ({}, {"tool_choice": choice})]
    assert [step and step.kind for step in found] == ["plan", "fill"]
    plain = step_of(read(called(1), result(1)), known=False)
    assert plain is not None
    assert plain.kind == "read"


NONSENSE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(["user", "tool_result", "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "role", "content", "text", "is_error", "name", "input"]), inner)
    ),
    max_leaves=12,
)


@given(st.lists(NONSENSE, max_size=4), NONSENSE, NONSENSE, NONSENSE)
def test_any_body_has_a_step(turns: list[Any], choice: Any, output: Any, tools: Any) -> None:
    """Whatever stands where turns and choices should be, nothing is raised."""
    found = step_of(read(*turns, called(1), result(1), tool_choice=choice, output_config=output, tools=tools))
    assert found is not None


@pytest.mark.parametrize(
    ("kind", "label", "place", "found"),
    [
        ("fill", "complex", None, "simple"),
        ("read", "complex", None, "moderate"),
        ("read", "moderate", None, "simple"),
        ("read", "simple", None, "simple"),
        ("read", None, None, "simple"),
        ("read", "complex", 1, "simple"),
        ("read", None, 2, "moderate"),
        ("read", None, 0, "simple"),
    ],
)
def test_how_hard_a_step_is(kind: Any, label: str | None, place: int | None, found: str) -> None:
    """Reading is one label easier than its loop, or than where its route has that go; filling in a form is simple."""
    opinion = None if label is None else Classification(label, 0.4, "sticky")
    step = eased(Step(kind, ""), opinion, place, LADDER)
    assert (step.label, step.source) == (found, "step")
    doubtful = kind == "read" and label is not None and place is None
    assert step.confidence == (0.4 if doubtful else 1.0)


def test_what_steps_teach() -> None:
    """Easier steps are learned of by themselves; all others with their route."""
    assert learned_on("/a", READ) == "/a [read]"
    assert learned_on(None, FILL) == "default [fill]"
    for step in (None, Step("plan", ""), Step("answer", "")):
        assert learned_on("/a", step) == "/a"


# Where it is best made


def talk(tier: str = "opus", prompt: int = 50_000, decider: str = "", ladder: Ladder = LADDER, **warm: int) -> Any:
    models = {each.name: each.model for each in ladder}
    found = {models[name]: Warm(tokens, 100.0) for name, tokens in (warm or {tier: prompt}).items()}
    return Conversation(tier, models[tier], 2, prompt, 300, 500, found, decider or tier)


def best(step: Step, known: Conversation, place: int, ladder: Ladder = LADDER, **more: Any) -> tuple[str, str]:
    found, why = best_place(step, known, place, ladder, PRICES, USUAL, 0.0, **more)
    return ladder[found].name, why


def test_a_step_goes_where_it_costs_least() -> None:
    """With 50,000 warm tokens on Opus, reading stays there rather than warm up Sonnet; on Haiku it is cheaper still."""
    name, why = best(READ, talk(), 1)
    assert name == "opus"
    assert why.startswith("step on opus: $0.0")
    assert why.endswith("on sonnet with its cold cache")
    name, why = best(FILL, talk(), 0)
    assert name == "haiku"
    assert why.startswith("step moves from opus to haiku: $0.00")
    assert best(READ, talk(prompt=600), 1)[0] == "sonnet"
    assert best(READ, talk(warm_now := "opus", opus=50_000, sonnet=50_000), 1)[0] == "sonnet", warm_now
    assert best(READ, talk(), 1, arithmetic=False)[0] == "sonnet"


def test_a_step_goes_back_to_what_is_warm() -> None:
    """After a form that Haiku filled in, the loop is read on on Opus, where it is warm, and not on cold Sonnet."""
    assert best(READ, talk("haiku", decider="opus", opus=50_000, haiku=50_000), 1)[0] == "opus"
    assert best(READ, talk("haiku", decider="haiku", haiku=50_000), 1)[0] == "sonnet"
    assert best(READ, talk("opus"), 2) == ("opus", "")


def test_thoughts_hold_what_decides() -> None:
    """Sonnet would drop the thoughts of Opus: who reads stays, who fills in a form goes, who goes up goes."""
    name, why = best(READ._replace(thoughts=True), talk(prompt=600), 1)
    assert (name, why) == ("opus", "step on opus: sonnet would drop the thoughts of opus")
    assert best(FILL._replace(thoughts=True), talk(prompt=600), 0)[0] == "haiku"
    assert best(READ._replace(thoughts=True), talk("haiku", decider="opus", prompt=600), 1)[0] == "opus"
    assert best(READ._replace(thoughts=True), talk("haiku", prompt=600), 1)[0] == "sonnet"


def test_older_models_keep_a_loop_with_thoughts() -> None:
    """Before 5.0 thoughts of another model are an error: not even a form is filled in elsewhere."""
    for step in (READ, FILL):
        known = talk(prompt=600, ladder=QUIET)
        assert best(step._replace(thoughts=True), known, 0, QUIET)[0] == "opus"
        assert best(step, known, 0, QUIET)[0] == "haiku"


def test_without_prices_or_tiers() -> None:
    """A model without a price, or a tier that is gone, is no reason to hold anything."""
    ladder = Ladder.of(mine="my-own", opus=OPUS)
    assert best(READ, talk(ladder=LADDER), 0, ladder) == ("mine", "")
    assert best(READ, talk(), 0, Ladder.of(mine="my-own")) == ("mine", "")


def test_who_reads_whose_thoughts() -> None:
    """Every model reads its own; nobody reads those of a greater one; what is not in the table reads all."""
    for model in MODELS:
        assert reads_thoughts(model, model)
    assert not reads_thoughts(SONNET, OPUS)
    assert not reads_thoughts(HAIKU, SONNET)
    assert not reads_thoughts(SONNET, "us.anthropic.claude-opus-5-5-v1:0")
    assert reads_thoughts(OPUS, SONNET)
    assert reads_thoughts(SONNET, HAIKU)
    assert reads_thoughts(SONNET, "claude-opus-4-8")
    assert reads_thoughts("my-own", OPUS)
    for model, rules in RULES.items():
        for other, theirs in RULES.items():
            if theirs.line in rules.unreadable and theirs.prefix_check and model != other:
                assert not reads_thoughts(model, other), (model, other)


@given(
    st.sampled_from([READ, FILL, READ._replace(thoughts=True), FILL._replace(thoughts=True), Step("answer", "")]),
    st.sampled_from(["haiku", "sonnet", "opus"]), st.sampled_from(["haiku", "sonnet", "opus"]),
    st.integers(0, 2), st.tuples(*[st.integers(0, 200_000)] * 3),
)  # fmt: skip
def test_no_step_goes_lower_than_is_good_enough(
    step: Step, tier: str, decider: str, place: int, warm: tuple[int, int, int]
) -> None:
    """And none goes where it costs more than it has to: a move is made for quality, or pays at once."""
    known = talk(tier, 100_000, decider, haiku=warm[0], sonnet=warm[1], opus=warm[2])
    found, _ = best_place(step, known, place, LADDER, PRICES, USUAL, 0.0)
    assert place <= found <= max(place, *(LADDER.index(name, "") for name in (tier, decider)))
    if step.thoughts and step.decides and found != place:
        assert reads_thoughts(LADDER[found].model, LADDER[LADDER.index(decider, "")].model)


# Policies


def test_policies_of_steps() -> None:
    """The innermost holds; what says both to keep a tier and to move is an error."""
    assert not combine([], LADDER).per_step
    assert combine([Policy(per_step=True)], LADDER).per_step
    assert not combine([Policy(per_step=True), Policy(per_step=False)], LADDER).per_step
    with pytest.raises(ConfigurationError, match="leave one of them out"):
        Policy(per_step=True, sticky=True)
    with pytest.raises(ConfigurationError, match="per_step must be True, False or None"):
        Policy(per_step="yes")  # type: ignore[arg-type]


# On the way of a call


class Agent:
    """The app's half of a loop over the real SDK. Each step's reply is given; the prompt is cached if it says so."""

    def __init__(self, make_router: MakeRouter, fake: FakeClaude, *, cached: bool = False, **options: Any) -> None:
        self.now = 0.0
        fake._clock = lambda: self.now
        self.fake = fake
        fake.answer = self.answer
        self.next: Reply | None = None
        self.router = make_router(timing=Timing(perf=lambda: self.now), **options)
        self.messages: list[Any] = [{"role": "user", "content": "Find out who wrote what, and sum it up."}]
        self.more: dict[str, Any] = {"tools": TOOLS}
        if cached:
            self.more["cache_control"] = {"type": "ephemeral"}

    def answer(self, _received: Received) -> Reply | None:
        return self.next

    async def step(self, reply: Reply, *, failed: bool = False, tools_say: str = "5", **body: Any) -> Any:
        """One call, and the results of the tools that it calls."""
        self.next = reply
        message = await self.router.claude.messages.create(
            model="auto", max_tokens=4_000, messages=self.messages, **self.more | body
        )
        self.messages.append({"role": "assistant", "content": [block.model_dump() for block in message.content]})
        if results := [
            {"type": "tool_result", "tool_use_id": block.id, "content": tools_say, "is_error": failed}
            for block in message.content
            if block.type == "tool_use"
        ]:
            self.messages.append({"role": "user", "content": results})
        return message


def tiers(decisions: Sequence[Decision]) -> str:
    return " ".join(decision.tier for decision in decisions)


def call_of(number: int, name: str = "look") -> Reply:
    return Reply(tool=name, input={"n": number})


DONE = Reply(text="That is all.")
NONE = {"tool_choice": {"type": "none"}}


async def test_each_step_on_its_own(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Planned on the top, read one lower, planned anew after an error, a form on the cheapest, answered on the top."""
    agent = Agent(make_router, fake, ladder=QUIET)
    with policy(label="complex", per_step=True):
        async with agent.router.bind() as binding:
            await agent.step(call_of(1))
            await agent.step(call_of(2), failed=True)
            await agent.step(call_of(3))
            await agent.step(call_of(4, "write"), tool_choice={"type": "tool", "name": "write"})
            await agent.step(call_of(5))
            await agent.step(DONE, **NONE)
    assert tiers(binding.decisions) == "opus sonnet opus haiku sonnet opus"
    reasons = [decision.reasons for decision in binding.decisions]
    assert "step: results of tools are read" in reasons[1]
    assert "the loop is complex, reading in it moderate" in reasons[1]
    assert any(why.startswith("step moves from opus to sonnet: $") for why in reasons[1])
    assert "step: a tool failed, and what to do is planned anew" in reasons[2]
    assert "step: a form is filled in, for one tool is forced" in reasons[3]
    assert "step: the final answer is written" in reasons[5]
    assert [d.source for d in binding.decisions] == ["label", "step", "label", "step", "step", "label"]
    assert all(received.status == 200 for received in fake.requests)


async def test_without_it_nothing_changes(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A loop keeps its tier, and no reason speaks of steps; nothing of it is remembered where nothing is cached."""
    agent = Agent(make_router, fake, ladder=QUIET)
    with policy(label="complex"):
        async with agent.router.bind() as binding:
            for number in range(3):
                await agent.step(call_of(number))
            await agent.step(DONE, **NONE)
    assert tiers(binding.decisions) == "opus opus opus opus"
    assert not any("step" in why for decision in binding.decisions for why in decision.reasons)
    assert agent.router.conversations.find(agent.router.conversations.keys(read(), None)) is None


async def test_what_began_the_loop_is_judged_once(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Without a label the classifier's opinion on the person's turn is what steps are easier than."""
    asked: list[str] = []

    class Counting:
        name = fingerprint = "counting"
        cacheable = False

        async def classify(self, view: Any, _consult: Any) -> Classification:
            asked.append(view.text)
            return Classification("complex", 0.9, "local")

    agent = Agent(make_router, fake, ladder=QUIET, classifier=Counting(), policy=policy(per_step=True))
    async with agent.router.bind() as binding:
        await agent.step(call_of(1))
        await agent.step(call_of(2))
        await agent.step(DONE, **NONE)
    assert tiers(binding.decisions) == "opus sonnet opus"
    assert [d.source for d in binding.decisions] == ["local", "step", "sticky"]
    assert asked == ["Find out who wrote what, and sum it up."]


async def test_another_process_goes_on(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A step that comes to a Router which has seen nothing of its loop is judged from the person's turn, and easier."""
    agent = Agent(make_router, fake, ladder=QUIET, policy=policy(per_step=True))
    async with agent.router.bind() as binding:
        await agent.step(call_of(1))
    agent.router = make_router(ladder=QUIET, policy=policy(per_step=True))
    async with agent.router.bind() as again:
        await agent.step(call_of(2))
        await agent.step(call_of(3), failed=True)
        await agent.step(DONE)
    assert tiers([*binding.decisions, *again.decisions]) == "sonnet haiku haiku sonnet"


async def test_floors_ceilings_and_pins_hold(make_router: MakeRouter, fake: FakeClaude) -> None:
    """No step goes below a floor or above a ceiling, and a pin knows no steps."""
    agent = Agent(make_router, fake, ladder=QUIET)
    async with agent.router.bind() as binding:
        with policy(label="complex", per_step=True, floor="sonnet"):
            await agent.step(call_of(1))
            await agent.step(call_of(2, "write"), tool_choice={"type": "tool", "name": "write"})
            with policy(ceiling="sonnet"):
                await agent.step(call_of(3), failed=True)
                await agent.step(call_of(4))
            with policy(tier="opus"):
                await agent.step(call_of(5))
            with policy(sticky=True):
                await agent.step(DONE)
    assert tiers(binding.decisions) == "opus sonnet sonnet sonnet opus opus"


async def test_thoughts_keep_the_loop(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Where models think by themselves, reading stays where the plan was thought; a form goes, the loop comes back."""
    agent = Agent(make_router, fake)
    with policy(label="complex", per_step=True):
        async with agent.router.bind() as binding:
            await agent.step(call_of(1))
            await agent.step(call_of(2))
            await agent.step(DONE, output_config=SCHEMA, **NONE)
            agent.messages[-1:] = [called(9), result(9)]
            await agent.step(call_of(3))
            await agent.step(DONE, **NONE)
    assert any(block["type"] == "thinking" for block in agent.messages[1]["content"])
    assert tiers(binding.decisions) == "opus opus haiku opus opus"
    assert "step on opus: sonnet would drop the thoughts of opus" in binding.decisions[1].reasons
    assert "step on opus: sonnet would drop the thoughts of opus" in binding.decisions[3].reasons
    assert all(received.status == 200 for received in fake.requests)


async def test_moves_are_bounded_by_what_pays(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A loop over a long cached prompt stays where that is warm; what it costs is no more than never moving."""
    spent = {}
    for per_step in (False, True):
        agent = Agent(make_router, fake, ladder=QUIET, cached=True)
        agent.more["system"] = f"{per_step:5} " + "lorem ipsum " * 12_000
        with policy(label="complex", per_step=per_step):
            async with agent.router.bind() as binding:
                for number in range(6):
                    await agent.step(call_of(number))
                await agent.step(DONE, **NONE)
        spent[per_step] = sum(decision.cost for decision in binding.decisions)
        moves = sum(a.tier != b.tier for a, b in zip(binding.decisions, list(binding.decisions)[1:], strict=False))
        assert moves == 0
    assert spent[True] == spent[False]
    assert any("with its cold cache" in why for why in binding.decisions[1].reasons)


async def test_short_prompts_move_and_pay(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A loop without a long prompt reads its results on the cheaper tier, and costs less for it."""
    spent = {}
    for per_step in (False, True):
        agent = Agent(make_router, fake, ladder=QUIET)
        with policy(label="complex", per_step=per_step):
            async with agent.router.bind() as binding:
                for number in range(5):
                    await agent.step(call_of(number), tools_say="lorem ipsum " * 50)
                await agent.step(DONE, **NONE)
        spent[per_step] = sum(decision.cost for decision in binding.decisions)
    assert tiers(binding.decisions) == "opus sonnet sonnet sonnet sonnet opus"
    assert spent[True] < 0.8 * spent[False]


async def test_the_tool_runner_of_the_sdk(make_router: MakeRouter, fake: FakeClaude) -> None:
    """The SDK's own loop is one that the server holds: its model stays, and its run pays for all of it."""

    @beta_async_tool
    async def look(n: int) -> str:
        """Look something up.

        Args:
            n: Which.
        """
        return f"{n} is prime"

    replies = [call_of(1), call_of(2), DONE]

    def answer(_received: Received) -> Reply:
        return replies.pop(0)

    fake.answer = answer
    router = make_router(budgets=[Budget("$20", per="run")])
    async with router.bind(run="r") as binding:
        with policy(label="complex", per_step=True):
            runner = router.claude.beta.messages.tool_runner(
                model="auto", max_tokens=2_000, tools=[look], messages=[{"role": "user", "content": "Which are prime?"}]
            )
            last = await runner.until_done()
    assert last.content[-1].text == "That is all."
    assert tiers(binding.decisions) == "opus opus opus"
    (balance,) = await router.balances("r")
    assert balance.spent == fake.billed


async def test_steps_learn_by_themselves(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Grades of reading teach where to read on this route, and nothing of where to plan."""
    router = make_router(ladder=QUIET, learn_after=12, policy=policy(label="complex", per_step=True))
    fake.answer = lambda received: call_of(len(received.body["messages"]))
    last: Decision | None = None
    for number in range(21):
        async with router.bind(route="/agent") as binding:
            turns = [{"role": "user", "content": f"Look for {number}."}]
            tier = "sonnet" if number % 3 else "opus"
            with policy(tier=tier):
                await router.claude.messages.create(
                    model="auto", max_tokens=900, tools=TOOLS, messages=[*turns, called(1), result(1)]  # type: ignore[list-item]
                )  # fmt: skip
            last = binding.decisions[-1]
            last.grade(good=tier == "opus")
    await router.learning.sync()
    async with router.bind(route="/agent") as binding:
        turns = [{"role": "user", "content": "Look for me."}]
        await router.claude.messages.create(model="auto", max_tokens=900, tools=TOOLS, messages=turns)  # type: ignore[arg-type]
        await router.claude.messages.create(
            model="auto", max_tokens=900, tools=TOOLS, messages=[*turns, called(1), result(1)]  # type: ignore[list-item]
        )  # fmt: skip
    first, step = binding.decisions
    assert (first.tier, first.source) == ("opus", "label")
    assert step.forecast is not None
    assert step.forecast.evidence > 12
    assert step.tier == "opus"
    assert any("sonnet" in why and "here" in why for why in step.reasons), step.reasons
