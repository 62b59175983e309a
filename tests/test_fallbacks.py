"""Fallbacks of others: the API's own (`fallbacks` in a request) and the SDK's middleware, beside Tierline's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from anthropic import BetaRefusalFallbackMiddleware
from hypothesis import given
from hypothesis import strategies as st

from tierline import Budget, Ladder, Policy, policy
from tierline.call import Fallback, fallbacks_of, read_call
from tierline.errors import BudgetExceededError
from tierline.legality import AS_IT_IS
from tierline.plan import adapt, admit, plan
from tierline.policies import combine
from tierline.prices import PriceBook
from tierline.testing import Reply
from tierline.values import Classification

if TYPE_CHECKING:
    from collections.abc import Callable

    from anthropic import AsyncAnthropic

    from tierline import Router
    from tierline.testing import FakeClaude

    MakeRouter = Callable[..., Router]

HAIKU, SONNET, OPUS = "claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"
LADDER = Ladder.of(haiku=HAIKU, sonnet=SONNET, opus=OPUS)
PRICES = PriceBook()
USER = {"role": "user", "content": "Hello"}


def sent(chain: Any, model: str = "auto", **rule: Any) -> tuple[dict[str, Any], int | None]:
    """The body of a complex call with these fallbacks under a policy, and the most that it may cost."""
    call = read_call("create", {"model": model, "max_tokens": 1_000, "messages": [USER], "fallbacks": chain})
    assert call is not None
    request = admit(call, combine([Policy(**rule)], LADDER), LADDER, PRICES.list_output_price)
    opinion = Classification("complex", 1.0, "keyword")
    found = plan(call, request, opinion, LADDER, sure=0.5, fit=lambda *_: AS_IT_IS, worst=PRICES.offer)
    return adapt(call, found.offers[0]), found.offers[0].cost


def models(body: dict[str, Any]) -> list[str] | None:
    return [entry["model"] for entry in body["fallbacks"]] if "fallbacks" in body else None


CHAIN = [{"model": HAIKU}, {"model": SONNET, "max_tokens": 500}, {"model": "claude-opus-4-8"}, {"model": "claude-next"}]


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({}, [HAIKU, SONNET, "claude-opus-4-8", "claude-next"]),
        ({"floor": "sonnet"}, [SONNET]),
        ({"floor": "haiku"}, [HAIKU, SONNET]),
        ({"ceiling": "haiku"}, [HAIKU]),
        ({"tier": "opus"}, None),
        ({"max_tokens": 499}, [HAIKU]),
        ({"max_tokens": 500}, [HAIKU, SONNET]),
    ],
)
@pytest.mark.parametrize("model", ["auto", OPUS])
def test_a_policy_holds_for_fallbacks(rule: Any, kept: list[str] | None, model: str) -> None:
    """No model outside of floor and ceiling is asked by the API either, nor one that nobody can rank."""
    body, _ = sent(CHAIN, model, **rule)
    assert models(body) == kept


def test_an_id_that_is_a_ceiling_is_one_for_fallbacks() -> None:
    """Where the model that the app names is the most that it may be, the API asks none above it."""
    body, _ = sent([{"model": OPUS}, {"model": HAIKU}], SONNET, explicit_model="ceiling")
    assert (body["model"], models(body)) == (SONNET, [HAIKU])


@pytest.mark.parametrize("chain", ["default", [{"model": 5}], [{"model": HAIKU, "max_tokens": "9"}], [5], {"a": 1}])
def test_fallbacks_that_cannot_be_told(chain: Any) -> None:
    """Where the API chooses, a call has no bound; a policy that has something to hold leaves such fallbacks out."""
    body, cost = sent(chain)
    assert (body["fallbacks"], cost) == (chain, None)
    body, cost = sent(chain, floor="sonnet")
    assert "fallbacks" not in body
    assert cost is not None


def test_the_worst_case_is_all_of_them() -> None:
    """Every model of the chain may be asked and billed, each with its own limit and speed."""
    alone = {model: sent([], model)[1] or 0 for model in (HAIKU, SONNET, OPUS)}
    both = sent([{"model": HAIKU}, {"model": SONNET}], OPUS)[1]
    assert both is not None
    # The chain itself makes the prompt a little longer, by at most its text.
    assert both >= sum(alone.values())
    longer = sent([{"model": HAIKU, "max_tokens": 100_000}], OPUS)[1]
    assert longer is not None
    assert longer > both
    assert sent([{"model": "claude-next"}], OPUS)[1] is None
    assert sent([{"model": HAIKU, "speed": "fast"}], OPUS)[1] is None  # it has no such price


@given(
    st.recursive(
        st.none() | st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_nonsense_is_no_fallback(chain: Any) -> None:
    """Whatever stands there, nothing crashes, and what is read is what is there."""
    found = fallbacks_of({"fallbacks": chain})
    assert all(isinstance(entry, Fallback) for entry in found)
    assert len(found) in (0, len(chain) if isinstance(chain, list) else 0)


async def test_a_hard_budget_takes_a_call_with_fallbacks(make_router: MakeRouter, fake: FakeClaude) -> None:
    """It is bounded by all that may be asked, and settled for what was; one of the API's choice is refused."""
    router = make_router(budgets=[Budget("$1")])
    body = {"model": OPUS, "max_tokens": 100, "messages": [USER]}
    await router.claude.beta.messages.create(**body, fallbacks=[{"model": SONNET}])  # type: ignore[call-overload]
    with pytest.raises(BudgetExceededError, match="a model of the API's choice"):
        await router.claude.beta.messages.create(**body, fallbacks="default")  # type: ignore[call-overload]
    (balance,) = await router.balances()
    assert (balance.spent, balance.held) == (fake.billed, 0)
    assert len(fake.requests) == 1


async def test_the_sdks_refusal_fallbacks(make_router: MakeRouter, sdk: AsyncAnthropic, fake: FakeClaude) -> None:
    """The SDK's middleware asks the next model where one refuses: each is a call with a floor and a bill of its own."""
    fake.answer = lambda request: Reply(stop_reason="refusal") if request.model == OPUS else "Here you are."
    client = sdk.with_middleware(BetaRefusalFallbackMiddleware([{"model": HAIKU}]))
    router = make_router(client, budgets=[Budget("$1")])
    async with router.bind() as binding:
        with policy(floor="sonnet", label="complex"):
            message = await router.claude.beta.messages.create(model="auto", max_tokens=500, messages=[USER])
    assert any(getattr(block, "text", "") == "Here you are." for block in message.content)
    assert [request.model for request in fake.requests] == [OPUS, SONNET]  # Haiku is below the floor
    assert [decision.tier for decision in binding.decisions] == ["opus", "sonnet"]
    (balance,) = await router.balances()
    assert (balance.spent, balance.held) == (fake.billed, 0)
