"""What counts as a number that an app wrote."""

from __future__ import annotations

import pytest

from tierline.numeric import is_number, is_whole


@pytest.mark.parametrize(("value", "good"), [
    (0, True), (1, True), (0.5, True), (1.0000001, False), (-0.1, False), (True, False), (False, False),
    ("1", False), (None, False), (float("nan"), False), (float("inf"), False), (1j, False),
])  # fmt: skip
def test_a_number_from_0_to_1(value, good):
    """Both ends count; a truth value, a text and NaN are no numbers."""
    assert is_number(value, 0, 1) is good


@pytest.mark.parametrize(("value", "good"), [
    (1, True), (3, True), (4, False), (0, False), (1.0, False), (True, False), ("2", False), (None, False),
])  # fmt: skip
def test_a_whole_number_from_1_to_3(value, good):
    """What has a fraction, though it be 0, is none."""
    assert is_whole(value, 1, 3) is good


def test_a_whole_number_without_end():
    """Where no end is said, there is none."""
    assert is_whole(10**30, 1)
    assert not is_whole(0, 1)
