"""The fake's memory: numbers, the script of faults, the log, the rate limits. Safe to use from several threads."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from tierline.testing._faults import OK

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.testing._faults import Fault
    from tierline.testing._log import Received

_MINUTE: Final = 60.0
_LIMITS: Final = {"requests": 4_000, "input-tokens": 2_000_000, "output-tokens": 400_000}
"""What the headers say is allowed in a minute, for each model. They inform; nothing is refused by them."""


@dataclass(frozen=True, slots=True)
class _Step:
    fault: Fault
    model: str | None
    path: str


class Book:
    """What is shared by the requests of one fake. `keep` bounds the log; the sum of the money stays exact."""

    def __init__(self, keep: int, clock: Callable[[], float]) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._log: deque[Received] = deque(maxlen=keep)
        self._open = 0
        self._number = 0
        self._billed = 0
        self._steps: deque[_Step] = deque()
        self._always: dict[str | None, Fault] = {}
        self._windows: dict[str, tuple[float, dict[str, int]]] = {}
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    @property
    def requests(self) -> list[Received]:
        """The log, oldest first."""
        with self._lock:
            return list(self._log)

    @property
    def billed(self) -> int:
        """Nano-USD of all requests that have ended, also of those that the log no longer has."""
        with self._lock:
            return self._billed

    def open(self, received: Received) -> int:
        """Log a request that has arrived; return its number, from 1."""
        with self._lock:
            self._number += 1
            self._open += 1
            self._log.append(received)
            number = self._number
        self.wake()
        return number

    def number(self) -> int:
        """The next number: of an answer that belongs to no request of its own."""
        with self._lock:
            self._number += 1
            return self._number

    def charge(self, nano: int) -> None:
        """Add what a request cost."""
        with self._lock:
            self._billed += nano

    def close(self) -> None:
        """Note that a request has been dealt with."""
        with self._lock:
            self._open -= 1
        self.wake()

    def wake(self) -> None:
        """Let those who wait look again, in whatever loop they wait."""
        with self._lock:
            waiting = list(self._waiting)
        for loop, event in waiting:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    async def idle(self) -> None:
        """Wait until no request is open."""
        await self.until(lambda: self._open == 0)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until the condition holds; it is asked again at every change."""
        event = asyncio.Event()
        waiter = (asyncio.get_running_loop(), event)
        with self._lock:
            self._waiting.add(waiter)
        try:
            while not condition():
                await event.wait()
                event.clear()
        finally:
            with self._lock:
                self._waiting.discard(waiter)

    def script(self, faults: tuple[Fault, ...], model: str | None, path: str) -> None:
        """Queue what the next requests meet."""
        with self._lock:
            self._steps.extend(_Step(fault, model, path) for fault in faults)

    def always(self, model: str | None, fault: Fault) -> None:
        """Set what requests meet when no step is queued for them."""
        with self._lock:
            self._always[model] = fault

    def clear(self) -> None:
        """Forget all faults."""
        with self._lock:
            self._steps.clear()
            self._always.clear()

    def next_fault(self, model: object, path: str) -> Fault:
        """Take the first step that is meant for this request."""
        with self._lock:
            for index, step in enumerate(self._steps):
                if step.path == path and step.model in (None, model):
                    del self._steps[index]
                    return step.fault
            if path != "/v1/messages":
                return OK
            by_model = self._always.get(model) if isinstance(model, str) else None
            return by_model or self._always.get(None, OK)

    def limit_headers(
        self, model: str, spent: tuple[int, int], *, exhausted: bool, resets_in: float | None = None
    ) -> tuple[tuple[str, str], ...]:
        """Count a request and (input, output) tokens in the model's minute; return the headers that tell of it.

        `resets_in` is when the limits renew instead, in seconds from now.
        """
        now = self._clock()
        with self._lock:
            start, used = self._windows.get(model, (now, dict.fromkeys(_LIMITS, 0)))
            if now - start >= _MINUTE:
                start, used = now, dict.fromkeys(_LIMITS, 0)
            for name, amount in zip(_LIMITS, (1, *spent), strict=True):
                used[name] += amount
            self._windows[model] = (start, used)
            left = {name: 0 if exhausted else max(0, most - used[name]) for name, most in _LIMITS.items()}
        seconds = _MINUTE - (now - start) if resets_in is None else resets_in
        renews = datetime.now(UTC) + timedelta(seconds=seconds)
        limits = {**_LIMITS, "tokens": _LIMITS["input-tokens"] + _LIMITS["output-tokens"]}
        left["tokens"] = left["input-tokens"] + left["output-tokens"]
        reset = renews.strftime("%Y-%m-%dT%H:%M:%SZ")
        found: list[tuple[str, str]] = []
        for name, most in limits.items():
            prefix = f"anthropic-ratelimit-{name}"
            found += [
                (f"{prefix}-limit", str(most)),
                (f"{prefix}-remaining", str(left[name])),
                (f"{prefix}-reset", reset),
            ]
        return tuple(found)
