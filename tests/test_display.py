"""Tables, money, moments and durations as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.budgets import parse_money
from tierline.display import duration, moment, money, table


def test_a_table() -> None:
    """Columns are two spaces apart, numbers end alike, and no line ends in spaces."""
    rows = [("name", "n", "said"), ("a", "10", "x"), ("longer", "7", "")]
    assert table(rows, right=(1,), indent="  ") == ["  name     n  said", "  a       10  x", "  longer   7"]
    assert table([]) == []


@given(st.lists(st.integers(1, 10**18), min_size=1))
def test_money_lines_up(amounts: list[int]) -> None:
    """All amounts have equally many decimals, and none loses a nano-dollar."""
    shown = money(amounts)
    assert len({len(text) - text.index(".") for text in shown}) == 1
    assert [parse_money(text) for text in shown] == amounts


def test_money_below_nothing() -> None:
    """What is overdrawn lines up too."""
    assert money([-1_500, 2 * 10**9]) == ["-$0.0000015", "$2.0000000"]
    assert money([]) == []


def test_a_moment() -> None:
    """Moments are in UTC, and say so."""
    assert moment(1_795_274_677.9) == "2026-11-21 15:24:37 UTC"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-3, "0.0 s"), (0.44, "0.4 s"), (9.99, "10.0 s"), (10.6, "11 s"), (60, "1 min"), (95, "1 min 35 s"),
        (3_600, "1 h"), (3_605, "1 h"), (11_520, "3 h 12 min"), (86_400 * 31 + 3_600, "31 d 1 h"),
    ],
)  # fmt: skip
def test_durations(seconds: float, shown: str) -> None:
    """The two largest units that follow each other are told."""
    assert duration(seconds) == shown
