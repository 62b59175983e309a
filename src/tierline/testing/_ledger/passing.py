"""Time: windows that end, clocks that jump, leases that run."""

from __future__ import annotations

from tierline.testing._ledger.world import DAY, HOUR, MINUTE, NOON, TOTAL, Cases, World, at, case, line, rolling
from tierline.windows import Window


class Passing(Cases):
    """What the clock does to balances and holds."""

    @case
    async def test_window_boundary_mid_stream(self, world: World) -> None:
        """A call that ends in the next window is charged to the one it began in."""
        world.clock.now = NOON + 12 * HOUR - 1
        got = await world.hold("a", 60, line())
        world.clock.now += 2
        fresh = await world.hold("b", 100, line())
        assert [span.start for _, span in got.lines + fresh.lines] == [NOON - 12 * HOUR, NOON + 12 * HOUR]
        assert fresh.used == (0,)
        assert await world.ledger.settle(got, 60)
        assert await world.money() == {("b", "acme"): (0, 100)}
        assert await world.ledger.settle(fresh, 30)
        assert await world.money() == {("b", "acme"): (30, 0)}

    @case
    async def test_some_windows_end_in_flight(self, world: World) -> None:
        """Of a call over several windows, those that have not ended are charged."""
        lines = [line(window=unit, budget=unit) for unit in ("minute", "hour", "day", "month", "total")]
        got = await world.hold("a", 60, *lines)
        world.clock.now += HOUR
        await world.ledger.renew([got])
        if world.lease > HOUR:
            return
        assert await world.ledger.settle(got, 10)
        assert await world.money() == {("day", "acme"): (10, 0), ("month", "acme"): (10, 0), ("total", "acme"): (10, 0)}

    @case
    async def test_a_window_that_ends_in_flight_by_lapse(self, world: World) -> None:
        """A hold that lapses after its window is charged to no other."""
        world.clock.now = NOON + HOUR - 1
        await world.hold("a", 60, line(window="hour"), line(budget="d"))
        world.clock.now += world.lease
        assert await world.money() == {("d", "acme"): (60, 0)}
        assert (await world.hold("b", 100, line(window="hour"))).used == (0,)

    @case
    async def test_refusals_say_when_a_window_renews(self, world: World) -> None:
        """A refusal has every number, and of several lines without room names the one that has it again last."""
        world.clock.now = NOON + 10.5
        hour, day, total = (
            line(20, budget="hour", window="hour"),
            line(budget="day"),
            line(budget="total", window=TOTAL),
        )
        await world.spend("a", 10, hour, day, total)
        await world.hold("b", 5, hour, day, total)
        refusal = await world.refusal("c", 6, hour, day, total)
        assert (refusal.budget, refusal.account, refusal.limit) == ("hour", "acme", 20)
        assert (refusal.spent, refusal.held, refusal.needed) == (10, 5, 6)
        assert (refusal.renews_in, refusal.at) == (HOUR - 10.5, NOON + 10.5)
        assert [(each.budget, each.remaining) for each in refusal.budgets] == [("hour", 5), ("day", 85), ("total", 85)]
        refusal = await world.refusal("d", 90, hour, day)
        assert (refusal.budget, refusal.renews_in) == ("day", 12 * HOUR - 10.5)
        refusal = await world.refusal("e", 90, total, hour, day)
        assert (refusal.budget, refusal.renews_in) == ("total", None)
        world.clock.now = NOON + HOUR
        await world.hold("f", 6, hour, day, total)

    @case
    async def test_rolling_windows(self, world: World) -> None:
        """What was spent counts for the length of the window and at most a sixtieth more, each part by itself."""
        hour = line(window=rolling(HOUR))
        await world.spend("a", 40, hour)
        world.clock.now += 30 * MINUTE
        await world.spend("b", 30, hour)
        assert (await world.balances())["b", "acme"].renews_at == NOON + 61 * MINUTE
        world.clock.now = NOON + HOUR
        assert (await world.hold("c", 30, hour)).used == (70,)
        await world.ledger.release("c")
        world.clock.now = NOON + 61 * MINUTE - 1
        assert await world.money() == {("b", "acme"): (70, 0)}
        world.clock.now = NOON + 61 * MINUTE
        assert await world.money() == {("b", "acme"): (30, 0)}
        assert (await world.hold("d", 70, hour)).used == (30,)
        world.clock.now = NOON + 91 * MINUTE
        assert (await world.balances())["b", "acme"].spent == (70 if world.lease <= 30 * MINUTE else 0)
        world.clock.now = NOON + 300 * MINUTE
        assert await world.money() == {}

    @case
    async def test_rolling_windows_tell_when_there_is_room(self, world: World) -> None:
        """A refusal by a rolling window says when enough of it has ended for the call, and then it fits."""
        hour = line(window=rolling(HOUR))
        for number in range(10):
            await world.spend(f"k{number}", 10, hour)
            world.clock.now += 5 * MINUTE
        world.clock.now = NOON + 50 * MINUTE
        for needed, minutes in ((5, 61), (10, 61), (11, 66), (35, 76), (100, 106)):
            refusal = await world.refusal(f"r{needed}", needed, hour)
            assert (refusal.spent, refusal.needed) == (100, needed)
            assert refusal.renews_in == (minutes - 50) * MINUTE, needed
        never = await world.refusal("never", 101, hour)
        assert never.renews_in == (106 - 50) * MINUTE
        world.clock.now = NOON + 76 * MINUTE - 1
        await world.refusal("early", 35, hour)
        world.clock.now += 1
        await world.hold("then", 35, hour)

    @case
    async def test_a_hold_stays_in_its_part_of_a_rolling_window(self, world: World) -> None:
        """A hold counts from when it was made, and so does what it is settled by."""
        hour = line(window=rolling(HOUR))
        got = await world.hold("a", 60, hour)
        for _ in range(40):
            world.clock.now += min(MINUTE, world.lease / 2)
            await world.ledger.renew([got])
        elapsed = world.clock.now - NOON
        assert (await world.hold("b", 40, hour)).used == (60,)
        await world.ledger.release("b")
        assert await world.ledger.settle(got, 50)
        world.clock.now = NOON + max(elapsed, 61 * MINUTE - 1)
        assert await world.money() == ({("b", "acme"): (50, 0)} if elapsed < 61 * MINUTE else {})
        world.clock.now = NOON + max(elapsed, 61 * MINUTE)
        assert await world.money() == {}

    @case
    async def test_windows_of_different_kinds_are_different_accounts(self, world: World) -> None:
        """A plan that changes its window begins with nothing spent, and time zones are told apart."""
        windows: tuple[Window | str, ...] = (
            "minute",
            "hour",
            "day",
            "month",
            "total",
            rolling(DAY),
            rolling(HOUR),
            Window("day", "Asia/Kolkata"),
        )
        for number, window in enumerate(windows):
            assert (await world.hold(f"k{number}", 100, line(window=window))).used == (0,)
        assert len(await world.ledger.balances()) == len(windows)

    @case
    async def test_clock_jump_1h(self, world: World) -> None:
        """A clock that jumps ahead lapses leases; one that falls back brings neither money nor an ended window back."""
        hour = line(budget="hour", window="hour")
        got = await world.hold("a", 100, hour)
        world.clock.now += HOUR
        await world.hold("b", 70, hour)
        assert await world.ledger.settle(got, 100)
        world.clock.now -= HOUR
        refusal = await world.refusal("c", 40, hour)
        assert (refusal.held, refusal.renews_in, refusal.at) == (70, HOUR, NOON + HOUR)
        assert await world.money() == {("hour", "acme"): (0, 70)}
        world.clock.now += world.lease - 1
        assert await world.money() == {("hour", "acme"): (0, 70)}
        world.clock.now += 1
        assert await world.money() == {("hour", "acme"): (70, 0)}, "leases go on while the clock catches up"
        world.clock.now = NOON + 2 * HOUR
        assert await world.money() == {}

    @case
    async def test_a_clock_that_trembles(self, world: World) -> None:
        """Leases are counted in the steps that the clock goes forward, however often it is put back."""
        got = await world.hold("a", 10, line())
        for _ in range(9):
            world.clock.now += world.lease / 10
            assert await world.money() == {("b", "acme"): (0, 10)}
            world.clock.now -= HOUR
            assert await world.money() == {("b", "acme"): (0, 10)}
        world.clock.now += world.lease / 10
        assert await world.money() == {("b", "acme"): (10, 0)}
        assert await world.ledger.settle(got, 4)

    @case
    async def test_a_hold_made_while_the_clock_is_back(self, world: World) -> None:
        """It lives for a whole lease, and belongs to the window in which time stands still."""
        await world.hold("a", 10, line(window="minute"))
        world.clock.now -= HOUR
        got = await world.hold("b", 20, line(window="minute"))
        assert [span.start for _, span in got.lines] == [NOON]
        assert [hold.lapses_at for hold in await world.ledger.holds() if hold.id == "b"] == [NOON + world.lease]
        world.clock.now += world.lease - 1
        assert (await world.balances())["b", "acme"].held >= 20
        world.clock.now += 1
        assert (await world.balances())["b", "acme"].held == 0

    @case
    async def test_when_a_hold_lapses_after_the_clock_was_put_back(self, world: World) -> None:
        """Once the clock has caught up, holds say by it when they lapse."""
        world.clock.now -= HOUR
        assert await world.balances() == {}
        world.clock.now += 2 * HOUR
        await world.hold("a", 10, line())
        (hold,) = await world.ledger.holds()
        assert (hold.at, hold.lapses_at) == (NOON + HOUR, NOON + HOUR + world.lease)

    @case
    async def test_dst_month_end_leap(self, world: World) -> None:
        """Money is there again with the first second of the next month or day, leap or not, 23 hours long or 25."""
        berlin = Window("day", "Europe/Berlin")
        month = Window("month")
        for number, (begins, window, ends) in enumerate(
            (
                (at(2027, 2, 28, 12), month, at(2027, 3, 1)),
                (at(2027, 3, 27, 23), berlin, at(2027, 3, 28, 22)),
                (at(2027, 10, 30, 22), berlin, at(2027, 10, 31, 23)),
                (at(2027, 12, 31, 12), month, at(2028, 1, 1)),
                (at(2028, 2, 28, 0), Window("day"), at(2028, 2, 29)),
                (at(2028, 2, 29, 0), month, at(2028, 3, 1)),
                (at(2028, 4, 30, 12), Window("month", "America/Havana"), at(2028, 5, 1, 4)),
            )
        ):
            shared = line(window=window, budget=f"b{number}")
            world.clock.now = begins
            await world.spend(f"a{number}", 100, shared)
            assert (await world.balances())[f"b{number}", "acme"].renews_at == ends
            world.clock.now = ends - 1
            assert (await world.refusal(f"b{number}", 1, shared)).renews_in == 1.0
            world.clock.now = ends
            assert (await world.hold(f"c{number}", 100, shared)).used == (0,)
            await world.ledger.release(f"c{number}")

    @case
    async def test_leases_end_one_by_one(self, world: World) -> None:
        """Each hold has its own lease, in whatever order they were begun and renewed."""
        holds = []
        for number in range(5):
            holds.append(await world.hold(f"k{number}", 10**number, line(10**6)))
            world.clock.now += world.lease / 10
        await world.ledger.renew([holds[3], holds[0]])
        left = [hold.id for hold in await world.ledger.holds()]
        assert left == [f"k{number}" for number in range(5)]
        for lapsed, time in ((10, 11), (100, 12), (10_000, 14), (1_001, 15)):
            before = (await world.balances())["b", "acme"].spent
            world.clock.now = NOON + time * world.lease / 10
            assert (await world.balances())["b", "acme"].spent - before == lapsed
        assert await world.ledger.holds() == []
