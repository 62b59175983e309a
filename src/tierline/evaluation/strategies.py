"""What a strategy is expected to cost and to bring, from recorded decisions: escalation as a chain of chances. Pure.

How well checks tell a poor answer from a good one is in no log: those rates are assumed, by `Assumed`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.budgets import first_fit, within_thresholds
from tierline.errors import ConfigurationError
from tierline.escalation.rules import Escalate
from tierline.numeric import is_number

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tierline.budgets import Line
    from tierline.ladder import Ladder
    from tierline.plan import Plan
    from tierline.policies import Effective
    from tierline.values import Offer

NOTICED: Final = 0.7
FALSE_ALARMS: Final = 0.1
_ESCALATES: Final = "escalates from "
_STOPPED: Final = re.compile(r", and no tier is above\Z|\Ano escalation to ")
_LOOP: Final = ("a tool loop stays on ", "step on ")


@dataclass(frozen=True, repr=False)
class Assumed(Escalate):
    """Escalation, with what is assumed of its checks: `Scenario(policy=Policy(escalate=Assumed(noticed=0.5)))`.

    - `noticed`: the share of poor answers that fail a check, from 0 to 1
    - `false_alarms`: the share of good answers that do, from 0 to 1

    ConfigurationError for rates that cannot be.
    """

    noticed: float = NOTICED
    false_alarms: float = FALSE_ALARMS

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("noticed", "false_alarms"):
            value: object = getattr(self, name)
            if not is_number(value, 0, 1):
                raise ConfigurationError(f"escalate: {name} is {value!r:.60}; write a share from 0 to 1")

    @property
    def told(self) -> str:
        """The rates, in words."""
        return f"{self.noticed:.0%} of poor answers are noticed, {self.false_alarms:.0%} of good ones rejected"


def assumed(rules: Escalate) -> Assumed:
    """What is assumed of these checks: the usual rates, where nobody says others."""
    return rules if isinstance(rules, Assumed) else Assumed()


class Walk(NamedTuple):
    """A chain that begins at the first of `tiers` and may go up to the last one.

    `answers` is how likely the app gets the answer of each tier, and `cost` (nano-USD) what the chain is expected to
    cost. `unknown` is why that cannot be known; empty where it can.
    """

    tiers: tuple[str, ...]
    rates: Assumed
    answers: Mapping[str, float]
    cost: int
    unknown: str = ""

    @property
    def likeliest(self) -> str:
        """The tier that most likely gives the answer; the cheaper one of two alike."""
        return max(self.answers, key=lambda name: self.answers[name])

    def good(self, known: Mapping[str, float]) -> float | None:
        """How likely the app gets a good answer, by what is known of each tier; None where a tier is missing."""
        found, reached = 0.0, 1.0
        for name in self.tiers:
            if reached <= 0:
                break
            if name not in known:
                return None
            good, on = _share(known[name]), 0.0
            if name != self.tiers[-1]:
                on = fails(good, self.rates)
                good *= 1 - self.rates.false_alarms
            found += reached * good
            reached *= on
        return found


def fails(good: float, rates: Assumed) -> float:
    """How likely an answer fails a check that is good by this chance."""
    return (1 - good) * rates.noticed + good * rates.false_alarms


def _share(good: float) -> float:
    return min(1.0, max(0.0, float(good)))


def walk(chain: list[Offer], known: Mapping[str, float], rates: Assumed) -> Walk:
    """The expected way of a chain whose offers cost what the recorded usage costs there.

    `known` is how likely the answer of each tier is good. The last tier is not in need of it: it has the last word.
    """
    cost, reached = 0.0, 1.0
    answers: dict[str, float] = {}
    tiers = tuple(offer.tier for offer in chain)
    for offer in chain:
        if reached <= 0:
            break
        if offer.cost is None:
            return Walk(tiers, rates, answers, 0, f"model {offer.model} has no known price")
        cost += reached * offer.cost
        on = 0.0
        if offer is not chain[-1]:
            if offer.tier not in known:
                return Walk(tiers, rates, answers, 0, "how good its answers are is neither in the log nor graded")
            on = fails(_share(known[offer.tier]), rates)
        answers[offer.tier] = reached * (1 - on)
        reached *= on
    return Walk(tiers, rates, answers, round(cost))


def climb(planned: Plan, offer: Offer, ladder: Ladder, lines: Sequence[Line], used: Sequence[int]) -> list[Offer]:
    """A chain from this offer on, as far as budgets let it go: what its answers cost counts on the way."""
    places = {ladder.index(each.tier, "offer"): each for each in (*planned.offers, *planned.fallbacks)}
    chain, spent = [offer], offer.cost or 0
    for place in sorted(place for place in places if place > ladder.index(offer.tier, "offer")):
        now = [amount + spent for amount in used]
        if first_fit((places[place],), lines, now, thresholds=False).skipped:
            break
        # A budget that has begun to save asks no second answer.
        if planned.thresholds and within_thresholds(2, zip(lines, now, strict=True))[0]:
            break
        chain.append(places[place])
        spent += places[place].cost or 0
    return chain


# What a record tells of strategies


def in_loop(record: Mapping[str, Any]) -> bool:
    """Whether it is told that it went on with a tool loop."""
    told = any(str(reason).startswith(_LOOP) for reason in record.get("reasons") or ())
    return told or record.get("source") == "step"


def began(record: Mapping[str, Any]) -> bool:
    """Whether a chain began there, so that nobody was asked, and what its checks found is known."""
    return any(str(reason).startswith(_ESCALATES) for reason in record.get("reasons") or ())


def escalated_alike(record: Mapping[str, Any], chain: Sequence[Offer]) -> bool:
    """Whether it was a chain already that went this very way, and had reason to end where it did."""
    tried = tuple(dict.fromkeys(str(each["model"]) for each in record.get("attempts") or ()))
    models = tuple(offer.model for offer in chain)
    if not tried or not began(record) or tried != models[: len(tried)]:
        return False
    # It may go on where it wanted to, and was not let.
    return len(tried) == len(models) or not any(_STOPPED.search(str(reason)) for reason in record["reasons"])


def beyond(record: Mapping[str, Any], policy: Effective) -> bool:
    """Whether more was asked than this policy asks: by escalation, or a speculation in vain."""
    roles = [each["role"] for each in record.get("attempts") or ()]
    escalated = began(record) or "escalation" in roles
    return (escalated and policy.escalate is None) or ("speculative" in roles[:-1] and not policy.speculate)
