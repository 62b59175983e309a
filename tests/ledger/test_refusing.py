from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import pytest

from tierline.ledger.refusing import Part, refusal
from tierline.testing._ledger.world import DAY, HOUR, NOON, line, offer, rolling

if TYPE_CHECKING:
    from tierline.values import Refusal

MIDNIGHT = NOON + 12 * HOUR


def refuse(lines, parts, *costs: int | None) -> Refusal:
    return refusal([offer(cost) for cost in costs], lines, [[Part(*part) for part in each] for each in parts], NOON)


def test_the_cheapest_offer_is_what_was_needed() -> None:
    """Offers without a bound do not count where another has one."""
    found = refuse([line()], [[(MIDNIGHT, 60, 30)]], None, 50, 20)
    assert (found.budget, found.limit, found.spent, found.held, found.needed) == ("b", 100, 60, 30, 20)
    assert (found.renews_in, found.unbounded, found.at) == (12 * HOUR, "", NOON)


def test_what_has_no_bound() -> None:
    """Where no offer is bounded a hard line refuses, full or empty; it never fits, so all of it has to end."""
    found = refuse([line(hard=False), line(budget="hard")], [[], []], None)
    assert (found.budget, found.needed, found.unbounded) == ("hard", None, "max_tokens is missing")
    assert found.renews_in == 12 * HOUR
    found = refuse([line(window=rolling(HOUR))], [[(NOON + 60, 1, 0), (NOON + 120, 1, 0)]], None)
    assert found.renews_in == 120


def test_the_line_that_has_room_last_is_named() -> None:
    """Of lines that renew together, the one that lacks most."""
    hour, day, total = line(budget="hour", window="hour"), line(budget="day"), line(budget="total", window="total")
    full = [(NOON + HOUR, 100, 0)], [(MIDNIGHT, 100, 0)], [(inf, 100, 0)]
    assert refuse([day, hour], [full[1], full[0]], 1).budget == "day"
    found = refuse([hour, total, day], [full[0], full[2], full[1]], 1)
    assert (found.budget, found.renews_in) == ("total", None)
    narrow = line(50, budget="narrow")
    for lines in ([day, narrow], [narrow, day]):
        assert refuse(lines, [full[1], full[1]], 1).budget == "narrow"
    assert refuse([day, line(10, budget="soft", hard=False)], [full[1], full[1]], 1).budget == "day"


@pytest.mark.parametrize(("needed", "minutes"), [(1, 1), (10, 1), (11, 2), (30, 2), (31, 3), (100, 3), (101, 3)])
def test_a_rolling_window_that_has_room_in_parts(needed: int, minutes: int) -> None:
    """So many of its parts must end, oldest first, until the call fits; those with nothing in them do not count."""
    parts = [(NOON + 120, 0, 20), (NOON + 60, 10, 0), (NOON + 180, 40, 30), (NOON + 5, 0, 0), (NOON + 900, 0, 0)]
    assert refuse([line(window=rolling(HOUR))], [parts], needed).renews_in == minutes * 60


def test_a_rolling_window_with_nothing_in_it() -> None:
    """What is larger than the limit does not fit later either: the end of the window is as good as any."""
    assert refuse([line(window=rolling(DAY))], [[]], 101).renews_in == DAY + DAY / 60
