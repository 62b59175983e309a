"""Many callers at once: on one loop, on several threads, cancelled."""

from __future__ import annotations

from asyncio import CancelledError, Runner, create_task, gather, new_event_loop, sleep
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from tierline.ledger.base import Reservation
from tierline.testing._ledger.world import TOTAL, Cases, World, case, line, offer, rolling

if TYPE_CHECKING:
    from tierline.budgets import Line
    from tierline.ledger.base import Ledger
    from tierline.values import Refusal


class Competing(Cases):
    """What concurrency does to the last dollar: nothing."""

    @case
    async def test_thundering_herd_last_dollar(self, world: World) -> None:
        """Of many calls for the last dollar exactly those are admitted that fit, whichever process they come from."""
        room = self.herd // 3
        lines = [line(10 * room + 9), line(10**9, budget="wide", window=TOTAL), line(10**9, window=rolling(3600))]

        async def one(number: int) -> Reservation | Refusal:
            ledger = world.objects[number % len(world.objects)]
            return await ledger.reserve(f"k{number}", [offer(10)], lines)

        found = await gather(*(one(number) for number in range(self.herd)))
        admitted = [each for each in found if isinstance(each, Reservation)]
        assert len(admitted) == room
        assert sorted(each.used[0] for each in admitted) == [10 * number for number in range(room)]
        assert {each.held for each in await world.ledger.balances()} == {10 * room}
        ended = await gather(*(world.other.settle(each, 7) for each in admitted))
        assert all(ended)
        assert {(each.spent, each.held) for each in await world.ledger.balances()} == {(7 * room, 0)}

    @case
    async def test_endings_compete(self, world: World) -> None:
        """However many end one hold at once, one of them does it."""
        got = [await world.hold(f"k{number}", 10, line(10**6)) for number in range(10)]
        ended = await gather(
            *(ledger.settle(each, 3) for each in got for ledger in world.objects * 5),
            *(world.ledger.release(each.id) for each in got),
            *(world.other.post(each, 3) for each in got),
        )
        assert sum(ended) == len(got)
        balance = (await world.balances())["b", "acme"]
        assert balance.held == 0
        assert balance.spent % 3 == 0

    @case
    async def test_one_id_from_many_callers(self, world: World) -> None:
        """Repetitions that come at once hold once."""
        found = await gather(
            *(world.objects[n % len(world.objects)].reserve("a", [offer(60)], [line()]) for n in range(20))
        )
        assert {each.cost for each in found if isinstance(each, Reservation)} == {60}
        assert all(isinstance(each, Reservation) for each in found)
        assert await world.money() == {("b", "acme"): (0, 60)}

    @case
    async def test_cancelled_and_released(self, world: World) -> None:
        """A reserve that is cancelled at any point holds nothing once its id is released."""
        for turns in range(6):
            keys = [f"k{turns} {number}" for number in range(10)]
            tasks = [create_task(world.ledger.reserve(key, [offer(1)], [line(10**6)])) for key in keys]
            for _ in range(turns):
                await sleep(0)
            for task in tasks:
                task.cancel()
            found = await gather(*tasks, return_exceptions=True)
            assert all(isinstance(each, (Reservation, CancelledError)) for each in found), found
            await gather(*(world.ledger.release(key) for key in keys))
        assert await world.money() == {}
        assert await world.ledger.holds() == []

    @case
    async def test_threads_with_loops_of_their_own(self, world: World) -> None:
        """Any thread and any event loop may call one object, and no money is lost or made between them."""
        calls, limit = self.herd // self.threads, 5 * self.herd
        lines = [line(limit), line(10**9, budget="wide")]
        with ThreadPoolExecutor(self.threads) as pool:
            spent = list(pool.map(lambda name: _on_a_loop(world.ledger, name, calls, lines), range(self.threads)))
        assert await world.money() == {("b", "acme"): (sum(spent), 0), ("wide", "acme"): (sum(spent), 0)}
        assert sum(spent) <= limit
        (hour,) = await world.ledger.history(0)
        assert hour.cost == sum(spent)


def _on_a_loop(ledger: Ledger, name: int, calls: int, lines: list[Line]) -> int:
    """What `calls` calls of one thread have spent, some at a time."""

    async def one(number: int) -> int:
        found = await ledger.reserve(f"{name}:{number}", [offer(10)], lines)
        if not isinstance(found, Reservation):
            return 0
        if number % 5 == 0:
            assert await ledger.release(found.id)
            return 0
        assert await ledger.settle(found, number % 10)
        return number % 10

    async def work() -> int:
        spent = 0
        for first in range(0, calls, 8):
            spent += sum(await gather(*(one(number) for number in range(first, min(first + 8, calls)))))
        await ledger.aclose()
        return spent

    with Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work())
