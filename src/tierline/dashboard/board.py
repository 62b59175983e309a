"""What all who look are shown, over all workers: asked of the store while somebody looks, once for all of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import tierline
from tierline.budgets import GLOBAL_ACCOUNT
from tierline.dashboard.accounts import USUAL, Accounts, untouched, with_untouched
from tierline.dashboard.kept import Kept
from tierline.dashboard.period import Period, Stretch
from tierline.dashboard.written import decision_row, json_of
from tierline.display import moment
from tierline.traffic.base import Counts, Traffic
from tierline.windows import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.dashboard.accounts import Sort
    from tierline.ledger.base import Balance
    from tierline.router import Router

T = TypeVar("T")

FULLEST: Final = 20
"""Accounts that the overview shows; the rest is a page of its own."""
_TOLD: Final = 50
"""Accounts that a store is asked for with each look: the first page of the usual order, or all there are."""
RECENT: Final = 50
"""Decisions that are kept up; earlier ones are asked for."""
_MOST_VIEWS: Final = 32
"""Lengths of time that are kept up at once."""
_AT_ONCE: Final = 2
"""Most of them that the store is asked for at the same time."""
_BEFORE: Final = 60.0
"""Seconds for which the time before a period is not asked for again."""
_RATE: Final = 24
"""Over so many hours the rate of a total is taken."""
_FEW: Final = 500
"""From so many accounts on, sorting them is left to a thread."""
_FRESH: Final = 10.0
"""Seconds after which forecasts are computed again where nothing else has changed."""
_TOTAL: Final = Window("total").series


@dataclass(frozen=True, slots=True)
class Shot:
    """An overview as JSON, without what differs by who looks. `edition` changes with what is in it."""

    body: bytes
    edition: tuple[int, ...]


@dataclass(slots=True)
class _View:
    """One length of time, and how it was last shown."""

    kept: Kept[Period]
    shot: Shot | None = None


class Board:
    """Of one Router, on one event loop. `perf` is a clock in seconds that nobody sets."""

    def __init__(self, router: Router[Any], perf: Callable[[], float] = time.monotonic) -> None:
        self._router, self._perf = router, perf
        self._now = router.timing.now
        self.fullest: Kept[Accounts] = Kept(self._fullest, same=Accounts.same, perf=perf)
        self.accounts: Kept[Accounts] = Kept(self._accounts, same=Accounts.same, perf=perf)
        """All of them: asked for where somebody searches, sorts, or turns over pages."""
        self.decisions: Kept[tuple[dict[str, Any], ...]] = Kept(self._decisions, perf=perf)
        self._views: dict[int, _View] = {}
        self._reads = asyncio.Semaphore(_AT_ONCE)
        self._before: dict[Stretch, tuple[float, Counts]] = {}

    async def overview(self, hours: int) -> Shot:
        """The last `hours`, and how the fullest budgets stand."""
        view = self._view(hours)
        period, fullest = await asyncio.gather(view.kept.get(), self.fullest.get())
        # Forecasts change while nothing happens: now and then they are computed again.
        age = int(period.traffic.until // _FRESH) if period is not None else 0
        edition = (view.kept.edition, self.fullest.edition, age)
        if view.shot is None or view.shot.edition != edition:
            body = self._written(hours, period, fullest, self.fullest.away or view.kept.away)
            view.shot = Shot(body, edition)
        return view.shot

    async def page(self, search: str, budget: str, sort: Sort, offset: int, most: int) -> dict[str, Any] | None:
        """Rows of accounts, and how many there are: see `Accounts.page`. None where the store has always been away."""
        asked = (search, budget, sort, offset, most)
        known = self.fullest.value
        few = known.suffice(*asked) if known is not None else asked[:3] == USUAL and offset + most <= _TOLD
        accounts = await self.fullest.get() if few else None
        if accounts is None or not accounts.suffice(*asked):
            accounts = await self.accounts.get()
        if accounts is None:
            return None
        return await computed(partial(accounts.page, search, budget, sort, offset, most), accounts.balances)

    def expire(self) -> None:
        """Somebody has changed something: who looks next sees it."""
        self.fullest.expire()
        self.accounts.expire()
        for view in self._views.values():
            view.kept.expire()

    # What is asked of the store

    def _view(self, hours: int) -> _View:
        view = self._views.pop(hours, None)
        if view is None:
            view = _View(Kept(partial(self._traffic, hours), same=Period.same, perf=self._perf))
            while len(self._views) >= _MOST_VIEWS:
                del self._views[next(iter(self._views))]
        self._views[hours] = view  # the latest last
        return view

    async def _traffic(self, hours: int) -> Period:
        async with self._reads:
            stretch = Stretch.of(hours, self._now())
            traffic = await self._router.traffic(stretch.since)
            return Period(stretch, traffic, await self._sum_of(stretch.before))

    async def _sum_of(self, stretch: Stretch) -> Counts:
        """What was before: it hardly changes any more."""
        now = self._perf()
        at, found = self._before.get(stretch, (float("-inf"), None))
        if found is None or now - at > _BEFORE:
            found = (await self._router.traffic(stretch.since, stretch.until, most=0)).total
            self._before = {known: each for known, each in self._before.items() if now - each[0] <= _BEFORE}
            self._before[stretch] = now, found
        return found

    async def _fullest(self) -> Accounts:
        found, limits = await asyncio.gather(self._router.ledger.fullest(_TOLD), self._router.limits())
        now = self._now()
        balances, total = with_untouched(found, untouched(self._router.budgets, found.budgets, limits, now))
        return Accounts(now, balances, total, limits, await self._rates(balances, now))

    async def _accounts(self) -> Accounts:
        known, limits = await asyncio.gather(self._router.balances(), self._router.limits())
        now = self._now()
        there = {balance.budget for balance in known}
        balances = [*known, *untouched(self._router.budgets, there, limits, now)]
        rates = await self._rates(balances, now)
        return await computed(lambda: Accounts.of(now, balances, limits, rates), balances)

    async def _rates(self, balances: Sequence[Balance], now: float) -> dict[tuple[str, str], int]:
        """How fast totals are spent, in nano-USD an hour: those that say whose spend they are for."""
        known = {budget.name: budget for budget in self._router.budgets}
        totals = [balance for balance in balances if balance.window == _TOTAL and balance.budget in known]
        if not totals:
            return {}
        period = await self._view(_RATE).kept.get()  # most who look are shown that, too
        if period is None:
            return {}
        traffic, since = period.traffic, period.stretch.since
        found = {}
        for balance in totals:
            per = known[balance.budget].per
            spent: Counts | None = None
            if per is None and balance.account == GLOBAL_ACCOUNT:
                spent = traffic.total
            elif per in ("tenant", "route"):
                spent = (traffic.by_account if per == "tenant" else traffic.by_route).get(balance.account)
            if spent is not None:
                # Another budget may have paid for some of it, or it began lately.
                lately = min(spent.cost, balance.spent)
                found[balance.budget, balance.account] = lately * 3_600 // max(1, int(now - since))
        return found

    async def _decisions(self) -> tuple[dict[str, Any], ...]:
        return tuple(decision_row(record) for record in await self._router.decisions(RECENT))

    # What is made of it

    def _written(self, hours: int, period: Period | None, accounts: Accounts | None, away: str) -> bytes:
        router, now = self._router, self._now()
        document: dict[str, Any] = {
            "now": now,
            "mode": router.mode,
            "version": tierline.__version__,
            "tiers": [tier.name for tier in router.ladder],
            "trouble": _trouble(away, accounts.at if accounts is not None else None),
            "budgets": accounts.rows(accounts.balances[:FULLEST]) if accounts is not None else [],
            "accounts_total": accounts.total if accounts is not None else 0,
        }
        if period is None:  # the store has been away since the page was first looked at
            stretch = Stretch.of(hours, now)
            period = Period(stretch, Traffic(stretch.since, now), Counts())
        return json_of(document | period.written())


async def computed(work: Callable[[], T], of: Sequence[object]) -> T:
    """Done here, or in a thread where it takes so long that calls would wait for it."""
    return await asyncio.to_thread(work) if len(of) > _FEW else work()


def _trouble(away: str, at: float | None) -> str | None:
    if not away:
        return None
    shown = "nothing can be shown yet" if at is None else f"what is shown is of {moment(at)}"
    return f"{away}; {shown}"
