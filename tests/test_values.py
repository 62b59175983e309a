from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tierline.values import NANO, Offer, Refusal, Usage, usd

counts = st.integers(0, 10**9)
usages = st.builds(Usage, counts, counts, counts, counts, counts, counts)


@pytest.mark.parametrize(
    ("nano", "shown"),
    [
        (0, "$0.00"),
        (NANO, "$1.00"),
        (1_200_000_000, "$1.20"),
        (34_000, "$0.000034"),
        (1, "$0.000000001"),
        (-1_500_000_000, "-$1.50"),
        (1_234_567 * NANO, "$1,234,567.00"),
    ],
)
def test_usd(nano: int, shown: str) -> None:
    """Money is shown to the last nano-USD that is not 0, with at least two digits."""
    assert usd(nano) == shown


@given(st.integers(-(10**20), 10**20))
def test_usd_loses_nothing(nano: int) -> None:
    """What `usd` shows can be read back exactly."""
    match = re.fullmatch(r"(-?)\$([0-9,]+)\.(\d{2,9})", usd(nano))
    assert match is not None
    back = int(match[2].replace(",", "")) * NANO + int(match[3].ljust(9, "0"))
    assert (-back if match[1] else back) == nano


@given(usages, usages, usages)
def test_usage_adds(a: Usage, b: Usage, c: Usage) -> None:
    """Adding is the same in any order and grouping, nothing is lost, and no usage at all changes nothing."""
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + Usage() == a
    assert type(a + b) is Usage
    assert (a + b).prompt_tokens == a.prompt_tokens + b.prompt_tokens
    assert (a + b).output_tokens == a.output_tokens + b.output_tokens
    assert (a + b).web_searches == a.web_searches + b.web_searches


@given(usages)
def test_prompt_tokens(usage: Usage) -> None:
    """The prompt is what was fresh, written and read: never what was answered or searched."""
    parts = (usage.input_tokens, usage.cache_write_5m, usage.cache_write_1h, usage.cache_read)
    assert usage.prompt_tokens == sum(parts)
    assert Usage(*parts[:1], 7, *parts[1:], 9).prompt_tokens == sum(parts)


def test_refusal_says_what_is_left() -> None:
    """A refusal names the budget and every number, and when it renews."""
    text = str(Refusal("team", "acme", 2 * NANO, NANO, NANO // 2, NANO, renews_in=59.6))
    for part in ("'team'", "$0.50 left of $2.00", "spent $1.00", "held $0.50", "may cost $1.00", "renews in 60 s"):
        assert part in text
    assert "acme" not in text


def test_refusal_of_an_overdrawn_budget() -> None:
    """Less than nothing is never left."""
    text = str(Refusal("b", "a", NANO, 3 * NANO, 0, 1))
    assert "$0.00 left" in text
    assert "does not renew" in text


def test_refusal_without_a_bound() -> None:
    """Where the cost has no bound, the refusal says why and what to do, and no money."""
    text = str(Refusal("b", "a", NANO, 0, 0, None, unbounded="max_tokens is missing"))
    assert "max_tokens is missing" in text
    assert "hard=False" in text
    assert "$" not in text


def test_an_offer_is_bounded_by_default() -> None:
    """An offer that gives a cost needs no reason."""
    assert Offer("haiku", "m", 5).unbounded == ""
