"""Pure decisions: from a call, an opinion and a policy to the offers that may take the call."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.call import AUTO
from tierline.errors import UnknownModelError
from tierline.policies import Effective

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.call import Call
    from tierline.ladder import Ladder, Tier
    from tierline.values import Classification, Offer, Source

    Objection = Callable[[Call, str, int | None], str]
    Worst = Callable[[Call, str, int | None], Offer]

NO_OPINION: Final = "moderate"
"""What a request is taken to be when nobody has an opinion."""


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


class Plan(NamedTuple):
    """The ordered offers of a call.

    `offers`: the tier that was chosen, then the cheaper ones that a budget may take instead. `fallbacks`: what
    may be tried when an attempt fails: down to the floor, then up to the ceiling (up only, for critical calls).
    `thresholds`: whether budgets may leave out the dearer offers before they are full.
    """

    offers: tuple[Offer, ...]
    fallbacks: tuple[Offer, ...]
    requested: str
    thresholds: bool
    source: Source
    label: str | None
    confidence: float
    reasons: tuple[str, ...]


def admit(call: Call, policy: Effective, ladder: Ladder, list_price: Callable[[str], int | None]) -> Request:
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
    objection: Objection,
    worst: Worst,
) -> Plan:
    """The offers of a call. Pure: all that it needs is in its arguments.

    `sure` is the confidence under which an opinion moves one tier up. `objection(call, model, max_tokens)` says
    why the API would reject the call there. `worst(call, model, max_tokens)` is the offer with its worst case.
    """
    policy, reasons = request.policy, list(request.reasons)
    label, confidence, source = None, 1.0, request.source
    if request.target is not None:
        target = request.target
    else:
        if opinion is None:
            label, confidence, source = NO_OPINION, 0.0, "default"
            target = ladder.labels[NO_OPINION]
        else:
            label, confidence, source = opinion.label, opinion.confidence, opinion.source
            target = ladder.labels.get(label, ladder.labels[NO_OPINION])
            if opinion.reason:
                reasons.append(opinion.reason)
            if confidence < sure and target < ladder.top:
                reasons.append(f"confidence {confidence:.2f} is under {sure:.2f}: one tier up")
                target += 1
        if target < policy.floor:
            reasons.append(f"raised to the floor {ladder[policy.floor].name}")
            target = policy.floor
        elif target > policy.ceiling:
            reasons.append(f"lowered to the ceiling {ladder[policy.ceiling].name}")
            target = policy.ceiling

    if request.model is not None:
        name = ladder[target].name
        offer = worst(call, request.model, _limit(call, policy))._replace(tier=name)
        return Plan((offer,), (), name, False, source, label, confidence, tuple(reasons))

    routed = request.target is None
    cap = ladder.caps.get(label) if label and not policy.critical else None
    capped = request.source != "explicit" and not policy.critical
    limits = [_limit(call, policy, cap, tier.max_tokens if capped else None) for tier in ladder]
    wrong = {p: objection(call, ladder[p].model, limits[p]) for p in range(policy.floor, policy.ceiling + 1)}
    if wrong[target]:
        up = [p for p in range(target + 1, policy.ceiling + 1) if not wrong[p]]
        down = [p for p in range(target - 1, policy.floor - 1, -1) if not wrong[p]]
        other = next(iter(up or ([] if policy.critical else down)), None)
        if other is None:
            reasons.append(
                f"{ladder[target].name} rejects {wrong[target]}, as does every allowed tier: sent as written"
            )
        else:
            reasons.append(f"{ladder[target].name} rejects {wrong[target]}: {ladder[other].name} takes it")
            target = other
    cheaper = (
        [p for p in range(target - 1, policy.floor - 1, -1) if not wrong[p]] if routed and not policy.critical else []
    )
    dearer = [p for p in range(target + 1, policy.ceiling + 1) if not wrong[p]] if routed else []

    def offer_at(place: int) -> Offer:
        return worst(call, ladder[place].model, limits[place])._replace(tier=ladder[place].name)

    offers = tuple(offer_at(p) for p in (target, *cheaper))
    return Plan(
        offers=offers,
        fallbacks=(*offers[1:], *(offer_at(p) for p in dearer)),
        requested=offers[0].tier,
        thresholds=routed and not policy.critical,
        source=source,
        label=label,
        confidence=confidence,
        reasons=tuple(reasons),
    )


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


def adapt(call: Call, offer: Offer, tier: Tier | None) -> dict[str, Any]:
    """The body as it goes to the offered tier: a shallow copy in which only what must change is changed.

    `tier` gives the patch of a routed call; None leaves all but the model and `max_tokens` as they are.
    """
    body: dict[str, Any] = {**call.body, "model": offer.model}
    if tier is not None and tier.patch:
        body = {**tier.patch, **body}
    if offer.max_tokens is not None and offer.max_tokens != call.max_tokens:
        body["max_tokens"] = offer.max_tokens
    return body
