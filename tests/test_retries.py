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
from tierline.retries import BURST, KEPT, LONGEST_WAIT, MOST, SHARE, RetryBudget, usual_deadline, wait_before

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


def test_no_tenant_uses_up_what_all_have() -> None:
    """Who fails alone takes half of what is there, the next one half of the rest; who answers pays back."""
    budget = RetryBudget()
    budget.called("good")
    budget.called("bad")
    taken = sum(budget.take(tenant="bad") for _ in range(100))
    assert taken == BURST / 2
    assert [budget.take(tenant="good") for _ in range(2)] == [True, True]
    budget.give_back("good")
    budget.give_back("good")
    assert budget.take(tenant="good")
    for _ in range(10):  # what its own calls pay is its own
        budget.called("bad")
    assert [budget.take(tenant="bad") for _ in range(2)] == [True, False]


def test_who_is_alone_has_all_of_it() -> None:
    """Where all calls are of one tenant, or of none, nothing is kept for others; when they come, its debts count."""
    for name in (None, "only"):
        budget = RetryBudget()
        budget.called(name)
        assert sum(budget.take(tenant=name) for _ in range(100)) == BURST
        for _ in range(20):
            budget.called("another")
        assert not budget.take(tenant=name)
        assert budget.take(tenant="another")


@given(st.lists(st.sampled_from(["call", "take", "keep", "back"]), max_size=200), st.integers(0, 300))
def test_whatever_one_does_others_can_fall_back(steps: list[str], before: int) -> None:
    """There is always a token left for a tenant that owes nothing."""
    budget = RetryBudget()
    budget.called("good")
    for _ in range(before):
        budget.called("other")
    for step in steps:
        match step:
            case "call":
                budget.called("bad")
            case "back":
                if budget._debts.get("bad", 0) >= 1:
                    budget.give_back("bad")
            case _:
                budget.called("bad")
                budget.take(KEPT if step == "keep" else 0, "bad")
        assert budget.tokens >= BURST // 2 - 1e-9
    assert budget.take(tenant="good")


def test_names_are_forgotten() -> None:
    """Names that somebody makes up take no more room than is set aside."""
    budget = RetryBudget()
    for number in range(2_000):
        for _ in range(10):
            budget.called("another")
        assert budget.take(tenant=f"tenant {number}")
    assert len(budget._debts) == 1_000
    budget.give_back("tenant 1999")
    assert len(budget._debts) == 999


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
