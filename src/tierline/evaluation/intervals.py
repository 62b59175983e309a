"""How sure a figure is: intervals of shares, and of anything that can be computed from rows drawn again."""

from __future__ import annotations

import random
from itertools import repeat
from math import ceil, floor, inf, isfinite, sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

LEVEL: Final = 0.95
"""How often an interval is to hold the true value."""
_MOST_RESAMPLES: Final = 1_000
_FEWEST_RESAMPLES: Final = 200
_DRAWS: Final = 4_000_000


class Interval(NamedTuple):
    """A figure, and the bounds that hold the true one with `LEVEL` probability, in the figure's own unit."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Interval:
        """The same in another unit."""
        return Interval(self.value * factor, self.low * factor, self.high * factor)

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(hits: float, rows: float, level: float = LEVEL) -> Interval:
    """The share `hits / rows` with Wilson's score interval (1927), which holds for few rows and extreme shares too.

    `hits` need not be whole: grades from 0 to 1 may be added up (the interval is then a little wide). Of no rows at
    all nothing is known: nan, from 0 to 1. ConfigurationError where there are more hits than rows.
    """
    if not 0 <= hits <= rows:
        raise ConfigurationError(f"{hits!r} hits of {rows!r} rows cannot be")
    if not rows:
        return Interval(float("nan"), 0.0, 1.0)
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = hits / rows
    middle = (share + z2 / (2 * rows)) / (1 + z2 / rows)
    half = sqrt(z2 * (share * (1 - share) / rows + z2 / (4 * rows * rows))) / (1 + z2 / rows)
    return Interval(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)))


def mean_of(total: float, squares: float, rows: int, level: float = LEVEL) -> Interval:
    """The mean of `rows` values that add up to `total`, and their squares to `squares`: two standard errors each way.

    Of none nothing is known: nan, without bounds; of one, no bounds.
    """
    if not rows:
        return Interval(float("nan"), -inf, inf)
    mean = total / rows
    if rows == 1:
        return Interval(mean, -inf, inf)
    spread = max(0.0, squares / rows - mean * mean) * rows / (rows - 1)
    half = NormalDist().inv_cdf((1 + level) / 2) * sqrt(spread / rows)
    return Interval(mean, mean - half, mean + half)


def resamples_for(rows: int) -> int:
    """How often rows are drawn again by default: 1,000 times, and less for many rows, whose figures are steady."""
    return max(_FEWEST_RESAMPLES, min(_MOST_RESAMPLES, _DRAWS // max(1, rows)))


def bootstrap(
    statistic: Callable[[Sequence[float]], float],
    rows: int,
    *,
    seed: int = 0,
    resamples: int | None = None,
    level: float = LEVEL,
    watch: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Interval:
    """The figure of all rows, with the percentile bootstrap interval (Efron 1979). The same seed gives the same.

    `statistic` is given a weight for each row: how often it was drawn; all are 1 for the figure itself. Where it is
    undefined for rows as drawn, it raises ConfigurationError: such a draw could be anything, and widens both sides.
    `watch` sees the draws go by, such as a progress bar does.
    """
    value = statistic([1.0] * rows)
    values: list[float] = []
    undefined = 0
    rng = random.Random(seed)  # noqa: S311  (repeatable, and no secret)
    everyone = range(rows)
    times = resamples_for(rows) if resamples is None else resamples
    for _ in watch(range(times)):
        weights = [0.0] * rows
        for row in rng.choices(everyone, k=rows):
            weights[row] += 1.0
        try:
            values.append(statistic(weights))
        except ConfigurationError:
            undefined += 1
    low = quantile([*repeat(-inf, undefined), *values], (1 - level) / 2)
    high = quantile([*values, *repeat(inf, undefined)], (1 + level) / 2)
    return Interval(value, min(value, low), max(value, high))


def quantile(values: Iterable[float], q: float) -> float:
    """The value that a share `q` of them is below, in between two where it falls there; nan of none."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    place = q * (len(ordered) - 1)
    below, above = ordered[floor(place)], ordered[ceil(place)]
    if below == above:
        return below
    return below + (above - below) * (place - floor(place)) if isfinite(above - below) else below


def check_numbers(where: str, rows: int, numbers: Sequence[float], *, least: float = -inf, most: float = inf) -> None:
    """ConfigurationError, beginning with `where`, unless there is a number from `least` to `most` for each row."""
    if len(numbers) != rows:
        raise ConfigurationError(f"{where}: {len(numbers)} values for {rows} rows; give one for each")
    for place, number in enumerate(numbers):
        if not isfinite(number) or not least <= number <= most:
            bounds = "a number" if least == -inf else f"from {least:g} to {most:g}"
            raise ConfigurationError(f"{where}: row {place + 1} is {number!r}; it must be {bounds}")
