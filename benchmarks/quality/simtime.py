"""An asyncio loop whose time is simulated: nobody waits, and the same program takes the same seconds every time.

    with asyncio.Runner(loop_factory=SimulatedLoop) as runner: ...

Whenever nothing is left to do but to wait, its clock is set to the next moment for which something is planned. So what
sleeps for an hour does so in no time, in the right order beside everything else that sleeps, and `loop.time()` tells
how long it all would have taken. What is given to a thread by way of the loop is done at once, in the loop's own. It
waits for real only where nothing is planned at all.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Passes the time that it is told to wait instead of waiting."""

    passed = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        found = super().select(0)
        if not found:
            self.passed += max(timeout, 0.0)
        return found


class SimulatedLoop(asyncio.SelectorEventLoop):
    """See above. Its time begins at 0."""

    def __init__(self) -> None:
        self._passing = _Selector()
        super().__init__(self._passing)

    def time(self) -> float:
        """Seconds that have passed in the simulation."""
        return self._passing.passed

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # noqa: ARG002
        """Done at once: while a thread works, simulated time would run on."""
        done: asyncio.Future[Any] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  (whoever awaits it is told)
            done.set_exception(error)
        return done
