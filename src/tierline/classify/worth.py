"""Whether a question to Claude is worth its price: what it costs, against what a better choice can save. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.classify.question import body_of
from tierline.values import Usage, usd

if TYPE_CHECKING:
    from tierline.call import Call
    from tierline.classify.base import Question
    from tierline.ladder import Ladder
    from tierline.policies import Effective
    from tierline.prices import PriceBook

CHARS_A_TOKEN: Final = 3.6
"""Of English prose, where tokens are not known; prices are weighed, and not reserved, by it."""
USUAL_OUTPUT: Final = 400
"""Tokens of an answer that the policy says nothing of (`expected_output`), where `max_tokens` lets it be so long."""
_UNREAD: Final = 10_000
"""Tokens of a prompt whose length does not show: documents, files."""
_ANSWER: Final = 20
"""Tokens of a verdict."""


class Stakes(NamedTuple):
    """What the choice of a tier for one call is about.

    `spread` is what the dearest tier that it may use costs more than the cheapest, in nano-USD, at the length that is
    expected of its prompt and its answer; None where a price is not known. `asked` is the model that would be asked.
    """

    spread: int | None
    asked: str
    prices: PriceBook

    def against(self, question: Question, sure: float, worth: float) -> str:
        """Why not to ask, with the numbers; empty where the question is worth it.

        It is where the spread, times the doubt that is left (1 - `sure`), is at least `worth` times its price.
        """
        if self.spread is None or worth <= 0:
            return ""
        price = self.price_of(question)
        saves = round(self.spread * (1 - sure))
        if price is None or saves >= worth * price:
            return ""
        return (
            f"it would cost {_about(price)}, and {_about(saves)} is at stake here "
            f"({_about(self.spread)} between the tiers, {1 - sure:.2f} in doubt)"
        )

    def price_of(self, question: Question) -> int | None:
        """About what asking costs, in nano-USD; None where there is no price."""
        body = body_of(question, model=self.asked)
        length = len(body["system"]) + len(body["messages"][0]["content"])
        return self.prices.cost(self.asked, Usage(round(length / CHARS_A_TOKEN), _ANSWER))


def stakes_of(call: Call, policy: Effective, ladder: Ladder, prices: PriceBook) -> Stakes:
    """What is at stake in the choice for `call` under `policy`, at list prices."""
    usage = usual_usage(call, policy)
    costs = [prices.cost(tier.model, usage) for tier in ladder[policy.floor : policy.ceiling + 1]]
    known = [cost for cost in costs if cost is not None]
    spread = max(known) - min(known) if len(known) == len(costs) else None
    return Stakes(spread, ladder[0].model, prices)


def usual_usage(call: Call, policy: Effective) -> Usage:
    """Tokens that are expected of a call: of its prompt by its length, of its answer by its policy."""
    prompt = _UNREAD if call.input_bound is None else call.text_bytes / CHARS_A_TOKEN
    output = USUAL_OUTPUT if policy.expected_output is None else policy.expected_output
    for limit in (call.max_tokens, policy.max_tokens):
        output = output if limit is None else min(output, limit)
    return Usage(round(prompt), output)


def _about(nano: int) -> str:
    """Money to six digits after the point."""
    return usd(round(nano, -3))
