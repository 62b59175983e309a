"""What would become of a call, found out without sending anything, asking anybody or holding any money."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Never

from tierline.binding import context
from tierline.budgets import first_fit
from tierline.call import read_call, view_of
from tierline.classify.base import Asking
from tierline.classify.steering import unsteered
from tierline.classify.worth import stakes_of, usual_usage
from tierline.consult import checked, failure
from tierline.errors import ConfigurationError, IllegalRequestError, UnknownModelError
from tierline.grounds import Grounds
from tierline.ledger.limits import limited
from tierline.legality import fit
from tierline.plan import adapt
from tierline.run import CallRun
from tierline.values import LABELS, Classification, Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tierline.binding import Binding
    from tierline.budgets import Line
    from tierline.call import Call
    from tierline.classify.base import Classifier, Question
    from tierline.classify.worth import Stakes
    from tierline.plan import Plan, Request
    from tierline.policies import Effective, Policy
    from tierline.router import Router
    from tierline.values import Forecast, Offer, View

SILENT: Final = "nobody is asked here"


@dataclass(frozen=True)
class Heard:
    """What a classifier says of the text. `opinion` is None where it says nothing, or is not asked; `note` why."""

    name: str
    opinion: Classification | None
    note: str = ""


@dataclass(frozen=True)
class Rung:
    """A tier, for this call. Money in nano-USD, None where there is no bound or no price.

    `note` says what it takes to send the call there, or why it may not go there (`open` is then False).
    """

    tier: str
    model: str
    worst: int | None
    expected: int | None
    open: bool
    note: str = ""


@dataclass(frozen=True)
class Standing:
    """An account that is charged: under the limit that holds now, with what is used of it (nano-USD)."""

    line: Line
    spent: int
    held: int
    set: bool
    """Whether an operator has set the limit."""

    @property
    def room(self) -> int:
        """What may still be spent."""
        return self.line.limit - self.spent - self.held


@dataclass(frozen=True)
class Course:
    """What becomes of the call, if Claude's `verdict` is that; empty: if it is not asked, or says nothing.

    `offer` is what is taken, None where no budget has room. `fallbacks` are the tiers that are tried where it fails.
    """

    verdict: str
    plan: Plan
    offer: Offer | None
    tight: str
    fallbacks: tuple[str, ...]
    body: dict[str, Any] | None


@dataclass(frozen=True)
class Foresight:
    """All that is known of a call before it is sent. `refused` says why it would be an error, whatever the budgets."""

    call: Call
    policy: Effective
    expected: Usage
    request: Request | None
    heard: tuple[Heard, ...]
    verdict_cost: int | None
    """About what asking Claude would cost (nano-USD), None where it is not asked."""
    steered: bool
    forecast: Forecast | None
    rungs: tuple[Rung, ...]
    accounts: tuple[Standing, ...]
    courses: tuple[Course, ...]
    refused: str = ""

    @property
    def passes(self) -> bool:
        """Whether it would be sent, whatever Claude's verdict is."""
        return not self.refused and all(course.offer is not None for course in self.courses)


class _Nobody:
    """What a call is sent with that is not sent."""

    retries = 0
    endpoint = None
    chat = None

    @property
    def client(self) -> _Nobody:
        return self

    async def ask(self, *_: object) -> Never:
        raise AssertionError(SILENT)

    async def count(self, *_: object) -> Never:
        raise ConnectionError(SILENT)  # a prompt that could not be counted is planned by its size


@dataclass
class _Listening:
    """Asks classifiers, and not Claude."""

    run: CallRun
    policy: Effective
    heard: list[Heard] = field(default_factory=list)
    cost: int | None = None

    @property
    def tenant(self) -> str | None:
        """Whose call it would be."""
        return self.run.tenant

    async def consult(self, classifier: Classifier, view: View, sure: float = 0.0) -> Classification | None:
        if isinstance(classifier, Asking):
            question = classifier.question(view)
            if why := self._stakes().against(question, sure, classifier.worth):
                self.heard.append(Heard(classifier.name, None, f"not asked: {why}"))
            else:
                await self.ask(question)
                self.heard.append(Heard(classifier.name, None, "would be asked, on the cheapest tier"))
            return None
        before = len(self.heard)
        try:
            found = checked(await classifier.classify(view, self))
        except Exception as error:  # noqa: BLE001  (a classifier is the app's code)
            self.heard.append(Heard(classifier.name, None, failure(classifier, error)))
            return None
        if len(self.heard) == before:  # one that is made of others is told by them
            self.heard.append(Heard(classifier.name, found, found.reason if found is not None else ""))
        return found

    async def ask(self, question: Question) -> None:
        """What it would cost."""
        self.cost = self._stakes().price_of(question) or 0

    def _stakes(self) -> Stakes:
        return stakes_of(self.run.call, self.policy, self.run.router.ladder, self.run.router.prices)


async def foresee(
    router: Router[Any], body: dict[str, Any], binding: Binding, policies: Iterable[Policy] = ()
) -> Foresight:
    """What would become of a Messages request that is sent here, in the block of `router.bind`.

    `policies` are those of its route. ConfigurationError where it is no such request, LedgerUnavailableError where the
    store is away.
    """
    call = read_call("create", body)
    if call is None:
        raise ConfigurationError("this is no request to the Messages API: it needs a `model` and `messages`")
    for rule in policies:
        binding.narrow(rule)
    await router.learning.start()
    run = CallRun(router, call, _Nobody(), context(), binding)  # type: ignore[arg-type]  # nothing is sent
    accounts = await _accounts(router, run.lines)
    expected = usual_usage(call, run.policy)
    policy = run.policy
    try:
        request, found = await run.foreseen(SILENT)
        policy = request.policy
    except (IllegalRequestError, UnknownModelError) as error:
        rungs = tuple(_rungs(router, call, policy, {}))
        return Foresight(
            call, policy, expected, None, (), None, False, None, rungs, accounts, (), f"{type(error).__name__}: {error}"
        )
    listening = _Listening(run, policy)
    view = view_of(call, policy)
    plain = unsteered(view)
    inquiry = run.inquiry
    if inquiry is not None and inquiry.consulted:
        await listening.consult(policy.classifier or router.classifier, plain or view)
    forecast = inquiry.forecast if inquiry is not None else None
    asks = listening.cost is not None and plain is None
    plans = {"": found}
    if asks:
        usual = router.upgrades.usual(run.route, run.tenant)
        for label in LABELS:
            grounds = Grounds(Classification(label, 1.0, "claude"), forecast, usual=usual)
            plans[label] = run.planned(request, grounds, {})
    offers = {offer.tier: offer for plan in plans.values() for offer in (*plan.fallbacks, *plan.offers)}
    return Foresight(
        call,
        policy,
        expected,
        request,
        tuple(listening.heard),
        listening.cost if asks else None,
        plain is not None,
        forecast,
        tuple(_rungs(router, call, policy, offers)),
        accounts,
        tuple(_course(verdict, plan, accounts, call) for verdict, plan in plans.items()),
    )


async def _accounts(router: Router[Any], lines: Sequence[Line]) -> tuple[Standing, ...]:
    limits = await router.limits()
    found = []
    for line in lines:
        held_to = limited(limits, line)
        there = [
            each
            for each in await router.balances(line.account)
            if (each.budget, each.window) == (line.budget, line.window.series)
        ]
        spent, held = (there[0].spent, there[0].held) if there else (0, 0)
        found.append(Standing(held_to, spent, held, held_to is not line))
    return tuple(found)


def _rungs(router: Router[Any], call: Call, policy: Effective, offers: dict[str, Offer]) -> Iterable[Rung]:
    """Every tier of the ladder: those that are offered as they are offered."""
    usage = usual_usage(call, policy)
    for place, tier in enumerate(router.ladder):
        expected = router.prices.cost(tier.model, usage, call.terms)
        offer = offers.get(tier.name)
        if offer is not None:
            note = "; ".join((*offer.reasons, *([offer.unbounded] if offer.unbounded else [])))
            yield Rung(tier.name, offer.model, offer.cost, expected, True, note)
            continue
        worst = router.prices.offer(call, tier.model, call.max_tokens).cost
        if place < policy.floor:
            note = "below the floor"
        elif place > policy.ceiling:
            note = "above the ceiling"
        else:
            blocked = fit(call, tier.model, call.max_tokens, actions=router.legality).blocked
            note = f"rejects {blocked}" if blocked else "not tried for this call"
        yield Rung(tier.name, tier.model, worst, expected, False, note)


def _course(verdict: str, plan: Plan, accounts: Sequence[Standing], call: Call) -> Course:
    """What the budgets make of a plan: as a ledger would."""
    lines, used = [each.line for each in accounts], [each.spent + each.held for each in accounts]
    fits = first_fit(plan.offers, lines, used, thresholds=plan.thresholds)
    if fits.skipped == len(plan.offers):
        return Course(verdict, plan, None, fits.tight, (), None)
    offer = plan.offers[fits.skipped]
    others = plan.offers[fits.skipped + 1 :] if fits.skipped else plan.fallbacks
    return Course(verdict, plan, offer, fits.tight, tuple(each.tier for each in others), adapt(call, offer))
