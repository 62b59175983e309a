"""Conversations and the prompt caches that a move throws away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline import Ladder, policy
from tierline.attempts import Timing
from tierline.call import read_call
from tierline.classify import FixedClassifier
from tierline.conversation import MOST_TURNS, Conversation, Conversations, Warm, moving
from tierline.errors import ConfigurationError
from tierline.prices import PriceBook
from tierline.values import Terms, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline import Router
    from tierline.binding import Binding
    from tierline.call import Call
    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
PRICES = PriceBook()
USUAL = Terms(geo="global")


def talk(model: str = OPUS, turns: int = 2, prompt: int = 50_000, warm: dict[str, int] | None = None) -> Conversation:
    found = {m: Warm(n, 100.0) for m, n in ({model: prompt} if warm is None else warm).items()}
    return Conversation("opus", model, turns, prompt, 300, 500, found)


# The arithmetic


def test_a_warm_prefix_makes_the_cheaper_model_dearer() -> None:
    """50,000 warm tokens: going from Opus to Sonnet costs more than it saves, going to Haiku does not."""
    saving, cold, turns = moving(talk(), OPUS, SONNET, PRICES, USUAL, 0.0)
    assert 0 < saving < cold
    assert turns == 2
    saving, cold, _ = moving(talk(), OPUS, HAIKU, PRICES, USUAL, 0.0)
    assert saving > cold


def test_the_numbers_are_list_prices() -> None:
    """What is told is what a turn costs here and there, warm and cold, at list prices."""

    def cost(model: str, warm: int) -> int:
        found = PRICES.cost(model, Usage(0, 500, 50_300 - warm, 0, warm), USUAL)
        assert found is not None
        return found

    saving, cold, _ = moving(talk(turns=1), OPUS, SONNET, PRICES, USUAL, 0.0)
    assert saving == cost(OPUS, 50_000) - cost(SONNET, 50_000)
    assert cold == cost(SONNET, 0) - cost(SONNET, 50_000)


def test_what_has_gone_cold_costs_nothing_to_leave() -> None:
    """After its time to live nothing is warm anywhere, and the cheaper model is just cheaper."""
    saving, cold, _ = moving(talk(), OPUS, SONNET, PRICES, USUAL, 100.0)
    assert cold < 0 < saving


def test_what_is_warm_on_both_costs_nothing_to_leave() -> None:
    """A conversation that was on the cheaper model a minute ago goes back for free."""
    saving, cold, _ = moving(talk(warm={OPUS: 50_000, SONNET: 50_000}), OPUS, SONNET, PRICES, USUAL, 0.0)
    assert cold == 0 < saving


def test_tokenizers_that_count_more() -> None:
    """The same text is more tokens on a newer model, and costs more there."""
    prices = PriceBook()
    old = talk("claude-sonnet-4-6", 1)
    _, cold, _ = moving(old, "claude-sonnet-4-6", HAIKU, prices, USUAL, 0.0)
    same = moving(talk(OPUS, 1), OPUS, HAIKU, prices, USUAL, 0.0)[1]
    assert cold == pytest.approx(1.3 * same, rel=0.01)


def test_a_model_without_a_price() -> None:
    """Where nobody knows what a model costs, nothing is held back for money."""
    assert moving(talk(), OPUS, "my-own", PRICES, USUAL, 0.0)[:2] == (0, 0)


@given(
    st.integers(1, 1_000), st.integers(0, 200_000), st.sampled_from([(OPUS, SONNET), (OPUS, HAIKU), (SONNET, HAIKU)])
)
def test_the_longer_it_goes_on_the_more_it_saves(turns: int, prompt: int, models: tuple[str, str]) -> None:
    """Savings grow with the turns that are expected, up to a bound; what it costs to move does not."""
    here, there = models
    one, cold, _ = moving(talk(here, 1, prompt), here, there, PRICES, USUAL, 0.0)
    many, same, expected = moving(talk(here, turns, prompt), here, there, PRICES, USUAL, 0.0)
    assert expected == min(turns, MOST_TURNS)
    assert (many, same) == (one * expected, cold)


# What is remembered


def read(*messages: str, system: Any = None) -> Call:
    said = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(messages)]
    call = read_call(
        "create", {"model": "auto", "max_tokens": 9, "messages": said} | ({"system": system} if system else {})
    )
    assert call is not None
    return call


def test_a_conversation_is_known_by_its_beginning() -> None:
    """Its later turns find it; another system, another first turn, another tenant or another answer is another one."""
    known = Conversations(b"secret", lambda: 0.0)
    first = known.keys(read("hi", system="S"), "acme")
    known.keep(first, "opus", OPUS, Usage(10, 5, 100))
    second = known.keys(read("hi", "hello", "more", system="S"), "acme")
    found = known.find(second)
    assert found is not None
    assert (found.turns, found.prompt, found.warm[OPUS].tokens) == (1, 115, 100)
    known.keep(second, "opus", OPUS, Usage(20, 5, 10, 0, 100))
    again = known.find(known.keys(read("hi", "hello", "more", "yes", "and", system="S"), "acme"))
    assert again is not None
    assert (again.turns, again.prompt, again.grows, again.warm[OPUS].tokens) == (2, 135, 15, 110)
    for call, tenant in (
        (read("hi", system="T"), "acme"),
        (read("ho", system="S"), "acme"),
        (read("hi", system="S"), "initech"),
        (read("hi", system="S"), None),
    ):
        assert known.find(known.keys(call, tenant)) is None
    other = known.find(known.keys(read("hi", "welcome", "more", system="S"), "acme"))
    assert other is found  # they have the warm beginning in common


@pytest.mark.parametrize(
    ("usage", "seconds"), [(Usage(1, 1, 50), 300), (Usage(1, 1, 0, 50), 3_600), (Usage(1, 1, 0, 0, 50), 300)]
)
def test_caches_live_as_long_as_they_were_written_for(usage: Usage, seconds: float) -> None:
    """What was written for an hour is warm for an hour, and reading begins the time anew."""
    now = [0.0]
    known = Conversations(b"secret", lambda: now[0])
    keys = known.keys(read("hi"), None)
    known.keep(keys, "opus", OPUS, usage)
    found = known.find(keys)
    assert found is not None
    assert found.warm_on(OPUS, seconds - 1) == 50
    assert found.warm_on(OPUS, seconds) == 0
    assert found.warm_on(SONNET, 0.0) == 0


def test_odd_bodies_have_a_beginning_too() -> None:
    """Blocks, images and nonsense where text should be: everything has a key, and long texts are not read whole."""
    known = Conversations(b"secret", lambda: 0.0)
    for content in ([{"type": "text", "text": "x"}], [{"type": "image"}], 5, None, [None, 3], {"a": 1}, "x" * 10**6):
        call = read("hi")
        call.body["messages"][0]["content"] = content
        assert len(known.keys(call, None)[0]) == 16


def test_no_body_is_too_deep() -> None:
    """A message in a message in a message is read no deeper than one."""
    deep: Any = "x"
    for _ in range(5_000):
        deep = {"role": "user", "content": deep}
    call = read_call("create", {"model": "auto", "max_tokens": 9, "messages": [deep]})
    assert call is not None
    assert len(Conversations(b"secret", lambda: 0.0).keys(call, None, None)) == 1


# On the way of a call


class Desk:
    """A conversation with an app that marks its prompt for caching; time passes when the test says so."""

    def __init__(self, make_router: MakeRouter, fake: FakeClaude, **options: Any) -> None:
        self.now = 0.0
        fake._clock = lambda: self.now
        self.fake = fake
        self.router = make_router(
            timing=Timing(perf=lambda: self.now), classifier=FixedClassifier("moderate"), **options
        )
        self.messages: list[Any] = []
        self.system = [{"type": "text", "text": "lorem ipsum " * 12_000}]

    async def say(self, label: str, binding: Binding, stream: bool = False, **rules: Any) -> str:
        """One turn that is of this label; the tier that answered."""
        self.messages.append({"role": "user", "content": f"turn {len(self.messages)}"})
        body: dict[str, Any] = {
            "model": "auto", "max_tokens": 500, "system": self.system, "messages": self.messages,
            "cache_control": {"type": "ephemeral"},
        }  # fmt: skip
        with policy(label=label, **rules):  # type: ignore[arg-type]
            if stream:
                async with self.router.claude.messages.stream(**body) as answer:
                    await answer.get_final_message()
            else:
                await self.router.claude.messages.create(**body)
        self.messages.append({"role": "assistant", "content": "I see."})
        return binding.decisions[-1].tier


@pytest.fixture
def desk(make_router: MakeRouter, fake: FakeClaude) -> Desk:
    return Desk(make_router, fake)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_warm_conversation_stays(desk: Desk, stream: bool) -> None:
    """A turn that Sonnet could take stays on Opus while the prefix is warm there, and the reasons say why."""
    async with desk.router.bind() as binding:
        assert await desk.say("complex", binding, stream) == "opus"
        assert await desk.say("moderate", binding, stream) == "opus"
        decision = binding.decisions[-1]
        assert decision.source == "sticky"
        assert decision.label == "moderate"
        assert decision.usage.cache_read > 20_000
        (why,) = (reason for reason in decision.reasons if reason.startswith("stays on opus: sonnet saves $"))
        assert "turns, and costs $" in why
        assert await desk.say("simple", binding, stream) == "haiku"
        assert any(reason.startswith("moves from opus: haiku saves $") for reason in binding.decisions[-1].reasons)
        desk.now += 301
        assert await desk.say("moderate", binding, stream) == "sonnet"


async def test_moving_up_is_never_held(desk: Desk) -> None:
    """A turn that is harder goes up at once, whatever is warm below."""
    async with desk.router.bind() as binding:
        assert [await desk.say(label, binding) for label in ("simple", "moderate", "complex")] == [
            "haiku",
            "sonnet",
            "opus",
        ]


async def test_sticky_says_it_one_way_or_the_other(desk: Desk) -> None:
    """True stays whatever it costs, False moves whatever it costs; without caching too."""
    async with desk.router.bind() as binding:
        await desk.say("complex", binding, sticky=True)
        assert await desk.say("simple", binding, sticky=True) == "opus"
        assert "sticky: the conversation stays on opus" in binding.decisions[-1].reasons
        assert await desk.say("moderate", binding, sticky=False) == "sonnet"


async def test_what_begins_stays_on_nothing(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A first turn is another conversation than the one that began alike, whatever that came to need."""
    router = make_router(classifier=FixedClassifier("simple"), policy=policy(sticky=True))
    async with router.bind() as binding:
        first: Any = {"model": "auto", "max_tokens": 300, "messages": [{"role": "user", "content": "hi"}]}
        with policy(floor="opus"):
            await router.claude.messages.create(**first)
        await router.claude.messages.create(**first)
    assert [decision.tier for decision in binding.decisions] == ["opus", "haiku"]


async def test_nothing_is_held_where_nothing_is_cached(make_router: MakeRouter, fake: FakeClaude) -> None:
    """An app that does not cache loses nothing by moving, and nothing is remembered of its conversations."""
    router = make_router()
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "I see."},
        {"role": "user", "content": "so"},
    ]
    async with router.bind() as binding:
        for label, said in (("complex", messages[:1]), ("moderate", messages)):
            with policy(label=label):  # type: ignore[arg-type]
                await router.claude.messages.create(model="auto", max_tokens=50, messages=said)  # type: ignore[arg-type]
    assert [decision.tier for decision in binding.decisions] == ["opus", "sonnet"]


async def test_policies_come_before_arithmetic(desk: Desk) -> None:
    """A ceiling below the warm tier, and a budget's room, are not held back by what is warm."""
    async with desk.router.bind() as binding:
        await desk.say("complex", binding)
        assert await desk.say("moderate", binding, ceiling="sonnet") == "sonnet"
        assert await desk.say("complex", binding, tier="haiku") == "haiku"


async def test_a_tier_that_is_gone(make_router: MakeRouter, fake: FakeClaude) -> None:
    """What was warm on a tier that the ladder no longer has holds nothing."""
    desk = Desk(make_router, fake)
    async with desk.router.bind() as binding:
        await desk.say("complex", binding)
        desk.router.ladder = desk.router.rules.ladder = Ladder.of(haiku=HAIKU, sonnet=SONNET)
        assert await desk.say("moderate", binding) == "sonnet"


async def test_observing_follows_what_would_have_been(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Where all calls go to the top, what is warm there says nothing of where enforcing would have held them."""
    desk = Desk(make_router, fake, mode="observe")
    async with desk.router.bind() as binding:
        for label in ("simple", "moderate", "moderate", "complex", "moderate"):
            await desk.say(label, binding)
    assert [d.tier for d in binding.decisions] == ["opus"] * 5
    assert [d.observed and d.observed.tier for d in binding.decisions] == [
        "haiku",
        "sonnet",
        "sonnet",
        "opus",
        "sonnet",
    ]


async def test_an_app_may_name_its_conversations(desk: Desk) -> None:
    """With a name of the app's own a conversation is known however it begins; another name is another one."""
    async with desk.router.bind() as binding:
        binding.conversation = "chat 7"
        assert await desk.say("complex", binding) == "opus"
        desk.messages = [{"role": "user", "content": "cut"}, {"role": "assistant", "content": "short"}]
        assert await desk.say("moderate", binding) == "opus"
        binding.conversation = "chat 8"
        assert await desk.say("moderate", binding) == "sonnet"
        with pytest.raises(ConfigurationError, match="a conversation has a name or None, got int"):
            binding.conversation = 7  # type: ignore[assignment]
        assert binding.conversation == "chat 8"


async def test_other_peoples_conversations_are_not_mine(desk: Desk) -> None:
    """A tenant with the same words does not stay where another one is warm."""
    async with desk.router.bind(tenant="acme") as binding:
        assert await desk.say("complex", binding) == "opus"
    async with desk.router.bind(tenant="initech") as binding:
        assert await desk.say("moderate", binding) == "sonnet"


async def test_a_tool_loop_keeps_its_tier(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Between a tool's call and its result a conversation does not move down, whatever it would save."""
    desk = Desk(make_router, fake)
    desk.system[0]["text"] = "lorem ipsum " * 400
    async with desk.router.bind() as binding:
        await desk.say("complex", binding)
        desk.messages[-1] = {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {}}],
        }
        desk.messages.append(
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "5"}]}
        )
        with policy(label="simple"):
            await desk.router.claude.messages.create(
                model="auto", max_tokens=500, system=desk.system, messages=desk.messages,
                tools=[{"name": "look", "input_schema": {"type": "object"}}], cache_control={"type": "ephemeral"},
            )  # fmt: skip
    assert binding.decisions[-1].tier == "opus"
    assert "a tool loop stays on opus" in binding.decisions[-1].reasons
