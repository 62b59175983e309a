"""Steps 4 to 7 of a call: reserve, send, retry or fall back, until an answer comes or no tier is left."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from tierline.attempts import OpenAttempt
from tierline.errors import BudgetExceededError, UnknownModelError
from tierline.ledger.base import NOWHERE
from tierline.models import model_of
from tierline.plan import adapt
from tierline.telemetry import active, describe
from tierline.values import NO_PRICE, Refusal, Remaining, usd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.attempts import Books, Reply, Timing
    from tierline.binding import Binding
    from tierline.budgets import Line
    from tierline.call import Call
    from tierline.ledger.base import Origin, Reservation
    from tierline.plan import Plan
    from tierline.telemetry import CallTrace
    from tierline.values import Attempt, Offer, Role

log: Final = logging.getLogger("tierline")

LONGEST_WAIT: Final = 60.0
"""Most seconds that a `Retry-After` is waited for; a longer one is answered with the error, or by another tier."""
_FIRST_BACKOFF: Final = 0.5
_LONGEST_BACKOFF: Final = 8.0
_UNASKED: Final = "the ledger could not be asked: it is told what this costs when it is back"
_THINKING: Final = ("enabled", "adaptive", "between_tools")


class Upstream(Protocol):
    """How an attempt is sent: the seam's side of a call."""

    @property
    def client(self) -> Any:
        """The routed client whose call this is."""
        ...

    @property
    def retries(self) -> int:
        """Most retries of one call."""
        ...

    async def ask(self, body: dict[str, Any], timeout: float) -> Any:
        """Ask a question of Tierline's own with that client. TimeoutError after `timeout` seconds."""
        ...

    async def count(self, body: dict[str, Any], timeout: float) -> Any:
        """Count the tokens of a prompt with that client. TimeoutError after `timeout` seconds."""
        ...

    async def send(self, body: dict[str, Any], number: int) -> Reply:
        """Send one attempt. `number` counts from 0. Raises only what is no failure of the API (cancellation)."""
        ...


@dataclass(slots=True)
class Dispatch:
    """One call on its way through its attempts.

    `attempts` holds those that have ended, `reasons` what moved the call.
    """

    call: Call
    plan: Plan
    binding: Binding
    lines: Sequence[Line]
    upstream: Upstream
    books: Books
    trace: CallTrace
    key: str
    origin: Origin = NOWHERE
    attempts: list[Attempt] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    offer: Offer | None = None
    reservation: Reservation | None = None
    pending: OpenAttempt | None = None
    """The attempt whose answer the app is about to read."""
    admitted: Reservation | None = None
    """The first reservation."""

    async def run(self) -> Reply:
        """Attempts until one brings an answer or none is left.

        BudgetExceededError where nothing may be sent, UnknownModelError where that is for want of a price.
        """
        held = await self._reserve(self.plan.offers, thresholds=self.plan.thresholds)
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
        # What a budget left out is left out for a failure too.
        elsewhere = list(self.plan.offers[held.skipped + 1 :] if held.skipped else self.plan.fallbacks)
        retries, number = self.upstream.retries, 0
        role: Role = "first"
        while True:
            reply = await self._attempt(held, role, number)
            if not reply.error:
                return reply
            number += 1
            wait = wait_before(reply, number, retries, self.books.timing)
            if wait is not None:
                role, again = "retry", await self._after(wait, reply, held.offer)
            else:
                role, again = "fallback", await self._fall_back(reply, held.offer, elsewhere)
            if again is None:
                return reply
            held = again

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

    async def _attempt(self, held: Reservation, role: Role, number: int) -> Reply:
        self.offer, self.reservation = held.offer, held
        self.reasons += [f"{held.offer.tier}: {said}" for said in held.offer.reasons if role != "retry"]
        span = self.trace.child(f"attempt {held.offer.tier}")
        body, facts = adapt(self.call, held.offer), model_of(held.offer.model)
        # As it is sent: a tier may have it in its patch, or take another kind.
        thinking = body.get("thinking")
        asked = isinstance(thinking, dict) and thinking.get("type") in _THINKING
        attempt = OpenAttempt(
            self.books,
            self.binding,
            held,
            role=role,
            number=number + 1,
            terms=held.offer.terms or self.call.terms,
            thinks=facts is None or facts.thinks != "asked" or asked,
            span=span,
        )
        try:
            with active(span):
                reply = await self.upstream.send(body, number)
            if reply.error:
                await attempt.failed(reply)
            elif reply.tap is not None:
                reply.tap(attempt)
                self.pending = attempt
                return reply
            else:
                await attempt.answered(reply.metered)
        except BaseException as error:
            await attempt.cut_off("cancelled" if isinstance(error, asyncio.CancelledError) else "error")
            raise
        finally:
            if attempt.result is not None:
                self.attempts.append(attempt.result)
        return reply

    async def _after(self, wait: float, reply: Reply, offer: Offer) -> Reservation | None:
        """Wait, and hold the money for the same tier again. None where a budget has none left."""
        await self.books.timing.sleep(wait)
        held = await self._reserve((offer,), thresholds=False)
        if isinstance(held, Refusal):
            self.reasons.append(f"no retry: {describe(held)}")
            return None
        await self._discard(reply, held)
        return held

    async def _fall_back(self, reply: Reply, offer: Offer, elsewhere: list[Offer]) -> Reservation | None:
        """Hold the money for the next tier that may take the call. None where there is none."""
        while reply.elsewhere and elsewhere:
            following = elsewhere.pop(0)
            if following.tier == offer.tier:
                continue
            held = await self._reserve((following,), thresholds=False)
            if isinstance(held, Refusal):
                self.reasons.append(f"no fallback to {following.tier}: {describe(held)}")
                continue
            self.reasons.append(f"fallback from {offer.tier} to {following.tier}: {reply.error}")
            self.trace.event("fallback", {"reason": reply.error, "from": offer.tier, "to": following.tier})
            await self._discard(reply, held)
            return held
        return None

    async def _discard(self, reply: Reply, held: Reservation) -> None:
        """Let go of a failed answer. Where that is cut off, nobody will use the hold for the next attempt."""
        if reply.discard is None:
            return
        try:
            await reply.discard()
        except BaseException:
            await self.books.finish(self.books.ledger.release(held.id))
            raise


def wait_before(reply: Reply, number: int, retries: int, timing: Timing) -> float | None:
    """Seconds until retry `number`: what the API asks for, else full jitter. None where there is no retry."""
    if not reply.retry or number > retries:
        return None
    if reply.retry_after is not None:
        return reply.retry_after if reply.retry_after <= LONGEST_WAIT else None
    # The exponent is bounded, for retries need not be: 2.0 ** 1024 is no number.
    return timing.jitter() * min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0 ** min(number - 1, 10))


async def pass_on(body: dict[str, Any], upstream: Upstream, timing: Timing, number: int = 0) -> Reply:
    """Send a request with nothing but its retries, which the SDK no longer makes: no ledger, no spans, no settling."""
    while True:
        reply = await upstream.send(body, number)
        number += 1
        wait = wait_before(reply, number, upstream.retries, timing) if reply.error else None
        if wait is None:
            return reply
        if reply.discard is not None:
            await reply.discard()
        await timing.sleep(wait)
