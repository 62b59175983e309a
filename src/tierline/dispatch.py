"""Steps 4 to 7 of a call: reserve, send, retry or fall back, until an answer comes or no tier is left."""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from tierline.attempts import OpenAttempt
from tierline.budgets import within_thresholds
from tierline.errors import BudgetExceededError, LedgerUnavailableError, UnknownModelError
from tierline.health import silence_of
from tierline.ledger.base import NOWHERE
from tierline.models import model_of
from tierline.plan import adapt
from tierline.retries import KEPT, LEAST_LEFT, PATIENT_FOR, usual_deadline, wait_before
from tierline.telemetry import active, describe
from tierline.transcript import keeping
from tierline.values import NO_PRICE, Refusal, Remaining, usd

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tierline.attempts import Books, Reply
    from tierline.binding import Binding, Pace
    from tierline.breaker import Entry
    from tierline.budgets import Line
    from tierline.call import Call
    from tierline.health import Health, TierHealth
    from tierline.ledger.base import Origin, Reservation
    from tierline.plan import Plan
    from tierline.retries import RetryBudget
    from tierline.telemetry import CallTrace
    from tierline.upstream import Upstream
    from tierline.values import Attempt, Offer, Role

    _Way = Callable[[Reply, Offer, list[Offer]], Awaitable[Reservation | Refusal | None]]

log: Final = logging.getLogger("tierline")

_UNASKED: Final = "the ledger could not be asked: it is told what this costs when it is back"
_AWAY: Final = "the ledger cannot be asked"
_THINKING: Final = ("enabled", "adaptive", "between_tools")
_RATE_LIMITED: Final = 429
_BROKEN: Final = ("overloaded_error", "api_error", "timeout_error", "connection_error", "truncated")
"""How a stream ends that the API broke off."""
_TELLING: Final = 3
"""Attempts of one call at one tier that its breaker counts: one bad request, however often retried, opens none."""
_OWN_AFTER: Final = 10.0
"""Seconds for which a tier must have waited for a probe before a question of Tierline's own makes it."""


@dataclass(slots=True)
class Dispatch:
    """One call on its way through its attempts.

    `attempts` holds those that have ended, `reasons` what moved the call. `deadline` is seconds from `started` for all
    of it, None for what the SDK's own timeout allows its attempts. A call that is only `watched` is told to breakers
    and budgets, and held back by none.
    """

    call: Call
    plan: Plan
    binding: Binding
    lines: Sequence[Line]
    upstream: Upstream
    books: Books
    health: Health
    trace: CallTrace
    key: str
    origin: Origin = NOWHERE
    started: float = 0.0
    deadline: float | None = None
    watched: bool = False
    attempts: list[Attempt] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    offer: Offer | None = None
    reservation: Reservation | None = None
    pending: OpenAttempt | None = None
    """The attempt whose answer the app is about to read."""
    admitted: Reservation | None = None
    """The first reservation."""
    doubtful: tuple[Offer, ...] = ()
    """Offers that are left out because their rate limit is exhausted: for where a budget has room for no other."""
    later: list[tuple[float, Offer]] = field(default_factory=list)
    """Tiers that asked for a long wait, and when that is over."""
    before: int = 0
    """Attempts of tiers that were asked before this one, and whose answers were not good enough."""
    why: str = ""
    """Why a better tier is asked, in one word."""
    cut: str = "cancelled"
    """The outcome of an attempt that is cancelled."""
    paced: float = 0.0
    """Seconds for which the call was held back, with nothing held for it: see `Pace`."""
    answered: Attempt | None = None
    """The attempt whose answer the app gets, where that is not the last one."""

    async def run(self) -> Reply:
        """Attempts until one brings an answer or none is left.

        BudgetExceededError where nothing may be sent, UnknownModelError where that is for want of a price.
        """
        if self._pace is not None:
            await self._wait_for_room(self.plan.offers[0])
        if self.health.troubled and not self.watched and (refused := self._avoid()) is not None:
            return refused
        held = await self._reserve(self.plan.offers, thresholds=self.plan.thresholds)
        if isinstance(held, Refusal) and (cheaper := self._cheaper(held)):
            held = await self._reserve(cheaper, thresholds=False)
        if isinstance(held, Refusal):
            first = self.plan.offers[0]
            if first.unbounded == NO_PRICE:
                raise UnknownModelError(
                    f"model {first.model[:60]!r} has no known price, and budget {held.budget!r} is hard: write "
                    "model='auto' or an id of the ladder, or give it a price, Router(prices=PriceBook({…: Rates(…)}))"
                )
            left = held.limit - held.spent - held.held
            self.trace.budget("refuse", held.needed, Remaining(held.budget, held.account, held.limit, left))
            raise BudgetExceededError(held)
        self._note_admission(held)
        self._budget.called(self.origin.tenant)
        return await self._through(held, "first")

    async def another(
        self, offer: Offer, role: Role, let_go: Callable[[], Awaitable[None]], *, thresholds: bool
    ) -> Reply | None:
        """Ask another tier when there is an answer already. None where it may not be asked now; the reason is added.

        `let_go` is awaited when the money is held and before anything is sent. With `thresholds` a budget that has
        begun to save has no room. What fails is tried again, but nobody waits for long, and no further tier is asked. A
        ledger that is away costs no answer that there is.
        """
        if not self.left >= LEAST_LEFT:
            self._not_made(f"no {role} to {offer.tier}", "the deadline is near", "deadline")
            return None
        if why := self._why_not(offer):
            by = "rate_limit" if self._lets(self._tier(offer)) else "breaker"
            self._not_made(f"no {role} to {offer.tier}", why, by)
            return None
        try:
            held = await self._reserve((offer,), thresholds=False)
        except LedgerUnavailableError:
            self.reasons.append(f"no {role} to {offer.tier}: {_AWAY}")
            return None
        if isinstance(held, Refusal):
            self.reasons.append(f"no {role} to {offer.tier}: {describe(held)}")
            return None
        saving, tight = within_thresholds(2, zip(self.lines, held.used, strict=False)) if thresholds else (0, "")
        try:
            if not saving:
                await let_go()
        except BaseException:
            await self.books.finish(self.books.ledger.release(held.id))
            raise
        if saving:
            await self.books.finish(self.books.ledger.release(held.id))
            self.reasons.append(f"no {role} to {offer.tier}: budget {tight} at {held.share:.0%}")
            return None
        self.before = len(self.attempts)
        self.later.clear()
        return await self._through(held, role, [])

    async def _through(self, held: Reservation, role: Role, elsewhere: list[Offer] | None = None) -> Reply:
        """Attempts, beginning with one that the money is held for. `elsewhere` is where else they may be made.

        Where it is None, those are the plan's. What a budget left out is left out for a failure too.
        """
        skipped = held.skipped
        number = 0
        while True:
            tier = self._tier(held.offer)
            if entry := self._enter(tier):
                reply = await self._attempt(held, role, number, tier, entry)
            else:
                # Somebody else is trying it since this call looked.
                if number:
                    self._unmade()
                await self.books.finish(self.books.ledger.release(held.id))
                reply = self._withheld([held.offer])
            if not reply.error:
                if number and not self.watched:
                    self._budget.give_back(self.origin.tenant)
                return reply
            number += 1
            if elsewhere is None:
                elsewhere = list(self.plan.offers[skipped + 1 :] if skipped else self.plan.fallbacks)
            role, again = await self._again(reply, held.offer, elsewhere)
            if again is None or isinstance(again, Refusal):
                return reply
            held = again

    async def beside(self, role: Role, room: Callable[[Reservation], str]) -> Reply | str:
        """One attempt at the first offer, while it is not known yet whether it is wanted; or why none was made.

        `room` says what stands against the hold for it. No breaker is probed by it, and one that fails takes a token of
        the budget of retries, as a retry does: in an outage a process makes no more attempts for it.
        """
        offer = self.plan.offers[0]
        tier = self._tier(offer)
        if tier.breaker.state != "closed" or tier.limited:
            return f"{offer.tier}: {self._why_not(offer) or 'its breaker is not closed'}"
        if self._budget.tokens < 1 + KEPT:
            return "this process has used up its budget of retries"
        held = await self._reserve((offer,), thresholds=False)
        if isinstance(held, Refusal):
            return describe(held)
        if why := room(held):
            await self.books.finish(self.books.ledger.release(held.id))
            return why
        reply = await self._attempt(held, role, 0, tier, "closed")
        if reply.error:
            if reply.retry or reply.elsewhere:
                self._budget.take(tenant=self.origin.tenant)
            if reply.discard is not None:
                await reply.discard()
        return reply

    def adopt(self, plan: Plan) -> None:
        """What was sent `beside` is what `plan` wants: from now on it is the call's only attempt."""
        assert self.reservation is not None  # noqa: S101  (it was sent)
        self.plan = plan
        self._budget.called(self.origin.tenant)
        self._note_admission(self.reservation)

    def streamed(self, attempt: Attempt) -> None:
        """The answer of the last attempt has been read to its end, or was left or broken off."""
        answer = self.pending
        if answer is None or attempt.outcome not in _BROKEN:
            return
        # A whole answer that says nothing of its usage is the bill's trouble, not the API's.
        if attempt.outcome != "truncated" or answer.cut:
            self._tier(answer.offer).broke(attempt.outcome, self.books.timing.perf() - attempt.seconds)

    # What the health of the API allows

    @property
    def _budget(self) -> RetryBudget:
        return self.health.own_retries if self.origin.own else self.health.retries

    @property
    def _pace(self) -> Pace | None:
        return None if self.origin.own else self.binding.pace

    async def _wait_for_room(self, offer: Offer) -> None:
        if self._pace is not None:
            self.paced += await self._pace.room(self.upstream.endpoint, offer.model)

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        if self.watched:
            return math.inf
        seconds = self.deadline
        if seconds is None:
            seconds = usual_deadline(self.upstream.patience, self.upstream.retries)
        return self.started + self.paced + seconds - self.books.timing.perf()

    def _tier(self, offer: Offer) -> TierHealth:
        return self.health.of(self.upstream.endpoint, offer.model)

    def _enter(self, tier: TierHealth) -> Entry:
        if self.watched:
            return tier.breaker.enter() or "closed"
        return tier.breaker.enter() if self._lets(tier) else ""

    def _lets(self, tier: TierHealth) -> bool:
        """Whether its breaker lets this call make an attempt now.

        The one attempt that tells is for the app's calls. But where none of them goes to that tier, as to a cheapest
        one under a floor, nobody else would ever make it.
        """
        return tier.breaker.ready_for(_OWN_AFTER if self.origin.own else 0.0)

    def _why_not(self, offer: Offer) -> str:
        tier = self._tier(offer)
        if self._pace is not None and self._lets(tier):
            return ""  # for its limit it waits, and does not go to another tier
        return tier.why_not or ("" if self._lets(tier) else "its breaker is not closed")

    def _avoid(self) -> Reply | None:
        """Plan around tiers that are known to fail. The error that answers the call where none is left.

        One whose rate limit is exhausted is tried where there is no other: that limit is one of several, a smaller
        request may pass before it renews, and a 429 costs nothing. The API has the last word.
        """
        plan = self.plan
        places = (plan.offers[0], *plan.fallbacks)
        against = {offer.tier: self._why_not(offer) for offer in places}
        able = [offer for offer in places if not against[offer.tier]]
        if not able and not self.origin.own:
            able = [offer for offer in places if self._lets(self._tier(offer))]
        if not able:
            self.reasons += [f"{tier} is not tried: {why}" for tier, why in against.items()]
            return self._withheld(places)
        first = able[0]
        self.doubtful = tuple(offer for offer in places if offer not in able and self._lets(self._tier(offer)))
        for offer in places[: places.index(first)]:
            self.reasons.append(f"{offer.tier} is not tried: {against[offer.tier]}")
            self.health.withheld("rate_limit" if self._lets(self._tier(offer)) else "breaker")
        if first in plan.offers:
            self.plan = plan._replace(offers=tuple(offer for offer in plan.offers if offer in able))
        else:
            rest = tuple(offer for offer in places if offer is not first)
            self.plan = plan._replace(offers=(first,), fallbacks=rest, thresholds=False)
        return None

    def _cheaper(self, refusal: Refusal) -> tuple[Offer, ...]:
        """What a budget that refused may have room for: tiers whose limit is exhausted, as far as is known."""
        found = tuple(
            offer
            for offer in self.doubtful
            if offer.cost is not None and (refusal.needed is None or offer.cost < refusal.needed)
        )
        if found:
            self.reasons.append(f"budget {refusal.budget} has no room for another: {found[0].tier} is tried after all")
        return found

    def _withheld(self, offers: Sequence[Offer]) -> Reply:
        """The error for a call that no tier is tried for: as the first of them failed last."""
        tiers = [self._tier(offer) for offer in offers]
        first, now = tiers[0], self.books.timing.perf()
        limited = self._lets(first) and first.limited > 0
        self.health.withheld("rate_limit" if limited else "breaker")
        status, error = (_RATE_LIMITED, "rate_limit_error") if limited else (first.status, first.error)
        wait = min(tier.limited if tier.breaker.ready else max(0.0, tier.breaker.until - now) for tier in tiers)
        told = "; ".join(f"{offer.tier}: {self._why_not(offer) or 'its breaker was open'}" for offer in offers)
        last = f"{status} {error}" if status else error
        message = f"Tierline did not send this request ({told}). The last failure was {last}"
        return self.upstream.withheld(status, error, message, wait)

    # One attempt after the other

    async def _reserve(self, offers: Sequence[Offer], *, thresholds: bool) -> Reservation | Refusal:
        key = f"{self.key}.{len(self.attempts)}.{offers[0].tier}"
        held = await self.books.reserve(key, offers, self.lines, thresholds=thresholds, origin=self.origin)
        if not isinstance(held, Refusal) and held.unasked and _UNASKED not in self.reasons:
            self.reasons.append(_UNASKED)
        return held

    def _note_admission(self, held: Reservation) -> None:
        """Say what the budgets made of the plan."""
        first = self.plan.offers[0]
        self.admitted = held
        if held.skipped:
            alarm = any(used >= line.alarm_from for line, used in zip(self.lines, held.used, strict=False))
            state = f"at {held.share:.0%}" if alarm else f"has no room for the worst case of {first.tier}"
            self.reasons.append(f"budget {held.tight} {state}: {first.tier} to {held.offer.tier}")
        if held.offer.unbounded:
            self.reasons.append(f"recorded, not bounded: {held.offer.unbounded}")
        for line, used in zip(self.lines, held.used, strict=False):
            if not line.hard and used + held.cost > line.limit:
                self.reasons.append(f"budget {line.budget} is exceeded, and not enforced")
                if used <= line.limit:
                    log.warning("budget %s is exceeded, and not enforced: %s", line.budget, usd(line.limit))
        if self.lines and self.trace.recording:
            tightest = min(held.remaining, key=lambda r: r.remaining / r.limit, default=None)
            self.trace.budget("downgrade" if held.skipped else "admit", held.offer.cost, tightest)

    async def _attempt(self, held: Reservation, role: Role, number: int, tier: TierHealth, entry: Entry) -> Reply:
        self.offer, self.reservation = held.offer, held
        if held.offer.reasons and role != "retry":
            self.reasons += [f"{held.offer.tier}: {said}" for said in held.offer.reasons]
        span = self.trace.child(f"attempt {held.offer.tier}") if self.trace.recording else None
        if span is not None and role == "escalation":
            span.set_attribute("tierline.escalation.reason", self.why)
        body, facts = adapt(self.call, held.offer), model_of(held.offer.model)
        # As it is sent: a tier may have it in its patch, or take another kind.
        thinking = body.get("thinking")
        asked = isinstance(thinking, dict) and thinking.get("type") in _THINKING
        attempt = OpenAttempt(
            self.books,
            self.binding,
            held,
            role=role,
            number=self.before + number + 1,
            terms=held.offer.terms or self.call.terms,
            thinks=facts is None or facts.thinks != "asked" or asked,
            span=span,
        )
        began, heard, pace = self.books.timing.perf(), None, self._pace
        if pace is not None:
            pace.sent(self.upstream.endpoint, held.offer.model)
        try:
            with active(span):
                # Who asks a question of Tierline's own gives up in time by itself.
                if number or self.before or (self.deadline is not None and not self.origin.own):
                    reply = heard = await self.upstream.send(body, number, self.left)
                else:
                    reply = heard = await self.upstream.send(body, number)
            if pace is not None:
                pace.heard(self.upstream.endpoint, held.offer.model, reply)
            if reply.error:
                if entry != "probe" and sum(made.model == held.offer.model for made in self.attempts) >= _TELLING:
                    reply.down = False
                await attempt.failed(reply)
            elif reply.tap is not None:
                reply.tap(attempt)
                if self.trace.chat is not None and self.trace.chat.keeps and attempt.reader is not None:
                    attempt.reader = keeping(attempt.reader, attempt.terms)
                self.pending = attempt
                return reply
            else:
                await attempt.answered(reply.metered)
        except BaseException as error:
            await attempt.cut_off(self.cut if isinstance(error, asyncio.CancelledError) else "error")
            raise
        finally:
            silence = silence_of(body) if heard is not None and heard.error else 0.0
            tier.ended(heard, began, entry, again=role == "retry", silence=silence)
            if attempt.result is not None:
                self.attempts.append(attempt.result)
        return reply

    async def _again(
        self, reply: Reply, offer: Offer, elsewhere: list[Offer]
    ) -> tuple[Role, Reservation | Refusal | None]:
        """Hold the money for another attempt, at the same tier or another. None, or a Refusal, where there is none.

        Where the API asks for a long wait, a tier that may take the call at once comes first. It is waited for one of
        them where no other is left.
        """
        wait: tuple[Role, _Way] = ("retry", self._wait)
        away: tuple[Role, _Way] = ("fallback", self._fall_back)
        ways: tuple[tuple[Role, _Way], ...] = (("retry", self._retry), away, wait)
        if reply.retry and reply.retry_after is not None and reply.retry_after > PATIENT_FOR:
            if self.before:
                return "retry", None  # there is an answer
            self.later.append((self.books.timing.perf() + reply.retry_after, offer))
            free = any(other.tier != offer.tier and not self._why_not(other) for other in elsewhere)
            ways = (away, wait) if free and reply.elsewhere else (wait, away)
        for role, way in ways:
            try:
                held = await way(reply, offer, elsewhere)
            except LedgerUnavailableError:
                if not self.before:
                    raise
                self.reasons.append(f"no {role}: {_AWAY}")
                return role, None  # there is an answer
            if held is not None:
                return role, held
        return "retry", None

    async def _wait(self, reply: Reply, offer: Offer, elsewhere: list[Offer]) -> Reservation | Refusal | None:
        """The same as a retry, for the tier that asked for a long wait and can be tried first."""
        if not self.later:
            return None
        soonest = min(self.later, key=itemgetter(0))
        self.later.remove(soonest)
        at, first = soonest
        if first is not offer:
            reply = replace(reply, retry=True, retry_after=max(0.0, at - self.books.timing.perf()))
        retried = sum(made.role == "retry" for made in self.attempts)  # going elsewhere has used up no retry
        return await self._once_more(reply, first, elsewhere, retried + 1)

    async def _retry(self, reply: Reply, offer: Offer, elsewhere: list[Offer]) -> Reservation | Refusal | None:
        """Wait, and hold the money for the same tier again. None where there is no retry.

        A Refusal where a budget has no money left for one.
        """
        return await self._once_more(reply, offer, elsewhere, len(self.attempts) - self.before)

    async def _once_more(
        self, reply: Reply, offer: Offer, elsewhere: list[Offer], number: int
    ) -> Reservation | Refusal | None:
        """Retry `number`, of at most as many as the app allows."""
        if not reply.retry or number > self.upstream.retries:
            return None
        timing = self.books.timing
        wait = wait_before(reply, number, self.upstream.retries, timing, self.left)
        if wait is None:
            asked = f"the API asks to wait {reply.retry_after:g} s" if reply.retry_after else "the deadline is near"
            self._not_made("no retry", asked, "retry_after" if reply.retry_after else "deadline")
            return None
        if not self.watched:
            breaker = self._tier(offer).breaker
            if not breaker.ready or (self.origin.own and breaker.state != "closed"):
                self._not_made("no retry", f"{offer.tier}: {self._why_not(offer)}", "breaker")
                return None
            kept = KEPT if reply.elsewhere and elsewhere and not self.origin.own else 0
            if not self._budget.take(kept, self.origin.tenant):
                self._not_made("no retry", "this process has used up its budget of retries", "retry_budget")
                return None
        try:
            await timing.sleep(wait)
            await self._wait_for_room(offer)
            held = await self._reserve((offer,), thresholds=False)
        except BaseException:
            self._unmade()
            raise
        if isinstance(held, Refusal):
            self._unmade()
            self.reasons.append(f"no retry: {describe(held)}")
            return held
        await self._discard(reply, held)
        return held

    def _not_made(self, what: str, why: str, by: str) -> None:
        self.reasons.append(f"{what}: {why}")
        self.health.withheld(by)

    def _unmade(self) -> None:
        """Give back the token of an attempt that was not made after all."""
        if not self.watched:
            self._budget.give_back(self.origin.tenant)

    async def _fall_back(self, reply: Reply, offer: Offer, elsewhere: list[Offer]) -> Reservation | None:
        """Hold the money for the next tier that may take the call. None where there is none."""
        if not (reply.elsewhere and elsewhere):
            return None
        if self._pace is not None and reply.status == _RATE_LIMITED:
            return None  # as above: who can wait pays for no dearer tier
        if not self.left >= LEAST_LEFT:
            self._not_made("no fallback", "the deadline is near", "deadline")
            return None
        if not (self.watched or self._budget.take(tenant=self.origin.tenant)):
            self._not_made("no fallback", "this process has used up its budget of retries", "retry_budget")
            return None
        held: Reservation | None = None
        try:
            while elsewhere and held is None:
                following = elsewhere.pop(0)
                if following.tier == offer.tier:
                    continue
                if why := self._why_not(following):
                    by = "rate_limit" if self._lets(self._tier(following)) else "breaker"
                    self._not_made(f"no fallback to {following.tier}", why, by)
                    continue
                found = await self._reserve((following,), thresholds=False)
                if isinstance(found, Refusal):
                    self.reasons.append(f"no fallback to {following.tier}: {describe(found)}")
                else:
                    held = found
        finally:
            if held is None:
                self._unmade()
        if held is None:
            return None
        self.reasons.append(f"fallback from {offer.tier} to {held.offer.tier}: {reply.error}")
        self.trace.event("fallback", {"reason": reply.error, "from": offer.tier, "to": held.offer.tier})
        await self._discard(reply, held)
        return held

    async def _discard(self, reply: Reply, held: Reservation) -> None:
        """Let go of a failed answer. Where that is cut off, nobody will use the hold for the next attempt."""
        if reply.discard is None:
            return
        try:
            await reply.discard()
        except BaseException:
            await self.books.finish(self.books.ledger.release(held.id))
            raise
