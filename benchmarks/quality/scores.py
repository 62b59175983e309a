"""One router on one set, as numbers with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.evaluation.intervals import Interval, bootstrap
from tierline.evaluation.sweep import CHANCE, Sweep

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.quality.data import Pair


RESAMPLES: Final = 200


class Score(NamedTuple):
    """APGR with its 95% interval; the cost at 95% of the strong one's quality, where answers have costs."""

    rows: int
    apgr: Interval
    cost_at_95: float | None

    @property
    def defect(self) -> bool:
        """Whether it is worse than random."""
        return self.apgr.value < CHANCE - 5e-4  # as it is shown


def scored(needs: Sequence[float], pairs: Sequence[Pair]) -> Score:
    """How well needs rank pairs."""
    weak, strong = [pair.weak for pair in pairs], [pair.strong for pair in pairs]
    if any(pair.strong_cost for pair in pairs):
        sweep = Sweep(needs, weak, strong, [p.weak_cost for p in pairs], [p.strong_cost for p in pairs])
        return Score(len(pairs), bootstrap(sweep.apgr, sweep.rows, resamples=RESAMPLES), sweep.cost_at())
    sweep = Sweep(needs, weak, strong)
    return Score(len(pairs), bootstrap(sweep.apgr, sweep.rows, resamples=RESAMPLES), None)
