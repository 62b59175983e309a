"""Dispatch: retries, fallbacks, and what budgets make of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.world import INPUT, OUTPUT, USAGE, Slow, World, busy, ok, refused, silent, tiers
from tierline import Budget
from tierline.attempts import Reply
from tierline.breaker import FIRST_HOLD, IN_A_ROW
from tierline.errors import BudgetExceededError
from tierline.ledger import MemoryLedger, Reservation
from tierline.retries import BURST, KEPT, LONGEST_WAIT, PATIENT_FOR, RetryBudget
from tierline.values import Attempt, Offer


async def test_one_answer() -> None:
    """A call that succeeds is one attempt, settled for what it used, and holds nothing after."""
    world = World(ok())
    run = world.dispatch()
    assert (await run.run()).response == "answer"
    assert run.attempts == [Attempt("c", "my-c", "first", "ok", USAGE, 4 * (50 + 70), 0.0, estimated=False)]
    found = await world.balance()
    assert (found.spent, found.held, found.estimated) == (480, 0, 0)
    assert world.waits == []
    assert not world.binding.open


async def test_the_backoff_is_full_jitter() -> None:
    """Waits are a random share of a bound that doubles from half a second to eight, and no more."""
    for share in (0.0, 0.25, 1.0):
        world = World(*[busy()] * 8, ok(), retries=8)
        world.share = share
        run = world.dispatch()
        run.watched = True
        assert (await run.run()).response == "answer"
        assert world.waits == [share * most for most in (0.5, 1, 2, 4, 8, 8, 8, 8)]
        assert world.numbers == list(range(9))


async def test_unlimited_retries() -> None:
    """The SDK allows any number of retries, infinity included: where nothing holds them back, all are made."""
    world = World(*[busy()] * 1_100, ok(), retries=float("inf"))  # type: ignore[arg-type]
    run = world.dispatch()
    run.watched = True
    assert (await run.run()).response == "answer"
    assert max(world.waits) == 8
    assert len(world.waits) == 1_100


@pytest.mark.parametrize(
    ("after", "rules"),
    [(0.0, {}), (1.0, {}), (PATIENT_FOR, {}), (PATIENT_FOR + 1, {"tier": "c"}), (LONGEST_WAIT, {"tier": "c"})],
)
async def test_429_retry_after_1(after: float, rules: Any) -> None:
    """What the API asks to wait is waited for, to the second, up to a minute where there is no other tier."""
    world = World(refused(429, "rate_limit_error", after), ok())
    run = world.dispatch(**rules)
    assert (await run.run()).response == "answer"
    assert (world.waits, tiers(world)) == ([after], ["c", "c"])
    assert [(a.role, a.outcome, a.cost) for a in run.attempts] == [
        ("first", "rate_limit_error", 0),
        ("retry", "ok", 480),
    ]


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_another_tier_before_a_long_wait(status: int) -> None:
    """Who would wait for long goes to another tier at once, and waits for the first that is free where all are busy."""
    error = "rate_limit_error" if status == 429 else "overloaded_error"
    world = World(refused(status, error, PATIENT_FOR + 1), ok())
    run = world.dispatch()
    assert (await run.run()).response == "answer"
    assert (world.waits, tiers(world)) == ([], ["c", "b"])
    assert run.reasons == [f"fallback from c to b: {error}"]
    busy_all = World(*[refused(status, error, after) for after in (30.0, 20.0, 25.0)], ok())
    run = busy_all.dispatch()
    assert (await run.run()).response == "answer"
    assert (busy_all.waits, tiers(busy_all)) == ([20.0], ["c", "b", "a", "b"])
    assert [a.role for a in run.attempts] == ["first", "fallback", "fallback", "retry"]
    assert (await busy_all.balance()).held == 0


async def test_a_long_wait_where_other_tiers_are_known_to_be_exhausted() -> None:
    """They are not tried before, so the wait is begun at once, with no attempt in vain."""
    world = World(refused(429, "rate_limit_error", 30.0), ok())
    run = world.dispatch()
    for model in ("claude-opus-4-8", "claude-haiku-4-5"):
        world.health.of(world.endpoint, model).ended(refused(429, "rate_limit_error", 50.0), 0.0, "closed")
    assert (await run.run()).response == "answer"
    assert (world.waits, tiers(world)) == ([30.0], ["c", "c"])


async def test_a_fallback_in_vain_leaves_the_wait() -> None:
    """Another tier that does not take the request at all is no reason to fail: the first one is waited for."""
    world = World(refused(429, "rate_limit_error", 30.0), refused(404, "not_found_error"), ok())
    run = world.dispatch("complex", floor="b")
    assert (await run.run()).response == "answer"
    assert (world.waits, tiers(world)) == ([30.0], ["c", "b", "c"])
    no_time = World(refused(429, "rate_limit_error", 30.0), refused(404, "not_found_error"))
    run = no_time.dispatch("complex", floor="b")
    run.deadline = 20.0
    assert (await run.run()).status == 404
    assert (no_time.waits, tiers(no_time)) == ([], ["c", "b"])


@pytest.mark.parametrize("after", [LONGEST_WAIT + 0.1, 3_600.0, float("inf")])
async def test_429_retry_after_3600(after: float) -> None:
    """A longer wait is not waited: another tier takes the call, or the error goes back."""
    world = World(refused(429, "rate_limit_error", after), ok())
    run = world.dispatch()
    assert (await run.run()).response == "answer"
    assert (world.waits, tiers(world)) == ([], ["c", "b"])
    assert any("fallback from c to b: rate_limit_error" in reason for reason in run.reasons)
    alone = World(refused(429, "rate_limit_error", after))
    assert (await alone.dispatch(tier="b").run()).status == 429
    assert alone.waits == []


@pytest.mark.parametrize(
    ("label", "policy", "order"),
    [
        ("complex", {}, "ccc" + "b" + "a"),
        ("moderate", {}, "bbb" + "a" + "c"),
        ("simple", {}, "aaa" + "b" + "c"),
        ("moderate", {"critical": True}, "bbb" + "c"),
        ("complex", {"critical": True}, "ccc"),
        ("moderate", {"floor": "b"}, "bbb" + "c"),
        ("moderate", {"ceiling": "b"}, "bbb" + "a"),
        ("moderate", {"tier": "a"}, "aaa"),
    ],
)
async def test_all_tiers_down_amplification(label: str, policy: Any, order: str) -> None:
    """With everything down a call ends after its retries and one attempt per allowed tier, and has cost nothing."""
    world = World(*[busy()] * 20, retries=2)
    run = world.dispatch(label, **policy)
    assert (await run.run()).status == 529
    assert "".join(tiers(world)) == order
    assert run.attempts[-1].outcome == "overloaded_error"
    assert [a.role for a in run.attempts] == ["first", "retry", "retry"] + ["fallback"] * (len(order) - 3)
    assert await world.ledger.balances() == [] or (await world.balance()).spent == (await world.balance()).held == 0


async def test_what_a_budget_left_out_is_no_fallback() -> None:
    """A failure does not lead to a tier that a threshold has just left out."""
    world = World(*[busy()] * 20, retries=0, limit="$0.0001")
    spent = await world.ledger.reserve("earlier", [Offer("a", "x", 75_000)], world.lines)
    assert isinstance(spent, Reservation)
    await world.ledger.settle(spent, 75_000)
    run = world.dispatch("complex")
    assert (await run.run()).status == 529
    assert "".join(tiers(world)) == "ba"
    assert run.reasons[0] == "budget $0.0001 at 75%: c to b"


async def test_a_respected_id_is_retried_and_never_replaced() -> None:
    """An explicit id goes out as written at every attempt."""
    world = World(*[busy()] * 3, retries=2)
    await world.dispatch(model="claude-opus-4-8").run()
    assert tiers(world) == ["b", "b", "b"]


@pytest.mark.parametrize(
    ("status", "error"), [(400, "invalid_request_error"), (401, "authentication_error"), (404, "x")]
)
async def test_what_will_not_pass_later_is_not_tried_again(status: int, error: str) -> None:
    """An error of the request itself goes back at once."""
    world = World(refused(status, error))
    run = world.dispatch()
    assert (await run.run()).response == f"error {status}"
    assert (world.waits, len(world.bodies), run.attempts[-1].outcome) == ([], 1, error)


async def test_a_dead_line_is_no_reason_for_another_tier() -> None:
    """Where nothing answers at all, only retries are spent: every tier is on the same line."""
    world = World(*[silent(sent=False)] * 3, retries=2)
    run = world.dispatch()
    assert isinstance((await run.run()).exception, ConnectionError)
    assert tiers(world) == ["c", "c", "c"]


# Budgets


async def test_no_budget_no_attempt() -> None:
    """Where no offer fits nothing is sent."""
    world = World(limit="$0.000000001")
    with pytest.raises(BudgetExceededError) as caught:
        await world.dispatch().run()
    assert caught.value.refusal.needed == INPUT + 10 * OUTPUT
    assert world.bodies == []


async def spend_all(world: World) -> None:
    """Somebody else takes what is left of the budget."""
    line = world.lines[0]
    offer = Offer("x", "m", line.limit - 1)
    held = await world.ledger.reserve("other", [offer], world.lines)
    await world.ledger.settle(held, line.limit - 1)  # type: ignore[arg-type]


async def test_a_budget_refuses_a_retry() -> None:
    """A budget that was used up while a call waited ends it with the API's error, which is not thrown away."""
    dropped: list[str] = []

    async def discard() -> None:
        dropped.append("x")

    world = World(busy(discard=discard), ok())
    world.while_waiting = lambda: spend_all(world)
    run = world.dispatch()
    assert (await run.run()).status == 529
    assert dropped == []
    assert len(world.bodies) == 1
    assert any(reason.startswith("no retry: budget $1 refused") for reason in run.reasons)


async def test_a_budget_refuses_a_fallback() -> None:
    """A fallback that does not fit is passed over for one that does, and both are said."""
    world = World(busy(), ok(), retries=0)
    cheap = INPUT + 10 * OUTPUT

    async def fill() -> Reply:
        offer = Offer("x", "m", world.lines[0].limit - 4 * cheap - cheap)
        held = await world.ledger.reserve("other", [offer], world.lines, thresholds=False)
        assert held.id == "other"  # type: ignore[union-attr]
        return world.script.pop(0)  # type: ignore[no-any-return]

    world.script.insert(0, fill)
    run = world.dispatch("moderate", floor="a")
    world.lines = run.lines = (Budget("$0.00008", downgrade_at=None, cheapest_at=None).line("global"),)
    assert (await run.run()).response == "answer"
    assert tiers(world) == ["b", "a"]
    world = World(busy(), busy(), retries=0)
    run = world.dispatch("moderate")
    run.lines = (Budget("$0.00003", downgrade_at=None, cheapest_at=None).line("global"),)
    assert (await run.run()).status == 529
    assert any("no fallback to c: budget" in reason for reason in run.reasons)


async def test_a_downgrade_is_a_later_offer() -> None:
    """Where the first offer does not fit, the next one is sent, and the reason is a sentence."""
    world = World(ok())
    run = world.dispatch()
    run.lines = (Budget("$0.00003", name="tight", downgrade_at=None, cheapest_at=None).line("global"),)
    await run.run()
    assert tiers(world) == ["b"]
    assert run.admitted is not None
    assert run.admitted.skipped
    (reason,) = run.reasons
    assert "budget tight" in reason
    assert reason.endswith("c to b")


# The health of the API


def down(world: World, model: str, *, status: int = 529, error: str = "overloaded_error") -> None:
    """Open the breaker of a model."""
    tier = world.health.of(world.endpoint, model)
    for _ in range(IN_A_ROW):
        tier.ended(Reply(status=status, error=error, down=True, sent=False), 0.0, "closed")
    assert not tier.breaker.ready


async def test_a_plan_goes_around_what_is_down() -> None:
    """Down first, then up; the tier that was asked for stays the last resort of nobody."""
    world = World(ok())
    down(world, "my-c")
    run = world.dispatch()
    assert (await run.run()).response == "answer"
    assert tiers(world) == ["b"]
    assert run.reasons[0].startswith("c is not tried: its breaker is open")
    world = World(ok())
    down(world, "claude-haiku-4-5")
    assert (await world.dispatch("simple").run()).response == "answer"
    assert tiers(world) == ["b"]
    world = World(busy(), ok(), retries=0)
    down(world, "claude-opus-4-8")
    await world.dispatch().run()
    assert tiers(world) == ["c", "a"]


async def test_nothing_is_held_for_what_is_not_sent() -> None:
    """With everything down, the error is that of the first tier, and no budget is touched."""
    world = World()
    for model in ("my-c", "claude-opus-4-8", "claude-haiku-4-5"):
        down(world, model)
    run = world.dispatch()
    reply = await run.run()
    assert (reply.status, reply.error, world.bodies, run.attempts) == (529, "breaker_open", [], [])
    assert reply.retry_after == 1.25 * FIRST_HOLD
    assert await world.ledger.balances() == []


async def test_a_call_that_comes_second() -> None:
    """Who loses the race for the one attempt gives its hold back, and goes to the next tier."""
    world = World(ok())
    run = world.dispatch()
    reserve = world.books.reserve

    async def slow(*args: Any, **more: Any) -> Any:
        held = await reserve(*args, **more)
        if not world.health.troubled:
            down(world, "my-c")
        return held

    world.books.reserve = slow  # type: ignore[method-assign]
    assert (await run.run()).response == "answer"
    assert tiers(world) == ["b"]
    assert [(a.role, a.tier) for a in run.attempts] == [("fallback", "b")]
    found = await world.balance()
    assert (found.held, found.spent) == (0, run.attempts[0].cost)


async def test_one_call_opens_no_breaker() -> None:
    """However often one request may be retried, it takes others to tell that its tier is down."""
    world = World(*[busy()] * IN_A_ROW, ok(), retries=IN_A_ROW)
    reply = await world.dispatch(tier="c").run()
    assert (reply.response, len(world.bodies)) == ("answer", IN_A_ROW + 1)
    assert world.health.of(world.endpoint, "my-c").breaker.state == "closed"


async def test_an_attempt_that_is_not_made_costs_no_token() -> None:
    """A retry that finds the breaker open after its wait gives back what it took of the budget."""
    world = World(busy(), retries=1)
    world.while_waiting = lambda: down(world, "my-c")
    before = world.health.retries.tokens
    reply = await world.dispatch(tier="c").run()
    assert (reply.error, len(world.bodies)) == ("breaker_open", 1)
    assert world.health.retries.tokens >= before
    assert (await world.balance()).held == 0


async def test_no_retry_of_what_has_just_opened() -> None:
    """A failure that opens the breaker is not retried: the next tier is asked at once."""
    world = World(busy(), ok())
    tier = world.health.of(world.endpoint, "my-c")
    for _ in range(IN_A_ROW - 1):
        tier.ended(busy(), 0.0, "closed")
    run = world.dispatch()
    assert (await run.run()).response == "answer"
    assert (tiers(world), world.waits) == (["c", "b"], [])
    assert run.reasons[0].startswith("no retry: c: its breaker is open")


async def test_retries_leave_the_last_tokens_to_fallbacks() -> None:
    """A process that has used up its retries still falls back, and one that has no other tier retries longer."""
    world = World(*[busy()] * 3, ok(), retries=2)
    world.health.retries = RetryBudget(KEPT)
    await world.dispatch().run()
    assert (tiers(world), world.waits) == (["c", "b", "a"], [])
    world = World(busy(), ok(), retries=2)
    world.health.retries = RetryBudget(KEPT)
    run = world.dispatch(tier="c")
    assert (await run.run()).response == "answer"
    assert tiers(world) == ["c", "c"]
    assert world.health.retries.tokens == KEPT + 0.1


async def test_a_cancelled_wait_costs_no_token() -> None:
    """What was not made is given back."""

    def cancel() -> None:
        raise asyncio.CancelledError

    world = World(busy())
    world.while_waiting = cancel
    with pytest.raises(asyncio.CancelledError):
        await world.dispatch().run()
    assert world.health.retries.tokens == BURST + 0.1


async def test_an_attempt_gets_what_is_left() -> None:
    """The first one by the app's deadline, the others by any."""
    world = World(busy(), ok())
    await world.dispatch().run()
    assert world.left == [None, 600 + 2 * 608]
    world = World(busy(), ok())
    run = world.dispatch()
    run.deadline = 5.0
    await run.run()
    assert world.left == [5.0, 5.0]


async def test_no_fallback_without_time() -> None:
    """Where the deadline is near, the error goes back: what would be cut off would be billed."""
    world = World(busy(), retries=0)
    run = world.dispatch()
    run.deadline = 0.1
    assert (await run.run()).status == 529
    assert run.reasons[-1] == "no fallback: the deadline is near"


# Cancellation


async def test_cancellation_charges_the_input() -> None:
    """A call that is cancelled while it is being sent is charged its prompt, as an estimate."""
    started = asyncio.Event()

    async def forever() -> Reply:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    world = World(forever)
    run = world.dispatch()
    task = asyncio.create_task(run.run())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    found = await world.balance()
    assert (found.spent, found.held, found.estimated) == (4 * INPUT, 0, 4 * INPUT)
    assert [(a.outcome, a.estimated) for a in run.attempts] == [("cancelled", True)]
    assert not world.binding.open


async def test_cancellation_while_waiting_costs_nothing() -> None:
    """Between two attempts nothing is held."""

    def cancel() -> None:
        raise asyncio.CancelledError

    world = World(busy())
    world.while_waiting = cancel
    with pytest.raises(asyncio.CancelledError):
        await world.dispatch().run()
    found = await world.ledger.balances()
    assert [(b.spent, b.held) for b in found] == [(0, 0)]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), RuntimeError("closing failed")])
@pytest.mark.parametrize("retries", [0, 1])
async def test_a_hold_is_given_back_where_letting_go_is_cut_off(error: BaseException, retries: int) -> None:
    """Neither a retry nor a fallback leaves a hold behind when the failed answer cannot be closed."""

    async def discard() -> None:
        raise error

    for ledger in (MemoryLedger(clock=lambda: 0.0), Slow(clock=lambda: 0.0)):
        world = World(busy(discard=discard), ok(), retries=retries, ledger=ledger)
        with pytest.raises(type(error)):
            await world.dispatch().run()
        await world.books.background.drain(5)
        assert (await world.balance()).held == 0


async def test_double_cancel() -> None:
    """A settlement that has begun is finished, however often whoever waits for it is cancelled."""
    ledger = Slow(clock=lambda: 0.0)
    world = World(ok(), ledger=ledger)
    task = asyncio.create_task(world.dispatch().run())
    while not world.bodies:  # noqa: ASYNC110  (until the call is under way, and no turn longer)
        await asyncio.sleep(0)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.books.background.drain(5)
    assert len(ledger.settled) == 1
    assert (await world.balance()).held == 0


async def test_an_error_that_is_none_of_the_api() -> None:
    """An exception from below passes through, and leaves no hold and no attempt that looks as if it were fine."""
    world = World(TypeError("no key"))
    run = world.dispatch()
    with pytest.raises(TypeError, match="no key"):
        await run.run()
    assert (await world.balance()).held == 0
    assert [a.outcome for a in run.attempts] not in (["ok"], ["cancelled"])
