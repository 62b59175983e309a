"""Rate limits as headers tell of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from tierline.limits import LONGEST, exhausted_for, none_left

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
