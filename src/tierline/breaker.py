"""A circuit breaker: after enough failures nothing is sent for a while, and then one attempt tells whether to go on."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

State = Literal["closed", "open", "half_open"]
Entry = Literal["", "closed", "probe"]
"""How an attempt was let through; empty where it was not."""

IN_A_ROW: Final = 10
"""Failures in a row that open it."""
LEAST: Final = 20
"""Outcomes within the window that it takes to tell a rate."""
RATE: Final = 0.5
"""Share of failures among them that opens it."""
HALF: Final = 15.0
"""Seconds of half the window: the rate is that of the last 15 to 30 seconds."""
_WAVES: Final = 3
FIRST_HOLD: Final = 5.0
LONGEST_HOLD: Final = 60.0
"""Seconds that it stays open, give or take a quarter: doubled after each probe that fails."""
PROBE: Final = 15.0
"""Seconds after which a probe that has not ended no longer keeps others out: long answers take minutes."""


class Breaker:
    """One breaker. Safe from any thread; its lock is never held over anything that waits.

    Failures are counted in waves: one counts if its attempt began after the last one that counted had ended. So fifty
    connections that are reset at the same moment are one failure in a row, and not ten times what opens it.

    `clock` is monotonic, in seconds. `jitter` gives numbers from 0 to 1. `changed` is told of the old state and
    the new one.
    """

    __slots__ = (
        "_changed", "_clock", "_half", "_hold", "_jitter", "_last", "_lock", "_now", "_past", "_probe", "_row", "state",
        "until", "why",
    )  # fmt: skip

    def __init__(
        self,
        clock: Callable[[], float],
        jitter: Callable[[], float],
        changed: Callable[[State, State], None] = lambda *_: None,
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._changed = changed
        self._lock = threading.Lock()
        self._half = clock()
        """When this half of the window began."""
        self._now = [0, 0, 0]
        """Of this half: answers, failures, and waves of them."""
        self._past = [0, 0, 0]
        self._row = 0
        self._last = float("-inf")
        """When the last failure that counted ended."""
        self._hold = FIRST_HOLD
        self._probe = float("-inf")
        """When the probe that is out began."""
        self.state: State = "closed"
        self.until = 0.0
        """When it may be tried again."""
        self.why = ""
        """What opened it."""

    @property
    def ready(self) -> bool:
        """Whether an attempt would be let through now."""
        return self.ready_for(0.0)

    def ready_for(self, seconds: float) -> bool:
        """Whether it has been closed, or waiting for a probe, for so long that nobody else seems to make one."""
        if self.state == "closed":
            return True
        then = self._clock() - seconds
        return then >= self.until if self.state == "open" else then - self._probe >= PROBE

    def enter(self) -> Entry:
        """Ask to make an attempt.

        Whoever is let through says how it ended, once: `answered`, `refused`, `failed` or `left`.
        """
        if self.state == "closed":
            return "closed"
        with self._lock:
            return self._try()

    def _try(self) -> Entry:
        if self.state == "closed":
            return "closed"
        if not self.ready:
            return ""
        self._probe = self._clock()
        if self.state == "open":
            self._become("half_open")
        return "probe"

    def answered(self, entry: Entry = "closed") -> None:
        """The attempt brought an answer."""
        with self._lock:
            if not self._close(entry) and self.state == "closed":
                self._turn()
                self._now[0] += 1
                self._row = 0

    def refused(self, entry: Entry = "closed") -> None:
        """The API did not take the request: it is up, and how it would have answered is not known.

        So it ends a row of failures and closes a half-open breaker, and is in no rate: requests that are refused at the
        door must not hide those that fail behind it.
        """
        with self._lock:
            if not self._close(entry) and self.state == "closed":
                self._row = 0

    def failed(self, began: float, entry: Entry = "closed", *, again: bool = False) -> None:
        """The attempt that began then failed, as it does where the tier or the way to it is down.

        `again` says that it was a retry: in the rate calls are compared, of which those that fail make more attempts.
        """
        with self._lock:
            now = self._clock()
            if entry == "probe" and self.state == "half_open":
                self._hold = min(LONGEST_HOLD, self._hold * 2)
                self._open(now, self.why)
            elif self.state == "closed":
                self._turn()
                counts = began >= self._last
                self._now[1] += not again
                if counts:
                    self._last = now
                    self._now[2] += not again
                    self._row += 1
                failures, waves = self._now[1] + self._past[1], self._now[2] + self._past[2]
                total = failures + self._now[0] + self._past[0]
                if self._row >= IN_A_ROW:
                    self._open(now, f"{self._row} failures in a row")
                elif total >= LEAST and failures >= RATE * total and waves >= _WAVES:
                    self._open(now, f"{failures} failures of {total}")

    def left(self, entry: Entry = "closed") -> None:
        """The attempt told nothing: it was cancelled, or not sent. After a probe the next one is."""
        if entry == "probe":
            with self._lock:
                if self.state == "half_open":
                    self.until = self._clock()
                    self._become("open")

    def close(self) -> bool:
        """An operator's word: let everything through again. False where that was so."""
        with self._lock:
            return self._close("probe")

    def _close(self, entry: Entry) -> bool:
        """After a probe that came back."""
        if entry != "probe" or self.state == "closed":
            return False
        self._now, self._past = [0, 0, 0], [0, 0, 0]
        self._row, self._hold, self._last = 0, FIRST_HOLD, self._clock()
        self._become("closed")
        return True

    def _turn(self) -> None:
        """Go on to the next half of the window."""
        now = self._clock()
        if (passed := now - self._half) >= HALF:
            self._past = self._now if passed < 2 * HALF else [0, 0, 0]
            self._now, self._half = [0, 0, 0], now

    def _open(self, now: float, why: str) -> None:
        # Not all processes at the same moment.
        self.until = now + self._hold * (0.75 + 0.5 * self._jitter())
        self.why = why
        self._become("open")

    def _become(self, state: State) -> None:
        before, self.state = self.state, state
        self._changed(before, state)
