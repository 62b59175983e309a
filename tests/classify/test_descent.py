"""The lowest point is found, also of functions that are steep one way and flat another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from tierline.classify.descent import least

if TYPE_CHECKING:
    from collections.abc import Sequence


def test_a_bent_valley_is_followed_to_its_end():
    """Rosenbrock's function, whose valley is curved and nearly flat."""

    def slopes(at: list[float]) -> tuple[float, list[float]]:
        x, y = at
        height = (1 - x) ** 2 + 100 * (y - x * x) ** 2
        return height, [-2 * (1 - x) - 400 * x * (y - x * x), 200 * (y - x * x)]

    x, y = least(slopes, [-1.2, 1.0])
    assert abs(x - 1) < 0.01
    assert abs(y - 1) < 0.02


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0.1, 1_000), st.floats(-50, 50)), min_size=1, max_size=6))
def test_a_bowl_of_any_shape_has_its_lowest_point_in_its_middle(sides: list[tuple[float, float]]):
    """However much steeper it is one way than another, no more than a trace of the height is left."""

    def slopes(at: list[float]) -> tuple[float, list[float]]:
        far = [here - middle for here, (_, middle) in zip(at, sides, strict=True)]
        steep = [curve for curve, _ in sides]
        return sum(c * f * f for c, f in zip(steep, far, strict=True)), [
            2 * c * f for c, f in zip(steep, far, strict=True)
        ]

    top, _ = slopes([0.0] * len(sides))
    assert slopes(least(slopes, [0.0] * len(sides)))[0] <= 1e-3 * max(top, 1.0)


def test_what_is_lowest_already_stays():
    """A slope of nothing leads nowhere."""
    assert least(lambda at: (0.0, [0.0] * len(at)), [3.0, 4.0]) == [3.0, 4.0]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(-50, 50), st.floats(0.1, 10)), min_size=1, max_size=6))
def test_points_may_stand_for_vectors_of_another_space(sides: list[tuple[float, float, float]]):
    """Measured by that space's product, a bowl is gone down as it is there, step by step."""
    steep, middles, units = zip(*sides, strict=True)

    def there(at: list[float]) -> tuple[float, list[float]]:
        far = [here - middle for here, middle in zip(at, middles, strict=True)]
        return sum(c * f * f for c, f in zip(steep, far, strict=True)) / 2, [
            c * f for c, f in zip(steep, far, strict=True)
        ]

    def here(at: list[float]) -> tuple[float, list[float]]:
        height, slope = there([unit * each for unit, each in zip(units, at, strict=True)])
        return height, [each / unit for unit, each in zip(units, slope, strict=True)]

    def product(one: Sequence[float], other: Sequence[float]) -> float:
        return sum(unit * unit * a * b for unit, a, b in zip(units, one, other, strict=True))

    nothing = [0.0] * len(sides)
    found = [unit * each for unit, each in zip(units, least(here, nothing, product), strict=True)]
    top, _ = there(nothing)
    assert there(found)[0] <= there(least(there, nothing))[0] + 1e-3 * max(top, 1.0)
