"""All measures of a file in one pass: what `tierline eval` shows and `assert_quality` holds a build to."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from math import ceil, isnan, nan
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from tierline.classify.worth import CHARS_A_TOKEN
from tierline.errors import ConfigurationError
from tierline.evaluation.agreement import FEW_ROWS, Agreement, Errors
from tierline.evaluation.calibration import expected_calibration_error
from tierline.evaluation.intervals import Interval, bootstrap, mean_of, wilson
from tierline.evaluation.opinions import Offline, need, opinion, silent, view_of
from tierline.evaluation.sweep import CHANCE, Sweep
from tierline.values import Usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tierline.classify.base import Classifier
    from tierline.evaluation.agreement import Money
    from tierline.evaluation.rows import Row
    from tierline.ladder import Ladder
    from tierline.prices import PriceBook

    Watch = Callable[[Iterable[int]], Iterable[int]]

OUTPUT_TOKENS: Final = 300
"""Of an answer whose tokens are not given."""

_MONEY: Final[tuple[tuple[Money, str], ...]] = (
    ("cost", "price"),
    ("wasted", "of that wasted on too dear tiers"),
    ("not_spent", "what too cheap ones should cost more"),
    ("cost_right", "price with the right labels"),
    ("cost_top", "price all on the top tier"),
)

Unit = Literal["share", "nano-USD per 1000", "ratio", "score"]


class Figure(NamedTuple):
    """One measure: its name, what was found, and in which unit. Money is in nano-USD."""

    name: str
    found: Interval
    unit: Unit
    note: str = ""


@dataclass(frozen=True, slots=True)
class Measures:
    """What was found in a file. `confusion` is by (right, given), `by_tier` counts rows; empty where there is none."""

    rows: int
    figures: tuple[Figure, ...]
    confusion: Mapping[tuple[str, str | None], int] = field(default_factory=dict)
    by_tier: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    """Ids of rows with the worst errors: too cheap by most tiers, then those the classifier was surest of."""

    def figure(self, name: str) -> Interval | None:
        """A figure by its name, or None where it was not measured."""
        return next((each.found for each in self.figures if each.name == name), None)


class Costs:
    """What requests cost on each tier of a ladder, in nano-USD. ConfigurationError for a tier without a price."""

    def __init__(self, ladder: Ladder, prices: PriceBook, out_tokens: int = OUTPUT_TOKENS) -> None:
        self.ladder = ladder
        self._prices = prices
        self._out_tokens = out_tokens
        self.of(Usage(1, 1))

    def of_row(self, row: Row) -> list[int]:
        """Of a row, cheapest tier first: from its tokens, or from the length of its text."""
        return self.of(row.usage or Usage(ceil(len(row.text or "") / CHARS_A_TOKEN), self._out_tokens))

    def of(self, usage: Usage) -> list[int]:
        """Of an answer with this usage."""
        found: list[int] = []
        for tier in self.ladder:
            cost = self._prices.cost(tier.model, usage)
            if cost is None:
                raise ConfigurationError(f"tier {tier.name!r}: model {tier.model!r} has no price; name one that has")
            found.append(cost)
        return found


class Labelled:
    """Rows with labels: what a classifier says of them, added up."""

    def __init__(self, classifier: Classifier, costs: Costs, against: Costs | None = None, *, worst: int = 10) -> None:
        self._classifier = classifier
        self._costs = costs
        self._against = against
        self._consult = Offline()
        self._confusion: Counter[tuple[str, str | None]] = Counter()
        self._errors = Errors(costs.ladder)
        self._there = Errors(against.ladder) if against is not None else None
        self._said, self._true = array("d"), array("d")
        self._most = worst
        self._worst: list[tuple[float, str]] = []

    def add(self, row: Row) -> None:
        """One more row with a label."""
        assert row.label is not None  # noqa: S101  (the caller's part)
        said = opinion(self._classifier, view_of(row.text or "", row.tools), self._consult)
        given = said.label if said is not None else None
        self._confusion[row.label, given] += 1
        self._errors.add(row.label, given, self._costs.of_row(row))
        if self._there is not None and self._against is not None:
            self._there.add(row.label, given, self._against.of_row(row))
        if said is not None:
            self._said.append(said.confidence)
            self._true.append(said.label == row.label)
        if given != row.label:
            labels = self._costs.ladder.labels
            rungs = labels[row.label] - labels[given or "moderate"]
            self._worst.append((max(rungs, 0) + (said.confidence if said is not None else 0.0) / 2, row.id))
            if len(self._worst) > 50 * self._most:
                self._worst = sorted(self._worst, reverse=True)[: self._most]

    def measures(self, watch: Watch = iter) -> Measures:
        """What was found."""
        found, errors = Agreement(dict(self._confusion)), self._errors
        figures = [
            Figure("agreement", found.share, "share"),
            Figure("agreement where it has an opinion", found.of_answered, "share"),
            Figure("abstentions", wilson(found.abstained, found.rows), "share"),
            Figure("too cheap: quality lost", errors.lost_share, "share", f"{errors.rungs_lost} tiers in all"),
            Figure("too dear: money wasted", errors.wasted_share, "share"),
            *(Figure(name, errors.per_thousand(kind), "nano-USD per 1000") for kind, name in _MONEY),
        ]
        if self._there is not None:
            figures.append(Figure("price on the other ladder", self._there.per_thousand(), "nano-USD per 1000"))
        warnings = [*found.warnings]
        if len(self._said) > 1:
            calibration = bootstrap(
                lambda weights: expected_calibration_error(self._said, self._true, weights=weights),
                len(self._said),
                watch=watch,
            )
            figures.append(Figure("calibration error of its confidence", calibration, "score", "0 is honest"))
        if self._consult.asked:
            warnings.append(
                f"{self._consult.asked} rows would be Claude's to judge: nobody was asked, so those count by what the "
                "other classifiers say"
            )
        worst = sorted(self._worst, key=lambda each: (-each[0], each[1]))[: self._most]
        return Measures(
            found.rows,
            tuple(figures),
            found.confusion,
            {tier.name: sum(n for (_, given), n in found.confusion.items()
                            if self._costs.ladder.labels[given or "moderate"] == place)
             for place, tier in enumerate(self._costs.ladder)},
            tuple(warnings),
            tuple(ident for _, ident in worst),
        )  # fmt: skip


class Graded:
    """Requests whose answers were graded, on one tier or several: quality and cost of sending them here or there."""

    def __init__(self, classifier: Classifier, costs: Costs) -> None:
        self._classifier = classifier
        self._costs = costs
        self._consult = Offline()
        self._places: dict[str, int] = {}
        self._grades = {tier.name: array("d") for tier in costs.ladder}
        self._spent = {tier.name: array("q") for tier in costs.ladder}
        self._needs = array("d")
        self.keys: list[str] = []

    def add(self, row: Row) -> None:
        """One more row with grades; those of one request, by its id, are put together."""
        place = self._places.get(row.id)
        if place is None:
            place = self._places[row.id] = len(self._needs)
            self.keys.append(row.id)
            view = view_of(row.text or "", row.tools)
            said = opinion(self._classifier, view, self._consult)
            self._needs.append(need(self._classifier, view, said))
            for name, cost in zip(self._spent, self._costs.of_row(row), strict=True):
                self._grades[name].append(nan)
                self._spent[name].append(cost)
        for tier, good in row.grades:
            if tier not in self._grades:
                known = ", ".join(self._grades)
                raise ConfigurationError(
                    f"{row.where}: tier {tier!r} is not on the ladder ({known}); name it with --ladder {tier}=MODEL,…"
                )
            self._grades[tier][place] = good
            if row.usage is not None:
                self._spent[tier][place] = self._costs.of_row(row)[self._costs.ladder.index(tier, row.where)]

    @property
    def pair(self) -> tuple[str, str] | None:
        """The cheapest and the dearest tier that were graded; None where there is one alone."""
        graded = [name for name, grades in self._grades.items() if not all(map(isnan, grades))]
        return (graded[0], graded[-1]) if len(graded) > 1 else None

    def sweep(self, needs: Sequence[float] | None = None) -> tuple[Sweep, list[str]] | None:
        """The requests that were graded on both tiers, ranked by the classifier or by other needs, and their ids."""
        if self.pair is None:
            return None
        weak, strong = self.pair
        ranked = self._needs if needs is None else needs
        both = [
            place
            for place in range(len(self._needs))
            if not isnan(self._grades[weak][place]) and not isnan(self._grades[strong][place])
        ]
        if not both:
            return None
        columns = (ranked, self._grades[weak], self._grades[strong], self._spent[weak], self._spent[strong])
        picked: list[list[float]] = [[column[place] for place in both] for column in columns]
        return Sweep(*picked), [self.keys[place] for place in both]

    def measures(self, learned: Sequence[Mapping[str, float]] | None = None, watch: Watch = iter) -> Measures:
        """What was found. `learned` is how likely each tier is good enough, by a model that has not seen the request.

        One for each of `keys`, in that order.
        """
        figures: list[Figure] = []
        warnings: list[str] = []
        by_tier: dict[str, int] = {}
        for name, grades in self._grades.items():
            given = [grade for grade in grades if not isnan(grade)]
            if given:
                by_tier[name] = len(given)
                share = wilson(min(sum(given), len(given)), len(given))
                figures.append(Figure(f"good on {name}", share, "share", f"{len(given)} rows"))
                spent = [cost for cost, grade in zip(self._spent[name], grades, strict=True) if not isnan(grade)]
                mean = mean_of(sum(spent), sum(cost * cost for cost in spent), len(spent))
                figures.append(Figure(f"price on {name}", mean.times(1000), "nano-USD per 1000"))
        rankings: list[tuple[str, Sequence[float] | None]] = [(f"text ({self._classifier.name})", None)]
        if learned is not None:
            figures.append(self._calibration(learned, watch))
            if self.pair is not None:
                weak, strong = self.pair
                rankings.append(("route and text, learned", [said[strong] - said[weak] for said in learned]))
        for name, needs in rankings:
            found = self.sweep(needs)
            if found is None:
                warnings.append("no request was graded on two tiers: APGR and cost at 95% need that")
                break
            sweep, keys = found
            if len(keys) < FEW_ROWS:
                warnings.append(f"only {len(keys)} requests were graded on two tiers: see how wide the intervals are")
            try:
                gained = bootstrap(sweep.apgr, sweep.rows, watch=watch)
            except ConfigurationError as error:
                warnings.append(str(error))
                break
            figures.append(Figure(f"APGR by {name}", gained, "score", "0.5 is chance"))
            figures.append(Figure(f"cost at 95% by {name}", bootstrap(sweep.cost_at, sweep.rows, watch=watch), "ratio"))
            if gained.value < CHANCE - 1e-9:
                sure = "" if gained.high >= CHANCE else ", and that is no accident"
                warnings.append(f"by {name} is worse than random ({gained}){sure}: do not route by it here")
        return Measures(len(self._needs), tuple(figures), by_tier=by_tier, warnings=tuple(dict.fromkeys(warnings)))

    def _calibration(self, learned: Sequence[Mapping[str, float]], watch: Watch) -> Figure:
        said, good = array("d"), array("d")
        for tier, grades in self._grades.items():
            for place, grade in enumerate(grades):
                if not isnan(grade):
                    said.append(learned[place][tier])
                    good.append(grade)
        found = bootstrap(lambda w: expected_calibration_error(said, good, weights=w), len(said), watch=watch)
        return Figure("calibration error of P(good enough), learned", found, "score", "0 is honest")


class Logged:
    """Decisions of a log: what they cost, and would have cost elsewhere."""

    def __init__(self, against: Costs | None = None) -> None:
        self._against = against
        self._rows = self._silent = self._downgraded = self._failed = self._cost = self._squares = self._saved = (
            self._saved_squares
        ) = 0
        self._there = self._there_squares = self._repriced = 0
        self._tiers: Counter[str] = Counter()
        self._sources: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        """One more decision."""
        record: Mapping[str, Any] = row.record or {}
        cost, tier = record.get("cost", 0), str(record.get("tier"))
        self._rows += 1
        self._tiers[tier] += 1
        self._sources[str(record.get("source"))] += 1
        self._silent += silent(record)
        self._failed += record.get("outcome") != "ok"
        self._downgraded += tier != record.get("requested_tier")
        self._cost += cost
        self._squares += cost * cost
        saved = record.get("saved", 0)
        self._saved += saved
        self._saved_squares += saved * saved
        if self._against is not None and row.usage is not None:
            place = self._against.ladder.place_of(tier)
            if place is None:
                known = ", ".join(each.name for each in self._against.ladder)
                raise ConfigurationError(
                    f"{row.where}: tier {tier!r} is not on the other ladder ({known}); name it too"
                )
            there = self._against.of(row.usage)[place]
            self._there += there
            self._there_squares += there * there
            self._repriced += 1

    def measures(self) -> Measures:
        """What was found."""
        rows = self._rows
        figures = [
            Figure("price", mean_of(self._cost, self._squares, rows).times(1000), "nano-USD per 1000"),
            Figure(
                "saved against the top tier",
                mean_of(self._saved, self._saved_squares, rows).times(1000),
                "nano-USD per 1000",
            ),
            Figure("abstentions", wilson(self._silent, rows), "share", "nobody had an opinion"),
            Figure("another tier than requested", wilson(self._downgraded, rows), "share", "downgrades and fallbacks"),
            Figure("not answered", wilson(self._failed, rows), "share"),
            *(Figure(f"chosen by {name}", wilson(n, rows), "share") for name, n in self._sources.most_common()),
        ]
        if self._against is not None:
            there = mean_of(self._there, self._there_squares, self._repriced).times(1000)
            figures.append(Figure("price on the other ladder", there, "nano-USD per 1000", "the same tiers and tokens"))
        few = (f"only {rows} rows: under {FEW_ROWS} the intervals are wide",) if rows < FEW_ROWS else ()
        return Measures(rows, tuple(figures), by_tier=dict(self._tiers), warnings=few)
