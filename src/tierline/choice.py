"""Which tier a call is for: what is settled, what its route has taught, what an opinion on its text says. Pure."""

from __future__ import annotations

from math import nan
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.escalation.beginning import Beginning
    from tierline.ladder import Ladder
    from tierline.plan import Request
    from tierline.policies import Effective
    from tierline.values import Chance, Classification, Forecast, Source

NO_OPINION: Final = "moderate"
"""What a request is taken to be when nobody has an opinion."""
_SAID: Final = ("label", "fixed", "sticky", "step")
"""Sources that have read no text: what the app says, what was decided before, what a step of an agent is."""

LEARN_AFTER: Final = 30
"""Outcomes of a route, over all tiers, before it chooses."""
GRADED: Final = 10.0
"""Outcomes on a route that a tier needs to be taken there, or to be left out, on its own account."""


class Choice(NamedTuple):
    """The place that a call is for, between floor and ceiling, and who says so, how surely.

    `classified` is the place that counts as chosen by a classification of the text, None where none chose. `withheld`
    says that it would have been a higher one, had the account not had its share of those.
    """

    place: int
    source: Source
    label: str | None
    confidence: float
    classified: int | None = None
    withheld: bool = False


def choose(
    request: Request,
    opinion: Classification | None,
    taught: Lesson | None,
    ladder: Ladder,
    sure: float,
    usual: int | None,
    reasons: list[str],
) -> Choice:
    """What is settled, else what the route has taught, else what the opinion says. Adds to the reasons."""
    if request.target is not None:
        return Choice(request.target, request.source, None, 1.0)
    if taught is not None and taught.place is not None:
        reasons.append(taught.reason)
        return Choice(taught.place, "route", None, taught.good)
    policy = request.policy
    place = _within(_wanted(opinion, ladder, sure, reasons), policy, ladder, reasons)
    classified, withheld = None, False
    if opinion is not None and opinion.source not in _SAID and not policy.critical:
        classified = place if usual is None else min(place, max(usual, policy.floor))
        withheld = classified < place
        place = classified
        if withheld:
            reasons.append(f"{ladder[place].name} as usual here: this account has had its share of upgrades")
    if taught is not None and place < taught.least:
        reasons.append(taught.reason)
        place = taught.least
    if opinion is None:
        return Choice(place, request.source, NO_OPINION, 0.0)
    return Choice(place, opinion.source, opinion.label, opinion.confidence, classified, withheld)


def beginning(found: Beginning, reasons: list[str]) -> Choice:
    """Where a chain of tiers begins, as a choice. Adds to the reasons."""
    reasons.append(found.reason)
    if found.good is None:
        return Choice(found.place, found.source, None, 0.0)
    return Choice(found.place, "route", None, found.good)


def _wanted(opinion: Classification | None, ladder: Ladder, sure: float, reasons: list[str]) -> int:
    """Where an opinion leads: to the tier of its label, one higher in doubt."""
    if opinion is None:
        return ladder.labels[NO_OPINION]
    place = ladder.labels.get(opinion.label, ladder.labels[NO_OPINION])
    if opinion.reason:
        reasons.append(opinion.reason)
    if opinion.confidence < sure and place < ladder.top:
        reasons.append(f"confidence {opinion.confidence:.2f} is under {sure:.2f}: one tier up")
        place += 1
    return place


def _within(place: int, policy: Effective, ladder: Ladder, reasons: list[str]) -> int:
    if place < policy.floor:
        reasons.append(f"raised to the floor {ladder[policy.floor].name}")
        return policy.floor
    if place > policy.ceiling:
        reasons.append(f"lowered to the ceiling {ladder[policy.ceiling].name}")
        return policy.ceiling
    return place


class Lesson(NamedTuple):
    """What a route says about a choice among tiers.

    `place` is the tier to take, or None where the route knows of none: those below `least` are then known not to be
    good enough, and who knows the text chooses among the rest. `good` is the chance that the place has, 0 without one.
    """

    place: int | None
    least: int
    good: float
    reason: str


def enough(evidence: float, least: float) -> bool:
    """Whether there are so many outcomes, by the nearest whole number: they begin to fade when they are there."""
    return evidence + 0.5 >= least


def lesson(
    forecast: Forecast | None, ladder: Ladder, among: Sequence[int], quality: float, learn_after: float
) -> Lesson | None:
    """What to take `among` some places of the ladder (ascending). None where the route has not taught enough.

    Good enough is a tier that reaches `quality` times the chance of the dearest one among them. It is taken where
    outcomes say so, and not what the grades of others make a model guess:

    - it has `GRADED` outcomes of its own, or of cheaper tiers that are good enough: a dearer tier is at least as good
    - the dearest, as long as it has fewer than that, counts as better than is guessed of it: half-way to 1
    - a tier with `GRADED` outcomes that is not good enough, even by what is guessed of the dearest, is left out; where
      all but the dearest are, that is taken, graded or not
    """
    if forecast is None or not among or not enough(forecast.evidence, learn_after):
        return None
    known = {chance.tier: chance for chance in forecast.chances}
    top = among[-1]
    rows = _rising([known.get(tier.name) for tier in ladder], top)
    if rows is None:
        return None
    best, graded = rows[top]
    sure = best if enough(graded, GRADED) else (best + 1) / 2
    outcomes = f"from {forecast.evidence:.0f} outcomes"
    support, least, below = 0.0, among[0], ""
    for place in range(top):
        good, evidence = rows[place]
        reaches = good >= quality * sure
        support += evidence if reaches else 0.0
        if place not in among:
            continue
        name = ladder[place].name
        if reaches and enough(support, GRADED):
            held = f"of {ladder[top].name} {sure:.2f}" + ("" if enough(graded, GRADED) else " (guessed)")
            share = f"{good / sure:.2f}" if sure else "1.00"
            return Lesson(place, place, good, f"{name} {good:.2f} {held} here: {share} ≥ {quality:.2f}, {outcomes}")
        if good < quality * best and enough(evidence, GRADED):
            least = among[among.index(place) + 1]
            share = _below(good / best, quality)
            below = f"{name} {good:.2f} of {ladder[top].name} {best:.2f} here: {share} < {quality:.2f}, {outcomes}"
    if least == top:
        return Lesson(top, top, best, below or f"{ladder[top].name} is all that is left here")
    why = f"{'' if enough(graded, GRADED) else ladder[top].name + ' or '}a cheaper tier that is good enough"
    return Lesson(None, least, 0.0, below or f"not {GRADED:.0f} outcomes here of {why}")


def _below(share: float, quality: float) -> str:
    """A share with two digits, or as many as it takes to read as less than the quality."""
    return next((text for digits in range(2, 6) if float(text := f"{share:.{digits}f}") < quality), f"{share:.6f}")


def _rising(chances: Sequence[Chance | None], top: int) -> list[tuple[float, float]] | None:
    """Chance and evidence of each rung. A tier is as good as any cheaper one that has been graded.

    Where nothing can be said of the `top`, which the others are held against, it is as good as can be.
    """
    if not any(chances):
        return None
    rows, lift = [], 0.0
    for place, chance in enumerate(chances):
        said, evidence = (chance.good, chance.evidence) if chance is not None else (nan, 0.0)
        if not 0 <= said <= 1:
            said, evidence = float(place == top), 0.0
        good = max(lift, said)
        if enough(evidence, GRADED):
            lift = good
        rows.append((good, evidence))
    return rows
