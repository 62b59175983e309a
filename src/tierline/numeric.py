"""Whether what an app wrote is a number in a range. True and False are none, nor is NaN."""

from __future__ import annotations

from math import inf
from typing import TypeGuard


def is_number(value: object, least: float, most: float) -> TypeGuard[float]:
    """Whether it is a number from `least` to `most`, both among them."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and least <= value <= most


def is_whole(value: object, least: int, most: float = inf) -> TypeGuard[int]:
    """The same of a whole number."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
