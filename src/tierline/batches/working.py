"""One batch on its way: sent, found again where it is not known whether it was, asked for, collected, tried again."""

from __future__ import annotations

import json
import logging
import secrets
from typing import TYPE_CHECKING, Any, Final

from tierline.batches.api import RefusedError, UnknownError
from tierline.batches.booking import Booking, holds_of
from tierline.batches.holding import MOST_TOGETHER, Wanted, entry_of, reservation_of, reserve, settle
from tierline.batches.jobs import ERASED, FINAL, WAITING, Ended, Held
from tierline.batches.tracing import CollectTrace, SubmitTrace
from tierline.usage import metered
from tierline.values import Offer, Terms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from tierline.batches.api import BatchAPI, Seen
    from tierline.batches.jobs import BatchRow, Fact, JobStore, Share
    from tierline.ledger.base import Reservation
    from tierline.router import Router
    from tierline.values import Refusal

log: Final = logging.getLogger("tierline")

TRIES: Final = 3
"""How often a request is sent that expires, or that the API fails."""
FETCHES: Final = 5
"""How often results are read that are not all there."""
_SOONEST: Final = 0.5
_LONGEST: Final = 600.0
"""Seconds that are waited at most after something failed."""
_SKEW: Final = 300.0
"""Seconds that the API's clock may be behind."""
_PAGE: Final = 500
_GONE: Final = 404
_CANCELED: Final = "it was canceled"
_LOOKED: Final = "its creation was not answered: it is looked for once more before it is created again"
_USUAL: Final = Terms(geo="global")
_FINAL_ERRORS: Final = ("invalid_request_error", "authentication_error", "permission_error", "not_found_error",
                        "request_too_large", "billing_error")  # fmt: skip
"""Kinds of errors that another try does not mend."""


class Work:
    """What one worker does with batches that it has the lease of.

    `poll` is for how many seconds at most a batch is left alone that has not ended. `unsure` is how many lie between
    two looks for one whose creation was not answered: where both find none, it is created again.
    """

    def __init__(
        self, router: Router[Any], store: JobStore, api: BatchAPI, owner: str, poll: float, unsure: float
    ) -> None:
        self._router, self._store, self._api, self._owner = router, store, api, owner
        self._poll, self._unsure = poll, unsure
        self._booking = Booking(router)

    async def advance(self, row: BatchRow) -> None:
        """Take a batch as far as it goes now, and say when it is to be looked at again."""
        while True:
            before = row.state
            try:
                row = await self._step(row)
            except RefusedError as error:
                if error.status == _GONE and row.state == "sent":
                    await self._give_up(row, "errored", "the API does not have its batch any more", estimated=True)
                    row = await self._settled(row)
                else:
                    row = self._failed(row, str(error), error.wait)
            except UnknownError as error:
                row = self._failed(row, f"no answer: {error}", None)
            # Written down after each step: what comes next may fail, and must not undo it.
            on = row.state not in (before, "done") and row.due <= self._now()
            if not await self._store.save(row, self._owner, give_back=not on) or not on:
                return

    def _failed(self, row: BatchRow, note: str, wait: float | None) -> BatchRow:
        fails = row.fails + 1
        longest = min(_LONGEST, 2.0**fails)
        wait = max(wait or 0.0, longest * (0.5 + self._router.timing.jitter() / 2))
        log.warning("batch %s of job %s: %s; tried again in %.0f s", row.id, row.job, note, wait)
        return row._replace(fails=fails, note=note[:300], due=self._now() + wait)

    def _now(self) -> float:
        return self._router.timing.now()

    async def _step(self, row: BatchRow) -> BatchRow:
        steps = {"sealed": self._sent, "sending": self._found, "sent": self._asked, "waiting": self._again}
        return await steps[row.state](row)

    # Sending

    async def _sent(self, row: BatchRow) -> BatchRow:
        if not row.number:
            return await self._settled(row)
        if row.canceled:
            await self._give_up(row, "canceled", _CANCELED)
            return await self._settled(row)
        trace = SubmitTrace(self._router.tracer, row, str(json.loads(row.settings).get("trace", "")))
        row = row._replace(state="sending", sent=self._now(), trace=trace.context)
        if not await self._store.save(row, self._owner, give_back=False):
            trace.end("", "lease_lost")
            return row
        try:
            with trace.active():
                seen = await self._api.create(self._payloads(row), row.bytes)
        except RefusedError as error:
            trace.end("", f"{error.status}")
            row = row._replace(state="sealed")
            if error.status in (400, 413):
                # It was looked at, and is no batch: another try would find the same.
                await self._give_up(row, "errored", str(error))
                return await self._settled(row)
            return self._failed(row, str(error), error.wait)
        except UnknownError as error:
            trace.end("", "unknown")
            return row._replace(note=f"no answer: {error}", due=self._now() + min(1.0, self._unsure))
        trace.end(seen.id, "")
        return self._taken(row, seen)

    def _taken(self, row: BatchRow, seen: Seen) -> BatchRow:
        due = self._now() if seen.ended else self._next(row)
        return row._replace(state="sent", api=seen.id, fails=0, note="", due=due)

    def _next(self, row: BatchRow) -> float:
        """When to ask again for a batch that has not ended: soon at first, for many end within minutes."""
        now = self._now()
        return now + min(self._poll, max(_SOONEST, (now - row.sent) / 4))

    async def _payloads(self, row: BatchRow) -> AsyncIterator[str]:
        after = -1
        while page := await self._store.payloads(row.id, after, _PAGE):
            after = page[-1][0]
            for _, payload in page:
                if payload is None:
                    # What was sent so far is no whole body, and so no batch.
                    raise UnknownError("the tenant of a request was erased meanwhile")
                yield payload

    async def _found(self, row: BatchRow) -> BatchRow:
        """Look for a batch among those of the API that it may have become when its creation was not answered.

        The list says no custom ids, results do: where there is one like it that has not ended, that is waited for.
        """
        like = False
        for seen in await self._api.since(row.sent - _SKEW):
            if seen.total != row.number or await self._store.is_known(seen.id):
                continue
            if not seen.ended:
                like = True
            elif await self._is_ours(row, seen):
                log.info("batch %s of job %s is %s: its creation was not answered", row.id, row.job, seen.id)
                return self._taken(row, seen)
        if like:
            note = "its creation was not answered, and there is one like it: it is looked at when that has ended"
            return row._replace(note=note, due=self._next(row))
        if row.note != _LOOKED:
            # The time runs from here, and not from when it was sent: that may have taken long, and the API as well.
            return row._replace(note=_LOOKED, due=self._now() + self._unsure)
        row = await self._counted(row)
        return row._replace(state="sealed", note="", due=self._now())

    async def _counted(self, row: BatchRow) -> BatchRow:
        """A batch that is to be created again, without the requests whose tenant was erased meanwhile."""
        after, number, size = -1, 0, 0
        while page := await self._store.payloads(row.id, after, _PAGE):
            after = page[-1][0]
            there = [payload for _, payload in page if payload is not None]
            number, size = number + len(there), size + sum(len(payload) + 1 for payload in there)
            gone = [place for place, payload in page if payload is None]
            await self._final(row, [Ended(place, FINAL, "canceled", ERASED) for place in gone])
        return row._replace(number=number, bytes=size)

    async def _is_ours(self, row: BatchRow, seen: Seen) -> bool:
        async for line in self._api.results(seen.id):
            uid, _, place = line["custom_id"].rpartition("-")
            return place.isdecimal() and uid == row.uid and await self._store.whose(uid, int(place)) == row.id
        return False

    # Collecting

    async def _asked(self, row: BatchRow) -> BatchRow:
        seen = await (self._api.cancel(row.api) if row.canceled else self._api.retrieve(row.api))
        if not seen.ended:
            return row._replace(due=self._next(row), fails=0, note="")
        return await self._collected(row)

    async def _collected(self, row: BatchRow) -> BatchRow:
        trace = CollectTrace(self._router.tracer, row)
        try:
            with trace.active():
                await self._read(row, trace)
                if await self._store.payloads(row.id, -1, 1):
                    if row.fetches + 1 < FETCHES:
                        trace.end("incomplete")
                        return self._failed(row._replace(fetches=row.fetches + 1), "results are missing", None)
                    await self._give_up(row, "errored", "the API has no result of it", estimated=True)
                row = await self._settled(row, trace)
        except BaseException as error:
            trace.end(type(error).__name__)
            raise
        trace.end("")
        return row

    async def _read(self, row: BatchRow, trace: CollectTrace) -> None:
        """Take in the results that are there."""
        holds = holds_of([share.hold for share in await self._store.shares(row.id)])
        page: dict[int, dict[str, Any]] = {}
        strange = 0
        async for line in self._api.results(row.api):
            uid, _, place = line["custom_id"].rpartition("-")
            if uid == row.uid and place.isdecimal():
                page[int(place)] = line["result"]
            else:
                strange += 1
            if len(page) == _PAGE:
                await self._keep(row, page, trace, holds)
                page = {}
        await self._keep(row, page, trace, holds)
        if strange:
            log.warning(
                "batch %s of job %s: %d of its results are of no request, and are left out", row.id, row.job, strange
            )

    async def _keep(
        self,
        row: BatchRow,
        page: Mapping[int, dict[str, Any]],
        trace: CollectTrace,
        holds: Mapping[str, Reservation],
    ) -> None:
        facts = await self._store.facts(row.id, list(page))
        found = [self._ended(row, place, page[place], fact) for place, fact in facts.items()]
        if found and not await self._store.collect(row.id, self._owner, found):
            raise UnknownError("somebody else collects it")
        trace.count(found)
        self._booking.ended(row, found, facts, holds, page)

    def _ended(self, row: BatchRow, place: int, result: dict[str, Any], fact: Fact) -> Ended:
        kind, message = result.get("type"), result.get("message")
        if kind == "succeeded" and isinstance(message, dict):
            found = metered(message.get("usage"), Terms(batch=True), message.get("id"))
            raw = json.dumps(message, separators=(",", ":"))
            prices, cost = self._router.prices, None
            if found is not None:
                cost = prices.cost(fact.model, found.usage, found.terms._replace(batch=True))
            if found is None or cost is None:
                return Ended(
                    place, FINAL, "succeeded", raw, fact.worst, estimated=True, plain=fact.worst, top=fact.worst
                )
            plain = prices.cost(fact.model, found.usage, found.terms._replace(batch=False))
            top = prices.cost(self._router.ladder[self._router.ladder.top].model, found.usage, _USUAL)
            plain = cost if plain is None else plain
            return Ended(place, FINAL, "succeeded", raw, cost, plain=plain, top=plain if top is None else top)
        again = WAITING if fact.tries < TRIES and not row.canceled else FINAL
        if kind == "errored":
            error = result.get("error")
            inner = error.get("error") if isinstance(error, dict) else None
            detail = inner if isinstance(inner, dict) else {}
            why = str(detail.get("type") or "error")
            said = f"{why}: {detail.get('message') or ''}"[:500]
            return Ended(place, FINAL if why in _FINAL_ERRORS else again, "errored", said)
        if kind == "canceled":
            return Ended(place, again, "canceled", _CANCELED)
        if kind == "expired":
            return Ended(place, again, "expired", "it was not processed within 24 hours")
        said = "the API gave a result of a kind that is not known"
        worst = fact.worst
        return Ended(place, FINAL, "errored", said, worst, estimated=True, plain=worst, top=worst)

    async def _give_up(self, row: BatchRow, outcome: str, why: str, *, estimated: bool = False) -> None:
        """Give all requests of a batch that have no result this one; `estimated`: they may have been billed."""
        holds = holds_of([share.hold for share in await self._store.shares(row.id)])
        while page := [place for place, _ in await self._store.payloads(row.id, -1, _PAGE)]:
            facts = await self._store.facts(row.id, page)
            costs = {place: facts[place].worst if estimated else 0 for place in page}
            ended = [
                Ended(place, FINAL, outcome, why, worst, estimated, worst, worst) for place, worst in costs.items()
            ]
            if not await self._store.collect(row.id, self._owner, ended):
                raise UnknownError("somebody else has it")
            self._booking.ended(row, ended, facts, holds)

    async def _settled(self, row: BatchRow, trace: CollectTrace | None = None) -> BatchRow:
        """Settle the holds of a batch whose requests have all come back."""
        shares = await self._store.shares(row.id)
        for share in shares:
            held = await settle(
                self._router.ledger,
                self._router.meter,
                share.hold,
                share.cost,
                estimated=share.estimated,
                attempts=share.number if row.api else 0,
            )
            if held is not None:
                self._booking.settled(held, share.cost)
            if trace is not None:
                trace.cost += share.cost
        await self._store.end([share.hold.id for share in shares if not share.waiting])
        waits = any(share.waiting for share in shares)
        return row._replace(state="waiting" if waits else "done", fails=0, note="", due=self._now())

    # Once more

    async def _again(self, row: BatchRow) -> BatchRow:
        """Put requests that wait into a new batch, as far as there is money for them."""
        defer = json.loads(row.settings).get("when_full") == "defer"
        to, left = secrets.token_hex(8), float("inf")
        try:
            for share in await self._store.shares(row.id):
                after = -1
                while page := await self._store.waiting(row.id, share.hold.id, after, MOST_TOGETHER):
                    after = page[-1][0]
                    if row.canceled:
                        ended = [Ended(place, FINAL, "canceled", _CANCELED) for place, _, _ in page]
                        await self._final(row, ended, share.hold)
                        continue
                    for (place, _, outcome), refusal in await self._regrouped(row, to, share, page):
                        if defer and refusal.fits_in is not None:
                            left = min(left, self._now() + max(1.0, refusal.fits_in))
                        else:
                            ended = [Ended(place, FINAL, outcome or "refused", str(refusal))]
                            await self._final(row, ended, share.hold)
                if not await self._store.waiting(row.id, share.hold.id, -1, 1):
                    await self._store.end([share.hold.id])
        finally:
            await self._store.seal(to, self._owner)
        if left == float("inf"):
            return row._replace(state="done", note="", fails=0)
        return row._replace(due=left, note="", fails=0)

    async def _final(self, row: BatchRow, found: Sequence[Ended], hold: Held | None = None) -> None:
        if found and await self._store.collect(row.id, self._owner, found) and hold is not None:
            self._booking.over(found, hold)

    async def _regrouped(
        self, row: BatchRow, to: str, share: Share, page: Sequence[tuple[int, int, str]]
    ) -> list[tuple[tuple[int, int, str], Refusal]]:
        """Hold the money for some of them anew, and let them go. Those that have no room, and why."""
        before, forget = reservation_of(share.hold)
        name, model, bound = before.offer.tier, before.offer.model, before.offer.cost
        offers = tuple((Offer(name, model, None if bound is None else worst),) for _, worst, _ in page)
        lines = tuple(line for line, _ in before.lines)

        async def intend(keys: Sequence[str]) -> None:
            await self._store.intend(row.job, self._owner, keys)

        wanted = Wanted(lines, before.origin, thresholds=False, items=tuple(page), offers=offers)
        taken, turned, intents = await reserve(self._router.ledger, [wanted], intend)
        for got in taken:
            places = [place for place, _, _ in got.wanted.items]
            held = Held(got.held.id, entry_of(got.held, forget))
            if not await self._store.move(row.id, self._owner, to, places, held, [got.key]):
                raise UnknownError("somebody else has it")
            intents.remove(got.key)
        await self._store.end(intents)
        return [(refused.wanted.items[0], refused.refusal) for refused in turned]
