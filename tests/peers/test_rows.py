"""What is measured has a bound in time."""

from __future__ import annotations

import pytest

from benchmarks.peers.rows import ROWS, SLOW, SLOW_AT_ONCE


def test_slow_columns_make_fewer_calls() -> None:
    """Never more than the row says, and none where a block would take too long."""
    row = ROWS[0]
    assert row.block(SLOW / 1_000) == row.calls
    assert row.block(SLOW / 4) == 4
    assert row.block(SLOW * 2) == 0


def test_calls_at_the_same_time_are_all_or_none() -> None:
    """Of fifty at a time there are fifty."""
    row = ROWS[1]
    assert row.concurrency == row.calls == 50
    assert row.block(SLOW_AT_ONCE / 50) == 50
    assert row.block(SLOW_AT_ONCE / 49) == 0


def test_the_rows_share_the_time_that_there_is() -> None:
    """All of it, and no more."""
    assert sum(row.share for row in ROWS) == pytest.approx(1)
