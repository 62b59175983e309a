"""How the queue of deferred requests fills batches, and how long it may wait for them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from math import inf
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from tierline.errors import ConfigurationError
from tierline.numeric import is_whole
from tierline.windows import UTC_NAME, check_timezone

MOST_TOGETHER: Final = 10_000
"""Requests that the queue puts into one job at most."""
LONGEST_WITHIN: Final = 29 * 86_400.0
"""Seconds that a request may be deferred: for so long the API keeps results."""
_TOO_SHORT: Final = 300.0
"""Seconds in which no batch is begun: it would hardly be back in time, and be paid in vain."""
_ROOM: Final = 3600.0
"""Seconds that a batch is given to come back where there is a choice: most of them end within an hour."""
_LETTERS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_LENGTH: Final = re.compile(r"\s*(?P<number>[0-9]{1,9}(?:\.[0-9]{1,3})?)\s*(?P<letter>[smhd])\s*")
_HOURS: Final = re.compile(r"(?P<h1>[0-9]{2}):(?P<m1>[0-9]{2})-(?P<h2>[0-9]{2}):(?P<m2>[0-9]{2})")


def seconds_of(where: str, length: object, most: float = inf) -> float:
    """Seconds in "30s", "15m", "24h", "7d" or a timedelta: above 0. ConfigurationError, beginning with `where`."""
    found = None
    if isinstance(length, timedelta):
        found = length.total_seconds()
    elif isinstance(length, str) and (match := _LENGTH.fullmatch(length)) is not None:
        found = float(match["number"]) * _LETTERS[match["letter"]]
    if found is None or not 0 < found <= most:
        bound = f" of at most {most / 86_400:g} days" if most < inf else ""
        raise ConfigurationError(f'{where}={length!r:.60}: write a time{bound} such as "90s", "15m", "24h" or "7d"')
    return found


class Times(NamedTuple):
    """What is to be done about one request, and when. In seconds since the epoch.

    From `ready` on it may be put into a batch, and by `fill_by`, which is no earlier, it is. At `act_by` it is put into
    none any more, and one that it is in is cancelled; at `call_by` it is called, whatever has become of that.
    `deadline` is the promise.
    """

    ready: float
    fill_by: float
    act_by: float
    call_by: float
    deadline: float


@dataclass(frozen=True)
class Queue:
    """How requests are batched that `router.batches.defer` takes. Lengths are texts, such as "15m", or timedeltas.

    - `size`: requests that wait are sent as soon as there are so many (at most 10,000)
    - `max_wait`: and when one of them has waited for so long
    - `off_peak`: hours of the day at which batches are sent, such as `"22:00-06:00"`, or several; those of `timezone`.
      A request whose deadline does not leave an hour for a batch then (half of `within`, where that is less) does not
      wait for them. By default any time is good
    - `margin`: a request that has no answer so long before its deadline is sent as a usual call, at the full price. As
      long before that it is put into no batch any more, and one that it is in is cancelled. At most a quarter of
      `within`; one that is to be answered within less than five minutes is called at once
    - `keep`: for how long answers are kept

    ConfigurationError for what cannot work.
    """

    size: int = 1_000
    max_wait: str | timedelta = "15m"
    off_peak: str | tuple[str, ...] = ()
    timezone: str = UTC_NAME
    margin: str | timedelta = "15m"
    keep: str | timedelta = "7d"
    _hours: tuple[tuple[time, time], ...] = field(default=(), init=False, repr=False, compare=False)
    _lengths: tuple[float, float, float] = field(default=(0, 0, 0), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not is_whole(self.size, 1, MOST_TOGETHER):
            raise ConfigurationError(f"Queue(size={self.size!r:.60}): write a number from 1 to {MOST_TOGETHER:,}")
        lengths = (
            seconds_of("Queue(max_wait", self.max_wait),
            seconds_of("Queue(margin", self.margin),
            seconds_of("Queue(keep", self.keep),
        )
        check_timezone(self.timezone)
        given: object = self.off_peak
        texts = (given,) if isinstance(given, str) else given
        if not isinstance(texts, (tuple, list)):
            raise ConfigurationError(f'Queue(off_peak={given!r:.60}): write hours such as "22:00-06:00"')
        object.__setattr__(self, "_hours", tuple(_hours(text) for text in texts))
        object.__setattr__(self, "_lengths", lengths)

    @property
    def kept(self) -> float:
        """Seconds for which answers are kept."""
        return self._lengths[2]

    def times(self, now: float, within: float) -> Times:
        """What is done when about a request that comes in `now` and is to be answered `within` so many seconds."""
        if within < _TOO_SHORT:
            return Times(now, now, now, now, now + within)
        max_wait, margin, _ = self._lengths
        margin = min(margin, within / 4)
        deadline = now + within
        act_by = deadline - 2 * margin
        opens, closes = self._window(now)
        if act_by - opens < min(_ROOM, within / 2):
            opens, closes = now, inf
        # It leaves a batch half of the time, whatever else is said.
        fill_by = min(opens + max_wait, closes, (opens + act_by) / 2)
        return Times(opens, fill_by, act_by, deadline - margin, deadline)

    def again(self, now: float) -> tuple[float, float]:
        """From when on, and by when, a request is put into a batch that has come back from another."""
        return now, now + self._lengths[0]

    def _window(self, now: float) -> tuple[float, float]:
        """From when to when batches may be sent: the hours that `now` is in, or the next."""
        if not self._hours:
            return now, inf
        zone = ZoneInfo(self.timezone)
        today = datetime.fromtimestamp(now, zone).date()
        found = []
        for day in (today + timedelta(days=number) for number in range(-1, 3)):
            for first, last in self._hours:
                end = day if first < last else day + timedelta(days=1)
                opens = datetime.combine(day, first, zone).timestamp()
                closes = datetime.combine(end, last, zone).timestamp()
                if closes > max(now, opens):
                    found.append((max(now, opens), closes))
        return min(found)


def _hours(text: object) -> tuple[time, time]:
    match = _HOURS.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is not None:
        try:
            first, last = (time(int(match[f"h{n}"]) % 24, int(match[f"m{n}"])) for n in "12")
        except ValueError:
            pass
        else:
            if first != last and int(match["h1"]) < 24 and int(match["h2"]) <= 24:  # noqa: PLR2004  (24:00 is an end)
                return first, last
    raise ConfigurationError(f'Queue(off_peak={text!r:.60}): write hours of the day such as "22:00-06:00"')


def check_queue(given: object) -> Queue:
    """ConfigurationError for what is no Queue."""
    if not isinstance(given, Queue):
        raise ConfigurationError(f'Router(queue=…) takes a Queue(max_wait="15m", …), got {type(given).__name__}')
    return given
