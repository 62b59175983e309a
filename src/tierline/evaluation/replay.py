"""One recorded decision, decided again under another policy: by the same pure functions as in a Router."""

from __future__ import annotations

import re
from dataclasses import replace
from math import ceil
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.budgets import first_fit
from tierline.call import AUTO, read_call
from tierline.choice import enough, lesson
from tierline.conversation import tokens_scale
from tierline.decisionlog.record import SCHEMA
from tierline.errors import TierlineError
from tierline.escalation.beginning import Beginning, Known, begin
from tierline.evaluation.opinions import Offline, opinion, view_of
from tierline.evaluation.rows import usage_of
from tierline.evaluation.strategies import assumed, began, beyond, climb, escalated_alike, in_loop, walk
from tierline.legality import AS_IT_IS, Fit
from tierline.plan import admit, plan
from tierline.values import LABELS, NO_PRICE, Chance, Classification, Forecast, Offer, Terms, Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tierline.budgets import Line
    from tierline.call import Call
    from tierline.classify.base import Classifier
    from tierline.escalation.rules import Escalate
    from tierline.evaluation.rows import Row
    from tierline.evaluation.scenario import Scenario
    from tierline.evaluation.strategies import Walk
    from tierline.plan import Plan, Request
    from tierline.prices import PriceBook

_USUAL: Final = Terms(geo="global")
_SILENT: Final = ("pin", "explicit", "fixed", "route")
"""Sources of decisions for which nobody was asked what the text is."""
_STAYS: Final = ("stays on ", "sticky: ", "a tool loop stays on ", "step on ")
_REJECTS: Final = re.compile(r"(?P<tier>.+?) rejects .+: (?P<other>.+?) takes it")
_MOVED: Final = re.compile(r"(?P<model>\S+) is (?:below the floor|above the ceiling) ")
_USUALLY: Final = re.compile(r"(?P<tier>.+) as usual here: ")
_NUMBER: Final = re.compile(r"\$?\d[\d,.]*")
_MOST_ACCOUNTS: Final = 10_000
_EASIEST: Final = Classification("simple", 1.0, "claude")
"""The verdict that a speculation bets on."""


class Replayed(NamedTuple):
    """What a recorded decision would have been. Money in nano-USD; `tier` is None where a budget would refuse it.

    `before` is the recorded cost, `today` the recorded usage where it was answered at today's prices.
    """

    tier: str | None
    cost: int
    before: int
    today: int
    why: str
    held: bool = False
    """Whether its conversation stayed where it was, as recorded: what would be warm elsewhere is not in the log."""
    chain: Walk | None = None
    """Where it escalates, what is expected of that: `tier` is then the likeliest, and `cost` that of the chain."""
    lost: int | None = None
    """Where it speculates, what an attempt in vain costs: 0 where it is the answer."""


class Unknown(NamedTuple):
    """A decision that cannot be decided again, and why."""

    why: str


class _Way(NamedTuple):
    """What a decision would have been, before budgets have their say.

    `today` is what was recorded, at today's prices; `rules` are those of a call that escalates, `bet` is the offer of
    one that speculates, and `part` the model and usage of its answer. `beyond` says that more was asked than would be.
    """

    planned: Plan
    stays: int
    today: int | None
    asked: bool
    rules: Escalate | None
    bet: Offer | None
    part: tuple[str, Usage]
    beyond: bool


class Replay:
    """Decides records again, in the order in which they are given: budgets fill up on the way.

    `classifier` says what a text is where the log has the text and nobody was asked; None: that is not simulated.
    `grades` are how good answers were, by the id of the decision and the tier.
    """

    def __init__(
        self,
        scenario: Scenario,
        prices: PriceBook,
        classifier: Classifier | None = None,
        grades: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        self._scenario, self._prices, self._classifier = scenario, prices, classifier
        self._grades = grades or {}
        self._consult = Offline()
        self._spent: dict[tuple[str, str], list[tuple[float, float, int]]] = {}
        self._prune_at = _MOST_ACCOUNTS
        self._calls: dict[str, Call] = {}

    def again(self, row: Row) -> Replayed | Unknown:
        """What a decision would have been."""
        record: Mapping[str, Any] = row.record or {}
        if record.get("v") != SCHEMA:
            return Unknown("written by another version of Tierline")
        usage = row.usage
        if usage is None or usage == Usage():
            return Unknown(f"it was not answered ({record.get('outcome')}), so what it would use is not known")
        policy = self._scenario.policy_for(record.get("route"))
        try:
            return self._decided(row, record, usage, admit(
                self._call(record), policy, self._scenario.ladder, self._prices.list_output_price
            ))  # fmt: skip
        except TierlineError as error:
            return Unknown(f"{type(error).__name__} under the new policy")
        except (TypeError, ValueError, AttributeError, KeyError, ArithmeticError):
            return Unknown("the record is not as a Router writes it")

    def _decided(self, row: Row, record: Mapping[str, Any], usage: Usage, request: Request) -> Replayed | Unknown:
        scenario, reasons = self._scenario, [str(reason) for reason in record.get("reasons") or ()]
        if record.get("source") == "sticky" and record.get("label") is None and record.get("confidence") == 1:
            request = self._threaded(record, request)
        policy = request.policy
        forecast = None if policy.label is not None else _forecast(record)
        places = range(policy.floor, policy.ceiling + 1)
        taught = lesson(forecast, scenario.ladder, places, policy.quality, scenario.learn_after)
        stays, parts = self._kept(record, reasons), _parts(record, usage)
        begins = self._beginning(record, request, parts[-1], stays)
        if isinstance(begins, Unknown):
            return begins
        silent = begins is not None or policy.label is not None
        asked = request.target is None and not silent and (taught is None or taught.place is None)
        said: Classification | None = None
        if policy.label is not None:
            said = Classification(policy.label, 1.0, "label")
        elif asked:
            found = self._opinion(row, record)
            if isinstance(found, Unknown):
                return found
            said = found

        def decided(opinion: Classification | None) -> Plan:
            return plan(
                self._call(record), request, opinion, scenario.ladder,
                sure=scenario.min_confidence,
                fit=self._fits(reasons),
                worst=lambda _call, there, limit: self._offer(*parts[-1], there, limit),
                hold=lambda place: (max(place, stays), "stays as recorded") if place < stays else (place, ""),
                forecast=forecast,
                learn_after=scenario.learn_after,
                explore=record.get("explored") is True,
                usual=self._usual(reasons),
                begin=begins,
            )  # fmt: skip

        planned = decided(said)
        bet: Offer | None = None
        if asked and record.get("source") == "claude" and policy.speculate and not policy.critical:
            bet = decided(_EASIEST).offers[0]
        prices = [self._price(there, used, there) for there, used in parts]
        today = None if None in prices else sum(price or 0 for price in prices)
        way = _Way(
            planned, stays, today, asked, self._escalate(record, request), bet, parts[-1], beyond(record, policy)
        )
        return self._charged(row.id, record, way)

    def _charged(self, name: str, record: Mapping[str, Any], way: _Way) -> Replayed | Unknown:
        """What it costs, and what budgets make of it."""
        planned, today = way.planned, way.today
        cost, classifying = int(record.get("cost") or 0), int(record.get("classifier_cost") or 0)
        tier, model = str(record.get("tier")), str(record.get("model"))
        at = float(record.get("at") or 0)
        lines = self._lines(record)
        used = [self._used(line, at) for line in lines]
        fit = first_fit(planned.offers, lines, used, thresholds=planned.thresholds)
        before = today + classifying if today is not None else cost
        why = self._why(planned)
        if fit.skipped == len(planned.offers):
            return Replayed(None, 0, cost, before, f"budget {fit.tight} refuses it")
        offer = planned.offers[fit.skipped]
        if fit.skipped:
            why = f"budget {fit.tight}"
        taken, spent, chain = offer.tier, offer.cost, None
        went_on = _begins_alike(record, offer) and any(each.tier == tier for each in planned.fallbacks)
        same = not way.beyond and (went_on or (taken == tier and offer.model == model))
        if way.rules is not None:
            offers = climb(planned, offer, self._scenario.ladder, lines, used)
            same = escalated_alike(record, offers)
            if not same:
                chances = record.get("chances")
                known = {**(chances if isinstance(chances, dict) else {}), **self._grades.get(name, {})}
                chain = walk(offers, known, assumed(way.rules))
                if chain.unknown:
                    return Unknown(chain.unknown)
                taken, spent = chain.likeliest, chain.cost
        if same:
            taken, spent = tier, cost - classifying
        if spent is None:
            return Unknown(f"model {offer.model} has no known price")
        spent += classifying if way.asked else 0
        lost = None
        if way.bet is not None and not any(u >= line.alarm_from for line, u in zip(lines, used, strict=True)):
            lost = self._lost(record, way, offer, same=same)
            spent += lost or 0
        for line in lines:
            span = line.window.span(at)
            self._spent.setdefault((line.budget, line.account), []).append((span.start, span.end, spent))
        held = way.stays >= 0 and planned.source == "sticky" and offer.tier == planned.requested
        return Replayed(taken, spent, cost, before, why, held, chain, lost)

    # Strategies

    def _escalate(self, record: Mapping[str, Any], request: Request) -> Escalate | None:
        """What answers are checked for; None for calls that a Router does not escalate."""
        if request.target is not None or request.model is not None or in_loop(record):
            return None
        return request.policy.escalate

    def _beginning(
        self, record: Mapping[str, Any], request: Request, part: tuple[str, Usage], stays: int
    ) -> Callable[[Sequence[int]], Beginning] | Unknown | None:
        """Where a chain begins; None where the tier is chosen as for any other call."""
        policy, ladder = request.policy, self._scenario.ladder
        if policy.escalate is None or request.target is not None or request.model is not None:
            return None
        if in_loop(record):
            if stays < 0 or record.get("label") is not None:
                return None
            place = max(policy.floor, min(policy.ceiling, stays))
            kept = Beginning(place, f"a tool loop stays on {ladder[place].name}", source="sticky")
            return lambda _: kept
        if record.get("tools") and not began(record):
            return Unknown("tools were offered, and the log does not tell the steps of a loop, which do not escalate")
        if policy.critical or policy.label is not None:
            return None
        forecast = _forecast(record)
        if forecast is not None and not enough(forecast.evidence, self._scenario.learn_after):
            forecast = None
        chances = {each.tier: each for each in forecast.chances} if forecast is not None else {}

        def beginning(among: Sequence[int]) -> Beginning:
            known = {}
            for place in among:
                tier = ladder[place]
                chance, cost = chances.get(tier.name), self._price(*part, tier.model)
                known[place] = Known(cost, chance.good, chance.evidence) if chance is not None else Known(cost)
            return begin(among, known, [tier.name for tier in ladder])

        return beginning

    def _lost(self, record: Mapping[str, Any], way: _Way, offer: Offer, *, same: bool) -> int | None:
        """What a speculation in vain costs: the input. None where it is in the recorded cost, or has no price."""
        if way.bet is None or (same and any(each["role"] == "speculative" for each in record.get("attempts") or ())):
            return None
        if (way.bet.tier, way.bet.model) == (offer.tier, offer.model):
            return 0
        recorded, usage = way.part
        return self._price(recorded, replace(usage, output_tokens=0), way.bet.model)

    def _call(self, record: Mapping[str, Any]) -> Call:
        """What was asked for, as far as the log tells."""
        model = AUTO
        if record.get("source") == "explicit":
            said = [found["model"] for reason in record.get("reasons") or () if (found := _MOVED.match(str(reason)))]
            tried = [str(each.get("model")) for each in record.get("attempts") or ()]
            model = (said or tried or [str(record.get("model"))])[0]
        call = self._calls.get(model)
        if call is None:
            if len(self._calls) >= _MOST_ACCOUNTS:
                self._calls.clear()
            call = read_call("create", {"model": model, "messages": [{"role": "user", "content": ""}]})
            assert call is not None  # noqa: S101  (it has messages)
            self._calls[model] = call
        return call

    def _opinion(self, row: Row, record: Mapping[str, Any]) -> Classification | Unknown | None:
        source, label = record.get("source"), record.get("label")
        if source == "default" and not began(record):
            return None
        if source not in _SILENT and label in LABELS:
            return Classification(str(label), float(record.get("confidence") or 0), source)  # type: ignore[arg-type]
        if row.text is None or self._classifier is None:
            return Unknown(f"nobody was asked what it is (source {source}), and its text is not in the log")
        return opinion(self._classifier, view_of(row.text, row.tools), self._consult)

    def _kept(self, record: Mapping[str, Any], reasons: list[str]) -> int:
        """The place on which its conversation stayed, -1 where it was free to go."""
        if record.get("source") != "sticky" and not any(reason.startswith("step on ") for reason in reasons):
            return -1
        place = self._scenario.ladder.place_of(str(record.get("requested_tier")))
        stayed = any(reason.startswith(_STAYS) for reason in reasons)
        return place if stayed and place is not None else -1

    def _threaded(self, record: Mapping[str, Any], request: Request) -> Request:
        """A conversation that the server holds keeps its model, as far as the policy lets it."""
        place = self._scenario.ladder.place_of(str(record.get("requested_tier")))
        if place is None or request.target is not None:
            return request
        place = max(request.policy.floor, min(request.policy.ceiling, place))
        return request._replace(source="sticky", target=place)

    def _usual(self, reasons: list[str]) -> int | None:
        found = next((match["tier"] for reason in reasons if (match := _USUALLY.match(reason))), None)
        return None if found is None else self._scenario.ladder.place_of(found)

    def _fits(self, reasons: list[str]) -> Callable[[Call, str, int | None], Fit]:
        """What its body was rejected for, as far as that was met: the body itself is not in the log."""
        ladder = self._scenario.ladder
        match = next((found for reason in reasons if (found := _REJECTS.fullmatch(reason))), None)
        if match is None:
            return lambda *_: AS_IT_IS
        low, high = sorted((ladder.place_of(match["tier"]) or 0, ladder.place_of(match["other"]) or 0))
        taken = ladder.place_of(match["other"])
        blocked = {ladder[place].model for place in range(low, high + 1) if place != taken}
        return lambda _call, model, _limit: Fit(blocked="what it rejected") if model in blocked else AS_IT_IS

    # Money

    def _price(self, recorded: str, usage: Usage, model: str) -> int | None:
        """What the recorded usage costs on a model, counted by that one's tokenizer."""
        scale = tokens_scale(model) / tokens_scale(recorded)
        if scale != 1:
            fields = ("input_tokens", "output_tokens", "cache_write_5m", "cache_write_1h", "cache_read")
            usage = replace(usage, **{name: ceil(getattr(usage, name) * scale) for name in fields})
        return self._prices.cost(model, usage, _USUAL)

    def _offer(self, recorded: str, usage: Usage, model: str, limit: int | None) -> Offer:
        cost = self._price(recorded, usage, model)
        return Offer("", model, cost, 0, NO_PRICE if cost is None else "", limit)

    def _lines(self, record: Mapping[str, Any]) -> list[Line]:
        whose = {name: record.get(name) for name in ("tenant", "route", "run")}
        return [
            budget.line(budget.account_of(None, request=str(record.get("id")), **whose))
            for budget in self._scenario.budgets
        ]

    def _used(self, line: Line, at: float) -> int:
        """What its account has spent in the spans that count at that moment."""
        if len(self._spent) > self._prune_at:
            self._spent = {name: kept for name, kept in self._spent.items() if max(e for _, e, _ in kept) > at}
            self._prune_at = max(_MOST_ACCOUNTS, 2 * len(self._spent))
        spans: dict[tuple[float, float], int] = {}
        for start, end, cost in self._spent.get((line.budget, line.account), ()):
            if end > at:
                spans[start, end] = spans.get((start, end), 0) + cost
        if spans:
            self._spent[line.budget, line.account] = [(*span, cost) for span, cost in spans.items()]
        return sum(spans.values())

    @staticmethod
    def _why(planned: Plan) -> str:
        """What chose, without the numbers, so that what is alike is counted together."""
        if planned.reasons:
            return _NUMBER.sub("…", planned.reasons[-1])
        return planned.source if planned.label is None else f"{planned.source}: {planned.label}"


def _parts(record: Mapping[str, Any], usage: Usage) -> list[tuple[str, Usage]]:
    """Each attempt that used something, with its model: the last is that of the answer."""
    tried = [(str(each["model"]), usage_of(each.get("usage"))) for each in record.get("attempts") or ()]
    return [(model, used) for model, used in tried if used is not None and used != Usage()] or [
        (str(record.get("model")), usage)
    ]


def _begins_alike(record: Mapping[str, Any], offer: Offer) -> bool:
    """Whether a call that went on to another tier begins where it began: what came then comes again."""
    tried = list(record.get("attempts") or ())
    return any(each["role"] == "fallback" for each in tried) and tried[0]["model"] == offer.model


def _forecast(record: Mapping[str, Any]) -> Forecast | None:
    chances, evidence = record.get("chances"), record.get("evidence")
    if not isinstance(chances, dict) or not isinstance(evidence, dict):
        return None
    known = tuple(Chance(name, float(good), float(evidence.get(name) or 0)) for name, good in chances.items())
    return Forecast(known, sum(each.evidence for each in known))
