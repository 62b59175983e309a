"""Taking requests in: read, routed, held for and written down, page by page, until a batch is full."""

from __future__ import annotations

import json
import secrets
from collections import defaultdict
from collections.abc import AsyncIterable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tierline.batches.booking import Booking
from tierline.batches.holding import MOST_TOGETHER, Wanted, entry_of, reserve, unheld
from tierline.batches.jobs import FINAL, SENT, WAITING, Held, Item
from tierline.batches.routing import Routed, Routing, Whose
from tierline.batches.values import MOST_BYTES, MOST_REQUESTS, BatchRequest, checked_request, name_of
from tierline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from tierline.batches.jobs import JobStore
    from tierline.batches.values import Lane, WhenFull
    from tierline.router import Router

PAGE: Final = 250
"""Requests that are routed side by side."""
_ENOUGH: Final = MOST_BYTES - 4096
"""Bytes of requests in one batch."""
_TRIES: Final = 3


Told = Callable[[int, str | None, str], None]
"""Called with the place of a request, its custom id and what is wrong with it."""


def nobody(place: int, name: str | None, why: str) -> None:
    """Nobody is told."""


class _Page(NamedTuple):
    """What is written down in one step."""

    items: list[Item]
    holds: list[Held]
    intents: list[str]


class Submission:
    """One run over what an app submits to a job. `sealed` is called when there is a batch to send.

    `told` is called for what is refused or invalid, once that is written down: its place, its id and why.
    """

    def __init__(
        self, router: Router[Any], store: JobStore, job: str, uid: str, owner: str, when_full: WhenFull, sealed: Any
    ) -> None:
        self._router, self._store = router, store
        self._job, self._uid, self._owner = job, uid, owner
        self._when_full, self._sealed = when_full, sealed
        self._routing = Routing(router)
        self._booking = Booking(router)
        self.told: Told = nobody
        self._batch, self._count, self._bytes = "", 0, 0

    async def run(self, requests: Iterable[object] | AsyncIterable[object]) -> int:
        """Take in all requests, and say how many there were."""
        place = 0
        page: list[object] = []
        async for each in each_of(requests):
            page.append(each)
            if len(page) == PAGE:
                await self._take(place, page)
                place, page = place + len(page), []
        if page:
            await self._take(place, page)
            place += len(page)
        await self.seal()
        return place

    async def seal(self) -> None:
        """Let what was taken in be sent."""
        if self._batch and await self._store.seal(self._batch, self._owner):
            self._sealed()
        self._batch, self._count, self._bytes = "", 0, 0

    async def _take(self, first: int, page: Sequence[object]) -> None:
        """Take in some requests; those that an earlier run has taken are passed over."""
        final, good = await sifted(self._store, self._job, first, page)
        routed: list[Routed] = []
        for (place, request), found in zip(good, await self._routing.route(good), strict=True):
            if isinstance(found, str):
                final.append(invalid(place, request.custom_id, found))
            else:
                routed.append(found)
        if final:
            await self._add(_Page(final, [], []))
        for part in _parts(routed):
            await self._admit(part)

    async def _admit(self, routed: Sequence[Routed]) -> None:
        """Hold the money for requests, and write down what came of it."""
        for _ in range(_TRIES):
            if await self._add(await self._held(routed)):
                return
            self._batch, self._count, self._bytes = "", 0, 0  # somebody took it for that of a dead process
        raise ConfigurationError(f"job {self._job!r:.80} is being submitted by somebody else")

    async def _held(self, routed: Sequence[Routed]) -> _Page:
        groups: dict[Whose, list[Routed]] = defaultdict(list)
        for each in routed:
            groups[each.whose].append(each)
        wanted = [_wanted(whose, each) for whose, each in groups.items()]

        async def intend(keys: Sequence[str]) -> None:
            await self._store.intend(self._job, self._owner, keys)

        taken, turned, intents = await reserve(self._router.ledger, wanted, intend)
        page = _Page([], [], intents)
        for got in taken:
            forget = got.wanted.items[0].whose.forget
            page.holds.append(Held(got.held.id, entry_of(got.held, forget)))
            page.items.extend(self._item(each, each.offers[got.held.skipped], got.held.id) for each in got.wanted.items)
        waits: dict[Whose, list[Routed]] = defaultdict(list)
        for refused in turned:
            (each,) = refused.wanted.items
            if self._when_full == "defer" and refused.refusal.fits_in is not None:
                waits[each.whose].append(each)
            else:
                why = str(refused.refusal)
                tenant = each.whose.origin.tenant or ""
                page.items.append(
                    Item(each.place, each.name, None, state=FINAL, outcome="refused", result=why, tenant=tenant)
                )
        now = self._router.timing.now()
        for whose, each_of in waits.items():
            key = f"w{secrets.token_hex(12)}"
            page.holds.append(Held(key, unheld(key, _wanted(whose, each_of), now, whose.forget)))
            page.items.extend(self._item(each, each.offers[0], key)._replace(state=WAITING) for each in each_of)
        page.items.sort()
        return page

    def _item(self, each: Routed, offer: Any, hold: str) -> Item:
        return Item(
            each.place,
            each.name,
            each.payload(self._uid, offer),
            hold,
            SENT,
            offer.cost or 0,
            offer.tier,
            offer.model,
            tenant=each.whose.origin.tenant or "",
            said=each.said,
        )

    async def _add(self, page: _Page) -> bool:
        # What waits counts as well: it is to have room in one batch, too.
        sent = [item for item in page.items if item.state != FINAL]
        size = sum(len(item.payload or "") + 1 for item in sent)
        if self._count + len(sent) > MOST_REQUESTS or (self._count and self._bytes + size > _ENOUGH):
            await self.seal()
        self._batch = self._batch or secrets.token_hex(8)
        done = await self._store.add(self._job, self._owner, self._batch, page.items, page.holds, page.intents)
        if done:
            self._booking.unsent(page.items)
            for item in page.items:
                if item.outcome in ("refused", "invalid"):
                    self.told(item.place, item.name, item.result or "")
            self._count, self._bytes = self._count + len(sent), self._bytes + size
        return done


def _wanted(whose: Whose, each: Sequence[Routed]) -> Wanted[Routed]:
    return Wanted(whose.lines, whose.origin, whose.thresholds, tuple(each), tuple(one.offers for one in each))


async def sifted(
    store: JobStore, job: str, first: int, page: Sequence[object], under_way: Mapping[str, int] | None = None
) -> tuple[list[Item], list[tuple[int, BatchRequest]]]:
    """What of a page is no request, and what is one, with its place. What the job has already is in neither.

    `under_way` has places by the custom ids of requests that are not written down yet.
    """
    read = [checked_request(each) for each in page]
    names = [each.custom_id if isinstance(each, BatchRequest) else name_of(given) or ""
             for each, given in zip(read, page, strict=True)]  # fmt: skip
    places, there = await store.known(job, first, first + len(page) - 1, sorted(set(names) - {""}))
    there = {**(under_way or {}), **there}
    final: list[Item] = []
    good: list[tuple[int, BatchRequest]] = []
    for place, (each, name) in enumerate(zip(read, names, strict=True), start=first):
        if place in places:
            continue
        if (other := there.get(name)) is not None:
            final.append(invalid(place, None, f"custom_id {name!r:.80} is that of request {other}, too"))
            continue
        if name:
            there[name] = place
        if isinstance(each, str):
            final.append(invalid(place, name or None, each))
        else:
            good.append((place, each))
    return final, good


def invalid(place: int, name: str | None, why: str) -> Item:
    """What is no request that could be sent."""
    return Item(place, name, None, state=FINAL, outcome="invalid", result=why)


def _parts(routed: Sequence[Routed]) -> list[list[Routed]]:
    """In parts, each of which has room in an empty batch."""
    parts: list[list[Routed]] = []
    size = 0
    for each in routed:
        if not parts or size + each.size > _ENOUGH or len(parts[-1]) == MOST_TOGETHER:
            parts.append([])
            size = 0
        parts[-1].append(each)
        size += each.size
    return parts


async def each_of(requests: Iterable[object] | AsyncIterable[object]) -> AsyncIterator[object]:
    """Requests, from what may be asynchronous."""
    if isinstance(requests, AsyncIterable):
        async for each in requests:
            yield each
    else:
        for each in requests:
            yield each


def settings_of(when_full: WhenFull, trace: str, source: str | None, lane: Lane = "batch") -> str:
    """What a job keeps of how it was submitted."""
    return json.dumps({"when_full": when_full, "trace": trace, "source": source, "lane": lane})
