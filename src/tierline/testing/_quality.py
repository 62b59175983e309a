"""An assertion for a build: the classifier is as good on the app's own rows as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierline.classify import default_classifier
from tierline.errors import ConfigurationError
from tierline.evaluation.measures import OUTPUT_TOKENS, Costs, Graded, Labelled
from tierline.evaluation.rows import read
from tierline.ladder import DEFAULT_LADDER, Ladder
from tierline.prices import PriceBook
from tierline.values import NANO

if TYPE_CHECKING:
    import os

    from tierline.classify import Classifier
    from tierline.evaluation.intervals import Interval
    from tierline.evaluation.measures import Measures
    from tierline.evaluation.rows import Row

_WORST = 5


def assert_quality(
    classifier: Classifier | None,
    rows: str | os.PathLike[str],
    *,
    min_agreement: float | None = None,
    max_too_cheap: float | None = None,
    max_price: float | None = None,
    min_apgr: float | None = None,
    ladder: Ladder = DEFAULT_LADDER,
    sure: bool = False,
    texts: bool = False,
) -> None:
    """Fail where a classifier (None: the default one) is not good enough on rows of the app's own: `labels.jsonl`.

    - `min_agreement`: the least share of rows that get the right label
    - `max_too_cheap`: the largest share that goes to a lower tier than its label asks for
    - `max_price`: the most that a thousand such requests may cost, in dollars
    - `min_apgr`: the least APGR, of rows with grades on two tiers; 0.5 is chance
    - `sure`: hold the nearer end of the 95% interval to it, and not the figure: a stricter test, which few rows fail
    - `texts`: show the texts of the worst rows, and not only their ids

    Nobody is asked: it costs nothing. AssertionError with every figure that failed, its interval, and the worst rows.
    ConfigurationError where the file cannot be read, and where a bound has no rows to hold for.
    """
    costs = Costs(ladder, PriceBook(), OUTPUT_TOKENS)
    who = classifier or default_classifier()
    labelled, graded = Labelled(who, costs, worst=_WORST), Graded(who, costs)
    path = str(rows)
    with_label = with_grade = 0
    for row in read(path):
        if row.label is not None:
            labelled.add(row)
            with_label += 1
        if row.grades:
            graded.add(row)
            with_grade += 1
    measures = labelled.measures()
    price = measures.figure("price")
    apgr = _apgr(graded) if min_apgr is not None and with_grade else None
    checks = [
        _Check("agreement", min_agreement, measures.figure("agreement") if with_label else None, least=True),
        _Check("too cheap", max_too_cheap, measures.figure("too cheap: quality lost") if with_label else None),
        _Check("price", max_price, price.times(1 / NANO) if price is not None and with_label else None),
        _Check("APGR", min_apgr, apgr, least=True),
    ]
    asked = [check for check in checks if check.bound is not None]
    if not asked:
        raise ConfigurationError("assert_quality holds nothing to anything: write min_agreement=0.85, for one")
    failed = [told for check in asked if (told := check.told(path, sure=sure))]
    if failed:
        __tracebackhide__ = True  # pytest shows the call, and not this function
        raise AssertionError("\n".join([f"{who.name} on {path}, {with_label or with_grade} rows:", *failed,
                                        *_silent(measures), *_worst(measures, path if texts else None)]))  # fmt: skip


class _Check:
    """One bound, and what was found."""

    def __init__(self, name: str, bound: float | None, found: Interval | None, *, least: bool = False) -> None:
        self.name, self.bound, self.found, self.least = name, bound, found, least

    def told(self, path: str, *, sure: bool) -> str:
        """What failed, for a person; empty where nothing did."""
        if self.found is None or self.bound is None:
            rows = "rows with grades on two tiers" if self.name == "APGR" else "rows with labels"
            raise ConfigurationError(f"{path} has no {rows}, so nothing can be said of {self.name}")
        if self.least:
            held = self.found.low if sure else self.found.value
            return "" if held >= self.bound else f"  {self.name} is {self.found}, and must be at least {self.bound:g}"
        held = self.found.high if sure else self.found.value
        return "" if held <= self.bound else f"  {self.name} is {self.found}, and must be at most {self.bound:g}"


def _apgr(graded: Graded) -> Interval | None:
    return next((each.found for each in graded.measures().figures if each.name.startswith("APGR")), None)


def _silent(measures: Measures) -> list[str]:
    """On how many rows there was no opinion, which is no agreement."""
    rows = sum(count for (_, given), count in measures.confusion.items() if given is None)
    return [f"  on {rows} rows it has no opinion (Claude is not asked here)"] if rows else []


def _worst(measures: Measures, path: str | None) -> list[str]:
    """The ids of the worst rows, and their texts where those are asked for."""
    if not measures.wrong:
        return []
    found: dict[str, Row] = {}
    if path is not None:
        wanted = set(measures.wrong)
        found = {row.id: row for row in read(path) if row.id in wanted}
    texts = {ident: f": {(row.text or '')[:200]!r}" for ident, row in found.items()}
    return ["  worst rows:", *(f"    {ident}{texts.get(ident, '')}" for ident in measures.wrong)]
