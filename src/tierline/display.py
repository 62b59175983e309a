"""Tables, money, moments and durations as people read them, and strings as exporters take them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_FEW_SECONDS: Final = 10


def table(rows: Iterable[Sequence[str]], *, right: Collection[int] = (), indent: str = "") -> list[str]:
    """Lines with the cells of `rows` in columns two spaces apart; those in `right`, counted from 0, end alike."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        indent
        + "  ".join(
            cell.rjust(width) if place in right else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def money(amounts: Iterable[int]) -> list[str]:
    """Amounts (nano-USD) as dollars, all with as many decimals as the longest of them needs."""
    texts = [usd(amount) for amount in amounts]
    longest = max((len(text) - text.index(".") for text in texts), default=0)
    return [text.ljust(text.index(".") + longest, "0") for text in texts]


def moment(at: float) -> str:
    """Seconds since the epoch as `2026-11-21 15:24:37 UTC`."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """Seconds in the two largest units that say something: `3 h 12 min`, `0.4 s`."""
    seconds = max(0.0, seconds)
    if seconds < _FEW_SECONDS:
        return f"{seconds:.1f} s"
    left = round(seconds)
    parts: list[tuple[int, str]] = []
    for length, unit in _UNITS:
        number, left = divmod(left, length)
        if number or parts:
            parts.append((number, unit))
    return " ".join(f"{number} {unit}" for number, unit in parts[:2] if number)


MOST_CHARS: Final = 200
"""Most characters of a string attribute."""


def bounded(text: str) -> str:
    """A string that every exporter can carry: no lone surrogates, no more than `MOST_CHARS`."""
    text = text[:MOST_CHARS]
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
