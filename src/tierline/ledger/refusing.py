"""Why no offer fits, and until when: the same for every ledger."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from tierline.values import Refusal, Remaining

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.budgets import Line
    from tierline.values import Offer


class Part(NamedTuple):
    """What an account has spent and holds in one span that counts until `end`. Money in nano-USD."""

    end: float
    spent: int
    held: int


def refusal(offers: Sequence[Offer], lines: Sequence[Line], parts: Sequence[Sequence[Part]], now: float) -> Refusal:
    """The line that has no room for the cheapest of `offers`; of several, the one that has it again last.

    Until that one renews, no other renewal lets the call pass: a client told to come back earlier comes in vain.
    `parts` has for each line what of it counts now.
    """
    needed = min((offer.cost for offer in offers if offer.cost is not None), default=None)
    spent = [sum(part.spent for part in of_line) for of_line in parts]
    held = [sum(part.held for part in of_line) for of_line in parts]
    used = [s + h for s, h in zip(spent, held, strict=True)]
    refusing = [
        (_fits_from(line, parts[place], needed, now), used[place] - line.limit, place)
        for place, line in enumerate(lines)
        if line.hard and (needed is None or used[place] + needed > line.limit)
    ]
    end, _, place = max(refusing)
    line = lines[place]
    return Refusal(
        budget=line.budget,
        account=line.account,
        limit=line.limit,
        spent=spent[place],
        held=held[place],
        needed=needed,
        renews_in=None if end == inf else end - now,
        unbounded="" if needed is not None else offers[-1].unbounded,
        budgets=tuple(
            Remaining(each.budget, each.account, each.limit, each.limit - amount, each.hard)
            for each, amount in zip(lines, used, strict=True)
        ),
        at=now,
    )


def _fits_from(line: Line, parts: Sequence[Part], needed: int | None, now: float) -> float:
    """When so much of the line has ended that `needed` fits; where it never does, when all of it has."""
    counting = sorted(part for part in parts if part.spent or part.held)
    if not line.window.rolls or not counting:
        return line.window.span(now).end
    used = sum(part.spent + part.held for part in counting)
    for part in counting:
        used -= part.spent + part.held
        if needed is not None and used + needed <= line.limit:
            return part.end
    return counting[-1].end
