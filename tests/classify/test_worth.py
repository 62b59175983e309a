"""What a verdict costs, against what is at stake."""

from __future__ import annotations

from typing import Any

import pytest

from tierline import Ladder
from tierline.call import read_call
from tierline.classify import ClaudeClassifier, View
from tierline.classify.worth import Stakes, stakes_of
from tierline.ladder import DEFAULT_LADDER
from tierline.policies import Effective
from tierline.prices import PriceBook
from tierline.values import Usage

PRICES = PriceBook()
HAIKU, SONNET, OPUS = (tier.model for tier in DEFAULT_LADDER)
QUESTION = ClaudeClassifier().question(View("Why is it blue?"))


def spread(policy: Effective, ladder: Ladder = DEFAULT_LADDER, text: Any = "", **more: Any) -> int | None:
    body = {"model": "auto", "max_tokens": 10_000, "messages": [{"role": "user", "content": text}]}
    call = read_call("create", body | more)
    assert call is not None
    return stakes_of(call, policy, ladder, PRICES).spread


def between(dear: str, cheap: str, prompt: int, output: int) -> int:
    usage = Usage(prompt, output)
    more, less = PRICES.cost(dear, usage), PRICES.cost(cheap, usage)
    assert more is not None
    assert less is not None
    return more - less


def test_the_spread_is_that_of_the_tiers_that_are_allowed() -> None:
    """From the cheapest to the dearest between floor and ceiling, at list prices."""
    assert spread(Effective(0, 2)) == between(OPUS, HAIKU, 0, 400)
    assert spread(Effective(0, 1)) == between(SONNET, HAIKU, 0, 400)
    assert spread(Effective(1, 2)) == between(OPUS, SONNET, 0, 400)


def test_the_length_that_is_expected() -> None:
    """The policy's word, else what is usual, and never more than may be answered; the prompt counts too."""
    assert spread(Effective(0, 2, expected_output=1_000)) == between(OPUS, HAIKU, 0, 1_000)
    assert spread(Effective(0, 2), max_tokens=50) == between(OPUS, HAIKU, 0, 50)
    assert spread(Effective(0, 2, expected_output=1_000, max_tokens=70)) == between(OPUS, HAIKU, 0, 70)
    assert spread(Effective(0, 2), text="x" * 36_000) == between(OPUS, HAIKU, 10_000, 400)
    page = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
    assert spread(Effective(0, 2), text=[page]) == between(OPUS, HAIKU, 10_000, 400)


def test_what_has_no_price_is_not_weighed() -> None:
    """Where nobody knows what a tier costs, a question is asked."""
    ladder = Ladder.of(haiku=HAIKU, own="my-model")
    assert spread(Effective(0, 1), ladder) is None
    assert Stakes(None, HAIKU, PRICES).against(QUESTION, 0.9, 5.0) == ""
    assert Stakes(1, "my-model", PRICES).against(QUESTION, 0.9, 5.0) == ""


def test_the_edge() -> None:
    """Just so much as it is worth is enough; the less doubt is left, the more must be at stake."""
    price = PRICES.cost(HAIKU, Usage(0, 20))
    assert price is not None
    least = next(n for n in range(0, 10**7, 100) if not Stakes(n, HAIKU, PRICES).against(QUESTION, 0.0, 1.0))
    assert least > price
    assert Stakes(2 * least, HAIKU, PRICES).against(QUESTION, 0.5, 1.0) == ""
    assert Stakes(2 * least, HAIKU, PRICES).against(QUESTION, 0.51, 1.0)
    assert Stakes(5 * least, HAIKU, PRICES).against(QUESTION, 0.0, 5.0) == ""
    assert Stakes(5 * least, HAIKU, PRICES).against(QUESTION, 0.0, 5.1)
    assert Stakes(0, HAIKU, PRICES).against(QUESTION, 1.0, 0.0) == ""


@pytest.mark.parametrize("sure", [0.0, 0.6])
def test_the_reason_has_the_numbers(sure: float) -> None:
    """Whoever wonders why there is no verdict can do the sum."""
    said = Stakes(10_000, HAIKU, PRICES).against(QUESTION, sure, 1.0)
    assert said.startswith("it would cost $0.00003")
    assert f"$0.00001 between the tiers, {1 - sure:.2f} in doubt" in said
