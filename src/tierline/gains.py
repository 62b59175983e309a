"""Whether speculating is worth its price: what a route has shown, weighed against the worth of a second. No I/O.

A call that speculates sends the cheapest tier while the verdict is being asked. Where the verdict leads there, it waits
for the longer of both and not for their sum: it gains the shorter one. Where it leads elsewhere, nothing is gained, and
what the cheapest tier was sent for is lost. So with the share `p` of verdicts that lead to the cheapest tier,

    p * min(verdict, answer) * worth of a second   is set against   (1 - p) * what a lost one costs

All that this needs is seen in calls that do not speculate, too, so nothing is tried out to find it. Rates belong to one
process, and fade: what is older than the last `_MEMORY` or so weighs little.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.budgets import parse_money
from tierline.errors import ConfigurationError
from tierline.recent import Recent
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND_WORTH: Final = "$0.001"
"""What a second of waiting is worth, where nobody says: $3.60 for an hour."""
LEAST_VERDICTS: Final = 20
"""Verdicts of a route before `"auto"` speculates there."""
LEAST_ANSWERS: Final = 5
"""Answers of its cheapest tier, for the same; and lost speculations before their measured cost counts."""
MOST_AT_ONCE: Final = 100
"""Most speculations of a process at once: for a synchronous client each has a thread of its own."""
_MEMORY: Final = 50.0
_MOST_ROUTES: Final = 1_000


class Rates(NamedTuple):
    """What a route has shown lately. Times are means in seconds, `lost_cost` is one in nano-USD.

    `verdicts`, `answers` and `lost` say of how many, up to some fifty: what is older has faded.
    """

    verdicts: float = 0.0
    cheap: float = 0.0
    """The share of verdicts that led to the cheapest tier, from 0 to 1."""
    verdict_s: float = 0.0
    answers: float = 0.0
    """Answers of that tier; of streams, their beginnings."""
    answer_s: float = 0.0
    lost: float = 0.0
    lost_cost: int = 0

    def judged(self, *, cheap: bool, seconds: float) -> Rates:
        """One more verdict, and whether it led to the cheapest tier."""
        n, share = _next(self.verdicts)
        return self._replace(
            verdicts=n,
            cheap=self.cheap + share * (cheap - self.cheap),
            verdict_s=self.verdict_s + share * (seconds - self.verdict_s),
        )

    def answered(self, seconds: float) -> Rates:
        """One more answer of the cheapest tier."""
        n, share = _next(self.answers)
        return self._replace(answers=n, answer_s=self.answer_s + share * (seconds - self.answer_s))

    def lost_for(self, cost: int) -> Rates:
        """One more that was in vain (nano-USD)."""
        n, share = _next(self.lost)
        return self._replace(lost=n, lost_cost=self.lost_cost + round(share * (cost - self.lost_cost)))


def _next(n: float) -> tuple[float, float]:
    """How many there are with one more, and what share of the mean that one is."""
    n = min(n, _MEMORY - 1) + 1
    return n, 1 / n


class Bet(NamedTuple):
    """What a speculation is expected to bring: `seconds` that are gained, for `cost` that is lost (nano-USD)."""

    seconds: float
    cost: int

    def worth(self, second: int) -> int:
        """What those seconds are worth (nano-USD), at so much for one."""
        return round(self.seconds * second)


def bet(rates: Rates, loss: int) -> Bet | None:
    """What speculating is expected to bring on a route. None where too little is known of it.

    `loss` is what a lost one would cost here (nano-USD), as far as the route has not shown that.
    """
    if rates.verdicts < LEAST_VERDICTS or rates.answers < LEAST_ANSWERS:
        return None
    lost = rates.lost_cost if rates.lost >= LEAST_ANSWERS else loss
    return Bet(rates.cheap * min(rates.verdict_s, rates.answer_s), round((1 - rates.cheap) * lost))


def against(rates: Rates, loss: int, second: int) -> str:
    """Why not to speculate, with the numbers; empty where it is worth it. `second`: what one is worth (nano-USD)."""
    found = bet(rates, loss)
    if found is None:
        return f"too little is known here: {rates.verdicts:.0f} verdicts, {rates.answers:.0f} answers"
    worth = found.worth(second)
    if worth > found.cost:
        return ""
    return (
        f"it would gain {found.seconds:.2f} s, worth {usd(round(worth, -3))}, for {usd(round(found.cost, -3))}: "
        f"{rates.cheap:.0%} of verdicts lead to the cheapest tier"
    )


class Gains:
    """The rates of all routes, and how many speculations are under way. Bounded, and safe from any thread.

    `second_worth` is such as "$0.001". ConfigurationError for what is no amount.
    """

    def __init__(self, second_worth: str = SECOND_WORTH) -> None:
        try:
            self.second = parse_money(second_worth)
        except ConfigurationError as error:
            raise ConfigurationError(f"Router(second_worth=…): {error}") from None
        self._rates: Recent[tuple[str | None, bool], Rates] = Recent(_MOST_ROUTES)
        self._lock = threading.Lock()
        self._under_way = 0

    def of(self, route: str | None, *, streamed: bool) -> Rates:
        """What a route has shown. Streams are apart: what they gain is the time until they begin."""
        return self._rates.find((route, streamed)) or Rates()

    def learn(self, route: str | None, change: Callable[[Rates], Rates], *, streamed: bool) -> None:
        """Put in what was seen."""
        with self._lock:
            self._rates.keep((route, streamed), change(self.of(route, streamed=streamed)))

    def begin(self) -> bool:
        """Take the place of one more speculation. False where there is none."""
        with self._lock:
            if self._under_way >= MOST_AT_ONCE:
                return False
            self._under_way += 1
            return True

    def end(self) -> None:
        """Give it back."""
        with self._lock:
            self._under_way -= 1
