"""Money for requests of batches: held for many at a time, refused one by one, and settled when they have come back.

A hold belongs to requests that the same accounts pay for and that go to the same tier. It is noted in the job before it
is made, so that a crash leaves none behind that nobody would settle.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from tierline.ledger.base import Reservation
from tierline.ledger.entries import Entry, bare, read, written
from tierline.ledger.lines import fields_of, line_of
from tierline.values import Offer, Refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tierline.batches.jobs import Held, JobStore
    from tierline.budgets import Line
    from tierline.ledger.base import Ledger, Origin
    from tierline.traffic.meter import Meter

MOST_TOGETHER: Final = 500
"""Requests that one hold is for."""

T = TypeVar("T")


class Wanted(NamedTuple, Generic[T]):
    """Requests that are held for together: all in one hold, where they fit. `offers` has those of each."""

    lines: tuple[Line, ...]
    origin: Origin
    thresholds: bool
    items: tuple[T, ...]
    offers: tuple[tuple[Offer, ...], ...]

    def summed(self) -> list[Offer]:
        """The offers of all together: each has the worst case of all."""
        found = []
        for same in zip(*self.offers, strict=True):
            costs = [offer.cost for offer in same]
            cost = None if None in costs else sum(cost or 0 for cost in costs)
            first = same[0]
            entry = sum(offer.input_cost for offer in same)
            found.append(Offer(first.tier, first.model, cost, entry, first.unbounded))
        return found

    def halves(self) -> tuple[Wanted[T], Wanted[T]]:
        """Two parts of them."""
        middle = len(self.items) // 2
        return (
            self._replace(items=self.items[:middle], offers=self.offers[:middle]),
            self._replace(items=self.items[middle:], offers=self.offers[middle:]),
        )


class Taken(NamedTuple, Generic[T]):
    """Requests with the hold that was made for them, and the id that it was intended under.

    `held.skipped` says which of their offers was taken.
    """

    wanted: Wanted[T]
    held: Reservation
    key: str


class Turned(NamedTuple, Generic[T]):
    """One request that has no room, and why."""

    wanted: Wanted[T]
    refusal: Refusal


async def reserve(
    ledger: Ledger, wanted: Sequence[Wanted[T]], intend: Callable[[Sequence[str]], Awaitable[None]]
) -> tuple[list[Taken[T]], list[Turned[T]], list[str]]:
    """Hold the money for requests: those that fit, those that do not, and the ids that were intended.

    What does not fit together is tried in halves, and in the end one by one.
    """
    taken: list[Taken[T]] = []
    turned: list[Turned[T]] = []
    intents: list[str] = []
    queue = list(wanted)
    while queue:
        keys = [secrets.token_hex(12) for _ in queue]
        await intend(keys)
        intents += keys
        asked = (
            ledger.reserve(key, each.summed(), each.lines, thresholds=each.thresholds, origin=each.origin)
            for key, each in zip(keys, queue, strict=True)
        )
        again: list[Wanted[T]] = []
        for each, key, found in zip(queue, keys, await asyncio.gather(*asked), strict=True):
            several = len(each.items) > 1
            if isinstance(found, Refusal):
                if several:
                    again += each.halves()
                else:
                    turned.append(Turned(each, found))
            elif found.skipped and several and not _alarmed(found):
                # Some of them may have room where they were to go.
                await ledger.release(found.id)
                again += each.halves()
            else:
                taken.append(Taken(each, found, key))
        queue = again
    return taken, turned, intents


def _alarmed(held: Reservation) -> bool:
    """Whether a threshold had been reached before: then each of them alone would go to a cheaper tier, too."""
    return any(used >= line.alarm_from for (line, _), used in zip(held.lines, held.used, strict=True))


def entry_of(held: Reservation, forget: Sequence[Line] = ()) -> str:
    """A hold as a job keeps it: ids, accounts and amounts, and which accounts end with it."""
    return json.dumps({"held": written(Entry("settle", held.id, bare(held))), "forget": [fields_of(e) for e in forget]})


def unheld(key: str, wanted: Wanted[Any], now: float, forget: Sequence[Line] = ()) -> str:
    """The same for requests that have no hold yet: what it will be made of."""
    offer = wanted.summed()[0]
    spans = tuple((line, line.window.span(now)) for line in wanted.lines)
    return entry_of(Reservation(key, offer, 0, spans, at=now, origin=wanted.origin), forget)


def reservation_of(held: Held) -> tuple[Reservation, tuple[Line, ...]]:
    """The reservation that a job has kept, and the accounts that end with it."""
    kept = json.loads(held.entry)
    found = read(held.id, 0.0, kept["held"]).reservation
    assert found is not None  # noqa: S101  (it was written with one)
    return found, tuple(line_of(fields) for fields in kept["forget"])


async def settle(
    ledger: Ledger, meter: Meter | None, held: Held, cost: int, *, estimated: bool, attempts: int
) -> Reservation | None:
    """Replace a hold by what its requests came to: `attempts` is how many of them were sent.

    To do it twice does no harm: the hold, or None where that was done before. `meter` counts what is spent.
    """
    found, forget = reservation_of(held)
    done = await ledger.settle(found._replace(attempts=attempts), cost, estimated=estimated)
    if done and meter is not None:
        meter.spent(found, cost, estimated=estimated)
    if forget:
        await ledger.forget(forget)
    return found if done else None


async def release_lapsed(ledger: Ledger, store: JobStore) -> None:
    """Give back what was held, or is about to be, for requests that nobody took in."""
    while keys := await store.lapsed(MOST_TOGETHER):
        for key in keys:
            await ledger.release(key)
        await store.end(keys)
