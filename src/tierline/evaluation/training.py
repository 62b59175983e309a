"""Whether a model that is fitted to an app's own rows is better than what it would replace: by cross-validation.

Each row is judged by a model that has not seen it, nor another row of the same request. Both models are judged on the
same rows, and the interval is of the difference, row by row: so that luck with easy rows helps neither.
"""

from __future__ import annotations

from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.errors import ConfigurationError
from tierline.evaluation.intervals import Interval, bootstrap, mean_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tierline.evaluation.rows import Row

    Scorer = Callable[[Row], float]
    """How well one row is judged: more is better."""
    Watch = Callable[[Iterable[int]], Iterable[int]]

FOLDS: Final = 5
FEWEST: Final = 50
"""Rows under which nothing is trained: the interval would hold everything."""


class Comparison(NamedTuple):
    """Two models on the same rows, in the unit of the score. `gain` is how much better the fitted one is."""

    rows: int
    fitted: Interval
    shipped: Interval
    gain: Interval

    @property
    def better(self) -> bool:
        """Whether the fitted one is better beyond what chance would make of it: all of the interval is above 0."""
        return self.gain.low > 0


def fold_of(row: Row, folds: int = FOLDS, seed: int = 0) -> int:
    """Which part a row belongs to. Rows of one request, and of one text, are in the same."""
    key = row.text or row.id
    return int.from_bytes(blake2b(f"{seed}\0{key}".encode("utf-8", "replace"), digest_size=8).digest()) % folds


def compare(
    rows: Sequence[Row],
    fit: Callable[[Sequence[Row]], Scorer],
    shipped: Scorer,
    *,
    folds: int = FOLDS,
    seed: int = 0,
    watch: Watch = iter,
) -> Comparison:
    """Cross-validate `fit` against `shipped`, which has learned nothing of these rows.

    `watch` sees the folds go by. ConfigurationError where there are too few rows, or all are of one text.
    """
    if len(rows) < FEWEST:
        raise ConfigurationError(f"{len(rows)} rows are too few to train on and to tell: give {FEWEST} or more")
    parts: list[list[Row]] = [[] for _ in range(folds)]
    for row in rows:
        parts[fold_of(row, folds, seed)].append(row)
    if sum(1 for part in parts if part) < folds:
        raise ConfigurationError("nearly all rows are of the same texts: give rows of more of them")
    ours: list[float] = []
    theirs: list[float] = []
    for place in watch(range(folds)):
        score = fit([row for other, part in enumerate(parts) if other != place for row in part])
        ours += [score(row) for row in parts[place]]
        theirs += [shipped(row) for row in parts[place]]
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    requests: dict[str, list[int]] = {}
    for at, row in enumerate(row for part in parts for row in part):
        requests.setdefault(row.text or row.id, []).append(at)
    return Comparison(len(rows), _mean(ours), _mean(theirs), _drawn(differences, list(requests.values())))


def _mean(values: Sequence[float]) -> Interval:
    return mean_of(sum(values), sum(value * value for value in values), len(values))


def _drawn(values: Sequence[float], groups: Sequence[Sequence[int]]) -> Interval:
    """The mean of values, where those of one request are drawn together: they are not independent."""
    sums = [(sum(values[at] for at in group), len(group)) for group in groups]
    if len(sums) < 2:  # noqa: PLR2004  (one alone tells nothing of others)
        return Interval(sum(values) / len(values), -inf, inf)

    def mean(weights: Sequence[float]) -> float:
        total = sum(weight * value for weight, (value, _) in zip(weights, sums, strict=True))
        return total / sum(weight * count for weight, (_, count) in zip(weights, sums, strict=True))

    return bootstrap(mean, len(sums))


def brier(chance: float, good: float) -> float:
    """How well a probability fits what came of it: 0 is best, -1 worst (Brier 1950, turned around)."""
    return -((chance - good) ** 2)
