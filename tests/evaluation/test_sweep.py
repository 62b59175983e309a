"""Quality against cost over the share that goes to the strong tier."""

from __future__ import annotations

from itertools import permutations
from math import nan
from statistics import fmean

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tierline.errors import ConfigurationError
from tierline.evaluation import Sweep, apgr, cost_at, curve

GRADES = st.sampled_from([0.0, 0.25, 0.5, 1.0])
NEEDS = st.integers(-3, 3).map(float)
COSTS = st.integers(0, 9).map(float)


@st.composite
def requests(draw: st.DrawFn, most: int = 12) -> list[tuple[float, float, float, float, float]]:
    """Rows of (need, weak, strong, weak cost, strong cost) of which the strong tier is the better one on the whole."""
    rows = draw(st.lists(st.tuples(NEEDS, GRADES, GRADES, COSTS, COSTS), min_size=1, max_size=most))
    assume(sum(row[2] for row in rows) - sum(row[1] for row in rows) > 0.1)
    assume(sum(row[4] for row in rows) > 0)
    return rows


def columns(rows: list[tuple[float, ...]]) -> list[list[float]]:
    return [list(column) for column in zip(*rows, strict=True)]


def test_a_case_by_hand() -> None:
    """Two requests, the first of them worth the strong tier: three quarters and half the cost."""
    assert curve([2, 1], [0, 1], [1, 1], [1, 1], [5, 5]) == [(0.0, 0.5, 1.0), (0.5, 1.0, 3.0), (1.0, 1.0, 5.0)]
    assert apgr([2, 1], [0, 1], [1, 1]) == 0.75
    assert apgr([1, 2], [0, 1], [1, 1]) == 0.25
    assert cost_at([2, 1], [0, 1], [1, 1], [1, 1], [5, 5], share=1.0) == pytest.approx(0.6)
    assert cost_at([2, 1], [0, 1], [1, 1], [1, 1], [5, 5], share=0.75) == pytest.approx(0.4)
    assert cost_at([2, 1], [0, 1], [1, 1], [1, 1], [5, 5], share=0.5) == pytest.approx(0.2)


@given(requests())
def test_one_who_cannot_tell_is_chance(rows: list[tuple[float, ...]]) -> None:
    """Equal needs give one half, whatever the answers and the order of the rows."""
    _, weak, strong, _, _ = columns(rows)
    assert apgr([1.0] * len(rows), weak, strong) == pytest.approx(0.5)


@given(requests(most=5))
def test_random_needs_are_chance_in_the_mean(rows: list[tuple[float, ...]]) -> None:
    """Over all orders of the rows the mean is one half."""
    _, weak, strong, _, _ = columns(rows)
    found = [apgr([float(place) for place in order], weak, strong) for order in permutations(range(len(rows)))]
    assert fmean(found) == pytest.approx(0.5)


@given(requests(most=5))
def test_ties_are_the_mean_of_their_orders(rows: list[tuple[float, ...]]) -> None:
    """Requests of equal need count as the mean over all orders in which they could be sent."""
    needs, weak, strong, _, _ = columns(rows)
    found = [
        apgr([need + place / 100 for need, place in zip(needs, order, strict=True)], weak, strong)
        for order in permutations(range(len(rows)))
    ]
    assert apgr(needs, weak, strong) == pytest.approx(fmean(found))


@given(requests())
def test_no_router_is_better_than_the_oracle(rows: list[tuple[float, ...]]) -> None:
    """Who sends the largest gains first recovers most, and who does the opposite least."""
    needs, weak, strong, _, _ = columns(rows)
    gains = [better - worse for worse, better in zip(weak, strong, strict=True)]
    best, worst = apgr(gains, weak, strong), apgr([-gain for gain in gains], weak, strong)
    assert worst - 1e-9 <= apgr(needs, weak, strong) <= best + 1e-9
    assert best + worst == pytest.approx(1.0)


@given(requests(), st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[tuple[float, ...]], random: object) -> None:
    """All figures are the same for shuffled rows."""
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = Sweep(*columns(rows)), Sweep(*columns(shuffled))
    assert one.apgr() == pytest.approx(other.apgr())
    assert one.cost_at() == pytest.approx(other.cost_at())


@given(requests())
def test_only_the_order_of_needs_counts(rows: list[tuple[float, ...]]) -> None:
    """A rising function of the needs changes nothing."""
    needs, *rest = columns(rows)
    assert Sweep([need**3 + 7 for need in needs], *rest).curve() == Sweep(needs, *rest).curve()


@given(requests(), st.data())
def test_a_weight_is_a_repeated_row(rows: list[tuple[float, ...]], data: st.DataObject) -> None:
    """A row of weight three is three rows, and one of weight zero is none."""
    weights = data.draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    assume(any(weights))
    repeated = [row for row, weight in zip(rows, weights, strict=True) for _ in range(weight)]
    one, other = Sweep(*columns(rows)).curve([float(w) for w in weights]), Sweep(*columns(repeated)).curve()
    assert [number for point in one for number in point] == pytest.approx([n for point in other for n in point])


@given(requests(), st.floats(0, 1))
def test_cost_reaches_the_quality_that_it_is_for(rows: list[tuple[float, ...]], share: float) -> None:
    """No setting of the curve that reaches the quality is cheaper, and more quality is never cheaper."""
    sweep = Sweep(*columns(rows))
    points, found = sweep.curve(), sweep.cost_at(share=share)
    reaching = [p.cost for p in points if p.quality >= share * points[-1].quality]
    assert found <= min(reaching, default=points[-1].cost) / points[-1].cost + 1e-9
    assert found <= sweep.cost_at(share=min(1.0, share + 0.1)) + 1e-9


@given(requests())
def test_the_ends_of_the_curve(rows: list[tuple[float, ...]]) -> None:
    """It runs from all weak to all strong."""
    needs, weak, strong, weak_cost, strong_cost = columns(rows)
    first, *_, last = Sweep(needs, weak, strong, weak_cost, strong_cost).curve()
    assert first == pytest.approx((0.0, fmean(weak), fmean(weak_cost)))
    assert last == pytest.approx((1.0, fmean(strong), fmean(strong_cost)))


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        (([], [], []), "no rows"),
        (([1, 2], [0, 0], [1]), "strong: 1 values for 2 rows"),
        (([1, nan], [0, 0], [1, 1]), "needs: row 2 is nan"),
        (([1], [0], [2]), "strong: row 1 is 2; it must be from 0 to 1"),
        (([1], [0], [1], [1]), "give both or neither"),
        (([1], [0], [1], [-1], [1]), "weak_cost: row 1"),
    ],
)
def test_what_cannot_be_is_named(columns: tuple[list[float], ...], told: str) -> None:
    """An error says which column and which row."""
    with pytest.raises(ConfigurationError, match=told):
        Sweep(*columns)


def test_what_is_not_defined_is_no_number() -> None:
    """No gap, no cost, no weight, no such share: an error, and never a number that means nothing."""
    with pytest.raises(ConfigurationError, match="no gap to recover"):
        apgr([1, 2], [1, 0], [0, 1])
    with pytest.raises(ConfigurationError, match="costs nothing"):
        cost_at([1], [0], [1], [0], [0])
    with pytest.raises(ConfigurationError, match="no row has a weight"):
        Sweep([1], [0], [1]).curve([0.0])
    with pytest.raises(ConfigurationError, match="from 0 to 1"):
        Sweep([1], [0], [1]).cost_at(share=95)
