"""Rate limits, as the API's headers tell of them."""

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
