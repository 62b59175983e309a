"""The lowest point of a smooth function of many numbers: L-BFGS (Nocedal 1980), in pure Python."""

from __future__ import annotations

from collections import deque
from math import sqrt
from operator import mul
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ROUNDS: Final = 100
_REMEMBERED: Final = 8
"""Steps from which the curvature is told."""
_HALVINGS: Final = 20
_ENOUGH: Final = 1e-4
"""Of what the slope promises, a step must bring so much."""
_STILL: Final = 1e-5
"""A round that brings less than this share of the height is the last."""


def _product(one: Sequence[float], other: Sequence[float]) -> float:
    product: float = sum(map(mul, one, other))
    return product


def least(
    slopes: Callable[[list[float]], tuple[float, list[float]]],
    start: Sequence[float],
    product: Callable[[Sequence[float], Sequence[float]], float] = _product,
) -> list[float]:
    """Where `slopes`, which gives the height of a point and its slopes, is lowest, beginning at `start`.

    Points are only ever added up and stretched, and measured by `product`, their inner product. So they may stand for
    vectors of another space, which has a product of its own.
    """
    here = list(start)
    height, slope = slopes(here)
    steps: deque[tuple[list[float], list[float], float]] = deque(maxlen=_REMEMBERED)
    for _ in range(_ROUNDS):
        way = _downhill(slope, steps, product)
        fall = product(way, slope)
        if fall >= 0:  # nothing but rounding errors is left
            break
        size = 1.0 if steps else min(1.0, 1 / (sqrt(product(slope, slope)) or 1.0))
        for _ in range(_HALVINGS):
            there = [at + size * far for at, far in zip(here, way, strict=True)]
            lower, next_slope = slopes(there)
            if lower <= height + _ENOUGH * size * fall:
                break
            size /= 2
        else:
            break
        step = [one - other for one, other in zip(there, here, strict=True)]
        turn = [one - other for one, other in zip(next_slope, slope, strict=True)]
        if (curve := product(step, turn)) > 0:
            steps.append((step, turn, curve))
        gained, here, height, slope = height - lower, there, lower, next_slope
        if gained <= _STILL * max(abs(height), 1.0):
            break
    return here


def _downhill(
    slope: list[float],
    steps: deque[tuple[list[float], list[float], float]],
    product: Callable[[Sequence[float], Sequence[float]], float],
) -> list[float]:
    """Against the slope, turned and stretched by what the last steps told of the curvature."""
    way = [-each for each in slope]
    shares = []
    for step, turn, curve in reversed(steps):
        share = product(step, way) / curve
        way = [one - share * other for one, other in zip(way, turn, strict=True)]
        shares.append(share)
    if steps:
        _, turn, curve = steps[-1]
        scale = curve / product(turn, turn)
        way = [scale * each for each in way]
    for (step, turn, curve), share in zip(steps, reversed(shares), strict=True):
        back = share - product(turn, way) / curve
        way = [one + back * other for one, other in zip(way, step, strict=True)]
    return way
