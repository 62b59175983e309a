"""What is told of traffic, as values. Money in nano-USD, times in seconds since the epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping  # noqa: TC003  (FastAPI reads the annotations of what an endpoint returns)
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from tierline.display import moment, money, table
from tierline.values import usd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

MOST_SHOWN: Final = 20
"""Most rows of each kind that a table for people shows."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums over calls, at one place: a tier, a route, an account, an hour.

    - `calls`: those of the app's that were sent; `refusals` are no calls, `failures` are
    - `cost`: all that was paid at this place, by the ledger's own booking: each attempt counts at its own tier, for its
      route and tenant, in the hour in which it was reserved. What Tierline asked for itself is the part `own`, what
      nobody has measured the part `estimated`
    - `top`: what the same would have cost on the top tier alone: `cost`, and what calls saved against it
    - `lookups`, `hits`: of the verdict cache, at the tier that would have been asked
    - `batched`: requests of batches that have come back, which are no calls; what they cost is part of `cost`, and what
      they saved of `top`. The other counts are of calls alone
    - `downgrades`, `escalations`, `fallbacks`: calls to which that happened, at the tier that was taken in the end
    """

    calls: int = 0
    cost: int = 0
    own: int = 0
    estimated: int = 0
    top: int = 0
    lookups: int = 0
    hits: int = 0
    downgrades: int = 0
    escalations: int = 0
    fallbacks: int = 0
    refusals: int = 0
    failures: int = 0
    batched: int = 0

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(*map(int.__add__, values_of(self), values_of(other)))

    def minus(self, other: Counts) -> Counts:
        """What is left of this without the other."""
        return Counts(*map(int.__sub__, values_of(self), values_of(other)))

    @property
    def saved(self) -> int:
        """How much less was paid than on the top tier alone; below 0 where it was more."""
        return self.top - self.cost

    def __bool__(self) -> bool:
        return any(values_of(self))


NAMES: Final = tuple(each.name for each in fields(Counts))
"""The fields of `Counts`, in order."""
values_of: Final[Callable[[Counts], tuple[int, ...]]] = attrgetter(*NAMES)
"""Their values. `dataclasses.astuple` copies what it finds, and takes ten times as long."""


def total_of(parts: Iterable[Counts]) -> Counts:
    """All of them together."""
    columns = list(zip(*map(values_of, parts), strict=True))
    return Counts(*map(sum, columns)) if columns else Counts()


@dataclass(frozen=True, slots=True)
class BreakerStanding:
    """A breaker of one process that is not closed. `endpoint` is a digest of an address and a key, `until` an estimate.

    `state` is `open` or `half_open`.
    """

    worker: str
    model: str
    endpoint: str
    state: str
    until: float


def breakers_text(breakers: Iterable[BreakerStanding]) -> str:
    """JSON of breakers, as stores keep it."""
    return json.dumps([[each.worker, each.model, each.endpoint, each.state, each.until] for each in breakers])


def breakers_of(text: str) -> list[BreakerStanding]:
    """What `breakers_text` wrote."""
    return [BreakerStanding(*fields) for fields in json.loads(text)]


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that was heard of lately. `id` is made at random when it starts."""

    id: str
    started: float
    seen: float


@dataclass(frozen=True, slots=True)
class Traffic:
    """What calls did from `since` to `until`, over all processes that record it. `str(traffic)` is a table.

    Hours of up to two days are whole: those that have a part in between. What is longer has whole days (UTC): `since`
    and `until` say from when to when it is. What workers that wrote lately could not write is not in it.

    - `hours`: by when an hour began, in order, and tier; hours without traffic are left out
    - `by_tier`: in the order of the ladder, where that is known
    - `by_route`, `by_account` (tenants), `by_job` (runs, `tenant/run`): the dearest first, as many as were asked for,
      then the rest as `(other)`. A job has all that its calls cost, in the hour in which they ended
    - `accounts`: how many accounts there were
    - `breakers`, `workers`: as they are now
    """

    since: float
    until: float
    total: Counts = Counts()
    hours: tuple[tuple[float, Mapping[str, Counts]], ...] = ()
    by_tier: Mapping[str, Counts] = field(default_factory=dict)
    by_route: Mapping[str, Counts] = field(default_factory=dict)
    by_account: Mapping[str, Counts] = field(default_factory=dict)
    by_job: Mapping[str, Counts] = field(default_factory=dict)
    accounts: int = 0
    breakers: tuple[BreakerStanding, ...] = ()
    workers: tuple[Worker, ...] = ()

    def __str__(self) -> str:
        title = f"traffic from {moment(self.since)} to {moment(self.until)}"
        if not self.total:
            return f"{title}: none was recorded"
        groups = [
            ("tier", self.by_tier),
            ("route", self.by_route),
            ("account", self.by_account),
            ("job", self.by_job),
            ("total", {"": self.total}),
        ]
        cells = list(_cells(groups))
        if not self.total.batched:
            cells = [row[:-1] for row in cells]
        lines = [title, *table(cells, right=range(2, len(cells[0])))]
        total = self.total
        if total.lookups:
            lines.append(f"verdict cache: {total.hits:,} hits of {total.lookups:,} ({total.hits / total.lookups:.0%})")
        if total.top:
            lines.append(f"on the top tier alone: {usd(total.top)}; saved {usd(total.saved)}")
        return "\n".join(lines)


def _cells(groups: Iterable[tuple[str, Mapping[str, Counts]]]) -> Iterator[tuple[str, ...]]:
    yield (
        "", "", "calls", "cost", "overhead", "saved", "downgrades", "escalations", "fallbacks", "refusals", "failures",
        "batched",
    )  # fmt: skip
    rows = [(kind, name, each) for kind, found in groups for name, each in list(found.items())[:MOST_SHOWN]]
    costs, owns, savings = (money(getattr(each, what) for _, _, each in rows) for what in ("cost", "own", "saved"))
    shown = ""
    for (kind, name, each), cost, own, saved in zip(rows, costs, owns, savings, strict=True):
        moved = (each.downgrades, each.escalations, each.fallbacks, each.refusals, each.failures, each.batched)
        yield (kind if kind != shown else "", name, f"{each.calls:,}", cost, own, saved, *(f"{n:,}" for n in moved))
        shown = kind
