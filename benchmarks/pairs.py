"""A figure with its interval, and the arithmetic of pairs: two columns that were measured in the same rounds."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

RESAMPLES: Final = 2_000


class Interval(NamedTuple):
    """A median, and between what it lies with 95% by a percentile bootstrap."""

    value: float
    low: float
    high: float


def median_of(samples: Sequence[float]) -> Interval:
    """The median of at least one sample. The interval of the same samples is the same: its seed is fixed."""
    again = random.Random(0)
    medians = sorted(statistics.median(again.choices(samples, k=len(samples))) for _ in range(RESAMPLES))
    return Interval(statistics.median(samples), medians[RESAMPLES // 40], medians[-RESAMPLES // 40])


def ratio(mine: Sequence[float], base: Sequence[float]) -> Interval:
    """The median over rounds of one column's figure to the base's of the same round. ValueError for unequal lengths."""
    return median_of([one / other for one, other in zip(mine, base, strict=True)])
