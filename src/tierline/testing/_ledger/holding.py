"""Reserving, settling and releasing."""

from __future__ import annotations

from typing import Any

from tierline.ledger.base import Reservation
from tierline.testing._ledger.world import DAY, HOUR, NOON, Cases, World, case, line, offer, value_error
from tierline.values import Remaining


class Holding(Cases):
    """What `reserve`, `settle`, `release`, `post`, `renew` and `forget` do."""

    # Reserving

    @case
    async def test_reserve_and_settle(self, world: World) -> None:
        """A reservation says what it holds, where, and what is left; settling replaces the hold by the cost."""
        day = line()
        first = await world.hold("a", 30, day)
        assert (first.id, first.offer, first.cost, first.used) == ("a", offer(30), 30, (0,))
        assert first.lines == ((day, day.window.span(NOON)),)
        assert (first.at, first.skipped, first.tight) == (NOON, 0, "")
        second = await world.hold("b", 20, day)
        assert (second.used, second.share) == ((30,), 0.3)
        assert second.remaining == (Remaining("b", "acme", 100, 50),)
        assert await world.money() == {("b", "acme"): (0, 50)}
        assert await world.ledger.settle(first, 10)
        assert await world.money() == {("b", "acme"): (10, 20)}
        assert await world.ledger.release("b")
        assert await world.money() == {("b", "acme"): (10, 0)}

    @case
    async def test_without_budgets(self, world: World) -> None:
        """With no lines every first offer passes, bounded or not, and is held and ended like others."""
        got = await world.hold("a", [offer(None), offer(1)])
        assert (got.offer.cost, got.cost, got.share, got.remaining) == (None, 0, 0.0, ())
        assert [hold.id for hold in await world.other.holds()] == ["a"]
        assert await world.ledger.settle(got, 5)
        assert not await world.ledger.settle(got, 5)
        assert await world.ledger.balances() == []

    @case
    async def test_the_first_offer_that_fits(self, world: World) -> None:
        """Offers without room are passed over, and the reservation says how many and for which budget."""
        lines = [line(1000, budget="wide"), line(100, budget="narrow")]
        got = await world.hold("a", [offer(500, "opus"), offer(200, "sonnet"), offer(50)], *lines)
        assert (got.offer.tier, got.cost, got.skipped, got.tight) == ("haiku", 50, 2, "narrow")
        got = await world.hold("b", [offer(50, "opus"), offer(1)], *lines)
        assert (got.offer.tier, got.cost, got.skipped, got.tight) == ("opus", 50, 0, "")
        assert await world.money() == {("wide", "acme"): (0, 100), ("narrow", "acme"): (0, 100)}

    @case
    async def test_an_offer_that_just_fits(self, world: World) -> None:
        """The last nano-USD can be held, and one more cannot; nothing costs nothing even then."""
        await world.hold("a", 99, line())
        await world.refusal("b", 2, line())
        await world.hold("c", 1, line())
        await world.refusal("d", 1, line())
        await world.hold("e", 0, line())

    @case
    async def test_thresholds_in_the_same_step(self, world: World) -> None:
        """At a threshold a call is moved down though there is room; one that is not to be moved is not."""
        shared = line(1000, downgrade_at=0.7, cheapest_at=0.9)
        offers = [offer(30, "opus"), offer(20, "sonnet"), offer(10, "haiku")]
        await world.hold("a", 699, shared)
        assert (await world.hold("b", 1, shared)).skipped == 0
        got = await world.hold("c", offers, shared)
        assert (got.offer.tier, got.skipped, got.tight) == ("sonnet", 1, "b")
        got = await world.hold("d", offers, shared, thresholds=False)
        assert (got.offer.tier, got.skipped, got.tight) == ("opus", 0, "")
        await world.hold("e", 150, shared)
        got = await world.hold("f", offers, shared)
        assert (got.offer.tier, got.skipped, got.tight) == ("haiku", 2, "b")

    @case
    async def test_offers_that_thresholds_leave_out_do_not_count(self, world: World) -> None:
        """What a threshold left out is not what a refusal says was needed, though it were cheaper."""
        shared = line(100, downgrade_at=0.5, cheapest_at=None)
        await world.hold("a", 90, shared)
        refusal = await world.refusal("b", [offer(5, "opus"), offer(20, "sonnet")], shared)
        assert refusal.needed == 20

    @case
    async def test_soft_lines_never_refuse(self, world: World) -> None:
        """A soft line holds and charges beyond its limit, and holds nothing for what has no bound."""
        soft = line(10, hard=False)
        got = await world.hold("a", 50, soft)
        assert got.remaining == (Remaining("b", "acme", 10, -40, hard=False),)
        unbounded = await world.hold("b", None, soft)
        assert unbounded.cost == 0
        assert await world.money() == {("b", "acme"): (0, 50)}
        assert await world.ledger.settle(unbounded, 7)
        assert await world.money() == {("b", "acme"): (7, 50)}

    @case
    async def test_unbounded_offers(self, world: World) -> None:
        """A hard line refuses an offer without a bound; a bounded one after it wins; the refusal says why."""
        got = await world.hold("a", [offer(None), offer(5)], line())
        assert (got.cost, got.skipped, got.tight) == (5, 1, "b")
        refusal = await world.refusal("b", None, line(5, budget="soft", hard=False), line())
        assert (refusal.budget, refusal.needed, refusal.unbounded) == ("b", None, "max_tokens is missing")
        assert await world.money() == {("b", "acme"): (0, 5)}

    @case
    async def test_first_request_unknown_tenant(self, world: World) -> None:
        """An account that was never seen has the whole limit and no more, and leaves no trace when it is refused."""
        await world.refusal("a", 101, line(account="new"))
        assert await world.balances() == {}
        assert (await world.hold("b", 100, line(account="new"))).used == (0,)

    @case
    async def test_multi_window_one_denies_none_held(self, world: World) -> None:
        """Where one line refuses, the others hold nothing."""
        lines = [line(1000), line(10, budget="hour", window="hour"), line(1000, budget="month", window="month")]
        await world.hold("a", 5, *lines)
        refusal = await world.refusal("b", 6, *lines)
        assert (refusal.budget, refusal.spent, refusal.held, refusal.needed) == ("hour", 0, 5, 6)
        assert set((await world.money()).values()) == {(0, 5)}
        assert [hold.id for hold in await world.ledger.holds()] == ["a"]

    @case
    async def test_a_refusal_takes_nothing_from_holds(self, world: World) -> None:
        """A hold of nothing is a hold: what it is settled by counts, whoever was refused meanwhile."""
        soft, tight = line(hard=False), line(10, budget="tight")
        got = await world.hold("a", None, soft)
        await world.refusal("b", 11, soft, tight)
        assert await world.ledger.settle(got, 7)
        assert await world.money() == {("b", "acme"): (7, 0)}

    @case
    async def test_a_refusal_in_a_new_window(self, world: World) -> None:
        """An account whose window has ended is not opened anew by a call that is refused."""
        await world.spend("a", 60, line())
        world.clock.now += DAY
        await world.refusal("b", 101, line())
        assert await world.balances() == {}
        await world.hold("c", 100, line())

    @case
    async def test_a_refused_id_may_be_asked_again(self, world: World) -> None:
        """A refusal ends nothing: the same id is admitted when there is room."""
        first = await world.hold("a", 100, line())
        await world.refusal("b", 1, line())
        await world.ledger.settle(first, 0)
        await world.hold("b", 1, line())

    @case
    async def test_accounts_have_their_own_money(self, world: World) -> None:
        """Budget, account and window tell balances apart, whatever characters the names have."""
        names = ["acme", "umbrella", "a:b", "{a}", "a b", "ä☃", "%s", "'; --", "*"]
        lines = [line(100, account=name, budget=budget) for name in names for budget in ("b", "b:c", "{b}")]
        lines += [line(100, window="hour", account="acme"), line(100, window="total", account="acme")]
        for number, each in enumerate(lines):
            await world.hold(f"k{number}", number + 1, each)
        found = {(each.budget, each.account, each.window): each.held for each in await world.other.balances()}
        assert found == {
            (each.budget, each.account, each.window.series): number + 1 for number, each in enumerate(lines)
        }

    @case
    async def test_one_account_twice(self, world: World) -> None:
        """An account that stands in the lines twice is charged once, and the narrower limit holds."""
        got = await world.hold("a", 30, line(), line())
        assert await world.money() == {("b", "acme"): (0, 30)}
        await world.refusal("b", 30, line(100), line(50))
        assert await world.ledger.settle(got, 20)
        assert await world.money() == {("b", "acme"): (20, 0)}

    @case
    async def test_duplicate_reserve_id(self, world: World) -> None:
        """Asking twice with one id gives the same reservation and holds once, from whichever process."""
        first = await world.hold("a", 60, line())
        again = await world.hold("a", 60, line())
        there = await world.other.reserve("a", [offer(60)], [line()])
        assert isinstance(there, Reservation)
        for each in (again, there):
            assert (each.id, each.cost, each.lines, each.offer.tier) == ("a", 60, first.lines, "haiku")
        assert await world.money() == {("b", "acme"): (0, 60)}
        assert await world.other.settle(there, 5)
        assert not await world.ledger.settle(first, 5)
        assert await world.money() == {("b", "acme"): (5, 0)}

    @case
    async def test_a_repeated_id_keeps_its_first_hold(self, world: World) -> None:
        """A repetition is answered with what was held, even where it would not fit or asks for something else."""
        await world.hold("a", 60, line())
        again = await world.hold("a", [offer(70, "opus"), offer(60)], line())
        assert (again.cost, again.offer.cost) == (60, 60)
        assert (await world.hold("a", 60, line(50))).cost == 60
        assert await world.money() == {("b", "acme"): (0, 60)}

    @case
    async def test_an_id_that_has_ended(self, world: World) -> None:
        """Whichever way an id ended, no reservation may have it again."""
        settled, _, lapsed = [await world.hold(key, 1, line()) for key in ("settled", "released", "lapsed")]
        assert await world.ledger.settle(settled, 1)
        assert await world.ledger.release("released")
        world.clock.now += world.lease
        for key in ("settled", "released", "lapsed"):
            for ledger in world.objects:
                await value_error(ledger.reserve(key, [offer(1)], [line()]))
        assert await world.ledger.settle(lapsed, 1)
        await value_error(world.ask("lapsed", 1, line()))
        assert await world.money() == {("b", "acme"): (2, 0)}

    @case
    async def test_release_before_reserve(self, world: World) -> None:
        """An id that is released before it is reserved holds nothing when its reserve comes after all."""
        assert not await world.ledger.release("a")
        for ledger in world.objects:
            await value_error(ledger.reserve("a", [offer(60)], [line()]))
        assert await world.money() == {}
        assert await world.ledger.holds() == []

    # Ending

    @case
    async def test_duplicate_settle(self, world: World) -> None:
        """The first ending wins, whatever comes after it and from whichever process."""
        got = await world.hold("a", 60, line())
        assert await world.ledger.settle(got, 10)
        for ledger in world.objects:
            assert not await ledger.settle(got, 50)
            assert not await ledger.release("a")
            assert not await ledger.post(got, 50)
        assert await world.money() == {("b", "acme"): (10, 0)}

    @case
    async def test_duplicate_release(self, world: World) -> None:
        """What was released is not settled any more."""
        got = await world.hold("a", 60, line())
        assert await world.other.release("a")
        assert not await world.ledger.release("a")
        assert not await world.ledger.settle(got, 50)
        assert await world.money() == {}

    @case
    async def test_settle_after_expiry(self, world: World) -> None:
        """A hold whose lease is over is charged whole as an estimate, and a late settlement replaces that, once."""
        got = await world.hold("a", 60, line())
        world.clock.now += world.lease - 1
        assert await world.money() == {("b", "acme"): (0, 60)}
        world.clock.now += 1
        balance = (await world.balances())["b", "acme"]
        assert (balance.spent, balance.held, balance.estimated) == (60, 0, 60)
        assert await world.ledger.holds() == []
        world.clock.now += 10 * world.lease
        assert await world.other.settle(got, 7)
        assert not await world.ledger.settle(got, 8)
        balance = (await world.balances())["b", "acme"]
        assert (balance.spent, balance.held, balance.estimated) == (7, 0, 0)

    @case
    async def test_settle_long_after_expiry(self, world: World) -> None:
        """A process that was suspended may come back with what its call came to."""
        got = await world.hold("a", 60, line())
        for _ in range(5):
            world.clock.now += world.cases.remembers / 5
            assert await world.money() == {("b", "acme"): (60, 0)}
        assert await world.ledger.settle(got, 7)
        assert await world.money() == {("b", "acme"): (7, 0)}

    @case
    async def test_a_lapsed_hold_frees_no_room(self, world: World) -> None:
        """What nobody ended counts as spent: the room it took stays taken."""
        got = await world.hold("a", 60, line())
        world.clock.now += world.lease
        refusal = await world.refusal("b", 41, line())
        assert (refusal.spent, refusal.held) == (60, 0)
        await world.hold("c", 40, line())
        assert await world.ledger.settle(got, 100)
        assert await world.money() == {("b", "acme"): (100, 40)}

    @case
    async def test_release_after_expiry(self, world: World) -> None:
        """A release that comes late is a settlement of nothing."""
        got = await world.hold("a", 60, line())
        world.clock.now += world.lease
        assert await world.money() == {("b", "acme"): (60, 0)}
        assert await world.ledger.release("a")
        assert not await world.ledger.settle(got, 5)
        assert await world.money() == {}

    @case
    async def test_estimates_are_marked(self, world: World) -> None:
        """What was settled as an estimate is told apart from what was measured, early or late."""
        early, late = await world.hold("a", 10, line()), await world.hold("b", 20, line())
        await world.spend("c", 3, line())
        await world.ledger.settle(early, 4, estimated=True)
        world.clock.now += world.lease
        assert (await world.balances())["b", "acme"].estimated == 24
        await world.ledger.settle(late, 5, estimated=True)
        balance = (await world.balances())["b", "acme"]
        assert (balance.spent, balance.estimated) == (12, 9)

    @case
    async def test_settle_exceeds_reserve(self, world: World) -> None:
        """A cost above the hold is charged in full, and what then stands over the limit refuses the next call."""
        got = await world.hold("a", 60, line())
        assert await world.ledger.settle(got, 150)
        refusal = await world.refusal("b", 0, line())
        assert (refusal.spent, refusal.held, refusal.limit, refusal.needed) == (150, 0, 100, 0)
        assert refusal.budgets == (Remaining("b", "acme", 100, -50),)

    @case
    async def test_negative_usage(self, world: World) -> None:
        """A cost below 0 is a mistake of the program: nothing is charged, and the hold stays."""
        await self._nonsense(world, -1)

    @case
    async def test_string_usage(self, world: World) -> None:
        """A cost that is no whole number is a mistake of the program: nothing is charged, and the hold stays."""
        for cost in ("5", 1.0, True, None, float("nan"), b"5"):
            await self._nonsense(world, cost)

    async def _nonsense(self, world: World, cost: Any) -> None:
        key = f"key of {cost!r}"
        got = await world.hold(key, 60, line())
        await value_error(world.ledger.settle(got, cost))
        await value_error(world.ledger.post(got._replace(id=f"other {key}"), cost))
        assert await world.money() == {("b", "acme"): (0, 60)}
        assert await world.ledger.post(got._replace(id=f"other {key}"), 0), "a charge that failed has ended its id"
        assert await world.ledger.release(key), "a charge that failed has ended its hold"

    @case
    async def test_offers_that_cannot_be(self, world: World) -> None:
        """An offer below 0 would raise the limit, and one in floats would drift: neither is held, nor its account."""
        for cost in (-5, 5.5, "5", True):
            await value_error(world.ledger.reserve("a", [offer(cost)], [line()]))
        assert await world.balances() == {}
        assert await world.ledger.holds() == []
        await world.hold("a", 100, line())

    @case
    async def test_rounding_drift_1e6_calls(self, world: World) -> None:
        """Settlements add up to the nano-USD, however many there are."""
        wide, sum_ = line(10**18), 0
        for number in range(self.drift):
            cost = number % 7 + (number % 3) * 1_000_003
            await world.ledger.settle(await world.hold(f"k{number}", 10, wide), cost)
            sum_ += cost
        assert await world.money() == {("b", "acme"): (sum_, 0)}

    @case
    async def test_sums_beyond_the_precision_of_a_float(self, world: World) -> None:
        """Money past 2**53 nano-USD is exact, to the last of the largest limit there is."""
        odd = 2**53 + 1
        wide = line(10**18)
        first = await world.hold("a", odd, wide)
        second = await world.hold("b", odd, wide)
        assert await world.money() == {("b", "acme"): (0, 2 * odd)}
        assert await world.ledger.settle(first, odd + 2)
        assert await world.ledger.settle(second, odd, estimated=True)
        spent = 2 * odd + 2
        balance = (await world.balances())["b", "acme"]
        assert (balance.spent, balance.held, balance.estimated) == (spent, 0, odd)
        await world.refusal("c", 10**18 - spent + 1, wide)
        assert (await world.hold("d", 10**18 - spent, wide)).used == (spent,)
        refusal = await world.refusal("e", 1, wide)
        assert (refusal.spent, refusal.held, refusal.limit) == (spent, 10**18 - spent, 10**18)

    # Leases

    @case
    async def test_renewed_holds_outlive_their_lease(self, world: World) -> None:
        """A heartbeat keeps a hold, a lapsed one is not revived by it, and one hold's does not help another."""
        kept = await world.hold("a", 10, line())
        await world.hold("b", 20, line())
        for _ in range(5):
            world.clock.now += world.lease / 2
            await world.other.renew([kept])
        assert await world.money() == {("b", "acme"): (20, 10)}
        world.clock.now += world.lease
        await world.ledger.renew([kept])
        assert await world.money() == {("b", "acme"): (30, 0)}
        await world.ledger.renew([])

    @case
    async def test_renewing_what_has_ended(self, world: World) -> None:
        """An ended hold is not brought back by a heartbeat that was on its way."""
        got, kept = await world.hold("a", 10, line()), await world.hold("b", 20, line())
        await world.ledger.settle(got, 3)
        world.clock.now += world.lease / 2
        await world.ledger.renew([got, kept])
        assert await world.money() == {("b", "acme"): (3, 20)}
        assert [hold.lapses_at for hold in await world.ledger.holds()] == [NOON + 1.5 * world.lease]

    # Posting

    @case
    async def test_post(self, world: World) -> None:
        """What was spent elsewhere is charged once for each id, with or without room, to all its lines."""
        first = (await world.hold("a", 80, line(), line(1000, budget="c")))._replace(id="elsewhere")
        assert await world.ledger.post(first, 90)
        assert not await world.other.post(first, 90)
        assert not await world.ledger.settle(first, 1)
        assert await world.money() == {("b", "acme"): (90, 80), ("c", "acme"): (90, 80)}
        await value_error(world.ask("elsewhere", 1, line(1000)))
        assert await world.ledger.post(first._replace(id="guess"), 5, estimated=True)
        balance = (await world.balances())["b", "acme"]
        assert (balance.spent, balance.estimated) == (95, 5)

    @case
    async def test_post_of_an_id_that_is_held(self, world: World) -> None:
        """An id that is held or has ended here is not charged by it: its hold says what it comes to."""
        held, lapsed = await world.hold("a", 10, line()), await world.hold("b", 20, line())
        assert not await world.ledger.post(held, 5)
        await world.ledger.release("never reserved")
        assert not await world.ledger.post(held._replace(id="never reserved"), 5)
        world.clock.now += world.lease
        assert not await world.ledger.post(lapsed, 5)
        assert await world.money() == {("b", "acme"): (30, 0)}

    @case
    async def test_post_to_new_accounts(self, world: World) -> None:
        """Accounts that this ledger has never seen are opened by it; one that stands twice is charged once."""
        day = line()
        lines = ((day, day.window.span(NOON)),) * 2
        made = Reservation("a", offer(30), 30, lines, (0, 0), at=NOON)
        assert await world.ledger.post(made, 30)
        assert await world.money() == {("b", "acme"): (30, 0)}
        assert (await world.hold("b", 70, day)).used == (30,)

    @case
    async def test_post_to_a_span_that_has_ended(self, world: World) -> None:
        """What was spent in a window that has ended is no charge to the one that is open."""
        day, hour = line(), line(budget="h", window="hour")
        got = (await world.hold("a", 1, day, hour))._replace(id="elsewhere")
        await world.ledger.release("a")
        world.clock.now += HOUR
        assert await world.ledger.post(got, 9)
        assert await world.money() == {("b", "acme"): (9, 0)}
        assert not await world.ledger.post(got, 9)

    # Forgetting

    @case
    async def test_reset_during_inflight(self, world: World) -> None:
        """An account that is forgotten in mid-flight is gone, and the end of its call does no harm."""
        got = await world.hold("a", 60, line(), line(account="other"))
        await world.ledger.forget([line(), line(account="never seen")])
        assert await world.money() == {("b", "other"): (0, 60)}
        assert await world.other.settle(got, 10)
        assert await world.money() == {("b", "other"): (10, 0)}
        assert (await world.hold("b", 100, line())).used == (0,)

    @case
    async def test_forgetting_one_window(self, world: World) -> None:
        """Lines name budget, account and window: the rest stays."""
        lines = [line(), line(window="hour"), line(account="umbrella"), line(budget="c")]
        await world.hold("a", 1, *lines)
        await world.ledger.forget([lines[0]])
        left = {(each.budget, each.account, each.window) for each in await world.ledger.balances() if each.held}
        assert left == {("b", "acme", "hour"), ("b", "umbrella", "day"), ("c", "acme", "day")}

    @case
    async def test_it_can_be_asked(self, world: World) -> None:
        """A ledger that is there says so, knows its lease, and can be used after it was closed."""
        for ledger in world.objects:
            await ledger.ping()
            await ledger.confirm()
            assert ledger.lease == world.lease
            assert isinstance(ledger.instant, bool)
            await ledger.aclose()
            await ledger.aclose()
        await world.spend("a", 5, line())
        assert await world.money() == {("b", "acme"): (5, 0)}
