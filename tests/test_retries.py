"""The budget of retries, waits and deadlines."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline import Router
from tierline.attempts import Reply, Timing
from tierline.errors import ConfigurationError
from tierline.retries import BURST, LONGEST_WAIT, MOST, SHARE, RetryBudget, usual_deadline, wait_before

TIMING = Timing(jitter=lambda: 1.0)


@given(st.lists(st.integers(0, 5), max_size=300))
def test_an_outage_is_not_multiplied(wanted: list[int]) -> None:
    """Where nothing succeeds, further attempts are at most a tenth of the calls, and the burst."""
    budget = RetryBudget()
    made = 0
    for more in wanted:
        budget.called()
        made += sum(budget.take() for _ in range(more))
    assert made <= SHARE * len(wanted) + BURST + 1e-6


def test_ten_calls_pay_for_one() -> None:
    """Exactly: no rounding takes it away."""
    budget = RetryBudget(0)
    for _ in range(50):
        for _ in range(10):
            assert not budget.take()
            budget.called()
        assert budget.take()


def test_what_succeeds_is_free() -> None:
    """A further attempt that brings an answer gives its token back."""
    budget = RetryBudget(1)
    for _ in range(100):
        assert budget.take()
        budget.give_back()
    assert budget.take()
    assert not budget.take()


def test_some_are_kept() -> None:
    """Retries leave those for fallbacks."""
    budget = RetryBudget(7)
    assert [budget.take(5) for _ in range(3)] == [True, True, False]
    assert [budget.take() for _ in range(6)] == [True] * 5 + [False]


def test_it_is_bounded() -> None:
    """A process of many good calls has so many in advance, and no more."""
    budget = RetryBudget()
    for _ in range(100 * MOST):
        budget.called()
    budget.give_back()
    assert budget.tokens == MOST


@pytest.mark.parametrize(
    ("after", "left", "wait"),
    [
        (None, math.inf, 0.5),
        (7.0, math.inf, 7.0),
        (LONGEST_WAIT, math.inf, LONGEST_WAIT),
        (LONGEST_WAIT + 0.1, math.inf, None),
        (math.inf, math.inf, None),
        (math.nan, math.inf, None),
        (7.0, 7.0, None),
        (7.0, 7.5, 7.0),
        (None, 0.5, None),
        (None, math.nan, None),
        (None, -1.0, None),
    ],
)
def test_waits(after: float | None, left: float, wait: float | None) -> None:
    """The API's word first, up to a minute; and nothing that would pass the deadline."""
    reply = Reply(error="overloaded_error", retry=True, retry_after=after)
    assert wait_before(reply, 1, 2, TIMING, left) == wait


def test_no_more_than_the_app_allows() -> None:
    """`max_retries` is the bound, and what is futile has none."""
    reply = Reply(error="x", retry=True)
    assert wait_before(reply, 3, 2, TIMING) is None
    assert wait_before(Reply(error="x"), 1, 2, TIMING) is None


def test_usual_deadline() -> None:
    """All attempts that the SDK's timeout allows, and the waits between them."""
    assert usual_deadline(600, 2) == 600 + 2 * 608
    assert usual_deadline(math.inf, 0) == usual_deadline(math.inf, 2) == math.inf
    assert usual_deadline(1, math.inf) == math.inf  # type: ignore[arg-type]  (the SDK allows it)


@pytest.mark.parametrize("wrong", [0, -1, math.nan, "5", True])
def test_a_deadline_that_cannot_work(wrong: Any) -> None:
    """Seconds above zero, or a ConfigurationError that says so."""
    with pytest.raises(ConfigurationError, match="seconds for a whole call"):
        Router(deadline=wrong)
