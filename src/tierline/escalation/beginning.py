"""Where a chain begins: at the cheapest tier, unless what a route has taught makes a dearer one cheaper in the end.

A chain that begins at a tier costs what that tier costs, and as often as its answer is not good what the chain that
begins at the next one costs. Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tierline.values import Source

GRADED: Final = 10.0
"""Outcomes that a tier needs on its route to be passed over."""


class Beginning(NamedTuple):
    """The place where a chain begins, and why.

    `good` is how likely an answer there is good, where the route has chosen the place; None where nobody has.
    """

    place: int
    reason: str
    good: float | None = None
    source: Source = "default"


class Known(NamedTuple):
    """What is known of a tier: what a usual call costs there (nano-USD), and how likely its answer is good.

    `evidence` is how many outcomes on the route say so.
    """

    cost: int | None
    good: float = 0.0
    evidence: float = 0.0


def begin(among: Sequence[int], known: Mapping[int, Known], names: Sequence[str]) -> Beginning:
    """Where a chain over some places of the ladder (ascending, at least one) begins.

    Tiers are passed over that have `GRADED` outcomes each, where a chain above them is expected to cost less. Without
    prices, and without outcomes, the cheapest begins.
    """
    first = among[0]
    plain = Beginning(first, f"escalates from {names[first]}, the cheapest tier here")
    costs = [known[place].cost for place in among]
    if len(among) == 1 or any(cost is None for cost in costs):
        return plain
    expected = _expected(among, known)
    # A tier of which little is known is not passed over, so that it becomes known.
    may = next((at for at, place in enumerate(among) if known[place].evidence + 0.5 < GRADED), len(among) - 1)
    at = min(range(may + 1), key=lambda at: expected[at])
    if at == 0:
        return plain
    place, good = among[at], known[first].good
    why = (
        f"escalates from {names[place]}: {names[first]} is good {good:.2f} here, so to begin there would cost about "
        f"{usd(round(expected[0], -3))}, and here {usd(round(expected[at], -3))}"
    )
    return Beginning(place, why, known[place].good)


def _expected(among: Sequence[int], known: Mapping[int, Known]) -> list[int]:
    """What chains are expected to cost that begin at each of the places, in nano-USD."""
    costs: list[int] = []
    after = 0
    for place in reversed(among):
        here = known[place]
        chance = min(1.0, max(0.0, here.good))
        after = (here.cost or 0) + round((1 - chance) * after)
        costs.append(after)
    return costs[::-1]
