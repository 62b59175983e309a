"""How fast a budget is spent, and where that leads: pure, from what a balance says of itself.

`burn` is what was spent of the window, for each hour of it that has passed. So it is the same in every process, for
every account, and from the first look on; and it is slow to notice that the last ten minutes were unlike the rest.

| window | has passed since | ends |
|---|---|---|
| minute, hour, day, month | it began | when it renews |
| rolling | the oldest charge that counts | when that stops counting: nothing is let go of before |
| total, run | nobody knows: `rate` says how fast, or nothing does | never |

The first moments of a window say nothing of the rest: at least a sixtieth of it is taken to have passed.
"""

from __future__ import annotations

from math import floor, inf
from typing import TYPE_CHECKING, Final, NamedTuple, cast, get_args

from tierline.budgets import RUN_SERIES
from tierline.windows import STEPS, UTC_NAME, Unit, Window

if TYPE_CHECKING:
    from tierline.ledger.base import Balance

_HOUR: Final = 3_600
_MS: Final = 1_000


class Forecast(NamedTuple):
    """Money in nano-USD, times in seconds since the epoch. None is: nobody can tell, or there is no such moment."""

    burn: int | None = None
    """What is spent in an hour."""
    end: int | None = None
    """What will have been spent when the window ends."""
    runs_out_at: float | None = None
    """When spent and held reach the limit, where that is before the window ends; now, where they have."""


def forecast(balance: Balance, now: float, rate: int | None = None) -> Forecast:
    """Where a balance is going. `rate` (nano-USD an hour) is for windows that have no beginning."""
    began, end = _stretch(balance, now)
    # In whole milliseconds, so that money stays an integer.
    burn = rate if began is None else balance.spent * _HOUR * _MS // max(1, floor((now - began) * _MS))
    room = balance.limit - balance.spent - balance.held
    out: float | None = None
    if room <= 0:
        out = now
    elif burn:
        out = now + room / burn * _HOUR
        out = out if out < end else None
    if burn is None or end == inf:
        return Forecast(burn, None, out)
    return Forecast(burn, balance.spent + burn * max(0, floor((end - now) * _MS)) // (_HOUR * _MS), out)


def window_of(series: str) -> Window | None:
    """The window that stores call `series`, as `Window.series` has it; None for one that is not known here."""
    unit, _, rest = series.partition(" ")
    if series == RUN_SERIES or unit not in get_args(Unit):
        return None
    if unit == "rolling":
        return Window("rolling", seconds=int(rest)) if rest.isdecimal() else None
    return Window(cast("Unit", unit), rest or UTC_NAME)


def _stretch(balance: Balance, now: float) -> tuple[float | None, float]:
    """From when on what is spent was spent (None where nobody knows), and until when it counts (infinity: for ever)."""
    window = window_of(balance.window)
    if window is None or window.unit == "total" or balance.renews_at is None:
        return None, inf
    if window.rolls:
        step = -(-window.seconds // STEPS)
        return min(balance.renews_at - window.seconds - step, now - step), balance.renews_at
    try:
        began = window.span(now).start
    except (KeyError, ValueError, OSError):  # a time zone that this machine does not know
        return None, balance.renews_at
    least = (balance.renews_at - began) / STEPS
    return min(began, now - least), balance.renews_at
