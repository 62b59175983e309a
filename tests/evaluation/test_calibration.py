"""Whether probabilities mean what they say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.errors import ConfigurationError
from tierline.evaluation import expected_calibration_error, reliability

ROWS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30)


def test_a_case_by_hand() -> None:
    """Two bins: 0.9 was said where half came true, 0.1 where none did."""
    assert reliability([0.9, 0.9, 0.1], [1, 0, 0]) == [(1, 0.1, 0.0), (2, 0.9, 0.5)]
    assert expected_calibration_error([0.9, 0.9, 0.1], [1, 0, 0]) == pytest.approx((0.4 * 2 + 0.1) / 3)


@given(ROWS, st.integers(1, 20))
def test_it_is_from_0_to_1_and_1_is_in_the_last_bin(rows: list[tuple[float, float]], bins: int) -> None:
    """Whatever the rows; and saying what came true is no error."""
    said, true = [row[0] for row in rows], [row[1] for row in rows]
    assert 0 <= expected_calibration_error(said, true, bins=bins) <= 1
    assert expected_calibration_error(true, true, bins=bins) == pytest.approx(0, abs=1e-9)
    assert sum(each.rows for each in reliability(said, true, bins=bins)) == len(rows)


def test_an_honest_forecaster_is_near_zero() -> None:
    """Where things come true as often as was said, little is left."""
    rng = random.Random(5)  # noqa: S311
    said = [rng.random() for _ in range(20_000)]
    true = [float(rng.random() < chance) for chance in said]
    assert expected_calibration_error(said, true) < 0.015
    assert expected_calibration_error([chance**3 for chance in said], true) > 0.2


def test_weights_repeat_rows() -> None:
    """A row of weight two is two rows."""
    once = expected_calibration_error([0.2, 0.8], [0, 1], weights=[2, 1])
    assert once == pytest.approx(expected_calibration_error([0.2, 0.2, 0.8], [0, 0, 1]))


def test_what_cannot_be_is_named() -> None:
    """No rows, no bins, chances past 1."""
    with pytest.raises(ConfigurationError, match="no rows"):
        expected_calibration_error([], [])
    with pytest.raises(ConfigurationError, match="bins=0"):
        expected_calibration_error([1], [1], bins=0)
    with pytest.raises(ConfigurationError, match=r"chances: row 1 is 1\.5"):
        expected_calibration_error([1.5], [1])
