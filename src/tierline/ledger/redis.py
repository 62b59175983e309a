"""The ledger of many processes and many machines: one Redis, one script for each step."""

from __future__ import annotations

import asyncio
import json
from heapq import nsmallest
from math import inf
from typing import TYPE_CHECKING, Final

from tierline.budgets import first_fit
from tierline.errors import ConfigurationError
from tierline.ledger.base import NOWHERE, RETENTION, Fullest, Origin, Reservation, by_share
from tierline.ledger.checks import bounded_cost, check_offers, check_seconds, checked_limit, plain
from tierline.ledger.refusing import Part, refusal
from tierline.ledger.session import Session
from tierline.ledger.slicing import Slicing
from tierline.ledger.wire import (
    asked,
    dumps,
    form,
    kept_of,
    placed,
    read_balance,
    read_hold,
    read_hour,
    read_limits,
    realarmed,
    text,
    whole_row,
)
from tierline.store.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.budgets import Line
    from tierline.ledger.base import Alert, Balance, Hold, Spent
    from tierline.ledger.slices import Slices
    from tierline.values import Offer, Refusal
    from tierline.windows import Span

_ASKED_BACK: Final = 1.5
"""Seconds within which every process that is alive has given back what it holds in slices, and has no call for."""
_AGAIN: Final = 0.05
"""Seconds between two looks whether they have."""


class RedisLedger:
    """A `Ledger` in a Redis (6 or later) or Valkey, for any number of processes, threads and event loops.

    `store` is a URL or a `RedisStore`. `lease` and `retention` (of spend by hour) are in seconds. The clock is the
    server's, so that those of the clients need not agree; `clock` is for tests. Every step is one script, in the usual
    case one round trip, and idempotent by the id of the reservation.

    A store that has lost its data is noticed: it has another epoch than the one that this process knows, or none. Every
    method then raises LedgerUnavailableError, in every process, until an operator confirms that, or until all processes
    that used it have given back what they remember, each in its `ping`. What no living process knew is lost, and spend
    by hour is.

    `slices`, a share above 0 and at most 0.5: accounts that are busy are leased. Each process then holds so large a
    part of what such an account has left, admits calls against it without asking, and reports every second what they
    came to. None: every call is asked for.

    Raises ConfigurationError for arguments that cannot work, and where redis-py is not installed.
    """

    def __init__(
        self,
        store: str | RedisStore,
        *,
        namespace: str = "tierline",
        lease: float = 30.0,
        retention: float = RETENTION,
        slices: float | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        check_seconds("RedisLedger", lease=lease, retention=retention)
        if inf in (lease, retention):
            raise ConfigurationError("RedisLedger(lease=…, retention=…): what is kept in Redis ends at some time")
        self.lease = lease
        self.instant = False
        self.store = RedisStore(store, namespace=namespace) if isinstance(store, str) else store
        self._session = Session(self.store, lease=lease, retention=retention, clock=clock)
        self.slicing: Final = None if slices is None else Slicing(self._session, slices, lease, self._post)

    @property
    def slices(self) -> Slices | None:
        """What this process holds to admit calls against without asking; None where every call is asked for."""
        return None if self.slicing is None else self.slicing.slices

    async def reserve(
        self,
        key: str,
        offers: Sequence[Offer],
        lines: Sequence[Line],
        *,
        thresholds: bool = True,
        origin: Origin = NOWHERE,
    ) -> Reservation | Refusal:
        """Hold the worst case of the first offer that fits: see `Ledger`."""
        check_offers(offers)
        slicing = self.slicing
        if slicing is not None:
            slicing.slices.asked(key)
        costs = [offer.cost for offer in offers]
        ask = {
            "thresholds": thresholds,
            "costs": [str(bounded_cost(cost or 0)) for cost in costs],
            "tiers": [(plain(offer.tier), plain(offer.model)) for offer in offers],
            "hold": kept_of(origin),
        }
        fixed = dumps(ask)[:-1]
        charged: list[tuple[Line, Span]] = []
        wait = True

        def arguments(left: float) -> tuple[str, ...]:
            now = self._session.time()
            limited = self._session.limited(lines)
            charged[:] = [(line, line.window.span(now)) for line in limited]
            asking = [(own, *each) for own, each in zip(lines, charged, strict=True)]
            start = max((span.start for _, span in charged), default=0)
            end = min((span.until for _, span in charged), default=inf)
            rest = f'"from":"{text(start)}","to":"{text(end)}","lines":{asked(asking, costs)}'
            late, patient = self._session.late(left), "true" if wait else "false"
            return key, self._session.version, f'{fixed},"late":{late!r},"wait":{patient},{rest}}}'

        patience = 0.0
        while True:
            status, now, *rest = await self._session.step("reserve", arguments, self._session.until())
            if status != "sliced":
                break
            # Only what slices hold idle is in the way: whoever has them is asked, by their next report.
            moment = asyncio.get_running_loop().time()
            if not patience:
                patience = moment + _ASKED_BACK
                if slicing is not None:
                    await slicing.give_back(lines)
            else:
                await asyncio.sleep(_AGAIN)
            wait = moment < patience
        if status == "held":
            taken, used = int(rest[0]) - 1, tuple(map(int, rest[1]))
            fit = first_fit(offers, [line for line, _ in charged], used, thresholds=thresholds)
            held = Reservation(
                key, offers[taken], costs[taken] or 0, tuple(charged), used, taken, fit.tight, now, origin
            )
            self._session.recall.held(held)
            return held
        if status == "again":
            return self._rebuilt(key, offers, charged, rest[0], origin)
        if status == "ended":
            raise ValueError(f"reservation {key!r:.80} has ended")
        return await self._refused(offers, charged, now, *rest, thresholds=thresholds)

    async def _refused(
        self,
        offers: Sequence[Offer],
        charged: Sequence[tuple[Line, Span]],
        now: float,
        used: Sequence[str],
        flat: Sequence[Sequence[str]],
        *,
        thresholds: bool,
    ) -> Refusal:
        lines = [line for line, _ in charged]
        fit = first_fit(offers, lines, tuple(map(int, used)), thresholds=thresholds)
        parts = []
        for (_, span), of_line in zip(charged, flat, strict=True):
            part = [
                Part(float(of_line[place]), spent := int(of_line[place + 2]), int(of_line[place + 1]) - spent)
                for place in range(0, len(of_line), 3)
            ]
            if all(each.end != span.end for each in part):
                part.append(Part(span.end, 0, 0))
            parts.append(part)
        found = refusal(offers[fit.left_out :], lines, parts, now)
        full = {
            form(line).name: span
            for line, span in charged
            if (line.budget, line.account) == (found.budget, found.account) and line.alert_at and line.alert_at[-1] == 1
        }
        if found.spent + found.held:
            await self._session.refused(full, now)
        return found

    def _rebuilt(
        self,
        key: str,
        offers: Sequence[Offer],
        charged: Sequence[tuple[Line, Span]],
        record: str,
        origin: Origin,
    ) -> Reservation:
        """A reservation of another process, or whose answer was lost."""
        kept = json.loads(record)
        known = self._session.recall.holds.get(key)
        if known is not None and len(known.lines) == len(kept["lines"]):
            return known
        cost, taken, at = int(kept["cost"]), int(kept["offer"]) - 1, float(kept["at"])
        by_name = {form(line).name: line for line, _ in charged}
        if set(kept["lines"]) - set(by_name):
            raise ValueError(f"reservation {key!r:.80} is held for other budgets than these")
        lines = tuple((by_name[name], by_name[name].window.span(at)) for name in kept["lines"])
        used = tuple(map(int, kept["used"]))
        offer = offers[taken] if taken < len(offers) else offers[-1]
        if (plain(offer.tier), plain(offer.model), offer.cost or 0) != (kept["tier"], kept["model"], cost):
            offer = offer._replace(tier=kept["tier"], model=kept["model"], cost=cost)
        fit = first_fit(offers, [line for line, _ in lines], used, thresholds=True)
        held = Reservation(key, offer, cost, lines, used, taken, fit.tight if taken else "", at, origin)
        self._session.recall.held(held)
        return held

    async def settle(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Replace the hold by `cost`. False where it had been settled before."""
        amount = str(bounded_cost(cost))
        if self.slicing is not None and reservation.leased:
            if self.slicing.slices.settle(reservation, cost, estimated=estimated):
                return True
            await self.slicing.sync()  # it may have been given up, as nobody renewed it
        arguments = (
            reservation.id,
            amount,
            amount if estimated else "0",
            str(reservation.attempts),
            text(reservation.at),
        )
        status, _, *rest = await self._session.run("settle", *arguments)
        if status == "unknown":
            # The store has lost this hold, and goes on: what it came to is charged all the same.
            return await self._post(reservation, cost, estimated=estimated)
        self._session.recall.ended(reservation.id)
        if status == "done":
            self._session.recall.charged(reservation, rest[0])
        return bool(status == "done")

    async def release(self, key: str) -> bool:
        """Give the hold back. False where there is none, or it had been settled before."""
        if self.slicing is not None and self.slicing.slices.release(key):
            return True
        status, *_ = await self._session.run("settle", key, "0", "0", "0", "")
        self._session.recall.ended(key)
        return bool(status == "done")

    async def post(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Charge `cost`, without asking for room. False where this id is held here, or has ended before."""
        bounded_cost(cost)
        if self.slicing is not None and self.slicing.slices.knows(reservation.id):
            return False
        return await self._post(reservation, cost, estimated=estimated)

    async def _post(self, reservation: Reservation, cost: int, *, estimated: bool) -> bool:
        amount = str(bounded_cost(cost))
        hold = dumps(whole_row(kept_of(reservation.origin, reservation.at), reservation.offer))
        own = [line for line, _ in reservation.lines]

        def arguments(_: float) -> tuple[str, ...]:
            lines = ",".join(
                placed(limited, span, line.limit)
                for limited, (line, span) in zip(self._session.limited(own), reservation.lines, strict=True)
            )
            ask = f'{{"hold":{hold},"attempts":{reservation.attempts},"lines":[{lines}]}}'
            return reservation.id, amount, amount if estimated else "0", self._session.version, ask

        status, _, *rest = await self._session.step("post", arguments, self._session.until())
        if status != "done":
            return False
        self._session.recall.ended(reservation.id)
        self._session.recall.charged(reservation, rest[0])
        return True

    async def renew(self, reservations: Sequence[Reservation]) -> None:
        """Begin the lease of every hold anew; those that have ended are left alone."""
        if self.slicing is not None:
            self.slicing.slices.renew(held.id for held in reservations if held.leased)
        there = [held.id for held in reservations if not held.leased]
        if there or not reservations:
            await self._session.run("renew", *there)

    async def forget(self, lines: Sequence[Line]) -> None:
        """Drop the balances of these accounts. A hold on one of them ends as any other, and is charged nowhere."""
        names = tuple(form(line).name for line in lines)
        if self.slicing is not None:
            await self.slicing.give_back(lines)
        await self._session.run("forget", *names)
        self._session.recall.dropped(names)

    async def ping(self) -> None:
        """Return where the ledger can be asked. Where its data were lost: give back what this process knows of them."""
        await self._session.ping()

    async def aclose(self) -> None:
        """Let go of the connections of this loop. The process that closes its last ones is not waited for any more."""
        if self.slicing is not None:
            await self.slicing.aclose()
        await self._session.aclose()

    # What operators ask

    async def balances(self, account: str | None = None) -> list[Balance]:
        """Every account that was ever charged in a span that has not ended; or those with one name."""
        await self._report()
        found: dict[int, Balance] = {}
        cursor, whose = "", "" if account is None else dumps(account)
        while cursor != "0":
            _, _, cursor, rows, *_ = await self._session.run("balances", cursor or "0", whose, "", "-1")
            found.update(map(read_balance, rows))
        return [balance for _, balance in sorted(found.items())]

    async def fullest(self, most: int) -> Fullest:
        """The `most` accounts that have used the largest share of their limits: see `Ledger`."""
        await self._report()
        chosen: dict[int, Balance] = {}
        budgets: set[str] = set()
        cursor, number, least = "", 0, -1.0
        while cursor != "0":
            arguments = (cursor or "0", "", str(most), repr(least))
            _, _, cursor, rows, some, number = await self._session.run("balances", *arguments)
            budgets.update(some)
            chosen.update(map(read_balance, rows))
            chosen = dict(nsmallest(most, chosen.items(), key=lambda each: by_share(each[1])))
            if most and len(chosen) == most:
                least = min(balance.share for balance in chosen.values())
        return Fullest(tuple(chosen.values()), number, frozenset(budgets))

    async def _report(self) -> None:
        """What calls of this process came to is there when it is asked for."""
        if self.slicing is not None:
            await self.slicing.sync()

    async def _accounts(self, account: str) -> list[dict[str, str]]:
        """What is kept of accounts, in the order in which they came to be."""
        found: dict[str, dict[str, str]] = {}
        cursor = ""
        while cursor != "0":
            cursor, page = await self._session.page(cursor or "0", account, self._session.until())
            found |= page
        return sorted(found.values(), key=lambda fields: int(fields["g"]))

    async def holds(self) -> list[Hold]:
        """Every hold, oldest first. What is in flight of a slice is one, of which the id begins with `slice-`."""
        await self._report()
        found: dict[str, Hold] = {}
        cursor = ""
        while cursor != "0":
            _, now, cursor, rows = await self._session.run("holds", cursor or "0")
            for place in range(0, len(rows), 3):
                key = rows[place]
                if (hold := read_hold(key, float(rows[place + 1]), now, rows[place + 2])) is not None:
                    found[key] = hold
        return sorted(found.values(), key=lambda hold: hold.at)

    async def history(self, since: float, until: float | None = None) -> list[Spent]:
        """Spend of every hour that began at or after `since` and before `until`."""
        await self._report()
        found: list[Spent] = []
        start, end = text(since), text(inf if until is None else until)
        while start:
            _, _, start, rows = await self._session.run("history", start, end)
            for place in range(0, len(rows), 2):
                found += read_hour(float(rows[place]), rows[place + 1])
        return found

    async def set_limit(self, budget: str, account: str | None, limit: int | None) -> None:
        """Let another limit hold, from the next reservation on; None takes that back."""
        arguments = (dumps([budget, account]), "" if limit is None else str(checked_limit(limit)))
        _, _, version, limits = await self._session.run("limit", *arguments)
        self._session.limits, self._session.version = read_limits(limits), version
        for fields in await self._accounts(account or ""):
            line = json.loads(fields["l"])
            if line["budget"] == budget and line["shares"]:  # what is told of is a share of the limit
                name = dumps([budget, line["account"], line["series"]])
                await self._session.run("realarm", name, fields["l"], *realarmed(fields["l"], self._session.limits))

    async def limits(self) -> dict[tuple[str, str | None], int]:
        """What `set_limit` has set."""
        await self._session.listen()
        return dict(self._session.limits)

    async def confirm(self) -> None:
        """Go on with the balances as they are."""
        await self._session.confirm()

    async def erase(self, account: str) -> None:
        """Drop all that is kept under a name. Holds of it end as any other, and are charged to their other accounts."""
        if self.slicing is not None:
            self.slicing.slices.close()
            await self.slicing.sync()
        for step in ("accounts", "holds", "lapsed", "hours", "limits"):
            cursor = ""
            while cursor != "0":
                _, _, cursor = await self._session.run("erase", account, step, cursor or "0")
        self._session.recall.stale = True

    def watch(self, listener: Callable[[Alert], None]) -> None:
        """Tell `listener` of every alert."""
        self._session.listeners.append(listener)
