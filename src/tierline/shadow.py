"""Shadows: for a share of the calls, the tier above answers too, and a judge compares both answers, blind.

All of it happens when the app has its answer, in the background, with questions of Tierline's own: the same loop,
breakers and deadlines, and an account of their own. Nothing is ever done with what the other tier said but to compare
it: no tool is called, and no text outlives the comparison unless the app says so.

Chosen are calls that Tierline routed and whose prompt is text: no pins, no models that the app named, no pictures, no
files, no steps of a tool loop, no tools that the API itself would use. Compared are plain answers, whole and without a
call of a tool. The tier above is the next one of the ladder, within the call's ceiling.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections import deque
from contextvars import Context as Empty
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from tierline.attempts import Background
from tierline.binding import Context, OwnCall, enter
from tierline.budgets import DEFAULT_ACCOUNT, GLOBAL_ACCOUNT, Budget
from tierline.call import view_of
from tierline.classify.comparison import ANSWER_CHARS, Comparison, body_of, shown, verdict_of
from tierline.errors import BudgetExceededError, ConfigurationError
from tierline.learn.outcomes import Outcome
from tierline.numeric import is_number
from tierline.repeating import repeatable, snapshot
from tierline.telemetry import active, end_shadow
from tierline.transcript import keeping, plain_text, text_in
from tierline.values import Shadow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from opentelemetry.trace import Link

    from tierline.attempts import Reply
    from tierline.budgets import Line
    from tierline.call import Call
    from tierline.classify.comparison import Choice
    from tierline.dispatch import Dispatch
    from tierline.ladder import Tier
    from tierline.learn.learning import Learning
    from tierline.ledger.base import Reservation
    from tierline.plan import Plan
    from tierline.policies import Effective
    from tierline.router import Router
    from tierline.telemetry import CallTrace
    from tierline.values import Comparative, Decision

log: Final = logging.getLogger("tierline")

MOST_AT_ONCE: Final = 8
"""Most calls of a process that are chosen and not compared yet: each may keep about 1 MiB of text."""
MOST_KEPT: Final = 1_000
"""Most comparisons that are listed."""
MOST_TEXT: Final = 4_000
"""Most characters of each text that are kept with what was lost, where the app says so."""
_ANSWERING: Final = 120.0
_JUDGING: Final = 60.0
"""Seconds for a question to the tier above, and for one to the judge."""
_CANCELLING: Final = 1.0


def shadowing_of(
    router: Router[Any],
    share: object,
    budget: str | Budget | None,
    judge: str | None,
    learner: Learning | None,
    *,
    keep_text: bool,
) -> Shadowing | None:
    """The shadows of a Router, or None where there are to be none. ConfigurationError for what cannot be."""
    if share is not None and not is_number(share, 0, 1):
        raise ConfigurationError(f"shadow={share!r:.80}: write a share of all calls, such as 0.01, or 0 for none")
    if isinstance(budget, str):
        # It is there to be used up: nobody need be told.
        budget = Budget(budget, name="shadow", downgrade_at=None, cheapest_at=None, alert_at=())
    if budget is not None and not isinstance(budget, Budget):
        raise ConfigurationError(f'shadow_budget={budget!r:.80}: write an amount such as "$1/day", or a Budget')
    if judge is not None:
        router.ladder.index(judge, "shadow_judge")
    if share is None:
        given = {"shadow_budget": budget is not None, "shadow_judge": judge is not None, "shadow_text": keep_text}
        if named := [name for name, there in given.items() if there]:
            raise ConfigurationError(
                f"{', '.join(named)} without shadow: write the share of calls to compare, such as shadow=0.01, or "
                "shadow=0 for none now"
            )
    if not share:
        return None
    if budget is None:
        raise ConfigurationError(f'shadow={share:g} needs a budget of its own: write shadow_budget="$1/day"')
    if not budget.hard or budget.per is not None:
        raise ConfigurationError(f"shadow_budget {budget.name!r} must be hard, and one for all: leave out hard and per")
    if len(router.ladder) == 1:
        raise ConfigurationError("shadow compares an answer with that of the tier above: the ladder has but one tier")
    router.rules.keep_apart(budget)
    return Shadowing(router, share, budget, judge, learner, keep_text=keep_text)


def discreet(line: Line) -> Line:
    """The same account, but nobody is alarmed where it has no room: that a shadow is refused is no trouble."""
    return replace(line, alert_at=line.alert_at[:-1]) if line.alert_at and line.alert_at[-1] == 1 else line


def _cut(texts: tuple[str, str, str] | None) -> tuple[str, str, str] | None:
    return None if texts is None else (texts[0][-MOST_TEXT:], texts[1][:MOST_TEXT], texts[2][:MOST_TEXT])


@dataclass(slots=True, eq=False, repr=False, weakref_slot=True)
class Drawn:
    """A call that was chosen, from before its answer is read until its shadow has ended.

    `body` is the request as it was, for the app may change its own; `text` gives, once, the answer that the app had,
    None where that is no plain one. `most` is how many tokens the policy allows an answer. `outcome` is
    what came of it.
    """

    shadowing: Shadowing
    call: Call
    policy: Effective
    dispatch: Dispatch
    above: Tier
    body: bytes
    text: Callable[[], str | None]
    most: int | None
    decision: Decision | None = None
    links: tuple[Link, ...] = ()
    above_cost: int = 0
    judge_cost: int = 0
    outcome: str = "left"
    verdict: Comparative | None = None
    texts: tuple[str, str, str] | None = None

    @property
    def tier(self) -> str:
        """The tier that answered the app."""
        assert self.dispatch.offer is not None  # noqa: S101  (it has answered)
        return self.dispatch.offer.tier

    @property
    def route(self) -> str | None:
        """The route of the call."""
        return self.dispatch.origin.route

    def ended(self, decision: Decision, outcome: str, told: CallTrace) -> None:
        """The app has its answer, or will not have it. Never waits."""
        self.decision, self.links = decision, told.links
        # The last attempt is not what answered, where a better tier was asked and failed. And one that a shutdown has
        # ended may bring its answer all the same.
        answer = self.dispatch.answered or decision.attempts[-1]
        whole = outcome == "ok" and answer.outcome == "ok"
        self.shadowing.take(self, whole=whole and self.dispatch.binding.deserted is None)


class Shadowing:
    """The shadows of one Router. Safe from any thread; each runs on the loop of its call."""

    def __init__(
        self,
        router: Router[Any],
        share: float,
        budget: Budget,
        judge: str | None,
        learner: Learning | None,
        *,
        keep_text: bool,
    ) -> None:
        self._router = router
        self.share = share
        self._budget = budget
        ladder = router.ladder
        self._judge = ladder[ladder.top if judge is None else ladder.index(judge, "shadow_judge")]
        everywhere = (*router.budgets, *(router.policy.budgets if router.policy is not None else ()))
        self._shared = {each.name: each for each in everywhere if each.per is None}
        self._keep_text = keep_text
        self._learner = learner
        self._kept: deque[Shadow] = deque(maxlen=MOST_KEPT)
        # What can never end, such as on a loop that was closed, is collected, and counts no more.
        self._under_way: WeakSet[Drawn] = WeakSet()
        self._lock = threading.Lock()
        self._tasks = Background()
        self._closing: set[asyncio.AbstractEventLoop] = set()

    def kept(self) -> tuple[Shadow, ...]:
        """The latest comparisons, oldest first."""
        return tuple(self._kept)

    # Before the app reads its answer

    def draw(self, call: Call, plan: Plan, policy: Effective, dispatch: Dispatch, reply: Reply) -> Drawn | None:
        """Choose a call whose answer is about to go to the app, by chance; None for most. Never raises."""
        if self._router.timing.chance() >= self.share or reply.error:
            return None
        try:
            return self._draw(call, plan, policy, dispatch, reply)
        except Exception as error:  # noqa: BLE001  (the app has its answer, whatever is wrong with the request)
            log.debug("no shadow: %s", type(error).__name__)
            return None

    def _draw(self, call: Call, plan: Plan, policy: Effective, dispatch: Dispatch, reply: Reply) -> Drawn | None:
        ladder, offer, held = self._router.ladder, dispatch.offer, dispatch.admitted
        place = ladder.place_of(offer.tier) if offer is not None else None
        if (
            place is None
            or place >= policy.ceiling
            or plan.source in ("pin", "explicit")
            or not dispatch.upstream.repeatable
            or not repeatable(call)
        ):
            return None
        body = snapshot(call)
        caps = () if policy.critical else (ladder.caps.get(plan.label or ""),)
        most = min((limit for limit in (policy.max_tokens, *caps) if limit is not None), default=None)
        drawn = Drawn(self, call, policy, dispatch, ladder[place + 1], body, lambda: None, most)
        if held is not None and self._short(held):
            drawn.outcome = "budget"
            self._count(drawn)
            return None
        with self._lock:
            if len(self._under_way) >= MOST_AT_ONCE:
                drawn.outcome = "busy"
                self._count(drawn)
                return None
            self._under_way.add(drawn)
        if (pending := dispatch.pending) is None:
            drawn.text = partial(text_in, dispatch.upstream.content(reply))
        elif pending.reader is not None:
            pending.reader = keeper = keeping(pending.reader, pending.terms)
            drawn.text = keeper.text
        return drawn

    def _short(self, held: Reservation) -> bool:
        """Whether a budget that is everybody's has begun to save, or nobody can be asked what is left of it."""
        return held.unasked or any(
            line.budget in self._shared and used >= line.alarm_from
            for (line, _), used in zip(held.lines, held.used, strict=True)
        )

    # When the app has it

    def take(self, drawn: Drawn, *, whole: bool) -> None:
        """Compare in the background, outside of the request, what was answered whole; let go of the rest."""
        if whole and asyncio.get_running_loop() not in self._closing:
            task = Empty().run(self._tasks.start, self._run(drawn))
            task.add_done_callback(lambda _: self._let_go(drawn))
        else:
            self._let_go(drawn)

    def _let_go(self, drawn: Drawn) -> None:
        with self._lock:
            self._under_way.discard(drawn)
        drawn.body, drawn.text, drawn.texts = b"", lambda: None, None
        self._count(drawn)

    def _count(self, drawn: Drawn) -> None:
        self._router.tally.shadowed(drawn.verdict)
        self._router.metrics.shadowed(drawn.outcome, drawn.tier, drawn.above.name, drawn.route)

    async def close(self, timeout: float) -> None:
        """Settle what is open on this loop, as `Books.close` does, and end its shadows first."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + timeout
        self._closing.add(loop)
        try:
            self._tasks.cancel()
            await self._tasks.drain(_CANCELLING)
            await self._router.books.close(ends - loop.time())
        finally:
            self._closing.discard(loop)

    async def _run(self, drawn: Drawn) -> None:
        await asyncio.sleep(0)  # the app goes on first
        decision, router = drawn.decision, self._router
        assert decision is not None  # noqa: S101  (it has ended)
        drawn.outcome = "cancelled"
        span = router.tracer.start_span("shadow", links=drawn.links)
        try:
            with active(span):
                drawn.outcome, drawn.verdict = await self._compare(drawn)
        except BudgetExceededError:
            drawn.outcome = "budget"
        except Exception as error:  # noqa: BLE001  (nobody waits for it)
            drawn.outcome = "failed"
            log.debug("a shadow failed: %s", type(error).__name__)
        finally:
            end_shadow(span, decision, drawn.above.name, drawn.outcome, drawn.above_cost + drawn.judge_cost)
        if drawn.verdict is not None:
            self._kept.append(
                Shadow(
                    decision=decision.id,
                    route=decision.route,
                    tier=drawn.tier,
                    above=drawn.above.name,
                    verdict=drawn.verdict,
                    cost=decision.cost,
                    above_cost=drawn.above_cost,
                    judge_cost=drawn.judge_cost,
                    at=router.timing.now(),
                    texts=_cut(drawn.texts) if self._keep_text and drawn.verdict == "worse" else None,
                )
            )
            self._teach(drawn, drawn.verdict)

    async def _compare(self, drawn: Drawn) -> tuple[str, Comparative | None]:
        """What came of it, and the verdict, if there is one. Errors of the questions are passed on."""
        mine = drawn.text()
        if mine is None or len(mine) > ANSWER_CHARS:
            return "unfit", None
        body: dict[str, Any] = json.loads(drawn.body)
        asking = self._own(drawn, drawn.above, _ANSWERING, drawn.most)
        again = {**body, "model": drawn.above.model}
        try:
            other = plain_text(await self._put(asking, drawn.dispatch.upstream.again, again))
        finally:
            drawn.above_cost = asking.cost
        if other is None or len(other) > ANSWER_CHARS:
            return "unfit", None
        request = shown(body)
        drawn.texts = (request, mine, other)
        if mine == other:
            return "same", "same"
        verdict = await self._verdict(drawn, Comparison(request, mine, other))
        return verdict or "no_verdict", verdict

    async def _verdict(self, drawn: Drawn, asked: Comparison) -> Comparative | None:
        """How the answer that stands first in `asked` is beside the other. None for no verdict.

        One of both is better only where the judge says so whichever it is shown first: who goes by the place of an
        answer, or obeys one that says "A", finds them the same.
        """
        turned = self._router.timing.chance() < 0.5  # noqa: PLR2004  (either order)
        first = await self._choice(drawn, asked.swapped if turned else asked)
        if first is None or first == "same":
            return first
        second = await self._choice(drawn, asked if turned else asked.swapped)
        if second is None or second in ("same", first):
            return None if second is None else "same"
        return "better" if (first == "A") is not turned else "worse"

    async def _choice(self, drawn: Drawn, asked: Comparison) -> Choice | None:
        own = self._own(drawn, self._judge, _JUDGING)
        try:
            message = await self._put(own, drawn.dispatch.upstream.ask, body_of(asked, model=self._judge.model))
        finally:
            drawn.judge_cost += own.cost
        said = plain_text(message)
        return None if said is None else verdict_of(said)

    def _own(self, drawn: Drawn, tier: Tier, timeout: float, most: int | None = None) -> OwnCall:
        """A question at the cost of the shadows' own budget, and of those that are everybody's."""
        lines = (
            self._budget.line(GLOBAL_ACCOUNT),
            *(discreet(each.line(GLOBAL_ACCOUNT)) for each in self._shared.values()),
        )
        return OwnCall(tier.name, lines, drawn.route, None, timeout, purpose="shadow", max_tokens=most)

    async def _put(
        self, own: OwnCall, method: Callable[[dict[str, Any], float], Awaitable[Any]], body: dict[str, Any]
    ) -> Any:
        if self._router.mode != "enforce":
            raise ConfigurationError("mode was switched: no shadows")
        enter(Context(own=own))
        return await method(body, own.timeout or 0.0)

    def _teach(self, drawn: Drawn, verdict: Comparative) -> None:
        """Tell what was learned: a tier was good enough where it was not worse than the other."""
        if self._learner is None:
            return
        view = view_of(drawn.call._replace(body=json.loads(drawn.body)), drawn.policy)
        for tier, good in ((drawn.tier, verdict != "worse"), (drawn.above.name, verdict != "better")):
            self._learner.observe(Outcome(drawn.route or DEFAULT_ACCOUNT, view.text, tier, good, view.tools, "judge"))
