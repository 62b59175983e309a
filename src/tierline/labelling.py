"""Texts of the app's own, labelled by the cheapest tier: one, or thousands."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import TYPE_CHECKING, Final

from tierline.asking import ONE_TEXT, shares_of
from tierline.classify.labelled import BATCH, CONCURRENCY, Labelled, Origin, Progress
from tierline.classify.sheet import MOST, about_others
from tierline.errors import BudgetExceededError, ConfigurationError, TierlineError
from tierline.gathering import MOST_CHARS
from tierline.limits import retry_after
from tierline.numeric import is_whole
from tierline.telemetry import describe
from tierline.values import Classification

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from tierline.asking import Answers, Desk
    from tierline.attempts import Timing
    from tierline.classify.base import Question

log: Final = logging.getLogger("tierline")

TIMEOUT: Final = 60.0
"""Seconds that one request may take."""
TRIES: Final = 6
"""How often a request that the API fails is made, with growing waits between."""
ALONE: Final = 2
"""How often a text that gets no label is asked alone."""
_FIRST_WAIT: Final = 1.0
_LONGEST_WAIT: Final = 60.0
_LONGEST_ASKED: Final = 300.0
"""Seconds that are waited at most: by oneself, and because the API asks for it."""
_REJECTED: Final = (401, 403, 404)
"""Statuses that every other request will meet as well."""


@dataclass(slots=True, eq=False)
class Text:
    """One distinct text on its way: where it stands, what was found, and what it cost (nano-USD)."""

    question: Question
    places: list[int]
    found: Classification | None = None
    source: Origin | None = None
    why: str = ""
    cost: int = 0
    tries: int = 0


@dataclass(slots=True, eq=False)
class _Batch:
    texts: list[Text]
    tries: int = 0
    answered: int = 0
    """How many answers the run had when this was first asked."""


@dataclass(slots=True, eq=False)
class Run:
    """Asks for `texts` in batches, several at a time.

    A batch that comes back broken is asked again in halves, in the end text by text; what cannot be labelled is left
    without a label, and says why. `keep` is given what was answered, `told` how many more are done with.
    """

    desk: Desk
    timing: Timing
    keep: Callable[[list[Text]], Awaitable[None]]
    told: Callable[[Run], Awaitable[None]]
    size: int = BATCH
    concurrency: int = CONCURRENCY
    timeout: float = TIMEOUT
    cost: int = 0
    requests: int = 0
    done: int = 0
    """Items that are done with."""
    without: int = 0
    stopped: str = ""
    _queue: deque[_Batch] = field(default_factory=deque)
    _busy: int = 0
    _answered: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self, texts: Sequence[Text]) -> None:
        """Ask for all of them. What `keep` and `told` raise ends the run and is raised."""
        if self.desk.closed:
            self._stop(self.desk.closed)
        self._queue.extend(map(_Batch, _batches(texts, self.size)))
        workers = [asyncio.ensure_future(self._work()) for _ in range(min(self.concurrency, len(self._queue)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        for text in texts:
            if text.found is None and not text.why:
                text.why = f"not asked: {self.stopped}"

    async def _work(self) -> None:
        while (batch := await self._next()) is not None:
            try:
                await self._ask(batch)
            finally:
                async with self._changed:
                    self._busy -= 1
                    self._changed.notify_all()

    async def _next(self) -> _Batch | None:
        """What to ask next; None where there is nothing more."""
        async with self._changed:
            while True:
                if self.stopped or not (self._queue or self._busy):
                    return None
                if self._queue and self._busy < self.concurrency:
                    self._busy += 1
                    return self._queue.popleft()
                await self._changed.wait()

    async def _ask(self, batch: _Batch) -> None:
        if not batch.tries:
            batch.answered = self._answered
        found = await self.desk.put([text.question for text in batch.texts], self.timeout)
        self.requests += 1
        self.cost += found.cost
        for text, cost in zip(batch.texts, shares_of(found.cost, len(batch.texts)), strict=True):
            text.cost += cost
        if found.error is not None:
            await self._failed(batch, found.error)
        else:
            await self._took(batch, found)

    async def _took(self, batch: _Batch, found: Answers) -> None:
        answered, missing = [], []
        for text, said in zip(batch.texts, found.said, strict=True):
            if said is None:
                missing.append(text)
            else:
                text.found, text.source = Classification(said[0], said[1], "claude", text.cost), "claude"
                answered.append(text)
        if answered:
            self._answered += 1
            await self.keep(answered)
            await self._ended(answered)
        if not missing:
            return
        if len(batch.texts) > 1:
            self._again(missing, halved=not answered)
            return
        (text,) = missing
        text.tries += 1
        if text.tries < ALONE:
            self._again(missing)
        else:
            await self._leave(text, "the answer was none of the labels")

    async def _failed(self, batch: _Batch, error: Exception) -> None:
        """No answer came at all."""
        status = getattr(error, "status_code", None)
        if isinstance(error, BudgetExceededError):
            if self._busy > 1:
                # What the others hold comes back when they are settled.
                self.concurrency = self._busy - 1
                self._again(batch.texts)
            elif len(batch.texts) > 1:
                self._again(batch.texts, halved=True)
            else:
                self._stop(describe(error.refusal))
        elif isinstance(error, TierlineError):
            self._stop(f"{type(error).__name__}: {error}")
        elif status in _REJECTED:
            self._stop(f"the API answered {status} {type(error).__name__}")
        elif status in ONE_TEXT:
            await self._split(batch, error)
        else:
            batch.tries += 1
            if batch.tries < TRIES:
                await self.timing.sleep(self._wait(batch, error))
                self._queue.appendleft(batch)
            elif self._answered > batch.answered:
                # It goes well with others, so it may be one of these.
                await self._split(batch, error)
            else:
                self._stop(f"the API failed {TRIES} times, at last with {type(error).__name__}")

    async def _split(self, batch: _Batch, error: Exception) -> None:
        if len(batch.texts) > 1:
            self._again(batch.texts, halved=True)
        else:
            await self._leave(batch.texts[0], f"the API refused it: {type(error).__name__}")

    def _wait(self, batch: _Batch, error: Exception) -> float:
        """Seconds until such a request is made again."""
        headers = getattr(getattr(error, "response", None), "headers", None)
        asked = retry_after(headers) if headers is not None else None
        if asked is not None:
            return min(asked, _LONGEST_ASKED)
        longest = min(_FIRST_WAIT * 2.0 ** (batch.tries - 1), _LONGEST_WAIT)
        return longest * (1 + self.timing.jitter()) / 2

    def _again(self, texts: list[Text], *, halved: bool = False) -> None:
        """Ask for these next."""
        middle = (len(texts) + 1) // 2 if halved else len(texts)
        for part in (texts[middle:], texts[:middle]):
            if part:
                self._queue.appendleft(_Batch(part))

    async def _leave(self, text: Text, why: str) -> None:
        text.why = why
        self.without += len(text.places)
        await self._ended([text])

    async def _ended(self, texts: Sequence[Text]) -> None:
        self.done += sum(len(text.places) for text in texts)
        await self.told(self)

    def _stop(self, why: str) -> None:
        self.stopped = self.stopped or why
        self._queue.clear()


def _batches(texts: Sequence[Text], size: int) -> Iterator[list[Text]]:
    """Texts in pieces that one request can carry: what is very long, or speaks of others, alone."""
    batch: list[Text] = []
    chars = 0
    for text in texts:
        length = len(text.question.text)
        if about_others(text.question):
            yield [text]
            continue
        if batch and (len(batch) == size or chars + length > MOST_CHARS):
            yield batch
            batch, chars = [], 0
        batch.append(text)
        chars += length
    if batch:
        yield batch


def items_of(texts: Sequence[Text], total: int) -> tuple[Labelled, ...]:
    """What came of each item, in order. The cost of a text that stands in several places is the first one's."""
    items: list[Labelled | None] = [None] * total
    for text in texts:
        for nth, place in enumerate(text.places):
            cost = 0 if nth else text.cost
            if text.found is None:
                items[place] = Labelled(None, why=text.why, cost=cost)
            else:
                source = "cache" if nth and text.source == "claude" else text.source
                items[place] = Labelled(text.found.label, text.found.confidence, source, cost=cost)
    return tuple(each for each in items if each is not None)


def check_many(items: Sequence[object], batch_size: object, concurrency: object, progress: object) -> None:
    """ConfigurationError for what cannot be labelled, or not so."""
    for place, item in enumerate(items):
        if not isinstance(item, str):
            raise ConfigurationError(f"classify_many: item {place} is a {type(item).__name__}; items are texts")
    for name, value, most in (("batch_size", batch_size, MOST), ("concurrency", concurrency, 100)):
        if not is_whole(value, 1, most):
            raise ConfigurationError(f"classify_many({name}={value!r:.60}): write a whole number from 1 to {most}")
    if progress is not None and not callable(progress):
        raise ConfigurationError(f"classify_many(progress={progress!r:.60}): give a function of a Progress")


async def call(told: Callable[[Progress], object] | None, progress: Progress) -> None:
    """Tell the app how far it is: by a function, or a coroutine function."""
    if told is not None and isawaitable(answer := told(progress)):
        await answer
