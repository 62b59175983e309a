"""Ratios are of pairs, and their intervals repeat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.pairs import median_of, ratio

SAMPLES = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=30)


@given(SAMPLES)
def test_a_median_lies_in_its_interval(samples: list[float]) -> None:
    """And both are within what was measured; the same samples have the same interval."""
    found = median_of(samples)
    assert min(samples) <= found.low <= found.value <= found.high <= max(samples)
    assert median_of(samples) == found


@given(SAMPLES, st.floats(0.5, 4))
def test_what_slows_a_round_down_slows_both(samples: list[float], factor: float) -> None:
    """A column that always takes so many times its base has that ratio, however the rounds differ."""
    found = ratio([each * factor for each in samples], samples)
    assert found == pytest.approx((factor, factor, factor))


def test_columns_of_other_rounds_are_no_pairs() -> None:
    """Two columns of unequal lengths are refused, and not cut."""
    with pytest.raises(ValueError, match="longer"):
        ratio([1.0], [1.0, 2.0])
