"""Where a chain begins: the cheapest tier, unless what the route has taught makes another start cheaper."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.escalation.beginning import GRADED, Beginning, Known, begin

NAMES = ["haiku", "sonnet", "opus"]


def at(known: list[Known], among: list[int] | None = None) -> int:
    places = list(range(len(known))) if among is None else among
    return begin(places, dict(enumerate(known)), NAMES).place


def test_nothing_known() -> None:
    """Without outcomes, or without prices, the cheapest tier begins, and nobody is said to have chosen."""
    found = begin([0, 1, 2], {0: Known(1), 1: Known(5), 2: Known(10)}, NAMES)
    assert found == Beginning(0, "escalates from haiku, the cheapest tier here")
    assert at([Known(None, 0.0, 50.0), Known(5, 1.0, 50.0)]) == 0
    assert at([Known(1, 0.0, 50.0), Known(None, 1.0, 50.0)]) == 0
    assert at([Known(1, 0.0, 50.0), Known(5, 1.0, 50.0), Known(10, 1.0, 50.0)], [1, 2]) == 1


@pytest.mark.parametrize(
    ("good", "evidence", "place"),
    [(0.9, 50, 0), (0.21, 50, 0), (0.2, 50, 0), (0.19, 50, 1), (0.0, 50, 1), (0.0, GRADED, 1), (0.0, GRADED - 1, 0)],
)
def test_two_tiers(good: float, evidence: float, place: int) -> None:
    """At a fifth of the price the cheaper tier begins as long as one answer in five of it is good, or few are known."""
    assert at([Known(1_000_000, good, evidence), Known(5_000_000, 1.0, 0.0)]) == place


def test_three_tiers() -> None:
    """The cheapest of all ways is taken, also where that passes over two tiers, and the reason has the numbers."""
    known = [Known(1_000_000, 0.5, 50.0), Known(10_000_000, 0.0, 50.0), Known(11_000_000, 0.9, 0.0)]
    # 1 + 0.5 * (10 + 11) = 11.5 from the first, 21 from the second, 11 from the last.
    found = begin([0, 1, 2], dict(enumerate(known)), NAMES)
    assert (found.place, found.good) == (2, 0.9)
    assert found.reason == (
        "escalates from opus: haiku is good 0.50 here, so to begin there would cost about $0.0115, and here $0.011"
    )
    # Of the second little is known: it is not passed over, and so the first begins.
    assert at([known[0], known[1]._replace(evidence=0.0), known[2]]) == 0


_KNOWN = st.builds(Known, st.integers(1, 10**9), st.floats(0, 1), st.floats(0, 100))


@given(st.lists(_KNOWN, min_size=1, max_size=6))
def test_no_start_is_better(known: list[Known]) -> None:
    """Whatever is known: it begins where the whole chain is expected to cost least, among the starts that may be."""

    def cost(place: int) -> float:
        here = known[place]
        assert here.cost is not None
        return here.cost + ((1 - here.good) * cost(place + 1) if place + 1 < len(known) else 0)

    found = begin(range(len(known)), dict(enumerate(known)), [str(n) for n in range(len(known))])
    may = [n for n in range(len(known)) if all(k.evidence + 0.5 >= GRADED for k in known[:n])]
    assert found.place in may
    assert cost(found.place) <= min(map(cost, may)) + len(known)  # each step is rounded to a nano-USD
