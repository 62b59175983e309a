"""The ledger of many processes and many machines: one Redis, one script for each step."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import time
from contextlib import suppress
from math import inf
from typing import TYPE_CHECKING, Any, Final

from tierline.budgets import first_fit
from tierline.errors import ConfigurationError, LedgerUnavailableError
from tierline.ledger.base import NOWHERE, RETENTION, Origin, Reservation
from tierline.ledger.checks import check_offers, checked_limit
from tierline.ledger.recall import Recall
from tierline.ledger.refusing import Part, refusal
from tierline.ledger.wire import (
    Limits,
    asked,
    dumps,
    form,
    kept_of,
    limit_of,
    pairs,
    placed,
    read_alerts,
    read_balance,
    read_hold,
    read_hour,
    read_limits,
    realarmed,
    storable,
    text,
    whole_row,
)
from tierline.store.redis import RedisStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tierline.budgets import Line
    from tierline.ledger.base import Alert, Balance, Hold, Spent
    from tierline.values import Offer, Refusal
    from tierline.windows import Span

log: Final = logging.getLogger("tierline")

_BEAT: Final = 10.0
"""Seconds after which a process that uses the store says again that it is there."""


class _LostError(LedgerUnavailableError):
    """The data that this process, or another, knew are not there. `epoch` is that of the data that are."""

    def __init__(self, epoch: str, missing: int = 0) -> None:
        waiting = f" ({missing} of them are missing)" if missing else ""
        super().__init__(
            "the store has lost its data (a restart without persistence, FLUSHALL, a failover to an empty replica): "
            "call `await ledger.confirm()` to go on with what is there, or wait until every process that used it has "
            f"given back what it knows{waiting}"
        )
        self.epoch = epoch


class RedisLedger:
    """A `Ledger` in a Redis (6 or later) or Valkey, for any number of processes, threads and event loops.

    `store` is a URL or a `RedisStore`. `lease` and `retention` (of spend by hour) are in seconds. The clock is the
    server's, so that those of the clients need not agree; `clock` is for tests. Every step is one script, in the usual
    case one round trip, and idempotent by the id of the reservation.

    A store that has lost its data is noticed: it has another epoch than the one that this process knows, or none. Every
    method then raises LedgerUnavailableError, in every process, until an operator confirms that, or until all processes
    that used it have given back what they remember, each in its `ping`. What no living process knew is lost, and spend
    by hour is.

    Raises ConfigurationError for arguments that cannot work, and where redis-py is not installed.
    """

    def __init__(
        self,
        store: str | RedisStore,
        *,
        namespace: str = "tierline",
        lease: float = 30.0,
        retention: float = RETENTION,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if not 0 < lease < inf:
            raise ConfigurationError(f"RedisLedger(lease={lease!r}): a lease is a number of seconds above 0")
        self.lease = lease
        self.instant = False
        self.store = RedisStore(store, namespace=namespace) if isinstance(store, str) else store
        self._keys = (f"{self.store.prefix}meta",)
        self._lasting = (text(lease), text(retention))
        self._clock = clock
        self._recall = Recall()
        self._listeners: list[Callable[[Alert], None]] = []
        self._limits: Limits = {}
        self._version = ""
        self._now = 0.0
        """The latest time that the store was seen to have."""
        self._offset = time.time() - time.monotonic()
        """How far the server's clock is from this one."""
        self._next_beat = 0.0
        self._looked = False
        """Whether this process knows how the server treats its memory."""
        self._given = ""
        """The epoch to which this process has given back what it knows."""

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
        costs = [offer.cost for offer in offers]
        ask = {
            "thresholds": thresholds,
            "costs": [storable(cost or 0) for cost in costs],
            "tiers": [(offer.tier, offer.model) for offer in offers],
            "hold": kept_of(origin),
        }
        fixed = dumps(ask)[:-1]
        until = self._until()
        charged: list[tuple[Line, Span]] = []

        def arguments() -> tuple[str, ...]:
            now = self._time()
            limited = self._limited(lines)
            charged[:] = [(line, line.window.span(now)) for line in limited]
            asking = [(own, *each) for own, each in zip(lines, charged, strict=True)]
            start = max((span.start for _, span in charged), default=0)
            end = min((span.until for _, span in charged), default=inf)
            late = time.monotonic() + self._offset + until - asyncio.get_running_loop().time()
            return (
                key,
                self._version,
                f'{fixed},"from":"{text(start)}","to":"{text(end)}","late":{late!r},"lines":{asked(asking, costs)}}}',
            )

        status, now, *rest = await self._step("reserve", arguments, until)
        if status == "held":
            taken, used = int(rest[0]) - 1, tuple(map(int, rest[1]))
            fit = first_fit(offers, [line for line, _ in charged], used, thresholds=thresholds)
            held = Reservation(
                key, offers[taken], costs[taken] or 0, tuple(charged), used, taken, fit.tight, now, origin
            )
            self._recall.held(held)
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
            form(line).name
            for line in lines
            if (line.budget, line.account) == (found.budget, found.account) and line.alert_at and line.alert_at[-1] == 1
        }
        if full and found.spent + found.held:
            await self._run("refused", *full)
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
        known = self._recall.holds.get(key)
        if known is not None and len(known.lines) == len(kept["lines"]):
            return known
        cost, taken, at = int(kept["cost"]), int(kept["offer"]) - 1, float(kept["at"])
        by_name = {form(line).name: line for line, _ in charged}
        if set(kept["lines"]) - set(by_name):
            raise ValueError(f"reservation {key!r:.80} is held for other budgets than these")
        lines = tuple((by_name[name], by_name[name].window.span(at)) for name in kept["lines"])
        used = tuple(map(int, kept["used"]))
        offer = offers[taken] if taken < len(offers) else offers[-1]
        if (offer.tier, offer.model, offer.cost or 0) != (kept["tier"], kept["model"], cost):
            offer = offer._replace(tier=kept["tier"], model=kept["model"], cost=cost)
        fit = first_fit(offers, [line for line, _ in lines], used, thresholds=True)
        held = Reservation(key, offer, cost, lines, used, taken, fit.tight if taken else "", at, origin)
        self._recall.held(held)
        return held

    async def settle(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Replace the hold by `cost`. False where it had been settled before."""
        amount = storable(cost)
        arguments = (reservation.id, amount, amount if estimated else "0", "1", text(reservation.at))
        status, _, *rest = await self._run("settle", *arguments)
        if status == "unknown":
            # The store has lost this hold, and goes on: what it came to is charged all the same.
            return await self.post(reservation, cost, estimated=estimated)
        self._recall.ended(reservation.id)
        if status == "done":
            self._recall.charged(reservation, rest[0])
        return bool(status == "done")

    async def release(self, key: str) -> bool:
        """Give the hold back. False where there is none, or it had been settled before."""
        status, *_ = await self._run("settle", key, "0", "0", "0", "")
        self._recall.ended(key)
        return bool(status == "done")

    async def post(self, reservation: Reservation, cost: int, *, estimated: bool = False) -> bool:
        """Charge `cost`, without asking for room. False where this id is held here, or has ended before."""
        amount = storable(cost)
        hold = dumps(whole_row(kept_of(reservation.origin, reservation.at), reservation.offer))
        own = [line for line, _ in reservation.lines]

        def arguments() -> tuple[str, ...]:
            lines = ",".join(
                placed(limited, span, line.limit)
                for limited, (line, span) in zip(self._limited(own), reservation.lines, strict=True)
            )
            ask = f'{{"hold":{hold},"lines":[{lines}]}}'
            return reservation.id, amount, amount if estimated else "0", self._version, ask

        status, _, *rest = await self._step("post", arguments, self._until())
        if status != "done":
            return False
        self._recall.ended(reservation.id)
        self._recall.charged(reservation, rest[0])
        return True

    async def renew(self, reservations: Sequence[Reservation]) -> None:
        """Begin the lease of every hold anew; those that have ended are left alone."""
        await self._run("renew", *(reservation.id for reservation in reservations))

    async def forget(self, lines: Sequence[Line]) -> None:
        """Drop the balances of these accounts. A hold on one of them ends as any other, and is charged nowhere."""
        names = tuple(form(line).name for line in lines)
        await self._run("forget", *names)
        self._recall.dropped(names)

    async def aclose(self) -> None:
        """Let go of the connections of this loop. Whoever closes the last of them is not waited for any more."""
        if self._recall.epoch and self.store.only_here:
            with suppress(LedgerUnavailableError):
                await self._script("leave", (self._recall.member,), self._until(), epoch=self._recall.epoch)
            self._next_beat = 0.0
        await self.store.aclose()

    # What operators ask

    async def balances(self, account: str | None = None) -> list[Balance]:
        """Every account that was ever charged in a span that has not ended; or those with one name."""
        found = await self._accounts(account or "")
        return [read_balance(fields, self._limits) for fields in found]

    async def _accounts(self, account: str) -> list[dict[str, str]]:
        """The fields of accounts, in the order in which they came to be."""
        found: dict[str, dict[str, str]] = {}
        cursor = ""
        while cursor != "0":
            cursor, page = await self._page(cursor or "0", account, self._until())
            found |= page
        return sorted(found.values(), key=lambda fields: int(fields["g"]))

    async def _page(self, cursor: str, account: str, until: float) -> tuple[str, dict[str, dict[str, str]]]:
        """Some accounts by name, and where to go on."""
        _, _, following, rows = await self._step("balances", lambda: (cursor, account, self._version), until)
        found = {name: pairs(flat) for name, flat in zip(rows[::2], rows[1::2], strict=True)} if rows else {}
        for name, fields in found.items():
            self._recall.account(name, fields)
        return following, found

    async def holds(self) -> list[Hold]:
        """Every hold, oldest first."""
        found: dict[str, Hold] = {}
        cursor = "0"
        while True:
            _, now, following, rows = await self._run("holds", cursor)
            for place in range(0, len(rows), 3):
                key = rows[place]
                found[key] = read_hold(key, float(rows[place + 1]), now, rows[place + 2])
            cursor = following
            if cursor == "0":
                return sorted(found.values(), key=lambda hold: hold.at)

    async def history(self, since: float, until: float | None = None) -> list[Spent]:
        """Spend of every hour that began at or after `since` and before `until`."""
        found: list[Spent] = []
        start, end = text(since), text(inf if until is None else until)
        while start:
            _, _, following, rows = await self._run("history", start, end)
            for place in range(0, len(rows), 2):
                found += read_hour(float(rows[place]), rows[place + 1])
            start = following
        return found

    async def set_limit(self, budget: str, account: str | None, limit: int | None) -> None:
        """Let another limit hold, from the next reservation on; None takes that back."""
        arguments = (dumps([budget, account]), "" if limit is None else str(checked_limit(limit)))
        _, _, version, limits = await self._run("limit", *arguments)
        self._limits, self._version = read_limits(limits), version
        for fields in await self._accounts(account or ""):
            line = json.loads(fields["l"])
            if line["budget"] == budget and line["shares"]:  # what is told of is a share of the limit
                name = dumps([budget, line["account"], line["series"]])
                await self._run("realarm", name, fields["l"], *realarmed(fields["l"], self._limits))

    async def limits(self) -> dict[tuple[str, str | None], int]:
        """What `set_limit` has set."""
        await self.ping()
        return dict(self._limits)

    async def erase(self, account: str) -> None:
        """Drop all that is kept under a name. Holds of it end as any other, and are charged to their other accounts."""
        for step in ("accounts", "holds", "lapsed", "hours", "limits"):
            cursor = "0"
            while True:
                _, _, following = await self._run("erase", account, step, cursor)
                cursor = following
                if cursor == "0":
                    break
        self._recall.stale = True

    def watch(self, listener: Callable[[Alert], None]) -> None:
        """Tell `listener` of every alert."""
        self._listeners.append(listener)

    # Whose data these are

    async def ping(self) -> None:
        """Return where the ledger can be asked. Where its data were lost: give back what this process knows of them."""
        try:
            await self._join(self._until())
        except _LostError as lost:
            await self._give_back(lost.epoch)
        while self._recall.stale:
            await self._learn(self._until())

    async def confirm(self) -> None:
        """Go on with the balances as they are."""
        try:
            await self._join(self._until())
        except _LostError:
            await self._restore(self._recall.nothing(), force=True)
            await self._join(self._until())

    async def _join(self, until: float) -> None:
        """Say that this process is there, and learn whose data these are; where they are those that it knows, go on."""
        recall = self._recall
        if recall.pid != os.getpid():
            recall.reborn()
        me = (recall.member, recall.epoch, secrets.token_hex(16), text(recall.seen))
        status, now, epoch, *rest = await self._script("join", (*me, "" if self._looked else "1"), until, epoch="*")
        if status == "suspect":
            raise _LostError(epoch)
        self._version, limits, members, evicts = rest[0], *rest[1:]
        self._limits = read_limits(limits)
        self._next_beat = time.monotonic() + _BEAT
        if evicts and evicts != "noeviction":
            log.warning("%r may throw budgets away: its maxmemory-policy is %s; set noeviction", self.store, evicts)
        self._looked = True
        if recall.epoch != epoch:
            recall.forget()
            recall.epoch, recall.seen, self._now = epoch, now, now
        if recall.members - set(members):
            recall.stale = True  # nobody else may know what was spent on the accounts of those who are gone
        recall.members = frozenset(members)

    async def _learn(self, until: float) -> None:
        """Read some of the balances, so as to know them should the store lose them."""
        recall = self._recall
        if recall.cursor == "0":
            recall.forget_totals()
        recall.cursor, _ = await self._page(recall.cursor, "", until)
        recall.stale = recall.cursor != "0" and recall.whole

    async def _give_back(self, epoch: str) -> None:
        recall = self._recall
        if recall.epoch in ("", epoch):
            raise _LostError(epoch)  # by others: what this process knows is there
        status, missing = "", 0
        for chunk in [recall.nothing()] if self._given == epoch else recall.chunks(self._limits):
            status, _, *rest = await self._restore(chunk)
            missing = rest[1] if status == "suspect" else 0
        self._given = epoch
        if status == "suspect":
            raise _LostError(epoch, missing)
        await self._join(self._until())

    async def _restore(self, payload: str, *, force: bool = False) -> list[Any]:
        arguments = (self._recall.member, "1" if force else "", payload)
        return await self._script("restore", arguments, self._until(), epoch="*")

    # One step

    def _until(self) -> float:
        return asyncio.get_running_loop().time() + self.store.timeout

    def _time(self) -> float:
        """What the store's time is, as far as this process can tell."""
        read = time.monotonic() + self._offset if self._clock is None else self._clock()
        return max(read, self._now)

    def _limited(self, lines: Sequence[Line]) -> Sequence[Line]:
        limits = self._limits
        if not limits:
            return lines
        return [line.limited(limit_of(limits, line.budget, line.account) or line.limit) for line in lines]

    async def _run(self, name: str, *arguments: str) -> list[Any]:
        """What a script answers: its status, the time, and what it gives."""
        return await self._step(name, lambda: arguments, self._until())

    async def _step(self, name: str, arguments: Callable[[], tuple[str, ...]], until: float) -> list[Any]:
        """The same; the arguments are asked for anew where the store turned out to be of another time or mind."""
        if time.monotonic() >= self._next_beat or self._recall.pid != os.getpid():
            await self._join(until)
        elif self._recall.stale and name != "balances":
            await self._learn(until)
        while True:
            status, now, *rest = await self._script(name, arguments(), until, epoch=self._recall.epoch)
            if status == "lost":
                await self._join(until)
            elif status == "limits":
                self._version, self._limits = rest[0], read_limits(rest[1])
            elif status == "clock":
                self._now = now
            elif status == "full":
                raise LedgerUnavailableError("an account has come to $7,000,000,000 or more, and cannot be added to")
            elif status not in ("more", "late"):
                return [status, now, *rest]

    async def _script(self, name: str, arguments: tuple[str, ...], until: float, *, epoch: str) -> list[Any]:
        clock = "" if self._clock is None else text(self._clock())
        answer = await self.store.script(name, self._keys, (epoch, clock, *self._lasting, *arguments), until)
        status, at, wall, alerts, *rest = json.loads(answer)
        if status == "lost":
            return [status, 0.0]
        now = float(at)
        if now > self._now:
            self._now = self._recall.seen = now
        self._offset = float(wall or at) - time.monotonic()
        if alerts:
            version, noted = alerts
            if version != self._version and name != "join":
                await self._join(until)  # the limits have changed
            for alert in read_alerts(noted, self._limits):
                for listener in tuple(self._listeners):
                    listener(alert)
        return [status, now, *rest]
