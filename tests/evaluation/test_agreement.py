"""Labels against labels, and what their errors cost."""

from __future__ import annotations

from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline import Ladder
from tierline.errors import ConfigurationError
from tierline.evaluation import agreement, priced
from tierline.values import LABELS

LADDER = Ladder.of(haiku="claude-haiku-5-5", sonnet="claude-sonnet-5-5", opus="claude-opus-5-5")
PRICES = (1, 10, 30)
PAIRS = st.lists(st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None])), max_size=60)


def test_a_case_by_hand() -> None:
    """One right, one too cheap by two rungs, one too dear, and one without an opinion."""
    found = agreement([("simple", "simple"), ("complex", "simple"), ("simple", "moderate"), ("complex", None)])
    assert (found.rows, found.agreed, found.abstained) == (4, 1, 1)
    assert found.share.value == 0.25
    assert found.of_answered.value == pytest.approx(1 / 3)
    errors = priced(found, LADDER, PRICES)
    assert (errors.rows, errors.too_cheap, errors.rungs_lost, errors.too_dear) == (4, 2, 3, 1)
    assert (errors.total("not_spent"), errors.total("wasted")) == (29 + 20, 9)
    assert errors.total("cost") == 1 + 1 + 10 + 10
    assert (errors.total("cost_right"), errors.total("cost_top")) == (1 + 30 + 1 + 30, 120)
    assert errors.per_thousand().value == 5_500
    assert errors.per_thousand().low == pytest.approx(5_500 - 1_960 * (27 / 4) ** 0.5, rel=1e-3)
    assert (errors.lost_share.value, errors.wasted_share.value) == (0.5, 0.25)


@given(PAIRS)
def test_the_books_balance(pairs: list[tuple[str, str | None]]) -> None:
    """What was paid is what is right, more what was wasted, less what was not spent."""
    found = agreement(pairs)
    errors = priced(found, LADDER, PRICES)
    assert errors.total("cost") == errors.total("cost_right") + errors.total("wasted") - errors.total("not_spent")
    assert errors.rows == found.rows == len(pairs)
    assert found.agreed <= found.rows - found.abstained
    assert errors.too_cheap + errors.too_dear <= errors.rows - found.agreed
    assert errors.total("cost") <= errors.total("cost_top")


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(pairs: list[tuple[str, str | None]], random: object) -> None:
    """Shuffled rows agree as often."""
    shuffled = list(pairs)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert agreement(iter(shuffled)) == agreement(pairs)


def test_what_a_reader_is_warned_of() -> None:
    """Few rows and low agreement, each with what to do; neither where there is no reason."""
    assert agreement([("simple", "simple")] * 200).warnings == ()
    (few,) = agreement([("simple", "simple")] * 199).warnings
    assert "only 199 rows" in few
    (low,) = agreement([("simple", "simple")] * 79 * 2 + [("simple", None)] * 42).warnings
    assert "agreement is 79%, under 80%" in low
    nothing = agreement([])
    assert isnan(nothing.share.value)
    assert len(nothing.warnings) == 1


def test_what_cannot_be_is_named() -> None:
    """A label nobody knows, a row without one, a tier without a price."""
    for pair in (("easy", "simple"), ("simple", "easy"), (None, "simple")):
        with pytest.raises(ConfigurationError, match="the labels are simple, moderate, complex"):
            agreement([pair])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match="2 costs for 3 tiers"):
        priced(agreement([]), LADDER, (1, 2))


def test_ladders_say_what_labels_mean() -> None:
    """On a ladder of two tiers, moderate and complex are the same tier: nothing is lost between them."""
    two = Ladder.of(haiku="claude-haiku-5-5", opus="claude-opus-5-5")
    errors = priced(agreement([("complex", "moderate"), ("simple", None)]), two, (1, 30))
    assert (errors.too_cheap, errors.too_dear) == (0, 1)
