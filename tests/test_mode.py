"""Modes: watching without touching anything, and the kill switch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anthropic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tierline import Budget, Ladder, Policy, Router, Tier, policy
from tierline.classify import ClaudeClassifier, FixedClassifier
from tierline.errors import BudgetExceededError, ConfigurationError, LedgerUnavailableError
from tierline.ledger import MemoryLedger
from tierline.testing import Fault
from tierline.values import MODES, NANO, Observed, Terms

if TYPE_CHECKING:
    from collections.abc import Callable

    from anthropic import AsyncAnthropic

    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
ASK: dict[str, Any] = {"max_tokens": 300, "messages": [{"role": "user", "content": "Summarise this."}]}
FULL = Budget("$0.000000001", name="full")


async def spent(router: Router) -> int:
    return sum(balance.spent for balance in await router.balances())


# Observe


async def test_observing_shows_what_routing_would_have_saved(make_router: MakeRouter, fake: FakeClaude) -> None:
    """An app that hard-codes the dearest model sees what its calls would have cost, to the nano-dollar."""
    router = make_router(mode="observe", policy=policy(explicit_model="route"), classifier=FixedClassifier("simple"))
    async with router.bind() as binding:
        await router.claude.messages.create(model=OPUS, **ASK)
    (decision,), (sent,) = binding.decisions, fake.requests
    assert sent.model == decision.model == OPUS
    assert (decision.tier, decision.requested_tier, decision.label) == ("opus", "haiku", "simple")
    assert decision.cost == sent.billed
    cost = router.prices.cost(HAIKU, decision.usage, Terms(geo="global"))
    assert cost is not None
    assert decision.observed == Observed("haiku", cost=cost, saved=sent.billed - cost)
    seen = router.report().observed
    assert (seen.calls, seen.cost, seen.saved, seen.refused) == (1, cost, sent.billed - cost, 0)
    assert {name: spend.cost for name, spend in seen.by_tier.items()} == {"haiku": cost}
    assert "only observed" in str(router.report())


async def test_a_verdict_counts_against_what_would_have_been_saved(make_router: MakeRouter, fake: FakeClaude) -> None:
    """What classifying cost is paid in observe mode too, and taken off the saving."""
    router = make_router(mode="observe", policy=policy(explicit_model="route"), classifier=ClaudeClassifier())
    fake.verdict = lambda _text, _labels: ("complex", 0.9)
    async with router.bind() as binding:
        await router.claude.messages.create(model=OPUS, **ASK)
    verdict, call = fake.requests
    (decision,) = binding.decisions
    assert (verdict.model, call.model) == (HAIKU, OPUS)
    assert decision.observed == Observed("opus", cost=call.billed + verdict.billed, saved=-verdict.billed)


@pytest.mark.parametrize(
    ("model", "rule", "would"),
    [
        (HAIKU, Policy(floor="sonnet"), "sonnet"),
        (OPUS, Policy(ceiling="haiku"), "haiku"),
        (SONNET, Policy(tier="opus"), "opus"),
        (OPUS, Policy(explicit_model="ceiling", label="simple"), "haiku"),
        (OPUS, Policy(max_tokens=7), "opus"),
        ("claude-opus-4-8", Policy(), "opus"),
    ],
)
async def test_observing_changes_nothing_of_a_request(
    make_router: MakeRouter, sdk: AsyncAnthropic, fake: FakeClaude, model: str, rule: Policy, would: str
) -> None:
    """What a policy would have moved is sent byte for byte as the SDK alone sends it."""
    ladder = Ladder.of(
        haiku=HAIKU, sonnet=Tier("sonnet", SONNET, patch={"metadata": {"user_id": "x"}}),
        opus=Tier("opus", OPUS, max_tokens=5), max_tokens={"simple": 9},
    )  # fmt: skip
    router = make_router(mode="observe", ladder=ladder)
    await sdk.messages.create(model=model, **ASK)
    async with router.bind() as binding:
        with rule:
            await router.claude.messages.create(model=model, **ASK)
            async with router.claude.messages.stream(model=model, **ASK) as stream:
                await stream.get_final_message()
    plain, routed, streamed = fake.requests
    assert routed.body == plain.body
    assert streamed.body == plain.body | {"stream": True}
    assert [d.observed and d.observed.tier for d in binding.decisions] == [would, would]
    assert all(d.model == model for d in binding.decisions)


async def test_auto_goes_to_the_highest_allowed_tier(make_router: MakeRouter, fake: FakeClaude) -> None:
    """`auto` costs what it cost before there was routing; a token count names the same model."""
    router = make_router(mode="observe", classifier=FixedClassifier("simple"))
    async with router.bind() as binding:
        await router.claude.messages.create(model="auto", **ASK)
        with policy(ceiling="sonnet"):
            await router.claude.messages.create(model="auto", **ASK)
            await router.claude.messages.count_tokens(model="auto", messages=ASK["messages"])
    assert [request.model for request in fake.requests] == [OPUS, SONNET, SONNET]
    assert [d.observed and d.observed.tier for d in binding.decisions] == ["haiku", "haiku"]
    assert any("only observed" in reason for reason in binding.decisions[0].reasons)


async def test_observing_refuses_nothing(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A budget that is used up is told of and recorded, to the nano-dollar; every call passes."""
    router = make_router(mode="observe", budgets=[FULL])
    async with router.bind() as binding:
        for _ in range(3):
            await router.claude.messages.create(model="auto", **ASK)
    assert len(fake.requests) == 3
    assert await spent(router) == fake.billed
    assert [d.observed and (d.observed.tier, d.observed.why) for d in binding.decisions] == [
        (None, "budget full has no room")
    ] * 3
    report = router.report()
    assert (report.refusals, report.observed.refused, report.observed.saved) == (0, 3, 0)
    router.mode = "enforce"
    with pytest.raises(BudgetExceededError):
        await router.claude.messages.create(model="auto", **ASK)


async def test_observing_knows_limits_that_were_set(make_router: MakeRouter, fake: FakeClaude) -> None:
    """What an operator has set stands over what the app says, in what would have been too: in both directions."""
    router = make_router(budgets=[Budget("$5/day", name="plan"), Budget("$0.0001/day", name="small")], mode="observe")
    for limit, small, tier in (("$0.0001", "$5", None), ("$5", "$5", "sonnet"), (None, None, None)):
        await router.set_limit("plan", limit=limit)
        await router.set_limit("small", limit=small)
        async with router.bind() as binding:
            with policy(floor="sonnet"):
                await router.claude.messages.create(model="auto", **ASK)
        observed = binding.decisions[-1].observed
        assert observed is not None
        assert observed.tier == tier


async def test_observing_shows_downgrades(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A threshold that would have moved a call is told of, and moves nothing."""
    router = make_router(
        mode="observe", budgets=[Budget("$1", downgrade_at=0.000001, name="low")], classifier=FixedClassifier("complex")
    )
    async with router.bind() as binding:
        await router.claude.messages.create(model="auto", **ASK)
        await router.claude.messages.create(model="auto", **ASK)
    assert [d.observed and (d.observed.tier, d.observed.downgraded) for d in binding.decisions] == [
        ("opus", False),
        ("sonnet", True),
    ]
    assert [request.model for request in fake.requests] == [OPUS, OPUS]
    assert (router.report().downgraded, router.report().observed.downgraded) == (0, 1)


async def test_observing_retries_and_does_not_fall_back(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A model that fails is tried again as the SDK would, and no other one is."""
    router = make_router(mode="observe")
    fake.script(*[Fault.overloaded()] * 3)
    with pytest.raises(anthropic.InternalServerError):
        await router.claude.messages.create(model=SONNET, **ASK)
    assert [request.model for request in fake.requests] == [SONNET] * 3


async def test_observing_sends_what_would_be_refused_for_other_reasons(
    make_router: MakeRouter, fake: FakeClaude
) -> None:
    """An id without a price, under a floor or a hard budget, goes out and is told of."""
    router = make_router(mode="observe", budgets=[Budget("$5/day")])
    async with router.bind() as binding:
        with policy(floor="sonnet"), pytest.raises(anthropic.NotFoundError):
            await router.claude.messages.create(model="claude-next", **ASK)
        with pytest.raises(anthropic.NotFoundError):
            await router.claude.messages.create(model="claude-next", **ASK)
    assert [request.model for request in fake.requests] == ["claude-next"] * 2
    first, second = (d.observed for d in binding.decisions)
    assert first is not None
    assert second is not None
    assert first.why.startswith("UnknownModelError")
    assert second.why == "the model has no known price"


class Gone(MemoryLedger):
    """A ledger that cannot be asked."""

    async def reserve(self, *_: Any, **__: Any) -> Any:
        raise LedgerUnavailableError("no answer")


async def test_observing_needs_no_ledger(
    make_router: MakeRouter, fake: FakeClaude, caplog: pytest.LogCaptureFixture
) -> None:
    """A ledger that is away, or a tenant function that is wrong, keeps no call from being sent."""
    router = make_router(mode="observe", ledger=Gone(), budgets=[FULL])
    message = await router.claude.messages.create(model="auto", **ASK)
    assert message.model == OPUS
    assert len(fake.requests) == 1
    assert "unobserved: LedgerUnavailableError" in caplog.text
    router.mode = "enforce"
    with pytest.raises(LedgerUnavailableError):
        await router.claude.messages.create(model="auto", **ASK)


class GoneLater(MemoryLedger):
    """A ledger that goes away after the first call was admitted."""

    asked = 0

    async def reserve(self, *args: Any, **more: Any) -> Any:
        self.asked += 1
        if self.asked > 1:
            raise LedgerUnavailableError("no answer")
        return await super().reserve(*args, **more)


async def test_observing_needs_no_ledger_for_a_retry(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A ledger that goes away between two attempts takes no retry from the app, and gives it none beside."""
    router = make_router(mode="observe", ledger=GoneLater(), budgets=[FULL])
    fake.script(Fault.overloaded())
    assert (await router.claude.messages.create(model=SONNET, **ASK)).model == SONNET
    fake.script(*[Fault.overloaded()] * 5)
    router = make_router(mode="observe", ledger=GoneLater(), budgets=[FULL])
    with pytest.raises(anthropic.InternalServerError):
        await router.claude.messages.create(model=SONNET, **ASK)
    assert len(fake.requests) == 2 + 3


async def test_observing_survives_what_the_app_says_of_a_request(
    make_router: MakeRouter, fake: FakeClaude, caplog: pytest.LogCaptureFixture
) -> None:
    """A function of the app that fails where it says who pays keeps no call from being sent, and is told of."""

    def amount(_account: str) -> str:
        raise KeyError("sk-ant-secret")

    router = make_router(mode="observe", budgets=[Budget(amount, name="plans")])
    await router.claude.messages.create(model=SONNET, **ASK)
    await router.claude.messages.count_tokens(model=SONNET, messages=ASK["messages"])
    assert [request.model for request in fake.requests] == [SONNET] * 2
    assert "unobserved: KeyError" in caplog.text
    assert "secret" not in caplog.text
    router.mode = "enforce"
    with pytest.raises(KeyError):
        await router.claude.messages.create(model=SONNET, **ASK)


async def test_questions_of_its_own_hold_to_budgets(make_router: MakeRouter, fake: FakeClaude) -> None:
    """Observing spends nothing on verdicts that a hard budget has no room for."""
    router = make_router(mode="observe", budgets=[FULL], classifier=ClaudeClassifier())
    async with router.bind() as binding:
        await router.claude.messages.create(model="auto", **ASK)
    assert [request.model for request in fake.requests] == [OPUS]
    assert "no verdict: BudgetExceededError" in binding.decisions[-1].reasons


async def test_a_batch_is_not_refused_in_observe(make_router: MakeRouter, fake: FakeClaude) -> None:
    """What cannot be read is refused by a hard budget only where budgets are enforced."""
    router = make_router(mode="observe", budgets=[Budget("$5/day")])
    requests: list[Any] = [{"custom_id": "a", "params": {"model": OPUS, **ASK}}]
    sent = await router.claude.messages.batches.create(requests=requests)
    assert sent.request_counts.processing == 1
    router.mode = "enforce"
    with pytest.raises(BudgetExceededError):
        await router.claude.messages.batches.create(requests=requests)
    assert [batch.id for batch in fake.batches] == [sent.id]


# Off


async def test_off_is_the_sdk_alone(make_router: MakeRouter, sdk: AsyncAnthropic, fake: FakeClaude) -> None:
    """Nothing is traced, counted, charged or refused; requests are those of the SDK."""
    router = make_router(mode="off", budgets=[FULL], classifier=ClaudeClassifier(), policy=policy(max_tokens=5))
    await sdk.messages.create(model=OPUS, **ASK)
    async with router.bind() as binding:
        await router.claude.messages.create(model=OPUS, **ASK)
        async with router.claude.messages.stream(model=OPUS, **ASK) as stream:
            await stream.get_final_message()
    plain, routed, streamed = fake.requests
    assert routed.body == plain.body
    assert streamed.body == plain.body | {"stream": True}
    assert not binding.open
    assert router.report().calls == 0
    assert await router.balances() == []


async def test_off_leaves_a_decision(make_router: MakeRouter, fake: FakeClaude) -> None:
    """An app that looks at the last decision finds one, for which nothing was decided and nothing is known."""
    router = make_router(mode="off")
    async with router.bind() as binding:
        await router.claude.messages.create(model="auto", **ASK)
        with pytest.raises(anthropic.NotFoundError):
            await router.claude.messages.create(model="claude-next", **ASK)
    assert [(d.tier, d.model, d.reasons, d.cost, d.settled) for d in binding.decisions] == [
        ("opus", OPUS, ("mode off",), 0, True),
        ("opus", "claude-next", ("mode off",), 0, True),
    ]


async def test_off_names_a_model_for_auto(make_router: MakeRouter, fake: FakeClaude) -> None:
    """`auto` is no model: the highest tier that the policy allows stands for it, in token counts too."""
    router = make_router(mode="off", classifier=ClaudeClassifier())
    async with router.bind():
        await router.claude.messages.create(model="auto", **ASK)
        with policy(tier="haiku"):
            await router.claude.messages.create(model="auto", **ASK)
            await router.claude.messages.count_tokens(model="auto", messages=ASK["messages"])
        with policy(floor="nonsense"):
            await router.claude.messages.create(model="auto", **ASK)
    assert [request.model for request in fake.requests] == [OPUS, HAIKU, HAIKU, OPUS]


async def test_off_retries_as_the_sdk_did(make_router: MakeRouter, fake: FakeClaude, waits: list[float]) -> None:
    """The bound is the client's own, and what the API asks to wait is waited."""
    router = make_router(mode="off")
    fake.script(Fault.rate_limit(retry_after=3), Fault.overloaded())
    assert (await router.claude.messages.create(model=SONNET, **ASK)).model == SONNET
    assert waits == [3.0, 0.5]
    fake.script(*[Fault.overloaded()] * 3)
    with pytest.raises(anthropic.InternalServerError):
        await router.claude.messages.create(model=SONNET, **ASK)
    assert len(fake.requests) == 6


# Switching


@pytest.mark.parametrize("mode", MODES)
async def test_the_environment_stands_over_the_argument(
    make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """An operator switches without an edit; an empty variable is none."""
    monkeypatch.setenv("TIERLINE_MODE", mode)
    assert [make_router(mode=argument).mode for argument in MODES] == [mode] * 3
    monkeypatch.setenv("TIERLINE_MODE", "")
    assert [make_router(mode=argument).mode for argument in MODES] == list(MODES)


async def test_a_mode_that_is_none(make_router: MakeRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped mode is an error that names its place and the three that there are; at run time it changes nothing."""
    with pytest.raises(ConfigurationError, match=r"Router\(mode=…\) is 'watch': write one of enforce, observe, off"):
        make_router(mode="watch")
    router = make_router()
    with pytest.raises(ConfigurationError, match=r"router\.mode is None"):
        router.mode = None  # type: ignore[assignment]
    assert router.mode == "enforce"
    monkeypatch.setenv("TIERLINE_MODE", "ENFORCE!")
    with pytest.raises(ConfigurationError, match="TIERLINE_MODE is 'ENFORCE!'"):
        make_router()


async def test_switching_off_in_the_middle_of_a_stream(make_router: MakeRouter, fake: FakeClaude) -> None:
    """A call keeps the mode that it began in: its stream is settled whatever the mode is by then."""
    router = make_router(budgets=[Budget("$5/day")])
    async with router.bind() as binding, router.claude.messages.stream(model="auto", **ASK) as stream:
        router.mode = "off"
        await stream.get_final_message()
    assert binding.decisions[-1].settled
    assert await spent(router) == fake.billed > 0
    assert sum(balance.held for balance in await router.balances()) == 0


models = st.sampled_from([HAIKU, SONNET, OPUS, "claude-opus-4-8", "auto"])
tiers = st.none() | st.sampled_from(["haiku", "sonnet", "opus"])
rules = st.builds(
    Policy,
    floor=tiers,
    tier=tiers,
    label=st.none() | st.sampled_from(["simple", "moderate", "complex"]),
    explicit_model=st.sampled_from(["respect", "ceiling", "route"]),
    critical=st.booleans(),
    max_tokens=st.none() | st.integers(1, 100),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(models, st.lists(rules, max_size=3), st.integers(1, 10**9))
async def test_observing_and_enforcing_agree(
    make_router: MakeRouter, fake: FakeClaude, model: str, narrowing: list[Policy], limit: int
) -> None:
    """Whatever the policies and the budget: what observing says would happen is what enforcing then does."""
    budget = Budget(f"${limit / NANO:.9f}", name="b")
    observing = make_router(mode="observe", budgets=[budget])
    enforcing = make_router(budgets=[budget])
    async with observing.bind() as seen:
        for rule in narrowing:
            seen.narrow(rule)
        before = len(fake.requests)
        await observing.claude.messages.create(model=model, **ASK)
    assert model == "auto" or fake.requests[before].body == {"model": model, **ASK}
    would = seen.decisions[-1].observed
    assert would is not None
    async with enforcing.bind() as done:
        for rule in narrowing:
            done.narrow(rule)
        try:
            await enforcing.claude.messages.create(model=model, **ASK)
        except BudgetExceededError:
            assert would.tier is None
        else:
            assert would.tier == done.decisions[-1].tier


async def test_an_observed_conversation_goes_on_where_it_would_have(make_router: MakeRouter, fake: FakeClaude) -> None:
    """What observing says of a conversation is what enforcing does with it, turn by turn."""
    seen = []
    for mode in ("enforce", "observe"):
        always = policy(explicit_model="route", sticky=True)
        router = make_router(mode=mode, policy=always, classifier=FixedClassifier("simple"))
        messages: list[Any] = []
        async with router.bind() as binding:
            for turn in ("hi", "go on", "and then?"):
                messages.append({"role": "user", "content": turn})
                await router.claude.messages.create(model=OPUS, max_tokens=300, messages=messages)
                messages.append({"role": "assistant", "content": "I see."})
        seen.append([d.observed.tier if d.observed is not None else d.tier for d in binding.decisions])
    assert seen == [["haiku"] * 3] * 2
