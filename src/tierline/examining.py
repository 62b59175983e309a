"""Looking at an answer before the app gets it: its form, the app's own check, a grade by the cheapest tier."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from inspect import isawaitable, iscoroutinefunction, isroutine
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from tierline.binding import Context, OwnCall, context, enter
from tierline.classify.comparison import shown
from tierline.classify.rating import MOST_CHARS, Rating, body_of, grade_of, rater
from tierline.escalation.answers import wanted_by
from tierline.escalation.checks import Finding, structural
from tierline.policies import Policy
from tierline.recent import Recent
from tierline.retries import LEAST_LEFT
from tierline.transcript import plain_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio import CapacityLimiter

    from tierline.budgets import Line
    from tierline.call import Call
    from tierline.escalation.answers import Answer
    from tierline.escalation.rules import Escalate
    from tierline.ladder import Tier
    from tierline.upstream import Upstream

log: Final = logging.getLogger("tierline")

GRADING: Final = 10.0
"""Most seconds that a grade may take."""
THREADS: Final = 16
"""Checks of the app's own that run in threads at once, for each event loop: one that hangs keeps its thread."""
SEEN: Final = 0.1
"""As how much of an outcome an answer counts whose form was looked at: that says little of what is in it."""
JUDGED: Final = 0.5
"""The same of one that was graded, or that the app's own check has an opinion on."""
_BEST: Final = 5
_MOST_LOOPS: Final = 10_000
_NOT_AGAIN: Final = (Policy(escalate=False), 0)
"""What holds for calls that a check makes: their answers are not checked in turn."""


def is_async(function: Any) -> bool:
    """Whether a function, or what runs where an object is called, is a coroutine function."""
    run = function if isroutine(function) or isinstance(function, partial) else type(function).__call__
    return iscoroutinefunction(run)


class Escalations:
    """What a Router knows of its chains: where tool loops began, and the threads that checks run in."""

    def __init__(self) -> None:
        self.loops: Recent[bytes, str] = Recent(_MOST_LOOPS)
        """The tier whose answer began a tool loop."""
        self._threads: WeakKeyDictionary[asyncio.AbstractEventLoop, CapacityLimiter] = WeakKeyDictionary()

    def threads(self) -> CapacityLimiter:
        """Bounds the threads of this loop."""
        from anyio import CapacityLimiter  # noqa: PLC0415  (only for who has a check that is no coroutine function)

        return self._threads.setdefault(asyncio.get_running_loop(), CapacityLimiter(THREADS))


class Examined(NamedTuple):
    """What came of looking at an answer: what is wrong with it, if anything, how good it seems, what that counts."""

    finding: Finding | None
    good: float
    weight: float


class Examiner:
    """Looks at the answers of one call.

    `notes` are reasons for the decision, of what could not be asked; `spent` is what grades cost (nano-USD).
    """

    def __init__(
        self,
        rules: Escalate,
        call: Call,
        upstream: Upstream,
        cheapest: Tier,
        kept: Escalations,
        lines: Sequence[Line],
        route: str | None,
        tenant: str | None,
        notes: list[str],
    ) -> None:
        self.rules = rules
        self.wanted = wanted_by(call.body)
        self.spent = 0
        self._call, self._upstream, self._cheapest, self._kept = call, upstream, cheapest, kept
        self._lines, self._route, self._tenant = tuple(lines), route, tenant
        self._notes = notes

    async def examine(self, answer: Answer, document: bytes | None, left: float, *, last: bool) -> Examined:
        """Look at an answer: its form first, then what costs more. `document` is there for one that came whole.

        It takes no more than the `left` seconds. Where no tier is above (`last`), a grade would change nothing.
        """
        if (wrong := structural(answer, self.wanted, self.rules)) is not None:
            return Examined(wrong, 0.0, SEEN)
        weight = SEEN
        if document is None or answer.calls:
            return Examined(None, 1.0, weight)
        if self.rules.check is not None:
            said = await self._check(document, left)
            if said is False:
                return Examined(Finding("check", "the app's check says that it is poor"), 0.0, JUDGED)
            weight = SEEN if said is None else JUDGED
        if self.rules.graded and not last and (grade := await self._grade(answer, left)) is not None:
            good = (grade - 1) / (_BEST - 1)
            if grade < self.rules.threshold:
                return Examined(Finding("grade", f"it is graded {grade}, under {self.rules.threshold}"), good, JUDGED)
            return Examined(None, good, JUDGED)
        return Examined(None, 1.0, weight)

    async def _check(self, document: bytes, left: float) -> bool | None:
        """What the app's own check says. One that fails says nothing, and a note tells of it."""
        before = context()
        enter(before._replace(blocks=(*before.blocks, _NOT_AGAIN)))
        try:
            async with asyncio.timeout(max(0.0, min(self.rules.check_timeout, left - LEAST_LEFT))):
                said = await self._ask(self._upstream.message(document))
        except Exception as error:  # noqa: BLE001  (the app's own: its message may quote the answer)
            self._notes.append(f"the check failed: {type(error).__name__}")
            log.debug("a check of an answer failed: %s", type(error).__name__)
            return None
        finally:
            enter(before)
        if said is not None and not isinstance(said, bool):
            self._notes.append(f"the check said neither True, False nor None, but a {type(said).__name__[:60]}")
            return None
        return said

    async def _ask(self, message: Any) -> Any:
        check: Any = self.rules.check
        if is_async(check):
            return await check(message)
        from anyio import to_thread  # noqa: PLC0415  (as above)

        # Of one that hangs the call hears no more, and the loop is free.
        said = await to_thread.run_sync(check, message, abandon_on_cancel=True, limiter=self._kept.threads())
        return await said if isawaitable(said) else said

    async def _grade(self, answer: Answer, left: float) -> int | None:
        """The grade that the cheapest tier gives, from 1 to 5; None, with a note, where there is none."""
        cheapest, timeout = self._cheapest, min(GRADING, left - LEAST_LEFT)
        if (why := self._against_grading(answer, timeout)) is not None:
            self._notes.append(f"no grade: {why}")
            return None
        own = OwnCall(cheapest.name, self._lines, self._route, self._tenant, timeout, purpose="grade")
        before = context()
        enter(Context(own=own))
        try:
            asked = Rating(shown(self._call.body), answer.text)
            said = plain_text(await self._upstream.ask(body_of(asked, model=cheapest.model), timeout))
        except Exception as error:  # noqa: BLE001  (the app has an answer: that nobody grades it changes nothing)
            self._notes.append(f"no grade: {type(error).__name__}")
            return None
        finally:
            enter(before)
            # Paid for whatever came of it, and charged to the call that asked.
            self.spent += own.cost
        grade = None if said is None else grade_of(said)
        if grade is None:
            self._notes.append("no grade: what was said is none")
        return grade

    def _against_grading(self, answer: Answer, timeout: float) -> str | None:
        if not rater(self._cheapest.model):
            return f"{self._cheapest.name} always thinks"
        if not answer.text.strip() or len(answer.text) > MOST_CHARS:
            return "the text is too long" if answer.text.strip() else "there is no text"
        return None if timeout > 0 else "the deadline is near"
