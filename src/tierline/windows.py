"""Windows: which stretch of time a limit is for, and when it renews.

    Window   what a budget says: a day in Berlin, the last 24 hours, all time
    Span     one stretch of it, to which charges are booked

One rule holds for every kind of window: *what an account has used is the sum of its spans that have not ended*. A day
is one span, which ends at midnight. A rolling window is many short ones, each of which goes on counting for the whole
length of the window after the last moment at which it was charged.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from math import floor, inf
from typing import Final, Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo

from tierline.errors import ConfigurationError

Unit = Literal["minute", "hour", "day", "month", "rolling", "run", "total"]

STEPS: Final = 60
"""In how many steps a rolling window moves on: what is charged counts for at most one step longer than the window."""
LONGEST_ROLLING: Final = 366 * 86_400
"""Seconds of the longest rolling window."""
UTC_NAME: Final = "UTC"
RUN_KEPT: Final = 7 * 86_400
"""Seconds for which a charge to a run counts: the account of one that is not charged any more is then dropped."""

_SECONDS: Final = {"minute": 60, "hour": 3_600}
_LETTERS: Final = {"m": 60, "h": 3_600, "d": 86_400}
_ROLLING: Final = re.compile(r"(?P<number>[0-9]{1,6})(?P<letter>[mhd])\s+rolling")


class Span(NamedTuple):
    """One stretch of a window: charges of `start <= t < until` are booked to it, and count until `end`.

    In seconds since the epoch. Within one window, spans are told apart by `start`. For a calendar window `end` is
    `until`; `inf` is never.
    """

    start: float
    until: float
    end: float


@dataclass(frozen=True, slots=True)
class Window:
    """A unit of the calendar in a time zone, the last `seconds` (rolling), all time (total), or as long as a run lasts.

    A run has no end that anybody tells: what was charged counts for `seconds`, and waiting for that is of no use.

    `series` names the window in stores: balances of windows that differ in it are never added up.
    """

    unit: Unit
    timezone: str = UTC_NAME
    seconds: int = 0
    series: str = field(init=False, repr=False, compare=False)
    _last: Span = field(default=Span(inf, -inf, -inf), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        series: str = self.unit
        if self.unit == "rolling":
            series = f"rolling {self.seconds}"
        elif self.unit == "run":
            series = "rolling run"  # stores tell by the first word that several spans count
        elif self.unit != "total" and self.timezone != UTC_NAME:
            series = f"{self.unit} {self.timezone}"
        object.__setattr__(self, "series", series)

    def __str__(self) -> str:
        """As it is written after the amount: `/day`, `/24h rolling`; nothing for a total."""
        if not self.renews:
            return ""
        if self.unit != "rolling":
            return f"/{self.unit}"
        letters = "dhm" if self.seconds > 2 * _LETTERS["d"] else "hm"
        letter = next(letter for letter in letters if self.seconds % _LETTERS[letter] == 0)
        return f"/{self.seconds // _LETTERS[letter]}{letter} rolling"

    @property
    def rolls(self) -> bool:
        """Whether several spans count at a time."""
        return self.unit in ("rolling", "run")

    @property
    def renews(self) -> bool:
        """Whether what is spent stops counting while somebody may wait for it."""
        return self.unit not in ("run", "total")

    def span(self, now: float) -> Span:
        """The span that a charge at `now` (seconds since the epoch) is booked to."""
        span = self._last
        if span.start <= now < span.until:
            return span
        span = self._span(now)
        # A memo, for a clock asks for the same span again and again. One assignment: safe across threads.
        object.__setattr__(self, "_last", span)
        return span

    def _span(self, now: float) -> Span:
        if self.unit == "total":
            return Span(0, inf, inf)
        if self.rolls:
            step = -(-self.seconds // STEPS)
            start = floor(now) - floor(now) % step
            return Span(start, start + step, start + step + self.seconds)
        moment = floor(now)  # spans begin with a second, and a datetime would round up to the next
        if self.unit in _SECONDS:
            return _clock_hands(_SECONDS[self.unit], moment, self.timezone)
        return _dates(self.unit, moment, self.timezone)


def parse_window(text: str, timezone: str) -> Window:
    """The window in "day" or "24h rolling". ConfigurationError for all else."""
    rolling = _ROLLING.fullmatch(text)
    if rolling is not None:
        seconds = int(rolling["number"]) * _LETTERS[rolling["letter"]]
        if not 0 < seconds <= LONGEST_ROLLING:
            raise ConfigurationError(f"{text!r:.40}: a rolling window is at least 1m and at most 366d")
        return Window("rolling", seconds=seconds)
    for known in get_args(Unit):
        if text == known not in ("rolling", "run", "total"):
            return Window(known, timezone)
    raise ConfigurationError(
        f'{text!r:.40} is not minute, hour, day or month; write for example "$5/day", "$5/24h rolling", '
        'or "$5" for a total'
    )


def check_timezone(name: object) -> None:
    """ConfigurationError where this machine knows no such time zone."""
    if name == UTC_NAME:  # known where a system brings no time zones
        return
    try:
        _zone(name if isinstance(name, str) else "")
    except (KeyError, ValueError, OSError):
        raise ConfigurationError(
            f'{name!r:.80} is no time zone of this machine; write for example "Europe/Berlin". Where the system '
            "brings no time zones, install the package tzdata"
        ) from None


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _offset(moment: int, timezone: str) -> int:
    """Seconds east of UTC."""
    if timezone == UTC_NAME:
        return 0
    offset = datetime.fromtimestamp(moment, _zone(timezone)).utcoffset()
    return int(offset.total_seconds()) if offset is not None else 0


def _clock_hands(length: int, moment: int, timezone: str) -> Span:
    """The hour or minute of `length` seconds that `moment` is in, as clocks of the time zone show it.

    POSIX time has no leap seconds: lengths are exact. Not every zone is whole hours from UTC, though, and where clocks
    are moved by half an hour (Lord Howe), the hour in which that is done ends with it.
    """
    shift = _offset(moment, timezone) % length
    start = moment - (moment + shift) % length
    until = start + length
    if timezone != UTC_NAME:
        if _offset(start, timezone) % length != shift:
            start = _changed(start, moment, length, timezone)
        if _offset(until, timezone) % length != shift:
            until = _changed(moment, until, length, timezone)
    return Span(start, until, until)


def _changed(before: int, after: int, length: int, timezone: str) -> int:
    """When between these two the clocks were moved."""
    shift = _offset(before, timezone) % length
    while after - before > 1:
        middle = (before + after) // 2
        if _offset(middle, timezone) % length == shift:
            before = middle
        else:
            after = middle
    return after


def _dates(unit: Unit, moment: int, timezone: str) -> Span:
    """The day or the month that `moment` is in, from midnight to midnight.

    Where clocks are put back over midnight there are two of them: the first one counts, and the hour that the clock
    reads twice belongs to the day that has begun. Where midnight is skipped, the day begins when the clock moves on.
    """
    zone = UTC if timezone == UTC_NAME else _zone(timezone)
    day = datetime.fromtimestamp(moment, zone).date()
    first = day if unit == "day" else day.replace(day=1)
    while True:
        following = _following(unit, first)
        end = _midnight(following, zone)
        if moment < end:
            return Span(_midnight(first, zone), end, end)
        first = following


def _following(unit: Unit, first: date) -> date:
    if unit == "day":
        return first + timedelta(days=1)
    return (first + timedelta(days=31)).replace(day=1)


def _midnight(day: date, zone: tzinfo) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=zone).timestamp()
