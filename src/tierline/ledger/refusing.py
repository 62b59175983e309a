"""Why no offer fits, and until when: the same for every ledger."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, NamedTuple

from tierline.values import Refusal, Standing

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
    needed, tier = min(((o.cost, o.tier) for o in offers if o.cost is not None), default=(None, offers[-1].tier))
    spent = [sum(part.spent for part in of_line) for of_line in parts]
    held = [sum(part.held for part in of_line) for of_line in parts]
    used = [s + h for s, h in zip(spent, held, strict=True)]
    ends = [_fits_from(line, of_line, needed, now) for line, of_line in zip(lines, parts, strict=True)]
    refusing = [
        (ends[place], used[place] - line.limit, place)
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
            Standing(each.budget, each.account, each.limit, s, h, each.window, each.hard, None if e == inf else e)
            for each, s, h, e in zip(lines, spent, held, ends, strict=True)
        ),
        at=now,
        tier=tier,
    )


def _fits_from(line: Line, parts: Sequence[Part], needed: int | None, now: float) -> float:
    """When so much of the line has ended that `needed` fits; where it never does, when all of it has."""
    if not line.window.renews:
        return inf
    counting = sorted(part for part in parts if part.spent or part.held)
    if not line.window.rolls or not counting:
        return line.window.span(now).end
    used = sum(part.spent + part.held for part in counting)
    for part in counting:
        used -= part.spent + part.held
        if needed is not None and used + needed <= line.limit:
            return part.end
    return counting[-1].end
