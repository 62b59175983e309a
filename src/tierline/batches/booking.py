"""What became of requests of batches, told to all who count: the report, the traffic, the metrics, the decision log."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from tierline.batches.holding import reservation_of
from tierline.batches.jobs import FINAL
from tierline.call import turn_of
from tierline.usage import metered
from tierline.values import Attempt, Decision, Terms, Usage
from tierline.veil import veiled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tierline.batches.jobs import BatchRow, Ended, Fact, Held, Item
    from tierline.call import Call
    from tierline.ledger.base import Reservation
    from tierline.plan import Plan
    from tierline.policies import Effective
    from tierline.router import Router


@veiled("text")
class Said(NamedTuple):
    """What the decision log says of a request, as far as it is known when that is taken in. A job keeps it as JSON."""

    requested: str
    label: str | None
    confidence: float
    source: Any
    reasons: Sequence[str]
    tags: Sequence[Sequence[str]]
    tools: int
    text: str | None

    @classmethod
    def of(cls, call: Call, found: Plan, policy: Effective, *, text: bool) -> str:
        """As JSON. With `text`, the latest turn of the prompt is in it."""
        tools = call.body.get("tools")
        return json.dumps(
            cls(
                found.requested,
                found.label,
                found.confidence,
                found.source,
                found.reasons,
                policy.tags,
                len(tools) if isinstance(tools, list) else 0,
                turn_of(call)[0] if text else None,
            )
        )


class Booking:
    """Counts each request once: in the process that has taken in its result."""

    def __init__(self, router: Router[Any]) -> None:
        self._router = router

    def ended(
        self,
        row: BatchRow,
        found: Sequence[Ended],
        facts: Mapping[int, Fact],
        holds: Mapping[str, Reservation],
        results: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> None:
        """Results have been taken in, with what is known of them and what the API said, by place.

        Those that are to be tried again are left.
        """
        for each in found:
            held = holds.get(facts[each.place].hold)
            if each.state == FINAL and held is not None:
                self._count(held, each)
                if said := facts[each.place].said:
                    result = results.get(each.place, {}) if results is not None else {}
                    self._log(row, each, held, Said(*json.loads(said)), result.get("message"))

    def over(self, found: Sequence[Ended], hold: Held) -> None:
        """Requests of one hold that waited have a result without being sent once more."""
        held, _ = reservation_of(hold)
        for each in found:
            self._count(held, each)

    def unsent(self, items: Sequence[Item]) -> None:
        """Requests have been taken that are not sent: refused, or none at all."""
        for item in items:
            if item.state == FINAL:
                self._router.tally.batched("", item.outcome)
                self._router.metrics.batched("", item.outcome)

    def settled(self, held: Reservation, cost: int) -> None:
        """A hold was replaced by what its requests came to (nano-USD)."""
        self._router.metrics.charged(held, cost)

    def _count(self, held: Reservation, each: Ended) -> None:
        router, tier = self._router, held.offer.tier
        router.tally.batched(tier, each.outcome, each.cost, each.plain, each.top)
        router.metrics.batched(tier, each.outcome, each.cost, each.top, held.origin.route)
        if router.meter is not None:
            router.meter.batched(held, each.top - each.cost)

    def _log(self, row: BatchRow, each: Ended, held: Reservation, said: Said, message: Any) -> None:
        log = self._router.decision_log
        if log is None:
            return
        outcome = "ok" if each.outcome == "succeeded" else each.outcome
        found = metered(message.get("usage"), Terms(batch=True), None) if isinstance(message, dict) else None
        usage, offer = found.usage if found is not None else Usage(), held.offer
        attempt = Attempt(offer.tier, offer.model, "first", outcome, usage, each.cost, estimated=each.estimated)
        decision = Decision(
            id=f"{row.uid}-{each.place}",
            tier=offer.tier,
            model=offer.model,
            requested_tier=said.requested,
            label=said.label,
            confidence=said.confidence,
            source=said.source,
            reasons=(*said.reasons, f"in a batch of job {row.job}"),
            attempts=(attempt,),
            usage=usage,
            cost=each.cost,
            saved=each.top - each.cost,
            estimated=each.estimated,
            settled=True,
            route=held.origin.route,
            tenant=held.origin.tenant,
            tags=tuple((name, value) for name, value in said.tags),
        )
        log.write(decision, at=self._router.timing.now(), outcome=outcome, tools=said.tools, text=said.text)


def holds_of(held: Sequence[Held]) -> dict[str, Reservation]:
    """Holds by their ids in the job."""
    return {each.id: reservation_of(each)[0] for each in held}
