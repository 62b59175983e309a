"""Burn and forecast: what a balance says of where it is going."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tierline.budgets import Budget, parse_limit
from tierline.dashboard.forecast import Forecast, forecast, window_of
from tierline.ledger import Balance, MemoryLedger
from tierline.ledger.base import Reservation
from tierline.values import NANO, Offer
from tierline.windows import Window

NOON = 1_795_262_400.0
"""12:00 UTC of a day in November 2026."""
MIDNIGHT = NOON + 43_200


def day(spent: int, held: int = 0, limit: int = 100 * NANO) -> Balance:
    return Balance("b", "a", spent, held, limit, MIDNIGHT, window="day")


def test_a_day_that_is_half_over() -> None:
    """$12 by noon are $1 an hour, and $24 by midnight."""
    assert forecast(day(12 * NANO), NOON) == Forecast(NANO, 24 * NANO, None)


def test_when_it_runs_out() -> None:
    """What is left, held money not included, at the rate of until now; now, where nothing is left."""
    assert forecast(day(12 * NANO, limit=15 * NANO), NOON).runs_out_at == NOON + 3 * 3_600
    assert forecast(day(12 * NANO, held=NANO, limit=15 * NANO), NOON).runs_out_at == NOON + 2 * 3_600
    assert forecast(day(12 * NANO, held=3 * NANO, limit=15 * NANO), NOON).runs_out_at == NOON
    assert forecast(day(20 * NANO, limit=15 * NANO), NOON).runs_out_at == NOON
    assert forecast(day(0), NOON) == Forecast(0, 0, None)


def test_the_first_moments_say_little() -> None:
    """A cent in the first second of a day is a cent in 24 minutes."""
    assert forecast(day(NANO // 100), MIDNIGHT - 86_400 + 1).burn == NANO // 100 * 60 // 24


def test_a_day_begins_where_the_budget_says() -> None:
    """In Berlin it is one o'clock at noon of UTC, and thirteen hours have passed."""
    ends = MIDNIGHT - 3_600
    found = forecast(Balance("b", "a", 13 * NANO, 0, 100 * NANO, ends, window="day Europe/Berlin"), NOON)
    assert found == Forecast(NANO, 24 * NANO, None)


def test_a_rolling_window_that_has_just_begun() -> None:
    """It is spent since its oldest charge, and lets go of nothing before that is as old as the window."""
    window = Window("rolling", seconds=86_400)
    span = window.span(NOON - 2 * 3_600)
    balance = Balance("b", "a", 2 * NANO, 0, 100 * NANO, span.end, window=window.series)
    found = forecast(balance, NOON)
    passed = NOON - span.start
    assert found.burn == 2 * NANO * 3_600_000 // int(passed * 1_000)
    assert found.end == pytest.approx(2 * NANO * (1 + (span.end - NOON) / passed), rel=1e-9)


@pytest.mark.parametrize("series", ["total", "rolling run", "fortnight"])
def test_what_has_no_beginning(series: str) -> None:
    """Of a total it is known how fast it is spent only where somebody says so; it is never over."""
    balance = Balance("b", "a", 5 * NANO, 0, 10 * NANO, None, window=series)
    assert forecast(balance, NOON) == Forecast()
    assert forecast(balance, NOON, NANO) == Forecast(NANO, None, NOON + 5 * 3_600)


def test_a_time_zone_of_another_machine() -> None:
    """What was written by one with more time zones is shown without a forecast."""
    assert forecast(Balance("b", "a", 5, 0, 10, MIDNIGHT, window="day Moon/Crater"), NOON) == Forecast()


@pytest.mark.parametrize("text", ["$5/minute", "$5/hour", "$5/day", "$5/month", "$5/24h rolling", "$5"])
@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin"])
def test_every_window_is_known_by_the_name_that_stores_have(text: str, zone: str) -> None:
    """What a limit is written for is read back from its balances."""
    window = parse_limit(text, zone).window
    assert window_of(window.series) == window


LIMITS: Any = st.sampled_from(["$5/minute", "$5/hour", "$5/day", "$5/month", "$5/24h rolling", "$5/30d rolling"])


@given(
    limit=LIMITS,
    zone=st.sampled_from(["UTC", "America/St_Johns", "Australia/Lord_Howe"]),
    now=st.floats(1_700_000_000, 1_900_000_000),
    earlier=st.floats(0, 3_000_000),
    cost=st.integers(0, 10**19),
    more=st.integers(0, 10**19),
)
async def test_forecasts_of_real_ledgers(
    limit: str, zone: str, now: float, earlier: float, cost: int, more: int
) -> None:
    """No less than what is spent, no float in the money, nothing in the past; who spends more is no better off."""
    clock = now - earlier
    ledger = MemoryLedger(clock=lambda: clock)
    line = Budget(limit, timezone=zone, hard=False).line("global")
    held = await ledger.reserve("1", [Offer("t", "m", 0)], [line])
    assert isinstance(held, Reservation)
    await ledger.settle(held, cost)
    clock = now
    found = await ledger.balances()
    assume(found)
    (balance,) = found
    ahead, dearer = forecast(balance, now), forecast(replace(balance, spent=cost + more), now)
    assert type(ahead.burn) is int
    assert type(ahead.end) is int
    assert balance.renews_at is not None
    assert ahead.end >= balance.spent
    assert ahead.runs_out_at is None or now <= ahead.runs_out_at <= balance.renews_at
    assert dearer.burn is not None
    assert dearer.burn >= ahead.burn
    assert dearer.end is not None
    assert dearer.end >= ahead.end
    if ahead.runs_out_at is not None:
        assert dearer.runs_out_at is not None
        assert dearer.runs_out_at <= ahead.runs_out_at
    if ahead.end < balance.limit:
        assert ahead.runs_out_at is None
    assert forecast(balance, balance.renews_at).end == balance.spent
