from __future__ import annotations

import asyncio
import gc
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tierline import Budget, Ladder, Policy
from tierline.attempts import Books, OpenAttempt, Reply, Timing
from tierline.binding import Binding
from tierline.call import read_call
from tierline.dispatch import LONGEST_WAIT, Dispatch
from tierline.errors import BudgetExceededError
from tierline.ledger import MemoryLedger, Reservation
from tierline.plan import admit, plan
from tierline.policies import combine
from tierline.prices import PriceBook, Rates
from tierline.telemetry import CallTrace, tracer_of
from tierline.usage import Metered, StreamReader, WholeReader
from tierline.values import Attempt, Classification, Offer, Terms, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from tierline.budgets import Line
    from tierline.ledger import Balance

# One nano-USD for a token of input, ten for one of output, times the tier.
LADDER = Ladder.of(a="claude-haiku-4-5", b="claude-opus-4-8", c="my-c")
EACH = {"claude-haiku-4-5": 1, "claude-opus-4-8": 2, "my-c": 4}


def rates(n: int) -> Rates:
    million = 1_000_000 * n
    return Rates(
        input=million, output=10 * million, cache_write_5m=million, cache_write_1h=million, cache_read=million,
        web_search=0,
    )  # fmt: skip


PRICES = PriceBook({model: rates(n) for model, n in EACH.items()})
INPUT, OUTPUT = 100, 1_000
USAGE = Usage(50, 7)
TERMS = Terms(geo="global")


def worst(_call: Any, model: str, limit: int | None) -> Offer:
    n = EACH[model]
    return Offer("", model, n * (INPUT + 10 * (limit or 0)), n * INPUT, "", limit)


def ok(usage: Usage | None = USAGE) -> Reply:
    return Reply("answer", status=200, metered=Metered(usage, TERMS) if usage else None)


def refused(status: int, error: str, after: float | None = None, **more: Any) -> Reply:
    """An error of the API, as the seam reads it."""
    again = status in (408, 409, 429) or status >= 500
    return Reply(
        f"error {status}", status=status, error=error, retry=again, elsewhere=status == 429 or status >= 500,
        retry_after=after, **more,
    )  # fmt: skip


def busy(after: float | None = None, **more: Any) -> Reply:
    return refused(529, "overloaded_error", after, **more)


def silent(*, sent: bool) -> Reply:
    return Reply(exception=ConnectionError(), error="connection_error", retry=True, sent=sent)


class Slow(MemoryLedger):
    """A ledger whose answers take a turn of the loop, as those over a network do."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.instant = False
        self.settled: list[tuple[str, int]] = []

    async def settle(self, reservation: Any, cost: int, *, estimated: bool = False) -> bool:
        await asyncio.sleep(0)
        self.settled.append((reservation.id, cost))
        return await super().settle(reservation, cost, estimated=estimated)


class World:
    """A script for the upstream, the clocks, and the books."""

    def __init__(self, *script: Any, retries: int = 2, limit: str = "$1", ledger: MemoryLedger | None = None) -> None:
        self.script = list(script)
        self.retries = retries
        self.client = None
        self.bodies: list[dict[str, Any]] = []
        self.numbers: list[int] = []
        self.waits: list[float] = []
        self.share = 1.0
        self.while_waiting: Callable[[], Any] = lambda: None
        self.ledger = ledger or MemoryLedger(clock=lambda: 0.0)
        self.timing = Timing(now=lambda: 0.0, perf=lambda: 0.0, sleep=self.sleep, jitter=lambda: self.share)
        self.books = Books(self.ledger, PRICES, self.timing)
        self.lines: tuple[Line, ...] = (Budget(limit).line("global"),)
        self.binding = Binding(self)

    @property
    def claude(self) -> Any:
        return None

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        found = self.while_waiting()
        if asyncio.iscoroutine(found):
            await found
        await asyncio.sleep(0)

    async def send(self, body: dict[str, Any], number: int) -> Reply:
        self.bodies.append(body)
        self.numbers.append(number)
        step = self.script.pop(0)
        if callable(step):
            step = step()
            if asyncio.iscoroutine(step):
                step = await step
        if isinstance(step, BaseException):
            raise step
        assert isinstance(step, Reply)
        return step

    def dispatch(self, label: str = "complex", model: str = "auto", **policy: Any) -> Dispatch:
        said = [{"role": "user", "content": "hi"}]
        call = read_call("create", {"model": model, "max_tokens": OUTPUT, "messages": said})
        assert call is not None
        request = admit(call, combine([Policy(**policy)], LADDER), LADDER, EACH.get)
        opinion = Classification(label, 1.0, "keyword")
        found = plan(call, request, opinion, LADDER, sure=0.5, objection=lambda *_: "", worst=worst)
        return Dispatch(
            call=call, plan=found, binding=self.binding, lines=self.lines, upstream=self, books=self.books,
            trace=CallTrace(tracer_of(None)), ladder=LADDER, key="k",
        )  # fmt: skip

    async def balance(self) -> Balance:
        (found,) = await self.ledger.balances() or [None]
        assert found is not None
        return found

    async def open(self, *, thinks: bool = False) -> OpenAttempt:
        """An attempt of tier a in flight."""
        offer = Offer("a", "claude-haiku-4-5", INPUT + 10 * OUTPUT, INPUT)
        held = await self.ledger.reserve("k", [offer], self.lines)
        return OpenAttempt(
            self.books, self.binding, held, role="first", number=1, terms=TERMS, thinks=thinks, span=None  # type: ignore[arg-type]
        )  # fmt: skip


def tiers(world: World) -> list[str]:
    names = {tier.model: tier.name for tier in LADDER}
    return [names[body["model"]] for body in world.bodies]


# Retries and fallbacks


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
        assert (await world.dispatch().run()).response == "answer"
        assert world.waits == [share * most for most in (0.5, 1, 2, 4, 8, 8, 8, 8)]
        assert world.numbers == list(range(9))


async def test_unlimited_retries() -> None:
    """The SDK allows any number of retries, infinity included: thousands of failures end in the answer."""
    world = World(*[busy()] * 1_100, ok(), retries=float("inf"))  # type: ignore[arg-type]
    assert (await world.dispatch().run()).response == "answer"
    assert max(world.waits) == 8
    assert len(world.waits) == 1_100


@pytest.mark.parametrize(("after", "waited"), [(0.0, 0.0), (1.0, 1.0), (LONGEST_WAIT, LONGEST_WAIT)])
async def test_429_retry_after_1(after: float, waited: float) -> None:
    """What the API asks to wait is waited for, to the second, up to a minute."""
    world = World(refused(429, "rate_limit_error", after), ok())
    run = world.dispatch()
    assert (await run.run()).response == "answer"
    assert world.waits == [waited]
    assert [(a.role, a.outcome, a.cost) for a in run.attempts] == [
        ("first", "rate_limit_error", 0),
        ("retry", "ok", 480),
    ]


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
    assert run.skipped is not None
    (reason,) = run.reasons
    assert "budget tight" in reason
    assert reason.endswith("c to b")


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


# How each ending is charged

WORST = INPUT + 10 * OUTPUT


def stream(*, head: int | None = 40, said: int = 0, done: int | None = None, error: str = "") -> StreamReader:
    """A reader that has seen this much of a stream."""
    reader = StreamReader(TERMS)

    def feed(kind: str, **data: Any) -> None:
        text = json.dumps({"type": kind, **data}, separators=(",", ":"))
        reader.feed(f"event: {kind}\ndata: {text}\n\n".encode())

    if head is not None:
        feed("message_start", message={"usage": {"input_tokens": head, "output_tokens": 1}})
    if said:
        feed("content_block_delta", index=0, delta={"type": "text_delta", "text": "x" * said})
    if done is not None:
        feed("message_delta", delta={}, usage={"output_tokens": done})
    if error:
        feed("error", error={"type": error})
    return reader


def whole(data: bytes) -> WholeReader:
    reader = WholeReader(TERMS)
    reader.feed(data)
    return reader


@pytest.mark.parametrize(
    ("reply", "charge", "estimated"),
    [
        (silent(sent=False), 0, False),
        (silent(sent=True), WORST, True),
        (Reply(exception=TimeoutError(), error="timeout"), WORST, True),
        (refused(400, "invalid_request_error"), 0, False),
        (refused(429, "rate_limit_error"), 0, False),
        (refused(500, "api_error"), 0, False),
        (refused(529, "overloaded_error"), 0, False),
        (ok(), 50 + 70, False),
        (ok(None), WORST, True),
        (ok(Usage(10**6, 10**6)), 11 * 10**6, False),
    ],
)
async def test_endings_of_whole_answers(reply: Reply, charge: int, estimated: bool) -> None:
    """What came back whole, or not at all, is charged as the table of endings says."""
    world = World(reply, retries=0)
    run = world.dispatch("simple", ceiling="a")
    await run.run()
    (attempt,) = run.attempts
    assert (attempt.cost, attempt.estimated) == (charge, estimated)
    found = await world.balance()
    assert (found.spent, found.held, found.estimated) == (charge, 0, charge if estimated else 0)


@pytest.mark.parametrize(
    ("reader", "outcome", "thinks", "charge", "estimated", "said"),
    [
        (stream(done=9), "ok", False, 40 + 90, False, "ok"),
        (stream(done=9), "client_disconnected", False, 40 + 90, False, "client_disconnected"),
        (stream(said=20), "client_disconnected", False, 40 + 10 * 27, True, "client_disconnected"),
        (stream(said=20), "ok", False, 40 + 10 * 27, True, "truncated"),
        (stream(said=20), "connection_error", False, 40 + 10 * 27, True, "connection_error"),
        (stream(said=20, error="overloaded_error"), "ok", False, 40 + 10 * 27, True, "overloaded_error"),
        (stream(done=9, error="api_error"), "ok", False, 40 + 90, True, "api_error"),
        (stream(said=9_999), "client_disconnected", False, WORST, True, "client_disconnected"),
        (stream(said=20), "client_disconnected", True, WORST, True, "client_disconnected"),
        (stream(head=None), "client_disconnected", False, INPUT, True, "client_disconnected"),
        (stream(head=None), "ok", False, WORST, True, "truncated"),
        (None, "closed", False, INPUT, True, "closed"),
        (whole(b'{"usage":{"input_tokens":1,"output_tokens":2}}'), "ok", False, 21, False, "ok"),
        (whole(b'{"usage":{"input_'), "ok", False, WORST, True, "truncated"),
        (whole(b"<html>"), "ok", False, WORST, True, "truncated"),
        (whole(b'{"usage":{"input_'), "client_disconnected", False, WORST, True, "client_disconnected"),
    ],
)
async def test_endings_of_answers_that_are_read(
    reader: Any, outcome: str, thinks: bool, charge: int, estimated: bool, said: str
) -> None:
    """What was read on the way is charged exactly to its end, else by a bound that never exceeds the hold."""
    world = World()
    attempt = await world.open(thinks=thinks)
    attempt.reader = reader
    await attempt.streamed(outcome)
    assert attempt.result is not None
    slack = 10 * 12 if estimated and charge not in (WORST, INPUT) else 0
    assert charge <= attempt.result.cost <= charge + slack
    assert (attempt.result.estimated, attempt.result.outcome) == (estimated, said)
    found = await world.balance()
    assert (found.spent, found.held) == (attempt.result.cost, 0)


async def test_usage_above_the_hold_is_charged_in_full() -> None:
    """A cut stream is never charged under the usage that was seen, were it above the hold."""
    world = World()
    attempt = await world.open()
    attempt.reader = stream(head=10**6, said=5)
    await attempt.streamed("client_disconnected")
    assert (await world.balance()).spent >= 10**6 > WORST


ENDINGS = ("streamed", "answered", "cut_off", "abandon", "failed", "sweep")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(ENDINGS), min_size=2, max_size=6), st.booleans())
def test_the_first_ending_wins(order: list[str], at_once: bool) -> None:
    """However many endings meet, one after another or at once, an attempt is settled once and told once."""

    async def scenario() -> None:
        ledger = Slow(clock=lambda: 0.0)
        world = World(ledger=ledger)
        attempt = await world.open()
        attempt.reader = stream(said=5)
        told: list[Attempt] = []
        attempt.when_ended(told.append)
        endings = {
            "streamed": lambda: attempt.streamed("ok"),
            "answered": lambda: attempt.answered(Metered(USAGE, TERMS)),
            "cut_off": lambda: attempt.cut_off("cancelled"),
            "abandon": lambda: attempt.abandon("closed"),
            "failed": lambda: attempt.failed(busy()),
            "sweep": attempt.sweep,
        }
        if at_once:
            await asyncio.gather(*(endings[name]() for name in order))
        else:
            for name in order:
                await endings[name]()
        assert len(ledger.settled) == 1
        assert told == [attempt.result]
        later: list[Attempt] = []
        attempt.when_ended(later.append)
        assert later == told
        found = await world.balance()
        assert (found.spent, found.held) == (told[0].cost, 0)
        assert not world.binding.open

    asyncio.run(scenario())


async def test_an_answer_that_is_still_to_be_read() -> None:
    """A stream goes to the app with its hold, is settled when it has been read, and is an attempt then."""
    taken: list[OpenAttempt] = []
    world = World(Reply("stream", status=200, tap=taken.append))
    run = world.dispatch("simple")
    assert (await run.run()).response == "stream"
    assert run.pending is taken[0]
    assert run.attempts == []
    assert (await world.balance()).held == WORST
    told: list[Attempt] = []
    taken[0].when_ended(told.append)
    taken[0].reader = stream(done=9)
    await taken[0].streamed("ok")
    assert told == [taken[0].result]
    assert (await world.balance()).held == 0


async def test_what_has_no_bound_is_recorded_by_a_soft_budget() -> None:
    """A soft budget lets an unbounded call pass, holds nothing for it, charges what it was, and says so."""
    world = World(ok())
    run = world.dispatch("simple")
    offer = run.plan.offers[0]._replace(cost=None, unbounded="no end")
    run.plan = run.plan._replace(offers=(offer,))
    run.lines = (Budget("$1", hard=False).line("global"),)
    assert (await run.run()).response == "answer"
    assert run.reasons == ["recorded, not bounded: no end"]
    assert (await world.balance()).spent == 50 + 70


# Sweeps, drops and leases


async def test_a_sweep_ends_what_nobody_reads() -> None:
    """An answer that nobody reads any more is closed and settled when the request is over."""
    world = World()
    attempt = await world.open()
    attempt.reader = stream(said=20)
    closed: list[bool] = []

    async def close() -> None:
        closed.append(True)

    attempt.close = close
    await attempt.sweep()
    assert closed == [True]
    assert attempt.result is not None
    assert attempt.result.outcome == "client_disconnected"
    assert len(world.waits) == 1


@pytest.mark.parametrize("sign", ["reading", "progress"])
async def test_a_sweep_leaves_who_is_still_reading(sign: str) -> None:
    """A task that outlives its request and reads on is left alone until it stops."""
    world = World()
    attempt = await world.open()
    attempt.reader = stream(said=20)
    rounds = 0

    def step() -> None:
        nonlocal rounds
        rounds += 1
        assert not attempt.ended
        attempt.reading = sign == "reading" and rounds < 4
        attempt.progress += sign == "progress" and rounds < 4

    world.while_waiting = step
    await attempt.sweep()
    assert rounds == 4
    assert attempt.ended


async def test_a_sweep_leaves_an_attempt_that_is_being_sent() -> None:
    """An attempt without an answer is ended by who sends it."""
    world = World()
    attempt = await world.open()
    await attempt.sweep()
    assert not attempt.ended
    assert world.waits == []


async def test_a_connection_that_cannot_be_closed_is_settled_all_the_same() -> None:
    """An error while closing does not keep an attempt open."""
    world = World()
    attempt = await world.open()
    attempt.reader = stream(said=20)

    async def close() -> None:
        raise BrokenPipeError

    attempt.close = close
    with pytest.raises(BrokenPipeError):
        await attempt.abandon("closed")
    assert (await world.balance()).held == 0


async def test_a_dropped_answer_is_settled_on_its_loop() -> None:
    """An answer that was collected as garbage, in whatever thread, is closed and settled where it belongs."""
    world = World()
    attempt = await world.open()
    attempt.reader = stream(said=20)
    closed: list[Any] = []

    async def close() -> None:
        closed.append(asyncio.get_running_loop())

    await asyncio.to_thread(attempt.dropped, close)
    for _ in range(5):
        await asyncio.sleep(0)
    await world.books.background.drain(5)
    assert closed == [asyncio.get_running_loop()]
    assert attempt.result is not None
    assert attempt.result.outcome == "abandoned"
    assert (await world.balance()).held == 0


def test_a_drop_after_the_loop_is_closed_raises_nothing() -> None:
    """Where the loop is gone the lease runs out, and the books forget the attempt."""
    world = World()

    async def begin() -> OpenAttempt:
        return await world.open()

    async def close() -> None:
        raise AssertionError

    attempt = asyncio.run(begin())
    attempt.dropped(close)
    assert not attempt.ended
    assert attempt not in world.books._open


async def test_shutdown_ends_everything() -> None:
    """At shutdown every open attempt is ended, and its settlement waited for."""
    world = World(ledger=Slow(clock=lambda: 0.0))
    attempt = await world.open()
    attempt.reader = stream(said=20)
    await world.books.close(5)
    assert attempt.result is not None
    assert attempt.result.outcome == "shutdown"
    assert (await world.balance()).held == 0


async def test_slow_stream_heartbeat_outlives_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease of an attempt in flight is renewed for as long as it is open, and no longer."""
    clock = [0.0]
    ledger = MemoryLedger(clock=lambda: clock[0], lease=30)
    world = World(ledger=ledger)
    beats: list[Any] = []

    class Handle:
        def cancel(self) -> None:
            beats.clear()

    def call_later(delay: float, callback: Any, *args: Any) -> Handle:
        assert delay < ledger.lease / 2
        beats.append((delay, callback, args))
        return Handle()

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", call_later)
    attempt = await world.open()
    for _ in range(20):
        ((delay, callback, args),) = beats
        beats.clear()
        clock[0] += delay
        callback(*args)
        for _ in range(3):
            await asyncio.sleep(0)
        assert (await world.balance()).held == WORST
    attempt.reader = stream(done=5)
    await attempt.streamed("ok")
    ((_, callback, args),) = beats
    beats.clear()
    callback(*args)
    assert beats == []
    assert (await world.balance()).spent == 40 + 50


async def test_background_work_that_fails_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """A task that outlives its caller and fails is logged by its type, not lost and not quoted."""
    world = World()

    async def fail() -> None:
        raise ValueError("secret")

    world.books.background.start(fail())
    await world.books.background.drain(5)
    await asyncio.sleep(0)
    gc.collect()
    assert "ValueError" in caplog.text
    assert "secret" not in caplog.text


async def test_a_ledger_that_fails_to_settle_does_not_take_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    """What was paid for reaches the app, whatever becomes of its settlement."""

    class Failing(MemoryLedger):
        async def settle(self, reservation: Any, cost: int, *, estimated: bool = False) -> bool:
            raise OSError("disk")

    world = World(ok(), ledger=Failing(clock=lambda: 0.0))
    assert (await world.dispatch().run()).response == "answer"
    assert "not settled" in caplog.text
