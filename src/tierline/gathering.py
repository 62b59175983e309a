"""Questions that wait at the same time go out in one request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from tierline.asking import shares_of, unpaid
from tierline.classify.sheet import about_others
from tierline.errors import ConfigurationError
from tierline.numeric import is_number

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from tierline.asking import Desk, Lost
    from tierline.classify.base import Question

WINDOW: Final = 0.005
"""Seconds for which a question waits for others."""
LONGEST_WINDOW: Final = 1.0
MOST: Final = 20
"""Most questions of one request."""
MOST_CHARS: Final = 40_000
"""Most characters of all of their texts: what is longer is asked alone."""
_BUSY: Final = 10
"""How many windows a question waits at most, while the loop is too busy to let others come in time."""
_PART: Final = 4
"""A window is at most this part of what a question may take."""


class Said(NamedTuple):
    """What one question was answered, what its part of the request cost (nano-USD), and why no answer came at all.

    `again` says that it may have been for the others that it was asked with.
    """

    answer: tuple[str, float] | None
    cost: int = 0
    error: Exception | None = None
    again: bool = False


@dataclass(slots=True, eq=False)
class _Waiter:
    question: Question
    desk: Desk
    said: asyncio.Future[Said]
    lost: int = 0
    """What its part of a request cost that was cancelled."""


@dataclass(slots=True, eq=False)
class _Room:
    """Those who wait for one request, and the request."""

    key: Hashable
    began: float
    """When the first came, by the loop's clock."""
    waiting: list[_Waiter] = field(default_factory=list)
    chars: int = 0
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None


class Gathering:
    """Lets questions wait for others like them, for `window` seconds; 0 lets none wait.

    - at most 20 go together: of one event loop, one client, one tenant, one route and the same accounts, alike in all
      but their texts (see `Desk.beside`). What speaks of other texts goes alone
    - what the request cost is divided among those that it asked for, whoever still waits
    - one that got no answer from it, though the others may have, is asked once more, alone, in what is left of its time
    - who is cancelled takes nobody along; where all are, so is the request. Of those that the end of it finds waiting,
      each is told what its part cost

    Safe from any thread and loop. ConfigurationError for a window that cannot be.
    """

    def __init__(self, window: float = WINDOW) -> None:
        if not is_number(window, 0, LONGEST_WINDOW):
            raise ConfigurationError(
                f"Router(verdict_window={window!r:.60}): write seconds from 0 (no waiting) to {LONGEST_WINDOW:g}"
            )
        self.window = window
        self._rooms: dict[tuple[asyncio.AbstractEventLoop, Hashable], _Room] = {}
        """Those that are still open: each is touched by its loop alone."""

    async def ask(self, desk: Desk, question: Question, timeout: float, lost: Lost = unpaid) -> Said:
        """The answer to a question, within about `timeout` seconds. Nothing is raised but a cancellation.

        `lost` is told what a question cost that is cancelled, as far as that is known then.
        """
        length = len(question.text) + len(question.context)
        if not self.window or length > MOST_CHARS // 2 or about_others(question):
            return await _alone(desk, question, timeout, lost)
        loop = asyncio.get_running_loop()
        began = loop.time()
        said = await self._wait(loop, _Waiter(question, desk, loop.create_future()), timeout, length, lost)
        left = timeout - (loop.time() - began)
        if not said.again or left <= 0:
            return said
        alone = await _alone(desk, question, left, lambda cost: lost(cost + said.cost))
        return alone._replace(cost=alone.cost + said.cost)

    async def _wait(
        self, loop: asyncio.AbstractEventLoop, waiter: _Waiter, timeout: float, length: int, lost: Lost
    ) -> Said:
        room = self._room(loop, waiter, timeout, length)
        room.waiting.append(waiter)
        room.chars += length
        if len(room.waiting) == MOST:
            self._close(loop, room, timeout)
        try:
            return await waiter.said
        except asyncio.CancelledError:
            await self._left(loop, room, waiter)
            answered = waiter.said.done() and not waiter.said.cancelled()
            lost(waiter.said.result().cost if answered else waiter.lost)
            raise

    def _room(self, loop: asyncio.AbstractEventLoop, waiter: _Waiter, timeout: float, length: int) -> _Room:
        """The room that is open for such questions, or a new one."""
        key = (waiter.desk.beside(waiter.question), timeout)
        room = self._rooms.get((loop, key))
        if room is not None and room.chars + length > MOST_CHARS:
            self._close(loop, room, timeout)
            room = None
        if room is None:
            for closed in [place for place in tuple(self._rooms) if place[0].is_closed()]:
                self._rooms.pop(closed, None)
            room = self._rooms[loop, key] = _Room(key, loop.time())
            self._set_timer(loop, room, timeout)
        return room

    def _set_timer(self, loop: asyncio.AbstractEventLoop, room: _Room, timeout: float) -> None:
        room.timer = loop.call_later(min(self.window, timeout / _PART), self._look, loop, room, timeout)

    def _look(self, loop: asyncio.AbstractEventLoop, room: _Room, timeout: float) -> None:
        """The window is over. A loop that was late has kept out others, who come now."""
        window = min(self.window, timeout / _PART)
        now = loop.time()
        assert room.timer is not None  # noqa: S101  (it calls this)
        if now - room.timer.when() > window / 2 and now - room.began < min(_BUSY * window, timeout / _PART):
            self._set_timer(loop, room, timeout)
        else:
            self._close(loop, room, timeout)

    def _close(self, loop: asyncio.AbstractEventLoop, room: _Room, timeout: float) -> None:
        """Let nobody else in, and ask."""
        if room.timer is not None:
            room.timer.cancel()
        self._rooms.pop((loop, room.key), None)
        if room.waiting:
            room.task = loop.create_task(self._ask(loop, room, timeout), name="tierline verdicts")

    async def _ask(self, loop: asyncio.AbstractEventLoop, room: _Room, timeout: float) -> None:
        asked = tuple(room.waiting)
        left = max(timeout - (loop.time() - room.began), timeout / _PART)
        try:
            found = await asked[0].desk.put([each.question for each in asked], left, partial(_divide, asked))
        except asyncio.CancelledError:
            # All have left, or the loop shuts down.
            for each in asked:
                each.said.cancel()
            raise
        again = len(asked) > 1 and found.alone
        for each, answer, cost in zip(asked, found.said, shares_of(found.cost, len(asked)), strict=True):
            if not each.said.done():
                each.said.set_result(Said(answer, cost, found.error, again and answer is None))

    async def _left(self, loop: asyncio.AbstractEventLoop, room: _Room, waiter: _Waiter) -> None:
        """One who waited was cancelled."""
        if room.task is None:
            room.waiting.remove(waiter)
            if not room.waiting:
                self._close(loop, room, 0)
        elif all(each.said.done() for each in room.waiting) and not room.task.done():
            room.task.cancel()
            # What it has begun is settled by whoever ends it.
            await asyncio.wait((room.task,))


def _divide(asked: Sequence[_Waiter], cost: int) -> None:
    """Among those whom a request asked for, and that was cancelled."""
    for each, share in zip(asked, shares_of(cost, len(asked)), strict=True):
        each.lost = share


async def _alone(desk: Desk, question: Question, timeout: float, lost: Lost) -> Said:
    found = await desk.put([question], timeout, lost)
    return Said(found.said[0], found.cost, found.error)
