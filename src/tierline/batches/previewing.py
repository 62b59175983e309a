"""What a job would be, before it is one: nothing is sent, nobody is asked, nothing is held."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tierline.batches.routing import Routing
from tierline.batches.submitting import PAGE, each_of
from tierline.batches.values import BatchRequest, checked_request, name_of
from tierline.values import Terms

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Mapping, Sequence

    from tierline.batches.routing import Routed
    from tierline.batches.submitting import Told
    from tierline.batches.values import Lane
    from tierline.router import Router

_SILENT: Final = "nobody is asked for a preview"
_CALL: Final = Terms(geo="global")
_BATCH: Final = Terms(batch=True, geo="global")


@dataclass(frozen=True, slots=True)
class Estimate:
    """What requests of one tier would cost. Money in nano-USD.

    - `expected`: at the length that is expected of each prompt and answer, in the lane that was asked for
    - `plain`: the same as calls, without a batch; `top`: as calls on the top tier
    - `worst` is what would be held: the most that they can cost; `unbounded` counts those that have no such bound
    """

    requests: int = 0
    expected: int = 0
    plain: int = 0
    top: int = 0
    worst: int = 0
    unbounded: int = 0

    def plus(self, other: Estimate) -> Estimate:
        """Both together."""
        return Estimate(
            self.requests + other.requests,
            self.expected + other.expected,
            self.plain + other.plain,
            self.top + other.top,
            self.worst + other.worst,
            self.unbounded + other.unbounded,
        )


@dataclass(frozen=True, slots=True)
class Room:
    """One hard budget that requests would be held against: what they would hold there, and what it has left."""

    budget: str
    account: str
    needed: int
    left: int

    @property
    def short(self) -> bool:
        """Whether there is not room for all of them at once."""
        return self.needed > self.left


@dataclass(frozen=True, slots=True)
class Preview:
    """What a job would be: see `Batches.preview`. `by_tier` goes up the ladder; `rooms` are by need, largest first."""

    by_tier: Mapping[str, Estimate]
    invalid: int
    rooms: tuple[Room, ...]

    @property
    def total(self) -> Estimate:
        """All that could be sent."""
        found = Estimate()
        for each in self.by_tier.values():
            found = found.plus(each)
        return found


@dataclass
class Looking:
    """Adds up what is read. `told` is called for each request that is none, with its place, its id and why."""

    router: Router[Any]
    told: Told
    lane: Lane
    tiers: dict[str, Estimate] = field(default_factory=dict)
    needed: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    invalid: int = 0
    seen: set[int] = field(default_factory=set)

    async def look(self, requests: Iterable[object] | AsyncIterable[object]) -> Preview:
        """Go through all of them, a page at a time."""
        routing, place = Routing(self.router, _SILENT), 0
        page: list[object] = []
        async for each in each_of(requests):
            page.append(each)
            if len(page) == PAGE:
                await self._page(routing, place, page)
                place, page = place + len(page), []
        await self._page(routing, place, page)
        ladder = [tier.name for tier in self.router.ladder]
        order = sorted(self.tiers, key=lambda name: (ladder.index(name) if name in ladder else len(ladder), name))
        return Preview({name: self.tiers[name] for name in order}, self.invalid, await self._rooms())

    async def _page(self, routing: Routing, first: int, page: Sequence[object]) -> None:
        good: list[tuple[int, BatchRequest]] = []
        for place, given in enumerate(page, first):
            read = checked_request(given)
            name = read.custom_id if isinstance(read, BatchRequest) else name_of(given)
            if name is not None and hash(name) in self.seen:
                self._bad(place, None, f"custom_id {name!r:.80} is that of another request, too")
            elif isinstance(read, str):
                self._bad(place, name, read)
            else:
                good.append((place, read))
            if name is not None:
                self.seen.add(hash(name))
        for (place, request), found in zip(good, await routing.route(good), strict=True):
            if isinstance(found, str):
                self._bad(place, request.custom_id, found)
            else:
                self._count(found)

    def _bad(self, place: int, name: str | None, why: str) -> None:
        self.invalid += 1
        self.told(place, name, why)

    def _count(self, routed: Routed) -> None:
        offer, prices, ladder = routed.offers[0], self.router.prices, self.router.ladder
        plain = prices.cost(offer.model, routed.usual, _CALL)
        expected = plain if self.lane == "concurrent" else prices.cost(offer.model, routed.usual, _BATCH)
        if self.lane == "concurrent" and offer.cost is not None:
            alone = routed.call._replace(terms=routed.call.terms._replace(batch=False))
            offer = offer._replace(cost=prices.offer(alone, offer.model, offer.max_tokens).cost)
        top = prices.cost(ladder[ladder.top].model, routed.usual, _CALL)
        one = Estimate(1, expected or 0, plain or 0, top or plain or 0, offer.cost or 0, int(offer.cost is None))
        self.tiers[offer.tier] = self.tiers.get(offer.tier, Estimate()).plus(one)
        for line in routed.whose.lines:
            if line.hard:
                before, _ = self.needed.get((line.budget, line.account), (0, 0))
                self.needed[line.budget, line.account] = before + (offer.cost or 0), line.limit

    async def _rooms(self) -> tuple[Room, ...]:
        balances = {(each.budget, each.account): each for each in await self.router.balances()} if self.needed else {}
        rooms = []
        for (budget, account), (needed, limit) in self.needed.items():
            now = balances.get((budget, account))
            rooms.append(Room(budget, account, needed, limit if now is None else now.limit - now.spent - now.held))
        return tuple(sorted(rooms, key=lambda room: (-room.needed, room.budget, room.account)))
