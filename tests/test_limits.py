"""Rate limits as headers tell of them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from tierline.limits import LONGEST, exhausted_for, none_left, retry_after

NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)


def headers(date: str | None = None, **remaining: tuple[str, str]) -> httpx2.Headers:
    found = {} if date is None else {"Date": date}
    for name, (left, reset) in remaining.items():
        prefix = f"Anthropic-RateLimit-{name.replace('_', '-')}"
        found |= {f"{prefix}-Limit": "100", f"{prefix}-Remaining": left, f"{prefix}-Reset": reset}
    return httpx2.Headers(found)


def at(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (headers(requests=("0", at(7))), 7.0),
        (headers(requests=("0", at(7)), input_tokens=("0", at(30)), tokens=("5", at(50))), 30.0),
        (headers(requests=("3", at(7))), None),
        (headers(requests=("0", at(-1))), None),
        (headers(requests=("0", at(10 * LONGEST))), LONGEST),
        (headers(requests=("0", "soon")), None),
        (headers(requests=("0", "")), None),
        (headers(requests=("0", "2026-11-21T12:00:07")), 7.0),
        (headers(requests=("0", "2026-11-21T13:00:07+01:00")), 7.0),
        # The API's own clock counts, where it says what time it is.
        (headers("Sat, 21 Nov 2026 11:59:50 GMT", requests=("0", at(7))), 17.0),
        (headers("yesterday", requests=("0", at(7))), None),
        (httpx2.Headers({"x-remaining": "0", "x-reset": at(7)}), None),
        (httpx2.Headers(), None),
    ],
)
def test_exhausted_for(given: httpx2.Headers, seconds: float | None) -> None:
    """The last of those limits of which nothing remains, and nothing for what cannot be read."""
    assert exhausted_for(given, NOW.timestamp()) == seconds


def test_none_left() -> None:
    """The cheap look first: it finds what may matter, in any spelling."""
    assert none_left(headers(requests=("0", at(7))).raw)
    assert not none_left(headers(requests=("10", at(7))).raw)
    assert not none_left(httpx2.Headers({"content-length": "0"}).raw)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7.0), ("2.5", 2.5), ("0", 0.0), ("1e9", 1e9), ("9" * 400, math.inf), ("inf", None), ("-inf", None),
        ("Infinity", None), ("nan", None), ("-1", None), ("-1e9", None), ("+3", None), ("1\u00b2", None), ("", None),
        ("soon", None),
    ],
)  # fmt: skip
def test_both_spellings_of_a_wait_are_read_alike(text: str, number: float | None) -> None:
    """What is a number of seconds is one of milliseconds, and what is none in one is none in the other."""
    raw = [(b"retry-after", text.encode())]
    assert retry_after(httpx2.Headers(raw)) == number
    raw = [(b"retry-after-ms", text.encode())]
    assert retry_after(httpx2.Headers(raw)) == (None if number is None else number / 1000)
    # What cannot be read hides nothing that can.
    raw.append((b"retry-after", b"3"))
    assert retry_after(httpx2.Headers(raw)) == (3.0 if number is None else number / 1000)


@pytest.mark.parametrize(
    ("then", "date", "seconds"),
    [(9, 0, 9.0), (0, 9, 0.0), (7200, 0, 7200.0)],
)
def test_a_wait_until_a_date(then: float, date: float, seconds: float) -> None:
    """By the API's own clock; one that has passed is no wait."""
    told = {"retry-after": format_datetime(NOW + timedelta(seconds=then), usegmt=True)}
    told["date"] = format_datetime(NOW + timedelta(seconds=date), usegmt=True)
    assert retry_after(httpx2.Headers(told)) == seconds
