"""A process's dealings with the Redis of a ledger: whose data are there, what time it is, which limits are set."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from tierline.errors import LedgerUnavailableError
from tierline.ledger.limits import Limits, limited
from tierline.ledger.recall import Recall
from tierline.ledger.wire import pairs, read_alerts, read_limits, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tierline.budgets import Line
    from tierline.ledger.base import Alert
    from tierline.store.redis import RedisStore
    from tierline.windows import Span

log: Final = logging.getLogger("tierline")

_SLOW: Final = 1.0
"""Seconds that an answer may take to be read."""
_BEAT: Final = 10.0
"""Seconds after which a process that uses the store says again that it is there."""
_MOST_TOLD: Final = 4096
_LOOKS: Final = ("accounts", "balances")
"""Steps of one look in many steps: what this process should know is not read with each of them."""


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


class Session:
    """Runs the scripts of a ledger, and keeps what they have to be given.

    Every script is told the epoch that this process knows, and does nothing where the store has another one. A store
    that has lost its data goes on when an operator says so, or when all processes that used it have given back what
    they remember, in `ping`.

    What is kept is the latest that any thread learnt. Scripts check it: who was told too late asks again.
    """

    def __init__(self, store: RedisStore, *, lease: float, retention: float, clock: Callable[[], float] | None) -> None:
        self.store = store
        self.recall = Recall()
        self.listeners: list[Callable[[Alert], None]] = []
        self.limits: Limits = {}
        self.version = ""
        """That of `limits`."""
        self._keys = (f"{store.prefix}meta",)
        self._lasting = (text(lease), text(retention))
        self._clock = clock
        self._now = 0.0
        """The latest time that the store was seen to have."""
        self._offset = time.time() - time.monotonic()
        """How far the server's clock is from this one."""
        self._next_beat = 0.0
        self._looked = False
        """Whether this process knows how the server treats its memory."""
        self._told: dict[str, float] = {}
        """Accounts of which it was noted that a call was refused, and until when nobody need note it again."""
        self._given = ""
        """The epoch to which this process has given back what it knows."""

    def until(self) -> float:
        """How long a step that begins now may take, by the loop's clock."""
        return asyncio.get_running_loop().time() + self.store.longest

    def time(self) -> float:
        """What the store's time is, as far as this process can tell."""
        read = time.monotonic() + self._offset if self._clock is None else self._clock()
        return max(read, self._now)

    def late(self, left: float) -> float:
        """What the server's clock says when nobody may wait any more for what is sent now, and is waited for so long.

        Not later than who waits gives up, or what nobody waits for would be held.
        """
        return time.monotonic() + self._offset + min(left, self.store.timeout)

    def limited(self, lines: Sequence[Line]) -> Sequence[Line]:
        """The lines under the limits that were set."""
        limits = self.limits
        if not limits:
            return lines
        return [limited(limits, line) for line in lines]

    async def run(self, name: str, *arguments: str) -> list[Any]:
        """What a script answers: its status, the time, and what it gives."""
        return await self.step(name, lambda _: arguments, self.until())

    async def step(self, name: str, arguments: Callable[[float], tuple[str, ...]], until: float) -> list[Any]:
        """The same; the arguments are asked for anew where the store turned out to be of another time or mind."""
        if (moment := time.monotonic()) >= self._next_beat or self.recall.pid != os.getpid():
            if self.recall.epoch:
                self._next_beat = moment + 1  # one of those who are under way is enough
            await self._join(until)
        elif self.recall.stale and name not in _LOOKS:
            await self._learn(until)
        while True:
            status, now, *rest = await self._script(name, arguments, until)
            if status == "lost":
                await self._join(until)
            elif status == "limits":
                self.version, self.limits = rest[0], read_limits(rest[1])
            elif status == "clock":
                self._now = now
            elif status == "full":
                raise LedgerUnavailableError("an account has come to $7,000,000,000 or more, and cannot be added to")
            elif status not in ("more", "late"):
                return [status, now, *rest]

    async def _script(
        self, name: str, arguments: Callable[[float], tuple[str, ...]], until: float, *, epoch: str = ""
    ) -> list[Any]:
        def said(left: float) -> tuple[str, ...]:
            nonlocal epoch
            epoch = epoch or self.recall.epoch
            clock = "" if self._clock is None else text(self._clock())
            return (epoch, clock, *self._lasting, *arguments(left))

        answer = await self.store.script(f"ledger/{name}", self._keys, said, until)
        status, at, wall, alerts, *rest = json.loads(answer)
        if status == "lost":
            return [status, 0.0]
        now = float(at)
        if now > self._now:
            self._now = now
            if epoch == self.recall.epoch:
                self.recall.seen = now
        offset = float(wall or at) - time.monotonic()
        # What took longest to be read says least: the highest is the best, unless the server's clock was set.
        if status == "clock" or not 0 < self._offset - offset < _SLOW:
            self._offset = offset
        if alerts:
            version, noted = alerts
            if version != self.version and name != "join":
                with suppress(LedgerUnavailableError):
                    await self._join(until)  # the limits have changed
            for alert in read_alerts(noted, self.limits):
                for listener in tuple(self.listeners):
                    listener(alert)
        return [status, now, *rest]

    async def refused(self, accounts: Mapping[str, Span], now: float) -> None:
        """Note that a call was refused for want of room in these: told once in each window, and then left alone."""
        untold = [name for name in accounts if self._told.get(name, 0) <= now]
        if not untold:
            return
        with suppress(LedgerUnavailableError):  # the refusal is known, whoever is told of it
            await self.run("refused", *untold)
            if len(self._told) > _MOST_TOLD:
                self._told.clear()
            # The span of a rolling window that this was noted in is not known: it is asked again with the next one.
            self._told.update({name: accounts[name].until for name in untold})

    async def aclose(self) -> None:
        """Let go of the connections of this loop. Whoever closes the last of them is not waited for any more."""
        if self.recall.epoch and self.store.only_here:
            with suppress(LedgerUnavailableError):
                await self._script("leave", lambda _: (self.recall.member,), self.until())
            self._next_beat = 0.0
        await self.store.aclose()

    async def page(self, cursor: str, account: str, until: float) -> tuple[str, dict[str, dict[str, str]]]:
        """Some accounts by name, and where to go on."""
        _, _, following, rows = await self.step("accounts", lambda _: (cursor, account, self.version), until)
        found = {name: pairs(flat) for name, flat in zip(rows[::2], rows[1::2], strict=True)} if rows else {}
        for name, fields in found.items():
            self.recall.account(name, fields)
        return following, found

    # Whose data these are

    async def ping(self) -> None:
        """Return where the ledger can be asked. Where its data were lost: give back what this process knows of them."""
        await self.listen()
        while self.recall.stale:
            await self._learn(self.until())

    async def listen(self) -> None:
        """The same, and learn which limits are set; without what this process should know of accounts."""
        try:
            await self._join(self.until())
        except _LostError as lost:
            await self._give_back(lost.epoch)

    async def confirm(self) -> None:
        """Go on with the balances as they are."""
        with suppress(_LostError):
            await self._join(self.until())
        # Also where nobody has noticed yet: those who do will then go on.
        await self._restore(self.recall.nothing(), force=True)
        await self._join(self.until())

    async def _join(self, until: float) -> None:
        """Say that this process is there, and learn whose data these are; where they are those that it knows, go on."""
        recall = self.recall
        if recall.pid != os.getpid():
            recall.reborn()
        me = (recall.member, recall.epoch, secrets.token_hex(16), text(recall.seen), "" if self._looked else "1")
        status, now, epoch, *rest = await self._script("join", lambda _: me, until, epoch="*")
        if status == "suspect":
            raise _LostError(epoch)
        self.version, limits, members, evicts = rest[0], *rest[1:]
        self.limits = read_limits(limits)
        self._next_beat = time.monotonic() + _BEAT
        if evicts and evicts != "noeviction":
            log.warning("%r may throw budgets away: its maxmemory-policy is %s; set noeviction", self.store, evicts)
        self._looked = True
        if recall.epoch != epoch:
            recall.forget()
            recall.epoch, recall.seen, self._now = epoch, now, now
        if recall.members - set(members):
            recall.stale = True  # nobody else may know what was spent on the accounts of those who are gone
        recall.members, recall.met = frozenset(members), now

    async def _learn(self, until: float) -> None:
        """Read some of the balances, so as to know them should the store lose them."""
        recall = self.recall
        if recall.cursor == "0":
            recall.forget_totals()
        recall.cursor, _ = await self.page(recall.cursor, "", until)
        recall.stale = recall.cursor != "0" and recall.whole

    async def _give_back(self, epoch: str) -> None:
        recall = self.recall
        if recall.epoch in ("", epoch):
            raise _LostError(epoch)  # by others: what this process knows is there
        status, missing = "", 0
        for chunk in [recall.nothing()] if self._given == epoch else recall.chunks(self.limits):
            status, _, *rest = await self._restore(chunk)
            missing = rest[1] if status == "suspect" else 0
        self._given = epoch
        if status == "suspect":
            raise _LostError(epoch, missing)
        await self._join(self.until())

    async def _restore(self, payload: str, *, force: bool = False) -> list[Any]:
        arguments = (self.recall.member, "1" if force else "", payload)
        return await self._script("restore", lambda _: arguments, self.until(), epoch="*")
