"""Assertions on calls: what they let pass, and what they say where they do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.apps import ask
from tierline import Budget, Decision, Router, policy
from tierline.classify import FixedClassifier
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.testing import Calls, FakeClaude, assert_refused, assert_spent, assert_tier, offline
from tierline.values import Attempt, Usage, usd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anthropic.types import Message

PROMPT = "What did we agree on with Initech?"


@pytest.fixture
def calls(fake: FakeClaude) -> Iterator[Calls]:
    with offline(fake) as found:
        yield found


async def call(router: Router, **options: Any) -> Message:
    message: Message = await router.claude.messages.create(
        **ask(messages=[{"role": "user", "content": PROMPT}], **options)
    )
    return message


def made(**fields: Any) -> Decision:
    """A settled decision of one attempt."""
    attempt = Attempt("haiku", "claude-haiku-5-5", "first", "ok", Usage(10, 20), 1_000_000)
    return Decision(
        **{
            "id": "d1", "tier": "haiku", "model": "claude-haiku-5-5", "requested_tier": "haiku", "label": "simple",
            "confidence": 1.0, "source": "fixed", "attempts": (attempt,), "cost": 1_000_000, "settled": True,
        } | fields
    )  # fmt: skip


def response(status: int = 200, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


async def test_a_message_of_the_sdk(calls: Calls) -> None:
    """It leads to the decision of the call that it answers, among others of the same Router."""
    router = Router(classifier=FixedClassifier("simple"))
    with policy(floor="sonnet"):
        dear = await call(router)
    cheap = await call(router)
    assert_tier(dear, "sonnet")
    assert_tier(cheap, "haiku")
    assert_tier(router, "haiku", "sonnet")
    assert_spent(router, f"={usd(calls.spent)}")
    with pytest.raises(AssertionError) as said:
        assert_tier(dear, "haiku", "opus")
    assert str(said.value) == (
        "expected tier haiku or opus, got sonnet\n"
        f"  sonnet (claude-sonnet-5-5), chosen by fixed, {usd(calls.decisions[0].cost)}\n"
        "    - raised to the floor sonnet"
    )
    assert PROMPT not in str(said.value)
    with pytest.raises(AssertionError, match="got sonnet, haiku\n"):
        assert_tier(router, "sonnet")
    unrouted = cheap.model_copy(update={"model": "claude-opus-5-5"})
    with pytest.raises(AssertionError, match="is its client attached"):
        assert_tier(unrouted, "opus")
    await router.aclose()


def test_a_decision() -> None:
    """What an app keeps of its calls can be held to a tier and to money, with nobody watching."""
    assert_tier(made(), "haiku")
    assert_spent(made(), "<=$0.001")
    with pytest.raises(AssertionError, match=r"expected tier opus, got haiku"):
        assert_tier(made(), "opus")


@pytest.mark.parametrize(
    "amount", ["$0.001", "=$0.001", "==$0.001", "<=$0.001", ">=$0.001", "<$0.0011", ">$0.00099", "> $0"]
)
def test_amounts_that_hold(amount: str) -> None:
    """Six comparisons, with and without a space."""
    assert_spent(made(), amount)


@pytest.mark.parametrize(
    ("amount", "words"),
    [
        ("<$0.001", "less than $0.001"), (">$0.001", "more than $0.001"), ("$0.002", "exactly $0.002"),
        ("<=$0.0009", "at most $0.0009"), (">=$1", "at least $1.00"), ("$0", "exactly $0.00"),
    ],
)  # fmt: skip
def test_amounts_that_do_not(amount: str, words: str) -> None:
    """The message has the bound, the sum, and what each call cost."""
    with pytest.raises(AssertionError) as said:
        assert_spent(made(reasons=("why", "because"), classifier_cost=200_000), amount)
    assert str(said.value) == (
        f"expected {words}, spent $0.001 in 1 call\n"
        "  haiku (claude-haiku-5-5), chosen by fixed, $0.001, $0.0002 of it for a verdict\n    - why\n    - because"
    )


@pytest.mark.parametrize("amount", ["0.01", "<", "< 5", "$", "<$-1", "<$0.0000000001", "!$1", 5])
def test_amounts_that_are_none(amount: Any) -> None:
    """A bound that cannot be read holds nothing, and says so."""
    with pytest.raises(ConfigurationError):
        assert_spent(made(), amount)


async def test_all_calls_of_a_test(calls: Calls) -> None:
    """Without an object it is about every call so far, and a call that goes on is no basis."""
    assert_spent("$0")
    router = Router(classifier=FixedClassifier("simple"))
    async with router.bind(), router.claude.messages.stream(**ask()) as stream:
        with pytest.raises(AssertionError, match="1 of 1 calls have not ended"):
            assert_spent("<$1")
        await stream.get_final_message()
    assert_spent(">$0")
    assert_spent(f"={usd(calls.spent)}")
    await router.aclose()


async def test_a_refusal(calls: Calls) -> None:
    """An error, a Binding and a Router that was refused; which budget it was; and no tier answered."""
    router = Router(classifier=FixedClassifier("simple"), budgets=[Budget("$0.000001", name="tiny")])
    async with router.bind() as binding:
        with pytest.raises(BudgetExceededError) as caught:
            await call(router)
    for what in (caught, caught.value, binding, router):
        assert_refused(what)
        assert_refused(what, "tiny")
        with pytest.raises(AssertionError, match="by budget 'other'"):
            assert_refused(what, "other")
    with pytest.raises(AssertionError, match="expected tier haiku, but nothing was sent\n  refused"):
        assert_tier(binding, "haiku")
    assert calls.spent == 0
    with pytest.raises(AssertionError, match="got KeyError"):
        assert_refused(KeyError("x"))
    with pytest.raises(AssertionError, match="expected a refusal\n  haiku"):
        assert_refused(made())
    await router.aclose()


def test_a_response_by_its_headers() -> None:
    """Of an app elsewhere, with `headers=True`, the last call is told: its tier and its cost."""
    far = response(x_tierline_tier="haiku", x_tierline_source="local", x_tierline_cost_usd="0.000034000")
    assert_tier(far, "haiku")
    assert_spent(far, "=$0.000034")
    with pytest.raises(AssertionError, match=r"got haiku\n  haiku, \$0.000034"):
        assert_tier(far, "opus")
    refused = httpx.Response(429, headers={"x-tierline-tier": "haiku", "content-type": "application/problem+json"})
    assert_refused(refused)
    with pytest.raises(AssertionError, match="the response is a 200"):
        assert_refused(far)


def test_what_tells_of_no_call(calls: Calls) -> None:
    """What is no such thing, and what has no header, is a mistake in the test and says which."""
    with pytest.raises(ConfigurationError, match="headers=True"):
        assert_tier(response(), "haiku")
    with pytest.raises(ConfigurationError, match="dict tells of no call"):
        assert_tier({}, "haiku")
    with pytest.raises(ConfigurationError, match="needs the name of a tier"):
        assert_tier(made())
    with pytest.raises(ConfigurationError, match="is no amount"):
        assert_spent(made())  # type: ignore[call-overload]
    with pytest.raises(AssertionError, match=r"no call of Claude was made \(the response is a 404\)"):
        assert_tier(response(404, x_tierline_binding="req-unknown"), "haiku")
    assert calls.decisions == ()


def test_nobody_watches() -> None:
    """Outside of `offline` that is said, and not that nothing was spent."""
    for asserted in (lambda: assert_spent("$0"), lambda: assert_tier(Router(), "haiku")):
        with pytest.raises(ConfigurationError, match="nobody watches"):
            asserted()
    with pytest.raises(ConfigurationError, match="no longer watched"):
        assert_tier(response(x_tierline_binding="req-unknown"), "haiku")


async def test_a_tier_that_is_misspelt(calls: Calls) -> None:
    """The names that there are stand beside it."""
    router = Router(classifier=FixedClassifier("simple"))
    message = await call(router)
    with pytest.raises(AssertionError, match="hiaku is no tier: they are haiku, sonnet, opus"):
        assert_tier(message, "hiaku")
    await router.aclose()
