"""Rate limits and waits, as the API's headers tell of them."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LONGEST: Final = 3600.0
"""Most seconds that a limit is remembered."""
_PREFIX: Final = "anthropic-ratelimit-"
_REMAINING: Final = b"-remaining"
_VALUE: Final = itemgetter(1)


def none_left(raw: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the headers of an answer may say that nothing is left: so cheap that it is asked of each."""
    if b"0" not in map(_VALUE, raw):
        return False
    return any(value == b"0" and name.lower().endswith(_REMAINING) for name, value in raw)


def exhausted_for(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until everything renews of which the API says that nothing remains; None where something does.

    `now` is in seconds since the epoch, for an answer without a `date`. Raises nothing for what cannot be read.
    """
    try:
        date = headers.get("date")
        now = parsedate_to_datetime(date).timestamp() if date else now
    except (ValueError, TypeError, OverflowError):
        return None
    waits = []
    for name, value in headers.items():
        if value == "0" and name.startswith(_PREFIX) and name.endswith("-remaining"):
            reset = headers.get(f"{name.removesuffix('-remaining')}-reset")
            try:
                then = datetime.fromisoformat(reset or "")
                waits.append((then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp() - now)
            except (ValueError, OverflowError):
                continue
    longest = max(waits, default=0.0)
    return min(longest, LONGEST) if longest > 0 else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the API asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date.

    None where it asks for nothing, or for what is no wait: less than 0, no date, no number.
    """
    if (wait := _number(headers.get("retry-after-ms"))) is not None:
        return wait / 1000
    value = headers.get("retry-after")
    if value is None or (wait := _number(value)) is not None:
        return wait
    try:
        then = parsedate_to_datetime(value)
        now = parsedate_to_datetime(headers["date"]) if "date" in headers else then.now(then.tzinfo)
        return max(0.0, (then - now).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    """A number that is at least 0; one of very many digits is infinite, and the words for that are no numbers."""
    if not text or text[0] not in "0123456789.":
        return None
    try:
        return float(text)
    except ValueError:
        return None
