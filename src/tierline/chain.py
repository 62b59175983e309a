"""A chain of tiers: a cheaper one answers, the answer is looked at, and where it is poor the next tier answers.

It goes up only, within the ceiling. Where the next tier may not be asked, or fails, the app gets the answer that there
is. A stream is looked at before the app has its first byte, and not after.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from time import time_ns
from typing import TYPE_CHECKING, Any, Final

from tierline.attempts import LEFT
from tierline.classify.worth import usual_usage
from tierline.escalation.answers import read_answer
from tierline.escalation.beginning import Beginning, Known, begin
from tierline.escalation.checks import asks_json, begins_as_json
from tierline.examining import Examiner
from tierline.firstpart import first_part_of
from tierline.retries import LEAST_LEFT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.attempts import OpenAttempt, Reply
    from tierline.call import Call
    from tierline.dispatch import Dispatch
    from tierline.escalation.answers import Answer
    from tierline.escalation.checks import Finding
    from tierline.escalation.rules import Escalate
    from tierline.examining import Examined
    from tierline.learn.grading import Asked
    from tierline.plan import Plan, Request
    from tierline.policies import Effective
    from tierline.router import Router
    from tierline.values import Attempt, Forecast, Offer, View

log: Final = logging.getLogger("tierline")

_ELSEWHERE: Final = ("container", "thread", "mcp_servers", "fallbacks")
"""What an answer would leave on the server, do elsewhere, or take from a model of the API's choice."""
_JSON_SEEN: Final = 8
"""Characters by which it is told whether a text begins as JSON."""


def rules_for(call: Call, request: Request) -> Escalate | None:
    """What the answer to a call is checked for; None for one that does not escalate.

    Those are: a pin, an id that is respected, the only tier between floor and ceiling, a conversation that the server
    holds, and whatever would leave something elsewhere.
    """
    rules = request.policy.escalate
    if rules is None or request.target is not None or call.kind != "create" or call.threaded:
        return None
    if (call.stream and not rules.hold) or any(call.body.get(name) for name in _ELSEWHERE):
        return None
    return rules


def beginning_for(
    router: Router[Any], call: Call, policy: Effective, forecast: Forecast | None
) -> Callable[[Sequence[int]], Beginning]:
    """Where the chain of a call begins among the places that it may use: see `tierline.escalation.beginning`."""

    def beginning(among: Sequence[int]) -> Beginning:
        usage = usual_usage(call, policy)
        chances = {chance.tier: chance for chance in forecast.chances} if forecast is not None else {}
        known = {}
        for place in among:
            tier = router.ladder[place]
            chance = chances.get(tier.name)
            cost = router.prices.cost(tier.model, usage)
            known[place] = Known(cost, chance.good, chance.evidence) if chance is not None else Known(cost)
        return begin(among, known, [tier.name for tier in router.ladder])

    return beginning


class Loop:
    """The tool loop that a call may begin or go on with: all of it is answered by the tier whose answer began it."""

    def __init__(self, router: Router[Any], call: Call, view: View, tenant: str | None) -> None:
        self._router = router
        self._begun = call.in_tool_loop
        # A tool that is forced in the first step is free in the next: the loop is the same.
        same = replace(view, forced_tool=False, max_tokens=0)
        self._key = router.cache.key(same, tenant=tenant, fingerprint="escalation", version="loop")

    def keep(self, tier: str) -> None:
        """Remember which tier began it."""
        if not self._begun:
            self._router.escalations.loops.keep(self._key, tier)

    def beginning(self, policy: Effective) -> Callable[[Sequence[int]], Beginning] | None:
        """The tier of a loop that goes on, as far as the policy and the request let it; None for what is not known."""
        ladder = self._router.ladder
        name = self._router.escalations.loops.find(self._key) if self._begun else None
        place = ladder.place_of(name) if name is not None else None
        if place is None:
            return None
        place = max(policy.floor, min(policy.ceiling, place))
        found = Beginning(place, f"a tool loop stays on {ladder[place].name}", source="sticky")
        return lambda _: found


class Chain:
    """The answers of one call, until one is good enough or no better one may be asked for."""

    def __init__(
        self,
        router: Router[Any],
        rules: Escalate,
        call: Call,
        plan: Plan,
        dispatch: Dispatch,
        asked: Asked | None,
        tenant: str | None,
    ) -> None:
        self._router, self._rules, self._plan = router, rules, plan
        self._dispatch, self._asked = dispatch, asked
        self._examiner = Examiner(
            rules,
            call,
            dispatch.upstream,
            router.ladder[0],
            router.escalations,
            dispatch.lines,
            dispatch.origin.route,
            tenant,
            dispatch.reasons,
        )
        self._poor: Attempt | None = None
        self._over = False
        self.let_go: list[Attempt] = []
        """Attempts whose answers the app does not get."""
        self.held = False
        """Whether bytes of an answer were read before the app has them."""

    @property
    def spent(self) -> int:
        """What grades cost, in nano-USD."""
        return self._examiner.spent

    async def run(self, reply: Reply) -> Reply:
        """The answer that the app gets, after the first one."""
        try:
            better: Reply | None = reply
            while better is not None:
                reply = better
                better = None if reply.error or self._over else await self._next(reply)
        except BaseException:
            await self._cut_off()
            raise
        return reply

    async def _next(self, reply: Reply) -> Reply | None:
        """A better answer than this one; None where it is good enough, or there is none to be had."""
        dispatch = self._dispatch
        above = self._above()
        found = await self._examined(reply, last=not above)
        if found is None:
            return None
        self._teach(found)
        finding = found.finding
        if finding is None:
            return None
        assert dispatch.offer is not None  # noqa: S101  (it has answered)
        if not above:
            dispatch.reasons.append(f"{dispatch.offer.tier}: {finding.told}, and no tier is above")
            return None
        return await self._escalate(dispatch.offer, above[0], finding)

    def _above(self) -> list[Offer]:
        """The tiers above the one that has answered, cheapest first, which take the call."""
        ladder, here = self._router.ladder, self._dispatch.offer
        at = ladder.place_of(here.tier) if here is not None else None
        if at is None:
            return []
        found = {ladder.index(offer.tier, "offer"): offer for offer in (*self._plan.offers, *self._plan.fallbacks)}
        return [found[place] for place in sorted(found) if place > at]

    # Looking at an answer

    async def _examined(self, reply: Reply, *, last: bool) -> Examined | None:
        """What is to be said of an answer; None where it could not be looked at."""
        try:
            answer, document = await self._seen(reply)
            if answer is None:
                return None
            return await self._examiner.examine(answer, document, self._dispatch.left, last=last)
        except Exception as error:  # noqa: BLE001  (whatever it is, its message may quote the answer)
            self._dispatch.reasons.append(f"the answer was not checked: {type(error).__name__}")
            log.debug("an answer was not checked: %s", type(error).__name__)
            return None

    async def _seen(self, reply: Reply) -> tuple[Answer | None, bytes | None]:
        """The answer as far as it may be looked at, and the whole of it as it was sent."""
        pending = self._dispatch.pending
        if pending is not None:
            return await self._beginning(reply, pending)
        document = self._dispatch.upstream.content(reply)
        return read_answer(document), document

    async def _beginning(self, reply: Reply, pending: OpenAttempt) -> tuple[Answer | None, bytes | None]:
        """Hold back as much of an answer as it takes to tell how it begins."""
        part = first_part_of(pending.reader)
        held = self._dispatch.upstream.hold(reply)
        self.held = True
        while not part.full and self._dispatch.left > LEAST_LEFT:
            try:
                data = await held.more()
            except Exception:
                if pending.result is None:
                    raise  # it cannot be decoded, and the app will see for itself
                data = None
            if pending.result is not None and pending.result.outcome in LEFT:
                return None, None  # cut off from here, such as by a shutdown: nobody waits for a better one
            if data is None:
                part.ended()
                answer = part.answer
                if answer is not None and not (answer.whole or answer.error):
                    outcome = pending.result.outcome if pending.result is not None else ""
                    answer = answer._replace(error=outcome or "truncated")
                return answer, part.document
            part.feed(data)
            answer = part.answer
            if answer is not None and self._enough(answer):
                return answer, None
        return part.answer, None

    def _enough(self, answer: Answer) -> bool:
        """Whether so much of a stream tells how it begins."""
        if answer.whole or answer.error or answer.stop_reason is not None:
            return False  # its end is at hand, and then all of it is known, and what it cost
        if answer.calls:
            return True
        rules, wanted = self._rules, self._examiner.wanted
        if asks_json(wanted, rules):
            seen = (wanted.begins + answer.text).lstrip()
            return len(seen) >= min(_JSON_SEEN, rules.hold) or not begins_as_json(seen)
        phrases = rules.refusals or rules.unsure or rules.phrases
        return len(answer.text) >= (rules.hold if phrases else 1)

    def _teach(self, found: Examined) -> None:
        """Learn from it: each that fails as part of an outcome, of those that pass a part as one each."""
        offer, weight = self._dispatch.offer, found.weight
        if self._asked is None or offer is None or (found.finding is not None and found.finding.kind == "error"):
            return
        if found.finding is None:
            if self._router.timing.chance() >= weight:
                return
            weight = 1.0
        self._asked.checked(self._dispatch.key, offer.tier, found.good, weight)

    # Asking the next tier

    async def _escalate(self, here: Offer, above: Offer, finding: Finding) -> Reply | None:
        dispatch = self._dispatch
        pending, reservation = dispatch.pending, dispatch.reservation
        dispatch.reasons.append(f"{here.tier}: {finding.told}")
        dispatch.why, began = finding.kind, time_ns()
        better = await dispatch.another(above, "escalation", self._let_go, thresholds=self._plan.thresholds)
        if better is None:
            return None
        assert self._poor is not None  # noqa: S101  (it was let go)
        if not better.error:
            self.let_go.append(self._poor)
            dispatch.reasons.append(f"escalation from {here.tier} to {above.tier}")
            dispatch.trace.event("escalation", {"reason": finding.kind, "from": here.tier, "to": above.tier}, began)
            self._router.metrics.escalated(finding.kind, here.tier, above.tier, dispatch.origin.route)
            return better
        dispatch.reasons.append(f"{above.tier} failed: {better.error}")
        if pending is None or self._poor.outcome == "ok":
            # It has come whole, and goes to the app after all.
            if better.discard is not None:
                await better.discard()
            dispatch.offer, dispatch.reservation, dispatch.answered = here, reservation, self._poor
            return None
        # What there was is gone, but for asking once more; and what is said then is not looked at again.
        self.let_go.append(self._poor)
        self._over = True
        again = await dispatch.another(here, "fallback", _nothing, thresholds=False)
        if again is None:
            return better
        if better.discard is not None:
            await better.discard()
        return again

    async def _let_go(self) -> None:
        """The answer that there is will not do: end its attempt, unless it has ended."""
        dispatch, pending = self._dispatch, self._dispatch.pending
        if pending is None:
            self._poor = dispatch.attempts[-1]
            return
        if not pending.ended:
            await dispatch.books.outlive(pending.abandon("closed"))
        assert pending.result is not None  # noqa: S101  (it has ended)
        self._poor = pending.result
        dispatch.attempts.append(pending.result)
        dispatch.streamed(pending.result)
        dispatch.pending = None

    async def _cut_off(self) -> None:
        """Nobody waits for the answer that was being looked at."""
        pending, self._dispatch.pending = self._dispatch.pending, None
        if pending is None:
            return
        pending.when_ended(self._dispatch.attempts.append)
        await self._dispatch.books.outlive(pending.abandon("cancelled"))


async def _nothing() -> None:
    pass
