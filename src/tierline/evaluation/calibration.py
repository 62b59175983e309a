"""Whether probabilities mean what they say."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from tierline.errors import ConfigurationError
from tierline.evaluation.intervals import check_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence


class Bin(NamedTuple):
    """Rows that were given about the same probability: how many (by weight), what was said, what came true."""

    rows: float
    said: float
    true: float


def reliability(
    chances: Sequence[float], good: Sequence[float], *, bins: int = 10, weights: Sequence[float] | None = None
) -> list[Bin]:
    """The rows in `bins` intervals of the same width, lowest first; empty ones are left out.

    `chances` (0 to 1) is what was said, `good` what came of it: 0 or 1, or a grade in between.
    """
    rows = len(chances)
    check_numbers("chances", rows, chances, least=0.0, most=1.0)
    check_numbers("good", rows, good, least=0.0, most=1.0)
    if bins < 1:
        raise ConfigurationError(f"bins={bins!r}: write how many, at least 1")
    sums = [[0.0, 0.0, 0.0] for _ in range(bins)]
    for place, (said, came) in enumerate(zip(chances, good, strict=True)):
        weight = 1.0 if weights is None else weights[place]
        into = sums[min(bins - 1, int(said * bins))]
        into[0] += weight
        into[1] += weight * said
        into[2] += weight * came
    return [Bin(count, said / count, true / count) for count, said, true in sums if count]


def expected_calibration_error(
    chances: Sequence[float], good: Sequence[float], *, bins: int = 10, weights: Sequence[float] | None = None
) -> float:
    """How far, in the mean, what was said is from what came true (Naeini et al. 2015): 0 is honest, 1 always wrong.

    The mean over rows of |said - true| of their bin: see `reliability`. Of few rows it is above 0 by chance alone.
    ConfigurationError for no rows.
    """
    found = reliability(chances, good, bins=bins, weights=weights)
    total = sum(each.rows for each in found)
    if not total:
        raise ConfigurationError("there are no rows to measure: give at least one")
    return sum(each.rows * abs(each.said - each.true) for each in found) / total
