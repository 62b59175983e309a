"""Pure decisions: from a call, an opinion and a policy to the offers that may take the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from tierline.call import API_CHOOSES, AUTO, extended
from tierline.choice import LEARN_AFTER, beginning, choose, lesson
from tierline.errors import IllegalRequestError, UnknownModelError
from tierline.policies import Effective
from tierline.values import Offer

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.call import Call
    from tierline.escalation.beginning import Beginning
    from tierline.ladder import Ladder, Tier
    from tierline.legality import Fit
    from tierline.values import Classification, Forecast, Source

    Fitting = Callable[[Call, str, int | None], Fit]
    Worst = Callable[[Call, str, int | None], Offer]


class Request(NamedTuple):
    """What a call asks for, before anybody is asked how hard it is.

    `target` is the place on the ladder that is settled already (by a pin or a respected id), else None.
    `model` is set where the id goes out as the app wrote it, although it may be on no rung.
    """

    policy: Effective
    source: Source = "default"
    target: int | None = None
    model: str | None = None
    reasons: tuple[str, ...] = ()
    fallbacks: tuple[int, ...] | None = None
    """Which of the body's `fallbacks` may be asked, by their place; None: all."""


class Later(Sequence[Offer]):
    """Offers that are made when somebody looks at them: most calls never do. As good as a tuple of them."""

    __slots__ = ("_made", "_make", "_places")

    def __init__(self, made: tuple[Offer, ...], make: Callable[[int], Offer], places: Sequence[int]) -> None:
        self._made, self._make, self._places = made, make, places

    def _all(self) -> tuple[Offer, ...]:
        if self._places:
            self._made, self._places = (*self._made, *map(self._make, self._places)), ()
        return self._made

    def __len__(self) -> int:
        return len(self._made) + len(self._places)

    @overload
    def __getitem__(self, index: int) -> Offer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Offer, ...]: ...
    def __getitem__(self, index: int | slice) -> Offer | tuple[Offer, ...]:
        return self._all()[index]

    def __eq__(self, other: object) -> bool:
        return self._all() == (other._all() if isinstance(other, Later) else other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())


class Plan(NamedTuple):
    """The ordered offers of a call.

    `offers`: the tier that was chosen, then the cheaper ones that a budget may take instead. `fallbacks`: what
    may be tried when an attempt fails: down to the floor, then up to the ceiling (up only, for critical calls).
    `thresholds`: whether budgets may leave out the dearer offers before they are full.
    """

    offers: tuple[Offer, ...]
    fallbacks: Sequence[Offer]
    requested: str
    thresholds: bool
    source: Source
    label: str | None
    confidence: float
    reasons: tuple[str, ...]
    explored: bool = False
    classified: int | None = None
    """The place that a classification of the text led to; None where something else chose."""
    withheld: bool = False
    """Whether that would have been a higher one, had the account not had its share of them."""


def admit(call: Call, policy: Effective, ladder: Ladder, list_price: Callable[[str], int | None]) -> Request:
    """What a call asks for, and which of the `fallbacks` that it gives the API may be asked under the policy.

    UnknownModelError as for the model that it names.
    """
    request = _admit(call, policy, ladder, list_price)
    given = call.body.get("fallbacks")
    most, low, high = policy.max_tokens, request.policy.floor, request.policy.ceiling
    # The id that the app named may be a ceiling too.
    if not given or not (policy.floored or policy.capped or policy.pinned or high < ladder.top or most is not None):
        return request
    kept = tuple(
        place
        for place, other in enumerate(call.fallbacks)
        if (rung := _rank(other.model, ladder, list_price)) is not None
        and low <= rung <= high
        and (most is None or other.max_tokens is None or other.max_tokens <= most)
    )
    if call.fallbacks and len(kept) == len(call.fallbacks):
        return request
    return request._replace(fallbacks=kept, reasons=(*request.reasons, "fallbacks outside of the policy are left out"))


def _rank(model: str, ladder: Ladder, list_price: Callable[[str], int | None]) -> int | None:
    """The rung of a model, by its list price for output where it is on none; None where that cannot be told."""
    rung = ladder.rung_of(model)
    price = list_price(model) if rung is None else None
    if rung is not None or price is None:
        return rung
    prices = [list_price(tier.model) for tier in ladder]
    top = prices[ladder.top]
    if top is None or price > top:
        return None
    return max((place for place, known in enumerate(prices) if known is not None and known <= price), default=None)


def _admit(call: Call, policy: Effective, ladder: Ladder, list_price: Callable[[str], int | None]) -> Request:
    """Read what the model id and the policy settle by themselves.

    `list_price` gives the output price of a model id that is on no rung, for ranking. UnknownModelError where
    such an id has no price and the policy has a floor or a ceiling to hold.
    """
    if policy.pinned:
        return Request(policy, "pin", policy.floor, reasons=policy.reasons)
    if call.model == AUTO or policy.explicit_model == "route":
        if policy.floor == policy.ceiling and policy.label is None:
            # One tier is left: nothing that anybody could say of the request would matter.
            only = f"{ladder[policy.floor].name} is the only tier between floor and ceiling"
            return Request(policy, "fixed", policy.floor, reasons=(*policy.reasons, only))
        return Request(policy, reasons=policy.reasons)
    rung = ladder.rung_of(call.model)
    above = rung is not None and rung > policy.ceiling
    if rung is None:
        price = list_price(call.model)
        if price is None:
            if policy.floored or policy.capped:
                raise UnknownModelError(
                    f"model {call.model!r} is on no rung of the ladder and has no known price, so it cannot be held to "
                    f"the policy's floor and ceiling: use 'auto' or an id of the ladder"
                )
            # Nothing to hold it to: it goes out as it is, and is ranked with the top for reports.
            return Request(policy, "explicit", ladder.top, call.model, policy.reasons)
        # A tier without a price proves nothing: no id is known to reach it as a floor, or to stay under it.
        prices = [list_price(tier.model) for tier in ladder]
        rung = max((place for place, known in enumerate(prices) if known is not None and known <= price), default=-1)
        most = prices[policy.ceiling]
        above = policy.capped and (most is None or price > most)
    if policy.explicit_model == "ceiling" and (rung >= 0 or policy.floored):
        ceiling = min(policy.ceiling, max(rung, policy.floor))
        return Request(replace(policy, ceiling=ceiling), reasons=policy.reasons)
    if rung < policy.floor and policy.floored:
        moved = f"{call.model[:60]} is below the floor {ladder[policy.floor].name}"
        return Request(policy, "explicit", policy.floor, reasons=(*policy.reasons, moved))
    if above:
        moved = f"{call.model[:60]} is above the ceiling {ladder[policy.ceiling].name}"
        return Request(policy, "explicit", policy.ceiling, reasons=(*policy.reasons, moved))
    place = min(max(rung, policy.floor), policy.ceiling)
    return Request(policy, "explicit", place, call.model, policy.reasons)


def unenforced(call: Call, policy: Effective, ladder: Ladder, list_price: Callable[[str], int | None]) -> Request:
    """What a call gets where policies only watch: its own model, and for `auto` the highest tier that it may use.

    So `auto` costs what it did before there was routing, and no answer gets worse.
    """
    if call.model != AUTO:
        return admit(call, Effective(0, ladder.top), ladder, list_price)
    return Request(Effective(policy.floor, policy.ceiling), "default", policy.ceiling)


def plan(
    call: Call,
    request: Request,
    opinion: Classification | None,
    ladder: Ladder,
    *,
    sure: float,
    fit: Fitting,
    worst: Worst,
    hold: Callable[[int], tuple[int, str]] = lambda place: (place, ""),
    forecast: Forecast | None = None,
    learn_after: float = LEARN_AFTER,
    explore: bool = False,
    usual: int | None = None,
    begin: Callable[[Sequence[int]], Beginning] | None = None,
) -> Plan:
    """The offers of a call. Pure: all that it needs is in its arguments.

    `sure` is the confidence under which an opinion moves one tier up, `learn_after` the outcomes from which on
    the `forecast` of a route chooses. `fit(call, model, max_tokens)` says what it takes
    to send the call there. `worst(call, model, max_tokens)` is the offer with its worst case. IllegalRequestError where
    nothing makes the call legal on any tier that it may use. `hold(place)` says where a conversation stays that would
    move to that place on the ladder, and why. `explore` sends the call to a neighbour of the tier that is chosen, where
    the policy allows one. `usual` is the place that an opinion on the text may not lead above; None: anywhere.
    `begin(places)` says where a chain of tiers begins, the cheaper first: then nothing else chooses.
    """
    policy, reasons = request.policy, list(request.reasons)
    held: dict[str, Any] = {}
    if request.fallbacks is not None:
        entries = [call.body["fallbacks"][place] for place in request.fallbacks]
        held["fallbacks"] = entries or None
        call = call._replace(
            fallbacks=tuple(call.fallbacks[place] for place in request.fallbacks),
            unbounded="" if call.unbounded == API_CHOOSES else call.unbounded,
        )
    if request.model is not None:
        chosen = choose(request, opinion, None, ladder, sure, usual, reasons)
        name = ladder[chosen.place].name
        offer = worst(call, request.model, _limit(call, policy))._replace(tier=name, changes=held)
        return Plan((offer,), (), name, False, chosen.source, None, chosen.confidence, tuple(reasons))

    routed = request.target is None
    floor, ceiling = policy.floor, policy.ceiling
    limits, patched, fits = _sendable(call, request, ladder, None, fit)
    # What refuses is what the app wants to be refused, and no reason to go elsewhere.
    asked = routed and (forecast is not None or begin is not None)
    among = [p for p, found in fits.items() if not found.blocked or found.refuse] if asked else []
    taught = lesson(forecast, ladder, among, policy.quality, learn_after) if asked else None
    begun = begin(among) if begin is not None and among else None
    chosen = beginning(begun, reasons) if begun else choose(request, opinion, taught, ladder, sure, usual, reasons)
    if chosen.label in ladder.caps and not policy.critical and chosen.source != "step":  # caps are for what people ask
        limits, patched, fits = _sendable(call, request, ladder, chosen.label, fit)
    source = chosen.source
    target = wanted = _legal(chosen.place, fits, policy, ladder, reasons)
    explored = False
    if routed:
        stays, why = hold(target)
        kept = False
        if floor <= stays <= ceiling and not fits[stays].blocked:
            reasons += (why,) if why else ()
            kept = stays != target
            source = "sticky" if kept else source
            target = stays
        # A later step of a tool loop has an opinion that is sticky, and explores where its first one did.
        if explore and not policy.critical and not kept and source != "label":
            other = _neighbour(target, fits)
            if other is not None and hold(other)[0] == other:
                reasons.append(f"explores {ladder[other].name} in the place of {ladder[target].name}")
                target, explored = other, True
    # What is held, and then moved for a budget's sake, goes where it would have gone: tiers between are as cold.
    below = min(target - 1, wanted)
    above, low = (target, below + 1) if policy.critical or not routed else (below, floor)
    cheaper = [p for p in range(below, low - 1, -1) if not fits[p].blocked]
    dearer = [p for p in range(above + 1, ceiling + 1) if p != target and not fits[p].blocked] if routed else []

    def offer_at(place: int) -> Offer:
        tier, found, sent = ladder.tiers[place], fits[place], patched[place]
        limit = found.changes.get("max_tokens", limits[place])
        billed = sent if found.terms is None else sent._replace(terms=found.terms)
        own = {name: value for name, value in sent.body.items() if name not in call.body} if sent is not call else {}
        changes = {**own, **found.changes, **held} if own or held else found.changes
        most = worst(billed, tier.model, limit)
        return Offer(
            tier.name, most.model, most.cost, most.input_cost, most.unbounded, most.max_tokens, changes,
            found.reasons, found.terms,
        )  # fmt: skip

    offers = (offer_at(target), *map(offer_at, cheaper))
    return Plan(
        offers=offers,
        fallbacks=Later(offers[1:], offer_at, dearer),
        requested=offers[0].tier,
        thresholds=routed and not policy.critical,
        source=source,
        label=chosen.label,
        confidence=chosen.confidence,
        reasons=tuple(reasons),
        explored=explored,
        classified=chosen.classified,
        withheld=chosen.withheld,
    )


def _sendable(
    call: Call, request: Request, ladder: Ladder, label: str | None, fit: Fitting
) -> tuple[dict[int, int | None], dict[int, Call], dict[int, Fit]]:
    """`max_tokens` as it will be asked for on each tier, and of those that are allowed the patched call and its fit."""
    policy, written = request.policy, request.source == "explicit"
    cap = ladder.caps.get(label) if label and not policy.critical else None
    capped = not written and not policy.critical
    most = _limit(call, policy, cap)
    limits: dict[int, int | None] = {}
    patched: dict[int, Call] = {}
    fits: dict[int, Fit] = {}
    for place in range(policy.floor, policy.ceiling + 1):
        tier = ladder.tiers[place]
        limit = _limit(call, policy, cap, tier.max_tokens) if capped and tier.max_tokens is not None else most
        sent = call if written or not tier.patch else _patched(call, tier, limit)
        limits[place], patched[place], fits[place] = limit, sent, fit(sent, tier.model, limit)
    return limits, patched, fits


def _neighbour(target: int, fits: Mapping[int, Fit]) -> int | None:
    """The next cheaper tier that takes the call, or the next dearer one of the cheapest."""
    legal = [place for place, found in fits.items() if not found.blocked]
    cheaper = max((place for place in legal if place < target), default=None)
    return cheaper if cheaper is not None else min((place for place in legal if place > target), default=None)


def _legal(target: int, fits: Mapping[int, Fit], policy: Effective, ladder: Ladder, reasons: list[str]) -> int:
    """The target itself, or the tier that takes what it rejects: up, else (except for critical calls) down."""
    wrong = fits[target].blocked
    if not wrong:
        return target
    up = [p for p in range(target + 1, policy.ceiling + 1) if not fits[p].blocked]
    down = [p for p in range(target - 1, policy.floor - 1, -1) if not fits[p].blocked]
    other = next(iter(up or ([] if policy.critical else down)), None)
    if fits[target].refuse:
        raise IllegalRequestError(f"{ladder[target].name} rejects {wrong}, and the app has that refused")
    if other is None:
        told = "; ".join(
            f"{ladder[place].name} rejects {found.blocked}" for place, found in fits.items() if found.blocked
        )
        raise IllegalRequestError(
            f"no tier from {ladder[policy.floor].name} to {ladder[policy.ceiling].name} takes this request: {told}"
        )
    reasons.append(f"{ladder[target].name} rejects {wrong}: {ladder[other].name} takes it")
    return other


def _patched(call: Call, tier: Tier, limit: int | None) -> Call:
    """A call with the fields that a tier gives where the app did not set them, and where there is room for them."""
    fields = {name: value for name, value in tier.patch.items() if name not in call.body}
    thinking = fields.get("thinking")
    budget = thinking.get("budget_tokens") if isinstance(thinking, Mapping) else None
    if isinstance(budget, int) and limit is not None and budget >= limit:
        del fields["thinking"]  # a budget of at least `max_tokens` is a 400
    return extended(call, fields)


def _limit(call: Call, policy: Effective, *caps: int | None) -> int | None:
    """`max_tokens` as it will be sent: the least of what the request asks and what may lower it.

    A thinking budget that the request sets comes on top of what lowers it: under it, the API answers with a 400.
    """
    if call.max_tokens is None:
        return None
    lowest = call.max_tokens
    for limit in (policy.max_tokens, *caps):
        if limit is not None and limit < lowest:
            lowest = limit
    thinking = call.body.get("thinking")
    enabled = isinstance(thinking, dict) and thinking.get("type") == "enabled"
    budget = thinking["budget_tokens"] if enabled and "budget_tokens" in thinking else None  # type: ignore[index, operator]
    return min(call.max_tokens, lowest + budget) if isinstance(budget, int) and lowest <= budget else lowest


def adapt(call: Call, offer: Offer) -> dict[str, Any]:
    """The body as it goes to the offered tier: a shallow copy in which only what must change is changed."""
    body: dict[str, Any] = {**call.body, "model": offer.model}
    if offer.max_tokens is not None and offer.max_tokens != call.max_tokens:
        body["max_tokens"] = offer.max_tokens
    for name, value in offer.changes.items():
        if value is None:
            body.pop(name, None)
        else:
            body[name] = value
    return body
