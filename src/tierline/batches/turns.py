"""Whose request is sent next: accounts take turns, whatever jobs their requests are in."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.batches.pacing import Window

_AT_ONCE: Final = 2
"""Requests of an account without room that are tried when something has ended: its hold is free then."""


class Waiting(Protocol):
    """A request that waits to be sent."""

    tenant: str
    """Who pays for it, empty for nobody."""

    def start(self) -> None:
        """Send it. `Turns.ended` is called when that is over."""
        ...


WaitingT = TypeVar("WaitingT", bound=Waiting)


class Turns(Generic[WaitingT]):
    """Requests that were read and not sent yet, of all jobs of one event loop.

    As many are under way as the window lets: the next one is the oldest of the account that was longest without.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._queues: dict[str, deque[WaitingT]] = {}
        """By account, the one whose turn it is first."""
        self._crowded: dict[str, int] = {}
        """Accounts whose budget is full of what is under way, with how many requests of them are tried now."""
        self.running = 0

    def put(self, waiting: WaitingT) -> None:
        """Let a request wait for its turn."""
        self._queues.setdefault(waiting.tenant, deque()).append(waiting)
        self.go()

    def take_out(self, wanted: Callable[[WaitingT], bool]) -> None:
        """Let these wait no longer."""
        for tenant, queue in list(self._queues.items()):
            self._queues[tenant] = deque(each for each in queue if not wanted(each))
            self._tidy(tenant)

    def ended(self, back: WaitingT | None = None) -> None:
        """One that was under way is over, or goes back: its budget is full of what is under way.

        Then it is the first of its account when something else has ended.
        """
        self.running -= 1
        if back is not None:
            self._queues.setdefault(back.tenant, deque()).appendleft(back)
            self._crowded[back.tenant] = 0
        else:
            self._crowded = dict.fromkeys(self._crowded, _AT_ONCE)
        self.go()

    def go(self) -> None:
        """Send what may be sent now."""
        while self.running < int(self._window.size):
            tenant = next((name for name in self._queues if self._crowded.get(name, 1)), None)
            if tenant is None and self.running == 0:
                tenant = next(iter(self._queues), None)  # alone it has room, or none at all
            if tenant is None:
                return
            queue = self._queues.pop(tenant)
            self._queues[tenant] = queue  # the last in the row
            waiting = queue.popleft()
            if self._crowded.get(tenant):
                self._crowded[tenant] -= 1
            self._tidy(tenant)
            self.running += 1
            waiting.start()

    def _tidy(self, tenant: str) -> None:
        if not self._queues[tenant]:
            del self._queues[tenant]
            self._crowded.pop(tenant, None)
