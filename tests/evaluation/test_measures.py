"""All measures of rows in one pass."""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING, Any

import pytest

from tierline import Ladder
from tierline.classify import ClaudeClassifier, FixedClassifier, KeywordClassifier
from tierline.errors import ConfigurationError
from tierline.evaluation.measures import Costs, Graded, Labelled, Logged
from tierline.evaluation.opinions import Offline, need, opinion, view_of
from tierline.evaluation.rows import Row
from tierline.ladder import DEFAULT_LADDER
from tierline.prices import PriceBook
from tierline.values import Classification, Usage, View

if TYPE_CHECKING:
    from tierline.classify import Consult

COSTS = Costs(DEFAULT_LADDER, PriceBook())


class Doubtful:
    """A classifier that says how likely each label is, and waits where it is told to."""

    name, fingerprint, cacheable = "doubtful", "1", False

    def __init__(self, *, waits: bool = False) -> None:
        self.waits = waits

    def probabilities(self, text: str, tools: int = 0) -> dict[str, float]:
        hard = len(text) / 10
        return {"simple": 1 - hard, "moderate": 0.0, "complex": hard}

    async def classify(self, view: View, consult: Consult) -> Classification | None:
        if self.waits:
            import asyncio

            await asyncio.sleep(0)
        return Classification("complex" if len(view.text) > 5 else "simple", 0.7, "local")


def graded(number: int, text: str, **grades: float) -> Row:
    return Row(f"line {number}", str(number), text, grades=tuple(grades.items()))


def test_costs_go_by_the_tokens_of_a_row() -> None:
    """Those that it names, or as many as its text is long; a ladder without prices is refused."""
    assert COSTS.of_row(Row("x", "1", "x", usage=Usage(1000, 100))) == [150_000, 3_000_000, 6_000_000]
    assert COSTS.of_row(Row("x", "1", "x" * 36)) == COSTS.of(Usage(10, 300))
    with pytest.raises(ConfigurationError, match="has no price"):
        Costs(Ladder.of(a="mystery"), PriceBook())


def test_labels() -> None:
    """The worst errors are the surest that went too cheap."""
    rows = Labelled(Doubtful(), COSTS)
    for number, (text, label) in enumerate([("easy", "simple"), ("easy", "complex"), ("long text", "simple")]):
        rows.add(Row(f"line {number}", f"r{number}", text, label=label))
    found = rows.measures()
    assert found.rows == 3
    assert found.wrong == ("r1", "r2")
    assert found.by_tier == {"haiku": 2, "sonnet": 0, "opus": 1}
    agreement = found.figure("agreement")
    assert agreement is not None
    assert agreement.value == pytest.approx(1 / 3)
    assert found.figure("nothing of that name") is None


def test_who_would_ask_claude() -> None:
    """Nobody is asked, and the reader is told."""
    rows = Labelled(ClaudeClassifier(), COSTS)
    rows.add(Row("x", "1", "hello there", label="simple"))
    assert "1 rows would be Claude's to judge" in rows.measures().warnings[-1]


def test_needs() -> None:
    """By probabilities where there are some, else by the label and how sure it is; in the middle without an opinion."""
    assert need(Doubtful(), view_of("x" * 8), None) == pytest.approx(0.8)
    fixed: Any = FixedClassifier("complex")
    assert need(fixed, view_of("x"), Classification("complex", 0.8, "fixed")) == pytest.approx(0.9)
    assert need(fixed, view_of("x"), Classification("simple", 0.6, "fixed")) == pytest.approx(0.2)
    assert need(fixed, view_of("x"), None) == 0.5


def test_one_who_waits_is_refused() -> None:
    """With a word on what can be measured."""
    with pytest.raises(ConfigurationError, match="answers at once"):
        opinion(Doubtful(waits=True), view_of("x"), Offline())


def test_outcomes_of_one_request_are_put_together() -> None:
    """Whatever the order of the rows; requests with one grade count for their tier alone."""
    rows = Graded(Doubtful(), COSTS)
    for number in range(30):
        hard = number % 2
        rows.add(graded(number, "long text" if hard else "easy", opus=1))
        rows.add(graded(number, "", haiku=1 - hard))
    rows.add(graded(99, "alone", sonnet=0.5))
    found = rows.measures()
    assert rows.pair == ("haiku", "opus")
    assert found.rows == 31
    assert found.by_tier == {"haiku": 30, "sonnet": 1, "opus": 30}
    apgr, cost = found.figure("APGR by text (doubtful)"), found.figure("cost at 95% by text (doubtful)")
    assert apgr is not None
    assert cost is not None
    assert apgr.value == pytest.approx(0.75)
    assert 0 < cost.value < 0.6
    assert any("only 30 requests" in warning for warning in found.warnings)


def test_worse_than_random_is_said() -> None:
    """One who sends the easy ones up is no router."""
    rows = Graded(Doubtful(), COSTS)
    for number in range(250):
        hard = number % 2
        rows.add(graded(number, "easy" if hard else "long text", haiku=1 - hard, opus=1))
    (warning,) = rows.measures().warnings
    assert "worse than random (0.250" in warning
    assert "no accident" in warning


def test_where_there_is_nothing_to_recover() -> None:
    """The dear tier is no better: no APGR, and what to do."""
    rows = Graded(KeywordClassifier(), COSTS)
    for number in range(5):
        rows.add(graded(number, "x", haiku=1, opus=1))
    found = rows.measures()
    assert found.figure("APGR by text (keyword)") is None
    assert any("take the weak one" in warning for warning in found.warnings)


def test_decisions() -> None:
    """What was spent, with its interval, and a tier that the other ladder does not have."""
    rows = Logged(Costs(Ladder.of(haiku="claude-haiku-4-5"), PriceBook()))
    record = {"tier": "haiku", "requested_tier": "sonnet", "label": "moderate", "confidence": 0.0, "source": "default",
              "outcome": "ok", "cost": 500, "saved": 100}  # fmt: skip
    for cost in (400, 600):
        rows.add(Row("line 1", "1", None, usage=Usage(10, 10), record=record | {"cost": cost}))
    found = rows.measures()
    price = found.figure("price")
    assert price is not None
    assert price.value == 500_000
    assert isfinite(price.low)
    values = {each.name: each.found.value for each in found.figures}
    assert (values["abstentions"], values["another tier than requested"]) == (1, 1)
    with pytest.raises(ConfigurationError, match="line 3: tier 'opus' is not on the other ladder"):
        rows.add(Row("line 3", "3", None, usage=Usage(1, 1), record=record | {"tier": "opus"}))
