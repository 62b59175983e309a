"""Speculation: the cheapest tier answers while Claude is asked how hard the request is.

It begins when a question goes out, and not before: what is chosen without asking, or found in the cache, has nothing to
wait for. What is sent is what the easiest verdict, `simple` and sure, would lead to, with all that holds for the call:
floor and ceiling, legality, the conversation's tier, caps. When the plan is made as ever, from the verdict that came or
from none, and begins with that very offer, its answer is the call's. Else the attempt is called off and charged by the
table of endings, and the plan is followed as if nothing had been sent. So no call goes lower than it would have gone.

An answer is held back until the verdict is there, at most for as long as the question may take; of a stream the first
byte is held, and nothing after it.

Two attempts are in flight at once, and both must fit: nothing is sent where a budget would not also have room for the
dearest tier that the verdict may lead to, or where it has begun to save. A synchronous client has but one thread for
each call, so the attempt has one of its own; and no thread can be called off that waits for the first byte, so that an
attempt in vain is read to the end, and the call's decision is settled when that is known.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Literal

from tierline.classify.question import body_of
from tierline.classify.worth import CHARS_A_TOKEN, USUAL_OUTPUT
from tierline.gains import against
from tierline.grounds import Grounds
from tierline.repeating import harmless
from tierline.shadow import discreet
from tierline.values import LABELS, Classification, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.attempts import Reply
    from tierline.classify.base import Question
    from tierline.dispatch import Dispatch
    from tierline.gains import Rates
    from tierline.grounds import Inquiry
    from tierline.ledger.base import Reservation
    from tierline.plan import Plan, Request
    from tierline.policies import Effective
    from tierline.run import CallRun
    from tierline.values import Attempt, Offer

Came = Literal["won", "lost", "failed", "cancelled", "withheld"]
EASIEST: Final = Classification("simple", 1.0, "claude")
"""The verdict that is bet on."""
_FRAME: Final = 100
"""Tokens that the API puts around a question."""


def speculation_of(run: CallRun, request: Request, inquiry: Inquiry) -> Speculation | None:
    """What may send a call while Claude is asked about it. None where nothing may be sent before it is known what.

    That is where the policy does not say so, where the call is critical, pinned or a step of a tool loop (that keeps
    its tier), where it is only observed, and where the API itself would act twice.
    """
    call, policy, router = run.call, request.policy, run.router
    if (
        not policy.speculate
        or request.target is not None
        or policy.critical
        or run.own is not None
        or run.observing
        or call.in_tool_loop
        or call.threaded
        or not harmless(call)
    ):
        return None

    def hoped(opinion: Classification) -> Plan:
        usual = router.upgrades.usual(run.route, run.tenant)
        return run.planned(request, Grounds(opinion, inquiry.forecast, usual=usual), {})

    def aside(found: Plan) -> Dispatch:
        dispatch = run.dispatched(found, tuple(map(discreet, run.lines)))
        dispatch.upstream = run.upstream.apart()
        return dispatch

    return Speculation(run, policy, plan=hoped, dispatch=aside)


class Speculation:
    """That of one call. It sends at most one attempt, and whatever happens that is ended, once.

    `plan` makes the plan of an opinion, `dispatch` what sends a plan.
    """

    def __init__(
        self,
        run: CallRun,
        policy: Effective,
        *,
        plan: Callable[[Classification], Plan],
        dispatch: Callable[[Plan], Dispatch],
    ) -> None:
        self._router, self._call, self._policy, self._route, self._trace = (
            run.router, run.call, policy, run.route, run.trace,
        )  # fmt: skip
        self._recallable = run.upstream.recallable
        self._plan_of: Callable[[Classification], Plan] | None = plan
        self._dispatch_of: Callable[[Plan], Dispatch] | None = dispatch
        """Both lead to the call, and are let go when it is over."""
        self._streamed = bool(run.call.body.get("stream"))
        self._offer: Offer | None = None
        self._room_for: int | None = 0
        """The worst case of the verdict, and of the dearest tier that it may lead to; None where there is no bound."""
        self._dispatch: Dispatch | None = None
        self._task: asyncio.Task[Reply | None] | None = None
        self._began = 0.0
        self._asked = self._over = self._learned = False
        self._came: Came | None = None
        self.reasons: list[str] = []

    # When the question goes out

    def begin(self, question: Question) -> None:
        """Claude is being asked: send. Called by whoever asks, any number of times; never raises, never waits."""
        plan_of, dispatch_of = self._plan_of, self._dispatch_of
        if self._asked or self._over or plan_of is None or dispatch_of is None:
            return
        self._asked = True
        self._began = self._router.timing.perf()
        try:
            found = plan_of(EASIEST)
            self._offer = found.offers[0]
            self._room_for = self._most(found, question, plan_of)
            why = self._against(self._offer)
            if not why:
                self._dispatch = dispatch_of(found._replace(offers=found.offers[:1], fallbacks=()))
                why = self._send(self._dispatch)
        except Exception as error:  # noqa: BLE001  (the call goes on without)
            why = type(error).__name__
        if why:
            self._tell("withheld", why)

    def _most(self, found: Plan, question: Question, plan_of: Callable[[Classification], Plan]) -> int | None:
        """The most that the verdict may cost and lead to (nano-USD). None where that has no bound."""
        # Tiers are in every plan; but a label may cap what is asked of them.
        capped = LABELS[1:] if self._router.ladder.caps else ()
        plans = (found, *(plan_of(replace(EASIEST, label=label)) for label in capped))
        costs = [offer.cost for each in plans for offer in (*each.offers, *each.fallbacks)]
        verdict = self._worst_of(question)
        return None if verdict is None or None in costs else verdict + max(cost or 0 for cost in costs)

    def _worst_of(self, question: Question) -> int | None:
        """What the verdict may cost at most, in nano-USD: no token is shorter than a byte."""
        model = self._router.ladder[0].model
        body = body_of(question, model=model)
        told = len(f"{body['system']}{body['messages'][0]['content']}".encode(errors="replace")) + _FRAME
        return self._router.prices.cost(model, Usage(told, body["max_tokens"]))

    def _against(self, offer: Offer) -> str:
        """Why not to bet on it; empty where that is to be done."""
        if self._policy.speculate != "auto":
            return ""
        rates = self._router.gains.of(self._route, streamed=self._streamed)
        return against(rates, self._loss(offer, rates), self._router.gains.second)

    def _send(self, dispatch: Dispatch) -> str:
        gains = self._router.gains
        if not gains.begin():
            return "too many are under way"
        # Among the sweeps: a shutdown ends it, and does not wait for a thread that cannot be ended.
        self._task = self._router.books.sweeps.start(self._run(dispatch))
        self._task.add_done_callback(lambda _: gains.end())
        return ""

    def _loss(self, offer: Offer, rates: Rates) -> int:
        """What one in vain would cost: its input where the verdict comes first, a whole answer where that does."""
        if rates.verdict_s < rates.answer_s and self._recallable:
            return offer.input_cost
        call, policy = self._call, self._policy
        output = USUAL_OUTPUT if policy.expected_output is None else policy.expected_output
        if offer.max_tokens is not None:
            output = min(output, offer.max_tokens)
        whole = self._router.prices.cost(offer.model, Usage(round(call.text_bytes / CHARS_A_TOKEN), output))
        return whole if whole is not None else offer.cost or offer.input_cost

    async def _run(self, dispatch: Dispatch) -> Reply | None:
        """The attempt. None where it brought no answer."""
        router, began = self._router, self._router.timing.perf()
        try:
            made = await dispatch.beside("speculative", self._room)
        except Exception as error:  # noqa: BLE001  (what is sent next meets it too, and tells the app)
            made = type(error).__name__
        if isinstance(made, str):
            self._tell("withheld", made)
            return None
        if made.error:
            self._tell("failed", made.error)
            return None
        self._learn_answer(router.timing.perf() - began)
        if self._came == "lost":
            await self._let_go(dispatch)
        return made

    def _room(self, held: Reservation) -> str:
        """What stands against two attempts at once, as the budgets stood when this one was held."""
        if held.unasked:
            return "the ledger could not be asked"
        for (line, _), used in zip(held.lines, held.used, strict=True):
            now = used + held.cost
            if self._room_for is None or now + self._room_for > line.limit or now >= line.alarm_from:
                return f"budget {line.budget} has no room for two answers"
        return ""

    # When the plan is made

    async def answer(self, found: Plan) -> Reply | None:
        """The answer, where it is what the plan wants: it is waited for. None where the plan is still to be sent."""
        offer, router = self._offer, self._router
        if offer is None:
            return None
        wanted, seconds = found.offers[0] == offer, router.timing.perf() - self._began
        router.gains.learn(
            self._route, lambda rates: rates.judged(cheap=wanted, seconds=seconds), streamed=self._streamed
        )
        task, dispatch = self._task, self._dispatch
        if task is None or dispatch is None:
            return None
        if wanted:
            # Not `await task`: who is cancelled here ends it, and knows whose cancellation it was.
            await asyncio.wait((task,))
            reply = None if task.cancelled() else task.result()
            if reply is not None and not (dispatch.pending is not None and dispatch.pending.ended):
                # Not kept: it leads to the answer, and what the app drops must be collected.
                self._over, self._task = True, None
                self._tell("won")
                dispatch.adopt(found)
                return reply
        self._over = True
        self._tell("lost")
        if task.done():
            await self._let_go(dispatch)
        elif self._recallable:
            await self._call_off(task, dispatch)
        return None

    def sent(self, dispatch: Dispatch, reply: Reply, seconds: float) -> None:
        """The plan was sent, in so much time. Where that was to this tier, it is what there would have been to gain."""
        if (
            self._offer is not None
            and dispatch.offer == self._offer
            and not reply.error
            and len(dispatch.attempts) <= 1
        ):
            self._learn_answer(seconds)

    async def end(self) -> None:
        """The call is over: call off what is still out. Does nothing after `answer` has said what becomes of it."""
        task, dispatch = self._task, self._dispatch
        # They lead to the call, and it to this: its prompt would wait for the garbage collector.
        self._plan_of = self._dispatch_of = None
        if not self._over and task is not None and dispatch is not None:
            self._over = True
            self._tell("cancelled")
            await self._call_off(task, dispatch)
        self._over = True

    # What becomes of it

    @property
    def taken(self) -> Dispatch:
        """What sent the answer that the call has."""
        assert self._dispatch is not None  # noqa: S101  (there is an answer)
        return self._dispatch

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """What was sent in vain, as far as it has ended."""
        return () if self._dispatch is None or self._came == "won" else tuple(self._dispatch.attempts)

    def later(self, callback: Callable[[], None]) -> bool:
        """Call back when an attempt has ended that was in vain and is read to its end. False where none is."""
        task = self._task
        if task is None or task.done():
            return False
        task.add_done_callback(lambda _: callback())
        return True

    def count(self) -> None:
        """The call is settled: count what was sent."""
        if self._dispatch is not None and self._dispatch.attempts:
            self._router.tally.beside(sum(attempt.cost for attempt in self.attempts), won=self._came == "won")

    async def _call_off(self, task: asyncio.Task[Reply | None], dispatch: Dispatch) -> None:
        """Cancel it, and see it end. Whoever is cancelled meanwhile cancels what it still waits for."""
        again: asyncio.CancelledError | None = None
        if self._came == "lost":
            dispatch.cut = "discarded"
        while not task.done():
            task.cancel()
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                again = error
        await self._let_go(dispatch)
        if again is not None:
            raise again

    async def _let_go(self, dispatch: Dispatch) -> None:
        """Charge and close an answer that nobody will read."""
        pending, dispatch.pending = dispatch.pending, None
        try:
            if pending is not None:
                await pending.abandon("discarded" if self._came == "lost" else "cancelled")
        finally:
            if pending is not None and pending.result is not None:
                dispatch.attempts.append(pending.result)
            if self._came == "lost" and dispatch.attempts and not self._learned:
                self._learned, cost = True, dispatch.attempts[-1].cost
                self._router.gains.learn(self._route, lambda rates: rates.lost_for(cost), streamed=self._streamed)

    def _learn_answer(self, seconds: float) -> None:
        self._router.gains.learn(self._route, lambda rates: rates.answered(seconds), streamed=self._streamed)

    def _tell(self, came: Came, why: str = "") -> None:
        """Say once what came of it."""
        if self._came is not None:
            return
        self._came = came
        tier = self._offer.tier if self._offer is not None else ""
        told = {
            "withheld": f"no speculation: {why}",
            "failed": f"speculation on {tier} failed: {why}",
            "won": f"speculation on {tier}: the verdict led there",
            "lost": f"speculation on {tier} in vain",
            "cancelled": f"speculation on {tier} cut off",
        }
        self.reasons.append(told[came])
        if self._trace is not None and came != "withheld":
            self._trace.event("speculation", {"tier": tier, "outcome": came})
        self._router.metrics.speculated(came, tier, self._route)
