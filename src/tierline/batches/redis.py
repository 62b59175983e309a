"""Jobs in a Redis, for any number of machines: in the ledger's namespace, over its connections."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tierline.batches.jobs import ERASED, BatchRow, Begun, Counts, Fact, Held, ResultRow, Share, Tally, waits_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tierline.batches.jobs import Ended, Item
    from tierline.store.redis import RedisStore


class RedisJobs:
    """A `JobStore` in a Redis: one script for each step. Leases, in seconds, run by the server's clock."""

    def __init__(self, store: RedisStore, *, lease: float) -> None:
        self._store = store
        self._lease = str(lease)
        self._keys = (f"{store.prefix}batches",)

    async def _run(self, name: str, *arguments: str) -> Any:
        said = (self._lease, *arguments)
        return json.loads(await self._store.script(f"batches/{name}", self._keys, lambda _: said))

    async def begin(self, job: str, uid: str, owner: str, settings: str) -> Begun:
        """See `JobStore`."""
        return Begun(*await self._run("begin", job, uid, owner, settings))

    async def known(self, job: str, first: int, last: int, names: Sequence[str]) -> tuple[set[int], dict[str, int]]:
        """See `JobStore`."""
        places, there = await self._run("known", job, str(first), str(last), *names)
        return set(map(int, places)), {name: int(place) for name, place in there}

    async def intend(self, job: str, owner: str, holds: Sequence[str]) -> None:  # noqa: ARG002  (as the protocol has it)
        """See `JobStore`."""
        await self._run("intend", owner, *holds)

    async def add(
        self, job: str, owner: str, batch: str, items: Sequence[Item], holds: Sequence[Held], intents: Sequence[str]
    ) -> bool:
        """See `JobStore`."""
        said = [job, owner, batch, waits_in(batch), json.dumps(intents), json.dumps(holds)]
        for item in items:
            said += str(item.place), _item(item), item.payload or "", item.result or ""
        return bool((await self._run("add", *said))[0])

    async def seal(self, batch: str, owner: str) -> bool:
        """See `JobStore`."""
        return bool((await self._run("seal", batch, owner))[0])

    async def finish(self, job: str, owner: str, *, whole: bool) -> None:
        """See `JobStore`."""
        await self._run("finish", job, owner, str(int(whole)))

    async def take(self, owner: str, limit: int) -> list[BatchRow]:
        """See `JobStore`."""
        return [_row(each) for each in await self._run("take", owner, str(limit))]

    async def keep(self, owner: str) -> None:
        """See `JobStore`."""
        await self._run("keep", owner)

    async def save(self, row: BatchRow, owner: str, *, give_back: bool) -> bool:
        """See `JobStore`."""
        numbers = str(row.number), str(row.bytes), repr(float(row.sent)), str(row.fails)
        said = (row.state, repr(float(row.due)), row.api, *numbers, row.note, row.trace, str(row.fetches))
        return bool((await self._run("save", row.id, owner, str(int(give_back)), *said))[0])

    async def payloads(self, batch: str, after: int, limit: int) -> list[tuple[int, str | None]]:
        """See `JobStore`."""
        found = await self._run("payloads", batch, str(after), str(limit))
        return [(int(place), text or None) for place, text in found]

    async def collect(self, batch: str, owner: str, found: Sequence[Ended]) -> bool:
        """See `JobStore`."""
        said: list[str] = []
        for each in found:
            result = "" if each.result is None else f"+{each.result}"
            said += str(each.place), str(each.state), each.outcome, result, str(each.cost), str(int(each.estimated))
            said += str(each.plain), str(each.top)
        return bool((await self._run("collect", batch, owner, ERASED, *said))[0])

    async def facts(self, batch: str, places: Sequence[int]) -> dict[int, Fact]:
        """See `JobStore`."""
        found = await self._run("facts", batch, *map(str, places))
        return {int(place): Fact(int(tries), int(worst), *rest) for place, tries, worst, *rest in found}

    async def shares(self, batch: str) -> list[Share]:
        """See `JobStore`."""
        return [
            Share(Held(id_, entry), int(cost), estimated, waits, int(number))
            for id_, entry, cost, estimated, waits, number in await self._run("shares", batch)
        ]

    async def waiting(self, batch: str, hold: str, after: int, limit: int) -> list[tuple[int, int, str]]:
        """See `JobStore`."""
        found = await self._run("waiting", batch, hold, str(after), str(limit))
        return [(int(place), int(worst), outcome) for place, worst, outcome in found]

    async def move(
        self, batch: str, owner: str, to: str, places: Sequence[int], hold: Held, intents: Sequence[str]
    ) -> bool:
        """See `JobStore`."""
        said = (batch, owner, to, hold.id, hold.entry, json.dumps(intents), *map(str, places))
        return bool((await self._run("move", *said))[0])

    async def end(self, holds: Sequence[str]) -> None:
        """See `JobStore`."""
        await self._run("end", *holds)

    async def holds(self, after: str, limit: int) -> list[Held]:
        """See `JobStore`."""
        return [Held(*each) for each in await self._run("holds", after, str(limit))]

    async def lapsed(self, limit: int) -> list[str]:
        """See `JobStore`."""
        return list(await self._run("lapsed", str(limit)))

    async def whose(self, uid: str, place: int) -> str:
        """See `JobStore`."""
        return str((await self._run("whose", uid, str(place)))[0])

    async def is_known(self, api: str) -> bool:
        """See `JobStore`."""
        return bool((await self._run("is_known", api))[0])

    async def results(self, job: str, after: int, limit: int) -> list[ResultRow]:
        """See `JobStore`."""
        return [_result(*each) for each in await self._run("results", job, str(after), str(limit))]

    async def found(self, job: str, places: Sequence[int]) -> list[ResultRow]:
        """See `JobStore`."""
        return [_result(*each) for each in await self._run("found", job, *map(str, places))]

    async def counts(self, job: str) -> Counts | None:
        """See `JobStore`."""
        found = await self._run("counts", job)
        if not found:
            return None
        whole, busy, settings, flat, left, notes = found
        sums = dict(zip(flat[::2], map(int, flat[1::2]), strict=True)) if flat else {}
        outcomes = {
            key[1:]: (number, sums.get(f"c{key[1:]}", 0)) for key, number in sums.items() if key[0] == "n" and number
        }
        return Counts(whole, busy, settings, outcomes, sums.get("w", 0), left, tuple(notes))

    async def over(self, job: str) -> bool | None:
        """See `JobStore`."""
        found = await self._run("over", job)
        return found[0] if found else None

    async def tally(self, job: str) -> list[Tally]:
        """See `JobStore`."""
        found: dict[tuple[str, str, str], dict[str, int]] = {}
        for field, number in await self._run("tally", job):
            tenant, tier, outcome, kind = json.loads(field)
            found.setdefault((tenant, tier, outcome), {})[kind] = int(number)
        return [
            Tally(*key, *(each.get(kind, 0) for kind in ("n", "cost", "plain", "top", "guesses")))
            for key, each in sorted(found.items())
            if each.get("n")
        ]

    async def sent(self, job: str) -> list[BatchRow]:
        """See `JobStore`."""
        return [_row(each) for each in await self._run("sent", job)]

    async def left(self) -> bool:
        """See `JobStore`."""
        return bool((await self._run("left"))[0])

    async def under_way(self) -> int:
        """See `JobStore`."""
        return int((await self._run("under_way"))[0])

    async def jobs(self) -> list[str]:
        """See `JobStore`."""
        return list(await self._run("jobs"))

    async def cancel(self, job: str) -> None:
        """See `JobStore`."""
        await self._run("cancel", job)

    async def erase(self, job: str) -> bool:
        """See `JobStore`."""
        return bool((await self._run("erase", job))[0])

    async def retire(self, seconds: float) -> int:
        """See `JobStore`."""
        return int((await self._run("retire", str(seconds)))[0])

    async def sweep(self, limit: int) -> bool:  # noqa: ARG002  (the server frees what was forgotten by itself)
        """See `JobStore`."""
        return False

    async def forget(self, job: str, tenant: str, after: int, limit: int) -> int | None:
        """See `JobStore`."""
        (last,) = await self._run("forget", job, tenant, str(after), str(limit), ERASED)
        return None if last == "" else int(last)


def _item(item: Item) -> str:
    """A request as the scripts keep it: all of it text."""
    tries = str(item.tries or int(item.state == 1))
    about = (item.name or "", "", item.hold, str(item.state), tries, str(item.worst), item.tier, item.model)
    came = (str(item.cost), str(int(item.estimated)), item.tenant, str(item.plain), str(item.top))
    return json.dumps([*about, item.outcome, *came, item.said])


def _result(place: str, item: list[str], result: object) -> ResultRow:
    name, _, _, _, tries, _, tier, model, outcome, cost, estimated, *_ = item
    text = result if isinstance(result, str) else None
    return ResultRow(int(place), name or None, outcome, text, tier, model, int(cost), estimated == "1", int(tries))


def _row(found: list[Any]) -> BatchRow:
    id_, job, state, due, api, number, size, sent, fails, note, trace, fetches, uid, canceled, settings = found
    return BatchRow(
        id_, job, uid, state, float(due), api, int(number), int(size), float(sent), int(fails), note, trace,
        int(fetches), canceled == "1", settings,
    )  # fmt: skip
