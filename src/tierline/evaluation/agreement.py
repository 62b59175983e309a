"""Labels that a classifier gives against those of people: how often they agree, and what the errors cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from tierline.errors import ConfigurationError
from tierline.evaluation.intervals import Interval, mean_of, wilson
from tierline.values import LABELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tierline.ladder import Ladder

FEW_ROWS: Final = 200
"""Under so many rows a figure is warned of: its interval is about 14 points wide at 80%, and wider below."""
LOW_AGREEMENT: Final = 0.8
"""Under so much agreement a classifier is warned of."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two agree, row by row.

    - `confusion`: rows by (label that is right, label that was given); None was given where there was no opinion
    - `rows`, `agreed`, `abstained`: how many. No opinion is no agreement, so that silence cannot better the figure
    """

    confusion: Mapping[tuple[str, str | None], int]

    @property
    def rows(self) -> int:
        """How many were compared."""
        return sum(self.confusion.values())

    @property
    def agreed(self) -> int:
        """How many got the label that is right."""
        return sum(rows for (right, given), rows in self.confusion.items() if right == given)

    @property
    def abstained(self) -> int:
        """How many got none."""
        return sum(rows for (_, given), rows in self.confusion.items() if given is None)

    @property
    def share(self) -> Interval:
        """Those that agree, of all rows, with Wilson's interval."""
        return wilson(self.agreed, self.rows)

    @property
    def of_answered(self) -> Interval:
        """Those that agree, of the rows that got an opinion."""
        return wilson(self.agreed, self.rows - self.abstained)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the figure must know."""
        share = self.share
        few = f"only {self.rows} rows: under {FEW_ROWS} the interval is too wide to choose by" * (self.rows < FEW_ROWS)
        low = (
            f"agreement is {share.value:.0%}, under {LOW_AGREEMENT:.0%}: train on labels of your own, or set floors"
            if self.rows and share.value < LOW_AGREEMENT
            else ""
        )
        return tuple(filter(None, (few, low)))


def agreement(pairs: Iterable[tuple[str, str | None]]) -> Agreement:
    """Compare labels, given as pairs of the right one and the given one (None: no opinion). Read once, not kept.

    ConfigurationError for a label that is none of simple, moderate, complex.
    """
    counts: Counter[tuple[str, str | None]] = Counter(pairs)
    for right, given in counts:
        for label in (right, given):
            if label not in LABELS and (label is not None or label is right):
                raise ConfigurationError(f"unknown label {label!r:.80}: the labels are {', '.join(LABELS)}")
    return Agreement(dict(counts))


Money = Literal["cost", "cost_right", "cost_top", "wasted", "not_spent"]
"""What requests cost as they were labelled, with the labels that are right, and all on the top tier; what of it was
wasted on those that went too dear; and what the right tiers would have cost more for those that went too cheap."""


@dataclass(slots=True)
class Errors:
    """What labels come to on a ladder, added up row by row.

    - `too_cheap`: rows that went to a lower tier than their label asks for: quality is lost
    - `rungs_lost`: by how many tiers, added up
    - `too_dear`: rows that went to a higher tier than they need: money is wasted

    No opinion is taken as `moderate`, as the Router does.
    """

    ladder: Ladder
    rows: int = 0
    too_cheap: int = 0
    rungs_lost: int = 0
    too_dear: int = 0
    sums: dict[Money, tuple[int, int]] = field(default_factory=dict)
    """Each kind of money, and of its squares, for the intervals."""

    def add(self, right: str, given: str | None, costs: Sequence[int], rows: int = 1) -> None:
        """So many rows with these labels, each of which costs so much on each tier, cheapest first (nano-USD)."""
        needed, taken = self.ladder.labels[right], self.ladder.labels[given or "moderate"]
        self.rows += rows
        self.too_cheap += rows * (taken < needed)
        self.rungs_lost += rows * max(0, needed - taken)
        self.too_dear += rows * (taken > needed)
        each: dict[Money, int] = {
            "cost": costs[taken],
            "cost_right": costs[needed],
            "cost_top": costs[self.ladder.top],
            "wasted": costs[taken] - costs[needed] if taken > needed else 0,
            "not_spent": costs[needed] - costs[taken] if taken < needed else 0,
        }
        for kind, money in each.items():
            total, squares = self.sums.get(kind, (0, 0))
            self.sums[kind] = total + rows * money, squares + rows * money * money

    def total(self, kind: Money) -> int:
        """So much money in all, in nano-USD."""
        return self.sums.get(kind, (0, 0))[0]

    def per_thousand(self, kind: Money = "cost") -> Interval:
        """So much money for a thousand such requests, in nano-USD."""
        return mean_of(*self.sums.get(kind, (0, 0)), self.rows).times(1000)

    @property
    def lost_share(self) -> Interval:
        """Of all rows, those that went too cheap."""
        return wilson(self.too_cheap, self.rows)

    @property
    def wasted_share(self) -> Interval:
        """Of all rows, those that went too dear."""
        return wilson(self.too_dear, self.rows)


def priced(found: Agreement, ladder: Ladder, costs: Sequence[int]) -> Errors:
    """What the errors of a classifier come to where a request costs so much on each tier (nano-USD, cheapest first).

    ConfigurationError where there is not one for each tier.
    """
    if len(costs) != len(ladder):
        raise ConfigurationError(f"{len(costs)} costs for {len(ladder)} tiers: give one for each tier of the ladder")
    errors = Errors(ladder)
    for (right, given), rows in found.confusion.items():
        errors.add(right, given, costs, rows)
    return errors
