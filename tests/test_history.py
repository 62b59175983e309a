"""Spend by hour and calls in flight: the sums and the tables."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.errors import ConfigurationError
from tierline.history import MOST_SHOWN, Grouping, History, Holds, Total, by_route_and_tier
from tierline.ledger import Hold, Spent
from tierline.values import NANO

HOUR = 3_600.0
DAY = 24 * HOUR
BEGIN = 20_000 * DAY

spent = st.builds(
    Spent,
    hour=st.integers(0, 99).map(lambda n: BEGIN + n * HOUR),
    tenant=st.sampled_from([None, "acme", "globex"]),
    route=st.sampled_from([None, "/chat"]),
    tier=st.sampled_from(["haiku", "opus"]),
    attempts=st.integers(0, 10),
    cost=st.integers(0, 10**12),
    own=st.integers(0, 10**6),
    estimated=st.integers(0, 10**6),
)


@given(st.lists(spent, max_size=30))
def test_every_way_of_slicing_adds_up(rows: list[Spent]) -> None:
    """Whatever was spent, the sums by anything come to the same total, which the table shows."""
    history = History(BEGIN, BEGIN + 100 * HOUR, tuple(rows))
    for what in get_args(Grouping):
        total = Total()
        for part in history.by(what).values():
            total = total.plus(part)
        assert total == history.total
    for name in (field.name for field in fields(Total)):
        assert getattr(history.total, name) == sum(getattr(row, name) for row in rows)
    assert list(history.by("hour")) == sorted(history.by("hour")) or rows != sorted(rows, key=lambda row: row.hour)
    costs = [total.cost for total in history.by("account").values()]
    assert costs == sorted(costs, reverse=True)
    assert str(history)


def row(hour: int = 0, cost: int = NANO, **more: Any) -> Spent:
    return Spent(BEGIN + hour * HOUR, more.get("tenant"), more.get("route"), more.get("tier", "haiku"), 1, cost)


def test_the_table() -> None:
    """A short time is shown by hour, a long one by day; money lines up; what has no name is called so."""
    rows = (row(0, route="/chat", tenant="acme"), row(0, 5, tier="opus"), row(30, 2 * NANO, tenant="acme"))
    by_hour = str(History(BEGIN, BEGIN + 48 * HOUR, rows)).splitlines()
    assert by_hour[0] == "spent from 2024-10-04 00:00:00 UTC to 2024-10-06 00:00:00 UTC"
    assert by_hour[1].split() == ["attempts", "cost", "overhead", "estimated"]
    assert by_hour[2:5] == [
        "hour",
        "  2024-10-04 00:00         2  $1.000000005     $0.00      $0.00",
        "  2024-10-05 06:00         1  $2.000000000     $0.00      $0.00",
    ]
    assert by_hour[5:8] == [
        "account",
        "  acme                     2  $3.000000000     $0.00      $0.00",
        "  (no tenant)              1  $0.000000005     $0.00      $0.00",
    ]
    assert by_hour[-1] == "total                      3  $3.000000005     $0.00      $0.00"
    by_day = str(History(BEGIN, BEGIN + 49 * HOUR, rows)).splitlines()
    assert [line.split()[:2] for line in by_day[2:5]] == [["day"], ["2024-10-04", "2"], ["2024-10-05", "1"]]
    assert str(History(BEGIN, BEGIN + HOUR, ())).endswith("UTC: nothing")


def test_a_long_table_is_cut_and_says_so() -> None:
    """Of many accounts the dearest are shown, of many days the latest, and one row has the rest."""
    rows = tuple(row(24 * n, n + 1, tenant=f"t{n}") for n in range(100))
    shown = str(History(BEGIN, BEGIN + 100 * DAY, rows)).splitlines()
    assert len(shown) < 3 * MOST_SHOWN
    assert next(line for line in shown if "earlier" in line).split()[:4] == ["(80", "earlier)", "80", "$0.000003240"]
    assert next(line for line in shown if "more" in line).split()[:4] == ["(80", "more)", "80", "$0.000003240"]
    assert "  t99" in "\n".join(shown)
    assert "  t79 " not in "\n".join(shown)
    assert len(History(BEGIN, BEGIN + 100 * DAY, rows).by("account")) == 100


def test_an_unknown_grouping() -> None:
    """What nothing is grouped by is an error that says what there is."""
    with pytest.raises(ConfigurationError, match="hour, day, account, route, tier"):
        History(0, 1, ()).by("model")  # type: ignore[arg-type]


def test_where_the_money_went() -> None:
    """Routes and tiers with what they cost, the dearest first, bounded, and all of it in the end."""
    lines = by_route_and_tier([row(0, 7, route="/a"), row(1, 8, route="/a"), row(0, 30, tier="opus")])
    assert [line.split() for line in lines] == [
        ["route", "tier", "attempts", "cost", "overhead"],
        ["(no", "route)", "opus", "1", "$0.000000030", "$0.00"],
        ["/a", "haiku", "2", "$0.000000015", "$0.00"],
        ["total", "3", "$0.000000045", "$0.00"],
    ]
    many = by_route_and_tier([row(0, n, route=f"/{n}") for n in range(50)])
    assert len(many) == MOST_SHOWN + 3
    assert many[-2].split() == ["(30", "more)", "30", "$0.000000435", "$0.00"]


def test_holds() -> None:
    """A call in flight has an age and what is left of its lease, never less than nothing."""
    accounts = (("plan", "acme"), ("$5/day", "global"))
    holds = Holds.at(
        100.0,
        [
            Hold("a", "haiku", "m", 5, 88.0, 118.0, accounts, "acme", "/chat"),
            Hold("b", "opus", "m", 7, 101.0, 99.0, accounts[1:]),
        ],
    )
    assert [(hold.age, hold.lease_left) for hold in holds] == [(12.0, 18.0), (0.0, 0.0)]
    assert (len(holds), holds.cost, [hold.id for hold in holds.on("plan", "acme")]) == (2, 12, ["a"])
    assert str(holds).splitlines()[1:] == [
        "a   acme         /chat       haiku  $0.000000005   12 s        18 s",
        "b   (no tenant)  (no route)  opus   $0.000000007  0.0 s       0.0 s",
    ]
    assert str(Holds(())) == "nothing is in flight"
    assert str(Holds(holds.rows * 15)).endswith("\nand 10 more")
