"""What operators ask and say: limits, alerts, spend by hour, holds, erasing."""

from __future__ import annotations

from tierline.ledger.base import Alert, Balance, Fullest, Hold, Origin, Reservation, Spent, by_share
from tierline.testing._ledger.world import (
    DAY,
    HOUR,
    MINUTE,
    NOON,
    TOTAL,
    Cases,
    World,
    case,
    line,
    offer,
    rolling,
    value_error,
)  # fmt: skip
from tierline.values import Offer
from tierline.windows import Window

ACME = Origin("acme", "/chat")
OWN = Origin("acme", "/chat", own=True)


class Operating(Cases):
    """What `balances`, `fullest`, `holds`, `history`, `set_limit`, `erase` and `watch` do."""

    @case
    async def test_balances(self, world: World) -> None:
        """Every account with its money, limit and window; or those of one name."""
        await world.spend("a", 10, line(), line(5, budget="soft", window=TOTAL, hard=False))
        await world.hold("b", 20, line(account="umbrella", window=rolling(DAY)))
        day = Balance("b", "acme", 10, 0, 100, NOON + 12 * HOUR, 0, True, "day")
        soft = Balance("soft", "acme", 10, 0, 5, None, 0, False, "total")
        last = Balance("b", "umbrella", 0, 20, 100, NOON + DAY + DAY / 60, 0, True, f"rolling {DAY}")
        assert sorted(await world.other.balances(), key=repr) == sorted([day, soft, last], key=repr)
        assert sorted(await world.ledger.balances("acme"), key=repr) == sorted([day, soft], key=repr)
        assert await world.ledger.balances("umbrella") == [last]
        assert await world.ledger.balances("nobody") == []

    @case
    async def test_balances_show_the_limit_that_was_last_given(self, world: World) -> None:
        """A plan may change: the balance has the limit of the latest call."""
        await world.hold("a", 60, line(100))
        await world.hold("b", 1, line(90))
        assert (await world.balances())["b", "acme"].limit == 90

    @case
    async def test_the_fullest(self, world: World) -> None:
        """As many as are asked for, by what is spent and held of the limit that holds; and how many there are."""
        accounts = ["0", "acme", 'a"b', 'x,"acme', "ünï ☃", "null"]
        for number, account in enumerate(accounts):
            await world.spend(f"spent {account}", 10 * number + 1, line(account=account))
            await world.hold(f"held {account}", number, line(account=account))
        rolls = line(1_000, account="acme", budget="rolls", window=rolling(DAY))
        await world.spend("old", 300, rolls)
        await world.spend("once", 7, line(account="acme", budget="once", window=TOTAL, hard=False))
        world.clock.now += 6 * HOUR
        await world.spend("new", 640, rolls)
        await world.spend("gone", 99, line(account="acme", budget="minute", window=Window("minute")))
        world.clock.now += MINUTE
        await world.ledger.set_limit("b", None, 60)
        await world.ledger.set_limit("b", "0", 2)
        await world.ledger.set_limit("b", "null", 9_000)
        there = sorted(await world.ledger.balances(), key=by_share)
        assert [(each.budget, each.account, each.share) for each in there] == [
            ("rolls", "acme", 0.94), ("b", "ünï ☃", 45 / 60), ("b", 'x,"acme', 34 / 60), ("b", "0", 1 / 2),
            ("b", 'a"b', 23 / 60), ("b", "acme", 12 / 60), ("once", "acme", 0.07), ("b", "null", 56 / 9_000),
        ]  # fmt: skip
        for most in (0, 1, 3, 8, 50):
            for ledger in world.objects:
                assert await ledger.fullest(most) == Fullest(
                    tuple(there[:most]), len(there), frozenset({"b", "rolls", "once"})
                )

    @case
    async def test_the_fullest_of_none(self, world: World) -> None:
        """Without a charge that counts there is none; holds of the dead are charged before it is looked."""
        assert await world.other.fullest(5) == Fullest((), 0, frozenset())
        await world.hold("a", 40, line())
        world.clock.now += world.lease + 1
        (found,) = (await world.other.fullest(5)).balances
        assert (found.spent, found.held, found.estimated) == (40, 0, 40)
        world.clock.now = NOON + 12 * HOUR
        assert await world.ledger.fullest(5) == Fullest((), 0, frozenset())

    @case
    async def test_the_fullest_of_many(self, world: World) -> None:
        """Whatever steps a store takes to look at all accounts, none is left out; of equals any may be told."""
        for number in range(10):  # many at once, for it takes a while to make them one by one
            await world.spend(f"{number}", 1 + number, *(line(account=f"{number}-{each}") for each in range(70)))
            if number % 3 == 0:
                await world.spend(f"much {number}", 80 + number, line(account=f"{number}-{number}"))
        found = await world.ledger.fullest(40)
        everyone = sorted(await world.ledger.balances(), key=by_share)
        assert [each.share for each in found.balances] == [each.share for each in everyone[:40]]
        assert set(found.balances[:4]) == set(everyone[:4])
        assert set(found.balances) <= set(everyone)
        assert len(set(found.balances)) == 40
        assert (found.number, found.budgets) == (700, frozenset({"b"}))
        assert await world.other.fullest(40) == found

    @case
    async def test_holds(self, world: World) -> None:
        """Every hold with its money, where it comes from and when it lapses, oldest first."""
        first = await world.hold("z", [offer(30, "opus")], line(), line(budget="c", account="x"), origin=ACME)
        world.clock.now += 5
        await world.hold("a", 5)
        got = Hold(
            "z", "opus", "claude-opus", 30, NOON, NOON + world.lease, (("b", "acme"), ("c", "x")), "acme", "/chat"
        )
        other = Hold("a", "haiku", "claude-haiku", 5, NOON + 5, NOON + 5 + world.lease, ())
        assert await world.ledger.holds() == [got, other]
        assert await world.other.holds() == [got, other]
        await world.ledger.renew([first])
        assert [hold.lapses_at for hold in await world.ledger.holds()] == [NOON + 5 + world.lease] * 2
        await world.ledger.settle(first, 3)
        assert await world.other.holds() == [other]
        world.clock.now += world.lease
        assert await world.other.holds() == []

    # Limits

    @case
    async def test_limit_lowered_midflight(self, world: World) -> None:
        """Holds from before a limit was lowered stay, and nothing more passes until there is room."""
        got = await world.hold("a", 60, line())
        await world.other.set_limit("b", "acme", 50)
        refusal = await world.refusal("b", 1, line())
        assert (refusal.limit, refusal.held) == (50, 60)
        assert refusal.budgets[0].remaining == -10
        assert (await world.balances())["b", "acme"].limit == 50
        assert await world.ledger.settle(got, 20)
        got = await world.hold("c", 30, line())
        assert (got.lines[0][0].limit, got.remaining[0].remaining) == (50, 0)

    @case
    async def test_limit_of_the_line_lowered_midflight(self, world: World) -> None:
        """The limit that counts is the one that the call brings."""
        await world.hold("a", 60, line(100))
        await world.refusal("b", 1, line(50))
        await world.hold("c", 30, line(90))

    @case
    async def test_limits_are_set_and_taken_back(self, world: World) -> None:
        """One of an account's own stands over one of all accounts, and that over what the app says."""
        await world.ledger.set_limit("b", None, 200)
        await world.ledger.set_limit("b", "acme", 300)
        assert await world.other.limits() == {("b", None): 200, ("b", "acme"): 300}
        await world.hold("a", 300, line())
        await world.refusal("b", 1, line())
        await world.hold("c", 200, line(account="umbrella"))
        await world.refusal("d", 1, line(account="umbrella"))
        await world.refusal("e", 101, line(budget="other"))
        shown = await world.balances()
        assert (shown["b", "acme"].limit, shown["b", "umbrella"].limit) == (300, 200)
        await world.other.set_limit("b", "acme", None)
        await world.other.set_limit("b", "never set", None)
        assert await world.ledger.limits() == {("b", None): 200}
        assert (await world.balances())["b", "acme"].limit == 200
        await world.ledger.set_limit("b", None, None)
        assert await world.other.limits() == {}
        shown = await world.balances()
        assert (shown["b", "acme"].limit, shown["b", "umbrella"].limit) == (100, 100)

    @case
    async def test_a_limit_raised_while_refusing(self, world: World) -> None:
        """A limit holds from the next call on; thresholds go with it."""
        shared = line(100, downgrade_at=0.5, cheapest_at=None)
        await world.hold("a", 100, shared)
        await world.refusal("b", 50, shared)
        await world.ledger.set_limit("b", "acme", 1000)
        assert (await world.hold("b", [offer(50, "opus"), offer(10)], shared)).offer.tier == "opus"
        await world.ledger.set_limit("b", "acme", 250)
        assert (await world.hold("c", [offer(50, "opus"), offer(10)], shared)).offer.tier == "haiku"

    @case
    async def test_limits_that_cannot_be(self, world: World) -> None:
        """A limit is a whole number of nano-USD above 0."""
        for limit in (0, -5, 1.5, "100", True):
            await value_error(world.ledger.set_limit("b", "acme", limit))  # type: ignore[arg-type]
        assert await world.ledger.limits() == {}

    # Alerts

    @case
    async def test_alerts_once_over_all_processes(self, world: World) -> None:
        """Each share is told once in a window, to whoever brought it about, with the numbers."""
        told, watched = world.watch(), line(alert_at=(0.5, 0.8, 1.0))
        await world.spend("a", 49, watched)
        assert told == []
        await world.spend("b", 1, watched)
        (alert,) = told
        assert (alert.budget, alert.account, alert.share) == ("b", "acme", 0.5)
        assert (alert.spent, alert.limit, alert.renews_at, alert.refused) == (50, 100, NOON + 12 * HOUR, False)
        got = await world.hold("c", 50, watched)
        assert await world.other.settle(got, 45)
        assert world.told() == [("acme", 0.5, 50), ("acme", 0.8, 95)]
        await world.spend("d", 5, watched)
        assert world.told() == [("acme", 1.0, 100)]
        await world.refusal("e", 1, watched)
        assert world.told() == []
        world.clock.now += DAY
        await world.spend("f", 100, watched)
        assert sorted(world.told()) == [("acme", 0.5, 100), ("acme", 0.8, 100), ("acme", 1.0, 100)]

    @case
    async def test_alerts_are_told_where_they_come_about(self, world: World) -> None:
        """A listener hears of what calls of its own object bring about, and of no other's."""
        if world.other is world.ledger:
            return
        here: list[Alert] = []
        there: list[Alert] = []
        world.ledger.watch(here.append)
        world.other.watch(there.append)
        got = await world.hold("a", 80, line(alert_at=(0.8,)))
        await world.other.settle(got, 80)
        assert (len(here), len(there)) == (0, 1)

    @case
    async def test_alert_at_a_refusal(self, world: World) -> None:
        """A call that is refused reaches the whole limit, once in a window; it does not reach the shares below."""
        told = world.watch()
        watched, silent = line(alert_at=(0.8, 1.0)), line(budget="silent", alert_at=(0.8,))
        await world.spend("a", 60, watched, silent)
        await world.refusal("b", 50, watched)
        await world.refusal("c", 50, watched)
        await world.refusal("d", 50, silent)
        (alert,) = told
        assert (alert.budget, alert.share, alert.spent, alert.refused) == ("b", 1.0, 60, True)
        told.clear()
        await world.spend("e", 40, watched)
        assert world.told() == [("acme", 0.8, 100)]

    @case
    async def test_a_refusal_alerts_for_the_line_that_refuses(self, world: World) -> None:
        """Lines that had room say nothing."""
        told = world.watch()
        wide, narrow = line(1000, budget="wide", alert_at=(1.0,)), line(10, budget="narrow", alert_at=(1.0,))
        await world.hold("a", 5, wide, narrow)
        await world.refusal("b", 6, wide, narrow)
        assert [alert.budget for alert in told] == ["narrow"]

    @case
    async def test_alert_at_a_lapse(self, world: World) -> None:
        """What a hold is charged when its lease ends counts, and is told by whoever finds it."""
        watched = line(alert_at=(0.5,))
        world.watch()
        got = await world.hold("a", 60, watched)
        world.clock.now += world.lease
        await world.balances()
        assert world.told() == [("acme", 0.5, 60)]
        await world.ledger.settle(got, 1)
        await world.spend("b", 90, watched)
        assert world.told() == []

    @case
    async def test_alert_by_a_post(self, world: World) -> None:
        """What was spent elsewhere counts as well."""
        watched = line(alert_at=(0.5,))
        world.watch()
        made = (await world.hold("a", 1, watched))._replace(id="elsewhere")
        await world.ledger.post(made, 70)
        assert world.told() == [("acme", 0.5, 70)]

    @case
    async def test_alerts_of_soft_lines_and_of_several(self, world: World) -> None:
        """A soft line is what alerts are for; accounts and budgets are told apart."""
        world.watch()
        soft, hard = line(10, budget="s", hard=False, alert_at=(1.0,)), line(alert_at=(0.2,))
        await world.spend("a", 25, soft, hard)
        await world.spend("b", 25, soft, hard)
        assert sorted(world.told()) == [("acme", 0.2, 25), ("acme", 1.0, 25)]
        await world.spend("c", 10, line(10, account="umbrella", budget="s", hard=False, alert_at=(1.0,)))
        assert world.told() == [("umbrella", 1.0, 10)]

    @case
    async def test_alerts_of_a_limit_that_was_set(self, world: World) -> None:
        """Shares are those of the limit that holds; one that was told is not told again where the limit changes."""
        watched = line(alert_at=(0.5, 0.8))
        world.watch()
        await world.ledger.set_limit("b", "acme", 1000)
        await world.spend("a", 90, watched)
        assert world.told() == []
        await world.ledger.set_limit("b", "acme", 180)
        await world.spend("b", 1, watched)
        assert [(alert.share, alert.limit) for alert in world.alerts] == [(0.5, 180)]
        world.alerts.clear()
        await world.ledger.set_limit("b", "acme", 1000)
        await world.spend("c", 409, watched)
        assert world.told() == []
        await world.spend("d", 300, watched)
        assert world.told() == [("acme", 0.8, 800)]

    @case
    async def test_alerts_of_a_limit_that_was_set_in_flight(self, world: World) -> None:
        """What was held before is told of by the limit that holds when it is settled."""
        watched = line(alert_at=(0.8,))
        world.watch()
        await world.spend("a", 30, watched)
        got = await world.hold("b", 20, watched)
        await world.ledger.set_limit("b", None, 50)
        await world.ledger.settle(got, 10)
        assert [(alert.share, alert.spent, alert.limit) for alert in world.alerts] == [(0.8, 40, 50)]

    @case
    async def test_no_alerts_of_what_is_gone(self, world: World) -> None:
        """Nothing is told of accounts that were forgotten or erased, or whose window has ended."""
        watched = line(alert_at=(0.5,))
        world.watch()
        forgotten = await world.hold("a", 90, watched)
        await world.ledger.forget([watched])
        assert await world.ledger.settle(forgotten, 90)
        erased = await world.hold("b", 90, watched)
        await world.ledger.erase("acme")
        assert await world.ledger.settle(erased, 90)
        ended = await world.hold("c", 90, watched)
        world.clock.now += DAY
        assert await world.ledger.settle(ended, 90)
        assert world.told() == []

    @case
    async def test_alerts_of_rolling_windows(self, world: World) -> None:
        """What counts is the sum of the parts that have not ended; it is told again when the window has passed."""
        watched = line(window=rolling(HOUR), alert_at=(0.5,))
        world.watch()
        for number in range(5):
            await world.spend(f"k{number}", 10, watched)
            world.clock.now += MINUTE
        assert world.told() == [("acme", 0.5, 50)]
        await world.spend("more", 20, watched)
        assert world.told() == []
        world.clock.now += 2 * HOUR
        await world.spend("again", 40, watched)
        assert world.told() == []
        await world.spend("and again", 10, watched)
        assert world.told() == [("acme", 0.5, 50)]

    # Spend by hour

    @case
    async def test_history(self, world: World) -> None:
        """Spend by hour, tenant, route and tier, with or without budgets, the same in every process."""
        await world.spend("a", 30, line(), origin=ACME)
        await world.spend("b", 5, origin=ACME)
        await world.spend("c", 2, origin=OWN)
        await world.ledger.settle(await world.hold("d", [offer(50, "opus")], origin=ACME), 40, estimated=True)
        world.clock.now += HOUR
        await world.spend("e", 7)
        expected = [
            Spent(NOON, "acme", "/chat", "haiku", 2, 37, own=2),
            Spent(NOON, "acme", "/chat", "opus", 1, 40, estimated=40),
            Spent(NOON + HOUR, None, None, "haiku", 1, 7),
        ]
        for ledger in world.objects:
            assert sorted(await ledger.history(0), key=_order) == expected
        assert sorted(await world.ledger.history(NOON, NOON + HOUR), key=_order) == expected[:2]
        assert await world.ledger.history(NOON + 1) == expected[2:]
        assert await world.ledger.history(NOON + HOUR + 1) == []
        assert await world.ledger.history(0, NOON) == []

    @case
    async def test_names_that_somebody_has_sent(self, world: World) -> None:
        """Tenants and models may come from outside: nothing in them fails a call, or one after it."""
        for place, name in enumerate(("\ud800", 'nul \0"]}', "long" * 100_000, "é\U0001f600")):
            asked = Offer("haiku", name, 10)
            held = await world.hold(str(place), [asked], line(), origin=Origin(name, name))
            assert isinstance(again := await world.ledger.reserve(str(place), [asked], [line()]), Reservation)
            assert again.offer == asked
            assert len(await world.other.holds()) == 1
            assert await world.ledger.settle(held, 5)
            assert await world.ledger.post(held._replace(id=f"{place} posted"), 1)
        assert (await world.balances())["b", "acme"].spent == 24
        rows = await world.other.history(0)
        assert [row.cost for row in rows] == [6] * 4

    @case
    async def test_history_is_in_order(self, world: World) -> None:
        """Hours come oldest first, however they were booked."""
        late = await world.hold("a", 1, origin=ACME)
        world.clock.now += HOUR
        await world.spend("b", 2, origin=ACME)
        await world.ledger.settle(late, 1)
        assert [(row.hour, row.cost) for row in await world.ledger.history(0)] == [(NOON, 1), (NOON + HOUR, 2)]

    @case
    async def test_history_of_an_hour(self, world: World) -> None:
        """A charge is booked to the hour in which its hold was made, to the second."""
        world.clock.now = NOON + HOUR - 0.5
        got = await world.hold("a", 5, origin=ACME)
        world.clock.now += 1
        await world.spend("b", 3, origin=ACME)
        await world.ledger.settle(got, 4)
        assert [(row.hour, row.cost) for row in await world.ledger.history(0)] == [(NOON, 4), (NOON + HOUR, 3)]

    @case
    async def test_history_of_a_hold_for_many(self, world: World) -> None:
        """Each request that a hold is settled for is an attempt, also where it had lapsed; for none it is none."""
        await world.ledger.settle((await world.hold("a", 60, line(), origin=ACME))._replace(attempts=500), 40)
        await world.ledger.settle((await world.hold("b", 60, line(), origin=ACME))._replace(attempts=0), 0)
        assert await world.ledger.history(0) == [Spent(NOON, "acme", "/chat", "haiku", 500, 40)]
        late = await world.hold("c", 60, line(), origin=ACME)
        world.clock.now += world.lease
        assert await world.ledger.history(0) == [Spent(NOON, "acme", "/chat", "haiku", 501, 100, estimated=60)]
        assert await world.other.settle(late._replace(attempts=30), 20)
        assert await world.ledger.history(0) == [Spent(NOON, "acme", "/chat", "haiku", 530, 60)]
        await world.ledger.post(late._replace(id="d", attempts=7), 1)
        assert await world.ledger.history(0) == [Spent(NOON, "acme", "/chat", "haiku", 537, 61)]

    @case
    async def test_history_of_lapsed_holds(self, world: World) -> None:
        """A hold that lapses is booked as an estimate, and its late settlement corrects that."""
        got = await world.hold("a", 60, line(), origin=ACME)
        assert await world.ledger.history(0) == []
        world.clock.now += world.lease
        assert await world.ledger.history(0) == [Spent(NOON, "acme", "/chat", "haiku", 1, 60, estimated=60)]
        await world.ledger.settle(got, 7)
        assert await world.ledger.history(0) == [Spent(NOON, "acme", "/chat", "haiku", 1, 7)]

    @case
    async def test_history_of_what_was_released(self, world: World) -> None:
        """A release books nothing, early or late, and neither does what is refused."""
        await world.hold("a", 60, line(), origin=ACME)
        await world.hold("b", 30, line(), origin=ACME)
        await world.refusal("c", 60, line(), origin=ACME)
        await world.ledger.release("a")
        assert await world.ledger.history(0) == []
        world.clock.now += world.lease
        assert len(await world.ledger.history(0)) == 1
        await world.ledger.release("b")
        assert await world.ledger.history(0) == []

    @case
    async def test_history_of_what_cost_nothing(self, world: World) -> None:
        """An attempt that was settled for nothing was an attempt."""
        await world.spend("a", 0, origin=ACME)
        assert await world.ledger.history(0) == [Spent(NOON, "acme", "/chat", "haiku", 1, 0)]

    @case
    async def test_history_of_what_was_posted(self, world: World) -> None:
        """What was spent elsewhere is booked to the hour in which it was reserved there."""
        made = (await world.hold("a", 5, line(window="hour"), origin=ACME))._replace(id="elsewhere")
        await world.ledger.release("a")
        world.clock.now += 2 * HOUR
        await world.ledger.post(made, 9, estimated=True)
        await world.ledger.post(made, 9, estimated=True)
        await world.ledger.post(made._replace(id="own", origin=OWN), 1)
        assert await world.other.history(0) == [Spent(NOON, "acme", "/chat", "haiku", 1, 10, own=1, estimated=9)]

    @case
    async def test_history_beyond_the_precision_of_a_float(self, world: World) -> None:
        """Sums of an hour are exact."""
        odd = 2**53 + 1
        await world.spend("a", odd, origin=ACME)
        await world.spend("b", odd + 1, origin=ACME)
        assert [row.cost for row in await world.ledger.history(0)] == [2 * odd + 1]

    # Erasing

    @case
    async def test_erase(self, world: World) -> None:
        """Balances, limits and spend under a name are dropped; those of others stay."""
        await world.spend("a", 10, line(), line(budget="g", account="global"), line(window="hour"), origin=ACME)
        await world.spend("b", 20, line(account="umbrella"), origin=Origin("umbrella", "/chat"))
        await world.ledger.set_limit("b", "acme", 500)
        await world.ledger.set_limit("b", "umbrella", 600)
        await world.ledger.set_limit("b", None, 700)
        await world.other.erase("acme")
        await world.other.erase("nobody")
        assert await world.money() == {("g", "global"): (10, 0), ("b", "umbrella"): (20, 0)}
        assert await world.balances() == {
            name: each for name, each in (await world.balances()).items() if name[1] != "acme"
        }
        assert await world.ledger.limits() == {("b", "umbrella"): 600, ("b", None): 700}
        assert [(row.tenant, row.cost) for row in await world.ledger.history(0) if row.tenant] == [("umbrella", 20)]
        assert (await world.hold("c", 100, line(), origin=ACME)).used == (0,)

    @case
    async def test_erase_in_flight(self, world: World) -> None:
        """Holds of an erased account end as any other, are charged to their other accounts, and name it no more."""
        shared = line(budget="g", account="global")
        got = await world.hold("a", 30, line(), shared, origin=ACME)
        await world.hold("b", 20, line(), shared, origin=ACME)
        await world.other.erase("acme")
        holds = await world.ledger.holds()
        assert [(hold.id, hold.accounts, hold.tenant) for hold in holds] == [
            ("a", (("g", "global"),), None),
            ("b", (("g", "global"),), None),
        ]
        assert await world.money() == {("g", "global"): (0, 50)}
        new = await world.hold("c", 40, line(), origin=ACME)
        assert await world.ledger.settle(got, 25)
        await world.ledger.renew([new])
        world.clock.now += world.lease - 1
        await world.ledger.renew([new])
        world.clock.now += 1
        assert await world.money() == {("g", "global"): (45, 0), ("b", "acme"): (0, 40)}
        assert [row for row in await world.ledger.history(0) if row.tenant == "acme"] == []

    @case
    async def test_erase_of_what_has_lapsed(self, world: World) -> None:
        """A late settlement after it corrects the other accounts, and takes nothing from spend that is gone."""
        shared = line(budget="g", account="global")
        got = await world.hold("a", 30, line(), shared, origin=ACME)
        world.clock.now += world.lease
        assert await world.money() == {("b", "acme"): (30, 0), ("g", "global"): (30, 0)}
        await world.ledger.erase("acme")
        await world.spend("new", 50, line(), origin=ACME)
        assert await world.ledger.settle(got, 5)
        assert await world.money() == {("b", "acme"): (50, 0), ("g", "global"): (5, 0)}
        rows = await world.ledger.history(0)
        assert [row.cost for row in rows if row.tenant == "acme"] == [50]
        assert all(row.cost >= 0 and row.attempts >= 0 and row.estimated >= 0 for row in rows)


def _order(row: Spent) -> tuple[float, str, str, str]:
    return row.hour, row.tenant or "", row.route or "", row.tier
