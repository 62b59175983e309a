"""One call, from admission to settlement: classify, plan, dispatch, observe."""

from __future__ import annotations

import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tierline.admission import Admission
from tierline.attempts import LEFT
from tierline.call import turn_of, view_of
from tierline.chain import Chain, Loop, beginning_for, rules_for
from tierline.conversation import moving, told
from tierline.dispatch import Dispatch
from tierline.errors import BudgetExceededError, TierlineError
from tierline.grounds import Grounds, Inquiry
from tierline.ledger.base import Origin
from tierline.ledger.checks import plain
from tierline.legality import fit
from tierline.models import SMALLEST_WINDOW
from tierline.plan import adapt, admit, plan, unenforced
from tierline.policies import Policy, combine
from tierline.speculation import speculation_of
from tierline.steps import best_place, learned_on, step_of
from tierline.telemetry import CallTrace, describe
from tierline.telling import close, decision_of, fit_of, record
from tierline.transcript import KEEPING
from tierline.values import Observed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tierline.attempts import OpenAttempt, Reply
    from tierline.binding import Binding, Context
    from tierline.budgets import Line
    from tierline.call import Call
    from tierline.conversation import Conversation
    from tierline.escalation.beginning import Beginning
    from tierline.learn.grading import Asked
    from tierline.plan import Plan, Request
    from tierline.policies import Effective
    from tierline.router import Router
    from tierline.shadow import Drawn
    from tierline.speculation import Speculation
    from tierline.steps import Step
    from tierline.upstream import Upstream
    from tierline.usage import Metered
    from tierline.values import Attempt, Refusal

log: Final = logging.getLogger("tierline")

_FREE: Final = "a token count is free"


class CallRun:
    """The state of one call on its way through a Router."""

    def __init__(self, router: Router[Any], call: Call, upstream: Upstream, now: Context, binding: Binding) -> None:
        self.router = router
        self.call = call
        self.upstream = upstream
        self.binding = binding
        # Tierline's own questions spend money for Tierline's sake: budgets hold for them in every mode.
        self.observing = router.mode == "observe" and now.own is None
        self.anonymous = now.binding is None
        self.named = binding.run
        self.own = now.own
        self.started = router.timing.perf()
        self.costs: dict[str, int] = {}
        """What the usage would have cost on each tier, once it is known."""
        self.took: float | None = None
        """Seconds until it was over, where something of it is read on."""
        self.dispatch: Dispatch | None = None
        self.inquiry: Inquiry | None = None
        self.speculation: Speculation | None = None
        self.talk_keys: tuple[bytes, ...] = ()
        self.talk: Conversation | None = None
        self.chain: Chain | None = None
        """Set where a better tier may answer after a poor answer."""
        self.loop: Loop | None = None
        """The tool loop that this call may begin or go on with, where chains of tiers answer."""
        self.observed: Observed | None = None
        """What would have happened to a call that is only observed, once that is known."""
        self.shadow: Drawn | None = None
        """Set where this call was chosen to be compared with the tier above."""
        if self.own is not None:
            policy = combine((Policy(tier=self.own.tier, max_tokens=self.own.max_tokens),), router.ladder)
            admission = Admission(policy, "", self.own.lines, self.own.route, self.own.tenant)
        else:
            admission = router.rules.admission(now, binding)
        self.policy, _, self.lines, self.route, self.tenant = self.admission = admission
        self.marked = False
        """Whether the prefix is cached for an app that did not ask for it."""
        self.step: Step | None = None
        """Of an agent loop whose steps are routed by themselves."""
        self.asked: Asked | None = None
        """What is learned from of this call."""
        if self.own is None:
            self._look_for_caches()
            self._read()

    def _look_for_caches(self) -> None:
        """What of the prompt is kept warm at the API, and where."""
        router, call = self.router, self.call
        if router.caching is not None and not self.observing:
            tiers = router.ladder[self.policy.floor : self.policy.ceiling + 1]
            marked = router.caching.marked(call, [call.model, *(tier.model for tier in tiers)])
            if marked is not None:
                self.call, self.marked = marked, True
        cached = self.call.cache_ttl is not None
        if self.policy.per_step or (self.policy.sticky is not False and (self.policy.sticky or cached)):
            # Where nothing is kept warm, there is nothing to lose; but thoughts of an agent are tied to its model.
            self.talk_keys = router.conversations.keys(call, self.tenant, self.binding.conversation)
            self.talk = router.conversations.find(self.talk_keys)

    def _read(self) -> None:
        """What is asked, and what may be learned from it: nothing of Tierline's own questions."""
        learning, policy = self.router.learning, self.policy
        self.step = step_of(self.call, known=self.talk is not None) if policy.per_step else None
        learning.begin()
        self.asked = learning.asked(learned_on(self.route, self.step), self.tenant, *turn_of(self.call))

    async def run(self) -> Reply:
        """Steps 2 to 8."""
        # A question of Tierline's own is told by the `classify` span around it, and its cost is in the call's.
        chat, own = self.upstream.chat, self.own is not None
        self.trace = trace = CallTrace(self.router.tracer if chat or not own else None, chat, self.call, own=own)
        self.plan: Plan | None = None
        self.metered: Metered | None = None
        """What came back with the answer, once that is known."""
        self.output: Callable[[], object] = lambda: None
        """The content of the answer, for a trace that wants it."""
        try:
            try:
                request, found, reply = await self._answered(trace)
            finally:
                if self.speculation is not None:
                    await self.speculation.end()
        except BudgetExceededError as error:
            if self.own is None:
                self._note_refusal(error.refusal)
            close(self, "refused", "budget_exceeded", describe(error.refusal))
            raise
        except TierlineError as error:
            close(self, "failed", type(error).__name__)
            raise
        except BaseException as error:
            if isinstance(error, Exception):
                close(self, "failed", type(error).__name__)
            else:
                close(self, "cancelled")
            raise
        assert self.dispatch is not None  # noqa: S101  (it has sent)
        self._note_key(reply)
        self._keep(reply.metered)
        if trace.chat is not None and trace.chat.keeps and not reply.error:
            self.output = partial(_content_of, self.upstream, reply, self.dispatch.pending)
        self.shadow = self._drawn(found, request.policy, self.dispatch, reply)
        pending = self.dispatch.pending
        if pending is None:
            close(self, reply.error or "ok", reply.error)
        else:
            # The app is about to read the answer: what it costs is known when that ends.
            record(self, decision_of(self, settled=False))
            pending.when_ended(self._streamed)
        return reply

    async def _answered(self, trace: CallTrace) -> tuple[Request, Plan, Reply]:
        """Steps 2 to 7."""
        router, call, lines = self.router, self.call, self.lines
        try:
            request = admit(call, self.policy, router.ladder, router.prices.list_output_price)
            if call.continues and request.target is None:
                request = self._kept(request)
            if trace.recording:
                tiers = router.ladder
                trace.policy(self.policy, tiers[request.policy.floor].name, tiers[request.policy.ceiling].name)
            found = self.plan = await self._plan(request, trace)
        except TierlineError as error:
            if not self.observing:
                raise
            self.observed = Observed(None, f"{type(error).__name__}: {error}")
        if self.observing:
            request = unenforced(call, self.policy, router.ladder, router.prices.list_output_price)
            found = await self._plan(request, trace)
            lines = tuple(line.softened for line in lines)
        if router.learning.handles is None:
            await router.learning.known()
        return request, found, await self._escalated(request, found, await self._sent(found, lines))

    async def _sent(self, found: Plan, lines: Sequence[Line]) -> Reply:
        """Steps 4 to 7, where they have not begun beside the verdict."""
        speculation, began = self.speculation, self.router.timing.perf()
        if speculation is not None and (early := await speculation.answer(found)) is not None:
            self.dispatch = speculation.taken
            return early
        self.dispatch = self.dispatched(found, lines)
        reply = await self.dispatch.run()
        if speculation is not None:
            speculation.sent(self.dispatch, reply, self.router.timing.perf() - began)
        return reply

    async def _escalated(self, request: Request, found: Plan, reply: Reply) -> Reply:
        """Steps 4 to 7 over again, where a better tier is to answer."""
        dispatch, rules = self.dispatch, rules_for(self.call, request)
        assert dispatch is not None  # noqa: S101  (it has been sent)
        if rules is not None and self.own is None and not self.observing and not self.call.in_tool_loop:
            self.chain = Chain(self.router, rules, self.call, found, dispatch, self.asked, self.tenant)
            reply = await self.chain.run(reply)
        if self.loop is not None and dispatch.offer is not None and not reply.error:
            self.loop.keep(dispatch.offer.tier)
        return reply

    def dispatched(self, found: Plan, lines: Sequence[Line]) -> Dispatch:
        """What sends a plan."""
        router = self.router
        return Dispatch(
            call=self.call,
            plan=found,
            binding=self.binding,
            lines=lines,
            upstream=self.upstream,
            books=router.books,
            health=router.health,
            trace=self.trace,
            key=router.next_id(),
            origin=Origin(self.tenant and plain(self.tenant), self.route, self.own is not None),
            started=self.started,
            deadline=self.own.timeout if self.own is not None else router.health.deadline,
            watched=self.observing,
        )

    @property
    def sent(self) -> bool:
        """Whether anything of this call has been sent."""
        return self.dispatch is not None and self.dispatch.offer is not None

    @property
    def attempts(self) -> int:
        """How many attempts have ended."""
        return len(self.dispatch.attempts) if self.dispatch is not None else 0

    async def foreseen(self, silent: str) -> tuple[Request, Plan]:
        """Steps 2 and 3, with no question to anybody, whatever the mode: `silent` says why. Errors as for `plan`."""
        request = admit(self.call, self.policy, self.router.ladder, self.router.prices.list_output_price)
        return request, await self._plan(request, None, silent)

    async def body_for_count(self) -> dict[str, Any]:
        """The body of a token count of this call as it would be sent, as far as that can be told for free."""
        router = self.router
        read = unenforced if self.observing else admit
        request = read(self.call, self.policy, router.ladder, router.prices.list_output_price)
        offer = (await self._plan(request, None, _FREE)).offers[0]
        # What is not counted is no part of such a body.
        counted = {name: value for name, value in offer.changes.items() if name in self.call.body}
        return adapt(self.call, offer._replace(changes=counted))

    async def _plan(self, request: Request, trace: CallTrace | None, silent: str = "") -> Plan:
        router = self.router
        grounds = Grounds()
        begin = None
        if request.target is None:
            self.inquiry = Inquiry(router, self.call, self.upstream, self.admission, self.asked, self.step)
            silence = silent or router.rejected.get(self.upstream.client, "")
            if (begin := self._beginning(request, self.inquiry)) is None:
                if not silence and (speculation := speculation_of(self, request, self.inquiry)) is not None:
                    self.speculation, self.inquiry.asking = speculation, speculation.begin
                grounds = await self.inquiry.grounds(request.policy, trace, silence)
        counted: dict[str, int] = {}
        sure = self.call.input_bound is not None and self.call.input_bound <= SMALLEST_WINDOW
        if not sure and self.call.kind == "create" and self.own is None and request.model is None:
            tiers = router.ladder[request.policy.floor : request.policy.ceiling + 1]
            counted = await router.counts.of(self.call, tiers, self.upstream.count, self.tenant)
        found = self.planned(request, grounds, counted, begin)
        if found.classified is not None and not silent:
            router.upgrades.count(self.route, self.tenant, found.classified)
            if found.withheld:
                router.tally.withheld()
                router.metrics.upgrade_withheld(self.route)
        return found

    def planned(
        self,
        request: Request,
        grounds: Grounds,
        counted: Mapping[str, int],
        begin: Callable[[Sequence[int]], Beginning] | None = None,
    ) -> Plan:
        """The plan on these grounds. `counted` has the tokens of the prompt by model, where they were counted.

        `begin` says where a chain of tiers begins, where one is to answer.
        """
        router = self.router
        return plan(
            self.call,
            request,
            grounds.opinion,
            router.ladder,
            sure=router.min_confidence,
            fit=partial(fit, actions=router.legality, counted=counted),
            worst=router.prices.offer,
            hold=self._hold,
            forecast=grounds.forecast,
            learn_after=router.learn_after,
            explore=grounds.explore,
            usual=grounds.usual,
            begin=begin,
        )

    def _beginning(self, request: Request, inquiry: Inquiry) -> Callable[[Sequence[int]], Beginning] | None:
        """Where a chain of tiers begins; None where the tier is chosen as for any other call.

        What the app says of a request holds, and a critical call begins no lower than it would without a chain.
        """
        policy = request.policy
        if rules_for(self.call, request) is None or self.own is not None:
            return None
        if self.call.body.get("tools"):
            self.loop = Loop(self.router, self.call, view_of(self.call, policy), self.tenant)
            if self.call.in_tool_loop:
                return None if policy.per_step else self.loop.beginning(policy)
        if policy.critical or policy.label is not None or self.call.in_tool_loop:
            return None
        return beginning_for(self.router, self.call, policy, inquiry.taught())

    def _hold(self, place: int) -> tuple[int, str]:
        """Where a conversation stays that the plan would move to `place`. Moving up is never held."""
        talk, router = self.talk, self.router
        here = router.ladder.place_of(talk.tier) if talk is not None else None
        if talk is not None and self.step is not None and not self.policy.sticky:
            pays = self.policy.sticky is None
            terms, now = self.call.terms, router.timing.perf()
            return best_place(self.step, talk, place, router.ladder, router.prices, terms, now, arithmetic=pays)
        if talk is None or here is None or here <= place or self.policy.sticky is False:
            return place, ""
        begins = len(self.call.body["messages"]) == 1  # another one, which began alike: there is nothing to stay on yet
        if self.policy.sticky and not begins:
            return here, f"sticky: the conversation stays on {talk.tier}"
        if self.call.in_tool_loop:
            return here, f"a tool loop stays on {talk.tier}"
        there = router.ladder[place]
        saving, cold, turns = moving(
            talk, talk.model, there.model, router.prices, self.call.terms, router.timing.perf()
        )
        if cold <= 0:
            return place, ""
        if saving > cold:
            return place, told(f"moves from {talk.tier}", there.name, saving, cold, turns)
        return here, told(f"stays on {talk.tier}", there.name, saving, cold, turns)

    def _kept(self, request: Request) -> Request:
        """Stay on the tier of a conversation that the server holds, as far as the policy lets it."""
        place = self.router.threads.find(self.call.continues)
        if place is None:
            return request
        place = max(request.policy.floor, min(request.policy.ceiling, place))
        return request._replace(source="sticky", target=place)

    def _keep(self, found: Metered | None) -> None:
        """Remember where a conversation is now, and what of it is warm there."""
        offer = self.dispatch.offer if self.dispatch is not None else None
        if found is None or offer is None:
            return
        self.metered = found
        if self.call.threaded:
            self.router.threads.keep(found.message_id, self.router.ladder.index(offer.tier, "thread"))
        if self.talk_keys and self.observing:
            # A conversation that is only observed goes on where it would have gone.
            fit = fit_of(self)
            offers = self.plan.offers if self.plan is not None and fit is not None else ()
            offer = offers[fit.skipped] if fit is not None and fit.skipped < len(offers) else None
        if self.talk_keys and offer is not None:
            decides = self.step is None or self.step.decides
            self.router.conversations.keep(self.talk_keys, offer.tier, offer.model, found.usage, decides=decides)

    def _drawn(self, found: Plan, policy: Effective, dispatch: Dispatch, reply: Reply) -> Drawn | None:
        """Whether this call is to be compared with the tier above."""
        shadowing = self.router.shadowing
        if shadowing is None or self.own is not None or self.observing:
            return None
        if self.chain is not None and self.chain.held:
            return None  # what has been read of it was not kept
        return shadowing.draw(self.call, found, policy, dispatch, reply)

    # Step 8: observe

    def _streamed(self, attempt: Attempt) -> None:
        """The answer of the last attempt has been read, or left."""
        assert self.dispatch is not None  # noqa: S101  (there was an attempt)
        self.dispatch.attempts.append(attempt)
        self.dispatch.streamed(attempt)
        if self.dispatch.pending is not None and self.dispatch.pending.reader is not None:
            self._keep(self.dispatch.pending.reader.seen)
        close(self, attempt.outcome, "" if attempt.outcome in ("ok", *LEFT) else attempt.outcome)
        if self.anonymous or self.binding.over:
            self.router.books.background.start(self.router.forget(self.binding))

    def _note_refusal(self, refusal: Refusal) -> None:
        """Count a refusal, and tell the operator of the first one in each window of an account."""
        router = self.router
        router.tally.refused()
        router.metrics.refused(refusal)
        key = (refusal.budget, refusal.account, refusal.window)
        if router.refusing.find(key) is None:
            router.refusing.keep(key, value=True)
            log.warning("calls are refused: %s", refusal)

    def _note_key(self, reply: Reply) -> None:
        """Remember that the API rejects the key, so that it is not asked for verdicts with it."""
        router = self.router
        if reply.status in (401, 403):
            client = self.upstream.client
            if client not in router.rejected:
                log.error(
                    "the API answered %d %s: check the client's key and its permissions; no verdicts are asked for "
                    "until a call succeeds", reply.status, reply.error,
                )  # fmt: skip
            router.rejected[client] = f"the API answered {reply.status} {reply.error}"
        elif not reply.error and router.rejected:
            router.rejected.pop(self.upstream.client, None)


def _content_of(upstream: Upstream, reply: Reply, pending: OpenAttempt | None) -> object:
    """The content of an answer: as it came whole, or as far as it has passed. ValueError where it cannot be read."""
    if pending is not None:
        return pending.reader.content if isinstance(pending.reader, KEEPING) else None
    document = json.loads(upstream.content(reply))
    return document["content"] if isinstance(document, dict) else None
